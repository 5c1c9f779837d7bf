"""
Tests of body fields: L{mpush_tw.protocol.fields}.
"""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.errors import ProtocolError
from mpush_tw.protocol.fields import (
    FieldReader,
    decode_headers,
    decode_tags,
    encode_byte,
    encode_bytes,
    encode_headers,
    encode_int,
    encode_json,
    encode_long,
    encode_tags,
    encode_text,
)
from tests.protocol.strategies import (
    header_names,
    header_values,
    ints,
    longs,
    signed_bytes,
    spoiled,
)


class NumberTests(SynchronousTestCase):
    """
    Bytes, ints and longs.
    """

    @given(signed_bytes, ints, longs)
    def test_round_trip(self, byte: int, number: int, long: int) -> None:
        """
        Every number that fits comes back as it was.
        """
        fields = FieldReader(encode_byte(byte) + encode_int(number) + encode_long(long))
        self.assertEqual(
            (fields.take_byte(), fields.take_int(), fields.take_long()),
            (byte, number, long),
        )

    def test_int_that_does_not_fit(self) -> None:
        """
        A number beyond 32 bits is refused, not cut.
        """
        self.assertRaises(ProtocolError, encode_int, 1 << 31)
        self.assertRaises(ProtocolError, encode_int, -(1 << 31) - 1)

    def test_long_that_does_not_fit(self) -> None:
        """
        A number beyond 64 bits is refused, not cut.
        """
        self.assertRaises(ProtocolError, encode_long, 1 << 63)

    def test_missing(self) -> None:
        """
        A body that ends before or inside a number is refused.
        """
        self.assertRaises(ProtocolError, FieldReader(b"").take_byte)
        for size in range(4):
            self.assertRaises(ProtocolError, FieldReader(bytes(size)).take_int)
        for size in range(8):
            self.assertRaises(ProtocolError, FieldReader(bytes(size)).take_long)


class ByteStringTests(SynchronousTestCase):
    """
    Byte strings and their 16-bit lengths with the 32767 extension (protocol 4.1).
    """

    def test_longest_short_form(self) -> None:
        """
        32766 bytes are the last with a plain length.
        """
        data = encode_bytes(b"a" * 32766)
        self.assertEqual((data[:3], len(data)), (b"\x7f\xfea", 32768))

    def test_shortest_long_form(self) -> None:
        """
        From 32767 bytes on the rest of the length follows as an int.
        """
        data = encode_bytes(b"a" * 32767)
        self.assertEqual((data[:7], len(data)), (b"\x7f\xff\0\0\0\0a", 32773))

    def test_round_trip_around_the_extension(self) -> None:
        """
        Byte strings of every length around the limit come back whole.
        """
        for size in (1, 32765, 32766, 32767, 32768, 70_000):
            value = b"a" * size
            fields = FieldReader(encode_bytes(value) + b"\x05")
            self.assertEqual(fields.take_bytes(), value)
            self.assertEqual(fields.take_byte(), 5)

    def test_empty_is_absent(self) -> None:
        """
        Empty and absent look alike on the wire and arrive as absent.
        """
        self.assertEqual(encode_bytes(b""), encode_bytes(None))
        self.assertIsNone(FieldReader(encode_bytes(b"")).take_bytes())

    def test_extension_that_shortens(self) -> None:
        """
        A negative extension is legal as long as the sum is not negative.
        """
        fields = FieldReader(b"\x7f\xff\xff\xff\x80\x04abc")
        self.assertEqual(fields.take_bytes(), b"abc")

    def test_extension_down_to_nothing(self) -> None:
        """
        A sum of zero is absent, like a plain zero.
        """
        self.assertIsNone(FieldReader(b"\x7f\xff\xff\xff\x80\x01").take_bytes())

    def test_negative_length(self) -> None:
        """
        8000 to FFFF are negative lengths and refused.
        """
        for prefix in (b"\x80\0", b"\xff\xff"):
            self.assertRaises(ProtocolError, FieldReader(prefix + b"a" * 9).take_bytes)

    def test_negative_length_is_no_extension(self) -> None:
        """
        Only 7FFF announces an extension, not its neighbour 8000.
        """
        reader = FieldReader(b"\x80\0\xff\xff\x80\0")
        error = self.assertRaises(ProtocolError, reader.take_bytes)
        self.assertEqual(str(error), "negative field length -32768")

    def test_negative_sum(self) -> None:
        """
        An extension that makes the length negative is refused.
        """
        for extension in (b"\xff\xff\x80\0", b"\x80\0\0\0"):
            self.assertRaises(
                ProtocolError, FieldReader(b"\x7f\xff" + extension).take_bytes
            )

    def test_cut_extension(self) -> None:
        """
        A body that ends inside the extension is refused.
        """
        self.assertRaises(ProtocolError, FieldReader(b"\x7f\xff\0\0").take_bytes)

    def test_longer_than_the_body(self) -> None:
        """
        A length beyond the end is refused and the text says what was missing.
        """
        error = self.assertRaises(ProtocolError, FieldReader(b"\0\x04abc").take_bytes)
        self.assertEqual(str(error), "field of 4 bytes, 3 bytes left")

    def test_promise_costs_nothing(self) -> None:
        """
        A length of two gigabytes allocates nothing (D3).
        """
        body = b"\x7f\xff\x7f\xff\0\0abc"
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        self.assertRaises(ProtocolError, FieldReader(body).take_bytes)
        _, peak = tracemalloc.get_traced_memory()
        self.assertLess(peak, 100_000)

    @given(st.binary(max_size=40) | spoiled(st.binary(max_size=40).map(encode_bytes)))
    def test_bytes_or_refusal(self, data: bytes) -> None:
        """
        Any bytes give a value from within the body, or L{ProtocolError}.
        """
        try:
            value = FieldReader(data).take_bytes()
        except ProtocolError:
            return
        self.assertIn(value or b"", data)


class TextTests(SynchronousTestCase):
    """
    Texts as UTF-8.
    """

    @given(st.text(min_size=1))
    def test_round_trip(self, text: str) -> None:
        """
        Every text comes back as it was, whatever its characters.
        """
        self.assertEqual(FieldReader(encode_text(text)).take_text(), text)

    def test_malformed(self) -> None:
        """
        Bytes that are no UTF-8 become U+FFFD and never fail.
        """
        self.assertEqual(FieldReader(b"\0\x03a\xffb").take_text(), "a\ufffdb")

    def test_unpaired_surrogate(self) -> None:
        """
        Half a character is written as a question mark.
        """
        self.assertEqual(encode_text("a\ud83db"), b"\0\x03a?b")

    def test_length_counts_bytes(self) -> None:
        """
        The length is that of the UTF-8 form.
        """
        self.assertEqual(encode_text("推送"), bytes.fromhex("0006e68ea8e98081"))

    def test_length_of_the_extension_counts_bytes(self) -> None:
        """
        Twelve thousand Chinese characters need the long form.
        """
        self.assertEqual(encode_text("推" * 12_000)[:6].hex(), "7fff00000ca1")


class HeaderMapTests(SynchronousTestCase):
    """
    HTTP headers in one text (protocol 4.2).
    """

    @given(st.dictionaries(header_names, header_values, min_size=1))
    def test_round_trip(self, headers: dict[str, str]) -> None:
        """
        Every map comes back as it was, values with colons and blanks included.
        """
        text = FieldReader(encode_headers(headers)).take_text()
        self.assertEqual(decode_headers(text), headers)

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """
        Any text at all is read as headers with names.
        """
        self.assertNotIn("", decode_headers(text) or {})

    def test_later_replaces_earlier(self) -> None:
        """
        A name that comes twice keeps its last value; case makes another name.
        """
        self.assertEqual(decode_headers("a:1\nA:2\na:3\n"), {"a": "3", "A": "2"})

    def test_empty_value(self) -> None:
        """
        An empty value is an empty text, not that of the line before (D18).
        """
        self.assertEqual(decode_headers("a:1\nb:\n"), {"a": "1", "b": ""})

    def test_absent(self) -> None:
        """
        No text is no map, and an empty map is no text.
        """
        self.assertIsNone(decode_headers(None))
        self.assertEqual(encode_headers({}), b"\0\0")


class TagSetTests(SynchronousTestCase):
    """
    Tags of a broadcast as a JSON array (protocol 4.3).
    """

    @given(st.lists(st.text()))
    def test_round_trip(self, tags: list[str]) -> None:
        """
        Every list of texts comes back in its order.
        """
        text = FieldReader(encode_tags(tags)).take_text()
        self.assertEqual(decode_tags(text), tuple(tags))

    def test_absent_and_empty_differ(self) -> None:
        """
        No tags at all is not the same as an empty set.
        """
        self.assertEqual(encode_tags(None), b"\0\0")
        self.assertEqual(encode_tags([]), b"\0\x02[]")
        self.assertIsNone(decode_tags(None))
        self.assertEqual(decode_tags("[]"), ())

    def test_compact(self) -> None:
        """
        The array is written without blanks, non-ASCII unescaped.
        """
        self.assertEqual(encode_tags(["a", "推"]), b'\0\x0b["a","\xe6\x8e\xa8"]')

    def test_unreadable(self) -> None:
        """
        What is no JSON array of texts counts as absent.
        """
        for text in ("", "x", "[", '{"a":1}', "[1]", "null", '"a"', "[" * 100_000):
            self.assertIsNone(decode_tags(text), text[:20])

    def test_huge_number(self) -> None:
        """
        A number too long for Python is only another unreadable text.
        """
        self.assertIsNone(decode_tags("[" + "1" * 5000 + "]"))

    def test_unpaired_surrogate(self) -> None:
        """
        Half a character in a tag is written as a question mark, as in other texts.
        """
        self.assertEqual(encode_tags(["a\ud83d"]), b'\0\x06["a?"]')

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """
        Any text gives tags or none.
        """
        self.assertIsInstance(decode_tags(text), (tuple, type(None)))


class JsonTests(SynchronousTestCase):
    """
    JSON as the room writes it.
    """

    def test_usual(self) -> None:
        """
        The text is compact UTF-8.
        """
        self.assertEqual(encode_json({"a": ["推", 1]}), '{"a":["推",1]}'.encode())

    def test_unpaired_surrogate(self) -> None:
        """
        Half a character anywhere inside becomes a question mark, all else stays.
        """
        self.assertEqual(
            encode_json({"a\ud83d": {"b": ["\udc00", "推", 1]}}),
            '{"a?":{"b":["?","推",1]}}'.encode(),
        )
