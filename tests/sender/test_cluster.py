"""
The sender over the stores of a cluster, with gateways in memory.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mpush_tw.client_types import DefaultClassifier
from mpush_tw.errors import PushError, Unavailable
from mpush_tw.interfaces import IServiceListener
from mpush_tw.protocol.commands import ErrorCode
from mpush_tw.sender import (
    IGatewayDirectory,
    PushContext,
    PushResult,
    PushSender,
    ResultCode,
    Route,
    _routes,
)
from mpush_tw.sender._link import DRAIN_TIMEOUT
from mpush_tw.sender._registrations import GRACE
from mpush_tw.sender._routes import MAX_ROUTES, RouteCache, StoredRoutes
from tests.sender.gateway import Asked, FakeGateway, Network
from tests.sender.stores import FakeCache, FakeStores

A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"


class ClusterTestCase(SynchronousTestCase):
    """
    A started sender of a cluster whose gateways A and B are connected.
    """

    registered = (A, B)

    def setUp(self) -> None:
        self.network = Network()
        self.stores = FakeStores(self.network)
        self.cache, self.registry = self.stores.cache, self.stores.registry
        self.sender = PushSender(self.stores.directory, reactor=self.network)
        for host in self.registered:
            self.registry.add(host, host)
        started = self.sender.start()
        self.gateways: dict[str, FakeGateway] = {}
        self.transports: dict[str, Any] = {}
        self.connect()
        self.network.advance(0)
        self.successResultOf(started)

    def connect(self) -> None:
        """
        Accept what the sender tries to connect.
        """
        for host, _ in self.network.attempts:
            self.gateways[host], self.transports[host] = self.network.accept()

    def refuse(self) -> None:
        """
        Refuse it.
        """
        for _ in self.network.attempts:
            self.network.refuse(Failure(ConnectionRefusedError()))

    def send(self, user_id: str = "bob", **settings: Any) -> Deferred[PushResult]:
        return self.sender.send(PushContext(b"hi", user_id=user_id, **settings))

    def asked(self, host: str) -> Asked:
        """
        The last question that a gateway was asked.
        """
        return self.gateways[host].asked[-1]

    def ok(self, host: str) -> None:
        self.gateways[host].ok(self.asked(host))

    def error(self, host: str, code: ErrorCode) -> None:
        self.gateways[host].error(self.asked(host), code)

    def redirect(self, host: str) -> None:
        self.error(host, ErrorCode.ROUTER_CHANGE)

    def code(self, sent: Deferred[PushResult]) -> ResultCode:
        return self.successResultOf(sent).code

    def logged(self, beginning: str) -> list[Any]:
        """
        Collect what is logged from now on and begins so.
        """
        events: list[Any] = []

        def observe(event: Any) -> None:
            if (event.get("log_format") or "").startswith(beginning):
                events.append(event)

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        return events


class StartTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = Network()
        self.stores = FakeStores(self.network)
        self.sender = PushSender(self.stores.directory, reactor=self.network)

    def running(self) -> list[bool]:
        stores = self.stores
        return [stores.cache.running, stores.queue.running, stores.registry.running]

    def test_interface(self) -> None:
        """
        The directory of a cluster is one, and listens to the registry.
        """
        verifyObject(IGatewayDirectory, self.stores.directory)
        verifyObject(IServiceListener, self.stores.directory._gateways)

    def test_all_gateways(self) -> None:
        """
        The sender has started when all gateways that are registered are connected.
        """
        self.stores.registry.add(A, "a")
        self.stores.registry.add(B, "b")
        started = self.sender.start()
        self.network.accept()
        self.network.advance(0)
        self.assertNoResult(started)
        self.network.accept()
        self.network.advance(0)
        self.successResultOf(started)

    def test_dead_gateway(self) -> None:
        """
        A gateway that refuses keeps nobody from starting.
        """
        self.stores.registry.add(A, "a")
        started = self.sender.start()
        self.network.refuse(Failure(ConnectionRefusedError()))
        self.network.advance(0)
        self.successResultOf(started)

    def test_silent_gateway(self) -> None:
        """
        Nor does one that neither accepts nor refuses, after 4 seconds.
        """
        self.stores.registry.add(A, "a")
        started = self.sender.start()
        self.network.advance(3.9)
        self.assertNoResult(started)
        self.network.advance(0.2)
        self.network.advance(0)
        self.successResultOf(started)

    def test_no_gateway_yet(self) -> None:
        """
        A sender may be there before the first node, and finds it when it comes.
        """
        started = self.sender.start()
        self.network.advance(0)
        self.successResultOf(started)
        self.stores.registry.add(A, "a")
        self.assertEqual(self.network.attempts, [(A, 3001)])

    def test_store_away(self) -> None:
        """
        A start without the store fails with its words, and stops what was started.
        """
        for store in (self.stores.cache, self.stores.queue, self.stores.registry):
            store.starting = fail(Unavailable("10.0.0.9:6379 refuses"))
            failure = self.failureResultOf(self.sender.start(), Unavailable)
            self.assertIn("10.0.0.9:6379", str(failure.value))
            self.assertEqual(self.running(), [False] * 3)
            store.starting = None

    def test_registry_cannot_be_asked(self) -> None:
        """
        Nor does a sender start that cannot find out which gateways there are.
        """
        self.stores.registry.away = True
        self.failureResultOf(self.sender.start(), Unavailable)
        self.assertEqual(self.running(), [False] * 3)

    def test_stopped_while_starting(self) -> None:
        """
        A start that is stopped while it waits for a store fails, and all is stopped.
        """
        self.stores.queue.starting = Deferred()
        started = self.sender.start()
        self.successResultOf(self.sender.stop())
        self.failureResultOf(started, PushError)
        self.assertEqual(self.running(), [False] * 3)

    def test_again(self) -> None:
        """
        A sender that was stopped may be started again.
        """
        self.stores.registry.add(A, "a")
        for _ in range(2):
            started = self.sender.start()
            self.network.accept()
            self.network.advance(0)
            self.successResultOf(started)
            self.assertEqual(self.running(), [True] * 3)
            self.successResultOf(self.sender.stop())
            self.assertEqual(self.running(), [False] * 3)
            self.stores.registry.add(A, "a")

    def test_nothing_is_left(self) -> None:
        """
        A stopped sender leaves no timer, and does not connect what appears later.
        """
        self.sender.start()
        self.network.advance(0)
        self.successResultOf(self.sender.stop())
        self.stores.registry.add(A, "a")
        self.assertEqual(self.network.attempts, [])
        self.assertEqual(self.network.getDelayedCalls(), [])


class RouteTests(ClusterTestCase):
    def test_location(self) -> None:
        """
        The gateway of the route is asked, for the type of the device there, and the
        result says which device it was.
        """
        self.cache.put("bob", B, os_name="Windows 11", device_id="pc", field="2")
        sent = self.send()
        self.assertEqual(self.gateways[A].asked, [])
        self.assertEqual(self.asked(B).push.client_type, 2)
        self.ok(B)
        self.assertEqual(
            self.successResultOf(sent).location,
            Route(B, 3001, 2, "Windows 11", "1.0", "pc", "c0ffee"),
        )

    def test_location_of_failure(self) -> None:
        """
        So does the result of a push that failed, or that nobody answered.
        """
        self.cache.put("bob", B)
        failed, unanswered = self.send(), self.send("bob")
        self.gateways[B].error(self.gateways[B].asked[0], ErrorCode.PUSH_CLIENT_FAILURE)
        self.network.advance(3.1)
        for sent, code in ((failed, "FAILURE"), (unanswered, "TIMEOUT")):
            result = self.successResultOf(sent)
            self.assertEqual(result.code.name, code)
            assert result.location is not None
            self.assertEqual(result.location.device_id, "device")

    def test_nobody(self) -> None:
        """
        A user without any route is offline, and there is no location.
        """
        result = self.successResultOf(self.send())
        self.assertIs(result.code, ResultCode.OFFLINE)
        self.assertIsNone(result.location)

    def test_offline_route(self) -> None:
        """
        So is one whose devices have all left; no gateway is asked.
        """
        self.cache.put("bob", A, connection_id=None)
        self.assertIs(self.code(self.send()), ResultCode.OFFLINE)
        self.assertEqual(self.gateways[A].asked, [])

    def test_several_devices(self) -> None:
        """
        Every device that is online gets the message; one that has left changes nothing.
        """
        self.cache.put("bob", A, field="1")
        self.cache.put("bob", B, os_name="linux", field="2")
        self.cache.put("bob", B, os_name="web", field="3", connection_id=None)
        sent = self.send()
        self.assertEqual(self.asked(A).push.client_type, 1)
        self.assertEqual(self.asked(B).push.client_type, 2)
        self.assertEqual(len(self.gateways[B].asked), 1)
        self.error(B, ErrorCode.OFFLINE)
        self.assertNoResult(sent)
        self.ok(A)
        self.assertIs(self.code(sent), ResultCode.SUCCESS)

    def test_moved_device_is_followed_after_success(self) -> None:
        """
        When one device has the message the other is followed all the same, without
        another result.
        """
        results: list[PushResult] = []
        self.cache.put("bob", A, field="1")
        self.cache.put("bob", B, os_name="linux", field="2")
        sent = self.send(callback=results.append)
        self.ok(A)
        self.assertIs(self.code(sent), ResultCode.SUCCESS)
        self.cache.put("bob", A, os_name="linux", field="2")
        self.redirect(B)
        self.assertEqual(self.asked(A).push.client_type, 2)
        self.assertEqual(self.asked(A).push.content, b"hi")
        self.assertEqual(self.sender.pending, 1)
        self.ok(A)
        self.assertEqual(len(results), 1)
        self.assertEqual(self.sender.pending, 0)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_silent_device_after_success(self) -> None:
        """
        The other device is waited for until the time-out, not longer.
        """
        self.cache.put("bob", A, field="1")
        self.cache.put("bob", B, os_name="linux", field="2")
        self.send()
        self.ok(A)
        self.network.advance(3.1)
        self.assertEqual(self.sender.pending, 0)

    def test_moved_device_does_not_disturb_the_other(self) -> None:
        """
        A device that moved is followed while the other has not answered, and the other
        is not asked twice.
        """
        self.cache.put("bob", A, field="1")
        self.cache.put("bob", A, os_name="linux", field="2")
        sent = self.send()
        first, second = self.gateways[A].asked
        self.cache.put("bob", B, os_name="linux", field="2")
        self.gateways[A].error(second, ErrorCode.ROUTER_CHANGE)
        self.assertEqual(self.asked(B).push.client_type, 2)
        self.assertEqual(len(self.gateways[A].asked), 2)
        self.ok(B)
        self.assertIs(self.code(sent), ResultCode.SUCCESS)
        self.gateways[A].ok(first)

    def test_garbage(self) -> None:
        """
        What is no route, or cannot be anybody's address, is skipped; the others serve.
        """
        for number, text in enumerate(
            (
                "",
                "null",
                "{",
                "[1]",
                '{"port":"x","host":"10.0.0.1","connId":"c"}',
                '{"port":3001,"connId":"c"}',
                '{"port":0,"host":"10.0.0.1","connId":"c"}',
                '{"port":65536,"host":"10.0.0.1","connId":"c"}',
                "[" * 100_000,
            )
        ):
            self.cache.put_text("bob", f"garbage-{number}", text)
        said = self.logged("field")
        self.assertIs(self.code(self.send()), ResultCode.OFFLINE)
        self.assertEqual({event["key"] for event in said}, {"mp:ur:bob"})
        self.assertEqual(len(said), 9)
        self.cache.put("bob", A)
        self.send()
        self.ok(A)
        self.assertEqual(len(self.gateways[A].asked), 1)

    def test_type_by_operating_system(self) -> None:
        """
        The type of a device is judged by its operating system, not by the field; two
        routes to one and the same connection are one.
        """
        self.cache.put("bob", A, os_name="iOS 17", field="7")
        self.cache.put("bob", A, os_name="iOS 17", field="8")
        self.send()
        (asked,) = self.gateways[A].asked
        self.assertEqual(asked.push.client_type, 1)

    def test_no_operating_system(self) -> None:
        """
        A route that names none is of the unknown type (C-3).
        """
        self.cache.put_text("bob", "1", f'{{"port":3001,"host":"{A}","connId":"c"}}')
        self.send()
        self.assertEqual(self.asked(A).push.client_type, -1)

    def test_too_many_routes(self) -> None:
        """
        A hash that somebody filled with routes makes no flood.
        """
        for number in range(100):
            values = {"os_name": "linux", "field": str(number)}
            self.cache.put("bob", A, port=4000 + number, **values)
            self.registry.add(A, f"node-{number}", 4000 + number)
        self.connect_all()
        self.send()
        asked = sum(len(gateway.asked) for gateway in self.crowd)
        self.assertEqual(asked, MAX_ROUTES)

    def connect_all(self) -> None:
        self.crowd = [self.network.accept()[0] for _ in self.network.attempts]

    def test_store_away(self) -> None:
        """
        With the route store away a push to somebody new fails at once. The log says so
        once a second, and how often.
        """
        said = self.logged("pushes fail")
        self.cache.away = True
        for number in range(5):
            self.assertIs(self.code(self.send(f"user-{number}")), ResultCode.FAILURE)
        self.assertEqual(len(said), 1)
        self.network.advance(1)
        self.send()
        self.assertEqual([event["more"] for event in said], [0, 4])
        self.assertEqual(self.sender.pending, 0)

    def test_store_away_after_redirect(self) -> None:
        """
        Nor can a device be followed then.
        """
        self.cache.put("bob", A)
        sent = self.send()
        self.cache.away = True
        self.redirect(A)
        self.assertIs(self.code(sent), ResultCode.FAILURE)


class RouteCacheTests(ClusterTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.cache.put("bob", A)

    def deliver(self) -> None:
        sent = self.send()
        self.ok(A)
        self.assertIs(self.code(sent), ResultCode.SUCCESS)

    def assert_looked_up(self, times: int) -> None:
        self.assertEqual(len(self.cache.asked), times)

    def test_remembered(self) -> None:
        """
        The routes of a user are looked up once in five minutes.
        """
        self.deliver()
        self.network.advance(299)
        self.deliver()
        self.assert_looked_up(1)
        self.network.advance(1)
        self.deliver()
        self.assert_looked_up(2)

    def test_store_away(self) -> None:
        """
        Users whose routes are remembered get their messages without the store.
        """
        self.deliver()
        self.cache.away = True
        self.deliver()

    def test_nobody_is_not_remembered(self) -> None:
        """
        A user who comes online is found at once by the next push.
        """
        self.assertIs(self.code(self.send("alice")), ResultCode.OFFLINE)
        self.cache.put("alice", A)
        sent = self.send("alice")
        self.ok(A)
        self.assertIs(self.code(sent), ResultCode.SUCCESS)

    def test_dropped_after_failure(self) -> None:
        """
        After any end but success the next push looks again (C-46).
        """
        looked_up = 0
        for code in (ErrorCode.OFFLINE, ErrorCode.PUSH_CLIENT_FAILURE):
            sent = self.send()
            self.error(A, code)
            self.assertIsNot(self.code(sent), ResultCode.SUCCESS)
            looked_up += 1
            self.assert_looked_up(looked_up)
        sent = self.send()
        self.redirect(A)
        self.assertIs(self.code(sent), ResultCode.FAILURE)
        # Once for the push, once to follow, and neither is believed any more.
        self.assert_looked_up(looked_up + 2)
        self.send()
        self.assert_looked_up(looked_up + 3)

    def test_dropped_after_timeout(self) -> None:
        """
        Also after a time-out.
        """
        self.send()
        self.network.advance(3.1)
        self.send()
        self.assert_looked_up(2)

    def test_dropped_when_one_device_failed(self) -> None:
        """
        And when one device of several was not reached.
        """
        self.cache.put("bob", B, os_name="linux", field="2")
        self.send()
        self.ok(A)
        self.error(B, ErrorCode.OFFLINE)
        self.send()
        self.assert_looked_up(2)

    def test_dropped_when_user_comes_or_leaves(self) -> None:
        """
        Nodes say who came and who left: those are looked up again, and nobody else.
        """
        self.deliver()
        self.publish("/mpush/online/", "somebody else")
        self.deliver()
        self.assert_looked_up(1)
        for number, topic in enumerate(("/mpush/online/", "/mpush/offline/"), 2):
            self.publish(topic, "bob")
            self.deliver()
            self.assert_looked_up(number)

    def publish(self, topic: str, user_id: str) -> None:
        self.stores.queue.publish(topic, user_id)
        self.network.advance(0)

    def test_dropped_when_queue_was_interrupted(self) -> None:
        """
        If that may have been missed, everybody is looked up again.
        """
        self.deliver()
        self.stores.queue.interrupt()
        self.deliver()
        self.assert_looked_up(2)

    def test_shared_lookup(self) -> None:
        """
        Pushes to one user at the same time look up once, and each gets its answer.
        """
        self.cache.held = []
        sent = [self.send() for _ in range(3)]
        sent[1].cancel()
        self.assert_looked_up(1)
        self.cache.answer()
        self.assertEqual(len(self.gateways[A].asked), 2)
        for asked in self.gateways[A].asked:
            self.gateways[A].ok(asked)
        self.assertIs(self.code(sent[0]), ResultCode.SUCCESS)
        self.assertIs(self.code(sent[2]), ResultCode.SUCCESS)
        self.failureResultOf(sent[1])

    def test_outdated_while_looking_up(self) -> None:
        """
        A look-up during which the user came or left is not remembered.
        """
        self.cache.held = []
        self.send()
        self.publish("/mpush/online/", "bob")
        self.cache.answer()
        self.ok(A)
        self.send()
        self.assert_looked_up(2)

    def test_redirect_does_not_join_an_older_lookup(self) -> None:
        """
        Who is sent elsewhere looks up afresh: what somebody else asked before may be
        the old route still.
        """
        moved = self.send()
        self.stores.queue.interrupt()
        self.cache.held = []
        self.send()
        self.cache.put("bob", B)
        self.redirect(A)
        self.cache.answer()
        self.assertNoResult(moved)
        self.cache.answer()
        self.ok(B)
        self.assertIs(self.code(moved), ResultCode.SUCCESS)


class RedirectTests(ClusterTestCase):
    def test_followed(self) -> None:
        """
        A user who moved gets the whole message at the new place, within the time that
        is left (C-35, C-41), and the result names that.
        """
        self.cache.put("bob", A)
        sent = self.send()
        self.cache.put("bob", B, connection_id="new")
        self.network.advance(1)
        self.redirect(A)
        self.assertEqual(self.asked(B).push.content, b"hi")
        self.assertEqual(self.asked(B).push.timeout_ms, 1500)
        self.ok(B)
        location = self.successResultOf(sent).location
        assert location is not None
        self.assertEqual((location.host, location.connection_id), (B, "new"))

    def test_moved_and_left(self) -> None:
        """
        One who left meanwhile is offline.
        """
        self.cache.put("bob", A)
        sent = self.send()
        self.cache.put("bob", B, connection_id=None)
        self.redirect(A)
        self.assertIs(self.code(sent), ResultCode.OFFLINE)

    def test_back_again(self) -> None:
        """
        One who is at the old place again, on a new connection, is asked for there.
        """
        self.cache.put("bob", A)
        sent = self.send()
        self.cache.put("bob", A, connection_id="new")
        self.redirect(A)
        self.ok(A)
        self.assertIs(self.code(sent), ResultCode.SUCCESS)

    def test_three_times(self) -> None:
        """
        One who is always elsewhere is followed three times.
        """
        self.cache.put("bob", A)
        sent = self.send()
        for number, (here, there) in enumerate(((A, B), (B, A), (A, B))):
            self.cache.put("bob", there, connection_id=str(number))
            self.redirect(here)
        self.assertNoResult(sent)
        self.cache.put("bob", A, connection_id="last")
        self.redirect(B)
        self.assertIs(self.code(sent), ResultCode.FAILURE)

    def test_to_new_gateway(self) -> None:
        """
        The new place may be a gateway that has not been heard of.
        """
        self.cache.put("bob", A)
        sent = self.send()
        self.cache.put("bob", C)
        self.registry.add_silently(C, C)
        self.redirect(A)
        self.connect()
        self.network.advance(0)
        self.ok(C)
        self.assertIs(self.code(sent), ResultCode.SUCCESS)


class GatewayTests(ClusterTestCase):
    registered = (A,)

    def vanish(self, host: str, node_id: str) -> None:
        """
        Have a registration vanish, and wait until that is believed.
        """
        self.registry.remove(host, node_id)
        self.network.advance(GRACE)

    def test_appears(self) -> None:
        """
        A gateway that is registered later is connected and used.
        """
        self.registry.add(B, "b")
        self.connect()
        self.cache.put("bob", B)
        sent = self.send()
        self.ok(B)
        self.assertIs(self.code(sent), ResultCode.SUCCESS)

    def test_vanishes(self) -> None:
        """
        One whose registration vanished is hung up on, and not connected again.
        """
        self.vanish(A, A)
        self.assertFalse(self.transports[A].connected)
        self.network.advance(60)
        self.assertEqual(self.network.attempts, [])
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_users_of_vanished_gateway(self) -> None:
        """
        Its users are offline, whatever their routes say.
        """
        self.cache.put("bob", A)
        self.vanish(A, A)
        result = self.successResultOf(self.send())
        self.assertIs(result.code, ResultCode.OFFLINE)
        assert result.location is not None
        self.assertEqual(result.location.host, A)

    def test_users_of_killed_gateway(self) -> None:
        """
        When its connection is gone as well they are offline at once.
        """
        self.cache.put("bob", A)
        self.transports[A].loseConnection()
        self.network.advance(0.5)
        self.registry.remove(A, A)
        sent = self.send()
        self.refuse()
        self.assertIs(self.code(sent), ResultCode.OFFLINE)

    def test_registered_again(self) -> None:
        """
        A Java node that registers itself anew, after its connection to ZooKeeper was
        interrupted, is asked all the while on the same connection (C-20).
        """
        self.cache.put("bob", A)
        self.registry.remove(A, A)
        sent = self.send()
        self.ok(A)
        self.assertIs(self.code(sent), ResultCode.SUCCESS)
        self.registry.add(A, A)
        self.network.advance(60)
        self.assertTrue(self.transports[A].connected)
        self.assertEqual(self.network.attempts, [])

    def test_counted_by_address(self) -> None:
        """
        Of two registrations of a restarted gateway the old one may vanish: the
        connection stays (C-40).
        """
        self.registry.add(A, "restarted")
        self.assertEqual(self.network.attempts, [])
        self.vanish(A, A)
        self.assertTrue(self.transports[A].connected)
        self.vanish(A, "restarted")
        self.assertFalse(self.transports[A].connected)

    def test_moved_registration(self) -> None:
        """
        A registration that names another address from now on is followed.
        """
        self.registry.add(B, A)
        self.connect()
        self.network.advance(GRACE)
        self.assertFalse(self.transports[A].connected)
        self.assertTrue(self.transports[B].connected)

    def test_garbage_registration(self) -> None:
        """
        What cannot be an address is nobody's, and disturbs nobody.
        """
        self.registry.add("", "empty")
        self.registry.add("10.0.0.9", "low", 0)
        self.registry.add("10.0.0.9", "high", 65536)
        self.assertEqual(self.network.attempts, [])
        self.vanish("", "empty")
        self.assertTrue(self.transports[A].connected)

    def test_last_answers(self) -> None:
        """
        A node that stops withdraws first and then lets its pushes end: what was asked
        is waited for, and then the connection closes.
        """
        self.cache.put("bob", A)
        sent = self.send()
        self.vanish(A, A)
        self.assertTrue(self.transports[A].connected)
        self.ok(A)
        self.assertIs(self.code(sent), ResultCode.SUCCESS)
        self.assertFalse(self.transports[A].connected)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_last_answers_are_not_awaited_for_ever(self) -> None:
        """
        Not for longer than half a minute.
        """
        self.cache.put("bob", A)
        sent = self.send(timeout=300)
        self.vanish(A, A)
        self.network.advance(DRAIN_TIMEOUT)
        self.assertIs(self.code(sent), ResultCode.FAILURE)
        self.assertFalse(self.transports[A].connected)

    def test_given_up_question(self) -> None:
        """
        Nor for a push that has been given up.
        """
        self.cache.put("bob", A)
        sent = self.send()
        self.vanish(A, A)
        sent.cancel()
        self.failureResultOf(sent)
        self.assertFalse(self.transports[A].connected)

    def test_lost_while_closing(self) -> None:
        """
        A vanished gateway whose connection is lost with questions open fails them, and
        is not connected again.
        """
        self.cache.put("bob", A)
        sent = self.send()
        self.vanish(A, A)
        self.transports[A].loseConnection()
        self.assertIs(self.code(sent), ResultCode.FAILURE)
        self.network.advance(60)
        self.assertEqual(self.network.attempts, [])

    def test_comes_back_while_closing(self) -> None:
        """
        One that is registered again before its last answer gets a new connection.
        """
        self.cache.put("bob", A)
        old_answer = self.send()
        old = self.gateways[A]
        self.vanish(A, A)
        self.registry.add(A, "again")
        self.connect()
        self.send()
        self.assertEqual(len(self.gateways[A].asked), 1)
        old.ok(old.asked[0])
        self.assertIs(self.code(old_answer), ResultCode.SUCCESS)
        self.assertTrue(self.transports[A].connected)

    def test_stop_while_closing(self) -> None:
        """
        A sender that is stopped meanwhile closes that connection too.
        """
        self.cache.put("bob", A)
        sent = self.send()
        self.vanish(A, A)
        self.successResultOf(self.sender.stop())
        self.assertIs(self.code(sent), ResultCode.FAILURE)
        self.assertFalse(self.transports[A].connected)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_not_connected(self) -> None:
        """
        A push to a user of a gateway that is being connected waits for that.
        """
        self.registry.add(B, "b")
        self.cache.put("bob", B)
        sent = self.send()
        self.assertNoResult(sent)
        self.connect()
        self.network.advance(0)
        self.ok(B)
        self.assertIs(self.code(sent), ResultCode.SUCCESS)

    def test_cannot_be_connected(self) -> None:
        """
        It fails when connecting does: the gateway is registered, so the user may be
        there.
        """
        self.registry.add(B, "b")
        self.cache.put("bob", B)
        sent = self.send()
        self.refuse()
        self.assertIs(self.code(sent), ResultCode.FAILURE)

    def test_vanishes_while_waiting(self) -> None:
        """
        It ends as offline when the registration vanishes meanwhile.
        """
        self.registry.add(B, "b")
        self.cache.put("bob", B)
        sent = self.send()
        self.vanish(B, "b")
        self.assertIs(self.code(sent), ResultCode.OFFLINE)

    def test_vanished_without_a_word(self) -> None:
        """
        A gateway that refuses is asked after: if the registry does not have it any
        more, its users are offline.
        """
        self.cache.put("bob", A)
        self.transports[A].loseConnection()
        sent = self.send()
        self.registry.remove_silently(A)
        self.network.advance(0.5)
        self.refuse()
        self.assertIs(self.code(sent), ResultCode.OFFLINE)


class UnknownGatewayTests(ClusterTestCase):
    """
    Routes to gateways that have not been heard of.
    """

    registered = (A,)

    def setUp(self) -> None:
        super().setUp()
        self.lookups = self.registry.lookups
        self.cache.put("bob", C)

    def test_gone(self) -> None:
        """
        The registry is asked once; without the gateway the user is offline.
        """
        self.assertIs(self.code(self.send()), ResultCode.OFFLINE)
        self.assertEqual(self.registry.lookups - self.lookups, 1)

    def test_asked_once_a_second(self) -> None:
        """
        More pushes to such users ask nobody again, for a second.
        """
        for _ in range(5):
            self.assertIs(self.code(self.send()), ResultCode.OFFLINE)
        self.assertEqual(self.registry.lookups - self.lookups, 1)
        self.network.advance(1)
        self.send()
        self.assertEqual(self.registry.lookups - self.lookups, 2)

    def test_each_address_for_itself(self) -> None:
        """
        What was said of one gateway says nothing of another.
        """
        self.cache.put("alice", B)
        self.send()
        self.send("alice")
        self.assertEqual(self.registry.lookups - self.lookups, 2)

    def test_shared_question(self) -> None:
        """
        Pushes at the same time share one question, whatever they look for.
        """
        self.cache.put("alice", B)
        self.registry.held = Deferred()
        sent = [self.send(), self.send(), self.send("alice")]
        sent[1].cancel()
        self.failureResultOf(sent[1])
        self.assertEqual(self.registry.lookups - self.lookups, 1)
        self.registry.held.callback([])
        self.assertIs(self.code(sent[0]), ResultCode.OFFLINE)
        self.assertIs(self.code(sent[2]), ResultCode.OFFLINE)
        self.send("alice")
        self.assertEqual(self.registry.lookups - self.lookups, 1)

    def test_found(self) -> None:
        """
        If the registry has it after all, it is connected, and the push goes out.
        """
        self.registry.add_silently(C, "c")
        sent = self.send()
        self.connect()
        self.network.advance(0)
        self.ok(C)
        self.assertIs(self.code(sent), ResultCode.SUCCESS)

    def test_found_and_gone_again(self) -> None:
        """
        One that was found so, and of which the registry never told, is forgotten when
        it is not found any more.
        """
        self.registry.add_silently(C, "c")
        self.send()
        self.connect()
        self.registry.remove_silently("c")
        self.cache.put("alice", B)
        self.send("alice")
        self.network.advance(3.1)
        self.assertFalse(self.transports[C].connected)
        self.assertTrue(self.transports[A].connected)

    def test_late_answer(self) -> None:
        """
        An answer that is older than what the registry has told since does not count.
        """
        old = self.registry.lookup("/cluster/gs")
        self.registry.held = Deferred()
        self.send()
        self.registry.add(B, A)
        self.connect()
        self.registry.held.callback(self.successResultOf(old))
        self.network.advance(GRACE)
        self.assertFalse(self.transports[A].connected)
        self.assertTrue(self.transports[B].connected)

    def test_registry_away(self) -> None:
        """
        If the registry is away nobody knows: a failure. The registry is not asked
        again for a second.
        """
        self.registry.away = True
        self.assertIs(self.code(self.send()), ResultCode.FAILURE)
        self.assertIs(self.code(self.send()), ResultCode.FAILURE)
        self.assertEqual(self.registry.lookups - self.lookups, 1)

    def test_registry_silent(self) -> None:
        """
        A registry that does not answer costs no more than the time-out.
        """
        self.registry.held = Deferred()
        sent = self.send()
        self.network.advance(3.1)
        self.assertIs(self.code(sent), ResultCode.FAILURE)

    def test_links_stay_while_registry_is_away(self) -> None:
        """
        Gateways that were known stay connected without the registry.
        """
        self.registry.away = True
        self.send()
        self.cache.put("alice", A)
        sent = self.send("alice")
        self.ok(A)
        self.assertIs(self.code(sent), ResultCode.SUCCESS)


class StoredRoutesTests(SynchronousTestCase):
    def test_nobody_is_not_remembered(self) -> None:
        """
        That a user has no route is looked up each time.
        """
        store = FakeCache(Clock())
        routes = StoredRoutes(store, DefaultClassifier(), Clock())
        for _ in range(2):
            self.assertEqual(self.successResultOf(routes.find("bob")), ())
        self.assertEqual(len(store.asked), 2)


class RouteCacheLimitTests(SynchronousTestCase):
    def test_oldest_give_way(self) -> None:
        """
        What is remembered is bounded: who was looked up longest ago is forgotten first.
        """
        self.patch(_routes, "MAX_REMEMBERED", 2)
        cache = RouteCache(Clock())
        for user in ("alice", "bob", "alice", "carol"):
            cache.put(user, (Route(A, 3001, 1),))
        self.assertIsNone(cache.get("bob"))
        self.assertIsNotNone(cache.get("alice"))
        self.assertIsNotNone(cache.get("carol"))

    def test_expired_go(self) -> None:
        """
        What has expired takes no memory for long.
        """
        clock = Clock()
        cache = RouteCache(clock)
        cache.put("alice", ())
        cache.put("bob", ())
        clock.advance(301)
        cache.put("carol", ())
        self.assertEqual(len(cache), 1)
