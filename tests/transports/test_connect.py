"""
Tests for L{mpush_tw.transports.connect}: packets in, packets out, and their order.
"""

from __future__ import annotations

import os
import zlib
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mpush_tw.core.connection import Connection
from mpush_tw.core.handlers import Dispatcher
from mpush_tw.core.registry import Admission, Connections
from mpush_tw.errors import ProtocolError
from mpush_tw.interfaces import IPeerConnection
from mpush_tw.protocol.body import open_body
from mpush_tw.protocol.commands import Command, Flag
from mpush_tw.protocol.crypto import AesCipher, RsaPrivateKey
from mpush_tw.protocol.messages import (
    BindUser,
    Error,
    FastConnectOk,
    Handshake,
    HandshakeOk,
    HttpRequest,
    HttpResponse,
    Kick,
    Ok,
)
from mpush_tw.protocol.packet import HEADER, Packet, PacketDecoder, encode_packet
from mpush_tw.transports.connect import ConnectDoor, ConnectFactory, ConnectProtocol
from mpush_tw.transports.write_through import OutboundLimits, WriteThroughServer
from tests.core.fakes import Core
from tests.support import SAMPLE
from tests.transports.fakes import FakeTransport
from tests.transports.test_write_through import FakeSocket

_CRYPTO = int(Flag.CRYPTO)
_COMPRESS = int(Flag.COMPRESS)
_KEY = RsaPrivateKey.load(SAMPLE["rsaPrivateKeyBase64"])
_AES = AesCipher(bytes(range(16)), bytes(range(16, 32)))
_LOST = Failure(ConnectionDone())


def packets(data: bytes) -> list[Packet]:
    """
    Cut bytes into packets.
    """
    return list(PacketDecoder().receive(data))


class ConnectTestCase(SynchronousTestCase):
    """
    A door whose only handler is the test's.
    """

    require_crypto = False
    max_connections = 100

    def setUp(self) -> None:
        self.core = Core()
        self.metrics = self.core.metrics.conn
        self.connections = Connections(
            self.core.wheel,
            self.core.clock,
            self.core.log,
            self.core.metrics,
            self.metrics,
            10.0,
            1000,
            2,
        )
        self.dispatcher = Dispatcher(self.core.log, self.metrics)
        self.handled: list[tuple[int, int, object]] = []
        self.waiting: list[Deferred[None]] = []
        self.wait = False
        self.dispatcher.register(Command.PUSH, self.handle)
        self.closed: list[Connection] = []
        self.door = ConnectDoor(
            _KEY,
            self.connections,
            Admission(self.max_connections, 100),
            self.dispatcher,
            self.connection_closed,
            self.core.clock,
            self.core.log,
            self.core.metrics,
            10240,
            100,
            1 << 16,
            self.require_crypto,
        )
        self.factory = ConnectFactory(self.door)
        self.device, self.transport = self.connect()

    def connect(self) -> tuple[ConnectProtocol, FakeTransport]:
        """
        Accept a connection.
        """
        address = IPv4Address("TCP", "192.0.2.1", 40000)
        protocol = self.factory.buildProtocol(address)
        assert isinstance(protocol, ConnectProtocol)
        transport = FakeTransport()
        protocol.makeConnection(transport)
        return protocol, transport

    def connection_closed(self, connection: Connection) -> Deferred[None]:
        """
        Note the end of a connection.
        """
        self.closed.append(connection)
        return succeed(None)

    def handle(
        self, connection: Connection, session_id: int, flags: int, body: object
    ) -> Deferred[None] | None:
        """
        Note a packet, and wait if the test says so.
        """
        self.handled.append((session_id, flags, body))
        if self.wait:
            self.waiting.append(Deferred())
            return self.waiting[-1]
        return None

    def numbers(self) -> list[int]:
        """
        The numbers of the packets handled so far.
        """
        return [number for number, _, _ in self.handled]

    def push(self, number: int) -> bytes:
        """
        A packet that is handled by L{handle}.
        """
        return encode_packet(Command.PUSH, number, 0, b"body")

    def sent(self) -> list[Packet]:
        """
        The packets that the device got since the last call.
        """
        return packets(self.transport.take())


class PacketsInTests(ConnectTestCase):
    """
    From bytes to handlers.
    """

    def test_one(self) -> None:
        """
        A packet is handled as it came.
        """
        self.device.dataReceived(encode_packet(Command.PUSH, 7, 9, b"body"))
        self.assertEqual(self.handled, [(7, 9, b"body")])

    def test_byte_by_byte(self) -> None:
        """
        Packets may arrive in any pieces.
        """
        for byte in self.push(1) + self.push(2):
            self.device.dataReceived(bytes([byte]))
        self.assertEqual(self.numbers(), [1, 2])

    def test_many_in_one_read(self) -> None:
        """
        Many packets of one read are handled in their order.
        """
        self.device.dataReceived(b"".join(map(self.push, range(50))))
        self.assertEqual(self.numbers(), list(range(50)))

    def test_sign_of_life(self) -> None:
        """
        A whole packet counts as a sign of life, part of one does not.
        """
        self.core.clock.advance(5)
        self.device.dataReceived(self.push(1)[:-1])
        self.assertEqual(self.device.last_read, 0)
        self.device.dataReceived(self.push(1)[-1:])
        self.assertEqual(self.device.last_read, 5)

    def test_broken(self) -> None:
        """
        A stream that is no packets ends the connection without an answer; what stood in
        front is handled.
        """
        self.device.dataReceived(self.push(1) + b"\x7f\xff\xff\xff" + self.push(2))
        self.assertEqual(self.numbers(), [1])
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.sent(), [])
        self.assertEqual(self.metrics.decode_errors, {"framing": 1})

    def test_nothing_after_an_answer_and_close(self) -> None:
        """
        What follows a packet that ended the connection is not handled.
        """
        chat = encode_packet(Command.CHAT, 1, 0, b"")
        self.device.dataReceived(chat + self.push(2))
        self.device.dataReceived(self.push(3))
        self.assertEqual(self.handled, [])
        self.assertTrue(self.transport.disconnecting)
        self.assertFalse(self.transport.aborted)
        self.assertEqual([packet[0] for packet in self.sent()], [Command.ERROR])

    def test_counted(self) -> None:
        """
        Packets are counted by command, bytes in all.
        """
        self.device.dataReceived(self.push(1) + self.push(2))
        self.assertEqual(self.metrics.packets_in[Command.PUSH], 2)
        self.assertEqual(self.metrics.bytes_in, 2 * len(self.push(1)))


class WaitingTests(ConnectTestCase):
    """
    Handlers that take their time.
    """

    def setUp(self) -> None:
        super().setUp()
        self.wait = True

    def go_on(self) -> None:
        """
        Let the handler that is under way end.
        """
        self.waiting.pop(0).callback(None)

    def test_next_packet_waits(self) -> None:
        """
        The next packet of the same read is handled when the handler has ended.
        """
        self.device.dataReceived(self.push(1) + self.push(2))
        self.assertEqual(self.numbers(), [1])
        self.go_on()
        self.assertEqual(self.numbers(), [1, 2])

    def test_not_read_meanwhile(self) -> None:
        """
        Meanwhile the peer is not read from.
        """
        self.device.dataReceived(self.push(1))
        self.assertFalse(self.transport.reading)
        self.go_on()
        self.assertTrue(self.transport.reading)

    def test_read_under_way(self) -> None:
        """
        What arrives all the same comes after what was there, pieces included.
        """
        data = b"".join(map(self.push, range(1, 6)))
        for start in range(0, len(data), 25):
            self.device.dataReceived(data[start : start + 25])
        self.assertEqual(self.numbers(), [1])
        for count in range(2, 6):
            self.go_on()
            self.assertEqual(self.numbers(), list(range(1, count + 1)))

    def test_others_go_on(self) -> None:
        """
        Other connections do not wait.
        """
        self.device.dataReceived(self.push(1))
        self.wait = False
        other, _ = self.connect()
        other.dataReceived(self.push(2))
        self.assertEqual(self.numbers(), [1, 2])

    def test_closed_meanwhile(self) -> None:
        """
        If the handler ends the connection, the rest is dropped.
        """
        self.device.dataReceived(self.push(1) + self.push(2))
        self.device.close("test")
        self.go_on()
        self.assertEqual(self.numbers(), [1])

    def test_lost_meanwhile(self) -> None:
        """
        If the peer leaves, the handler ends first, then the routes are cleaned up.
        """
        self.device.dataReceived(self.push(1) + self.push(2))
        self.device.connectionLost(_LOST)
        self.assertFalse(self.device.connected)
        self.assertEqual(self.closed, [])
        self.go_on()
        self.assertEqual(self.closed, [self.device])
        self.assertEqual(self.numbers(), [1])

    def test_broken_behind(self) -> None:
        """
        Broken bytes behind a packet that waits end the connection after it.
        """
        self.device.dataReceived(self.push(1) + b"\x7f\xff\xff\xff")
        self.assertFalse(self.transport.disconnecting)
        self.go_on()
        self.assertTrue(self.transport.disconnecting)


class BatchTests(ConnectTestCase):
    """
    What goes out while packets come in.
    """

    def setUp(self) -> None:
        super().setUp()
        self.dispatcher.register(Command.BIND, self.answer)
        self.dispatcher.register(Command.UNBIND, self.answer_and_close)

    def answer(
        self, connection: Connection, session_id: int, flags: int, body: object
    ) -> None:
        """
        Answer a BIND.
        """
        self.assertTrue(connection.answer(session_id, Ok(5)))

    def answer_and_close(
        self, connection: Connection, session_id: int, flags: int, body: object
    ) -> None:
        """
        Answer an UNBIND, and end the connection.
        """
        connection.answer(session_id, Ok(6))
        connection.close("test")

    def bind(self, number: int) -> bytes:
        """
        A packet that is answered.
        """
        return encode_packet(Command.BIND, number, 0, b"")

    def answered(self) -> list[list[int]]:
        """
        The numbers of the packets that the device got, one list for each write.
        """
        return [
            [packet[2] for packet in packets(data)] for data in self.transport.writes
        ]

    def test_one_read(self) -> None:
        """
        The answers to the packets of one read leave in one write, in their order.
        """
        self.device.dataReceived(b"".join(map(self.bind, range(50))))
        self.assertEqual(self.answered(), [list(range(50))])

    def test_reads(self) -> None:
        """
        The answers to another read leave in another one; nothing is held back.
        """
        self.device.dataReceived(self.bind(1))
        self.assertEqual(self.answered(), [[1]])
        self.device.dataReceived(self.bind(2) + self.bind(3))
        self.assertEqual(self.answered(), [[1], [2, 3]])

    def test_all_kinds(self) -> None:
        """
        Pushes and the rest keep their place among the answers.
        """
        self.device.cipher = _AES

        def push(connection: Connection, number: int, *rest: object) -> None:
            connection.send_push(number, 0, b"x")
            connection.send_ack(number + 1)

        self.dispatcher.register(Command.CHAT, push)
        chat = encode_packet(Command.CHAT, 2, 0, b"")
        self.device.dataReceived(self.bind(1) + chat + self.bind(4))
        self.assertEqual(self.answered(), [[1, 2, 3, 4]])

    def test_nothing_to_say(self) -> None:
        """
        A read that is not answered writes nothing.
        """
        self.device.dataReceived(self.push(1))
        self.assertEqual(self.transport.writes, [])

    def test_waiting(self) -> None:
        """
        What has been answered leaves before a handler that takes its time; what follows
        leaves when that has ended.
        """
        self.wait = True
        self.device.dataReceived(
            self.bind(1) + self.push(2) + self.bind(3) + self.bind(4)
        )
        self.assertEqual(self.answered(), [[1]])
        self.device.send_ack(2)
        self.assertEqual(self.answered(), [[1], [2]])
        self.waiting.pop().callback(None)
        self.assertEqual(self.answered(), [[1], [2], [3, 4]])

    def test_closed(self) -> None:
        """
        Answers leave before the close, not after it when nobody takes them.
        """
        open_at_write: list[bool] = []
        write = self.transport.write

        def watch(data: bytes) -> None:
            open_at_write.append(not self.transport.disconnecting)
            write(data)

        self.patch(self.transport, "write", watch)
        unbind = encode_packet(Command.UNBIND, 2, 0, b"")
        self.device.dataReceived(self.bind(1) + unbind + self.bind(3))
        self.assertEqual(self.answered(), [[1, 2]])
        self.assertEqual(open_at_write, [True])
        self.assertTrue(self.transport.disconnecting)

    def test_broken(self) -> None:
        """
        Answers to packets in front of broken bytes leave all the same.
        """
        self.device.dataReceived(self.bind(1) + b"\x7f\xff\xff\xff")
        self.assertEqual(self.answered(), [[1]])
        self.assertTrue(self.transport.disconnecting)

    def test_aborted(self) -> None:
        """
        Answers to one that is aborted are dropped.
        """

        def abort(connection: Connection, *rest: object) -> None:
            connection.abort("test")

        self.dispatcher.register(Command.CHAT, abort)
        self.device.dataReceived(
            self.bind(1) + encode_packet(Command.CHAT, 2, 0, b"") + self.bind(3)
        )
        self.assertEqual(self.transport.writes, [])
        self.assertTrue(self.transport.aborted)

    def test_others(self) -> None:
        """
        What a packet causes on another connection leaves at once.
        """
        other, transport = self.connect()
        written: list[int] = []

        def tell(connection: Connection, *rest: object) -> None:
            other.send_ack(7)
            written.append(len(transport.writes))

        self.dispatcher.register(Command.CHAT, tell)
        chat = encode_packet(Command.CHAT, 1, 0, b"")
        self.device.dataReceived(chat + chat)
        self.assertEqual(written, [1, 2])


class BackpressureTests(ConnectTestCase):
    """
    Devices that do not read what they get.
    """

    def setUp(self) -> None:
        super().setUp()
        producer = self.transport.producer
        assert producer is not None
        self.producer = producer

    def test_registered(self) -> None:
        """
        The connection is a producer that can be paused at any time.
        """
        verifyObject(IPushProducer, self.device)
        self.assertIs(self.producer, self.device)
        self.assertTrue(self.transport.streaming)

    def test_paused(self) -> None:
        """
        A device for which packets pile up is not read from until they have gone out.
        """
        self.producer.pauseProducing()
        self.assertFalse(self.transport.reading)
        self.producer.resumeProducing()
        self.assertTrue(self.transport.reading)

    def test_drained_while_a_handler_waits(self) -> None:
        """
        When they have gone out and a handler still takes its time, the next packet
        waits on.
        """
        self.wait = True
        self.device.dataReceived(self.push(1))
        self.producer.pauseProducing()
        self.producer.resumeProducing()
        self.assertFalse(self.transport.reading)
        self.waiting.pop().callback(None)
        self.assertTrue(self.transport.reading)

    def test_handler_ends_before_it_is_drained(self) -> None:
        """
        When the handler has ended and packets still pile up, the device is not read
        from; what had been read is handled.
        """
        self.wait = True
        self.device.dataReceived(self.push(1) + self.push(2))
        self.producer.pauseProducing()
        self.wait = False
        self.waiting.pop().callback(None)
        self.assertEqual(self.numbers(), [1, 2])
        self.assertFalse(self.transport.reading)
        self.producer.resumeProducing()
        self.assertTrue(self.transport.reading)

    def test_closed(self) -> None:
        """
        A connection that is closed is no producer any more, so that it can end.
        """
        self.producer.pauseProducing()
        self.device.close("test")
        self.assertIsNone(self.transport.producer)
        self.assertTrue(self.transport.disconnecting)

    def test_drained_after_the_close(self) -> None:
        """
        Nothing is read from a device whose connection is being closed.
        """
        self.producer.pauseProducing()
        self.device.close("test")
        self.producer.resumeProducing()
        self.assertFalse(self.transport.reading)


class OutboundTests(ConnectTestCase):
    """
    The same on the transport that devices have, with marks at 100 and 200 bytes and at
    most 1000 above.
    """

    def setUp(self) -> None:
        super().setUp()
        self.reactor = MemoryReactorClock()
        self.socket = FakeSocket()
        self.socket.room = 0
        protocol = self.factory.buildProtocol(IPv4Address("TCP", "192.0.2.2", 40000))
        assert isinstance(protocol, ConnectProtocol)
        self.device = protocol
        self.device.cipher = _AES
        self.real = WriteThroughServer(
            self.socket,  # type: ignore[arg-type]
            self.device,
            ("192.0.2.2", 40000),
            None,
            7,
            self.reactor,
            OutboundLimits(100, 200, 1000),
        )
        self.device.makeConnection(self.real)

    @property
    def reading(self) -> bool:
        """
        Whether the device is read from.
        """
        return self.real in self.reactor.readers

    def drain(self) -> None:
        """
        Let the device take everything.
        """
        self.socket.room = 1 << 30
        self.assertIsNone(self.real.doWrite())

    def test_not_read_from(self) -> None:
        """
        Above the high mark the device is not read from, until all has gone out.
        """
        while not self.device.busy:
            self.assertTrue(self.reading)
            self.assertTrue(self.device.send_push(1, 0, b"x" * 80))
        self.assertFalse(self.reading)
        self.drain()
        self.assertTrue(self.reading)

    def test_asks_and_does_not_read(self) -> None:
        """
        One that asks without reading the answers is stopped long before it is cut off.
        """

        def acknowledge(connection: Connection, *rest: object) -> None:
            connection.send_ack(1)

        self.dispatcher.register(Command.BIND, acknowledge)
        bind = encode_packet(Command.BIND, 1, 0, b"")
        for _ in range(100):
            if not self.reading:
                break
            self.device.dataReceived(bind)
        self.assertFalse(self.reading)
        self.assertLess(self.real.queued, 300)
        self.assertTrue(self.device.connected)

    def test_close(self) -> None:
        """
        A close while packets pile up ends the connection as soon as they have gone out.
        """
        for _ in range(3):
            self.device.send_push(1, 0, b"x" * 80)
        self.device.close("test")
        self.assertFalse(self.socket.closed)
        self.socket.room = 1 << 30
        reason = self.real.doWrite()
        self.real.connectionLost(Failure(reason))
        self.assertEqual(len(packets(self.socket.taken)), 3)
        self.assertTrue(self.socket.closed)
        self.assertEqual(self.metrics.closed, {"test": 1})

    def test_too_much(self) -> None:
        """
        One for which more than C{max-outbound} piles up is cut off and counted so; from
        the push that was too much on the sender is told that nothing arrives.
        """
        told = [self.device.send_push(1, 0, b"x" * 80) for _ in range(20)]
        written = told.index(False)
        self.assertEqual(told, [True] * written + [False] * (20 - written))
        self.assertEqual(written, 1200 // (HEADER.size + 96))
        self.assertFalse(self.device.connected)
        self.assertFalse(self.device.answer(1, Ok(5)))
        self.reactor.advance(0)
        self.assertTrue(self.socket.closed)
        self.assertEqual(self.metrics.closed, {"max-outbound": 1})
        self.assertEqual(self.closed, [self.device])

    def test_long_web_answer(self) -> None:
        """
        An answer of a web server may be longer than what else may pile up: the device
        has asked for it.
        """
        page = HttpResponse(200, "OK", {}, os.urandom(100_000))
        self.assertTrue(self.device.answer(4, page))
        self.assertTrue(self.device.send_push(1, 0, b"x" * 80))
        self.assertTrue(self.device.connected)
        self.assertTrue(self.device.busy)
        self.drain()
        self.assertFalse(self.device.busy)
        (_, flags, number, body), _ = PacketDecoder(1 << 20).receive(self.socket.taken)
        self.assertEqual(number, 4)
        plain = open_body(flags, body, _AES, 1 << 20)
        self.assertEqual(HttpResponse.decode(plain).body, page.body)

    def test_answer_too_much(self) -> None:
        """
        The answer that was too much is reported as not written, like a push.
        """
        told = [self.device.send_ack(1) for _ in range(100)]
        self.assertEqual(told.index(False), 1200 // HEADER.size)
        self.reactor.advance(0)
        self.assertEqual(self.metrics.closed, {"max-outbound": 1})

    def test_too_much_in_one_read(self) -> None:
        """
        So is one whose answers to one read are too much.
        """

        def push(connection: Connection, *rest: object) -> None:
            connection.send_push(1, 0, b"x" * 80)

        self.dispatcher.register(Command.BIND, push)
        self.device.dataReceived(encode_packet(Command.BIND, 1, 0, b"") * 20)
        self.assertFalse(self.device.connected)
        self.reactor.advance(0)
        self.assertEqual(self.metrics.closed, {"max-outbound": 1})

    def test_too_much_at_the_close(self) -> None:
        """
        One that is closed with too much to take is cut off; the first reason counts.
        """

        def push_and_close(connection: Connection, *rest: object) -> None:
            for _ in range(20):
                connection.send_push(1, 0, b"x" * 80)
            connection.close("test")

        self.dispatcher.register(Command.BIND, push_and_close)
        self.device.dataReceived(encode_packet(Command.BIND, 1, 0, b""))
        self.reactor.advance(0)
        self.assertTrue(self.socket.closed)
        self.assertEqual(self.metrics.closed, {"test": 1})


class BodiesInTests(ConnectTestCase):
    """
    Reading messages.
    """

    def setUp(self) -> None:
        super().setUp()
        self.device.device_id = "d1"
        self.device.cipher = _AES

    def test_clear(self) -> None:
        """
        A body in clear is taken, and counted (DESIGN 5.3).
        """
        body = BindUser("u").encode()
        self.assertEqual(self.device.decode(BindUser, 0, body), BindUser("u"))
        self.assertEqual(self.core.metrics.clear_bodies, 1)

    def test_sealed(self) -> None:
        """
        A sealed one is opened with the session's key.
        """
        body = _AES.encrypt(BindUser("u").encode())
        self.assertEqual(self.device.decode(BindUser, _CRYPTO, body), BindUser("u"))
        self.assertEqual(self.core.metrics.clear_bodies, 0)

    def test_compressed(self) -> None:
        """
        A compressed and sealed one is opened and inflated.
        """
        body = _AES.encrypt(zlib.compress(b"long " * 1000))
        self.assertEqual(
            self.device.decode_content(_CRYPTO | _COMPRESS, body), b"long " * 1000
        )

    def test_too_large(self) -> None:
        """
        One that inflates beyond the bound is refused.
        """
        body = zlib.compress(bytes((1 << 16) + 1))
        self.assertRaises(ProtocolError, self.device.decode_content, _COMPRESS, body)

    def test_handshake(self) -> None:
        """
        A handshake is always opened with the node's key (server 6.3).
        """
        hello = Handshake("d1", iv=bytes(16), client_key=bytes(16))
        body = _KEY.public.encrypt(hello.encode())
        self.assertEqual(self.device.decode(Handshake, _CRYPTO, body), hello)

    def test_json(self) -> None:
        """
        JSON is refused, unless it is empty.
        """
        flag = int(Flag.JSON_BODY)
        self.assertRaises(ProtocolError, self.device.decode, BindUser, flag, b"{}")
        self.assertRaises(ProtocolError, self.device.decode_content, flag, b"{}")
        self.assertEqual(self.device.decode(BindUser, flag, b""), BindUser())

    def test_empty_content(self) -> None:
        """
        A PUSH may be empty.
        """
        self.assertEqual(self.device.decode_content(_CRYPTO, b""), b"")


class RequireCryptoTests(ConnectTestCase):
    """
    C{mp.security.require-crypto}.
    """

    require_crypto = True

    def test_refused(self) -> None:
        """
        BIND, PUSH and HTTP_PROXY in clear are refused on a secured connection.
        """
        self.device.device_id, self.device.cipher = "d1", _AES
        body = BindUser("u").encode()
        self.assertRaises(ProtocolError, self.device.decode, BindUser, 0, body)
        body = HttpRequest(0, "http://a.test/").encode()
        self.assertRaises(ProtocolError, self.device.decode, HttpRequest, 0, body)
        self.assertRaises(ProtocolError, self.device.decode_content, 0, b"text")

    def test_sealed(self) -> None:
        """
        Sealed ones are served.
        """
        self.device.device_id, self.device.cipher = "d1", _AES
        body = _AES.encrypt(BindUser("u").encode())
        self.assertEqual(self.device.decode(BindUser, _CRYPTO, body), BindUser("u"))

    def test_before_the_handshake(self) -> None:
        """
        Before the handshake a BIND is read, so that it gets its proper refusal.
        """
        body = BindUser("u").encode()
        self.assertEqual(self.device.decode(BindUser, 0, body), BindUser("u"))

    def test_not_counted_before_the_handshake(self) -> None:
        """
        Before the handshake nothing can be sealed, so nothing counts as clear.
        """
        self.device.decode(BindUser, 0, BindUser("u").encode())
        self.device.decode_content(0, b"text")
        self.assertEqual(self.core.metrics.clear_bodies, 0)


class PacketsOutTests(ConnectTestCase):
    """
    What goes out, and how it is protected (server 7.1).
    """

    def setUp(self) -> None:
        super().setUp()
        self.device.device_id = "d1"
        self.device.cipher = _AES

    def test_interface(self) -> None:
        """
        It is a connection as the core wants it.
        """
        verifyObject(IPeerConnection, self.device)

    def test_web_answers(self) -> None:
        """
        What a web server has answered is sealed, even if it said no more than a status;
        what the proxy answers by itself is not (protocol 8).
        """
        self.device.answer(1, HttpResponse(200, "OK", {"Server": "s"}, b"hello"))
        self.device.answer(2, HttpResponse(204, "No Content", {}))
        self.device.answer(3, HttpResponse(502, "Bad Gateway"))
        sent = packets(self.transport.value())
        self.assertEqual([flags for _, flags, _, _ in sent], [_CRYPTO, _CRYPTO, 0])
        self.assertEqual(
            HttpResponse.decode(_AES.decrypt(sent[1][3])),
            HttpResponse(204, "No Content"),
        )

    def test_raw_answers(self) -> None:
        """
        Answers go raw, under the number of the request.
        """
        answers: list[tuple[int, Any]] = [
            (Command.OK, Ok(5, 0, "bind success")),
            (Command.ERROR, Error(5, 0, "bind failed")),
            (Command.FAST_CONNECT, FastConnectOk(180000)),
            (Command.HTTP_PROXY, HttpResponse(503, "Service Unavailable")),
        ]
        for cmd, message in answers:
            self.assertTrue(self.device.answer(9, message))
            self.assertEqual(self.sent(), [(cmd, 0, 9, message.encode())])

    def test_handshake_answer(self) -> None:
        """
        The answer to a handshake alone is sealed.
        """
        message = HandshakeOk(bytes(16), 180000, "0" * 32, 1)
        self.device.answer(1, message)
        [(cmd, flags, number, body)] = self.sent()
        self.assertEqual((cmd, flags, number), (Command.HANDSHAKE, _CRYPTO, 1))
        self.assertEqual(HandshakeOk.decode(_AES.decrypt(body)), message)

    def test_push(self) -> None:
        """
        A push is sealed with the session's key, without a length in front.
        """
        self.assertTrue(self.device.send_push(1 << 30, 8, b"hello"))
        [(cmd, flags, number, body)] = self.sent()
        self.assertEqual((cmd, flags, number), (Command.PUSH, _CRYPTO | 8, 1 << 30))
        self.assertEqual(_AES.decrypt(body), b"hello")

    def test_long_push(self) -> None:
        """
        A push above the threshold is compressed first; one of just that size is not.
        """
        self.device.send_push(1, 0, b"x" * 100)
        self.device.send_push(2, 0, b"x" * 101)
        [short, long] = self.sent()
        self.assertEqual(short[1], _CRYPTO)
        self.assertEqual(long[1], _CRYPTO | _COMPRESS)
        self.assertEqual(zlib.decompress(_AES.decrypt(long[3])), b"x" * 101)

    def test_header(self) -> None:
        """
        Check code and parity are always 0.
        """
        self.device.send_push(7, 0, b"hello")
        length, cmd, cc, flags, number, lrc = HEADER.unpack_from(self.transport.value())
        self.assertEqual((length, cmd, flags, number), (16, 15, 1, 7))
        self.assertEqual((cc, lrc), (0, 0))

    def test_kick(self) -> None:
        """
        KICK names the device and the user, is sealed and has the number 0.
        """
        self.assertTrue(self.device.send_kick("u"))
        [(cmd, flags, number, body)] = self.sent()
        self.assertEqual((cmd, flags, number), (Command.KICK, _CRYPTO, 0))
        self.assertEqual(Kick.decode(_AES.decrypt(body)), Kick("d1", "u"))

    def test_ack(self) -> None:
        """
        ACK is empty and raw.
        """
        self.assertTrue(self.device.send_ack(-3))
        self.assertEqual(self.sent(), [(Command.ACK, 0, -3, b"")])

    def test_heartbeat(self) -> None:
        """
        A heartbeat is one byte.
        """
        self.assertTrue(self.device.send_heartbeat())
        self.assertEqual(self.transport.value(), b"\xdf")

    def test_after_the_end(self) -> None:
        """
        After the end nothing is written, and the caller is told.
        """
        self.device.close("test")
        self.assertEqual(
            [
                self.device.answer(1, Ok(5)),
                self.device.send_push(1, 0, b"x"),
                self.device.send_kick("u"),
                self.device.send_ack(1),
                self.device.send_heartbeat(),
            ],
            [False] * 5,
        )
        self.assertEqual(self.transport.value(), b"")

    def test_busy(self) -> None:
        """
        The connection is busy when its transport is.
        """
        self.assertFalse(self.device.busy)
        self.transport.busy = True
        self.assertTrue(self.device.busy)

    def test_counted(self) -> None:
        """
        Packets are counted by command, bytes in all.
        """
        self.device.send_push(1, 0, b"x")
        self.device.send_heartbeat()
        self.assertEqual(self.metrics.packets_out[Command.PUSH], 1)
        self.assertEqual(self.metrics.packets_out[Command.HEARTBEAT], 1)
        self.assertEqual(self.metrics.bytes_out, len(self.transport.value()))


class LifeTests(ConnectTestCase):
    """
    Beginning and end.
    """

    max_connections = 2

    def test_beginning(self) -> None:
        """
        An accepted connection is known, and waits for its handshake.
        """
        self.assertEqual(list(self.connections), [self.device])
        self.assertEqual(self.connections.unsecured, 1)
        self.assertTrue(self.device.connected)
        self.assertEqual(self.device.peer, "192.0.2.1:40000")

    def test_end(self) -> None:
        """
        One that ends is forgotten, its place is free, and the node is told once.
        """
        self.device.connectionLost(_LOST)
        self.assertEqual(len(self.connections), 0)
        self.assertEqual(self.door.admission.total, 0)
        self.assertEqual(self.closed, [self.device])
        self.assertEqual(self.metrics.closed, {"peer": 1})
        self.assertFalse(self.device.connected)

    def test_first_reason_counts(self) -> None:
        """
        The reason that was given first is the one that is counted.
        """
        self.device.close("first")
        self.device.abort("second")
        self.device.connectionLost(_LOST)
        self.assertEqual(self.metrics.closed, {"first": 1})
        self.assertTrue(self.transport.aborted)

    def test_no_handshake(self) -> None:
        """
        One that never shakes hands is aborted by the clock.
        """
        self.core.clock.advance(10.1)
        self.assertTrue(self.transport.aborted)
        self.assertFalse(self.device.connected)

    def test_closed_but_never_drained(self) -> None:
        """
        A peer that does not take its last answer is aborted by the clock, too.
        """
        self.device.close("test")
        self.assertFalse(self.transport.aborted)
        self.core.clock.advance(10.1)
        self.assertTrue(self.transport.aborted)

    def test_full(self) -> None:
        """
        Beyond the limit a connection is refused and counted.
        """
        self.connect()
        address = IPv4Address("TCP", "192.0.2.9", 1)
        self.assertIsNone(self.factory.buildProtocol(address))
        self.assertEqual(self.metrics.refused, {"max-connections": 1})

    def test_names_for_logs(self) -> None:
        """
        Logs show a connection as the original does, with nothing secret in it.
        """
        self.device.cipher = _AES
        self.device.device_id, self.device.user_id = "d1", "u"
        text = repr(self.device)
        self.assertIn(f"[id: 0x{self.device.id}, - R:/192.0.2.1:40000]", text)
        self.assertIn("deviceId='d1', userId='u', tags=null, heartbeat=10000", text)
        self.device.close("test")
        self.assertIn(f"0x{self.device.id}, ! R:", repr(self.device))

    def test_names_that_forge_nothing(self) -> None:
        """
        Whatever a device says of itself, a log line stays one line of bearable length.
        """
        text = "d\n\x1b[2J" + "x" * 2000
        device = self.device
        device.device_id = device.os_name = device.os_version = text
        device.client_version = device.user_id = device.tags = text
        shown = repr(device)
        self.assertTrue(shown.isprintable())
        self.assertIn("d\\n\\x1b[2Jxx", shown)
        self.assertLess(len(shown), 6 * 600)

    def test_empty_context(self) -> None:
        """
        Before the handshake there is no context to show (server 3.2).
        """
        self.assertEqual(self.device.context(), "")

    def test_id(self) -> None:
        """
        Each connection has an id of eight hex digits.
        """
        other, _ = self.connect()
        self.assertRegex(self.device.id, "^[0-9a-f]{8}$")
        self.assertNotEqual(self.device.id, other.id)
