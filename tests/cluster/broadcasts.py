"""
C{python -m tests.cluster.broadcasts}: broadcasts to many devices on two nodes, with
each kind of filter and control; part of C{make campaign}.

What the nodes say that they sent is what the devices got, for every broadcast: nobody
was missed and nobody got it twice.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react
from twisted.internet.threads import deferToThread

from mpush_tw.bench.devices import STAMP
from mpush_tw.bench.fleet import Fleet
from mpush_tw.bench.node import NodeProcess, cluster_settings
from mpush_tw.cluster import cluster_sender
from mpush_tw.config import load_settings
from mpush_tw.keys import SAMPLE_PUBLIC_KEY
from mpush_tw.sender import PushContext, PushSender
from tests.servers.redis import RedisServer
from tests.servers.zookeeper import ZooKeeperServer

_HOSTS = ("127.0.0.1", "127.0.0.2")
_GROUPS = 10
_QUIET_SECONDS = 0.5
_PATIENCE_SECONDS = 20.0


class Campaign:
    """
    Two nodes with devices, a sender, and the table of what was found.
    """

    def __init__(self, reactor: Any, sender: PushSender, fleets: list[Fleet]) -> None:
        self._reactor = reactor
        self._sender = sender
        self._fleets = fleets
        self.table = Table(
            "broadcast", "expected", "sent", "received", "left out", "seconds"
        )
        self.wrong: list[str] = []

    async def run(self, devices: int) -> None:
        """
        Broadcast to all, and to parts of all.
        """
        tenth = devices // _GROUPS
        await self.broadcast("to all", devices)
        await self.broadcast("tag group-3", tenth, tags=["group-3"])
        await self.broadcast(
            "tags group-1, group-2", 2 * tenth, tags=["group-1", "group-2"]
        )
        await self.broadcast("no such tag", 0, tags=["nobody"])
        await self.broadcast(
            "condition on the user",
            devices // 2,
            condition="/[02468]$/.test(userId)",
        )
        await self.broadcast("condition on tags", tenth, condition='tags=="group-7"')
        await self.broadcast("condition that fails", 0, condition="nothing.at.all")
        await self.broadcast("condition without end", 0, condition="while(1){}")
        await self.broadcast("a long text", devices, size=8000)
        task = self._sender.task("campaign-slow")
        await _wait(task.set_rate(max(1, devices // 8)))
        await self.broadcast("task at a rate", devices, task_id="campaign-slow")
        task = self._sender.task("campaign-cancelled")
        await _wait(task.set_rate(max(1, devices // 8)))
        self._reactor.callLater(1.5, lambda: task.cancel().addErrback(lambda _: None))
        await self.broadcast("task, cancelled", None, task_id="campaign-cancelled")

    async def broadcast(
        self, name: str, expected: int | None, size: int = 64, **what: Any
    ) -> None:
        """
        Broadcast once, and compare what was sent with what was received.

        @param expected: How many are meant; C{None} if that depends.
        """
        for fleet in self._fleets:
            await deferToThread(fleet.reset)
        start = time.monotonic()
        content = STAMP.pack(time.monotonic_ns()) + b"x" * (size - STAMP.size)
        result = await self._sender.broadcast(
            PushContext(content, timeout=120.0, **what)
        )
        taken = time.monotonic() - start
        received = await self._received(result.counts.sent)
        counts = result.counts
        wanted = counts.sent if expected is None else expected
        good = result.succeeded and counts.sent == wanted == received
        if expected is None:
            good = good and counts.left_out > 0
        if not good:
            self.wrong.append(f"{name}: {result.code.name} {counts}, got {received}")
        self.table.add_row(
            name,
            "-" if expected is None else f"{expected:,}",
            f"{counts.sent:,}",
            f"{received:,}",
            f"{counts.left_out:,}",
            f"{taken:.2f}",
        )

    async def _received(self, wanted: int) -> int:
        """
        Count what the devices got, until it is enough, and a little longer.
        """
        total = 0
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            total = 0
            for fleet in self._fleets:
                total += (await deferToThread(fleet.collect)).pushes
            if total >= wanted:
                break
            await deferLater(self._reactor, 0.1)
        await deferLater(self._reactor, _QUIET_SECONDS)
        total = 0
        for fleet in self._fleets:
            total += (await deferToThread(fleet.collect)).pushes
        return total


async def _wait(what: Any) -> None:
    await what


async def campaign(reactor: Any, devices: int, redis: str, zookeeper: str) -> int:
    """
    Start nodes and devices, run, and print.

    @return: The exit status.
    """
    settings = {
        **cluster_settings(redis, zookeeper),
        "mp.push.flow-control.broadcast.limit": 1_000_000,
        "mp.push.flow-control.broadcast.max": 1_000_000_000,
    }
    nodes = [NodeProcess(settings, host) for host in _HOSTS]
    fleets: list[Fleet] = []
    share = devices // len(nodes)
    overrides = [f'mp.redis.nodes=["{redis}"]', f"mp.zk.server-address={zookeeper}"]
    overrides.append("mp.security.allow-sample-key=true")
    sender = cluster_sender(
        load_settings(None, overrides, {}).settings, reactor=reactor
    )
    try:
        for number, node in enumerate(nodes):
            await deferToThread(node.start)
            fleet = Fleet(
                node.host,
                node.port,
                SAMPLE_PUBLIC_KEY,
                share,
                1,
                64,
                4,
                number * share,
                _GROUPS,
            )
            fleets.append(fleet)
            opened = await deferToThread(fleet.open_all)
            if opened.bound != share:
                raise RuntimeError(f"{share - opened.bound} devices are not bound")
        await sender.start()
        found = Campaign(reactor, sender, fleets)
        await found.run(share * len(nodes))
    finally:
        await sender.stop()
        for fleet in fleets:
            fleet.close()
        for node in nodes:
            node.close()
    console = Console()
    console.print(f"{share * len(nodes):,} devices on {len(nodes)} nodes")
    console.print(found.table)
    for text in found.wrong:
        console.print(f"WRONG: {text}")
    return int(bool(found.wrong))


def main() -> int:
    """
    Start the servers, and run it all.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=10_000)
    options = parser.parse_args()
    statuses: list[int] = []
    redis, zookeeper = RedisServer(), ZooKeeperServer()
    try:
        redis.start()
        zookeeper.start()

        async def run(reactor: Any) -> None:
            statuses.append(
                await campaign(
                    reactor,
                    options.devices,
                    f"127.0.0.1:{redis.port}",
                    zookeeper.address,
                )
            )

        try:
            react(lambda reactor: Deferred.fromCoroutine(run(reactor)))
        except SystemExit as ended:
            if ended.code:
                return 1
    finally:
        redis.stop()
        zookeeper.stop()
    return statuses[0] if statuses else 1


if __name__ == "__main__":
    sys.exit(main())
