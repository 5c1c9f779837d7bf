"""
The protocol of one TCP connection: bytes to packets, and when to stop reading or
writing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
    ITransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mpush_tw.client.errors import BadPacket, ClientError, Disconnected, TooManyPending
from mpush_tw.errors import ProtocolError
from mpush_tw.protocol.packet import Packet, PacketDecoder

CLOSE_TIMEOUT = 2.0
"""
Seconds that a closing connection may take to write what it holds; then it is aborted.
"""

_BY_NETWORK = 1
_BY_APPLICATION = 2


class PacketReceiver(Protocol):
    """
    Who is told what comes over a L{Wire}. Nothing is told after L{Wire.close} but
    C{wire_closed}.
    """

    def wire_opened(self) -> None: ...

    def packet_received(
        self, command: int, flags: int, session_id: int, body: bytes
    ) -> None:
        """
        @raise ProtocolError: If the packet cannot be understood.
        """
        ...

    def wire_failed(self, reason: ClientError) -> None:
        """
        The server sent what cannot be understood, or closed the connection. The
        receiver calls L{Wire.close}.
        """
        ...

    def wire_closed(self) -> None:
        """
        The transport is gone.
        """
        ...


@implementer(IProtocol, IPushProducer)
class Wire:
    """
    Provides C{IProtocol} without inheriting from C{twisted.internet.protocol.Protocol},
    whose instances have a dictionary each; a process may run thousands of clients. It
    is the producer of its transport so as to learn when the network takes no more.

    @ivar closed: Set by L{close}: from then on nothing is read or written.
    @ivar transport: C{None} before the connection is made and after it is lost.
    @ivar last_read: When bytes last arrived, by the clock.
    @ivar last_write: When something was last written.
    @ivar heard: Set whenever bytes arrive; who wants to see whether some do clears it.
    @ivar choked: Whether the network takes no more for now.
    """

    _log = Logger()

    __slots__ = (
        "_backlog",
        "_clock",
        "_closing",
        "_decoder",
        "_held",
        "_max_queued",
        "_packets",
        "_paused",
        "_queued",
        "_receiver",
        "choked",
        "closed",
        "heard",
        "last_read",
        "last_write",
        "transport",
    )

    def __init__(
        self,
        receiver: PacketReceiver,
        clock: IReactorTime,
        max_packet_size: int,
        max_queued: int,
    ) -> None:
        """
        @param max_packet_size: Largest body accepted, in bytes.
        @param max_queued: Packets that may be written while the network is choked.
        """
        self.transport: ITCPTransport | None = None
        self.closed = False
        self.heard = False
        self.choked = False
        self.last_read = self.last_write = 0.0
        self._receiver = receiver
        self._clock = clock
        self._decoder = PacketDecoder(max_packet_size)
        self._max_queued = max_queued
        self._queued = 0
        # Why packets are not handled, whether reading is paused therefore, and what
        # waits meanwhile.
        self._held = 0
        self._paused = False
        self._packets: Iterator[Packet] | None = None
        self._backlog = b""
        self._closing: IDelayedCall | None = None

    # -- IProtocol --

    def makeConnection(self, transport: ITransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        if IConsumer.providedBy(transport):
            transport.registerProducer(self, True)
        self.last_read = self.last_write = self._clock.seconds()
        if self.closed:
            # Given up while the connect was under way.
            self.close()
        else:
            self.connectionMade()

    def connectionMade(self) -> None:
        self._receiver.wire_opened()

    def logPrefix(self) -> str:
        return "mpush client"

    def dataReceived(self, data: bytes) -> None:
        if self.closed:
            return
        self.heard = True
        self.last_read = self._clock.seconds()
        if self._held:
            # TCP brings nothing more once it is paused; TLS may bring what it has
            # decrypted already.
            self._backlog += data
            self._pause_reading()
            return
        self._handle(self._decoder.receive(data))

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        self._closing = None
        self.transport = None
        if not self.closed:
            text = "the server closed the connection"
            if not reason.check(ConnectionDone):
                text = reason.getErrorMessage()
            self._receiver.wire_failed(Disconnected(text))
        self._receiver.wire_closed()

    # -- reading --

    def _handle(self, packets: Iterator[Packet]) -> None:
        """
        Handle packets in order, until they run out, the connection ends, or reading is
        held up.
        """
        reason = None
        try:
            for packet in packets:
                self._receiver.packet_received(*packet)
                if self.closed:
                    return
                if self._held:
                    self._packets = packets
                    return
        except ProtocolError as error:
            reason = BadPacket(str(error))
        except Exception:
            self._log.failure("a packet could not be handled")
            reason = BadPacket("a packet could not be handled")
        if reason is not None and not self.closed:
            self._receiver.wire_failed(reason)

    def hold(self) -> None:
        """
        Stop reading: the application has too much in hand.
        """
        self._held |= _BY_APPLICATION
        self._pause_reading()

    def release(self) -> None:
        """
        Go on reading after L{hold}.
        """
        self._go_on(_BY_APPLICATION)

    @property
    def held(self) -> bool:
        """
        Whether L{hold} is in effect.
        """
        return bool(self._held & _BY_APPLICATION)

    def _pause_reading(self) -> None:
        if not self._paused and self.transport is not None:
            self._paused = True
            self._reader().pauseProducing()

    def _go_on(self, cause: int) -> None:
        """
        Handle what has waited, and read on, unless there is another cause not to.
        """
        if not self._held & cause:
            return
        self._held &= ~cause
        if self._held or self.closed or self.transport is None:
            return
        # Silence while we did not listen proves nothing about the server.
        self.last_read = self._clock.seconds()
        packets, self._packets = self._packets, None
        if packets is not None:
            self._handle(packets)
        if self._backlog and not self._held and not self.closed:
            data, self._backlog = self._backlog, b""
            self._handle(self._decoder.receive(data))
        if self._paused and not self._held and not self.closed:
            self._paused = False
            self._reader().resumeProducing()

    def _reader(self) -> IPushProducer:
        return self.transport  # type: ignore[return-value]

    # -- IPushProducer: what the transport says about the network --

    def pauseProducing(self) -> None:
        """
        The network takes no more for now. We handle no more either, so that a server
        which does not read our answers cannot make us pile them up.

        Reading itself goes on until there is something to handle: TLS says that it
        takes no more while it waits for the server's part of its own handshake, which
        would never be read otherwise.

        Transports say so again with every write beyond their limit.
        """
        if not self.choked:
            self.choked = True
            self._queued = 0
            self._held |= _BY_NETWORK

    def resumeProducing(self) -> None:
        self.choked = False
        self._go_on(_BY_NETWORK)

    def stopProducing(self) -> None:
        """
        The transport is going away; C{connectionLost} follows.
        """

    # -- writing --

    def write(self, data: bytes) -> None:
        """
        Send one packet.

        @raise Disconnected: If there is nothing to write to.
        @raise TooManyPending: If the network has not taken C{max_queued} packets yet.
        """
        if self.closed or self.transport is None:
            raise Disconnected("not connected")
        if self.choked:
            if self._queued >= self._max_queued:
                raise TooManyPending("the network is too slow")
            self._queued += 1
        self.last_write = self._clock.seconds()
        self.transport.write(data)

    def close(self) -> None:
        """
        End it from our side. What the transport holds still goes out, within
        L{CLOSE_TIMEOUT}. If the connection is only made after this, it is closed and
        the receiver hears no more than C{wire_closed}.
        """
        self.closed = True
        self._packets = None
        self._backlog = b""
        transport = self.transport
        if transport is None or self._closing is not None:
            return
        if IConsumer.providedBy(transport):
            # A registered producer would keep the transport open.
            transport.unregisterProducer()
        self._closing = self._clock.callLater(CLOSE_TIMEOUT, self._abort)
        transport.loseConnection()

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.abortConnection()


@implementer(IProtocolFactory)
class WireFactory:
    """
    Hands one protocol to one endpoint.
    """

    __slots__ = ("_wire",)

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def buildProtocol(self, addr: IAddress) -> IProtocol:
        return self._wire

    def doStart(self) -> None:
        """
        Nothing to prepare.
        """

    def doStop(self) -> None:
        """
        Nothing to clean up.
        """
