"""
Connections to a Redis that is played by the test.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from mpush_tw.integrations.redis._connection import Address, Connection


class FakeTransport(StringTransport):
    """
    Tells its protocol that the connection is gone in a later turn, as real ones do.

    @ivar aborted: Whether it was closed by force.
    @ivar deaf: Whether the peer does not close when it should, as one that is gone.
    """

    def __init__(self, connection: Connection, clock: Clock) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._connection = connection
        self._clock = clock
        self.aborted = False
        self.deaf = False
        self.gone = False

    def loseConnection(self) -> None:
        self.disconnecting = True
        if not self.deaf:
            self._clock.callLater(0, self.lose)

    def abortConnection(self) -> None:
        self.aborted = True
        self._clock.callLater(0, self.lose)

    def lose(self) -> None:
        """
        End the connection.
        """
        if not self.gone:
            self.gone = True
            self._connection.connectionLost(Failure(ConnectionLost("test")))


class FakeServer:
    """
    Where connections lead to.

    @ivar connections: All that were made, oldest first.
    @ivar dials: Attempts that wait for an end.
    """

    def __init__(self, clock: Clock, host: str = "10.0.0.1") -> None:
        self.clock = clock
        self.address = Address(host, 6379)
        self.connections: list[Connection] = []
        self.dials: list[Deferred[Connection]] = []

    async def dial(self) -> Connection:
        """
        Attempt to connect; the test decides on the outcome.
        """
        attempt: Deferred[Connection] = Deferred()
        self.dials.append(attempt)
        return await attempt

    def connect(self) -> Connection:
        """
        Make a connection.
        """
        connection = Connection(self.address, self.clock)
        transport = FakeTransport(connection, self.clock)
        connection.makeConnection(transport)  # type: ignore[no-untyped-call]
        self.connections.append(connection)
        return connection

    def accept(self) -> Connection:
        """
        Have the oldest attempt succeed.
        """
        connection = self.connect()
        self.dials.pop(0).callback(connection)
        return connection

    def refuse(self, error: Exception) -> None:
        """
        Have the oldest attempt fail.
        """
        self.dials.pop(0).errback(error)


def transport_of(connection: Connection) -> Any:
    """
    Give the transport of a connection.
    """
    return connection.transport


def sent(connection: Connection) -> bytes:
    """
    Take what was sent since this was last asked.
    """
    transport = transport_of(connection)
    data: bytes = transport.value()
    transport.clear()
    return data


def lose(connection: Connection) -> None:
    """
    End a connection.
    """
    transport_of(connection).lose()
