"""
Broadcasts, dry runs, control and traces against real nodes with real devices, and
beside a node of the original that knows none of it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python import threadable
from twisted.trial.unittest import SkipTest

from mpush_tw.protocol.body import seal_body
from mpush_tw.protocol.commands import Command, ErrorCode
from mpush_tw.protocol.messages import BindUser, Error, Ok
from mpush_tw.protocol.packet import PacketDecoder, encode_packet
from mpush_tw.sender import (
    AckModel,
    BroadcastCounts,
    BroadcastResult,
    PushContext,
    PushSender,
    ResultCode,
    Wait,
)
from mpush_tw.sender._datagrams import DatagramPool
from mpush_tw.sender._queries import NO_ANSWERS
from mpush_tw.sender.blocking import BlockingPushSender
from mpush_tw.service import Node
from tests.datagrams import GROUP, LOOPBACK, multicast_works
from tests.integration.test_sender_node import ROOT, Device, SenderNodeTestCase
from tests.integration.test_udp_node import DatagramNodeTestCase


class OriginalGateway(Protocol):
    """
    A gateway of the original: answers pushes with OK, broadcasts without any data, and
    hangs up on what it does not know (cluster 4.4).
    """

    def __init__(self) -> None:
        self._decoder = PacketDecoder()

    def dataReceived(self, data: bytes) -> None:
        for cmd, _, session_id, _ in self._decoder.receive(data):
            if cmd == Command.GATEWAY_PUSH:
                self._say(Command.OK, session_id, Ok(cmd).encode())
                continue
            body = Error.of(cmd, ErrorCode.UNSUPPORTED_CMD).encode()
            self._say(Command.ERROR, session_id, body)
            transport: Any = self.transport
            transport.loseConnection()

    def _say(self, cmd: int, session_id: int, body: bytes) -> None:
        transport: Any = self.transport
        transport.write(encode_packet(cmd, session_id, 0, body))


class BroadcastNodeTestCase(SenderNodeTestCase):
    """
    A node with devices, some of them with tags.
    """

    async def devices(self, tags: Mapping[str, str | None]) -> dict[str, Device]:
        """
        Bind a device for each user, with tags.
        """
        return {user_id: await self.tagged(user_id, tags[user_id]) for user_id in tags}

    async def tagged(
        self, user_id: str, tags: str | None, node: Node | None = None
    ) -> Device:
        """
        Bind a device with tags.
        """
        device = await self.device(user_id, node=node)
        if tags is not None:
            body = BindUser(user_id, None, tags).encode()
            flags, body = seal_body(body, device._cipher)
            device._write(Command.BIND, 3, flags, body)
            await device._answers.get()
        return device

    async def got(self, devices: Mapping[str, Device]) -> dict[str, list[bytes]]:
        """
        What each device has got since the last call, when all is quiet.
        """
        await deferLater(reactor, 0.1)
        contents = {}
        for user_id, device in devices.items():
            pending, device.pushes.pending = device.pushes.pending, []
            contents[user_id] = [push.content for push in pending]
        return contents


class BroadcastTests(BroadcastNodeTestCase):
    """
    Everybody on a node, and parts of everybody.
    """

    def test_everybody(self) -> Any:
        """
        Each device gets it once, and the counts say so.
        """

        async def story() -> None:
            devices = await self.devices(dict.fromkeys(("a", "b", "c")))
            sender = await self.sender()
            result = await sender.broadcast(PushContext(b"hello"))
            self.assertTrue(result.succeeded)
            self.assertEqual(result.counts, BroadcastCounts(3, 3, 3))
            self.assertEqual(
                [name for name, _ in result.nodes[0].time_line],
                ["push-center-begin", "before-send", "end"],
            )
            self.assertEqual(
                await self.got(devices), {user_id: [b"hello"] for user_id in devices}
            )

        return self.run_async(story())

    def test_nobody(self) -> Any:
        """
        It is no failure that nobody is there.
        """

        async def story() -> None:
            sender = await self.sender()
            result = await sender.broadcast(PushContext(b"hello"))
            self.assertTrue(result.succeeded)
            self.assertEqual(result.counts, BroadcastCounts())

        return self.run_async(story())

    def test_part(self) -> Any:
        """
        Tags and conditions pick who gets it; a dry run says beforehand how many.
        """

        async def story() -> None:
            devices = await self.devices({"1": "vip,de", "2": "de", "3": None})
            sender = await self.sender()
            tags = ["vip", "gold"]
            self.assertEqual((await sender.count(tags=tags)).matched, 1)
            result = await sender.broadcast(PushContext(b"to vips", tags=tags))
            self.assertEqual((result.counts.sent, result.counts.filtered), (1, 2))
            condition = "userId >= 2"
            count = await sender.count(condition)
            self.assertEqual((count.online, count.matched), (3, 2))
            self.assertTrue(count.counted)
            await sender.broadcast(PushContext(b"to 2 and 3", condition=condition))
            self.assertEqual(
                await self.got(devices),
                {"1": [b"to vips"], "2": [b"to 2 and 3"], "3": [b"to 2 and 3"]},
            )

        return self.run_async(story())

    def test_bad_condition(self) -> Any:
        """
        The first error of a condition is told, of a dry run as well.
        """

        async def story() -> None:
            await self.devices({"a": None})
            sender = await self.sender()
            count = await sender.count("nonsense()")
            self.assertEqual(count.matched, 0)
            self.assertIn("nonsense", count.nodes[0].error)
            result = await sender.broadcast(PushContext(b"x", condition="nonsense()"))
            self.assertEqual(result.counts.sent, 0)
            self.assertIn("nonsense", result.nodes[0].error)

        return self.run_async(story())

    def test_node_stops(self) -> Any:
        """
        A node that stops in the middle says what it has done so far or fails; the
        sender is not left waiting.
        """

        async def story() -> None:
            await self.devices({"a": None, "b": None, "c": None})
            sender = await self.sender()
            await sender.task("slow").set_rate(1)
            sending = sender.broadcast(PushContext(b"x", task_id="slow", timeout=30))
            await deferLater(reactor, 0.2)
            self.node.stopService()
            result = await sending
            self.assertIs(result.code, ResultCode.FAILURE)

        return self.run_async(story())

    def test_no_node(self) -> Any:
        """
        Without any node it fails, and says why.
        """

        async def story() -> None:
            sender = await self.sender()
            await self.node.stopService()
            await self.wait_until(lambda: not self.node.gateway_connections)
            result = await sender.broadcast(PushContext(b"x", timeout=5))
            self.assertIs(result.code, ResultCode.FAILURE)
            self.assertNotEqual(result.nodes[0].reason, "")

        return self.run_async(story())

    def test_blocking(self) -> Any:
        """
        A script without a reactor does all of it too.
        """
        # A reactor of its own declares its thread the reactor thread.
        self.patch(threadable, "ioThread", threadable.ioThread)
        gateway = ("127.0.0.1", self.node.gateway_listener.port)
        reports: list[int] = []

        def script() -> list[object]:
            with BlockingPushSender([gateway]) as sender:
                task = sender.task("t1")
                task.set_rate(500)
                result = sender.broadcast(PushContext(b"x", task_id="t1"), Wait.ALL)
                everybody = sender.send_all(
                    PushContext(b"x", user_ids=["a", "nobody"], trace_id="l1"),
                    lambda done, total, counts: reports.append(done),
                    timeout=10,
                )
                seen = [
                    result.counts.sent,
                    sender.count("true").matched,
                    task.progress(),
                    task.users(),
                    everybody.counts[ResultCode.SUCCESS],
                    [one.outcome for one in sender.trace("l1").pushes],
                ]
                task.cancel()
                return seen

        async def story() -> None:
            await self.devices({"a": None})
            self.assertEqual(
                await deferToThread(script),
                [1, 1, 1, ["a"], 1, ["success", "offline"]],
            )
            self.assertEqual(reports, [2])

        return self.run_async(story())


class TaskTests(BroadcastNodeTestCase):
    """
    The control of a broadcast on a standalone node, whose store nobody else reaches.
    """

    users = tuple("abcdef")

    async def begin(self, rate: int) -> tuple[PushSender, Deferred[BroadcastResult]]:
        """
        Begin to broadcast at a rate.
        """
        await self.devices(dict.fromkeys(self.users))
        sender = await self.sender()
        await sender.task("t1").set_rate(rate)
        sending = sender.broadcast(PushContext(b"x", task_id="t1"))
        await self.wait_until(lambda: self.node.broadcasts.running)
        return sender, sending

    def test_cancel(self) -> Any:
        """
        A broadcast ends when it is cancelled, and says how far it came.
        """

        async def story() -> None:
            sender, sending = await self.begin(2)
            await sender.task("t1").cancel()
            result = await sending
            self.assertIs(result.code, ResultCode.SUCCESS)
            self.assertEqual(result.nodes[0].reason, "cancelled")
            self.assertEqual((result.counts.sent, result.counts.left_out), (2, 4))

        return self.run_async(story())

    def test_faster(self) -> Any:
        """
        With a new rate the rest goes out at once.
        """

        async def story() -> None:
            sender, sending = await self.begin(1)
            await sender.task("t1").set_rate(1000)
            result = await sending
            self.assertEqual(result.counts.sent, 6)
            taken = result.time_line[-1][1] - result.time_line[0][1]
            self.assertLess(taken, 4000)

        return self.run_async(story())

    def test_progress(self) -> Any:
        """
        While it goes on one can see how far it is and whom it has reached, and
        afterwards.
        """

        async def story() -> None:
            sender, sending = await self.begin(3)
            task = sender.task("t1")
            for _ in range(100):
                if await task.progress():
                    break
                await deferLater(reactor, 0.02)
            self.assertEqual(await task.progress(), 3)
            first = await task.users()
            self.assertEqual(len(first), 3)
            await sending
            self.assertEqual(await task.progress(), 6)
            self.assertEqual((await task.users())[:3], first)
            self.assertEqual(sorted(await task.users()), sorted(self.users))

        return self.run_async(story())

    def test_long_list_of_users(self) -> Any:
        """
        More users than fit into one answer are listed all the same.
        """

        async def story() -> None:
            sender = await self.sender()
            names = [f"{number:04d}-{'x' * 60}" for number in range(500)]
            store = self.node.cache
            await store.lpush("t2:sui", names)
            await store.hincrby("mp:ptt2", "sc", 500)
            self.assertEqual(await sender.task("t2").users(), names)
            self.assertEqual(await sender.task("t2").users(490, 100), names[490:])

        return self.run_async(story())


class TraceTests(BroadcastNodeTestCase):
    """
    What a node remembers of pushes with an id.
    """

    def test_acknowledged(self) -> Any:
        """
        Every milestone from the sender to the device's acknowledgement is in the trace,
        in order; the result has them as well.
        """

        async def story() -> None:
            device = await self.device("alice")
            device.acknowledges = True
            sender = await self.sender()
            result = await sender.send(
                PushContext(b"x", user_id="alice", ack=AckModel.AUTO_ACK, trace_id="t1")
            )
            trace = await sender.trace("t1")
            [push] = trace.pushes
            self.assertEqual((push.user_id, push.outcome), ("alice", "ack_success"))
            self.assertEqual(
                [(point.name, point.address is None) for point in trace.milestones],
                [
                    ("begin", True),
                    ("lookup-remote", True),
                    ("check-gateway-conn", True),
                    ("send-to-gateway-begin", True),
                    ("push-center-begin", False),
                    ("before-send", False),
                    ("waiting-ack", False),
                    ("written", False),
                    ("success-end", False),
                ],
            )
            self.assertEqual(result.trace_id, "t1")
            self.assertIn("written", [name for name, _ in result.time_line])

        return self.run_async(story())

    def test_why_not(self) -> Any:
        """
        Of a push that ended as a time-out or offline the trace says where.
        """

        async def story() -> None:
            await self.device("alice")
            sender = await self.sender()
            context = PushContext(
                b"x",
                user_ids=["alice", "bob"],
                ack=AckModel.AUTO_ACK,
                timeout=1.0,
                trace_id="t1",
            )
            await sender.send_all(context)
            trace = await sender.trace("t1")
            self.assertEqual(
                {push.user_id: push.outcome for push in trace.pushes},
                {"alice": "timeout", "bob": "offline"},
            )

        return self.run_async(story())

    def test_many(self) -> Any:
        """
        Many pushes with one id are more than fits into an answer, and come all the
        same, as many as the node remembers.
        """

        async def story() -> None:
            sender = await self.sender()
            users = [f"user-{'x' * 60}-{number}" for number in range(40)]
            context = PushContext(b"x", user_ids=users, trace_id="t1")
            await sender.send_all(context)
            trace = await sender.trace("t1")
            self.assertEqual([one.user_id for one in trace.pushes], users[8:])
            self.assertEqual(trace.silent, ())

        return self.run_async(story())

    def test_broadcast(self) -> Any:
        """
        A broadcast is traced by its task, with its counts.
        """

        async def story() -> None:
            await self.devices({"a": None})
            sender = await self.sender()
            await sender.broadcast(PushContext(b"x", task_id="t1"))
            [push] = (await sender.trace("t1")).pushes
            self.assertEqual(push.outcome, "broadcast_complete")
            self.assertEqual(push.counts, BroadcastCounts(1, 1, 1))

        return self.run_async(story())


class MixedTests(BroadcastNodeTestCase):
    """
    A node of ours beside one of the original.
    """

    def setUp(self) -> Any:
        factory: Any = Factory.forProtocol(OriginalGateway)
        factory.noisy = False
        listen: Any = reactor
        self.original = listen.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(self.original.stopListening)
        return super().setUp()

    async def mixed_sender(self) -> PushSender:
        ports = [self.node.gateway_listener.port, self.original.getHost().port]
        sender = PushSender([("127.0.0.1", port) for port in ports], reactor=reactor)
        self.addCleanup(sender.stop)
        await sender.start()
        return sender

    def test_all_of_it(self) -> Any:
        """
        Broadcasts succeed, with the counts of our node; questions are answered by our
        node, and the other is named as one that cannot; pushes go on as before.
        """

        async def story() -> None:
            await self.devices({"alice": None})
            sender = await self.mixed_sender()
            result = await sender.broadcast(PushContext(b"x"))
            self.assertTrue(result.succeeded)
            self.assertFalse(result.counted)
            self.assertEqual(result.counts.sent, 1)
            count = await sender.count()
            reasons = {node.address[1]: node.reason for node in count.nodes}
            self.assertEqual(count.matched, 1)
            self.assertEqual(reasons[self.original.getHost().port], NO_ANSWERS)
            self.assertEqual(len((await sender.trace("t1")).silent), 1)
            result = await sender.broadcast(PushContext(b"x"))
            self.assertTrue(result.succeeded)

        return self.run_async(story())


class ManualTests(BroadcastNodeTestCase):
    """
    The programs in C{docs/sending.md} for lists, broadcasts and traces, run as they
    stand but for the port.
    """

    async def run_example(self, number: int) -> list[str]:
        """
        Run one, counted from the first of the page.

        @return: What it printed, by lines.
        """
        manual = (ROOT / "docs" / "sending.md").read_text()
        program = re.findall(r"```python\n(.*?)```", manual, re.DOTALL)[number]
        self.assertEqual(program.count("3001"), 1)
        program = program.replace("3001", str(self.node.gateway_listener.port))
        done = await deferToThread(
            subprocess.run,
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual(done.stderr, "")
        return done.stdout.splitlines()

    def test_list(self) -> Any:
        """
        The program for a list prints its end, and what became of each user.
        """

        async def story() -> None:
            await self.device("alice")
            self.assertEqual(
                await self.run_example(4),
                [
                    "2 of 2: {'SUCCESS': 1, 'OFFLINE': 1}",
                    "not all reached",
                    "alice SUCCESS",
                    "bob OFFLINE",
                    "not sent to []",
                ],
            )

        return self.run_async(story())

    def test_broadcast(self) -> Any:
        """
        That for a broadcast counts first, and sends then.
        """

        async def story() -> None:
            devices = await self.devices({"alice": "vip", "bob": None})
            first, second, node = await self.run_example(5)
            self.assertEqual(first, "would reach 1 of 2")
            self.assertEqual(second, "SUCCESS 1 sent")
            self.assertRegex(node, r"^SUCCESS BroadcastCounts\(online=2, matched=1, ")
            self.assertEqual(
                await self.got(devices), {"alice": [b"hello vips"], "bob": []}
            )

        return self.run_async(story())

    def test_task(self) -> Any:
        """
        That for the control of one begins slowly and ends fast.
        """

        async def story() -> None:
            await self.devices({"alice": None, "bob": None, "carol": None})
            self.assertEqual(
                await self.run_example(6),
                ["3 sent to ['alice', 'bob', 'carol']", "SUCCESS"],
            )

        return self.run_async(story())

    def test_trace(self) -> Any:
        """
        That for a trace prints what happened where.
        """

        async def story() -> None:
            device = await self.device("alice")
            device.acknowledges = True
            lines = await self.run_example(7)
            self.assertEqual(lines[0], "alice ack_success")
            self.assertEqual(lines[1], "begin at the sender")
            self.assertEqual(lines[-1], "success-end at the node")

        return self.run_async(story())


class DatagramTests(DatagramNodeTestCase):
    """
    A node whose gateway is UDP.
    """

    async def start(self, group: bool) -> PushSender:
        port = self.node.gateway_listener.port
        sender = PushSender(
            [(LOOPBACK, port)],
            reactor=reactor,
            make_pool=lambda: DatagramPool(
                reactor,
                1500,
                server_group=(GROUP, port) if group else None,
                interface=LOOPBACK,
            ),
        )
        self.addCleanup(sender.stop)
        await sender.start()
        return sender

    async def broadcast(self, group: bool) -> None:
        """
        Broadcast, and see that the device has got it once.
        """
        device = await deferToThread(self.bind, self.node, "d1")
        sender = await self.start(group)
        self.assertEqual((await sender.count()).matched, 1)
        result = await sender.broadcast(PushContext(b"hello", timeout=5))
        self.assertTrue(result.succeeded, result)
        self.assertEqual(result.counts.sent, 1)
        packet = await deferToThread(device.packet)
        assert packet is not None and device.cipher is not None
        self.assertEqual(device.cipher.decrypt(packet[3]), b"hello")
        self.assertIsNone(await deferToThread(device.packet, 0.2))

    def test_multicast(self) -> Any:
        """
        A broadcast is one multicast datagram, where this machine has multicast.
        """
        if not multicast_works():
            raise SkipTest("this machine does not carry multicast by loopback")
        return ensureDeferred(self.broadcast(group=True))

    def test_without_multicast(self) -> Any:
        """
        Where there is none, it is a datagram to each gateway.
        """
        return ensureDeferred(self.broadcast(group=False))

    def test_silence(self) -> Any:
        """
        A node that is not there any more times out.
        """

        async def story() -> None:
            sender = await self.start(group=False)
            await self.node.stopService()
            result = await sender.broadcast(PushContext(b"x", timeout=0.5))
            self.assertIs(result.code, ResultCode.TIMEOUT)
            count = await sender.count(timeout=0.5)
            self.assertEqual(count.nodes[0].reason, "no answer in time")

        return ensureDeferred(story())
