"""
Getting a connection: every server of the list is tried once, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

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


class Connector:
    """
    Makes one attempt at a time. A connection that comes about after it was given up is
    closed by itself and told to nobody.
    """

    __slots__ = (
        "_attempt",
        "_connection",
        "_log",
        "_make",
        "_nobody",
        "_reactor",
        "_servers",
        "_settings",
    )

    def __init__(
        self,
        settings: ClientSettings,
        servers: Servers,
        reactor: IReactorTime,
        make: Callable[[ServerAddress], Connection],
        nobody: Callable[[ClientError], None],
        log: Logger,
    ) -> None:
        """
        @param servers: The list; those that cannot be reached are moved to its end.
        @param make: Makes the connection that an endpoint is asked for. It tells its
            owner when it is made, and the owner tells L{made}.
        @param nobody: Called when no server could be reached, with the last reason.
        """
        self._settings = settings
        self._servers = servers
        self._reactor = reactor
        self._make = make
        self._nobody = nobody
        self._log = log
        self._connection: Connection | None = None
        self._attempt: Deferred[IProtocol] | None = None

    def start(self) -> None:
        """
        Begin an attempt. There must be none under way.
        """
        self._try_next(iter(self._servers), Disconnected("no server"))

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

    def _try_next(self, rest: Iterator[ServerAddress], reason: ClientError) -> None:
        server = next(rest, None)
        if server is None:
            self._log.warn("no server could be reached: {reason}", reason=str(reason))
            self._nobody(reason)
            return
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
            attempt = endpoint.connect(WireFactory(connection.wire))
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
