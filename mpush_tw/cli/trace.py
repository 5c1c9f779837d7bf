"""
C{mpush trace}: what became of a push with an id, at all nodes.
"""

from __future__ import annotations

import sys
from datetime import datetime

import click
from rich.console import Console
from rich.text import Text

from mpush_tw.cli._senders import (
    output,
    plain_table,
    shown_address,
    where_to,
    with_sender,
)
from mpush_tw.sender import Trace

_NOTHING = 3


@click.command()
@click.argument("trace_id", metavar="ID")
@where_to
@click.option(
    "--timeout", default=10.0, show_default=True, help="Seconds for each node."
)
def trace(
    trace_id: str, gateway: tuple[str, ...], file: str | None, timeout: float
) -> None:
    """
    Print what the nodes remember of pushes that carried ID, or of the broadcast with
    this task: how each ended where, and all milestones in the order of time.

    \b
    Exit status: 0 something is known, 1 failed, 2 wrong usage, 3 nothing is known.
    \b
    Examples:
      mpush push alice "hello" --trace greeting
      mpush trace greeting
      mpush trace greeting --config etc/node-a.conf
    """
    found = with_sender(
        gateway, file, lambda _, sender: sender.trace(trace_id, timeout)
    )
    console = output()
    for address, reason in found.silent:
        console.print(Text(f"{shown_address(address)}: {reason}", "yellow"))
    if not found.pushes:
        console.print(Text(f"nothing is known of {trace_id}"))
        sys.exit(_NOTHING)
    _show(console, found)


def _show(console: Console, found: Trace) -> None:
    pushes = plain_table("node", "user", "outcome")
    for push in found.pushes:
        counts = push.counts
        sent = "" if counts is None else f", {counts.sent} of {counts.online} sent"
        pushes.add_row(
            shown_address(push.address),
            Text(push.user_id or "everybody"),
            Text(push.outcome + sent),
        )
    console.print(pushes)
    console.print()
    points = plain_table("time", "ms", "where", "user", "")
    start = found.milestones[0].at if found.milestones else 0
    for point in found.milestones:
        points.add_row(
            f"{datetime.fromtimestamp(point.at / 1000):%H:%M:%S.%f}"[:-3],
            f"+{point.at - start}",
            "sender" if point.address is None else shown_address(point.address),
            Text(point.user_id or "everybody"),
            Text(point.name),
        )
    console.print(points)
