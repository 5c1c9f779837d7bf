"""
HTTP_PROXY: a device has the node ask a web server (server 8.8, 15).

Each request gets exactly one answer, in the order in which they come about. What the
device gets when there is none from the server::

    400  no URI                          502  a URI or header that cannot be sent,
    403  a place that devices may not         or an answer that cannot be used
         go to (DESIGN 5.9)              503  too many requests, or one not sent
    408  not in time                     504  nobody to connect to
                                         999  an answer that is not HTTP

All of them have neither headers nor body, which is how a door tells them from what a
server has said; but for 999, which is a kind of answer (server 15.3).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import attrs

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from mpush_tw.core.connection import Connection
from mpush_tw.core.http.exchange import WebRequests
from mpush_tw.core.http.headers import (
    BadHeader,
    read_timeout_ms,
    reason_text,
    response_headers,
)
from mpush_tw.core.http.reach import NoAddress, Refused
from mpush_tw.core.http.urls import BadUrl, without_user
from mpush_tw.core.log import NodeLog
from mpush_tw.core.metrics import NodeMetrics
from mpush_tw.core.wheel import TimingWheel
from mpush_tw.errors import FetchError, FetchProblem
from mpush_tw.interfaces import HttpFetched
from mpush_tw.protocol.fields import encode_headers
from mpush_tw.protocol.messages import HttpRequest, HttpResponse

_IOS_LIMIT: Final = 32767
_DRAIN_CHECK: Final = 0.25


def proxy_is_off(
    connection: Connection, session_id: int, flags: int, body: object
) -> None:
    """
    Answer one HTTP_PROXY request with 503, whatever it asks for: the proxy is switched
    off (DESIGN 5a).
    """
    connection.answer(session_id, HttpResponse(503, "Service Unavailable"))


@attrs.frozen
class ProxyLimits:
    """
    What devices may make a node do.

    @ivar default_timeout: Seconds for a request whose device names no time.
    @ivar max_timeout: The most that it may name.
    @ivar max_requests: Under way at a time.
    @ivar max_per_device: The same for each connection.
    @ivar max_held: Bytes of answers that wait for devices to read.
    @ivar limit_ios: Keep from iOS what it cannot read (clients 9.14).
    """

    default_timeout: float = 10.0
    max_timeout: float = 300.0
    max_requests: int = 1000
    max_per_device: int = 50
    max_held: int = 128 << 20
    limit_ios: bool = True


class _Ending(NamedTuple):
    """
    How a request ended without the answer of a server.

    @ivar result: The word for the metrics.
    """

    result: str
    status: int
    reason: str

    @property
    def response(self) -> HttpResponse:
        return HttpResponse(self.status, self.reason)


_BAD_REQUEST: Final = _Ending("bad-request", 400, "Bad Request")
_REFUSED: Final = _Ending("refused", 403, "Forbidden")
_TIMEOUT: Final = _Ending("timeout", 408, "Request Timeout")
_ERROR: Final = _Ending("error", 502, "Bad Gateway")
_IOS: Final = _Ending("error", 502, "response too large for client")
_OVERLOAD: Final = _Ending("overload", 503, "Service Unavailable")
_NOT_SENT: Final = _Ending("not-sent", 503, "Service Unavailable")
_UNREACHABLE: Final = _Ending("unreachable", 504, "Gateway Timeout")

_FETCH_ENDINGS: Final = {
    FetchProblem.NOT_CONNECTED: _UNREACHABLE,
    FetchProblem.NOT_SENT: _NOT_SENT,
    FetchProblem.OVERLOADED: _OVERLOAD,
}


class _Exchange:
    """
    A request that has no answer yet.

    @ivar device_id: Whose it is; should the connection become another device's, this
        one's answer is none of its business.
    @ivar work: What brings the answer.
    @ivar over: Set once: answered, or not to be answered any more.
    """

    __slots__ = (
        "_expired",
        "connection",
        "device_id",
        "message",
        "over",
        "session_id",
        "started",
        "wheel_slot",
        "work",
    )

    def __init__(
        self,
        connection: Connection,
        session_id: int,
        message: HttpRequest,
        started: float,
        expired: Callable[[_Exchange], None],
    ) -> None:
        self.connection = connection
        self.device_id = connection.device_id
        self.session_id = session_id
        self.message = message
        self.started = started
        self.over = False
        self.work: Deferred[None] | None = None
        self.wheel_slot = 0
        self._expired = expired

    def expired(self, now: float) -> None:
        self._expired(self)

    def __str__(self) -> str:
        return repr(self.message._replace(uri=without_user(self.message.uri or "")))


class HttpProxyHandler:
    """
    The requests of all devices of a node.

    @ivar under_way: How many requests wait for their answers.
    @ivar held: Bytes of answers that wait in the queues of slow devices.
    """

    def __init__(
        self,
        requests: WebRequests,
        wheel: TimingWheel,
        clock: IReactorTime,
        log: NodeLog,
        metrics: NodeMetrics,
        limits: ProxyLimits,
    ) -> None:
        self._requests = requests
        self._wheel = wheel
        self._clock = clock
        self._log = log.http
        self._metrics = metrics
        self._limits = limits
        self._of: dict[Connection, set[_Exchange]] = {}
        self._owed: dict[Connection, int] = {}
        self._stopped = False
        self.wheel_slot = 0
        self.under_way = 0
        self.held = 0

    # ------------------------------------------------------------- requests

    def request_received(
        self, connection: Connection, session_id: int, flags: int, body: object
    ) -> None:
        """
        Handle one HTTP_PROXY. The connection's next packet does not wait.

        @raise ProtocolError: If it cannot be read.
        """
        message = connection.decode(HttpRequest, flags, body)
        exchange = _Exchange(
            connection, session_id, message, self._clock.seconds(), self._expired
        )
        if not message.uri:
            self._log.warn(
                "receive bad request url is empty, request={request}, conn={conn}",
                request=str(exchange),
                conn=connection,
            )
            self._end(exchange, _BAD_REQUEST)
            return
        limit = self._full(connection)
        if limit is not None:
            self._log.warn(
                "send proxy request failure end request={request}, "
                "response=503:Service Unavailable, limit={limit}",
                request=str(exchange),
                limit=limit,
            )
            self._end(exchange, _OVERLOAD)
            return
        self._begin(exchange)

    def _full(self, connection: Connection) -> str | None:
        """
        Name the limit that stands against one more request.
        """
        limits = self._limits
        if self._stopped:
            return "the node stops"
        if self.under_way >= limits.max_requests:
            return "mp.http.max-requests"
        if len(self._of.get(connection, ())) >= limits.max_per_device:
            return "mp.http.max-requests-per-device"
        if self.held >= limits.max_held:
            return "mp.http.max-buffered"
        return None

    def _begin(self, exchange: _Exchange) -> None:
        connection = exchange.connection
        self._of.setdefault(connection, set()).add(exchange)
        self.under_way += 1
        wanted_ms = read_timeout_ms(exchange.message.headers)
        limits = self._limits
        timeout = limits.default_timeout if wanted_ms is None else wanted_ms / 1000
        self._wheel.add(exchange, min(timeout, limits.max_timeout))
        host, _, port = connection.peer.rpartition(":")
        work = Deferred.fromCoroutine(
            self._requests.fetch(
                exchange.message, host, int(port) if port.isdecimal() else 0
            )
        )
        exchange.work = work.addCallbacks(
            self._fetched, self._failed, (exchange,), {}, (exchange,)
        )

    def _expired(self, exchange: _Exchange) -> None:
        self._log.warn(
            "send proxy request timeout end request={request}, response=408",
            request=str(exchange),
        )
        self._end(exchange, _TIMEOUT)
        self._abandon(exchange)

    def connection_lost(self, connection: Connection) -> None:
        """
        Nobody waits for the answers to this connection's requests any more.
        """
        for exchange in list(self._of.get(connection, ())):
            self._close(exchange, "gone")
            self._abandon(exchange)
        self._forget(connection)

    def stop(self) -> None:
        """
        Give up all requests, and take no more; no device is told.
        """
        self._stopped = True
        for connection in list(self._of):
            self.connection_lost(connection)
        self._wheel.remove(self)

    def _abandon(self, exchange: _Exchange) -> None:
        if exchange.work is not None:
            exchange.work.cancel()

    # --------------------------------------------------------------- endings

    def _fetched(self, fetched: HttpFetched, exchange: _Exchange) -> None:
        exchange.work = None
        if exchange.over:
            return
        response = HttpResponse(
            fetched.status,
            reason_text(fetched.reason),
            response_headers(fetched.headers, len(fetched.body)),
            fetched.body or None,
        )
        size = len(fetched.body)
        if self._unreadable(exchange.connection, response):
            self._log_failure(exchange, _IOS, "a field of 32767 bytes or more")
            self._end(exchange, _IOS)
        elif size and self.held + size > self._limits.max_held:
            self._log_failure(exchange, _OVERLOAD, "mp.http.max-buffered")
            self._end(exchange, _OVERLOAD)
        else:
            if self._log.info_on:
                self._log.info(
                    "send proxy request success end request={request}, "
                    "response={response}",
                    request=str(exchange),
                    response=repr(response),
                )
            self._answer(exchange, response, "success")
            self._owe(exchange.connection, size)

    def _unreadable(self, connection: Connection, response: HttpResponse) -> bool:
        """
        Whether a device would read another length than was written (clients 9.14).
        """
        if (
            not self._limits.limit_ios
            or "ios" not in (connection.os_name or "").lower()
        ):
            return False
        # The length in front of the headers counts as two bytes.
        return len(response.body or b"") >= _IOS_LIMIT or (
            len(encode_headers(response.headers)) - 2 >= _IOS_LIMIT
        )

    def _failed(self, failure: Failure, exchange: _Exchange) -> None:
        exchange.work = None
        if exchange.over:
            # It was given up.
            return
        error = failure.value
        if isinstance(error, Refused) or (
            isinstance(error, BadUrl) and error.suspicious
        ):
            self._log.warn(
                "send proxy request refused request={request}, response=403, "
                "conn={conn}, error={error}",
                request=str(exchange),
                conn=exchange.connection,
                error=str(error),
            )
            self._end(exchange, _REFUSED)
        elif isinstance(error, FetchError):
            if error.problem is FetchProblem.UNREADABLE:
                self._log_failure(exchange, _ERROR, str(error))
                self._answer(exchange, HttpResponse(999, "Unknown", {}), "unreadable")
                return
            ending = _FETCH_ENDINGS.get(error.problem, _ERROR)
            self._log_failure(exchange, ending, str(error))
            self._end(exchange, ending)
        elif isinstance(error, NoAddress):
            self._log_failure(exchange, _UNREACHABLE, str(error))
            self._end(exchange, _UNREACHABLE)
        else:
            if not isinstance(error, (BadUrl, BadHeader)):
                self._log.failure("the HTTP proxy failed", failure)
            self._log_failure(exchange, _ERROR, str(error))
            self._end(exchange, _ERROR)

    def _log_failure(self, exchange: _Exchange, ending: _Ending, error: str) -> None:
        if ending is _ERROR:
            self._log.error(
                "send proxy request ex end request={request}, response=502, "
                "error={error}",
                request=str(exchange),
                error=error,
            )
            return
        self._log.warn(
            "send proxy request failure end request={request}, "
            "response={status}:{reason}, error={error}",
            request=str(exchange),
            status=ending.status,
            reason=ending.reason,
            error=error,
        )

    def _end(self, exchange: _Exchange, ending: _Ending) -> None:
        self._answer(exchange, ending.response, ending.result)

    def _answer(self, exchange: _Exchange, response: HttpResponse, result: str) -> None:
        """
        Give the one answer.
        """
        connection = exchange.connection
        same = connection.device_id == exchange.device_id
        if self._close(exchange, result if same else "gone") and same:
            connection.answer(exchange.session_id, response)

    def _close(self, exchange: _Exchange, result: str) -> bool:
        """
        Take a request out of the books.

        @return: C{False} if it was out already.
        """
        if exchange.over:
            return False
        exchange.over = True
        self._wheel.remove(exchange)
        of = self._of.get(exchange.connection)
        if of is not None and exchange in of:
            of.discard(exchange)
            self.under_way -= 1
            if not of:
                del self._of[exchange.connection]
        self._metrics.http_requests[result] += 1
        self._metrics.http_seconds.observe(self._clock.seconds() - exchange.started)
        return True

    # ---------------------------------------------------------- slow devices

    def _owe(self, connection: Connection, size: int) -> None:
        """
        Note an answer that waits in the queue of a device that is slow to read it.
        """
        if size and connection.connected and connection.busy:
            self._owed[connection] = self._owed.get(connection, 0) + size
            self.held += size
            if not self.wheel_slot:
                self._wheel.add(self, _DRAIN_CHECK)

    def _forget(self, connection: Connection) -> None:
        self.held -= self._owed.pop(connection, 0)

    def expired(self, now: float) -> None:
        """
        Called by the wheel: look who has read by now.
        """
        for connection in list(self._owed):
            if not connection.connected or not connection.busy:
                self._forget(connection)
        if self._owed:
            self._wheel.add(self, _DRAIN_CHECK)
