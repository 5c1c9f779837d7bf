"""
The measurements: what is done, and the figures that come out.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable

import attrs

from mpush_tw.bench.fleet import Fleet
from mpush_tw.bench.gateway import GatewayLoad
from mpush_tw.bench.target import Target

GENERATOR_LIMIT = 0.9
"""
Share of a core from which on the generator itself counts as the limit.
"""

Progress = Callable[[str], None]


@attrs.frozen
class Shape:
    """
    The size of a load.

    @ivar processes: Generator processes for the devices.
    @ivar sources: Source addresses 127.0.1.x.
    """

    devices: int
    processes: int
    concurrency: int
    sources: int
    seconds: float
    warm: float
    window: int = 256
    rate: float = 0.0
    size: int = 64
    auto_ack: bool = False


@attrs.define
class Measured:
    """
    Figures of one run, by name, and what to think of them.
    """

    name: str
    figures: dict[str, float | int | None]
    generator_cpu: float
    node_cpu: float
    remarks: list[str] = attrs.Factory(list)


def percentile(values: array[int], share: float) -> float | None:
    """
    A percentile of nanoseconds, in milliseconds; C{None} without values.
    """
    if not values:
        return None
    ordered = sorted(values)
    return round(ordered[int((len(ordered) - 1) * share)] / 1e6, 3)


def latencies(prefix: str, values: array[int]) -> dict[str, float | int | None]:
    """
    The usual three percentiles.
    """
    return {
        f"{prefix} p50 ms": percentile(values, 0.5),
        f"{prefix} p99 ms": percentile(values, 0.99),
        f"{prefix} p99.9 ms": percentile(values, 0.999),
    }


def connect_rate(target: Target, shape: Shape, progress: Progress) -> Measured:
    """
    Handshakes with bind per second, each on a new connection.
    """
    progress(f"connect, handshake, bind for {shape.warm + shape.seconds:g} s")
    fleet = _fleet(target, shape)
    try:
        cpu, start = target.cpu_seconds(), time.monotonic()
        result = fleet.churn(shape.seconds, shape.warm)
        node_cpu = (target.cpu_seconds() - cpu) / (time.monotonic() - start)
    finally:
        fleet.close()
    return _judged(
        Measured(
            "connect+handshake+bind",
            {
                "per second": round(result.bound / shape.seconds, 1),
                "failed": result.failed,
                **latencies("connect to bind", result.opening_ns),
            },
            result.cpu,
            node_cpu,
        )
    )


def idle_memory(target: Target, shape: Shape, progress: Progress) -> Measured:
    """
    Resident memory for each idle bound connection, measured on the last nine tenths
    so that what a node allocates once does not count.
    """
    few = max(1, shape.devices // 10)
    progress(f"binding {few} devices")
    first = _fleet(target, attrs.evolve(shape, devices=few))
    try:
        opened = first.open_all()
        time.sleep(1)
        before = target.rss_bytes()
    finally:
        first.close()
    time.sleep(1)
    progress(f"binding {shape.devices} devices")
    fleet = _fleet(target, shape)
    try:
        opened = fleet.open_all()
        time.sleep(1)
        after = target.rss_bytes()
    finally:
        fleet.close()
    grown = shape.devices - few
    known = before > 0 and after > 0
    measured = Measured(
        "idle connections",
        {
            "bound": opened.bound,
            "failed": opened.failed,
            "KiB each": round((after - before) / 1024 / grown, 2) if known else None,
            "node MiB": round(after / 2**20, 1) if known else None,
        },
        opened.cpu,
        0.0,
    )
    if not known:
        measured.remarks.append("memory not known: the node's process was not found")
    return measured


def push_rate(target: Target, shape: Shape, progress: Progress) -> Measured:
    """
    Pushes per second through one gateway connection, and how long they take.
    """
    progress(f"binding {shape.devices} devices")
    fleet = _fleet(target, shape)
    try:
        opened = fleet.open_all()
        load = GatewayLoad(
            target.host, target.gateway_port, shape.devices, shape.size, shape.auto_ack
        )
        try:
            progress(f"pushing for {shape.warm + shape.seconds:g} s")
            load.run(shape.warm, shape.window, shape.rate)
            fleet.reset()
            cpu, start = target.cpu_seconds(), time.monotonic()
            counts = load.run(shape.seconds, shape.window, shape.rate)
            node_cpu = (target.cpu_seconds() - cpu) / (time.monotonic() - start)
            time.sleep(0.2)
            received = fleet.collect()
        finally:
            load.close()
    finally:
        fleet.close()
    measured = Measured(
        "push with auto ack" if shape.auto_ack else "push",
        {
            "per second": round(counts.ok / counts.seconds, 1),
            "delivered": received.pushes,
            "errors": counts.errors,
            "unanswered": counts.unanswered,
            **latencies("answer", counts.reply_ns),
            **latencies("end to end", received.latency_ns),
        },
        max(counts.cpu, received.cpu),
        node_cpu,
    )
    if opened.failed:
        measured.remarks.append(f"{opened.failed} devices could not be bound")
    return _judged(measured)


def _fleet(target: Target, shape: Shape) -> Fleet:
    return Fleet(
        target.host,
        target.port,
        target.public_key,
        shape.devices,
        shape.processes,
        shape.concurrency,
        shape.sources,
    )


def _judged(measured: Measured) -> Measured:
    if measured.generator_cpu >= GENERATOR_LIMIT:
        measured.remarks.append(
            "the generator was the limit (it used "
            f"{measured.generator_cpu:.0%} of a core); the node can do more"
        )
    return measured
