"""
The metrics door: what a node counts, as Prometheus text over HTTP (operations 7.5).

Counting is done elsewhere, in plain integers (L{mpush_tw.core.metrics}). Here they get
their names and labels, once for each scrape. Every node has a registry of its own, so
several can live in one process; what belongs to the process as a whole (memory, garbage
collection, threads, load) is shown by each.

Of operations 7.5 these are absent, because nothing counts them in this version: Redis,
ZooKeeper, the profiler, and C{mpush_python_threads_started_total}.
"""

from __future__ import annotations

import gc
import os
import platform
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

import twisted
from twisted.application.internet import TimerService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFDSet, IReactorTime
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Request

from mpush_tw import __version__
from mpush_tw.core.events import Events
from mpush_tw.core.extension_metrics import ExtensionMetrics
from mpush_tw.core.flow import GlobalFlow
from mpush_tw.core.handlers.http_proxy import HttpProxyHandler
from mpush_tw.core.log import NodeLog
from mpush_tw.core.metrics import DoorMetrics, Histogram, NodeMetrics
from mpush_tw.core.push.centre import PushCentre
from mpush_tw.core.registry import Connections
from mpush_tw.core.routing.local import LocalRoutes
from mpush_tw.interfaces import IExecutor, IHttpFetcher, PoolStatistics
from mpush_tw.protocol.commands import command_name
from mpush_tw.transports.http_site import BoundedSite
from mpush_tw.transports.write_through import ListeningService

__all__ = ["MetricsNode", "NodeCollector", "RuntimeSamples", "metrics_site"]

SAMPLE_SECONDS = 1.0
"""
How often the reactor's lag is sampled (operations 7.5).
"""

STALL_SECONDS = 5.0
"""
A reactor that is later than this has stalled (operations 7.5).
"""

LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
GC_BUCKETS = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""
Upper bounds of the histograms of lag and of garbage collection, in seconds.
"""

MAX_CONNECTIONS = 50
"""
Connections to this door at a time; for one more the quietest is closed.
"""

REQUEST_SECONDS = 15
"""
How long the first request of a connection may take, from connecting to its last byte.
"""

IDLE_SECONDS = 60
"""
How long after an answer the next request must have come: the usual scrape interval, so
that a scraper keeps its connection.
"""

_CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_MAX_BODY = 8192


class MetricsProxy(Protocol):
    """
    What this door needs of an HTTP proxy.
    """

    @property
    def handler(self) -> HttpProxyHandler:
        """
        What takes the requests.
        """

    @property
    def fetcher(self) -> IHttpFetcher:
        """
        What asks web servers.
        """


class MetricsNode(Protocol):
    """
    What this door needs of a node; L{mpush_tw.service.Node} has it.
    """

    metrics: NodeMetrics
    connections: Connections
    web_connections: Connections
    local_routes: LocalRoutes
    centre: PushCentre
    events: Events
    flow: GlobalFlow
    connect_listener: ListeningService
    websocket_listener: ListeningService | None
    extension_metrics: ExtensionMetrics
    clock: Any
    log: NodeLog

    @property
    def web_proxy(self) -> MetricsProxy | None:
        """
        The HTTP proxy; C{None} when it is switched off.
        """

    @property
    def executor(self) -> IExecutor:
        """
        What runs calls that block.
        """

    @property
    def gateway_connections(self) -> int:
        """
        How many senders are connected.
        """


class RuntimeSamples:
    """
    What can only be measured while time passes: how late the reactor is, how long
    garbage collection stops it, and how many pushes flow control lets through.

    @ivar lag: How late each sample was taken, in seconds.
    @ivar stalls: Samples that were later than L{STALL_SECONDS}.
    @ivar gc_pauses: For each generation, how long collections took, in seconds.
    @ivar pushes_per_second: Pushes that passed flow control, between the last two
        samples.
    """

    def __init__(self, clock: IReactorTime, flow: GlobalFlow, log: NodeLog) -> None:
        self._clock = clock
        self._flow = flow
        self._log = log
        self.lag = Histogram(LAG_BUCKETS)
        self.stalls = 0
        self.gc_pauses = [Histogram(GC_BUCKETS) for _ in gc.get_stats()]
        self.pushes_per_second = 0.0
        self._timer: TimerService | None = None
        self._started = 0.0
        self._due = 0.0
        self._last_time = 0.0
        self._last_total = 0
        self._gc_started: float | None = None

    def start(self) -> None:
        """
        Begin to sample. Idempotent.
        """
        if self._timer is not None:
            return
        self._started = self._due = self._last_time = self._clock.seconds()
        self._last_total = self._flow.total
        gc.callbacks.append(self._gc_called)
        timer = self._timer = TimerService(SAMPLE_SECONDS, self._sample)
        timer.clock = self._clock
        timer.startService()

    def stop(self) -> None:
        """
        End it; what was measured stays. Idempotent.
        """
        timer, self._timer = self._timer, None
        if timer is None:
            return
        gc.callbacks.remove(self._gc_called)
        self._gc_started = None
        stopping: Deferred[None] = timer.stopService()
        stopping.addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        self._log.general.failure("sampling for metrics failed", failure)

    def _sample(self) -> None:
        now = self._clock.seconds()
        # A reactor calls back a little early when its clock is coarse: that is no lag.
        late = max(0.0, now - self._due)
        self.lag.observe(late)
        if late > STALL_SECONDS:
            self.stalls += 1
        # The timer keeps to the grid of its start and leaves out what it has missed.
        passed = (now - self._started) // SAMPLE_SECONDS
        self._due = self._started + (passed + 1) * SAMPLE_SECONDS
        elapsed, total = now - self._last_time, self._flow.total
        if elapsed > 0:
            self.pushes_per_second = (total - self._last_total) / elapsed
        self._last_time, self._last_total = now, total

    def _gc_called(self, phase: str, info: Mapping[str, int]) -> None:
        # The process's own clock: the node's may be moved by hand in tests.
        now = time.perf_counter()
        if phase == "start":
            self._gc_started = now
        elif self._gc_started is not None:
            self.gc_pauses[info["generation"]].observe(now - self._gc_started)
            self._gc_started = None


class NodeCollector(Collector):
    """
    Shows the counts of one node under the names of operations 7.5.

    A label value appears when it has been counted for the first time. Beside the table:
    C{mpush_connections_unsecured}, C{mpush_connections_refused_total},
    C{mpush_accept_pauses_total}, C{mpush_sample_key}, C{mpush_clear_bodies_total},
    C{mpush_late_acks_total}, C{mpush_upstream_total}, C{mpush_http_proxy_under_way} and
    C{mpush_http_proxy_held_bytes}. What plug-ins count begins with C{mpush_ext_}.
    """

    def __init__(
        self,
        node: MetricsNode,
        samples: RuntimeSamples | None = None,
        refused: Counter[str] | None = None,
    ) -> None:
        """
        @param samples: Shown too, if there are any.
        @param refused: Connections to the metrics door itself that a limit kept out,
            by limit; shown too.
        """
        self._node = node
        self._samples = samples
        self._refused: Counter[str] = Counter() if refused is None else refused

    def collect(self) -> Iterator[Metric]:
        """
        Read all counts; called once for each scrape.
        """
        yield _gauge(
            "mpush_build_info",
            "Versions that this node runs on.",
            ("version", "python", "twisted", "reactor"),
            [
                (
                    (
                        __version__,
                        platform.python_version(),
                        twisted.__version__,
                        type(self._node.clock).__name__,
                    ),
                    1,
                )
            ],
        )
        yield from self._connections()
        yield from self._packets()
        yield from self._sessions()
        yield from self._pushes()
        yield from self._http()
        yield from self._events()
        yield from self._pools()
        yield from self._extensions()
        yield from _process()
        yield from _reactor(self._node.clock)
        if self._samples is not None:
            yield from _sampled(self._samples)

    @property
    def _doors(self) -> tuple[tuple[str, DoorMetrics], ...]:
        metrics = self._node.metrics
        return (
            ("conn", metrics.conn),
            ("ws", metrics.ws),
            ("gateway", metrics.gateway),
        )

    def _connections(self) -> Iterator[Metric]:
        node = self._node
        yield _gauge(
            "mpush_connections",
            "Open connections.",
            ("server",),
            [
                (("conn",), len(node.connections)),
                (("ws",), len(node.web_connections)),
                (("gateway",), node.gateway_connections),
            ],
        )
        yield _gauge(
            "mpush_connections_unsecured",
            "Connections that have not finished a handshake.",
            ("server",),
            [
                (("conn",), node.connections.unsecured),
                (("ws",), node.web_connections.unsecured),
            ],
        )
        yield _counter(
            "mpush_connections_opened",
            "Connections accepted.",
            ("server",),
            [((name,), door.opened) for name, door in self._doors],
        )
        yield _counter(
            "mpush_connections_closed",
            "Connections ended.",
            ("server", "reason"),
            _by_door((name, door.closed) for name, door in self._doors),
        )
        yield _counter(
            "mpush_connections_refused",
            "Connections that a limit kept out.",
            ("server", "limit"),
            _by_door(
                [
                    *((name, door.refused) for name, door in self._doors),
                    ("metrics", self._refused),
                ]
            ),
        )
        yield _counter(
            "mpush_accept_pauses",
            "How often accepting paused because of mp.limits.accept-rate.",
            ("server",),
            [
                ((name,), listener.pauses)
                for name, listener in (
                    ("conn", node.connect_listener),
                    ("ws", node.websocket_listener),
                )
                if listener is not None
            ],
        )
        yield _plain_gauge(
            "mpush_online_users",
            "Users with at least one connection on this node.",
            len(node.local_routes),
        )
        yield _plain_gauge(
            "mpush_local_routes",
            "Routes to connections of this node.",
            node.local_routes.connections,
        )

    def _packets(self) -> Iterator[Metric]:
        yield _counter(
            "mpush_packets",
            "Packets received and sent.",
            ("server", "direction", "cmd"),
            [
                ((name, direction, cmd), count)
                for name, door in self._doors
                for direction, counts in (
                    ("in", door.packets_in),
                    ("out", door.packets_out),
                )
                for cmd, count in _by_command(counts).items()
            ],
        )
        yield _counter(
            "mpush_bytes",
            "Bytes received and sent.",
            ("server", "direction"),
            [
                ((name, direction), count)
                for name, door in self._doors
                for direction, count in (("in", door.bytes_in), ("out", door.bytes_out))
            ],
        )
        yield _counter(
            "mpush_decode_errors",
            "Packets that could not be read.",
            ("server", "reason"),
            _by_door((name, door.decode_errors) for name, door in self._doors),
        )

    def _sessions(self) -> Iterator[Metric]:
        metrics = self._node.metrics
        for name, text, counts in (
            ("mpush_handshakes", "Handshakes by result.", metrics.handshakes),
            ("mpush_fast_connects", "Fast connects by result.", metrics.fast_connects),
            ("mpush_binds", "Binds by result.", metrics.binds),
            ("mpush_unbinds", "Unbinds by result.", metrics.unbinds),
            ("mpush_upstream", "Messages of devices by result.", metrics.upstream),
        ):
            yield _counter(name, text, ("result",), _by_word(counts))
        yield _counter(
            "mpush_kicks",
            "Devices told that another has taken their place.",
            ("kind", "result"),
            list(metrics.kicks.items()),
        )
        yield _plain_counter(
            "mpush_store_repairs",
            "Times that all routes were looked after because the store came back.",
            metrics.store_repairs,
        )
        yield _plain_counter(
            "mpush_heartbeats", "Heartbeats received.", metrics.heartbeats
        )
        yield _counter(
            "mpush_heartbeat_timeouts",
            "Heartbeat checks that failed.",
            ("action",),
            _by_word(metrics.heartbeat_timeouts),
        )
        yield _plain_counter(
            "mpush_clear_bodies",
            "Packets of secured connections that came unencrypted.",
            metrics.clear_bodies,
        )
        yield _plain_gauge(
            "mpush_sample_key",
            "1 while the published sample key is in use, which protects nothing.",
            int(metrics.sample_key),
        )

    def _pushes(self) -> Iterator[Metric]:
        node, metrics = self._node, self._node.metrics
        yield _counter(
            "mpush_push_tasks",
            "Pushes taken in, and put back in line by flow control.",
            ("mode", "kind"),
            [
                (("single", "new"), metrics.pushes_new),
                (("single", "requeued"), metrics.pushes_requeued),
            ],
        )
        yield _counter(
            "mpush_push_results",
            "Pushes ended, by outcome.",
            ("mode", "result"),
            [
                *((("single", word), n) for word, n in metrics.push_results.items()),
                *(
                    (("broadcast", word), n)
                    for word, n in metrics.broadcast_results.items()
                ),
            ],
        )
        yield _counter(
            "mpush_broadcast_connections",
            "What became of the connections that broadcasts went over.",
            ("result",),
            _by_word(metrics.broadcast_connections),
        )
        yield _plain_gauge(
            "mpush_broadcasts_running",
            "Broadcasts and dry runs under way.",
            len(node.centre.broadcasts.running),
        )
        limits = node.centre.broadcasts.limits
        yield _gauge(
            "mpush_flow_control_limit",
            "Pushes that a window of flow control lets through.",
            ("scope",),
            [(("global",), node.flow.limit), (("broadcast",), limits.limit)],
        )
        yield _histogram(
            "mpush_push_duration_seconds",
            "Time from taking a push in to its end, and to the device's ack.",
            "stage",
            [("total", metrics.push_seconds), ("ack", metrics.ack_seconds)],
        )
        yield _plain_gauge(
            "mpush_ack_pending",
            "Pushes that wait for a device's ack.",
            node.centre.acks.waiting,
        )
        yield _plain_counter(
            "mpush_late_acks", "Acks that nothing waited for.", metrics.late_acks
        )
        yield _counter(
            "mpush_flow_control_delayed",
            "Pushes that flow control made wait.",
            ("scope",),
            [(("global",), metrics.pushes_requeued)],
        )
        if self._samples is not None:
            yield _gauge(
                "mpush_flow_control_qps",
                "Pushes per second that flow control let through.",
                ("scope",),
                [(("global",), self._samples.pushes_per_second)],
            )

    def _http(self) -> Iterator[Metric]:
        metrics, proxy = self._node.metrics, self._node.web_proxy
        yield _counter(
            "mpush_http_proxy_requests",
            "HTTP requests of devices that have ended, by what they got.",
            ("result",),
            _by_word(metrics.http_requests),
        )
        seconds = metrics.http_seconds
        duration = HistogramMetricFamily(
            "mpush_http_proxy_duration_seconds",
            "Time from an HTTP request of a device to its answer.",
        )
        duration.add_metric((), _cumulated(seconds), seconds.total)
        yield duration
        idle = proxy.fetcher.idle_connections() if proxy else {}
        yield _gauge(
            "mpush_http_proxy_idle_connections",
            "Connections to web servers that are kept for later.",
            ("host",),
            [((host,), count) for host, count in idle.items()],
        )
        yield _plain_gauge(
            "mpush_http_proxy_under_way",
            "HTTP requests of devices that have no answer yet.",
            proxy.handler.under_way if proxy else 0,
        )
        yield _plain_gauge(
            "mpush_http_proxy_held_bytes",
            "Answers to HTTP requests that devices are slow to read.",
            proxy.handler.held if proxy else 0,
        )

    def _events(self) -> Iterator[Metric]:
        events = self._node.events
        yield _counter(
            "mpush_events", "Events posted.", ("event",), _by_word(events.posted)
        )
        yield _counter(
            "mpush_event_errors",
            "Event listeners that failed.",
            ("event",),
            _by_word(events.failed),
        )

    def _pools(self) -> Iterator[Metric]:
        pools: dict[str, PoolStatistics] = {}
        # Asking the reactor for its pool would make one; nobody may have needed it yet.
        pool = getattr(self._node.clock, "threadpool", None)
        if pool is not None:
            pools[pool.name or "reactor"] = PoolStatistics(
                pool.workers,
                len(pool.working),
                pool._team.statistics().backloggedWorkCount,
                0,
                0,
            )
        try:
            pools.update(self._node.executor.statistics())
        except Exception:
            # It may be a plug-in's.
            self._node.log.general.failure("no statistics of threads", Failure())
        shown: tuple[tuple[str, str, Callable[[PoolStatistics], int]], ...] = (
            ("threads", "Threads of a pool.", lambda pool: pool.threads),
            ("busy", "Threads of a pool that work.", lambda pool: pool.running),
            ("queue", "Jobs that wait for a thread.", lambda pool: pool.waiting),
        )
        for name, text, value in shown:
            yield _gauge(
                f"mpush_threadpool_{name}",
                text,
                ("pool",),
                [((pool,), value(figures)) for pool, figures in pools.items()],
            )

    def _extensions(self) -> Iterator[Metric]:
        figures = self._node.extension_metrics
        for counter in figures.counters:
            yield _counter(
                f"mpush_ext_{counter.name}",
                counter.text,
                counter.labels,
                list(counter.counts.items()),
            )
        for gauge, value in figures.gauges():
            yield _plain_gauge(f"mpush_ext_{gauge.name}", gauge.text, value)


# ---------------------------------------------------------------- the process


def _process() -> Iterator[Metric]:
    windows = zip(("1m", "5m", "15m"), os.getloadavg(), strict=True)
    yield _gauge(
        "mpush_load_average",
        "Load of the machine.",
        ("window",),
        [((window,), load) for window, load in windows],
    )
    yield _plain_gauge(
        "mpush_python_allocated_blocks",
        "Memory blocks that Python has allocated.",
        sys.getallocatedblocks(),
    )
    if tracemalloc.is_tracing():
        current, peak = tracemalloc.get_traced_memory()
        yield _gauge(
            "mpush_tracemalloc_bytes",
            "Memory that tracemalloc knows of.",
            ("kind",),
            [(("current",), current), (("peak",), peak)],
        )
    threads = threading.enumerate()
    yield _gauge(
        "mpush_python_threads",
        "Threads alive.",
        ("kind",),
        [
            (("all",), len(threads)),
            (("daemon",), sum(thread.daemon for thread in threads)),
        ],
    )


def _reactor(clock: Any) -> Iterator[Metric]:
    yield _plain_gauge(
        "mpush_reactor_delayed_calls",
        "Calls that wait for their time.",
        len(clock.getDelayedCalls()),
    )
    if IReactorFDSet.providedBy(clock):
        yield _gauge(
            "mpush_reactor_selectables",
            "Descriptors that the reactor watches.",
            ("kind",),
            [
                (("reader",), len(clock.getReaders())),
                (("writer",), len(clock.getWriters())),
            ],
        )


def _sampled(samples: RuntimeSamples) -> Iterator[Metric]:
    lag = HistogramMetricFamily(
        "mpush_reactor_lag_seconds", "How late the reactor calls, sampled each second."
    )
    lag.add_metric((), _cumulated(samples.lag), samples.lag.total)
    yield lag
    yield _plain_counter(
        "mpush_reactor_stalls",
        f"How often the reactor was more than {STALL_SECONDS:.0f} s late.",
        samples.stalls,
    )
    yield _histogram(
        "mpush_gc_pause_seconds",
        "How long garbage collections took.",
        "generation",
        [(str(number), pause) for number, pause in enumerate(samples.gc_pauses)],
    )


# -------------------------------------------------------------------- families

_Samples = Iterable[tuple[tuple[str, ...], float]]


def _counter(
    name: str, text: str, labels: tuple[str, ...], samples: _Samples
) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, count in samples:
        family.add_metric(values, count)
    return family


def _plain_counter(name: str, text: str, count: float) -> Metric:
    return CounterMetricFamily(name, text, value=count)


def _gauge(name: str, text: str, labels: tuple[str, ...], samples: _Samples) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _plain_gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _histogram(
    name: str, text: str, label: str, histograms: Iterable[tuple[str, Histogram]]
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=(label,))
    for value, histogram in histograms:
        family.add_metric((value,), _cumulated(histogram), histogram.total)
    return family


def _cumulated(histogram: Histogram) -> list[tuple[str, float]]:
    """
    The buckets as Prometheus wants them: each holds those below it, the last is +Inf.
    """
    names = (*map(repr, histogram.bounds), "+Inf")
    buckets, seen = [], 0
    for name, count in zip(names, histogram.counts, strict=True):
        seen += count
        buckets.append((name, float(seen)))
    return buckets


def _by_word(counts: Counter[str]) -> _Samples:
    return [((word,), count) for word, count in counts.items()]


def _by_door(doors: Iterable[tuple[str, Counter[str]]]) -> _Samples:
    return [
        ((name, word), count)
        for name, counts in doors
        for word, count in counts.items()
    ]


def _by_command(counts: list[int]) -> Counter[str]:
    """
    Sum counts by command name: all bytes without a name are one, C{UNKNOWN}, or a
    stranger could make 256 series of each door.

    @param counts: Indexed by command byte, the negative ones from the end.
    """
    names: Counter[str] = Counter()
    for index, count in enumerate(counts):
        if count:
            names[command_name(index if index < 128 else index - 256)] += count
    return names


# ------------------------------------------------------------------------ HTTP


class _Scrape(Resource):
    """
    C{/metrics}.
    """

    isLeaf = True

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._registry = registry

    def render_GET(self, request: Request) -> bytes:
        request.setHeader(b"content-type", _CONTENT_TYPE)
        return generate_latest(self._registry)


class _Health(Resource):
    """
    C{/healthz}: the reactor turns, or nobody would answer.
    """

    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        return b"ok"


class MetricsSite(BoundedSite):
    """
    Serves one node's metrics, and samples while its port is open.

    @ivar samples: What it samples.
    """

    def __init__(
        self,
        root: Resource,
        samples: RuntimeSamples,
        clock: IReactorTime,
        limits: Counter[str],
    ) -> None:
        """
        @param limits: Counts the connections that were closed for others' sake.
        """
        super().__init__(
            root,
            clock,
            max_connections=MAX_CONNECTIONS,
            request_seconds=REQUEST_SECONDS,
            idle_seconds=IDLE_SECONDS,
            max_body=_MAX_BODY,
        )
        self.samples = samples
        self._limits = limits

    def made_room(self) -> None:
        self._limits["metrics-connections"] += 1

    def startFactory(self) -> None:
        super().startFactory()
        self.samples.start()

    def stopFactory(self) -> None:
        """
        End sampling and all connections: the port was closed because the node stops,
        and a scraper would hold its own open for the next time.
        """
        self.samples.stop()
        super().stopFactory()


def metrics_site(node: MetricsNode) -> MetricsSite:
    """
    Make what listens on C{mp.net.metrics-server-port}: C{/metrics} and C{/healthz}.
    Sampling begins when its port opens and ends when that closes.
    """
    samples = RuntimeSamples(node.clock, node.flow, node.log)
    refused: Counter[str] = Counter()
    registry = CollectorRegistry()
    registry.register(NodeCollector(node, samples, refused))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    root = Resource()
    root.putChild(b"metrics", _Scrape(registry))
    root.putChild(b"healthz", _Health())  # type: ignore[no-untyped-call]
    return MetricsSite(root, samples, node.clock, refused)
