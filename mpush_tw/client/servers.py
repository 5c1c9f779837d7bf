"""
The servers that a client may connect to: their order, and the way to each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from OpenSSL import SSL

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer


class ServerAddress(NamedTuple):
    """
    A host name or IP address, and a port from 1 to 65535.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> ServerAddress:
        """
        Read C{host:port} or C{[v6]:port}; white space around it does not count.

        @raise ValueError: If it is neither.
        """
        host, colon, port = text.strip().rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
            if not isIPv6Address(host):
                raise ValueError(f"{text!r} is not [IPv6 address]:port")
        elif ":" in host:
            raise ValueError(f"{text!r}: an IPv6 address goes in square brackets")
        if not host or not colon or any(c.isspace() for c in host):
            raise ValueError(f"{text!r} is not host:port")
        if not (port.isascii() and port.isdigit() and 1 <= int(port[:9]) <= 65535):
            raise ValueError(f"{text!r} has no port from 1 to 65535")
        return cls(host, int(port))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Servers:
    """
    The list in the order in which it is tried.

    A server that could not be reached, or with which no handshake came about, goes to
    the end, so that the one that works stays in front (clients 10.3, 12).
    """

    __slots__ = ("_failed", "_order")

    def __init__(self, addresses: Iterable[ServerAddress] = ()) -> None:
        self._order = list(dict.fromkeys(addresses))
        self._failed: set[ServerAddress] = set()

    def __iter__(self) -> Iterator[ServerAddress]:
        """
        Go through the list as it is now, each server once.
        """
        return iter(tuple(self._order))

    def __len__(self) -> int:
        return len(self._order)

    def move_to_end(self, address: ServerAddress) -> None:
        """
        Note that C{address} did not work; an unknown one is ignored.
        """
        if address in self._order:
            self._order.remove(address)
            self._order.append(address)
            self._failed.add(address)

    def worked(self) -> None:
        """
        Note that there is a session with one of them.
        """
        self._failed.clear()

    @property
    def worn_out(self) -> bool:
        """
        Whether none of them has worked since the last one that did: it is time to ask
        alloc for others.
        """
        return len(self._failed) == len(self._order)

    def replace(self, addresses: Iterable[ServerAddress]) -> None:
        """
        Forget these servers for others, untried.
        """
        self._order = list(dict.fromkeys(addresses))
        self._failed.clear()

    def extend(self, addresses: Iterable[ServerAddress]) -> None:
        """
        Put servers that are not there yet at the end.
        """
        self._order = list(dict.fromkeys((*self._order, *addresses)))


def endpoint_for(
    reactor: IReactorTime,
    address: ServerAddress,
    timeout: float,
    tls: bool = False,
    verify: bool | Path = True,
) -> IStreamClientEndpoint:
    """
    The way to one server.

    @param reactor: Must provide C{IReactorTCP} too.
    @param timeout: Seconds for the TCP connect, per IP address of a host name.
    @param tls: Whether the listener expects TLS around the protocol (clients 12.18).
    @param verify: C{True} for the system's authorities, the path of a PEM file with
        others (read once per process), C{False} to accept every certificate.
    @raise OSError: If the PEM file cannot be read.
    """
    host, port = address
    endpoint: IStreamClientEndpoint
    if isIPAddress(host):
        endpoint = TCP4ClientEndpoint(reactor, host, port, timeout)
    elif isIPv6Address(host):
        endpoint = TCP6ClientEndpoint(reactor, host, port, timeout)
    else:
        endpoint = HostnameEndpoint(reactor, host, port, timeout)
    if not tls:
        return endpoint
    return wrapClientTLS(_tls_options(host, verify), endpoint)


@lru_cache(maxsize=16)
def _tls_options(host: str, verify: bool | Path) -> IOpenSSLClientConnectionCreator:
    if verify is False:
        return _AnyCertificate()
    trust = None
    if verify is not True:
        trust = trustRootFromCertificates([Certificate.loadPEM(verify.read_bytes())])
    options: IOpenSSLClientConnectionCreator = optionsForClientTLS(host, trust)
    return options


@implementer(IOpenSSLClientConnectionCreator)
class _AnyCertificate:
    """
    TLS without knowing whom one speaks to; only for C{verify_tls} off.
    """

    def __init__(self) -> None:
        self._context = CertificateOptions(verify=False).getContext()

    def clientConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        connection.set_connect_state()
        return connection
