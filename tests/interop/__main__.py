"""
C{make interop}: all checks between our programs and the original's, with a table.

    python -m tests.interop [--only NUMBER]...

Twice: with gateways over TCP, and those that say so (C{nets}) with gateways over UDP,
which is check 21. The status is 1 if anything failed.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import attrs

from twisted.trial.reporter import TreeReporter
from twisted.trial.runner import TestLoader, TrialRunner
from twisted.trial.unittest import TestSuite

from tests.interop import network

MODULES = (
    "test_registration",
    "test_alloc",
    "test_push",
    "test_kick",
    "test_sessions",
    "test_broadcast",
    "test_device",
    "test_http",
    "test_interruptions",
    "test_original",
    "test_smoke",
)

_TIMEOUT = {"tcp": 900, "udp": 600}
"""
Seconds for each half; about 120 and 50 are usual.
"""


@attrs.define
class Line:
    """
    One line of the table: a class of tests.

    @ivar check: The number in cluster 12.2; 0 for what belongs to none.
    @ivar net: C{tcp} or C{udp}.
    @ivar what: What is checked.
    @ivar passed: How many tests were well.
    @ivar failed: Those that were not.
    @ivar notes: What the tests measured.
    """

    check: int
    net: str
    case: str
    what: str
    passed: int = 0
    failed: list[str] = attrs.field(factory=list)
    seconds: float = 0.0
    notes: list[str] = attrs.field(factory=list)


class TableReporter(TreeReporter):
    """
    Shows the tests as they run, and writes a line for each class of them.
    """

    lines: dict[str, Line] = {}

    def startTest(self, test: Any) -> None:
        self._began = time.monotonic()
        super().startTest(test)

    def stopTest(self, test: Any) -> None:
        super().stopTest(test)
        self._line(test).seconds += time.monotonic() - self._began

    def addSuccess(self, test: Any) -> None:
        super().addSuccess(test)
        self._line(test).passed += 1

    def addFailure(self, test: Any, failure: Any) -> None:
        super().addFailure(test, failure)
        self._failed(test)

    def addError(self, test: Any, failure: Any) -> None:
        super().addError(test, failure)
        self._failed(test)

    def addSkip(self, test: Any, reason: Any) -> None:
        super().addSkip(test, reason)
        self._failed(test)

    def _failed(self, test: Any) -> None:
        name = test.id().rpartition(".")[2]
        failed = self._line(test).failed
        if name not in failed:
            failed.append(name)

    def _line(self, test: Any) -> Line:
        from tests.interop.support import NET

        case = type(test)
        number = re.match(r"Check(\d+)", case.__name__)
        what = " ".join((inspect.getdoc(case) or "").split())
        return self.lines.setdefault(
            test.id().rpartition(".")[0],
            Line(int(number[1]) if number else 0, NET, case.__name__, what),
        )


def run_half(only: list[int], result: Path) -> int:
    """
    Run the tests for the net that the environment names.

    @param only: The numbers of checks; all when empty.
    @param result: Where to write the lines of the table.
    @return: The status for the process.
    """
    from tests.interop.support import drop_shared_cluster, measured, of_this_net

    loader = TestLoader()
    cases = [
        case
        for name in MODULES
        for case in of_this_net(import_module(f"tests.interop.{name}"))
        if not only or any(case.__name__.startswith(f"Check{n:02}") for n in only)
    ]
    suite = TestSuite([loader.loadClass(case) for case in cases])
    with tempfile.TemporaryDirectory(prefix="mpush-interop-trial-") as directory:
        runner = TrialRunner(TableReporter, workingDirectory=f"{directory}/trial")
        try:
            passed = runner.run(suite).wasSuccessful()
        finally:
            drop_shared_cluster()
    for test_id, note in measured:
        TableReporter.lines[test_id.rpartition(".")[0]].notes.append(note)
    result.write_text(
        json.dumps([attrs.asdict(it) for it in TableReporter.lines.values()])
    )
    return 0 if passed else 1


def run_all(only: list[int]) -> int:
    """
    Run both halves, each in a process of its own, and print the table.

    @return: The status for the process.
    """
    lines: list[Line] = []
    problems: list[str] = []
    status = 0
    for net in ("tcp", "udp"):
        if net == "udp" and (problem := network.problem()) is not None:
            problems.append(f"udp was not run: {problem}")
            continue
        print(f"\n== gateways over {net} ==\n", flush=True)
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            command = [sys.executable, "-m", "tests.interop", "--half", file.name]
            command += [f"--only={number}" for number in only]
            environ = {**os.environ, "MPUSH_INTEROP": "all", "MPUSH_INTEROP_NET": net}
            try:
                ended = subprocess.run(
                    command if net == "tcp" else network.inside(command),
                    env=environ,
                    timeout=_TIMEOUT[net],
                )
            except subprocess.TimeoutExpired:
                problems.append(f"{net} was not done after {_TIMEOUT[net]} seconds")
                status = 1
                continue
            status = status or ended.returncode
            written = Path(file.name).read_text()
            lines += [Line(**line) for line in json.loads(written or "[]")]
    print_table(lines)
    for problem in problems:
        print(problem)
    return status


def print_table(lines: list[Line]) -> None:
    """
    Print what became of each check.
    """
    print("\ncheck  net  result  tests  seconds  what")
    for line in sorted(lines, key=lambda it: (it.check or 99, it.net, it.case)):
        result = "FAILED" if line.failed else "ok"
        number = f"{line.check}" if line.check else "-"
        count = f"{line.passed}/{line.passed + len(line.failed)}"
        print(
            f"{number:>5}  {line.net}  {result:6}  {count:>5}  {line.seconds:7.1f}  "
            f"{line.what}"
        )
        for note in [f"failed: {name}" for name in line.failed] + line.notes:
            print(f"{'':35}{note}")
    failed = sum(bool(line.failed) for line in lines)
    print(f"\n{len(lines)} lines, {failed} with failures")


def main() -> int:
    """
    Read the command line and run.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.interop")
    parser.add_argument("--only", type=int, action="append", default=[])
    parser.add_argument("--half", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.half is not None:
        return run_half(arguments.only, arguments.half)
    return run_all(arguments.only)


if __name__ == "__main__":
    sys.exit(main())
