"""
A cluster for tests: Redis, ZooKeeper, nodes of both kinds, senders and devices.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from types import ModuleType
from typing import Any, TypeVar
from unittest import mock

import attrs
from kazoo.client import KazooClient  # type: ignore[import-untyped]
from kazoo.exceptions import NoNodeError  # type: ignore[import-untyped]

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python import log
from twisted.python.failure import Failure
from twisted.trial.runner import TestLoader
from twisted.trial.unittest import TestCase, TestSuite

from mpush_tw import cluster
from mpush_tw.client import (
    Client,
    ClientListener,
    ClientSettings,
    ISessionStorage,
    KickPolicy,
)
from mpush_tw.config import Settings, load_settings
from mpush_tw.integrations.memory import MemoryQueue
from mpush_tw.sender import AckModel, PushContext, PushResult
from tests.interop.build import Drivers, build_drivers
from tests.interop.processes import (
    ACK_DELAY,
    START_S,
    SUCCESS,
    TIMEOUT,
    Doors,
    JavaDevice,
    JavaNode,
    JavaSender,
    OurNode,
    Outcome,
    pause,
)
from tests.servers.redis import RedisServer, wait_until
from tests.servers.zookeeper import ZooKeeperServer
from tests.support import SAMPLE

NET = os.environ.get("MPUSH_INTEROP_NET", "tcp")
"""
C{mp.net.gateway-server-net} of all members. With C{udp} the test run has to be in a
network of its own: see L{tests.interop.network}.
"""

_HOSTS = "127.0.0." if NET == "tcp" else "10.77.0."
"""
Begins the addresses of the nodes, of which each has its own (cluster 12.1, 12). The
original wants a private one for UDP.
"""

NAMESPACE = "/mpush"
DIGEST = "mpush"

MOBILE, PC, WEB = 1, 2, 3

_Answer = TypeVar("_Answer")

Node = JavaNode | OurNode


async def until(
    answer: Callable[[], _Answer], what: str, seconds: float = 10.0
) -> _Answer:
    """
    Ask again and again until the answer counts as true, the reactor running meanwhile.

    @param what: What is waited for, for the failure.
    @return: That answer.
    @raise AssertionError: When it takes too long.
    """
    deadline = time.monotonic() + seconds
    while not (found := answer()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} seconds in vain for {what}")
        await pause(0.05)
    return found


class Cluster:
    """
    Members are started when they are first asked for, and stay.

    @ivar redis: The one Redis.
    @ivar zookeeper: The one ZooKeeper.
    """

    def __init__(self) -> None:
        self.drivers: Drivers = build_drivers()
        self.redis = RedisServer()
        self.zookeeper = ZooKeeperServer()
        self._members: list[Any] = [self.zookeeper, self.redis]
        atexit.register(self.stop)
        self.redis.start()
        self.zookeeper.start()

    def stop(self) -> None:
        """
        End everything. May be called again.
        """
        atexit.unregister(self.stop)
        while self._members:
            self._members.pop().stop()

    @property
    def settings(self) -> list[str]:
        """
        The lines of configuration that all members have.
        """
        return [
            f'mp.zk.server-address="{self.zookeeper.address}"',
            f'mp.redis.nodes=["{self.redis.address}"]',
            f"mp.net.gateway-server-net={NET}",
            "mp.core.min-heartbeat=3s",
        ]

    # ------------------------------------------------------------- members

    @cached_property
    def java_node(self) -> JavaNode:
        """
        The node that the checks call J.
        """
        return self.add_java_node("java", 3)

    @cached_property
    def other_java_node(self) -> JavaNode:
        """
        A second node of the original, for comparisons.
        """
        return self.add_java_node("java-2", 4)

    @cached_property
    def our_node(self) -> OurNode:
        """
        The node that the checks call P.
        """
        return self.add_our_node("ours", 2)

    @cached_property
    def java_sender(self) -> JavaSender:
        """
        The sender that the checks call S.
        """
        sender = JavaSender("sender", self.drivers, self.settings)
        self._members.append(sender)
        sender.start()
        return sender

    def add_java_node(self, name: str, number: int) -> JavaNode:
        """
        Start a node of the original.

        @param number: Ends its address, from 2 to 9; each node has its own.
        """
        node = JavaNode(name, self.drivers, f"{_HOSTS}{number}", self.settings)
        self._members.append(node)
        node.start()
        return node

    def add_our_node(self, name: str, number: int) -> OurNode:
        """
        Start a node of ours, and wait until it has registered.

        @param number: As L{add_java_node}.
        """
        node = OurNode(name, f"{_HOSTS}{number}", self.settings)
        self._members.append(node)
        node.spawn()
        self.wait_registered(node)
        return node

    def wait_registered(self, node: Node) -> None:
        """
        Block until a node's gateway is found in ZooKeeper.
        """

        def found() -> bool:
            assert node.running, f"{node!r} has ended:\n{node.output()}"
            return node.doors.gateway in self.addresses("gs")

        wait_until(found, f"{node!r} to register", START_S)

    # ------------------------------------------------------------- ZooKeeper

    @cached_property
    def tree(self) -> KazooClient:
        """
        A client that may read what the nodes write.
        """
        client = self.connect_tree(auth_data=[("digest", DIGEST)])
        self._members.append(_Closing(client))
        return client

    def connect_tree(self, **options: Any) -> KazooClient:
        """
        Connect a client of kazoo; the caller stops and closes it.
        """
        client = KazooClient(self.zookeeper.address, timeout=30, **options)
        client.start(START_S)
        return client

    def registered(self, service: str) -> dict[str, dict[str, Any]]:
        """
        List the nodes of a service, C{cs}, C{gs} or C{ws}: path and content.
        """
        parent = f"{NAMESPACE}/cluster/{service}"
        found = {}
        try:
            for name in self.tree.get_children(parent):
                data, _ = self.tree.get(f"{parent}/{name}")
                found[f"{parent}/{name}"] = json.loads(data)
        except NoNodeError:
            # Not there yet, or one that left in between.
            pass
        return found

    def addresses(self, service: str) -> list[str]:
        """
        List the C{host:port} of the nodes of a service.
        """
        nodes = self.registered(service).values()
        return [f"{node['host']}:{node['port']}" for node in nodes]

    # ------------------------------------------------------------- Redis

    def routes(self, user: str) -> dict[int, dict[str, Any]]:
        """
        Read a user's routes: client type and content.
        """
        lines = self.redis.cli("HGETALL", f"mp:ur:{user}").splitlines()
        texts = dict(zip(lines[::2], lines[1::2], strict=True))
        return {int(field): json.loads(text) for field, text in texts.items()}

    def online(self, user: str, client_type: int = MOBILE) -> dict[str, Any] | None:
        """
        Read a user's route of one type; C{None} when there is none or it is offline.
        """
        route = self.routes(user).get(client_type)
        return route if route is not None and "connId" in route else None

    def sessions(self) -> int:
        """
        Count the stored reusable sessions.
        """
        return len(self.redis.cli("KEYS", "mp:rs:*").splitlines())

    def subscribers(self, channel: str) -> int:
        """
        Count who listens to a channel.
        """
        return int(self.redis.cli("PUBSUB", "NUMSUB", channel).splitlines()[1])


@attrs.frozen
class _Closing:
    client: KazooClient

    def stop(self) -> None:
        self.client.stop()
        self.client.close()


_shared: Cluster | None = None


def shared_cluster() -> Cluster:
    """
    Give the cluster that most tests use, so that a JVM starts once and not for each of
    them. Who breaks something of it mends it again, or calls L{drop_shared_cluster}.
    """
    global _shared
    if _shared is None:
        _shared = Cluster()
    return _shared


def drop_shared_cluster() -> None:
    """
    End it; the next who asks gets a new one.
    """
    global _shared
    if _shared is not None:
        _shared.stop()
        _shared = None


class OurDevice(ClientListener):
    """
    A device with our client, that does nothing by itself when it is kicked.

    @ivar pushes: The texts received, with the ids to confirm or 0, in order.
    @ivar kicks: The users it was kicked for.
    @ivar connects: How often it has had a connection.
    @ivar ack_delay: Seconds until a push is acknowledged automatically: see
        L{ACK_DELAY}.
    """

    ack_delay = ACK_DELAY

    def __init__(
        self,
        name: str,
        server: tuple[str, int],
        user: str | None = None,
        os_name: str = "android",
        storage: ISessionStorage | None = None,
        tags: str | None = None,
        alloc: str | None = None,
    ) -> None:
        """
        @param alloc: The URL where it asks for a server, instead of C{server}.
        """
        self.name = name
        self.user = user
        self.tags = tags
        self.pushes: list[tuple[str, int]] = []
        self.kicks: list[str] = []
        self.connects = 0
        self._acks: set[Deferred[None]] = set()
        self._client = Client(
            ClientSettings(
                device_id=name,
                server_host=None if alloc else server[0],
                server_port=server[1],
                alloc_server=alloc,
                public_key=SAMPLE["rsaPublicKeyBase64"],
                os_name=os_name,
                session_storage=storage,
                kick_policy=KickPolicy.REBIND,
            ),
            self,
            reactor=reactor,
        )

    @property
    def server(self) -> tuple[str, int] | None:
        """
        Where it is connected.
        """
        return self._client.server

    async def connect(self) -> None:
        """
        Connect, shake hands or come back by the stored session, and bind the user.
        """
        self._client.start()
        await self._client.when_online().addTimeout(10, reactor)
        if self.user is not None:
            await self._client.bind_user(self.user, self.tags)

    def leave(self) -> Deferred[None]:
        """
        Close the connection and stay away.
        """
        for waiting in [*self._acks]:
            waiting.cancel()
        return self._client.stop()

    def ack(self, message_id: int) -> None:
        """
        Confirm a push as the application does.
        """
        assert self._client.ack(message_id)

    def on_connected(self) -> None:
        self.connects += 1

    def on_receive_push(self, content: bytes, message_id: int) -> Deferred[None]:
        self.pushes.append((content.decode(), message_id))
        waiting = deferLater(reactor, self.ack_delay)
        self._acks.add(waiting)
        return waiting.addBoth(lambda _: self._acks.discard(waiting))

    def on_kick_user(self, device_id: str, user_id: str) -> None:
        self.kicks.append(user_id)

    async def pushed(self, text: str, seconds: float = 5.0) -> int:
        """
        Wait for a push.

        @return: Its id, 0 if the application need not confirm.
        """

        def found() -> list[int]:
            return [number for said, number in self.pushes if said == text]

        return (await until(found, f"the push {text!r} to {self.name}", seconds))[0]

    async def kicked(self) -> None:
        """
        Wait until it is kicked.
        """
        await until(lambda: self.kicks, f"{self.name} to be kicked")


def full_set(module: str) -> Callable[[], TestSuite]:
    """
    Make the C{test_suite} of a module whose tests belong to the full set: empty unless
    C{MPUSH_INTEROP=all}, and with UDP only the cases that name it in C{nets}. So a test
    run without it takes a minute and not ten, and has nothing to skip. Tests that are
    named one by one run in any case.

    @param module: Its C{__name__}.
    """

    def test_suite() -> TestSuite:
        suite = TestSuite()
        return (
            whole(module, suite) if os.environ.get("MPUSH_INTEROP") == "all" else suite
        )

    return test_suite


def whole(module: str, suite: TestSuite) -> TestSuite:
    """
    Add the tests of a module that are for the L{NET} in use.

    @param module: Its C{__name__}.
    """
    for found in of_this_net(sys.modules[module]):
        suite.addTest(TestLoader().loadClass(found))
    return suite


def of_this_net(module: ModuleType) -> list[type[TestCase]]:
    """
    List a module's test cases that are for the L{NET} in use.
    """
    return [
        case
        for case in TestLoader().findTestClasses(module)
        if NET in getattr(case, "nets", ("tcp",)) and case is not InteropTestCase
    ]


measured: list[tuple[str, str]] = []
"""
What tests have to tell besides that they passed: their ids and a sentence.
"""


_shared_stores = cluster.shared_stores


def _deaf_stores(settings: Settings, clock: Any, extensions: Any = None) -> Any:
    """
    The cluster's stores, but a message queue in which nobody says anything.
    """
    return attrs.evolve(
        _shared_stores(settings, clock, extensions), queue=MemoryQueue(clock)
    )


class OurSender:
    """
    Our sender in the cluster, with the surface of L{JavaSender}.
    """

    def __init__(self, settings: Sequence[str], deaf: bool = False) -> None:
        """
        @param settings: Lines of configuration.
        @param deaf: Whether it shall not hear when users come and go, and so believe
            what it has looked up until somebody tells it better.
        """
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as conf:
            conf.write("\n".join([*settings, "mp.security.allow-sample-key=true"]))
            conf.flush()
            loaded = load_settings(conf.name).settings
        stores = _deaf_stores if deaf else _shared_stores
        with mock.patch.object(cluster, "shared_stores", stores):
            self._sender = cluster.cluster_sender(loaded, reactor=reactor)
        self._results: list[PushResult | Failure | None] = []

    def start(self) -> Deferred[None]:
        """
        Connect to the stores and to the gateways found.
        """
        return self._sender.start()

    def stop(self) -> Deferred[None]:
        """
        Close all connections.
        """
        return self._sender.stop()

    def begin_push(
        self, user: str, text: str, ack: str = "NO_ACK", timeout_ms: int = 3000
    ) -> int:
        """
        See L{JavaSender.begin_push}.
        """
        context = PushContext(
            content=text.encode(),
            user_id=user,
            ack=AckModel[ack],
            timeout=timeout_ms / 1000,
        )
        number = len(self._results)
        self._results.append(None)
        self._sender.send(context).addBoth(partial(self._results.__setitem__, number))
        return number

    async def broadcast(
        self,
        text: str,
        tags: str | None = None,
        condition: str | None = None,
        task: str | None = None,
    ) -> int:
        """
        See L{JavaSender.broadcast}.
        """
        context = PushContext(
            content=text.encode(),
            tags=None if tags is None else tags.split(","),
            condition=condition,
            task_id=task,
        )
        return int((await self._sender.broadcast(context)).code)

    def has_result(self, number: int) -> bool:
        """
        Whether a push has a result.
        """
        return self._results[number] is not None

    async def result(self, number: int) -> Outcome:
        """
        Wait for the result of a push.
        """
        await until(lambda: self.has_result(number), "the result of a push")
        result = self._results[number]
        if isinstance(result, Failure):
            result.raiseException()
        assert isinstance(result, PushResult)
        route = result.location
        return Outcome(
            int(result.code),
            None if route is None else f"{route.host}:{route.port}",
            None if route is None else route.client_type,
            [name for name, _ in result.time_line],
        )

    async def push(
        self, user: str, text: str, ack: str = "NO_ACK", timeout_ms: int = 3000
    ) -> Outcome:
        """
        See L{JavaSender.push}.
        """
        return await self.result(self.begin_push(user, text, ack, timeout_ms))


Device = JavaDevice | OurDevice
Sender = JavaSender | OurSender


class InteropTestCase(TestCase):
    """
    A test in the shared cluster.

    @cvar nets: The values of C{mp.net.gateway-server-net} that it is for.
    @ivar cluster: That cluster.
    """

    timeout = 120
    nets: tuple[str, ...] = ("tcp",)

    def setUp(self) -> None:
        self.cluster = shared_cluster()

    @property
    def user(self) -> str:
        """
        A user of this test only: what senders remember of a user outlives a test.
        """
        case, method = self.id().split(".")[-2:]
        return f"{case}-{method}"

    def node(self, kind: str) -> Node:
        """
        Give the node of a kind: C{java}, C{ours} or C{other java}.
        """
        if kind == "ours":
            return self.cluster.our_node
        if kind == "java":
            return self.cluster.java_node
        return self.cluster.other_java_node

    async def a_sender(self, kind: str) -> Sender:
        """
        Give the sender of a kind, C{java}, C{ours} or C{deaf} (one of ours, see
        L{OurSender}), connected to all gateways.
        """
        if kind != "java":
            ours = OurSender(self.cluster.settings, deaf=kind == "deaf")
            self.addCleanup(ours.stop)
            await ours.start()
            return ours
        sender = self.cluster.java_sender
        if NET == "udp":
            # It connects to nobody; that it has heard of the nodes does not show.
            await pause(0.5)
            return sender
        ports = {node["port"] for node in self.cluster.registered("gs").values()}
        await until(
            lambda: all(map(sender.connections, ports)), "the sender to connect"
        )
        if not ports <= sender.used:
            # Connected is not yet known to be connected, in another thread of it.
            await pause(0.5)
            sender.used |= ports
        return sender

    def renew_java_sender(self) -> None:
        """
        Start their sender anew: after a node has gone it may keep connections that are
        dead, or none to a node that is back (C-39, C-40).
        """
        self.cluster.java_sender.kill()
        self.cluster.java_sender.start()

    async def a_device(
        self, kind: str, name: str, doors: Doors, user: str, **options: Any
    ) -> Device:
        """
        Connect a device of a kind.
        """
        connect = self.java_device if kind == "java" else self.our_device
        return await connect(name, doors, user, **options)

    async def our_device(
        self, name: str, doors: Doors, user: str | None = None, **options: Any
    ) -> OurDevice:
        """
        Connect a device of ours, that leaves after the test.

        @param options: As L{OurDevice} takes them.
        """
        device = OurDevice(name, doors.address, user, **options)
        self.addCleanup(device.leave)
        await device.connect()
        return device

    async def java_device(
        self, name: str, doors: Doors, user: str | None = None, **options: Any
    ) -> JavaDevice:
        """
        Connect a device of the original, that leaves after the test.

        @param options: As L{JavaDevice} takes them.
        """
        device = JavaDevice(name, self.cluster.drivers, doors.address, user, **options)
        self.addCleanup(device.stop)
        await device.connect()
        if user is not None:
            await until(lambda: self.route_of(name, user), f"{name} to be bound")
        return device

    def route_of(self, device: str, user: str) -> dict[str, Any] | None:
        """
        Find the online route of a device.
        """
        return next(
            (
                route
                for route in self.cluster.routes(user).values()
                if route["deviceId"] == device and "connId" in route
            ),
            None,
        )

    async def push(
        self, sender: Sender, user: str, text: str, ack: str = "NO_ACK"
    ) -> Outcome:
        """
        Push, again if the original's sender has missed the answer: it is not ready for
        one that comes within a fraction of a millisecond (C-38).
        """
        for _ in range(3):
            outcome = await sender.push(user, text, ack)
            if outcome.code != TIMEOUT or not isinstance(sender, JavaSender):
                break
            self.note("their sender missed an answer (C-38)")
        return outcome

    async def reaches_again(
        self, sender: Sender, user: str, text: str, seconds: float = 40.0
    ) -> list[Outcome]:
        """
        Push until it succeeds.

        @return: The outcomes before that.
        """
        failures: list[Outcome] = []
        deadline = time.monotonic() + seconds
        while (outcome := await sender.push(user, text, "AUTO_ACK")).code != SUCCESS:
            failures.append(outcome)
            self.assertLess(time.monotonic(), deadline, failures)
            await pause(0.5)
        return failures

    def report(self, what: str, since: float) -> None:
        """
        Say how long something took; C{make interop} shows it.
        """
        self.note(f"{what} after {time.monotonic() - since:.1f} s")

    def note(self, sentence: str) -> None:
        """
        Say something that C{make interop} shows.
        """
        measured.append((self.id(), sentence))
        log.msg(f"{self.id()}: {sentence}")
