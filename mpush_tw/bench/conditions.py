"""
What conditions of broadcasts cost: connections judged per second, by kind and script.

Run with C{python -m mpush_tw.bench.conditions}. Nothing is sent; the connections exist
in memory only. The figures are for one host, whose process shares the cores with the
one that asks: each batch is waited for, so the two take turns.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version

import attrs
import click
from rich.console import Console
from rich.table import Table

from mpush_tw import __version__
from mpush_tw.core.connection import Connection
from mpush_tw.core.push.conditions import Condition, ScriptHost, condition_for

SCRIPTS = (
    "userId % 100 < 20",
    'tags!=null && tags.indexOf("test")!=-1',
    'clientVersion.indexOf("android")!=-1 && clientVersion.replace(/[^\\d]/g,"") > 20',
    "tags.length > 0",
    "var n = userId % 100; n < 20",
)
"""
The three of the manual, one that fails for those without tags, and one of statements.
"""


@attrs.frozen
class Figures:
    """
    One condition, asked about all connections.

    @ivar seconds: Until all answers were there.
    @ivar node_seconds: CPU time of the process that asked.
    @ivar script_seconds: CPU time of the script, compiling included.
    """

    name: str
    seconds: float
    node_seconds: float
    script_seconds: float
    matched: int
    failed: int


def connections(count: int) -> list[Connection]:
    """
    Make connections of a mixed crowd; a third has no tags.
    """
    made = []
    for number in range(count):
        connection = Connection(None, 0.0)
        connection.user_id = str(number)
        connection.tags = "a,test,b" if number % 3 else None
        connection.client_version = f"android-{number % 9}.1"
        connection.os_name = "android"
        connection.os_version = "13"
        made.append(connection)
    return made


def measure(name: str, condition: Condition, crowd: Sequence[Connection]) -> Figures:
    """
    Ask a condition about everybody, and close it.
    """
    began, cpu = time.perf_counter(), time.process_time()
    matched = sum(condition.matches_many(crowd))
    seconds, node_seconds = time.perf_counter() - began, time.process_time() - cpu
    script_seconds = getattr(condition, "cpu_seconds", 0.0)
    condition.close()
    return Figures(
        name, seconds, node_seconds, script_seconds, matched, condition.failed
    )


def measure_all(crowd: Sequence[Connection], host: ScriptHost) -> list[Figures]:
    """
    Measure each kind of condition once.
    """
    tags = ("test", "vip")
    kinds = {
        "always": condition_for(None, None),
        "two tags, substring": condition_for(None, tags),
        "two tags, exact": condition_for(None, tags, "exact"),
        **{one: condition_for(one, None, scripts=host) for one in SCRIPTS},
    }
    return [measure(name, kinds[name], crowd) for name in kinds]


def measure_one_by_one(crowd: Sequence[Connection], host: ScriptHost) -> float:
    """
    Ask a script about one connection at a time.

    @return: Seconds for each.
    """
    condition = condition_for(SCRIPTS[0], None, scripts=host)
    began = time.perf_counter()
    for connection in crowd:
        condition.matches(connection)
    seconds = time.perf_counter() - began
    condition.close()
    return seconds / len(crowd)


def measure_many(count: int, crowd: Sequence[Connection], host: ScriptHost) -> float:
    """
    Ask that many scripts, each another, one after the other.

    @return: Seconds for all.
    """
    began = time.perf_counter()
    for number in range(count):
        script = f"userId % {count} == {number}"
        measure(script, condition_for(script, None, scripts=host), crowd)
    return time.perf_counter() - began


@click.command()
@click.option("--connections", "size", default=10_000, show_default=True)
@click.option("--conditions", "count", default=100, show_default=True)
@click.option("--runs", default=3, show_default=True)
def main(size: int, count: int, runs: int) -> None:
    """
    Print the figures, with their conditions.
    """
    console = Console()
    console.print(
        f"mpush_tw {__version__}, quickjs-ng {version('quickjs-ng')}, "
        f"Python {platform.python_version()}, {platform.platform()}, "
        f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.2f}; "
        f"{size:,} connections"
    )
    host = ScriptHost()
    try:
        began = time.perf_counter()
        condition_for("true", None, scripts=host).matches_many(connections(1))
        first = time.perf_counter() - began
        crowd = connections(size)
        table = Table("condition", "run", "ms", "node ms", "script ms", "per second")
        for run in range(runs):
            for row in measure_all(crowd, host):
                table.add_row(
                    row.name,
                    str(run + 1),
                    f"{row.seconds * 1e3:.1f}",
                    f"{row.node_seconds * 1e3:.1f}",
                    f"{row.script_seconds * 1e3:.1f}",
                    f"{size / row.seconds:,.0f}",
                )
        console.print(table)
        alone = measure_one_by_one(crowd[:2000], host)
        many = measure_many(count, crowd, host)
        console.print(
            f"first answer of a new process: {first * 1e3:.1f} ms\n"
            f"one connection at a time: {alone * 1e6:.1f} us each\n"
            f"{count:,} scripts about everybody: {many:.2f} s, "
            f"{many / count * 1e3:.1f} ms each"
        )
    finally:
        host.close()


if __name__ == "__main__":
    main()
