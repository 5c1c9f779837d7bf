"""
What the tests of the device client share: a network in memory, a server that plays its
part with L{mpush_tw.protocol}, and a listener that keeps what it hears.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import IConsumer, IPushProducer, ITCPTransport
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mpush_tw.client import Client, ClientListener, ClientSettings
from mpush_tw.protocol.body import open_body, seal_body
from mpush_tw.protocol.commands import Command, ErrorCode, Flag
from mpush_tw.protocol.crypto import AesCipher, RsaPrivateKey, mix_session_key
from mpush_tw.protocol.messages import (
    BindUser,
    Error,
    FastConnect,
    FastConnectOk,
    Handshake,
    HandshakeOk,
    Kick,
    Ok,
)
from mpush_tw.protocol.packet import HEARTBEAT_BYTE, PacketDecoder, encode_packet

VECTORS = Path(__file__).parents[1] / "vectors"
_KEYS = json.loads((VECTORS / "transcripts.json").read_text())["keys"]
PRIVATE_KEY = RsaPrivateKey.load(_KEYS["rsaPrivateKeyBase64"])
PUBLIC_KEY_TEXT: str = _KEYS["rsaPublicKeyBase64"]
SERVER_KEY = bytes(range(16, 32))
HEARTBEAT_MS = 180_000
SESSION_ID = "0123456789abcdef0123456789abcdef"


@implementer(ITCPTransport, IConsumer, IPushProducer)
class FakeTransport:
    """
    The client's end of a connection in memory.

    What the client writes reaches the server with the next turn of L{FakeNetwork}, and
    the other way round. C{stuck} makes the network take nothing, as a full socket
    would.
    """

    def __init__(self, protocol: Any, peer: FakePeer) -> None:
        self.protocol = protocol
        self.peer = peer
        self.outbound = b""
        self.inbound: list[bytes] = []
        self.no_delay = False
        self.paused = False
        self.stuck = False
        self.disconnecting = False
        self.aborted = False
        self.connected = True
        self.producer: Any = None

    def write(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        if self.disconnecting or not self.connected:
            return
        self.outbound += data
        if self.stuck and self.producer is not None:
            self.producer.pauseProducing()

    def unstick(self) -> None:
        """
        Let the network flow again.
        """
        self.stuck = False
        if self.producer is not None:
            self.producer.resumeProducing()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self.disconnecting = True

    def abortConnection(self) -> None:
        self.aborted = self.disconnecting = True

    def loseWriteConnection(self) -> None:
        raise NotImplementedError

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming and IPushProducer.providedBy(producer)
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def stopProducing(self) -> None:
        self.loseConnection()

    def getTcpNoDelay(self) -> bool:
        return self.no_delay

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    def getTcpKeepAlive(self) -> bool:
        return False

    def setTcpKeepAlive(self, enabled: bool) -> None:
        pass

    def getPeer(self) -> Any:
        return None

    def getHost(self) -> Any:
        return None

    def lose(self, reason: Exception) -> None:
        """
        Tell the client that the connection is gone.
        """
        if self.connected:
            self.connected = False
            self.protocol.connectionLost(Failure(reason))

    def turn(self) -> bool:
        """
        Move bytes both ways.

        @return: Whether something happened.
        """
        busy = False
        if self.outbound and not self.stuck:
            data, self.outbound = self.outbound, b""
            self.peer.data_received(data)
            busy = True
        while self.inbound and not self.paused and not self.disconnecting:
            self.protocol.dataReceived(self.inbound.pop(0))
            busy = True
        gone = self.aborted or (self.disconnecting and not self.outbound)
        if self.connected and gone:
            self.peer.client_closed = True
            self.lose(ConnectionDone())
            busy = True
        elif self.connected and self.peer.closed and not self.inbound:
            self.lose(ConnectionDone())
            busy = True
        return busy


class Received(NamedTuple):
    """
    A packet that the server got, opened.
    """

    command: int
    flags: int
    session_id: int
    plain: bytes

    @property
    def message(self) -> Any:
        """
        The plain body as the message it is.
        """
        kinds: dict[int, Any] = {
            Command.HANDSHAKE: Handshake,
            Command.FAST_CONNECT: FastConnect,
            Command.BIND: BindUser,
            Command.UNBIND: BindUser,
        }
        kind = kinds.get(self.command)
        return self.plain if kind is None else kind.decode(self.plain)


class FakePeer:
    """
    The server's end of one connection.

    @ivar received: Every packet in order.
    @ivar raw: The same bytes as they came.
    """

    def __init__(self, server: FakeServer, protocol: Any) -> None:
        self.server = server
        self.transport = FakeTransport(protocol, self)
        self.decoder = PacketDecoder(1 << 20)
        self.received: list[Received] = []
        self.raw = b""
        self.cipher: AesCipher | None = None
        self.closed = False
        self.client_closed = False

    @property
    def commands(self) -> list[int]:
        """
        The commands received, in order.
        """
        return [packet.command for packet in self.received]

    def packets(self, command: int) -> list[Received]:
        """
        Those packets received that have this command.
        """
        return [packet for packet in self.received if packet.command == command]

    def data_received(self, data: bytes) -> None:
        self.raw += data
        for command, flags, session_id, body in self.decoder.receive(data):
            cipher: Any = PRIVATE_KEY if command == Command.HANDSHAKE else self.cipher
            if flags & Flag.CRYPTO:
                assert cipher is not None, "encrypted before there is a key"
            plain = open_body(flags, body, cipher)
            packet = Received(command, flags, session_id, plain)
            self.received.append(packet)
            answer = self.server.answers.get(command)
            if answer is not None and not self.closed:
                answer(self, packet)

    def send_raw(self, data: bytes) -> None:
        """
        Send bytes as they are, as one read of the client.
        """
        self.transport.inbound.append(data)

    def send(
        self,
        command: int,
        session_id: int = 0,
        body: bytes = b"",
        flags: int = 0,
        cipher: AesCipher | None = None,
    ) -> None:
        """
        Send one packet.

        @param cipher: To encrypt the body with.
        """
        sealed, body = seal_body(body, cipher)
        self.send_raw(encode_packet(command, session_id, flags | sealed, body))

    def ok(self, session_id: int, command: int) -> None:
        self.send(Command.OK, session_id, Ok(command, 0, "success").encode())

    def error(
        self, session_id: int, command: int, code: int = 0, reason: str = "refused"
    ) -> None:
        self.send(Command.ERROR, session_id, Error(command, code, reason).encode())

    def push(self, content: bytes, session_id: int = 77, flags: int = 0) -> None:
        self.send(Command.PUSH, session_id, content, flags, self.cipher)

    def kick(self, device_id: str, user_id: str) -> None:
        self.send(Command.KICK, 0, Kick(device_id, user_id).encode(), 0, self.cipher)

    def close(self) -> None:
        """
        Close from the server's side, after what was sent.
        """
        self.closed = True


Answer = Callable[[FakePeer, Received], None]


class FakeServer:
    """
    Answers as a server does; a test changes single answers in L{answers} or takes them
    out, which makes the server silent about that command.
    """

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.peers: list[FakePeer] = []
        self.heartbeat_ms = HEARTBEAT_MS
        self.session_id = SESSION_ID
        self.sessions: dict[str, AesCipher] = {}
        self.answers: dict[int, Answer] = {
            Command.HEARTBEAT: lambda peer, _: peer.send_raw(HEARTBEAT_BYTE),
            Command.HANDSHAKE: self.shake_hands,
            Command.FAST_CONNECT: self.resume,
            Command.BIND: lambda peer, got: peer.ok(got.session_id, got.command),
            Command.UNBIND: lambda peer, got: peer.ok(got.session_id, got.command),
            Command.PUSH: self.acknowledge,
        }

    @property
    def peer(self) -> FakePeer:
        """
        The latest connection.
        """
        return self.peers[-1]

    def silent(self, *commands: int) -> None:
        """
        Answer these commands no more.
        """
        for command in commands:
            del self.answers[command]

    def refuse(self, command: int, code: int = 0, reason: str = "refused") -> None:
        """
        Answer this command with ERROR from now on.
        """
        self.answers[command] = lambda peer, got: peer.error(
            got.session_id, command, code, reason
        )

    def shake_hands(self, peer: FakePeer, got: Received) -> None:
        message = got.message
        answer_cipher = AesCipher(message.client_key, message.iv)
        expires = int(self.clock.seconds() * 1000) + 86_400_000
        answer = HandshakeOk(SERVER_KEY, self.heartbeat_ms, self.session_id, expires)
        peer.send(
            Command.HANDSHAKE, got.session_id, answer.encode(), cipher=answer_cipher
        )
        key = mix_session_key(message.client_key, SERVER_KEY)
        peer.cipher = self.sessions[self.session_id] = AesCipher(key, message.iv)

    def resume(self, peer: FakePeer, got: Received) -> None:
        cipher = self.sessions.get(got.message.session_id)
        if cipher is None:
            reason = ErrorCode.SESSION_EXPIRED
            peer.error(got.session_id, got.command, reason, reason.reason)
            return
        peer.cipher = cipher
        body = FastConnectOk(self.heartbeat_ms).encode()
        peer.send(Command.FAST_CONNECT, got.session_id, body)

    def acknowledge(self, peer: FakePeer, got: Received) -> None:
        if got.flags & Flag.AUTO_ACK:
            peer.send(Command.ACK, got.session_id)


class FakeNetwork(MemoryReactorClock):
    """
    A reactor in memory whose TCP connections lead to a L{FakeServer}.

    @ivar attempts: The C{(host, port)} of every attempt to connect, in order.
    @ivar down: Those that refuse connections.
    @ivar black_holes: Those that do not answer at all.
    """

    def __init__(self) -> None:
        super().__init__()
        self.server = FakeServer(self)
        self.attempts: list[tuple[str, int]] = []
        self.down: set[tuple[str, int]] = set()
        self.black_holes: set[tuple[str, int]] = set()
        self._seen = 0

    def settle(self) -> None:
        """
        Let everything happen that takes no time.
        """
        for _ in range(10_000):
            self.advance(0)
            busy = self._connect()
            for peer in list(self.server.peers):
                busy = peer.transport.turn() or busy
            if not busy and not any(
                call.getTime() <= self.seconds() for call in self.getDelayedCalls()
            ):
                return
        raise AssertionError("the network does not come to rest")

    def pass_time(self, seconds: float) -> None:
        """
        Let time pass, from one timer to the next.
        """
        target = self.seconds() + seconds
        self.settle()
        while True:
            due = [c.getTime() for c in self.getDelayedCalls() if c.getTime() <= target]
            if not due:
                break
            self.advance(max(0.0, min(due) - self.seconds()))
            self.settle()
        self.advance(target - self.seconds())
        self.settle()

    def _connect(self) -> bool:
        fresh = self.tcpClients[self._seen :]
        for host, port, factory, _, _ in fresh:
            connector = self.connectors[self._seen]
            self._seen += 1
            address = (host, port)
            self.attempts.append(address)
            if address in self.down:
                factory.clientConnectionFailed(
                    connector, Failure(ConnectionRefusedError())
                )
            elif address not in self.black_holes and not connector.stoppedConnecting:
                protocol = factory.buildProtocol(None)
                peer = self.make_peer(address, protocol)
                self.server.peers.append(peer)
                protocol.makeConnection(peer.transport)
        return bool(fresh)

    def make_peer(self, address: tuple[str, int], protocol: Any) -> FakePeer:
        """
        Give the server's end of a connection to an address.
        """
        return FakePeer(self.server, protocol)


class RecordingListener(ClientListener):
    """
    Keeps what it hears.

    @ivar events: C{(name, arguments...)} in order.
    """

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def named(self, *names: str) -> list[tuple[Any, ...]]:
        """
        The events of these names.
        """
        return [event for event in self.events if event[0] in names]

    def on_connected(self) -> Any:
        self.events.append(("connected",))

    def on_disconnected(self, reason: Any) -> Any:
        self.events.append(("disconnected", str(reason)))

    def on_handshake_ok(self, heartbeat_ms: int) -> Any:
        self.events.append(("handshake_ok", heartbeat_ms))

    def on_receive_push(self, content: bytes, message_id: int) -> Any:
        self.events.append(("push", content, message_id))

    def on_kick_user(self, device_id: str, user_id: str) -> Any:
        self.events.append(("kick", device_id, user_id))

    def on_bind(self, success: bool, user_id: str) -> Any:
        self.events.append(("bind", success, user_id))

    def on_unbind(self, success: bool, user_id: str) -> Any:
        self.events.append(("unbind", success, user_id))

    def on_error(self, command: int, code: int, reason: str) -> Any:
        self.events.append(("error", command, code, reason))


class ClientTestCase(SynchronousTestCase):
    """
    A network with a server, and clients that are stopped at the end. None of them may
    leave a timer behind.

    @ivar random: The next "random" number, 0 to 1.
    """

    def setUp(self) -> None:
        self.network = FakeNetwork()
        self.server = self.network.server
        self.listener = RecordingListener()
        self.random = 0.5
        self.clients: list[Client] = []
        self.addCleanup(self.stop_clients)

    def stop_clients(self) -> None:
        """
        Stop everything and look for timers that were forgotten.
        """
        for client in self.clients:
            client.stop()
        self.network.pass_time(3)
        left = [str(call) for call in self.network.getDelayedCalls()]
        self.assertEqual(left, [])

    def settings(self, **settings: Any) -> ClientSettings:
        defaults: dict[str, Any] = {
            "device_id": "dev-1",
            "server_host": "10.0.0.1",
            "server_port": 3000,
            "public_key": PUBLIC_KEY_TEXT,
        }
        return ClientSettings(**(defaults | settings))

    def make_client(self, listener: Any = None, **settings: Any) -> Client:
        """
        A client that is not started.

        @param listener: C{self.listener} if C{None}.
        """
        client = Client(
            self.settings(**settings),
            self.listener if listener is None else listener,
            reactor=self.network,
            random=lambda: self.random,
        )
        self.clients.append(client)
        return client

    def start_client(self, listener: Any = None, **settings: Any) -> Client:
        """
        A client that has done all that it does without time passing: it is online
        unless the server or the network is in the way.
        """
        client = self.make_client(listener, **settings)
        client.start()
        self.network.settle()
        return client
