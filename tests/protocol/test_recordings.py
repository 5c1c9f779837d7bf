"""
The conversations recorded from an original server, through our codecs.

C{tests/vectors/transcripts.json} names the keys of each connection and, for each
packet, what is inside. Nodes replay these conversations in C{tests/integration}; here
each recorded packet is opened, its message read, and both are written again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.protocol.body import Cipher, open_body
from mpush_tw.protocol.commands import Command
from mpush_tw.protocol.crypto import AesCipher, RsaPrivateKey
from mpush_tw.protocol.gateway import GatewayPush
from mpush_tw.protocol.json_packet import decode_json_packet, encode_json_packet
from mpush_tw.protocol.messages import (
    BindUser,
    Error,
    FastConnect,
    FastConnectOk,
    Handshake,
    HandshakeOk,
    HttpRequest,
    HttpResponse,
    Kick,
    Ok,
)
from mpush_tw.protocol.packet import PacketDecoder, encode_packet
from tests.protocol.strategies import WireMessage

RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "transcripts.json").read_text()
)
KINDS: dict[tuple[str, int], type[WireMessage]] = {
    ("c2s", Command.HANDSHAKE): Handshake,
    ("s2c", Command.HANDSHAKE): HandshakeOk,
    ("c2s", Command.FAST_CONNECT): FastConnect,
    ("s2c", Command.FAST_CONNECT): FastConnectOk,
    ("c2s", Command.BIND): BindUser,
    ("c2s", Command.UNBIND): BindUser,
    ("s2c", Command.OK): Ok,
    ("s2c", Command.ERROR): Error,
    ("s2c", Command.KICK): Kick,
    ("c2s", Command.HTTP_PROXY): HttpRequest,
    ("s2c", Command.HTTP_PROXY): HttpResponse,
    ("c2s", Command.GATEWAY_PUSH): GatewayPush,
}


def connections() -> Iterator[tuple[str, dict[str, Any]]]:
    for case in RECORDED["cases"]:
        for connection in case.get("connections", ()):
            yield case["name"], connection


def whole_packets() -> Iterator[tuple[str, dict[str, str], dict[str, Any]]]:
    """
    Iterate over the packets that were recorded in one piece, with a header.

    @return: The case, the keys of the connection, and the record.
    """
    for name, connection in connections():
        for record in connection.get("messages", ()):
            if "bodyLength" in record:
                keys = connection["keys"]
                if record["sessionId"] > 1:
                    keys = connection.get("keysOfSecondHandshake", keys)
                yield name, keys, record


class RecordedPacketTests(SynchronousTestCase):
    """
    Binary packets of phones, senders and servers.
    """

    def setUp(self) -> None:
        self.rsa = RsaPrivateKey.load(RECORDED["keys"]["rsaPrivateKeyBase64"])

    def cipher(self, keys: dict[str, str], encryption: str | None) -> Cipher | None:
        """
        Find the cipher of a record by what it says about its encryption.
        """
        if encryption is None:
            return None
        if encryption.startswith("rsa"):
            return self.rsa
        key = "clientKey" if "clientKey" in encryption else "sessionKey"
        return AesCipher(bytes.fromhex(keys[key]), bytes.fromhex(keys["iv"]))

    def test_packets(self) -> None:
        """
        Each recorded packet is read with the fields that were recorded, and written
        again byte for byte but for check fields and the long heartbeat.
        """
        count = 0
        for name, _, record in whole_packets():
            data = bytes.fromhex(record["hex"])
            ((cmd, flags, session_id, body),) = PacketDecoder(1 << 20).receive(data)
            self.assertEqual(
                (cmd, flags, session_id, len(body)),
                (
                    record["cmd"],
                    record["flags"],
                    record["sessionId"],
                    record["bodyLength"],
                ),
                name,
            )
            if cmd != Command.HEARTBEAT and not (record["cc"] or record["lrc"]):
                self.assertEqual(encode_packet(cmd, session_id, flags, body), data)
            count += 1
        self.assertGreater(count, 200)

    def test_bodies(self) -> None:
        """
        Each recorded body opens to the plain bytes that were recorded.
        """
        count = 0
        for name, keys, record in whole_packets():
            if "plain" in record:
                cipher = self.cipher(keys, record.get("encryption"))
                body = bytes.fromhex(record["hex"])[13:]
                plain = open_body(record["flags"], body, cipher)
                self.assertEqual(plain.hex(), record["plain"], name)
                count += 1
        self.assertGreater(count, 100)

    def test_messages(self) -> None:
        """
        Each recorded message is read, and written again to the same bytes.
        """
        seen = set()
        for name, keys, record in whole_packets():
            kind = KINDS.get((record["direction"], record["cmd"]))
            if kind is None or not record.get("fields"):
                continue
            cipher = self.cipher(keys, record.get("encryption"))
            body = bytes.fromhex(record["hex"])[13:]
            plain = open_body(record["flags"], body, cipher)
            self.assertEqual(kind.decode(plain).encode(), plain, name)
            seen.add(kind)
        self.assertEqual(seen, set(KINDS.values()))


class RecordedFrameTests(SynchronousTestCase):
    """
    Text frames of the WebSocket.
    """

    def test_server_frames(self) -> None:
        """
        Each frame that the original sent is read and written again to the same JSON.
        """
        count = 0
        for case in RECORDED["cases"]:
            if not case["name"].startswith("ws-"):
                continue
            for frame in case.get("frames", ()):
                if frame.get("direction") == "s2c" and frame["text"] is not None:
                    packet = decode_json_packet(frame["text"])
                    ours = encode_json_packet(
                        packet.cmd, packet.session_id, packet.flags, packet.body
                    )
                    self.assertEqual(json.loads(ours), json.loads(frame["text"]))
                    count += 1
        self.assertGreater(count, 20)
