"""
The sender for scripts that have no reactor::

    with BlockingPushSender([("127.0.0.1", 3001)]) as sender:
        result = sender.send(PushContext(b"hello", user_id="alice"))

In a cluster C{mpush_tw.cluster.blocking_cluster_sender(FILE)} takes the place of
C{BlockingPushSender(ADDRESSES)}. Where the reactor comes from is said in
L{mpush_tw.reactor_thread}.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from twisted.internet.defer import Deferred, succeed

from mpush_tw.broadcast_task import IBroadcastTask
from mpush_tw.protocol.packet import DEFAULT_MAX_BODY
from mpush_tw.reactor_thread import ReactorStopped, ReactorThread
from mpush_tw.sender._batch import Progress
from mpush_tw.sender._queries import QUERY_TIMEOUT
from mpush_tw.sender.audience import AudienceCount, BroadcastResult, Wait
from mpush_tw.sender.context import PushContext
from mpush_tw.sender.directory import Address
from mpush_tw.sender.push_sender import PushSender
from mpush_tw.sender.result import AggregateResult, PushResult
from mpush_tw.sender.trace import Trace


class BlockingSender:
    """
    A L{PushSender} whose methods wait for the answer.

    They may be called from several threads at a time. Each raises what the Deferred
    would fail with, and C{RuntimeError} when it is called in the reactor's thread, for
    instance from a callback of a context: that thread would wait for itself.
    """

    def __init__(
        self,
        make_sender: Callable[[Any], PushSender],
        *,
        reactor: object | None = None,
    ) -> None:
        """
        @param make_sender: Makes the sender, given the reactor; called in its thread,
            once. What it raises is raised here.
        @param reactor: As for L{ReactorThread}.
        """
        self._thread = ReactorThread(reactor)

        def make() -> Deferred[PushSender]:
            return succeed(make_sender(self._thread.reactor))

        self._sender = self._thread.wait(make)

    def start(self) -> None:
        """
        Connect, see L{PushSender.start}.

        @raise Unavailable: If no gateway, or no store of the cluster, can be reached;
            it may be tried again.
        """
        self._thread.wait(self._sender.start)

    def stop(self) -> None:
        """
        Close the connections; pushes under way end as failures. Nothing is left to do
        if the reactor has been stopped.
        """
        try:
            self._thread.wait(self._sender.stop)
        except ReactorStopped:
            pass

    def send(self, context: PushContext) -> PushResult:
        """
        Push to one user, see L{PushSender.send}.
        """
        return self._thread.wait(lambda: self._sender.send(context))

    def send_all(
        self,
        context: PushContext,
        progress: Progress | None = None,
        *,
        timeout: float | None = None,
    ) -> AggregateResult:
        """
        Push to several users, see L{PushSender.send_all}.

        @param progress: Called in the reactor's thread.
        @param timeout: Seconds for the whole list: after them there are the results
            that there are. C{None} for as long as it takes.
        """

        def send() -> Deferred[AggregateResult]:
            sending = self._sender.send_all(context, progress)
            if timeout is not None:
                sending.addTimeout(timeout, self._thread.reactor)
            return sending

        return self._thread.wait(send)

    def broadcast(self, context: PushContext, wait: Wait = Wait.ALL) -> BroadcastResult:
        """
        Push to everybody, see L{PushSender.broadcast}.
        """
        return self._thread.wait(lambda: self._sender.broadcast(context, wait))

    def count(
        self,
        condition: str | None = None,
        tags: Sequence[str] | None = None,
        timeout: float = QUERY_TIMEOUT,
    ) -> AudienceCount:
        """
        Ask whom a broadcast would reach, see L{PushSender.count}.
        """
        return self._thread.wait(lambda: self._sender.count(condition, tags, timeout))

    def trace(self, trace_id: str, timeout: float = QUERY_TIMEOUT) -> Trace:
        """
        Ask what became of a push, see L{PushSender.trace}.
        """
        return self._thread.wait(lambda: self._sender.trace(trace_id, timeout))

    def task(self, task_id: str, timeout: float = QUERY_TIMEOUT) -> BlockingTask:
        """
        Give the control of a broadcast, see L{PushSender.task}.
        """
        return BlockingTask(
            self._thread, lambda: self._sender.task(task_id, timeout), task_id
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


class BlockingTask:
    """
    The control of a broadcast, see L{IBroadcastTask}; made by L{BlockingSender.task}.
    """

    def __init__(
        self, thread: ReactorThread, task: Callable[[], IBroadcastTask], task_id: str
    ) -> None:
        """
        @param task: Gives the task, in the reactor's thread.
        """
        self.task_id = task_id
        self._thread = thread
        self._task = task

    def set_rate(self, per_second: int) -> None:
        """
        Say how many messages a second each node may send.
        """
        self._thread.wait(lambda: self._task().set_rate(per_second))

    def cancel(self) -> None:
        """
        End the broadcast.
        """
        self._thread.wait(lambda: self._task().cancel())

    def progress(self) -> int:
        """
        Tell how many messages have been sent so far.
        """
        sent: int = self._thread.wait(lambda: self._task().progress())
        return sent

    def users(self, first: int = 0, most: int = 1000) -> list[str]:
        """
        List users that have been reached, the earliest first.
        """
        users: list[str] = self._thread.wait(lambda: self._task().users(first, most))
        return users


class BlockingPushSender(BlockingSender):
    """
    A blocking sender for gateways that are given by address.
    """

    def __init__(
        self,
        gateways: Sequence[Address],
        *,
        reactor: object | None = None,
        max_packet_size: int = DEFAULT_MAX_BODY,
        connections_per_gateway: int = 1,
    ) -> None:
        """
        @param reactor: As for L{ReactorThread}.
        @raise PushError: As L{PushSender} does.
        """
        super().__init__(
            lambda running: PushSender(
                gateways,
                reactor=running,
                max_packet_size=max_packet_size,
                connections_per_gateway=connections_per_gateway,
            ),
            reactor=reactor,
        )
