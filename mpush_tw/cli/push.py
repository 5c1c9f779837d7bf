"""
C{mpush push}: one message to one user, and what became of it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from mpush_tw.errors import MPushError

if TYPE_CHECKING:
    from mpush_tw.sender import PushSender

_GATEWAY = "127.0.0.1:3001"

_ACKS = {"none": "NO_ACK", "auto": "AUTO_ACK", "biz": "BIZ_ACK"}
_EXIT_CODES = {1: 0, 2: 1, 3: 3, 4: 4}
"""
Result code to exit status; 2 is wrong usage.
"""


@click.command()
@click.argument("user")
@click.argument("text")
@click.option(
    "--ack",
    type=click.Choice(list(_ACKS)),
    default="auto",
    show_default=True,
    help="Who must acknowledge: nobody, the client library, or the application.",
)
@click.option(
    "--gateway",
    multiple=True,
    metavar="HOST:PORT",
    help=f"Gateway of a standalone node; may be repeated.  [default: {_GATEWAY}]",
)
@click.option(
    "--config",
    "file",
    metavar="FILE",
    help="Configuration file of a node: push through its cluster, or through it.",
)
@click.option("--timeout", default=3.0, show_default=True, help="Seconds to wait.")
def push(
    user: str,
    text: str,
    ack: str,
    gateway: tuple[str, ...],
    file: str | None,
    timeout: float,
) -> None:
    """
    Push TEXT to USER and print the result with its time line.

    \b
    Exit status: 0 delivered, 1 failed, 2 wrong usage, 3 user offline, 4 timed out.
    \b
    Examples:
      mpush push alice "hello"
      mpush push alice '{"title": "hi"}' --ack biz --gateway 10.0.0.5:3001
      mpush push alice "hello" --config etc/node-a.conf
    """
    from twisted.internet import task

    from mpush_tw.sender import AckModel, PushContext

    if gateway and file:
        raise click.UsageError("--gateway and --config exclude each other")
    make_sender = _cluster(file) if file else _standalone(gateway or (_GATEWAY,))
    context = PushContext(
        content=text.encode(),
        user_id=user,
        ack=AckModel[_ACKS[ack]],
        timeout=timeout,
    )
    outcome: dict[str, Any] = {}

    async def run(reactor: Any) -> None:
        try:
            sender = make_sender(reactor)
            try:
                await sender.start()
                outcome["result"] = await sender.send(context)
            finally:
                await sender.stop()
        except MPushError as error:
            outcome["error"] = error

    from twisted.internet.defer import Deferred

    try:
        task.react(lambda reactor: Deferred.fromCoroutine(run(reactor)))
    except SystemExit as leaving:
        if leaving.code:
            raise
    if "error" in outcome:
        raise click.ClickException(str(outcome["error"]))
    _show(outcome["result"])
    sys.exit(_EXIT_CODES[int(outcome["result"].code)])


def _standalone(gateways: Sequence[str]) -> Callable[[Any], PushSender]:
    from mpush_tw.sender import PushSender

    addresses = [_address(one) for one in gateways]
    return lambda reactor: PushSender(addresses, reactor=reactor)


def _cluster(file: str) -> Callable[[Any], PushSender]:
    from mpush_tw.cluster import cluster_sender

    return lambda reactor: cluster_sender(file, reactor=reactor)


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise click.BadParameter(f"{text!r} is not HOST:PORT", param_hint="--gateway")
    return host.strip("[]"), int(port)


def _show(result: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    style = "green" if result.succeeded else "red"
    console.print(
        f"[{style}]{result.code.name.lower()}[/{style}]  to {result.user_id}",
        highlight=False,
    )
    table = Table("milestone", "ms", box=None, padding=(0, 2, 0, 0))
    start = result.time_line[0][1] if result.time_line else 0
    for name, at in result.time_line:
        table.add_row(name, f"+{at - start}")
    console.print(table)
