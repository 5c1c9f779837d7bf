"""
The cluster of a test: Redis, ZooKeeper and two nodes, each a real process.

They are started once for a class; what happens to them in a test is set right before
the next.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.trial.unittest import TestCase

from mpush_tw.bench.crowd import Crowd
from mpush_tw.bench.drill import SteadyPushes
from mpush_tw.bench.ledger import Ledger
from mpush_tw.bench.node import NodeProcess, cluster_settings
from mpush_tw.cluster import Stores, cluster_sender, shared_stores
from mpush_tw.config import Settings, load_settings
from mpush_tw.keys import SAMPLE_PUBLIC_KEY
from mpush_tw.protocol.routes import RemoteRoute
from mpush_tw.sender import PushSender, ResultCode
from tests.servers.redis import RedisServer
from tests.servers.zookeeper import ZooKeeperServer

HOSTS = ("127.0.0.1", "127.0.0.2")
SESSION_MS = 2000
"""
ZooKeeper's session time-out of the nodes: a dead one vanishes soon after.
"""

TIMES = os.environ.get("MPUSH_RECOVERY_TIMES")
"""
A file to which measured recoveries are added, a JSON object a line.
"""

_LOOK_EVERY = 0.05
_log = Logger()


def seconds() -> float:
    """
    The reactor's clock.
    """
    clock: Any = reactor
    now: float = clock.seconds()
    return now


def pause(length: float) -> Deferred[None]:
    """
    Let the reactor go on for so many seconds.
    """
    clock: Any = reactor
    return deferLater(clock, length)


async def until(
    true: Callable[[], bool | Awaitable[bool]], what: str, limit: float = 20.0
) -> float:
    """
    Ask again and again until the answer is yes.

    @return: Seconds that took.
    @raise AssertionError: When it takes longer than C{limit} seconds.
    """
    start = seconds()
    while True:
        answer = true()
        if isinstance(answer, bool):
            if answer:
                return seconds() - start
        elif await answer:
            return seconds() - start
        if seconds() - start > limit:
            raise AssertionError(f"waited {limit:g} s in vain for {what}")
        await pause(_LOOK_EVERY)


class SharedCluster:
    """
    The servers of one test class.

    @ivar nodes: Two node processes on different loopback addresses, started.
    """

    def __init__(self, settings: Mapping[str, object]) -> None:
        """
        @param settings: Of both nodes, beside those of every test cluster.
        """
        self.redis = RedisServer()
        self.zookeeper = ZooKeeperServer()
        self.settings = {
            **cluster_settings(self.redis.address, self.zookeeper.address, SESSION_MS),
            **settings,
        }
        self.nodes: list[NodeProcess] = []

    def start(self) -> None:
        """
        Start all of it.
        """
        self.start_redis()
        self.zookeeper.start()
        self.nodes = [NodeProcess(self.settings, host) for host in HOSTS]
        self.heal()

    def start_redis(self) -> None:
        """
        Start the Redis of this cluster.
        """
        self.redis.start()

    def heal_redis(self) -> None:
        """
        See that Redis runs.
        """
        self.redis.resume()
        try:
            self.redis.cli("PING")
        except AssertionError:
            self.redis.start()

    def heal(self) -> None:
        """
        See that everything runs, whatever the last test did to it.
        """
        self.heal_redis()
        self.zookeeper.resume()
        self.zookeeper.start()
        fresh = [node for node in self.nodes if not node.pid]
        for node in self.nodes:
            node.resume()
        for node in fresh:
            node.launch()
        for node in fresh:
            node.wait_started()

    def stop(self) -> None:
        """
        End all of it.
        """
        for node in self.nodes:
            node.close()
        self.zookeeper.stop()
        self.redis.stop()


class _Current:
    """
    The servers that run now, and for which class: trial knows no set-up of a class.
    """

    owner: type | None = None
    cluster: Any = None

    @classmethod
    def of(cls, owner: type, make: Callable[[], Any]) -> Any:
        """
        Give the servers of a class; those of another class are stopped first.
        """
        if cls.owner is not owner:
            cls.stop()
            cluster = make()
            try:
                cluster.start()
            except BaseException:
                cluster.stop()
                raise
            cls.owner, cls.cluster = owner, cluster
        return cls.cluster

    @classmethod
    def stop(cls) -> None:
        """
        Stop what runs.
        """
        cluster, cls.owner, cls.cluster = cls.cluster, None, None
        if cluster is not None:
            cluster.stop()


atexit.register(_Current.stop)


class ClusterTestCase(TestCase):
    """
    A test on two nodes, Redis and ZooKeeper.

    @cvar node_settings: Of both nodes.
    @ivar users: Whose devices the test has; named after it, so that no test meets what
        another has left in the store.
    """

    timeout = 120
    node_settings: ClassVar[Mapping[str, object]] = {}

    def make_cluster(self) -> Any:
        """
        Make what runs for the class; it is started and stopped by its methods of these
        names.
        """
        return SharedCluster(self.node_settings)

    def setUp(self) -> None:
        self.cluster: Any = _Current.of(type(self), self.make_cluster)
        self.cluster.heal()
        self.nodes: list[NodeProcess] = self.cluster.nodes
        self.ledger = Ledger()

    @property
    def redis(self) -> RedisServer:
        server: RedisServer = self.cluster.redis
        return server

    @property
    def zookeeper(self) -> ZooKeeperServer:
        server: ZooKeeperServer = self.cluster.zookeeper
        return server

    # ------------------------------------------------------ what a test has

    def names(self, count: int) -> list[str]:
        """
        Names of users that only this test has.
        """
        test = self.id().rpartition(".")[2].removeprefix("test_")
        return [f"{test}-{number}" for number in range(count)]

    async def crowd(
        self,
        users: Sequence[str],
        nodes: Sequence[NodeProcess] | None = None,
        device: str = "crowd",
    ) -> Crowd:
        """
        Bind a device for each user, in turn at each of the nodes; all leave at the end.
        """
        crowd = Crowd(
            reactor,
            SAMPLE_PUBLIC_KEY,
            [(node.host, node.port) for node in nodes or self.nodes],
            users,
            self.ledger.arrived,
            device,
        )
        self.addCleanup(crowd.close)
        await crowd.come(30.0)
        return crowd

    def loaded_settings(self) -> Settings:
        """
        The settings of the first node, as a sender reads them.
        """
        return load_settings(self.nodes[0].config, (), {}).settings

    async def sender(self, timeout: float = 3.0) -> SteadyPushes:
        """
        Start a sender; it stops at the end.
        """
        sender: PushSender = cluster_sender(self.loaded_settings(), reactor=reactor)
        await sender.start()
        self.addCleanup(sender.stop)
        return SteadyPushes(sender, self.ledger, timeout, reactor)

    async def stores(self) -> Stores:
        """
        Connect to the stores as a node does.
        """
        stores = shared_stores(self.loaded_settings(), reactor)
        for store in (stores.cache, stores.queue, stores.discovery):
            self.addCleanup(store.stop)
            await store.start()
        return stores

    # ------------------------------------------------------- what it looks at

    def ask(self, *args: str) -> str:
        """
        Ask Redis, by C{redis-cli}.
        """
        return self.redis.cli(*args)

    def route(self, user_id: str, client_type: int = 1) -> RemoteRoute | None:
        """
        The route in the store, by C{redis-cli}.
        """
        text = self.ask("HGET", f"mp:ur:{user_id}", str(client_type))
        return RemoteRoute.decode(text) if text else None

    def online_at(self, node: NodeProcess, users: Iterable[str]) -> bool:
        """
        Whether all routes of these users are online at this node.
        """
        return all(
            route is not None
            and route.online
            and (route.host, route.port) == (node.host, node.gateway_port)
            for route in map(self.route, users)
        )

    def offline(self, users: Iterable[str]) -> bool:
        """
        Whether all routes of these users are there and offline.
        """
        return all(
            route is not None and not route.online for route in map(self.route, users)
        )

    def listed(self, node: NodeProcess) -> set[str]:
        """
        The online list of a node.
        """
        text = self.ask("ZRANGE", f"mp:oul:{node.host}", "0", "-1")
        return set(text.splitlines())

    def listeners(self, node: NodeProcess) -> int:
        """
        How many subscribers the kick channel of a node has.
        """
        answer = self.ask("PUBSUB", "NUMSUB", f"/mpush/kick/{node.gateway}")
        return int(answer.splitlines()[1])

    def console(self, node: NodeProcess, command: str) -> str:
        """
        Ask a node's console; blocks for a moment.
        """
        with socket.create_connection(("127.0.0.1", node.admin_port), 5) as connection:
            connection.sendall(command.encode() + b"\nquit\n")
            said = b""
            while data := connection.recv(4096):
                said += data
        _, _, answers = said.decode().partition("now.\r\n\r\n")
        return answers.split("\r\n\r\n")[0]

    def counts_are_right(self, homes: Mapping[NodeProcess, Sequence[str]]) -> bool:
        """
        Whether the store says of each node exactly who is there, and the node has its
        way to the store to see the same.

        @param homes: For each node the users that are bound there, of all users.
        """
        return all(
            self.listed(node) == set(users)
            and int(self.ask("ZCARD", f"mp:oul:{node.host}")) == len(set(users))
            and self.console(node, "count online") == str(len(set(users)))
            and self.listeners(node) == 1
            and self.online_at(node, users)
            for node, users in homes.items()
        )

    async def counts_become_right(
        self,
        homes: Mapping[NodeProcess, Sequence[str]],
        what: str,
        limit: float = 20.0,
    ) -> None:
        """
        Wait until L{counts_are_right}.

        @raise AssertionError: When it takes longer, with what is wrong.
        """
        try:
            await until(lambda: self.counts_are_right(homes), what, limit)
        except AssertionError as error:
            wrong = [self._what_is_wrong(*home) for home in homes.items()]
            raise AssertionError("\n".join([str(error), *wrong])) from None

    def _what_is_wrong(self, node: NodeProcess, users: Sequence[str]) -> str:
        listed = self.listed(node)
        astray = [user for user in users if not self.online_at(node, [user])]
        return (
            f"{node.gateway}: {self.listeners(node)} subscribers, strangers listed "
            f"{sorted(listed - set(users))}, missing {sorted(set(users) - listed)}, "
            f"routes astray {[self.route(user) for user in astray]}\n"
            f"{node.log()[-3000:]}"
        )

    async def pushes_succeed(
        self, pushes: SteadyPushes, users: Sequence[str], limit: float = 30.0
    ) -> float:
        """
        Push to all until all get it in one and the same round.

        @return: Seconds until the end of that round.
        """

        async def round_ends_well() -> bool:
            results = await pushes.push_to_all(users)
            return all(code is ResultCode.SUCCESS for code in results.values())

        return await until(round_ends_well, "pushes to succeed", limit)

    def measured(self, what: str, taken: float) -> None:
        """
        State the time of a recovery: in the log, and in the file that
        C{MPUSH_RECOVERY_TIMES} names.
        """
        _log.info("{what}: {taken:.2f} s", what=what, taken=taken)
        if TIMES:
            entry = {"test": self.id(), "what": what, "seconds": round(taken, 2)}
            with Path(TIMES).open("a") as file:
                file.write(json.dumps(entry) + "\n")

    def assertNothingLost(self) -> None:
        """
        Every push has ended, and what was reported is what arrived.
        """
        account = self.ledger.account()
        self.assertTrue(account.adds_up, account)
        self.assertTrue(account.truthful, account)


async def failure_of(waiting: Deferred[Any]) -> Exception | None:
    """
    Wait for something that is expected to fail.

    @return: What it failed with; C{None} when it did not.
    """
    try:
        await waiting
    except Exception as error:
        return error
    return None
