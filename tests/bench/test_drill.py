"""
The drill and its parts, on two standalone nodes in processes of their own.
"""

from __future__ import annotations

from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mpush_tw.bench.crowd import Crowd
from mpush_tw.bench.drill import Drill, DrillShape
from mpush_tw.bench.node import NodeProcess, free_port
from mpush_tw.keys import SAMPLE_PUBLIC_KEY
from mpush_tw.sender import PushSender

STANDALONE = {"mp.log-level": "warn", "mp.security.allow-sample-key": True}
SMALL = DrillShape(
    clients=20, stay_away=2, rate=100, before=0.5, after=6.0, timeout=1.0
)


def node(host: str = "127.0.0.1") -> NodeProcess:
    """
    A standalone node that is not started yet.
    """
    return NodeProcess({**STANDALONE, "mp.net.gateway-server-bind-ip": host}, host)


class NodeProcessTests(SynchronousTestCase):
    """
    A node in a process of its own.
    """

    def test_comes_back(self) -> None:
        """A killed node has the same ports when it is started again."""
        process = node()
        self.addCleanup(process.close)
        process.start()
        first, port = process.pid, process.port
        process.kill()
        self.assertEqual(process.pid, 0)
        process.start()
        self.assertEqual(process.port, port)
        self.assertNotIn(process.pid, (0, first))

    def test_orderly_stop(self) -> None:
        """A node that is told to stop ends with status 0, even from a pause."""
        process = node()
        self.addCleanup(process.close)
        process.start()
        process.pause()
        self.assertEqual(process.terminate(), 0)
        self.assertIn("MPUSH SERVER STOPPED SUCCESS", process.log())

    def test_cannot_start(self) -> None:
        """A node that cannot start says why."""
        process = NodeProcess({"mp.core.max-packet-size": "lots"})
        self.addCleanup(process.close)
        error = self.assertRaises(RuntimeError, process.start)
        self.assertIn("mp.core.max-packet-size", str(error))
        self.assertEqual(process.pid, 0)


class CrowdTests(TestCase):
    """
    Many devices.
    """

    timeout = 60

    async def test_nobody_there(self) -> None:
        """Devices that find no server are not waited for without end."""
        users = ["a", "b"]
        servers = [("127.0.0.1", free_port())]
        crowd = Crowd(reactor, SAMPLE_PUBLIC_KEY, servers, users, lambda content: None)
        try:
            with self.assertRaises(RuntimeError) as raised:
                await crowd.come(0.2)
        finally:
            await crowd.close()
        self.assertIn("0 of 2 devices bound", str(raised.exception))

    async def test_reconnect(self) -> None:
        """All devices connect anew when they are told to; that is not a loss."""
        process = node()
        self.addCleanup(process.close)
        process.start()
        users = [f"user-{number}" for number in range(5)]
        servers = [(process.host, process.port)]
        crowd = Crowd(reactor, SAMPLE_PUBLIC_KEY, servers, users, lambda content: None)
        self.addCleanup(crowd.close)
        await crowd.come()
        await crowd.reconnect()
        self.assertEqual(crowd.bound, 0)
        await crowd.all_bound(10)
        self.assertEqual((crowd.bound, crowd.drops, crowd.kicks), (5, 0, 0))


class DrillTests(TestCase):
    """
    A node is killed while pushes go on.
    """

    timeout = 120

    async def test_two_nodes(self) -> None:
        """
        Every push is accounted for; the lost node's devices are at the other soon,
        whose own devices notice nothing.

        Without a registry the sender cannot know that the lost node is no more: pushes
        to those who stay away fail.
        """
        nodes = [node("127.0.0.1"), node("127.0.0.2")]
        for process in nodes:
            self.addCleanup(process.close)
            process.launch()
        for process in nodes:
            process.wait_started()
        gateways = [(process.host, process.gateway_port) for process in nodes]
        sender = PushSender(gateways, reactor=reactor)
        await sender.start()
        self.addCleanup(sender.stop)
        told: list[str] = []
        report = await Drill(
            SMALL,
            [(process.host, process.port) for process in nodes],
            SAMPLE_PUBLIC_KEY,
            sender,
            nodes[0].kill,
            reactor,
            told.append,
        ).run()
        self.assertTrue(report.account.adds_up, report)
        self.assertTrue(report.account.truthful, report)
        self.assertGreater(report.account.delivered, 0)
        self.assertGreater(report.account.failed, 0)
        self.assertEqual((report.lost_devices, report.dropped), (10, 0))
        self.assertGreater(report.back_seconds, 0)
        self.assertGreater(report.settled_seconds, 0)
        closing = report.closing
        self.assertEqual((closing.delivered, closing.failed), (18, 2), report)
        self.assertEqual(len(told), 4)
