"""
The console and the metrics port of a running node, over real sockets and at the
addresses that the node announces (operations 6, 7.5 and 13.4).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mpush_tw.config import load_settings
from mpush_tw.core.log import NodeLog
from mpush_tw.errors import ConfigError
from mpush_tw.protocol.commands import Command
from mpush_tw.protocol.gateway import GatewayPush
from mpush_tw.protocol.packet import encode_packet
from mpush_tw.service import Node
from tests.integration.test_bad_input import Device, Peer
from tests.support import SAMPLE, VECTORS, NodeTestCase
from tests.transports.test_admin import GREETING, REPAIRED

FRAMES = next(
    case
    for case in json.loads((VECTORS / "transcripts.json").read_text())["cases"]
    if case["name"] == "admin-console"
)["frames"]

_END = b"\r\n\r\n"
_SECONDS = 5.0

Address = tuple[str, int]


def free_port() -> int:
    """
    Find a port of the loopback address that nobody listens on.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Operator:
    """
    Somebody at the console, with something like telnet; blocks.

    @ivar greeting: What the console said first.
    """

    def __init__(self, address: Address) -> None:
        self.socket = socket.create_connection(address, _SECONDS)
        self._received = b""
        self.greeting = self.until(f"now.{_END.decode()}")

    def until(self, end: str) -> str:
        """
        Read as far as C{end}, and that too.
        """
        wanted = end.encode()
        while not self._received.endswith(wanted):
            data = self.socket.recv(65536)
            if not data:
                raise AssertionError(f"the console ended after {self._received!r}")
            self._received += data
        text, self._received = self._received.decode(), b""
        return text

    def type(self, line: str) -> None:
        """
        Type something, line end included.
        """
        self.socket.sendall(line.encode())

    def ask(self, line: str) -> str:
        """
        Type a command and read its answer.

        @return: Without the line ends behind it.
        """
        self.type(f"{line}\r\n")
        return self.until(_END.decode()).removesuffix(_END.decode())

    def ended(self) -> bool:
        """
        Whether the console closes, with nothing more to say.
        """
        return self.socket.recv(1) == b""

    def close(self) -> None:
        self.socket.close()


class OperationsTestCase(NodeTestCase):
    """
    A test that finds the doors where the node says they are.
    """

    @property
    def announced(self) -> dict[str, Any]:
        """
        The line of the log that tells the addresses.
        """
        (event,) = [event for event in self.events if "admin" in event]
        return event

    @property
    def console(self) -> Address:
        """
        Where the console is.
        """
        host, _, port = self.announced["admin"].rpartition(":")
        return host, int(port)

    def at_the_console(self, function: Callable[[Operator], Any]) -> Deferred[Any]:
        """
        Run a function in a thread with a session that is closed after it.
        """

        def work() -> Any:
            operator = Operator(self.console)
            try:
                return function(operator)
            finally:
                operator.close()

        waiting: Deferred[Any] = self.in_thread(work)
        return waiting

    def have_device(self, device_id: str, user_id: str) -> Device:
        """
        Connect and bind a device, from a thread; it is closed when the test ends.
        """
        device = Device(self.ports[3000])
        self.addCleanup(device.close)
        return device.shake_hands(device_id).bind(user_id)


class ConsoleTests(OperationsTestCase):
    """
    The console of a node as it is started by default.
    """

    def test_loopback(self) -> None:
        """
        Nobody but this machine reaches the console, so there is nothing to warn about.
        """
        self.assertEqual(self.console[0], "127.0.0.1")
        self.assertNotIn("asks for no password", self.logged())

    def test_recorded_conversation(self) -> Deferred[Any]:
        """
        An operator who asks what was recorded from the original, with one device
        connected, reads what was recorded.
        """

        def talk(operator: Operator) -> None:
            self.assertRegex(operator.greeting, f"^{GREETING.pattern}$")
            self.have_device("device-adm", "user-adm")
            for line, recorded in zip(FRAMES[1::2], FRAMES[2::2], strict=True):
                wanted = self.as_here(line["text"], recorded["text"])
                operator.type(line["text"])
                self.assertEqual(operator.until(wanted), wanted, line)
            self.assertTrue(operator.ended())

        return self.at_the_console(talk)

    def as_here(self, line: str, recorded: str) -> str:
        """
        Change what is this node's own: its gateway port, the id of the connection, and
        the list of users, which in the recording held somebody from before.
        """
        if line in REPAIRED:
            return REPAIRED[line][1]
        if line.startswith("count online"):
            return "1\r\n\r\n"
        if line.startswith("route user-adm"):
            (connection,) = self.node.connections
            recorded = recorded.replace("3001", str(self.ports[3001]))
            return recorded.replace("fb6d8860", connection.id)
        return recorded.removesuffix("<closed>")

    def test_counts(self) -> Deferred[Any]:
        """
        Each kind of connection is counted by itself.
        """

        def talk(operator: Operator) -> None:
            self.have_device("d1", "u1")
            Device(self.ports[3000]).shake_hands("d2").leave()
            sender = Peer(self.ports[3001])
            self.addCleanup(sender.close)
            push = GatewayPush("u1", 1, 5000, b"hello").encode()
            sender.send(encode_packet(Command.GATEWAY_PUSH, 1, 0, push))
            self.assertIsNotNone(sender.packet())
            found = {
                what: operator.ask(f"count {what}")
                for what in ("conn", "gateway", "routes", "online", "ws")
            }
            self.assertEqual(
                found,
                {"conn": "1", "gateway": "1", "routes": "1", "online": "1", "ws": "0"},
            )

        return self.at_the_console(talk)

    def test_configuration(self) -> Deferred[Any]:
        """
        The whole configuration is shown, without the private key.
        """

        def talk(operator: Operator) -> None:
            text = operator.ask("conf")
            self.assertEqual(json.loads(text)["mp"]["core"]["min-heartbeat"], "10s")
            self.assertNotIn(SAMPLE["rsaPrivateKeyBase64"], text)

        return self.at_the_console(talk)

    def test_commands_are_audited(self) -> Deferred[Any]:
        """
        What was typed stands in the log.
        """

        def check(_: object) -> None:
            lines = [event["line"] for event in self.events if "line" in event]
            self.assertEqual(lines, ["count conn", "quit"])

        def talk(operator: Operator) -> None:
            operator.ask("count conn")
            operator.ask("quit")

        return self.at_the_console(talk).addCallback(check)

    def test_stop(self) -> Deferred[Any]:
        """
        A node that stops ends the sessions of its console.
        """

        async def scenario() -> None:
            operator = await self.in_thread(Operator, self.console)
            self.addCleanup(operator.close)
            await self.node.stopService()
            self.assertTrue(await self.in_thread(operator.ended))

        return Deferred.fromCoroutine(scenario())


class PasswordTests(OperationsTestCase):
    """
    A console that asks for a password.
    """

    settings = ("mp.net.admin-server-password=sesame",)

    def test_password(self) -> Deferred[Any]:
        """
        With the password of the configuration commands are done.
        """

        def talk(operator: Operator) -> None:
            self.assertEqual(operator.ask("auth sesame"), "authenticated")
            self.assertEqual(operator.ask("count conn"), "0")

        return self.at_the_console(talk)

    def test_without_password(self) -> Deferred[Any]:
        """
        Who starts with a command is told what is missing and closed.
        """

        def talk(operator: Operator) -> None:
            self.assertEqual(
                operator.ask("count conn"),
                "error: the first line must be auth <password>",
            )
            self.assertTrue(operator.ended())

        return self.at_the_console(talk)

    def test_secrecy(self) -> Deferred[Any]:
        """
        The password is neither logged nor shown.
        """

        def check(shown: str) -> None:
            self.assertEqual(json.loads(shown)["mp"]["net"][key], "******")
            self.assertNotIn("sesame", repr(self.events))

        def talk(operator: Operator) -> str:
            operator.ask("auth sesame")
            return operator.ask("conf")

        key = "admin-server-password"
        return self.at_the_console(talk).addCallback(check)


class ExposedConsoleTests(OperationsTestCase):
    """
    A console that other machines reach.
    """

    settings = ("mp.net.admin-server-bind-ip=0.0.0.0",)

    def test_warning(self) -> None:
        """
        Without a password the log warns of it, and says what to set.
        """
        (warning,) = [
            event
            for event in self.events
            if "asks for no password" in event["log_format"]
        ]
        self.assertEqual(warning["log_level"].name, "warn")
        self.assertIn("mp.net.admin-server-password", warning["log_format"])
        self.assertEqual(warning["address"], "0.0.0.0")


class ExposedConsoleWithPasswordTests(OperationsTestCase):
    """
    The same with a password.
    """

    settings = (*ExposedConsoleTests.settings, *PasswordTests.settings)

    def test_no_warning(self) -> None:
        """
        There is nothing to warn about.
        """
        self.assertEqual(self.console[0], "0.0.0.0")
        self.assertNotIn("asks for no password", self.logged())


class MetricsTests(OperationsTestCase):
    """
    The metrics port of a node that has one.
    """

    def setUp(self) -> Any:
        self.port = free_port()
        self.settings = (f"mp.net.metrics-server-port={self.port}",)
        return super().setUp()

    def fetch(self, path: str) -> tuple[int, str, str]:
        """
        Ask over HTTP, from a thread.

        @return: Status, content type and body.
        """
        client = HTTPConnection("127.0.0.1", self.port, timeout=_SECONDS)
        try:
            client.request("GET", path)
            answer = client.getresponse()
            kind = answer.getheader("content-type") or ""
            return answer.status, kind, answer.read().decode()
        finally:
            client.close()

    def scrape(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """
        Scrape as Prometheus does, from a thread.

        @return: Values by name and labels.
        """
        status, kind, body = self.fetch("/metrics")
        self.assertEqual(status, 200)
        self.assertIn("version=0.0.4", kind)
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(body)
            for sample in family.samples
        }

    def test_announced(self) -> None:
        """
        The log names the address as it goes into the configuration of Prometheus.
        """
        self.assertEqual(
            self.announced["metrics"], f"http://127.0.0.1:{self.port}/metrics"
        )

    def test_a_session_is_counted(self) -> Deferred[Any]:
        """
        A device that connects, binds and receives a push leaves its counts.
        """

        def work() -> None:
            device = self.have_device("d1", "u1")
            sender = Peer(self.ports[3001])
            self.addCleanup(sender.close)
            push = GatewayPush("u1", 1, 5000, b"hello").encode()
            sender.send(encode_packet(Command.GATEWAY_PUSH, 1, 0, push))
            self.assertIsNotNone(sender.packet())
            self.assertIsNotNone(device.packet())
            found = self.scrape()
            for name, value, labels in (
                ("mpush_connections", 1, {"server": "conn"}),
                ("mpush_connections", 1, {"server": "gateway"}),
                ("mpush_connections_unsecured", 0, {"server": "conn"}),
                ("mpush_connections_opened_total", 1, {"server": "conn"}),
                ("mpush_online_users", 1, {}),
                ("mpush_local_routes", 1, {}),
                ("mpush_handshakes_total", 1, {"result": "success"}),
                ("mpush_binds_total", 1, {"result": "success"}),
                ("mpush_push_tasks_total", 1, {"mode": "single", "kind": "new"}),
                (
                    "mpush_push_results_total",
                    1,
                    {"mode": "single", "result": "success"},
                ),
                (
                    "mpush_packets_total",
                    1,
                    {"server": "conn", "direction": "in", "cmd": "BIND"},
                ),
                (
                    "mpush_packets_total",
                    1,
                    {"server": "conn", "direction": "out", "cmd": "PUSH"},
                ),
                (
                    "mpush_packets_total",
                    1,
                    {"server": "gateway", "direction": "in", "cmd": "GATEWAY_PUSH"},
                ),
                ("mpush_events_total", 1, {"event": "UserOnline"}),
                ("mpush_sample_key", 1, {}),
            ):
                key = (name, frozenset(labels.items()))
                self.assertEqual(found.get(key), value, key)

        waiting: Deferred[Any] = self.in_thread(work)
        return waiting

    def test_the_console_agrees(self) -> Deferred[Any]:
        """
        The console counts the same connections as the metrics.
        """

        def talk(operator: Operator) -> None:
            self.have_device("d1", "u1")
            found = self.scrape()
            for what, name, labels in (
                ("conn", "mpush_connections", {"server": "conn"}),
                ("routes", "mpush_local_routes", {}),
            ):
                value = found[name, frozenset(labels.items())]
                self.assertEqual(operator.ask(f"count {what}"), f"{value:.0f}", what)

        return self.at_the_console(talk)

    def test_health(self) -> Deferred[Any]:
        """
        A probe of the machine or of a load balancer gets its answer.
        """

        def check(answer: tuple[int, str, str]) -> None:
            status, _, body = answer
            self.assertEqual((status, body), (200, "ok"))

        waiting: Deferred[Any] = self.in_thread(self.fetch, "/healthz")
        return waiting.addCallback(check)

    def test_stop(self) -> Deferred[Any]:
        """
        A scraper that keeps its connection open does not outlive the node.
        """

        def connect() -> HTTPConnection:
            client = HTTPConnection("127.0.0.1", self.port, timeout=_SECONDS)
            self.addCleanup(client.close)
            client.request("GET", "/healthz")
            client.getresponse().read()
            return client

        def ended(client: HTTPConnection) -> bool:
            return client.sock is not None and client.sock.recv(1) == b""

        async def scenario() -> None:
            client = await self.in_thread(connect)
            await self.node.stopService()
            self.assertTrue(await self.in_thread(ended, client))

        return Deferred.fromCoroutine(scenario())

    def test_requests_without_reading(self) -> Deferred[Any]:
        """
        Who sends requests in advance and reads nothing does not have answers pile up.
        """

        def work() -> int:
            with socket.create_connection(("127.0.0.1", self.port), _SECONDS) as peer:
                peer.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 500)
                received = b""
                try:
                    while data := peer.recv(65536):
                        received += data
                except ConnectionResetError:
                    pass
                return received.count(b"HTTP/1.1 200 OK")

        def check(answers: int) -> None:
            self.assertGreater(answers, 0)
            self.assertLess(answers, 100)

        waiting: Deferred[Any] = self.in_thread(work)
        return waiting.addCallback(check)


class NoMetricsTests(OperationsTestCase):
    """
    A node without the key.
    """

    def test_off(self) -> None:
        """
        There is no metrics port, and the log says so.
        """
        self.assertEqual(self.announced["metrics"], "off")


class BusyPortTests(OperationsTestCase):
    """
    A second node on the same machine that asks for a port of the first.
    """

    def start_second(self, *settings: str) -> ConfigError:
        """
        Start a node that is bound to fail.

        @return: Why it did.
        """
        home = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, home)
        loaded = load_settings(
            None,
            [
                f"mp.home={home}",
                f'mp.security.private-key="{SAMPLE["rsaPrivateKeyBase64"]}"',
                f'mp.security.public-key="{SAMPLE["rsaPublicKeyBase64"]}"',
                "mp.security.allow-sample-key=true",
                "mp.net.connect-server-port=0",
                "mp.net.connect-server-bind-ip=127.0.0.1",
                "mp.net.gateway-server-port=0",
                *settings,
            ],
            {},
        )
        log = NodeLog("off", reactor, self.events.append)  # type: ignore[arg-type]
        second = Node(loaded, reactor, log=log)
        self.addCleanup(second.wheel.stop)
        error: ConfigError = self.assertRaises(
            ConfigError, second.privilegedStartService
        )
        return error

    def test_console(self) -> None:
        """
        The start fails with one sentence that names the key and the port.
        """
        port = self.console[1]
        error = self.start_second(f"mp.net.admin-server-port={port}")
        self.assertEqual(error.key, "mp.net.admin-server-port")
        self.assertIn(f"port {port} on 127.0.0.1 cannot be opened", str(error))

    async def test_metrics(self) -> None:
        """
        If it is the metrics port, the console that was open already closes again.
        """
        mine = free_port()
        error = self.start_second(
            f"mp.net.admin-server-port={mine}",
            f"mp.net.metrics-server-port={self.console[1]}",
        )
        self.assertEqual(error.key, "mp.net.metrics-server-port")
        await deferLater(reactor, 0)
        with self.assertRaises(ConnectionRefusedError):
            await self.in_thread(Operator, ("127.0.0.1", mine))


class ShutdownTests(TestCase):
    """
    The one command that cannot be tried on a node inside of the tests' process.
    """

    timeout = 60

    def test_shutdown(self) -> Deferred[Any]:
        """
        C{shutdown} ends C{twistd mpush} in order and with status 0.
        """
        home = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, home)
        return deferToThread(self.run_and_shut_down, home)

    def test_shutdown_twice(self) -> Deferred[Any]:
        """
        An operator who types it twice, before the node is gone, breaks nothing.
        """
        home = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, home)
        return deferToThread(self.run_and_shut_down, home, 2)

    def run_and_shut_down(self, home: str, times: int = 1) -> None:
        """
        Start a process, shut it down at its console, and wait for its end.

        @param times: How often C{shutdown} is typed at once.
        """
        command = [
            sys.executable,
            *("-c", "from twisted.scripts.twistd import run; run()"),
            *("--nodaemon", "--pidfile=", "mpush"),
        ]
        for setting in (
            f"mp.home={home}",
            f'mp.security.private-key="{SAMPLE["rsaPrivateKeyBase64"]}"',
            f'mp.security.public-key="{SAMPLE["rsaPublicKeyBase64"]}"',
            "mp.security.allow-sample-key=true",
            "mp.net.connect-server-port=0",
            "mp.net.connect-server-bind-ip=127.0.0.1",
            "mp.net.gateway-server-port=0",
            "mp.net.admin-server-port=0",
        ):
            command += ["--set", setting]
        process = subprocess.Popen(
            command,
            cwd=home,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )
        assert process.stdout is not None
        watchdog = threading.Timer(45, process.kill)
        watchdog.start()
        try:
            said = ""
            for line in process.stdout:
                said += line
                if "MPUSH SERVER START SUCCESS" in line:
                    break
            found = re.search(r"console: 127\.0\.0\.1:(\d+)", said)
            self.assertIsNotNone(found, said)
            assert found is not None
            operator = Operator(("127.0.0.1", int(found[1])))
            answers = f"try close connect server...{_END.decode()}" * times
            operator.type("shutdown\r\n" * times)
            self.assertEqual(operator.until(answers), answers)
            self.assertTrue(operator.ended())
            operator.close()
            said, _ = process.communicate(timeout=30)
            self.assertEqual(process.returncode, 0, said)
            self.assertIn("receive admin command=shutdown", said)
            self.assertIn("MPUSH SERVER STOPPED SUCCESS", said)
            self.assertNotIn("Traceback", said)
            self.assertNotIn("ReactorNotRunning", said)
        finally:
            watchdog.cancel()
            process.kill()
            process.wait()
            process.stdout.close()
