"""
What the WebSocket port of a node does per second, and what an idle page costs.

    PYTHONPATH=. python benchmarks/websocket.py

Starts a node of its own and drives it from this process over loopback, so that both
share the machine. Each figure is measured several times, for a few seconds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from twisted.internet import task
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from mpush_tw.bench.node import NodeProcess, free_port
from mpush_tw.bench.report import machine
from mpush_tw.protocol.commands import Command
from mpush_tw.protocol.gateway import GatewayPush
from mpush_tw.protocol.packet import HEADER, HEADER_SIZE, encode_packet

_KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
_OPENING = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: " + _KEY + b"\r\n\r\n"
)
_MEASURE_SECONDS = 5.0
_WARM_SECONDS = 1.0


def frame(packet: dict[str, Any]) -> bytes:
    """
    Write a text frame, masked with zeros: the least that a client can spend on it.
    """
    payload = json.dumps(packet, separators=(",", ":")).encode()
    size = len(payload)
    head = (
        bytes([0x81, 0x80 | size])
        if size < 126
        else (bytes([0x81, 0xFE]) + size.to_bytes(2, "big"))
    )
    return head + bytes(4) + payload


class Page(Protocol):
    """
    A page that opens, shakes hands, binds, and counts the bytes of its pushes.
    """

    def __init__(self, user_id: str, pushed: Callable[[int], None]) -> None:
        self._pushed = pushed
        self._ready: Deferred[Page] | None = None
        self._buffer = b""
        self._log_in = (
            frame(
                {
                    "cmd": 2,
                    "sessionId": 1,
                    "body": {"deviceId": user_id, "osName": "web"},
                }
            ),
            frame({"cmd": 5, "sessionId": 2, "body": {"userId": user_id}}),
        )
        self._step = 0

    def log_in(self) -> Deferred[Page]:
        """
        Do what a page does at first.
        """
        self._ready = Deferred()
        self._send(_OPENING)
        return self._ready

    def _send(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        if self._step == 3:
            self._pushed(len(data))
            return
        self._buffer += data
        ends = (b"\r\n\r\n", b'"sessionId":1}', b'"sessionId":2}')
        if self._buffer.endswith(ends[self._step]):
            assert b"ERROR" not in self._buffer and b'"cmd":10' not in self._buffer
            self._buffer = b""
            if self._step < 2:
                self._send(self._log_in[self._step])
            self._step += 1
            if self._step == 3 and self._ready is not None:
                self._ready.callback(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        ready, self._ready = self._ready, None
        if ready is not None and not ready.called:
            ready.errback(reason)

    def leave(self) -> None:
        """
        Close at once.
        """
        transport: Any = self.transport
        transport.abortConnection()


class Sender(Protocol):
    """
    Keeps a number of pushes under way through the gateway.

    @ivar done: How many have been answered.
    """

    def __init__(self) -> None:
        self.done = 0
        self._next: Callable[[], bytes] = bytes
        self._running = False
        self._buffer = b""

    def start(self, make: Callable[[], bytes], window: int) -> None:
        """
        Begin.

        @param make: Gives the next push.
        """
        self._next, self._running = make, True
        self._send(window)

    def stop(self) -> None:
        self._running = False

    def _send(self, count: int) -> None:
        assert self.transport is not None
        self.transport.write(b"".join(self._next() for _ in range(count)))

    def dataReceived(self, data: bytes) -> None:
        data = self._buffer + data
        count = position = 0
        while position + HEADER_SIZE <= len(data):
            length = HEADER.unpack_from(data, position)[0]
            end = position + HEADER_SIZE + int(length)
            if end > len(data):
                break
            assert data[position + 4] == Command.OK
            position = end
            count += 1
        self._buffer = data[position:]
        self.done += count
        if self._running and count:
            self._send(count)


class Bench:
    """
    One node and what is measured with it.
    """

    def __init__(self, reactor: Any, options: argparse.Namespace) -> None:
        self.reactor = reactor
        self.options = options
        self.web_port = free_port()
        self.node = NodeProcess(
            {
                "mp.log-level": "warn",
                "mp.security.allow-sample-key": True,
                "mp.net.ws-server-port": self.web_port,
                "mp.net.ws-server-bind-ip": "127.0.0.1",
                "mp.push.flow-control.global.limit": 1_000_000,
                "mp.push.flow-control.broadcast.limit": 1_000_000,
            }
        )
        self.received = 0
        self.figures: dict[str, list[str]] = {}

    def note(self, name: str, figure: str) -> None:
        self.figures.setdefault(name, []).append(figure)

    def _pushed(self, size: int) -> None:
        self.received += size

    async def connect(self, user_id: str) -> Page:
        """
        Open a page that is bound.
        """
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.web_port)
        page = await connectProtocol(endpoint, Page(user_id, self._pushed))
        return await page.log_in()

    @asynccontextmanager
    async def pages(self, count: int) -> AsyncIterator[list[Page]]:
        """
        Have so many pages.
        """
        pages: list[Page] = []
        try:
            for start in range(0, count, 50):
                pages += await gatherResults(
                    [
                        Deferred.fromCoroutine(self.connect(f"user-{number:06}"))
                        for number in range(start, min(count, start + 50))
                    ]
                )
            yield pages
        finally:
            for page in pages:
                page.leave()
            await self.sleep(0.5)

    async def sleep(self, seconds: float) -> None:
        await task.deferLater(self.reactor, seconds)

    async def connections(self) -> None:
        """
        Open, shake hands, bind and leave, so many at once.
        """
        done = 0
        until = time.monotonic() + _WARM_SECONDS + _MEASURE_SECONDS
        spans: list[float] = []

        async def one_after_the_other(number: int) -> None:
            nonlocal done
            turn = 0
            while time.monotonic() < until:
                began = time.monotonic()
                page = await self.connect(f"user-{number:03}-{turn:06}")
                spans.append(time.monotonic() - began)
                page.leave()
                turn += 1
                done += 1

        began = time.monotonic()
        await gatherResults(
            [Deferred.fromCoroutine(one_after_the_other(n)) for n in range(64)]
        )
        rate = done / (time.monotonic() - began)
        spans.sort()
        half, most = spans[len(spans) // 2], spans[len(spans) * 99 // 100]
        self.note(
            "open + handshake + bind, 64 at once",
            f"{rate:,.0f}/s, p50 {half * 1000:.0f} p99 {most * 1000:.0f} ms",
        )
        await self.sleep(0.5)

    async def pushes(self, users: int, window: int) -> None:
        """
        Push to pages, so many pushes under way.
        """
        content = b"x" * self.options.size
        async with self.pages(users):
            sender = await connectProtocol(
                TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.node.gateway_port),
                Sender(),
            )
            packets = [
                encode_packet(
                    Command.GATEWAY_PUSH,
                    number + 1,
                    0,
                    GatewayPush(f"user-{number:06}", 3, 3000, content).encode(),
                )
                for number in range(users)
            ]
            turn = 0

            def make() -> bytes:
                nonlocal turn
                turn += 1
                return packets[turn % users]

            sender.start(make, window)
            await self.sleep(_WARM_SECONDS)
            before, began = sender.done, time.monotonic()
            bytes_before = self.received
            await self.sleep(_MEASURE_SECONDS)
            span = time.monotonic() - began
            pushes, size = sender.done - before, self.received - bytes_before
            sender.stop()
            await self.sleep(0.3)
            assert sender.transport is not None
            sender.transport.loseConnection()
            each = self.frame_size()
            self.note(
                f"push to {users:,} user(s), window {window}",
                f"{pushes / span:,.0f}/s, {size / each / span:,.0f}/s received",
            )

    def frame_size(self) -> int:
        """
        How many bytes a push takes on the wire.
        """
        payload = {
            "body": {"content": "x" * self.options.size},
            "bodyLength": 1,
            "cmd": 15,
            "flags": 16,
            "sessionId": 1 << 30,
        }
        size = len(json.dumps(payload, separators=(",", ":")))
        return size + (2 if size < 126 else 4)

    async def broadcast(self, users: int) -> None:
        """
        Push to everybody, and wait until all have it.
        """
        content = b"x" * self.options.size
        body = GatewayPush(None, 0, 3000, content).encode()
        packet = encode_packet(Command.GATEWAY_PUSH, 1, 0, body)
        async with self.pages(users):
            sender = await connectProtocol(
                TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.node.gateway_port),
                Sender(),
            )
            assert sender.transport is not None
            for _ in range(3):
                wanted = self.received + users * self.frame_size()
                began = time.monotonic()
                sender.transport.write(packet)
                while self.received < wanted:
                    if time.monotonic() - began > 30:
                        raise RuntimeError("a broadcast did not arrive")
                    await self.sleep(0.002)
                rate = users / (time.monotonic() - began)
                self.note(f"broadcast to {users:,}", f"{rate:,.0f} deliveries/s")
            sender.transport.loseConnection()

    async def memory(self, offer: int) -> None:
        """
        See what idle pages cost.
        """
        async with self.pages(offer // 4):
            pass
        before = self._resident()
        async with self.pages(offer):
            await self.sleep(1)
            each = (self._resident() - before) / offer
            self.note(f"memory per idle bound page, {offer:,}", f"{each:.2f} KiB")

    def _resident(self) -> int:
        """
        The node's resident memory in KiB.
        """
        status = Path(f"/proc/{self.node.pid}/status").read_text()
        [line] = [one for one in status.split("\n") if one.startswith("VmRSS")]
        return int(line.split()[1])

    async def run(self) -> None:
        """
        Measure all.
        """
        self.node.start()
        await self.memory(self.options.pages)
        for _ in range(self.options.runs):
            await self.connections()
            await self.pushes(1, 64)
            await self.pushes(1000, 256)
        await self.broadcast(self.options.pages)


async def measure(reactor: Any, options: argparse.Namespace) -> None:
    """
    Measure, and print figures next to their conditions.
    """
    bench = Bench(reactor, options)
    conditions = machine()
    try:
        await bench.run()
    finally:
        bench.node.close()
    console = Console()
    grid = Table.grid(padding=(0, 2))
    for name, value in (conditions | {"bytes of content": options.size}).items():
        grid.add_row(f"[dim]{name}[/dim]", str(value))
    console.print(grid)
    table = Table("work", "runs")
    for name, figures in bench.figures.items():
        table.add_row(name, "\n".join(figures))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    parser.add_argument(
        "--pages", type=int, default=4000, help="idle, and broadcast to"
    )
    parser.add_argument("--size", type=int, default=64, help="bytes of content")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    task.react(lambda reactor: Deferred.fromCoroutine(measure(reactor, options)))


if __name__ == "__main__":
    main()
