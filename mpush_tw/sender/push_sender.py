"""
The sender: what business code talks to (cluster 7).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from twisted.internet.defer import (
    Deferred,
    FirstError,
    fail,
    gatherResults,
    succeed,
)
from twisted.logger import Logger
from twisted.python.failure import Failure

from mpush_tw.errors import PushError, Unavailable
from mpush_tw.protocol.packet import DEFAULT_MAX_BODY
from mpush_tw.sender._link import CONNECT_TIMEOUT, GatewayPool
from mpush_tw.sender._request import UserPush
from mpush_tw.sender.context import (
    PushContext,
    check_order,
    several_users,
    single_user,
)
from mpush_tw.sender.directory import Address, IGatewayDirectory, StaticGateways
from mpush_tw.sender.result import AggregateResult, PushResult

WINDOW = 256
"""
Users of one L{PushSender.send_all} under way at a time: a list of any length neither
fills the table of open pushes nor the send buffers.
"""

_LAST_SESSION_ID = 2**31 - 1


class PushSender:
    """
    Pushes to users through the gateways of the nodes.

    In standalone mode the gateways are given by address and each is asked for every
    user (DESIGN 5c). Not thread-safe: call it in the reactor's thread, or use
    L{mpush_tw.sender.blocking}.
    """

    _log = Logger()

    def __init__(
        self,
        gateways: Sequence[Address] | IGatewayDirectory,
        *,
        reactor: Any,
        max_packet_size: int = DEFAULT_MAX_BODY,
        connections_per_gateway: int = 1,
    ) -> None:
        """
        @param gateways: Host and port of each gateway, or who knows them.
        @param reactor: Provides C{IReactorTCP} and C{IReactorTime}.
        @param max_packet_size: C{mp.core.max-packet-size} of the nodes, in bytes.
        @raise PushError: If there is no gateway, or a number below 1.
        """
        if max_packet_size < 1 or connections_per_gateway < 1:
            raise PushError("max_packet_size and connections_per_gateway start at 1")
        self._directory: Any = (
            gateways
            if IGatewayDirectory.providedBy(gateways)
            else StaticGateways(gateways)
        )
        self._reactor = reactor
        self._max_packet_size = max_packet_size
        self._connections_per_gateway = connections_per_gateway
        self._session_id = 0
        self._pool: GatewayPool | None = None
        self._pushes: set[UserPush] = set()

    @property
    def pending(self) -> int:
        """
        How many users' pushes are under way.
        """
        return len(self._pushes)

    def start(self) -> Deferred[None]:
        """
        Connect to the gateways, and stay connected until L{stop}.

        @return: A Deferred firing when the first gateway is connected. It fails with
            L{Unavailable} when none is after 4 seconds: the sender is stopped then
            and may be started again. It fails with L{PushError} on a second start,
            and if it is stopped meanwhile.
        """
        if self._pool is not None:
            return fail(PushError("the sender is started already"))
        pool = self._pool = GatewayPool(
            self._directory.gateways(),
            self._reactor,
            self._max_packet_size,
            self._connections_per_gateway,
        )
        started: Deferred[None] = Deferred()

        def give_up() -> None:
            problem = f"no gateway could be connected in {CONNECT_TIMEOUT:g} seconds"
            self._stop(pool, Unavailable(problem)).addErrback(
                lambda failure: self._log.failure("stopping went wrong", failure)
            )

        deadline = self._reactor.callLater(CONNECT_TIMEOUT, give_up)

        def connected(_: object) -> None:
            deadline.cancel()
            # In a turn of its own: this one is still inside the connecting, and a
            # caller who stops at once would stop what is not quite connected.
            self._reactor.callLater(0, announce)

        def announce() -> None:
            if self._pool is pool:
                started.callback(None)
            else:
                started.errback(PushError("the sender was stopped"))

        def not_connected(failure: Any) -> None:
            if deadline.active():
                deadline.cancel()
            started.errback(failure)

        pool.first_opened.addCallbacks(connected, not_connected)
        pool.start()
        return started

    def stop(self) -> Deferred[None]:
        """
        Close the connections. Pushes under way end as failures.

        @return: A Deferred firing when all is closed, after 4 seconds at the latest.
        """
        if self._pool is None:
            return succeed(None)
        return self._stop(self._pool, PushError("the sender was stopped"))

    def _stop(self, pool: GatewayPool, reason: Exception) -> Deferred[None]:
        """
        @param reason: What an unfinished start fails with.
        """
        self._pool = None
        # The connections first: the rest of a list must not go out on them now.
        stopped = pool.stop()
        for push in list(self._pushes):
            push.fail()
        if not pool.first_opened.called:
            pool.first_opened.errback(reason)
        return stopped

    def send(self, context: PushContext) -> Deferred[PushResult]:
        """
        Push to C{context.user_id}.

        @return: A Deferred firing with the result, whatever it is, within
            C{context.timeout}. It fails with L{PushError}, before anything is sent,
            if the context cannot be pushed or the sender is not started.
        """
        try:
            user_id = single_user(context)
            pool, payload = self._accept(context, [user_id])
        except PushError as error:
            return fail(error)
        return self._push(context, user_id, payload, pool)

    def send_all(self, context: PushContext) -> Deferred[AggregateResult]:
        """
        Push to each of C{context.user_ids}, at most L{WINDOW} of them at a time.

        The time-out runs for each user from the moment when its push is sent.

        @return: A Deferred firing with one result for each user. It fails with
            L{PushError}, before anything is sent, if the push to any of them would be
            refused.
        """
        try:
            users = several_users(context)
            pool, payload = self._accept(context, users)
        except PushError as error:
            return fail(error)
        results: dict[str, PushResult] = {}
        waiting = iter(users)

        async def work(waiting: Iterator[str]) -> None:
            for user_id in waiting:
                results[user_id] = await self._push(context, user_id, payload, pool)

        workers = gatherResults(
            [
                Deferred.fromCoroutine(work(waiting))
                for _ in range(min(WINDOW, len(users)))
            ],
            consumeErrors=True,
        )
        return workers.addCallbacks(
            lambda _: AggregateResult(tuple(results[user_id] for user_id in users)),
            _first_reason,
        )

    def _accept(
        self, context: PushContext, users: Sequence[str]
    ) -> tuple[GatewayPool, bytes]:
        payload = context.payload()
        check_order(context, payload, users, self._max_packet_size)
        if self._pool is None:
            raise PushError("the sender is not started")
        return self._pool, payload

    def _push(
        self, context: PushContext, user_id: str, payload: bytes, pool: GatewayPool
    ) -> Deferred[PushResult]:
        push = UserPush(
            context,
            user_id,
            payload,
            self._directory,
            pool,
            self._reactor,
            self._next_session_id,
        )
        self._pushes.add(push)

        def ended(result: Any) -> Any:
            self._pushes.discard(push)
            return result

        push.finished.addBoth(ended)
        push.start()
        return push.finished

    def _next_session_id(self) -> int:
        self._session_id = self._session_id % _LAST_SESSION_ID + 1
        return self._session_id


def _first_reason(failure: Failure) -> Failure:
    """
    Take what a list of Deferreds failed with out of its wrapping.
    """
    failure.trap(FirstError)
    reason: Failure = failure.value.subFailure  # type: ignore[union-attr]
    return reason
