"""
A PUSH for many connections: encoded and compressed once, sealed for each (DESIGN 6).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

from mpush_tw.protocol.body import Cipher
from mpush_tw.protocol.commands import Command, Flag
from mpush_tw.protocol.fields import encode_json
from mpush_tw.protocol.json_packet import json_payload
from mpush_tw.protocol.packet import HEADER
from mpush_tw.protocol.web_frames import message_frame

_PUSH = int(Command.PUSH)
_CRYPTO = int(Flag.CRYPTO)
_COMPRESS = int(Flag.COMPRESS)
_pack_header = HEADER.pack


class PreparedPush:
    """
    The packet of one broadcast.

    It has one message id for all connections, and no ack flags: broadcasts are not
    acknowledged (server 14.7).

    @ivar content: As the sender gave it.
    @ivar message_id: Number of the packet.
    """

    __slots__ = (
        "_clear",
        "_flags",
        "_frames",
        "_payload",
        "_plain",
        "_sealed_head",
        "_threshold",
        "content",
        "message_id",
    )

    def __init__(self, message_id: int, content: bytes, threshold: int) -> None:
        """
        @param content: Never empty (S-15).
        @param threshold: C{mp.core.compress-threshold}, in bytes.
        """
        self.message_id = message_id
        self.content = content
        self._threshold = threshold
        self._payload: bytes | None = None
        self._frames: dict[int, bytes] = {}
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

    def frame(
        self, window_bits: int, encode: Callable[[object], bytes] = encode_json
    ) -> bytes:
        """
        Give the text frame for one WebSocket (protocol 14.3). The JSON is made once,
        the frame once for all that agreed on the same compression.

        @param window_bits: See L{mpush_tw.protocol.web_frames.message_frame}.
        @param encode: Writes JSON as UTF-8; the same one for all connections.
        """
        frame = self._frames.get(window_bits)
        if frame is None:
            if self._payload is None:
                self._payload = push_payload(self.message_id, 0, self.content, encode)
            frame = message_frame(self._payload, window_bits, self._threshold)
            self._frames[window_bits] = frame
        return frame


def push_payload(
    message_id: int, flags: int, content: bytes, encode: Callable[[object], bytes]
) -> bytes:
    """
    Write a PUSH as JSON: its content is read as UTF-8, malformed bytes become U+FFFD
    (server 7.2).
    """
    body = {"content": content.decode("utf-8", "replace")} if content else None
    return json_payload(_PUSH, message_id, flags, body, encode)
