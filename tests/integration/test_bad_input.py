"""
What strangers can send: whatever it is, it costs its own connection and nothing else
(DESIGN 7, 5b, protocol 3.3, server 6).
"""

from __future__ import annotations

import random
import select
import socket
import struct
import time
import zlib
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from mpush_tw.protocol.commands import Command, ErrorCode, Flag
from mpush_tw.protocol.crypto import (
    AesCipher,
    random_key,
)
from mpush_tw.protocol.gateway import GatewayPush
from mpush_tw.protocol.messages import (
    BindUser,
    Error,
)
from mpush_tw.protocol.packet import HEADER, encode_packet
from tests.integration.devices import Device, Peer
from tests.support import NodeTestCase

_CRYPTO = int(Flag.CRYPTO)
_COMPRESS = int(Flag.COMPRESS)
_MAX_BODY = 10240


class BadInputTestCase(NodeTestCase):
    """
    A node, and ways to see whether it is still well.
    """

    settings: tuple[str, ...] = ("mp.limits.handshake-timeout=1s",)

    def serve_somebody(self) -> None:
        """
        Shake hands, bind and receive a push, from a thread; raises if it fails.
        """
        user_id = f"user-{random.randrange(1 << 30)}"
        device = Device(self.ports[3000]).shake_hands(user_id).bind(user_id)
        sender = Peer(self.ports[3001])
        try:
            push = GatewayPush(user_id, 1, 5000, b"still here").encode()
            sender.send(encode_packet(Command.GATEWAY_PUSH, 9, 0, push))
            packet = device.packet()
            assert packet is not None and packet[0] == Command.PUSH, packet
            assert device.cipher is not None
            assert device.cipher.decrypt(packet[3]) == b"still here"
            answer = sender.packet()
            assert answer is not None and answer[0] == Command.OK, answer
        finally:
            device.close()
            sender.close()

    def end_of(self, port: int, data: bytes) -> tuple[bytes, bool]:
        """
        Send bytes over a new connection.

        @return: What came back, and whether the node closed.
        """
        peer = Peer(self.ports[port])
        try:
            peer.send(data)
            answer = peer.receive_all(5.0)
            return answer, peer.ended
        finally:
            peer.close()

    def wait_until_left(self) -> None:
        """
        Give the node time, from a thread, to notice who is gone.
        """
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if not len(self.node.connections) and not self.node.gateway_connections:
                break
            time.sleep(0.01)

    def unharmed(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """
        Do something to the node in a thread, then see that it still serves.

        @return: Fires with what the function returned.
        """

        def both() -> Any:
            result = function(*args)
            self.serve_somebody()
            return result

        waiting: Deferred[Any] = self.in_thread(both)
        return waiting

    def assertRefused(
        self, port: int, packet: bytes, cmd: int, code: ErrorCode
    ) -> Deferred[Any]:
        """
        A packet is answered with an ERROR and the connection ends.
        """

        def check(result: tuple[bytes, bool]) -> None:
            answer, ended = result
            self.assertTrue(ended)
            self.assertEqual(answer[4], Command.ERROR)
            self.assertEqual(Error.decode(answer[13:]), Error.of(cmd, code))

        return self.unharmed(self.end_of, port, packet).addCallback(check)


class FramingTests(BadInputTestCase):
    """
    Bytes that are no packets.
    """

    def _ends_in_silence(self, port: int, data: bytes) -> Deferred[Any]:
        waiting = self.unharmed(self.end_of, port, data)
        return waiting.addCallback(self.assertEqual, (b"", True))

    def test_noise_for_devices(self) -> Deferred[Any]:
        """
        Noise on the port for devices ends each connection and harms nobody.
        """

        def make_noise() -> list[bool]:
            source = random.Random(1)
            return [
                self.end_of(3000, b"\x7f" + source.randbytes(2000))[1]
                for _ in range(20)
            ]

        waiting = self.unharmed(make_noise)
        return waiting.addCallback(self.assertEqual, [True] * 20)

    def test_noise_for_senders(self) -> Deferred[Any]:
        """
        Noise on the port for senders ends each connection and harms nobody.
        """

        def make_noise() -> list[bool]:
            source = random.Random(2)
            return [
                self.end_of(3001, b"\x7f" + source.randbytes(2000))[1]
                for _ in range(20)
            ]

        waiting = self.unharmed(make_noise)
        return waiting.addCallback(self.assertEqual, [True] * 20)

    def test_web_browser(self) -> Deferred[Any]:
        """
        A browser that asks the port for devices is cut off.
        """
        return self._ends_in_silence(3000, b"GET / HTTP/1.1\r\nHost: push\r\n\r\n")

    def test_tls(self) -> Deferred[Any]:
        """
        A TLS greeting on a port without TLS is cut off.
        """
        return self._ends_in_silence(3000, bytes.fromhex("16030100c8010000c40303"))

    def test_oversize_length(self) -> Deferred[Any]:
        """
        A length over the limit ends the connection before any body has arrived.
        """
        header = HEADER.pack(_MAX_BODY + 1, Command.BIND, 0, 0, 1, 0)
        return self._ends_in_silence(3000, header)

    def test_oversize_length_alone(self) -> Deferred[Any]:
        """
        The four bytes of the length suffice for that.
        """
        return self._ends_in_silence(3000, struct.pack(">i", 0x7FFFFFFF))

    def test_oversize_length_at_the_gateway(self) -> Deferred[Any]:
        """
        Senders are measured in the same way.
        """
        return self._ends_in_silence(3001, struct.pack(">i", _MAX_BODY + 1))

    def test_negative_length(self) -> Deferred[Any]:
        """
        A negative length ends the connection.
        """
        header = HEADER.pack(-(1 << 31), Command.BIND, 0, 0, 1, 0)
        return self._ends_in_silence(3000, header)

    def test_negative_length_at_the_gateway(self) -> Deferred[Any]:
        """
        It does so for senders too.
        """
        header = HEADER.pack(-1, Command.GATEWAY_PUSH, 0, 0, 1, 0)
        return self._ends_in_silence(3001, header)

    def test_largest_packet(self) -> Deferred[Any]:
        """
        A packet of exactly the largest size is read, not refused for its size.
        """
        packet = encode_packet(Command.CHAT, 1, 0, bytes(_MAX_BODY))
        return self.assertRefused(3000, packet, Command.CHAT, ErrorCode.UNSUPPORTED_CMD)

    def test_served_before_the_noise(self) -> Deferred[Any]:
        """
        What stood in front of broken bytes in the same read is answered.
        """
        waiting = self.unharmed(self.end_of, 3000, b"\xdf\xdf\x7f\xff\xff\xff")
        return waiting.addCallback(self.assertEqual, (b"\xdf\xdf", True))


class OperatorPortsTests(BadInputTestCase):
    """
    Noise on the ports that are meant for the operator.
    """

    def setUp(self) -> Any:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            number = probe.getsockname()[1]
        self.settings = (
            *BadInputTestCase.settings,
            f"mp.net.metrics-server-port={number}",
        )
        return super().setUp()

    @property
    def ports(self) -> dict[int, int]:
        """
        Also the console's and the metrics' port, under 3002 and 3003.
        """
        console, metrics = (port.getHost().port for port in self.node.ports)
        return {**super().ports, 3002: console, 3003: metrics}

    def make_noise(self, port: int) -> None:
        """
        Send noise in several shapes over several connections, and hang up.
        """
        source = random.Random(port)
        for data in (
            source.randbytes(3000),
            source.randbytes(3000).replace(b"\n", b"") + b"\n",
            b"x" * 100_000,
            b"\r\n" * 2000,
            bytes(3000),
            b"\xff\xfb\x01\xff\xf4\r\n",
            b"GET /metrics HTTP/9.9\r\n" + b"a: b\r\n" * 5000,
            b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 9999,
            encode_packet(Command.BIND, 1, 0, b"x"),
        ):
            peer = Peer(self.ports[port])
            peer.send(data)
            peer.receive_all(0.2)
            peer.close()

    def ask(self, port: int, request: bytes, expected: bytes) -> None:
        """
        See that a port answers as it should.
        """
        peer = Peer(self.ports[port])
        peer.send(request)
        answer = b""
        deadline = time.monotonic() + 5
        while expected not in answer and time.monotonic() < deadline:
            answer += peer.receive_all(0.1)
        peer.close()
        self.assertIn(expected, answer)

    def test_console(self) -> Deferred[Any]:
        """
        Noise on the console's port harms neither the node nor the next operator.
        """

        def try_it() -> None:
            self.make_noise(3002)
            self.ask(3002, b"help\r\n", b"count")

        return self.unharmed(try_it)

    def test_metrics(self) -> Deferred[Any]:
        """
        Noise on the metrics port harms neither the node nor the next scrape.
        """

        def try_it() -> None:
            self.make_noise(3003)
            self.ask(
                3003,
                b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
                b"HTTP/1.1 200 OK",
            )

        return self.unharmed(try_it)


class BodyTests(BadInputTestCase):
    """
    Packets whose bodies cannot be read.
    """

    def test_handshake_not_encrypted_with_our_key(self) -> Deferred[Any]:
        """
        A handshake that our key does not open gets ERROR 100, then close.
        """
        body = random.Random(3).randbytes(128)
        return self.assertRefused(
            3000,
            encode_packet(Command.HANDSHAKE, 1, _CRYPTO, body),
            Command.HANDSHAKE,
            ErrorCode.DISPATCH_ERROR,
        )

    def test_handshake_of_a_wrong_size(self) -> Deferred[Any]:
        """
        One that is no whole number of blocks gets the very same answer.
        """
        return self.assertRefused(
            3000,
            encode_packet(Command.HANDSHAKE, 1, _CRYPTO, bytes(100)),
            Command.HANDSHAKE,
            ErrorCode.DISPATCH_ERROR,
        )

    def test_handshake_cut_short(self) -> Deferred[Any]:
        """
        A handshake in clear that ends inside a field gets ERROR 100, then close.
        """
        return self.assertRefused(
            3000,
            encode_packet(Command.HANDSHAKE, 1, 0, b"\x00\x05ab"),
            Command.HANDSHAKE,
            ErrorCode.DISPATCH_ERROR,
        )

    def test_text_that_claims_two_gigabytes(self) -> Deferred[Any]:
        """
        A field that says it is far longer than the body gets ERROR 100, then close.
        """
        return self.assertRefused(
            3000,
            encode_packet(Command.FAST_CONNECT, 1, 0, b"\x7f\xff\x7f\xff\x00\x00"),
            Command.FAST_CONNECT,
            ErrorCode.DISPATCH_ERROR,
        )

    def test_not_compressed(self) -> Deferred[Any]:
        """
        A body that says it is compressed and is not gets ERROR 100, then close.
        """
        return self.assertRefused(
            3000,
            encode_packet(Command.BIND, 1, _COMPRESS, b"not zlib"),
            Command.BIND,
            ErrorCode.DISPATCH_ERROR,
        )

    def test_bomb(self) -> Deferred[Any]:
        """
        A body that inflates to hundreds of times its size is not inflated.
        """
        bomb = zlib.compress(bytes(5 << 20), 9)
        self.assertLess(len(bomb), _MAX_BODY)
        return self.assertRefused(
            3000,
            encode_packet(Command.BIND, 1, _COMPRESS, bomb),
            Command.BIND,
            ErrorCode.DISPATCH_ERROR,
        )

    def test_json(self) -> Deferred[Any]:
        """
        A JSON body in a binary packet gets ERROR 100, then close (server 6.3).
        """
        return self.assertRefused(
            3000,
            encode_packet(Command.BIND, 1, int(Flag.JSON_BODY), b"{}"),
            Command.BIND,
            ErrorCode.DISPATCH_ERROR,
        )

    def test_bind_under_another_key(self) -> Deferred[Any]:
        """
        After the handshake, a body under another key gets ERROR 100, then close.
        """

        def bind() -> tuple[bytes, bool]:
            device = Device(self.ports[3000]).shake_hands("d-bad")
            wrong = AesCipher(random_key(), random_key())
            # Whatever this decrypts to, its padding or its fields are wrong.
            body = wrong.encrypt(b"\xff" * 64)
            device.send(encode_packet(Command.BIND, 2, _CRYPTO, body))
            answer = device.receive_all(5.0)
            device.close()
            return answer, device.ended

        def check(result: tuple[bytes, bool]) -> None:
            answer, ended = result
            self.assertTrue(ended)
            expected = Error.of(Command.BIND, ErrorCode.DISPATCH_ERROR)
            self.assertEqual(Error.decode(answer[13:]), expected)

        return self.unharmed(bind).addCallback(check)

    def test_gateway_push_cut_short(self) -> Deferred[Any]:
        """
        A GATEWAY_PUSH that cannot be read gets ERROR 100, then close (DESIGN 5a).
        """
        body = GatewayPush("u", 1, 5000, b"content").encode()[:-9]
        return self.assertRefused(
            3001,
            encode_packet(Command.GATEWAY_PUSH, 1, 0, body),
            Command.GATEWAY_PUSH,
            ErrorCode.DISPATCH_ERROR,
        )

    def test_empty_gateway_push(self) -> Deferred[Any]:
        """
        A GATEWAY_PUSH without anything gets ERROR 2 and may be followed by others
        (DESIGN 5c).
        """

        def push() -> list[Any]:
            sender = Peer(self.ports[3001])
            packets = []
            for session_id in (1, 2):
                sender.send(encode_packet(Command.GATEWAY_PUSH, session_id, 0, b""))
                packets.append(sender.packet())
            sender.close()
            return packets

        def check(packets: list[Any]) -> None:
            codes = [Error.decode(packet[3]).code for packet in packets]
            self.assertEqual(codes, [ErrorCode.PUSH_CLIENT_FAILURE] * 2)
            self.assertEqual([packet[2] for packet in packets], [1, 2])

        return self.unharmed(push).addCallback(check)


class CommandTests(BadInputTestCase):
    """
    Packets that a device or a sender has no business to send.
    """

    def _every_other(self, port: int, served: set[int]) -> Deferred[Any]:
        numbers = [n for n in range(-128, 128) if n not in served]

        def send_all() -> list[int]:
            refused = []
            for cmd in numbers:
                data = HEADER.pack(0, cmd, 0, 0, 5, 0)
                answer, ended = self.end_of(port, data)
                if ended and Error.decode(answer[13:]) == Error.of(
                    cmd, ErrorCode.UNSUPPORTED_CMD
                ):
                    refused.append(cmd)
            return refused

        return self.unharmed(send_all).addCallback(self.assertEqual, numbers)

    def test_devices(self) -> Deferred[Any]:
        """
        Every command byte that is not served gets ERROR 101, then close (server 6.2).
        """
        return self._every_other(3000, {1, 2, 5, 6, 7, 12, 15, 23})

    def test_senders(self) -> Deferred[Any]:
        """
        At the gateway that is every byte but GATEWAY_PUSH and our GATEWAY_QUERY,
        heartbeats included.
        """
        served = {int(Command.GATEWAY_PUSH), int(Command.GATEWAY_QUERY)}
        return self._every_other(3001, served)

    def test_nothing_behind_a_refusal(self) -> Deferred[Any]:
        """
        What follows a refused BIND in the same read is not handled: it kicks nobody
        (DESIGN 5a).
        """

        def refused_then_bind() -> tuple[Any, bool]:
            victim = Device(self.ports[3000]).shake_hands("victim").bind("u")
            attacker = Device(self.ports[3000]).shake_hands("attacker")
            assert attacker.cipher is not None
            empty = attacker.cipher.encrypt(BindUser().encode())
            good = attacker.cipher.encrypt(BindUser("u").encode())
            attacker.send(
                encode_packet(Command.BIND, 2, _CRYPTO, empty)
                + encode_packet(Command.BIND, 3, _CRYPTO, good)
            )
            answer = attacker.receive_all(5.0)
            assert Error.decode(answer[13:]).reason == "invalid param"
            assert answer.count(b"bind success") == 0
            kicked = victim.packet(0.3)
            attacker.close()
            victim.close()
            return kicked, attacker.ended

        waiting = self.unharmed(refused_then_bind)
        return waiting.addCallback(self.assertEqual, (None, True))


class AbruptPeerTests(BadInputTestCase):
    """
    Peers that come and go as they should not.
    """

    def test_reset(self) -> Deferred[Any]:
        """
        Connections that are reset in the middle of a packet leave nothing behind.
        """

        def reset_many() -> None:
            linger = struct.pack("ii", 1, 0)
            for port in (3000, 3001):
                for _ in range(50):
                    peer = socket.create_connection(("127.0.0.1", self.ports[port]))
                    peer.sendall(b"\x00\x00\x00\x10\x05")
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    peer.close()

        def check(result: None) -> None:
            self.assertEqual(self.node.metrics.conn.opened, 51)
            self.assertEqual(self.node.connect_door.admission.total, 0)
            self.assertEqual(self.node.gateway_connections, 0)

        def reset_then_serve() -> None:
            reset_many()
            self.serve_somebody()
            self.wait_until_left()

        waiting: Deferred[Any] = self.in_thread(reset_then_serve)
        return waiting.addCallback(check)

    def test_half_closed(self) -> Deferred[Any]:
        """
        A peer that closes its side in the middle of a packet is let go.
        """

        def half_close() -> bool:
            peer = Peer(self.ports[3000])
            peer.send(b"\x00\x00\x00\x10\x05\x00")
            peer.socket.shutdown(socket.SHUT_WR)
            ended = peer.wait_end(0.9)
            peer.close()
            return ended

        return self.unharmed(half_close).addCallback(self.assertTrue)

    def test_one_byte_at_a_time(self) -> Deferred[Any]:
        """
        Packets that arrive byte by byte are packets all the same.
        """

        def trickle() -> Any:
            peer = Peer(self.ports[3000])
            for byte in encode_packet(Command.FAST_CONNECT, 7, 0, bytes(12)):
                peer.send(bytes([byte]))
                time.sleep(0.002)
            packet = peer.packet()
            peer.close()
            return packet

        def check(packet: Any) -> None:
            self.assertEqual(packet[2], 7)
            self.assertEqual(
                Error.decode(packet[3]),
                Error.of(Command.FAST_CONNECT, ErrorCode.SESSION_EXPIRED),
            )

        return self.unharmed(trickle).addCallback(check)


class HalfOpenTests(BadInputTestCase):
    """
    Connections that never become sessions.
    """

    def test_crowd(self) -> Deferred[Any]:
        """
        With 2,000 silent connections the node serves as before, and when the deadline
        of the handshake has passed they are gone.
        """

        def crowd() -> int:
            peers = []
            for _ in range(2000):
                peer = socket.create_connection(("127.0.0.1", self.ports[3000]), 5)
                peer.setblocking(False)
                peers.append(peer)
            self.serve_somebody()
            poll = select.poll()
            by_number = {peer.fileno(): peer for peer in peers}
            for number in by_number:
                poll.register(number, select.POLLIN)
            deadline = time.monotonic() + 10
            ended = 0
            while ended < len(peers) and time.monotonic() < deadline:
                for number, _ in poll.poll(200):
                    try:
                        gone = not by_number[number].recv(16)
                    except ConnectionError:
                        gone = True
                    if gone:
                        poll.unregister(number)
                        ended += 1
            for peer in peers:
                peer.close()
            return ended

        def check(ended: int) -> None:
            self.assertEqual(ended, 2000)
            self.assertEqual(self.node.metrics.conn.closed["handshake-timeout"], 2000)
            self.assertEqual(self.node.connections.unsecured, 0)

        return self.unharmed(crowd).addCallback(check)

    def test_pinging(self) -> Deferred[Any]:
        """
        Heartbeats are answered before the handshake, but they do not put its
        deadline off.
        """

        def ping() -> tuple[float, int]:
            peer = Peer(self.ports[3000])
            began = time.monotonic()
            answered = 0
            while not peer.ended and time.monotonic() < began + 5:
                peer.send(b"\xdf")
                if peer.packet(0.1) is not None:
                    answered += 1
                    time.sleep(0.1)
            peer.close()
            return time.monotonic() - began, answered

        def check(result: tuple[float, int]) -> None:
            seconds, answered = result
            self.assertLess(seconds, 2.5)
            self.assertGreater(seconds, 0.9)
            self.assertGreater(answered, 2)

        return self.unharmed(ping).addCallback(check)

    def test_trickling(self) -> Deferred[Any]:
        """
        Neither do the bytes of a handshake that never ends.
        """

        def trickle() -> float:
            peer = Peer(self.ports[3000])
            began = time.monotonic()
            peer.send(HEADER.pack(128, Command.HANDSHAKE, 0, _CRYPTO, 1, 0))
            while not peer.ended and time.monotonic() < began + 5:
                peer.send(b"\x00")
                peer.wait_end(0.1)
            peer.close()
            return time.monotonic() - began

        waiting = self.unharmed(trickle)
        return waiting.addCallback(lambda seconds: self.assertLess(seconds, 2.5))

    def test_session_outlives_the_deadline(self) -> Deferred[Any]:
        """
        A device that did shake hands is not closed by that deadline.
        """

        def stay() -> Any:
            device = Device(self.ports[3000]).shake_hands("patient")
            time.sleep(1.3)
            device.send(b"\xdf")
            packet = device.packet()
            device.close()
            return packet

        waiting = self.unharmed(stay)
        return waiting.addCallback(self.assertEqual, (1, 0, 0, b""))
