"""
Tests for L{mpush_tw.integrations.zookeeper._waiting}.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.config.settings import ZkRetrySettings
from mpush_tw.integrations.zookeeper._waiting import Backoff, Waiters, pauses


class PausesTests(SynchronousTestCase):
    """
    The pauses between the attempts of an operation (cluster 3.9).
    """

    def test_least(self) -> None:
        """
        Each pause is the base at least.
        """
        self.assertEqual(list(pauses(ZkRetrySettings(), lambda _: 0)), [3.0] * 3)

    def test_longest(self) -> None:
        """
        Pause n may be the base times 2^(n+1) - 1, and is no longer than the longest.
        """
        retry = ZkRetrySettings(base_sleep_time=1.0, max_retries=4, max_sleep=10.0)
        self.assertEqual(
            list(pauses(retry, lambda end: end - 1)), [1.0, 3.0, 7.0, 10.0]
        )

    def test_by_chance(self) -> None:
        """
        They are chosen anew each time, between the two.
        """
        retry = ZkRetrySettings(base_sleep_time=1.0, max_retries=3, max_sleep=99.0)
        seen = {tuple(pauses(retry)) for _ in range(200)}
        self.assertGreater(len(seen), 1)
        for first, second, third in seen:
            self.assertEqual(first, 1.0)
            self.assertIn(second, range(1, 4))
            self.assertIn(third, range(1, 8))

    def test_none(self) -> None:
        """
        Without retries there is one attempt and no pause.
        """
        self.assertEqual(list(pauses(ZkRetrySettings(max_retries=0))), [])

    def test_most(self) -> None:
        """
        More than 29 retries count as 29.
        """
        self.assertEqual(len(list(pauses(ZkRetrySettings(max_retries=1000)))), 29)


class BackoffTests(SynchronousTestCase):
    """
    Growing pauses.
    """

    def test_grows(self) -> None:
        """
        Pauses double up to the longest, and begin anew after a success.
        """
        backoff = Backoff(1.0, 5.0)
        self.assertEqual([backoff.pause() for _ in range(5)], [1.0, 2.0, 4.0, 5.0, 5.0])
        backoff.reset()
        self.assertEqual(backoff.pause(), 1.0)

    def test_short(self) -> None:
        """
        A longest pause below the first one does not shorten it: nobody spins.
        """
        backoff = Backoff(1.0, 0.0)
        self.assertEqual([backoff.pause() for _ in range(3)], [1.0, 1.0, 1.0])


class WaitersTests(SynchronousTestCase):
    """
    Several who wait for the same.
    """

    def test_told(self) -> None:
        """
        All who wait are told, each once.
        """
        waiters = Waiters()
        waiting = [waiters.wait(), waiters.wait()]
        waiters.tell()
        waiters.tell()
        for each in waiting:
            self.assertIsNone(self.successResultOf(each))

    def test_failure(self) -> None:
        """
        Or of the failure.
        """
        waiters = Waiters()
        waiting = [waiters.wait(), waiters.wait()]
        waiters.tell(Failure(ZeroDivisionError()))
        for each in waiting:
            self.failureResultOf(each, ZeroDivisionError)

    def test_left(self) -> None:
        """
        Who has given up does not disturb the others.
        """
        waiters = Waiters()
        gone, stays = waiters.wait(), waiters.wait()
        gone.cancel()
        waiters.tell()
        self.failureResultOf(gone, CancelledError)
        self.assertIsNone(self.successResultOf(stays))
