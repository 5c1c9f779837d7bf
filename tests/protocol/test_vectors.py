"""
The worked examples of the wire, byte by byte and in both directions.

C{tests/vectors/protocol.json} was made with the classes of the original, or on a
running original server. Each example is a test of its own, named after it. Where an
example carries C{deviation} the original has a defect that this server repairs, and the
repaired result is what is tested (protocol 17).

Examples of kind C{exchange} are conversations with a node and are played in
C{tests/integration}; of kind C{ws_exchange} the frames are read and written here.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.errors import ProtocolError
from mpush_tw.protocol.body import inflate, open_body, seal_body
from mpush_tw.protocol.commands import Command, Flag
from mpush_tw.protocol.crypto import (
    AesCipher,
    RsaPrivateKey,
    RsaPublicKey,
    mix_session_key,
)
from mpush_tw.protocol.fields import (
    FieldReader,
    decode_headers,
    encode_byte,
    encode_bytes,
    encode_headers,
    encode_int,
    encode_long,
    encode_text,
)
from mpush_tw.protocol.gateway import (
    GatewayKick,
    GatewayPush,
    decode_push_result,
    encode_push_result,
)
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
from mpush_tw.protocol.packet import (
    HEADER,
    HEARTBEAT,
    Packet,
    PacketDecoder,
    check_code,
    decode_datagram,
    encode_packet,
    header_lrc,
)
from mpush_tw.protocol.sessions import (
    SessionRecord,
    decode_key,
    encode_key,
    new_session_id,
)
from tests.protocol.strategies import WireMessage

Vector = dict[str, Any]
Check = Callable[[SynchronousTestCase, Vector], None]

VECTORS: list[Vector] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "protocol.json").read_text()
)["vectors"]
SAMPLE = next(v["inputs"] for v in VECTORS if v["kind"] == "rsa_key")

COUNTS = {
    "aes_cbc": 3,
    "aes_packet": 4,
    "aes_packet_long": 1,
    "aes_zlib_packet": 1,
    "body:bind": 1,
    "body:error": 11,
    "body:fast_connect": 1,
    "body:fast_connect_ok": 1,
    "body:gateway_kick": 1,
    "body:gateway_push": 3,
    "body:handshake": 1,
    "body:handshake_ok": 1,
    "body:http_request": 1,
    "body:http_response": 2,
    "body:kick": 1,
    "body:ok": 2,
    "byte": 6,
    "bytes": 2,
    "bytes_long": 4,
    "checkcode": 5,
    "cipher_string": 1,
    "exchange": 31,
    "frame": 6,
    "header_decode": 12,
    "header_map": 2,
    "int": 6,
    "json_decode": 14,
    "json_packet": 5,
    "long": 4,
    "lrc": 3,
    "mix_key": 2,
    "mq_kick": 1,
    "push_result": 2,
    "raw_packet": 4,
    "rsa_key": 1,
    "rsa_packet": 2,
    "session_id": 2,
    "session_value": 2,
    "stream": 7,
    "string": 6,
    "string_utf16": 1,
    "ws_exchange": 17,
    "zlib": 2,
    "zlib_long": 1,
}
"""
How many examples of each kind there are: one that disappears is noticed.
"""

REPAIRED: dict[str, Any] = {
    "headers-last-newline-missing": {"a": "1", "b": "2"},
    "headers-empty-value-keeps-previous": {"a": "1", "b": "", "c": "3"},
    "headers-first-value-empty": {"a": "1", "b": ""},
    "session-id-first-handshake": None,
    "session-id-second-handshake": None,
    "json-in-flags-zero": {
        "cmd": 5,
        "flags": 16,
        "sessionId": 4,
        "body": {"userId": "u"},
    },
    "stream-negative-length": {"packets": [], "error": True},
    "stream-length-over-limit-incomplete": {"packets": [], "error": True},
    "ws-exchange-bind-flags-zero": None,
}
"""
What this server gives instead, for each example that carries C{deviation}. C{None}: the
deviation is not in a value; the check of that kind says what it is.
"""


def wanted(vector: Vector) -> Any:
    """
    Tell what an example should give here: the repaired result if it has one.
    """
    return REPAIRED.get(vector["name"], vector["expected"])


def hexed(value: str | None) -> bytes | None:
    return None if value is None else bytes.fromhex(value)


def repeated(form: dict[str, Any]) -> bytes:
    return bytes.fromhex(form["byte"]) * int(form["count"])


def only_packet(test: SynchronousTestCase, data: bytes) -> Packet:
    """
    Decode bytes that have to be exactly one packet.
    """
    decoder = PacketDecoder()
    seen = list(decoder.receive(data))
    test.assertEqual((len(seen), decoder.held), (1, 0))
    return seen[0]


def cipher_of(inputs: dict[str, Any]) -> AesCipher:
    return AesCipher(bytes.fromhex(inputs["key"]), bytes.fromhex(inputs["iv"]))


# ------------------------------------------------------------------ framing


def check_frame(test: SynchronousTestCase, vector: Vector) -> None:
    inputs, expected = vector["inputs"], bytes.fromhex(vector["expected_hex"])
    cmd, flags, session_id = inputs["cmd"], inputs["flags"], inputs["sessionId"]
    body = bytes.fromhex(inputs["body"])
    sent = encode_packet(cmd, session_id, flags, body)
    cc, lrc = inputs.get("cc", 0), inputs.get("lrc", 0)
    if cc or lrc:
        # The check fields are always sent as zero (protocol 2.4).
        test.assertEqual(check_code(body), cc)
        test.assertEqual(header_lrc(expected), lrc)
        sent = sent[:5] + cc.to_bytes(2, signed=True) + sent[7:12] + bytes([lrc]) + body
    test.assertEqual(sent, expected)
    test.assertEqual(only_packet(test, expected), (cmd, flags, session_id, body))


def check_raw_packet(test: SynchronousTestCase, vector: Vector) -> None:
    check_frame(test, vector)
    data = bytes.fromhex(vector["expected_hex"])
    test.assertEqual(decode_datagram(data), only_packet(test, data))


def check_checkcode(test: SynchronousTestCase, vector: Vector) -> None:
    inputs = vector["inputs"]
    body = (
        repeated(inputs["body_repeat"])
        if "body_repeat" in inputs
        else bytes.fromhex(inputs["body"])
    )
    code = check_code(body)
    test.assertEqual(code, vector["expected"]["signed"])
    test.assertEqual(code.to_bytes(2, signed=True).hex(), vector["expected"]["hex"])


def check_lrc(test: SynchronousTestCase, vector: Vector) -> None:
    inputs = vector["inputs"]
    header = HEADER.pack(
        inputs["bodyLength"],
        inputs["cmd"],
        inputs["cc"],
        inputs["flags"] & 0xFF,
        inputs["sessionId"],
        0,
    )
    test.assertEqual(f"{header_lrc(header):02x}", vector["expected_hex"])


def check_stream(test: SynchronousTestCase, vector: Vector) -> None:
    decoder = PacketDecoder(vector["inputs"]["maxPacketSize"])
    expected = wanted(vector)
    seen: list[Packet] = []
    failed = False
    try:
        for packet in decoder.receive(bytes.fromhex(vector["inputs"]["hex"])):
            seen.append(packet)
    except ProtocolError:
        failed = True
    test.assertEqual(failed, expected["error"])
    test.assertEqual(
        seen,
        [
            HEARTBEAT
            if form.get("heartbeat")
            else (
                form["cmd"],
                form["flags"],
                form["sessionId"],
                bytes.fromhex(form["body"]),
            )
            for form in expected["packets"]
        ],
    )


# ------------------------------------------------------------------- fields


def check_byte(test: SynchronousTestCase, vector: Vector) -> None:
    value, data = vector["inputs"]["value"], bytes.fromhex(vector["expected_hex"])
    test.assertEqual(encode_byte(value), data)
    test.assertEqual(FieldReader(data).take_byte(), value)


def check_int(test: SynchronousTestCase, vector: Vector) -> None:
    value, data = vector["inputs"]["value"], bytes.fromhex(vector["expected_hex"])
    test.assertEqual(encode_int(value), data)
    test.assertEqual(FieldReader(data).take_int(), value)


def check_long(test: SynchronousTestCase, vector: Vector) -> None:
    value, data = vector["inputs"]["value"], bytes.fromhex(vector["expected_hex"])
    test.assertEqual(encode_long(value), data)
    test.assertEqual(FieldReader(data).take_long(), value)


def check_string(test: SynchronousTestCase, vector: Vector) -> None:
    value, data = vector["inputs"]["value"], bytes.fromhex(vector["expected_hex"])
    test.assertEqual(encode_text(value), data)
    test.assertEqual(FieldReader(data).take_text(), value or None)


def check_string_utf16(test: SynchronousTestCase, vector: Vector) -> None:
    raw = bytes.fromhex(vector["inputs"]["utf16be_hex"])
    value = raw.decode("utf-16-be", "surrogatepass")
    data = bytes.fromhex(vector["expected_hex"])
    test.assertEqual(encode_text(value), data)
    test.assertEqual(FieldReader(data).take_text(), value.replace("\ud83d", "?"))


def check_bytes(test: SynchronousTestCase, vector: Vector) -> None:
    value = hexed(vector["inputs"]["value"])
    data = bytes.fromhex(vector["expected_hex"])
    test.assertEqual(encode_bytes(value), data)
    test.assertEqual(FieldReader(data).take_bytes(), value)


def assert_described(
    test: SynchronousTestCase, data: bytes, expected: dict[str, Any]
) -> None:
    """
    Compare bytes with their beginning, length and hash.
    """
    prefix = bytes.fromhex(expected["prefix_hex"])
    test.assertEqual(data[: len(prefix)], prefix)
    test.assertEqual(len(data), expected["length"])
    test.assertEqual(hashlib.sha256(data).hexdigest(), expected["sha256"])


def check_bytes_long(test: SynchronousTestCase, vector: Vector) -> None:
    value = repeated(vector["inputs"]["repeat"])
    data = encode_bytes(value)
    assert_described(test, data, vector["expected"])
    test.assertEqual(FieldReader(data).take_bytes(), value)


def check_header_map(test: SynchronousTestCase, vector: Vector) -> None:
    value, data = vector["inputs"]["value"], bytes.fromhex(vector["expected_hex"])
    test.assertEqual(encode_headers(value), data)
    test.assertEqual(decode_headers(FieldReader(data).take_text()), value or None)


def check_header_decode(test: SynchronousTestCase, vector: Vector) -> None:
    expected = wanted(vector)
    test.assertEqual(decode_headers(vector["inputs"]["text"]), expected)


# --------------------------------------------------------- keys and sessions


def check_mix_key(test: SynchronousTestCase, vector: Vector) -> None:
    client_key = bytes.fromhex(vector["inputs"]["clientKey"])
    server_key = bytes.fromhex(vector["inputs"]["serverKey"])
    mixed = bytes.fromhex(vector["expected_hex"])
    test.assertEqual(mix_session_key(client_key, server_key), mixed)
    test.assertEqual(mix_session_key(mixed, server_key), client_key)


def check_aes_cbc(test: SynchronousTestCase, vector: Vector) -> None:
    cipher = cipher_of(vector["inputs"])
    plain = bytes.fromhex(vector["inputs"]["plain"])
    sealed = bytes.fromhex(vector["expected_hex"])
    test.assertEqual(cipher.encrypt(plain), sealed)
    test.assertEqual(cipher.decrypt(sealed), plain)


def check_cipher_string(test: SynchronousTestCase, vector: Vector) -> None:
    key = bytes.fromhex(vector["inputs"]["key"])
    iv = bytes.fromhex(vector["inputs"]["iv"])
    test.assertEqual(f"{encode_key(key)},{encode_key(iv)}", vector["expected"])
    test.assertEqual(
        [decode_key(part) for part in vector["expected"].split(",")], [key, iv]
    )


def check_session_value(test: SynchronousTestCase, vector: Vector) -> None:
    inputs, text = vector["inputs"], vector["expected"]
    made = SessionRecord(
        inputs["osName"],
        inputs["osVersion"],
        inputs["clientVersion"],
        inputs["deviceId"],
        cipher_of(inputs),
    )
    test.assertEqual(made.encode(), text)
    record = SessionRecord.decode(text)
    assert record is not None
    test.assertEqual(record[:4], made[:4])
    test.assertEqual(record.cipher.key.hex(), inputs["key"])
    test.assertEqual(record.cipher.iv.hex(), inputs["iv"])


def check_session_id(test: SynchronousTestCase, vector: Vector) -> None:
    # The deviation: an id of the same form that nobody can guess (D10).
    drawn = new_session_id()
    test.assertRegex(drawn, r"\A[0-9a-f]{32}\Z")
    test.assertEqual(len(drawn), len(vector["expected"]))
    test.assertNotEqual(drawn, vector["expected"])


def check_rsa_key(test: SynchronousTestCase, vector: Vector) -> None:
    expected = vector["expected"]
    public = RsaPublicKey.load(vector["inputs"]["public_key"])
    private = RsaPrivateKey.load(vector["inputs"]["private_key"], public)
    test.assertTrue(public.is_sample and private.is_sample)
    test.assertEqual(f"{public.modulus:x}", expected["n"])
    test.assertEqual(public.exponent, expected["e"])
    test.assertEqual(public.text(), vector["inputs"]["public_key"])
    completed = serialization.load_der_private_key(
        base64.b64decode(private.text()), None
    )
    assert isinstance(completed, rsa.RSAPrivateKey)
    numbers = completed.private_numbers()
    test.assertEqual(f"{numbers.d:x}", expected["d"])
    test.assertEqual(f"{max(numbers.p, numbers.q):x}", expected["larger_prime"])
    test.assertEqual(f"{min(numbers.p, numbers.q):x}", expected["smaller_prime"])


def check_rsa_packet(test: SynchronousTestCase, vector: Vector) -> None:
    private = RsaPrivateKey.load(SAMPLE["private_key"])
    plain = bytes.fromhex(vector["expected_hex"])
    cmd, flags, _, body = only_packet(
        test, bytes.fromhex(vector["inputs"]["packet_hex"])
    )
    test.assertEqual((cmd, flags), (Command.HANDSHAKE, Flag.CRYPTO))
    test.assertEqual(open_body(flags, body, private), plain)
    test.assertEqual(Handshake.decode(plain).encode(), plain)
    # The padding is random: the other direction can only be compared by going back.
    ours = seal_body(plain, private)
    test.assertEqual((ours[0], len(ours[1])), (flags, len(body)))
    test.assertEqual(open_body(*ours, private), plain)


# ------------------------------------------------------------------- bodies


def check_zlib(test: SynchronousTestCase, vector: Vector) -> None:
    inputs = vector["inputs"]
    plain = (
        repeated(inputs["repeat"])
        if "repeat" in inputs
        else bytes.fromhex(inputs["plain"])
    )
    packed = bytes.fromhex(vector["expected_hex"])
    test.assertEqual(inflate(packed, len(plain)), plain)
    # The compressed bytes are not normative: ours have to be read back, no more.
    flags, ours = seal_body(plain, None, threshold=0)
    test.assertEqual(flags, Flag.COMPRESS)
    test.assertEqual(inflate(ours, len(plain)), plain)


def sealed_packet(inputs: dict[str, Any], plain: bytes) -> bytes:
    flags, body = seal_body(plain, cipher_of(inputs))
    return encode_packet(
        inputs["cmd"], inputs["sessionId"], flags | inputs.get("flags", 0), body
    )


def check_opening(
    test: SynchronousTestCase, inputs: dict[str, Any], data: bytes, plain: bytes
) -> None:
    cmd, flags, session_id, body = only_packet(test, data)
    test.assertEqual((cmd, session_id), (inputs["cmd"], inputs["sessionId"]))
    test.assertEqual(flags & ~3, inputs.get("flags", 0))
    test.assertEqual(open_body(flags, body, cipher_of(inputs)), plain)


def check_aes_packet(test: SynchronousTestCase, vector: Vector) -> None:
    inputs, data = vector["inputs"], bytes.fromhex(vector["expected_hex"])
    plain = bytes.fromhex(inputs["plain_body"])
    test.assertEqual(sealed_packet(inputs, plain), data)
    check_opening(test, inputs, data, plain)


def check_aes_packet_long(test: SynchronousTestCase, vector: Vector) -> None:
    inputs = vector["inputs"]
    plain = repeated(inputs["plain_repeat"])
    data = sealed_packet(inputs, plain)
    assert_described(test, data, vector["expected"])
    # Larger than a receiver takes by default, by the padding: the original sends it.
    (packet,) = PacketDecoder(len(data)).receive(data)
    test.assertEqual(open_body(packet[1], packet[3], cipher_of(inputs)), plain)


def check_aes_zlib_packet(test: SynchronousTestCase, vector: Vector) -> None:
    inputs = vector["inputs"]
    plain = repeated(inputs["plain_repeat"])
    data = bytes.fromhex(vector["expected_hex"])
    check_opening(test, inputs, data, plain)
    ours = sealed_packet(inputs, plain)
    test.assertEqual(ours[7], data[7])
    check_opening(test, inputs, ours, plain)


BODIES: dict[str, tuple[type[WireMessage], Callable[[dict[str, Any]], WireMessage]]] = {
    "handshake": (
        Handshake,
        lambda f: Handshake(
            f["deviceId"],
            f["osName"],
            f["osVersion"],
            f["clientVersion"],
            hexed(f["iv"]),
            hexed(f["clientKey"]),
            f["minHeartbeat"],
            f["maxHeartbeat"],
            f["timestamp"],
        ),
    ),
    "handshake_ok": (
        HandshakeOk,
        lambda f: HandshakeOk(
            bytes.fromhex(f["serverKey"]),
            f["heartbeat"],
            f["sessionId"],
            f["expireTime"],
        ),
    ),
    "fast_connect": (
        FastConnect,
        lambda f: FastConnect(
            f["sessionId"], f["deviceId"], f["minHeartbeat"], f["maxHeartbeat"]
        ),
    ),
    "fast_connect_ok": (FastConnectOk, lambda f: FastConnectOk(f["heartbeat"])),
    "bind": (BindUser, lambda f: BindUser(f["userId"], f["data"], f["tags"])),
    "ok": (Ok, lambda f: Ok(f["cmd"], f["code"], f["data"])),
    "error": (Error, lambda f: Error(f["cmd"], f["code"], f["reason"], f["data"])),
    "kick": (Kick, lambda f: Kick(f["deviceId"], f["userId"])),
    "http_request": (
        HttpRequest,
        lambda f: HttpRequest(
            f["method"], f["uri"], f["headers"] or None, hexed(f["body"])
        ),
    ),
    "http_response": (
        HttpResponse,
        lambda f: HttpResponse(
            f["statusCode"], f["reasonPhrase"], f["headers"] or None, hexed(f["body"])
        ),
    ),
    "gateway_push": (
        GatewayPush,
        lambda f: GatewayPush(
            f["userId"],
            f["clientType"],
            f["timeout"],
            hexed(f["content"]),
            f["taskId"],
            None if f["tags"] is None else tuple(f["tags"]),
            f["condition"],
        ),
    ),
    "gateway_kick": (
        GatewayKick,
        lambda f: GatewayKick(
            f["userId"],
            f["deviceId"],
            f["connId"],
            f["clientType"],
            f["targetServer"],
            f["targetPort"],
        ),
    ),
}
"""
The message of a C{body:} example, made of its fields by name. Empty header maps are
absent on the wire.
"""


def check_body(test: SynchronousTestCase, vector: Vector) -> None:
    kind, build = BODIES[vector["kind"].removeprefix("body:")]
    message, body = build(vector["inputs"]), bytes.fromhex(vector["expected_hex"])
    test.assertEqual(message.encode(), body)
    test.assertEqual(kind.decode(body), message)


def check_push_result(test: SynchronousTestCase, vector: Vector) -> None:
    inputs, text = vector["inputs"], vector["expected"]
    flat = inputs["timePoints"]
    points = list(zip(flat[::2], flat[1::2], strict=True))
    written = encode_push_result(inputs["userId"], inputs["clientType"], points)
    test.assertEqual(written.decode(), text)
    test.assertEqual(decode_push_result(text), points)


def check_mq_kick(test: SynchronousTestCase, vector: Vector) -> None:
    _, build = BODIES["gateway_kick"]
    kick = build(vector["inputs"])
    assert isinstance(kick, GatewayKick)
    test.assertEqual(kick.to_json_text(), vector["expected"])
    test.assertEqual(GatewayKick.from_json_text(vector["expected"]), kick)


# --------------------------------------------------------------------- JSON


def check_json_packet(test: SynchronousTestCase, vector: Vector) -> None:
    inputs = vector["inputs"]
    cmd, session_id, body = inputs["cmd"], inputs["sessionId"], inputs["body"]
    flags = inputs.get("flags", 0)
    text = encode_json_packet(cmd, session_id, flags, body)
    test.assertEqual(json.loads(text), json.loads(vector["expected"]))
    test.assertEqual(
        decode_json_packet(vector["expected"]),
        (cmd, flags | 16, session_id, body or {}),
    )


def check_json_decode(test: SynchronousTestCase, vector: Vector) -> None:
    expected = wanted(vector)
    text = vector["inputs"]["text"]
    if expected is None:
        test.assertRaises(ProtocolError, decode_json_packet, text)
        return
    packet = decode_json_packet(text)
    test.assertEqual(
        packet,
        (
            expected["cmd"],
            expected["flags"],
            expected["sessionId"],
            expected["body"] or {},
        ),
    )
    again = encode_json_packet(packet.cmd, packet.session_id, packet.flags, packet.body)
    test.assertEqual(decode_json_packet(again), packet)


def check_ws_exchange(test: SynchronousTestCase, vector: Vector) -> None:
    for frame in vector["inputs"]["text_frames"]:
        check_inbound_frame(test, frame)
    for text in vector["expected"]["reply_frames"]:
        check_outbound_frame(test, text)


def check_inbound_frame(test: SynchronousTestCase, frame: str) -> None:
    """
    Read a frame of a device, and its message as far as it has one.
    """
    try:
        form = json.loads(frame)
    except ValueError:
        test.assertRaises(ProtocolError, decode_json_packet, frame)
        return
    packet = decode_json_packet(frame)
    body = form.get("body") or {}
    test.assertEqual(
        packet,
        (
            form.get("cmd", -1),
            form.get("flags", 0) | 16,
            form.get("sessionId", 0),
            body,
        ),
    )
    if packet.cmd == Command.HANDSHAKE:
        names = ("deviceId", "osName", "osVersion", "clientVersion")
        test.assertEqual(
            Handshake.from_json(packet.body)[:4], tuple(body.get(n) for n in names)
        )
    elif packet.cmd in (Command.BIND, Command.UNBIND):
        user_id = body.get("userId")
        # A number is taken as its text; the original refuses it (DESIGN 5a).
        if user_id is not None:
            user_id = str(user_id)
        test.assertEqual(
            BindUser.from_json(packet.body), (user_id, None, body.get("tags"))
        )


def check_outbound_frame(test: SynchronousTestCase, text: str) -> None:
    """
    Write a frame of the server from the message that it carries.
    """
    form = json.loads(text)
    fields = form.get("body", {})
    bodies: dict[int, dict[str, object]] = {
        Command.HANDSHAKE: {},
        Command.OK: Ok(
            fields.get("cmd", -1), fields.get("code", 0), fields.get("data")
        ).to_json(),
        Command.ERROR: Error(
            fields.get("cmd", -1), fields.get("code", 0), fields.get("reason")
        ).to_json(),
    }
    ours = encode_json_packet(form["cmd"], form["sessionId"], body=bodies[form["cmd"]])
    test.assertEqual(json.loads(ours), form)


CHECKS: dict[str, Check] = {
    "aes_cbc": check_aes_cbc,
    "aes_packet": check_aes_packet,
    "aes_packet_long": check_aes_packet_long,
    "aes_zlib_packet": check_aes_zlib_packet,
    "byte": check_byte,
    "bytes": check_bytes,
    "bytes_long": check_bytes_long,
    "checkcode": check_checkcode,
    "cipher_string": check_cipher_string,
    "frame": check_frame,
    "header_decode": check_header_decode,
    "header_map": check_header_map,
    "int": check_int,
    "json_decode": check_json_decode,
    "json_packet": check_json_packet,
    "long": check_long,
    "lrc": check_lrc,
    "mix_key": check_mix_key,
    "mq_kick": check_mq_kick,
    "push_result": check_push_result,
    "raw_packet": check_raw_packet,
    "rsa_key": check_rsa_key,
    "rsa_packet": check_rsa_packet,
    "session_id": check_session_id,
    "session_value": check_session_value,
    "stream": check_stream,
    "string": check_string,
    "string_utf16": check_string_utf16,
    "ws_exchange": check_ws_exchange,
    "zlib": check_zlib,
    "zlib_long": check_zlib,
    **{f"body:{name}": check_body for name in BODIES},
}

PLAYED_ON_A_NODE = {"exchange"}


class VectorTests(SynchronousTestCase):
    """
    One test for each example; see the end of this module.
    """


class CompletenessTests(SynchronousTestCase):
    """
    That no example is left out.
    """

    def test_counts(self) -> None:
        """
        There are as many examples of each kind as there should be, 186 in all.
        """
        self.assertEqual(Counter(v["kind"] for v in VECTORS), COUNTS)
        self.assertEqual(len(VECTORS), 186)

    def test_names(self) -> None:
        """
        No two examples share a name: each is a test.
        """
        self.assertEqual(len({v["name"] for v in VECTORS}), len(VECTORS))

    def test_kinds(self) -> None:
        """
        There is a check for each kind and no check without a kind.
        """
        self.assertEqual(set(CHECKS) | PLAYED_ON_A_NODE, set(COUNTS))

    def test_each_is_a_test(self) -> None:
        """
        All examples but those played on a node have become tests.
        """
        made = [name for name in vars(VectorTests) if name.startswith("test_")]
        played = sum(COUNTS[kind] for kind in PLAYED_ON_A_NODE)
        self.assertEqual(len(made), len(VECTORS) - played)

    def test_deviations(self) -> None:
        """
        Each example with a deviation says here what this server gives instead.
        """
        deviating = {
            v["name"]
            for v in VECTORS
            if "deviation" in v and v["kind"] not in PLAYED_ON_A_NODE
        }
        self.assertEqual(deviating, set(REPAIRED))


def _add(vector: Vector) -> None:
    check = CHECKS[vector["kind"]]

    def test(self: VectorTests) -> None:
        check(self, vector)

    test.__doc__ = f"{vector['kind']}: {vector['description']}"
    test.__name__ = "test_" + vector["name"].replace("-", "_")
    setattr(VectorTests, test.__name__, test)


for _vector in VECTORS:
    if _vector["kind"] not in PLAYED_ON_A_NODE:
        _add(_vector)
