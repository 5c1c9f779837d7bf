"""
The master of sentinels, and what happens when another one takes its place.
"""

from __future__ import annotations

import time
from typing import Any

import attrs

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from mpush_tw.config.settings import RedisSettings
from mpush_tw.integrations.redis import RedisCache, RedisQueue, _connection
from tests.integrations.contracts import steps
from tests.integrations.redis.support import (
    failing,
    sentinel,
    shared_sentinels,
    sleep,
    started_cache,
    started_queue,
    until,
)
from tests.servers import free_port
from tests.servers.redis import RedisServer, SentinelSet, sentinel_set


class FailoverTests(TestCase):
    """
    A master that is lost or gives way; each test has sentinels of its own.
    """

    timeout = 60

    @steps
    async def setUp(self) -> None:  # type: ignore[override]
        self.servers: SentinelSet = sentinel_set(
            password="of-master", sentinel_password="of-sentinel"
        )
        self.addCleanup(self.servers.stop)
        settings = sentinel(self.servers)
        self.cache = await started_cache(self, settings)
        self.queue = await started_queue(self, settings)
        self.restored: list[str] = []
        self.cache.on_restored(lambda: self.restored.append("cache"))
        self.queue.on_restored(lambda: self.restored.append("queue"))
        self.received: list[str] = []
        await self.queue.subscribe("/a", lambda topic, text: self.received.append(text))

    async def both_restored(self) -> None:
        """
        Wait until store and queue are there again, and see that they work.
        """
        await until(lambda: {*self.restored} == {"cache", "queue"}, 20)
        await self.cache.set("after", "there")
        self.assertEqual(await self.cache.get("after"), "there")
        await until(lambda: self.queue._publisher.up)
        await self.queue.publish("/a", "after")
        await until(lambda: self.received)
        self.assertEqual(self.received, ["after"])

    @steps
    async def test_master_dies(self) -> None:
        """
        When the master dies, the replica is used as soon as sentinels have promoted it;
        what was replicated is there.
        """
        await self.cache.set("k", "v")
        old, new = self.servers.master, self.servers.replica
        await until(lambda: new.cli("GET", "k") == "v")
        old.kill()
        began = time.monotonic()
        await self.both_restored()
        self.assertEqual(await self.cache.get("k"), "v")
        self.assertEqual(new.cli("GET", "after"), "there")
        self.assertEqual(sorted(self.restored), ["cache", "queue"])
        self.assertLess(time.monotonic() - began, 15)

    @steps
    async def test_master_gives_way(self) -> None:
        """
        When the master gives way in good order, the new one is used within a few
        seconds, and no write is lost on the way.
        """
        new = self.servers.replica
        self.servers.sentinels[0].cli("SENTINEL", "FAILOVER", self.servers.name)
        await self.both_restored()
        self.assertEqual(new.cli("GET", "after"), "there")

    @steps
    async def test_master_falls_silent(self) -> None:
        """
        When the master stops without a word, the new one is used, also after the old
        one goes on and still takes itself for the master. The sentinels say so: nobody
        has to run into its silence first.
        """
        self.patch(_connection, "IDLE", 1000)
        old, new = self.servers.master, self.servers.replica
        old.pause()
        await self.both_restored()
        old.resume()
        await self.cache.set("later", "there")
        self.assertEqual(new.cli("GET", "later"), "there")

    @steps
    async def test_demoted(self) -> None:
        """
        A master that has become a replica without anybody saying so is left at its
        first refusal to write; what it refused goes to the master, whatever it is.
        """
        old, new = self.servers.master, self.servers.replica
        for watcher in self.servers.sentinels:
            # Nobody tells of the change, nor closes connections.
            watcher.cli("SENTINEL", "REMOVE", self.servers.name)
        new.cli("REPLICAOF", "NO", "ONE")
        old.cli("REPLICAOF", "127.0.0.1", str(new.port))
        for watcher in self.servers.sentinels:
            watcher.cli(
                "SENTINEL",
                "MONITOR",
                self.servers.name,
                "127.0.0.1",
                str(new.port),
                "2",
            )
            watcher.cli("SENTINEL", "SET", self.servers.name, "auth-pass", "of-master")
        calls: list[Deferred[Any]] = [
            self.cache.hincrby("h", "n", 1),
            self.cache.hswap("h", "f", "v"),
            self.cache.set("k", "v"),
            self.cache.lpush("l", ["a"]),
        ]
        self.assertEqual(await gatherResults(calls), [1, None, None, None])
        self.assertEqual(new.cli("GET", "k"), "v")
        self.assertIn("cache", self.restored)


class SentinelsTests(TestCase):
    """
    Asking sentinels.
    """

    timeout = 30

    def settings(self, **changes: Any) -> RedisSettings:
        """
        Make the settings for the shared sentinels, changed.
        """
        return sentinel(shared_sentinels(), **changes)

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
    async def test_one_is_enough(self) -> None:
        """
        One sentinel that answers is enough, wherever it stands in the list.
        """
        settings = self.settings()
        nobody = f"127.0.0.1:{free_port()}"
        nodes = (nobody, nobody, nobody, nobody, settings.nodes[2])
        cache = await started_cache(self, attrs.evolve(settings, nodes=nodes))
        await cache.set("k", "v")
        self.assertEqual(shared_sentinels().master.cli("GET", "k"), "v")

    @steps
    async def test_none(self) -> None:
        """
        Without any sentinel the start fails, and names all of them.
        """
        ports = [free_port() for _ in range(2)]
        sentence = await self.refused(
            self.settings(nodes=tuple(f"127.0.0.1:{port}" for port in ports))
        )
        for port in ports:
            self.assertIn(
                f"the sentinel at 127.0.0.1:{port} cannot be reached: "
                "connection refused",
                sentence,
            )

    @steps
    async def test_unknown_master(self) -> None:
        """
        A name that the sentinels do not know is said to be unknown.
        """
        self.assertIn(
            "knows no master other: see mp.redis.sentinel-master",
            await self.refused(self.settings(sentinel_master="other")),
        )

    @steps
    async def test_wrong_password(self) -> None:
        """
        A wrong password of the master is told apart from one of a sentinel.
        """
        master = shared_sentinels().master
        self.assertEqual(
            await self.refused(self.settings(password="wrong")),
            f"Redis at {master.address} refuses the password of mp.redis.password",
        )
        nodes = tuple(f"{a}:wrong" for a in shared_sentinels().addresses)
        self.assertIn(
            "refuses the password behind its port in mp.redis.nodes",
            await self.refused(self.settings(nodes=nodes)),
        )

    @steps
    async def test_no_master(self) -> None:
        """
        A server that sentinels name but that is a replica is not used.
        """
        servers = shared_sentinels()
        replica = servers.replica
        name = "misled"
        for watcher in servers.sentinels:
            # Sentinels look for themselves only now and then.
            watcher.cli(
                "SENTINEL", "MONITOR", name, "127.0.0.1", str(replica.port), "2"
            )
            self.addCleanup(watcher.cli, "SENTINEL", "REMOVE", name)
        self.assertEqual(
            await self.refused(self.settings(sentinel_master=name)),
            f"Redis at {replica.address}, which a sentinel calls the master {name}, "
            "is none",
        )

    @steps
    async def test_news_count_more(self) -> None:
        """
        A new master that was announced is used, although the sentinels that are asked
        do not know of it yet; when it is lost they are believed again.
        """
        servers = shared_sentinels()
        master = servers.master
        new = RedisServer(password="of-master")
        new.start()
        self.addCleanup(new.stop)
        cache = await started_cache(self, sentinel(servers))
        await cache.set("before", "v")
        news = f"{servers.name} 127.0.0.1 {master.port} 127.0.0.1 {new.port}"
        cache._store._source._heard("+switch-master", news)  # type: ignore[attr-defined]
        await cache.set("after", "v")
        self.assertEqual(new.cli("KEYS", "*"), "after")
        restored: list[None] = []
        cache.on_restored(lambda: restored.append(None))
        new.kill()
        await until(lambda: restored)
        self.assertEqual(await cache.get("before"), "v")

    @steps
    async def test_sentinels_die(self) -> None:
        """
        Without its sentinels a master goes on serving.
        """
        servers = shared_sentinels()
        cache = await started_cache(self, sentinel(servers))
        for watcher in servers.sentinels:
            watcher.kill()
            self.addCleanup(watcher.start)
        await sleep(0.3)
        await cache.set("k", "v")
        self.assertEqual(await cache.get("k"), "v")
