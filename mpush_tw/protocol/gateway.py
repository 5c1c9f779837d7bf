"""
Messages between servers: GATEWAY_PUSH, GATEWAY_KICK and the result that answers carry.

Where the rules are: protocol 11, cluster 4 and 5. Bodies go raw, neither compressed nor
encrypted. L{decode_push} and L{encode_push_result} are the hot pair of the gateway:
they are written out in one pass instead of field by field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from struct import Struct
from struct import error as StructError
from typing import Any, NamedTuple

import msgspec

from mpush_tw.errors import ProtocolError
from mpush_tw.protocol.fields import (
    FieldReader,
    decode_tags,
    encode_bytes,
    encode_int,
    encode_json,
    encode_tags,
    encode_text,
)

TimePoints = Sequence[tuple[str, int]]
"""
Milestones of a push: name and Unix ms, in order (server 14.1).
"""

_EXTENSION = 0x7FFF
_short = Struct(">H").unpack_from
_two_ints_short = Struct(">iiH").unpack_from
_THREE_ABSENT = bytes(6)


class GatewayPush(NamedTuple):
    """
    GATEWAY_PUSH (16), sender to node (protocol 11.1).

    Layout: userId (text, absent = broadcast), clientType (int), timeout (int, ms),
    content (bytes), taskId (text), tags (JSON array text), condition (text).

    @ivar client_type: Which of the user's connections: 1 mobile, 2 pc, 3 web, -1
        unknown. 0 in broadcasts; with a user it means all of them (DESIGN 5c).
    """

    user_id: str | None = None
    client_type: int = 0
    timeout_ms: int = 0
    content: bytes | None = None
    task_id: str | None = None
    tags: tuple[str, ...] | None = None
    condition: str | None = None

    @classmethod
    def decode(cls, body: bytes) -> GatewayPush:
        """
        @raise ProtocolError: If a field is cut short. An empty body gives a value whose
            fields are all absent; it is not a push (cluster defect C-29).
        """
        if not body:
            return cls()
        try:
            (size,) = _short(body)
            position = 2 + size
            if size < _EXTENSION:
                client_type, timeout_ms, length = _two_ints_short(body, position)
                start = position + 10
                end = start + length
                if length < _EXTENSION and body[end:] == _THREE_ABSENT:
                    # The everyday push: short fields, none of the broadcast ones.
                    return cls(
                        body[2:position].decode("utf-8", "replace") or None,
                        client_type,
                        timeout_ms,
                        body[start:end] or None,
                    )
        except StructError:
            raise ProtocolError("GATEWAY_PUSH body ends inside a field") from None
        fields = FieldReader(body)
        return cls(
            fields.take_text(),
            fields.take_int(),
            fields.take_int(),
            fields.take_bytes(),
            fields.take_text(),
            decode_tags(fields.take_text()),
            fields.take_text(),
        )

    def encode(self) -> bytes:
        return b"".join(
            (
                encode_text(self.user_id),
                encode_int(self.client_type),
                encode_int(self.timeout_ms),
                encode_bytes(self.content),
                encode_text(self.task_id),
                encode_tags(self.tags),
                encode_text(self.condition),
            )
        )

    def __repr__(self) -> str:
        size = len(self.content) if self.content else 0
        return (
            f"GatewayPushMessage{{userId='{self.user_id}', "
            f"clientType='{self.client_type}', timeout='{self.timeout_ms}', "
            f"content='{size}'}}"
        )


class GatewayKick(NamedTuple):
    """
    GATEWAY_KICK (14), node to node, and the same as JSON on the kick channel.

    Layout (protocol 11.2): userId, deviceId, connId (texts), clientType (int),
    targetServer (text), targetPort (int). The JSON form is cluster 5.2.
    """

    user_id: str | None
    device_id: str | None
    connection_id: str | None
    client_type: int
    target_server: str | None
    target_port: int

    @classmethod
    def decode(cls, body: bytes) -> GatewayKick:
        if not body:
            return cls(None, None, None, 0, None, 0)
        fields = FieldReader(body)
        return cls(
            fields.take_text(),
            fields.take_text(),
            fields.take_text(),
            fields.take_int(),
            fields.take_text(),
            fields.take_int(),
        )

    def encode(self) -> bytes:
        return b"".join(
            (
                encode_text(self.user_id),
                encode_text(self.device_id),
                encode_text(self.connection_id),
                encode_int(self.client_type),
                encode_text(self.target_server),
                encode_int(self.target_port),
            )
        )

    def to_json_text(self) -> str:
        """
        Write the text published on a kick channel: sorted, compact, nulls left out.
        """
        members = {
            "clientType": self.client_type,
            "connId": self.connection_id,
            "deviceId": self.device_id,
            "targetPort": self.target_port,
            "targetServer": self.target_server,
            "userId": self.user_id,
        }
        present = {name: value for name, value in members.items() if value is not None}
        return encode_json(present).decode()

    @classmethod
    def from_json_text(cls, text: str) -> GatewayKick:
        """
        @raise ProtocolError: If the text is no JSON object of the right types.
        """
        try:
            form = msgspec.json.decode(text, type=_KickForm)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise ProtocolError(f"unreadable kick message: {error}") from None
        return cls(
            form.userId,
            form.deviceId,
            form.connId,
            form.clientType,
            form.targetServer,
            form.targetPort,
        )


class _KickForm(msgspec.Struct):
    clientType: int = 0
    connId: str | None = None
    deviceId: str | None = None
    targetPort: int = 0
    targetServer: str | None = None
    userId: str | None = None


class GatewayQuery(NamedTuple):
    """
    GATEWAY_QUERY (64), sender to node, both of ours: a question.

    Layout: JSON, an object with the name of the question in C{query} and its arguments
    beside it. It is answered with OK whose data is a JSON object, or with ERROR 0 whose
    reason says what is wrong.
    """

    query: str
    arguments: Mapping[str, object] = {}

    @classmethod
    def decode(cls, body: bytes) -> GatewayQuery:
        """
        @raise ProtocolError: If it is no question.
        """
        try:
            members = msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            members = {}
        query = members.pop("query", None)
        if not isinstance(query, str):
            raise ProtocolError("a GATEWAY_QUERY that is no JSON object with a query")
        return cls(query, members)

    def encode(self) -> bytes:
        return encode_json({"query": self.query, **self.arguments})


def encode_push_result(
    user_id: str | None, client_type: int, points: TimePoints
) -> bytes:
    """
    Write the JSON that OK and ERROR carry in answer to GATEWAY_PUSH (protocol 11.3).

    @param client_type: Left out unless positive.
    @return: UTF-8 text, keys in alphabetical order as the original writes them.
    """
    line = ",".join([f'"{name}",{at}' for name, at in points])
    text = f'"timePoints":[{line}]'
    if client_type > 0:
        text = f'"clientType":{client_type},{text}'
    if user_id is None:
        return b"{" + text.encode() + b"}"
    return b"{" + text.encode() + b',"userId":' + encode_json(user_id) + b"}"


def encode_broadcast_result(counts: Mapping[str, object], points: TimePoints) -> bytes:
    """
    Write the JSON with which a node of ours answers a broadcast of a sender of ours:
    what became of its connections, and the time points.
    """
    flat = [item for point in points for item in point]
    return encode_json({"counts": dict(counts), "timePoints": flat})


class _BroadcastForm(msgspec.Struct):
    counts: dict[str, int | str] = {}


def decode_broadcast_result(data: str | None) -> dict[str, int | str]:
    """
    Read the counts of a broadcast; a node of the original tells none.

    @return: Counts by name, see L{mpush_tw.core.push.broadcast}, with C{reason} and
        C{error} as texts where there is one; empty when there are none to read.
    """
    if not data:
        return {}
    try:
        return msgspec.json.decode(data, type=_BroadcastForm).counts
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return {}


class _ResultForm(msgspec.Struct):
    timePoints: list[str | int] = []


def decode_push_result(data: str | None) -> list[tuple[str, int]]:
    """
    Read the time points of a gateway answer (cluster 4.4).

    @return: Name and Unix ms, in order; empty when the text is absent or is anything
        but what it should be. An answer is never refused for its time line.
    """
    if not data:
        return []
    try:
        flat = msgspec.json.decode(data, type=_ResultForm).timePoints
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return []
    pairs = list(zip(flat[::2], flat[1::2], strict=False))
    return [
        (name, at)
        for name, at in pairs
        if isinstance(name, str) and isinstance(at, int)
    ]
