"""
A Redis Cluster whose slots move and whose nodes die.
"""

from __future__ import annotations

import re
import time

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from mpush_tw.config.settings import RedisSettings
from mpush_tw.errors import Unavailable
from mpush_tw.integrations.redis import RedisCache, RedisQueue
from mpush_tw.integrations.redis._cluster_nodes import ClusterNodes
from tests.integrations.contracts import steps
from tests.integrations.redis.support import (
    cluster,
    failing,
    shared_cluster,
    single,
    sleep,
    started_cache,
    started_queue,
    until,
)
from tests.servers import free_port
from tests.servers.redis import RedisCluster, RedisServer, redis_cluster

IN_A_HURRY = ("cluster-node-timeout 500",)
"""
For nodes that are to die: how soon the others notice, in milliseconds.
"""


class Redirections:
    """
    Counts what the nodes of a cluster answered since this was made: C{MOVED}, C{ASK}.
    """

    def __init__(self, servers: RedisCluster) -> None:
        self._servers = servers.servers
        for server in self._servers:
            server.cli("CONFIG", "RESETSTAT")

    def seen(self) -> set[str]:
        """
        Name the errors that were answered.
        """
        return {
            kind
            for server in self._servers
            for kind in re.findall(r"errorstat_(\w+)", server.cli("INFO", "errorstats"))
        }


class Move:
    """
    The move of one slot from its master to another, in the steps that redis-cli takes.
    """

    def __init__(self, servers: RedisCluster, key: str) -> None:
        """
        @param key: Lies in the slot.
        """
        self.servers = servers
        self.slot = str(servers.slot(key))
        self.source = servers.owner(key)
        self.target = next(s for s in servers.servers if s is not self.source)

    def begin(self) -> None:
        """
        Open the slot on both sides: from now on the source answers ASK for keys that it
        does not have.
        """
        source, target = map(self.servers.node_id, (self.source, self.target))
        self.target.cli("CLUSTER", "SETSLOT", self.slot, "IMPORTING", source)
        self.source.cli("CLUSTER", "SETSLOT", self.slot, "MIGRATING", target)

    def move_keys(self) -> None:
        """
        Move the keys.
        """
        password = self.target.password
        auth = ("AUTH", password) if password else ()
        keys = self.source.cli("CLUSTER", "GETKEYSINSLOT", self.slot, "1000")
        for key in keys.split():
            target = ("127.0.0.1", str(self.target.port))
            self.source.cli("MIGRATE", *target, key, "0", "5000", *auth)

    def end(self) -> None:
        """
        Give the slot to the target: from now on the source answers MOVED.
        """
        target = self.servers.node_id(self.target)
        for server in (self.target, self.source, *self.servers.servers):
            server.cli("CLUSTER", "SETSLOT", self.slot, "NODE", target)


class SlotTests(TestCase):
    """
    Slots that move.
    """

    timeout = 30

    @steps
    async def setUp(self) -> None:  # type: ignore[override]
        self.servers = shared_cluster()
        for server in self.servers.servers:
            server.cli("FLUSHALL")
        self.cache = await started_cache(self, cluster(self.servers))
        self.restored = 0
        self.cache.on_restored(self.count)

    def count(self) -> None:
        """
        Count.
        """
        self.restored += 1

    @steps
    async def test_spread(self) -> None:
        """
        Keys are spread over all masters.
        """
        await gatherResults([self.cache.set(f"k{n}", "v") for n in range(300)])
        for server in self.servers.servers:
            self.assertGreater(int(server.cli("DBSIZE")), 50)

    @steps
    async def test_moves_under_traffic(self) -> None:
        """
        While a slot moves, every command is run once, where its key is at that moment.
        """
        move = Move(self.servers, "{a}")
        counts = 0
        stop = False

        async def count(key: str) -> None:
            nonlocal counts
            while not stop:
                await self.cache.hincrby(key, "n", 1)
                counts += 1
                await sleep(0.001)

        redirections = Redirections(self.servers)
        counting = [
            Deferred.fromCoroutine(count(f"{{a}}{number}")) for number in range(5)
        ]
        await sleep(0.05)
        move.begin()
        await self.cache.set("{a}new", "v")
        self.assertEqual(await self.cache.get("{a}new"), "v")
        await self.cache.hswap("{a}swap", "f", "1")
        self.assertEqual(await self.cache.hswap("{a}swap", "f", "2"), "1")
        await sleep(0.05)
        move.move_keys()
        await sleep(0.05)
        self.assertIn("ASK", redirections.seen())
        move.end()
        await sleep(0.05)
        self.assertIn("MOVED", redirections.seen())
        stop = True
        await gatherResults(counting)
        found = [await self.cache.hget(f"{{a}}{number}", "n") for number in range(5)]
        self.assertEqual(sum(map(int, filter(None, found))), counts)
        self.assertEqual(self.servers.owner("{a}"), move.target)
        self.assertEqual(self.restored, 0)

    @steps
    async def test_moved_is_learnt(self) -> None:
        """
        After the first command that finds its slot moved, others go the right way.
        """
        move = Move(self.servers, "{b}")
        await self.cache.set("{b}", "v")
        move.begin()
        move.move_keys()
        move.end()
        redirections = Redirections(self.servers)
        self.assertEqual(await self.cache.get("{b}"), "v")
        self.assertEqual(redirections.seen(), {"MOVED"})
        redirections = Redirections(self.servers)
        self.assertEqual(await self.cache.get("{b}"), "v")
        self.assertEqual(redirections.seen(), set())

    @steps
    async def test_sent_in_circles(self) -> None:
        """
        A command that is sent on more than five times fails.
        """
        move = Move(self.servers, "{c}")
        source, target = map(self.servers.node_id, (move.source, move.target))
        # Each of the two believes that the other serves the slot, for a moment.
        move.source.cli("CLUSTER", "SETSLOT", move.slot, "NODE", target)
        try:
            error = await failing(self.cache.get("{c}"))
        finally:
            move.source.cli("CLUSTER", "SETSLOT", move.slot, "NODE", source)
        self.assertIn("sent GET on more than 5 times", str(error))

    @steps
    async def test_passwords_of_nodes(self) -> None:
        """
        A password behind the port of one node serves for all that are met.
        """
        for server in self.servers.servers:
            server.cli("CONFIG", "SET", "requirepass", "common")
            server.password = "common"
            self.addCleanup(setattr, server, "password", None)
            self.addCleanup(server.cli, "CONFIG", "SET", "requirepass", "")
        first, *_ = self.servers.servers
        cache = await started_cache(
            self,
            RedisSettings(cluster_model="cluster", nodes=(f"{first.address}:common",)),
        )
        await gatherResults([cache.set(f"k{number}", "v") for number in range(50)])
        for server in self.servers.servers:
            self.assertNotEqual(server.cli("DBSIZE"), "0")

    @steps
    async def test_stopped_at_once(self) -> None:
        """
        A stop that comes before the start is done ends it, with nothing left behind.
        """
        settings = cluster(self.servers)
        for provider in (RedisCache(settings, reactor), RedisQueue(settings, reactor)):
            started = provider.start()
            stopped = provider.stop()
            await failing(started)
            await stopped

    @steps
    async def test_left(self) -> None:
        """
        Stopping leaves nothing behind, also while the table is being asked for.
        """
        move = Move(self.servers, "{d}")
        move.begin()
        move.end()
        await self.cache.get("{d}")
        await self.cache.stop()
        error = await failing(self.cache.get("{d}"))
        self.assertIn("is not connected", str(error))


class NodeTests(TestCase):
    """
    Nodes that die; each test has a cluster of its own.
    """

    timeout = 60

    @steps
    async def setUp(self) -> None:  # type: ignore[override]
        self.servers = redis_cluster(
            password="common", extra=[*IN_A_HURRY, "cluster-require-full-coverage no"]
        )
        self.addCleanup(self.servers.stop)
        self.settings = cluster(self.servers, password="common")

    @steps
    async def test_master_dies(self) -> None:
        """
        When a master dies the keys of the others can be used, its own fail; when it is
        back, all can be, and the store is restored once.
        """
        cache = await started_cache(self, self.settings)
        restored: list[float] = []
        cache.on_restored(lambda: restored.append(time.monotonic()))
        keys = [f"k{number}" for number in range(100)]
        dead = self.servers.servers[1]
        lost = {key for key in keys if self.servers.owner(key) is dead}
        self.assertTrue(10 < len(lost) < 90)
        dead.kill()
        await failing(cache.get(next(iter(lost))))
        for key in keys:
            if key not in lost:
                await cache.set(key, "v")
        for key in lost:
            error = await failing(cache.set(key, "v"))
            self.assertIn(str(dead.port), str(error))
        self.assertEqual(restored, [])
        dead.start()
        await until(lambda: restored)
        for key in keys:
            await cache.set(key, "w")
        await sleep(0.3)
        self.assertEqual(len(restored), 1)

    @steps
    async def test_replica_takes_over(self) -> None:
        """
        When the replica of a dead master takes over, its keys can be used again without
        help, and the store is restored.
        """
        replica = RedisServer(
            password="common",
            extra=[
                "cluster-enabled yes",
                f"cluster-port {free_port()}",
                *IN_A_HURRY,
                "cluster-require-full-coverage no",
                "repl-diskless-sync-delay 0",
            ],
        )
        self.addCleanup(replica.stop)
        replica.start()
        master = self.servers.servers[0]
        self.servers.join(replica)
        replica.cli("CLUSTER", "REPLICATE", self.servers.node_id(master))
        cache = await started_cache(self, self.settings)
        restored: list[None] = []
        cache.on_restored(lambda: restored.append(None))
        key = next(
            key
            for key in (f"k{number}" for number in range(100))
            if self.servers.owner(key) is master
        )
        await cache.set(key, "v")
        await until(
            lambda: "master_link_status:up" in replica.cli("INFO", "replication")
        )
        await until(lambda: replica.cli("DBSIZE") != "0")
        master.kill()
        await until(lambda: restored, 20)
        self.assertEqual(await cache.get(key), "v")
        await cache.set(key, "w")
        self.assertEqual(len(restored), 1)

    @steps
    async def test_queue_moves(self) -> None:
        """
        When the node that a queue has subscribed at dies, it subscribes at another, and
        what is published at any node reaches it.
        """
        queue = await started_queue(self, self.settings)
        restored: list[None] = []
        queue.on_restored(lambda: restored.append(None))
        received: list[str] = []
        await queue.subscribe("/a", lambda topic, text: received.append(text))
        (address,) = queue._subscriber.addresses
        dead = next(s for s in self.servers.servers if s.port == address.port)
        dead.kill()
        began = time.monotonic()
        await until(lambda: restored)
        self.assertLess(time.monotonic() - began, 5)
        await until(lambda: queue._publisher.up)
        await queue.publish("/a", "1")
        alive = [server for server in self.servers.servers if server is not dead]
        for number, server in enumerate(alive):
            server.cli("PUBLISH", "/a", str(number))
        await until(lambda: len(received) == 3)

    @steps
    async def test_queue_leaves_former_member(self) -> None:
        """
        When the node that a queue has subscribed at is taken out of the cluster, which
        leaves its connections open, the queue subscribes at a member.
        """
        self.patch(ClusterNodes, "check_every", 0.1)
        queue = await started_queue(self, self.settings)
        restored: list[None] = []
        queue.on_restored(lambda: restored.append(None))
        received: list[str] = []
        await queue.subscribe("/a", lambda topic, text: received.append(text))
        (address,) = queue._subscriber.addresses
        former = next(s for s in self.servers.servers if s.port == address.port)
        members = [server for server in self.servers.servers if server is not former]
        name = self.servers.node_id(former)
        former.cli("CLUSTER", "RESET", "SOFT")
        for server in members:
            server.cli("CLUSTER", "FORGET", name)
        await until(lambda: restored)
        for number, server in enumerate(members):
            server.cli("PUBLISH", "/a", str(number))
        await until(lambda: len(received) == 2)

    @steps
    async def test_seed_dies(self) -> None:
        """
        Nodes that are not configured are met, and are enough when those that are have
        died.
        """
        first, *others = self.servers.servers
        settings = single(first, cluster_model="cluster", password="common")
        cache = await started_cache(self, settings)
        queue = await started_queue(self, settings)
        first.kill()
        restored: list[None] = []
        queue.on_restored(lambda: restored.append(None))
        await queue.subscribe("/a", lambda topic, text: None)
        keys = [key for key in "abcdefghijk" if self.owner(key, others)]
        for key in keys:
            await cache.set(key, "v")
        # A slot moves between two nodes that were never configured.
        self.servers.servers = others
        self.addCleanup(first.stop)
        move = Move(self.servers, keys[0])
        move.begin()
        move.move_keys()
        move.end()
        self.assertEqual(await cache.get(keys[0]), "v")

    def owner(self, key: str, servers: list[RedisServer]) -> bool:
        """
        Whether one of the servers serves a key.
        """
        return any(
            server.cli("CLUSTER", "KEYSLOT", key) and self._serves(server, key)
            for server in servers
        )

    def _serves(self, server: RedisServer, key: str) -> bool:
        try:
            server.cli("GET", key)
        except AssertionError:
            return False
        return True


class DownTests(TestCase):
    """
    A cluster that takes no commands while one of its masters is away.
    """

    timeout = 60

    @steps
    async def test_down(self) -> None:
        """
        Commands wait a little for the cluster and then fail; when it is well again, so
        is the store.
        """
        servers = redis_cluster(extra=IN_A_HURRY)
        self.addCleanup(servers.stop)
        cache = await started_cache(self, cluster(servers))
        dead = servers.servers[0]
        restored: list[str] = []
        cache.on_restored(lambda: restored.append(dead.cli("CLUSTER", "INFO")))
        key = next(
            key
            for key in (f"k{number}" for number in range(100))
            if servers.owner(key) is not dead
        )
        dead.kill()
        await until(
            lambda: "cluster_state:fail" in servers.servers[1].cli("CLUSTER", "INFO")
        )
        began = time.monotonic()
        error = await failing(cache.get(key))
        self.assertIn("CLUSTERDOWN", str(error))
        self.assertLess(time.monotonic() - began, 3)
        waiting = cache.get(key)
        dead.start()
        await until(lambda: restored, 20)
        # Not earlier: for two seconds after its start a node refuses everything.
        self.assertIn("cluster_state:ok", restored[0])
        self.assertIsNone(await cache.get(key))
        try:
            await waiting
        except Unavailable:
            pass


class StartTests(TestCase):
    """
    Clusters with which a start fails.
    """

    timeout = 30

    async def refused(self, settings: RedisSettings) -> str:
        """
        Start store and queue, which must fail alike, in time and with nothing left.
        """
        for provider in (RedisCache(settings, reactor), RedisQueue(settings, reactor)):
            began = time.monotonic()
            error = await failing(provider.start())
            self.assertLess(time.monotonic() - began, 5)
        return str(error)

    @steps
    async def test_nobody(self) -> None:
        """
        Nobody listens at any of the addresses; all are named.
        """
        ports = [free_port() for _ in range(3)]
        sentence = await self.refused(
            RedisSettings(
                cluster_model="cluster",
                nodes=tuple(f"127.0.0.1:{port}" for port in ports),
            )
        )
        for port in ports:
            self.assertIn(
                f"Redis at 127.0.0.1:{port} cannot be reached: connection refused",
                sentence,
            )

    @steps
    async def test_no_cluster(self) -> None:
        """
        The server is no node of a cluster.
        """
        server = RedisServer()
        self.addCleanup(server.stop)
        server.start()
        self.assertIn(
            f"Redis at {server.address} is no node of a cluster",
            await self.refused(single(server, cluster_model="cluster")),
        )

    @steps
    async def test_no_slots(self) -> None:
        """
        The node serves nothing and knows of nobody who does.
        """
        server = RedisServer(
            extra=["cluster-enabled yes", f"cluster-port {free_port()}"]
        )
        self.addCleanup(server.stop)
        server.start()
        self.assertEqual(
            await self.refused(single(server, cluster_model="cluster")),
            f"Redis at {server.address} knows of no slots that are served",
        )

    @steps
    async def test_needless_password(self) -> None:
        """
        A password is set that the nodes do not have.
        """
        self.assertIn(
            "has no password, but mp.redis.password is set",
            await self.refused(cluster(shared_cluster(), password="needless")),
        )

    @steps
    async def test_silent(self) -> None:
        """
        One seed says nothing; the others are enough.
        """
        hung = RedisServer()
        self.addCleanup(hung.stop)
        hung.start()
        hung.pause()
        settings = cluster(
            shared_cluster(), nodes=(hung.address, *shared_cluster().addresses)
        )
        began = time.monotonic()
        cache = await started_cache(self, settings)
        self.assertLess(time.monotonic() - began, 1)
        self.assertIsNone(await cache.get("nothing"))
        hung.resume()
