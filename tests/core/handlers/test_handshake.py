"""
Tests for L{mpush_tw.core.handlers.handshake} (server 8.2, 8.3, 5.3).
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.connection import Connection
from mpush_tw.core.handlers import Dispatcher
from mpush_tw.core.handlers import handshake as handshake_module
from mpush_tw.core.handlers.handshake import MAX_FIELD, HandshakeHandler
from mpush_tw.errors import ProtocolError
from mpush_tw.interfaces import UserOffline
from mpush_tw.protocol.commands import Command, ErrorCode
from mpush_tw.protocol.crypto import AesCipher, mix_session_key
from mpush_tw.protocol.messages import (
    Error,
    FastConnect,
    FastConnectOk,
    Handshake,
    HandshakeOk,
)
from mpush_tw.protocol.sessions import SessionRecord
from tests.core.fakes import Core, FakeConnection, start

_KEY = bytes(range(16))
_IV = bytes(range(16, 32))
_HELLO = Handshake("d1", "android", "13", "2.1", _IV, _KEY, 1000, 60000, 0)
_REPEATED = Error.of(Command.HANDSHAKE, ErrorCode.REPEAT_HANDSHAKE)
_FAILED = Error.of(Command.HANDSHAKE, ErrorCode.DISPATCH_ERROR)
_INVALID = Error(Command.HANDSHAKE, 0, "Param invalid")
_EXPIRED = Error.of(Command.FAST_CONNECT, ErrorCode.SESSION_EXPIRED)
_OTHER_DEVICE = Error.of(Command.FAST_CONNECT, ErrorCode.INVALID_DEVICE)


class HandshakeTestCase(SynchronousTestCase):
    """
    The two handlers behind a dispatcher; heartbeats from 10 to 180 seconds.
    """

    def setUp(self) -> None:
        self.core = Core()
        self.core.clock.advance(1_700_000_000)
        self.secured: list[Connection] = []
        self.handler = HandshakeHandler(
            self.core.sessions,
            self.core.router,
            self.core.clock,
            self.core.log,
            self.core.metrics,
            10.0,
            180.0,
            self.secured.append,
        )
        self.table = Dispatcher(self.core.log, self.core.metrics.conn)
        self.table.register(Command.HANDSHAKE, self.handler.handshake_received)
        self.table.register(Command.FAST_CONNECT, self.handler.fast_connect_received)
        self.device = FakeConnection(None, None)

    def shake_hands(self, session_id: int = 1, **changes: Any) -> None:
        """
        Receive a HANDSHAKE that differs from the usual one in some fields.
        """
        self.table.dispatch(
            self.device, Command.HANDSHAKE, session_id, 0, _HELLO._replace(**changes)
        )

    def fast_connect(
        self,
        ticket: str | None,
        device_id: str | None = "d1",
        max_heartbeat: int = 60000,
        device: FakeConnection | None = None,
    ) -> Deferred[None] | None:
        """
        Receive a FAST_CONNECT with number 4.
        """
        return self.table.dispatch(
            device or self.device,
            Command.FAST_CONNECT,
            4,
            0,
            FastConnect(ticket, device_id, 0, max_heartbeat),
        )

    def answer(self) -> HandshakeOk:
        """
        The HANDSHAKE answer that the device got last.
        """
        answer = self.device.answers[-1]
        assert isinstance(answer, HandshakeOk), answer
        return answer

    def bind(self, user_id: str) -> None:
        """
        Bind a user on the device's connection.
        """
        binding = start(self.core.router.bind(self.device, user_id, None))
        self.assertTrue(self.successResultOf(binding))
        self.core.clock.advance(0)
        self.core.posted.clear()

    def stored(self, ticket: str) -> SessionRecord | None:
        """
        The record that the store has under a session id.
        """
        found = start(self.core.sessions.find(ticket))
        return self.successResultOf(found)  # type: ignore[no-any-return]

    def cipher(self) -> AesCipher:
        """
        The cipher in force on the device's connection.
        """
        cipher = self.device.cipher
        assert isinstance(cipher, AesCipher)
        return cipher

    def assertAnswered(self, *answers: object, ended: str | None = None) -> None:
        """
        The device got these answers, and its connection is closed or not.
        """
        self.assertEqual(self.device.answers, list(answers))
        self.assertEqual(self.device.ended, ended)


class HandshakeTests(HandshakeTestCase):
    """
    HANDSHAKE.
    """

    def test_answer(self) -> None:
        """
        The answer has the request's number, half a key, the agreed heartbeat, a session
        id and when that expires.
        """
        self.shake_hands(session_id=77)
        self.assertEqual(self.device.sent[0][:2], ("answer", 77))
        answer = self.answer()
        self.assertEqual(len(answer.server_key), 16)
        self.assertEqual(answer.heartbeat, 60000)
        self.assertRegex(answer.session_id, "^[0-9a-f]{32}$")
        self.assertEqual(answer.expire_time, (1_700_000_000 + 86400) * 1000)

    def test_sealed_with_the_client_key(self) -> None:
        """
        The answer is encrypted with the client's half alone (server 7.1).
        """
        self.shake_hands()
        cipher = self.device.ciphers[0]
        assert isinstance(cipher, AesCipher)
        self.assertEqual((cipher.key, cipher.iv), (_KEY, _IV))

    def test_session_key(self) -> None:
        """
        Everything after the answer is encrypted with both halves mixed.
        """
        self.shake_hands()
        self.assertEqual(
            self.cipher().key, mix_session_key(_KEY, self.answer().server_key)
        )
        self.assertEqual(self.cipher().iv, _IV)

    def test_context(self) -> None:
        """
        The connection knows its device.
        """
        self.shake_hands()
        self.assertEqual(
            (
                self.device.device_id,
                self.device.os_name,
                self.device.os_version,
                self.device.client_version,
                self.device.heartbeat,
            ),
            ("d1", "android", "13", "2.1", 60.0),
        )

    def test_secured(self) -> None:
        """
        The registry is told that the handshake is done.
        """
        self.shake_hands()
        self.assertEqual(self.secured, [self.device])

    def test_keys_differ(self) -> None:
        """
        No two handshakes get the same key half or session id.
        """
        self.shake_hands()
        first = self.answer()
        self.device = FakeConnection(None, None)
        self.shake_hands()
        self.assertNotEqual(first.server_key, self.answer().server_key)
        self.assertNotEqual(first.session_id, self.answer().session_id)

    def test_nameless_system(self) -> None:
        """
        A device that names no system and no version is served (S-7).
        """
        self.shake_hands(os_name=None, os_version=None, client_version=None)
        self.assertEqual(self.device.device_id, "d1")
        self.assertIsNone(self.device.os_name)

    def test_no_client_key(self) -> None:
        """
        Without a client key there is nothing to mix: ERROR 100, then close.
        """
        self.shake_hands(client_key=None)
        self.assertAnswered(_FAILED, ended="handler-failed")

    def test_short_client_key(self) -> None:
        """
        The same for one that is too short.
        """
        self.shake_hands(client_key=_KEY[:15])
        self.assertAnswered(_FAILED, ended="handler-failed")

    def test_long_client_key(self) -> None:
        """
        One that is too long is invalid, then close.
        """
        self.shake_hands(client_key=_KEY + b"!")
        self.assertAnswered(_INVALID, ended="handshake-invalid")

    def test_no_iv(self) -> None:
        """
        A device without an iv gets ERROR 100, then close.
        """
        self.shake_hands(iv=None)
        self.assertAnswered(_FAILED, ended="handler-failed")

    def test_short_iv(self) -> None:
        """
        An iv of a wrong size is invalid, then close.
        """
        self.shake_hands(iv=_IV[:15])
        self.assertAnswered(_INVALID, ended="handshake-invalid")

    def test_no_device(self) -> None:
        """
        A handshake without a device id is invalid, then close.
        """
        self.shake_hands(device_id=None)
        self.assertAnswered(_INVALID, ended="handshake-invalid")
        self.assertEqual(self.secured, [])

    def test_longest(self) -> None:
        """
        Texts of the greatest length are taken.
        """
        text = "x" * MAX_FIELD
        self.shake_hands(
            device_id=text, os_name=text, os_version=text, client_version=text
        )
        self.assertIsInstance(self.answer(), HandshakeOk)
        self.assertEqual(self.device.device_id, text)

    def test_too_long(self) -> None:
        """
        A longer one is invalid, whichever it is, then close; nothing of it is kept.
        """
        for name in ("device_id", "os_name", "os_version", "client_version"):
            self.device = FakeConnection(None, None)
            changes: dict[str, Any] = {name: "x" * (MAX_FIELD + 1)}
            self.shake_hands(**changes)
            self.assertAnswered(_INVALID, ended="handshake-invalid")
            self.assertIsNone(self.device.device_id, name)
        self.assertEqual(self.secured, [])
        self.assertEqual(self.core.cache.commands, [])
        self.assertEqual(self.core.metrics.handshakes, {"invalid": 4})

    def test_too_long_for_a_log_line(self) -> None:
        """
        The log shows the beginning of what was refused, and none of its line ends.
        """
        self.shake_hands(device_id="x\n" * (MAX_FIELD + 1))
        [event] = [
            event
            for event in self.core.logged
            if str(event["log_format"]).startswith("handshake failure")
        ]
        line = formatEvent(event)
        self.assertNotIn("\n", line)
        self.assertLess(len(line), 1000)

    def test_nothing(self) -> None:
        """
        An empty body gets ERROR 100, then close: the keys come first (server 8.2).
        """
        self.table.dispatch(self.device, Command.HANDSHAKE, 1, 0, b"")
        self.assertAnswered(_FAILED, ended="handler-failed")

    def test_unreadable(self) -> None:
        """
        One that cannot be decrypted gets ERROR 100, then close.
        """
        self.table.dispatch(self.device, Command.HANDSHAKE, 1, 0, ProtocolError("no"))
        self.assertAnswered(_FAILED, ended="handler-failed")

    def test_same_device_again(self) -> None:
        """
        A second handshake of the device gets ERROR 102; the session stays as it is.
        """
        self.shake_hands()
        first, cipher = self.answer(), self.cipher()
        self.shake_hands(2, client_key=bytes(16))
        self.assertAnswered(first, _REPEATED)
        self.assertIs(self.device.cipher, cipher)

    def test_exact_repetition(self) -> None:
        """
        The very same packet again, as old clients resend it, is ignored (DESIGN 5a).
        """
        self.shake_hands()
        self.shake_hands()
        self.assertAnswered(self.answer())

    def test_same_body_other_number(self) -> None:
        """
        Under another number it is no repetition of the packet: ERROR 102.
        """
        self.shake_hands(1)
        first = self.answer()
        self.shake_hands(2)
        self.assertAnswered(first, _REPEATED)

    def test_repetition_of_a_refused_one(self) -> None:
        """
        A repetition counts only when the first one opened a session.
        """
        self.device.broken = True
        self.shake_hands()
        self.device.broken = False
        self.shake_hands()
        self.assertEqual(self.device.device_id, "d1")

    def test_other_device(self) -> None:
        """
        Another device on the same connection gets a session of its own.
        """
        self.shake_hands()
        first = self.answer()
        self.device.client_type = 1
        self.shake_hands(2, device_id="d2", os_name="windows")
        self.assertNotEqual(self.answer().session_id, first.session_id)
        self.assertEqual(self.device.device_id, "d2")
        self.assertEqual(self.device.client_type, 0)
        self.assertIsNone(self.device.ended)

    def test_other_device_on_a_bound_connection(self) -> None:
        """
        The user of the device before leaves first (S-11).
        """
        self.shake_hands()
        self.bind("u")
        self.shake_hands(2, device_id="d2")
        self.assertIsNone(self.device.user_id)
        self.assertEqual(self.device.device_id, "d2")
        self.assertEqual(self.core.local.lookup_all("u"), ())
        self.core.clock.advance(0)
        self.assertEqual(
            self.core.posted, [UserOffline("u", self.device.id, "d1", 1, False)]
        )

    def test_other_device_while_the_store_is_down(self) -> None:
        """
        A store that is down does not keep a device from its handshake: clients would
        stop for good on an ERROR.
        """
        self.shake_hands()
        self.bind("u")
        self.core.cache.down = True
        self.shake_hands(2, device_id="d2")
        self.assertIsInstance(self.device.answers[-1], HandshakeOk)
        self.assertEqual(self.device.device_id, "d2")
        self.assertIsNone(self.device.user_id)

    def test_write_failed(self) -> None:
        """
        When the answer could not be written there is no session.
        """
        self.device.broken = True
        self.shake_hands()
        self.assertFalse(self.device.handshaken)
        self.assertEqual(self.secured, [])
        self.assertEqual(self.core.cache.commands, [])

    def test_passwords_of_the_session_are_not_logged(self) -> None:
        """
        Neither keys nor session ids get into the log (S-39).
        """
        self.shake_hands()
        logged = repr(self.core.logged)
        self.assertNotIn(self.answer().session_id, logged)
        self.shake_hands(3, iv=b"short", device_id="d3")
        logged = repr(self.core.logged)
        for secret in (_KEY, self.cipher().key, _IV):
            self.assertNotIn(repr(secret)[2:-1], logged)


class SharedTextTests(HandshakeTestCase):
    """
    Millions of devices name the same few systems and versions.
    """

    def names(self, os_name: str) -> str:
        """
        Have a new device shake hands.

        @return: The copy of its system's name that is kept.
        """
        self.device = FakeConnection(None, None)
        # Made anew, as every packet's texts are.
        self.shake_hands(os_name="".join(list(os_name)))
        kept = self.device.os_name
        assert kept is not None
        return kept

    def test_one_copy(self) -> None:
        """
        All devices of a system keep one copy of its name.
        """
        self.assertIs(self.names("android"), self.names("android"))

    def test_bounded(self) -> None:
        """
        However many names strangers make up few are remembered, and those that were
        there first are shared still.
        """
        self.patch(handshake_module, "_MAX_SHARED", 6)
        first = self.names("android")
        for number in range(50):
            self.assertEqual(self.names(f"system {number}"), f"system {number}")
        self.assertLessEqual(len(self.handler._texts), 6)
        self.assertIs(self.names("android"), first)

    def test_long(self) -> None:
        """
        Names that are longer than any real one are not remembered at all.
        """
        self.names("android")
        before = len(self.handler._texts)
        self.assertEqual(self.names("x" * 65), "x" * 65)
        self.assertEqual(len(self.handler._texts), before)


class HeartbeatAgreementTests(HandshakeTestCase):
    """
    The heartbeat that both sides agree on (server 5.3).
    """

    def assertAgreed(self, asked: int, agreed: int) -> None:
        """
        A client with this maximum gets this heartbeat, in milliseconds.
        """
        self.shake_hands(max_heartbeat=asked)
        self.assertEqual(self.answer().heartbeat, agreed)
        self.assertEqual(self.device.heartbeat, agreed / 1000)

    def test_between(self) -> None:
        """
        Within the server's bounds the client's maximum counts.
        """
        self.assertAgreed(60000, 60000)

    def test_longer(self) -> None:
        """
        Above them the server's maximum does.
        """
        self.assertAgreed(3_600_000, 180000)

    def test_shorter(self) -> None:
        """
        Below them the server's minimum does.
        """
        self.assertAgreed(1, 10000)

    def test_nonsense(self) -> None:
        """
        Nonsense gets the minimum.
        """
        self.assertAgreed(-5, 10000)

    def test_fast_connect(self) -> None:
        """
        A fast connect agrees in the same way.
        """
        self.shake_hands()
        ticket = self.answer().session_id
        self.device = FakeConnection(None)
        self.fast_connect(ticket, max_heartbeat=3_600_000)
        self.assertAnswered(FastConnectOk(180000))
        self.assertEqual(self.device.heartbeat, 180.0)


class StoredSessionTests(HandshakeTestCase):
    """
    What a handshake leaves for a later FAST_CONNECT (server 9).
    """

    def test_record(self) -> None:
        """
        The record describes the device and holds the session's key.
        """
        self.shake_hands()
        record = self.stored(self.answer().session_id)
        assert record is not None
        self.assertEqual(record[:4], ("android", "13", "2.1", "d1"))
        self.assertEqual(record.cipher.key, self.cipher().key)
        self.assertEqual(record.cipher.iv, _IV)

    def test_expires(self) -> None:
        """
        After its time the record is gone.
        """
        self.shake_hands()
        self.core.clock.advance(86399)
        self.assertIsNotNone(self.stored(self.answer().session_id))
        self.core.clock.advance(2)
        self.assertIsNone(self.stored(self.answer().session_id))

    def test_commas(self) -> None:
        """
        Commas in the description become blanks (S-10).
        """
        self.shake_hands(os_name="web,Mozilla/5.0 (KHTML, like Gecko)")
        record = self.stored(self.answer().session_id)
        assert record is not None
        self.assertEqual(record.os_name, "web Mozilla/5.0 (KHTML  like Gecko)")
        self.assertEqual(self.device.os_name, "web,Mozilla/5.0 (KHTML, like Gecko)")

    def test_comma_in_the_device_id(self) -> None:
        """
        A device id with a comma is served but not stored: its FAST_CONNECT gets 103
        (DESIGN 5a).
        """
        self.shake_hands(device_id="d,1")
        ticket = self.answer().session_id
        self.assertEqual(self.core.cache.commands, [])
        self.device = FakeConnection(None)
        self.fast_connect(ticket, "d,1")
        self.assertAnswered(_EXPIRED)

    def test_store_is_down(self) -> None:
        """
        When the store is down the device is served all the same.
        """
        self.core.cache.down = True
        self.shake_hands()
        self.assertEqual(self.device.device_id, "d1")
        self.assertIsNone(self.device.ended)
        self.assertIn("session not stored", self.core.texts())


class FastConnectTests(HandshakeTestCase):
    """
    FAST_CONNECT.
    """

    def setUp(self) -> None:
        super().setUp()
        self.shake_hands()
        self.ticket = self.answer().session_id
        self.key = self.cipher().key
        self.secured.clear()
        self.device = FakeConnection(None, None)

    def test_answer(self) -> None:
        """
        A known session is answered with the heartbeat, under the request's number.
        """
        self.fast_connect(self.ticket)
        self.assertEqual(self.device.sent, [("answer", 4, FastConnectOk(60000))])

    def test_context(self) -> None:
        """
        The device is back with its key, and without a user.
        """
        self.fast_connect(self.ticket)
        device = self.device
        self.assertEqual(
            (
                device.device_id,
                device.os_name,
                device.os_version,
                device.client_version,
                device.user_id,
            ),
            ("d1", "android", "13", "2.1", None),
        )
        self.assertEqual((self.cipher().key, self.cipher().iv), (self.key, _IV))

    def test_secured(self) -> None:
        """
        The registry is told that the handshake is done.
        """
        self.fast_connect(self.ticket)
        self.assertEqual(self.secured, [self.device])

    def test_any_number_of_times(self) -> None:
        """
        The record is not used up.
        """
        self.fast_connect(self.ticket)
        self.device = FakeConnection(None)
        self.fast_connect(self.ticket)
        self.assertAnswered(FastConnectOk(60000))

    def test_unknown(self) -> None:
        """
        An unknown session gets ERROR 103, and the connection stays for a handshake.
        """
        self.fast_connect("0" * 32)
        self.assertAnswered(_EXPIRED)
        self.assertFalse(self.device.handshaken)
        self.shake_hands()
        self.assertTrue(self.device.handshaken)

    def test_expired(self) -> None:
        """
        So does one whose time is over.
        """
        self.core.clock.advance(86401)
        self.fast_connect(self.ticket)
        self.assertAnswered(_EXPIRED)

    def test_no_session(self) -> None:
        """
        So does a request that names none, and the store is not bothered.
        """
        self.core.cache.commands.clear()
        self.fast_connect(None)
        self.assertAnswered(_EXPIRED)
        self.assertEqual(self.core.cache.commands, [])

    def test_empty(self) -> None:
        """
        So does an empty body.
        """
        self.table.dispatch(self.device, Command.FAST_CONNECT, 4, 0, b"")
        self.assertAnswered(_EXPIRED)

    def test_damaged_record(self) -> None:
        """
        So does a record that cannot be read.
        """
        self.core.cache.set("mp:rs:damaged", "android,13,2.1,d1,1|2|3,4|5|6")
        self.fast_connect("damaged")
        self.assertAnswered(_EXPIRED)

    def test_somebody_elses(self) -> None:
        """
        A session of another device gets ERROR 104, and the connection stays.
        """
        self.fast_connect(self.ticket, "d2")
        self.assertAnswered(_OTHER_DEVICE)
        self.assertFalse(self.device.handshaken)

    def test_nobodys(self) -> None:
        """
        So does a request without a device id.
        """
        self.fast_connect(self.ticket, None)
        self.assertAnswered(_OTHER_DEVICE)

    def test_store_is_down(self) -> None:
        """
        When the store is down it is ERROR 100, then close.
        """
        self.core.cache.down = True
        self.fast_connect(self.ticket)
        self.assertAnswered(
            Error.of(Command.FAST_CONNECT, ErrorCode.DISPATCH_ERROR),
            ended="handler-failed",
        )

    def test_store_takes_its_time(self) -> None:
        """
        While the store is asked the next packet waits.
        """
        self.core.cache.slow = True
        waiting = self.fast_connect(self.ticket)
        assert waiting is not None
        self.assertAnswered()
        self.core.cache.release()
        self.assertAnswered(FastConnectOk(60000))
        self.successResultOf(waiting)

    def test_gone_while_the_store_was_asked(self) -> None:
        """
        A device that left meanwhile gets no session.
        """
        self.core.cache.slow = True
        self.fast_connect(self.ticket)
        self.device.ended = "peer"
        self.core.cache.release()
        self.assertFalse(self.device.handshaken)
        self.assertEqual(self.secured, [])

    def test_on_a_bound_connection(self) -> None:
        """
        A user who is bound leaves first, and that is announced (S-8).
        """
        self.shake_hands(2, device_id="d2")
        self.bind("u")
        self.fast_connect(self.ticket)
        self.assertIsNone(self.device.user_id)
        self.assertEqual(self.device.device_id, "d1")
        self.assertEqual(self.core.local.lookup_all("u"), ())
        self.core.clock.advance(0)
        self.assertEqual(
            self.core.posted, [UserOffline("u", self.device.id, "d2", 1, False)]
        )

    def test_bound_again(self) -> None:
        """
        A BIND after that does not kick the connection itself (S-8).
        """
        self.fast_connect(self.ticket)
        self.bind("u")
        self.fast_connect(self.ticket)
        self.bind("u")
        self.assertNotIn("kick", [item[0] for item in self.device.sent])

    def test_refused_on_a_bound_connection(self) -> None:
        """
        A refused FAST_CONNECT leaves the user where he is.
        """
        self.fast_connect(self.ticket)
        self.bind("u")
        self.fast_connect("0" * 32)
        self.assertEqual(self.device.user_id, "u")
        self.assertIs(self.core.local.lookup("u", 1), self.device)

    def test_then_handshake(self) -> None:
        """
        A HANDSHAKE of the same device after it gets ERROR 102 (server 8.2).
        """
        self.fast_connect(self.ticket)
        self.shake_hands(5)
        self.assertAnswered(FastConnectOk(60000), _REPEATED)

    def test_other_nodes_record(self) -> None:
        """
        A record as the original's nodes write it opens a session.
        """
        self.core.cache.set(
            "mp:rs:java",
            "android,1.0,1.0,d1,119|118|63|-30|16|41|36|88|-127|104|-82|-82|78|-84|-92"
            "|-51,-83|-121|116|48|90|-90|-50|110|25|35|100|-40|-123|42|24|-47",
        )
        self.fast_connect("java")
        self.assertAnswered(FastConnectOk(60000))
        self.assertEqual(self.cipher().key[:4], bytes((119, 118, 63, 226)))
