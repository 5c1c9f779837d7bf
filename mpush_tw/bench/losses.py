"""
A drill on a cluster of the benchmark's own: two nodes, a Redis and a ZooKeeper that are
there already.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console
from rich.table import Table

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from mpush_tw.bench.drill import Drill, DrillReport, DrillShape
from mpush_tw.bench.node import NodeProcess, cluster_settings
from mpush_tw.cluster import cluster_sender
from mpush_tw.keys import SAMPLE_PUBLIC_KEY

__all__ = ["LOSSES", "lose_a_node", "run", "show", "write"]

HOSTS = ("127.0.0.1", "127.0.0.2")
LOSSES = ("kill", "stop")
"""
How a node is lost: by SIGKILL, or by an orderly stop.
"""

_NAMESPACE = "mpush-drill"
"""
The drill's nodes are not those of whoever else uses this ZooKeeper.
"""


def run(
    redis: str,
    zookeeper: str,
    shape: DrillShape,
    how: str,
    progress: Callable[[str], object],
) -> DrillReport:
    """
    Start two nodes, lose one of them under load, and end the other. Runs the reactor:
    once for a process.

    @param redis: C{host:port}. Routes of users C{drill-...} stay there.
    @param zookeeper: A connect string.
    @param how: One of L{LOSSES}.
    @param progress: Told what is going on.
    @raise RuntimeError: If a node does not start, or the devices cannot be bound.
    @raise Unavailable: If the sender cannot start.
    """
    settings = {**cluster_settings(redis, zookeeper), "mp.zk.namespace": _NAMESPACE}
    nodes = [NodeProcess(settings, host) for host in HOSTS]
    ended: list[DrillReport | Failure] = []

    def drill(reactor: Any) -> Deferred[None]:
        drilling = lose_a_node(nodes, shape, how, progress, reactor)
        return Deferred.fromCoroutine(drilling).addBoth(ended.append)

    try:
        for node in nodes:
            node.launch()
        for node in nodes:
            node.wait_started()
        with suppress(SystemExit):
            task.react(drill)
    finally:
        for node in nodes:
            node.close()
    if not ended:
        raise RuntimeError("the drill was interrupted")
    if isinstance(ended[0], Failure):
        ended[0].raiseException()
    return ended[0]


async def lose_a_node(
    nodes: Sequence[NodeProcess],
    shape: DrillShape,
    how: str,
    progress: Callable[[str], object],
    reactor: Any,
) -> DrillReport:
    """
    Do a drill on running nodes; the first one is lost.

    @param how: One of L{LOSSES}.
    @raise RuntimeError: If the devices cannot be bound.
    @raise Unavailable: If the sender cannot start.
    """
    lost = nodes[0]

    def lose() -> Deferred[int] | None:
        if how == "kill":
            lost.kill()
            return None
        # It takes its time, and pushes go on meanwhile.
        return deferToThreadPool(reactor, reactor.getThreadPool(), lost.terminate)

    sender = cluster_sender(str(nodes[-1].config), reactor=reactor)
    await sender.start()
    try:
        drill = Drill(
            shape,
            [(node.host, node.port) for node in nodes],
            SAMPLE_PUBLIC_KEY,
            sender,
            lose,
            reactor,
            progress,
        )
        return await drill.run()
    finally:
        await sender.stop()


def show(console: Console, around: dict[str, object], report: DrillReport) -> None:
    """
    Print what came of a drill, next to its conditions.
    """
    grid = Table.grid(padding=(0, 2))
    for name, value in around.items():
        grid.add_row(f"[dim]{name}[/dim]", str(value))
    console.print(grid)
    table = Table("pushes", "while the node was lost", "closing round")
    for field in attrs.fields(type(report.account)):
        name = field.name
        both = (getattr(part, name) for part in (report.account, report.closing))
        table.add_row(name.replace("_", " "), *(f"{count:,}" for count in both))
    console.print(table)
    console.print(
        f"{report.lost_devices:,} devices lost their node; those that come back were "
        f"bound after {report.back_seconds:.2f} s, the last push that failed ended "
        f"after {report.settled_seconds:.2f} s. Devices of the other node that were "
        f"dropped: {report.dropped}."
    )


def write(path: Path, around: dict[str, object], report: DrillReport) -> None:
    """
    Write the same as JSON.
    """
    document = {"conditions": around, "report": attrs.asdict(report)}
    path.write_text(json.dumps(document, indent=2, default=str) + "\n")
