"""
Three nodes, alloc beside them, and devices that know nothing but alloc (cluster 8.8,
12.2 check 3; services A4, A7, A8, B11).
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from kazoo.client import KazooClient  # type: ignore[import-untyped]

import treq
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from mpush_tw.bench.node import NodeProcess
from mpush_tw.client import Client, ClientListener, ClientSettings
from mpush_tw.interfaces import ServiceNode
from mpush_tw.keys import SAMPLE_PUBLIC_KEY
from tests.cluster.support import (
    SESSION_MS,
    ClusterTestCase,
    SharedCluster,
    seconds,
    until,
)
from tests.servers.alloc import AllocServer
from tests.servers.zookeeper import TICK_MS

THIRD_HOST = "127.0.0.3"
COUNT_MS = 500
PUSHED = "服务已经开始推送,请注意查收消息"


class AllocCluster(SharedCluster):
    """
    A third node, and alloc.

    @ivar alloc: Runs from the start to the end.
    """

    def start(self) -> None:
        super().start()
        third = NodeProcess(self.settings, THIRD_HOST)
        self.nodes.append(third)
        third.start()
        self.alloc = AllocServer(
            {
                "mp.log-level": "info",
                "mp.redis.nodes": [self.redis.address],
                "mp.zk.server-address": self.zookeeper.address,
                "mp.zk.sessionTimeoutMs": SESSION_MS,
                "mp.alloc.count-interval": f"{COUNT_MS}ms",
                "mp.alloc.push-enabled": True,
            }
        )
        self.alloc.start()

    def stop(self) -> None:
        if hasattr(self, "alloc"):
            self.alloc.kill()
        super().stop()


class AllocDevice(ClientListener):
    """
    A device that asks alloc where to connect.

    @ivar client: Its client.
    @ivar contents: What was pushed to it.
    """

    def __init__(self, user: str, url: str) -> None:
        self.contents: list[str] = []
        self.client = Client(
            ClientSettings(
                device_id=f"alloc-{user}",
                public_key=SAMPLE_PUBLIC_KEY,
                alloc_server=url,
                os_name="android",
                user_id=user,
            ),
            self,
            reactor=reactor,  # type: ignore[arg-type]
        )
        self.bound: Deferred[None] = Deferred()

    @property
    def host(self) -> str:
        """
        The node that it is connected to; nothing while it is not online.
        """
        server = self.client.server
        return "" if server is None or not self.client.is_online else server.host

    def on_bind(self, success: bool, user_id: str) -> None:
        if success and not self.bound.called:
            self.bound.callback(None)

    def on_receive_push(self, content: bytes, message_id: int) -> None:
        self.contents.append(content.decode())


class AllocTests(ClusterTestCase):
    """
    A cluster of three.
    """

    def make_cluster(self) -> AllocCluster:
        return AllocCluster(self.node_settings)

    async def setUp(self) -> None:
        super().setUp()
        self.alloc: AllocServer = self.cluster.alloc
        self.first, self.second, self.third = self.nodes
        everybody = {self.address(node) for node in self.nodes}
        await until(lambda: self.lists(everybody), "all three nodes to be listed", 30.0)
        await until(self.nobody_is_online, "the users of the last test to be gone")

    # ------------------------------------------------------------- asking

    def address(self, node: NodeProcess) -> str:
        """
        The entry of a node in the list.
        """
        return f"{node.host}:{node.port}"

    async def get(self, path: str) -> bytes:
        """
        Ask alloc.
        """
        response = await treq.get(
            self.alloc.url + path, persistent=False, timeout=5, reactor=reactor
        )
        body: bytes = await response.content()
        return body

    async def listed_now(self) -> list[str]:
        """
        Ask for the list, as a device does.
        """
        return [one for one in (await self.get("")).decode().split(",") if one]

    async def lists(self, addresses: set[str]) -> bool:
        """
        Whether exactly these servers are listed, each once.
        """
        return Counter(await self.listed_now()) == Counter(addresses)

    async def online(self) -> dict[str, int]:
        """
        The users of each node, as alloc has counted them.
        """
        servers = json.loads(await self.get("list.json"))
        return {one["host"]: one["online"] for one in servers}

    async def nobody_is_online(self) -> bool:
        return set((await self.online()).values()) <= {0}

    async def counted(self, **users: int) -> None:
        """
        Wait until alloc has counted so many users, by C{first}, C{second}, C{third}.
        """
        expected = {getattr(self, name).host: count for name, count in users.items()}

        async def right() -> bool:
            found = await self.online()
            return all(found.get(host) == count for host, count in expected.items())

        await until(right, f"the counts {expected}")

    async def push(self, **order: Any) -> str:
        """
        Order a test push, as the page does.
        """
        response = await treq.post(
            self.alloc.url + "push",
            json.dumps(order).encode(),
            persistent=False,
            timeout=5,
            reactor=reactor,
        )
        text: str = await response.text()
        return text

    async def devices(self, count: int) -> list[AllocDevice]:
        """
        Have devices come, one after the other; they leave at the end.
        """
        found = []
        for user in self.names(count):
            device = AllocDevice(user, self.alloc.url)
            self.addCleanup(device.client.stop)
            device.client.start()
            await device.bound.addTimeout(20, reactor)  # type: ignore[arg-type]
            found.append(device)
        return found

    # ----------------------------------------------------------- the list

    async def test_less_loaded_first(self) -> None:
        """
        The list goes by the users who are online (check 3).
        """
        users = self.names(6)
        await self.crowd(users[:3], [self.first])
        await self.crowd(users[3:5], [self.second])
        await self.crowd(users[5:], [self.third])
        await self.counted(first=3, second=2, third=1)
        expected = [
            self.address(node) for node in (self.third, self.second, self.first)
        ]

        servers = json.loads(await self.get("list.json"))
        order = [f"{one['host']}:{one['port']}" for one in servers]
        self.assertEqual(order, expected)

    async def test_stopped_in_order(self) -> None:
        """
        A node that stops in good order is off the list within a second, and back when
        it is back.
        """
        start = seconds()
        stopping = deferToThread(self.first.terminate)
        left = {self.address(self.second), self.address(self.third)}
        taken = await until(lambda: self.lists(left), "it to be off the list")
        self.measured("a stopped node off the list of alloc", seconds() - start)
        self.assertLess(taken, 1.0)
        self.assertEqual(await stopping, 0)
        self.first.launch()
        await deferToThread(self.first.wait_started)
        start = seconds()
        await until(
            lambda: self.lists({*left, self.address(self.first)}), "it to be back"
        )
        self.measured("a started node on the list of alloc", seconds() - start)

    async def test_killed(self) -> None:
        """
        A node that is killed is off the list within ZooKeeper's session time-out.
        """
        start = seconds()
        self.first.kill()
        left = {self.address(self.second), self.address(self.third)}
        await until(lambda: self.lists(left), "it to be off the list")
        taken = seconds() - start
        self.measured("a killed node off the list of alloc", taken)
        # The server looks at its clock once a tick.
        self.assertLess(taken, (SESSION_MS + 2 * TICK_MS) / 1000)

    async def test_killed_and_restarted(self) -> None:
        """
        A node that is back before its old registration has vanished is listed once,
        and stays.
        """
        everybody = {self.address(node) for node in self.nodes}
        self.first.kill()
        self.first.launch()
        await deferToThread(self.first.wait_started)
        end = seconds() + SESSION_MS / 1000 + 1
        while seconds() < end:
            self.assertTrue(await self.lists(everybody))

    async def test_drained(self) -> None:
        """
        A node whose weight is set to 0 is off the list at once; its devices stay.
        """
        (user,) = self.names(1)
        crowd = await self.crowd([user], [self.first])
        stores = await self.stores()

        async def registered() -> list[ServiceNode]:
            nodes = await stores.discovery.lookup("/cluster/cs")
            return [one for one in nodes if one.host == self.first.host]

        async def once() -> bool:
            return len(await registered()) == 1

        # It may have been restarted for this test.
        await until(once, "its old registration to vanish")
        (node,) = await registered()
        await deferToThread(self.set_weight, node.node_id, 0)
        start = seconds()
        left = {self.address(self.second), self.address(self.third)}
        taken = await until(lambda: self.lists(left), "it to be off the list")
        self.measured("a drained node off the list of alloc", seconds() - start)
        self.assertLess(taken, 1.0)
        self.assertEqual(crowd.drops, 0)
        self.assertTrue(self.online_at(self.first, [user]))
        await deferToThread(self.set_weight, node.node_id, 1)
        everybody = {self.address(node) for node in self.nodes}
        await until(lambda: self.lists(everybody), "it to be back")

    def set_weight(self, node_id: str, weight: float) -> None:
        """
        Set the weight of a node that runs, as an operator does in ZooKeeper.
        """
        client = KazooClient(
            self.zookeeper.address, auth_data=[("digest", "mpush")], timeout=5
        )
        client.start(10)
        try:
            path = f"/mpush/cluster/cs/{node_id}"
            data, _ = client.get(path)
            node = json.loads(data)
            node["attrs"]["weight"] = weight
            client.set(path, json.dumps(node).encode())
        finally:
            client.stop()
            client.close()

    # ------------------------------------------------------------ devices

    async def test_handed_a_dead_address(self) -> None:
        """
        A device that was handed the address of a node that has just died goes on to
        the next, at once.
        """
        users = self.names(5)
        await self.crowd(users[:2], [self.second])
        await self.crowd(users[2:4], [self.third])
        await self.counted(first=0, second=2, third=2)
        self.first.kill()
        self.assertEqual((await self.listed_now())[0], self.address(self.first))
        device = AllocDevice(users[4], self.alloc.url)
        self.addCleanup(device.client.stop)
        start = seconds()
        device.client.start()
        await device.bound.addTimeout(10, reactor)  # type: ignore[arg-type]
        taken = seconds() - start
        self.measured("a device with a dead address at another node", taken)
        self.assertIn(device.host, (self.second.host, self.third.host))
        self.assertLess(taken, 2.0)

    async def test_devices_of_a_killed_node(self) -> None:
        """
        Devices are spread over the nodes; those of a node that is killed are soon at
        the two others, and pushes reach them there.
        """
        devices = await self.devices(30)
        spread = Counter(device.host for device in devices)
        self.assertEqual(set(spread), {node.host for node in self.nodes})
        self.assertGreaterEqual(min(spread.values()), 5)
        start = seconds()
        self.first.kill()
        await until(
            lambda: all(device.host not in ("", self.first.host) for device in devices),
            "all devices to be at the other nodes",
        )
        self.measured("a killed node's devices back by alloc", seconds() - start)
        users = self.names(30)
        await until(
            lambda: len(self.listed(self.second) | self.listed(self.third)) == 30,
            "all users to be online",
        )
        pushes = await self.sender()
        results = await gatherResults(
            [Deferred.fromCoroutine(pushes.push_to_all([user])) for user in users]
        )
        codes = {code.name for result in results for code in result.values()}
        self.assertEqual(codes, {"SUCCESS"})

    # -------------------------------------------------------- test pushes

    async def test_pushes(self) -> None:
        """
        What the page sends reaches a device at any node, and a broadcast all devices.
        """
        devices = await self.devices(3)
        user = self.names(3)[1]
        self.assertEqual(await self.push(userId=user, hello="hi"), PUSHED)
        await until(lambda: bool(devices[1].contents), "the push")
        envelope = json.loads(devices[1].contents[0])
        self.assertEqual(envelope["msgType"], 3)
        notification = json.loads(envelope["content"])
        self.assertEqual(notification["content"], "MPush开源推送，hi")
        self.assertEqual(devices[0].contents + devices[2].contents, [])
        self.assertEqual(await self.push(broadcast=True, hello="all"), PUSHED)
        await until(
            lambda: [len(device.contents) for device in devices] == [1, 2, 1],
            "the broadcast",
        )
        condition = f"userId == '{user}'"
        await self.push(broadcast=True, hello="you", condition=condition)
        await until(lambda: len(devices[1].contents) == 3, "the chosen broadcast")
        self.assertEqual([len(device.contents) for device in devices], [1, 3, 1])

    # ------------------------------------------------------- interruptions

    async def test_redis_away(self) -> None:
        """
        While Redis is away the list is served as before; when it is back the users are
        counted again.
        """
        users = self.names(4)
        await self.crowd(users[:2], [self.first])
        await self.counted(first=2, second=0)
        self.redis.stop()
        everybody = {self.address(node) for node in self.nodes}
        end = seconds() + 4 * COUNT_MS / 1000
        while seconds() < end:
            self.assertTrue(await self.lists(everybody))
        self.assertEqual((await self.online())[self.first.host], 2)
        self.assertEqual(await self.get("health"), b"ok")
        self.redis.start()
        start = seconds()
        await self.crowd(users[2:], [self.second])
        await self.counted(first=2, second=2)
        self.measured("users counted by alloc after Redis was back", seconds() - start)

    async def test_zookeeper_away(self) -> None:
        """
        While ZooKeeper is away, longer than all sessions last, the last list is served;
        when it is back so is everybody.
        """
        everybody = {self.address(node) for node in self.nodes}
        self.zookeeper.pause()
        end = seconds() + 2 * SESSION_MS / 1000
        while seconds() < end:
            self.assertTrue(await self.lists(everybody))
        self.zookeeper.resume()
        # All sessions end; the nodes register again, and nobody sees an empty list.
        end = seconds() + 5
        while seconds() < end:
            self.assertNotEqual(await self.listed_now(), [])
        await until(lambda: self.lists(everybody), "all to be listed", 30.0)
