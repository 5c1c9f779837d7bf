"""
Several who wait for one thing.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.sender._waiters import Waiters


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
