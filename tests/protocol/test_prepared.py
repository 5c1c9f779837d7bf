"""
Tests for L{mpush_tw.protocol.prepared}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.protocol.body import open_body, seal_body
from mpush_tw.protocol.commands import Command
from mpush_tw.protocol.crypto import AesCipher, RsaPrivateKey
from mpush_tw.protocol.fields import encode_json
from mpush_tw.protocol.packet import PacketDecoder, encode_packet
from mpush_tw.protocol.prepared import PreparedPush
from mpush_tw.protocol.web_frames import text_frame

_AES = AesCipher(bytes(range(16)), bytes(16))


class PreparedPushTests(SynchronousTestCase):
    """
    A packet that is made once for many.
    """

    @given(content=st.binary(min_size=1, max_size=200), clear=st.booleans())
    def test_same_as_alone(self, content: bytes, clear: bool) -> None:
        """
        It is, byte for byte, what a connection would have made by itself.
        """
        cipher = None if clear else _AES
        flags, body = seal_body(content, cipher, 50)
        self.assertEqual(
            PreparedPush(7, content, 50).packet(cipher),
            encode_packet(Command.PUSH, 7, flags, body),
        )

    def test_each_cipher(self) -> None:
        """
        Each connection gets it under its own key.
        """
        other = AesCipher(bytes(16), bytes(16))
        message = PreparedPush(1, b"x" * 100, 50)
        for cipher in (_AES, other, None):
            [(cmd, flags, number, body)] = PacketDecoder(1000).receive(
                message.packet(cipher)
            )
            self.assertEqual((cmd, number), (Command.PUSH, 1))
            self.assertEqual(open_body(flags, body, cipher), b"x" * 100)

    def test_another_kind_of_cipher(self) -> None:
        """
        A cipher whose messages have another length is served as well.
        """
        key = RsaPrivateKey.generate(1024)
        [(_, flags, _, body)] = PacketDecoder(1000).receive(
            PreparedPush(1, b"content", 50).packet(key)
        )
        self.assertEqual(open_body(flags, body, key), b"content")


class FrameTests(SynchronousTestCase):
    """
    The same packet for WebSockets.
    """

    def setUp(self) -> None:
        self.encoded: list[object] = []

    def encode(self, value: object) -> bytes:
        """
        Write JSON and note that it was done.
        """
        self.encoded.append(value)
        return encode_json(value)

    def test_json(self) -> None:
        """
        It is the frame of the original, without ack flags.
        """
        self.assertEqual(
            PreparedPush(26, "ws 你好".encode(), 50).frame(0),
            text_frame(
                '{"body":{"content":"ws 你好"},"bodyLength":1,"cmd":15,"flags":16,'
                '"sessionId":26}'.encode()
            ),
        )

    def test_malformed(self) -> None:
        """
        Bytes that are no UTF-8 are replaced.
        """
        self.assertIn("a\ufffdb".encode(), PreparedPush(1, b"a\xffb", 50).frame(0))

    def test_made_once(self) -> None:
        """
        The JSON is made once for all, the frame once for each kind of connection.
        """
        message = PreparedPush(1, b"x" * 500, 50)
        for _ in range(3):
            for bits in (0, 15, 9):
                self.assertIs(
                    message.frame(bits, self.encode), message.frame(bits, self.encode)
                )
        self.assertEqual(len(self.encoded), 1)
        self.assertNotEqual(message.frame(0), message.frame(15))

    def test_not_made_in_vain(self) -> None:
        """
        No JSON is made for a broadcast that no WebSocket gets.
        """
        PreparedPush(1, b"content", 50).packet(None)
        self.assertEqual(self.encoded, [])
