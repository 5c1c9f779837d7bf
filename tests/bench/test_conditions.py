"""
Tests for L{mpush_tw.bench.conditions}.
"""

from __future__ import annotations

from click.testing import CliRunner

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.bench import conditions
from mpush_tw.core.push.conditions import ScriptHost, condition_for


class MeasureTests(SynchronousTestCase):
    """
    Figures of conditions.
    """

    def setUp(self) -> None:
        self.host = ScriptHost()
        self.addCleanup(self.host.close)
        self.crowd = conditions.connections(300)

    def test_every_condition_does_its_work(self) -> None:
        """
        What is measured has matched whom it should, so that it is not the time of a
        mistake.
        """
        found = conditions.measure_all(self.crowd, self.host)
        share, tag, version, no_tags, statements = (row.matched for row in found[3:])
        self.assertEqual([row.matched for row in found[:3]], [300, 200, 200])
        self.assertEqual((share, tag, no_tags, statements), (60, 200, 200, 60))
        self.assertEqual(version, len([n for n in range(300) if n % 9 > 1]))
        self.assertEqual([row.failed for row in found[3:]], [0, 0, 0, 100, 0])

    def test_closes_what_it_measured(self) -> None:
        """
        A condition is of no use after it was measured.
        """
        condition = condition_for("true", None, scripts=self.host)
        figures = conditions.measure("true", condition, self.crowd)
        self.assertEqual(figures.matched, 300)
        self.assertTrue(condition.exhausted)

    def test_command(self) -> None:
        """
        The command prints figures next to their conditions.
        """
        arguments = ["--connections", "50", "--conditions", "2", "--runs", "1"]
        done = CliRunner().invoke(conditions.main, arguments, catch_exceptions=False)
        self.assertEqual(done.exit_code, 0)
        printed = " ".join(done.output.split())
        self.assertIn("quickjs-ng 0.", printed)
        self.assertIn("50 connections", printed)
        self.assertIn("2 scripts about everybody", printed)
