"""
Connections to web servers, kept between requests (server 15.6).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import Factory

from mpush_tw.errors import FetchError, FetchProblem
from mpush_tw.integrations.http._connection import BackendProtocol
from mpush_tw.integrations.http._endpoints import TlsClients, connect
from mpush_tw.interfaces import HttpTarget

IDLE_SECONDS = 30.0
"""
How long a connection is kept that nobody uses: less than web servers keep theirs, so
that the next request rarely meets one that is being closed.
"""

MOST_IDLE = 500
"""
Connections that are kept in all, whoever they lead to.
"""


class _Factory(Factory):
    noisy = False

    def __init__(self, pool: ConnectionPool, target: HttpTarget) -> None:
        self._pool = pool
        self._target = target

    def buildProtocol(self, addr: IAddress | None) -> BackendProtocol:
        return BackendProtocol(
            lambda connection: self._pool.put_back(self._target, connection),
            self._pool.forget,
        )


class ConnectionPool:
    """
    Makes connections, and keeps those that are at rest: for each target up to a number,
    the oldest of them used first.

    Kept under the whole L{HttpTarget}: scheme, host, port and addresses (S-32).

    @ivar open: How many connections there are, at rest or in use.
    """

    def __init__(
        self,
        reactor: Any,
        most_per_target: int,
        connect_timeout: float,
        tls: TlsClients,
    ) -> None:
        """
        @param most_per_target: Connections at rest for each target; 0 keeps none.
        @param connect_timeout: Seconds for each address of a target.
        """
        self._reactor = reactor
        self._most_per_target = most_per_target
        self._connect_timeout = connect_timeout
        self._tls = tls
        self._at_rest: dict[HttpTarget, list[BackendProtocol]] = {}
        # All of them in the order they came to rest, with the time they have until.
        self._until: OrderedDict[BackendProtocol, tuple[HttpTarget, float]] = (
            OrderedDict()
        )
        self._connections: set[BackendProtocol] = set()
        self._timer: IDelayedCall | None = None
        self._stopped = False
        self._all_gone: Deferred[None] | None = None

    @property
    def open(self) -> int:
        return len(self._connections)

    def idle(self) -> Mapping[str, int]:
        """
        Count the connections at rest, by C{host:port} that they lead to.
        """
        counts: Counter[str] = Counter()
        for target, connections in self._at_rest.items():
            host = f"[{target.host}]" if ":" in target.host else target.host
            counts[f"{host}:{target.port}"] += len(connections)
        return counts

    def take(self, target: HttpTarget) -> BackendProtocol | None:
        """
        Give a connection that is at rest; C{None} when there is none.
        """
        connections = self._at_rest.get(target)
        while connections:
            connection = connections[0]
            self._remove(connection)
            if connection.state == "QUIESCENT" and connection.quiet:
                return connection
            connection.abort_now()
        return None

    async def connect(self, target: HttpTarget) -> BackendProtocol:
        """
        Make a connection.

        @raise FetchError: If that does not succeed.
        """
        if self._stopped:
            raise FetchError(FetchProblem.NOT_CONNECTED, "the proxy stops")
        made = await connect(
            self._reactor,
            target,
            _Factory(self, target),
            self._connect_timeout,
            self._tls,
        )
        # With TLS the endpoint gives the protocol within as well.
        assert isinstance(made, BackendProtocol)
        self._connections.add(made)
        if self._stopped:
            made.abort_now()
        return made

    def put_back(self, target: HttpTarget, connection: BackendProtocol) -> None:
        """
        Keep a connection that has come to rest, or close it.
        """
        if self._stopped or not self._most_per_target:
            connection.abort_now()
            return
        connections = self._at_rest.setdefault(target, [])
        if len(connections) >= self._most_per_target:
            self._close(connections[0])
            connections = self._at_rest.setdefault(target, [])
        elif len(self._until) >= MOST_IDLE:
            self._close(next(iter(self._until)))
            connections = self._at_rest.setdefault(target, [])
        connections.append(connection)
        self._until[connection] = (target, self._reactor.seconds() + IDLE_SECONDS)
        if self._timer is None:
            self._timer = self._reactor.callLater(IDLE_SECONDS, self._close_old)

    def forget(self, connection: BackendProtocol) -> None:
        """
        A connection is gone.
        """
        self._connections.discard(connection)
        self._remove(connection)
        if self._all_gone is not None and not self._connections:
            gone, self._all_gone = self._all_gone, None
            gone.callback(None)

    def _remove(self, connection: BackendProtocol) -> None:
        target, _ = self._until.pop(connection, (None, 0.0))
        if target is not None:
            connections = self._at_rest[target]
            connections.remove(connection)
            if not connections:
                del self._at_rest[target]

    def _close(self, connection: BackendProtocol) -> None:
        self._remove(connection)
        connection.abort_now()

    def _close_old(self) -> None:
        self._timer = None
        now = self._reactor.seconds()
        while self._until:
            connection, (_, until) = next(iter(self._until.items()))
            if until > now:
                self._timer = self._reactor.callLater(until - now, self._close_old)
                return
            self._close(connection)

    def stop(self) -> Deferred[None]:
        """
        Close all connections, those in use as well, and keep none from now on. Called
        once.

        @return: Fires when they are gone.
        """
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        gone: Deferred[None] = Deferred()
        self._all_gone = gone
        for connection in [*self._until, *self._connections]:
            self._close(connection)
        return gone if self._connections else succeed(None)
