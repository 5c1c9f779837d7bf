"""
ZooKeeper goes away and comes back (cluster 3.8).
"""

from __future__ import annotations

from twisted.internet.threads import deferToThread

from mpush_tw.sender import ResultCode
from tests.cluster.commands import tree_of
from tests.cluster.support import (
    SESSION_MS,
    ClusterTestCase,
    pause,
    seconds,
    until,
)

USERS = 10
DOORS = ("/mpush/cluster/cs", "/mpush/cluster/gs")


class ZooKeeperTests(ClusterTestCase):
    """
    Devices at both nodes, a sender that has reached them, and an interruption.
    """

    async def setUp(self) -> None:
        super().setUp()
        self.users = self.names(USERS)
        await until(self.complete, "both nodes to be registered")
        self.devices = await self.crowd(self.users)
        self.pushes = await self.sender()
        await self.pushes_succeed(self.pushes, self.users)
        self.before = await self.registered()

    async def registered(self) -> dict[str, str]:
        """
        The registrations: their data by their paths.
        """
        tree = await deferToThread(tree_of, self.zookeeper.address, "mpush")
        return {
            path: entry["data"]
            for path, entry in tree.items()
            if path.rpartition("/")[0] in DOORS
        }

    async def complete(self) -> bool:
        """
        Whether each node has a door of each kind registered, and only one.
        """
        return len(await self.registered()) == len(DOORS) * len(self.nodes)

    async def works_without(self) -> None:
        """
        While ZooKeeper is away, what is known stays known: everybody is reached, and so
        is who comes now.
        """
        late = [f"{self.users[0]}-late"]
        crowd = await self.crowd(late, device="late")
        results = await self.pushes.push_to_all([*self.users, *late])
        self.assertEqual(set(results.values()), {ResultCode.SUCCESS})
        await crowd.close()
        await until(lambda: self.offline(late), "the late one to leave")

    async def recovered(self, what: str, since: float) -> None:
        """
        Wait until the same registrations are there under the same paths.
        """

        async def as_before() -> bool:
            return await self.registered() == self.before

        await until(as_before, f"the registrations: {what}", 30.0)
        self.measured(what, seconds() - since)
        await self.pushes_succeed(self.pushes, self.users)
        self.measured(f"{what}, pushes", seconds() - since)
        self.assertEqual((self.devices.drops, self.devices.refused), (0, 0))
        homes = {self.nodes[0]: self.users[::2], self.nodes[1]: self.users[1::2]}
        self.assertTrue(self.counts_are_right(homes))
        self.assertNothingLost()

    async def test_stands_still(self) -> None:
        """
        It stands still for longer than the sessions last: devices and pushes go on, and
        the nodes are registered again under the same paths.
        """
        self.zookeeper.pause()
        for _ in range(3):
            await pause(SESSION_MS / 1000)
            await self.works_without()
        self.zookeeper.resume()
        await self.recovered("ZooKeeper stood still past the session", seconds())

    async def test_restart(self) -> None:
        """
        It is restarted with its data.
        """
        await deferToThread(self.zookeeper.restart)
        since = seconds()
        await self.works_without()
        await self.recovered("ZooKeeper restarted with its data", since)

    async def test_restart_empty(self) -> None:
        """
        It is restarted without its data: the nodes build the tree anew, with the same
        rights.
        """
        await deferToThread(self.zookeeper.restart, lose_data=True)
        since = seconds()
        await self.works_without()
        await self.recovered("ZooKeeper restarted empty", since)
        tree = await deferToThread(tree_of, self.zookeeper.address, "mpush")
        rights = {
            (acl["scheme"], acl["id"], acl["perms"])
            for path, entry in tree.items()
            if path != "/"
            for acl in entry["acl"]
        }
        self.assertEqual(rights, {("digest", "mpush:IoF5XrL443rOdy6w434vrj+58TQ=", 31)})
