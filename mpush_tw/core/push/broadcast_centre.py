"""
From a request to push to everybody to a broadcast, and back to its sender (server
14.7).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from mpush_tw.broadcast_task import BroadcastTask
from mpush_tw.core.flow import WindowFlow
from mpush_tw.core.log import NodeLog
from mpush_tw.core.metrics import NodeMetrics
from mpush_tw.core.push.broadcast import MAX_RUNNING, Broadcast, Broadcasts
from mpush_tw.core.push.conditions import Condition
from mpush_tw.core.push.message_ids import MessageIds
from mpush_tw.core.push.request import Outcome, PushRequest
from mpush_tw.core.push.tasks import TaskControl
from mpush_tw.core.push.traces import Traces
from mpush_tw.core.routing.local import LocalRoutes
from mpush_tw.errors import Unavailable
from mpush_tw.interfaces import ICache
from mpush_tw.protocol.prepared import PreparedPush

TASK_WINDOW = 1.0
"""
Seconds of a window of a broadcast with a task: its rate is per second (server 14.6).
"""

_FAILED = ("failed", "stop")

ConditionFor = Callable[[str | None, tuple[str, ...] | None], Condition]
"""
Makes the condition of a request from its script and its tags.
"""


class BroadcastLimits(NamedTuple):
    """
    C{mp.push.flow-control.broadcast}: may be replaced while the node runs, for
    broadcasts that begin then.

    @ivar limit: Messages per window of a broadcast without a task.
    @ivar maximum: Messages of any broadcast in all.
    @ivar duration: The window in seconds.
    """

    limit: int
    maximum: int
    duration: float


class BroadcastCentre:
    """
    Begins broadcasts and tells their listeners how they ended, each exactly once.

    @ivar limits: For broadcasts that begin from now on.
    """

    def __init__(
        self,
        local: LocalRoutes,
        cache: ICache,
        limits: BroadcastLimits,
        condition_for: ConditionFor,
        ids: MessageIds,
        traces: Traces,
        compress_threshold: int,
        clock: IReactorTime,
        log: NodeLog,
        metrics: NodeMetrics,
    ) -> None:
        """
        @param compress_threshold: C{mp.core.compress-threshold}, in bytes.
        """
        self._local = local
        self._cache = cache
        self.limits = limits
        self._condition_for = condition_for
        self._ids = ids
        self._traces = traces
        self._compress_threshold = compress_threshold
        self._clock = clock
        self._node_log = log
        self._log = log.push
        self._metrics = metrics
        self._broadcasts = Broadcasts(clock, log, metrics, self._ended)
        self._beginning = 0
        self._counting: dict[Broadcast, Deferred[Broadcast]] = {}

    @property
    def running(self) -> list[Broadcast]:
        """
        Those under way, dry runs included.
        """
        return self._broadcasts.running

    def begin(self, request: PushRequest) -> None:
        """
        Begin to push to everybody; called by the push centre, which has checked the
        content.
        """
        self._log.info("broadcast begins, message={message}", message=request)
        if len(self._broadcasts) + self._beginning >= MAX_RUNNING:
            self._log.error(
                "{count} broadcasts are under way, message={message} refused",
                count=MAX_RUNNING,
                message=request,
            )
            self._finish(request, Outcome.FAILURE)
            return
        if request.task_id is None:
            limit, maximum, duration = self.limits
            self._add(request, WindowFlow(self._clock, limit, maximum, duration), None)
            return
        self._beginning += 1
        beginning = Deferred.fromCoroutine(self._begin_task(request, request.task_id))
        beginning.addErrback(self._not_begun, request)

        def begun(result: None) -> None:
            self._beginning -= 1

        beginning.addCallback(begun)

    async def _begin_task(self, request: PushRequest, task_id: str) -> None:
        task = TaskControl(self._cache, task_id, self._node_log)
        rate = await task.rate()
        flow = WindowFlow(self._clock, rate, self.limits.maximum, TASK_WINDOW)
        self._add(request, flow, task)

    def _not_begun(self, failure: Failure, request: PushRequest) -> None:
        # Whatever the store did, the sender is told (S-16).
        if failure.check(Unavailable):
            self._log.error(
                "task of a broadcast not readable, message={message}: {error}",
                message=request,
                error=failure.value,
            )
        else:
            self._log.failure("broadcast", failure)
        self._finish(request, Outcome.FAILURE)

    def _add(
        self, request: PushRequest, flow: WindowFlow, task: TaskControl | None
    ) -> None:
        content = request.content
        assert content is not None
        request.points.append(("before-send", int(self._clock.seconds() * 1000)))
        message = PreparedPush(self._ids.next(), content, self._compress_threshold)
        self._broadcasts.add(
            Broadcast(
                request,
                list(self._local),
                message,
                self._condition_for(request.condition, request.tags),
                flow,
                task,
                self._clock,
            )
        )

    def count(self, request: PushRequest) -> Deferred[Broadcast]:
        """
        Count who would get a broadcast now, without sending (a dry run).

        @param request: Its condition and tags count; its listener is not told.
        @return: A Deferred firing with the ended dry run. It fails with L{Unavailable}
            when too many are under way.
        """
        answer: Deferred[Broadcast] = Deferred()
        request.started = self._clock.seconds()
        if len(self._broadcasts) + self._beginning >= MAX_RUNNING:
            answer.errback(Unavailable(f"{MAX_RUNNING} broadcasts are under way"))
            return answer
        dry_run = Broadcast(
            request,
            list(self._local),
            None,
            self._condition_for(request.condition, request.tags),
            WindowFlow(self._clock, 1, 1, 1.0),
            None,
            self._clock,
        )
        self._counting[dry_run] = answer
        self._broadcasts.add(dry_run)
        return answer

    def task(self, task_id: str) -> BroadcastTask:
        """
        Give the control of a task in the store of this node.
        """
        return BroadcastTask(self._cache, task_id)

    def cancel(self, broadcast: Broadcast) -> None:
        """
        End one early; an operator asked for it.
        """
        self._broadcasts.cancel(broadcast)

    def stop(self) -> None:
        """
        End all of them as failures: the node stops.
        """
        self._broadcasts.stop()

    def _ended(self, broadcast: Broadcast) -> None:
        counting = self._counting.pop(broadcast, None)
        if counting is not None:
            counting.callback(broadcast)
            return
        request = broadcast.request
        request.report = broadcast.report()
        self._log.info(
            "broadcast ends, counts={counts}, message={message}",
            counts=request.report,
            message=request,
        )
        if broadcast.condition.first_error is not None:
            self._log.warn(
                "condition of a broadcast failed: {error}, message={message}",
                error=broadcast.condition.first_error,
                message=request,
            )
        failed = broadcast.reason in _FAILED
        self._finish(request, Outcome.FAILURE if failed else Outcome.BROADCAST_COMPLETE)

    def _finish(self, request: PushRequest, outcome: Outcome) -> None:
        now = self._clock.seconds()
        request.points.append((outcome.milestone, int(now * 1000)))
        self._metrics.broadcast_results[outcome.value] += 1
        self._traces.note(request, outcome)
        request.listener.push_finished(request, outcome, request.points)
