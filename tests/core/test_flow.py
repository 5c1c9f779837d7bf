"""
Tests for L{mpush_tw.core.flow} (server 14.6).
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.flow import GlobalFlow, OverMaximum
from mpush_tw.errors import PushError


class GlobalFlowTests(SynchronousTestCase):
    """
    The limiter of single-user pushes.
    """

    def setUp(self) -> None:
        self.clock = Clock()

    def flow(
        self, limit: int = 5, maximum: int = 0, duration: float = 1.0
    ) -> GlobalFlow:
        """
        Make a limiter.
        """
        return GlobalFlow(self.clock, limit, maximum, duration)

    def granted(self, flow: GlobalFlow, asked: int = 20) -> int:
        """
        How many of so many requests are granted now.
        """
        return sum(flow.acquire() for _ in range(asked))

    def test_first_window(self) -> None:
        """
        The first window lets its limit less one through (server 14.6).
        """
        self.assertEqual(self.granted(self.flow()), 4)

    def test_later_windows(self) -> None:
        """
        Every later one lets exactly its limit through.
        """
        flow = self.flow()
        self.granted(flow)
        for _ in range(3):
            self.clock.advance(1.01)
            self.assertEqual(self.granted(flow), 5)

    def test_within_the_window(self) -> None:
        """
        Until the window has ended nothing more is granted.
        """
        flow = self.flow()
        self.granted(flow)
        self.clock.advance(0.99)
        self.assertEqual(self.granted(flow), 0)

    def test_delay(self) -> None:
        """
        The limiter tells how long the window still lasts, never less than nothing.
        """
        flow = self.flow()
        self.clock.advance(0.25)
        self.assertEqual(flow.delay(), 0.75)
        self.clock.advance(5)
        self.assertEqual(flow.delay(), 0.0)

    def test_one_a_window(self) -> None:
        """
        A limit of one lets one through in each window.
        """
        flow = self.flow(limit=1)
        granted = 0
        for _ in range(100):
            granted += self.granted(flow, 2)
            self.clock.advance(0.1)
        self.assertIn(granted, (9, 10))

    def test_total(self) -> None:
        """
        What was granted is counted over all windows.
        """
        flow = self.flow()
        self.granted(flow)
        self.clock.advance(1.01)
        self.granted(flow)
        self.assertEqual(flow.total, 9)

    def test_no_maximum(self) -> None:
        """
        A maximum of 0 or less is none.
        """
        for maximum in (0, -1):
            flow = self.flow(maximum=maximum)
            for _ in range(20):
                self.granted(flow)
                self.clock.advance(1.01)
            self.assertEqual(self.granted(flow), 5)

    def test_maximum(self) -> None:
        """
        Beyond the maximum every full window raises, as an error of the push alone.
        """
        flow = self.flow(maximum=3)
        self.granted(flow, 4)
        error = self.assertRaises(OverMaximum, flow.acquire)
        self.assertIsInstance(error, PushError)
        self.clock.advance(10)
        self.assertRaises(OverMaximum, flow.acquire)
