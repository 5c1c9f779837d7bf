"""
What the commands that push have in common: where to, and a sender for as long as the
command runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from twisted.internet.defer import Deferred

from mpush_tw.errors import MPushError
from mpush_tw.sender import PushSender

_Result = TypeVar("_Result")

_GATEWAY = "127.0.0.1:3001"
_WIDE = 240


def where_to(command: Callable[..., None]) -> Callable[..., None]:
    """
    Add the options C{--gateway} and C{--config}; the command gets them as C{gateway}
    and C{file}, for L{with_sender}.
    """
    options = [
        click.option(
            "--gateway",
            multiple=True,
            metavar="HOST:PORT",
            help="Gateway of a standalone node; may be repeated.  "
            f"[default: {_GATEWAY}]",
        ),
        click.option(
            "--config",
            "file",
            metavar="FILE",
            help="Configuration file of a node: work with its cluster, or with it.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def with_sender(
    gateway: Sequence[str],
    file: str | None,
    work: Callable[[Any, PushSender], Awaitable[_Result]],
) -> _Result:
    """
    Start a sender, work with it, and stop it. Runs the reactor: once for a process.

    @param work: Called with the reactor and the sender.
    @return: What C{work} has come to.
    @raise click.ClickException: If there is no sender, or the work is refused; in one
        sentence.
    """
    from twisted.internet import task

    if gateway and file:
        raise click.UsageError("--gateway and --config exclude each other")
    make_sender = _cluster(file) if file else _standalone(gateway or (_GATEWAY,))
    outcome: dict[str, Any] = {}

    async def run(reactor: Any) -> None:
        try:
            sender = make_sender(reactor)
            try:
                await sender.start()
                outcome["result"] = await work(reactor, sender)
            finally:
                await sender.stop()
        except MPushError as error:
            outcome["error"] = error

    try:
        task.react(lambda reactor: Deferred.fromCoroutine(run(reactor)))
    except SystemExit as leaving:
        if leaving.code:
            raise
    if "error" in outcome:
        raise click.ClickException(str(outcome["error"]))
    if "result" not in outcome:
        raise click.Abort()
    result: _Result = outcome["result"]
    return result


def _standalone(gateways: Sequence[str]) -> Callable[[Any], PushSender]:
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


def shown_address(address: tuple[str, int]) -> str:
    """
    Write an address as C{HOST:PORT}.
    """
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def output() -> Console:
    """
    Give standard output: wide enough for every table where it is no terminal.
    """
    console = Console()
    return console if console.is_terminal else Console(width=_WIDE)


def plain_table(*columns: str) -> Table:
    """
    Make a table without lines.
    """
    return Table(*columns, box=None, padding=(0, 2, 0, 0))
