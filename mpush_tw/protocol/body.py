"""
The way of a body to the wire and back: compress, then encrypt; decrypt, then inflate.

Where the rules are: protocol 5. The flags of a packet alone decide how it is read.
"""

from __future__ import annotations

import zlib
from typing import Protocol

from mpush_tw.errors import ProtocolError
from mpush_tw.protocol.commands import Flag

DEFAULT_COMPRESS_THRESHOLD = 10240
DEFAULT_MAX_INFLATED = 1 << 20

_CRYPTO = int(Flag.CRYPTO)
_COMPRESS = int(Flag.COMPRESS)
_JSON_BODY = int(Flag.JSON_BODY)
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


class Cipher(Protocol):
    """
    What encrypts and decrypts bodies: RSA before the handshake, AES after it.
    """

    def encrypt(self, plain: bytes) -> bytes: ...

    def decrypt(self, sealed: bytes) -> bytes:
        """
        @raise ProtocolError: If the bytes are not a message under this key. The text
            is the same for every cause (protocol 6, D17).
        """
        ...


def seal_body(
    plain: bytes,
    cipher: Cipher | None,
    threshold: int = DEFAULT_COMPRESS_THRESHOLD,
) -> tuple[int, bytes]:
    """
    Prepare a body the I{normal} way (protocol 5.1).

    @param plain: The encoded message.
    @param cipher: The connection's cipher; C{None} leaves the body in clear.
    @param threshold: Bodies longer than this are compressed, in bytes.
    @return: The flags to set (CRYPTO, COMPRESS) and the body for the wire. An empty
        body stays empty and sets nothing.
    """
    if not plain:
        return 0, b""
    flags = 0
    if len(plain) > threshold:
        plain = zlib.compress(plain)
        flags = _COMPRESS
    if cipher is None:
        return flags, plain
    return flags | _CRYPTO, cipher.encrypt(plain)


def open_body(
    flags: int,
    body: bytes,
    cipher: Cipher | None,
    max_inflated: int = DEFAULT_MAX_INFLATED,
) -> bytes:
    """
    Bring a received body back to the encoded message (protocol 5.3).

    A body without CRYPTO is taken as it is even where a cipher is set, as shipped
    clients rely on; CRYPTO without a cipher is ignored. JSON_BODY means nothing to an
    empty body and is an error on any other: JSON travels in frames of its own, see
    L{mpush_tw.protocol.json_packet} (protocol 2.5).

    @param max_inflated: Largest size after inflating, in bytes (defect D4).
    @raise ProtocolError: If it cannot be decrypted or inflated, is too large, says it
        is JSON, or nothing is left.
    """
    if not body:
        return body
    if flags & _JSON_BODY:
        raise ProtocolError("a JSON body in a binary packet")
    if flags & _CRYPTO and cipher is not None:
        body = cipher.decrypt(body)
    if flags & _COMPRESS:
        body = inflate(body, max_inflated)
    if not body:
        raise ProtocolError("nothing is left of the body")
    return body


def inflate(data: bytes, max_size: int) -> bytes:
    """
    Decompress one zlib or gzip stream; the iOS clients send gzip (protocol 5.4).

    @param max_size: Bound of the result in bytes; no more than that is ever held.
    @raise ProtocolError: If the stream is broken, cut short or too large. Bytes behind
        its end are ignored.
    """
    machine = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        plain = machine.decompress(data, max_size + 1)
    except zlib.error:
        raise ProtocolError("the compressed body is broken") from None
    if len(plain) > max_size:
        raise ProtocolError(f"the body inflates to more than {max_size} bytes")
    if not machine.eof:
        raise ProtocolError("the compressed body is cut short")
    return plain
