"""
HTTP through the connection: the device asks its node to ask a web server (clients 2.14,
10.2).

L{Client.send_http<mpush_tw.client.client.Client.send_http>} is called as
C{treq.request} is; what comes back is an L{HttpAnswer}.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode, urlsplit, urlunsplit

from mpush_tw.client.errors import BadRequest
from mpush_tw.protocol.messages import HttpRequest, HttpResponse

METHODS: Final = ("GET", "POST", "PUT", "DELETE")
"""
By the number that stands for them (protocol 10.11).
"""

GRACE_SECONDS: Final = 2.0
"""
How much longer the device waits than the server, whose C{408 Request Timeout} is on its
way.
"""

HeaderValue = str | Sequence[str]
Headers = Mapping[str, HeaderValue]
Params = Mapping[str, Any] | Iterable[tuple[str, Any]]
Data = bytes | str | Mapping[str, Any] | Sequence[tuple[str, Any]]

_READ_TIMEOUT: Final = "readTimeout"
_FORM: Final = "application/x-www-form-urlencoded"
_JSON: Final = "application/json; charset=UTF-8"


class HttpAnswer(NamedTuple):
    """
    What the web server has answered, or the node in its place.

    @ivar status: The HTTP status. 403, 408, 502, 503, 504 and 999 without headers and
        body are the node's own.
    @ivar headers: One value for each name, names as the server wrote them; empty if
        there are none.
    @ivar body: As the server sent it; empty if there is none.
    """

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> int:
        """
        The status, by treq's name.
        """
        return self.status

    def header(self, name: str, default: str | None = None) -> str | None:
        """
        Find a header by its name in any case.
        """
        for one, value in self.headers.items():
            if one.lower() == name.lower():
                return value
        return default

    def text(self, encoding: str | None = None) -> str:
        """
        Decode the body.

        @param encoding: As the server says if C{None}, and UTF-8 if it does not say, or
            nothing that is known.
        """
        if encoding is None:
            kind = self.header("content-type") or ""
            match = re.search(r"charset=[\"']?([\w.:+-]+)", kind, re.IGNORECASE)
            encoding = match[1] if match else "utf-8"
        try:
            return self.body.decode(encoding, "replace")
        except LookupError:
            return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """
        Read the body as JSON.

        @raise ValueError: If it is none.
        """
        return json.loads(self.body)


class _Nothing:
    """
    Tells C{json=None} from no C{json} at all.
    """


NOTHING: Final = _Nothing()


def http_request(
    method: str,
    url: str,
    headers: Headers | None,
    data: Data | None,
    timeout: float,
    params: Params | None,
    json_body: Any,
) -> HttpRequest:
    """
    Make the message for a request.

    @param timeout: Seconds that the server may take.
    @param json_body: L{NOTHING}, or what is sent as JSON.
    @raise BadRequest: If it cannot be sent.
    """
    try:
        number = METHODS.index(method.upper())
    except ValueError:
        raise BadRequest(
            f"the method is none of {', '.join(METHODS)}: {method[:40]!r}"
        ) from None
    if not re.match(r"https?://[^\s/?#]", url, re.IGNORECASE):
        raise BadRequest(f"not an http or https URL: {url[:200]!r}")
    sent = dict(_lines(headers or {}))
    body = _body(data, json_body, sent)
    # In the place that the caller has given it, if any.
    name = next((one for one in sent if one.lower() == "readtimeout"), _READ_TIMEOUT)
    sent[name] = str(max(1, round(timeout * 1000)))
    return HttpRequest(number, _with_params(url, params), sent, body or None)


def _lines(headers: Headers) -> Iterable[tuple[str, str]]:
    for name, values in headers.items():
        value = values if isinstance(values, str) else ", ".join(values)
        if (
            not name
            or re.search(r"[:\r\n\x00]", name)
            or re.search(r"[\r\n\x00]", value)
        ):
            raise BadRequest(f"a header that HTTP does not have: {name[:80]!r}")
        yield name, value


def _with_params(url: str, params: Params | None) -> str:
    if not params:
        return url
    pairs = params.items() if isinstance(params, Mapping) else params
    parts = urlsplit(url)
    more = urlencode(list(pairs), doseq=True)
    return urlunsplit(
        parts._replace(query=f"{parts.query}&{more}" if parts.query else more)
    )


def _body(data: Data | None, json_body: Any, headers: dict[str, str]) -> bytes:
    if json_body is not NOTHING:
        if data is not None:
            raise BadRequest("data and json cannot both be sent")
        _default(headers, "Content-Type", _JSON)
        return json.dumps(json_body, separators=(",", ":")).encode()
    if data is None:
        return b""
    if isinstance(data, bytes):
        return data
    if isinstance(data, str):
        return data.encode("utf-8", "replace")
    pairs = data.items() if isinstance(data, Mapping) else data
    _default(headers, "Content-Type", _FORM)
    return urlencode(list(pairs), doseq=True).encode("ascii")


def _default(headers: dict[str, str], name: str, value: str) -> None:
    if not any(one.lower() == name.lower() for one in headers):
        headers[name] = value


def http_answer(body: bytes) -> HttpAnswer:
    """
    Read an answer.

    @param body: Of the packet, decrypted.
    @raise ProtocolError: If it cannot be read.
    """
    answer = HttpResponse.decode(body)
    return HttpAnswer(
        answer.status, answer.reason or "", answer.headers or {}, answer.body or b""
    )
