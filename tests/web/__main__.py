"""
C{make proxy-campaign}: the large campaign, and how fast the proxy is.

    python -m tests.web [--requests 10000] [--devices 200]

The node has a process of its own; devices and the small web servers share this one.
The figures are requests for one small file of nginx, with the node in between and
without it: then treq asks from here. All of it runs on this machine, so rates tell
little but their relation; the processor time of who asks nginx is told besides.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import treq
from twisted.internet import reactor, task
from twisted.internet.defer import Deferred, gatherResults
from twisted.web.client import HTTPConnectionPool

from mpush_tw.bench.node import NodeProcess, free_port
from mpush_tw.protocol.messages import HttpRequest
from tests.servers import LOOPBACK
from tests.support import SAMPLE
from tests.web.campaign import MAX_CONTENT_LENGTH, Campaign
from tests.web.devices import web_device
from tests.web.servers import FILE, WebServers

_URL = "http://web.test/file"
_KEPT = 5


def _node(servers: WebServers, kept: int) -> NodeProcess:
    """
    @param kept: C{mp.http.max-conn-per-host}.
    """
    return NodeProcess(
        {
            "mp.log-level": "error",
            "mp.security.private-key": SAMPLE["rsaPrivateKeyBase64"],
            "mp.security.public-key": SAMPLE["rsaPublicKeyBase64"],
            "mp.security.allow-sample-key": True,
            "mp.http.proxy-enabled": True,
            "mp.http.dns-mapping": servers.mapping,
            "mp.http.max-content-length": MAX_CONTENT_LENGTH,
            "mp.http.max-conn-per-host": kept,
            "mp.net.metrics-server-port": free_port(),
        }
    )


async def _idle(node: NodeProcess) -> dict[str, int]:
    """
    Ask a node which connections it keeps.
    """
    port = json.loads(
        next(
            line.partition("=")[2]
            for line in node.config.read_text().splitlines()
            if line.startswith("mp.net.metrics-server-port")
        )
    )
    response = await treq.get(f"http://{LOOPBACK}:{port}/metrics", persistent=False)
    return {
        host: int(float(count))
        for host, count in re.findall(
            r'mpush_http_proxy_idle_connections{host="([^"]*)"} (\S+)',
            await response.text(),
        )
    }


async def _timed(
    ask: Callable[[int], Awaitable[None]], workers: int, requests: int
) -> float:
    """
    Ask again and again, so many at a time.

    @return: Requests per second.
    """
    left = iter(range(requests))

    async def work(worker: int) -> None:
        for _ in left:
            await ask(worker)

    started = time.monotonic()
    await gatherResults(
        [Deferred.fromCoroutine(work(number)) for number in range(workers)]
    )
    return requests / (time.monotonic() - started)


async def _proxied(port: int, devices: int, requests: int) -> float:
    crowd = [await web_device(reactor, port, f"fast-{n}") for n in range(devices)]

    async def ask(worker: int) -> None:
        answer = await crowd[worker].ask(HttpRequest(0, _URL))
        assert (answer.status, answer.body) == (200, FILE), answer

    try:
        await _timed(ask, devices, devices)
        return await _timed(ask, devices, requests)
    finally:
        for device in crowd:
            device.leave()


async def _direct(port: int, workers: int, requests: int) -> float:
    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = workers
    url = f"http://{LOOPBACK}:{port}/file"

    async def ask(worker: int) -> None:
        response = await treq.get(url, pool=pool)
        assert response.code == 200
        assert await response.content() == FILE

    try:
        await _timed(ask, workers, workers)
        return await _timed(ask, workers, requests)
    finally:
        await pool.closeCachedConnections()


async def _campaign(servers: WebServers, arguments: argparse.Namespace) -> bool:
    node = _node(servers, _KEPT)
    try:
        node.start()
        campaign = Campaign(reactor, node.port, arguments.seed)
        await campaign.connect(arguments.devices)
        tally = await campaign.run(arguments.requests, window=2)
        campaign.leave()
        idle = await _idle(node)
        print(f"{arguments.devices} devices, seed {arguments.seed}")
        print(tally)
        for name, count in sorted(tally.asked.items()):
            print(f"  {count:6} {name}")
        print(f"connections kept afterwards: {idle}")
        return tally.good and all(count <= _KEPT for count in idle.values())
    finally:
        node.terminate()
        node.close()


def _cpu_seconds(pid: int) -> float:
    """
    Give the processor time that a process has used.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _figures(servers: WebServers, workers: int, requests: int) -> None:
    assert servers.nginx is not None
    print(
        f"\nA file of {len(FILE)} bytes from nginx, {workers} at a time, "
        f"{os.cpu_count()} cores:"
    )
    for kept in (_KEPT, workers):
        node = _node(servers, kept)
        try:
            node.start()
            before = _cpu_seconds(node.pid)
            proxied = await _proxied(node.port, workers, requests)
            used = _cpu_seconds(node.pid) - before
        finally:
            node.terminate()
            node.close()
        print(
            f"  {proxied:8.0f} requests/s, {used / requests * 1e6:4.0f} us each, by "
            f"devices through a node that keeps {kept} connections"
        )
    before = _cpu_seconds(os.getpid())
    direct = await _direct(servers.nginx.port, workers, requests)
    used = _cpu_seconds(os.getpid()) - before
    print(
        f"  {direct:8.0f} requests/s, {used / requests * 1e6:4.0f} us each, by treq "
        "without the node"
    )


async def _main(arguments: argparse.Namespace) -> bool:
    servers = WebServers(reactor)
    servers.start()
    try:
        good = await _campaign(servers, arguments)
        await _figures(servers, min(arguments.devices, 100), arguments.requests)
        return good
    finally:
        await servers.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.web")
    parser.add_argument("--requests", type=int, default=10000)
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8192)), hard))
    good: list[bool] = []

    def start(_: Any) -> Deferred[None]:
        return Deferred.fromCoroutine(_main(arguments)).addCallback(good.append)

    try:
        task.react(start)
    except SystemExit as end:
        if end.code:
            raise
    sys.exit(0 if good == [True] else 1)


if __name__ == "__main__":
    main()
