"""
The conversations of the Java client with an original server, played again: the SDK
takes the Java client's part against a server that says what the original said.

What the SDK sends is compared with the recorded packet to the last byte, after the
recorded body has been encrypted with the keys in use. All differences are in
L{EXCEPTIONS}.
"""

from __future__ import annotations

import json
from typing import Any

from mpush_tw.client import Client, MemorySessionStorage
from mpush_tw.client.http import METHODS
from mpush_tw.protocol.body import seal_body
from mpush_tw.protocol.commands import Command
from mpush_tw.protocol.crypto import AesCipher, mix_session_key
from mpush_tw.protocol.messages import Handshake, HttpRequest
from mpush_tw.protocol.packet import HEARTBEAT_BYTE, encode_packet
from tests.client.support import VECTORS, ClientTestCase, FakePeer

CASES = {
    case["name"]: case
    for case in json.loads((VECTORS / "transcripts.json").read_text())["cases"]
    if case["name"].startswith("java-client-")
}

EXCEPTIONS = {
    "HANDSHAKE": (
        "iv and clientKey are drawn anew, and RSA never gives the same bytes twice: "
        "compared after decryption, with the new iv and key in their places"
    ),
}

Message = dict[str, Any]


class Replay:
    """
    One recorded connection, played with one client.
    """

    def __init__(self, test: TranscriptTests, messages: list[Message]) -> None:
        self.test = test
        self.messages = messages
        self.client = test.client
        self.seen = 0
        self.answer_cipher: AesCipher | None = None
        self.pushes = 0

    @property
    def peer(self) -> FakePeer:
        return self.test.server.peer

    def play(self) -> None:
        """
        Go through the conversation from its beginning to its end.
        """
        for message in self.messages:
            if message["direction"] == "s2c":
                self.say(message)
            elif message["hex"]:
                self.expect(message)
            else:
                self.client.stop()
                self.test.network.settle()
                self.test.assertTrue(self.peer.client_closed)
        self.test.assertEqual(self.seen, len(self.peer.raw))

    def expect(self, message: Message) -> None:
        """
        The client sends this now, of itself or because it is asked to.
        """
        self.bring_about(message)
        self.test.network.settle()
        data = self.peer.raw[self.seen :]
        if message["command"] == "HEARTBEAT":
            self.test.assertEqual(data, HEARTBEAT_BYTE)
            self.seen += 1
            return
        expected = self.packet(message)
        if message["command"] == "HANDSHAKE":
            recorded = Handshake.decode(bytes.fromhex(message["plain"]))
            sent = self.peer.received[-1].message
            fresh = recorded._replace(iv=sent.iv, client_key=sent.client_key)
            self.test.assertEqual(sent, fresh)
            # The header, and the size of the RSA block.
            self.test.assertEqual(data[:13], bytes.fromhex(message["hex"])[:13])
            self.answer_cipher = AesCipher(sent.client_key, sent.iv)
            expected = data[: 13 + message["bodyLength"]]
        self.test.assertEqual(data[: len(expected)], expected)
        self.seen += len(expected)

    def bring_about(self, message: Message) -> None:
        """
        Do what makes the client send this, if it does not by itself.
        """
        command = message["command"]
        if command in ("HANDSHAKE", "FAST_CONNECT"):
            self.client.start()
            self.test.network.settle()
            self.peer.cipher = self.test.cipher
        elif command == "HEARTBEAT":
            # The agreed heartbeat is 10 s.
            self.test.network.pass_time(9)
        elif command == "PUSH":
            self.test.answer = self.client.push(message["fields"]["content"])
        elif command == "HTTP_PROXY":
            asked = HttpRequest.decode(bytes.fromhex(message["plain"]))
            assert asked.headers is not None and asked.uri is not None
            self.test.answer = self.client.send_http(
                METHODS[asked.method],
                asked.uri,
                asked.headers,
                asked.body,
                int(asked.headers["readTimeout"]) / 1000,
            )
        elif command == "UNBIND":
            self.test.answer = self.client.unbind_user()
        elif command == "ACK":
            message_id = self.test.listener.named("push")[-1][2]
            if message_id:
                self.client.ack(message_id)

    def packet(self, message: Message) -> bytes:
        """
        The recorded packet under the keys in use.
        """
        plain = bytes.fromhex(message.get("plain") or "")
        cipher = None
        if message["flags"] & 1:
            cipher = self.peer.cipher
            if message["command"] == "HANDSHAKE":
                cipher = self.answer_cipher
        else:
            plain = bytes.fromhex(message["hex"])[13:]
        sealed, body = seal_body(plain, cipher)
        flags = message["flags"] & ~1 | sealed
        return encode_packet(message["cmd"], message["sessionId"], flags, body)

    def say(self, message: Message) -> None:
        """
        The server says this, and the client understands it.
        """
        if message["command"] == "HEARTBEAT":
            self.peer.send_raw(HEARTBEAT_BYTE)
            self.test.network.settle()
            return
        self.peer.send_raw(self.packet(message))
        fields = message.get("fields") or {}
        if message["command"] == "HANDSHAKE":
            sent = self.peer.received[0].message
            key = mix_session_key(sent.client_key, bytes.fromhex(fields["serverKey"]))
            self.peer.cipher = self.test.cipher = AesCipher(key, sent.iv)
        self.test.network.settle()
        self.understood(message, fields)

    def understood(self, message: Message, fields: Message) -> None:
        """
        Look whether the client has taken the message as it was meant.
        """
        last = self.test.listener.events[-1]
        command = message["command"]
        if command in ("HANDSHAKE", "FAST_CONNECT"):
            self.test.assertEqual(last, ("handshake_ok", fields["heartbeat"]))
        elif command == "OK" and fields["cmd"] == Command.BIND:
            self.test.assertEqual(last[:2], ("bind", True))
        elif command == "OK":
            self.test.assertEqual(last[:2], ("unbind", True))
            self.test.successResultOf(self.test.answer)
        elif command == "ACK":
            self.test.successResultOf(self.test.answer)
        elif command == "HTTP_PROXY":
            answer = self.test.successResultOf(self.test.answer)
            self.test.assertEqual(answer.status, fields["statusCode"])
            self.test.assertEqual(answer.reason, fields["reasonPhrase"])
            self.test.assertEqual(answer.text(), fields["body"])
            lines = [f"{name}:{value}\n" for name, value in answer.headers.items()]
            self.test.assertEqual("".join(lines), fields["headers"])
        elif command == "KICK":
            self.test.assertEqual(last, ("kick", fields["deviceId"], fields["userId"]))
        elif command == "PUSH":
            message_id = message["sessionId"] if message["flags"] & 4 else 0
            self.test.assertEqual(
                last, ("push", fields["content"].encode(), message_id)
            )
        else:
            self.test.fail(f"the server's {command} is not looked at")


class TranscriptTests(ClientTestCase):
    """
    The recorded conversations, one by one.
    """

    client: Client
    cipher: AesCipher | None = None
    answer: Any = None

    def setUp(self) -> None:
        super().setUp()
        self.random = 0.0
        self.server.answers.clear()
        self.storage = MemorySessionStorage()

    def play(self, name: str) -> None:
        """
        Play all connections of a conversation. A connection that begins with HANDSHAKE
        has a client of its own; one that begins with FAST_CONNECT has that of the one
        before.
        """
        for connection in CASES[name]["connections"]:
            messages = connection["messages"]
            first = messages[0]["fields"]
            if messages[0]["command"] == "HANDSHAKE":
                bind = messages[2]["fields"]
                self.client = self.make_client(
                    device_id=first["deviceId"],
                    os_name=first["osName"],
                    os_version=first["osVersion"],
                    client_version=first["clientVersion"],
                    min_heartbeat=first["minHeartbeat"],
                    max_heartbeat=first["maxHeartbeat"],
                    user_id=bind["userId"],
                    tags=bind["tags"],
                    session_storage=self.storage,
                    # The Java client leaves a kick to its application.
                    kick_policy="rebind",
                )
                self.storage.clear()
                self.cipher = None
            Replay(self, messages).play()

    def test_session(self) -> None:
        """
        Handshake, bind, heartbeat, HTTP, push up with its ack, unbind.
        """
        self.play("java-client-session")

    def test_fast_connect(self) -> None:
        """
        The client leaves, comes back by fast connect, and binds again.
        """
        self.play("java-client-fast-connect")

    def test_kick(self) -> None:
        """
        Two devices bind the same user; the first is kicked.
        """
        self.play("java-client-kick")

    def test_push(self) -> None:
        """
        Pushes without ack, with automatic ack, with business ack.
        """
        self.play("java-client-push")

    def test_all_are_played(self) -> None:
        """
        There is a test for each conversation, and only the listed commands are treated
        specially.
        """
        played = {
            "java-client-" + name.removeprefix("test_").replace("_", "-")
            for name in dir(self)
            if name.startswith("test_")
        }
        self.assertLessEqual(set(CASES), played)
        recorded = {
            message["command"]
            for case in CASES.values()
            for connection in case["connections"]
            for message in connection["messages"]
            if message["hex"]
        }
        self.assertLessEqual(set(EXCEPTIONS), recorded)
