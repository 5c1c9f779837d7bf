"""
How long a push to a list of 100,000 users takes on two nodes.

    PYTHONPATH=. python benchmarks/lists.py --redis 127.0.0.1:6379 \
        --zookeeper 127.0.0.1:2181 --online 30000

Starts two nodes of its own in that Redis and ZooKeeper (C{make up} starts both), binds
devices, half of them at each node, and pushes to the whole list through one sender in
this process, a few times. Users beyond those that are online have no route: one machine
has no room for so many connections.
"""

from __future__ import annotations

import argparse
import gc
import resource
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.table import Table

from twisted.internet import task
from twisted.internet.defer import Deferred

from mpush_tw.bench.devices import STAMP, user_of
from mpush_tw.bench.fleet import Fleet
from mpush_tw.bench.node import NodeProcess, cluster_settings
from mpush_tw.bench.report import machine
from mpush_tw.cluster import cluster_sender
from mpush_tw.keys import SAMPLE_PUBLIC_KEY
from mpush_tw.sender import AckModel, PushContext, ResultCode

HOSTS = ("127.0.0.1", "127.0.0.2")
_TURN_EVERY = 0.01


def main() -> None:
    """
    Measure, and print figures next to their conditions.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    parser.add_argument("--redis", required=True, metavar="HOST:PORT")
    parser.add_argument("--zookeeper", required=True, metavar="HOST:PORT")
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--online", type=int, default=30_000)
    parser.add_argument("--size", type=int, default=64, help="bytes of content")
    parser.add_argument("--ack", action="store_true", help="devices acknowledge")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--gc-threshold", type=int, default=700, help="of the sender's process"
    )
    options = parser.parse_args()
    gc.set_threshold(options.gc_threshold)
    settings = {
        **cluster_settings(options.redis, options.zookeeper),
        "mp.zk.namespace": "mpush-lists",
    }
    nodes = [NodeProcess(settings, host) for host in HOSTS]
    share = options.online // len(nodes)
    fleets: list[Fleet] = []
    try:
        for node in nodes:
            node.launch()
        for node in nodes:
            node.wait_started()
        for number, node in enumerate(nodes):
            fleets.append(
                Fleet(
                    node.host,
                    node.port,
                    SAMPLE_PUBLIC_KEY,
                    share,
                    max(1, -(-share // 18_000)),
                    64,
                    8,
                    first=number * share,
                )
            )
            print(f"{fleets[-1].open_all().bound} devices bound at {node.gateway}")
        runs: list[dict[str, object]] = []

        def measure(reactor: Any) -> Deferred[None]:
            return Deferred.fromCoroutine(
                _measure(reactor, str(nodes[0].config), options, fleets, runs)
            )

        with suppress(SystemExit):
            task.react(measure)
    finally:
        for fleet in fleets:
            fleet.close()
        for node in nodes:
            node.close()
    _show({**machine(), **vars(options)}, runs)


async def _measure(
    reactor: Any,
    config: str,
    options: argparse.Namespace,
    fleets: list[Fleet],
    runs: list[dict[str, object]],
) -> None:
    sender = cluster_sender(config, reactor=reactor)
    await sender.start()
    users = [user_of(number) for number in range(options.users)]
    # In an order that mixes those of both nodes and those that are not there.
    step = 7919
    users = [users[number * step % len(users)] for number in range(len(users))]
    for _ in range(options.runs):
        for fleet in fleets:
            fleet.reset()
        reports: list[int] = []
        turns = _Turns(reactor)

        def progress(
            done: int, total: int, counts: Mapping[ResultCode, int], into: Any = reports
        ) -> None:
            into.append(done)

        content = STAMP.pack(time.monotonic_ns()) + b"l" * (options.size - STAMP.size)
        ack = AckModel.AUTO_ACK if options.ack else AckModel.NO_ACK
        context = PushContext(content, user_ids=users, ack=ack)
        turns.begin()
        cpu, start = time.process_time(), time.monotonic()
        sending = sender.send_all(context, progress)
        called = time.monotonic() - start
        aggregate = await sending
        seconds = time.monotonic() - start
        turns.end()
        received = sum(fleet.collect().pushes for fleet in fleets)
        runs.append(
            {
                "seconds": round(seconds, 2),
                "users per second": round(options.users / seconds),
                **{
                    code.name.lower(): count for code, count in aggregate.counts.items()
                },
                "received by devices": received,
                "call of send_all ms": round(called * 1000),
                "longest turn of the reactor ms": round(turns.longest * 1000),
                "sender's share of a core": round(
                    (time.process_time() - cpu) / seconds, 2
                ),
                "sender's largest memory MB": (
                    resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
                ),
                "progress was told": len(reports),
            }
        )
    await sender.stop()


class _Turns:
    """
    How long the reactor of this process is away from others at most.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._call: Any = None
        self._last = 0.0
        self.longest = 0.0

    def begin(self) -> None:
        """
        Look every ten milliseconds.
        """
        self._last = time.monotonic()
        self._call = self._reactor.callLater(_TURN_EVERY, self._look)

    def _look(self) -> None:
        now = time.monotonic()
        self.longest = max(self.longest, now - self._last - _TURN_EVERY)
        self.begin()

    def end(self) -> None:
        """
        Look no more.
        """
        self._call.cancel()


def _show(around: Mapping[str, object], runs: list[dict[str, object]]) -> None:
    console = Console()
    grid = Table.grid(padding=(0, 2))
    for name, value in around.items():
        grid.add_row(f"[dim]{name}[/dim]", str(value))
    console.print(grid)
    table = Table("", *(f"run {number + 1}" for number in range(len(runs))))
    for name in runs[0] if runs else ():
        table.add_row(name, *(str(run[name]) for run in runs))
    console.print(table)


if __name__ == "__main__":
    main()
