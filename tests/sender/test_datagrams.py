"""
Tests for L{mpush_tw.sender._datagrams}, on real sockets: against gateways that the test
plays, and against a real door.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.error import DNSLookupError
from twisted.internet.task import Clock, LoopingCall, deferLater
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SkipTest, TestCase
from zope.interface.verify import verifyObject

from mpush_tw.errors import Unavailable
from mpush_tw.protocol.commands import Command, ErrorCode
from mpush_tw.protocol.gateway import GatewayPush, encode_push_result
from mpush_tw.protocol.messages import Error, Ok
from mpush_tw.protocol.packet import decode_datagram, encode_packet
from mpush_tw.sender import AckModel, PushContext, PushSender, ResultCode
from mpush_tw.sender._datagrams import DatagramPool
from mpush_tw.sender._pool import Answer, IGatewayLink, IGatewayPool, Verdict
from mpush_tw.sender._queries import QueryAnswer
from mpush_tw.sender.directory import Address
from mpush_tw.transports.gateway import GatewayDoor
from mpush_tw.transports.gateway_udp import DatagramGateway
from tests.core.fakes import Core, FakeConnection, start
from tests.datagrams import (
    GROUP,
    LOOPBACK,
    NOT_HERE,
    Peer,
    multicast_works,
    unused_port,
)
from tests.sender.gateway import Asked


class PlayedGateway(Peer):
    """
    A gateway whose answers the test gives.
    """

    async def asked(self) -> tuple[Asked, Address]:
        """
        Wait for the next question.

        @return: The question, and where its answer goes.
        """
        data, source = await self.next()
        cmd, flags, session_id, body = decode_datagram(data)
        assert cmd == Command.GATEWAY_PUSH, cmd
        return Asked(session_id, flags, GatewayPush.decode(body)), source

    async def answer(self, code: ErrorCode | None = None) -> Asked:
        """
        Wait for the next question and answer it.

        @param code: C{None} for OK.
        """
        asked, source = await self.asked()
        self.say(asked.session_id, source, code)
        return asked

    def say(self, session_id: int, to: Address, code: ErrorCode | None = None) -> None:
        if code is None:
            body = Ok(Command.GATEWAY_PUSH, 0, DATA).encode()
            self.send(encode_packet(Command.OK, session_id, 0, body), to)
        else:
            body = Error.of(Command.GATEWAY_PUSH, code).encode()
            self.send(encode_packet(Command.ERROR, session_id, 0, body), to)


def packet(session_id: int, content: bytes = b"hi") -> bytes:
    """
    A question.
    """
    body = GatewayPush("u", 1, 2500, content).encode()
    return encode_packet(Command.GATEWAY_PUSH, session_id, 0, body)


DATA = encode_push_result("u", 1, [("success-end", 5)]).decode()
DELIVERED = Answer(Verdict.DELIVERED, [("success-end", 5)], DATA)
OFFLINE = Answer(Verdict.OFFLINE, [], "user offline")


class PoolTestCase(TestCase):
    """
    A started pool, and two gateways that it knows.

    @ivar answers: What was answered so far.
    @ivar logged: What senders have logged, complete sentences.
    """

    timeout = 30
    options: dict[str, Any] = {}

    def setUp(self) -> None:
        self.logged: list[str] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)
        self.gateway = PlayedGateway.on()
        self.other = PlayedGateway.on("127.0.0.2")
        self.addCleanup(self.gateway.close)
        self.addCleanup(self.other.close)
        self.pool = self.make(**self.options)
        self.pool.start()
        self.pool.set_gateways([self.gateway.address, self.other.address])
        self.answers: list[Answer] = []

    def observe(self, event: Any) -> None:
        if str(event["log_namespace"]).startswith("mpush_tw.sender"):
            self.logged.append(str(event["log_format"]).format(**event))

    def make(self, max_body: int = 10240, **options: Any) -> DatagramPool:
        """
        Make a pool that is stopped after the test.
        """
        pool = DatagramPool(options.pop("on", reactor), max_body, **options)
        self.addCleanup(pool.stop)
        return pool

    def ask(self, session_id: int, address: Address | None = None) -> bool:
        """
        Put a question to a gateway.
        """
        link = self.pool.choose(address or self.gateway.address)
        assert link is not None
        return link.ask(session_id, packet(session_id), self.answers.append)

    def at_port_of_gateway(self, host: str) -> PlayedGateway:
        """
        Open a gateway at another address, with the port of the first one.
        """
        made = PlayedGateway()
        listen: Any = reactor
        made.port = listen.listenUDP(self.gateway.address[1], made, host, 65535)
        self.addCleanup(made.close)
        return made

    async def until(self, count: int) -> None:
        """
        Wait until so many answers have come.
        """
        while len(self.answers) < count:
            await self.pause(0.005)

    def pause(self, seconds: float = 0.1) -> Deferred[None]:
        return deferLater(reactor, seconds)  # type: ignore[arg-type]


class LinkTests(PoolTestCase):
    """
    Questions and answers.
    """

    def test_interfaces(self) -> None:
        """
        Pushes can use it like any other way to the gateways.
        """
        verifyObject(IGatewayPool, self.pool)
        verifyObject(IGatewayLink, self.pool.choose(self.gateway.address))

    def test_answered(self) -> Any:
        """
        What a gateway says of a push is told, with its time points; then the question
        is closed.
        """

        async def ask() -> None:
            self.assertTrue(self.ask(1))
            self.assertEqual(self.pool.pending, 1)
            asked = await self.gateway.answer()
            self.assertEqual(asked.push.user_id, "u")
            await self.until(1)
            self.assertEqual(self.answers, [DELIVERED])
            self.assertEqual(self.pool.pending, 0)

        return ensureDeferred(ask())

    def test_errors(self) -> Any:
        """
        Offline, moved and failed are told apart; what a gateway should not say is a
        failure (C-37).
        """
        verdicts = {
            ErrorCode.OFFLINE: Verdict.OFFLINE,
            ErrorCode.ROUTER_CHANGE: Verdict.ELSEWHERE,
            ErrorCode.PUSH_CLIENT_FAILURE: Verdict.FAILED,
            ErrorCode.DISPATCH_ERROR: Verdict.FAILED,
        }

        async def ask() -> None:
            for session_id, (code, verdict) in enumerate(verdicts.items(), 1):
                self.ask(session_id)
                await self.gateway.answer(code)
                await self.until(session_id)
                self.assertEqual(self.answers[-1], Answer(verdict, [], code.reason))

        return ensureDeferred(ask())

    def test_unreadable_answer(self) -> Any:
        """
        An answer that cannot be read is a failure, at once.
        """

        async def ask() -> None:
            self.ask(1)
            asked, source = await self.gateway.asked()
            self.gateway.send(
                encode_packet(Command.OK, asked.session_id, 0, b"\x10"), source
            )
            await self.until(1)
            self.assertEqual(self.answers, [Answer(Verdict.FAILED)])

        return ensureDeferred(ask())

    def test_each_gateway_its_own(self) -> Any:
        """
        Questions go to the gateway that is meant, all from one port, and answers find
        their questions in any order.
        """

        async def ask() -> None:
            self.ask(1)
            self.ask(2, self.other.address)
            one, source = await self.gateway.asked()
            two, same_source = await self.other.asked()
            self.assertEqual((one.session_id, two.session_id), (1, 2))
            self.assertEqual(source[1], same_source[1])
            self.other.say(2, source, ErrorCode.OFFLINE)
            await self.until(1)
            self.gateway.say(1, source)
            await self.until(2)
            self.assertEqual(self.answers, [OFFLINE, DELIVERED])

        return ensureDeferred(ask())

    def test_late_answer(self) -> Any:
        """
        An answer after the push has given up is dropped, and so is a second one.
        """

        async def ask() -> None:
            self.ask(1)
            link = self.pool.choose(self.gateway.address)
            assert link is not None
            link.forget(1)
            link.forget(1)
            await self.gateway.answer()
            self.ask(2)
            asked, source = await self.gateway.asked()
            self.gateway.say(asked.session_id, source)
            self.gateway.say(asked.session_id, source)
            await self.pause()
            self.assertEqual(self.answers, [DELIVERED])

        return ensureDeferred(ask())

    def test_foreign_answer(self) -> Any:
        """
        An answer from another gateway than the one that was asked, or from any other
        port, is dropped with a sentence; the right one still counts.
        """

        async def ask() -> None:
            other_port = PlayedGateway.on()
            self.addCleanup(other_port.close)
            same_port = self.at_port_of_gateway("127.0.0.4")
            self.pool.set_gateways(
                [self.gateway.address, self.other.address, same_port.address]
            )
            self.ask(1)
            _, source = await self.gateway.asked()
            for foreign in (self.other, other_port, same_port):
                foreign.say(1, source, ErrorCode.OFFLINE)
            await self.pause()
            self.assertEqual(self.answers, [])
            self.assertIn("was asked", "".join(self.logged))
            self.gateway.say(1, source)
            await self.until(1)
            self.assertEqual(self.answers, [DELIVERED])

        return ensureDeferred(ask())

    def test_answer_from_another_address_of_its_machine(self) -> Any:
        """
        A gateway on a machine with several addresses may answer from another one than
        it is registered with, as the original does.
        """

        async def ask() -> None:
            self.ask(1)
            _, source = await self.gateway.asked()
            self.at_port_of_gateway("127.0.0.4").say(1, source)
            await self.until(1)
            self.assertEqual(self.answers, [DELIVERED])

        return ensureDeferred(ask())

    def test_garbage(self) -> Any:
        """
        Datagrams that are no answers harm nobody and are logged once a second.
        """

        async def ask() -> None:
            self.ask(1)
            _, source = await self.gateway.asked()
            for bad in (
                b"",
                b"\xdf",
                packet(1)[:-1],
                b"\xff\xff\xff\xff" + packet(1)[4:],
                bytes(65507),
                packet(1),
                encode_packet(Command.GATEWAY_KICK, 1, 0, b""),
                encode_packet(Command.OK, 1, 0, b"\x05\x00\x00\x00"),
            ):
                self.gateway.send(bad, source)
            await self.pause()
            self.assertEqual(self.answers, [])
            dropped = [line for line in self.logged if "dropped" in line]
            self.assertEqual(len(dropped), 1, dropped)
            self.gateway.say(1, source)
            await self.until(1)

        return ensureDeferred(ask())

    def test_gateway_that_is_not_there(self) -> Any:
        """
        A gateway that is down, as the network tells, does not disturb the others; its
        answer never comes.
        """

        async def ask() -> None:
            down = LOOPBACK, unused_port()
            self.pool.set_gateways([down, self.gateway.address])
            for session_id in range(1, 4):
                self.assertTrue(self.ask(session_id, down))
                await self.pause(0.02)
            self.ask(4)
            await self.gateway.answer()
            await self.until(1)
            self.assertEqual(self.pool.pending, 3)

        return ensureDeferred(ask())

    def test_unreachable(self) -> None:
        """
        What the machine cannot send at all fails at once.
        """
        nowhere = LOOPBACK, 0
        self.pool.set_gateways([nowhere])
        self.assertFalse(self.ask(1, nowhere))
        self.assertEqual(self.pool.pending, 0)


class SizeTests(PoolTestCase):
    """
    What is too large for a Java node (C-25).
    """

    def sizes(self, pool: DatagramPool) -> list[int]:
        """
        Ask with packets of several sizes; the sizes that are sent.
        """
        pool.set_gateways([self.gateway.address])
        link = pool.choose(self.gateway.address)
        assert link is not None
        spare = len(packet(1, b"x")) - 1
        return [
            size
            for size in (2047, 2048, 2049, 10253, 10254)
            if link.ask(size, packet(size, bytes(size - spare)), self.answers.append)
        ]

    def test_limit(self) -> Any:
        """
        2048 bytes are sent, one more is refused at once, with a sentence a second.
        """

        async def ask() -> None:
            self.assertEqual(self.sizes(self.pool), [2047, 2048])
            for size in (2047, 2048):
                data, _ = await self.gateway.next()
                self.assertEqual(len(data), size)
            self.assertEqual(self.pool.pending, 2)
            refused = [line for line in self.logged if "is not sent" in line]
            self.assertEqual(len(refused), 1)
            self.assertIn("2048", refused[0])

        return ensureDeferred(ask())

    def test_large_datagrams(self) -> None:
        """
        Where all nodes are known to be ours the limit is that of the packet.
        """
        pool = self.make(10240, large_datagrams=True)
        pool.start()
        self.assertEqual(self.sizes(pool), [2047, 2048, 2049, 10253])

    def test_small_packets(self) -> None:
        """
        A limit of the nodes below that counts.
        """
        pool = self.make(2034)
        pool.start()
        self.assertEqual(self.sizes(pool), [2047])


class GatewaysTests(PoolTestCase):
    """
    Gateways that come and go.
    """

    def test_known(self) -> None:
        """
        A gateway can be asked as soon as it is known, and not afterwards.
        """
        address = self.gateway.address
        self.assertTrue(self.pool.knows(address))
        self.successResultOf(self.pool.opened())
        self.successResultOf(self.pool.settled())
        link = self.pool.choose(address)
        assert link is not None
        self.assertIs(self.successResultOf(self.pool.link(address)), link)
        self.pool.set_gateways([self.other.address])
        self.assertFalse(self.pool.knows(address))
        self.assertIsNone(self.pool.choose(address))
        self.assertIsNone(self.successResultOf(self.pool.link(address)))
        self.assertFalse(link.ask(1, packet(1), self.answers.append))

    def test_same_gateways(self) -> None:
        """
        A gateway that stays keeps its link.
        """
        link = self.pool.choose(self.gateway.address)
        self.pool.set_gateways([self.gateway.address, self.gateway.address])
        self.assertIs(self.pool.choose(self.gateway.address), link)
        self.assertIsNone(self.pool.choose(self.other.address))

    def test_answer_of_one_that_is_gone(self) -> Any:
        """
        A gateway that withdraws still gets its answers through: nodes withdraw before
        they stop.
        """

        async def ask() -> None:
            self.ask(1)
            self.pool.set_gateways([])
            await self.gateway.answer()
            await self.until(1)
            self.assertEqual(self.answers, [DELIVERED])

        return ensureDeferred(ask())

    def test_none_yet(self) -> None:
        """
        Without gateways nothing is open and all that is known is settled; who waits
        hears of the first one.
        """
        pool = self.make()
        pool.start()
        waiting = pool.opened()
        given_up = pool.opened()
        self.assertNoResult(waiting)
        self.successResultOf(pool.settled())
        given_up.cancel()
        self.failureResultOf(given_up)
        pool.set_gateways([self.gateway.address])
        self.successResultOf(waiting)

    def test_stop(self) -> Any:
        """
        A pool that stops fails what is open, and asks and hears nothing more.
        """

        async def stop() -> None:
            self.ask(1)
            link = self.pool.choose(self.gateway.address)
            assert link is not None
            _, source = await self.gateway.asked()
            stopping = self.pool.stop()
            self.assertEqual(self.answers, [Answer(Verdict.FAILED)])
            self.assertEqual(self.pool.pending, 0)
            self.assertFalse(link.ask(2, packet(2), self.answers.append))
            await stopping
            await self.pool.stop()
            self.pool.set_gateways([self.gateway.address])
            self.assertIsNone(self.pool.choose(self.gateway.address))
            self.gateway.say(1, source)
            await self.pause(0.05)
            self.assertEqual(len(self.answers), 1)

        return ensureDeferred(stop())


class SlowNames(Clock):
    """
    A reactor whose look-ups of host names are the test's.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Deferred[str]] = []

    def resolve(self, name: str, timeout: tuple[int, ...]) -> Deferred[str]:
        self.asked.append(Deferred())
        return self.asked[-1]

    def addReader(self, reader: object) -> None:
        pass

    removeReader = addReader


class NameTests(PoolTestCase):
    """
    Gateways that are registered by host name.
    """

    def setUp(self) -> None:
        super().setUp()
        self.clock = SlowNames()
        self.pool = DatagramPool(self.clock, 10240)
        self.pool.start()
        self.address = "node-a", self.gateway.address[1]
        self.pool.set_gateways([self.address])

    def tearDown(self) -> None:
        stopped = self.pool.stop()
        self.clock.advance(0)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_found(self) -> Any:
        """
        It can be asked when its address is found.
        """
        self.assertIsNone(self.pool.choose(self.address))
        waiting = [self.pool.link(self.address), self.pool.opened()]
        waiting.append(self.pool.settled())
        for one in waiting:
            self.assertNoResult(one)
        self.clock.asked[0].callback(LOOPBACK)
        link = self.pool.choose(self.address)
        self.assertIsNotNone(link)
        self.assertIs(self.successResultOf(waiting[0]), link)
        for other in waiting[1:]:
            self.successResultOf(other)

        async def ask() -> None:
            self.assertTrue(self.ask(1, self.address))
            await self.gateway.asked()

        return ensureDeferred(ask())

    def test_not_found(self) -> None:
        """
        While it is not found it cannot be asked; it is looked up again.
        """
        waiting = self.pool.link(self.address), self.pool.settled()
        self.clock.asked[0].errback(DNSLookupError("no such host"))
        self.assertIsNone(self.successResultOf(waiting[0]))
        self.successResultOf(waiting[1])
        self.assertIsNone(self.successResultOf(self.pool.link(self.address)))
        self.assertNoResult(self.pool.opened())
        self.assertIn("node-a", "".join(self.logged))
        self.clock.advance(5)
        self.clock.asked[1].callback(LOOPBACK)
        self.assertIsNotNone(self.pool.choose(self.address))

    def test_moved(self) -> Any:
        """
        A name that moves is noticed within a minute of use; until its new address is
        known, and while it cannot be found, the old one serves.
        """

        async def ask() -> None:
            self.clock.asked[0].callback("127.0.0.2")
            self.clock.advance(61)
            with_old_address = self.at_port_of_gateway("127.0.0.2")
            self.assertTrue(self.ask(1, self.address))
            await with_old_address.asked()
            self.clock.asked[1].errback(DNSLookupError("not now"))
            self.assertTrue(self.ask(2, self.address))
            await with_old_address.asked()
            self.clock.advance(5)
            self.clock.asked[2].callback(LOOPBACK)
            self.assertTrue(self.ask(3, self.address))
            await self.gateway.asked()

        return ensureDeferred(ask())

    def test_gone_before_it_was_found(self) -> None:
        """
        A gateway that vanishes while it is looked up stays gone, whatever comes of it.
        """
        waiting = self.pool.link(self.address)
        self.pool.set_gateways([])
        self.assertIsNone(self.successResultOf(waiting))
        self.pool.set_gateways([self.address])
        self.clock.asked[0].errback(DNSLookupError("no such host"))
        self.pool.set_gateways([])
        self.assertIsNone(self.pool.choose(self.address))

    def test_given_up(self) -> None:
        """
        A push that no longer waits for it may say so.
        """
        waiting = self.pool.link(self.address)
        waiting.cancel()
        self.failureResultOf(waiting)
        self.clock.asked[0].callback(LOOPBACK)
        self.assertIsNotNone(self.pool.choose(self.address))


class PortTests(PoolTestCase):
    """
    The sender's own port.
    """

    def test_own_port(self) -> Any:
        """
        A port that is asked for is used, also by several senders (C-44).
        """

        async def ask() -> None:
            port = unused_port()
            pools = [self.make(port=port), self.make(port=port)]
            for pool in pools:
                pool.start()
                pool.set_gateways([self.gateway.address])
                link = pool.choose(self.gateway.address)
                assert link is not None
                link.ask(1, packet(1), self.answers.append)
                _, source = await self.gateway.asked()
                self.assertEqual(source[1], port)

        return ensureDeferred(ask())

    def test_port_in_use(self) -> None:
        """
        A port that somebody has for himself is a sentence that names the key.
        """
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as somebody:
            somebody.bind(("", 0))
            pool = self.make(port=somebody.getsockname()[1])
            with self.assertRaises(Unavailable) as caught:
                pool.start()
        self.assertIn("mp.net.gateway-client-port", str(caught.exception))

    def test_no_multicast(self) -> Any:
        """
        Where the groups cannot be used pushes to users work all the same.
        """

        async def ask() -> None:
            self.pool = self.make(client_group="239.239.239.99", interface=NOT_HERE)
            self.pool.start()
            self.pool.set_gateways([self.gateway.address])
            self.assertIn("no multicast on interface", "".join(self.logged))
            self.ask(1)
            await self.gateway.answer()
            await self.until(1)

        return ensureDeferred(ask())


class QueryTests(PoolTestCase):
    """
    Questions that are no pushes.
    """

    def query(self, body: bytes = b"{}") -> Deferred[QueryAnswer]:
        return self.pool.query(
            self.gateway.address, 7, encode_packet(Command.GATEWAY_QUERY, 7, 0, body)
        )

    def tell(self, gateway: PlayedGateway, to: Address, data: str = "{}") -> None:
        body = Ok(Command.GATEWAY_QUERY, 0, data).encode()
        gateway.send(encode_packet(Command.OK, 7, 0, body), to)

    def test_answered(self) -> Any:
        """
        The answer is the data of the gateway that was asked, whoever else says
        something, and whatever else it says.
        """

        async def ask() -> None:
            asking = self.query()
            data, source = await self.gateway.next()
            self.assertEqual(decode_datagram(data)[0], Command.GATEWAY_QUERY)
            self.tell(self.other, source, "wrong")
            self.gateway.send(encode_packet(Command.OK, 7, 0, b"\x40"), source)
            self.gateway.send(encode_packet(Command.KICK, 7, 0, b""), source)
            self.tell(self.gateway, source, "right")
            self.tell(self.gateway, source, "again")
            answer = await asking
            self.assertEqual(answer, (self.gateway.address, "right", ""))

        return ensureDeferred(ask())

    def test_refused(self) -> Any:
        """
        A reason against the question is told.
        """

        async def ask() -> None:
            asking = self.query()
            _, source = await self.gateway.next()
            body = Error(Command.GATEWAY_QUERY, 0, "no").encode()
            self.gateway.send(encode_packet(Command.ERROR, 7, 0, body), source)
            self.assertEqual((await asking).reason, "no")

        return ensureDeferred(ask())

    def test_lost(self) -> Any:
        """
        A question is put again every second, until it is answered.
        """

        async def ask() -> None:
            asking = self.query()
            first, _ = await self.gateway.next()
            again, source = await self.gateway.next()
            self.assertEqual(first, again)
            self.tell(self.gateway, source)
            await asking
            await self.pause(1.2)
            self.assertEqual(self.gateway.received.pending, [])

        return ensureDeferred(ask())

    def test_given_up(self) -> Any:
        """
        After giving up nothing is left of it.
        """

        async def ask() -> None:
            asking = self.query()
            asking.cancel()
            with self.assertRaises(CancelledError):
                await asking
            _, source = await self.gateway.next()
            self.tell(self.gateway, source)
            await self.pause(1.2)
            self.assertEqual(self.gateway.received.pending, [])

        return ensureDeferred(ask())

    def test_too_large(self) -> Any:
        """
        A question that would end a node of the original is not sent.
        """

        async def ask() -> None:
            answer = await self.query(bytes(2048))
            self.assertIn("too large", answer.reason)

        return ensureDeferred(ask())

    def test_unknown(self) -> Any:
        """
        Nor is one to a gateway whose address is not known.
        """

        async def ask() -> None:
            self.pool.set_gateways([])
            self.assertIn("not known", (await self.query()).reason)

        return ensureDeferred(ask())


class GroupTests(PoolTestCase):
    """
    Questions to all gateways in one datagram (cluster 7.9).
    """

    def setUp(self) -> None:
        super().setUp()
        if not multicast_works():
            raise SkipTest("this machine does not carry multicast by loopback")
        self.heard: list[tuple[Address, Answer]] = []
        listen: Any = reactor
        self.member = PlayedGateway()
        self.member.port = listen.listenMulticast(0, self.member)
        self.addCleanup(self.member.close)
        self.member.port.joinGroup(GROUP, LOOPBACK)
        self.pool = self.make(
            server_group=(GROUP, self.member.address[1]),
            client_group="239.239.239.99",
            interface=LOOPBACK,
        )
        self.pool.start()
        self.pool.set_gateways([self.gateway.address, self.other.address])

    def ask_group(self, session_id: int = 1, content: bytes = b"hi") -> bool:
        """
        Put a question to the group.
        """
        return self.pool.ask_group(
            session_id,
            packet(session_id, content),
            lambda address, answer: self.heard.append((address, answer)),
        )

    async def hear(self, count: int) -> None:
        """
        Wait until so many gateways have answered.
        """
        while len(self.heard) < count:
            await self.pause(0.005)

    def test_all_answers(self) -> Any:
        """
        Every gateway's answer is told, once each, with its address.
        """

        async def ask() -> None:
            self.assertTrue(self.ask_group())
            self.assertEqual(self.pool.pending, 1)
            asked, source = await self.member.asked()
            self.assertEqual(asked.push.content, b"hi")
            self.gateway.say(1, source)
            await self.hear(1)
            self.gateway.say(1, source)
            self.other.say(1, source, ErrorCode.PUSH_CLIENT_FAILURE)
            self.member.say(1, source)
            await self.hear(3)
            await self.pause(0.05)
            self.assertEqual(
                self.heard,
                [
                    (self.gateway.address, DELIVERED),
                    (
                        self.other.address,
                        Answer(Verdict.FAILED, [], "push to client failure"),
                    ),
                    ((LOOPBACK, self.member.address[1]), DELIVERED),
                ],
            )

        return ensureDeferred(ask())

    def test_forgotten(self) -> Any:
        """
        After the question is forgotten answers are dropped, and so they are when the
        pool has stopped.
        """

        async def ask() -> None:
            self.ask_group(1)
            self.ask_group(2)
            _, source = await self.member.asked()
            self.pool.forget(1)
            self.gateway.say(1, source)
            self.gateway.say(2, source)
            await self.hear(1)
            await self.pool.stop()
            self.other.say(2, source)
            await self.pause(0.05)
            self.assertEqual(len(self.heard), 1)
            self.assertEqual(self.pool.pending, 0)
            self.assertFalse(self.ask_group(3))

        return ensureDeferred(ask())

    def test_garbage(self) -> Any:
        """
        What is no answer is not told; an answer that cannot be read is a failure.
        """

        async def ask() -> None:
            self.ask_group()
            _, source = await self.member.asked()
            self.gateway.send(encode_packet(Command.GATEWAY_KICK, 1, 0, b""), source)
            self.gateway.send(encode_packet(Command.OK, 1, 0, b"\x10"), source)
            await self.hear(1)
            failure = self.gateway.address, Answer(Verdict.FAILED)
            self.assertEqual(self.heard, [failure])

        return ensureDeferred(ask())

    def test_too_large(self) -> None:
        """
        A packet that would kill Java nodes is refused.
        """
        self.assertFalse(self.ask_group(content=bytes(2048)))
        self.assertEqual(self.pool.pending, 0)

    def test_no_group(self) -> None:
        """
        Without a group there is nobody to ask.
        """
        pool = self.make()
        pool.start()
        self.assertFalse(pool.ask_group(1, packet(1), lambda *_: None))


class DoorTests(TestCase):
    """
    A sender and a real UDP door, with devices behind it.
    """

    timeout = 30

    def setUp(self) -> Any:
        self.core = Core()
        door = GatewayDoor(
            self.core.centre,
            self.core.clock,
            self.core.log,
            self.core.metrics.gateway,
            10240,
            1 << 16,
            ("127.0.0.0/8",),
        )
        self.gateway = DatagramGateway(
            door, reactor, 0, GROUP, LOOPBACK, lambda kick: None
        )
        self.gateway.open()
        self.addCleanup(self.gateway.close)
        # Not the first address of the machine: the answers have to come from it too.
        self.sender = PushSender(
            [("127.0.0.3", self.gateway.port)],
            reactor=reactor,
            make_pool=lambda: DatagramPool(reactor, 10240),
        )
        self.addCleanup(self.sender.stop)
        return self.sender.start()

    def device(self, user_id: str) -> FakeConnection:
        connection = FakeConnection("d1")
        start(self.core.router.bind(connection, user_id, None))
        self.core.clock.advance(0)
        return connection

    def test_pushes(self) -> Any:
        """
        Pushes end as they do over TCP.
        """

        async def push() -> None:
            device = self.device("alice")
            self.device("busy").full = True
            for user_id, code in (
                ("alice", ResultCode.SUCCESS),
                ("busy", ResultCode.FAILURE),
                ("nobody", ResultCode.OFFLINE),
            ):
                result = await self.sender.send(PushContext(b"hi", user_id=user_id))
                self.assertIs(result.code, code)
            self.assertEqual(len(device.contents), 1)

        return ensureDeferred(push())

    def let_node_work(self) -> None:
        """
        Let the node's time pass until the end of the test.
        """
        passing = LoopingCall(self.core.clock.advance, 0.01)
        passing.start(0.01)
        self.addCleanup(passing.stop)

    def test_broadcast(self) -> Any:
        """
        Without a group each gateway gets a broadcast in a datagram of its own.
        """

        async def push() -> None:
            self.let_node_work()
            devices = [self.device(f"user-{number}") for number in range(3)]
            result = await self.sender.broadcast(PushContext(b"hi"))
            self.assertEqual((result.counts.online, result.counts.sent), (3, 3))
            self.assertTrue(result.succeeded)
            self.assertEqual([one.contents for one in devices], [[b"hi"]] * 3)

        return ensureDeferred(push())

    def test_questions(self) -> Any:
        """
        Dry run, control and trace of a broadcast work as over TCP.
        """

        async def ask() -> None:
            self.let_node_work()
            self.device("alice")
            self.device("bob")
            count = await self.sender.count()
            self.assertEqual((count.matched, count.counted), (2, True))
            task = self.sender.task("t1")
            await task.set_rate(7)
            await self.sender.broadcast(PushContext(b"hi", task_id="t1"))
            self.assertEqual(await task.progress(), 2)
            self.assertEqual(sorted(await task.users()), ["alice", "bob"])
            trace = await self.sender.trace("t1")
            self.assertEqual(
                [one.outcome for one in trace.pushes], ["broadcast_complete"]
            )

        return ensureDeferred(ask())

    def test_acknowledged(self) -> Any:
        """
        A push that wants an acknowledgement succeeds with it, and times out without.
        """

        async def push() -> None:
            device = self.device("alice")
            device.on_push = lambda number: self.core.centre.acknowledged(
                device, number
            )
            context = PushContext(
                b"hi", user_id="alice", ack=AckModel.AUTO_ACK, timeout=0.2
            )
            result = await self.sender.send(context)
            self.assertIs(result.code, ResultCode.SUCCESS)
            device.on_push = None
            result = await self.sender.send(context)
            self.assertIs(result.code, ResultCode.TIMEOUT)

        return ensureDeferred(push())

    def test_list(self) -> Any:
        """
        A list of a thousand users, in one go.
        """

        async def push() -> None:
            self.device("alice")
            users = ["alice", *(f"user-{number}" for number in range(999))]
            done = await self.sender.send_all(PushContext(bytes(100), user_ids=users))
            self.assertEqual(done.count(ResultCode.SUCCESS), 1)
            self.assertEqual(done.count(ResultCode.OFFLINE), 999)

        return ensureDeferred(push())

    def test_too_large(self) -> Any:
        """
        A push that a Java node would die of is a failure at once.
        """

        async def push() -> None:
            device = self.device("alice")
            context = PushContext(bytes(2048), user_id="alice", timeout=20)
            result = await self.sender.send(context)
            self.assertIs(result.code, ResultCode.FAILURE)
            self.assertEqual(device.contents, [])

        return ensureDeferred(push())

    def test_gateway_stops(self) -> Any:
        """
        When the gateway is gone pushes time out; a push under way when the sender stops
        is a failure.
        """

        async def push() -> None:
            await self.gateway.close()
            context = PushContext(b"hi", user_id="alice", timeout=0.1)
            result = await self.sender.send(context)
            self.assertIs(result.code, ResultCode.TIMEOUT)
            under_way = self.sender.send(PushContext(b"hi", user_id="alice"))
            await self.sender.stop()
            self.assertIs((await under_way).code, ResultCode.FAILURE)

        return ensureDeferred(push())
