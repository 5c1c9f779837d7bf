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
from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from mpush_tw.core.connection import Connection
from mpush_tw.core.flow import OverMaximum, WindowFlow
from mpush_tw.core.log import NodeLog
from mpush_tw.core.metrics import NodeMetrics
from mpush_tw.core.push.conditions import Condition
from mpush_tw.core.push.request import PushRequest
from mpush_tw.core.push.tasks import TaskControl
from mpush_tw.errors import Unavailable
from mpush_tw.protocol.broadcasts import BroadcastCounts
from mpush_tw.protocol.prepared import PreparedPush

_NO_LIMIT = 1 << 62

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


_BATCH = 256
"""
Connections that a condition is asked about at a time.
"""

_SCRIPT_SECONDS = 0.001
"""
After which it is worth looking again whether a script has decided.
"""


class Pause(NamedTuple):
    """
    How a broadcast goes on.

    @ivar seconds: How long it has to wait.
    @ivar window: Whether that is because a window is full: the moment to ask what the
        controller of its task wants.
    """

    seconds: float
    window: bool = False


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
        self.counts = BroadcastCounts(online=len(connections))
        self.reason = ""
        self.state = State.READY
        self._connections = connections
        self._position = 0
        self._asked: list[Connection] = []
        self._decided: deque[Connection] = deque()
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

    def work(self, until: float) -> Pause | None:
        """
        Go on until a point in time, a full window, a question that is not answered yet,
        or the end.

        @return: C{None} to go on at once, or when the state says that it has ended.
        """
        try:
            room = _NO_LIMIT if self.dry_run else self.flow.room()
        except OverMaximum:
            self.end("over-maximum")
            return None
        if room == 0:
            return Pause(self.flow.delay(), window=True)
        while self._decided or self._decide(until):
            sent = self._send(room, until)
            room -= sent
            if self._clock.seconds() >= until:
                return None
            if room == 0:
                return Pause(self.flow.delay(), window=True)
        if self._asked:
            return Pause(_SCRIPT_SECONDS)
        if self._position < len(self._connections):
            return None
        return self._try_busy_again()

    def _decide(self, until: float) -> bool:
        """
        Have it decided about more connections.

        @return: Whether there are some to send to now.
        """
        while not self._decided and self._clock.seconds() < until:
            if not self._asked:
                self._asked = self._take_batch()
                if not self._asked:
                    return False
                self.condition.ask(self._asked)
            answers = self.condition.answers()
            if answers is None:
                return False
            asked, self._asked = self._asked, []
            matching = [one for one, yes in zip(asked, answers, strict=True) if yes]
            self.counts.matched += len(matching)
            self.counts.filtered += len(asked) - len(matching)
            if not self.dry_run:
                self._decided.extend(matching)
        return bool(self._decided)

    def _take_batch(self) -> list[Connection]:
        """
        Take those of the snapshot that come next and are still there.
        """
        batch: list[Connection] = []
        while self._position < len(self._connections) and not batch:
            end = self._position + _BATCH
            some = self._connections[self._position : end]
            self._position += len(some)
            batch = [one for one in some if one.user_id is not None and one.connected]
            self.counts.gone += len(some) - len(batch)
        return batch

    def _send(self, room: int, until: float) -> int:
        counts, message, decided = self.counts, self._message, self._decided
        assert message is not None
        seconds = self._clock.seconds
        users: list[str] | None = None if self.task is None else []
        sent = 0
        while decided and sent < room:
            connection = decided.popleft()
            user_id = connection.user_id
            if user_id is None or not connection.connected:
                counts.gone += 1
            elif connection.busy:
                self._busy.append(connection)
            elif connection.send_prepared(message):
                sent += 1
                if users is not None:
                    users.append(user_id)
            else:
                counts.failed += 1
            if seconds() >= until:
                break
        counts.sent += sent
        if sent:
            self.flow.spend(sent)
        if self.task is not None:
            self.task.note(sent, users or ())
        return sent

    def _try_busy_again(self) -> Pause | None:
        """
        All have been gone over: give those some time that could not take it.
        """
        if not self._busy:
            self.state = State.ENDED
            return None
        if self._busy_round == len(_BUSY_DELAYS):
            self.counts.busy += len(self._busy)
            self._busy.clear()
            self.state = State.ENDED
            return None
        self._decided.extend(self._busy)
        self._busy.clear()
        self._busy_round += 1
        return Pause(_BUSY_DELAYS[self._busy_round - 1])

    def end(self, reason: str) -> None:
        """
        End early.
        """
        self.reason = reason
        self.counts.left_out += (
            len(self._connections)
            - self._position
            + len(self._asked)
            + len(self._decided)
        )
        self.counts.busy += len(self._busy)
        self._position = len(self._connections)
        self._asked = []
        self._decided.clear()
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
            pause = broadcast.work(until)
        except Exception:
            # A bug of ours or of a condition must not stop the others.
            self._log.failure("broadcast", Failure())
            broadcast.end("failed")
            pause = None
        if broadcast.state is State.ENDED:
            self._finish(broadcast)
        elif pause is None:
            self._ready.append(broadcast)
        else:
            self._wait(broadcast, pause)

    def _wait(self, broadcast: Broadcast, pause: Pause) -> None:
        broadcast.state = State.WAITING
        if broadcast.task is None or not pause.window:
            self._waits[broadcast] = self._clock.callLater(
                pause.seconds, self._go_on, broadcast
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
