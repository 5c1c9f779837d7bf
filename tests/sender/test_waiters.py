"""
Several who wait for one thing.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.sender._waiters import Waiters, all_of


class WaitersTests(SynchronousTestCase):
    """
    L{Waiters}.
    """

    def setUp(self) -> None:
        self.waiters: Waiters[int] = Waiters()

    def test_all_are_told(self) -> None:
        """
        Everybody who waits gets the result; who waits afterwards waits for the next.
        """
        first, second = self.waiters.wait(), self.waiters.wait()
        self.waiters.tell(1)
        later = self.waiters.wait()
        self.assertEqual(self.successResultOf(first), 1)
        self.assertEqual(self.successResultOf(second), 1)
        self.assertNoResult(later)

    def test_failure(self) -> None:
        """
        Or the failure.
        """
        waiting = self.waiters.wait()
        self.waiters.tell(Failure(ValueError()))
        self.failureResultOf(waiting, ValueError)

    def test_cancelled(self) -> None:
        """
        Who has given up is not kept.
        """
        waiting, other = self.waiters.wait(), self.waiters.wait()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(len(self.waiters), 1)
        self.waiters.tell(1)
        self.assertEqual(self.successResultOf(other), 1)

    def test_cancelled_by_another(self) -> None:
        """
        Somebody who is told may make another give up, or wait again.
        """
        first, second = self.waiters.wait(), self.waiters.wait()
        again: list[object] = []

        def told(result: int) -> None:
            second.cancel()
            again.append(self.waiters.wait())

        first.addCallback(told)
        self.waiters.tell(1)
        self.failureResultOf(second, CancelledError)
        self.assertEqual(len(again), len(self.waiters))


class AllOfTests(SynchronousTestCase):
    """
    One who waits for several.
    """

    def setUp(self) -> None:
        self.waiting: list[Deferred[int]] = [Deferred(), Deferred()]
        self.all = all_of(self.waiting)

    def test_results(self) -> None:
        """
        The results come together, in order.
        """
        self.waiting[1].callback(2)
        self.assertNoResult(self.all)
        self.waiting[0].callback(1)
        self.assertEqual(self.successResultOf(self.all), [1, 2])

    def test_failure(self) -> None:
        """
        It fails as the first of them does.
        """
        self.waiting[1].errback(ValueError())
        self.failureResultOf(self.all, ValueError)

    def test_cancelled(self) -> None:
        """
        Giving up gives all of them up.
        """
        self.all.cancel()
        self.failureResultOf(self.all, CancelledError)
        self.assertTrue(all(one.called for one in self.waiting))
