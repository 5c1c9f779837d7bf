"""
The conversations recorded from the original, replayed against a running node.

What devices and senders sent is sent again, sealed anew where the key differs; what the
server answered is compared, decrypted, except for what is random. Every other exception
stands in L{REPAIRED} with the defect it repairs. The HTTP proxy asks as the original
does (C{mp.http.request-target=absolute}), and loopback counts as public, because that
is where the web server was.
"""

from __future__ import annotations

import json
import re
from typing import Any

from twisted.internet import reactor

from mpush_tw.core.http import reach
from mpush_tw.errors import ProtocolError
from mpush_tw.protocol.body import open_body, seal_body
from mpush_tw.protocol.commands import ACK_FLAGS
from mpush_tw.protocol.crypto import AesCipher, RsaPrivateKey, mix_session_key
from mpush_tw.protocol.gateway import (
    GatewayPush,
    decode_push_result,
    encode_push_result,
)
from mpush_tw.protocol.messages import (
    Error,
    HandshakeOk,
    HttpRequest,
    HttpResponse,
    Ok,
)
from mpush_tw.protocol.packet import HEADER, HEADER_SIZE, encode_packet
from mpush_tw.protocol.sessions import SessionRecord
from tests.integration.testweb import RECORDED_PORT, TestWeb
from tests.support import SAMPLE, VECTORS, NodeTestCase, RawPeer

CASES = json.loads((VECTORS / "transcripts.json").read_text())["cases"]

LATER = {
    "ws-": "JSON frames: see tests.integration.test_websocket_records",
    "admin-console": "a text protocol: see tests.integration.test_operations",
}
"""
Conversations by the beginning of their name, and what they need.
"""

REPAIRED: dict[str, tuple[str, Any]] = {}
"""
Case, defect, and a function from the recorded messages of its connections to the ones
that this node is to show.
"""


def repaired(case: str, defect: str) -> Any:
    """
    Note a deliberate difference.
    """

    def note(change: Any) -> Any:
        REPAIRED[case] = (defect, change)
        return change

    return note


@repaired("bind-other-user", "S-4: one OK for one BIND")
def _one_answer(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        m
        for m in messages
        if (m.get("fields") or {}).get("data") != "unbind success"
        or m["fields"]["cmd"] != 5
    ]


@repaired("connect-bind-heartbeat-unbind", "S-6: UNBIND without a user is OK")
def _unbind_twice(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = []
    for message in messages:
        fields = message.get("fields") or {}
        if message["direction"] == "s2c" and message.get("command") == "ERROR":
            ok = {"cmd": 6, "code": 0, "data": "unbind success"}
            message = message | {"command": "OK", "cmd": 11, "fields": ok}
            del fields
        elif message["direction"] == "s2c" and not message["hex"]:
            continue
        kept.append(message)
    return kept


@repaired("http-no-handshake", "S-12: nothing is served before the handshake")
@repaired("client-push-no-handshake", "S-12: nothing is served before the handshake")
def _refused(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    request = messages[0]
    error = {"cmd": request["cmd"], "code": 0, "reason": "not handshake", "data": None}
    return [
        request,
        {
            "direction": "s2c",
            "hex": "-",
            "command": "ERROR",
            "cmd": 10,
            "flags": 0,
            "sessionId": request["sessionId"],
            "fields": error,
        },
        {"direction": "s2c", "hex": ""},
    ]


@repaired("http-bad", "S-33: one answer for one request")
def _answered_once(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        message
        for before, message in zip([{}, *messages], messages, strict=False)
        if (before.get("fields") or {}).get("statusCode") != 400
    ]


@repaired("http-pool-by-host", "S-32: nobody listens on that port")
def _nobody(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    *kept, last = _told_the_port(messages)
    answer = HttpResponse(504, "Gateway Timeout")
    return [*kept, last | {"flags": 0, "plain": answer.encode().hex()}]


@repaired("http-get", "S-36: Host names the port")
@repaired("http-methods", "S-36: Host names the port")
@repaired("http-404-redirect", "S-36: Host names the port")
@repaired("http-mapped", "S-36: Host names the port")
@repaired("http-large", "S-36: Host names the port")
@repaired("java-client-session", "S-36: Host names the port")
def _told_the_port(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [_with_port(message) for message in messages]


def _with_port(message: dict[str, Any]) -> dict[str, Any]:
    """
    Put the port into the C{Host} that the web server tells back.
    """
    if message.get("command") != "HTTP_PROXY" or message["direction"] == "c2s":
        return message
    answer = HttpResponse.decode(bytes.fromhex(message["plain"]))
    assert answer.body is not None and answer.headers is not None
    body = answer.body.replace(b"\nhost: 127.0.0.1\n", b"\nhost: 127.0.0.1:8090\n")
    headers = answer.headers | {"content-length": str(len(body))}
    changed = answer._replace(headers=headers, body=body)
    return message | {"plain": changed.encode().hex()}


def sender_for(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """
    Make the sender that a conversation was recorded without: one GATEWAY_PUSH for each
    PUSH that the device got, and the OK that answers it.
    """
    user = next(m for m in messages if m.get("command") == "BIND")["fields"]["userId"]
    made: list[dict[str, Any]] = []
    for number, push in enumerate(m for m in messages if m.get("command") == "PUSH"):
        ack = push["flags"] & ACK_FLAGS
        content = bytes.fromhex(push["plain"])
        body = GatewayPush(user, 1, 2500, content).encode()
        points = ["push-center-begin", "before-send", "success-end"]
        if ack:
            points.insert(2, "waiting-ack")
        data = encode_push_result(user, 1, [(name, 10**12) for name in points])
        made.append(
            {
                "direction": "c2s",
                "hex": encode_packet(16, number, ack, body).hex(),
                "command": "GATEWAY_PUSH",
            }
        )
        made.append(
            {
                "direction": "s2c",
                "hex": "-",
                "command": "OK",
                "cmd": 11,
                "flags": 0,
                "sessionId": number,
                "fields": {"cmd": 16, "code": 0, "data": data.decode()},
            }
        )
    return {"port": 3001, "messages": made}


WITHOUT_SENDER = {"java-client-push"}
"""
Conversations whose pushes were recorded on the device's side only.
"""


class Mismatch(AssertionError):
    """
    The node answered otherwise than recorded.
    """


class Side:
    """
    The device or sender of one recorded connection.
    """

    def __init__(
        self, record: dict[str, Any], case: str, port: int, web_port: int
    ) -> None:
        self.port = port
        self.web_port = web_port
        self.peer: RawPeer | None = None
        keys = record.get("keys") or {}
        second = record.get("keysOfSecondHandshake") or {}
        self.keys = [keys, second]
        messages = record["messages"]
        if case in REPAIRED:
            messages = REPAIRED[case][1](messages)
        self.left = list(messages)
        self.cipher: AesCipher | None = None
        self.recorded: AesCipher | None = None
        if keys.get("sessionKey"):
            self.recorded = AesCipher(
                bytes.fromhex(keys["sessionKey"]), bytes.fromhex(keys["iv"])
            )
            self.cipher = self.recorded
        self.client_key = bytes.fromhex(keys.get("clientKey") or "")
        self.iv = bytes.fromhex(keys.get("iv") or "")
        self.ids: dict[int, int] = {}
        self.handshakes = 0

    def step(self) -> bool:
        """
        Do one message.

        @return: Whether that was possible now.
        """
        message = self.left[0]
        if message["direction"] == "c2s":
            self._send(message)
        elif not self._receive(message):
            return False
        self.left.pop(0)
        return True

    def _connected(self) -> RawPeer:
        if self.peer is None:
            self.peer = RawPeer(self.port)
        return self.peer

    def _send(self, message: dict[str, Any]) -> None:
        peer = self._connected()
        data = bytes.fromhex(message["hex"])
        if not data:
            peer.leave()
            return
        command = message.get("command")
        fields = message.get("fields") or {}
        if command == "HANDSHAKE" and "clientKey" in fields:
            self.client_key = bytes.fromhex(fields["clientKey"] or "")
            self.iv = bytes.fromhex(fields["iv"] or "")
        elif command == "ACK" and message["sessionId"] in self.ids:
            data = encode_packet(23, self.ids[message["sessionId"]], 0, b"")
        elif str(message.get("encryption", "")).startswith("aes"):
            data = self._sealed_anew(data, message)
        peer.send(data)

    def _sealed_anew(self, data: bytes, message: dict[str, Any]) -> bytes:
        assert self.recorded is not None and self.cipher is not None
        header, body = data[:HEADER_SIZE], data[HEADER_SIZE:]
        try:
            inner = self.recorded.decrypt(body)
        except ProtocolError:
            return data
        if message["command"] == "HTTP_PROXY":
            return self._asked_anew(message)
        sealed = self.cipher.encrypt(inner)
        assert len(sealed) == len(body)
        return header + sealed

    def _asked_anew(self, message: dict[str, Any]) -> bytes:
        """
        Ask the web server where it is now.
        """
        assert self.cipher is not None
        asked = HttpRequest.decode(bytes.fromhex(message["plain"]))
        if asked.uri is not None:
            asked = asked._replace(
                uri=asked.uri.replace(f":{RECORDED_PORT}/", f":{self.web_port}/")
            )
        flags, body = seal_body(asked.encode(), self.cipher, 10240)
        return encode_packet(message["cmd"], message["sessionId"], flags, body)

    def _receive(self, message: dict[str, Any]) -> bool:
        peer = self._connected()
        if not message["hex"]:
            return peer.wait_end(0.3)
        packet = peer.packet(0.3)
        if packet is None:
            return False
        cmd, flags, session_id, body = packet
        expected = message.get("cmd", 1 if message["hex"] == "df" else None)
        if cmd != expected or flags != message.get("flags", 0):
            raise Mismatch(f"{packet} instead of {message}")
        if message["hex"] == "df":
            return True
        if cmd == 15:
            self.ids[message["sessionId"]] = session_id
            if session_id < 1 << 30:
                raise Mismatch(f"message id {session_id} is too low")
        elif session_id != message["sessionId"]:
            raise Mismatch(f"answer to {session_id} instead of {message}")
        self._compare(message, flags, body)
        return True

    def _compare(self, message: dict[str, Any], flags: int, body: bytes) -> None:
        fields = message.get("fields") or {}
        command = message.get("command")
        if command == "HANDSHAKE":
            answer = HandshakeOk.decode(
                open_body(flags, body, AesCipher(self.client_key, self.iv))
            )
            if answer.heartbeat != fields["heartbeat"]:
                raise Mismatch(f"heartbeat {answer.heartbeat}, not {fields}")
            if not re.fullmatch("[0-9a-f]{32}", answer.session_id):
                raise Mismatch(f"session id {answer.session_id}")
            self.cipher = AesCipher(
                mix_session_key(self.client_key, answer.server_key), self.iv
            )
            keys = self.keys[self.handshakes] or self.keys[0]
            self.recorded = AesCipher(
                bytes.fromhex(keys["sessionKey"]), bytes.fromhex(keys["iv"])
            )
            self.handshakes += 1
        elif command in ("OK", "ERROR"):
            kind: Any = Ok if command == "OK" else Error
            found = kind.decode(body)
            wanted = kind(**fields)
            points = [name for name, _ in decode_push_result(wanted.data)]
            if points:
                if [name for name, _ in decode_push_result(found.data)] != points:
                    raise Mismatch(f"time line {found.data} instead of {wanted.data}")
                shape = re.sub(r"\d{13}", "T", wanted.data or "")
                if re.sub(r"\d{13}", "T", found.data) != shape:
                    raise Mismatch(f"{found.data} instead of {shape}")
                found, wanted = found._replace(data=""), wanted._replace(data="")
            if found != wanted:
                raise Mismatch(f"{found} instead of {wanted}")
        elif command == "HTTP_PROXY":
            self._compare_http(message, open_body(flags, body, self.cipher))
        elif "plain" in message:
            plain = open_body(flags, body, self.cipher)
            if plain.hex() != message["plain"]:
                raise Mismatch(f"{plain!r} instead of {message['plain']}")
        elif HEADER_SIZE + len(body) != len(message["hex"]) // 2 or (
            body.hex() != message["hex"][2 * HEADER.size :]
        ):
            raise Mismatch(f"{body!r} instead of {message}")

    def _compare_http(self, message: dict[str, Any], plain: bytes) -> None:
        """
        Compare answers of the proxy; the order of headers means nothing, and the port
        of the device is its own.
        """
        recorded = message.get("plain") or message["hex"][2 * HEADER.size :]
        found = HttpResponse.decode(plain)
        wanted = HttpResponse.decode(bytes.fromhex(recorded))
        if found.body and wanted.body:
            port = re.compile(rb"x-forwarded-port: \d{5}")
            found = found._replace(body=port.sub(b"x-forwarded-port: P", found.body))
            wanted = wanted._replace(body=port.sub(b"x-forwarded-port: P", wanted.body))
        if tuple(found) != tuple(wanted):
            raise Mismatch(f"{tuple(found)} instead of {tuple(wanted)}")


def play(sides: list[Side]) -> None:
    """
    Play a conversation: earlier connections go first whenever they can.
    """
    stuck = 0
    while any(side.left for side in sides):
        for side in sides:
            if side.left and side.step():
                stuck = 0
                break
        else:
            stuck += 1
            if stuck > 10:
                left = [side.left[0] for side in sides if side.left]
                raise Mismatch(f"nothing more comes; missing {left}")
    for side in sides:
        if side.peer is not None and side.peer.socket.fileno() >= 0:
            extra = side.peer.packet(0.02)
            if extra is not None:
                raise Mismatch(f"unexpected {extra}")
    for side in sides:
        if side.peer is not None:
            side.peer.close()


def is_later(name: str) -> bool:
    """
    Whether a conversation needs what this version does not have.
    """
    return any(name.startswith(beginning) for beginning in LATER)


class TranscriptTests(NodeTestCase):
    """
    One test for each recorded conversation; see the end of this module.
    """

    def setUp(self) -> Any:
        self.web = TestWeb()
        self.web.start(reactor)
        self.addCleanup(self.web.backend.stop)
        self.patch(reach, "is_public", lambda address: True)
        backend = f"127.0.0.1:{self.web.port}"
        self.settings = (
            "mp.http.proxy-enabled=true",
            "mp.http.request-target=absolute",
            f'mp.http.dns-mapping={{"mapped.test": ["{backend}"]}}',
            'mp.http.allowed-hosts=["127.0.0.1","127.0.0.3","no.such.host.invalid"]',
        )
        return super().setUp()

    async def replay(self, case: dict[str, Any]) -> None:
        """
        Play one conversation against this test's node.
        """
        connections = list(case["connections"])
        if case["name"] in WITHOUT_SENDER:
            connections.append(sender_for(connections[0]["messages"]))
        for connection in connections:
            await self._store_session(connection)
        sides = [
            Side(
                connection, case["name"], self.ports[connection["port"]], self.web.port
            )
            for connection in connections
        ]
        await self.in_thread(play, sides)
        self.flushLoggedErrors()

    async def _store_session(self, connection: dict[str, Any]) -> None:
        """
        Have the session that a recorded FAST_CONNECT names.
        """
        if connection["messages"][0].get("command") != "FAST_CONNECT":
            return
        fields = connection["messages"][0]["fields"]
        keys = connection["keys"]
        refused = "wrong-device" in str(connection) or not keys.get("sessionKey")
        answer = connection["messages"][1]
        if answer.get("command") == "ERROR" and answer["fields"]["code"] == 103:
            return
        key = bytes.fromhex(keys["sessionKey"]) if keys.get("sessionKey") else bytes(16)
        iv = bytes.fromhex(keys["iv"]) if keys.get("iv") else bytes(16)
        owner = "somebody-else" if refused else fields["deviceId"]
        record = SessionRecord("android", "10", "1.0", owner, AesCipher(key, iv))
        await self.node.sessions.store(fields["sessionId"], record)

    def test_every_case_is_known(self) -> None:
        """
        No recorded conversation is forgotten: it is replayed, or it is named as later.
        """
        replayed = [c["name"] for c in CASES if not is_later(c["name"])]
        self.assertEqual(len(CASES), 76)
        self.assertEqual(len(replayed), 60)
        self.assertTrue(set(REPAIRED) <= set(replayed))

    def test_the_recorded_key_is_the_sample(self) -> None:
        """
        The node of these tests runs on the key that the recording used.
        """
        self.assertTrue(RsaPrivateKey.load(SAMPLE["rsaPrivateKeyBase64"]).is_sample)


def _test_of(case: dict[str, Any]) -> Any:
    async def test(self: TranscriptTests) -> None:
        await self.replay(case)

    test.__doc__ = f"{case['description']}."
    return test


for _case in CASES:
    if not is_later(_case["name"]):
        setattr(
            TranscriptTests,
            "test_" + re.sub(r"\W", "_", _case["name"]),
            _test_of(_case),
        )
