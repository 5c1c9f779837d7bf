"""
The part of the interop tests that every test run has: one path through each pair of a
program of ours and one of theirs, in about ten seconds. C{make interop} runs the rest.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from unittest import SkipTest, TestResult

from twisted.trial.unittest import TestSuite

from tests.interop.processes import OFFLINE, SUCCESS, until
from tests.interop.support import (
    InteropTestCase,
    drop_shared_cluster,
    shared_cluster,
    whole,
)


class _ClusterSuite(TestSuite):
    """
    Starts the cluster before the tests, because the first time it takes longer than a
    test may, and ends it behind them, so that the rest of a test run has the machine.
    """

    def run(self, result: TestResult, debug: bool = False) -> TestResult:
        try:
            with contextlib.suppress(SkipTest, AssertionError):
                # Each test meets the same problem again, and reports it.
                shared_cluster()
            return super().run(result, debug)
        finally:
            drop_shared_cluster()


def test_suite() -> TestSuite:
    """
    All tests of this module.
    """
    return whole(__name__, _ClusterSuite())


class JavaDeviceTests(InteropTestCase):
    """
    Their device on our node.
    """

    def setUp(self) -> None:
        super().setUp()
        self.doors = self.cluster.our_node.doors

    async def test_push(self) -> None:
        """
        It shakes hands, is bound, gets a push from our sender and acknowledges it.
        """
        device = await self.java_device(f"{self.user}-1", self.doors, self.user)
        sender = await self.a_sender("ours")
        outcome = await sender.push(self.user, "grüß Gott", "AUTO_ACK")
        self.assertEqual(outcome.code, SUCCESS)
        self.assertEqual(outcome.location, self.doors.gateway)
        await device.pushed("grüß Gott")

    async def test_fast_connect(self) -> None:
        """
        It comes back by its session, without another handshake, and gets a push.
        """
        storage = Path(tempfile.mkdtemp(prefix="mpush-interop-session-"))
        self.addCleanup(shutil.rmtree, storage)
        name = f"{self.user}-1"
        first = await self.java_device(name, self.doors, self.user, storage=storage)
        await until((storage / "token.dat").exists, "the session to be saved")
        first.stop()
        await until(lambda: not self.cluster.online(self.user), "the user to leave")
        known = self.cluster.sessions()
        again = await self.java_device(name, self.doors, self.user, storage=storage)
        self.assertEqual(self.cluster.sessions(), known)
        sender = await self.a_sender("ours")
        outcome = await sender.push(self.user, "welcome back", "AUTO_ACK")
        self.assertEqual(outcome.code, SUCCESS)
        await again.pushed("welcome back")


class JavaSenderTests(InteropTestCase):
    """
    Their sender and our node.
    """

    async def test_push(self) -> None:
        """
        It finds our node and reaches a device there, which acknowledges.
        """
        doors = self.cluster.our_node.doors
        device = await self.our_device(f"{self.user}-1", doors, self.user)
        sender = await self.a_sender("java")
        outcome = await sender.push(self.user, "hello", "AUTO_ACK")
        self.assertEqual(outcome.code, SUCCESS)
        self.assertEqual(outcome.location, doors.gateway)
        await device.pushed("hello")

    async def test_offline(self) -> None:
        """
        It is told that a user has left our node.
        """
        doors = self.cluster.our_node.doors
        device = await self.our_device(f"{self.user}-1", doors, self.user)
        await device.leave()
        await until(lambda: not self.cluster.online(self.user), "the user to leave")
        sender = await self.a_sender("java")
        outcome = await sender.push(self.user, "too late")
        self.assertEqual(outcome.code, OFFLINE)


class OurSenderTests(InteropTestCase):
    """
    Our sender and their node.
    """

    async def test_push(self) -> None:
        """
        It finds their node and reaches a device there, which acknowledges.
        """
        doors = self.cluster.java_node.doors
        device = await self.our_device(f"{self.user}-1", doors, self.user)
        sender = await self.a_sender("ours")
        outcome = await sender.push(self.user, "hello", "AUTO_ACK")
        self.assertEqual(outcome.code, SUCCESS)
        self.assertEqual(outcome.location, doors.gateway)
        await device.pushed("hello")


class MovingUserTests(InteropTestCase):
    """
    A user who moves between nodes.
    """

    async def test_from_theirs_to_ours(self) -> None:
        """
        Their device is kicked off their node when the user appears on ours.
        """
        here, there = self.cluster.java_node.doors, self.cluster.our_node.doors
        first = await self.java_device(f"{self.user}-1", here, self.user)
        await self.our_device(f"{self.user}-2", there, self.user)
        await first.kicked()

    async def test_from_ours_to_theirs(self) -> None:
        """
        Our device is kicked off our node when the user appears on theirs.
        """
        here, there = self.cluster.our_node.doors, self.cluster.java_node.doors
        first = await self.our_device(f"{self.user}-1", here, self.user)
        await self.java_device(f"{self.user}-2", there, self.user)
        await first.kicked()
