"""
C{mpush broadcast}: one message to everybody, whom it would reach, and its control.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Sequence
from typing import Any

import attrs
import click
from rich.console import Console
from rich.status import Status
from rich.text import Text

from twisted.internet.task import LoopingCall

from mpush_tw.cli._senders import (
    output,
    plain_table,
    shown_address,
    where_to,
    with_sender,
)
from mpush_tw.errors import MPushError
from mpush_tw.protocol.broadcasts import BroadcastCounts
from mpush_tw.sender import (
    AudienceCount,
    BroadcastResult,
    IBroadcastTask,
    NodeAudience,
    PushContext,
    PushSender,
    ResultCode,
)

_EXIT_CODES = {ResultCode.SUCCESS: 0, ResultCode.FAILURE: 1, ResultCode.TIMEOUT: 4}
_ALWAYS = ("online", "matched", "sent")
"""
Counts that are shown when they are 0, too.
"""


@click.command()
@click.argument("text", required=False)
@click.option(
    "--condition",
    metavar="JS",
    help="Only to devices for which this JavaScript is true: of userId, tags, "
    "clientVersion, osName, osVersion.",
)
@click.option("--tags", metavar="A,B", help="Only to devices with one of these tags.")
@click.option(
    "--task",
    "task_id",
    metavar="ID",
    help="Name it, to see how far it is, to slow it, to cancel it, to trace it. "
    "Without TEXT: show how far it is.",
)
@click.option(
    "--rate",
    type=click.IntRange(min=1),
    help="Messages a second for each node. Without TEXT: change it for --task.",
)
@click.option(
    "--dry-run", is_flag=True, help="Only count whom it would reach; TEXT is not used."
)
@click.option("--cancel", metavar="ID", help="End the broadcast with this --task.")
@where_to
@click.option(
    "--timeout",
    default=60.0,
    show_default=True,
    help="Seconds to wait for the nodes. They go on all the same.",
)
def broadcast(
    text: str | None,
    condition: str | None,
    tags: str | None,
    task_id: str | None,
    rate: int | None,
    dry_run: bool,
    cancel: str | None,
    gateway: tuple[str, ...],
    file: str | None,
    timeout: float,
) -> None:
    """
    Push TEXT to everybody who is online at any node, or to a part of everybody, and
    print what each node did.

    \b
    Exit status: 0 done, 1 failed at a node or not counted by all, 2 wrong usage,
    4 timed out.
    \b
    Examples:
      mpush broadcast "hello"
      mpush broadcast "hello" --tags vip,gold --config etc/node-a.conf
      mpush broadcast --dry-run --condition 'userId % 100 < 20'
      mpush broadcast "sale!" --task sale --rate 500
      mpush broadcast --task sale --rate 2000
      mpush broadcast --cancel sale
    """
    labels = None if tags is None else [tag for tag in tags.split(",") if tag]
    audience = condition is not None or tags is not None
    if cancel is not None:
        if text is not None or audience or task_id or rate or dry_run:
            raise click.UsageError("--cancel goes with --gateway and --config only")
        _cancel(gateway, file, cancel)
    elif dry_run:
        if task_id or rate:
            raise click.UsageError("--dry-run needs no --task and no --rate")
        count = with_sender(
            gateway, file, lambda _, sender: sender.count(condition, labels, timeout)
        )
        _show_count(count)
        sys.exit(0 if count.counted else 1)
    elif text is not None:
        if rate is not None and task_id is None:
            task_id = str(uuid.uuid4())
            click.echo(f"task {task_id}")
        context = PushContext(
            content=text.encode(),
            tags=labels,
            condition=condition,
            task_id=task_id,
            timeout=timeout,
        )

        async def send(reactor: Any, sender: PushSender) -> BroadcastResult:
            return await _send(reactor, sender, context, rate)

        result = with_sender(gateway, file, send)
        _show_result(result)
        sys.exit(_EXIT_CODES[result.code])
    elif task_id is None or audience:
        raise click.UsageError("TEXT is missing; --task alone shows how far a task is")
    else:
        _control(gateway, file, task_id, rate)


def _cancel(gateway: Sequence[str], file: str | None, task_id: str) -> None:
    async def work(reactor: Any, sender: PushSender) -> int:
        task = sender.task(task_id)
        await task.cancel()
        sent: int = await task.progress()
        return sent

    sent = with_sender(gateway, file, work)
    click.echo(f"cancelled; {sent} messages had been sent")


def _control(
    gateway: Sequence[str], file: str | None, task_id: str, rate: int | None
) -> None:
    async def work(reactor: Any, sender: PushSender) -> int:
        task = sender.task(task_id)
        if rate is not None:
            await task.set_rate(rate)
        sent: int = await task.progress()
        return sent

    sent = with_sender(gateway, file, work)
    if rate is not None:
        click.echo(f"{rate} messages a second for each node from now on")
    click.echo(f"{sent} messages have been sent")


async def _send(
    reactor: Any, sender: PushSender, context: PushContext, rate: int | None
) -> BroadcastResult:
    """
    Broadcast; while it goes on, show how far a task is where somebody watches.
    """
    task = None if context.task_id is None else sender.task(context.task_id)
    if task is not None and rate is not None:
        await task.set_rate(rate)
    with Console(stderr=True).status("broadcasting") as status:
        looking = LoopingCall(_look, task, status)
        looking.clock = reactor
        if task is not None:
            looking.start(1.0, now=False)
        try:
            return await sender.broadcast(context)
        finally:
            if looking.running:
                looking.stop()


async def _look(task: IBroadcastTask, status: Status) -> None:
    try:
        sent = await task.progress()
    except MPushError:
        # The result will say more.
        return
    status.update(f"broadcasting: {sent} messages have been sent")


# -------------------------------------------------------------------- output


def _show_result(result: BroadcastResult) -> None:
    names = [
        name
        for name in attrs.fields_dict(BroadcastCounts)
        if name in _ALWAYS or getattr(result.counts, name)
    ]
    table = plain_table(
        "node", "result", *(name.replace("_", " ") for name in names), ""
    )
    for node in result.nodes:
        assert node.code is not None
        table.add_row(
            shown_address(node.address),
            _styled(node.code),
            *(_number(node.counts, name) for name in names),
            Text(_joined(node.reason, node.error)),
        )
    table.add_row(
        "all",
        _styled(result.code),
        *(_number(result.counts, name) for name in names),
        _note(bool(result.nodes), result.counted),
    )
    output().print(table)


def _show_count(count: AudienceCount) -> None:
    table = plain_table("node", "online", "matched", "")
    for node in count.nodes:
        table.add_row(
            shown_address(node.address),
            _number(node, "online"),
            _number(node, "matched"),
            Text(_joined(node.reason, node.error)),
        )
    table.add_row(
        "all",
        str(count.online),
        str(count.matched),
        _note(bool(count.nodes), count.counted),
    )
    output().print(table)


def _styled(code: ResultCode) -> Text:
    return Text(code.name.lower(), "green" if code is ResultCode.SUCCESS else "red")


def _number(counts: BroadcastCounts | NodeAudience | None, name: str) -> str:
    number = getattr(counts, name, None)
    return "-" if number is None else str(number)


def _note(any_node: bool, counted: bool) -> str:
    if not any_node:
        return "there is no gateway"
    return "" if counted else "of the nodes that told"


def _joined(reason: str, error: str) -> str:
    return "; ".join(part for part in (reason, error and f"condition: {error}") if part)
