"""
An HTTP site that strangers may speak to: bounded in connections, time and memory.

What L{twisted.web.server.Site} leaves open is closed here. A request has a time to come
in that single bytes do not extend; so has the taking of an answer. A body is kept up to
a limit, in memory. When there are too many connections the one that has been quiet for
the longest time makes room: a rush of clients is served, whoever holds connections open
loses them.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

__all__ = ["BoundedRequest", "BoundedSite"]

LINGER_SECONDS = 15
"""
How long the last answer of a connection may take to reach its peer.
"""

DRAINED_BYTES = 1 << 20
"""
Of a body beyond the limit so much is read and thrown away, so that its sender gets to
read the answer; one that goes on is cut off.
"""


class BoundedRequest(Request):
    """
    A request whose body is kept in memory, up to its site's limit.

    @ivar too_large: Whether there was more of it. What is kept is of no use then.
    """

    channel: BoundedChannel
    too_large = False
    _beyond = 0

    def gotLength(self, length: int | None) -> None:
        """
        Prepare for the body. Not in a file, whatever length is announced.
        """
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """
        Keep a piece of the body, or throw it away.
        """
        assert self.content is not None
        if self.content.tell() + len(data) <= self.channel.factory.max_body:
            self.content.write(data)
            return
        self.too_large = True
        self._beyond += len(data)
        if self._beyond > DRAINED_BYTES:
            self.channel.loseConnection()


class BoundedChannel(http.HTTPChannel):
    """
    A connection that its site knows of while it is open.
    """

    factory: BoundedSite
    transport: Any
    _closing = False

    def connectionMade(self) -> None:
        super().connectionMade()  # type: ignore[no-untyped-call]
        self.factory.opened(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.closed(self)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]

    def resetTimeout(self) -> None:
        """
        Called for all that is received. It wins no time: a peer that sends a byte now
        and then would never end its request.
        """

    def dataReceived(self, data: bytes) -> None:
        if not self._closing:
            super().dataReceived(data)  # type: ignore[no-untyped-call]

    def requestDone(self, request: http.Request) -> None:
        """
        Wait for the next request. One that came already, while the peer does not take
        the answers, ends the connection: they would pile up.
        """
        self._savedTimeOut = self.factory.idle_seconds
        self.factory.answered(self)
        if self._waitingForTransport and self.clearLineBuffer():  # type: ignore[no-untyped-call]
            self.persistent = False
        super().requestDone(request)  # type: ignore[no-untyped-call]

    def loseConnection(self) -> None:
        """
        Close when what was answered has gone out, or has had its time. Idempotent.
        """
        if self._closing:
            return
        self._closing = True
        super().loseConnection()  # type: ignore[no-untyped-call]
        if self.factory.knows(self):
            self.setTimeout(LINGER_SECONDS)  # type: ignore[no-untyped-call]

    def timeoutConnection(self) -> None:
        if self._closing:
            self.transport.abortConnection()
        else:
            self.loseConnection()

    def give_way(self) -> None:
        """
        Close at once: another connection needs the room.
        """
        self._closing = True
        self.transport.abortConnection()


class BoundedSite(Site):
    """
    Serves a tree of resources over HTTP/1.1. When its port is closed its connections
    are closed as well, after what was answered has gone out.

    @ivar dropped: Connections that were closed to make room for others.
    """

    noisy = False
    protocol = BoundedChannel  # type: ignore[assignment]

    def __init__(
        self,
        root: Resource,
        clock: IReactorTime,
        *,
        max_connections: int,
        request_seconds: float,
        idle_seconds: float,
        max_body: int,
    ) -> None:
        """
        @param max_connections: At a time; 1 or more.
        @param request_seconds: How long the first request of a connection may take,
            from connecting to its last byte.
        @param idle_seconds: How long after an answer the next request must have come.
        @param max_body: Bytes of a request's body.
        """
        super().__init__(  # type: ignore[no-untyped-call]
            root, requestFactory=BoundedRequest, timeout=request_seconds, reactor=clock
        )
        self.idle_seconds = idle_seconds
        self.max_body = max_body
        self.dropped = 0
        self._max_connections = max_connections
        # In the order of when each was last of use.
        self._channels: dict[BoundedChannel, None] = {}

    @property
    def connections(self) -> int:
        """
        How many connections are open.
        """
        return len(self._channels)

    def knows(self, channel: BoundedChannel) -> bool:
        """
        Whether a connection is open.
        """
        return channel in self._channels

    def opened(self, channel: BoundedChannel) -> None:
        """
        Take note of a connection. Called by itself, as the next two.
        """
        if len(self._channels) >= self._max_connections:
            self.dropped += 1
            self.made_room()
            quiet = next(iter(self._channels))
            del self._channels[quiet]
            quiet.give_way()
        self._channels[channel] = None

    def made_room(self) -> None:
        """
        Called when a connection is closed to make room; for those who count it.
        """

    def answered(self, channel: BoundedChannel) -> None:
        """
        Take note of an answer.
        """
        if channel in self._channels:
            del self._channels[channel]
            self._channels[channel] = None

    def closed(self, channel: BoundedChannel) -> None:
        """
        Forget a connection.
        """
        self._channels.pop(channel, None)

    def acceptableProtocols(self) -> list[bytes]:
        """
        Under TLS too, only HTTP/1.1 is spoken: these bounds are its.
        """
        return [b"http/1.1"]

    def stopFactory(self) -> None:
        for channel in list(self._channels):
            channel.loseConnection()
        super().stopFactory()

    def log(self, request: http.Request) -> None:
        """
        Log nothing: a line for every request would bury the others.
        """
