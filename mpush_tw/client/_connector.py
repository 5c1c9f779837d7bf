"""
Getting a connection: every server of the list is tried once, in order.

A client that knows alloc services asks them when it has no list yet, and when none of
its servers works any more: once in an attempt, and then the new list is tried (clients
10.3). If they do not answer the last list is tried again, and after it the servers that
the settings name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, TimeoutError, fail
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IProtocol, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mpush_tw.client._connection import Connection
from mpush_tw.client._wire import WireFactory
from mpush_tw.client.errors import ClientError, Disconnected
from mpush_tw.client.servers import ServerAddress, Servers, endpoint_for
from mpush_tw.client.settings import ClientSettings

if TYPE_CHECKING:
    from mpush_tw.client._alloc import AllocLookup


class Connector:
    """
    Makes one attempt at a time. A connection that comes about after it was given up is
    closed by itself and told to nobody.
    """

    __slots__ = (
        "_alloc",
        "_asked",
        "_attempt",
        "_connection",
        "_log",
        "_make",
        "_nobody",
        "_reactor",
        "_servers",
        "_settings",
        "_tried",
    )

    def __init__(
        self,
        settings: ClientSettings,
        servers: Servers,
        reactor: IReactorTime,
        make: Callable[[ServerAddress], Connection],
        nobody: Callable[[ClientError], None],
        log: Logger,
        alloc: AllocLookup | None = None,
    ) -> None:
        """
        @param servers: The list; those that cannot be reached are moved to its end.
        @param make: Makes the connection that an endpoint is asked for. It tells its
            owner when it is made, and the owner tells L{made}.
        @param nobody: Called when no server could be reached, with the last reason.
        @param alloc: Who names servers; C{None} if the list is all there is.
        """
        self._settings = settings
        self._servers = servers
        self._reactor = reactor
        self._make = make
        self._nobody = nobody
        self._log = log
        self._alloc = alloc
        self._asked = False
        self._tried: set[ServerAddress] = set()
        self._connection: Connection | None = None
        self._attempt: Deferred[Any] | None = None

    def start(self) -> None:
        """
        Begin an attempt. There must be none under way.
        """
        self._asked = False
        self._tried.clear()
        if self._servers.worn_out and self._alloc is not None:
            self._ask(self._alloc)
        else:
            self._try_list(Disconnected("no server"))

    def made(self, connection: Connection) -> bool:
        """
        Note that a connection was made, which ends the attempt.

        @return: Whether it is the one that was wanted.
        """
        if connection is not self._connection:
            return False
        self._connection = self._attempt = None
        return True

    def stop(self) -> None:
        """
        Give the attempt up, if there is one.
        """
        connection, self._connection = self._connection, None
        attempt, self._attempt = self._attempt, None
        if connection is not None:
            connection.abandon()
        if attempt is not None:
            attempt.cancel()

    def _ask(self, alloc: AllocLookup) -> None:
        """
        Ask for a new list, and try that.
        """
        self._asked = True
        lookup = self._attempt = Deferred.fromCoroutine(alloc.find())
        lookup.addCallbacks(
            self._found, self._not_found, callbackArgs=(lookup,), errbackArgs=(lookup,)
        )
        lookup.addErrback(self._unexpected)

    def _found(
        self, servers: list[ServerAddress], lookup: Deferred[list[ServerAddress]]
    ) -> None:
        if self._attempt is lookup:
            self._attempt = None
            self._servers.replace(servers)
            # They may be the same that were tried before; alloc knows better.
            self._tried.clear()
            self._try_list(Disconnected("no server"))

    def _not_found(
        self, failure: Failure, lookup: Deferred[list[ServerAddress]]
    ) -> None:
        if self._attempt is not lookup:
            return
        self._attempt = None
        reason = failure.value
        if not isinstance(reason, ClientError):
            self._unexpected(failure)
            reason = Disconnected("asking alloc failed")
        self._servers.extend(self._settings.addresses)
        self._try_list(reason)

    def _try_list(self, reason: ClientError) -> None:
        """
        Try the servers that were not tried in this attempt.
        """
        rest = [server for server in self._servers if server not in self._tried]
        self._try_next(iter(rest), reason)

    def _try_next(self, rest: Iterator[ServerAddress], reason: ClientError) -> None:
        server = next(rest, None)
        if server is None and self._alloc is not None and not self._asked:
            self._ask(self._alloc)
            return
        if server is None:
            self._log.warn("no server could be reached: {reason}", reason=str(reason))
            self._nobody(reason)
            return
        self._tried.add(server)
        settings = self._settings
        connection = self._connection = self._make(server)
        try:
            endpoint = endpoint_for(
                self._reactor,
                server,
                settings.connect_timeout,
                settings.tls,
                settings.verify_tls,
            )
            attempt: Deferred[IProtocol] = endpoint.connect(
                WireFactory(connection.wire)
            )
        except Exception:
            attempt = fail()
        # The endpoint's own limit does not cover the resolution of the name.
        attempt.addTimeout(settings.connect_timeout, self._reactor)
        if self._connection is connection:
            self._attempt = attempt
        attempt.addErrback(self._failed, connection, rest)
        attempt.addErrback(self._unexpected)

    def _failed(
        self, failure: Failure, connection: Connection, rest: Iterator[ServerAddress]
    ) -> None:
        if connection is not self._connection:
            return
        self._connection = self._attempt = None
        connection.abandon()
        self._servers.move_to_end(connection.server)
        reason = failure.getErrorMessage() or repr(failure.value)
        if failure.check(ConnectingCancelledError, TimeoutError):
            reason = f"no connection within {self._settings.connect_timeout:g} s"
        self._log.info(
            "{server} cannot be reached: {reason}",
            server=str(connection.server),
            reason=reason,
        )
        self._try_next(rest, Disconnected(f"{connection.server}: {reason}"))

    def _unexpected(self, failure: Failure) -> None:
        self._log.failure("connecting failed unexpectedly", failure=failure)
