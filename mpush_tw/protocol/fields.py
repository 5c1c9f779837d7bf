"""
Fields of a message body: integers, byte strings, texts, header maps, tag sets.

Where the rules are: protocol 4. Bodies are plain concatenations of fields. A byte
string has a 16-bit length in front; lengths from 32767 on are written as C{7FFF} and
the rest as a 32-bit number. Length 0 stands for "absent", so empty and absent values
arrive alike, as C{None}.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from struct import Struct
from struct import error as StructError

import msgspec

from mpush_tw.errors import ProtocolError

_EXTENSION = 0x7FFF
_SHORT = Struct(">H")
_INT = Struct(">i")
_LONG = Struct(">q")
_EXTENDED = Struct(">Hi")
_ABSENT = b"\x00\x00"

_pack_short = _SHORT.pack
_pack_json = msgspec.json.Encoder().encode


def encode_int(value: int) -> bytes:
    """
    @raise ProtocolError: If the value does not fit into 32 bits.
    """
    return _pack(_INT, value)


def encode_long(value: int) -> bytes:
    """
    @raise ProtocolError: If the value does not fit into 64 bits.
    """
    return _pack(_LONG, value)


def encode_byte(value: int) -> bytes:
    """
    @param value: -128 to 127.
    """
    return bytes((value & 0xFF,))


def encode_bytes(value: bytes | None) -> bytes:
    """
    Write a byte string with its length (protocol 4.1).

    @param value: The bytes; C{None} and empty are written alike.
    """
    if not value:
        return _ABSENT
    size = len(value)
    if size < _EXTENSION:
        return _pack_short(size) + value
    return _EXTENDED.pack(_EXTENSION, size - _EXTENSION) + value


def encode_text(value: str | None) -> bytes:
    """
    Write a text as UTF-8; unpaired surrogates become C{?} (protocol 4.1).
    """
    if not value:
        return _ABSENT
    return encode_bytes(value.encode("utf-8", "replace"))


def encode_json(value: object) -> bytes:
    """
    Write compact JSON as UTF-8; unpaired surrogates become C{?} as in every other text
    (protocol 4.1).

    @param value: What the C{json} module can write.
    """
    try:
        return _pack_json(value)
    except UnicodeEncodeError:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "replace")


def encode_headers(headers: Mapping[str, str] | None) -> bytes:
    """
    Write an HTTP header map: C{name:value} and a line feed each (protocol 4.2).
    """
    if not headers:
        return _ABSENT
    return encode_text("".join(f"{name}:{value}\n" for name, value in headers.items()))


def decode_headers(text: str | None) -> dict[str, str] | None:
    """
    Read an HTTP header map (protocol 4.2).

    Unlike the original an empty value is an empty text (defect D18) and a last line
    without line feed counts. Names are kept as sent, later ones replace earlier ones.

    @return: C{None} for an absent text.
    """
    if not text:
        return None
    headers: dict[str, str] = {}
    for line in text.split("\n"):
        name, colon, value = line.partition(":")
        if name and colon:
            headers[name] = value
    return headers


def encode_tags(tags: Iterable[str] | None) -> bytes:
    """
    Write a tag set as a JSON array (protocol 4.3); C{None} is absent, empty is C{[]}.
    """
    if tags is None:
        return _ABSENT
    return encode_bytes(encode_json(list(tags)))


def decode_tags(text: str | None) -> tuple[str, ...] | None:
    """
    Read a tag set; what is no JSON array of texts counts as absent (protocol 4.3).
    """
    if text is None:
        return None
    try:
        return tuple(msgspec.json.decode(text, type=list[str]))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


class FieldReader:
    """
    Reads the fields of one body in order.

    Every method raises L{ProtocolError} when the body ends too early or a length does
    not fit what is left; lengths are compared with the body before anything is
    cut out of it (defect D3). Bytes behind the last field read are ignored.
    """

    __slots__ = ("_body", "_position")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._position = 0

    def take_byte(self) -> int:
        """
        @return: -128 to 127.
        """
        position = self._position
        if position >= len(self._body):
            raise ProtocolError("body ends before a byte field")
        self._position = position + 1
        value = self._body[position]
        return value - 256 if value > 127 else value

    def take_int(self) -> int:
        """
        @return: A signed 32-bit number.
        """
        return self._number(_INT)

    def take_long(self) -> int:
        """
        @return: A signed 64-bit number.
        """
        return self._number(_LONG)

    def take_bytes(self) -> bytes | None:
        """
        @return: The bytes, C{None} for length 0.
        """
        size = self._number(_SHORT)
        if size == 0:
            return None
        if size >= _EXTENSION:
            if size > _EXTENSION:
                raise ProtocolError(f"negative field length {size - 0x10000}")
            size += self._number(_INT)
            if size < 0:
                raise ProtocolError(f"negative extended field length {size}")
        start = self._position
        end = start + size
        if end > len(self._body):
            raise ProtocolError(
                f"field of {size} bytes, {len(self._body) - start} bytes left"
            )
        self._position = end
        return self._body[start:end] or None

    def take_text(self) -> str | None:
        """
        @return: The text, malformed UTF-8 replaced by U+FFFD; C{None} for length 0.
        """
        raw = self.take_bytes()
        return None if raw is None else raw.decode("utf-8", "replace")

    def _number(self, layout: Struct) -> int:
        try:
            (value,) = layout.unpack_from(self._body, self._position)
        except StructError:
            raise ProtocolError("body ends inside a field") from None
        self._position += layout.size
        assert isinstance(value, int)
        return value


def _pack(layout: Struct, value: int) -> bytes:
    try:
        return layout.pack(value)
    except StructError as error:
        raise ProtocolError(f"{value} does not fit: {error}") from None
