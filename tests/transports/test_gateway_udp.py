"""
Tests for L{mpush_tw.transports.gateway_udp}, on real sockets (protocol 13, cluster 4).
"""

from __future__ import annotations

import json
import random
import socket
import zlib
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest, TestCase

from mpush_tw.errors import ConfigError
from mpush_tw.protocol.commands import Command, Flag
from mpush_tw.protocol.gateway import GatewayKick, GatewayPush
from mpush_tw.protocol.messages import Error, Ok
from mpush_tw.protocol.packet import Packet, decode_datagram, encode_packet
from mpush_tw.transports.gateway import GatewayDoor
from mpush_tw.transports.gateway_udp import DatagramGateway
from tests.core.fakes import Core, FakeConnection, start
from tests.datagrams import (
    GROUP,
    LOOPBACK,
    NOT_HERE,
    Peer,
    multicast_works,
)
from tests.transports.test_gateway import push_packet

_PUSH = int(Command.GATEWAY_PUSH)
KICK = GatewayKick("user-0", "dev-0", "6e0cf19e", 1, "10.0.0.2", 3001)
KICK_BODY = bytes.fromhex(
    "0006 757365722d30 0005 6465762d30 0008 3665306366313965 00000001"
    "0008 31302e302e302e32 00000bb9"
)
"""
The recorded GATEWAY_KICK and its body (cluster 4.12).
"""


class GatewayTestCase(TestCase):
    """
    An open door with a push centre behind it, and a sender.

    @ivar kicks: What other nodes have asked for.
    """

    timeout = 30
    allowed_peers: tuple[str, ...] = ("127.0.0.0/8",)
    interface = LOOPBACK

    def setUp(self) -> None:
        self.core = Core()
        self.metrics = self.core.metrics.gateway
        self.door = GatewayDoor(
            self.core.centre,
            self.core.clock,
            self.core.log,
            self.metrics,
            10240,
            1 << 16,
            self.allowed_peers,
        )
        self.kicks: list[GatewayKick] = []
        self.gateway = self.make()
        self.gateway.open()
        self.sender = Peer.on()
        self.addCleanup(self.sender.close)

    def make(self, port: int = 0, on_reactor: Any = reactor) -> DatagramGateway:
        """
        Make a door that is closed after the test.
        """
        gateway = DatagramGateway(
            self.door, on_reactor, port, GROUP, self.interface, self.kicks.append
        )
        self.addCleanup(gateway.close)
        return gateway

    def device(self, user_id: str = "u") -> FakeConnection:
        """
        Bind a user.
        """
        connection = FakeConnection("d1")
        start(self.core.router.bind(connection, user_id, None))
        self.core.clock.advance(0)
        return connection

    def send(self, *datagrams: bytes) -> None:
        """
        Have the sender send datagrams.
        """
        for data in datagrams:
            self.sender.send(data, (LOOPBACK, self.gateway.port))

    async def answer(self) -> Packet:
        """
        Wait for the sender's next datagram, which is one of the door's.
        """
        data, source = await self.sender.next()
        self.assertEqual(source, (LOOPBACK, self.gateway.port))
        return decode_datagram(data, 65535)

    async def error(self) -> Error:
        """
        Wait for the sender's next datagram, which is an ERROR.
        """
        cmd, _, _, body = await self.answer()
        self.assertEqual(cmd, Command.ERROR)
        return Error.decode(body)

    async def push_works(self) -> None:
        """
        A push to somebody unknown is answered, and nothing else came before that.
        """
        self.send(push_packet(4711, "nobody"))
        cmd, _, session_id, _ = await self.answer()
        self.assertEqual((cmd, session_id), (Command.ERROR, 4711))

    def logged(self) -> list[str]:
        """
        What has been logged, complete sentences.
        """
        return [
            str(event["log_format"]).format(**event)
            for event in self.core.logged
            if event.get("log_format")
        ]

    def pause(self, seconds: float = 0.1) -> Deferred[None]:
        return deferLater(reactor, seconds)  # type: ignore[arg-type]


class PortTests(GatewayTestCase):
    """
    The port.
    """

    def test_port_in_use(self) -> None:
        """
        A port that another program has stops the start, with a sentence that names
        the key.
        """
        with self.assertRaises(ConfigError) as caught:
            self.make(self.gateway.port).open()
        self.assertEqual(caught.exception.key, "mp.net.gateway-server-port")
        self.assertIn(f"UDP port {self.gateway.port} on", str(caught.exception))
        self.assertIn("in use", str(caught.exception))

    def test_every_address(self) -> Any:
        """
        It listens on every address of the machine, and answers from the one that was
        asked.
        """

        async def ask() -> None:
            to = "127.0.0.7", self.gateway.port
            self.sender.send(push_packet(1, "nobody"), to)
            _, source = await self.sender.next()
            self.assertEqual(source, to)

        return ensureDeferred(ask())

    def test_closed(self) -> Any:
        """
        A closed door is silent, also about pushes that were under way, and may be
        opened again.
        """

        async def close() -> None:
            device = self.device()
            self.send(push_packet(1, flags=int(Flag.AUTO_ACK)))
            while not device.sent:
                await self.pause(0.005)
            port = self.gateway.port
            await self.gateway.close()
            await self.gateway.close()
            self.assertEqual(self.gateway.port, 0)
            self.core.centre.acknowledged(device, device.sent[0][1])
            self.assertIn("gateway connection is closed", self.core.texts())
            self.sender.send(push_packet(2, "nobody"), (LOOPBACK, port))
            await self.pause()
            self.gateway.resume()
            self.gateway.open()
            await self.push_works()

        return ensureDeferred(close())

    def test_pause(self) -> Any:
        """
        What comes while the node is not ready is answered when it is.
        """

        async def wait() -> None:
            self.gateway.pause()
            self.send(push_packet(1, "nobody"))
            await self.pause()
            self.assertEqual(self.metrics.bytes_in, 0)
            self.gateway.resume()
            _, _, session_id, _ = await self.answer()
            self.assertEqual(session_id, 1)

        return ensureDeferred(wait())


class PushTests(GatewayTestCase):
    """
    GATEWAY_PUSH and its answers.
    """

    def test_success(self) -> Any:
        """
        A delivered push is answered with OK under its number, with its time line.
        """

        async def push() -> None:
            device = self.device()
            self.send(push_packet(7))
            cmd, flags, session_id, body = await self.answer()
            self.assertEqual((cmd, flags, session_id), (Command.OK, 0, 7))
            answer = Ok.decode(body)
            self.assertEqual((answer.cmd, answer.code), (_PUSH, 0))
            assert answer.data is not None
            result = json.loads(answer.data)
            self.assertEqual((result["userId"], result["clientType"]), ("u", 1))
            self.assertEqual(result["timePoints"][-2], "success-end")
            self.assertEqual(device.contents, [b"hello"])

        return ensureDeferred(push())

    def test_recorded(self) -> Any:
        """
        The push that the original's sender was recorded with is understood
        (cluster 4.12).
        """
        recorded = bytes.fromhex(
            "0000004c 10 0000 08 00000001 00 0006 757365722d70 00000001 000009c4 0034"
            "7b22636f6e74656e74223a2268656c6c6fe4b8ad222c226d73674964223a226d73674964"
            "5f30222c226d736754797065223a327d 0000 0000 0000"
        )

        async def push() -> None:
            device = self.device("user-p")
            self.send(recorded)
            while not device.sent:
                await self.pause(0.005)
            [(_, message_id, flags, content)] = device.sent
            self.assertEqual(flags, int(Flag.AUTO_ACK))
            self.assertEqual(json.loads(content)["content"], "hello中")
            self.core.centre.acknowledged(device, message_id)
            cmd, _, session_id, _ = await self.answer()
            self.assertEqual((cmd, session_id), (Command.OK, 1))

        return ensureDeferred(push())

    def test_errors(self) -> Any:
        """
        Offline, failed and moved are ERROR 1, 2 and 3, as over TCP.
        """

        async def push() -> None:
            self.device("busy").full = True
            elsewhere = self.core.route(self.core.elsewhere)
            start(self.core.remote.register("moved", 1, elsewhere))
            for user_id, code in (("nobody", 1), ("busy", 2), ("moved", 3)):
                self.send(push_packet(7, user_id))
                error = await self.error()
                self.assertEqual((error.cmd, error.code), (_PUSH, code))

        return ensureDeferred(push())

    def test_time_out(self) -> Any:
        """
        A push that timed out is not answered (C-31).
        """

        async def push() -> None:
            device = self.device()
            self.send(push_packet(7, flags=int(Flag.BIZ_ACK)))
            while not device.sent:
                await self.pause(0.005)
            self.core.clock.advance(10)
            await self.push_works()
            self.assertEqual(self.core.metrics.push_results["timeout"], 1)

        return ensureDeferred(push())

    def test_only_ack_flags_reach_the_device(self) -> Any:
        """
        Other flags of a sender's packet are its own affair (C-27).
        """

        async def push() -> None:
            device = self.device()
            self.send(push_packet(7, flags=0xFC & ~0x10))
            while not device.sent:
                await self.pause(0.005)
            self.assertEqual(device.sent[0][2], 12)

        return ensureDeferred(push())

    def test_compressed(self) -> Any:
        """
        A compressed push is inflated, and the device is told nothing of it.
        """

        async def push() -> None:
            device = self.device()
            body = zlib.compress(GatewayPush("u", 1, 5000, b"hello").encode())
            self.send(encode_packet(Command.GATEWAY_PUSH, 1, 2, body))
            await self.answer()
            self.assertEqual(device.sent[0][2:], (0, b"hello"))

        return ensureDeferred(push())

    def test_empty(self) -> Any:
        """
        A push without a body or content is ERROR 2 (C-29).
        """

        async def push() -> None:
            for packet in (
                encode_packet(Command.GATEWAY_PUSH, 4, 0, b""),
                push_packet(5, content=b""),
            ):
                self.send(packet)
                self.assertEqual((await self.error()).code, 2)

        return ensureDeferred(push())

    def test_larger_than_the_original_takes(self) -> Any:
        """
        A push as large as the node's limit is taken; Twisted's own limit of 8192 bytes
        and the original's of 2048 are none here.
        """

        async def push() -> None:
            device = self.device()
            content = bytes(range(256)) * 38
            self.send(push_packet(7, content=content))
            await self.answer()
            self.assertEqual(device.contents, [content])

        return ensureDeferred(push())

    def test_bytes_behind_the_body(self) -> Any:
        """
        Bytes behind the packet are ignored, as the original ignores them.
        """

        async def push() -> None:
            device = self.device()
            self.send(push_packet(7) + b"more")
            await self.answer()
            self.assertEqual(device.contents, [b"hello"])

        return ensureDeferred(push())

    def test_counted(self) -> Any:
        """
        Packets and bytes of both directions are counted.
        """

        async def push() -> None:
            packet = push_packet(7, "nobody")
            self.send(packet)
            data, _ = await self.sender.next()
            metrics = self.metrics
            self.assertEqual(metrics.packets_in[_PUSH], 1)
            self.assertEqual(metrics.packets_out[Command.ERROR], 1)
            self.assertEqual(metrics.bytes_in, len(packet))
            self.assertEqual(metrics.bytes_out, len(data))

        return ensureDeferred(push())

    def test_each_to_its_sender(self) -> Any:
        """
        Each sender gets the answers to its own pushes, whatever their numbers are.
        """

        async def push() -> None:
            other = Peer.on()
            self.addCleanup(other.close)
            self.device()
            self.send(push_packet(1))
            other.send(push_packet(1, "nobody"), (LOOPBACK, self.gateway.port))
            self.assertEqual((await self.answer())[0], Command.OK)
            data, _ = await other.next()
            self.assertEqual(decode_datagram(data)[0], Command.ERROR)

        return ensureDeferred(push())

    def test_burst(self) -> Any:
        """
        A burst of a thousand pushes is answered completely.
        """

        async def push() -> None:
            self.device()
            self.send(*map(push_packet, range(1000)))
            numbers = {(await self.answer())[2] for _ in range(1000)}
            self.assertEqual(numbers, set(range(1000)))

        async def settle() -> None:
            # The sender's own socket has the system's small buffer.
            self.sender.port.socket.setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20
            )
            await push()

        return ensureDeferred(settle())


class AnswerLengthTests(GatewayTestCase):
    """
    A Java sender's socket dies of more than 2048 bytes (C-25).
    """

    def test_longest(self) -> Any:
        """
        An answer of 2048 bytes goes out whole, one that would be longer without its
        time points.
        """

        async def push() -> None:
            self.send(push_packet(7, "nobody"))
            spare = 2048 - len((await self.sender.next())[0]) + len("nobody")
            for length, points in ((spare, 4), (spare + 1, 0)):
                self.send(push_packet(7, "u" * length))
                data, _ = await self.sender.next()
                self.assertLessEqual(len(data), 2048)
                error = Error.decode(decode_datagram(data)[3])
                self.assertEqual(error.code, 1)
                assert error.data is not None
                result = json.loads(error.data)
                self.assertEqual(len(result["timePoints"]), points)
                self.assertEqual(result["userId"], "u" * length)

        return ensureDeferred(push())

    def test_user_that_is_too_long(self) -> Any:
        """
        A user id that alone is too long for an answer is left out of it.
        """

        async def push() -> None:
            self.send(push_packet(7, "u" * 5000))
            self.assertEqual(await self.error(), Error(_PUSH, 1, "user offline"))

        return ensureDeferred(push())


class BadDatagramTests(GatewayTestCase):
    """
    One bad datagram costs that datagram (D5).
    """

    def check(self, *datagrams: bytes, **reasons: int) -> Any:
        """
        Send bad datagrams, then a good push; only that one is answered.

        @param reasons: The decode errors counted then.
        """

        async def go_on() -> None:
            self.send(*datagrams)
            await self.push_works()
            self.assertEqual(dict(self.metrics.decode_errors), reasons)
            self.assertEqual(self.core.metrics.pushes_new, 1)
            self.assertEqual(self.kicks, [])

        return ensureDeferred(go_on())

    def test_short(self) -> Any:
        """
        Empty ones, a heartbeat byte, and pieces of a header.
        """
        header = push_packet(1)[:13]
        pieces = [header[:size] for size in range(13)]
        return self.check(*pieces, b"\xdf", datagram=14)

    def test_length_that_is_not_there(self) -> Any:
        """
        A packet that says more than has come.
        """
        return self.check(push_packet(1)[:-1], push_packet(1)[:13], datagram=2)

    def test_length_that_cannot_be(self) -> Any:
        """
        A negative length, and one above the limit of the node (C-34).
        """
        rest = push_packet(1)[4:]
        lengths = (b"\xff\xff\xff\xff", b"\x80\x00\x00\x00", b"\x00\x00\x28\x01")
        return self.check(*(size + rest for size in lengths), datagram=3)

    def test_largest(self) -> Any:
        """
        The largest datagram there is: above the limit of the node.
        """
        body = GatewayPush("u", 1, 5000, bytes(65460)).encode()
        return self.check(encode_packet(_PUSH, 1, 0, body), datagram=1)

    def test_fields(self) -> Any:
        """
        Fields that end early or have negative lengths (C-28).
        """
        body = GatewayPush("u", 1, 5000, b"hello").encode()
        bodies = (
            body[:-8],
            body[:1],
            b"\xff\xff" + body[2:],
            b"\x7f\xff\x80\x00\x00\x00" + body[2:],
            b"\x7f\xff\x7f\xff\xff\xff" + body[2:],
        )
        packets = (encode_packet(_PUSH, 1, 0, bad) for bad in bodies)
        return self.check(*packets, body=5)

    def test_not_compressed(self) -> Any:
        """
        A body that says it is compressed and is not, or that inflates to more than is
        allowed, or says it is JSON.
        """
        body = GatewayPush("u", 1, 5000, b"hello").encode()
        bomb = zlib.compress(GatewayPush("u", 1, 5000, bytes(1 << 17)).encode())
        return self.check(
            encode_packet(_PUSH, 1, 2, body),
            encode_packet(_PUSH, 1, 2, bomb),
            encode_packet(_PUSH, 1, 16, body),
            body=3,
        )

    def test_kick(self) -> Any:
        """
        A kick that cannot be read.
        """
        kick = encode_packet(Command.GATEWAY_KICK, 1, 0, KICK_BODY[:-2])
        return self.check(kick, body=1)

    def test_other_commands(self) -> Any:
        """
        Commands that no gateway serves are counted and logged, and not answered: also
        not what another gateway would answer, so that two never keep each other busy.
        """

        async def go_on() -> None:
            others = [cmd for cmd in range(-128, 128) if cmd not in (1, 14, 16)]
            for cmd in others:
                self.send(encode_packet(cmd, 1, 0, b"\x10\x00\x00\x00"))
            await self.push_works()
            counts = self.metrics.packets_in
            self.assertEqual([counts[cmd] for cmd in others], [1] * len(others))
            self.assertIn("cmd=OK (11) unsupported", "\n".join(self.logged()))

        return ensureDeferred(go_on())

    def test_flood(self) -> Any:
        """
        A flood of bad datagrams does not fill the log, and pushes get through it.
        """

        async def go_on() -> None:
            for _ in range(30):
                self.send(*[b""] * 50)
                await self.push_works()
            self.assertEqual(self.metrics.decode_errors["datagram"], 1500)
            lines = [line for line in self.logged() if "shorter than" in line]
            self.assertEqual(len(lines), 500)

        return ensureDeferred(go_on())

    def test_noise(self) -> Any:
        """
        Whatever bytes come, in the shape of packets or not, they are read or counted as
        unreadable: nothing fails.
        """
        noise = random.Random(7)
        kick = encode_packet(Command.GATEWAY_KICK, 1, 0, KICK_BODY)

        def spoilt(packet: bytes) -> bytes:
            data = bytearray(packet)
            for _ in range(noise.randint(1, 4)):
                data[noise.randrange(len(data))] = noise.randrange(256)
            return bytes(data)

        async def go_on() -> None:
            for _ in range(100):
                for data in (push_packet(1), push_packet(2, flags=2), kick):
                    self.send(*(spoilt(data) for _ in range(5)))
                self.send(*(noise.randbytes(noise.randrange(80)) for _ in range(5)))
                await self.pause(0)
            while sum(self.metrics.packets_in) + self.bad() < 2000:
                await self.pause(0.005)
            failed = [event for event in self.core.logged if "log_failure" in event]
            self.assertEqual(failed, [])
            self.assertGreater(self.bad(), 500)

        return ensureDeferred(go_on())

    def bad(self) -> int:
        """
        How many datagrams were no packets.
        """
        return self.metrics.decode_errors["datagram"]

    def test_bug(self) -> Any:
        """
        A bug in handling a datagram is logged with its traceback, and that is all.
        """

        async def go_on() -> None:
            def fail(message: object) -> None:
                raise ZeroDivisionError

            self.patch(self.core.centre, "push", fail)
            self.send(push_packet(1), push_packet(2))
            while not any("log_failure" in event for event in self.core.logged):
                await self.pause(0.005)

        async def recover() -> None:
            push = self.core.centre.push
            await go_on()
            self.core.centre.push = push  # type: ignore[method-assign]
            await self.push_works()

        return ensureDeferred(recover())

    def test_answer_to_nobody(self) -> Any:
        """
        A sender that is gone when its answer comes, as the network tells the door,
        harms nobody.
        """

        async def go_on() -> None:
            self.device()
            for number in range(5):
                gone = Peer.on()
                gone.send(push_packet(number), (LOOPBACK, self.gateway.port))
                await gone.close()
                await self.pause(0.01)
            await self.push_works()

        return ensureDeferred(go_on())


class StrangerTests(GatewayTestCase):
    """
    Peers outside C{mp.net.gateway-allowed-peers} (C-26).
    """

    allowed_peers = ("127.0.0.1/32", "10.0.0.0/8")

    def test_dropped(self) -> Any:
        """
        Their datagrams are counted and dropped unread, whatever they are.
        """

        async def ask() -> None:
            device = self.device()
            stranger = Peer.on("127.0.0.9")
            self.addCleanup(stranger.close)
            to = LOOPBACK, self.gateway.port
            kick = encode_packet(Command.GATEWAY_KICK, 1, 0, KICK_BODY)
            for data in (push_packet(1), kick, b""):
                stranger.send(data, to)
            await self.push_works()
            self.assertEqual(self.metrics.refused, {"gateway-allowed-peers": 3})
            self.assertEqual(device.sent, [])
            self.assertEqual(self.kicks, [])
            self.assertEqual(self.metrics.decode_errors, {})
            self.assertEqual(stranger.received.pending, [])

        return ensureDeferred(ask())


class KickTests(GatewayTestCase):
    """
    GATEWAY_KICK, both ways (cluster 4.6).
    """

    def test_received(self) -> Any:
        """
        What another node asks for is handed on, and not answered.
        """

        async def ask() -> None:
            self.send(encode_packet(Command.GATEWAY_KICK, 7, 0, KICK_BODY))
            await self.push_works()
            self.assertEqual(self.kicks, [KICK])
            self.assertEqual(self.metrics.packets_in[Command.GATEWAY_KICK], 1)

        return ensureDeferred(ask())

    def test_sent(self) -> Any:
        """
        A kick goes to the gateway that it names, from this node's gateway port, in the
        bytes that the original has.
        """

        async def ask() -> None:
            other = Peer.on("127.0.0.2")
            self.addCleanup(other.close)
            host, port = other.address
            kick = KICK._replace(target_server=host, target_port=port)
            self.gateway.send_kick(kick)
            data, source = await other.next()
            self.assertEqual(source, (LOOPBACK, self.gateway.port))
            cmd, flags, session_id, body = decode_datagram(data)
            self.assertEqual((cmd, flags), (Command.GATEWAY_KICK, 0))
            self.assertGreater(session_id, 0)
            self.assertEqual(GatewayKick.decode(body), kick)
            self.assertEqual(KICK.encode(), KICK_BODY)
            self.assertEqual(self.metrics.packets_out[Command.GATEWAY_KICK], 1)

        return ensureDeferred(ask())

    def test_between_nodes(self) -> Any:
        """
        A kick sent by one door arrives at another.
        """

        async def ask() -> None:
            other = self.make()
            other.open()
            kick = KICK._replace(target_server=LOOPBACK, target_port=other.port)
            self.gateway.send_kick(kick)
            while not self.kicks:
                await self.pause(0.005)
            self.assertEqual(self.kicks, [kick])

        return ensureDeferred(ask())

    def test_host_name(self) -> Any:
        """
        A target that is registered by its host name is looked up.
        """

        async def ask() -> None:
            kick = KICK._replace(
                target_server="localhost", target_port=self.sender.address[1]
            )
            self.gateway.send_kick(kick)
            data, _ = await self.sender.next()
            self.assertEqual(GatewayKick.decode(decode_datagram(data)[3]), kick)

        return ensureDeferred(ask())

    def test_no_target(self) -> Any:
        """
        A kick that cannot be sent is logged with its reason: no address, an IPv6
        address, no port, numbers that do not fit, or more than the original takes.
        """

        async def ask() -> None:
            for changed in (
                KICK._replace(target_server=None),
                KICK._replace(target_server="::1"),
                KICK._replace(target_server=LOOPBACK, target_port=0),
                KICK._replace(target_server=LOOPBACK, target_port=70000),
                KICK._replace(target_server=LOOPBACK, target_port=1 << 40),
                KICK._replace(target_server=LOOPBACK, device_id="d" * 2000),
            ):
                before = len(self.core.logged)
                self.gateway.send_kick(changed)
                self.assertEqual(len(self.core.logged), before + 1, changed)
            self.assertEqual(self.metrics.packets_out[Command.GATEWAY_KICK], 0)
            await self.push_works()

        return ensureDeferred(ask())

    def test_unknown_host(self) -> Any:
        """
        A host name that nobody knows is logged.
        """

        async def ask() -> None:
            kick = KICK._replace(target_server="gateway.invalid")
            self.gateway.send_kick(kick)
            while "kick request not sent" not in self.core.texts():
                await self.pause(0.02)
            self.assertIn("gateway.invalid", "\n".join(self.logged()))

        return ensureDeferred(ask())


class MulticastTests(GatewayTestCase):
    """
    The group.
    """

    def need_membership(self) -> None:
        if not multicast_works():
            raise SkipTest("this machine does not carry multicast by loopback")
        self.assertTrue(self.gateway.joined)

    def test_self_test(self) -> Any:
        """
        The door finds out whether multicast works here, as plain sockets have it.
        """

        async def test() -> None:
            works = multicast_works()
            self.assertIs(await self.gateway.self_test(), works)
            # Nobody took its datagram for anything else.
            self.assertEqual(sum(self.metrics.packets_in), 0)
            await self.push_works()

        return ensureDeferred(test())

    def test_self_tests_at_once(self) -> Any:
        """
        Two tests at the same time do not disturb each other.
        """

        async def test() -> None:
            one, other = self.gateway.self_test(), self.gateway.self_test()
            self.assertIs(await one, await other)

        return ensureDeferred(test())

    def test_seen_by_others(self) -> Any:
        """
        Another door on this machine drops the datagram of a test like any command
        that it does not serve.
        """

        async def test() -> None:
            self.need_membership()
            probes: list[bytes] = []

            def catch(data: bytes, to: object) -> bool:
                probes.append(data)
                return True

            self.patch(self.gateway._socket, "send_within_machine", catch)
            testing = self.gateway.self_test()
            other = self.make()
            other.open()
            self.sender.send(probes[0], (LOOPBACK, other.port))
            await self.pause()
            self.assertEqual(self.metrics.packets_in[Command.UNKNOWN], 1)
            self.assertEqual(self.sender.received.pending, [])
            await self.gateway.close()
            self.assertIs(await testing, False)

        return ensureDeferred(test())

    def test_nothing_comes(self) -> Any:
        """
        When the datagram does not come back the answer is no, after a second.
        """

        async def test() -> None:
            self.need_membership()
            with socket.fromfd(
                self.gateway._socket.fileno(), socket.AF_INET, socket.SOCK_DGRAM
            ) as same:
                same.setsockopt(
                    socket.IPPROTO_IP,
                    socket.IP_DROP_MEMBERSHIP,
                    socket.inet_aton(GROUP) + socket.inet_aton(LOOPBACK),
                )
            before = self.seconds()
            self.assertIs(await self.gateway.self_test(), False)
            self.assertLess(0.9, self.seconds() - before)
            await self.push_works()

        return ensureDeferred(test())

    def seconds(self) -> float:
        timed: Any = reactor
        return float(timed.seconds())

    def test_closed_meanwhile(self) -> Any:
        """
        A door that is closed while it tests says no.
        """

        async def test() -> None:
            joined = self.gateway.joined
            testing = self.gateway.self_test()
            await self.gateway.close()
            self.assertIs(await testing, False)
            self.assertIs(await self.gateway.self_test(), False)
            # It is a member of nothing any more, which is said once.
            await self.gateway.close()
            said = self.core.texts().count("leave multicast group success")
            self.assertEqual(said, int(joined))

        return ensureDeferred(test())

    def test_broadcast(self) -> Any:
        """
        A request without a user that comes by the group goes to the push centre like
        any other, and is answered to its sender.
        """

        async def ask() -> None:
            self.need_membership()
            message = GatewayPush(None, 0, 0, b"to all")
            packet = encode_packet(Command.GATEWAY_PUSH, 9, 0, message.encode())
            self.sender.port.socket.setsockopt(
                socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(LOOPBACK)
            )
            self.sender.send(packet, (GROUP, self.gateway.port))
            while not self.core.metrics.pushes_new:
                await deferLater(reactor, 0.01)  # type: ignore[arg-type]
            # It is worked off on the clock of the core.
            self.core.clock.advance(0)
            _, _, session_id, _ = await self.answer()
            self.assertEqual(session_id, 9)
            self.assertEqual(self.core.metrics.pushes_new, 1)

        return ensureDeferred(ask())


class NoMulticastTests(GatewayTestCase):
    """
    A machine on which the group cannot be joined.
    """

    interface = NOT_HERE

    def test_no_membership(self) -> Any:
        """
        The door opens and serves; that there is no multicast is logged, and is what
        the test says.
        """

        async def test() -> None:
            self.assertIn("join multicast group failure", self.core.texts())
            self.assertIs(await self.gateway.self_test(), False)
            await self.push_works()

        return ensureDeferred(test())
