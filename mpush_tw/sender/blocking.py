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

from mpush_tw.protocol.packet import DEFAULT_MAX_BODY
from mpush_tw.reactor_thread import ReactorStopped, ReactorThread
from mpush_tw.sender.context import PushContext
from mpush_tw.sender.directory import Address
from mpush_tw.sender.push_sender import PushSender
from mpush_tw.sender.result import AggregateResult, PushResult


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

    def send_all(self, context: PushContext) -> AggregateResult:
        """
        Push to several users, see L{PushSender.send_all}.
        """
        return self._thread.wait(lambda: self._sender.send_all(context))

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
