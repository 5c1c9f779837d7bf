"""
Tests for L{mpush_tw.broadcast_task}, on the store in memory.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mpush_tw.broadcast_task import BroadcastTask, IBroadcastTask
from mpush_tw.errors import PushError
from mpush_tw.integrations.memory import MemoryCache


class BroadcastTaskTests(SynchronousTestCase):
    """
    The controller's side of a task.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.cache = MemoryCache(self.clock)
        self.task = BroadcastTask(self.cache, "t1")

    def stored(self) -> dict[str, str]:
        return self.successResultOf(self.cache.hgetall("mp:ptt1"))

    def users(self, *page: Any) -> list[str]:
        return self.successResultOf(self.task.users(*page))

    def test_interface(self) -> None:
        """
        It is one of the ways to control a task.
        """
        verifyObject(IBroadcastTask, self.task)

    def test_rate(self) -> None:
        """
        The rate is written as the original does.
        """
        self.successResultOf(self.task.set_rate(250))
        self.assertEqual(self.stored(), {"q": "250"})

    def test_no_rate(self) -> None:
        """
        What is no number of messages is refused.
        """
        for rate in (0, -5, 1.5, "10", None, True, 2**31):
            with self.subTest(rate=rate):
                wrong: Any = rate
                self.assertRaises(PushError, self.task.set_rate, wrong)
        self.assertEqual(self.stored(), {})

    def test_cancel(self) -> None:
        """
        So is that it is cancelled.
        """
        self.successResultOf(self.task.cancel())
        self.assertEqual(self.stored(), {"c": "1"})

    def test_forgotten(self) -> None:
        """
        What nobody ever begins is not kept for ever.
        """
        self.successResultOf(self.task.cancel())
        self.clock.advance(7 * 86400 - 1)
        self.assertEqual(self.stored(), {"c": "1"})
        self.clock.advance(2)
        self.assertEqual(self.stored(), {})

    def test_progress(self) -> None:
        """
        The progress is what the nodes have counted: nothing before they begin.
        """
        self.assertEqual(self.successResultOf(self.task.progress()), 0)
        self.cache.hincrby("mp:ptt1", "sc", 40)
        self.cache.hincrby("mp:ptt1", "sc", 2)
        self.assertEqual(self.successResultOf(self.task.progress()), 42)

    def test_unreadable_progress(self) -> None:
        """
        Something else in its place counts as nothing.
        """
        for text in ("many", "", "-4"):
            self.cache.hset("mp:ptt1", "sc", text)
            self.assertEqual(self.successResultOf(self.task.progress()), 0)

    def test_users(self) -> None:
        """
        Users are listed from the earliest on, page by page, and pages stay in their
        place while there come more.
        """
        self.assertEqual(self.users(), [])
        self.cache.lpush("t1:sui", ["a", "b", "c"])
        self.assertEqual(self.users(), ["a", "b", "c"])
        self.assertEqual(self.users(0, 2), ["a", "b"])
        self.cache.lpush("t1:sui", ["d"])
        self.assertEqual(self.users(0, 2), ["a", "b"])
        self.assertEqual(self.users(2, 2), ["c", "d"])
        self.assertEqual(self.users(3, 2), ["d"])
        self.assertEqual(self.users(4, 2), [])
        self.assertEqual(self.users(99, 2), [])

    def test_no_page(self) -> None:
        """
        Pages that are none, or too large, are refused.
        """
        for page in ((-1, 5), (0, 0), (0, 10_001), ("0", 5), (0, True)):
            with self.subTest(page=page):
                self.assertRaises(PushError, self.users, *page)
