"""
Tests for L{mpush_tw.transports.gateway} (cluster 4, server 14.4).
"""

from __future__ import annotations

import json
import zlib

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mpush_tw.core.push.request import Outcome, PushRequest
from mpush_tw.interfaces import (
    ConnectionClosed,
    ConnectionOpened,
    Event,
    IPushListener,
)
from mpush_tw.protocol.commands import Command, ErrorCode, Flag
from mpush_tw.protocol.gateway import GatewayPush
from mpush_tw.protocol.messages import Error, Ok
from mpush_tw.protocol.packet import Packet, PacketDecoder, encode_packet
from mpush_tw.transports.gateway import GatewayDoor, GatewayFactory, GatewayProtocol
from tests.core.fakes import Core, FakeConnection, start
from tests.transports.fakes import FakeTransport

_AUTO_ACK = int(Flag.AUTO_ACK)
_PUSH = int(Command.GATEWAY_PUSH)
_LOST = Failure(ConnectionDone())


def push_packet(
    number: int,
    user_id: str = "u",
    content: bytes = b"hello",
    flags: int = 0,
    client_type: int = 1,
) -> bytes:
    """
    What a sender sends.
    """
    message = GatewayPush(user_id, client_type, 5000, content)
    return encode_packet(Command.GATEWAY_PUSH, number, flags, message.encode())


class GatewayTestCase(SynchronousTestCase):
    """
    A door with a push centre behind it and one sender in front.
    """

    allowed_peers: tuple[str, ...] = ("127.0.0.0/8", "10.0.0.0/8", "::1/128")

    def setUp(self) -> None:
        self.core = Core()
        self.metrics = self.core.metrics.gateway
        self.posted: list[Event] = []
        self.door = GatewayDoor(
            self.core.centre,
            self.core.clock,
            self.core.log,
            self.metrics,
            10240,
            1 << 16,
            self.allowed_peers,
            self.posted.append,
        )
        self.sender, self.transport = self.connect()

    def connect(self) -> tuple[GatewayProtocol, FakeTransport]:
        """
        Accept a sender.
        """
        protocol = GatewayProtocol(self.door)
        transport = FakeTransport(("127.0.0.1", 50000))
        protocol.makeConnection(transport)
        return protocol, transport

    def device(self, user_id: str = "u") -> FakeConnection:
        """
        Bind a user.
        """
        connection = FakeConnection("d1")
        start(self.core.router.bind(connection, user_id, None))
        self.core.clock.advance(0)
        return connection

    def sent(self) -> list[Packet]:
        """
        The packets that the sender got since the last call.
        """
        return list(PacketDecoder().receive(self.transport.take()))

    def error(self) -> Error:
        """
        The ERROR that the sender got.
        """
        [(cmd, _, _, body)] = self.sent()
        self.assertEqual(cmd, Command.ERROR)
        return Error.decode(body)


class AnswerTests(GatewayTestCase):
    """
    One answer for each push.
    """

    def test_interfaces(self) -> None:
        """
        The listener is one.
        """
        verifyObject(IPushListener, self.door.listener)

    def test_success(self) -> None:
        """
        A delivered push is answered with OK under its number, with its time line.
        """
        device = self.device()
        self.sender.dataReceived(push_packet(7))
        self.assertEqual(device.contents, [b"hello"])
        [(cmd, flags, number, body)] = self.sent()
        self.assertEqual((cmd, flags, number), (Command.OK, 0, 7))
        answer = Ok.decode(body)
        self.assertEqual((answer.cmd, answer.code), (_PUSH, 0))
        assert answer.data is not None
        self.assertEqual(
            json.loads(answer.data),
            {
                "clientType": 1,
                "userId": "u",
                "timePoints": [
                    "push-center-begin",
                    0,
                    "before-send",
                    0,
                    "success-end",
                    0,
                ],
            },
        )

    def test_offline(self) -> None:
        """
        A user who is offline is ERROR 1.
        """
        self.sender.dataReceived(push_packet(7, "nobody"))
        error = self.error()
        self.assertEqual(error[:3], (_PUSH, 1, "user offline"))
        assert error.data is not None
        self.assertEqual(json.loads(error.data)["userId"], "nobody")

    def test_failure(self) -> None:
        """
        A push that could not be delivered is ERROR 2.
        """
        self.device().full = True
        self.sender.dataReceived(push_packet(7))
        self.assertEqual(self.error()[:3], (_PUSH, 2, "push to client failure"))

    def test_redirect(self) -> None:
        """
        A user who is on another node is ERROR 3.
        """
        start(self.core.remote.register("u", 1, self.core.route(self.core.elsewhere)))
        self.sender.dataReceived(push_packet(7))
        self.assertEqual(self.error()[:3], (_PUSH, 3, "router change"))

    def test_time_out(self) -> None:
        """
        A push that timed out is not answered: Java senders would hang on it (C-31).
        """
        self.device()
        self.sender.dataReceived(push_packet(7, flags=_AUTO_ACK))
        self.core.clock.advance(10)
        self.assertEqual(self.core.metrics.push_results, {"timeout": 1})
        self.assertEqual(self.sent(), [])
        self.assertFalse(self.transport.disconnecting)

    def test_acknowledged(self) -> None:
        """
        With an acknowledgement the answer comes when that has come.
        """
        device = self.device()
        self.sender.dataReceived(push_packet(7, flags=_AUTO_ACK))
        self.assertEqual(self.sent(), [])
        self.core.centre.acknowledged(device, device.sent[0][1])
        self.core.clock.advance(0)
        [(cmd, _, number, _)] = self.sent()
        self.assertEqual((cmd, number), (Command.OK, 7))

    def test_only_ack_flags_reach_the_device(self) -> None:
        """
        Other flags of a sender's packet are its own affair (S-15).
        """
        device = self.device()
        self.sender.dataReceived(push_packet(7, flags=0xFC & ~0x10))
        self.assertEqual(device.sent[0][2], 12)

    def test_compressed(self) -> None:
        """
        A compressed push is inflated, and the device is told nothing of it (S-15).
        """
        device = self.device()
        body = zlib.compress(GatewayPush("u", 1, 5000, b"hello").encode())
        self.sender.dataReceived(encode_packet(Command.GATEWAY_PUSH, 1, 2, body))
        self.assertEqual(device.sent[0][2:], (0, b"hello"))

    def test_broadcast_complete(self) -> None:
        """
        A finished broadcast is answered with OK.
        """
        request = PushRequest(
            None, 0, 0, b"x", None, None, None, 0, self.door.listener, (self.sender, 3)
        )
        self.door.listener.push_finished(request, Outcome.BROADCAST_COMPLETE, [])
        self.core.clock.advance(0)
        [(cmd, _, number, body)] = self.sent()
        self.assertEqual((cmd, number), (Command.OK, 3))
        self.assertEqual(Ok.decode(body)[:2], (_PUSH, 0))

    def test_answer_too_long_with_its_time_line(self) -> None:
        """
        An answer that a Java sender would not take is sent without its time points.
        """
        user_id = "u" * 10150
        self.sender.dataReceived(push_packet(7, user_id))
        error = self.error()
        assert error.data is not None
        self.assertEqual(error.code, 1)
        self.assertEqual(
            json.loads(error.data),
            {"clientType": 1, "timePoints": [], "userId": user_id},
        )

    def test_answer_too_long_with_its_user(self) -> None:
        """
        If that is not enough, without any data.
        """
        self.sender.dataReceived(push_packet(7, "\x01" * 2000))
        self.assertEqual(self.error()[1:], (1, "user offline", None))

    def test_each_to_its_sender(self) -> None:
        """
        Each sender gets the answers to its own pushes.
        """
        other, other_transport = self.connect()
        device = self.device()
        self.sender.dataReceived(push_packet(1, flags=_AUTO_ACK))
        other.dataReceived(push_packet(2, flags=_AUTO_ACK))
        self.core.centre.acknowledged(device, device.sent[1][1])
        self.core.clock.advance(0)
        self.assertEqual(self.sent(), [])
        [(_, _, number, _)] = PacketDecoder().receive(other_transport.take())
        self.assertEqual(number, 2)


class BatchTests(GatewayTestCase):
    """
    Answers of one turn go out together (DESIGN 6).
    """

    def test_one_read(self) -> None:
        """
        The answers to all pushes of one read are one write.
        """
        self.device()
        self.sender.dataReceived(b"".join(map(push_packet, range(20))))
        self.assertEqual(len(self.transport.writes), 1)
        numbers = [number for _, _, number, _ in self.sent()]
        self.assertEqual(numbers, list(range(20)))

    def test_acknowledgements_of_one_turn(self) -> None:
        """
        So are the acknowledgements of one turn of the reactor.
        """
        device = self.device()
        pushes = [push_packet(number, flags=_AUTO_ACK) for number in range(10)]
        self.sender.dataReceived(b"".join(pushes))
        for item in list(device.sent):
            self.core.centre.acknowledged(device, item[1])
        self.assertEqual(self.transport.writes, [])
        self.core.clock.advance(0)
        self.assertEqual(len(self.transport.writes), 1)
        self.assertEqual(len(self.sent()), 10)

    def test_nothing_to_say(self) -> None:
        """
        A read without answers writes nothing.
        """
        self.sender.dataReceived(push_packet(1)[:-1])
        self.assertEqual(self.transport.writes, [])

    def test_in_pieces(self) -> None:
        """
        Requests may arrive in any pieces.
        """
        self.device()
        for byte in push_packet(1) + push_packet(2):
            self.sender.dataReceived(bytes([byte]))
        self.assertEqual([number for _, _, number, _ in self.sent()], [1, 2])


class BadPeerTests(GatewayTestCase):
    """
    Peers that are no senders.
    """

    def test_unsupported(self) -> None:
        """
        Another command gets ERROR 101, then close; nothing behind it is pushed.
        """
        device = self.device()
        chat = encode_packet(Command.CHAT, 4, 0, b"")
        self.sender.dataReceived(chat + push_packet(5))
        self.assertEqual(
            self.error(), Error.of(Command.CHAT, ErrorCode.UNSUPPORTED_CMD)
        )
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(device.sent, [])

    def test_heartbeat(self) -> None:
        """
        There is no heartbeat here (server 8.1).
        """
        self.sender.dataReceived(b"\xdf")
        self.assertEqual(self.error(), Error.of(1, ErrorCode.UNSUPPORTED_CMD))
        self.assertTrue(self.transport.disconnecting)

    def test_answers_in_front_go_out(self) -> None:
        """
        What was pushed before it is answered first.
        """
        self.device()
        chat = encode_packet(Command.CHAT, 4, 0, b"")
        self.sender.dataReceived(push_packet(3) + chat)
        self.assertEqual(
            [(cmd, number) for cmd, _, number, _ in self.sent()],
            [(Command.OK, 3), (Command.ERROR, 4)],
        )

    def test_undecodable(self) -> None:
        """
        A push that cannot be read gets ERROR 100, then close.
        """
        body = GatewayPush("u", 1, 5000, b"hello").encode()[:-8]
        self.sender.dataReceived(encode_packet(Command.GATEWAY_PUSH, 4, 0, body))
        self.assertEqual(self.error(), Error.of(_PUSH, ErrorCode.DISPATCH_ERROR))
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.metrics.decode_errors, {"body": 1})

    def test_empty(self) -> None:
        """
        A push without a body or content is ERROR 2, and the connection stays
        (DESIGN 5c).
        """
        for packet in (
            encode_packet(Command.GATEWAY_PUSH, 4, 0, b""),
            push_packet(5, content=b""),
        ):
            self.sender.dataReceived(packet)
            self.assertEqual(self.error().code, 2)
        self.assertFalse(self.transport.disconnecting)

    def test_broken_stream(self) -> None:
        """
        A stream that is no packets ends the connection without an answer.
        """
        self.sender.dataReceived(b"\x7f\xff\xff\xff")
        self.assertEqual(self.sent(), [])
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.metrics.decode_errors, {"framing": 1})

    def test_nothing_after_the_close(self) -> None:
        """
        What arrives after that is not read.
        """
        device = self.device()
        self.sender.dataReceived(b"\x7f\xff\xff\xff")
        self.sender.dataReceived(push_packet(1))
        self.assertEqual(device.sent, [])


class EndTests(GatewayTestCase):
    """
    Senders that leave, and nodes that stop.
    """

    def test_lost(self) -> None:
        """
        A sender that has left is forgotten.
        """
        self.assertEqual(self.door.connections, {self.sender})
        self.sender.connectionLost(_LOST)
        self.assertEqual(self.door.connections, set())
        self.assertEqual(self.metrics.closed, {"peer": 1})

    def test_events(self) -> None:
        """
        That a sender came and went are events, with one id.
        """
        (opened,) = self.posted
        assert isinstance(opened, ConnectionOpened)
        self.assertEqual(opened.door, "gateway")
        self.assertRegex(opened.connection_id, "^[0-9a-f]{8}$")
        self.sender.connectionLost(_LOST)
        closed = ConnectionClosed("gateway", opened.connection_id, None, None)
        self.assertEqual(self.posted, [opened, closed])

    def test_answer_to_nobody(self) -> None:
        """
        An outcome whose sender has left is logged and otherwise lost.
        """
        device = self.device()
        self.sender.dataReceived(push_packet(7, flags=_AUTO_ACK))
        self.sender.connectionLost(_LOST)
        self.core.centre.acknowledged(device, device.sent[0][1])
        self.core.clock.advance(0)
        self.assertEqual(self.transport.writes, [])
        self.assertIn("gateway connection is closed", self.core.texts())

    def test_lost_with_answers_waiting(self) -> None:
        """
        Answers that were about to go out do not outlive the connection.
        """
        device = self.device()
        self.sender.dataReceived(push_packet(7, flags=_AUTO_ACK))
        self.core.centre.acknowledged(device, device.sent[0][1])
        self.sender.connectionLost(_LOST)
        self.core.clock.advance(1)
        self.assertEqual(self.transport.writes, [])

    def test_closed_by_the_node(self) -> None:
        """
        When the node stops, what was settled goes out first.
        """
        device = self.device()
        self.sender.dataReceived(push_packet(7, flags=_AUTO_ACK))
        self.core.centre.acknowledged(device, device.sent[0][1])
        self.sender.close()
        self.sender.close()
        self.assertEqual([number for _, _, number, _ in self.sent()], [7])
        self.assertTrue(self.transport.disconnecting)
        self.sender.connectionLost(_LOST)
        self.core.clock.advance(1)
        self.assertEqual(self.metrics.closed, {"stop": 1})

    def test_closed_but_never_drained(self) -> None:
        """
        A sender that does not take its last answers is aborted after ten seconds.
        """
        self.sender.close()
        self.core.clock.advance(9.9)
        self.assertFalse(self.transport.aborted)
        self.core.clock.advance(0.2)
        self.assertTrue(self.transport.aborted)

    def test_refused_but_never_drained(self) -> None:
        """
        So is one that was closed for what it sent.
        """
        self.sender.dataReceived(encode_packet(Command.BIND, 1, 0, b""))
        self.assertTrue(self.transport.disconnecting)
        self.core.clock.advance(10.1)
        self.assertTrue(self.transport.aborted)

    def test_closed_and_drained(self) -> None:
        """
        One that does take them is gone by then, and the clock is left alone.
        """
        self.sender.close()
        self.core.clock.advance(1)
        self.sender.connectionLost(_LOST)
        self.assertEqual(self.core.clock.getDelayedCalls(), [])
        self.core.clock.advance(20)
        self.assertFalse(self.transport.aborted)


class BackpressureTests(GatewayTestCase):
    """
    Senders that do not read their answers.
    """

    def test_paused(self) -> None:
        """
        A sender whose answers pile up is not read from until they have gone out.
        """
        producer = self.transport.producer
        assert producer is not None
        self.assertTrue(self.transport.streaming)
        producer.pauseProducing()
        self.assertFalse(self.transport.reading)
        producer.resumeProducing()
        self.assertTrue(self.transport.reading)

    def test_unregistered(self) -> None:
        """
        A connection that is closed is no producer any more, so that it can end.
        """
        self.sender.close()
        self.assertIsNone(self.transport.producer)


class AllowedPeersTests(GatewayTestCase):
    """
    C{mp.net.gateway-allowed-peers} (C-26).
    """

    def test_allowed(self) -> None:
        """
        Peers of the networks that are named may connect.
        """
        for host in ("127.0.0.1", "127.8.8.8", "10.1.2.3", "::1"):
            self.assertTrue(self.door.allows(host), host)

    def test_refused(self) -> None:
        """
        Others may not.
        """
        for host in ("192.0.2.1", "11.0.0.1", "::2", "2001:db8::1"):
            self.assertFalse(self.door.allows(host), host)

    def test_mapped(self) -> None:
        """
        An IPv4 peer on an IPv6 socket is judged by its IPv4 address.
        """
        self.assertTrue(self.door.allows("::ffff:10.0.0.1"))
        self.assertFalse(self.door.allows("::ffff:192.0.2.1"))

    def test_zone(self) -> None:
        """
        The zone of a link-local address does not matter.
        """
        self.assertFalse(self.door.allows("fe80::1%eth0"))

    def test_connection(self) -> None:
        """
        A peer that may not connect is closed at once and counted.
        """
        factory = GatewayFactory(self.door)
        refused = factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1))
        self.assertIsNone(refused)
        self.assertEqual(self.metrics.refused, {"gateway-allowed-peers": 1})
        for address in (
            IPv4Address("TCP", "10.0.0.1", 1),
            IPv6Address("TCP", "::1", 1),
        ):
            self.assertIsInstance(factory.buildProtocol(address), GatewayProtocol)

    def test_too_many(self) -> None:
        """
        There are at most a thousand senders; one more is closed at once and counted,
        until another has left.
        """
        factory = GatewayFactory(self.door)
        address = IPv4Address("TCP", "127.0.0.1", 1)
        for _ in range(999):
            protocol = factory.buildProtocol(address)
            assert isinstance(protocol, GatewayProtocol)
            protocol.makeConnection(FakeTransport(("127.0.0.1", 1)))
        self.assertEqual(len(self.door.connections), 1000)
        self.assertIsNone(factory.buildProtocol(address))
        self.assertEqual(self.metrics.refused, {"gateway-connections": 1})
        self.sender.connectionLost(_LOST)
        self.assertIsInstance(factory.buildProtocol(address), GatewayProtocol)


class NobodyAllowedTests(GatewayTestCase):
    """
    An empty list.
    """

    allowed_peers = ()

    def test_nobody(self) -> None:
        """
        With an empty list nobody may connect.
        """
        self.assertFalse(self.door.allows("127.0.0.1"))
