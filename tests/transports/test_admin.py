"""
Tests for L{mpush_tw.transports.admin}: a session on a real node without ports.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.testing import (
    MemoryReactorClock,
    StringTransportWithDisconnection,
)
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.config import load_settings
from mpush_tw.core.connection import Connection
from mpush_tw.core.log import NodeLog
from mpush_tw.core.push.request import PushRequest
from mpush_tw.errors import Unavailable
from mpush_tw.interfaces import ServiceNode, UserOnline
from mpush_tw.service import Node
from mpush_tw.transports.admin import (
    ANSWER_SECONDS,
    AUTH_SECONDS,
    IDLE_SECONDS,
    MAX_LINE,
    MAX_SESSIONS,
    REFUSAL_SECONDS,
    AdminFactory,
    parse,
)
from tests.core.fakes import FakeListener
from tests.support import SAMPLE, VECTORS

FRAMES = next(
    case
    for case in json.loads((VECTORS / "transcripts.json").read_text())["cases"]
    if case["name"] == "admin-console"
)["frames"]

GREETING = re.compile(
    r"Welcome to MPush Console \[127\.0\.0\.1\]!\r\n"
    r"since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+ has running 0\(h\)\r\n\r\n"
    r"It is [A-Z][a-z]{2} [A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d \S+ \d{4} now\.\r\n\r\n"
)

REPAIRED = {
    "count\r\n": (
        "O-13: an error is one line and says what is missing",
        "error: say what to count: conn, ws, gateway, online or routes\r\n\r\n",
    ),
}
"""
What is answered otherwise than recorded: line, reason and answer. Beside these only the
times of the greeting differ.
"""


class Device(Connection):
    """
    A phone that is connected and never busy.
    """

    connected = True
    peer = "127.0.0.1:50000"


class AdminTestCase(SynchronousTestCase):
    """
    A test with a node that keeps its real parts and opens no port.
    """

    password = ""
    settings: tuple[str, ...] = ()
    log_level = "debug"

    def setUp(self) -> None:
        home = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, home)
        self.clock: Any = MemoryReactorClock()
        self.clock.advance(1_800_000_000)
        self.logged: list[dict[str, Any]] = []
        loaded = load_settings(
            None,
            [
                f"mp.home={home}",
                "mp.core.min-heartbeat=10s",
                f'mp.security.private-key="{SAMPLE["rsaPrivateKeyBase64"]}"',
                f'mp.security.public-key="{SAMPLE["rsaPublicKeyBase64"]}"',
                "mp.security.allow-sample-key=true",
                "mp.net.local-ip=127.0.0.1",
                *self.settings,
            ],
            {},
        )
        log = NodeLog(
            self.log_level,
            self.clock,
            self.logged.append,  # type: ignore[arg-type]
        )
        self.node = Node(loaded, self.clock, log=log)
        self.addCleanup(self.node.wheel.stop)
        self.factory = AdminFactory(self.node, self.password)
        self.session, self.transport = self.connect()

    def connect(self) -> tuple[Any, StringTransportWithDisconnection]:
        """
        Open one more session; nothing of its greeting is taken.
        """
        protocol: Any = self.factory.buildProtocol(
            IPv4Address("TCP", "127.0.0.1", 50001)
        )
        transport = StringTransportWithDisconnection()
        transport.protocol = protocol
        protocol.makeConnection(transport)
        return protocol, transport

    def take(self) -> str:
        """
        Take what the session has written since the last time.
        """
        text: str = self.transport.value().decode()
        self.transport.clear()
        return text

    def ask(self, line: str) -> str:
        """
        Type a line and take its answer.
        """
        self.transport.clear()
        self.session.dataReceived(line.encode() + b"\r\n")
        return self.take()

    def bind(self, user_id: str, device_id: str) -> Device:
        """
        Have a phone that is connected and bound.
        """
        device = Device(None, self.clock.seconds())
        device.id = "fb6d8860"
        device.device_id = device_id
        device.os_name, device.client_version = "android", "1.0"
        self.node.connections.add(device)
        self.node.connections.secured(device)
        bound = Deferred.fromCoroutine(self.node.router.bind(device, user_id, None))
        self.assertTrue(self.successResultOf(bound))
        self.node.events.flush()
        return device

    def log_text(self) -> str:
        """
        Everything that was logged, formats and fields.
        """
        return "\n".join(
            f"{event['log_format']} {event.get('line')}" for event in self.logged
        )


class TranscriptTests(AdminTestCase):
    """
    The conversation that was recorded from the original.
    """

    def test_recorded_conversation(self) -> None:
        """Every recorded line gets the recorded answer, byte for byte."""
        self.bind("user-adm", "device-adm")
        # The recorded list held another user, left there by an earlier recording.
        self.node.events.post(UserOnline("somebody", "00000000", "other", 1))
        self.node.events.flush()
        frames = [dict(frame) for frame in FRAMES]
        self.assertRegex(frames[0]["text"], GREETING)
        self.assertRegex(self.take(), f"^{GREETING.pattern}$")
        compared = 0
        for line, answer in zip(frames[1::2], frames[2::2], strict=True):
            self.assertEqual((line["direction"], answer["direction"]), ("c2s", "s2c"))
            wanted = answer["text"]
            if line["text"] in REPAIRED:
                _, wanted = REPAIRED[line["text"]]
            self.session.dataReceived(line["text"].encode())
            self.assertEqual(
                self.take() + ("" if self.transport.connected else "<closed>"),
                wanted,
                line,
            )
            compared += 1
        self.assertEqual(compared, 18)
        self.assertFalse(self.transport.connected)


class ParseTests(SynchronousTestCase):
    """
    How a line is read.
    """

    def test_forms_of_one_command(self) -> None:
        """Blanks, tabs, a colon and capitals make no difference."""
        for line in ("count conn", " count \t conn ", "count:conn", "COUNT: conn"):
            self.assertEqual(parse(line), ("count", ["conn"]), line)

    def test_blank_line_is_help(self) -> None:
        """A line of blanks is answered like an empty one."""
        self.assertEqual(parse("   "), ("help", []))

    def test_colons_of_arguments_stay(self) -> None:
        """Only the first colon of the first word ends the command."""
        self.assertEqual(parse("route:a:b c:d"), ("route", ["a:b", "c:d"]))

    def test_more_words_are_kept(self) -> None:
        """Words behind the second are further arguments."""
        self.assertEqual(
            parse("push u1 hello there"), ("push", ["u1", "hello", "there"])
        )


class CommandTests(AdminTestCase):
    """
    What the recording does not show.
    """

    settings = (
        'mp.net.admin-server-password="hush hush"',
        'mp.http.dns-mapping={"a.example":["10.0.0.1:80", "10.0.0.2:80"]}',
    )

    def test_counts_without_connections(self) -> None:
        """Every count of an idle node is zero."""
        for what in ("conn", "ws", "gateway", "routes", "online"):
            self.assertEqual(self.ask(f"count {what}"), "0\r\n\r\n", what)

    def test_count_routes(self) -> None:
        """One bound phone is one route."""
        self.bind("u1", "d1")
        self.assertEqual(self.ask("count routes"), "1\r\n\r\n")

    def test_offline_route_is_listed(self) -> None:
        """A user who has left is listed without a connection."""
        device = self.bind("u1", "d1")
        self.successResultOf(Deferred.fromCoroutine(self.node.router.unbind(device)))
        (route,) = json.loads(self.ask("route u1"))
        self.assertEqual((route["online"], route["offline"]), (False, True))
        self.assertNotIn("connId", route["routeValue"])

    def test_commands_of_later_versions(self) -> None:
        """What help lists and this version lacks is said to be unsupported."""
        for line in ("restart", "monitor"):
            self.assertEqual(self.ask(line), "unsupported option\r\n\r\n", line)

    def test_more_help(self) -> None:
        """Commands that the original does not have are listed on demand."""
        self.assertNotIn("broadcast", self.ask("help"))
        for command in ("rcs", "flow", "broadcast"):
            self.assertIn(f"\r\n{command}:", self.ask("help all"))

    def test_registered_nodes(self) -> None:
        """The registry's nodes are shown as they stand there, one a line."""
        for port in (3000, 3100):
            self.node.registry.register(
                ServiceNode("/cluster/cs", "10.0.0.5", port, {"weight": 1}, str(port))
            )
        self.assertEqual(
            self.ask("zk cs"),
            '{"attrs":{"weight":1},"host":"10.0.0.5","port":3100}\n'
            '{"attrs":{"weight":1},"host":"10.0.0.5","port":3000}\r\n\r\n',
        )
        self.assertEqual(self.ask("zk gs"), "\r\n\r\n")
        self.assertIn("error: say which nodes: cs, ws, gs, dns", self.ask("zk"))

    def test_off_the_list(self) -> None:
        """A node can be taken off the list of new devices, and put back."""
        self.ask("rcs on")
        self.assertIn('"port"', self.ask("zk cs"))
        self.assertEqual(self.ask("rcs"), "removeAndClose success.\r\n\r\n")
        self.assertEqual(self.ask("zk cs"), "\r\n\r\n")

    def test_push(self) -> None:
        """A test push says how it ended, with its milestones."""
        answer = self.ask("push nobody hello")
        self.assertTrue(answer.startswith("offline push-center-"))
        self.assertIn("error: say whom and what", self.ask("push u1"))

    def test_limits(self) -> None:
        """Push limits are shown, and changed while the node runs."""
        self.assertIn("global 5000 per 1 s", self.ask("flow"))
        self.assertIn("global 70 per 1 s", self.ask("flow global 70"))
        self.assertIn("broadcast 80 per 1 s", self.ask("flow broadcast 80"))
        self.assertEqual(self.node.flow.limit, 70)
        for line in ("flow global", "flow global 0", "flow global x", "flow x 1"):
            self.assertTrue(self.ask(line).startswith("error: "), line)

    def test_broadcasts(self) -> None:
        """Broadcasts under way are listed, and can be cancelled."""
        listener = FakeListener()
        self.bind("u1", "d1")
        self.node.centre.push(
            PushRequest(None, 0, 0, b"x", "t1", None, None, 0, listener)
        )
        self.assertTrue(self.ask("broadcast").startswith('t1 {"online": 1'))
        self.assertEqual(self.ask("broadcast cancel t1"), "1 cancelled\r\n\r\n")
        self.assertEqual(self.ask("broadcast"), "\r\n\r\n")
        self.assertEqual(len(listener.finished), 1)

    def test_shutdown_ends_the_process(self) -> None:
        """After its answer the reactor is told to stop."""
        self.assertEqual(self.ask("shutdown"), "try close connect server...\r\n\r\n")
        self.assertFalse(self.clock.hasStopped)
        self.clock.advance(0)
        self.assertTrue(self.clock.hasStopped)

    def test_profile_without_argument(self) -> None:
        """No argument, like 0, means off."""
        self.ask("profile 1")
        self.assertTrue(self.factory.console.profiling)
        self.assertEqual(self.ask("profile"), "Profiler disabled\r\n\r\n")
        self.assertFalse(self.factory.console.profiling)

    def test_whole_configuration_hides_secrets(self) -> None:
        """All of mp is shown as JSON, neither key nor password among it."""
        text = self.ask("conf")
        tree = json.loads(text)
        self.assertEqual(list(tree), ["mp"])
        self.assertEqual(tree["mp"]["core"]["max-packet-size"], "10k")
        self.assertTrue(text.startswith('{\n    "mp": {\n        "'))
        self.assertNotIn("hush", text)
        self.assertNotIn(SAMPLE["rsaPrivateKeyBase64"], text)

    def test_one_secret_is_hidden(self) -> None:
        """Asking for a secret by name shows no more."""
        for path in ("mp.net.admin-server-password", "mp.security.private-key"):
            self.assertEqual(self.ask(f"conf {path}"), "******\r\n\r\n", path)

    def test_objects_and_lists_in_the_way_of_java(self) -> None:
        """Parts of the tree look as in the original."""
        self.assertEqual(
            self.ask("conf mp.http.dns-mapping"),
            "{a.example=[10.0.0.1:80, 10.0.0.2:80]}\r\n\r\n",
        )
        self.assertEqual(
            self.ask('conf mp.http.dns-mapping."a.example"'),
            "[10.0.0.1:80, 10.0.0.2:80]\r\n\r\n",
        )

    def test_truth_and_numbers(self) -> None:
        """Other values are written as in a file."""
        self.assertEqual(self.ask("conf mp.http.proxy-enabled"), "false\r\n\r\n")
        self.assertEqual(self.ask("conf mp.core.max-hb-timeout-times"), "2\r\n\r\n")

    def test_empty_value(self) -> None:
        """An empty text is an empty answer."""
        self.assertEqual(self.ask("conf mp.redis.password"), "\r\n\r\n")

    def test_below_a_value_is_nothing(self) -> None:
        """A path that goes through a value finds nothing."""
        self.assertEqual(
            self.ask("conf mp.log-level.x"),
            "key [mp.log-level.x] not find in config\r\n\r\n",
        )

    def test_other_letters(self) -> None:
        """Text is UTF-8 both ways."""
        self.assertEqual(self.ask("route 用户"), "user [用户] offline now.\r\n\r\n")

    def test_undecodable_bytes(self) -> None:
        """Bytes that are no UTF-8 are replaced."""
        self.transport.clear()
        self.session.dataReceived(b"route \xff\n")
        self.assertEqual(self.take(), "user [\ufffd] offline now.\r\n\r\n")


class WaitingTests(AdminTestCase):
    """
    Commands that the shared store keeps waiting, or that fail.
    """

    def delay_store(self) -> Deferred[int]:
        """
        Have the store answer C{count online} when the test says so.
        """
        waiting: Deferred[int] = Deferred()
        self.patch(self.node.cache, "zcard", lambda key: waiting)
        self.take()
        return waiting

    def test_answers_keep_their_order(self) -> None:
        """A quick command behind a slow one is answered after it."""
        waiting = self.delay_store()
        self.session.dataReceived(b"count online\ncount conn\n")
        self.assertEqual(self.take(), "")
        self.assertEqual(self.transport.producerState, "paused")
        waiting.callback(7)
        self.assertEqual(self.take(), "7\r\n\r\n0\r\n\r\n")
        self.assertEqual(self.transport.producerState, "producing")

    def test_store_that_does_not_answer(self) -> None:
        """After a while the operator is told, and can go on."""
        self.delay_store()
        self.session.dataReceived(b"count online\ncount conn\n")
        self.clock.advance(ANSWER_SECONDS)
        self.assertEqual(self.take(), "error: no answer within 10 s\r\n\r\n0\r\n\r\n")

    def test_store_that_is_down(self) -> None:
        """A lost dependency is one line, and the session goes on."""
        waiting = self.delay_store()
        self.session.dataReceived(b"count online\n")
        waiting.errback(Unavailable("the store is\ndown"))
        self.assertEqual(self.take(), "error: the store is down\r\n\r\n")
        self.assertEqual(self.ask("count conn"), "0\r\n\r\n")

    def test_bug_goes_to_the_log(self) -> None:
        """The operator sees one line, the log has the trace."""
        waiting = self.delay_store()
        self.session.dataReceived(b"count online\n")
        waiting.errback(ZeroDivisionError("by zero"))
        self.assertEqual(self.take(), "error: by zero\r\n\r\n")
        (event,) = [event for event in self.logged if "log_failure" in event]
        self.assertIs(event["log_failure"].type, ZeroDivisionError)

    def test_peer_that_leaves_meanwhile(self) -> None:
        """A session that ends while its command waits leaves nothing behind."""
        waiting = self.delay_store()
        cancelled: list[Any] = []
        waiting.addErrback(cancelled.append)
        self.session.dataReceived(b"count online\n")
        self.transport.loseConnection()
        self.assertEqual(len(cancelled), 1)
        self.assertEqual(self.take(), "")
        self.assertEqual(self.factory.sessions, [])

    def test_peer_that_does_not_read(self) -> None:
        """While answers pile up no more commands are done."""
        self.take()
        self.session.pauseProducing()
        self.session.dataReceived(b"count conn\n")
        self.assertEqual(self.take(), "")
        self.session.resumeProducing()
        self.assertEqual(self.take(), "0\r\n\r\n")

    def test_peer_that_reads_again_while_a_command_waits(self) -> None:
        """The waiting command still goes first."""
        waiting = self.delay_store()
        self.session.dataReceived(b"count online\ncount conn\n")
        self.session.pauseProducing()
        self.session.resumeProducing()
        self.assertEqual(self.take(), "")
        waiting.callback(1)
        self.assertEqual(self.take(), "1\r\n\r\n0\r\n\r\n")


class LineTests(AdminTestCase):
    """
    Lines as bytes.
    """

    def test_byte_by_byte(self) -> None:
        """A slow typist is understood."""
        self.take()
        for byte in b"count conn\r\n":
            self.session.dataReceived(bytes((byte,)))
        self.assertEqual(self.take(), "0\r\n\r\n")

    def test_longest_line(self) -> None:
        """A line of the greatest length is a command, whatever ends it."""
        for end in ("", "\r"):
            self.transport.clear()
            line = "x" * MAX_LINE + end + "\n"
            self.session.dataReceived(line.encode())
            self.assertEqual(self.take(), "unsupported option\r\n\r\n")

    def test_line_too_long(self) -> None:
        """A longer line is dropped without an answer; the next one is served."""
        for end in (b"\n", b"\r\n"):
            self.transport.clear()
            self.session.dataReceived(b"x" * (MAX_LINE + 1) + end + b"count conn\n")
            self.assertEqual(self.take(), "0\r\n\r\n")
            self.assertTrue(self.transport.connected)

    def test_long_line_in_pieces(self) -> None:
        """So is one that arrives bit by bit, and nothing of it is kept meanwhile."""
        self.take()
        for _ in range(20):
            self.session.dataReceived(b"x" * 4000)
        self.assertLess(len(self.session._buffer), 2 * MAX_LINE)
        self.session.dataReceived(b"\ncount conn\ncount ")
        self.assertEqual(self.take(), "0\r\n\r\n")
        self.session.dataReceived(b"routes\n")
        self.assertEqual(self.take(), "0\r\n\r\n")

    def test_nothing_behind_quit(self) -> None:
        """Lines behind quit are not done."""
        self.assertEqual(self.ask("quit now\ncount conn"), "have a good day!\r\n\r\n")
        self.assertFalse(self.transport.connected)


class SessionTests(AdminTestCase):
    """
    How many sessions there are, and for how long.
    """

    def test_hours_running(self) -> None:
        """The greeting counts whole hours since the start."""
        self.clock.advance(2.9 * 3600)
        _, transport = self.connect()
        self.assertIn(b" has running 2(h)\r\n", transport.value())

    def test_idle_session_ends(self) -> None:
        """After ten minutes without a line a session is closed."""
        self.clock.advance(IDLE_SECONDS - 1)
        self.ask("count conn")
        self.session.dataReceived(b"a letter is no line")
        self.clock.advance(IDLE_SECONDS - 1)
        self.assertTrue(self.transport.connected)
        self.clock.advance(1)
        self.assertFalse(self.transport.connected)

    def fill(self) -> list[tuple[Any, StringTransportWithDisconnection]]:
        """
        Have as many sessions as there may be, each a second younger than the last.
        """
        sessions = [(self.session, self.transport)]
        while len(sessions) < MAX_SESSIONS:
            self.clock.advance(1)
            sessions.append(self.connect())
        self.clock.advance(1)
        return sessions

    def test_one_session_more(self) -> None:
        """The eleventh is let in; the one idle for longest is told so and ends."""
        sessions = self.fill()
        self.ask("count conn")
        self.clock.advance(1)
        idle = sessions[1][1]
        idle.clear()
        self.session, self.transport = self.connect()
        self.assertEqual(
            idle.value(),
            b"error: 10 sessions are open, this one ended for one more\r\n\r\n",
        )
        self.assertFalse(idle.connected)
        self.assertEqual(self.ask("count conn"), "0\r\n\r\n")
        others = [transport for _, transport in sessions if transport is not idle]
        self.assertTrue(all(transport.connected for transport in others))

    def test_room_for_one_more(self) -> None:
        """When one has ended the next costs nobody a place."""
        sessions = self.fill()
        self.ask("quit")
        self.connect()
        self.assertEqual(
            [transport.connected for _, transport in sessions],
            [False] + [True] * (MAX_SESSIONS - 1),
        )

    def test_displacing_is_logged(self) -> None:
        """The log says that sessions were short."""
        self.fill()
        self.connect()
        self.assertIn("sessions are open, that of {peer} ended", self.log_text())

    def test_peers_that_take_no_goodbye_for_others(self) -> None:
        """However many are displaced, few of those that do not read are kept."""
        aborted: list[StringTransportWithDisconnection] = []
        self.patch(StringTransportWithDisconnection, "loseConnection", lambda _: None)

        def abort(transport: StringTransportWithDisconnection) -> None:
            aborted.append(transport)
            transport.connected = False
            transport.protocol.connectionLost(Failure(ConnectionAborted()))

        self.patch(StringTransportWithDisconnection, "abortConnection", abort)
        opened = [self.transport] + [self.connect()[1] for _ in range(99)]
        self.assertLessEqual(len(self.factory.sessions), 2 * MAX_SESSIONS)
        self.assertEqual(aborted, opened[: 100 - 2 * MAX_SESSIONS])

    def test_stop_ends_sessions(self) -> None:
        """When the port closes no session and no timer is left."""
        self.factory.doStart()
        self.factory.doStop()
        self.assertFalse(self.transport.connected)
        self.assertEqual(self.factory.sessions, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_peer_that_takes_no_goodbye(self) -> None:
        """A peer that does not take the last answer is cut off in the end."""
        closing: list[bool] = []
        self.patch(self.transport, "loseConnection", lambda: closing.append(True))
        aborted: list[bool] = []
        self.patch(self.transport, "abortConnection", lambda: aborted.append(True))
        self.ask("quit")
        self.assertEqual((closing, aborted), ([True], []))
        self.clock.advance(60)
        self.assertEqual((closing, aborted), ([True], [True]))


class AuditTests(AdminTestCase):
    """
    What the log says of a session, at the level of the default configuration.
    """

    log_level = "warn"

    def test_commands_are_logged(self) -> None:
        """Each line is in the general log, whatever its level."""
        self.ask("count conn")
        (event,) = [event for event in self.logged if "line" in event]
        self.assertEqual(event["log_format"], "receive admin command={line}")
        self.assertEqual(event["log_namespace"], "mpush")
        self.assertEqual(event["log_level"].name, "info")
        self.assertEqual(event["line"], "count conn")

    def test_lines_cannot_be_forged(self) -> None:
        """Control characters of a command cannot fake a line of the log."""
        self.ask("count conn\rfake \x1b[2J")
        self.assertIn(r"count conn\rfake \x1b[2J", self.log_text())

    def test_exposed_console_is_warned_about(self) -> None:
        """Every address and no password is worth a warning."""
        for address, warned in (
            ("", True),
            ("0.0.0.0", True),
            ("127.0.0.1", False),
            ("::1", False),
            ("localhost", False),
        ):
            self.logged.clear()
            factory = AdminFactory(self.node, "", address)
            factory.doStart()
            self.assertEqual("no password" in self.log_text(), warned, address)

    def test_password_needs_no_warning(self) -> None:
        """With a password any address will do."""
        AdminFactory(self.node, "secret", "").doStart()
        self.assertNotIn("no password", self.log_text())


class PasswordTests(AdminTestCase):
    """
    A console that asks for a password.
    """

    password = "open sesame"

    def test_right_password(self) -> None:
        """Behind the right password commands are done."""
        self.assertEqual(self.ask("auth open sesame"), "authenticated\r\n\r\n")
        self.assertEqual(self.ask("count conn"), "0\r\n\r\n")

    def test_colon(self) -> None:
        """The form with a colon is accepted here too."""
        self.assertEqual(self.ask("AUTH:open sesame"), "authenticated\r\n\r\n")

    def test_refusals(self) -> None:
        """A wrong password, none, or a command first: refused after a pause."""
        for line in ("auth open", "auth", "count conn", "open sesame", ""):
            self.session, self.transport = self.connect()
            self.assertEqual(self.ask(f"{line}\nauth open sesame\ncount conn"), "")
            self.clock.advance(REFUSAL_SECONDS)
            self.assertEqual(
                self.take(), "error: the first line must be auth <password>\r\n\r\n"
            )
            self.assertFalse(self.transport.connected, line)

    def test_nothing_is_done_before(self) -> None:
        """Who has no password cannot stop the node."""
        self.ask("shutdown")
        self.clock.advance(REFUSAL_SECONDS)
        self.assertFalse(self.clock.hasStopped)

    def test_password_is_not_logged(self) -> None:
        """The log shows that somebody came in, and not with what."""
        self.ask("auth open sesame")
        self.ask("auth open sesame")
        self.assertEqual(self.log_text().count("auth ******"), 2)
        self.assertNotIn("sesame", self.log_text())

    def test_peer_that_leaves_before_the_refusal(self) -> None:
        """Nothing is left waiting for it."""
        self.ask("auth wrong")
        self.transport.loseConnection()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_silent_peer(self) -> None:
        """Who gives no password at all holds no session for long."""
        self.clock.advance(AUTH_SECONDS)
        self.assertFalse(self.transport.connected)

    def test_silent_peers_do_not_keep_the_operator_out(self) -> None:
        """Who has the password gets in, however many say nothing; the oldest goes."""
        silent = [self.transport] + [self.connect()[1] for _ in range(MAX_SESSIONS - 1)]
        self.session, self.transport = self.connect()
        self.assertEqual(self.ask("auth open sesame"), "authenticated\r\n\r\n")
        self.assertEqual(
            [transport.connected for transport in silent],
            [False] + [True] * (MAX_SESSIONS - 1),
        )

    def test_silent_peers_do_not_displace_the_operator(self) -> None:
        """Who has given the password stays, however long ago that was."""
        self.ask("auth open sesame")
        self.clock.advance(IDLE_SECONDS / 2)
        for _ in range(3 * MAX_SESSIONS):
            self.connect()
        self.assertEqual(self.ask("count conn"), "0\r\n\r\n")
        self.assertEqual(len(self.factory.sessions), MAX_SESSIONS)

    def test_displaced_while_the_refusal_waits(self) -> None:
        """Who guesses and is displaced meanwhile is told one thing, not two."""
        self.ask("auth wrong")
        self.patch(self.transport, "loseConnection", lambda: None)
        for _ in range(MAX_SESSIONS):
            self.connect()
        self.clock.advance(REFUSAL_SECONDS)
        self.assertEqual(
            self.take(),
            "error: 10 sessions are open, this one ended for one more\r\n\r\n",
        )
