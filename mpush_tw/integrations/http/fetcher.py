"""
Asking web servers on behalf of devices, with Twisted's HTTP client and treq.

C{treq.request} is not what asks: it is a client, and does what clients want. It would
keep the cookies of one device for the next, unpack what the device wants to have
packed, and write URLs anew. So the request goes to a connection of our own pool as it
is, and treq collects the body.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from OpenSSL import SSL
from service_identity import VerificationError

import treq
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web._newclient import (
    ParseError,
    Request,
    RequestGenerationFailed,
    RequestNotSent,
    RequestTransmissionFailed,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.http import _DataLoss
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from mpush_tw.errors import FetchError, FetchProblem
from mpush_tw.integrations.http._connection import BackendProtocol
from mpush_tw.integrations.http._endpoints import TlsClients
from mpush_tw.integrations.http._pool import ConnectionPool
from mpush_tw.interfaces import HttpFetch, HttpFetched, IHttpFetcher

_STOP_SECONDS = 2.0
_SPLITTING = re.compile(rb"[\r\n\x00]")
_IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "DELETE"))
_ENDED = (ConnectionDone, ConnectionLost, ConnectionAborted, _DataLoss)
_NOT_SENT = (RequestNotSent, RequestTransmissionFailed, RequestGenerationFailed)


class _Unanswered(FetchError):
    """
    Not a byte of an answer has come: a server that was closing the connection has not
    seen the request.
    """


@implementer(IBodyProducer)
class _Body:
    """
    The body of a request, sent at once: it is in memory anyway.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """
        It has been produced.
        """

    def resumeProducing(self) -> None:
        """
        It has been produced.
        """

    def stopProducing(self) -> None:
        """
        It has been produced.
        """


@implementer(IHttpFetcher)
class TreqFetcher:
    """
    The provider of L{IHttpFetcher} that comes with mpush_tw.

    @ivar pool: Its connections.
    @ivar buffered: Bytes of bodies that are being received now.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        *,
        max_idle_per_target: int = 5,
        connect_timeout: float = 4.0,
        max_content_length: int = 5 << 20,
        max_buffered: int = 128 << 20,
        ca_file: str = "",
    ) -> None:
        """
        @param max_idle_per_target: Connections kept for each target.
        @param connect_timeout: Seconds for each address of a target.
        @param max_content_length: Bytes of one body.
        @param max_buffered: Bytes of all bodies that are being received.
        @param ca_file: PEM file of the authorities to trust; empty for the system's.
        @raise ConfigError: If C{ca_file} cannot be used.
        """
        self._reactor = reactor
        self._max_content_length = max_content_length
        self._max_buffered = max_buffered
        self._stopping: Deferred[None] | None = None
        self.buffered = 0
        self.pool = ConnectionPool(
            reactor, max_idle_per_target, connect_timeout, TlsClients(ca_file)
        )

    def fetch(self, request: HttpFetch) -> Deferred[HttpFetched]:
        return Deferred.fromCoroutine(self._fetch(request))

    async def _fetch(self, request: HttpFetch) -> HttpFetched:
        connection = self.pool.take(request.target)
        if connection is not None:
            try:
                return await self._exchange(connection, request)
            except _Unanswered:
                # It was closed while nobody looked; what has been asked for in vain may
                # be asked for again where that changes nothing.
                if request.body or request.method not in _IDEMPOTENT:
                    raise
        connection = await self.pool.connect(request.target)
        return await self._exchange(connection, request)

    async def _exchange(
        self, connection: BackendProtocol, request: HttpFetch
    ) -> HttpFetched:
        parts: list[bytes] = []
        size = 0

        def take(data: bytes) -> None:
            nonlocal size
            size += len(data)
            self.buffered += len(data)
            if size > self._max_content_length:
                raise FetchError(FetchProblem.TOO_LARGE, f"{size} bytes so far")
            if self.buffered > self._max_buffered:
                raise FetchError(FetchProblem.OVERLOADED)
            parts.append(data)

        try:
            reply: Any = await connection.request(_on_the_wire(request))
            if (
                isinstance(reply.length, int)
                and reply.length > self._max_content_length
            ):
                raise FetchError(FetchProblem.TOO_LARGE, f"{reply.length} bytes")
            await treq.collect(reply, take)
            return HttpFetched(
                reply.code, reply.phrase, reply.raw_headers, b"".join(parts)
            )
        except Exception as error:
            connection.abort_now()
            raise _meaning_of(error, connection) from None
        finally:
            self.buffered -= size

    def idle_connections(self) -> Mapping[str, int]:
        return self.pool.idle()

    def stop(self) -> Deferred[None]:
        if self._stopping is None:
            self._stopping = self.pool.stop()
            self._stopping.addTimeout(_STOP_SECONDS, self._reactor)
            self._stopping.addErrback(self._not_in_time)
        done: Deferred[None] = Deferred()
        self._stopping.addCallback(done.callback)
        return done

    def _not_in_time(self, failure: Failure) -> None:
        failure.trap(TimeoutError)
        self._log.warn("connections to web servers do not close")


class _ExactHeaders:
    """
    The headers of a request, in the order and writing that they are given in; what
    Twisted's L{Request} needs of L{Headers<twisted.web.http_headers.Headers>}, which
    knows neither.
    """

    def __init__(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        for name, value in pairs:
            if _SPLITTING.search(name) or _SPLITTING.search(value):
                raise ValueError(f"a line end in the header {name!r}")
        self._pairs = pairs

    def getRawHeaders(self, name: bytes, default: Any = None) -> Any:
        found = [value for one, value in self._pairs if one.lower() == name.lower()]
        return found or default

    def getAllRawHeaders(self) -> Iterator[tuple[bytes, list[bytes]]]:
        for name, value in self._pairs:
            yield name, [value]


def _on_the_wire(request: HttpFetch) -> Request:
    return Request(
        request.method.encode("ascii"),
        request.uri.encode("ascii"),
        _ExactHeaders((*request.headers, (b"connection", b"keep-alive"))),
        _Body(request.body) if request.body else None,
        persistent=True,
    )


def _meaning_of(error: Exception, connection: BackendProtocol) -> Exception:
    """
    Find the words for what went wrong; what is none of our business is handed on.
    """
    if isinstance(error, FetchError):
        return error
    if isinstance(error, ParseError):
        return FetchError(FetchProblem.UNREADABLE, str(error))
    reasons: list[Failure] = list(getattr(error, "reasons", ()))
    details = ", ".join(one.getErrorMessage() for one in reasons)
    for reason in reasons:
        if reason.check(CancelledError):
            return CancelledError()
        if reason.check(SSL.Error, VerificationError):
            return FetchError(FetchProblem.NOT_CONNECTED, f"TLS: {details}")
    if isinstance(error, ResponseNeverReceived):
        return _Unanswered(FetchProblem.BROKEN, details)
    if isinstance(error, _NOT_SENT):
        return _Unanswered(FetchProblem.NOT_SENT, details)
    if not isinstance(error, ResponseFailed):
        return error
    if all(reason.check(*_ENDED) for reason in reasons):
        return FetchError(FetchProblem.BROKEN, details)
    if not connection.status:
        return FetchError(FetchProblem.UNREADABLE, details)
    return FetchError(FetchProblem.MALFORMED, details)
