"""
Web servers that do what a test wants, byte by byte.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable
from typing import Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import PrivateCertificate

from mpush_tw.interfaces import HttpTarget


@attrs.frozen
class Asked:
    """
    A request as it arrived.

    @ivar line: Without its end.
    @ivar headers: Names as they came.
    @ivar connection: Number of the connection, from 1 in the order of their coming.
    """

    line: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    connection: int

    def header(self, name: bytes) -> bytes | None:
        """
        Find the one value of a header, by its name in any case.
        """
        found = [value for one, value in self.headers if one.lower() == name.lower()]
        assert len(found) < 2, found
        return found[0] if found else None


class BackendConnection(Protocol):
    """
    One connection of a client.

    @ivar number: From 1, in the order of their coming.
    """

    def __init__(self, backend: Backend, number: int) -> None:
        self._backend = backend
        self._held = b""
        self.number = number
        self.lost = False

    def connectionMade(self) -> None:
        self._backend.connections.append(self)
        greeting = self._backend.greeting
        if greeting is not None:
            greeting(self)

    def dataReceived(self, data: bytes) -> None:
        self._held += data
        while b"\r\n\r\n" in self._held:
            head, _, rest = self._held.partition(b"\r\n\r\n")
            line, *lines = head.split(b"\r\n")
            headers = [
                (name, value.strip())
                for name, _, value in (one.partition(b":") for one in lines)
            ]
            length = int(
                dict((n.lower(), v) for n, v in headers).get(b"content-length", b"0")
            )
            if self._backend.waits_for_bodies and len(rest) < length:
                return
            self._held = rest[length:]
            asked = Asked(line, headers, rest[:length], self.number)
            self._backend.asked.append(asked)
            self._backend.answer(self, asked)

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = True

    def send(self, *parts: bytes) -> None:
        """
        Write bytes.
        """
        assert self.transport is not None
        self.transport.write(b"".join(parts))

    def close(self) -> None:
        """
        Close when all is written.
        """
        assert self.transport is not None
        self.transport.loseConnection()


def ok(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """
    Make a plain response.
    """
    lines = [
        b"HTTP/1.1 " + status,
        b"Content-Length: %d" % len(body),
        *headers,
        b"",
        body,
    ]
    return b"\r\n".join(lines)


class Backend:
    """
    A web server on a loopback port.

    @ivar asked: The requests so far.
    @ivar connections: All connections so far.
    @ivar greeting: Called with each new connection.
    @ivar answer: Called with the connection and each request.
    @ivar waits_for_bodies: Whether requests are looked at when their body is there.
    """

    def __init__(self, answer: Callable[[BackendConnection, Asked], object]) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.connections: list[BackendConnection] = []
        self.greeting: Callable[[BackendConnection], object] | None = None
        self.waits_for_bodies = True
        self._port: Any = None

    def start(
        self,
        reactor: Any,
        context: Any = None,
        interface: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        """
        Listen; with TLS if there is a context.
        """
        factory = Factory.forProtocol(
            lambda: BackendConnection(self, len(self.connections) + 1)  # type: ignore[arg-type]
        )
        factory.noisy = False
        if context is None:
            self._port = reactor.listenTCP(port, factory, interface=interface)
        else:
            self._port = reactor.listenSSL(port, factory, context, interface=interface)

    @property
    def port(self) -> int:
        """
        Where it listens.
        """
        port: int = self._port.getHost().port
        return port

    def target(self, host: str = "backend.test", scheme: str = "http") -> HttpTarget:
        """
        Tell a fetcher to ask it.
        """
        return HttpTarget(scheme, host, self.port, ("127.0.0.1",))

    @property
    def open(self) -> int:
        """
        How many connections there are.
        """
        return sum(not connection.lost for connection in self.connections)

    def stop(self) -> Deferred[Any]:
        """
        Stop listening and end all connections.
        """
        for connection in self.connections:
            if connection.transport is not None and not connection.lost:
                connection.transport.abortConnection()
        return maybeDeferred(self._port.stopListening)


def certificate_for(*names: str) -> tuple[bytes, PrivateCertificate]:
    """
    Make a certificate for host names or addresses that is its own authority.

    @return: Its PEM text, and what a server needs.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's backend")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([_alternative(name) for name in names]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem, PrivateCertificate.loadPEM(pem + secret)


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
