"""
What the doors for devices have in common, whatever their packets look like.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from mpush_tw.core.connection import Connection
from mpush_tw.core.log import NodeLog
from mpush_tw.core.metrics import DoorMetrics
from mpush_tw.core.registry import Admission, Connections
from mpush_tw.protocol.body import Cipher
from mpush_tw.protocol.commands import Command
from mpush_tw.protocol.messages import (
    Error,
    FastConnectOk,
    HandshakeOk,
    HttpResponse,
    Ok,
)

LONG_PACKET = 16384
"""
Bytes from which on what was asked for may be longer than what may wait for a device:
whoever answers it bounds it.
"""

ANSWER_COMMANDS: dict[type, int] = {
    Ok: int(Command.OK),
    Error: int(Command.ERROR),
    HandshakeOk: int(Command.HANDSHAKE),
    FastConnectOk: int(Command.FAST_CONNECT),
    HttpResponse: int(Command.HTTP_PROXY),
}
"""
Which command an answer travels as.
"""


@implementer(IPushProducer)
class DeviceConnection(Connection):
    """
    A connection on a transport of ours: it is not read from while a handler is under
    way, nor while what it is sent piles up.
    """

    __slots__ = ("_closing", "_congested", "_reason", "_under_way", "transport")

    def __init__(self, cipher: Cipher | None, now: float) -> None:
        super().__init__(cipher, now)
        self._closing = False
        self._congested = False
        self._reason = "peer"
        self._under_way: Deferred[None] | None = None
        self.transport: Any = None

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport
        self.connectionMade()

    def connectionMade(self) -> None:
        raise NotImplementedError

    @property
    def peer(self) -> str:
        if self.transport is None:
            return "?"
        host, port = self.transport.client[:2]
        return f"{host}:{port}"

    @property
    def connected(self) -> bool:
        return not self._closing

    @property
    def busy(self) -> bool:
        return bool(self.transport.busy)

    def _arrived(
        self,
        connections: Connections,
        opened: Callable[[Connection], None],
        metrics: DoorMetrics,
        log: NodeLog,
    ) -> None:
        """
        Take note that it is open.
        """
        metrics.opened += 1
        connections.add(self)
        opened(self)
        if log.conn.info_on:
            log.conn.info("client connected conn={channel}", channel=self.channel())

    def _left(
        self,
        connections: Connections,
        admission: Admission,
        closed: Callable[[Connection], Deferred[None]],
        metrics: DoorMetrics,
        log: NodeLog,
    ) -> None:
        """
        Take note that it has ended.
        """
        metrics.closed[self._reason] += 1
        connections.remove(self)
        admission.release(self.transport.client[0])
        if log.conn.info_on:
            log.conn.info("client disconnected conn={conn}", conn=self)
        under_way, self._under_way = self._under_way, None
        if under_way is None:
            closed(self)
        else:
            # The handler that is under way must see the end of the routes it makes.
            under_way.addCallback(lambda _: closed(self))

    # --------------------------------------------------------- backpressure

    def _wait_for(self, under_way: Deferred[None]) -> None:
        """
        Read on when a handler has ended.
        """
        self._under_way = under_way
        self.transport.pauseProducing()
        under_way.addCallback(self._go_on)

    def _go_on(self, result: None) -> None:
        raise NotImplementedError

    def pauseProducing(self) -> None:
        self._congested = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self._congested = False
        if self._under_way is None and not self._closing:
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        pass

    def outbound_overflow(self) -> None:
        """
        Called by the transport when C{mp.limits.max-outbound} is passed.
        """
        self.abort("max-outbound")
