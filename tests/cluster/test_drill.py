"""
Two nodes, a crowd of devices, steady pushes, and one node is killed: the sum is right
and nothing is lost. C{make campaign} does the same with 2,000 devices.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from mpush_tw.bench.drill import DrillReport, DrillShape
from mpush_tw.bench.losses import lose_a_node
from tests.cluster.support import ClusterTestCase

ROOT = Path(__file__).parents[2]
SHAPE = DrillShape(
    clients=200, stay_away=10, rate=150, before=2.0, after=8.0, timeout=3.0
)


class DrillTests(ClusterTestCase):
    """
    200 devices.
    """

    async def drill(self, shape: DrillShape, how: str) -> DrillReport:
        """
        Do one, and state what came of it.
        """
        report = await lose_a_node(self.nodes, shape, how, lambda text: None, reactor)
        what = f"drill of {shape.clients} devices, {how}"
        self.measured(f"{what}: devices back", report.back_seconds)
        self.measured(f"{what}: last failed push", report.settled_seconds)
        return report

    def check(self, report: DrillReport, shape: DrillShape) -> None:
        """
        What must be so however the node was lost.
        """
        for account in (report.account, report.closing):
            self.assertTrue(account.adds_up, report)
            self.assertTrue(account.truthful, report)
            self.assertEqual((account.lost, account.twice), (0, 0), report)
        self.assertEqual(report.dropped, 0, report)
        self.assertEqual(report.lost_devices, shape.clients // 2)
        self.assertEqual(
            (report.closing.delivered, report.closing.offline),
            (shape.clients - shape.stay_away, shape.stay_away),
            report,
        )

    async def test_killed(self) -> None:
        """
        By kill -9: pushes fail for a moment, then those who came back are reached and
        those who stayed away are offline.
        """
        report = await self.drill(SHAPE, "kill")
        self.check(report, SHAPE)
        self.assertGreater(report.account.failed + report.account.timed_out, 0)
        self.assertGreater(report.account.offline, 0)

    async def test_stopped(self) -> None:
        """
        By an orderly stop: devices move, those who stay away are offline at once, and
        no push but the few that were on their way to a closing device fails.
        """
        report = await self.drill(SHAPE, "stop")
        self.check(report, SHAPE)
        account = report.account
        self.assertLess(account.failed + account.timed_out, SHAPE.rate / 4)


class CommandTests(ClusterTestCase):
    """
    C{mpush bench kill}, as typed.
    """

    async def run_command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """
        Run it with few devices.
        """
        return await deferToThread(
            subprocess.run,
            [
                sys.executable,
                *("-c", "from mpush_tw.cli import main; main()", "bench", "kill"),
                *("--clients", "20", "--rate", "50", "--before", "1", "--after", "6"),
                *arguments,
            ],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )

    async def test_report(self) -> None:
        """
        It starts nodes of its own beside those that are there, prints a table, and
        writes JSON.
        """
        path = Path(self.mktemp()).absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        done = await self.run_command(
            *("--redis", self.redis.address, "--zookeeper", self.zookeeper.address),
            *("--stay-away", "2", "--json", str(path)),
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("closing round", done.stdout)
        document = json.loads(path.read_text())
        self.assertEqual(document["conditions"]["drill: clients"], 20)
        self.assertEqual(document["report"]["closing"]["delivered"], 18)
        self.assertEqual(document["report"]["account"]["lost"], 0)

    async def test_no_redis(self) -> None:
        """
        Without a Redis it ends with a sentence that names the address.
        """
        self.redis.kill()
        done = await self.run_command(
            *("--redis", self.redis.address, "--zookeeper", self.zookeeper.address),
            *("--stay-away", "2"),
        )
        self.assertEqual(done.returncode, 1)
        self.assertIn(self.redis.address, done.stderr)

    async def test_too_many_stay_away(self) -> None:
        """
        More devices than the lost node has cannot stay away from it.
        """
        done = await self.run_command(
            *("--redis", "127.0.0.1:1", "--zookeeper", "127.0.0.1:1"),
            *("--stay-away", "11"),
        )
        self.assertEqual(done.returncode, 2)
        self.assertIn("--stay-away", done.stderr)
