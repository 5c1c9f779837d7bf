"""
Foreign garbage in what nodes and senders read: it counts as absent, the log names the
place, and nothing goes down.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from kazoo.client import KazooClient

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from mpush_tw.bench.node import NodeProcess
from mpush_tw.sender import ResultCode
from tests.cluster.support import ClusterTestCase, pause, until

JUNK = (
    "",
    "{",
    "null",
    "[]",
    '"text"',
    "42",
    '{"port":"x","host":3}',
    '{"port":99999999999999999999,"host":"h","connId":"1"}',
    '{"port":1e999}',
    "[" * 10_000,
    "x" * 100_000,
)
"""
Texts that are no route, no kick and no registration.
"""


class GarbageTests(ClusterTestCase):
    """
    Each kind of key and node that is read.
    """

    async def setUp(self) -> None:
        super().setUp()
        self.users = self.names(4)
        self.devices = await self.crowd(self.users)
        self.pushes = await self.sender()
        await self.pushes_succeed(self.pushes, self.users)
        self.logs = {node: len(node.log()) for node in self.nodes}

    def said(self, node: NodeProcess) -> str:
        """
        What a node has logged since the test began.
        """
        return node.log()[self.logs[node] :]

    async def names_it(self, node: NodeProcess, place: str) -> None:
        """
        Wait until the node's log names the place.
        """
        await until(lambda: place in self.said(node), f"{place} in the log", 5.0)

    async def all_is_well(self, users: Sequence[str] = ()) -> None:
        """
        The devices are there, are reached, and no node has logged a traceback.
        """
        await self.pushes_succeed(self.pushes, [*self.users, *users])
        self.assertEqual(self.devices.drops, 0)
        for node in self.nodes:
            self.assertNotIn("Traceback", self.said(node))
        self.assertNothingLost()

    async def push(self, user_id: str) -> ResultCode | None:
        """
        Push once.
        """
        return (await self.pushes.push_to_all([user_id]))[user_id]

    async def test_route_of_wrong_type(self) -> None:
        """
        A text where the routes of a user should be: a sender finds nobody there. The
        user cannot be bound, because nothing of it is overwritten, until it is gone.
        """
        victim = f"{self.users[0]}-victim"
        key = f"mp:ur:{victim}"
        self.redis.cli("SET", key, "junk")
        self.assertEqual(await self.push(victim), ResultCode.OFFLINE)
        coming = Deferred.fromCoroutine(self.crowd([victim], self.nodes[:1]))
        await self.names_it(self.nodes[0], key)
        self.assertEqual(self.redis.cli("GET", key), "junk")
        self.redis.cli("DEL", key)
        crowd = await coming
        self.assertGreater(crowd.refused, 0)
        await self.all_is_well([victim])

    async def test_junk_in_route(self) -> None:
        """
        A field that is no route counts as none, for senders and for nodes, and is
        overwritten by the next BIND.
        """
        for number, junk in enumerate(JUNK):
            victim = f"{self.users[0]}-{number}"
            self.redis.cli("HSET", f"mp:ur:{victim}", "1", junk)
            self.assertEqual(await self.push(victim), ResultCode.OFFLINE)
        victims = [f"{self.users[0]}-{number}" for number in range(len(JUNK))]
        await self.crowd(victims, self.nodes[:1])
        await self.names_it(self.nodes[0], f"mp:ur:{victims[1]}")
        self.assertTrue(self.online_at(self.nodes[0], victims))
        await self.all_is_well(victims)

    async def test_foreign_fields(self) -> None:
        """
        Foreign fields beside a good route do not hide it.
        """
        user = self.users[0]
        key = f"mp:ur:{user}"
        for number, junk in enumerate(JUNK):
            self.redis.cli("HSET", key, f"foreign-{number}", junk)
        self.redis.cli("PUBLISH", "/mpush/online/", user)
        await self.all_is_well()
        self.redis.cli("DEL", key)

    async def test_bytes_in_route(self) -> None:
        """
        Bytes that are no UTF-8 count as no route, and the log names the key.
        """
        victim = f"{self.users[0]}-bytes"
        self.redis.cli("EVAL", _SET_BYTES, "1", f"mp:ur:{victim}", "HSET", "1")
        self.assertEqual(await self.push(victim), ResultCode.OFFLINE)
        await self.crowd([victim], self.nodes[:1])
        await self.names_it(self.nodes[0], f"mp:ur:{victim}")
        await self.all_is_well([victim])

    async def test_sessions(self) -> None:
        """
        A session record that is rubbish counts as expired: the device shakes hands
        anew and is bound.
        """
        kinds = ("text", "bytes", "hash")
        for kind in kinds:
            user = f"{self.users[0]}-{kind}"
            before = set(self.redis.cli("KEYS", "mp:rs:*").splitlines())
            crowd = await self.crowd([user], self.nodes[:1])
            [key] = set(self.redis.cli("KEYS", "mp:rs:*").splitlines()) - before
            self.redis.cli("DEL", key)
            if kind == "text":
                self.redis.cli("SET", key, "a,b,c")
            elif kind == "bytes":
                self.redis.cli("EVAL", _SET_BYTES, "1", key, "SET", "")
            else:
                self.redis.cli("HSET", key, "a", "b")
            await crowd.reconnect()
            await crowd.all_bound(10.0)
            if kind != "text":
                await self.names_it(self.nodes[0], key)
        await self.all_is_well()

    async def test_online_list(self) -> None:
        """
        A text where the online list should be: devices come and go all the same.
        """
        node = self.nodes[0]
        key = f"mp:oul:{node.host}"
        self.redis.cli("SET", key, "junk")
        crowd = await self.crowd([f"{self.users[0]}-more"], [node])
        await self.names_it(node, key)
        await crowd.close()
        await self.all_is_well()
        self.assertEqual(self.redis.cli("GET", key), "junk")
        self.redis.cli("DEL", key)

    async def test_kick_channel(self) -> None:
        """
        Texts that are no kick are dropped; a real one behind them is obeyed.
        """
        node = self.nodes[0]
        channel = f"/mpush/kick/{node.gateway}"
        for junk in JUNK:
            self.redis.cli("PUBLISH", channel, junk)
        self.redis.cli("EVAL", _PUBLISH_BYTES, "1", channel)
        await self.names_it(node, channel)
        self.assertEqual(self.devices.kicks, 0)
        newer = await self.crowd(self.users[:1], self.nodes[1:], device="newer")
        await until(lambda: self.devices.kicks == 1, "the kick")
        await newer.close()
        await pause(0.1)

    async def test_online_channel(self) -> None:
        """
        Senders take anything that is published as a coming or going.
        """
        for channel in ("/mpush/online/", "/mpush/offline/"):
            for junk in JUNK:
                self.redis.cli("PUBLISH", channel, junk)
            self.redis.cli("EVAL", _PUBLISH_BYTES, "1", channel)
        await self.all_is_well()

    async def test_registrations(self) -> None:
        """
        Nodes of the registry that are no doors: senders go on with those that are.
        """

        def plant() -> None:
            client = KazooClient(
                self.zookeeper.address, auth_data=[("digest", "mpush")], timeout=10.0
            )
            client.start(timeout=10.0)
            try:
                for number, junk in enumerate((*JUNK, b"\xff\xfe")):
                    data = junk if isinstance(junk, bytes) else junk.encode()
                    for door in ("gs", "cs"):
                        client.create(
                            f"/mpush/cluster/{door}/junk-{number}", data, ephemeral=True
                        )
                # Long enough for nodes and senders to have read it.
                time.sleep(0.5)
            finally:
                client.stop()
                client.close()

        await deferToThread(plant)
        await self.all_is_well()
        late = await self.sender()
        results = await late.push_to_all(self.users)
        self.assertEqual(set(results.values()), {ResultCode.SUCCESS})


_SET_BYTES = r"""
if ARGV[2] == '' then return redis.call(ARGV[1], KEYS[1], '\255\254') end
return redis.call(ARGV[1], KEYS[1], ARGV[2], '\255\254')
"""
_PUBLISH_BYTES = r"return redis.call('PUBLISH', KEYS[1], '\255\254')"
"""
Scripts, because C{redis-cli} takes texts from the command line.
"""
