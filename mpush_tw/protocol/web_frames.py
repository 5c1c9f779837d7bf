"""
Text frames of a WebSocket, from server to client (RFC 6455 section 5, RFC 7692).

Only what the packet path writes, once for many connections where it can; handshake,
control frames and everything that comes from clients is autobahn's.
"""

from __future__ import annotations

import zlib
from struct import Struct

_TEXT = 0x81
"""
C{FIN} and the opcode of a text frame.
"""

_COMPRESSED = 0x40
"""
C{RSV1}: the message is deflated (RFC 7692 section 6).
"""

_SHORT = 125
_MEDIUM = 0xFFFF
_pack_medium = Struct(">BBH").pack
_pack_long = Struct(">BBQ").pack
_TAIL = b"\x00\x00\xff\xff"


def text_frame(payload: bytes, compressed: bool = False) -> bytes:
    """
    Write one unmasked text frame that is a whole message.

    @param payload: UTF-8, or what L{deflate} made of it.
    @param compressed: Whether the latter.
    """
    head = _TEXT | _COMPRESSED if compressed else _TEXT
    size = len(payload)
    if size <= _SHORT:
        return bytes((head, size)) + payload
    if size <= _MEDIUM:
        return _pack_medium(head, 126, size) + payload
    return _pack_long(head, 127, size) + payload


def deflate(payload: bytes, window_bits: int) -> bytes:
    """
    Compress a message on its own, without the context of earlier ones: any receiver
    can read it, whatever was agreed about contexts, and many can get the same bytes.

    @param window_bits: 9 to 15, the base-2 logarithm of the window.
    """
    compressor = zlib.compressobj(wbits=-window_bits)
    data = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return data.removesuffix(_TAIL)


def message_frame(payload: bytes, window_bits: int, threshold: int) -> bytes:
    """
    Write a message as one connection can take it.

    @param window_bits: As agreed with the connection; 0 if it takes no compression.
    @param threshold: Payloads above it, in bytes, are compressed.
    """
    if window_bits and len(payload) > threshold:
        return text_frame(deflate(payload, window_bits), compressed=True)
    return text_frame(payload)
