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
from mpush_tw.protocol.packet import PacketDecoder, encode_packet
from mpush_tw.protocol.prepared import PreparedPush

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
