"""
Listening with our own transport: it sends at once when nothing is queued.

The stock C{write} queues, and lets the reactor find out in its next turn that the
socket can be written: two C{epoll_ctl} calls and a turn for each small packet. Sending
directly and queueing only what the kernel did not take costs less than half (DESIGN 6).
What is queued is bounded: above the high mark the connection is I{busy} until it is
below the low one, and C{max_queued} bytes more end it (DESIGN 5b).
"""

from __future__ import annotations

import errno
import socket
from typing import Any, NamedTuple, cast

from twisted.application.service import Service
from twisted.internet import main, tcp
from twisted.internet.address import IPv6Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorTCP, IReactorTime
from twisted.internet.protocol import ServerFactory

from mpush_tw.errors import ConfigError

_WOULD_BLOCK = (errno.EWOULDBLOCK, errno.EAGAIN, errno.ENOBUFS)
_BACKLOG = 1024


class OutboundLimits(NamedTuple):
    """
    How much may wait to be sent on one connection, in bytes.

    @ivar low: Below it a busy connection is writable again.
    @ivar high: Above it a connection is busy.
    @ivar max_queued: Above it the connection is aborted; 0 means no bound.
    """

    low: int
    high: int
    max_queued: int


class WriteThroughServer(tcp.Server):
    """
    A C{tcp.Server} whose C{write} goes through to the socket.

    Its instances are as small as they can be made: strings for logs are built when
    they are asked for.

    @ivar busy: Whether more is queued than the high mark, and has been since it was
        last below the low one.
    @ivar granted: Bytes written by L{write_granted} since the queue was last short.
    """

    read_size = 16384
    logstr = "mpush"
    busy = False
    granted = 0

    def __init__(
        self,
        sock: socket.socket,
        protocol: Any,
        client: Any,
        server: Any,
        sessionno: int,
        reactor: Any,
        limits: OutboundLimits,
    ) -> None:
        # Not the base class's, which formats two strings for each connection.
        tcp.Connection.__init__(self, sock, protocol, reactor)
        if len(client) != 2:
            self._addressType = IPv6Address
        self.server = server
        self.client = client
        self.sessionno = sessionno
        self.hostname = client[0]
        self.limits = limits
        # When a streaming producer is registered it is paused at the high mark too.
        self.bufferSize = limits.high
        self.startReading()  # type: ignore[no-untyped-call]
        self.connected = 1

    def __repr__(self) -> str:
        return f"<{type(self.protocol).__name__} #{self.sessionno}>"

    @property
    def queued(self) -> int:
        """
        Bytes that the kernel has not taken yet.
        """
        return len(self.dataBuffer) - self.offset + self._tempDataLen

    def doRead(self) -> Any:
        """
        Hand what has arrived to the protocol; called by the reactor.
        """
        try:
            data = self.socket.recv(self.read_size)
        except OSError as error:
            if error.errno in _WOULD_BLOCK:
                return None
            return main.CONNECTION_LOST
        if not data:
            return main.CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None

    def write(self, data: bytes) -> None:
        """
        Send, or queue what cannot be sent now.

        A broken connection is not reported from here: the rest is queued, and the
        reactor finds out in its own turn, so that no caller is re-entered.
        """
        if (
            self.connected
            and not self._tempDataLen
            and not self.dataBuffer
            and not self._writeDisconnected
            and not self.TLS
        ):
            try:
                sent = self.socket.send(data)
            except OSError:
                sent = 0
            if sent == len(data):
                if self.granted:
                    self.granted = 0
                return
            data = data[sent:]
        if self._aborting:
            return
        super().write(data)  # type: ignore[no-untyped-call]
        queued = self.queued
        if queued > self.limits.high:
            self.busy = True
            allowed = self.limits.high + self.granted
            if 0 < self.limits.max_queued < queued - allowed:
                overflow = getattr(self.protocol, "outbound_overflow", None)
                if overflow is not None:
                    # So that the protocol knows at once, and why.
                    overflow()
                else:
                    self.abortConnection()  # type: ignore[no-untyped-call]

    def write_granted(self, data: bytes) -> None:
        """
        Write something that the peer has asked for, and that may be longer than all
        that is allowed to wait: it does not count against C{max_queued}. The caller
        bounds how much of this there is.
        """
        self.granted += len(data)
        self.write(data)

    def doWrite(self) -> Any:
        """
        Send more of the queue; called by the reactor.
        """
        result = super().doWrite()  # type: ignore[no-untyped-call]
        if self.busy and self.queued < self.limits.low:
            self.busy = False
            self.granted = 0
        return result


class ListeningService(Service):
    """
    Opens one port with L{WriteThroughServer} transports.

    @ivar key: The setting that names the port, for error messages.
    """

    def __init__(
        self,
        reactor: IReactorTCP,
        port: int,
        interface: str,
        factory: ServerFactory,
        limits: OutboundLimits,
        key: str,
        send_buffer: int = 0,
        receive_buffer: int = 0,
        accept_rate: int = 0,
        keep_alive: bool = False,
    ) -> None:
        """
        @param interface: Address to bind, empty for all.
        @param send_buffer: C{SO_SNDBUF} of accepted sockets, 0 to leave it alone.
        @param receive_buffer: Likewise C{SO_RCVBUF}.
        @param accept_rate: Accepts per second above which accepting pauses; 0 for no
            limit.
        @param keep_alive: Have the kernel find out peers whose machine has vanished:
            for doors without a heartbeat.
        """
        self._reactor = reactor
        self._port_number = port
        self._interface = interface
        self._factory = factory
        self._limits = limits
        self.key = key
        self._send_buffer = send_buffer
        self._receive_buffer = receive_buffer
        self._accept_rate = accept_rate
        self._keep_alive = keep_alive
        self._accepted = 0
        self._window = 0.0
        self._paused = False
        self._held = False
        self.pauses = 0
        self._port: Any = None

    @property
    def port(self) -> int:
        """
        The port that is open, 0 before.
        """
        return 0 if self._port is None else cast(int, self._port.getHost().port)

    def open(self) -> None:
        """
        Open the port. Called by the service that owns the order of the start.

        @raise ConfigError: If it cannot be opened; the sentence names the key.
        """
        try:
            self._port = self._reactor.listenTCP(
                self._port_number, self._factory, _BACKLOG, self._interface
            )
        except CannotListenError as error:
            where = self._interface or "every address"
            raise ConfigError(
                self.key,
                f"port {self._port_number} on {where} cannot be opened: "
                f"{error.socketError.strerror or error.socketError}",
            ) from None
        # In the turn that opened it, so before the first accept.
        self._port.transport = self._transport
        listening = getattr(self._port, "socket", None)
        if listening is not None:
            # Accepted sockets inherit these on Linux: nothing to set for each one.
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            listening.setsockopt(
                socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(self._keep_alive)
            )
            for option, size in (
                (socket.SO_SNDBUF, self._send_buffer),
                (socket.SO_RCVBUF, self._receive_buffer),
            ):
                if size > 0:
                    listening.setsockopt(socket.SOL_SOCKET, option, size)

    def pause(self) -> None:
        """
        Accept nobody for now; who connects waits in the kernel.
        """
        self._held = True
        self._port.stopReading()

    def resume(self) -> None:
        """
        Accept again after L{pause}. Does nothing when the port is not open.
        """
        self._held = False
        if self._port is not None and not self._paused:
            self._port.startReading()

    def close(self) -> Deferred[None]:
        """
        Stop accepting. Idempotent.
        """
        port, self._port = self._port, None
        if port is None:
            return maybeDeferred(lambda: None)
        return maybeDeferred(port.stopListening)

    def _transport(
        self,
        sock: socket.socket,
        protocol: Any,
        client: Any,
        server: Any,
        sessionno: int,
        reactor: Any,
    ) -> WriteThroughServer:
        if self._accept_rate:
            self._count_accept()
        return WriteThroughServer(
            sock, protocol, client, server, sessionno, reactor, self._limits
        )

    def _count_accept(self) -> None:
        clock = cast(IReactorTime, self._reactor)
        now = clock.seconds()
        if now - self._window >= 1.0:
            self._window, self._accepted = now, 0
        self._accepted += 1
        if self._accepted >= self._accept_rate and not self._paused:
            # The backlog of the kernel holds the rest; nothing is refused.
            self._paused = True
            self.pauses += 1
            self._port.stopReading()
            clock.callLater(max(0.0, self._window + 1.0 - now), self._accept_again)

    def _accept_again(self) -> None:
        self._paused = False
        if self._port is not None and not self._held:
            self._port.startReading()
