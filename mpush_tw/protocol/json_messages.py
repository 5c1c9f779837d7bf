"""
The JSON forms of all messages of devices: a message class and a body on either side.

HANDSHAKE, BIND, UNBIND, OK, ERROR and KICK have the forms of the original, and these
are written beside the classes (protocol 14.3). The rest is ours, for pages that ask for
it; a page of the original never sees any of it:

  - HANDSHAKE with C{maxHeartbeat}, a number above 0, asks for a session that can be
    taken up again. It is answered with C{heartbeat}, C{sessionId} and C{expireTime}.
  - FAST_CONNECT: C{sessionId}, C{deviceId}, C{minHeartbeat}, C{maxHeartbeat}; answered
    with C{heartbeat}.
  - HTTP_PROXY: C{method} (its name or its number), C{uri}, C{headers} (an object of
    texts), and C{body} (a text) or C{bodyBase64}; answered with C{statusCode},
    C{reasonPhrase}, C{headers}, and C{body} when it is UTF-8, else C{bodyBase64}.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

from mpush_tw.errors import ProtocolError
from mpush_tw.protocol.messages import (
    BindUser,
    Error,
    FastConnect,
    FastConnectOk,
    Handshake,
    HandshakeOk,
    HttpRequest,
    HttpResponse,
    JsonBody,
    Ok,
    json_text,
)

_METHODS = ("GET", "POST", "PUT", "DELETE")
"""
By the number that binary packets carry (protocol 10.11).
"""


def _handshake(body: JsonBody) -> Handshake:
    return Handshake.from_json(body)._replace(
        min_heartbeat=_number(body, "minHeartbeat"),
        max_heartbeat=_number(body, "maxHeartbeat"),
    )


def _fast_connect(body: JsonBody) -> FastConnect:
    return FastConnect(
        json_text(body, "sessionId"),
        json_text(body, "deviceId"),
        _number(body, "minHeartbeat"),
        _number(body, "maxHeartbeat"),
    )


def _http_request(body: JsonBody) -> HttpRequest:
    headers = body.get("headers")
    if headers is not None and not isinstance(headers, dict):
        raise ProtocolError("JSON member 'headers' is not an object")
    return HttpRequest(
        _method(body),
        json_text(body, "uri"),
        {name: json_text(headers, name) or "" for name in headers} if headers else None,
        _content(body),
    )


def _method(body: JsonBody) -> int:
    value = body.get("method")
    if not isinstance(value, str):
        return _number(body, "method")
    try:
        return _METHODS.index(value.upper())
    except ValueError:
        raise ProtocolError("JSON member 'method' names none") from None


def _content(body: JsonBody) -> bytes | None:
    text = json_text(body, "body")
    if text is not None:
        return text.encode("utf-8", "replace")
    coded = json_text(body, "bodyBase64")
    if coded is None:
        return None
    try:
        return b64decode(coded, validate=True)
    except ValueError:
        raise ProtocolError("JSON member 'bodyBase64' is not Base64") from None


def _number(body: JsonBody, key: str) -> int:
    """
    Take a 32-bit number; absent, it is 0. A decimal text is one too (protocol 14.2).
    """
    value = body.get(key)
    if value is None:
        return 0
    try:
        if isinstance(value, str):
            value = int(value)
    except ValueError:
        raise ProtocolError(f"JSON member {key!r} is not a number") from None
    if isinstance(value, bool) or not isinstance(value, int):
        raise ProtocolError(f"JSON member {key!r} is not a number")
    if not -(1 << 31) <= value < 1 << 31:
        raise ProtocolError(f"JSON member {key!r} does not fit into 32 bits")
    return value


_READERS: dict[type, Callable[[JsonBody], Any]] = {
    Handshake: _handshake,
    FastConnect: _fast_connect,
    BindUser: BindUser.from_json,
    HttpRequest: _http_request,
}


def message_from_json(kind: type, body: JsonBody) -> Any:
    """
    Read the message of a JSON packet.

    @param kind: Its class, one that devices send.
    @param body: The members of the body; none stands for a message whose fields are
        all absent.
    @raise ProtocolError: If a member has the wrong type (protocol 14.2).
    """
    return _READERS[kind](body)


def message_to_json(
    message: Ok | Error | HandshakeOk | FastConnectOk | HttpResponse,
) -> dict[str, object]:
    """
    Write the body of an answer; empty when it has none.
    """
    if isinstance(message, (Ok, Error)):
        return message.to_json()
    if isinstance(message, HandshakeOk):
        if not message.session_id:
            return {}
        return {
            "heartbeat": message.heartbeat,
            "sessionId": message.session_id,
            "expireTime": message.expire_time,
        }
    if isinstance(message, FastConnectOk):
        return {"heartbeat": message.heartbeat}
    body: dict[str, object] = {"statusCode": message.status}
    if message.reason is not None:
        body["reasonPhrase"] = message.reason
    if message.headers is not None:
        body["headers"] = message.headers
    if message.body is not None:
        try:
            body["body"] = message.body.decode()
        except UnicodeDecodeError:
            body["bodyBase64"] = b64encode(message.body).decode()
    return body
