"""
HTTP on the WebSocket port: who gets a WebSocket, who the page, who what refusal (server
10.2).

Requests are read by L{twisted.web.http}; what is answered stands in L{WebRequest}::

    GET ws-path, Upgrade: websocket      101, or 400, 403, 426 with a sentence
    GET ws-path                          the page if the path is /, else 400
    GET / or another file of the page    200
    GET anything else                    404
    another method                       403

HEAD is GET without a body. The whole target counts: C{/?a=b} is another path.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from io import BytesIO
from typing import TYPE_CHECKING, Any

import attrs

from twisted.web import http

from mpush_tw.transports.web_pages import INDEX, Page

if TYPE_CHECKING:
    from mpush_tw.transports.websocket import WebSocketConnection

SERVER = "mpush_tw"
"""
What answers say of who made them.
"""

_REASONS = {426: b"Upgrade Required"}
"""
What Twisted does not know.
"""

_MAX_BODY = 65536
_EXTENSIONS = "sec-websocket-extensions"
_INDEX = f"/{INDEX}".encode()
_VERSION = b"13"

_PARAMETER = re.compile(
    r'\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)\s*(?:=\s*(?:"([^"\\]*)"|([^\s";,]+)))?\s*\Z'
)


def refusal(status: int, reason: str, text: str, headers: str = "") -> bytes:
    """
    Write an answer to a request that is not read to its end.

    @param headers: Lines to add, each with its end.
    """
    return (
        f"HTTP/1.1 {status} {reason}\r\nserver: {SERVER}\r\n{headers}"
        "content-type: text/plain; charset=UTF-8\r\nconnection: close\r\n"
        f"content-length: {len(text)}\r\n\r\n{text}"
    ).encode()


_TOO_LARGE = refusal(413, "Content Too Large", "413 Content Too Large")
_BAD_REQUEST = refusal(400, "Bad Request", "400 Bad Request")


@attrs.frozen
class Front:
    """
    What the HTTP side of a door has to offer.

    @ivar path: Target of opening requests (C{mp.net.ws-path}).
    @ivar pages: Files by target; see L{mpush_tw.transports.web_pages}.
    @ivar origins: Origins of pages that may connect, with C{*} for any characters
        (C{mp.net.ws-allowed-origins}); empty for all.
    """

    path: bytes
    pages: Mapping[bytes, Page]
    origins: Sequence[str] = ()

    def page(self, target: bytes) -> Page | None:
        """
        Find what a target names.
        """
        return self.pages.get(_INDEX if target == b"/" else target)

    def admits(self, origin: str | None) -> bool:
        """
        Whether a page may connect.

        @param origin: As its browser names it; C{None} for what is no page.
        """
        if not self.origins or origin is None:
            return True
        origin = origin.lower()
        return any(fnmatchcase(origin, allowed.lower()) for allowed in self.origins)


class OpeningError(Exception):
    """
    An opening request is not granted.

    @ivar status: What to answer.
    @ivar headers: To be sent besides.
    """

    def __init__(
        self, status: int, reason: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.headers = headers or {}


class WebRequest(http.Request):
    """
    One request. Nothing here waits, nothing fills a disk.
    """

    channel: WebChannel
    _body_size = 0

    def gotLength(self, length: int | None) -> None:
        """
        Prepare for the body. Nothing here needs one.
        """
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """
        Called with a piece of the body.
        """
        self._body_size += len(data)
        if self._body_size > _MAX_BODY:
            self.channel.connection.refuse(_TOO_LARGE)

    def process(self) -> None:
        """
        Called when all of it has come.
        """
        if not self.channel.connection.connected:
            return
        front = self.channel.connection.front
        if self.method not in (b"GET", b"HEAD"):
            self._refuse(403, "403 Forbidden")
        elif self._is_opening() and self.uri == front.path:
            self._open(front)
        else:
            self._show(front)

    def _is_opening(self) -> bool:
        return self.method == b"GET" and _has_token(self, "upgrade", "websocket")

    def _show(self, front: Front) -> None:
        page = front.page(self.uri)
        if self.uri == front.path and front.path != b"/":
            # As the original, whose ws-path never shows a page; but for / (DESIGN 5c).
            page = None
        if page is not None:
            self._header("cache-control", "no-cache")
            self._header("content-type", page.content_type)
            self._header("x-content-type-options", "nosniff")
            cached = self.setETag(page.etag.encode())  # type: ignore[no-untyped-call]
            self._answer(b"" if cached else page.content)
        elif self.uri == front.path:
            self._refuse(400, "not a WebSocket handshake request: missing upgrade")
        else:
            self._refuse(404, "404 Not Found")

    # -------------------------------------------------------------- WebSocket

    def _open(self, front: Front) -> None:
        connection = self.channel.connection
        try:
            key, offers = self._opening(front)
        except OpeningError as refused:
            for name, value in refused.headers.items():
                self._header(name, value)
            connection.opening_refused(refused.status, str(refused))
            self._refuse(refused.status, str(refused))
            return
        rest: bytes = self.channel.clearLineBuffer()  # type: ignore[no-untyped-call]
        # Neither holds the other any longer: they are not needed again.
        self.channel.requests.clear()
        connection.upgrade(key, offers, rest)

    def _opening(self, front: Front) -> tuple[str, str]:
        """
        Read an opening request (RFC 6455 4.2.1).

        @return: The key, and the offer of compression or nothing.
        @raise OpeningError: If it is not granted.
        """
        if self.clientproto != b"HTTP/1.1":
            raise OpeningError(400, "not a WebSocket handshake request: needs HTTP/1.1")
        if self._body_size:
            raise OpeningError(400, "not a WebSocket handshake request: has a body")
        if not _has_token(self, "connection", "upgrade"):
            raise OpeningError(
                400, "not a WebSocket handshake request: missing connection"
            )
        if _only(self, "sec-websocket-version") != _VERSION.decode():
            raise OpeningError(
                426,
                "unsupported WebSocket version, use 13",
                {
                    "sec-websocket-version": "13",
                    "upgrade": "websocket",
                    "connection": "upgrade, close",
                },
            )
        key = _only(self, "sec-websocket-key")
        if not key or not _is_key(key):
            raise OpeningError(400, "not a WebSocket handshake request: bad key")
        origin = _only(self, "origin") if _values(self, "origin") else None
        if not front.admits(origin):
            raise OpeningError(
                403, "403 Forbidden: pages of this origin may not connect"
            )
        return key, acceptable_offer(", ".join(_values(self, _EXTENSIONS)))

    # ----------------------------------------------------------------- answers

    def _refuse(self, status: int, text: str) -> None:
        """
        Answer with a sentence, and close: as the original does.
        """
        self.setResponseCode(status, _REASONS.get(status))
        self._header("content-type", "text/plain; charset=UTF-8")
        if not self.responseHeaders.hasHeader("connection"):
            self._header("connection", "close")
        self.channel.persistent = False
        self._answer(text.encode())

    def _answer(self, body: bytes) -> None:
        now = self.channel.connection.now
        self._header("date", http.datetimeToString(now).decode())
        self._header("server", SERVER)
        if self.code not in http.NO_BODY_CODES:
            self._header("content-length", str(len(body)))
        self.channel.answered = True
        self.write(body)  # type: ignore[no-untyped-call]
        self.finish()  # type: ignore[no-untyped-call]

    def _header(self, name: str, value: str) -> None:
        self.responseHeaders.setRawHeaders(name, [value])


def _values(request: http.Request, name: str) -> list[str]:
    return [
        value.decode("latin-1")
        for value in request.requestHeaders.getRawHeaders(name.encode(), [])
    ]


def _only(request: http.Request, name: str) -> str:
    """
    Take a header that stands there once; else nothing.
    """
    values = _values(request, name)
    return values[0].strip() if len(values) == 1 else ""


def _has_token(request: http.Request, name: str, token: str) -> bool:
    return any(
        one.strip().lower() == token
        for value in _values(request, name)
        for one in value.split(",")
    )


def _is_key(text: str) -> bool:
    try:
        return len(b64decode(text, validate=True)) == 16
    except ValueError:
        return False


def acceptable_offer(text: str) -> str:
    """
    Find the first offer of compression that can be accepted (RFC 7692 7.1). One that
    makes no sense, or asks for what zlib does not have, is passed over: a server
    declines such an offer and serves its peer without compression.

    @param text: Value of C{Sec-WebSocket-Extensions}.
    @return: It alone, in plain form; empty if there is none.
    """
    for offer in text.split(","):
        name, *parameters = offer.split(";")
        if name.strip().lower() == "permessage-deflate":
            found = _plain_offer(parameters)
            if found is not None:
                return "; ".join(["permessage-deflate", *found])
    return ""


def _plain_offer(parameters: Sequence[str]) -> list[str] | None:
    """
    Write parameters in plain form; nothing for ones that cannot be accepted.
    """
    plain: dict[str, str] = {}
    for parameter in parameters:
        match = _PARAMETER.match(parameter)
        if match is None:
            return None
        name, quoted, bare = match.groups()
        name, value = name.lower(), quoted if quoted is not None else bare
        if name in plain:
            return None
        if name in ("client_no_context_takeover", "server_no_context_takeover"):
            if value is not None:
                return None
            plain[name] = name
        elif name == "client_max_window_bits" and value is None:
            plain[name] = name
        elif name in ("client_max_window_bits", "server_max_window_bits"):
            # 8 is lawful, but zlib cannot make such a stream; that of a client may
            # always be read with a larger window.
            least = 8 if name.startswith("client") else 9
            if value not in map(str, range(least, 16)):
                return None
            plain[name] = name if least == 8 else f"{name}={value}"
        else:
            return None
    return list(plain.values())


class WebChannel(http.HTTPChannel):
    """
    A connection while it speaks HTTP.

    Its deadlines are those of L{WebSocketConnection}, which also ends it.

    @ivar answered: Whether it has been of use.
    """

    requestFactory = WebRequest
    timeOut = None
    transport: Any

    def __init__(self, connection: WebSocketConnection) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.connection = connection
        self.answered = False

    def lineReceived(self, line: bytes) -> None:
        """
        Called with each line of a request's head. What follows the last answer is not
        read, even if it came with the same packet.
        """
        if self.connection.connected:
            super().lineReceived(line)  # type: ignore[no-untyped-call]

    def rawDataReceived(self, data: bytes) -> None:
        """
        Called with what is no head.
        """
        if self.connection.connected:
            super().rawDataReceived(data)

    def lineLengthExceeded(self, line: bytes) -> None:
        """
        Called when a line has no end.
        """
        self.connection.refuse(_BAD_REQUEST)

    def loseConnection(self) -> None:
        """
        Called when the last answer has been written.
        """
        self.connection.finish()

    def _respondToBadRequestAndDisconnect(self) -> None:
        self.connection.refuse(_BAD_REQUEST)
