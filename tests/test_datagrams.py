"""
Tests for L{mpush_tw.datagrams}, on real sockets.
"""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred, fail
from twisted.internet.error import ConnectionDone, DNSLookupError
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from mpush_tw.datagrams import Address, DatagramSocket, HostAddresses
from mpush_tw.errors import Unavailable
from tests.datagrams import (
    GROUP,
    LOOPBACK,
    NOT_HERE,
    Peer,
    multicast_works,
    unused_port,
)


class Sayings:
    """
    A log that tests can read.

    @ivar errors: The errors, complete sentences.
    @ivar failures: The exceptions.
    """

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.failures: list[BaseException] = []

    def error(self, text: str, /, **fields: Any) -> None:
        self.errors.append(text.format(**fields))

    def failure(self, text: str, failure: Failure, /, **fields: Any) -> None:
        self.failures.append(failure.value)


class SocketTestCase(TestCase):
    """
    An open socket that keeps what it gets, and a peer.
    """

    timeout = 30

    def setUp(self) -> None:
        self.log = Sayings()
        self.got: list[tuple[bytes, Address, bytes]] = []
        self.socket = self.make(self.received)
        self.socket.open(0)
        self.peer = Peer.on()
        self.addCleanup(self.peer.close)

    def make(self, received: Any) -> DatagramSocket:
        """
        Make a socket that is closed after the test.
        """
        made = DatagramSocket(reactor, received, self.log)
        self.addCleanup(made.close)
        return made

    def received(self, data: bytes, peer: Address, own: bytes) -> None:
        self.got.append((data, peer, own))

    @property
    def address(self) -> tuple[str, int]:
        return LOOPBACK, self.socket.port

    async def until(self, count: int) -> None:
        """
        Wait until so many datagrams have come.
        """
        while len(self.got) < count:
            await self.pause(0.005)

    def pause(self, seconds: float = 0.1) -> Deferred[None]:
        return deferLater(reactor, seconds)  # type: ignore[arg-type]

    def option(self, level: int, name: int) -> int:
        """
        Read an option of the socket under test.
        """
        with socket.fromfd(
            self.socket.fileno(), socket.AF_INET, socket.SOCK_DGRAM
        ) as same:
            return same.getsockopt(level, name)


class OpenTests(SocketTestCase):
    """
    Opening and closing.
    """

    def test_interface(self) -> None:
        """
        The reactor can read it.
        """
        verifyObject(IReadDescriptor, self.socket)

    def test_options(self) -> None:
        """
        Broadcast is allowed, what goes to groups crosses routers and comes back, and
        whoever shares the port may come later (cluster 4.8).
        """
        self.assertEqual(self.option(socket.SOL_SOCKET, socket.SO_BROADCAST), 1)
        self.assertEqual(self.option(socket.SOL_SOCKET, socket.SO_REUSEADDR), 1)
        self.assertEqual(self.option(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL), 255)
        self.assertEqual(self.option(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP), 1)

    def test_buffers(self) -> None:
        """
        The kernel's buffers can be chosen.
        """
        self.socket = self.make(self.received)
        self.socket.open(0, send_buffer=50_000, receive_buffer=60_000)
        # Linux tells twice what it was asked for.
        self.assertEqual(self.option(socket.SOL_SOCKET, socket.SO_SNDBUF), 100_000)
        self.assertEqual(self.option(socket.SOL_SOCKET, socket.SO_RCVBUF), 120_000)

    def test_port_in_use(self) -> None:
        """
        A port that somebody has is not taken, even from one who would share it.
        """
        with self.assertRaises(OSError) as caught:
            self.make(self.received).open(self.socket.port)
        self.assertEqual(caught.exception.errno, errno.EADDRINUSE)

    def test_shared_port(self) -> None:
        """
        Who asks for a shared port gets it when the others share it too (C-44).
        """
        other = self.make(self.received)
        other.open(self.socket.port, shared=True)
        self.assertEqual(other.port, self.socket.port)

    def test_closed(self) -> Any:
        """
        A closed socket gives its port back, and sends no more; closing twice is no
        error.
        """

        async def close() -> None:
            port = self.socket.port
            closing = self.socket.close()
            self.assertFalse(self.socket.send(b"x", self.peer.address))
            self.assertFalse(self.socket.send_within_machine(b"x", (GROUP, port)))
            await self.socket.close()
            await closing
            self.assertEqual(self.socket.port, 0)
            self.socket.open(port)
            self.peer.send(b"hello", (LOOPBACK, port))
            await self.until(1)

        return ensureDeferred(close())

    def test_closed_while_reading(self) -> Any:
        """
        A socket that is closed by what arrives takes nothing that came behind it.
        """

        def received(data: bytes, peer: Address, own: bytes) -> None:
            self.got.append((data, peer, own))
            self.closing = closing_socket.close()

        closing_socket = self.make(received)

        async def close() -> None:
            closing_socket.open(0)
            to = LOOPBACK, closing_socket.port
            for _ in range(3):
                self.peer.send(b"x", to)
            await self.until(1)
            await self.closing
            self.assertEqual(len(self.got), 1)

        return ensureDeferred(close())


class ReceiveTests(SocketTestCase):
    """
    What arrives.
    """

    def test_received(self) -> Any:
        """
        A datagram comes whole, with its source and the own address it came to.
        """

        async def receive() -> None:
            self.peer.send(b"hello", ("127.0.0.5", self.socket.port))
            await self.until(1)
            own = socket.inet_aton("127.0.0.5")
            self.assertEqual(self.got, [(b"hello", self.peer.address, own)])

        return ensureDeferred(receive())

    def test_sizes(self) -> Any:
        """
        From nothing to the largest that UDP carries, all arrive as they were sent.
        """

        async def receive() -> None:
            for size in (0, 1, 2048, 8193, 65507):
                self.peer.send(bytes(size), self.address)
            await self.until(5)
            sizes = [len(data) for data, _, _ in self.got]
            self.assertEqual(sizes, [0, 1, 2048, 8193, 65507])

        return ensureDeferred(receive())

    def test_many_at_once(self) -> Any:
        """
        Many that come together are taken in bounded portions, and none is forgotten.
        """

        async def receive() -> None:
            for _ in range(150):
                self.peer.send(b"", self.address)
            self.socket.doRead()
            self.assertEqual(len(self.got), 64)
            await self.until(150)

        return ensureDeferred(receive())

    def test_pause(self) -> Any:
        """
        While it is paused nothing is taken; what came meanwhile is there afterwards.
        """

        async def receive() -> None:
            self.socket.pause()
            self.socket.pause()
            self.peer.send(b"early", self.address)
            await self.pause()
            self.assertEqual(self.got, [])
            self.socket.resume()
            self.socket.resume()
            await self.until(1)

        return ensureDeferred(receive())

    def test_pause_while_reading(self) -> Any:
        """
        A pause asked for by what arrives holds back what came behind it.
        """

        def received(data: bytes, peer: Address, own: bytes) -> None:
            self.got.append((data, peer, own))
            pausing.pause()

        pausing = self.make(received)

        async def receive() -> None:
            pausing.open(0)
            for _ in range(2):
                self.peer.send(b"x", (LOOPBACK, pausing.port))
            await self.until(1)
            await self.pause()
            self.assertEqual(len(self.got), 1)
            pausing.resume()
            await self.until(2)

        return ensureDeferred(receive())

    def test_paused_before_it_is_open(self) -> Any:
        """
        A pause holds for a socket that is opened later.
        """

        async def receive() -> None:
            late = self.make(self.received)
            late.pause()
            late.resume()
            late.pause()
            late.open(0)
            self.peer.send(b"x", (LOOPBACK, late.port))
            await self.pause()
            self.assertEqual(self.got, [])
            late.resume()
            await self.until(1)

        return ensureDeferred(receive())


class SendTests(SocketTestCase):
    """
    What is sent.
    """

    def test_sent(self) -> Any:
        """
        A datagram reaches the peer, from the port of the socket.
        """

        async def send() -> None:
            self.assertTrue(self.socket.send(b"hi", self.peer.address))
            self.assertEqual(await self.peer.next(), (b"hi", self.address))

        return ensureDeferred(send())

    def test_answer_comes_from_the_address_that_was_asked(self) -> Any:
        """
        On a machine with several addresses the answer leaves from the one that the
        question came to.
        """

        async def send() -> None:
            self.peer.send(b"question", ("127.0.0.5", self.socket.port))
            await self.until(1)
            _, peer, own = self.got[0]
            self.assertTrue(self.socket.send(b"answer", peer, own))
            self.assertEqual(
                await self.peer.next(), (b"answer", ("127.0.0.5", self.socket.port))
            )

        return ensureDeferred(send())

    def test_what_cannot_be_sent(self) -> None:
        """
        What the kernel refuses is reported, whatever it is.
        """
        for data, peer, own in (
            (bytes(65508), self.peer.address, b""),
            (b"x", (LOOPBACK, 0), b""),
            (b"x", (LOOPBACK, 65536), b""),
            (b"x", self.peer.address, socket.inet_aton(NOT_HERE)),
        ):
            self.assertFalse(self.socket.send(data, peer, own), (len(data), peer))
        self.assertEqual(len(self.log.errors), 4)
        self.assertIn("65508 bytes to 127.0.0.1", self.log.errors[0])


class SurvivalTests(SocketTestCase):
    """
    What other sockets die of.
    """

    def test_nobody_listens(self) -> Any:
        """
        A peer that is not there, as the network tells, changes nothing.
        """

        async def go_on() -> None:
            for _ in range(3):
                self.socket.send(b"anybody?", (LOOPBACK, unused_port()))
                await self.pause(0.02)
            self.peer.send(b"here", self.address)
            await self.until(1)

        return ensureDeferred(go_on())

    def test_bug(self) -> Any:
        """
        A datagram that its receiver fails on is logged, and the next is taken; of many
        in a second one is logged.
        """

        def received(data: bytes, peer: Address, own: bytes) -> None:
            self.got.append((data, peer, own))
            raise ZeroDivisionError

        failing = self.make(received)

        async def go_on() -> None:
            failing.open(0)
            for _ in range(5):
                self.peer.send(b"x", (LOOPBACK, failing.port))
            await self.until(5)
            self.assertEqual(len(self.log.failures), 1)
            self.assertIsInstance(self.log.failures[0], ZeroDivisionError)

        return ensureDeferred(go_on())

    def test_error_reported_by_the_reactor(self) -> Any:
        """
        When the reactor gives the descriptor up, it is read again a little later.
        """
        clock = Clock()
        added: list[object] = []
        clock.addReader = added.append  # type: ignore[attr-defined]
        clock.removeReader = added.remove  # type: ignore[attr-defined]
        made = DatagramSocket(clock, self.received, self.log)
        made.open(0)
        self.assertEqual(added, [made])
        clock.removeReader(made)  # type: ignore[attr-defined]
        made.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(len(self.log.errors), 1)
        made.resume()
        self.assertEqual(added, [])
        clock.advance(1)
        self.assertEqual(added, [made])
        clock.removeReader(made)  # type: ignore[attr-defined]
        made.connectionLost(Failure(ConnectionDone()))
        closing = made.close()
        made.connectionLost(Failure(ConnectionDone()))
        clock.advance(0)
        self.successResultOf(closing)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_unreadable(self) -> Any:
        """
        An error of the kernel while receiving is logged, and reading goes on.
        """
        broken = self.socket._socket

        class Failing:
            def recvmsg(self, size: int, room: int) -> Any:
                raise OSError(errno.ENOBUFS, "No buffer space available")

            def close(self) -> None:
                pass

        async def go_on() -> None:
            self.socket._socket = Failing()  # type: ignore[assignment]
            self.socket.doRead()
            self.assertIn("No buffer space available", self.log.errors[0])
            self.socket._socket = broken
            self.peer.send(b"here", self.address)
            await self.until(1)

        return ensureDeferred(go_on())


class GroupTests(SocketTestCase):
    """
    Multicast.
    """

    def need_multicast(self) -> None:
        if not multicast_works():
            raise SkipTest("this machine does not carry multicast by loopback")

    def test_member(self) -> Any:
        """
        A member gets what is sent to its group, also from itself.
        """
        self.need_multicast()

        async def receive() -> None:
            self.socket.join(GROUP, LOOPBACK)
            self.socket.send_groups_by(LOOPBACK)
            group = GROUP, self.socket.port
            self.assertTrue(self.socket.send(b"to all", group))
            self.assertTrue(self.socket.send_within_machine(b"to all here", group))
            await self.until(2)
            data, peer, own = self.got[0]
            self.assertEqual((data, peer), (b"to all", self.address))
            # From there an answer to the group's datagram can be sent.
            self.assertEqual(own, socket.inet_aton(LOOPBACK))
            ttl = self.option(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL)
            self.assertEqual(ttl, 255)

        return ensureDeferred(receive())

    def test_not_a_member(self) -> Any:
        """
        A socket gets nothing of groups that others on this machine have joined.
        """
        self.need_multicast()

        async def receive() -> None:
            member = self.make(lambda *_: None)
            member.open(0)
            member.join(GROUP, LOOPBACK)
            member.send_groups_by(LOOPBACK)
            member.send(b"to all", (GROUP, self.socket.port))
            await self.pause()
            self.assertEqual(self.got, [])

        return ensureDeferred(receive())

    def test_no_such_interface(self) -> Any:
        """
        Joining by an address that the machine does not have fails, and the socket
        works as before.
        """

        async def go_on() -> None:
            with self.assertRaises(OSError):
                self.socket.join(GROUP, NOT_HERE)
            with self.assertRaises(OSError):
                self.socket.send_groups_by(NOT_HERE)
            self.peer.send(b"here", self.address)
            await self.until(1)

        return ensureDeferred(go_on())


class Resolver(Clock):
    """
    A reactor that looks names up as the test has it.

    @ivar asked: For each lookup its name, its time-outs and its answer to come.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, tuple[int, ...], Deferred[str]]] = []

    def resolve(self, name: str, timeout: tuple[int, ...]) -> Deferred[str]:
        answer: Deferred[str] = Deferred()
        self.asked.append((name, timeout, answer))
        return answer


class HostAddressTests(SynchronousTestCase):
    """
    Looking up host names.
    """

    def setUp(self) -> None:
        self.clock = Resolver()
        self.hosts = HostAddresses(self.clock)

    def test_numeric(self) -> None:
        """
        An address is not looked up.
        """
        self.assertEqual(self.successResultOf(self.hosts.find("10.0.0.9")), "10.0.0.9")
        self.assertEqual(self.clock.asked, [])

    def test_name(self) -> None:
        """
        All who ask for a name share one lookup, whose time is bounded.
        """
        one, other = self.hosts.find("node-b"), self.hosts.find("node-b")
        [(name, timeout, answer)] = self.clock.asked
        self.assertEqual((name, sum(timeout)), ("node-b", 5))
        self.assertNoResult(one)
        answer.callback("10.0.0.9")
        self.assertEqual(self.successResultOf(one), "10.0.0.9")
        self.assertEqual(self.successResultOf(other), "10.0.0.9")

    def test_kept_for_a_minute(self) -> None:
        """
        An answer is used for a minute; then the name may have moved.
        """
        self.hosts.find("node-b")
        self.clock.asked[0][2].callback("10.0.0.9")
        self.clock.advance(59)
        self.assertEqual(self.successResultOf(self.hosts.find("node-b")), "10.0.0.9")
        self.clock.advance(2)
        self.assertNoResult(self.hosts.find("node-b"))
        self.assertEqual(len(self.clock.asked), 2)

    def test_not_found(self) -> None:
        """
        A name without an address is a failure that says so; it is asked again.
        """
        found = self.hosts.find("node-b")
        self.clock.asked[0][2].errback(DNSLookupError("no such host"))
        failure = self.failureResultOf(found, Unavailable)
        self.assertIn("node-b", str(failure.value))
        self.assertNoResult(self.hosts.find("node-b"))

    def test_too_many(self) -> None:
        """
        Not more than a thousand wait.
        """
        waiting = [self.hosts.find("node-b") for _ in range(1000)]
        self.failureResultOf(self.hosts.find("node-c"), Unavailable)
        self.clock.asked[0][2].callback("10.0.0.9")
        self.assertEqual({self.successResultOf(one) for one in waiting}, {"10.0.0.9"})
        self.assertNoResult(self.hosts.find("node-c"))

    def test_many_names(self) -> None:
        """
        What is remembered is bounded.
        """
        for number in range(2500):
            self.hosts.find(f"node-{number}")
            self.clock.asked[-1][2].callback("10.0.0.9")
        self.assertLessEqual(len(self.hosts._found), 1000)

    def test_given_up(self) -> None:
        """
        Who no longer waits may say so; the others get their answer.
        """
        one, other = self.hosts.find("node-b"), self.hosts.find("node-b")
        one.cancel()
        self.failureResultOf(one)
        self.clock.asked[0][2].callback("10.0.0.9")
        self.assertEqual(self.successResultOf(other), "10.0.0.9")

    def test_refused_at_once(self) -> None:
        """
        A reactor that refuses at once is a failure too.
        """
        self.patch(
            self.clock, "resolve", lambda name, timeout: fail(DNSLookupError("no"))
        )
        self.failureResultOf(self.hosts.find("node-b"), Unavailable)
