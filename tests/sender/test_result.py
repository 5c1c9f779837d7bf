"""
What callers read from a result.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.sender import AggregateResult, PushResult, ResultCode


class RenderTests(SynchronousTestCase):
    def test_time_line(self) -> None:
        """
        The time line reads as in the original's logs, full-width bracket included.
        """
        line = (("begin", 1000), ("send", 1003), ("end", 1010))
        result = PushResult(ResultCode.SUCCESS, "bob", line)
        self.assertEqual(
            result.render(),
            "Push-Time-Line[10](ms){begin --\uff083ms) --> send --\uff087ms) --> end}",
        )

    def test_no_points(self) -> None:
        """
        A result without points has an empty line.
        """
        result = PushResult(ResultCode.SUCCESS, "bob")
        self.assertEqual(result.render(), "Push-Time-Line[0](ms){}")


class AggregateResultTests(SynchronousTestCase):
    def test_counts(self) -> None:
        """
        Every code is counted, those that did not occur too.
        """
        codes = [ResultCode.SUCCESS, ResultCode.OFFLINE, ResultCode.SUCCESS]
        aggregate = AggregateResult([PushResult(code, "bob") for code in codes])
        self.assertEqual(
            aggregate.counts,
            {
                ResultCode.SUCCESS: 2,
                ResultCode.FAILURE: 0,
                ResultCode.OFFLINE: 1,
                ResultCode.TIMEOUT: 0,
            },
        )

    def test_succeeded(self) -> None:
        """
        A list succeeded when every user was reached.
        """
        reached = PushResult(ResultCode.SUCCESS, "a")
        missed = PushResult(ResultCode.OFFLINE, "b")
        self.assertTrue(AggregateResult([reached]).succeeded)
        self.assertFalse(AggregateResult([reached, missed]).succeeded)
