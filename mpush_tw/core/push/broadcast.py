"""
Broadcasts: one message to everybody who is online on this node (server 14.7).

A broadcast walks over a snapshot of the local table. It works in slices of a few
milliseconds, one slice a turn of the reactor for all broadcasts together, so that
pushes to single users keep their pace; its packet is made once and only sealed for each
connection. Every broadcast ends exactly once, with counts that add up (S-19).

What becomes of each connection of the snapshot::

    left, or bound to nobody by now      -> gone
    the condition says no                -> filtered
    its buffer is over the high mark     -> tried again some times, then busy
    the write failed                     -> failed
    written                              -> sent
    not reached: cancelled, or over mp.push.flow-control.broadcast.max -> left out
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Protocol

import attrs

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from mpush_tw.core.connection import Connection
from mpush_tw.core.flow import OverMaximum, WindowFlow
from mpush_tw.core.log import NodeLog
from mpush_tw.core.metrics import NodeMetrics
from mpush_tw.core.push.request import PushRequest
from mpush_tw.core.push.tasks import TaskControl
from mpush_tw.errors import Unavailable
from mpush_tw.protocol.prepared import PreparedPush

SLICE_SECONDS = 0.002
"""
How long all broadcasts together may work in one turn of the reactor.
"""

MAX_RUNNING = 256
"""
Broadcasts at a time; more are refused.
"""

_BUSY_DELAYS = (0.05, 0.2, 0.5, 1.0)
"""
Pauses before connections are tried again whose buffers were full.
"""


class Condition(Protocol):
    """
    Who is meant, see L{mpush_tw.core.push.conditions}.
    """

    first_error: str | None

    def matches(self, connection: Connection) -> bool: ...

    def close(self) -> None: ...


@attrs.define
class Counts:
    """
    What became of the connections of a broadcast's snapshot; see the module.

    @ivar online: All of them.
    """

    online: int = 0
    matched: int = 0
    sent: int = 0
    filtered: int = 0
    busy: int = 0
    gone: int = 0
    failed: int = 0
    left_out: int = 0

    def as_dict(self) -> dict[str, int]:
        return attrs.asdict(self)


class State(Enum):
    """
    What a broadcast does.
    """

    READY = "ready"
    WAITING = "waiting"
    ENDED = "ended"


class Broadcast:
    """
    One broadcast under way.

    @ivar request: What was asked for.
    @ivar counts: What has become of it so far.
    @ivar reason: Why it ended early: C{cancelled}, C{over-maximum}, C{stop}; empty if
        it did not.
    """

    def __init__(
        self,
        request: PushRequest,
        connections: list[Connection],
        message: PreparedPush | None,
        condition: Condition,
        flow: WindowFlow,
        task: TaskControl | None,
        clock: IReactorTime,
    ) -> None:
        """
        @param connections: The snapshot; taken over.
        @param message: C{None} only counts who would get it.
        """
        self.request = request
        self.condition = condition
        self.counts = Counts(online=len(connections))
        self.reason = ""
        self.state = State.READY
        self._connections = connections
        self._position = 0
        self._busy: list[Connection] = []
        self._busy_round = 0
        self._message = message
        self.flow = flow
        self.task = task
        self._clock = clock

    @property
    def dry_run(self) -> bool:
        return self._message is None

    def report(self) -> dict[str, object]:
        """
        Give what senders and operators are told: the counts, and C{reason} and
        C{error} where there is one.
        """
        told: dict[str, object] = dict(self.counts.as_dict())
        if self.reason:
            told["reason"] = self.reason
        if self.condition.first_error is not None:
            told["error"] = self.condition.first_error
        return told

    def work(self, until: float) -> float | None:
        """
        Go on until a point in time, a full window or the end.

        @return: Seconds to wait before going on; C{None} to go on at once or when the
            state says that it has ended.
        """
        try:
            room = len(self._connections) if self.dry_run else self.flow.room()
        except OverMaximum:
            self.end("over-maximum")
            return None
        if room == 0:
            return self.flow.delay()
        sent = self._walk(room, until)
        if not self.dry_run:
            self.flow.spend(sent)
        if self._position < len(self._connections):
            return None
        if not self._busy:
            self.state = State.ENDED
            return None
        if self._busy_round == len(_BUSY_DELAYS):
            self.counts.busy += len(self._busy)
            self._busy.clear()
            self.state = State.ENDED
            return None
        # Those that could not take it have some time to drain, then the rest of them
        # is gone over once more.
        self._connections, self._busy = self._busy, []
        self._position = 0
        self._busy_round += 1
        return _BUSY_DELAYS[self._busy_round - 1]

    def _walk(self, room: int, until: float) -> int:
        counts, message, condition = self.counts, self._message, self.condition
        seconds = self._clock.seconds
        matches = condition.matches
        connections = self._connections
        position, end = self._position, len(connections)
        again = self._busy_round > 0
        users: list[str] | None = None if self.task is None else []
        sent = 0
        while position < end and sent < room:
            connection = connections[position]
            position += 1
            user_id = connection.user_id
            if user_id is None or not connection.connected:
                counts.gone += 1
            elif not again and not matches(connection):
                counts.filtered += 1
            elif message is None:
                counts.matched += 1
            else:
                if not again:
                    counts.matched += 1
                if connection.busy:
                    self._busy.append(connection)
                elif connection.send_prepared(message):
                    sent += 1
                    if users is not None:
                        users.append(user_id)
                else:
                    counts.failed += 1
            if seconds() >= until:
                break
        self._position = position
        counts.sent += sent
        if self.task is not None:
            self.task.note(sent, users or ())
        return sent

    def end(self, reason: str) -> None:
        """
        End early.
        """
        self.reason = reason
        self.counts.left_out += len(self._connections) - self._position
        self.counts.busy += len(self._busy)
        self._position = len(self._connections)
        self._busy.clear()
        self.state = State.ENDED


class Broadcasts:
    """
    All broadcasts of a node: gives each its share of the reactor, in turn.
    """

    def __init__(
        self,
        clock: IReactorTime,
        log: NodeLog,
        metrics: NodeMetrics,
        ended: Callable[[Broadcast], None],
    ) -> None:
        """
        @param ended: Called once for each, when all that it did has been reported.
        """
        self._clock = clock
        self._log = log.push
        self._metrics = metrics
        self._ended = ended
        self._ready: deque[Broadcast] = deque()
        self._turn_call: IDelayedCall | None = None
        self._waits: dict[Broadcast, IDelayedCall] = {}
        self._running: dict[Broadcast, None] = {}

    def __len__(self) -> int:
        return len(self._running)

    @property
    def running(self) -> list[Broadcast]:
        """
        Those under way, oldest first.
        """
        return list(self._running)

    def add(self, broadcast: Broadcast) -> None:
        """
        Begin one.
        """
        self._running[broadcast] = None
        self._go_on(broadcast)

    def cancel(self, broadcast: Broadcast, reason: str = "cancelled") -> None:
        """
        End one early.
        """
        wait = self._waits.pop(broadcast, None)
        if wait is not None:
            wait.cancel()
        if broadcast.state is not State.ENDED:
            broadcast.end(reason)
            if broadcast in self._ready:
                self._ready.remove(broadcast)
            self._finish(broadcast)

    def stop(self) -> None:
        """
        End all of them: the node stops.
        """
        for broadcast in self.running:
            self.cancel(broadcast, "stop")
        if self._turn_call is not None:
            self._turn_call.cancel()
            self._turn_call = None

    def _go_on(self, broadcast: Broadcast) -> None:
        self._waits.pop(broadcast, None)
        broadcast.state = State.READY
        self._ready.append(broadcast)
        if self._turn_call is None:
            self._turn_call = self._clock.callLater(0, self._turn)

    def _turn(self) -> None:
        self._turn_call = None
        until = self._clock.seconds() + SLICE_SECONDS
        while self._ready:
            broadcast = self._ready.popleft()
            self._work(broadcast, until)
            if self._clock.seconds() >= until:
                break
        if self._ready and self._turn_call is None:
            self._turn_call = self._clock.callLater(0, self._turn)

    def _work(self, broadcast: Broadcast, until: float) -> None:
        try:
            wait = broadcast.work(until)
        except Exception:
            # A bug of ours or of a condition must not stop the others.
            self._log.failure("broadcast", Failure())
            broadcast.end("failed")
            wait = None
        if broadcast.state is State.ENDED:
            self._finish(broadcast)
        elif wait is None:
            self._ready.append(broadcast)
        else:
            self._wait(broadcast, wait)

    def _wait(self, broadcast: Broadcast, seconds: float) -> None:
        broadcast.state = State.WAITING
        if broadcast.task is None:
            self._waits[broadcast] = self._clock.callLater(
                seconds, self._go_on, broadcast
            )
            return
        asking = Deferred.fromCoroutine(
            self._between_windows(broadcast, broadcast.task)
        )
        asking.addErrback(self._asking_failed, broadcast)

        def asked(cancelled: bool) -> None:
            if broadcast.state is not State.WAITING:
                return
            if cancelled:
                self.cancel(broadcast)
                return
            self._waits[broadcast] = self._clock.callLater(
                broadcast.flow.delay(), self._go_on, broadcast
            )

        asking.addCallback(asked)

    def _asking_failed(self, failure: Failure, broadcast: Broadcast) -> bool:
        if failure.check(Unavailable):
            self._log.error(
                "broadcast goes on at its rate, its task cannot be read: {error}",
                error=failure.value,
            )
        else:
            self._log.failure("broadcast task", failure)
        return False

    async def _between_windows(self, broadcast: Broadcast, task: TaskControl) -> bool:
        """
        Report, and ask what the controller wants (server 14.8).

        @return: Whether the task has been cancelled.
        """
        if await task.cancelled():
            return True
        broadcast.flow.limit = await task.rate()
        await task.report()
        return False

    def _finish(self, broadcast: Broadcast) -> None:
        broadcast.condition.close()
        metrics = self._metrics
        for what, count in broadcast.counts.as_dict().items():
            if what not in ("online", "matched"):
                metrics.broadcast_connections[what] += count
        if broadcast.task is None:
            self._done(broadcast)
            return
        closing = Deferred.fromCoroutine(self._close_task(broadcast.task))
        closing.addErrback(self._asking_failed, broadcast)
        closing.addCallback(lambda _: self._done(broadcast))

    async def _close_task(self, task: TaskControl) -> None:
        await task.report()
        await task.finish()

    def _done(self, broadcast: Broadcast) -> None:
        self._running.pop(broadcast, None)
        self._ended(broadcast)
