"""
Tests for L{mpush_tw.protocol.web_frames}.
"""

from __future__ import annotations

import zlib

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.protocol.web_frames import deflate, message_frame, text_frame


class TextFrameTests(SynchronousTestCase):
    """
    Frames as RFC 6455 5.2 draws them.
    """

    def test_short(self) -> None:
        """
        Up to 125 bytes, the length is the second byte: the example of RFC 6455 5.7.
        """
        self.assertEqual(text_frame(b"Hello"), bytes.fromhex("810548656c6c6f"))
        self.assertEqual(text_frame(b""), b"\x81\x00")
        self.assertEqual(text_frame(b"x" * 125)[:2], b"\x81\x7d")

    def test_medium(self) -> None:
        """
        From 126 bytes on, the length has 16 bits.
        """
        self.assertEqual(text_frame(b"x" * 126)[:5], b"\x81\x7e\x00\x7ex")
        self.assertEqual(text_frame(b"x" * 65535)[:5], b"\x81\x7e\xff\xffx")

    def test_long(self) -> None:
        """
        From 65536 bytes on, it has 64 bits.
        """
        frame = text_frame(b"x" * 65536)
        self.assertEqual(frame[:10], b"\x81\x7f" + (65536).to_bytes(8, "big"))
        self.assertEqual(len(frame), 10 + 65536)

    def test_compressed(self) -> None:
        """
        A compressed message is marked by RSV1.
        """
        self.assertEqual(text_frame(b"abc", compressed=True), b"\xc1\x03abc")


class DeflateTests(SynchronousTestCase):
    """
    Messages as RFC 7692 7.2.1 compresses them.
    """

    def inflate(self, data: bytes, window_bits: int) -> bytes:
        """
        Read a message as RFC 7692 7.2.2 says.
        """
        reader = zlib.decompressobj(wbits=-window_bits)
        text = reader.decompress(data + b"\x00\x00\xff\xff")
        self.assertFalse(reader.eof)
        return text

    def test_example(self) -> None:
        """
        The example of RFC 7692 7.2.3.1.
        """
        self.assertEqual(deflate(b"Hello", 15), bytes.fromhex("f248cdc9c90700"))

    def test_any_window(self) -> None:
        """
        A receiver with the agreed window can read it, and so can one with a larger
        one, message after message.
        """
        text = b"{" + b"0123456789" * 3000 + b"}"
        for bits in range(9, 16):
            self.assertEqual(self.inflate(deflate(text, bits), bits), text)
        reader = zlib.decompressobj(wbits=-15)
        for _ in range(3):
            data = deflate(text, 9) + b"\x00\x00\xff\xff"
            self.assertEqual(reader.decompress(data), text)


class MessageFrameTests(SynchronousTestCase):
    """
    A message for one connection.
    """

    def test_small(self) -> None:
        """
        What is not above the threshold is not compressed.
        """
        self.assertEqual(message_frame(b"x" * 50, 15, 50), text_frame(b"x" * 50))

    def test_large(self) -> None:
        """
        What is above it is, if the connection takes that.
        """
        text = b"x" * 51
        self.assertEqual(
            message_frame(text, 15, 50), text_frame(deflate(text, 15), compressed=True)
        )
        self.assertEqual(message_frame(text, 0, 50), text_frame(text))
