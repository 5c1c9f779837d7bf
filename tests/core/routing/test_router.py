"""
Tests for L{mpush_tw.core.routing.router} (server 11.4, 11.5).
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mpush_tw.core.routing.router import Router
from mpush_tw.errors import Unavailable
from mpush_tw.interfaces import (
    IClientClassifier,
    RouteChanged,
    UserKicked,
    UserOffline,
    UserOnline,
)
from mpush_tw.protocol.gateway import GatewayKick
from mpush_tw.protocol.routes import RemoteRoute
from tests.core.fakes import Core, FakeConnection, start


@implementer(IClientClassifier)
class FakeClassifier:
    """
    Puts every device into one class.
    """

    def __init__(self, number: int) -> None:
        self.number = number

    def client_type(self, os_name: str | None) -> int:
        return self.number


class RouterTestCase(SynchronousTestCase):
    """
    A router on a store that can be made to fail.
    """

    max_per_user = 20

    def setUp(self) -> None:
        self.core = Core(max_per_user=self.max_per_user)
        self.router = self.core.router

    def binding(self, connection: FakeConnection, user_id: str = "u") -> Deferred[bool]:
        """
        Begin to bind.
        """
        return start(self.router.bind(connection, user_id, "tags"))

    def bound(
        self, device_id: str = "d1", user_id: str = "u", os_name: str = "android"
    ) -> FakeConnection:
        """
        Bind a user on a new connection.
        """
        connection = FakeConnection(device_id, os_name)
        self.assertTrue(self.successResultOf(self.binding(connection, user_id)))
        return connection

    def unbind(self, connection: FakeConnection) -> None:
        """
        Unbind a connection.
        """
        self.successResultOf(start(self.router.unbind(connection)))

    def remote(self, user_id: str = "u", client_type: int = 1) -> RemoteRoute | None:
        """
        A route in the store.
        """
        finding = start(self.core.remote.find(user_id, client_type))
        return self.successResultOf(finding)  # type: ignore[no-any-return]

    def remote_connection(self) -> str | None:
        """
        The connection that the store names for the phone of C{u}.
        """
        route = self.remote()
        return None if route is None else route.connection_id

    def heard(self) -> list[object]:
        """
        The events posted since the last call.
        """
        self.core.clock.advance(0)
        events: list[object] = list(self.core.posted)
        self.core.posted.clear()
        return events


class BindTests(RouterTestCase):
    """
    Binding.
    """

    def test_both_tables(self) -> None:
        """
        The user is in the local table and in the store, and the context says so.
        """
        connection = self.bound()
        self.assertIs(self.core.local.lookup("u", 1), connection)
        self.assertEqual(
            self.remote(),
            RemoteRoute("10.0.0.1", 3001, "d1", "android", "1.0", connection.id),
        )
        self.assertEqual((connection.user_id, connection.tags), ("u", "tags"))
        self.assertEqual(connection.client_type, 1)

    def test_nameless_system(self) -> None:
        """
        A device that names no system is bound as one of unknown type (S-7).
        """
        connection = FakeConnection("d1", None)
        self.assertTrue(self.successResultOf(self.binding(connection)))
        self.assertIs(self.core.local.lookup("u", -1), connection)
        route = self.remote(client_type=-1)
        assert route is not None
        self.assertEqual(route.os_name, "unknown")

    def test_classifier_out_of_range(self) -> None:
        """
        What a classifier says is cut to a signed byte, as everywhere else.
        """
        router = Router(
            self.core.here,
            self.core.local,
            self.core.remote,
            FakeClassifier(200),
            self.core.events,
            self.core.log,
            self.core.metrics,
            20,
            self.core.kicks_sent.append,
        )
        connection = FakeConnection()
        start(router.bind(connection, "u", None))
        self.assertEqual(connection.client_type, -56)

    def test_announced(self) -> None:
        """
        That the user came online is told when all of it is done.
        """
        connection = self.bound()
        self.assertEqual(self.heard(), [UserOnline("u", connection.id, "d1", 1)])

    def test_types_do_not_kick_each_other(self) -> None:
        """
        A second device of another type disturbs nobody.
        """
        phone = self.bound("d1")
        desk = self.bound("d2", os_name="windows")
        self.assertEqual(phone.sent + desk.sent, [])
        self.assertEqual(set(self.core.local.lookup_all("u")), {phone, desk})

    def test_users_do_not_kick_each_other(self) -> None:
        """
        Nor does the same type of another user.
        """
        self.assertEqual(self.bound("d1", "u").sent + self.bound("d2", "v").sent, [])

    def test_store_is_down(self) -> None:
        """
        When the store does not take the route, the user is not bound (S-3).
        """
        self.core.cache.down = True
        connection = FakeConnection()
        self.assertFalse(self.successResultOf(self.binding(connection)))
        self.assertIsNone(connection.user_id)
        self.assertEqual(self.core.local.lookup_all("u"), ())
        self.assertEqual(self.heard(), [])

    def test_store_is_down_and_somebody_was_there(self) -> None:
        """
        Then the one who was there keeps his route and is not kicked (S-3).
        """
        older = self.bound("d1")
        self.heard()
        self.core.cache.fails.add("hswap")
        self.assertFalse(self.successResultOf(self.binding(FakeConnection("d2"))))
        self.assertIs(self.core.local.lookup("u", 1), older)
        self.assertEqual(older.sent, [])
        self.assertEqual(self.remote_connection(), older.id)
        self.assertEqual(self.heard(), [])

    def test_store_fails_after_the_older_one_left(self) -> None:
        """
        If he left meanwhile, nobody gets the route.
        """
        older = self.bound("d1")
        self.core.cache.slow = True
        self.core.cache.fails.add("hswap")
        self.core.cache.fails.add("hset_if")
        binding = self.binding(FakeConnection("d2"))
        leaving = start(self.router.unbind(older))
        self.core.cache.release()
        self.assertFalse(self.successResultOf(binding))
        self.failureResultOf(leaving, Unavailable)
        self.assertEqual(self.core.local.lookup_all("u"), ())

    def test_store_fails_after_a_third_one_came(self) -> None:
        """
        If a third one took the route meanwhile, it is his.
        """
        self.bound("d1")
        self.core.cache.slow = True
        self.core.cache.fails.add("hswap")
        failing = self.binding(FakeConnection("d2"))
        held = list(self.core.cache.held)
        self.core.cache.held.clear()
        self.core.cache.slow = False
        self.core.cache.fails.clear()
        third = self.bound("d3")
        self.core.cache.held = held
        self.core.cache.release()
        self.assertFalse(self.successResultOf(failing))
        self.assertEqual(self.core.local.lookup_all("u"), (third,))
        self.assertEqual(self.remote_connection(), third.id)

    def test_gone_while_the_store_was_asked(self) -> None:
        """
        A device that leaves while the store is asked is bound nowhere.
        """
        self.core.cache.slow = True
        connection = FakeConnection()
        binding = self.binding(connection)
        connection.ended = "peer"
        self.core.cache.release()
        self.assertFalse(self.successResultOf(binding))
        self.assertEqual(self.core.local.lookup_all("u"), ())
        self.assertIsNone(self.remote_connection())
        self.assertEqual(self.heard(), [])

    def test_gone_after_displacing_somebody(self) -> None:
        """
        If it had displaced another device, that one keeps the user and hears nothing.
        """
        older = self.bound("d1")
        self.core.cache.slow = True
        connection = FakeConnection("d2")
        self.binding(connection)
        connection.ended = "peer"
        self.core.cache.release()
        self.assertEqual(older.sent, [])
        self.assertEqual(self.core.local.lookup_all("u"), (older,))
        self.assertEqual(self.remote_connection(), older.id)

    def test_both_gone(self) -> None:
        """
        If the other device has left meanwhile as well, the store says offline.
        """
        older = self.bound("d1")
        self.core.cache.slow = True
        connection = FakeConnection("d2")
        binding = self.binding(connection)
        # The route has been written when the older one leaves.
        unbinding = start(self.router.unbind(older))
        older.ended = connection.ended = "peer"
        self.core.cache.release()
        self.assertFalse(self.successResultOf(binding))
        self.successResultOf(unbinding)
        self.assertEqual(self.core.local.lookup_all("u"), ())
        self.assertIsNone(self.remote_connection())

    def test_both_gone_and_another_node(self) -> None:
        """
        If another node had taken the user from the other device, that node has it back.
        """
        older = self.bound("d1")
        route = self.core.route(self.core.elsewhere)
        self.successResultOf(start(self.core.remote.register("u", 1, route)))
        self.core.cache.slow = True
        connection = FakeConnection("d2")
        self.binding(connection)
        start(self.router.unbind(older))
        older.ended = connection.ended = "peer"
        self.core.cache.release()
        self.assertEqual(self.remote(), route)

    def test_gone_after_displacing_another_node(self) -> None:
        """
        If the user was on another node, that one has it still and is not told to kick.
        """
        route = self.core.route(self.core.elsewhere)
        self.successResultOf(start(self.core.remote.register("u", 1, route)))
        self.core.cache.slow = True
        connection = FakeConnection("d2")
        self.binding(connection)
        connection.ended = "peer"
        self.core.cache.release()
        self.assertEqual(self.remote(), route)
        self.assertEqual(self.heard(), [])

    def test_gone_after_another_one_came(self) -> None:
        """
        If another device has bound the user since, that one keeps it.
        """
        self.core.cache.slow = True
        gone = FakeConnection("d1")
        binding = self.binding(gone)
        gone.ended = "peer"
        # The route has been written, the answer is still under way.
        self.core.cache.slow = False
        newer = self.bound("d2")
        self.core.cache.release()
        self.assertFalse(self.successResultOf(binding))
        self.assertEqual(self.core.local.lookup_all("u"), (newer,))
        self.assertEqual(self.remote_connection(), newer.id)


class KickTests(RouterTestCase):
    """
    Who has to go when a user comes up elsewhere.
    """

    def test_same_type(self) -> None:
        """
        The older device of the same type gets KICK and stays connected.
        """
        older = self.bound("d1")
        newer = self.bound("d2")
        self.assertEqual(older.sent, [("kick", "u")])
        self.assertIsNone(older.ended)
        self.assertEqual(older.user_id, "u")
        self.assertEqual(newer.sent, [])

    def test_routes(self) -> None:
        """
        The routes are the newer one's.
        """
        self.bound("d1")
        newer = self.bound("d2")
        self.assertEqual(self.core.local.lookup_all("u"), (newer,))
        self.assertEqual(self.remote_connection(), newer.id)

    def test_events(self) -> None:
        """
        The change and the kick are told before the new device is.
        """
        older = self.bound("d1")
        self.heard()
        newer = self.bound("d2")
        self.assertEqual(
            self.heard(),
            [
                RouteChanged("u", 1, older.id, "d1", local=True),
                UserKicked("u", "d1", older.id, False),
                UserOnline("u", newer.id, "d2", 1),
            ],
        )

    def test_same_device_again(self) -> None:
        """
        The same device on a new connection kicks its old one.
        """
        older = self.bound("d1")
        self.bound("d1")
        self.assertEqual(older.sent, [("kick", "u")])

    def test_same_connection(self) -> None:
        """
        A connection is never kicked by itself (S-8).
        """
        connection = self.bound("d1")
        self.heard()
        connection.user_id = None
        self.assertTrue(self.successResultOf(self.binding(connection)))
        self.assertEqual(connection.sent, [])
        self.assertEqual(self.heard(), [UserOnline("u", connection.id, "d1", 1)])

    def test_dead(self) -> None:
        """
        A device that cannot be written to is counted as not kicked.
        """
        self.bound("d1").ended = "peer"
        self.heard()
        self.bound("d2")
        self.assertEqual(self.core.metrics.kicks, {("local", "failure"): 1})
        self.assertNotIn(UserKicked, [type(event) for event in self.heard()])

    def test_another_node(self) -> None:
        """
        A device on another node is named in an event, and its node is asked to kick it.
        """
        start(
            self.core.remote.register(
                "u", 1, self.core.route(self.core.elsewhere, "0badcafe", "d0")
            )
        )
        connection = self.bound("d1")
        self.assertEqual(
            self.heard(),
            [
                RouteChanged(
                    "u", 1, "0badcafe", "d0", local=False, host="10.0.0.2", port=3001
                ),
                UserOnline("u", connection.id, "d1", 1),
            ],
        )
        self.assertEqual(
            self.core.kicks_sent,
            [GatewayKick("u", "d0", "0badcafe", 1, "10.0.0.2", 3001)],
        )

    def test_another_node_offline(self) -> None:
        """
        One that was offline there is nobody's business.
        """
        start(
            self.core.remote.register(
                "u", 1, self.core.route(self.core.elsewhere, None)
            )
        )
        connection = self.bound("d1")
        self.assertEqual(self.heard(), [UserOnline("u", connection.id, "d1", 1)])
        self.assertEqual(self.core.kicks_sent, [])

    def test_stale_route_of_this_node(self) -> None:
        """
        An old route that names this node kicks nobody: the local table decides.
        """
        start(self.core.remote.register("u", 1, self.core.route(self.core.here)))
        connection = self.bound("d1")
        self.assertEqual(self.heard(), [UserOnline("u", connection.id, "d1", 1)])
        self.assertEqual(self.core.kicks_sent, [])

    def test_from_another_node(self) -> None:
        """
        A kick that another node asked for is counted and told as such.
        """
        connection = self.bound("d1")
        self.heard()
        self.assertTrue(self.router.kick(connection, "u", from_remote=True))
        self.assertEqual(connection.sent, [("kick", "u")])
        self.assertEqual(self.core.metrics.kicks, {("remote", "success"): 1})
        self.assertEqual(self.heard(), [UserKicked("u", "d1", connection.id, True)])

    def requested(self, **changes: object) -> bool:
        """
        Have another node ask to kick the phone of C{u}.
        """
        connection = self.core.local.lookup("u", 1)
        kick = GatewayKick(
            "u", "d0", connection.id if connection else "", 1, "10.0.0.1", 3001
        )
        return self.router.kick_requested(kick._replace(**changes))  # type: ignore[arg-type]

    def test_requested(self) -> None:
        """
        A kick that another node asks for is written; routes stay as they are.
        """
        connection = self.bound("d1")
        self.assertTrue(self.requested())
        self.assertEqual(connection.sent, [("kick", "u")])
        self.assertIs(self.core.local.lookup("u", 1), connection)
        self.assertEqual(self.remote_connection(), connection.id)

    def test_requested_of_another_node(self) -> None:
        """
        A kick that names another node is not for us.
        """
        connection = self.bound("d1")
        self.assertFalse(self.requested(target_server="10.0.0.2"))
        self.assertFalse(self.requested(target_port=3002))
        self.assertEqual(connection.sent, [])
        self.assertEqual(self.core.metrics.kicks, {("remote", "ignored"): 2})

    def test_requested_for_nobody(self) -> None:
        """
        A kick for a user, or a type, that is not here is dropped.
        """
        connection = self.bound("d1")
        self.assertFalse(self.requested(user_id="other"))
        self.assertFalse(self.requested(user_id=None))
        self.assertFalse(self.requested(client_type=2))
        self.assertEqual(connection.sent, [])

    def test_requested_too_late(self) -> None:
        """
        A kick that names an earlier connection does not hit the one that came back.
        """
        connection = self.bound("d1")
        self.assertFalse(self.requested(connection_id="0badcafe"))
        self.assertFalse(self.requested(connection_id=None))
        self.assertEqual(connection.sent, [])


class MaxPerUserTests(RouterTestCase):
    """
    Kicked devices that do not leave (C{mp.limits.max-per-user}).
    """

    max_per_user = 3

    def test_closed(self) -> None:
        """
        Beyond the limit the longest displaced is closed.
        """
        connections = [self.bound(f"d{number}") for number in range(4)]
        self.assertEqual(
            [connection.ended for connection in connections],
            ["max-per-user", None, None, None],
        )


class UnbindTests(RouterTestCase):
    """
    Unbinding, also by the end of a connection.
    """

    def test_both_tables(self) -> None:
        """
        The user is in no table any more, and the context knows none.
        """
        connection = self.bound()
        self.unbind(connection)
        self.assertEqual(self.core.local.lookup_all("u"), ())
        self.assertIsNone(self.remote_connection())
        self.assertIsNone(connection.user_id)
        self.assertIsNone(connection.tags)

    def test_announced(self) -> None:
        """
        That the user left is told.
        """
        connection = self.bound()
        self.heard()
        self.unbind(connection)
        self.assertEqual(
            self.heard(), [UserOffline("u", connection.id, "d1", 1, False)]
        )

    def test_nobody(self) -> None:
        """
        A connection without a user has nothing to unbind, and asks nobody.
        """
        self.unbind(FakeConnection())
        self.assertEqual(self.core.cache.commands, [])
        self.assertEqual(self.heard(), [])

    def test_one_of_two_devices(self) -> None:
        """
        When one of two devices leaves, the user is still here (S-5).
        """
        phone = self.bound("d1")
        self.bound("d2", os_name="windows")
        self.heard()
        self.unbind(phone)
        self.assertEqual(self.heard(), [UserOffline("u", phone.id, "d1", 1, True)])
        self.assertIsNotNone(self.core.local.lookup("u", 2))

    def test_while_another_is_being_bound(self) -> None:
        """
        A device that is only being bound does not make the user stay: the binding may
        come to nothing, and then nobody would tell of the end.
        """
        phone = self.bound("d1")
        self.heard()
        self.core.cache.slow = True
        other = FakeConnection("d2", "windows")
        binding = self.binding(other)
        held, self.core.cache.held = self.core.cache.held, []
        self.core.cache.slow = False
        self.unbind(phone)
        self.assertEqual(self.heard(), [UserOffline("u", phone.id, "d1", 1, False)])
        self.core.cache.held = held
        self.core.cache.release()
        self.assertTrue(self.successResultOf(binding))
        self.assertEqual(self.heard(), [UserOnline("u", other.id, "d2", 2)])

    def test_kicked_device(self) -> None:
        """
        A kicked device that leaves takes nothing with it (S-5, S-14).
        """
        older = self.bound("d1")
        newer = self.bound("d2")
        self.heard()
        self.unbind(older)
        self.assertIs(self.core.local.lookup("u", 1), newer)
        self.assertEqual(self.remote_connection(), newer.id)
        self.assertEqual(self.heard(), [UserOffline("u", older.id, "d1", 1, True)])

    def test_moved_to_another_node(self) -> None:
        """
        A route that another node has taken stays (S-14).
        """
        connection = self.bound("d1")
        start(
            self.core.remote.register(
                "u", 1, self.core.route(self.core.elsewhere, "0badcafe")
            )
        )
        self.unbind(connection)
        self.assertEqual(self.remote_connection(), "0badcafe")
        self.assertEqual(self.core.local.lookup_all("u"), ())

    def test_store_is_down(self) -> None:
        """
        When the store is down the caller learns it, but here the user has left, and
        that is told.
        """
        connection = self.bound()
        self.heard()
        self.core.cache.down = True
        self.failureResultOf(start(self.router.unbind(connection)), Unavailable)
        self.assertEqual(self.core.local.lookup_all("u"), ())
        self.assertIsNone(connection.user_id)
        self.assertEqual(
            self.heard(), [UserOffline("u", connection.id, "d1", 1, False)]
        )

    def test_after_the_handshake_changed_the_type(self) -> None:
        """
        The route that is ended is the one that was made, whatever the system's name has
        become (S-11).
        """
        connection = self.bound("d1")
        connection.os_name = "windows"
        self.unbind(connection)
        self.assertIsNone(self.remote_connection())
