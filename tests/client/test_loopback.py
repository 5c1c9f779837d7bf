"""
The client over real sockets on loopback, in clear and inside TLS.
"""

from __future__ import annotations

import datetime
import ipaddress
import random
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.task import deferLater
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import TestCase

from mpush_tw.client import AckModel, Client, ClientSettings, TooManyPending
from mpush_tw.protocol.commands import Command
from tests.client.support import (
    PUBLIC_KEY_TEXT,
    FakePeer,
    FakeServer,
    RecordingListener,
)

clock: Any = reactor


class SocketPeer(Protocol):
    """
    Puts a L{FakePeer} behind a real socket.
    """

    def __init__(self, server: FakeServer) -> None:
        self.peer = FakePeer(server, None)
        self.peer.send_raw = self.send_raw  # type: ignore[method-assign]
        self.peer.close = self.close  # type: ignore[method-assign]
        self.gone: Deferred[None] = Deferred()
        server.peers.append(self.peer)

    def send_raw(self, data: bytes) -> None:
        self.transport.write(data)

    def close(self) -> None:
        self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        self.peer.data_received(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.peer.client_closed = True
        self.gone.callback(None)


class SocketServer(Factory):
    """
    A L{FakeServer} that listens.

    @ivar accepted: The protocols of all connections so far.
    """

    noisy = False

    def __init__(self) -> None:
        self.server = FakeServer(clock)
        self.accepted: list[SocketPeer] = []

    def buildProtocol(self, addr: Any) -> SocketPeer:
        self.accepted.append(SocketPeer(self.server))
        return self.accepted[-1]

    def leave(self) -> Deferred[Any]:
        """
        Drop all connections.

        @return: Fires when none is left.
        """
        left = [accepted for accepted in self.accepted if not accepted.gone.called]
        for accepted in left:
            transport: Any = accepted.transport
            transport.abortConnection()
        return gatherResults([accepted.gone for accepted in left])


class EventListener(RecordingListener):
    """
    Tells when something happens.
    """

    def __init__(self) -> None:
        super().__init__()
        self._wanted: list[tuple[str, Deferred[Any]]] = []

    def next(self, name: str) -> Deferred[Any]:
        """
        Fires with the next event of this name.
        """
        wanted: Deferred[Any] = Deferred()
        self._wanted.append((name, wanted))
        return wanted.addTimeout(5, clock)

    def _tell(self) -> None:
        event = self.events[-1]
        for entry in list(self._wanted):
            if entry[0] == event[0]:
                self._wanted.remove(entry)
                entry[1].callback(event)

    def on_disconnected(self, reason: Any) -> Any:
        super().on_disconnected(reason)
        self._tell()

    def on_receive_push(self, content: bytes, message_id: int) -> Any:
        super().on_receive_push(content, message_id)
        self._tell()

    def on_bind(self, success: bool, user_id: str) -> Any:
        super().on_bind(success, user_id)
        self._tell()


class LoopbackTestCase(TestCase):
    """
    A server on a free port of loopback.
    """

    timeout = 20

    async def listen(self, wrap: Any = lambda factory: factory) -> int:
        """
        Start the server.

        @return: Its port.
        """
        self.sockets = factory = SocketServer()
        self.server = factory.server
        endpoint = TCP4ServerEndpoint(clock, 0, interface="127.0.0.1")
        port: Any = await endpoint.listen(wrap(factory))
        self.addCleanup(factory.leave)
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    def make_client(self, port: int, **settings: Any) -> Client:
        """
        A client of this server, not started, and stopped after the test.
        """
        self.listener = EventListener()
        defaults: dict[str, Any] = {
            "device_id": "dev-1",
            "server_host": "127.0.0.1",
            "server_port": port,
            "public_key": PUBLIC_KEY_TEXT,
        }
        client = Client(
            ClientSettings(**(defaults | settings)),
            self.listener,
            reactor=clock,
            random=lambda: 0.01,
        )
        self.addCleanup(client.stop)
        return client


class SocketTests(LoopbackTestCase):
    """
    Plain TCP.
    """

    async def test_conversation(self) -> None:
        """
        Connect, handshake, bind, messages both ways, a loss with fast connect, unbind.
        """
        client = self.make_client(await self.listen(), user_id="u", tags="t")
        client.start()
        self.assertEqual(await client.when_online(), 180_000)
        await client.bind_user("u", "t")
        pushed = self.listener.next("push")
        self.server.peer.push(b"down", 77, 8)
        self.assertEqual(await pushed, ("push", b"down", 0))
        large = b"up" * 100_000
        await client.push(large)
        self.assertEqual(self.server.peer.packets(Command.ACK)[0].session_id, 77)
        self.assertEqual(self.server.peer.packets(Command.PUSH)[0].plain, large)
        lost, bound = self.listener.next("disconnected"), self.listener.next("bind")
        self.server.peer.close()
        await lost
        self.assertEqual(await bound, ("bind", True, "u"))
        await client.unbind_user()
        self.assertEqual(
            self.server.peer.commands,
            [Command.FAST_CONNECT, Command.BIND, Command.UNBIND],
        )
        await client.stop()
        await deferLater(clock, 0.05)
        self.assertTrue(self.server.peer.client_closed)

    async def test_host_name(self) -> None:
        """
        A name is resolved.
        """
        client = self.make_client(await self.listen(), server_host="localhost")
        client.start()
        await client.when_online()

    async def test_next_server(self) -> None:
        """
        A port on which nobody listens is passed over.
        """
        port = await self.listen()
        client = self.make_client(1, servers=[("127.0.0.1", port)])
        client.start()
        await client.when_online()

    async def test_slow_reader(self) -> None:
        """
        A server that does not read makes requests fail instead of growing the client's
        memory; when it reads again everything that was taken arrives.
        """
        client = self.make_client(await self.listen(), max_pending=20)
        client.start()
        await client.when_online()
        peer, reader = self.server.peer, self.sockets.accepted[-1].transport
        assert reader is not None
        reader.pauseProducing()
        content = random.Random(1).randbytes(256 * 1024)
        sent = 0
        with self.assertRaises(TooManyPending):
            for _ in range(200):
                await client.push(content, AckModel.NONE)
                sent += 1
                await deferLater(clock, 0)
        reader.resumeProducing()
        while len(peer.packets(Command.PUSH)) < sent:
            await deferLater(clock, 0.01)
        await client.push(b"and on")
        self.assertEqual(len(peer.packets(Command.PUSH)), sent + 1)


def certificate() -> tuple[bytes, PrivateCertificate]:
    """
    A certificate for 127.0.0.1 that is its own authority.

    @return: Its PEM text, and what a server needs.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mpush test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
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


class TLSTests(LoopbackTestCase):
    """
    A TLS listener in front of the protocol (clients 12.18).
    """

    async def client_of_tls(self, verify: Any) -> Client:
        """
        A started client of a TLS server.
        """
        pem, private = certificate()
        path = Path(self.mktemp())
        path.write_bytes(pem)
        port = await self.listen(
            lambda factory: TLSMemoryBIOFactory(private.options(), False, factory)
        )
        client = self.make_client(
            port, tls=True, verify_tls=path if verify == "file" else verify, user_id="u"
        )
        client.start()
        return client

    async def test_own_authority(self) -> None:
        """
        A server whose authority is in the given file is believed.
        """
        client = await self.client_of_tls("file")
        await client.when_online()
        await client.push(b"x" * 50_000)

    async def test_stranger(self) -> None:
        """
        A server that nobody vouches for gets neither handshake nor user.
        """
        client = await self.client_of_tls(True)
        event = await self.listener.next("disconnected")
        self.assertIn("certificate verify failed", event[1])
        self.assertFalse(client.is_online)
        self.assertEqual(self.server.peer.received, [])
        await client.stop()

    async def test_no_verification(self) -> None:
        """
        With verification off, any server will do.
        """
        client = await self.client_of_tls(False)
        await client.when_online()
