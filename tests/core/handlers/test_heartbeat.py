"""
Tests for L{mpush_tw.core.handlers.heartbeat} (server 8.1).
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.handlers.heartbeat import HeartbeatHandler
from tests.core.fakes import Core, FakeConnection


class HeartbeatTests(SynchronousTestCase):
    """
    HEARTBEAT.
    """

    def setUp(self) -> None:
        self.core = Core()
        self.handler = HeartbeatHandler(self.core.log, self.core.metrics)

    def test_answered(self) -> None:
        """
        Each heartbeat gets one back.
        """
        device = FakeConnection()
        for _ in range(3):
            self.handler.heartbeat_received(device, 0, 0, b"")
        self.assertEqual(device.sent, [("heartbeat",)] * 3)
        self.assertEqual(self.core.metrics.heartbeats, 3)

    def test_before_the_handshake(self) -> None:
        """
        That holds in any state.
        """
        device = FakeConnection(None)
        self.handler.heartbeat_received(device, 0, 0, b"")
        self.assertEqual(device.sent, [("heartbeat",)])
