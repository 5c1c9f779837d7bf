"""
C{make campaign}: the failure tests with their times, and a drill with many devices.

Not part of the test suite. Redis and ZooKeeper are started for it and stopped again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mpush_tw.bench.losses import LOSSES
from mpush_tw.bench.report import machine
from tests.servers.redis import RedisServer
from tests.servers.zookeeper import ZooKeeperServer

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """
    Run it all.

    @return: The exit status: 0 when everything recovered and nothing was lost.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument("--runs", type=int, default=3, help="drills of each kind")
    parser.add_argument("--rounds", type=int, default=20, help="of chaos")
    parser.add_argument("--seed", type=int, default=1, help="of chaos")
    parser.add_argument("--only", choices=("failures", "drills", "chaos", "broadcasts"))
    options = parser.parse_args()
    statuses = []
    if options.only in (None, "failures"):
        statuses.append(failures())
    if options.only in (None, "drills"):
        statuses += drills(options.clients, options.rate, options.runs)
    if options.only in (None, "chaos"):
        statuses.append(chaos(options.rounds, options.seed))
    if options.only in (None, "broadcasts"):
        statuses.append(_run("-m", "tests.cluster.broadcasts"))
    return int(any(statuses))


def failures() -> int:
    """
    Run the failure tests and print the times that they measured.

    @return: The exit status of trial.
    """
    with tempfile.TemporaryDirectory() as directory:
        times = Path(directory) / "times"
        status = _run(
            "-m",
            "twisted.trial",
            f"--temp-directory={directory}/trial",
            "tests.cluster",
            MPUSH_RECOVERY_TIMES=str(times),
        )
        lines = times.read_text().splitlines() if times.exists() else []
    table = Table("recovery", "seconds")
    for entry in map(json.loads, lines):
        table.add_row(entry["what"], f"{entry['seconds']:.2f}")
    console = Console()
    grid = Table.grid(padding=(0, 2))
    for name, value in machine().items():
        grid.add_row(name, str(value))
    console.print(grid)
    console.print(table)
    return status


def chaos(rounds: int, seed: int) -> int:
    """
    Have one thing fail after the other, two at a time.

    @return: The exit status of trial.
    """
    with tempfile.TemporaryDirectory() as directory:
        return _run(
            "-m",
            "twisted.trial",
            f"--temp-directory={directory}/trial",
            "tests.cluster.chaos",
            MPUSH_CHAOS_ROUNDS=str(rounds),
            MPUSH_CHAOS_SEED=str(seed),
        )


def drills(clients: int, rate: float, runs: int) -> list[int]:
    """
    Lose a node under load, by each way, several times.

    @return: The exit statuses: not 0 where something was lost.
    """
    redis, zookeeper = RedisServer(), ZooKeeperServer()
    try:
        redis.start()
        zookeeper.start()
        return [
            _run(
                *("-c", "from mpush_tw.cli import main; main()", "bench", "kill"),
                *("--redis", redis.address, "--zookeeper", zookeeper.address),
                *("--clients", str(clients), "--rate", str(rate), "--how", how),
            )
            for how in LOSSES
            for _ in range(runs)
        ]
    finally:
        zookeeper.stop()
        redis.stop()


def _run(*arguments: str, **environment: str) -> int:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        check=False,
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
