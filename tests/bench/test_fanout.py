"""
Tests for L{mpush_tw.bench.fanout}: it measures a node of its own, and adds up.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.bench.fanout import FanoutShape, fanout
from mpush_tw.bench.runs import Shape
from mpush_tw.bench.target import own_node

_SHAPE = Shape(20, 1, 8, 1, 0.5, 0.0)


class FanoutTests(SynchronousTestCase):
    """
    A small broadcast measurement.
    """

    def setUp(self) -> None:
        self.target = own_node(1024)
        self.addCleanup(self.target.close)

    def test_everybody(self) -> None:
        """
        What was sent has been received, by everybody and each time.
        """
        measured = fanout(self.target, _SHAPE, FanoutShape(3), lambda _: None)
        figures = measured.figures
        self.assertEqual((figures["sent"], figures["received"]), (60, 60))
        self.assertEqual(measured.remarks, [])

    def test_beside(self) -> None:
        """
        Pushes beside it are measured alone and meanwhile; none fails.
        """
        what = FanoutShape(1, 50, "/[02468]$/.test(userId)")
        figures = fanout(self.target, _SHAPE, what, lambda _: None).figures
        self.assertEqual(figures["single pushes failed"], 0)
        self.assertIsNotNone(figures["single push alone p99 ms"])
        self.assertIsNotNone(figures["single push meanwhile p99 ms"])
        broadcasts = figures["broadcasts"]
        assert isinstance(broadcasts, int)
        self.assertEqual(figures["sent"], 10 * broadcasts)
