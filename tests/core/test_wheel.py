"""
Tests for L{mpush_tw.core.wheel}.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.wheel import TimingWheel


class Waiter:
    """
    Notes when it was called.
    """

    def __init__(self, name: str, calls: list[tuple[str, float]]) -> None:
        self.name = name
        self.calls = calls
        self.wheel_slot = 0
        self.then: Callable[[], object] | None = None

    def expired(self, now: float) -> None:
        self.calls.append((self.name, now))
        if self.then is not None:
            self.then()


class WheelTests(SynchronousTestCase):
    """
    Waiting on the wheel.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.wheel = TimingWheel(self.clock, 0.02)
        self.calls: list[tuple[str, float]] = []

    def waiter(self, name: str = "a") -> Waiter:
        """
        Make something that can wait.
        """
        return Waiter(name, self.calls)

    def names(self) -> list[str]:
        """
        Who was called, in order.
        """
        return [name for name, _ in self.calls]

    def test_called(self) -> None:
        """
        Who waits is called once, not early, and late by less than a slice.
        """
        self.wheel.add(self.waiter(), 1.0)
        for _ in range(2000):
            self.clock.advance(0.001)
        self.assertEqual(self.names(), ["a"])
        self.assertGreaterEqual(self.calls[0][1], 1.0)
        self.assertLessEqual(self.calls[0][1], 1.021)

    def test_at_any_time_of_day(self) -> None:
        """
        That holds for clocks that count from 1970.
        """
        self.clock.advance(1_764_000_000.123)
        for delay in (0.0, 0.001, 0.02, 0.5, 3.0):
            began = self.clock.seconds()
            self.wheel.add(self.waiter(), delay)
            while not self.calls:
                self.clock.advance(0.001)
            late = self.calls.pop()[1] - began - delay
            self.assertGreaterEqual(late, -1e-6)
            self.assertLess(late, 0.022)

    def test_order(self) -> None:
        """
        Different times are served in their order, whatever the order of adding.
        """
        for name, delay in (("c", 3.0), ("a", 1.0), ("b", 2.0)):
            self.wheel.add(self.waiter(name), delay)
        for _ in range(40):
            self.clock.advance(0.1)
        self.assertEqual(self.names(), ["a", "b", "c"])

    def test_same_time(self) -> None:
        """
        Those of the same time are served in the order of adding.
        """
        for name in "abc":
            self.wheel.add(self.waiter(name), 1.0)
        self.clock.advance(2)
        self.assertEqual(self.names(), ["a", "b", "c"])

    def test_all_overdue(self) -> None:
        """
        A clock that jumped finds everybody, in order.
        """
        for name, delay in (("b", 2.0), ("a", 1.0), ("d", 300.0)):
            self.wheel.add(self.waiter(name), delay)
        self.clock.advance(100)
        self.assertEqual(self.names(), ["a", "b"])

    def test_removed(self) -> None:
        """
        Who was taken out is not called.
        """
        waiter = self.waiter()
        self.wheel.add(waiter, 1.0)
        self.wheel.remove(waiter)
        self.clock.advance(5)
        self.assertEqual(self.calls, [])
        self.assertEqual(len(self.wheel), 0)

    def test_removed_without_waiting(self) -> None:
        """
        Taking out who does not wait does nothing.
        """
        waiter = self.waiter()
        self.wheel.remove(waiter)
        self.wheel.add(waiter, 1.0)
        self.wheel.remove(waiter)
        self.wheel.remove(waiter)
        self.assertEqual(len(self.wheel), 0)

    def test_added_twice(self) -> None:
        """
        Who is added again waits anew, and is called once.
        """
        waiter = self.waiter()
        self.wheel.add(waiter, 1.0)
        self.clock.advance(0.5)
        self.wheel.add(waiter, 1.0)
        self.clock.advance(0.9)
        self.assertEqual(self.calls, [])
        self.clock.advance(5)
        self.assertEqual(self.names(), ["a"])

    def test_earlier_than_the_others(self) -> None:
        """
        A shorter wait that is added later is served in time.
        """
        self.wheel.add(self.waiter("late"), 100.0)
        self.wheel.add(self.waiter("early"), 1.0)
        self.clock.advance(1.1)
        self.assertEqual(self.names(), ["early"])

    def test_again_from_within(self) -> None:
        """
        Who waits anew when called is called again and again.
        """
        waiter = self.waiter()
        waiter.then = lambda: self.wheel.add(waiter, 1.0)
        self.wheel.add(waiter, 1.0)
        for _ in range(50):
            self.clock.advance(0.1)
        self.assertEqual(self.names(), ["a"] * 4)

    def test_no_delay_from_within(self) -> None:
        """
        Waiting anew for no time at all does not hold the others up for ever.
        """
        waiter = self.waiter()
        waiter.then = lambda: self.wheel.add(waiter, 0.0)
        self.wheel.add(waiter, 0.0)
        self.wheel.add(self.waiter("b"), 0.05)
        for _ in range(10):
            self.clock.advance(0.02)
        self.assertIn("b", self.names())
        self.assertLessEqual(len(self.calls), 11)

    def test_another_waits_anew(self) -> None:
        """
        One that is made to wait anew by another of the same time is called then, not
        now.
        """
        first, second = self.waiter("a"), self.waiter("b")
        first.then = lambda: self.wheel.add(second, 1.0)
        self.wheel.add(first, 1.0)
        self.wheel.add(second, 1.0)
        self.clock.advance(1.5)
        self.assertEqual(self.names(), ["a"])
        self.clock.advance(2)
        self.assertEqual(self.names(), ["a", "b"])

    def test_another_is_removed(self) -> None:
        """
        One that is taken out by another of the same time is not called.
        """
        first, second = self.waiter("a"), self.waiter("b")
        first.then = lambda: self.wheel.remove(second)
        self.wheel.add(first, 1.0)
        self.wheel.add(second, 1.0)
        self.clock.advance(5)
        self.assertEqual(self.names(), ["a"])

    def test_raises(self) -> None:
        """
        One that raises is logged, and the others are served.
        """

        def fail() -> None:
            raise ZeroDivisionError

        first = self.waiter("a")
        first.then = fail
        self.wheel.add(first, 1.0)
        self.wheel.add(self.waiter("b"), 1.0)
        self.wheel.add(self.waiter("c"), 2.0)
        self.clock.advance(5)
        self.assertEqual(self.names(), ["a", "b", "c"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_coarse(self) -> None:
        """
        A coarse wait ends at a whole second of the clock, not early.
        """
        self.clock.advance(10.3)
        self.wheel.add(self.waiter(), 5.0, coarse=True)
        self.clock.advance(5.6)
        self.assertEqual(self.calls, [])
        self.clock.advance(0.2)
        self.assertEqual(self.names(), ["a"])

    def test_coarse_waits_share(self) -> None:
        """
        Coarse waits of the same second cost the clock one call.
        """
        for _ in range(50):
            self.clock.advance(0.01)
            self.wheel.add(self.waiter(), 5.0, coarse=True)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(6)
        self.assertEqual(len(self.calls), 50)

    def test_one_call(self) -> None:
        """
        However many wait for however different times, the clock holds one call.
        """
        for number in range(100):
            self.wheel.add(self.waiter(), (number * 37) % 100)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.assertEqual(len(self.wheel), 100)

    def test_idle(self) -> None:
        """
        When nobody waits the clock holds none.
        """
        self.wheel.add(self.waiter(), 1.0)
        self.clock.advance(2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_waits_that_end_early(self) -> None:
        """
        However many long waits end early, nothing of them stays, and who waits on is
        called at the right time.
        """
        early = self.waiter("early")
        for delay in (900, 700, 800):
            self.wheel.add(self.waiter(f"late {delay}"), delay)
        for number in range(200_000):
            self.wheel.add(early, 600.0 + number * 0.02)
            self.wheel.remove(early)
        self.assertEqual(len(self.wheel._slots), 3)
        self.assertLess(len(self.wheel._order), 2000)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        for _ in range(95):
            self.clock.advance(10)
        self.assertEqual(self.names(), ["late 700", "late 800", "late 900"])
        for (_, called), due in zip(self.calls, (700, 800, 900), strict=True):
            self.assertTrue(due <= called <= due + 10, called)

    def test_emptied_slice_used_again(self) -> None:
        """
        Who waits in a slice that others have left is called once.
        """
        for name in ("a", "b", "c"):
            waiter = self.waiter(name)
            self.wheel.add(waiter, 1.0)
            self.wheel.remove(waiter)
        self.wheel.add(self.waiter("d"), 1.0)
        self.wheel.add(self.waiter("e"), 2.0)
        self.clock.advance(1.5)
        self.assertEqual(self.names(), ["d"])
        self.clock.advance(1.0)
        self.assertEqual(self.names(), ["d", "e"])

    def test_stop(self) -> None:
        """
        After a stop nobody is called, and the clock is left alone.
        """
        waiter = self.waiter()
        self.wheel.add(waiter, 1.0)
        self.wheel.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(waiter.wheel_slot, 0)
        self.assertEqual(len(self.wheel), 0)

    def test_used_after_stop(self) -> None:
        """
        A stopped wheel can be used again, and stopping an idle one does nothing.
        """
        self.wheel.stop()
        self.wheel.add(self.waiter(), 1.0)
        self.clock.advance(2)
        self.assertEqual(self.names(), ["a"])
