"""
Tests for L{mpush_tw.transports.metrics}: what a real node without ports shows.
"""

from __future__ import annotations

import gc
import shutil
import tempfile
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.testing import (
    MemoryReactorClock,
    StringTransportWithDisconnection,
)
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw import __version__
from mpush_tw.config import load_settings
from mpush_tw.core.connection import Connection
from mpush_tw.core.log import NodeLog
from mpush_tw.core.push.request import Outcome, PushRequest
from mpush_tw.interfaces import ServerStarted
from mpush_tw.protocol.commands import Command
from mpush_tw.protocol.gateway import TimePoints
from mpush_tw.protocol.messages import HttpRequest
from mpush_tw.service import Node
from mpush_tw.transports.http_site import DRAINED_BYTES
from mpush_tw.transports.metrics import (
    IDLE_SECONDS,
    MAX_CONNECTIONS,
    REQUEST_SECONDS,
    MetricsSite,
    metrics_site,
)
from tests.support import SAMPLE

Labels = dict[str, str]

NAMES = {
    "mpush_broadcast_connections": "counter",
    "mpush_broadcasts_running": "gauge",
    "mpush_ack_pending": "gauge",
    "mpush_accept_pauses": "counter",
    "mpush_binds": "counter",
    "mpush_build_info": "gauge",
    "mpush_bytes": "counter",
    "mpush_clear_bodies": "counter",
    "mpush_connections": "gauge",
    "mpush_connections_closed": "counter",
    "mpush_connections_opened": "counter",
    "mpush_connections_refused": "counter",
    "mpush_connections_unsecured": "gauge",
    "mpush_decode_errors": "counter",
    "mpush_event_errors": "counter",
    "mpush_events": "counter",
    "mpush_fast_connects": "counter",
    "mpush_flow_control_delayed": "counter",
    "mpush_flow_control_limit": "gauge",
    "mpush_flow_control_qps": "gauge",
    "mpush_gc_pause_seconds": "histogram",
    "mpush_handshakes": "counter",
    "mpush_heartbeat_timeouts": "counter",
    "mpush_heartbeats": "counter",
    "mpush_http_proxy_duration_seconds": "histogram",
    "mpush_http_proxy_held_bytes": "gauge",
    "mpush_http_proxy_idle_connections": "gauge",
    "mpush_http_proxy_requests": "counter",
    "mpush_http_proxy_under_way": "gauge",
    "mpush_kicks": "counter",
    "mpush_late_acks": "counter",
    "mpush_load_average": "gauge",
    "mpush_local_routes": "gauge",
    "mpush_online_users": "gauge",
    "mpush_packets": "counter",
    "mpush_push_duration_seconds": "histogram",
    "mpush_push_results": "counter",
    "mpush_push_tasks": "counter",
    "mpush_python_allocated_blocks": "gauge",
    "mpush_python_threads": "gauge",
    "mpush_reactor_delayed_calls": "gauge",
    "mpush_reactor_lag_seconds": "histogram",
    "mpush_reactor_selectables": "gauge",
    "mpush_reactor_stalls": "counter",
    "mpush_sample_key": "gauge",
    "mpush_store_repairs": "counter",
    "mpush_threadpool_busy": "gauge",
    "mpush_threadpool_queue": "gauge",
    "mpush_threadpool_threads": "gauge",
    "mpush_unbinds": "counter",
    "mpush_upstream": "counter",
    "process_cpu_seconds": "counter",
    "process_max_fds": "gauge",
    "process_open_fds": "gauge",
    "process_resident_memory_bytes": "gauge",
    "process_start_time_seconds": "gauge",
    "process_virtual_memory_bytes": "gauge",
    "python_gc_collections": "counter",
    "python_gc_objects_collected": "counter",
    "python_gc_objects_uncollectable": "counter",
}
"""
Operations 7.5 as far as this version goes, and the door's own additions. Counters end
in C{_total} on the wire; the parser takes that off.
"""


class Device(Connection):
    """
    A phone that takes every push, or none.
    """

    connected = True
    busy = False
    peer = "127.0.0.1:50000"
    takes = True

    def send_push(self, message_id: int, flags: int, content: bytes) -> bool:
        self.last_message_id = message_id
        return self.takes


class Sender:
    """
    Remembers how pushes ended.
    """

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def push_finished(
        self, request: PushRequest, outcome: Outcome, points: TimePoints
    ) -> None:
        self.outcomes.append(outcome)


class MetricsTestCase(SynchronousTestCase):
    """
    A test with a node that keeps its real parts and opens no port, and its site.
    """

    settings: tuple[str, ...] = ()

    def setUp(self) -> None:
        self.home = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.home)
        self.clock: Any = MemoryReactorClock()
        self.clock.advance(1_800_000_000)
        self.node = self.make_node()
        self.site = self.open(self.node)

    def make_node(self) -> Node:
        """
        Make a node on this test's clock.
        """
        loaded = load_settings(
            None,
            [
                f"mp.home={self.home}",
                f'mp.security.private-key="{SAMPLE["rsaPrivateKeyBase64"]}"',
                f'mp.security.public-key="{SAMPLE["rsaPublicKeyBase64"]}"',
                "mp.security.allow-sample-key=true",
                *self.settings,
            ],
            {},
        )
        log = NodeLog("off", self.clock, lambda event: None)  # type: ignore[arg-type]
        node = Node(loaded, self.clock, log=log)
        self.addCleanup(node.wheel.stop)
        return node

    def open(self, node: Node) -> MetricsSite:
        """
        Make a node's site, as if its port were open.
        """
        site = metrics_site(node)
        site.doStart()
        self.addCleanup(lambda: site.numPorts and site.doStop())
        return site

    def connect(self) -> tuple[Any, StringTransportWithDisconnection]:
        """
        Open a connection.

        @return: Its protocol, C{None} if it is not taken in, and its transport.
        """
        transport = StringTransportWithDisconnection()
        protocol: Any = self.site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 50001))
        if protocol is not None:
            transport.protocol = protocol
            protocol.makeConnection(transport)
        return protocol, transport

    def request(
        self, path: str, method: str = "GET", site: MetricsSite | None = None
    ) -> tuple[str, str]:
        """
        Ask over HTTP.

        @return: The head and the body of the answer.
        """
        transport = StringTransportWithDisconnection()
        protocol: Any = (site or self.site).buildProtocol(
            IPv4Address("TCP", "127.0.0.1", 50001)
        )
        transport.protocol = protocol
        protocol.makeConnection(transport)
        protocol.dataReceived(f"{method} {path} HTTP/1.0\r\n\r\n".encode())
        head, _, body = transport.value().decode().partition("\r\n\r\n")
        return head, body

    def scrape(self, site: MetricsSite | None = None) -> Any:
        """
        Scrape, and read what came with Prometheus' own parser.

        @return: All metrics by name.
        """
        _, body = self.request("/metrics", site=site)
        families = list(text_string_to_metric_families(body))
        self.assertEqual(len(families), len({family.name for family in families}))
        return {family.name: family for family in families}

    def samples(self, name: str) -> list[tuple[Labels, float]]:
        """
        Scrape one metric.

        @return: Labels and value of each of its samples.
        """
        return [(sample.labels, sample.value) for sample in self.scrape()[name].samples]

    def value(self, name: str, **labels: str) -> float:
        """
        Scrape one value.
        """
        (found,) = [value for mine, value in self.samples(name) if mine == labels]
        return found

    def bind(self, user_id: str) -> Device:
        """
        Have a phone that is connected and bound.
        """
        device = Device(None, self.clock.seconds())
        device.device_id = device.id
        device.os_name = "android"
        self.node.connections.add(device)
        self.node.connections.secured(device)
        bound = Deferred.fromCoroutine(self.node.router.bind(device, user_id, None))
        self.assertTrue(self.successResultOf(bound))
        return device

    def push(self, user_id: str, flags: int = 0) -> Sender:
        """
        Push to a phone.
        """
        sender = Sender()
        self.node.centre.push(
            PushRequest(
                user_id,
                1,
                3000,
                b"hello",
                None,
                None,
                None,
                flags,
                sender,  # type: ignore[arg-type]
            )
        )
        return sender


class ExpositionTests(MetricsTestCase):
    """
    What goes over HTTP.
    """

    def test_names_and_types(self) -> None:
        """An idle node already shows every metric, under its name and type."""
        found = {name: family.type for name, family in self.scrape().items()}
        self.assertEqual(found, NAMES)

    def test_content_type(self) -> None:
        """Prometheus is told which format it gets."""
        head, _ = self.request("/metrics")
        self.assertTrue(head.startswith("HTTP/1.0 200 OK\r\n"), head)
        self.assertIn("text/plain; version=0.0.4; charset=utf-8", head)

    def test_health(self) -> None:
        """A probe gets a short answer."""
        head, body = self.request("/healthz")
        self.assertTrue(head.startswith("HTTP/1.0 200 OK\r\n"), head)
        self.assertEqual(body, "ok")

    def test_nothing_else(self) -> None:
        """There is no other page, and nothing to post to."""
        for path in ("/", "/metric", "/metricss"):
            self.assertIn(" 404 ", self.request(path)[0], path)
        for path in ("/metrics", "/healthz"):
            self.assertIn(" 405 ", self.request(path, "POST")[0], path)

    def test_large_body(self) -> None:
        """Who sends a large body is cut off before it fills a disk."""
        protocol, transport = self.connect()
        protocol.dataReceived(b"GET /metrics HTTP/1.1\r\nHost: a\r\n")
        protocol.dataReceived(b"Content-Length: 9000000\r\n\r\n")
        protocol.dataReceived(b"x" * 8000)
        self.assertTrue(transport.connected)
        protocol.dataReceived(b"x" * DRAINED_BYTES)
        protocol.dataReceived(b"x" * 8000)
        self.assertFalse(transport.connected)

    def test_two_nodes(self) -> None:
        """Nodes of one process do not share their counts."""
        other = self.open(self.make_node())
        self.node.metrics.heartbeats = 5
        (sample,) = self.scrape(other)["mpush_heartbeats"].samples
        self.assertEqual(sample.value, 0)
        self.assertEqual(self.value("mpush_heartbeats"), 5)

    def test_open_connection(self) -> None:
        """A scraper that stays connected is let go when the port closes."""
        protocol, transport = self.connect()
        protocol.dataReceived(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertTrue(transport.connected)
        self.site.doStop()
        self.assertFalse(transport.connected)
        self.assertEqual(self.site.connections, 0)

    def test_closed_port(self) -> None:
        """When the port closes sampling ends and no timer is left."""
        self.clock.advance(1)
        callbacks = len(gc.callbacks)
        self.site.doStop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(gc.callbacks), callbacks - 1)


class ConnectionTests(MetricsTestCase):
    """
    How many connections the door holds, and for how long.
    """

    HEALTH = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"

    def test_most_connections(self) -> None:
        """For one connection too many the quietest goes; the next scrape shows that."""
        transports = [self.connect()[1] for _ in range(MAX_CONNECTIONS)]
        self.assertIsNotNone(self.connect()[0])
        self.assertFalse(transports[0].connected)
        self.assertTrue(all(transport.connected for transport in transports[1:]))
        transports[1].loseConnection()
        self.assertEqual(
            self.samples("mpush_connections_refused"),
            [({"server": "metrics", "limit": "metrics-connections"}, 1)],
        )

    def test_silent_peer(self) -> None:
        """Who asks for nothing is closed."""
        _, transport = self.connect()
        self.clock.advance(REQUEST_SECONDS - 1)
        self.assertTrue(transport.connected)
        self.clock.advance(1)
        self.assertFalse(transport.connected)

    def test_slow_peer(self) -> None:
        """Who sends one line every second has no more time than others."""
        protocol, transport = self.connect()
        protocol.dataReceived(b"GET /healthz HTTP/1.1\r\n")
        for _ in range(REQUEST_SECONDS):
            self.assertTrue(transport.connected)
            protocol.dataReceived(b"X-Slow: yes\r\n")
            self.clock.advance(1)
        self.assertFalse(transport.connected)

    def test_scraper(self) -> None:
        """Who asks again in time keeps the connection, and is closed when it stops."""
        protocol, transport = self.connect()
        for _ in range(3):
            protocol.dataReceived(self.HEALTH)
            self.assertIn(b" 200 OK\r\n", transport.value())
            transport.clear()
            self.clock.advance(IDLE_SECONDS - 1)
        self.assertTrue(transport.connected)
        self.clock.advance(1)
        self.assertFalse(transport.connected)

    def test_peer_that_takes_no_answer(self) -> None:
        """An answer that cannot be delivered keeps no connection open."""
        aborted: list[bool] = []
        for version in (b"1.0", b"1.1"):
            protocol, transport = self.connect()
            self.patch(transport, "loseConnection", lambda: None)
            self.patch(transport, "abortConnection", lambda: aborted.append(True))
            protocol.dataReceived(self.HEALTH.replace(b"1.1", version))
            self.assertEqual(aborted, [], version)
            self.clock.advance(IDLE_SECONDS)
            self.clock.advance(IDLE_SECONDS)
            self.assertEqual(aborted, [True], version)
            aborted.clear()

    def test_no_timer_is_left(self) -> None:
        """Connections that have ended leave nothing behind."""
        calls = len(self.clock.getDelayedCalls())
        for ending in (b"", self.HEALTH, self.HEALTH.replace(b"1.1", b"1.0"), b"?\r\n"):
            protocol, transport = self.connect()
            protocol.dataReceived(ending)
            if transport.connected:
                transport.loseConnection()
            self.assertEqual(len(self.clock.getDelayedCalls()), calls, ending)
            self.assertEqual(self.site.connections, 0, ending)


class CountTests(MetricsTestCase):
    """
    Counts of the node and their labels.
    """

    def test_build(self) -> None:
        """The versions are labels of a one."""
        ((labels, value),) = self.samples("mpush_build_info")
        self.assertEqual(set(labels), {"version", "python", "twisted", "reactor"})
        self.assertEqual((labels["version"], value), (__version__, 1))

    def test_connections(self) -> None:
        """A bound phone is a connection, a user and a route."""
        self.bind("u1")
        self.node.connections.add(Device(None, self.clock.seconds()))
        self.assertEqual(self.value("mpush_connections", server="conn"), 2)
        self.assertEqual(self.value("mpush_connections", server="gateway"), 0)
        self.assertEqual(self.value("mpush_connections_unsecured", server="conn"), 1)
        self.assertEqual(self.value("mpush_online_users"), 1)
        self.assertEqual(self.value("mpush_local_routes"), 1)

    def test_ended_connections(self) -> None:
        """Ends have a door and a reason, refusals a door and a limit."""
        metrics = self.node.metrics
        metrics.conn.opened = 3
        metrics.conn.closed["peer"] = 2
        metrics.gateway.closed["stop"] = 1
        metrics.conn.refused["max-unsecured"] = 4
        self.assertEqual(self.value("mpush_connections_opened", server="conn"), 3)
        self.assertEqual(
            self.samples("mpush_connections_closed"),
            [
                ({"server": "conn", "reason": "peer"}, 2),
                ({"server": "gateway", "reason": "stop"}, 1),
            ],
        )
        self.assertEqual(
            self.samples("mpush_connections_refused"),
            [({"server": "conn", "limit": "max-unsecured"}, 4)],
        )

    def test_accept_pauses(self) -> None:
        """The pauses of the device port are shown."""
        self.node.connect_listener.pauses = 2
        self.assertEqual(self.value("mpush_accept_pauses", server="conn"), 2)

    def test_commands_seen(self) -> None:
        """Only commands that were seen have a label; nameless ones share one."""
        door = self.node.metrics.conn
        door.packets_in[Command.BIND] += 2
        door.packets_out[Command.OK] += 1
        for cmd in (-1, -128, 0, 77, 127):
            door.packets_in[cmd] += 1
        self.node.metrics.gateway.packets_in[Command.GATEWAY_PUSH] += 3
        found = {
            (labels["server"], labels["direction"], labels["cmd"]): value
            for labels, value in self.samples("mpush_packets")
        }
        self.assertEqual(
            found,
            {
                ("conn", "in", "BIND"): 2,
                ("conn", "in", "UNKNOWN"): 5,
                ("conn", "out", "OK"): 1,
                ("gateway", "in", "GATEWAY_PUSH"): 3,
            },
        )

    def test_bytes_and_errors(self) -> None:
        """Bytes have a direction, errors a reason."""
        door = self.node.metrics.gateway
        door.bytes_in, door.bytes_out = 10, 20
        door.decode_errors["body"] = 1
        for direction, count in (("in", 10), ("out", 20)):
            self.assertEqual(
                self.value("mpush_bytes", server="gateway", direction=direction), count
            )
        self.assertEqual(
            self.value("mpush_decode_errors", server="gateway", reason="body"), 1
        )

    def test_results_of_sessions(self) -> None:
        """Handshakes, fast connects, binds, unbinds and upstream have results."""
        for name in ("handshakes", "fast_connects", "binds", "unbinds", "upstream"):
            getattr(self.node.metrics, name)["success"] += 3
            self.assertEqual(self.value(f"mpush_{name}", result="success"), 3, name)

    def test_kicks(self) -> None:
        """Kicks have a kind and a result."""
        self.node.metrics.kicks["local", "failure"] = 2
        self.assertEqual(self.value("mpush_kicks", kind="local", result="failure"), 2)

    def test_heartbeats(self) -> None:
        """Failed checks have an action."""
        self.node.metrics.heartbeat_timeouts["close"] = 2
        self.assertEqual(self.value("mpush_heartbeat_timeouts", action="close"), 2)

    def test_sample_key(self) -> None:
        """The published key is in use here, and that can be alarmed on."""
        self.assertEqual(self.value("mpush_sample_key"), 1)

    def test_events(self) -> None:
        """Events and the failures of their listeners go by the event's name."""

        def fail(event: object) -> None:
            raise RuntimeError("listener")

        self.node.events.subscribe(fail)
        self.node.events.post(ServerStarted())
        self.node.events.flush()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        for name in ("mpush_events", "mpush_event_errors"):
            self.assertEqual(self.samples(name), [({"event": "ServerStarted"}, 1)])

    def test_threads(self) -> None:
        """Each pool of the original is there; without calls there are no threads."""
        for name in ("threads", "busy", "queue"):
            self.assertEqual(self.value(f"mpush_threadpool_{name}", pool="mq"), 0)
            self.assertEqual(len(self.samples(f"mpush_threadpool_{name}")), 5)

    def test_threads_of_a_plug_in(self) -> None:
        """The page is shown if an executor that is a plug-in cannot tell."""
        self.patch(self.node.executor, "statistics", lambda: 1 / 0)
        self.assertEqual(self.samples("mpush_threadpool_threads"), [])

    def test_plug_ins(self) -> None:
        """What plug-ins declare is shown under a name that says so."""
        asked = self.node.extension_metrics.counter("asked", "Questions.", ("answer",))
        asked("yes")
        asked("yes")
        asked("no")
        self.node.extension_metrics.gauge("waiting", "Questions.", lambda: 7)
        self.assertEqual(self.value("mpush_ext_asked", answer="yes"), 2)
        self.assertEqual(self.value("mpush_ext_asked", answer="no"), 1)
        self.assertEqual(self.value("mpush_ext_waiting"), 7)


class PushTests(MetricsTestCase):
    """
    Counts of the push centre.
    """

    settings = (
        "mp.push.flow-control.global.limit=2",
        "mp.push.flow-control.global.duration=10s",
    )

    def test_outcomes(self) -> None:
        """Each push is a task, and ends with a result."""
        self.bind("u1")
        self.assertEqual(self.push("u1").outcomes, [Outcome.SUCCESS])
        self.assertEqual(self.push("nobody").outcomes, [Outcome.OFFLINE])
        self.assertEqual(self.value("mpush_push_tasks", mode="single", kind="new"), 2)
        for result in ("success", "offline"):
            self.assertEqual(
                self.value("mpush_push_results", mode="single", result=result), 1
            )

    def test_waiting_for_ack(self) -> None:
        """An ack that is awaited is pending; when it has come its time is shown."""
        device = self.bind("u1")
        sender = self.push("u1", flags=4)
        self.assertEqual(self.value("mpush_ack_pending"), 1)
        self.clock.advance(0.03)
        self.node.centre.acknowledged(device, device.last_message_id)
        self.assertEqual(sender.outcomes, [Outcome.ACK_SUCCESS])
        self.assertEqual(self.value("mpush_ack_pending"), 0)
        buckets = {
            sample.labels["le"]: sample.value
            for sample in self.scrape()["mpush_push_duration_seconds"].samples
            if sample.labels["stage"] == "ack" and sample.name.endswith("_bucket")
        }
        self.assertEqual((buckets["0.025"], buckets["0.05"]), (0, 1))
        self.assertEqual((buckets["5.0"], buckets["+Inf"]), (1, 1))

    def test_sum_and_count(self) -> None:
        """The histogram has the sum and the number of its values."""
        seconds = self.node.metrics.push_seconds
        seconds.observe(0.25)
        seconds.observe(60)
        found = {
            sample.name: sample.value
            for sample in self.scrape()["mpush_push_duration_seconds"].samples
            if sample.labels == {"stage": "total"}
        }
        self.assertEqual(found["mpush_push_duration_seconds_sum"], 60.25)
        self.assertEqual(found["mpush_push_duration_seconds_count"], 2)

    def test_flow_control(self) -> None:
        """Pushes over the limit count as delayed, and as tasks put back."""
        self.bind("u1")
        self.push("u1")
        waiting = self.push("u1")
        self.assertEqual(waiting.outcomes, [])
        self.assertEqual(self.value("mpush_flow_control_delayed", scope="global"), 1)
        self.assertEqual(
            self.value("mpush_push_tasks", mode="single", kind="requeued"), 1
        )
        self.node.centre.stop()

    def test_pushes_per_second(self) -> None:
        """The rate behind flow control is that of the last second."""
        self.clock.advance(1)
        self.node.flow.total += 30
        self.clock.advance(1)
        self.assertEqual(self.value("mpush_flow_control_qps", scope="global"), 30)
        self.clock.advance(1)
        self.assertEqual(self.value("mpush_flow_control_qps", scope="global"), 0)


class HttpTests(MetricsTestCase):
    """
    The HTTP proxy.
    """

    settings = (
        "mp.http.proxy-enabled=true",
        'mp.http.dns-mapping={"a.test": ["127.0.0.1:1"]}',
    )

    def ask(self, uri: str) -> Device:
        """
        Have a device ask.
        """
        device = Device(None, 0.0)
        device.device_id = "d1"
        device.decode = lambda kind, flags, body: body  # type: ignore[method-assign]
        device.answer = lambda session_id, message: True  # type: ignore[method-assign]
        self.node.dispatcher.dispatch(
            device, Command.HTTP_PROXY, 1, 0, HttpRequest(0, uri)
        )
        return device

    def test_results(self) -> None:
        """Requests are counted by what the device got."""
        for uri in ("", "http://127.0.0.1/", "/relative"):
            self.ask(uri)
        self.assertEqual(
            sorted(self.samples("mpush_http_proxy_requests"), key=str),
            [
                ({"result": "bad-request"}, 1.0),
                ({"result": "error"}, 1.0),
                ({"result": "refused"}, 1.0),
            ],
        )
        duration = self.scrape()["mpush_http_proxy_duration_seconds"]
        counts = [one.value for one in duration.samples if one.name.endswith("_count")]
        self.assertEqual(counts, [3])

    def test_under_way(self) -> None:
        """Those that have no answer yet are shown until they have one."""
        device = self.ask("http://a.test/")
        self.assertEqual(self.value("mpush_http_proxy_under_way"), 1)
        proxy = self.node.web_proxy
        assert proxy is not None
        proxy.handler.connection_lost(device)
        self.assertEqual(self.value("mpush_http_proxy_under_way"), 0)


class RuntimeTests(MetricsTestCase):
    """
    What is sampled while time passes, and what the process shows.
    """

    def lag(self) -> Labels:
        """
        Scrape the histogram of lag: counts by bound, and sum.
        """
        return {
            sample.labels.get("le", sample.name.rpartition("_")[2]): sample.value
            for sample in self.scrape()["mpush_reactor_lag_seconds"].samples
        }

    def test_punctual_reactor(self) -> None:
        """A reactor in time has one sample a second without lag."""
        for _ in range(5):
            self.clock.advance(1)
        lag = self.lag()
        self.assertEqual((lag["count"], lag["0.001"], lag["sum"]), (6, 6, 0))

    def test_late_reactor(self) -> None:
        """A reactor that was busy for a while is late by what exceeds the second."""
        self.clock.advance(1.3)
        lag = self.lag()
        self.assertEqual((lag["count"], lag["0.25"], lag["0.5"]), (2, 1, 2))
        self.assertAlmostEqual(float(lag["sum"]), 0.3, places=5)
        self.clock.advance(0.7)
        self.assertAlmostEqual(float(self.lag()["sum"]), 0.3, places=5)

    def test_stalled_reactor(self) -> None:
        """More than five seconds are a stall, less are not."""
        self.clock.advance(5.5)
        self.assertEqual(self.value("mpush_reactor_stalls"), 0)
        self.clock.advance(7)
        self.assertEqual(self.value("mpush_reactor_stalls"), 1)

    def test_garbage_collection(self) -> None:
        """A collection is counted with the time it took, in its generation."""

        def pauses() -> float:
            (count,) = [
                sample.value
                for sample in self.scrape()["mpush_gc_pause_seconds"].samples
                if sample.name.endswith("_count") and sample.labels["generation"] == "2"
            ]
            return float(count)

        before = pauses()
        gc.collect()
        self.assertGreaterEqual(pauses(), before + 1)

    def test_process(self) -> None:
        """Memory, load, threads and timers of the process are more than nothing."""
        self.assertGreater(self.value("process_resident_memory_bytes"), 1_000_000)
        self.assertGreater(self.value("process_open_fds"), 0)
        self.assertGreater(self.value("mpush_python_allocated_blocks"), 1000)
        self.assertGreaterEqual(self.value("mpush_python_threads", kind="all"), 1)
        self.assertGreaterEqual(self.value("mpush_reactor_delayed_calls"), 1)
        windows = [labels["window"] for labels, _ in self.samples("mpush_load_average")]
        self.assertEqual(windows, ["1m", "5m", "15m"])

    def test_thread_pool(self) -> None:
        """The pool is shown once somebody has asked for it, and not made for that."""
        pools = [labels["pool"] for labels, _ in self.samples("mpush_threadpool_busy")]
        self.assertNotIn("reactor", pools)
        self.clock.threadpool = ThreadPool(1, 3, "reactor pool")
        for name in ("threads", "busy", "queue"):
            self.assertEqual(
                self.value(f"mpush_threadpool_{name}", pool="reactor pool"), 0
            )
