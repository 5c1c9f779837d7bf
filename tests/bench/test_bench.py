"""
The benchmark: small real runs against a node of its own, and its arithmetic.

Nothing here asserts a speed; that is what the benchmark is for.
"""

from __future__ import annotations

import json
import tempfile
from array import array
from pathlib import Path

from click.testing import CliRunner

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.bench.runs import (
    Measured,
    Shape,
    connect_rate,
    idle_memory,
    percentile,
    push_rate,
)
from mpush_tw.bench.target import Target, listener_pid, own_node
from mpush_tw.cli import main

SMALL = Shape(20, 2, 4, 2, 0.4, 0.1, window=8, auto_ack=True)


class FigureTests(SynchronousTestCase):
    """
    Arithmetic.
    """

    def test_percentiles(self) -> None:
        """A percentile is a value that occurred, in milliseconds."""
        values = array("q", [3_000_000, 1_000_000, 2_000_000])
        self.assertEqual(percentile(values, 0.5), 2.0)
        self.assertEqual(percentile(values, 1.0), 3.0)
        self.assertIsNone(percentile(array("q"), 0.5))


class RunTests(SynchronousTestCase):
    """
    Each measurement, on a small load.
    """

    def setUp(self) -> None:
        self.target: Target = own_node(1024)
        self.addCleanup(self.target.close)

    def measure(self, measurement: object) -> Measured:
        assert callable(measurement)
        measured = measurement(self.target, SMALL, lambda text: None)
        assert isinstance(measured, Measured)
        return measured

    def test_connects(self) -> None:
        """Devices come and go, and none fails."""
        figures = self.measure(connect_rate).figures
        self.assertGreater(figures["per second"] or 0, 0)
        self.assertEqual(figures["failed"], 0)

    def test_idle(self) -> None:
        """All devices are bound, and the node's memory is found."""
        figures = self.measure(idle_memory).figures
        self.assertEqual(figures["bound"], 20)
        self.assertIsNotNone(figures["KiB each"])

    def test_pushes(self) -> None:
        """Every push is answered and delivered, and each has a latency."""
        figures = self.measure(push_rate).figures
        self.assertGreater(figures["delivered"] or 0, 0)
        self.assertEqual(figures["errors"], 0)
        self.assertEqual(figures["unanswered"], 0)
        self.assertIsNotNone(figures["end to end p99 ms"])

    def test_finds_the_process(self) -> None:
        """The process behind a port is found without being told."""
        self.assertEqual(listener_pid(self.target.port), self.target.pid)

    def test_command(self) -> None:
        """The command prints a table with its conditions and writes JSON."""
        path = Path(tempfile.mkdtemp()) / "result.json"
        key = path.with_name("public.pem")
        key.write_text(self.target.public_key)
        arguments = (
            f"bench push --port {self.target.port} --gateway-port "
            f"{self.target.gateway_port} --public-key {key} --users 5 --window 2 "
            f"--seconds 0.3 --warm 0.1 --runs 1 --json {path}"
        ).split()
        result = CliRunner().invoke(main, arguments)
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertIn("per second", result.output)
        document = json.loads(path.read_text())
        self.assertEqual(document["conditions"]["load: window"], 2)
        self.assertEqual(document["runs"][0]["name"], "push")

    def test_port_without_key(self) -> None:
        """A running node cannot be measured without its key; the sentence says so."""
        result = CliRunner().invoke(main, ["bench", "push", "--port", "1"])
        self.assertEqual(result.exit_code, 2)
        self.assertIn("--public-key", result.output)
