"""
Nodes on Redis with sentinels and on Redis Cluster, and what happens to these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from mpush_tw.bench.crowd import Crowd
from mpush_tw.sender import ResultCode
from tests.cluster.support import ClusterTestCase, SharedCluster, pause, seconds, until
from tests.servers.redis import RedisCluster, RedisServer, SentinelSet

USERS = 20


class SentinelCluster(SharedCluster):
    """
    Nodes whose Redis is a master, a replica and three sentinels.
    """

    def __init__(self, settings: Mapping[str, object]) -> None:
        self.set = SentinelSet()
        super().__init__(
            {
                **settings,
                "mp.redis.cluster-model": "sentinel",
                "mp.redis.sentinel-master": self.set.name,
                "mp.redis.nodes": self.set.addresses,
            }
        )

    def start(self) -> None:
        self.set.start()
        self.redis = self.set.master
        super().start()

    def start_redis(self) -> None:
        """
        Nothing: the set runs already.
        """

    def heal_redis(self) -> None:
        """
        Nothing: tests leave the set as they found it.
        """

    def stop(self) -> None:
        super().stop()
        self.set.stop()


class MastersCluster(SharedCluster):
    """
    Nodes on a Redis Cluster of three masters.
    """

    def __init__(self, settings: Mapping[str, object]) -> None:
        self.set = RedisCluster()
        super().__init__(
            {
                **settings,
                "mp.redis.cluster-model": "cluster",
                "mp.redis.nodes": self.set.addresses,
            }
        )

    def start(self) -> None:
        self.set.start()
        super().start()

    def start_redis(self) -> None:
        """
        Nothing: the set runs already.
        """

    def heal_redis(self) -> None:
        """
        Nothing: tests leave the set as they found it.
        """

    def stop(self) -> None:
        super().stop()
        self.set.stop()


class SetTestCase(ClusterTestCase):
    """
    Users at both nodes, and a sender that has reached them.
    """

    async def setUp(self) -> None:
        super().setUp()
        self.users = self.names(USERS)
        self.homes = {
            self.nodes[0]: self.users[::2],
            self.nodes[1]: self.users[1::2],
        }
        self.devices = await self.crowd(self.users)
        self.pushes = await self.sender()
        await self.pushes_succeed(self.pushes, self.users)

    async def recovered(self, what: str, since: float) -> None:
        """
        Wait until the store is as it should be, and see that everybody is reached.
        """
        await self.counts_become_right(self.homes, what, 30.0)
        self.measured(what, seconds() - since)
        await self.pushes_succeed(self.pushes, self.users)
        self.assertEqual((self.devices.drops, self.devices.refused), (0, 0))
        self.assertNothingLost()


class SentinelTests(SetTestCase):
    """
    The master dies, and the replica takes over.
    """

    def make_cluster(self) -> Any:
        return SentinelCluster(self.node_settings)

    @property
    def redis(self) -> RedisServer:
        master: RedisServer = self.cluster.set.master
        return master

    async def test_fail_over(self) -> None:
        """
        The nodes follow: routes, lists and kick channels are at the new master, devices
        stay, and a device that comes then is bound.
        """
        servers: SentinelSet = self.cluster.set
        old = servers.master
        start = seconds()
        old.kill()
        results = await self.pushes.push_to_all(self.users)
        self.assertEqual(set(results.values()), {ResultCode.SUCCESS})

        def taken_over() -> bool:
            return servers.master is not old

        await until(taken_over, "the sentinels to agree", 30.0)
        self.measured("sentinel fail-over: sentinels agreed", seconds() - start)
        await self.recovered("sentinel fail-over", start)
        late = [f"{self.users[0]}-late"]
        await self.crowd(late, self.nodes[:1])
        self.assertTrue(self.online_at(self.nodes[0], late))
        await deferToThread(old.start)
        await deferToThread(servers.wait)


class MastersTests(SetTestCase):
    """
    Slots move, and masters come and go.
    """

    def make_cluster(self) -> Any:
        return MastersCluster(self.node_settings)

    @property
    def masters(self) -> RedisCluster:
        """
        The Redis Cluster.
        """
        masters: RedisCluster = self.cluster.set
        return masters

    def ask(self, *args: str) -> str:
        if args[:2] != ("PUBSUB", "NUMSUB"):
            return self.masters.servers[0].cli("-c", *args)
        # Each master knows its own subscribers only.
        answers = [server.cli(*args).splitlines() for server in self.masters.servers]
        return f"{args[2]}\n{sum(int(count) for _, count in answers)}"

    async def move_slot(self, key: str) -> None:
        """
        Move the slot of a key to the next master, key by key and not in haste.
        """
        masters = self.masters
        slot, source = str(masters.slot(key)), masters.owner(key)
        place = masters.servers.index(source)
        target = masters.servers[(place + 1) % len(masters.servers)]
        source_id, target_id = masters.node_id(source), masters.node_id(target)
        target.cli("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        source.cli("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
        await pause(0.3)
        host, port = target.address.split(":")
        while keys := source.cli("CLUSTER", "GETKEYSINSLOT", slot, "1"):
            source.cli("MIGRATE", host, port, keys, "0", "2000")
            await pause(0.1)
        await pause(0.3)
        for server in (target, source, *masters.servers):
            server.cli("CLUSTER", "SETSLOT", slot, "NODE", target_id)
        assert masters.owner(key) is target

    async def test_slot_moves(self) -> None:
        """
        A slot moves while its users come and go: no BIND is refused, and each coming is
        in the store.
        """
        # Braces: all of them in one slot.
        movers = [f"{{{self.users[0]}}}-{number}" for number in range(6)]
        crowd = await self.crowd(movers)
        moving = True
        rounds = 0

        async def come_and_go(user_id: str) -> None:
            nonlocal rounds
            client = crowd.client(user_id)
            while moving:
                await client.unbind_user()
                await client.bind_user(user_id)
                rounds += 1

        traffic = [Deferred.fromCoroutine(come_and_go(user)) for user in movers]
        start = seconds()
        await self.move_slot(f"mp:ur:{movers[0]}")
        self.measured("a slot moved under traffic", seconds() - start)
        moving = False
        for one in traffic:
            await one
        self.assertGreater(rounds, len(movers))
        self.assertEqual((crowd.refused, crowd.drops), (0, 0))
        self.assertTrue(self.online_at(self.nodes[0], movers[::2]))
        self.assertTrue(self.online_at(self.nodes[1], movers[1::2]))
        await self.pushes_succeed(self.pushes, movers)
        await self.gone(crowd, movers)
        await self.recovered("all counts after a slot moved", start)

    async def gone(self, crowd: Crowd, users: list[str]) -> None:
        """
        Have devices leave, and wait until the store knows.
        """
        await crowd.close()
        await until(lambda: self.offline(users), "them to be offline")

    async def test_master_restarts_empty(self) -> None:
        """
        One master loses what it held: the routes that were there are back.
        """
        [victim] = {self.masters.owner(f"mp:ur:{self.users[0]}")}
        start = seconds()
        victim.restart(keep_data=False)
        await deferToThread(self.masters.wait)
        await self.recovered("one of three masters restarted empty", start)
