"""
Tests for L{mpush_tw.integrations.memory.queue}.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from mpush_tw.integrations.memory import MemoryQueue
from mpush_tw.interfaces import IMessageQueue
from tests.integrations.contracts import QueueContract


class MemoryQueueTests(QueueContract, TestCase):
    """
    It does what every queue does.
    """

    def make_queue(self) -> IMessageQueue:
        self.clock = Clock()
        return MemoryQueue(self.clock)

    def settle(self) -> Deferred[None]:
        self.clock.advance(0)
        return succeed(None)

    def test_stopped(self) -> None:
        """
        After a stop nobody hears anything.
        """
        self.queue.subscribe(self.topic, self.receive)
        self.queue.publish(self.topic, "x")
        self.queue.stop()
        self.clock.advance(0)
        self.assertEqual(self.received, [])
