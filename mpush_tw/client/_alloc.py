"""
Asking alloc services where to connect (clients 2.6, 10.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urljoin, urlsplit

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IResponse
from zope.interface import implementer

from mpush_tw import __version__
from mpush_tw.client.errors import ClientError, Disconnected
from mpush_tw.client.servers import ServerAddress, endpoint_for
from mpush_tw.client.settings import ClientSettings

MAX_ANSWER = 64 * 1024
"""
Bytes of an answer that are read; some three thousand servers.
"""

MAX_REDIRECTS = 5

_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_HEADERS = {
    "User-Agent": [f"mpush_tw/{__version__}"],
    "Accept": ["text/plain, */*;q=0.5"],
    "Cache-Control": ["no-cache"],
}


class AllocLookup:
    """
    Asks the alloc services that a client is told of, one after the other, until one
    names a server.
    """

    def __init__(
        self, settings: ClientSettings, reactor: IReactorTime, log: Logger
    ) -> None:
        """
        @param reactor: Provides C{IReactorTCP} as well.
        """
        self._urls = settings.alloc_server
        self._timeout = settings.alloc_timeout
        self._reactor = reactor
        self._log = log
        self._agent = Agent.usingEndpointFactory(reactor, _Endpoints(settings, reactor))

    async def find(self) -> list[ServerAddress]:
        """
        Ask for servers.

        @return: At least one, in the order in which to try them.
        @raise ClientError: If no service named any; the reason of the last one.
        """
        reason: ClientError = Disconnected("there is no alloc service")
        for url in self._urls:
            # One time-out to connect and one to read; the names that have to be
            # resolved, and redirects, have no time of their own.
            deadline = self._reactor.seconds() + 2 * self._timeout
            asking = Deferred.fromCoroutine(self._ask(url))
            asking.addTimeout(2 * self._timeout, self._reactor)
            try:
                return self._servers(url, await asking)
            except Exception as error:
                said = _said(error)
                if _was_cancelled(error):
                    # Whoever waited does not any more, or the time was up.
                    if self._reactor.seconds() < deadline:
                        raise CancelledError() from None
                    said = "no answer in time"
                reason = Disconnected(f"{url}: {said}")
                self._log.warn("no servers from alloc: {reason}", reason=str(reason))
        raise reason

    async def _ask(self, url: str) -> bytes:
        """
        Ask one service; redirects are followed, but not out of encryption.
        """
        for _ in range(MAX_REDIRECTS + 1):
            response: IResponse = await self._agent.request(
                b"GET", url.encode("ascii"), Headers(_HEADERS)
            )
            if response.code not in _REDIRECTS:
                break
            _discard(response)
            url = _redirected(url, response)
        else:
            raise ClientError(f"more than {MAX_REDIRECTS} redirects")
        if response.code != 200:
            _discard(response)
            raise ClientError(f"status {response.code}")
        body = _Body()
        response.deliverBody(body)
        return await body.finished

    def _servers(self, url: str, body: bytes) -> list[ServerAddress]:
        """
        Read an answer: C{host:port} items with commas between them. What is no item is
        left out.
        """
        found = []
        for item in body.decode("utf-8", "replace").split(","):
            if not item.strip():
                continue
            try:
                found.append(ServerAddress.parse(item))
            except ValueError as error:
                self._log.warn(
                    "an item of the answer of {url} is left out: {error}",
                    url=url,
                    error=str(error)[:200],
                )
        if not found:
            raise ClientError("it names no server")
        return found


@implementer(IAgentEndpointFactory)
class _Endpoints:
    """
    The ways to alloc services, under the settings of the client.
    """

    def __init__(self, settings: ClientSettings, reactor: IReactorTime) -> None:
        self._settings = settings
        self._reactor = reactor

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        host: bytes = uri.host
        return endpoint_for(
            self._reactor,
            ServerAddress(host.decode("ascii").strip("[]"), uri.port),
            self._settings.alloc_timeout,
            uri.scheme == b"https",
            self._settings.verify_tls,
        )


class _Body(Protocol):
    """
    Collects an answer of limited length.

    @ivar finished: Fires with it; its cancellation closes the connection.
    """

    transport: Any

    def __init__(self) -> None:
        self._received = bytearray()
        self.finished: Deferred[bytes] = Deferred(lambda _: self._abort())

    def _abort(self) -> None:
        self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        if len(self._received) > MAX_ANSWER and not self.finished.called:
            self.finished.errback(
                ClientError(f"the answer has more than {MAX_ANSWER} bytes")
            )
            self._abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.finished.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.finished.callback(bytes(self._received))
        else:
            self.finished.errback(reason)


class _Nobody(Protocol):
    """
    Wants nothing of an answer.
    """

    transport: Any

    def connectionMade(self) -> None:
        self.transport.loseConnection()


def _discard(response: IResponse) -> None:
    response.deliverBody(_Nobody())


def _redirected(url: str, response: IResponse) -> str:
    """
    Give where a redirect leads.
    """
    locations: Iterable[bytes] = response.headers.getRawHeaders(b"location", ())
    location = next(iter(locations), b"").decode("ascii")
    if not location:
        raise ClientError(f"status {response.code} that leads nowhere")
    there = urljoin(url, location)
    scheme = urlsplit(there).scheme
    if scheme != "https" and scheme != urlsplit(url).scheme:
        raise ClientError(f"a redirect to {there[:200]} is not followed")
    return there


def _causes(error: BaseException) -> Sequence[BaseException]:
    """
    Give what has happened; what an HTTP client fails with wraps that.
    """
    reasons: Sequence[Failure] = getattr(error, "reasons", ())
    if not reasons:
        return (error,)
    return [
        cause
        for reason in reasons
        if reason.value is not None
        for cause in _causes(reason.value)
    ]


def _was_cancelled(error: BaseException) -> bool:
    cancelled = (CancelledError, ConnectingCancelledError, TimeoutError)
    return any(isinstance(cause, cancelled) for cause in _causes(error))


def _said(error: BaseException) -> str:
    """
    Say what went wrong in words.
    """
    return "; ".join(str(cause) or type(cause).__name__ for cause in _causes(error))
