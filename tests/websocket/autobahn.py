"""
Run the Autobahn test-suite (wstest) against the door of pages.

The suite is a Python 2 program. With a Python 2.7 of any origin::

    python2.7 -m pip install --target wstest autobahntestsuite
    touch wstest/zope/__init__.py
    PYTHONPATH=. python -m tests.websocket.autobahn \\
        env PYTHONPATH=wstest python2.7 wstest/bin/wstest

The last arguments are the command; C{--cases} says which cases (C{9.*,12.*,13.*} are
the rest), C{--seconds} for how long.

It ends with status 0 if no case failed. Cases about compression take ten minutes each
section; without C{--cases} only the quick ones are run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from tests.websocket.support import free_port

ROOT = Path(__file__).parents[2]
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}
"""
NON-STRICT are four cases: a text that is no UTF-8 is found out at the end of its
message, not in the middle, as the RFC allows (8.1).
"""

QUICK = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*")


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--cases", default=",".join(QUICK), help="Cases, with commas between.")
@click.option("--seconds", default=600, help="Stop after this time.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def main(cases: str, seconds: int, command: tuple[str, ...]) -> None:
    """
    Run wstest, which COMMAND starts, and sum up what it found.
    """
    port = free_port()
    echo = subprocess.Popen(
        [sys.executable, "-m", "tests.websocket.echo", str(port)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert echo.stdout is not None
        echo.stdout.readline()
        with TemporaryDirectory() as folder:
            results = _run(port, cases.split(","), Path(folder), command, seconds)
    finally:
        echo.terminate()
        echo.wait(10)
    failed = _summary(results)
    sys.exit(1 if failed or not results else 0)


def _run(
    port: int, cases: list[str], folder: Path, command: tuple[str, ...], seconds: int
) -> dict[str, dict[str, str]]:
    spec = folder / "spec.json"
    spec.write_text(
        json.dumps(
            {
                "outdir": str(folder),
                "servers": [{"agent": "node", "url": f"ws://127.0.0.1:{port}/"}],
                "cases": cases,
                "exclude-cases": [],
                "exclude-agent-cases": {},
            }
        )
    )
    subprocess.run(
        [*command, "-m", "fuzzingclient", "-s", str(spec)],
        check=True,
        timeout=seconds,
        stdout=subprocess.DEVNULL,
    )
    found: dict[str, dict[str, str]] = json.loads((folder / "index.json").read_text())[
        "node"
    ]
    return found


def _summary(results: dict[str, dict[str, str]]) -> int:
    """
    Print what came out.

    @return: How many cases failed.
    """
    failed = 0
    for case, result in results.items():
        if {result["behavior"], result["behaviorClose"]} - GOOD:
            failed += 1
            print(f"{case}: {result['behavior']}, close {result['behaviorClose']}")
    counts = Counter(result["behavior"] for result in results.values())
    print(f"{len(results)} cases:", *(f"{n} {what}" for what, n in counts.items()))
    return failed


if __name__ == "__main__":
    main()
