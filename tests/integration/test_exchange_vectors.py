"""
The worked conversations of the wire, against a running node (protocol 18).

C{tests/vectors/protocol.json} holds, as examples of kind C{exchange}, what the original
answered on a live listener, byte by byte. Each is a test of its own here, named after
it; the other kinds are tested in C{tests.protocol.test_vectors}. Every example where
this server answers otherwise on purpose stands in L{DEVIATIONS} with its reason.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.protocol.commands import Command, Flag
from mpush_tw.protocol.messages import Error
from mpush_tw.protocol.packet import HEARTBEAT_BYTE, PacketDecoder, encode_packet
from tests.integration.devices import Device
from tests.support import VECTORS, NodeTestCase, RawPeer

Vector = dict[str, Any]

EXCHANGES: dict[str, Vector] = {
    vector["name"]: vector
    for vector in json.loads((VECTORS / "protocol.json").read_text())["vectors"]
    if vector["kind"] == "exchange"
}
LISTENERS = {"connect-server": 3000, "gateway-server": 3001}


class Outcome(NamedTuple):
    """
    How a conversation goes.

    @ivar reply: All that comes back.
    @ivar closes: Whether the server then closes the connection.
    """

    reply: bytes
    closes: bool


def not_handshake(cmd: Command) -> Outcome:
    """
    Refuse a command that is not served before the handshake; the number of the request
    is 5 in all these examples.
    """
    body = Error(cmd, 0, "not handshake").encode()
    return Outcome(encode_packet(Command.ERROR, 5, 0, body), closes=True)


DEVIATIONS: dict[str, tuple[str, Outcome]] = {
    "exchange-negative-length": (
        "P-D2: a negative length is as fatal as one too large, nothing is answered",
        Outcome(b"", closes=True),
    ),
    "exchange-push-auto-ack": (
        "P-D8, DESIGN 5.2: PUSH is not served before the handshake",
        not_handshake(Command.PUSH),
    ),
    "exchange-push-biz-ack": (
        "P-D8, DESIGN 5.2: PUSH is not served before the handshake",
        not_handshake(Command.PUSH),
    ),
    "exchange-ack-unknown": (
        "DESIGN 5.2, 5a: nor is ACK; the example itself names no deviation",
        not_handshake(Command.ACK),
    ),
}
"""
By name of the example: why this server answers otherwise, and how.
"""

SERVED_LATE = (
    "exchange-push-auto-ack",
    "exchange-push-biz-ack",
    "exchange-ack-unknown",
)
"""
The examples that go as recorded once there was a handshake, or where the operator has
devices served before it (C{mp.security.allow-before-handshake}).
"""


class Probe(NamedTuple):
    """
    What shows that a connection is still served: bytes, and their answer. Packets are
    handled in order, so whatever else the server had to say came in front of it.
    """

    sent: bytes
    answer: bytes


HEARTBEAT = Probe(HEARTBEAT_BYTE, HEARTBEAT_BYTE)
PROBES = {
    # Twelve bytes of a BIND are waiting: the thirteenth, then a body that is no RSA
    # block. The answer carries the number that the twelve bytes held.
    "exchange-first-byte-df": Probe(
        bytes(6),
        bytes.fromhex("0000001a 0a 0000 00 05050505 00 0564")
        + bytes.fromhex("0014 68616e646c65206d657373616765206572726f72 0000"),
    ),
}
"""
The examples behind which a heartbeat would not be one.
"""


def sent_by(vector: Vector) -> bytes:
    """
    Write the bytes that an example sends.
    """
    inputs = vector["inputs"]
    if inputs["send_hex"] is not None:
        return bytes.fromhex(inputs["send_hex"])
    repeat = inputs["send_body_repeat"]
    body = bytes.fromhex(repeat["byte"]) * int(repeat["count"])
    return bytes.fromhex(inputs["send_header_hex"]) + body


def recorded(vector: Vector) -> Outcome:
    """
    Tell how an example went with the original.
    """
    expected = vector["expected"]
    return Outcome(bytes.fromhex(expected["reply_hex"]), expected["server_closes"])


def wanted(vector: Vector) -> Outcome:
    """
    Tell how an example is to go here.
    """
    _, ours = DEVIATIONS.get(vector["name"], ("", recorded(vector)))
    return ours


def converse(peer: RawPeer, vector: Vector, outcome: Outcome, chunk: int) -> Outcome:
    """
    Play an example, in a thread.

    @param outcome: How it should go: whether to wait for the end or to probe.
    @param chunk: How many bytes to send at a time.
    @return: How it went. When the connection should have stayed open, the answer to the
        probe is taken off the reply; a reply without it is given whole.
    """
    data = sent_by(vector)
    probe = PROBES.get(vector["name"], HEARTBEAT)
    try:
        for start in range(0, len(data), chunk):
            peer.send(data[start : start + chunk])
        if outcome.closes:
            return Outcome(peer.receive_all(), peer.ended)
        peer.send(probe.sent)
        expected = len(outcome.reply) + len(probe.answer)
        reply = b""
        while len(reply) < expected:
            packet = peer.packet()
            if packet is None:
                return Outcome(reply, peer.ended)
            cmd, flags, session_id, body = packet
            reply += encode_packet(cmd, session_id, flags, body)
        reply += peer.buffer
        if not reply.endswith(probe.answer):
            return Outcome(reply, peer.ended)
        return Outcome(reply.removesuffix(probe.answer), closes=False)
    finally:
        peer.close()


class ExchangeTests(NodeTestCase):
    """
    One test for each example; see the end of this module.
    """

    async def play(self, vector: Vector) -> None:
        """
        Play an example twice, in one piece and in small ones: it makes no difference.
        """
        port = self.ports[LISTENERS[vector["inputs"]["listener"]]]
        outcome = wanted(vector)
        for chunk in (1 << 20, 5):
            peer = await self.in_thread(RawPeer, port)
            went = await self.in_thread(converse, peer, vector, outcome, chunk)
            self.assertEqual(went, outcome, f"in pieces of {chunk} bytes")


class LateExchangeTests(NodeTestCase):
    """
    What is refused before the handshake goes as recorded behind it.
    """

    async def play(self, name: str) -> None:
        """
        Shake hands, then play an example as the original did.
        """
        vector = EXCHANGES[name]
        device = await self.in_thread(Device, self.ports[3000])
        await self.in_thread(device.shake_hands, "dev-1")
        outcome = recorded(vector)
        went = await self.in_thread(converse, device, vector, outcome, 1 << 20)
        self.assertEqual(went, outcome)

    async def test_auto_ack(self) -> None:
        """
        A push that wants it is acknowledged at once, under its own number.
        """
        await self.play("exchange-push-auto-ack")

    async def test_biz_ack(self) -> None:
        """
        A push for the application is not acknowledged by the server.
        """
        await self.play("exchange-push-biz-ack")

    async def test_unknown_ack(self) -> None:
        """
        An acknowledgement of nothing is dropped.
        """
        await self.play("exchange-ack-unknown")


class EarlyExchangeTests(NodeTestCase):
    """
    An operator may have devices served before the handshake, as the original does.
    """

    settings = ("mp.security.allow-before-handshake=true",)

    async def test_as_recorded(self) -> None:
        """
        Then these examples go as recorded.
        """
        for name in SERVED_LATE:
            vector = EXCHANGES[name]
            outcome = recorded(vector)
            peer = await self.in_thread(RawPeer, self.ports[3000])
            went = await self.in_thread(converse, peer, vector, outcome, 1 << 20)
            self.assertEqual(went, outcome, name)


class RecordTests(SynchronousTestCase):
    """
    That no example is left out, and that the examples are what they say.
    """

    def test_each_is_a_test(self) -> None:
        """
        All 31 examples have become tests.
        """
        made = [name for name in vars(ExchangeTests) if name.startswith("test_")]
        self.assertEqual(len(EXCHANGES), 31)
        self.assertEqual(len(made), 31)

    def test_deviations(self) -> None:
        """
        Each example with a deviation says here how it goes with this server, and no
        other does, but for the one that the design adds.
        """
        deviating = {name for name, v in EXCHANGES.items() if "deviation" in v}
        self.assertEqual(deviating | {"exchange-ack-unknown"}, set(DEVIATIONS))
        for name, (reason, ours) in DEVIATIONS.items():
            self.assertTrue(reason)
            self.assertNotEqual(ours, recorded(EXCHANGES[name]), name)

    def test_refusals_are_alike(self) -> None:
        """
        A PUSH that comes too early gets the bytes that a BIND got from the original,
        but for the command.
        """
        bind = recorded(EXCHANGES["exchange-bind-before-handshake"]).reply
        self.assertEqual(bind[13], Command.BIND)
        self.assertEqual(
            not_handshake(Command.PUSH).reply, bind[:13] + b"\x0f" + bind[14:]
        )

    def test_replies_in_fields(self) -> None:
        """
        Our codec reads each recorded reply as the fields that were recorded with it.
        """
        for name, vector in EXCHANGES.items():
            packets = list(PacketDecoder().receive(recorded(vector).reply))
            self.assertEqual(
                [in_fields(*packet) for packet in packets],
                vector["expected"]["reply_messages"],
                name,
            )


def in_fields(cmd: int, flags: int, session_id: int, body: bytes) -> dict[str, Any]:
    """
    Name the fields of a reply as the examples do.
    """
    assert not flags & (Flag.CRYPTO | Flag.COMPRESS)
    if cmd == Command.HEARTBEAT:
        return {"type": "heartbeat"}
    if cmd == Command.ACK:
        return {"type": "ack", "sessionId": session_id}
    assert cmd == Command.ERROR, cmd
    error = Error.decode(body)
    assert error.data is None
    return {
        "type": "error",
        "cmd": error.cmd,
        "code": error.code,
        "reason": error.reason,
        "sessionId": session_id,
    }


def _test_of(vector: Vector) -> Callable[[ExchangeTests], Awaitable[None]]:
    async def test(self: ExchangeTests) -> None:
        await self.play(vector)

    reason, _ = DEVIATIONS.get(vector["name"], ("", None))
    test.__doc__ = vector["description"] + (f" ({reason})" if reason else "")
    return test


for _name, _vector in EXCHANGES.items():
    _words = _name.removeprefix("exchange-").replace("-", "_")
    setattr(ExchangeTests, f"test_{_words}", _test_of(_vector))
