"""
How connections to web servers come about: to addresses that were looked up and approved
before, and to nothing else.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import crypto

from twisted.internet.defer import CancelledError
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.ssl import (
    Certificate,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)

from mpush_tw.errors import ConfigError, FetchError, FetchProblem
from mpush_tw.interfaces import HttpTarget

_CA_KEY = "mp.http.ca-file"
_MOST_ADDRESSES = 4
_MOST_NAMES = 1000


class TlsClients:
    """
    What https connections are made with, for each host once.
    """

    def __init__(self, ca_file: str = "") -> None:
        """
        @param ca_file: PEM file of the authorities to trust; empty for the system's.
        @raise ConfigError: If it cannot be read, or has none.
        """
        self._trust: Any = _authorities(ca_file) if ca_file else platformTrust()
        self._made: dict[str, Any] = {}

    def of(self, host: str) -> Any:
        """
        Give the connection creator for a host: a name or an IP address that the
        certificate must be for.
        """
        creator = self._made.get(host)
        if creator is None:
            if len(self._made) >= _MOST_NAMES:
                self._made.clear()
            creator = optionsForClientTLS(host, trustRoot=self._trust)
            self._made[host] = creator
        return creator


def _authorities(path: str) -> Any:
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError as error:
        raise ConfigError(_CA_KEY, f"{path} cannot be read: {error.strerror}") from None
    end = b"-----END CERTIFICATE-----"
    parts = [part + end for part in text.split(end)[:-1]]
    try:
        found = [Certificate.loadPEM(part) for part in parts]
    except (crypto.Error, ValueError):
        found = []
    if not found:
        raise ConfigError(_CA_KEY, f"found no PEM certificates in {path}")
    return trustRootFromCertificates(found)


async def connect(
    reactor: Any,
    target: HttpTarget,
    factory: IProtocolFactory,
    timeout: float,
    tls: TlsClients,
) -> IProtocol:
    """
    Connect to the first address of a target that can be reached.

    @param timeout: Seconds for each address.
    @return: What the factory has built. With https the handshake is still to come.
    @raise FetchError: If none can be reached.
    """
    problems: list[str] = []
    for address in target.addresses[:_MOST_ADDRESSES]:
        endpoint = _endpoint(reactor, target, address, timeout, tls)
        try:
            return await endpoint.connect(factory)
        except (CancelledError, ConnectingCancelledError):
            raise CancelledError from None
        except Exception as error:
            problems.append(f"{address}:{target.port} {error}")
    raise FetchError(FetchProblem.NOT_CONNECTED, "; ".join(problems))


def _endpoint(
    reactor: Any, target: HttpTarget, address: str, timeout: float, tls: TlsClients
) -> IStreamClientEndpoint:
    kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
    endpoint: Any = kind(reactor, address, target.port, timeout)
    if target.scheme == "https":
        endpoint = wrapClientTLS(tls.of(target.host), endpoint, reactor)
    return endpoint  # type: ignore[no-any-return]
