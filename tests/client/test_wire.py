"""
Tests for L{mpush_tw.client._wire}: the protocol of a connection by itself.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IPushProducer
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mpush_tw.client._wire import Wire, WireFactory
from mpush_tw.client.errors import ClientError, Disconnected, TooManyPending
from mpush_tw.errors import ProtocolError
from mpush_tw.protocol.packet import encode_packet


class FakeReceiver:
    """
    Keeps what a wire tells.
    """

    def __init__(self) -> None:
        self.wire = Wire(self, Clock(), 1000, 2)
        self.events: list[Any] = []
        self.on_packet: Any = lambda command: None

    def wire_opened(self) -> None:
        self.events.append("opened")

    def packet_received(
        self, command: int, flags: int, session_id: int, body: bytes
    ) -> None:
        self.events.append(command)
        self.on_packet(command)

    def wire_failed(self, reason: ClientError) -> None:
        self.events.append(str(reason))
        self.wire.close()

    def wire_closed(self) -> None:
        self.events.append("closed")


def packets(*commands: int) -> bytes:
    """
    Packets without bodies.
    """
    return b"".join(encode_packet(command, 1, 0, b"") for command in commands)


class WireTests(SynchronousTestCase):
    """
    A wire between a transport and a receiver.
    """

    def setUp(self) -> None:
        self.receiver = FakeReceiver()
        self.wire = self.receiver.wire
        self.transport = StringTransport()

    def connect(self) -> None:
        """
        Make the connection.
        """
        self.wire.makeConnection(self.transport)
        self.assertEqual(self.receiver.events.pop(), "opened")

    def test_interfaces(self) -> None:
        """
        It is a protocol and a producer; its factory is one.
        """
        self.assertTrue(verifyObject(IProtocol, self.wire))
        self.assertTrue(verifyObject(IPushProducer, self.wire))
        factory = WireFactory(self.wire)
        self.assertTrue(verifyObject(IProtocolFactory, factory))
        self.assertIs(factory.buildProtocol(self.transport.getPeer()), self.wire)

    def test_small(self) -> None:
        """
        A wire has no dictionary.
        """
        self.assertFalse(hasattr(self.wire, "__dict__"))

    def test_packets_in_order(self) -> None:
        """
        Packets are told in order, wherever the reads cut them.
        """
        data = packets(11, 12, 13) + b"\xdf" + packets(14)
        for size in (1, 5, 13, 14, 1000):
            self.setUp()
            self.connect()
            for start in range(0, len(data), size):
                self.wire.dataReceived(data[start : start + size])
            self.assertEqual(self.receiver.events, [11, 12, 13, 1, 14])

    def test_connection_lost(self) -> None:
        """
        A loss is told with its reason, then the end of the transport.
        """
        self.connect()
        self.wire.connectionLost(Failure(ConnectionLost("cable cut")))
        self.assertEqual(len(self.receiver.events), 2)
        self.assertIn("cable cut", self.receiver.events[0])
        self.assertEqual(self.receiver.events[1], "closed")

    def test_closed_by_us(self) -> None:
        """
        After a close of our own nothing is told but the end of the transport, and
        nothing can be written.
        """
        self.connect()
        self.wire.close()
        self.assertTrue(self.transport.disconnecting)
        self.assertIsNone(self.transport.producer)
        self.wire.dataReceived(packets(11))
        self.assertRaises(Disconnected, self.wire.write, b"x")
        self.wire.connectionLost()
        self.assertEqual(self.receiver.events, ["closed"])

    def test_connected_too_late(self) -> None:
        """
        A connection that comes about after the close is closed without a word.
        """
        self.wire.close()
        self.wire.makeConnection(self.transport)
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.receiver.events, [])

    def test_close_in_the_middle(self) -> None:
        """
        What follows in a read is not looked at after a close.
        """
        self.connect()
        self.receiver.on_packet = lambda command: self.wire.close()
        self.wire.dataReceived(packets(11, 12))
        self.assertEqual(self.receiver.events, [11])

    def test_bad_packet(self) -> None:
        """
        A receiver that cannot understand a packet ends the connection.
        """
        self.connect()

        def refuse(command: int) -> None:
            raise ProtocolError("gibberish")

        self.receiver.on_packet = refuse
        self.wire.dataReceived(packets(11, 12))
        self.assertEqual(self.receiver.events, [11, "gibberish"])

    def test_bug(self) -> None:
        """
        An exception nobody expected is logged and costs this connection only.
        """
        self.connect()

        def crash(command: int) -> None:
            raise KeyError("bug")

        self.receiver.on_packet = crash
        self.wire.dataReceived(packets(11, 12))
        self.assertEqual(len(self.receiver.events), 2)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_hold(self) -> None:
        """
        Reading stops after the packet that caused it, and nothing is lost.
        """
        self.connect()
        self.receiver.on_packet = lambda command: command == 12 and self.wire.hold()
        self.wire.dataReceived(packets(11, 12, 13) + packets(14)[:5])
        self.assertEqual(self.transport.producerState, "paused")
        # TLS may bring more all the same.
        self.wire.dataReceived(packets(14)[5:] + packets(15))
        self.assertEqual(self.receiver.events, [11, 12])
        self.wire.release()
        self.assertEqual(self.receiver.events, [11, 12, 13, 14, 15])
        self.assertEqual(self.transport.producerState, "producing")

    def test_held_again(self) -> None:
        """
        A receiver that cannot keep up holds after each packet, and gets each once.
        """
        self.connect()
        self.receiver.on_packet = lambda command: self.wire.hold()
        self.wire.dataReceived(packets(11, 12))
        self.wire.dataReceived(packets(13, 14))
        for count in (1, 2, 3, 4):
            self.assertEqual(self.receiver.events, [11, 12, 13, 14][:count])
            self.assertEqual(self.transport.producerState, "paused")
            self.wire.release()
        self.assertEqual(self.transport.producerState, "producing")

    def test_two_reasons(self) -> None:
        """
        While the network is choked a release by the application does not resume.
        """
        self.connect()
        self.wire.hold()
        self.wire.pauseProducing()
        self.wire.release()
        self.assertEqual(self.transport.producerState, "paused")
        self.wire.resumeProducing()
        self.assertEqual(self.transport.producerState, "producing")

    def test_nothing_to_handle_while_choked(self) -> None:
        """
        A transport that takes nothing is read from until there is something to handle:
        TLS takes nothing before it has read the server's part of its handshake.
        """
        self.connect()
        self.wire.pauseProducing()
        self.assertEqual(self.transport.producerState, "producing")
        self.wire.dataReceived(packets(11))
        self.assertEqual(self.transport.producerState, "paused")
        self.assertEqual(self.receiver.events, [])
        self.wire.resumeProducing()
        self.assertEqual(self.transport.producerState, "producing")
        self.assertEqual(self.receiver.events, [11])

    def test_choked_in_the_middle(self) -> None:
        """
        What follows in a read waits when the network is choked by the answer to a
        packet, and is handled in order afterwards.
        """
        self.connect()
        self.receiver.on_packet = lambda command: (
            command == 11 and self.wire.pauseProducing()
        )
        self.wire.dataReceived(packets(11, 12))
        self.wire.dataReceived(packets(13))
        self.assertEqual(self.receiver.events, [11])
        self.wire.resumeProducing()
        self.assertEqual(self.receiver.events, [11, 12, 13])
        self.assertEqual(self.transport.producerState, "producing")

    def test_release_after_the_end(self) -> None:
        """
        A release that comes too late does nothing.
        """
        self.connect()
        self.wire.hold()
        self.wire.dataReceived(packets(11))
        self.wire.connectionLost()
        self.wire.release()
        self.assertEqual(
            self.receiver.events, ["the server closed the connection", "closed"]
        )

    def test_choked(self) -> None:
        """
        While the transport says that it is full, so many packets are taken and no more;
        that it says so again for each of them does not matter.
        """
        self.connect()
        self.wire.pauseProducing()
        for _ in range(2):
            self.wire.write(b"x")
            self.wire.pauseProducing()
        self.assertRaises(TooManyPending, self.wire.write, b"x")
        self.wire.resumeProducing()
        self.wire.write(b"y")
        self.assertEqual(self.transport.value(), b"xxy")
