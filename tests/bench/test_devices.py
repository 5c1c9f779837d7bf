"""
The devices of the benchmark when none can connect.
"""

from __future__ import annotations

import time

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.bench import devices
from mpush_tw.bench.devices import DeviceLoad, Devices
from tests.support import SAMPLE

NOWHERE = "255.255.255.255"
"""
TCP does not go there: the kernel says so at once, and sends nothing.
"""


class UnreachableTests(SynchronousTestCase):
    """
    Connections that fail at once, as they do when all ports are used up.
    """

    def setUp(self) -> None:
        load = DeviceLoad(NOWHERE, 3000, SAMPLE["rsaPublicKeyBase64"], 0, 5000, 64, 1)
        self.devices = Devices(load)
        self.addCleanup(self.devices.close)

    def test_churn_gives_up(self) -> None:
        """Connecting again and again ends with a sentence that says why."""
        started = time.monotonic()
        error = self.assertRaises(RuntimeError, self.devices.churn, 30.0, 0.0)
        self.assertEqual(
            str(error),
            "1000 connections in a row to 255.255.255.255:3000 failed at once: "
            "Network is unreachable",
        )
        self.assertEqual(self.devices.failed, 1000)
        self.assertLess(time.monotonic() - started, 20)

    def test_open_all_gives_up(self) -> None:
        """So does opening many devices."""
        error = self.assertRaises(RuntimeError, self.devices.open_all)
        self.assertIn("Network is unreachable", str(error))
        self.assertEqual(self.devices.failed, 1000)

    def test_time_is_up(self) -> None:
        """Without giving up, the time still ends it."""
        self.patch(devices, "_MOST_FAILURES", 10**9)
        started = time.monotonic()
        self.assertEqual(self.devices.churn(0.1, 0.1), 0)
        self.assertGreater(self.devices.failed, 0)
        self.assertLess(time.monotonic() - started, 20)
