"""
Tests for L{mpush_tw.core.routing.local} (server 11.2).
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.routing.local import LocalRoutes
from tests.core.fakes import FakeConnection


def _connection(client_type: int = 1) -> FakeConnection:
    connection = FakeConnection()
    connection.client_type = client_type
    return connection


class LocalRoutesTests(SynchronousTestCase):
    """
    Which connection serves whom.
    """

    def setUp(self) -> None:
        self.routes = LocalRoutes()

    def test_registered(self) -> None:
        """
        A user is found under the client type, and only under it.
        """
        connection = _connection()
        self.assertIsNone(self.routes.register(connection, "u"))
        self.assertIs(self.routes.lookup("u", 1), connection)
        self.assertIsNone(self.routes.lookup("u", 2))
        self.assertIsNone(self.routes.lookup("v", 1))

    def test_one_for_each_type(self) -> None:
        """
        A user has one connection for each client type.
        """
        phone, desk = _connection(1), _connection(2)
        self.routes.register(phone, "u")
        self.assertIsNone(self.routes.register(desk, "u"))
        self.assertEqual(set(self.routes.lookup_all("u")), {phone, desk})
        self.assertEqual((len(self.routes), self.routes.connections), (1, 2))

    def test_displaced(self) -> None:
        """
        A newer connection of the same type takes the route, and the older one is named.
        """
        older, newer = _connection(), _connection()
        self.routes.register(older, "u")
        self.assertIs(self.routes.register(newer, "u"), older)
        self.assertEqual(self.routes.lookup_all("u"), (newer,))

    def test_same_again(self) -> None:
        """
        A connection that has the route keeps it.
        """
        connection = _connection()
        self.routes.register(connection, "u")
        self.assertIs(self.routes.register(connection, "u"), connection)
        self.assertEqual(self.routes.lookup_all("u"), (connection,))

    def test_unregistered(self) -> None:
        """
        Who leaves is found no more, and costs nothing (S-27).
        """
        connection = _connection()
        self.routes.register(connection, "u")
        self.assertTrue(self.routes.unregister(connection, "u"))
        self.assertEqual(self.routes.lookup_all("u"), ())
        self.assertEqual(len(self.routes), 0)

    def test_other_types_stay(self) -> None:
        """
        The user's other devices stay.
        """
        phone, desk = _connection(1), _connection(2)
        self.routes.register(phone, "u")
        self.routes.register(desk, "u")
        self.routes.unregister(phone, "u")
        self.assertEqual(self.routes.lookup_all("u"), (desk,))

    def test_displaced_one_leaves(self) -> None:
        """
        A displaced connection that leaves does not take the newer one's route.
        """
        older, newer = _connection(), _connection()
        self.routes.register(older, "u")
        self.routes.register(newer, "u")
        self.assertFalse(self.routes.unregister(older, "u"))
        self.assertIs(self.routes.lookup("u", 1), newer)

    def test_stranger(self) -> None:
        """
        Neither does one that never had it.
        """
        connection = _connection()
        self.routes.register(connection, "u")
        self.assertFalse(self.routes.unregister(_connection(), "u"))
        self.assertFalse(self.routes.unregister(connection, "v"))
        self.assertIs(self.routes.lookup("u", 1), connection)

    def test_all(self) -> None:
        """
        All connections of all users can be gone through.
        """
        connections = [_connection() for _ in range(4)]
        for number, connection in enumerate(connections):
            self.routes.register(connection, f"u{number}")
        self.assertEqual(set(self.routes), set(connections))

    def test_surplus(self) -> None:
        """
        Displaced connections beyond the limit are named, the longest displaced first.
        """
        connections = [_connection() for _ in range(6)]
        for connection in connections:
            self.routes.register(connection, "u")
        self.assertEqual(self.routes.surplus("u", 4), connections[:2])
        self.assertEqual(self.routes.surplus("u", 6), [])
        self.assertEqual(self.routes.surplus("v", 4), [])

    def test_surplus_leaves(self) -> None:
        """
        Displaced connections that have left do not count.
        """
        connections = [_connection() for _ in range(6)]
        for connection in connections:
            self.routes.register(connection, "u")
        for connection in connections[:5]:
            self.routes.unregister(connection, "u")
        self.assertEqual(self.routes.surplus("u", 1), [])
        self.assertEqual(self.routes._displaced, {})

    def test_restored(self) -> None:
        """
        A displaced connection can be given its route back.
        """
        older, newer = _connection(), _connection()
        self.routes.register(older, "u")
        self.routes.register(newer, "u")
        self.routes.unregister(newer, "u")
        self.routes.restore(older, "u")
        self.assertEqual(self.routes.lookup_all("u"), (older,))
        self.assertEqual(self.routes.surplus("u", 1), [])

    def test_not_restored_over_another(self) -> None:
        """
        Not if another one has the route by now.
        """
        older, newer, newest = _connection(), _connection(), _connection()
        for connection in (older, newer, newest):
            self.routes.register(connection, "u")
        self.routes.unregister(newer, "u")
        self.routes.restore(older, "u")
        self.assertEqual(self.routes.lookup_all("u"), (newest,))

    def test_not_restored_after_leaving(self) -> None:
        """
        Nor if it has left the user itself.
        """
        older, newer = _connection(), _connection()
        self.routes.register(older, "u")
        self.routes.register(newer, "u")
        self.routes.unregister(older, "u")
        self.routes.unregister(newer, "u")
        self.routes.restore(older, "u")
        self.assertEqual(self.routes.lookup_all("u"), ())
