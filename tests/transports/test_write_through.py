"""
Tests for L{mpush_tw.transports.write_through} (DESIGN 5b, 6).
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import main, reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.internet.testing import MemoryReactorClock
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mpush_tw.errors import ConfigError
from mpush_tw.transports.write_through import (
    ListeningService,
    OutboundLimits,
    WriteThroughServer,
)


class FakeSocket:
    """
    A socket that takes as much as the test lets it.

    @ivar room: Bytes that it still takes; then it would block.
    @ivar error: Raised instead, if set.
    @ivar taken: What it took.
    @ivar incoming: What it gives, one item a read: bytes, or an exception.
    """

    def __init__(self) -> None:
        self.room = 1 << 30
        self.error: OSError | None = None
        self.taken = b""
        self.incoming: list[bytes | OSError] = []
        self.closed = False

    def send(self, data: bytes) -> int:
        if self.error is not None:
            raise self.error
        if not self.room:
            raise BlockingIOError(errno.EAGAIN, "would block")
        count = min(self.room, len(data))
        self.room -= count
        self.taken += bytes(data[:count])
        return count

    def recv(self, size: int) -> bytes:
        item = self.incoming.pop(0)
        if isinstance(item, OSError):
            raise item
        return item

    def fileno(self) -> int:
        return -1 if self.closed else 1000

    def setblocking(self, flag: bool) -> None:
        pass

    def shutdown(self, how: int) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def setsockopt(self, *args: object) -> None:
        pass


class FakeProtocol(Protocol):
    """
    Keeps what it receives and how it ended.
    """

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.lost: list[object] = []

    def dataReceived(self, data: bytes) -> None:
        self.received.append(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.lost.append(reason.value)


class FakeProducer:
    """
    Notes when it has to pause.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


class TransportTestCase(SynchronousTestCase):
    """
    A transport on a fake socket, with marks at 100 and 200 bytes.
    """

    limits = OutboundLimits(100, 200, 1000)

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.socket = FakeSocket()
        self.protocol = FakeProtocol()
        self.transport = WriteThroughServer(
            self.socket,  # type: ignore[arg-type]
            self.protocol,
            ("192.0.2.1", 40000),
            None,
            7,
            self.reactor,
            self.limits,
        )
        self.protocol.transport = self.transport  # type: ignore[assignment]

    @property
    def waiting_to_write(self) -> bool:
        """
        Whether the reactor is asked to tell when the socket takes more.
        """
        return self.transport in self.reactor.writers

    def drain(self, room: int) -> object:
        """
        Let the socket take some more, and the transport send it.
        """
        self.socket.room = room
        return self.transport.doWrite()


class WriteTests(TransportTestCase):
    """
    Sending.
    """

    def test_at_once(self) -> None:
        """
        When nothing is queued a message goes out in the same call, and the reactor is
        not troubled.
        """
        self.transport.write(b"hello")
        self.assertEqual(self.socket.taken, b"hello")
        self.assertFalse(self.waiting_to_write)
        self.assertEqual(self.transport.queued, 0)

    def test_partly(self) -> None:
        """
        What the kernel did not take is queued and sent later.
        """
        self.socket.room = 3
        self.transport.write(b"hello")
        self.assertEqual(self.socket.taken, b"hel")
        self.assertEqual(self.transport.queued, 2)
        self.assertTrue(self.waiting_to_write)
        self.drain(100)
        self.assertEqual(self.socket.taken, b"hello")
        self.assertEqual(self.transport.queued, 0)
        self.assertFalse(self.waiting_to_write)

    def test_would_block(self) -> None:
        """
        When it takes nothing all is queued.
        """
        self.socket.room = 0
        self.transport.write(b"hello")
        self.assertEqual(self.transport.queued, 5)
        self.drain(100)
        self.assertEqual(self.socket.taken, b"hello")

    def test_order(self) -> None:
        """
        A message never overtakes what is queued, even if the kernel has room again.
        """
        self.socket.room = 3
        self.transport.write(b"hello")
        self.socket.room = 100
        self.transport.write(b" world")
        self.assertEqual(self.socket.taken, b"hel")
        self.drain(4)
        self.socket.room = 100
        self.transport.write(b"!")
        self.drain(100)
        self.assertEqual(self.socket.taken, b"hello world!")

    def test_through_again(self) -> None:
        """
        When the queue is empty messages go out at once again.
        """
        self.socket.room = 0
        self.transport.write(b"a")
        self.drain(100)
        self.transport.write(b"b")
        self.assertEqual(self.socket.taken, b"ab")
        self.assertFalse(self.waiting_to_write)

    def test_broken(self) -> None:
        """
        A broken connection is found out in the reactor's turn, not in the caller's.
        """
        self.socket.error = BrokenPipeError(errno.EPIPE, "broken pipe")
        self.transport.write(b"hello")
        self.assertEqual(self.protocol.lost, [])
        self.assertIs(self.transport.doWrite(), main.CONNECTION_LOST)

    def test_close_waits_for_the_queue(self) -> None:
        """
        Closing lets what is queued go out first.
        """
        self.socket.room = 2
        self.transport.write(b"bye")
        self.transport.loseConnection()
        self.assertFalse(self.socket.closed)
        self.assertIs(self.drain(100), main.CONNECTION_DONE)
        self.assertEqual(self.socket.taken, b"bye")

    def test_after_the_end(self) -> None:
        """
        Nothing is sent after the end.
        """
        self.transport.connectionLost(_failure())
        self.transport.write(b"hello")
        self.assertEqual(self.socket.taken, b"")
        self.assertEqual(self.transport.queued, 0)


class BusyTests(TransportTestCase):
    """
    The water marks (server 14.9).
    """

    def setUp(self) -> None:
        super().setUp()
        self.socket.room = 0

    def test_up_to_the_mark(self) -> None:
        """
        Up to the high mark a connection is not busy.
        """
        self.transport.write(bytes(200))
        self.assertFalse(self.transport.busy)

    def test_above_it(self) -> None:
        """
        Above it, it is.
        """
        self.transport.write(bytes(200))
        self.transport.write(bytes(1))
        self.assertTrue(self.transport.busy)

    def test_until_below_the_low_mark(self) -> None:
        """
        It stays so until less than the low mark is queued.
        """
        self.transport.write(bytes(250))
        self.drain(150)
        self.assertEqual(self.transport.queued, 100)
        self.assertTrue(self.transport.busy)
        self.drain(1)
        self.assertFalse(self.transport.busy)

    def test_producer(self) -> None:
        """
        A producer is paused above the high mark and resumed when all has gone out.
        """
        producer = FakeProducer()
        self.transport.registerProducer(producer, True)
        self.transport.write(bytes(250))
        self.assertEqual(producer.calls, ["pause"])
        self.drain(1000)
        self.assertEqual(producer.calls, ["pause", "resume"])

    def test_too_much(self) -> None:
        """
        Who lets more than the bound pile up above the high mark is cut off.
        """
        for _ in range(12):
            self.transport.write(bytes(100))
        self.reactor.advance(0)
        self.assertEqual(self.protocol.lost, [])
        self.transport.write(bytes(1))
        self.reactor.advance(0)
        self.assertEqual(len(self.protocol.lost), 1)
        self.assertTrue(self.socket.closed)

    def test_asked_for(self) -> None:
        """
        What the peer has asked for may be longer than the bound, and what is sent
        besides is bounded as ever meanwhile.
        """
        self.transport.write_granted(bytes(5000))
        self.transport.write(bytes(1200))
        self.reactor.advance(0)
        self.assertEqual(self.protocol.lost, [])
        self.assertTrue(self.transport.busy)
        self.transport.write(bytes(1))
        self.reactor.advance(0)
        self.assertEqual(len(self.protocol.lost), 1)

    def test_asked_for_and_sent(self) -> None:
        """
        When it has been sent, the bound is the old one.
        """
        for room in (10000, 1 << 30):
            self.transport.write_granted(bytes(5000))
            self.drain(room)
        self.transport.write_granted(bytes(5000))
        self.socket.room = 0
        self.transport.write(bytes(1000))
        self.transport.write(bytes(200))
        self.assertFalse(self.socket.closed)
        self.transport.write(bytes(1))
        self.reactor.advance(0)
        self.assertTrue(self.socket.closed)

    def test_protocol_is_told(self) -> None:
        """
        A protocol that wants to know is told, and ends the connection itself.
        """
        told: list[bool] = []
        abort = self.transport.abortConnection

        class Watchful(FakeProtocol):
            def outbound_overflow(self) -> None:
                told.append(True)
                abort()

        protocol = Watchful()
        self.transport.protocol = protocol
        protocol.transport = self.transport  # type: ignore[assignment]
        for _ in range(20):
            self.transport.write(bytes(100))
        self.assertEqual(told, [True])
        self.reactor.advance(0)
        self.assertEqual(len(protocol.lost), 1)

    def test_writing_on(self) -> None:
        """
        Writing to it after that does nothing.
        """
        for _ in range(30):
            self.transport.write(bytes(100))
        self.assertLess(self.transport.queued, 1500)
        self.reactor.advance(0)
        self.assertEqual(len(self.protocol.lost), 1)


class UnboundedTests(TransportTestCase):
    """
    C{mp.limits.max-outbound} of 0.
    """

    limits = OutboundLimits(100, 200, 0)

    def test_no_bound(self) -> None:
        """
        Without a bound nobody is cut off.
        """
        self.socket.room = 0
        for _ in range(100):
            self.transport.write(bytes(1000))
        self.reactor.advance(0)
        self.assertEqual(self.protocol.lost, [])
        self.assertEqual(self.transport.queued, 100_000)


class ReadTests(TransportTestCase):
    """
    Receiving.
    """

    def test_data(self) -> None:
        """
        What has arrived is handed to the protocol.
        """
        self.socket.incoming = [b"data"]
        self.assertIsNone(self.transport.doRead())
        self.assertEqual(self.protocol.received, [b"data"])

    def test_nothing(self) -> None:
        """
        A false alarm is none.
        """
        self.socket.incoming = [BlockingIOError(errno.EAGAIN, "would block")]
        self.assertIsNone(self.transport.doRead())
        self.assertEqual(self.protocol.received, [])

    def test_end(self) -> None:
        """
        An end is one.
        """
        self.socket.incoming = [b""]
        self.assertIs(self.transport.doRead(), main.CONNECTION_DONE)

    def test_reset(self) -> None:
        """
        A reset is a lost connection.
        """
        self.socket.incoming = [ConnectionResetError(errno.ECONNRESET, "reset")]
        self.assertIs(self.transport.doRead(), main.CONNECTION_LOST)

    def test_reading_from_the_start(self) -> None:
        """
        A new transport reads.
        """
        self.assertIn(self.transport, self.reactor.readers)


def _failure() -> Any:
    return Failure(ConnectionDone())


class FakePort:
    """
    A port that is open.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.reading = True
        self.transport: Callable[..., Any] | None = None

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", self.number)

    def stopReading(self) -> None:
        self.reading = False

    def startReading(self) -> None:
        self.reading = True

    def stopListening(self) -> None:
        self.reading = False


class FakeReactor(MemoryReactorClock):
    """
    Opens L{FakePort}s.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ports: list[FakePort] = []

    def listenTCP(self, port: int, *args: object, **kw: object) -> Any:
        self.ports.append(FakePort(port))
        return self.ports[-1]


class AcceptRateTests(SynchronousTestCase):
    """
    C{mp.limits.accept-rate}.
    """

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.reactor.advance(1000.25)
        self.service = ListeningService(
            self.reactor,
            3000,
            "",
            ServerFactory(),
            OutboundLimits(1, 2, 3),
            "mp.key",
            accept_rate=3,
        )
        self.service.open()
        self.port = self.reactor.ports[0]

    def accept(self) -> None:
        """
        Accept one connection.
        """
        assert self.port.transport is not None
        transport = self.port.transport(
            FakeSocket(), FakeProtocol(), ("192.0.2.1", 1), None, 1, self.reactor
        )
        self.assertIsInstance(transport, WriteThroughServer)

    def test_below(self) -> None:
        """
        Below the rate accepting goes on.
        """
        for _ in range(10):
            self.accept()
            self.accept()
            self.reactor.advance(1)
        self.assertTrue(self.port.reading)
        self.assertEqual(self.service.pauses, 0)

    def test_above(self) -> None:
        """
        Above it accepting pauses until the second is over; nothing is refused.
        """
        for _ in range(3):
            self.accept()
        self.assertFalse(self.port.reading)
        self.assertEqual(self.service.pauses, 1)
        self.reactor.advance(0.9)
        self.assertFalse(self.port.reading)
        self.reactor.advance(0.11)
        self.assertTrue(self.port.reading)

    def test_every_second(self) -> None:
        """
        The next second has its own count.
        """
        for _ in range(3):
            for _ in range(3):
                self.accept()
            self.reactor.advance(1.01)
        self.assertEqual(self.service.pauses, 3)
        self.assertTrue(self.port.reading)

    def test_closed_meanwhile(self) -> None:
        """
        A port that was closed while accepting paused stays closed.
        """
        for _ in range(3):
            self.accept()
        self.service.close()
        self.reactor.advance(2)
        self.assertFalse(self.port.reading)
        self.assertEqual(self.service.port, 0)


class Echo(Protocol):
    """
    Sends everything back.
    """

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


def _echo_factory() -> ServerFactory[Any]:
    factory: ServerFactory[Any] = ServerFactory()
    factory.protocol = Echo
    return factory


class ListeningTests(TestCase):
    """
    A real port.
    """

    timeout = 30

    def listen(self, port: int = 0, key: str = "mp.some-port") -> ListeningService:
        """
        Make a service that is closed after the test.
        """
        service = ListeningService(
            reactor,  # type: ignore[arg-type]
            port,
            "127.0.0.1",
            _echo_factory(),
            OutboundLimits(1 << 14, 1 << 15, 1 << 24),
            key,
            send_buffer=8192,
        )
        self.addCleanup(service.close)
        return service

    def test_port_in_use(self) -> None:
        """
        A port that somebody else has is an error that names the key and the port.
        """
        service = self.listen()
        service.open()
        error = self.assertRaises(
            ConfigError, self.listen(service.port, "mp.other-port").open
        )
        self.assertEqual(error.key, "mp.other-port")
        self.assertIn(f"port {service.port} on 127.0.0.1", str(error))
        self.assertIn(os.strerror(errno.EADDRINUSE), str(error))

    def test_closed(self) -> Deferred[None]:
        """
        A closed port can be opened by somebody else; closing twice does no harm.
        """
        service = self.listen()
        service.open()
        number = service.port

        def reopen(ignored: object) -> Deferred[None]:
            self.assertEqual(service.port, 0)
            again = self.listen(number)
            again.open()
            self.assertEqual(again.port, number)
            return service.close()

        return service.close().addCallback(reopen)

    def test_slow_reader(self) -> Deferred[Any]:
        """
        A peer that reads slowly gets everything, in order.
        """
        service = self.listen()
        service.open()
        number = service.port
        sent = bytes(range(256)) * 4096

        def talk() -> bytes:
            peer = socket.socket()
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.settimeout(10)
            peer.connect(("127.0.0.1", number))
            peer.setblocking(False)
            position, received = 0, b""
            while len(received) < len(sent):
                readable, writable, _ = select.select(
                    [peer], [peer] if position < len(sent) else [], [], 10
                )
                if not readable and not writable:
                    break
                if writable:
                    position += peer.send(sent[position : position + 65536])
                elif readable:
                    received += peer.recv(65536)
            peer.close()
            return received

        def check(received: bytes) -> None:
            self.assertEqual(len(received), len(sent))
            self.assertTrue(received == sent)

        return deferToThread(talk).addCallback(check)
