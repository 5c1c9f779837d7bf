"""
Tests of the messages between servers: L{mpush_tw.protocol.gateway}.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.errors import ProtocolError
from mpush_tw.protocol.fields import (
    FieldReader,
    decode_tags,
    encode_bytes,
    encode_int,
    encode_text,
)
from mpush_tw.protocol.gateway import (
    GatewayKick,
    GatewayPush,
    decode_push_result,
    encode_push_result,
)
from tests.protocol.strategies import (
    MESSAGES,
    ints,
    maybe_bytes,
    maybe_text,
    spoiled_bodies,
)

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["timePoints", "clientType", "userId", "x"]), inner
        )
    ),
    max_leaves=8,
)


def field_by_field(body: bytes) -> GatewayPush:
    """
    Read GATEWAY_PUSH the general way, without the short cut of the everyday push.
    """
    if not body:
        return GatewayPush()
    fields = FieldReader(body)
    return GatewayPush(
        fields.take_text(),
        fields.take_int(),
        fields.take_int(),
        fields.take_bytes(),
        fields.take_text(),
        decode_tags(fields.take_text()),
        fields.take_text(),
    )


class PushTests(SynchronousTestCase):
    """
    GATEWAY_PUSH.
    """

    def assert_both_ways(self, body: bytes) -> None:
        """
        Read a body both ways and compare what comes out, refusals included.
        """
        try:
            expected = field_by_field(body)
        except ProtocolError:
            self.assertRaises(ProtocolError, GatewayPush.decode, body)
        else:
            self.assertEqual(GatewayPush.decode(body), expected)

    @given(spoiled_bodies(GatewayPush))
    @example(b"\0")
    @example(bytes(18))
    @example(bytes(17))
    @example(b"\x7f\xff" + bytes(22))
    @example(b"\0\0" + bytes(8) + b"\x7f\xff" + bytes(10))
    @example(b"\0\0" + bytes(8) + b"\x80\0" + bytes(6))
    @example(b"\x80\0" + bytes(20))
    @example(b"\0\x01\xff" + bytes(8) + b"\0\0" + bytes(6))
    @example(b"\0\x0c" + bytes(18))
    @example(bytes(17) + b"\x01")
    def test_short_cut(self, body: bytes) -> None:
        """
        The fast way reads every body as the general way does.
        """
        self.assert_both_ways(body)

    @given(maybe_text, ints, ints, maybe_bytes, st.binary(max_size=3), st.data())
    def test_short_cut_of_everyday_pushes(
        self,
        user_id: str | None,
        client_type: int,
        timeout_ms: int,
        content: bytes | None,
        rest: bytes,
        data: st.DataObject,
    ) -> None:
        """
        The same for bodies made for the fast way, whole, cut and with a rest.
        """
        body = GatewayPush(user_id, client_type, timeout_ms, content).encode()
        self.assert_both_ways(body)
        self.assert_both_ways(body + rest)
        self.assert_both_ways(body[: data.draw(st.integers(0, len(body)))])

    def test_lengths_around_the_extension(self) -> None:
        """
        User ids and contents of any length are read, the short form or the long.
        """
        for size in (32766, 32767, 32768):
            for push in (
                GatewayPush("u" * size, 1, 2, b"c"),
                GatewayPush("u", 1, 2, b"c" * size),
            ):
                self.assertEqual(GatewayPush.decode(push.encode()), push)

    def test_shortened_extension(self) -> None:
        """
        A long form whose sum is short again is read as the general way reads it.
        """
        shortened = b"\x7f\xff\xff\xff\xff\xfc" + b"x" * 32763
        numbers = encode_int(1) + encode_int(2)
        self.assert_both_ways(shortened + numbers + b"\0\x01c" + bytes(6))
        self.assert_both_ways(b"\0\x01u" + numbers + shortened + bytes(6))
        self.assertEqual(
            GatewayPush.decode(b"\0\x01u" + numbers + shortened + bytes(6)),
            GatewayPush("u", 1, 2, b"x" * 32763),
        )

    def test_unreadable_tags(self) -> None:
        """
        Tags that are no JSON array count as absent; the push is read.
        """
        body = (
            encode_text("user-1")
            + encode_int(1)
            + encode_int(2)
            + encode_bytes(b"hi")
            + encode_text(None)
            + encode_text("not json")
            + encode_text(None)
        )
        self.assertEqual(GatewayPush.decode(body), GatewayPush("user-1", 1, 2, b"hi"))

    def test_everyday_bytes(self) -> None:
        """
        The bytes of a push to one user.
        """
        push = GatewayPush("user-1", 1, 2500, b"hello")
        body = bytes.fromhex(
            "0006757365722d3100000001000009c4000568656c6c6f000000000000"
        )
        self.assertEqual(push.encode(), body)
        self.assertEqual(GatewayPush.decode(body), push)


class KickTests(SynchronousTestCase):
    """
    GATEWAY_KICK in its JSON form; the binary one is tested with all messages.
    """

    @given(MESSAGES[GatewayKick])
    def test_round_trip(self, kick: GatewayKick) -> None:
        """
        What is published on a kick channel is read as the same kick.
        """
        self.assertEqual(GatewayKick.from_json_text(kick.to_json_text()), kick)

    def test_absent_members_are_left_out(self) -> None:
        """
        Null values are not written.
        """
        kick = GatewayKick("u", None, None, 1, None, 3001)
        self.assertEqual(
            kick.to_json_text(), '{"clientType":1,"targetPort":3001,"userId":"u"}'
        )

    def test_foreign_members(self) -> None:
        """
        Unknown members and their order do not matter.
        """
        kick = GatewayKick.from_json_text(
            '{"userId":"u","@type":"x","more":[1],"clientType":2}'
        )
        self.assertEqual(kick, GatewayKick("u", None, None, 2, None, 0))

    def test_missing_members(self) -> None:
        """
        What is missing is absent, numbers are zero.
        """
        kick = GatewayKick.from_json_text("{}")
        self.assertEqual(kick, GatewayKick(None, None, None, 0, None, 0))

    def test_unreadable(self) -> None:
        """
        What is no kick is refused and the text does not repeat it.
        """
        for text in (
            "",
            "secret",
            "[]",
            '{"userId":5}',
            '{"clientType":"secret"}',
            '{"clientType":' + "1" * 5000 + "}",
            '{"x":' + "[" * 100_000,
            '{"userId":"\ud800"}',
        ):
            error = self.assertRaises(ProtocolError, GatewayKick.from_json_text, text)
            self.assertNotIn("secret", str(error))

    def test_unpaired_surrogate(self) -> None:
        """
        Half a character in a user id is written as a question mark.
        """
        kick = GatewayKick("a\ud83d", None, None, 0, None, 0)
        self.assertIn('"userId":"a?"', kick.to_json_text())

    @given(st.text() | json_values.map(json.dumps))
    def test_any_text(self, text: str) -> None:
        """
        Any text gives a kick or L{ProtocolError}.
        """
        try:
            kick = GatewayKick.from_json_text(text)
        except ProtocolError:
            return
        self.assertIsInstance(kick, GatewayKick)


class PushResultTests(SynchronousTestCase):
    """
    The time line that answers carry.
    """

    @given(
        maybe_text,
        st.integers(-1, 3),
        st.lists(
            st.tuples(
                st.sampled_from(["push-center-begin", "waiting-ack", "success-end"]),
                st.integers(0, 1 << 45),
            )
        ),
    )
    def test_round_trip(
        self, user_id: str | None, client_type: int, points: list[tuple[str, int]]
    ) -> None:
        """
        A time line comes back in order, and the text is JSON as the original's.
        """
        text = encode_push_result(user_id, client_type, points).decode()
        self.assertEqual(decode_push_result(text), points)
        form = json.loads(text)
        self.assertEqual(form.get("userId"), user_id)
        self.assertEqual(
            form.get("clientType"), client_type if client_type > 0 else None
        )

    def test_keys_are_sorted(self) -> None:
        """
        Keys are in alphabetical order as the original writes them.
        """
        text = encode_push_result('推"', 2, [("a", 1)])
        self.assertEqual(
            text.decode(), '{"clientType":2,"timePoints":["a",1],"userId":"推\\""}'
        )

    def test_absent_members_are_left_out(self) -> None:
        """
        Of a broadcast, without user and type, the time line remains.
        """
        text = encode_push_result(None, 0, [("a", 1), ("b", 2)])
        self.assertEqual(text, b'{"timePoints":["a",1,"b",2]}')

    def test_unpaired_surrogate(self) -> None:
        """
        Half a character in a user id is written as a question mark.
        """
        self.assertIn(b'"userId":"?"', encode_push_result("\ud83d", 0, []))

    def test_odd_time_lines(self) -> None:
        """
        What is not a name and a number is left out of the time line.
        """
        self.assertEqual(
            decode_push_result('{"timePoints":["a",1,2,"b","c"]}'), [("a", 1)]
        )

    def test_unreadable(self) -> None:
        """
        An answer is never refused for its time line.
        """
        for text in (
            None,
            "",
            "x",
            "[]",
            "null",
            '{"timePoints":5}',
            '{"timePoints":[null]}',
            '{"timePoints":["a",' + "1" * 5000 + "]}",
            '{"timePoints":' + "[" * 100_000,
            '{"timePoints":["\ud800",1]}',
        ):
            self.assertEqual(decode_push_result(text), [])

    @given(st.text() | json_values.map(json.dumps))
    def test_any_text(self, text: str) -> None:
        """
        Any text gives a list of names and numbers.
        """
        for name, at in decode_push_result(text):
            self.assertIsInstance(name, str)
            self.assertIsInstance(at, int)
