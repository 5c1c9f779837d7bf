"""
Tests for L{mpush_tw.core.routing.repair} (DESIGN 7, cluster 2.11).
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.routing.online import OFFLINE_TOPIC
from mpush_tw.core.routing.repair import StoreRepair
from mpush_tw.errors import Unavailable
from mpush_tw.protocol.gateway import GatewayKick
from mpush_tw.protocol.routes import RemoteRoute
from tests.core.fakes import Core, FakeConnection, start


class StoreRepairTests(SynchronousTestCase):
    """
    A store that was away, and what the node makes of it.
    """

    owns_list = True

    def setUp(self) -> None:
        self.core = Core()
        self.core.events.subscribe(self.core.online.event_occurred)
        self.repair = StoreRepair(
            self.core.router,
            self.core.online,
            self.other_gateways,
            lambda: self.owns_list,
            self.core.log,
            self.core.metrics,
        )

    async def other_gateways(self) -> list[tuple[str, int]]:
        """
        Where the other nodes are.
        """
        return [("10.0.0.2", 3001), ("10.0.0.3", 3001)]

    def bound(self, user_id: str, os_name: str = "android") -> FakeConnection:
        """
        Bind a user, and have it told.
        """
        connection = FakeConnection(f"device of {user_id}", os_name)
        binding = start(self.core.router.bind(connection, user_id, None))
        self.assertTrue(self.successResultOf(binding))
        self.core.clock.advance(0)
        return connection

    def leave(self, connection: FakeConnection) -> None:
        """
        End a connection while the store is away.
        """
        connection.ended = "peer"
        self.failureResultOf(start(self.core.router.unbind(connection)), Unavailable)
        self.core.clock.advance(0)

    def lose_everything(self) -> None:
        """
        Empty the store, as a restart without saved data does.
        """
        for user_id in ("a", "b", "c"):
            self.core.cache.delete(f"mp:ur:{user_id}")
        self.core.cache.delete("mp:oul:203.0.113.1")

    def route(self, user_id: str, client_type: int = 1) -> RemoteRoute | None:
        """
        A route in the store.
        """
        finding = start(self.core.remote.find(user_id, client_type))
        return self.successResultOf(finding)  # type: ignore[no-any-return]

    def listed(self) -> list[str]:
        """
        Who is on the online list.
        """
        page = self.core.online.page(0, -1)
        return self.successResultOf(page)  # type: ignore[no-any-return]

    def restored(self) -> None:
        """
        The store is there again.
        """
        self.core.cache.down = False
        self.repair.store_restored()
        self.core.clock.advance(0)
        self.assertFalse(self.repair.running)

    def test_empty_store(self) -> None:
        """
        Routes and list are written again, for every device.
        """
        here = [self.bound("a"), self.bound("a", "mac"), self.bound("b")]
        self.lose_everything()
        self.restored()
        for connection, user_id in zip(here, "aab", strict=True):
            route = self.route(user_id, connection.client_type)
            self.assertEqual(route, self.core.router.route_of(connection))
        self.assertEqual(self.listed(), ["a", "b"])

    def test_many(self) -> None:
        """
        However many they are.
        """
        here = [self.bound(f"user {number}") for number in range(450)]
        for connection in here:
            self.core.cache.delete(f"mp:ur:{connection.user_id}")
        self.restored()
        for connection in here:
            self.assertIsNotNone(self.route(connection.user_id or ""))

    def test_left_meanwhile(self) -> None:
        """
        A device that left while the store was away is offline afterwards, is off the
        list, and that is announced.
        """
        gone, stays = self.bound("a"), self.bound("b")
        self.core.cache.down = True
        self.leave(gone)
        told: list[str] = []
        self.core.queue.subscribe(OFFLINE_TOPIC, lambda _, text: told.append(text))
        self.restored()
        route = self.route("a")
        assert route is not None
        self.assertFalse(route.online)
        self.assertEqual(self.listed(), ["b"])
        self.core.clock.advance(0)
        self.assertEqual(told, ["a"])
        self.assertEqual(len(self.core.router.unfinished), 0)
        self.assertTrue(stays.connected)

    def test_came_back_meanwhile(self) -> None:
        """
        One that left and came to another node belongs to that one.
        """
        gone = self.bound("a")
        self.core.cache.down = True
        self.leave(gone)
        self.core.cache.down = False
        elsewhere = self.core.route(self.core.elsewhere)
        self.successResultOf(start(self.core.remote.register("a", 1, elsewhere)))
        self.restored()
        self.assertEqual(self.route("a"), elsewhere)

    def test_store_names_another_node(self) -> None:
        """
        If the store says that another node has the user, perhaps from before the user
        came here, the user stays here; that node is asked to kick what it had.
        """
        connection = self.bound("a")
        elsewhere = self.core.route(self.core.elsewhere)
        self.successResultOf(start(self.core.remote.register("a", 1, elsewhere)))
        self.restored()
        self.assertEqual(connection.sent, [])
        self.assertEqual(self.route("a"), self.core.router.route_of(connection))
        self.assertEqual(
            self.core.kicks_sent,
            [GatewayKick("a", "other", "0badcafe", 1, "10.0.0.2", 3001)],
        )

    def refuse(self, user_id: str) -> FakeConnection:
        """
        Have a bind refused although the store has written its route.
        """
        connection = FakeConnection("too late")
        self.core.cache.fails.add("hswap")
        binding = start(self.core.router.bind(connection, user_id, None))
        self.assertFalse(self.successResultOf(binding))
        self.core.cache.fails.clear()
        route = self.core.router.route_of(connection)
        self.successResultOf(start(self.core.remote.register(user_id, 1, route)))
        return connection

    def test_written_too_late(self) -> None:
        """
        A route that the store wrote after the bind had been refused is ended, and all
        nodes are asked whether one of them has the user.
        """
        connection = self.refuse("a")
        self.restored()
        route = self.route("a")
        assert route is not None
        self.assertFalse(route.online)
        self.assertEqual(
            self.core.kicks_sent,
            [
                GatewayKick("a", "too late", connection.id, 1, host, 3001)
                for host in ("10.0.0.2", "10.0.0.3")
            ],
        )
        self.assertEqual(self.listed(), [])

    def test_refused_and_not_written(self) -> None:
        """
        If it was not written, nobody is asked.
        """
        connection = FakeConnection()
        self.core.cache.down = True
        start(self.core.router.bind(connection, "a", None))
        self.restored()
        self.assertEqual(self.core.kicks_sent, [])
        self.assertIsNone(self.route("a"))

    def test_asked(self) -> None:
        """
        A node that is asked in this way, and has the user, sees that its route is
        there; the device does not notice.
        """
        connection = self.bound("a")
        route = self.core.router.route_of(connection)
        self.successResultOf(start(self.core.remote.mark_offline("a", 1, route)))
        kick = GatewayKick("a", "too late", "ffff0000", 1, "10.0.0.1", 3001)
        self.assertFalse(self.core.router.kick_requested(kick))
        self.assertEqual(connection.sent, [])
        self.assertEqual(self.route("a"), route)

    def test_asked_while_the_store_is_away(self) -> None:
        """
        If the store is away then, that is logged, and its return sets it right.
        """
        connection = self.bound("a")
        self.core.cache.down = True
        kick = GatewayKick("a", "too late", "ffff0000", 1, "10.0.0.1", 3001)
        self.core.router.kick_requested(kick)
        self.assertIn("not looked after", self.core.texts())
        self.lose_everything()
        self.restored()
        self.assertEqual(self.route("a"), self.core.router.route_of(connection))

    def test_list_missed(self) -> None:
        """
        A user whose coming could not be written to the list is on it afterwards, and
        one whose going could not be written is not.
        """
        gone = self.bound("b")
        self.core.cache.fails.update(("zadd", "zrem"))
        self.bound("a")
        gone.ended = "peer"
        self.successResultOf(start(self.core.router.unbind(gone)))
        self.core.clock.advance(0)
        self.assertEqual(self.listed(), ["b"])
        self.core.cache.fails.clear()
        self.restored()
        self.assertEqual(self.listed(), ["a"])

    def test_old_list(self) -> None:
        """
        Who is on the list from an old snapshot and not here is taken off it.
        """
        self.bound("a")
        for stranger in ("x", "y"):
            self.core.cache.zadd("mp:oul:203.0.113.1", stranger)
        self.restored()
        self.assertEqual(self.listed(), ["a"])

    def test_shared_list(self) -> None:
        """
        A list that several nodes share is not cleared of the others' users (C-11).
        """
        self.owns_list = False
        self.bound("a")
        self.core.cache.zadd("mp:oul:203.0.113.1", "x")
        self.restored()
        self.assertEqual(self.listed(), ["a", "x"])

    def test_away_again(self) -> None:
        """
        If the store goes away during the round, nothing is forgotten.
        """
        gone = self.bound("a")
        self.core.cache.down = True
        self.leave(gone)
        self.repair.store_restored()
        self.assertFalse(self.repair.running)
        self.assertEqual(len(self.core.router.unfinished), 1)
        self.restored()
        route = self.route("a")
        assert route is not None
        self.assertFalse(route.online)

    def test_back_twice(self) -> None:
        """
        A store that comes back again during a round causes another one.
        """
        self.bound("a")
        self.core.cache.slow = True
        self.repair.store_restored()
        self.repair.store_restored()
        self.assertTrue(self.repair.running)
        self.core.cache.release()
        self.assertFalse(self.repair.running)
        self.assertEqual(self.core.metrics.store_repairs, 2)

    def test_left_during_the_round(self) -> None:
        """
        A device that leaves while its route is being looked after is offline in the
        end.
        """
        connection = self.bound("a")
        self.lose_everything()
        self.core.cache.slow = True
        self.repair.store_restored()
        connection.ended = "peer"
        unbinding = start(self.core.router.unbind(connection))
        self.core.cache.release()
        self.successResultOf(unbinding)
        route = self.route("a")
        self.assertTrue(route is None or not route.online)

    def test_stopped(self) -> None:
        """
        A round can be given up.
        """
        self.bound("a")
        self.core.cache.slow = True
        self.repair.store_restored()
        self.repair.stop()
        self.core.cache.release()
        self.assertFalse(self.repair.running)
