"""
Tests of the WebSocket codec: L{mpush_tw.protocol.json_packet}.
"""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.errors import ProtocolError
from mpush_tw.protocol.json_packet import (
    JsonPacket,
    decode_json_packet,
    encode_json_packet,
    json_payload,
)
from tests.protocol.strategies import ints, signed_bytes

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner)
    ),
    max_leaves=6,
)
frames = st.dictionaries(
    st.sampled_from(["cmd", "flags", "sessionId", "body", "bodyLength", "@type"]),
    values,
)
texts = st.dictionaries(st.text(max_size=5), st.text(max_size=10), max_size=4)


class EncodingTests(SynchronousTestCase):
    """
    Frames on their way out.
    """

    def test_without_body(self) -> None:
        """
        A packet without body has no such key and a body length of 0.
        """
        text = '{"bodyLength":0,"cmd":2,"flags":16,"sessionId":1}'
        self.assertEqual(encode_json_packet(2, 1), text)
        self.assertEqual(encode_json_packet(2, 1, body={}), text)

    def test_with_body(self) -> None:
        """
        Keys stand in the original's order; the body length counts members.
        """
        self.assertEqual(
            encode_json_packet(15, 4, 8, {"content": 'hello 推送 "q"'}),
            '{"body":{"content":"hello 推送 \\"q\\""},"bodyLength":1,"cmd":15,'
            '"flags":24,"sessionId":4}',
        )

    def test_unpaired_surrogate(self) -> None:
        """
        Half a character is written as a question mark.
        """
        text = encode_json_packet(15, 4, 0, {"content": "a\ud83d"})
        self.assertEqual(json.loads(text)["body"], {"content": "a?"})

    @given(signed_bytes, ints, st.sampled_from([0, 4, 8, 12]), texts)
    def test_round_trip(
        self, cmd: int, session_id: int, flags: int, body: dict[str, str]
    ) -> None:
        """
        What was written is read as the same packet, with flag 16.
        """
        text = encode_json_packet(cmd, session_id, flags, body)
        self.assertEqual(
            decode_json_packet(text), JsonPacket(cmd, flags | 16, session_id, body)
        )


class DecodingTests(SynchronousTestCase):
    """
    Frames that come in (protocol 14.2).
    """

    def test_defaults(self) -> None:
        """
        A missing command is -1, missing flags are 16, a missing session id is 0.
        """
        self.assertEqual(decode_json_packet("{}"), JsonPacket(-1, 16, 0, {}))

    def test_nulls(self) -> None:
        """
        Null is the same as missing.
        """
        text = '{"cmd":null,"flags":null,"sessionId":null,"body":null}'
        self.assertEqual(decode_json_packet(text), JsonPacket(-1, 16, 0, {}))

    def test_numeric_texts(self) -> None:
        """
        Numbers may be numeric texts.
        """
        text = '{"cmd":"5","flags":"24","sessionId":"-4"}'
        self.assertEqual(decode_json_packet(text), JsonPacket(5, 24, -4, {}))

    def test_missing_flag(self) -> None:
        """
        Flags without bit 16 are read as if they had it.
        """
        self.assertEqual(decode_json_packet('{"flags":8}').flags, 24)

    def test_cut_to_a_byte(self) -> None:
        """
        Command and flags are cut to a signed byte.
        """
        packet = decode_json_packet('{"cmd":200,"flags":144}')
        self.assertEqual((packet.cmd, packet.flags), (-56, -112))

    def test_session_id_range(self) -> None:
        """
        A session id has 32 bits, no more.
        """
        for number in (2**31 - 1, -(2**31)):
            packet = decode_json_packet(f'{{"sessionId":{number}}}')
            self.assertEqual(packet.session_id, number)
        for number in (2**31, -(2**31) - 1):
            self.assertRaises(
                ProtocolError, decode_json_packet, f'{{"sessionId":{number}}}'
            )

    def test_bytes(self) -> None:
        """
        The payload of a frame may be handed over as it is, as UTF-8.
        """
        packet = decode_json_packet('{"body":{"userId":"推"}}'.encode())
        self.assertEqual(packet.body, {"userId": "推"})

    def test_type_keys(self) -> None:
        """
        Keys that name types are members like others (D22).
        """
        packet = decode_json_packet('{"@type":"x","body":{"@type":"y"}}')
        self.assertEqual(packet.body, {"@type": "y"})

    def test_unreadable(self) -> None:
        """
        What is no JSON object, or has a body that is none, is refused.
        """
        for text in (
            "",
            "hello",
            "[1,2]",
            "null",
            "5",
            '"{}"',
            "{",
            "{} x",
            "{'cmd':5}",
            '{"cmd":5,"body":[1]}',
            '{"cmd":5,"body":"x"}',
            '{"cmd":5,"body":0}',
            '{"cmd":5,"body":false}',
            '{"cmd":"x"}',
            '{"cmd":""}',
            '{"cmd":[5]}',
            '{"cmd":{}}',
            '{"cmd":true}',
            '{"cmd":1e308}',
            '{"cmd":1e999}',
            '{"cmd":' + "1" * 5000 + "}",
            '{"cmd":"' + "1" * 5000 + '"}',
            '{"body":{"userId":"\\ud800"}}',
            '{"body":{"userId":"\ud800"}}',
        ):
            self.assertRaises(ProtocolError, decode_json_packet, text)

    def test_malformed_utf8(self) -> None:
        """
        Bytes that are no UTF-8 are refused, in names and in values.
        """
        for payload in (
            b'{"\xff":1}',
            b'{"body":{"a":"\xff"}}',
            b"\xff",
            b"\xef\xbb\xbf{}",
        ):
            self.assertRaises(ProtocolError, decode_json_packet, payload)

    def test_deep_nesting(self) -> None:
        """
        A frame full of brackets is refused and does not exhaust the stack.
        """
        for text in ('{"a":' * 10_000 + "1" + "}" * 10_000, '{"a":' + "[" * 60_000):
            self.assertRaises(ProtocolError, decode_json_packet, text)

    def test_refusals_keep_the_content(self) -> None:
        """
        What was refused is not repeated in the text of the error.
        """
        for text in (
            "s3cr3t",
            '{"cmd":"s3cr3t"}',
            '{"body":"s3cr3t"}',
            '{"body":{"content":"s3cr3t"',
        ):
            error = self.assertRaises(ProtocolError, decode_json_packet, text)
            self.assertNotIn("s3cr3t", f"{error} {error!r}")

    @given(
        st.text()
        | st.binary()
        | frames.map(json.dumps)
        | frames.map(lambda frame: json.dumps(frame, ensure_ascii=False).encode())
    )
    def test_any_frame(self, frame: str | bytes) -> None:
        """
        Any frame gives a packet with numbers in range, or L{ProtocolError}.
        """
        try:
            packet = decode_json_packet(frame)
        except ProtocolError:
            return
        self.assertTrue(-128 <= packet.cmd <= 127 and -128 <= packet.flags <= 127)
        self.assertTrue(-(1 << 31) <= packet.session_id < 1 << 31)
        self.assertTrue(packet.flags & 16)
        self.assertIsInstance(packet.body, dict)

    def test_repr(self) -> None:
        """
        A packet in a log is rendered as the original renders packets, without content.
        """
        packet = JsonPacket(15, 24, 4, {"content": "s3cr3t"})
        self.assertEqual(
            repr(packet), "{cmd=15, cc=0, flags=24, sessionId=4, lrc=0, body=1}"
        )


class CodecTests(SynchronousTestCase):
    """
    Another JSON library in place of ours.
    """

    def test_written(self) -> None:
        """
        It writes the members in their order.
        """
        text = json_payload(
            2, 1, encode=lambda value: json.dumps(value, indent=0).encode()
        )
        self.assertEqual(
            text, b'{\n"bodyLength": 0,\n"cmd": 2,\n"flags": 16,\n"sessionId": 1\n}'
        )

    def test_read(self) -> None:
        """
        It reads what arrives, in bytes.
        """
        read: list[bytes] = []

        def decode(text: bytes) -> object:
            read.append(text)
            return json.loads(text)

        packet = decode_json_packet('{"cmd":5,"body":{"a":1}}', decode)
        self.assertEqual(packet, JsonPacket(5, 16, 0, {"a": 1}))
        self.assertEqual(read, [b'{"cmd":5,"body":{"a":1}}'])

    def test_refused(self) -> None:
        """
        What it cannot read, or reads as something else than an object, is refused.
        """
        for text in ("{", "[]", "5", "null"):
            self.assertRaises(ProtocolError, decode_json_packet, text, json.loads)
