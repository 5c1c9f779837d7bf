"""
What is printed and written: figures next to their conditions.
"""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import attrs
from rich.console import Console
from rich.table import Table

import twisted

from mpush_tw import __version__
from mpush_tw.bench.runs import Measured, Shape
from mpush_tw.bench.target import Target


def conditions(target: Target, shape: Shape, runs: int) -> dict[str, object]:
    """
    Everything that somebody needs to repeat a measurement.
    """
    return {
        **machine(),
        "target": f"{target.host}:{target.port}",
        **target.conditions,
        **{f"load: {name}": value for name, value in attrs.asdict(shape).items()},
        "runs": runs,
    }


def machine() -> dict[str, object]:
    """
    The part of the conditions that is not the load.
    """
    return {
        "mpush_tw": __version__,
        "Python": platform.python_version(),
        "Twisted": twisted.__version__,
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load average": round(os.getloadavg()[0], 2),
    }


def show(console: Console, around: dict[str, object], measured: list[Measured]) -> None:
    """
    Print a table: a row a figure, a column a run.
    """
    grid = Table.grid(padding=(0, 2))
    for name, value in around.items():
        grid.add_row(f"[dim]{name}[/dim]", str(value))
    console.print(grid)
    for name in dict.fromkeys(run.name for run in measured):
        runs = [run for run in measured if run.name == name]
        table = Table("figure", *(f"run {n + 1}" for n in range(len(runs))), title=name)
        for figure in runs[0].figures:
            table.add_row(figure, *(_cell(run.figures[figure]) for run in runs))
        table.add_row("generator CPU", *(f"{run.generator_cpu:.2f}" for run in runs))
        table.add_row("node CPU", *(f"{run.node_cpu:.2f}" for run in runs))
        console.print(table)
        for remark in dict.fromkeys(text for run in runs for text in run.remarks):
            console.print(f"[yellow]note:[/yellow] {remark}")


def write(path: Path, around: dict[str, object], measured: list[Measured]) -> None:
    """
    Write the same as JSON.
    """
    document = {
        "conditions": around,
        "runs": [attrs.asdict(run) for run in measured],
    }
    path.write_text(json.dumps(document, indent=2, default=str) + "\n")


def _cell(value: float | int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()
