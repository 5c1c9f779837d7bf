"""
What a node counts. Plain integers: counting is on the packet path, showing is not.

The names under which these are shown, and their labels, are in
L{mpush_tw.transports.metrics} (operations 7.5).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

PUSH_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0)
"""
Upper bounds of the push duration histogram, in seconds.
"""

HTTP_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
"""
Upper bounds of the histogram of proxied HTTP requests, in seconds.
"""


class Histogram:
    """
    A histogram with fixed bounds.

    @ivar counts: How many values fell into each bucket, the last one open-ended.
    @ivar total: Sum of all values.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class DoorMetrics:
    """
    Counts of one door.

    @ivar packets_in: Packets received, indexed by the command byte (-1 is the last).
    @ivar packets_out: Packets written, likewise.
    @ivar decode_errors: By reason: C{framing}, C{body}, C{datagram}.
    @ivar closed: Connections ended, by reason.
    @ivar refused: Connections not admitted, by limit.
    """

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "closed",
        "decode_errors",
        "opened",
        "packets_in",
        "packets_out",
        "refused",
    )

    def __init__(self) -> None:
        self.packets_in = [0] * 256
        self.packets_out = [0] * 256
        self.bytes_in = 0
        self.bytes_out = 0
        self.opened = 0
        self.closed: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.decode_errors: Counter[str] = Counter()


class NodeMetrics:
    """
    Counts of one node. Counters are keyed by what their label will say.
    """

    def __init__(self) -> None:
        self.conn = DoorMetrics()
        self.gateway = DoorMetrics()
        self.ws = DoorMetrics()
        self.handshakes: Counter[str] = Counter()
        self.fast_connects: Counter[str] = Counter()
        self.binds: Counter[str] = Counter()
        self.unbinds: Counter[str] = Counter()
        self.kicks: Counter[tuple[str, str]] = Counter()
        self.clear_bodies = 0
        self.heartbeats = 0
        self.heartbeat_timeouts: Counter[str] = Counter()
        self.pushes_new = 0
        self.pushes_requeued = 0
        self.push_results: Counter[str] = Counter()
        self.broadcast_results: Counter[str] = Counter()
        self.broadcast_connections: Counter[str] = Counter()
        self.push_seconds = Histogram(PUSH_BUCKETS)
        self.ack_seconds = Histogram(PUSH_BUCKETS)
        self.upstream: Counter[str] = Counter()
        self.http_requests: Counter[str] = Counter()
        self.http_seconds = Histogram(HTTP_BUCKETS)
        self.late_acks = 0
        self.store_repairs = 0
        self.sample_key = False
