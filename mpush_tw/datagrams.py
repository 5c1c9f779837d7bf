"""
UDP as gateways and senders use it: nothing that arrives closes the socket (D5).

Three things are not left to Twisted's own UDP port. It reads until 256 KiB have come,
so that a stream of small or empty datagrams keeps everybody else waiting; an error that
it does not expect takes it down, and the door with it; and its answers leave from
whichever of the machine's addresses the kernel prefers, while the asker waits for one
from the address that it asked. IPv4 only, as the original; the layouts are Linux's.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from struct import Struct
from typing import Any

from twisted.internet.abstract import isIPAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from mpush_tw.errors import Unavailable

Address = tuple[str, int]
"""
Numeric IPv4 address and port.
"""

Received = Callable[[bytes, Address, bytes], None]
"""
Who takes a datagram: its bytes, where it came from, and the own address that it came
to, packed, for L{DatagramSocket.send}.
"""

LARGEST_DATAGRAM = 65507
"""
Bytes that fit into one, over IPv4.
"""

ORIGINAL_DATAGRAM = 2048
"""
Bytes that the original receives of a datagram. One byte more, and its socket is closed
for good (C-25): nothing longer is sent to a peer that may be one.
"""

_PER_TURN = 64
_RECEIVE_SIZE = 65535
_RECEIVE_BUFFER = 1 << 20
_MULTICAST_TTL = 255
_ERROR_PAUSE = 1.0
_BUGS_EVERY = 1.0

# linux/in.h
_IP_PKTINFO = 8
_IP_MULTICAST_ALL = 49
_in_pktinfo = Struct("=I4s4s")
_pack_source = _in_pktinfo.pack
_ANCILLARY = socket.CMSG_SPACE(_in_pktinfo.size)
_ANY_INTERFACE = 0
_UNUSED = bytes(4)


@implementer(IReadDescriptor)
class DatagramSocket:
    """
    One UDP socket on all addresses of the machine; it can be a member of one multicast
    group.

    It queues nothing: what the kernel does not take at once is lost, as datagrams are.

    @ivar port: The port it is bound to, 0 while it is closed.
    """

    def __init__(self, reactor: Any, received: Received, log: Any) -> None:
        """
        @param reactor: Provides C{IReactorFDSet} and C{IReactorTime}.
        @param received: Called with each datagram. What it raises is logged, once a
            second at most, and ends nothing.
        @param log: A L{Logger<twisted.logger.Logger>}, or a category of a node's log.
        """
        self._reactor = reactor
        self._received = received
        self._log = log
        self._socket: socket.socket | None = None
        self._descriptor = -1
        self._reading = False
        self._paused = False
        self._again: IDelayedCall | None = None
        self._last_bug = -_BUGS_EVERY
        self.port = 0

    def open(
        self,
        port: int,
        *,
        shared: bool = False,
        send_buffer: int = 0,
        receive_buffer: int = 0,
    ) -> None:
        """
        Bind, and begin to read with the reactor's next turn.

        @param port: 0 for any free one.
        @param shared: Whether the port may be in use by others who share it as well.
            Otherwise the port must be free; who comes later and shares may join, as
            the original allows.
        @param send_buffer: Of the kernel, in bytes; 0 leaves it alone.
        @param receive_buffer: Likewise; 0 is the system's choice, but at least 1 MiB
            where it allows that: the usual choice holds some 250 small datagrams, fewer
            than one sender has under way, and what does not fit is lost.
        @raise OSError: If the port cannot be had.
        """
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            made.setblocking(False)
            if shared:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(("0.0.0.0", port))
            for level, option, value in (
                (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1),
                (socket.SOL_SOCKET, socket.SO_BROADCAST, 1),
                (socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, _MULTICAST_TTL),
                # On Linux this is asked of the sending socket (cluster 4.8).
                (socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1),
                # Not what comes for the groups of other programs of this machine.
                (socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0),
                (socket.IPPROTO_IP, _IP_PKTINFO, 1),
            ):
                made.setsockopt(level, option, value)
            if send_buffer:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
            size = made.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
            if receive_buffer or size < _RECEIVE_BUFFER:
                size = receive_buffer or _RECEIVE_BUFFER
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        except OSError:
            made.close()
            raise
        self._socket = made
        self._descriptor = made.fileno()
        self.port = made.getsockname()[1]
        self._read()

    def join(self, group: str, interface: str = "0.0.0.0") -> None:
        """
        Become a member of a multicast group.

        @param interface: A numeric address of this machine; by default the kernel goes
            by its routes.
        @raise OSError: If that is impossible here; the socket is as good as before.
        """
        assert self._socket is not None
        membership = socket.inet_aton(group) + socket.inet_aton(interface)
        self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)

    def send_groups_by(self, interface: str) -> None:
        """
        Send what goes to groups by one interface, instead of by the kernel's routes.

        @param interface: A numeric address of this machine.
        @raise OSError: If there is no such interface.
        """
        assert self._socket is not None
        self._socket.setsockopt(
            socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface)
        )

    def pause(self) -> None:
        """
        Read nothing for now: the kernel keeps what comes, as much as fits its buffer.
        """
        self._paused = True
        self._stop_reading()

    def resume(self) -> None:
        """
        Read again after L{pause}. Does nothing when the socket is not open.
        """
        self._paused = False
        if self._socket is not None:
            self._read()

    def close(self) -> Deferred[None]:
        """
        Receive and send no more, from now on. Idempotent.

        @return: A Deferred firing when the port is free, in the next turn: the reactor
            may be in the middle of reading.
        """
        closing, self._socket = self._socket, None
        self.port = 0
        if closing is None:
            return succeed(None)
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self._stop_reading()
        closed: Deferred[None] = Deferred()

        def close() -> None:
            closing.close()
            if self._socket is None:
                self._descriptor = -1
            closed.callback(None)

        self._reactor.callLater(0, close)
        return closed

    def send(self, data: bytes, peer: Address, own: bytes = b"") -> bool:
        """
        Send one datagram, now or never.

        @param peer: A numeric address: a name would be looked up, blocking everybody.
        @param own: The own address to send from, as it was received with the question;
            absent for the kernel's choice.
        @return: Whether it has left; what went wrong has been logged.
        """
        if self._socket is None:
            return False
        try:
            if own:
                source = _pack_source(_ANY_INTERFACE, own, _UNUSED)
                self._socket.sendmsg(
                    (data,), ((socket.IPPROTO_IP, _IP_PKTINFO, source),), 0, peer
                )
            else:
                self._socket.sendto(data, peer)
        except (OSError, OverflowError) as error:
            self._log.error(
                "datagram of {size} bytes to {host}:{port} not sent: {error}",
                size=len(data),
                host=peer[0],
                port=peer[1],
                error=_reason(error),
            )
            return False
        return True

    def send_within_machine(self, data: bytes, peer: Address) -> bool:
        """
        Send a datagram to a group in a way that no network carries it: members on this
        machine get it, others do not.
        """
        if self._socket is None:
            return False
        option = socket.IPPROTO_IP, socket.IP_MULTICAST_TTL
        self._socket.setsockopt(*option, 0)
        try:
            return self.send(data, peer)
        finally:
            self._socket.setsockopt(*option, _MULTICAST_TTL)

    # ------------------------------------------------- what the reactor calls

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "datagrams"

    def doRead(self) -> None:
        """
        Hand on what has arrived, a bounded number; the reactor comes back for the rest.
        """
        for _ in range(_PER_TURN):
            # The one before may have led to a pause or to the end.
            if self._socket is None or not self._reading:
                return
            try:
                data, ancillary, _, peer = self._socket.recvmsg(
                    _RECEIVE_SIZE, _ANCILLARY
                )
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._log.error(
                    "receiving datagrams on port {port}: {error}",
                    port=self.port,
                    error=_reason(error),
                )
                return
            own = ancillary[0][2][4:8] if ancillary else b""
            try:
                self._received(data, peer, own)
            except Exception:
                self._bug_met()

    def connectionLost(self, reason: Failure) -> None:
        """
        The reactor gave up on the socket; it does so when the kernel reports an error
        and nothing to read. A UDP socket survives that, and this one is read on.
        """
        self._reading = False
        if self._socket is None:
            return
        number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._log.error(
            "datagram port {port}: {error}",
            port=self.port,
            error=errno.errorcode.get(number, reason.getErrorMessage()),
        )
        self._again = self._reactor.callLater(_ERROR_PAUSE, self._read_again)

    def _read_again(self) -> None:
        self._again = None
        self._read()

    def _read(self) -> None:
        if not self._reading and not self._paused and self._again is None:
            self._reading = True
            self._reactor.addReader(self)

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._reactor.removeReader(self)

    def _bug_met(self) -> None:
        now = self._reactor.seconds()
        if now - self._last_bug >= _BUGS_EVERY:
            self._last_bug = now
            self._log.failure("a datagram was not handled", Failure())


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


class HostAddresses:
    """
    Numeric addresses of peers that are known by host name.

    Names are looked up in the reactor's threads, each once a minute at most and each in
    bounded time.
    """

    MAX_WAITING = 1000
    """
    Questions that may wait for lookups.
    """

    _LOOKUP_SECONDS = 5
    _KEPT_SECONDS = 60.0
    _MAX_KEPT = 1000

    def __init__(self, reactor: Any) -> None:
        """
        @param reactor: Provides C{IReactorCore} and C{IReactorTime}.
        """
        self._reactor = reactor
        self._found: dict[str, tuple[float, str]] = {}
        self._waiting: dict[str, list[Deferred[str]]] = {}
        self._count = 0

    def find(self, host: str) -> Deferred[str]:
        """
        Give the IPv4 address of a host.

        @param host: A name, or an address, which is its own answer.
        @return: A Deferred firing with the address, within 5 seconds. It may be
            cancelled. It fails with L{Unavailable} when the name is not found, and
            when too many wait already.
        """
        if isIPAddress(host):
            return succeed(host)
        kept = self._found.get(host)
        if kept is not None and self._reactor.seconds() - kept[0] < self._KEPT_SECONDS:
            return succeed(kept[1])
        if self._count >= self.MAX_WAITING:
            return fail(Unavailable(f"too many wait for the address of {host}"))
        waiting = self._waiting.get(host)
        found: Deferred[str] = Deferred()
        self._count += 1
        if waiting is not None:
            waiting.append(found)
            return found
        self._waiting[host] = [found]
        looking: Deferred[str] = self._reactor.resolve(host, (self._LOOKUP_SECONDS,))
        looking.addCallbacks(
            lambda address: self._address_found(host, address),
            lambda failure: self._not_found(host, failure),
        )
        return found

    def _address_found(self, host: str, address: str) -> None:
        if len(self._found) >= self._MAX_KEPT:
            self._found.clear()
        self._found[host] = self._reactor.seconds(), address
        for found in self._take_waiting(host):
            found.callback(address)

    def _not_found(self, host: str, failure: Failure) -> None:
        problem = f"no address for {host}: {failure.getErrorMessage()}"
        for found in self._take_waiting(host):
            found.errback(Unavailable(problem))

    def _take_waiting(self, host: str) -> list[Deferred[str]]:
        waiting = self._waiting.pop(host)
        self._count -= len(waiting)
        return waiting
