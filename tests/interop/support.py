"""
A cluster for tests: Redis, ZooKeeper, nodes of both kinds, senders and devices.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import time
from collections.abc import Callable
from functools import cached_property
from types import ModuleType
from typing import Any

import attrs
from kazoo.client import KazooClient  # type: ignore[import-untyped]
from kazoo.exceptions import NoNodeError  # type: ignore[import-untyped]

from twisted.python import log
from twisted.trial.runner import TestLoader
from twisted.trial.unittest import TestCase, TestSuite

from tests.interop.build import Drivers, build_drivers
from tests.interop.ours import OurDevice, OurSender
from tests.interop.processes import (
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
    until,
)
from tests.servers.redis import RedisServer, wait_until
from tests.servers.zookeeper import ZooKeeperServer

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

MOBILE, PC = 1, 2

Node = JavaNode | OurNode


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

    def setUp(self) -> Any:
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
