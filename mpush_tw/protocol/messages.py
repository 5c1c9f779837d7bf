"""
Messages between devices and the connect server: bytes and JSON on one side, frozen
values on the other.

Each class is one command; its layout stands in its docstring in wire order (protocol
10). C{decode} takes a plain body (after L{mpush_tw.protocol.body.open_body}), C{encode}
gives one. An empty body is a legal message whose fields are all absent (protocol 4.1);
callers check what they need. The JSON forms are those of the WebSocket (protocol 14.3).

PUSH and ACK have no class: the body of a PUSH I{is} its content, and an ACK has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mpush_tw.errors import ProtocolError
from mpush_tw.protocol.commands import ErrorCode
from mpush_tw.protocol.fields import (
    FieldReader,
    decode_headers,
    encode_byte,
    encode_bytes,
    encode_headers,
    encode_int,
    encode_long,
    encode_text,
)

JsonBody = Mapping[str, object]


def json_text(body: JsonBody, key: str, number_as_text: bool = False) -> str | None:
    """
    Take one text member out of a JSON body.

    @param number_as_text: Take an integer as its decimal text (DESIGN 5a, C{userId}).
    @raise ProtocolError: If it is neither a text nor null (protocol 14.2).
    """
    value = body.get(key)
    if value is None or isinstance(value, str):
        return value or None
    if number_as_text and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ProtocolError(f"JSON member {key!r} is not a text")


class Handshake(NamedTuple):
    """
    HANDSHAKE (2), device to server (protocol 10.1).

    Layout: deviceId, osName, osVersion, clientVersion (texts); iv, clientKey (bytes);
    minHeartbeat, maxHeartbeat (int, ms); timestamp (long, not used).
    """

    device_id: str | None = None
    os_name: str | None = None
    os_version: str | None = None
    client_version: str | None = None
    iv: bytes | None = None
    client_key: bytes | None = None
    min_heartbeat: int = 0
    max_heartbeat: int = 0
    timestamp: int = 0

    @classmethod
    def decode(cls, body: bytes) -> Handshake:
        if not body:
            return cls()
        fields = FieldReader(body)
        return cls(
            fields.take_text(),
            fields.take_text(),
            fields.take_text(),
            fields.take_text(),
            fields.take_bytes(),
            fields.take_bytes(),
            fields.take_int(),
            fields.take_int(),
            fields.take_long(),
        )

    def encode(self) -> bytes:
        return b"".join(
            (
                encode_text(self.device_id),
                encode_text(self.os_name),
                encode_text(self.os_version),
                encode_text(self.client_version),
                encode_bytes(self.iv),
                encode_bytes(self.client_key),
                encode_int(self.min_heartbeat),
                encode_int(self.max_heartbeat),
                encode_long(self.timestamp),
            )
        )

    @classmethod
    def from_json(cls, body: JsonBody) -> Handshake:
        return cls(
            json_text(body, "deviceId"),
            json_text(body, "osName"),
            json_text(body, "osVersion"),
            json_text(body, "clientVersion"),
        )

    def __repr__(self) -> str:
        # Never the key or the iv: this ends up in logs (defects D7, O-4).
        return (
            f"HandshakeMessage{{deviceId='{self.device_id}', osName='{self.os_name}', "
            f"osVersion='{self.os_version}', clientVersion='{self.client_version}'}}"
        )


class HandshakeOk(NamedTuple):
    """
    Answer to HANDSHAKE (2), server to device (protocol 10.2).

    Layout: serverKey (bytes); heartbeat (int, ms); sessionId (text); expireTime (long,
    Unix ms). On a WebSocket it has no body at all.
    """

    server_key: bytes
    heartbeat: int
    session_id: str
    expire_time: int

    @classmethod
    def decode(cls, body: bytes) -> HandshakeOk:
        if not body:
            return cls(b"", 0, "", 0)
        fields = FieldReader(body)
        return cls(
            fields.take_bytes() or b"",
            fields.take_int(),
            fields.take_text() or "",
            fields.take_long(),
        )

    def encode(self) -> bytes:
        return (
            encode_bytes(self.server_key)
            + encode_int(self.heartbeat)
            + encode_text(self.session_id)
            + encode_long(self.expire_time)
        )

    def __repr__(self) -> str:
        return (
            f"HandshakeOkMessage{{heartbeat={self.heartbeat}, "
            f"expireTime={self.expire_time}}}"
        )


class FastConnect(NamedTuple):
    """
    FAST_CONNECT (7), device to server (protocol 10.3).

    Layout: sessionId, deviceId (texts); minHeartbeat, maxHeartbeat (int, ms).
    """

    session_id: str | None = None
    device_id: str | None = None
    min_heartbeat: int = 0
    max_heartbeat: int = 0

    @classmethod
    def decode(cls, body: bytes) -> FastConnect:
        if not body:
            return cls()
        fields = FieldReader(body)
        return cls(
            fields.take_text(), fields.take_text(), fields.take_int(), fields.take_int()
        )

    def encode(self) -> bytes:
        return (
            encode_text(self.session_id)
            + encode_text(self.device_id)
            + encode_int(self.min_heartbeat)
            + encode_int(self.max_heartbeat)
        )

    def __repr__(self) -> str:
        # Never the session id: who knows it can take the session over (D8, D10).
        return (
            f"FastConnectMessage{{deviceId='{self.device_id}', "
            f"minHeartbeat={self.min_heartbeat}, maxHeartbeat={self.max_heartbeat}}}"
        )


class FastConnectOk(NamedTuple):
    """
    Answer to FAST_CONNECT (7): heartbeat (int, ms) (protocol 10.4).
    """

    heartbeat: int

    @classmethod
    def decode(cls, body: bytes) -> FastConnectOk:
        if not body:
            return cls(0)
        return cls(FieldReader(body).take_int())

    def encode(self) -> bytes:
        return encode_int(self.heartbeat)


class BindUser(NamedTuple):
    """
    BIND (5) and UNBIND (6), device to server (protocol 10.5).

    Layout: userId, data, tags (texts), in this order. C{data} is free text for the bind
    validator; clients call it alias.
    """

    user_id: str | None = None
    data: str | None = None
    tags: str | None = None

    @classmethod
    def decode(cls, body: bytes) -> BindUser:
        if not body:
            return cls()
        fields = FieldReader(body)
        return cls(fields.take_text(), fields.take_text(), fields.take_text())

    def encode(self) -> bytes:
        return (
            encode_text(self.user_id) + encode_text(self.data) + encode_text(self.tags)
        )

    def __repr__(self) -> str:
        # Never data: a bind validator may take it as the user's proof.
        return f"BindUserMessage{{userId='{self.user_id}', tags='{self.tags}'}}"

    @classmethod
    def from_json(cls, body: JsonBody) -> BindUser:
        return cls(
            json_text(body, "userId", number_as_text=True),
            json_text(body, "data"),
            json_text(body, "tags"),
        )


class Ok(NamedTuple):
    """
    OK (11), server to device and gateway to sender (protocol 10.6).

    Layout: cmd (byte, the command that is answered), code (byte, always 0), data
    (text).
    """

    cmd: int
    code: int = 0
    data: str | None = None

    @classmethod
    def decode(cls, body: bytes) -> Ok:
        if not body:
            return cls(0)
        fields = FieldReader(body)
        return cls(fields.take_byte(), fields.take_byte(), fields.take_text())

    def encode(self) -> bytes:
        return encode_byte(self.cmd) + encode_byte(self.code) + encode_text(self.data)

    def to_json(self) -> dict[str, object]:
        return _present(
            cmd=self.cmd if self.cmd > 0 else None,
            code=self.code if self.code > 0 else None,
            data=self.data,
        )


class Error(NamedTuple):
    """
    ERROR (10), server to device and gateway to sender (protocol 10.7).

    Layout: cmd (byte, the command that failed), code (byte, L{ErrorCode} or 0), reason
    (text), data (text, only used for GATEWAY_PUSH).
    """

    cmd: int
    code: int = 0
    reason: str | None = None
    data: str | None = None

    @classmethod
    def of(cls, cmd: int, code: ErrorCode, data: str | None = None) -> Error:
        """
        Make the error of a code, with the text that belongs to it.
        """
        return cls(cmd, int(code), code.reason, data)

    @classmethod
    def decode(cls, body: bytes) -> Error:
        if not body:
            return cls(0)
        fields = FieldReader(body)
        cmd, code, reason = fields.take_byte(), fields.take_byte(), fields.take_text()
        # Servers before August 2016 sent no data field (clients 2.19).
        try:
            data = fields.take_text()
        except ProtocolError:
            data = None
        return cls(cmd, code, reason, data)

    def encode(self) -> bytes:
        return (
            encode_byte(self.cmd)
            + encode_byte(self.code)
            + encode_text(self.reason)
            + encode_text(self.data)
        )

    def to_json(self) -> dict[str, object]:
        return _present(
            cmd=self.cmd if self.cmd > 0 else None,
            code=self.code if self.code > 0 else None,
            reason=self.reason,
            data=self.data,
        )


class Kick(NamedTuple):
    """
    KICK (13), server to device: deviceId, userId (texts) (protocol 10.10).
    """

    device_id: str | None
    user_id: str | None

    @classmethod
    def decode(cls, body: bytes) -> Kick:
        if not body:
            return cls(None, None)
        fields = FieldReader(body)
        return cls(fields.take_text(), fields.take_text())

    def encode(self) -> bytes:
        return encode_text(self.device_id) + encode_text(self.user_id)

    def to_json(self) -> dict[str, object]:
        return _present(deviceId=self.device_id, userId=self.user_id)


class HttpRequest(NamedTuple):
    """
    HTTP_PROXY (12), device to server (protocol 10.11).

    Layout: method (byte: 0 GET, 1 POST, 2 PUT, 3 DELETE, anything else GET), uri
    (text), headers (header map), body (bytes).
    """

    method: int = 0
    uri: str | None = None
    headers: dict[str, str] | None = None
    body: bytes | None = None

    @classmethod
    def decode(cls, body: bytes) -> HttpRequest:
        if not body:
            return cls()
        fields = FieldReader(body)
        return cls(
            fields.take_byte(),
            fields.take_text(),
            decode_headers(fields.take_text()),
            fields.take_bytes(),
        )

    def encode(self) -> bytes:
        return (
            encode_byte(self.method)
            + encode_text(self.uri)
            + encode_headers(self.headers)
            + encode_bytes(self.body)
        )

    def __repr__(self) -> str:
        return (
            f"HttpRequestMessage{{method={self.method}, uri='{self.uri}', "
            f"headers={_masked(self.headers)}, body={len(self.body or b'')}}}"
        )


class HttpResponse(NamedTuple):
    """
    Answer to HTTP_PROXY (12), server to device (protocol 10.12).

    Layout: statusCode (int), reasonPhrase (text), headers (header map), body (bytes).
    """

    status: int
    reason: str | None = None
    headers: dict[str, str] | None = None
    body: bytes | None = None

    @classmethod
    def decode(cls, body: bytes) -> HttpResponse:
        if not body:
            return cls(0)
        fields = FieldReader(body)
        return cls(
            fields.take_int(),
            fields.take_text(),
            decode_headers(fields.take_text()),
            fields.take_bytes(),
        )

    def encode(self) -> bytes:
        return (
            encode_int(self.status)
            + encode_text(self.reason)
            + encode_headers(self.headers)
            + encode_bytes(self.body)
        )

    def __repr__(self) -> str:
        return (
            f"HttpResponseMessage{{statusCode={self.status}, "
            f"reasonPhrase='{self.reason}', headers={_masked(self.headers)}, "
            f"body={len(self.body or b'')}}}"
        )


_PRIVATE_HEADERS = {
    "authorization",
    "cookie",
    "proxy-authorization",
    "set-cookie",
}


def _masked(headers: dict[str, str] | None) -> dict[str, str] | None:
    """
    Take credentials out of headers that end up in a log (S-39).
    """
    if headers is None:
        return None
    return {
        name: "***" if name.strip().lower() in _PRIVATE_HEADERS else value
        for name, value in headers.items()
    }


def _present(**members: object) -> dict[str, object]:
    return {name: value for name, value in members.items() if value is not None}
