"""
JSON packets: one text frame of a WebSocket is one packet.

Where the rules are: protocol 14. The transport comes with the WebSocket door; this is
its codec.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from mpush_tw.errors import ProtocolError
from mpush_tw.protocol.commands import Command, Flag
from mpush_tw.protocol.fields import encode_json

_JSON_BODY = int(Flag.JSON_BODY)


class JsonPacket(NamedTuple):
    """
    One packet of a WebSocket.

    @ivar cmd: Signed byte; -1 when the frame named none.
    @ivar flags: Signed byte as the original reads it; always holds bit 16.
    @ivar session_id: Signed 32 bits, 0 when absent.
    @ivar body: The members of the body object; empty when there is none.
    """

    cmd: int
    flags: int
    session_id: int
    body: Mapping[str, object]

    def __repr__(self) -> str:
        # As packets are rendered in logs (operations 8.2): never what is inside.
        return (
            f"{{cmd={self.cmd}, cc=0, flags={self.flags}, "
            f"sessionId={self.session_id}, lrc=0, body={len(self.body)}}}"
        )


def encode_json_packet(
    cmd: int, session_id: int, flags: int = 0, body: Mapping[str, object] | None = None
) -> str:
    """
    Write a text frame: keys in the original's order, C{body} left out when empty.

    @param flags: Ack bits of a PUSH; bit 16 is added.
    """
    return json_payload(cmd, session_id, flags, body).decode()


def json_payload(
    cmd: int,
    session_id: int,
    flags: int = 0,
    body: Mapping[str, object] | None = None,
    encode: Callable[[object], bytes] = encode_json,
) -> bytes:
    """
    Write what a text frame carries; see L{encode_json_packet}.

    @param encode: Writes JSON as UTF-8 (C{IJsonCodec}).
    """
    members: dict[str, object] = {"body": body} if body else {}
    members["bodyLength"] = len(body) if body else 0
    members["cmd"] = cmd
    members["flags"] = flags | _JSON_BODY
    members["sessionId"] = session_id
    return encode(members)


def decode_json_packet(
    text: str | bytes, decode: Callable[[bytes], object] | None = None
) -> JsonPacket:
    """
    Read a text frame.

    @param decode: Reads JSON, C{None} for the library that is used everywhere
        (C{IJsonCodec}).
    @raise ProtocolError: If it is no JSON object, or its body is neither an object
        nor null; the caller closes without an answer (protocol 14.2).
    """
    members: object
    try:
        if decode is None:
            members = msgspec.json.decode(text, type=dict[str, object])
        else:
            members = decode(text.encode() if isinstance(text, str) else text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not a JSON packet: {error}") from None
    if not isinstance(members, dict):
        raise ProtocolError("not a JSON packet: not an object")
    body = members.get("body")
    if body is None:
        body = {}
    if not isinstance(body, dict):
        raise ProtocolError("the body of a JSON packet is not an object")
    return JsonPacket(
        _signed_byte(_number(members, "cmd", int(Command.UNKNOWN))),
        _signed_byte(_number(members, "flags", _JSON_BODY)) | _JSON_BODY,
        _number(members, "sessionId", 0),
        body,
    )


def _number(members: Mapping[str, object], key: str, default: int) -> int:
    value = members.get(key)
    if value is None:
        return default
    try:
        if isinstance(value, (str, float)):
            value = int(value)
    except (ValueError, OverflowError):
        raise ProtocolError(f"JSON member {key!r} is not a number") from None
    if isinstance(value, bool) or not isinstance(value, int):
        raise ProtocolError(f"JSON member {key!r} is not a number")
    if not -(1 << 31) <= value < 1 << 31:
        raise ProtocolError(f"JSON member {key!r} does not fit into 32 bits")
    return value


def _signed_byte(value: int) -> int:
    value &= 0xFF
    return value - 256 if value > 127 else value
