"""
Tests for L{mpush_tw.core.metrics}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.metrics import DoorMetrics, Histogram


class HistogramTests(SynchronousTestCase):
    """
    Durations in buckets.
    """

    def test_buckets(self) -> None:
        """
        A value falls into the first bucket whose upper bound it does not exceed.
        """
        histogram = Histogram((1.0, 2.0))
        for value in (0.0, 1.0, 1.5, 2.0, 2.1, 100.0):
            histogram.observe(value)
        self.assertEqual(histogram.counts, [2, 2, 2])
        self.assertAlmostEqual(histogram.total, 106.6)

    def test_empty(self) -> None:
        """
        Without values all buckets are empty.
        """
        histogram = Histogram((1.0,))
        self.assertEqual((histogram.counts, histogram.total), ([0, 0], 0.0))


class DoorMetricsTests(SynchronousTestCase):
    """
    Packets by command byte.
    """

    def test_every_byte(self) -> None:
        """
        Every signed command byte has a place of its own.
        """
        counts = DoorMetrics().packets_in
        for cmd in range(-128, 128):
            counts[cmd] += 1
        self.assertEqual(counts, [1] * 256)
