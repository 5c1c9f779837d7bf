"""
The sender for scripts that have no reactor::

    with BlockingPushSender([("127.0.0.1", 3001)]) as sender:
        result = sender.send(PushContext(b"hello", user_id="alice"))

Where the reactor comes from is said in L{mpush_tw.reactor_thread}.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from mpush_tw.protocol.packet import DEFAULT_MAX_BODY
from mpush_tw.reactor_thread import ReactorStopped, ReactorThread
from mpush_tw.sender.context import PushContext
from mpush_tw.sender.directory import Address
from mpush_tw.sender.push_sender import PushSender
from mpush_tw.sender.result import AggregateResult, PushResult


class BlockingPushSender:
    """
    A L{PushSender} whose methods wait for the answer.

    They may be called from several threads at a time. Each raises what the Deferred
    would fail with, and C{RuntimeError} when it is called in the reactor's thread, for
    instance from a callback of a context: that thread would wait for itself.
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
        self._thread = ReactorThread(reactor)
        self._sender = PushSender(
            gateways,
            reactor=self._thread.reactor,
            max_packet_size=max_packet_size,
            connections_per_gateway=connections_per_gateway,
        )

    def start(self) -> None:
        """
        Connect; return when the first gateway is connected.

        @raise Unavailable: If none is after 4 seconds; it may be tried again.
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

    def __enter__(self) -> BlockingPushSender:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
