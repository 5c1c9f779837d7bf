"""
What tests of UDP share: a peer on a real socket, and whether multicast works here.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.protocol import DatagramProtocol

LOOPBACK = "127.0.0.1"
GROUP = "239.239.239.88"
NOT_HERE = "203.0.113.7"
"""
An address that no machine has: it is reserved for documentation.
"""

Datagram = tuple[bytes, tuple[str, int]]


class Peer(DatagramProtocol):
    """
    Somebody else's UDP socket, Twisted's own.

    @ivar received: The datagrams that have come and were not taken yet, with their
        sources.
    """

    noisy = False

    def __init__(self) -> None:
        self.received: DeferredQueue[Datagram] = DeferredQueue()

    @classmethod
    def on(cls, interface: str = LOOPBACK) -> Peer:
        """
        Open one on a free port of an address.
        """
        peer = cls()
        listen: Any = reactor
        peer.port = listen.listenUDP(0, peer, interface, 65535)
        return peer

    @property
    def address(self) -> tuple[str, int]:
        host = self.port.getHost()
        return host.host, host.port

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        self.received.put((datagram, addr))

    def send(self, data: bytes, to: tuple[str, int]) -> None:
        transport: Any = self.transport
        transport.write(data, to)

    def next(self) -> Deferred[Datagram]:
        """
        Take the next datagram; the test's time-out bounds the wait.
        """
        return self.received.get()

    def close(self) -> Any:
        return self.port.stopListening()


def multicast_works(interface: str = LOOPBACK) -> bool:
    """
    Whether a datagram to a group comes back to a member on this machine; found out by
    plain sockets.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        by = socket.inet_aton(interface)
        try:
            probe.bind(("0.0.0.0", 0))
            probe.setsockopt(
                socket.IPPROTO_IP,
                socket.IP_ADD_MEMBERSHIP,
                socket.inet_aton(GROUP) + by,
            )
            probe.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, by)
            probe.settimeout(1)
            probe.sendto(b"probe", (GROUP, probe.getsockname()[1]))
            return probe.recv(16) == b"probe"
        except OSError:
            return False


def unused_port() -> int:
    """
    A UDP port that nobody has.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
