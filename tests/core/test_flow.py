"""
Tests for L{mpush_tw.core.flow} (server 14.6).
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.flow import EvenFlow, GlobalFlow, OverMaximum, WindowFlow
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


class WindowFlowTests(SynchronousTestCase):
    """
    The limiter of one broadcast.
    """

    def setUp(self) -> None:
        self.clock = Clock()

    def flow(
        self, limit: int = 5, maximum: int = 1000, duration: float = 1.0
    ) -> WindowFlow:
        """
        Make a limiter.
        """
        return WindowFlow(self.clock, limit, maximum, duration)

    def send_all(self, flow: WindowFlow) -> int:
        """
        Send as much as there is room for.
        """
        room = flow.room()
        flow.spend(room)
        return room

    def test_windows(self) -> None:
        """
        Each window lets exactly its limit through, the first one too (S-19).
        """
        flow = self.flow()
        for _ in range(3):
            self.assertEqual(self.send_all(flow), 5)
            self.assertEqual(flow.room(), 0)
            self.clock.advance(1.0)
        self.assertEqual(flow.total, 15)

    def test_in_parts(self) -> None:
        """
        What is sent in parts counts together.
        """
        flow = self.flow()
        flow.spend(2)
        self.clock.advance(0.5)
        self.assertEqual(flow.room(), 3)
        flow.spend(3)
        self.assertAlmostEqual(flow.delay(), 0.5)
        self.clock.advance(flow.delay())
        self.assertEqual(flow.room(), 5)

    def test_maximum(self) -> None:
        """
        Over the maximum nothing goes, and that is said.
        """
        flow = self.flow(maximum=7)
        self.assertEqual(self.send_all(flow), 5)
        self.clock.advance(1)
        self.assertEqual(self.send_all(flow), 2)
        self.assertRaises(OverMaximum, flow.room)

    def test_no_maximum(self) -> None:
        """
        A maximum of 0 ends with the first full window (server 14.6).
        """
        flow = self.flow(maximum=0)
        self.assertEqual(self.send_all(flow), 5)
        self.assertRaises(OverMaximum, flow.room)

    def test_changed_limit(self) -> None:
        """
        A limit that is changed counts from now on.
        """
        flow = self.flow()
        flow.spend(4)
        flow.limit = 10
        self.assertEqual(flow.room(), 6)
        flow.limit = 2
        self.assertEqual(flow.room(), 0)

    @given(
        limit=st.integers(1, 50),
        maximum=st.integers(1, 500),
        steps=st.lists(st.tuples(st.floats(0, 3), st.integers(0, 80)), max_size=40),
    )
    def test_model(
        self, limit: int, maximum: int, steps: list[tuple[float, int]]
    ) -> None:
        """
        Whatever is asked when: never more than the limit from the first send of a
        window to its end, and never more than the maximum.
        """
        clock = Clock()
        flow = WindowFlow(clock, limit, maximum, 1.0)
        sent: list[float] = []
        opened, in_window = 0.0, 0
        for pause, wanted in steps:
            clock.advance(pause)
            if clock.seconds() - opened >= 1.0:
                in_window = 0
            expected = min(limit - in_window, maximum - len(sent))
            try:
                room = flow.room()
            except OverMaximum:
                self.assertEqual(len(sent), maximum)
                break
            self.assertEqual(room, expected)
            count = min(room, wanted)
            if count and not in_window:
                opened = clock.seconds()
            flow.spend(count)
            if count:
                in_window += count
            sent.extend([clock.seconds()] * count)
        self.assertEqual(flow.total, len(sent))


class EvenFlowTests(SynchronousTestCase):
    """
    The limiter without bursts.
    """

    def granted(self, flow: EvenFlow, asked: int = 1000) -> int:
        """
        How many of so many requests are granted now.
        """
        return sum(flow.acquire() for _ in range(asked))

    def test_buckets(self) -> None:
        """
        A second's worth is spread over its hundredths.
        """
        clock = Clock()
        flow = EvenFlow(clock, 550)
        counts = []
        for _ in range(100):
            counts.append(self.granted(flow))
            clock.advance(0.010001)
        self.assertEqual(set(counts), {5})
        self.assertEqual(flow.total, 500)

    def test_few(self) -> None:
        """
        Below a hundred there is one bucket of a second.
        """
        clock = Clock()
        flow = EvenFlow(clock, 7)
        self.assertEqual(self.granted(flow), 7)
        clock.advance(0.99)
        self.assertEqual(self.granted(flow), 0)
        clock.advance(0.02)
        self.assertEqual(self.granted(flow), 7)

    def test_delay(self) -> None:
        """
        Asking again makes sense after a millisecond.
        """
        self.assertEqual(EvenFlow(Clock(), 1).delay(), 0.001)
