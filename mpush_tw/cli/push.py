"""
C{mpush push}: one message to a user, or to many, and what became of it.
"""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import attrs
import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from mpush_tw.cli._senders import output, plain_table, where_to, with_sender
from mpush_tw.sender import (
    AckModel,
    AggregateResult,
    PushContext,
    PushResult,
    PushSender,
    ResultCode,
)

_ACKS = {"none": "NO_ACK", "auto": "AUTO_ACK", "biz": "BIZ_ACK"}
_EXIT_CODES = {1: 0, 2: 1, 3: 3, 4: 4}
"""
Result code to exit status; 2 is wrong usage.
"""

_NAMED = 20
"""
Users that are named of those who were not reached.
"""

_GC_THRESHOLD = 50_000
_STYLES = {
    ResultCode.SUCCESS: "green",
    ResultCode.FAILURE: "red",
    ResultCode.OFFLINE: "yellow",
    ResultCode.TIMEOUT: "red",
}


@click.command()
@click.argument("users", nargs=-1, metavar="[USER]...")
@click.argument("text")
@click.option(
    "--users-file",
    type=click.File(encoding="utf-8"),
    metavar="FILE",
    help="Push to the users in this file as well, one a line; - for standard input.",
)
@click.option(
    "--ack",
    type=click.Choice(list(_ACKS)),
    default="auto",
    show_default=True,
    help="Who must acknowledge: nobody, the client library, or the application.",
)
@where_to
@click.option(
    "--timeout", default=3.0, show_default=True, help="Seconds to wait for each user."
)
@click.option(
    "--trace",
    "trace_id",
    metavar="ID",
    help="Have the nodes remember the push under this id, for mpush trace.",
)
def push(
    users: tuple[str, ...],
    text: str,
    users_file: TextIO | None,
    ack: str,
    gateway: tuple[str, ...],
    file: str | None,
    timeout: float,
    trace_id: str | None,
) -> None:
    """
    Push TEXT to each USER and print the result: with its time line for one user, in
    numbers for several. Ctrl+C ends a list early.

    \b
    Exit status: 0 delivered to all, 1 failed or not delivered to all, 2 wrong usage;
    for one user also 3 offline, 4 timed out.
    \b
    Examples:
      mpush push alice "hello"
      mpush push alice '{"title": "hi"}' --ack biz --gateway 10.0.0.5:3001
      mpush push alice "hello" --config etc/node-a.conf
      mpush push alice bob carol "hello" --trace greeting
      mpush push --users-file customers.txt "hello"
    """
    everybody = [*users, *_read(users_file)]
    if not everybody:
        raise click.UsageError("name a user, or a file of users by --users-file")
    context = PushContext(
        content=text.encode(),
        ack=AckModel[_ACKS[ack]],
        timeout=timeout,
        trace_id=trace_id,
    )
    if len(everybody) == 1 and users_file is None:
        one = attrs.evolve(context, user_id=everybody[0])
        result = with_sender(gateway, file, lambda _, sender: sender.send(one))
        _show(result)
        sys.exit(_EXIT_CODES[int(result.code)])
    several = attrs.evolve(context, user_ids=everybody)

    async def send(reactor: Any, sender: PushSender) -> AggregateResult:
        return await _send_list(reactor, sender, several)

    results = with_sender(gateway, file, send)
    _show_list(results)
    sys.exit(0 if results.succeeded else 1)


def _read(users_file: TextIO | None) -> list[str]:
    if users_file is None:
        return []
    try:
        return [line.strip() for line in users_file if line.strip()]
    except UnicodeDecodeError as error:
        raise click.ClickException(
            f"{users_file.name} is not written in UTF-8: {error.reason}"
        ) from None


async def _send_list(
    reactor: Any, sender: PushSender, context: PushContext
) -> AggregateResult:
    """
    Push to a list, with a bar where somebody watches; SIGINT ends it early.
    """
    # Nothing of a list is left to the collector, and half of the time would be its.
    gc.set_threshold(_GC_THRESHOLD)
    bar = Progress(
        TextColumn("pushing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[counts]}"),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        users = context.user_ids or ()
        shown = bar.add_task("", total=len(set(users)), counts="")

        def progress(done: int, total: int, counts: Mapping[ResultCode, int]) -> None:
            bar.update(shown, completed=done, total=total, counts=_in_words(counts))

        batch = sender.batch(context, progress)
        before = signal.signal(
            signal.SIGINT, lambda *_: reactor.callFromThread(batch.cancel)
        )
        try:
            return await batch.finished
        finally:
            signal.signal(signal.SIGINT, before)


def _in_words(counts: Mapping[ResultCode, int]) -> str:
    return ", ".join(
        f"{count} {code.name.lower()}" for code, count in counts.items() if count
    )


def _show(result: PushResult) -> None:
    console = output()
    console.print(
        Text.assemble(
            (result.code.name.lower(), _STYLES[result.code]), f"  to {result.user_id}"
        )
    )
    table = plain_table("milestone", "ms")
    start = result.time_line[0][1] if result.time_line else 0
    for name, at in result.time_line:
        table.add_row(Text(name), f"+{at - start}")
    console.print(table)


def _show_list(results: AggregateResult) -> None:
    """
    Print how many ended how, and who was not reached, as far as that is readable.
    """
    console = output()
    ended: dict[ResultCode, list[str]] = {code: [] for code in ResultCode}
    for result in results.results:
        ended[result.code].append(result.user_id)
    table = plain_table("result", "users", "")
    for code, users in ended.items():
        if users:
            names = "" if code is ResultCode.SUCCESS else _named(users)
            table.add_row(
                Text(code.name.lower(), _STYLES[code]), str(len(users)), Text(names)
            )
    if results.unsent:
        names = _named(results.unsent)
        table.add_row("not sent", str(len(results.unsent)), Text(names))
    console.print(table)


def _named(users: Sequence[str]) -> str:
    names = ", ".join(users[:_NAMED])
    more = len(users) - _NAMED
    return f"{names} and {more} more" if more > 0 else names
