"""
The fire drill: pushes go on while a node of a cluster is lost.

Devices are spread over the nodes, a sender pushes to all of them at a steady rate, and
one node is killed in between. Its devices go to the other nodes, but for a few that
stay away. What the sender was told is held against what the devices got.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

import attrs

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from mpush_tw.bench.crowd import Crowd
from mpush_tw.bench.ledger import Account, Ledger
from mpush_tw.sender import AckModel, PushContext, PushResult, PushSender, ResultCode

__all__ = ["Drill", "DrillReport", "DrillShape", "SteadyPushes"]

_TICK = 0.02
_AFTER_TIMEOUT = 2.0
"""
Seconds beyond a push's time-out after which a result that has not come never will.
"""


@attrs.frozen
class DrillShape:
    """
    The size of a drill.

    @ivar clients: Devices, one a user.
    @ivar stay_away: How many of the killed node's devices do not come back.
    @ivar rate: Pushes per second, to all users in turn.
    @ivar before: Seconds of pushes before the node is lost.
    @ivar after: Seconds of pushes after that.
    @ivar timeout: Seconds that one push may take.
    """

    clients: int = 2000
    stay_away: int = 50
    rate: float = 500.0
    before: float = 5.0
    after: float = 15.0
    timeout: float = 3.0


@attrs.frozen
class DrillReport:
    """
    What came of a drill.

    @ivar account: All pushes, those of the closing round included.
    @ivar closing: The closing round alone: one push to each user when all is over.
    @ivar lost_devices: How many were connected to the lost node.
    @ivar dropped: Devices of surviving nodes that lost their connection.
    @ivar back_seconds: From the loss until every device that comes back was bound.
    @ivar settled_seconds: From the loss until the last push that failed or timed out
        ended; 0 when none did.
    """

    account: Account
    closing: Account
    lost_devices: int
    dropped: int
    back_seconds: float
    settled_seconds: float

    @property
    def nothing_lost(self) -> bool:
        """
        Whether every push was accounted for and truly so, nobody got one twice, and
        the other nodes' devices noticed nothing.
        """
        return not self.dropped and all(
            account.adds_up and account.truthful and not account.twice
            for account in (self.account, self.closing)
        )


class SteadyPushes:
    """
    A sender that pushes at a steady rate, with automatic acknowledgement.

    @ivar ledger: What was sent and how it ended.
    @ivar last_failure: When a push last ended as failed or timed out, by the reactor's
        clock; 0 for never.
    """

    _log = Logger()

    def __init__(
        self, sender: PushSender, ledger: Ledger, timeout: float, reactor: Any
    ) -> None:
        self._sender = sender
        self.ledger = ledger
        self._timeout = timeout
        self._reactor = reactor
        self._loop: LoopingCall | None = None
        self.last_failure = 0.0

    def push(self, user_id: str) -> Deferred[ResultCode | None]:
        """
        Push once.

        @return: A Deferred firing with the result, C{None} when the sender refused.
        """
        number, content = self.ledger.next()
        context = PushContext(
            content=content,
            user_id=user_id,
            ack=AckModel.AUTO_ACK,
            timeout=self._timeout,
        )

        def ended(result: PushResult) -> ResultCode:
            self.ledger.ended(number, result.code)
            if result.code in (ResultCode.FAILURE, ResultCode.TIMEOUT):
                self.last_failure = self._reactor.seconds()
            return result.code

        def refused(failure: Failure) -> None:
            # It stays unanswered in the ledger, and so spoils the sums.
            self._log.failure("a push was refused", failure)

        return self._sender.send(context).addCallbacks(ended, refused)

    async def push_to_all(self, users: Sequence[str]) -> dict[str, ResultCode | None]:
        """
        Push once to each user, all at the same time.

        @return: The result of each.
        """
        waiting = {user_id: self.push(user_id) for user_id in users}
        return {user_id: await result for user_id, result in waiting.items()}

    def begin(self, users: Sequence[str], rate: float) -> None:
        """
        Push to the users in turn, so many times a second, until L{end}.
        """
        turn = cycle(users)
        start = self._reactor.seconds()
        sent = 0

        def tick() -> None:
            nonlocal sent
            due = int((self._reactor.seconds() - start) * rate)
            while sent < due:
                sent += 1
                self.push(next(turn))

        self._loop = LoopingCall(tick)
        self._loop.clock = self._reactor
        self._loop.start(_TICK).addErrback(
            lambda failure: self._log.failure("steady pushes broke off", failure)
        )

    async def end(self) -> None:
        """
        Push no more, and wait for what is under way; not much longer than its time-out,
        though.
        """
        if self._loop is not None:
            self._loop.stop()
            self._loop = None
        deadline = self._reactor.seconds() + self._timeout + _AFTER_TIMEOUT
        while self.ledger.open and self._reactor.seconds() < deadline:
            await deferLater(self._reactor, _TICK)


class Drill:
    """
    One drill on a running cluster of two nodes or more.
    """

    def __init__(
        self,
        shape: DrillShape,
        servers: Sequence[tuple[str, int]],
        public_key: str,
        sender: PushSender,
        lose: Callable[[], Deferred[int] | None],
        reactor: Any,
        progress: Callable[[str], object] = lambda text: None,
    ) -> None:
        """
        @param servers: Connect addresses of the nodes; the first one's is lost.
        @param sender: Started.
        @param lose: Takes the first node away; must not block. A Deferred is waited for
            before the drill ends.
        @param progress: Told what is going on.
        """
        self._shape = shape
        self._lose = lose
        self._reactor = reactor
        self._progress = progress
        ledger = Ledger()
        self._pushes = SteadyPushes(sender, ledger, shape.timeout, reactor)
        self._closing = SteadyPushes(sender, Ledger(), shape.timeout, reactor)
        self._users = [f"drill-{number}" for number in range(shape.clients)]
        self._doomed = self._users[:: len(servers)]

        def arrived(content: bytes) -> None:
            self._receiving.arrived(content)

        self._receiving = ledger
        self._crowd = Crowd(reactor, public_key, servers, self._users, arrived)

    async def run(self) -> DrillReport:
        """
        Do it all; the devices have left when this ends.

        @raise RuntimeError: If the devices cannot be bound, at first or after the loss.
        """
        try:
            return await self._run()
        finally:
            await self._pushes.end()
            await self._crowd.close()

    async def _run(self) -> DrillReport:
        shape, crowd, pushes = self._shape, self._crowd, self._pushes
        self._progress(f"{shape.clients} devices come")
        await crowd.come()
        self._progress(f"{shape.rate:g} pushes per second for {shape.before:g} s")
        pushes.begin(self._users, shape.rate)
        await deferLater(self._reactor, shape.before)
        self._progress(f"a node is lost; {shape.after:g} s more")
        away = self._doomed[: shape.stay_away]
        lost_at = self._reactor.seconds()
        losing = self._lose()
        await crowd.leave(away)
        back = await self._devices_back(len(self._doomed) - len(away))
        await deferLater(self._reactor, max(0.0, shape.after - back))
        await pushes.end()
        if losing is not None:
            await losing
        settled = max(0.0, pushes.last_failure - lost_at)
        self._progress("one push to each user")
        account = pushes.ledger.account()
        self._receiving = self._closing.ledger
        await self._closing.push_to_all(self._users)
        closing = self._closing.ledger.account()
        return DrillReport(
            account=account,
            closing=closing,
            lost_devices=len(self._doomed),
            dropped=crowd.drops - (len(self._doomed) - len(away)),
            back_seconds=back,
            settled_seconds=settled,
        )

    async def _devices_back(self, returning: int) -> float:
        """
        Wait until the devices that return have lost their node, which takes a moment
        when it stops in order, and are bound again.

        @return: Seconds that took.
        """
        start = self._reactor.seconds()
        deadline = start + self._shape.after
        while self._crowd.drops < returning:
            if self._reactor.seconds() > deadline:
                raise RuntimeError(
                    f"{self._crowd.drops} of {returning} devices have lost the node "
                    f"after {self._shape.after:g} s"
                )
            await deferLater(self._reactor, _TICK)
        await self._crowd.all_bound(deadline - self._reactor.seconds())
        taken: float = self._reactor.seconds() - start
        return taken
