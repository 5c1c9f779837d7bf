"""
Tests for L{mpush_tw.alloc}: the composition, with stores in memory.
"""

from __future__ import annotations

import json
from typing import Any

import attrs

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.alloc import AllocDoor, AllocService, LocalPushes, SenderPushes
from mpush_tw.config import Settings, load_settings
from mpush_tw.core.alloc import PushOrder
from mpush_tw.core.log import NodeLog
from mpush_tw.core.push.request import Outcome, PushRequest
from mpush_tw.errors import ConfigError, MPushError, PushError, Unavailable
from mpush_tw.integrations.memory import MemoryCache, MemoryRegistry
from mpush_tw.interfaces import ServiceNode
from mpush_tw.sender import (
    BroadcastResult,
    PushContext,
    PushResult,
    ResultCode,
)
from tests.transports.http import HttpAnswer, HttpConnection

NODE = ServiceNode("/cluster/cs", "10.0.0.5", 3000, {"weight": 1}, "node-1")
ALICE = PushOrder("alice", None, b"hello", "msg_1")
EVERYBODY = PushOrder(None, "tags != null", b"hello", "msg_2")


def settings(*overrides: str) -> Settings:
    """
    Read settings, as of an alloc or of a standalone node.
    """
    return load_settings(None, overrides, {}).settings


class BusyReactor(MemoryReactorClock):
    """
    A machine whose ports are all taken.
    """

    def listenTCP(self, port: int, *args: Any, **options: Any) -> Any:
        raise CannotListenError("", port, OSError(98, "Address already in use"))


class DoorTestCase(SynchronousTestCase):
    """
    A door with a registry that has one server.
    """

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.registry = MemoryRegistry()
        self.registry.register(NODE)
        self.events: list[dict[str, Any]] = []
        observer: Any = self.events.append
        self.log = NodeLog("info", self.reactor, observer)

    def door(self, *overrides: str, push: Any = None) -> AllocDoor:
        """
        Make a door.
        """
        return AllocDoor(
            settings(*overrides),
            self.registry,
            MemoryCache(self.reactor),
            push,
            self.reactor,
            self.log,
        )

    def refused(self, *overrides: str) -> ConfigError:
        """
        Make and open a door that cannot be.
        """
        return self.assertRaises(ConfigError, lambda: self.door(*overrides).open())

    def ask(self, path: str, method: str = "GET", body: bytes = b"") -> HttpAnswer:
        """
        Ask at the port that was opened last.
        """
        site = self.reactor.tcpServers[-1][1]
        return HttpConnection(site).ask(path, method, body)


class PortTests(DoorTestCase):
    """
    Where a door listens.
    """

    def test_default(self) -> None:
        """
        By default it listens on port 9999 of every address.
        """
        self.door().open()
        port, _, backlog, interface = self.reactor.tcpServers[0]
        self.assertEqual((port, interface), (9999, ""))
        self.assertGreaterEqual(backlog, 1024)

    def test_configured(self) -> None:
        """
        Port and address can be set.
        """
        self.door(
            "mp.net.alloc-server-port=81", "mp.net.alloc-server-bind-ip=10.0.0.9"
        ).open()
        port, _, _, interface = self.reactor.tcpServers[0]
        self.assertEqual((port, interface), (81, "10.0.0.9"))

    def test_endpoint(self) -> None:
        """
        An endpoint takes the place of both, and of the protocol.
        """
        door = self.door(
            "mp.net.alloc-server-endpoint=tcp:82:interface=10.0.0.9",
            "mp.net.alloc-server-protocol=https",
        )
        door.open()
        port, _, _, interface = self.reactor.tcpServers[0]
        self.assertEqual((port, interface), (82, "10.0.0.9"))

    def test_bad_endpoint(self) -> None:
        """
        What is no endpoint is refused by its key.
        """
        for text in ("9999x", "carrier-pigeon:1", "tcp:port=x", "ssl:1:privateKey=/no"):
            error = self.refused(f"mp.net.alloc-server-endpoint={text}")
            self.assertEqual(error.key, "mp.net.alloc-server-endpoint")
            self.assertIn(text, error.problem)

    def test_https(self) -> None:
        """
        For https it must be said where the certificate is, and how is told.
        """
        error = self.refused("mp.net.alloc-server-protocol=https")
        self.assertEqual(error.key, "mp.net.alloc-server-endpoint")
        self.assertIn("ssl:9999:privateKey=", error.problem)

    def test_busy(self) -> None:
        """
        A port that is taken is named with its key.
        """
        self.reactor = BusyReactor()
        error = self.refused()
        self.assertEqual(error.key, "mp.net.alloc-server-port")
        self.assertIn("port 9999 on every address", error.problem)
        error = self.refused("mp.net.alloc-server-endpoint=tcp:82")
        self.assertEqual(error.key, "mp.net.alloc-server-endpoint")
        self.assertIn("port 82", error.problem)

    def test_close(self) -> None:
        """
        Closing can be repeated, and a door that was never open can be closed.
        """
        door = self.door()
        self.successResultOf(door.close())
        door.open()
        self.assertEqual(door.port, 9999)
        self.successResultOf(door.close())
        self.successResultOf(door.close())
        self.assertEqual((door.port, door.shown), (0, "closed"))


class AnswerTests(DoorTestCase):
    """
    What the settings make of the answers.
    """

    def start(self, *overrides: str, push: Any = None) -> AllocDoor:
        """
        Have a door that serves.
        """
        door = self.door(*overrides, push=push)
        door.open()
        self.successResultOf(door.start())
        self.addCleanup(door.stop)
        return door

    def test_list(self) -> None:
        """
        The servers of the registry are listed.
        """
        self.start()
        self.assertEqual(self.ask("/").body, b"10.0.0.5:3000")

    def test_before_the_start(self) -> None:
        """
        Clients that ask too early are told to come again.
        """
        self.door().open()
        self.assertEqual(self.ask("/").code, 503)

    def test_strategy(self) -> None:
        """
        The strategy that is set is used.
        """
        self.registry.register(attrs.evolve(NODE, port=3100, node_id="node-2"))
        self.start("mp.alloc.strategy=round-robin")
        firsts = [self.ask("/").body[:13] for _ in range(3)]
        self.assertEqual(firsts, [b"10.0.0.5:3000", b"10.0.0.5:3100", b"10.0.0.5:3000"])

    def test_max_servers(self) -> None:
        """
        The answer is no longer than what is set.
        """
        self.registry.register(attrs.evolve(NODE, port=3100, node_id="node-2"))
        self.start("mp.alloc.max-servers=1")
        self.assertEqual(self.ask("/").body, b"10.0.0.5:3000")

    def test_origin(self) -> None:
        """
        Pages of the origin that is set may read the list.
        """
        self.start("mp.alloc.allow-origin=*")
        self.assertEqual(self.ask("/").headers["access-control-allow-origin"], "*")

    def test_push_is_off(self) -> None:
        """
        By default nothing can be pushed.
        """
        self.start(push=lambda order: succeed("success"))
        self.assertEqual(self.ask("/push", "POST", b'{"userId":"u"}').code, 404)
        self.assertEqual(self.ask("/index.html").code, 404)

    def test_push(self) -> None:
        """
        Where it is switched on there are a page and pushes.
        """
        orders: list[PushOrder] = []

        def push(order: PushOrder) -> Deferred[str]:
            orders.append(order)
            return succeed("success")

        self.start("mp.alloc.push-enabled=true", push=push)
        self.assertEqual(self.ask("/push", "POST", b'{"userId":"u"}').code, 200)
        self.assertEqual(self.ask("/index.html").code, 200)
        self.assertEqual([one.user_id for one in orders], ["u"])

    def test_token(self) -> None:
        """
        A token that is set is asked for.
        """
        self.start(
            "mp.alloc.push-enabled=true",
            "mp.alloc.push-token=t",
            push=lambda order: succeed("success"),
        )
        self.assertEqual(self.ask("/push", "POST", b'{"userId":"u"}').code, 401)

    def test_intervals(self) -> None:
        """
        Users are counted as often as is set.
        """
        cache = MemoryCache(self.reactor)
        door = AllocDoor(
            settings("mp.alloc.count-interval=1s"),
            self.registry,
            cache,
            None,
            self.reactor,
            self.log,
        )
        door.open()
        self.successResultOf(door.start())
        self.addCleanup(door.stop)
        cache.zadd("mp:oul:10.0.0.5", "alice")
        self.reactor.advance(1)
        (listed,) = json.loads(self.ask("/list.json").body)
        self.assertEqual(listed["online"], 1)


class FakePushDoor:
    """
    The way into a node's push centre.

    @ivar problem: If set, pushes are refused with it.
    """

    def __init__(self) -> None:
        self.requests: list[PushRequest] = []
        self.problem: Exception | None = None

    def push(self, request: PushRequest) -> None:
        if self.problem is not None:
            raise self.problem
        self.requests.append(request)

    def end(self, outcome: Outcome) -> None:
        """
        Say how the latest push ended.
        """
        request = self.requests[-1]
        request.listener.push_finished(request, outcome, [])


class LocalPushesTests(SynchronousTestCase):
    """
    Test pushes through the node's own push centre.
    """

    def setUp(self) -> None:
        self.door = FakePushDoor()
        self.pushes = LocalPushes(self.door)  # type: ignore[arg-type]

    def test_user(self) -> None:
        """
        A push goes to all devices of the user, without acknowledgement, for 3 seconds.
        """
        pushing = self.pushes.push(ALICE)
        (request,) = self.door.requests
        self.assertEqual((request.user_id, request.client_type), ("alice", 0))
        self.assertEqual((request.flags, request.timeout_ms), (0, 3000))
        self.assertEqual((request.content, request.condition), (b"hello", None))
        self.assertNoResult(pushing)
        self.door.end(Outcome.OFFLINE)
        self.assertEqual(self.successResultOf(pushing), "offline")

    def test_everybody(self) -> None:
        """
        A broadcast takes its condition along, and tells its counts.
        """
        pushing = self.pushes.push(EVERYBODY)
        (request,) = self.door.requests
        self.assertEqual((request.user_id, request.condition), (None, "tags != null"))
        request.report = {"sent": 5}
        self.door.end(Outcome.BROADCAST_COMPLETE)
        self.assertEqual(
            self.successResultOf(pushing), "broadcast_complete {'sent': 5}"
        )

    def test_refused(self) -> None:
        """
        What the node does not take is known at once.
        """
        for problem in (PushError("too large"), Unavailable("the node is starting")):
            self.door.problem = problem
            self.failureResultOf(self.pushes.push(ALICE), type(problem))


class FakeSender:
    """
    A sender that starts and answers when the test says so.
    """

    def __init__(self) -> None:
        self.starts: list[Deferred[None]] = []
        self.stops = 0
        self.sent: list[PushContext] = []
        self.broadcasts: list[PushContext] = []

    def start(self) -> Deferred[None]:
        self.starts.append(Deferred())
        return self.starts[-1]

    def stop(self) -> Deferred[None]:
        self.stops += 1
        return succeed(None)

    def send(self, context: PushContext) -> Deferred[PushResult]:
        self.sent.append(context)
        line = [("begin", 100), ("end", 107)]
        return succeed(PushResult(ResultCode.SUCCESS, "alice", line))

    def broadcast(self, context: PushContext) -> Deferred[BroadcastResult]:
        self.broadcasts.append(context)
        return succeed(BroadcastResult(ResultCode.FAILURE))


class SenderPushesTests(SynchronousTestCase):
    """
    Test pushes by a sender.
    """

    def setUp(self) -> None:
        self.sender = FakeSender()
        self.events: list[dict[str, Any]] = []
        observer: Any = self.events.append
        self.pushes = SenderPushes(
            self.sender,  # type: ignore[arg-type]
            NodeLog("info", MemoryReactorClock(), observer),
        )

    def started(self) -> None:
        """
        Have the sender started.
        """
        starting = self.pushes.start()
        self.sender.starts[-1].callback(None)
        self.successResultOf(starting)

    def test_user(self) -> None:
        """
        A push goes to the user, and its outcome has the time line.
        """
        self.started()
        outcome = self.successResultOf(self.pushes.push(ALICE))
        (context,) = self.sender.sent
        self.assertEqual((context.user_id, context.content), ("alice", b"hello"))
        self.assertEqual((int(context.ack), context.timeout), (0, 3.0))
        self.assertTrue(outcome.startswith("success Push-Time-Line[7](ms)"), outcome)

    def test_everybody(self) -> None:
        """
        A broadcast takes its condition along.
        """
        self.started()
        outcome = self.successResultOf(self.pushes.push(EVERYBODY))
        (context,) = self.sender.broadcasts
        told = (context.user_id, context.condition, context.content)
        self.assertEqual(told, (None, "tags != null", b"hello"))
        self.assertEqual(outcome, "failure at 0 gateways")

    def test_while_starting(self) -> None:
        """
        Pushes wait for a start that is under way; there is one start for all.
        """
        waiting = [self.pushes.start(), self.pushes.push(ALICE), self.pushes.start()]
        self.assertEqual((len(self.sender.starts), self.sender.sent), (1, []))
        self.sender.starts[0].callback(None)
        for one in waiting:
            self.successResultOf(one)
        self.assertEqual(len(self.sender.sent), 1)

    def test_start_failed(self) -> None:
        """
        When the sender cannot be started the push fails, and the next one tries again.
        """
        pushing = self.pushes.push(ALICE)
        self.sender.starts[0].errback(Unavailable("no Redis"))
        self.failureResultOf(pushing, Unavailable)
        again = self.pushes.push(ALICE)
        self.sender.starts[1].callback(None)
        self.assertIn("success", self.successResultOf(again))

    def test_begin(self) -> None:
        """
        It can be started without waiting; that this failed is logged.
        """
        self.pushes.begin()
        self.sender.starts[0].errback(Unavailable("no Redis"))
        (event,) = self.events
        self.assertEqual(event["error"], "no Redis")

    def test_stopped_meanwhile(self) -> None:
        """
        A start that is ended by a stop is no failure worth a line; a push that waits
        for it fails.
        """
        self.pushes.begin()
        pushing = self.pushes.push(ALICE)
        self.pushes.stop()
        self.sender.starts[0].errback(PushError("the sender was stopped"))
        self.failureResultOf(pushing, PushError)
        self.assertEqual(self.events, [])

    def test_stopped(self) -> None:
        """
        After a stop nothing is pushed, and the sender is not started again.
        """
        self.started()
        self.successResultOf(self.pushes.stop())
        self.failureResultOf(self.pushes.push(ALICE), Unavailable)
        self.assertEqual((len(self.sender.starts), self.sender.stops), (1, 1))


CLUSTER = (
    'mp.redis.nodes=["10.0.0.1:6379"]',
    "mp.zk.server-address=10.0.0.2:2181",
    "mp.spi.cache=memory",
    "mp.spi.mq-client=memory",
    "mp.spi.registry=memory",
    "mp.spi.service-discovery=memory",
    "mp.security.allow-sample-key=true",
)
"""
A cluster whose stores are in the memory of the test.
"""


class ServiceTests(SynchronousTestCase):
    """
    Alloc beside a cluster.
    """

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.events: list[dict[str, Any]] = []

    def make(self, *overrides: str) -> AllocService:
        """
        Make the service.
        """
        observer: Any = self.events.append
        loaded = load_settings(None, (*CLUSTER, *overrides), {})
        log = NodeLog("info", self.reactor, observer)
        return AllocService(loaded, self.reactor, log=log)

    def logged(self) -> str:
        """
        Everything that was logged.
        """
        return "\n".join(
            str(one["log_format"]).format(**one)
            for one in self.events
            if "log_failure" not in one
        )

    def test_standalone(self) -> None:
        """
        A standalone node's file is refused: that node serves alloc itself.
        """
        loaded = load_settings(None, (), {})
        error = self.assertRaises(ConfigError, AllocService, loaded, self.reactor)
        self.assertIn("mp.alloc.enabled=true", error.problem)

    def test_serves(self) -> None:
        """
        It opens its port, finds the servers, and says so.
        """
        service = self.make()
        self.successResultOf(service._stores.registry.register(NODE))
        service.privilegedStartService()
        service.startService()
        self.successResultOf(service.started)
        site = self.reactor.tcpServers[0][1]
        self.assertEqual(HttpConnection(site).ask("/").body, b"10.0.0.5:3000")
        self.assertIn("alloc at 0.0.0.0:9999: 1 servers", self.logged())
        self.assertIn(
            "====================ALLOC SERVER START SUCCESS=====================",
            self.logged(),
        )
        self.assertEqual(len(self.reactor.tcpServers), 1)

    def test_stop(self) -> None:
        """
        A stop closes the port, disconnects and leaves no timer; it can be repeated.
        """
        service = self.make()
        service.startService()
        self.successResultOf(service.started)
        self.successResultOf(service.stopService())
        self.successResultOf(service.stopService())
        self.assertEqual(service.door.port, 0)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertIn(
            "====================ALLOC SERVER STOPPED SUCCESS=====================",
            self.logged(),
        )

    def test_store_away(self) -> None:
        """
        A store that cannot be reached keeps it from starting, and the port is closed.
        """
        for name in ("cache", "discovery"):
            service = self.make()
            store: Any = getattr(service._stores, name)
            store.start = lambda: fail(Unavailable("it is away"))
            service.startService()
            self.failureResultOf(service.started, Unavailable)
            self.assertEqual(service.door.port, 0)
            self.successResultOf(service.stopService())
        self.assertNotIn("SUCCESS", self.logged())

    def test_bug_at_start(self) -> None:
        """
        A bug keeps it from starting as well, and is logged as one.
        """
        service = self.make()
        cache: Any = service._stores.cache
        cache.start = lambda: fail(ZeroDivisionError())
        service.startService()
        self.failureResultOf(service.started, ZeroDivisionError)
        self.assertEqual(len([one for one in self.events if "log_failure" in one]), 1)

    def test_stopped_while_it_starts(self) -> None:
        """
        A stop while a store is being connected ends the start.
        """
        service = self.make()
        cache: Any = service._stores.cache
        cache.start = lambda: Deferred()
        service.startService()
        self.successResultOf(service.stopService())
        failure = self.failureResultOf(service.started, MPushError)
        self.assertIn("stopped while it started", str(failure.value))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_port_in_use(self) -> None:
        """
        A port that is taken is said before anything is connected.
        """
        self.reactor = BusyReactor()
        service = self.make()
        error = self.assertRaises(ConfigError, service.privilegedStartService)
        self.assertEqual(error.key, "mp.net.alloc-server-port")

    def test_pushes(self) -> None:
        """
        Test pushes go through a sender that is started with it and ends with it.
        """
        service = self.make("mp.alloc.push-enabled=true")
        service.startService()
        self.successResultOf(service.started)
        self.reactor.advance(0)
        site = self.reactor.tcpServers[0][1]
        client = HttpConnection(site)
        answer = client.ask("/push", "POST", b'{"userId":"alice"}')
        self.assertEqual(answer.code, 200)
        client.transport.loseConnection()
        self.reactor.advance(0)
        self.assertIn("test push msg_1 to alice: offline", self.logged())
        self.successResultOf(service.stopService())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_push_rules_are_announced(self) -> None:
        """
        At the start one reads who may push.
        """
        for overrides, rule in (
            ((), "test pushes off"),
            (("mp.alloc.push-enabled=true",), "from this machine only"),
            (
                ("mp.alloc.push-enabled=true", "mp.alloc.push-token=s3cret"),
                "with the token",
            ),
        ):
            service = self.make(*overrides)
            service.startService()
            self.successResultOf(service.started)
            self.assertIn(rule, self.logged())
            self.successResultOf(service.stopService())
        self.assertNotIn("s3cret", self.logged())
