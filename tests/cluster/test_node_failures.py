"""
A node dies, is cut off, or is stopped in order (cluster 8.2, 8.3, 12.2 checks 15, 17
and 18).
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.threads import deferToThread

from mpush_tw.bench.drill import SteadyPushes
from mpush_tw.bench.node import NodeProcess
from mpush_tw.cluster import Stores
from mpush_tw.errors import Unavailable
from mpush_tw.sender import ResultCode
from tests.cluster.support import ClusterTestCase, pause, seconds, until

USERS = 10


class NodeTestCase(ClusterTestCase):
    """
    Users whose devices know only the first node, and users at the second.
    """

    async def setUp(self) -> None:
        super().setUp()
        self.first, self.second = self.nodes
        self.stores_: Stores = await self.stores()
        await until(self.all_registered, "both nodes to be registered")
        names = self.names(2 * USERS)
        self.theirs, self.others = names[:USERS], names[USERS:]
        self.devices = await self.crowd(self.theirs, [self.first])
        self.neighbours = await self.crowd(self.others, [self.second])
        self.pushes = await self.sender()
        await self.pushes_succeed(self.pushes, names)

    async def gateways(self) -> dict[str, str]:
        """
        What is registered: gateway addresses by id.
        """
        try:
            found = await self.stores_.discovery.lookup("/cluster/gs")
        except Unavailable:
            return {}
        return {entry.node_id: f"{entry.host}:{entry.port}" for entry in found}

    async def all_registered(self) -> bool:
        """
        Whether each node is registered once.
        """
        addresses = (await self.gateways()).values()
        return sorted(addresses) == sorted(node.gateway for node in self.nodes)

    async def is_gone(self, node: NodeProcess) -> bool:
        """
        Whether nothing of a node is registered any more.
        """
        return node.gateway not in (await self.gateways()).values()

    async def ends(
        self, pushes: SteadyPushes, users: Sequence[str], code: ResultCode
    ) -> bool:
        """
        Whether pushes to all of these users end so.
        """
        return set((await pushes.push_to_all(users)).values()) == {code}

    async def neighbours_are_well(self) -> None:
        """
        The other node's devices were not dropped, and are reached.
        """
        results = await self.pushes.push_to_all(self.others)
        self.assertEqual(set(results.values()), {ResultCode.SUCCESS})
        self.assertEqual((self.neighbours.drops, self.neighbours.refused), (0, 0))
        self.assertNothingLost()


class KilledNodeTests(NodeTestCase):
    """
    kill -9.
    """

    async def test_killed(self) -> None:
        """
        Its registration vanishes, its users are reported offline, the others notice
        nothing; started again, it has its devices back.
        """
        start = seconds()
        self.first.kill()
        await until(lambda: self.is_gone(self.first), "its registration to vanish")
        self.measured("a killed node's registration vanished", seconds() - start)
        await until(
            lambda: self.ends(self.pushes, self.theirs, ResultCode.OFFLINE),
            "its users to be reported offline",
        )
        self.measured("a killed node's users reported offline", seconds() - start)
        await self.neighbours_are_well()
        self.assertEqual(self.devices.drops, USERS)
        start = seconds()
        self.first.launch()
        await deferToThread(self.first.wait_started)
        self.measured("a killed node started again", seconds() - start)
        await self.devices.all_bound(30.0)
        self.measured("a killed node's devices back", seconds() - start)
        await until(self.all_registered, "it to be registered")
        await self.pushes_succeed(self.pushes, self.theirs)
        self.measured("a killed node's users reached again", seconds() - start)
        await self.counts_become_right(
            {self.first: self.theirs, self.second: self.others}, "the counts"
        )
        await self.neighbours_are_well()

    async def test_stale_routes(self) -> None:
        """
        Users who do not come back after its restart are offline by the first push, and
        their routes say so from then on (check 6).
        """
        away = self.theirs[:2]
        self.first.kill()
        await self.devices.leave(away)
        self.first.launch()
        await deferToThread(self.first.wait_started)
        await until(self.all_registered, "the old registration to vanish")
        self.assertTrue(self.online_at(self.first, away))
        await self.devices.all_bound(30.0)
        results = await self.pushes.push_to_all(away)
        self.assertEqual(set(results.values()), {ResultCode.OFFLINE})
        await until(lambda: self.offline(away), "the stale routes to be offline")
        await self.neighbours_are_well()

    async def test_restart_before_anybody_noticed(self) -> None:
        """
        Restarted within the session time-out, it is registered twice for a while; when
        the old entry vanishes, the sender goes on pushing (check 17, C-40).
        """
        self.first.kill()
        self.first.launch()
        await deferToThread(self.first.wait_started)
        # At once: the old entry has two seconds, the devices take longer to come back.
        twice = list((await self.gateways()).values()).count(self.first.gateway)
        self.assertEqual(twice, 2)
        await self.devices.all_bound(30.0)
        await self.pushes_succeed(self.pushes, self.theirs)
        await until(self.all_registered, "the old registration to vanish")
        for _ in range(3):
            results = await self.pushes.push_to_all(self.theirs)
            self.assertEqual(set(results.values()), {ResultCode.SUCCESS})
        await self.neighbours_are_well()


class PartitionedNodeTests(NodeTestCase):
    """
    A node that stands still past ZooKeeper's session time-out, as behind a cut cable.
    """

    async def test_partitioned(self) -> None:
        """
        It vanishes and its users with it; when it goes on it is registered again under
        the same path, has kept its devices, and is reached (check 15).
        """
        before = await self.gateways()
        start = seconds()
        self.first.pause()
        await until(lambda: self.is_gone(self.first), "its registration to vanish")
        self.measured("a cut-off node's registration vanished", seconds() - start)
        await until(
            lambda: self.ends(self.pushes, self.theirs, ResultCode.OFFLINE),
            "its users to be reported offline",
        )
        await self.neighbours_are_well()
        start = seconds()
        self.first.resume()
        await until(self.all_registered, "it to be registered again")
        self.measured("a cut-off node registered again", seconds() - start)
        self.assertEqual(await self.gateways(), before)
        await self.pushes_succeed(self.pushes, self.theirs)
        self.measured("a cut-off node's users reached again", seconds() - start)
        self.assertEqual(self.devices.drops, 0)
        await self.counts_become_right(
            {self.first: self.theirs, self.second: self.others}, "the counts"
        )
        # What was sent to it while it stood still may arrive late; it was reported as
        # failed or timed out, never as offline or delivered.
        await pause(0.5)
        await self.neighbours_are_well()

    async def test_users_moved(self) -> None:
        """
        Users who meanwhile come to the other node with another phone stay there: the
        old phones are told to leave when the node goes on.
        """
        moved = self.theirs[:3]
        self.first.pause()
        newer = await self.crowd(moved, [self.second], device="newer")
        await until(lambda: self.is_gone(self.first), "its registration to vanish")
        results = await self.pushes.push_to_all(moved)
        self.assertEqual(set(results.values()), {ResultCode.SUCCESS})
        self.first.resume()
        await until(self.all_registered, "it to be registered again")
        await until(lambda: self.devices.kicks == len(moved), "the old phones to go")
        await self.pushes_succeed(self.pushes, self.theirs)
        self.assertTrue(self.online_at(self.second, moved))
        self.assertTrue(self.online_at(self.first, self.theirs[3:]))
        self.assertEqual((newer.drops, newer.kicks, self.devices.drops), (0, 0, 0))
        await self.neighbours_are_well()


class StoppedNodeTests(NodeTestCase):
    """
    An orderly stop (check 18).
    """

    async def test_leaves_nothing(self) -> None:
        """
        When the process has ended with status 0, its registrations and its online list
        are gone and its users' routes are offline.
        """
        status = await deferToThread(self.first.terminate)
        self.assertEqual(status, 0)
        self.assertTrue(await self.is_gone(self.first))
        self.assertEqual(self.redis.cli("EXISTS", f"mp:oul:{self.first.host}"), "0")
        self.assertTrue(self.offline(self.theirs))
        self.assertEqual(self.listeners(self.first), 0)
        results = await self.pushes.push_to_all(self.theirs)
        self.assertEqual(set(results.values()), {ResultCode.OFFLINE})
        await self.neighbours_are_well()

    async def test_devices_move(self) -> None:
        """
        Devices that know the other node as well are there soon, and are reached.
        """
        movers = [f"{user}-mover" for user in self.theirs]
        crowd = await self.crowd([*movers, "-"], self.nodes)
        await crowd.leave(["-"])
        at_first = movers[::2]
        start = seconds()
        await deferToThread(self.first.terminate)
        await crowd.all_bound(20.0)
        self.measured("a stopped node's devices at the other", seconds() - start)
        self.assertEqual(crowd.drops, len(at_first))
        await self.pushes_succeed(self.pushes, movers)
        self.measured("a stopped node's users reached at the other", seconds() - start)
        self.assertTrue(self.online_at(self.second, movers))
        await until(
            lambda: self.listed(self.second) == {*movers, *self.others}, "the list"
        )
        await self.neighbours_are_well()
