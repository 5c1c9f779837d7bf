"""
Tests for L{mpush_tw.core.handlers.web_handshake} (server 10.4).
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.connection import Connection
from mpush_tw.core.handlers import Dispatcher
from mpush_tw.core.handlers.handshake import MAX_FIELD
from mpush_tw.core.handlers.web_handshake import WebHandshakeHandler
from mpush_tw.interfaces import UserOffline
from mpush_tw.protocol.commands import Command, ErrorCode
from mpush_tw.protocol.messages import (
    Error,
    FastConnect,
    FastConnectOk,
    Handshake,
    HandshakeOk,
)
from mpush_tw.protocol.sessions import SessionRecord
from tests.core.fakes import Core, FakeConnection, start

_HELLO = Handshake("web-1", "web", "Mozilla/5.0 (X11)", "1.0")
_NOTHING = HandshakeOk(b"", 0, "", 0)
_REPEATED = Error.of(Command.HANDSHAKE, ErrorCode.REPEAT_HANDSHAKE)
_INVALID = Error(Command.HANDSHAKE, 0, "Param invalid")


class WebHandshakeTestCase(SynchronousTestCase):
    """
    The two handlers behind a dispatcher; heartbeats from 10 to 180 seconds, and a look
    for signs of life every 50 seconds.
    """

    check_seconds = 50.0

    def setUp(self) -> None:
        self.core = Core()
        self.core.clock.advance(1_700_000_000)
        self.secured: list[Connection] = []
        self.handler = WebHandshakeHandler(
            self.core.sessions,
            self.core.router,
            self.core.clock,
            self.core.log,
            self.core.metrics,
            10.0,
            180.0,
            self.secured.append,
            self.check_seconds,
        )
        self.table = Dispatcher(self.core.log, self.core.metrics.conn)
        self.table.register(Command.HANDSHAKE, self.handler.handshake_received)
        self.table.register(Command.FAST_CONNECT, self.handler.fast_connect_received)
        self.page = FakeConnection(None, None)

    def shake_hands(self, session_id: int = 1, **changes: Any) -> None:
        """
        Receive a HANDSHAKE that differs from the usual one in some fields.
        """
        self.table.dispatch(
            self.page, Command.HANDSHAKE, session_id, 0, _HELLO._replace(**changes)
        )

    def session(self) -> HandshakeOk:
        """
        Receive a HANDSHAKE that asks for a session, and give the answer.
        """
        self.shake_hands(max_heartbeat=60000)
        answer = self.page.answers[-1]
        assert isinstance(answer, HandshakeOk), answer
        return answer

    def stored(self, ticket: str) -> SessionRecord | None:
        """
        The record that the store has under a session id.
        """
        found = start(self.core.sessions.find(ticket))
        return self.successResultOf(found)  # type: ignore[no-any-return]


class WebHandshakeTests(WebHandshakeTestCase):
    """
    HANDSHAKE.
    """

    def test_page_of_the_original(self) -> None:
        """
        It gets an answer without anything in it, and no session is stored.
        """
        self.shake_hands(7)
        self.assertEqual(self.page.sent, [("answer", 7, _NOTHING)])
        self.assertEqual(self.core.cache.commands, [])

    def test_context(self) -> None:
        """
        The connection knows whose it is; it has no key.
        """
        self.shake_hands()
        page = self.page
        self.assertEqual(
            (page.device_id, page.os_name, page.os_version, page.client_version),
            ("web-1", "web", "Mozilla/5.0 (X11)", "1.0"),
        )
        self.assertIs(page.cipher, None)
        self.assertEqual(self.secured, [page])

    def test_checked(self) -> None:
        """
        Signs of life are looked for at the door's pace, whatever was agreed.
        """
        self.session()
        self.assertEqual(self.page.heartbeat, 50)

    def test_only_a_device_id(self) -> None:
        """
        Nothing but the device id is required.
        """
        self.shake_hands(os_name=None, os_version=None, client_version=None)
        self.assertEqual(self.page.answers, [_NOTHING])
        self.assertEqual(self.page.device_id, "web-1")

    def test_no_device_id(self) -> None:
        """
        Without one, or with one that is too long, the connection ends.
        """
        for device_id in (None, "x" * (MAX_FIELD + 1)):
            self.page = FakeConnection(None, None)
            self.shake_hands(device_id=device_id)
            self.assertEqual(self.page.answers, [_INVALID])
            self.assertEqual(self.page.ended, "handshake-invalid")

    def test_repeated(self) -> None:
        """
        A second HANDSHAKE of the device is answered with 102, an exact repetition too,
        and the connection stays.
        """
        self.shake_hands()
        self.shake_hands()
        self.shake_hands(2, os_name="h5")
        self.assertEqual(self.page.answers, [_NOTHING, _REPEATED, _REPEATED])
        self.assertIs(self.page.ended, None)

    def test_other_device(self) -> None:
        """
        Another device takes the connection over, without the first one's user (S-11).
        """
        self.shake_hands()
        binding = start(self.core.router.bind(self.page, "user", None))
        self.assertTrue(self.successResultOf(binding))
        self.shake_hands(2, device_id="web-2")
        self.core.clock.advance(0)
        self.assertEqual(self.page.answers, [_NOTHING, _NOTHING])
        self.assertEqual((self.page.device_id, self.page.user_id), ("web-2", None))
        self.assertIsInstance(self.core.posted[-1], UserOffline)

    def test_gone(self) -> None:
        """
        A page that has left meanwhile is not shaken hands with.
        """
        self.page.broken = True
        self.shake_hands(max_heartbeat=1)
        self.assertIs(self.page.device_id, None)
        self.assertEqual(self.core.cache.commands, [])
        self.assertEqual(self.core.metrics.handshakes, {"failure": 1})

    def test_counted(self) -> None:
        """
        Handshakes of pages are counted like those of devices.
        """
        self.shake_hands()
        self.shake_hands()
        self.assertEqual(self.core.metrics.handshakes, {"success": 1, "repeat": 1})


class SessionTests(WebHandshakeTestCase):
    """
    Sessions that a page can take up again.
    """

    def test_answer(self) -> None:
        """
        Who asks is told the agreed heartbeat, a session id and when it expires.
        """
        answer = self.session()
        self.assertEqual(answer.server_key, b"")
        self.assertEqual(answer.heartbeat, 60000)
        self.assertRegex(answer.session_id, "^[0-9a-f]{32}$")
        self.assertEqual(answer.expire_time, (1_700_000_000 + 86400) * 1000)

    def test_agreed(self) -> None:
        """
        The heartbeat is within the server's bounds.
        """
        for asked, agreed in ((1, 10_000), (2**31 - 1, 180_000)):
            self.page = FakeConnection(None, None)
            self.shake_hands(max_heartbeat=asked)
            answer = self.page.answers[0]
            assert isinstance(answer, HandshakeOk)
            self.assertEqual(answer.heartbeat, agreed)

    def test_stored(self) -> None:
        """
        The record is one that every node can read.
        """
        record = self.stored(self.session().session_id)
        assert record is not None
        self.assertEqual(
            record[:4], ("web", "Mozilla/5.0 (X11)", "1.0", "web-1"), record
        )

    def test_taken_up(self) -> None:
        """
        FAST_CONNECT restores what the page said of itself; there is still no key.
        """
        ticket = self.session().session_id
        again = FakeConnection(None, None)
        self.table.dispatch(
            again, Command.FAST_CONNECT, 4, 0, FastConnect(ticket, "web-1", 0, 20_000)
        )
        self.assertEqual(again.sent, [("answer", 4, FastConnectOk(20_000))])
        self.assertEqual((again.device_id, again.os_name), ("web-1", "web"))
        self.assertEqual((again.cipher, again.heartbeat), (None, 50))
        self.assertEqual(self.secured, [self.page, again])

    def test_refused(self) -> None:
        """
        A session that is unknown, or another device's, is refused; the page may shake
        hands on the same connection.
        """
        ticket = self.session().session_id
        self.page = FakeConnection(None, None)
        for session_id, device_id in ((ticket, "web-2"), ("0" * 32, "web-1")):
            self.table.dispatch(
                self.page,
                Command.FAST_CONNECT,
                4,
                0,
                FastConnect(session_id, device_id),
            )
        self.assertEqual(
            self.page.answers,
            [
                Error.of(Command.FAST_CONNECT, ErrorCode.INVALID_DEVICE),
                Error.of(Command.FAST_CONNECT, ErrorCode.SESSION_EXPIRED),
            ],
        )
        self.shake_hands()
        self.assertEqual(self.page.answers[-1], _NOTHING)
        self.assertIs(self.page.ended, None)


class UncheckedTests(WebHandshakeTestCase):
    """
    An operator who wants no pings.
    """

    check_seconds = 0.0

    def test_never(self) -> None:
        """
        The heartbeat is the one of the original: for ever, as far as 32 bits go.
        """
        self.shake_hands()
        self.assertIn("heartbeat=2147483647", self.page.context())
