"""
Broadcasts, control, traces and lists on two nodes, a real Redis and a real ZooKeeper.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from twisted.internet import reactor

from mpush_tw.bench.crowd import Crowd
from mpush_tw.bench.node import NodeProcess
from mpush_tw.cluster import cluster_sender
from mpush_tw.errors import Unavailable
from mpush_tw.keys import SAMPLE_PUBLIC_KEY
from mpush_tw.sender import (
    AckModel,
    BroadcastResult,
    PushContext,
    PushSender,
    ResultCode,
)
from tests.cluster.support import ClusterTestCase, failure_of, pause, until

USERS = 20


class BroadcastClusterTestCase(ClusterTestCase):
    """
    Users spread over two nodes.

    @ivar received: What their devices have got.
    """

    async def setUp(self) -> None:
        super().setUp()
        self.received: Counter[bytes] = Counter()
        self.users = self.names(USERS)
        self.task_id = self.id().rpartition(".")[2]
        self.sender_ = await self.start_sender()
        await until(self.both_are_known, "both gateways to be known")
        self.devices = await self.devices_of(self.users)
        await until(self.only_ours_are_online, "others to be gone")

    async def only_ours_are_online(self) -> bool:
        """
        Whether the devices of the test before have left.
        """
        return (await self.sender_.count()).online == USERS

    async def both_are_known(self) -> bool:
        """
        Whether the sender can ask both nodes; they may have just been started.
        """
        nodes = (await self.sender_.count()).nodes
        return len(nodes) == 2 and all(node.online is not None for node in nodes)

    async def start_sender(self) -> PushSender:
        sender = cluster_sender(self.loaded_settings(), reactor=reactor)
        self.addCleanup(sender.stop)
        await sender.start()
        return sender

    async def devices_of(
        self,
        users: Sequence[str],
        nodes: Sequence[NodeProcess] | None = None,
        device: str = "crowd",
    ) -> Crowd:
        """
        Bind a device for each user, in turn at each of the nodes.
        """
        crowd = Crowd(
            reactor,
            SAMPLE_PUBLIC_KEY,
            [(node.host, node.port) for node in nodes or self.nodes],
            users,
            lambda content: self.received.update([content]),
            device,
        )
        self.addCleanup(crowd.close)
        await crowd.come(30.0)
        return crowd

    async def broadcast(self, content: bytes, **settings: object) -> BroadcastResult:
        context = PushContext(content, **settings)  # type: ignore[arg-type]
        return await self.sender_.broadcast(context)

    async def arrived(self, content: bytes, count: int) -> None:
        """
        Wait until so many devices have got something; no more of them do.
        """
        await until(lambda: self.received[content] >= count, f"{count} devices")
        await pause(0.1)
        self.assertEqual(self.received[content], count)


class BroadcastTests(BroadcastClusterTestCase):
    """
    Everybody in the cluster.
    """

    async def test_everybody(self) -> None:
        """
        Every device of every node gets it once; the counts are told by node and in all.
        """
        result = await self.broadcast(b"to all")
        self.assertTrue(result.succeeded)
        self.assertTrue(result.counted)
        self.assertEqual(
            [(node.address, node.counts.sent) for node in result.nodes if node.counts],
            sorted(((node.host, node.gateway_port), USERS // 2) for node in self.nodes),
        )
        self.assertEqual(result.counts.sent, USERS)
        await self.arrived(b"to all", USERS)

    async def test_part(self) -> None:
        """
        A condition picks from all nodes; a dry run says beforehand how many.
        """
        condition = "/[0-4]$/.test(userId)"
        count = await self.sender_.count(condition)
        self.assertEqual((count.online, count.matched), (USERS, USERS // 2))
        self.assertTrue(count.counted)
        result = await self.broadcast(b"to some", condition=condition)
        self.assertEqual(result.counts.sent, USERS // 2)
        await self.arrived(b"to some", USERS // 2)

    async def test_task(self) -> None:
        """
        What a task has done is in Redis as the original has it: messages sent by all
        nodes, and each user once. It is kept for some days.
        """
        result = await self.broadcast(b"task", task_id=self.task_id)
        self.assertEqual(result.counts.sent, USERS)
        key, users_key = f"mp:pt{self.task_id}", f"{self.task_id}:sui"
        self.assertEqual(self.ask("HGET", key, "sc").strip(), str(USERS))
        listed = self.ask("LRANGE", users_key, "0", "-1").splitlines()
        self.assertEqual(sorted(listed), sorted(self.users))
        for name in (key, users_key):
            self.assertGreater(int(self.ask("TTL", name)), 6 * 86400)
        task = self.sender_.task(self.task_id)
        self.assertEqual(await task.progress(), USERS)
        pages = [*await task.users(0, 15), *await task.users(15, 15)]
        self.assertEqual(sorted(pages), sorted(self.users))

    async def test_cancel(self) -> None:
        """
        A broadcast that is cancelled ends at both nodes before their next window, and
        adds up.
        """
        task = self.sender_.task(self.task_id)
        await task.set_rate(2)
        sending = self.sender_.broadcast(PushContext(b"slow", task_id=self.task_id))
        await until(lambda: self.received[b"slow"] >= 4, "the first window")
        await task.cancel()
        result = await sending
        self.assertEqual({node.reason for node in result.nodes}, {"cancelled"})
        counts = result.counts
        self.assertEqual(counts.sent + counts.left_out, USERS)
        self.assertLess(counts.sent, USERS)
        await self.arrived(b"slow", counts.sent)

    async def test_faster(self) -> None:
        """
        A new rate holds from the next window on.
        """
        task = self.sender_.task(self.task_id)
        await task.set_rate(1)
        sending = self.sender_.broadcast(PushContext(b"slow", task_id=self.task_id))
        await until(lambda: self.received[b"slow"] >= 2, "the first window")
        await task.set_rate(1000)
        result = await sending
        self.assertEqual(result.counts.sent, USERS)
        taken = result.time_line[-1][1] - result.time_line[0][1]
        self.assertLess(taken, 6000)

    async def test_killed_node(self) -> None:
        """
        A node that dies during a broadcast has failed, and the others' part counts;
        when it is not registered any more the rest is all there is.
        """
        task = self.sender_.task(self.task_id)
        await task.set_rate(3)
        sending = self.sender_.broadcast(PushContext(b"slow", task_id=self.task_id))
        await until(lambda: self.received[b"slow"] >= 6, "the first window")
        self.nodes[1].kill()
        result = await sending
        self.assertIs(result.code, ResultCode.FAILURE)
        codes = {node.address[0]: node.code for node in result.nodes}
        self.assertEqual(
            codes,
            {
                self.nodes[0].host: ResultCode.SUCCESS,
                self.nodes[1].host: ResultCode.FAILURE,
            },
        )

        async def only_one_is_asked() -> bool:
            return len((await self.broadcast(b"rest")).nodes) == 1

        await until(only_one_is_asked, "the registration to vanish")

    async def test_without_redis(self) -> None:
        """
        Without Redis a broadcast goes out as ever; one with a task fails, and so does
        its control.
        """
        self.redis.kill()
        result = await self.broadcast(b"still")
        self.assertTrue(result.succeeded)
        await self.arrived(b"still", USERS)
        result = await self.broadcast(b"task", task_id=self.task_id, timeout=20)
        self.assertIs(result.code, ResultCode.FAILURE)
        error = await failure_of(self.sender_.task(self.task_id).cancel())
        self.assertIsInstance(error, Unavailable)


class TraceTests(BroadcastClusterTestCase):
    """
    What several nodes remember.
    """

    async def test_moved(self) -> None:
        """
        The way of a push to a user who has moved is told by both nodes: from the first
        to the second, and there to the acknowledgement.
        """
        user_id = f"{self.task_id}-moves"
        old, new = self.nodes
        await self.devices_of([user_id], [old])
        context = PushContext(
            b"where", user_id=user_id, ack=AckModel.AUTO_ACK, trace_id=self.task_id
        )
        self.assertTrue((await self.sender_.send(context)).succeeded)
        # The sender misses that the user moves.
        routes = self.sender_._directory._routes
        missed = self.patch(routes, "forget", lambda user_id: None)
        await self.devices_of([user_id], [new], "other")
        await until(lambda: self.online_at(new, [user_id]), "the route to change")
        await pause(0.3)
        missed.restore()
        result = await self.sender_.send(context)
        self.assertTrue(result.succeeded)
        trace = await self.sender_.trace(self.task_id)
        self.assertEqual(
            {(push.address[0], push.outcome) for push in trace.pushes},
            {
                (old.host, "ack_success"),
                (old.host, "redirect"),
                (new.host, "ack_success"),
            },
        )
        self.assertIn("redirect", [point.name for point in trace.milestones])
        times = [point.at for point in trace.milestones]
        self.assertEqual(times, sorted(times))


class ListTests(BroadcastClusterTestCase):
    """
    Lists of users over both nodes.
    """

    async def test_list(self) -> None:
        """
        Every user is reached where it is, those that are not there are offline, and
        progress is told.
        """
        absent = [f"{self.task_id}-absent-{number}" for number in range(300)]
        reports: list[tuple[int, int]] = []
        result = await self.sender_.send_all(
            PushContext(b"list", user_ids=[*absent, *self.users]),
            lambda done, total, counts: reports.append((done, total)),
        )
        self.assertEqual(result.count(ResultCode.SUCCESS), USERS)
        self.assertEqual(result.count(ResultCode.OFFLINE), 300)
        self.assertEqual(reports[-1], (USERS + 300, USERS + 300))
        hosts = {one.location.host for one in result.results if one.location}
        self.assertEqual(hosts, {node.host for node in self.nodes})
        await self.arrived(b"list", USERS)

    async def test_silent_node(self) -> None:
        """
        While a node stands still, users of the other get theirs all the same.
        """
        self.nodes[1].pause()
        try:
            result = await self.sender_.send_all(
                PushContext(b"list", user_ids=self.users, timeout=1.0)
            )
        finally:
            self.nodes[1].resume()
        self.assertEqual(result.count(ResultCode.SUCCESS), USERS // 2)
        self.assertEqual(result.count(ResultCode.TIMEOUT), USERS // 2)
