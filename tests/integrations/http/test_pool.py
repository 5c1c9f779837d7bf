"""
Tests for L{mpush_tw.integrations.http._pool}, on a clock of their own.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.errors import FetchError
from mpush_tw.integrations.http._connection import BackendProtocol
from mpush_tw.integrations.http._endpoints import TlsClients
from mpush_tw.integrations.http._pool import IDLE_SECONDS, MOST_IDLE, ConnectionPool
from mpush_tw.interfaces import HttpTarget


class FakeTransport(StringTransport):
    """
    Tells its protocol of the end when it is aborted.
    """

    protocol: BackendProtocol

    def abortConnection(self) -> None:
        if self.connected:
            self.connected = False
            super().abortConnection()
            self.protocol.connectionLost(Failure(ConnectionDone()))


def target(number: int = 1) -> HttpTarget:
    """
    Make up a target.
    """
    return HttpTarget("http", f"host{number}.test", 80, ("192.0.2.1",))


class PoolTests(SynchronousTestCase):
    """
    Connections at rest.
    """

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.pool = ConnectionPool(self.reactor, 2, 4.0, TlsClients())

    def rest(self, number: int = 1) -> BackendProtocol:
        """
        Have a connection come to rest.
        """
        connection = BackendProtocol(lambda _: None, self.pool.forget)
        transport = FakeTransport()
        transport.protocol = connection
        connection.makeConnection(transport)
        self.pool.put_back(target(number), connection)
        return connection

    def is_open(self, connection: BackendProtocol) -> bool:
        """
        Whether a connection is still there.
        """
        return bool(connection.state == "QUIESCENT")

    def test_oldest_first(self) -> None:
        """
        The one that has rested longest is used first; each only once.
        """
        first, second = self.rest(), self.rest()
        self.assertIs(self.pool.take(target()), first)
        self.assertIs(self.pool.take(target()), second)
        self.assertIsNone(self.pool.take(target()))

    def test_own_target(self) -> None:
        """
        One that leads elsewhere is not used, be it to another address of the same name.
        """
        self.rest()
        for other in (
            target(2),
            HttpTarget("https", "host1.test", 80, ("192.0.2.1",)),
            HttpTarget("http", "host1.test", 81, ("192.0.2.1",)),
            HttpTarget("http", "host1.test", 80, ("192.0.2.2",)),
        ):
            self.assertIsNone(self.pool.take(other))

    def test_too_many(self) -> None:
        """
        For one target only so many are kept, the latest.
        """
        made = [self.rest() for _ in range(3)]
        self.assertEqual([self.is_open(one) for one in made], [False, True, True])
        self.assertEqual(self.pool.idle(), {"host1.test:80": 2})

    def test_too_many_in_all(self) -> None:
        """
        For all targets together as well.
        """
        made = [self.rest(number) for number in range(MOST_IDLE + 1)]
        self.assertFalse(self.is_open(made[0]))
        self.assertTrue(self.is_open(made[1]))
        self.assertEqual(sum(self.pool.idle().values()), MOST_IDLE)

    def test_time(self) -> None:
        """
        After a while without use a connection is closed, each in its own time.
        """
        first = self.rest(1)
        self.reactor.advance(IDLE_SECONDS / 2)
        second = self.rest(2)
        self.reactor.advance(IDLE_SECONDS / 2)
        self.assertFalse(self.is_open(first))
        self.assertTrue(self.is_open(second))
        self.reactor.advance(IDLE_SECONDS / 2)
        self.assertFalse(self.is_open(second))
        self.assertEqual(self.pool.idle(), {})
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_time_begins_anew(self) -> None:
        """
        Use begins the time anew.
        """
        connection = self.rest()
        self.reactor.advance(IDLE_SECONDS - 1)
        self.pool.take(target())
        self.pool.put_back(target(), connection)
        self.reactor.advance(IDLE_SECONDS - 1)
        self.assertTrue(self.is_open(connection))
        self.reactor.advance(1)
        self.assertFalse(self.is_open(connection))

    def test_ended(self) -> None:
        """
        One that the server has closed is forgotten.
        """
        self.rest().connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.pool.idle(), {})
        self.assertIsNone(self.pool.take(target()))

    def test_ipv6(self) -> None:
        """
        An IPv6 address is shown in brackets.
        """
        connection = BackendProtocol(lambda _: None, self.pool.forget)
        connection.makeConnection(StringTransport())
        self.pool.put_back(HttpTarget("http", "::1", 80, ("::1",)), connection)
        self.assertEqual(self.pool.idle(), {"[::1]:80": 1})

    def test_stopped(self) -> None:
        """
        A pool that was stopped keeps none, makes none, and leaves no timer behind.
        """
        early = self.rest()
        self.successResultOf(self.pool.stop())
        self.assertFalse(self.is_open(early))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        late = self.rest()
        self.assertFalse(self.is_open(late))
        waiting = Deferred.fromCoroutine(self.pool.connect(target()))
        self.failureResultOf(waiting, FetchError)
        self.assertEqual(self.reactor.tcpClients, [])
