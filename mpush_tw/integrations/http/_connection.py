"""
One connection to a web server: Twisted's HTTP client, made fit for a proxy.

Twisted's client serves one program that trusts itself. A proxy serves many who do not
trust each other over the same connections, and hands on what it gets. So this adds:

  - A connection is fit for another request only when nothing speaks against it: a whole
    response, with nothing behind it, to a request that the server wanted to the end
    (S-32, S-37). Twisted forgets bytes behind a response, and knows C{close} only in
    lower case.
  - Header names keep their own case: devices look them up in maps (server 15.3).
  - The head of a response is bounded; Twisted bounds a line only.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, Logger
from twisted.python.components import proxyForInterface
from twisted.python.failure import Failure
from twisted.web._newclient import (
    HTTP11ClientProtocol,
    HTTPClientParser,
    ParseError,
    Request,
)
from twisted.web.iweb import IResponse
from zope.interface import implementer

MAX_HEAD: Final = 65536
"""
Bytes that status line and headers of a response may have, interim responses included.
What arrives in the read that goes beyond is tolerated.
"""

_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HTTP_11: Final = (b"HTTP", 1, 1)
_MOST_STATUS: Final = 999

RawHeaders = tuple[tuple[bytes, bytes], ...]


class BadHead(ParseError):
    """
    Status line or headers are not what they should be.
    """

    def __init__(self, problem: str, found: bytes = b"") -> None:
        super().__init__(problem, found)  # type: ignore[no-untyped-call]


@implementer(ILogObserver)
def _unheard(event: LogEvent) -> None:
    """
    For what Twisted's parser notes about each interim response.
    """


class Reply(proxyForInterface(IResponse)):  # type: ignore[misc]
    """
    A response whose headers have arrived.

    @ivar raw_headers: In order, names as the server wrote them, without those that
        concern the connection or the length of the body.
    """

    def __init__(self, original: IResponse, raw_headers: RawHeaders) -> None:
        super().__init__(original)
        self.raw_headers = raw_headers


class BackendProtocol(HTTP11ClientProtocol):
    """
    @ivar used: How many requests it has been given.
    @ivar status: Of the latest response whose headers have arrived.
    """

    def __init__(
        self,
        at_rest: Callable[[BackendProtocol], None],
        ended: Callable[[BackendProtocol], None],
    ) -> None:
        """
        @param at_rest: Called when another request may be made.
        @param ended: Called when the connection is gone.
        """
        super().__init__(at_rest)  # type: ignore[no-untyped-call]
        self._ended = ended
        self._head_size = 0
        self._head: Any = None
        self._raw: list[tuple[bytes, bytes]] = []
        self.used = 0
        self.status = 0

    def request(self, request: Request) -> Deferred[IResponse]:
        """
        Send a request.

        @return: Fires with a L{Reply} when the headers have arrived; fails as
            L{HTTP11ClientProtocol.request} says.
        """
        self.used += 1
        self.status = 0
        self._head_size = 0
        self._head = None
        self._raw = []
        answer: Deferred[IResponse] = super().request(request)
        parser: Any = self._parser
        if parser is not None:
            parser.headerReceived = lambda name, value: self._header_received(
                parser, name, value
            )
            parser._log = Logger(observer=_unheard)
        return answer.addCallback(self._head_received)

    def _header_received(
        self, parser: HTTPClientParser, name: bytes, value: bytes
    ) -> None:
        if not _TOKEN.fullmatch(name):
            raise BadHead("a header name that is none", name[:80])
        if parser.headers is not self._head:
            # An interim response has come before, and its headers are not the answer's.
            self._head = parser.headers
            self._raw = []
        if not parser.isConnectionControlHeader(name.lower()):
            self._raw.append((name, value))
        type(parser).headerReceived(parser, name, value)

    def _head_received(self, response: IResponse) -> IResponse:
        self.status = response.code
        if not 100 <= response.code <= _MOST_STATUS:
            raise BadHead("a status that is none", b"%d" % response.code)
        raw = self._raw if response.headers is self._head else []
        return Reply(response, tuple(raw))

    def dataReceived(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:
            # Nobody has asked for this; what would come next is anybody's guess.
            self.abort_now()
            return
        super().dataReceived(data)  # type: ignore[no-untyped-call]
        if not self.status and self._parser is parser:
            self._head_size += len(data)
            if self._head_size > MAX_HEAD:
                self._give_up(BadHead("headers without end"))

    def _give_up(self, error: Exception) -> None:
        self._giveUp(Failure(error))  # type: ignore[no-untyped-call]

    def _finishResponse(self, rest: bytes) -> None:
        request = self._currentRequest
        if request is not None and (rest or not self._may_be_used_again(request)):
            request.persistent = False
        super()._finishResponse(rest)

    def _may_be_used_again(self, request: Request) -> bool:
        """
        Judge a complete response.
        """
        parser: Any = self._parser
        if parser is None:
            return False
        response, control = parser.response, parser.connHeaders
        if response.version != _HTTP_11:
            return False
        if control.hasHeader(b"transfer-encoding") and control.hasHeader(
            b"content-length"
        ):
            # Another program between here and there may have believed the other one.
            return False
        if request.bodyProducer is not None and not 200 <= response.code < 300:
            # Perhaps it was given without reading the body, which would then be taken
            # for the next request, and answered.
            return False
        return not any(
            word.strip().lower() == b"close"
            for value in control.getRawHeaders(b"connection", ())
            for word in value.split(b",")
        )

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self._ended(self)

    @property
    def quiet(self) -> bool:
        """
        Whether nothing has come from the server that nobody has read yet: no end, no
        second answer to the last request. Asks the kernel, which knows before the
        reactor does.
        """
        transport: Any = self.transport
        # With TLS there is another one below.
        wire = getattr(getattr(transport, "transport", transport), "socket", None)
        if wire is None:
            return True
        try:
            wire.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def abort_now(self) -> None:
        """
        End the connection without any farewell; what waits on it fails.
        """
        transport: Any = self.transport
        if transport is not None:
            transport.abortConnection()
