"""
The reusable session: the record that lets a device come back by FAST_CONNECT.

Where the rules are: protocol 7.4 and 7.5. The record is shared with the original's
nodes, so its form is fixed; how ids are drawn is ours (defect D10).
"""

from __future__ import annotations

import os
from typing import NamedTuple

from mpush_tw.protocol.crypto import AES_KEY_LENGTH, AesCipher

_ABSENT = "null"


def new_session_id() -> str:
    """
    Draw a session id: 128 random bits as 32 lower-case hex digits.
    """
    return os.urandom(16).hex()


class SessionRecord(NamedTuple):
    """
    What is stored under a session id.

    Text form: C{osName,osVersion,clientVersion,deviceId,KEY,IV}; key and iv are 16
    signed decimal bytes joined by C{|}, an absent text is the word C{null}.

    @ivar cipher: AES under the session key (already mixed) and the client's iv.
    """

    os_name: str | None
    os_version: str | None
    client_version: str | None
    device_id: str
    cipher: AesCipher

    def encode(self) -> str | None:
        """
        @return: The text, or C{None} when the device id holds a comma: such a record
            could not be read back (defect D11). Commas in the other three texts
            become blanks.
        """
        if "," in self.device_id:
            return None
        described = [
            _ABSENT if text is None else text.replace(",", " ")
            for text in (self.os_name, self.os_version, self.client_version)
        ]
        return ",".join(
            [
                *described,
                self.device_id,
                encode_key(self.cipher.key),
                encode_key(self.cipher.iv),
            ]
        )

    @classmethod
    def decode(cls, text: str) -> SessionRecord | None:
        """
        @return: C{None} for every text that is not a whole record; such a session
            counts as expired.
        """
        parts = text.split(",")
        if len(parts) != 6:
            return None
        key, iv = decode_key(parts[4]), decode_key(parts[5])
        if key is None or iv is None:
            return None
        os_name, os_version, client_version = (
            None if part == _ABSENT else part for part in parts[:3]
        )
        return cls(os_name, os_version, client_version, parts[3], AesCipher(key, iv))


def encode_key(key: bytes) -> str:
    """
    Write a key or iv as signed decimal bytes joined by C{|}.
    """
    return "|".join([str(b - 256 if b > 127 else b) for b in key])


def decode_key(text: str) -> bytes | None:
    """
    Read 16 decimal bytes joined by C{|}.

    @return: C{None} if there are not 16 of them or one is not in -128 to 255. Unsigned
        ones come from the Swift client (clients 8.3).
    """
    parts = text.split("|")
    if len(parts) != AES_KEY_LENGTH:
        return None
    try:
        values = [int(part) for part in parts]
    except ValueError:
        return None
    if not all(-128 <= value <= 255 for value in values):
        return None
    return bytes([value & 0xFF for value in values])
