"""
A PUSH for many connections: encoded and compressed once, sealed for each (DESIGN 6).
"""

from __future__ import annotations

import zlib

from mpush_tw.protocol.body import Cipher
from mpush_tw.protocol.commands import Command, Flag
from mpush_tw.protocol.packet import HEADER

_PUSH = int(Command.PUSH)
_CRYPTO = int(Flag.CRYPTO)
_COMPRESS = int(Flag.COMPRESS)
_pack_header = HEADER.pack


class PreparedPush:
    """
    The packet of one broadcast.

    It has one message id for all connections, and no ack flags: broadcasts are not
    acknowledged (server 14.7).

    @ivar content: As the sender gave it, for doors that do not send binary packets.
    @ivar message_id: Number of the packet.
    """

    __slots__ = ("_clear", "_flags", "_plain", "_sealed_head", "content", "message_id")

    def __init__(self, message_id: int, content: bytes, threshold: int) -> None:
        """
        @param content: Never empty (S-15).
        @param threshold: C{mp.core.compress-threshold}, in bytes.
        """
        self.message_id = message_id
        self.content = content
        self._flags = 0
        self._plain = content
        if len(content) > threshold:
            self._plain = zlib.compress(content)
            self._flags = _COMPRESS
        size = len(self._plain)
        self._clear = (
            _pack_header(size, _PUSH, 0, self._flags, message_id, 0) + self._plain
        )
        self._sealed_head = self._head_of(size + 16 - size % 16)

    def _head_of(self, size: int) -> bytes:
        return _pack_header(size, _PUSH, 0, self._flags | _CRYPTO, self.message_id, 0)

    def packet(self, cipher: Cipher | None) -> bytes:
        """
        Give the packet for one connection.

        @param cipher: The connection's; C{None} leaves the body in clear.
        """
        if cipher is None:
            return self._clear
        sealed = cipher.encrypt(self._plain)
        head = self._sealed_head
        if len(sealed) != len(self._plain) + 16 - len(self._plain) % 16:
            # No block cipher with padding, then.
            head = self._head_of(len(sealed))
        return head + sealed
