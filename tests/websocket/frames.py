"""
Frames of a client: written as wrong as a test wants them, read as strictly as the rules
are (RFC 6455 5.2).
"""

from __future__ import annotations

import base64
import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Frame(NamedTuple):
    """
    A frame of the server.

    @ivar rsv: The three reserved bits as a number: 4 is RSV1.
    """

    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0

    @property
    def close_code(self) -> int | None:
        """
        The code of a close frame; C{None} if it has none.
        """
        assert self.opcode == CLOSE, self
        return int.from_bytes(self.payload[:2], "big") if self.payload else None


def client_frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = b"",
    length: int | None = None,
    width: int | None = None,
) -> bytes:
    """
    Write a frame.

    @param mask: Four bytes; empty for random ones, C{None} for an unmasked frame.
    @param length: What to announce in place of the payload's own.
    @param width: In how many bits: 7, 16 or 64; the least that do if not given.
    """
    size = len(payload) if length is None else length
    if width is None:
        width = 7 if size < 126 else 16 if size < 65536 else 64
    bit = 0 if mask is None else 0x80
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if width == 7:
        head += bytes([bit | size])
    elif width == 16:
        head += bytes([bit | 126]) + struct.pack(">H", size)
    else:
        head += bytes([bit | 127]) + struct.pack(">Q", size)
    if mask is None:
        return head + payload
    mask = mask or os.urandom(4)
    return head + mask + masked(payload, mask)


def masked(payload: bytes, mask: bytes) -> bytes:
    """
    Apply a mask, or take it off (RFC 6455 5.3).
    """
    if not payload:
        return b""
    keys = mask * (len(payload) // 4 + 1)
    size = len(payload)
    number = int.from_bytes(payload, "big") ^ int.from_bytes(keys[:size], "big")
    return number.to_bytes(size, "big")


def text(payload: str) -> bytes:
    """
    Write a text frame that is a message.
    """
    return client_frame(TEXT, payload.encode())


def close(code: int | None = None, reason: bytes = b"") -> bytes:
    """
    Write a close frame.
    """
    start = b"" if code is None else struct.pack(">H", code)
    return client_frame(CLOSE, start + reason)


def cut(data: bytes) -> tuple[list[Frame], bytes]:
    """
    Read frames of a server, which are not masked.

    @return: The whole ones, and what is left.
    """
    found: list[Frame] = []
    while True:
        frame = _first(data)
        if frame is None:
            return found, data
        size, parsed = frame
        found.append(parsed)
        data = data[size:]


def _first(data: bytes) -> tuple[int, Frame] | None:
    if len(data) < 2:
        return None
    first, second = data[:2]
    assert not second & 0x80, "a server must not mask"
    start, size = 2, second & 0x7F
    if size == 126:
        start = 4
        size = int.from_bytes(data[2:4], "big")
        assert len(data) < 4 or size > 125, "not the shortest form"
    elif size == 127:
        start = 10
        size = int.from_bytes(data[2:10], "big")
        assert len(data) < 10 or size > 65535, "not the shortest form"
    if len(data) < start + size:
        return None
    opcode = first & 0x0F
    assert opcode < CLOSE or size < 126, "a long control frame"
    payload = data[start : start + size]
    return start + size, Frame(opcode, payload, bool(first & 0x80), first >> 4 & 7)


def deflated(payload: bytes, level: int = 6) -> bytes:
    """
    Compress a message as RFC 7692 7.2.1 says.
    """
    compressor = zlib.compressobj(level, wbits=-15)
    data = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return data[:-4]


def inflated(payload: bytes) -> bytes:
    """
    Read a message as RFC 7692 7.2.2 says.
    """
    return zlib.decompressobj(wbits=-15).decompress(payload + b"\x00\x00\xff\xff")


def accept_of(key: str) -> str:
    """
    Compute the answer to a key (RFC 6455 4.2.2).
    """
    return base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()


def opening(
    path: str = "/", key: str = "dGhlIHNhbXBsZSBub25jZQ==", **headers: str | None
) -> bytes:
    """
    Write an opening request.

    @param headers: To add, change or (C{None}) leave out; underscores are hyphens.
    """
    lines: dict[str, str | None] = {
        "host": "127.0.0.1:8008",
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-key": key,
        "sec-websocket-version": "13",
    }
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    return request("GET", path, lines)


def request(
    method: str, path: str, headers: dict[str, str | None] | None = None
) -> bytes:
    """
    Write the head of a request.
    """
    named = {"host": "127.0.0.1"} | (headers or {})
    lines = [f"{method} {path} HTTP/1.1", *_lines(named), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def _lines(headers: dict[str, str | None]) -> Iterator[str]:
    for name, value in headers.items():
        if value is not None:
            yield f"{name}: {value}"
