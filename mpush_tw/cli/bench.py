"""
C{mpush bench}: how fast a node is, on this machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import click
from rich.console import Console

from mpush_tw.bench import losses, report, runs
from mpush_tw.bench.drill import DrillShape
from mpush_tw.bench.fanout import FanoutShape, fanout
from mpush_tw.bench.runs import Measured, Shape
from mpush_tw.bench.target import Target, listener_pid, own_node
from mpush_tw.errors import MPushError


@click.group()
def bench() -> None:
    """
    Measure a node; figures come with their conditions.

    \b
    Without --port a node of the benchmark's own is started for the run, with flow
    control raised and quiet logs. The load goes to loopback addresses only.
    \b
    Examples:
      mpush bench conn
      mpush bench push --users 1000 --window 256 --ack
      mpush bench push --rate 2000 --json result.json
      mpush bench push --port 3000 --public-key keys/public.pem
    """


class _Number(click.FloatRange):
    """
    A range that a value which is no number does not slip through.
    """

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


_PORT = click.IntRange(1, 65535)
_DEVICES = 1_000_000
"""
Most devices: bounds are far above what one machine does, and keep slips of the
keyboard from filling its memory.
"""


def _common(command: Callable[..., None]) -> Callable[..., None]:
    options = [
        click.option("--port", type=_PORT, help="Connect port of a running node."),
        click.option("--gateway-port", default=3001, show_default=True, type=_PORT),
        click.option(
            "--public-key",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Public key of the running node.",
        ),
        click.option(
            "--key-bits",
            default=1024,
            show_default=True,
            type=click.IntRange(1024, 4096),
            help="RSA key of the node that is started.",
        ),
        click.option(
            "--processes", default=1, show_default=True, type=click.IntRange(1, 64)
        ),
        click.option(
            "--concurrency",
            default=64,
            show_default=True,
            type=click.IntRange(1, 10_000),
        ),
        click.option(
            "--sources",
            default=4,
            show_default=True,
            type=click.IntRange(1, 254),
            help="127.0.1.x.",
        ),
        click.option(
            "--seconds",
            default=5.0,
            show_default=True,
            type=_Number(0, 3600, min_open=True),
        ),
        click.option("--warm", default=1.0, show_default=True, type=_Number(0, 3600)),
        click.option(
            "--runs", default=3, show_default=True, type=click.IntRange(1, 1000)
        ),
        click.option("--json", "json_path", type=click.Path(path_type=Path)),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@bench.command()
@_common
@click.option(
    "--idle",
    default=5000,
    show_default=True,
    type=click.IntRange(0, _DEVICES),
    help="Idle devices for the memory figure; 0 leaves it out.",
)
def conn(idle: int, **common: Any) -> None:
    """
    Connections: handshakes with bind per second, memory per idle connection.
    """
    if idle == 1:
        raise click.UsageError("--idle needs two devices or more, to compare")
    shape = _shape(common, devices=max(1, idle))

    def measure(target: Target, progress: runs.Progress) -> list[Measured]:
        measured = [
            runs.connect_rate(target, shape, progress) for _ in range(common["runs"])
        ]
        if idle:
            measured.append(runs.idle_memory(target, shape, progress))
        return measured

    _run(common, shape, measure)


@bench.command()
@_common
@click.option(
    "--users",
    default=1000,
    show_default=True,
    type=click.IntRange(1, _DEVICES),
    help="Bound devices.",
)
@click.option(
    "--window",
    default=256,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="Pushes on their way.",
)
@click.option(
    "--rate",
    default=0.0,
    type=_Number(0, 1_000_000),
    help="Pushes per second; 0: as the window allows.",
)
@click.option("--size", default=64, show_default=True, type=click.IntRange(8, 8000))
@click.option("--ack", is_flag=True, help="Devices acknowledge at once.")
def push(
    users: int, window: int, rate: float, size: int, ack: bool, **common: Any
) -> None:
    """
    Pushes: rate and latency through one gateway connection.
    """
    shape = attrs.evolve(
        _shape(common, devices=users),
        window=window if not rate else max(window, 4096),
        rate=rate,
        size=size,
        auto_ack=ack,
    )
    _run(
        common,
        shape,
        lambda target, progress: [
            runs.push_rate(target, shape, progress) for _ in range(common["runs"])
        ],
    )


@bench.command("fanout")
@_common
@click.option(
    "--users",
    default=5000,
    show_default=True,
    type=click.IntRange(1, _DEVICES),
    help="Bound devices.",
)
@click.option(
    "--broadcasts",
    default=10,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Broadcasts, one after the other.",
)
@click.option(
    "--beside",
    default=0.0,
    show_default=True,
    type=_Number(0, 100_000),
    help="Pushes to single users per second meanwhile: how long they take alone and "
    "beside broadcasts.",
)
@click.option("--condition", help="JavaScript that decides who gets it.")
@click.option("--size", default=64, show_default=True, type=click.IntRange(8, 8000))
def fanout_(
    users: int,
    broadcasts: int,
    beside: float,
    condition: str | None,
    size: int,
    **common: Any,
) -> None:
    """
    Broadcasts: deliveries per second, and what they do to pushes beside them.
    """
    shape = attrs.evolve(_shape(common, devices=users), size=size)
    what = FanoutShape(broadcasts, beside, condition)
    _run(
        common,
        shape,
        lambda target, progress: [
            fanout(target, shape, what, progress) for _ in range(common["runs"])
        ],
    )


@bench.command()
@click.option(
    "--redis",
    required=True,
    metavar="HOST:PORT",
    help="A Redis server that may be written to.",
)
@click.option(
    "--zookeeper",
    required=True,
    metavar="HOST:PORT",
    help="A ZooKeeper that may be written to.",
)
@click.option(
    "--clients",
    default=2000,
    show_default=True,
    type=click.IntRange(4, 50_000),
    help="Devices, one a user, half of them at each node.",
)
@click.option(
    "--stay-away",
    default=50,
    show_default=True,
    type=click.IntRange(0),
    help="Devices of the lost node that do not come back.",
)
@click.option(
    "--rate",
    default=500.0,
    show_default=True,
    type=_Number(1, 100_000),
    help="Pushes per second.",
)
@click.option(
    "--before",
    default=5.0,
    show_default=True,
    type=_Number(0, 600),
    help="Seconds of pushes before the loss.",
)
@click.option(
    "--after",
    default=15.0,
    show_default=True,
    type=_Number(5, 600),
    help="Seconds of pushes after it.",
)
@click.option(
    "--how",
    type=click.Choice(losses.LOSSES),
    default="kill",
    show_default=True,
    help="kill -9, or an orderly stop.",
)
@click.option("--json", "json_path", type=click.Path(path_type=Path))
def kill(
    redis: str,
    zookeeper: str,
    clients: int,
    stay_away: int,
    rate: float,
    before: float,
    after: float,
    how: str,
    json_path: Path | None,
) -> None:
    """
    Lose a node under load: what is delivered, what is reported, what is lost.

    \b
    Starts two nodes of its own in that Redis and ZooKeeper, spreads devices over them,
    pushes to all in turn, and takes one node away. Exit status 1 if a push is lost or
    the sums do not agree.
    \b
    Example (make up starts both servers):
      mpush bench kill --redis 127.0.0.1:6379 --zookeeper 127.0.0.1:2181
    """
    if stay_away > clients // 2:
        raise click.UsageError("--stay-away: the lost node has not so many devices")
    shape = DrillShape(clients, stay_away, rate, before, after)
    console = Console()
    try:
        with console.status("starting") as status:
            found = losses.run(redis, zookeeper, shape, how, status.update)
    except (RuntimeError, OSError, MPushError) as error:
        raise click.ClickException(str(error)) from None
    around: dict[str, object] = {
        **report.machine(),
        "lost by": how,
        **{f"drill: {name}": value for name, value in attrs.asdict(shape).items()},
    }
    losses.show(console, around, found)
    if json_path is not None:
        losses.write(json_path, around, found)
        console.print(f"written to {json_path}")
    if not found.nothing_lost:
        raise click.ClickException("pushes were lost, or the sums do not agree")


def _shape(common: dict[str, Any], devices: int) -> Shape:
    return Shape(
        devices,
        common["processes"],
        common["concurrency"],
        common["sources"],
        common["seconds"],
        common["warm"],
    )


def _run(
    common: dict[str, Any],
    shape: Shape,
    measure: Callable[[Target, runs.Progress], list[Measured]],
) -> None:
    console = Console()
    try:
        with console.status("starting") as status:
            target = _target(common)
            try:
                measured = measure(target, status.update)
            finally:
                target.close()
    except (RuntimeError, OSError) as error:
        raise click.ClickException(str(error)) from None
    around = report.conditions(target, shape, common["runs"])
    report.show(console, around, measured)
    if common["json_path"] is not None:
        report.write(common["json_path"], around, measured)
        console.print(f"written to {common['json_path']}")


def _target(common: dict[str, Any]) -> Target:
    if common["port"] is None:
        return own_node(common["key_bits"])
    if common["public_key"] is None:
        raise click.UsageError("--port needs --public-key of that node")
    return Target(
        "127.0.0.1",
        common["port"],
        common["gateway_port"],
        common["public_key"].read_text(),
        listener_pid(common["port"]),
        {"node": "was running; its own flow control limit applies"},
    )
