"""
How a client opens its session: HANDSHAKE, FAST_CONNECT, what is stored, what goes
wrong.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from mpush_tw.client import (
    ClientState,
    Disconnected,
    FileSessionStorage,
    MemorySessionStorage,
)
from mpush_tw.client.storage import StoredSession
from mpush_tw.protocol.commands import Command, ErrorCode
from mpush_tw.protocol.crypto import AesCipher
from mpush_tw.protocol.messages import FastConnectOk, HandshakeOk
from mpush_tw.protocol.packet import HEADER_SIZE, HEARTBEAT_BYTE
from tests.client.support import (
    HEARTBEAT_MS,
    SERVER_KEY,
    SESSION_ID,
    ClientTestCase,
    FakePeer,
    Received,
)

HANDSHAKE, FAST_CONNECT, BIND = Command.HANDSHAKE, Command.FAST_CONNECT, Command.BIND


class HandshakeTests(ClientTestCase):
    """
    The full handshake.
    """

    def test_online(self) -> None:
        """
        A started client connects, shakes hands and says so, in this order.
        """
        client = self.start_client()
        self.assertEqual(client.state, ClientState.ONLINE)
        self.assertTrue(client.is_running and client.is_online)
        self.assertEqual(
            self.listener.events, [("connected",), ("handshake_ok", HEARTBEAT_MS)]
        )

    def test_message(self) -> None:
        """
        HANDSHAKE describes the device as configured; the timestamp is 0, as Java's.
        """
        self.start_client(
            os_name="android",
            os_version="6.0",
            client_version="2.0",
            min_heartbeat=1000,
            max_heartbeat=2000,
        )
        (packet,) = self.server.peer.received
        message = packet.message
        self.assertEqual(
            message[:4] + message[6:],
            ("dev-1", "android", "6.0", "2.0", 1000, 2000, 0),
        )
        self.assertEqual((packet.flags, packet.session_id), (1, 1))

    def test_keys_are_fresh(self) -> None:
        """
        Every handshake has its own key and iv, 16 bytes each.
        """
        for _ in range(2):
            self.start_client()
        drawn = set()
        for peer in self.server.peers:
            message = peer.received[0].message
            drawn |= {message.client_key, message.iv}
        self.assertEqual([len(key) for key in drawn], [16] * 4)

    def test_no_delay(self) -> None:
        """
        Small packets leave at once: TCP_NODELAY is set.
        """
        self.start_client()
        self.assertTrue(self.server.peer.transport.no_delay)

    def test_answer_in_single_bytes(self) -> None:
        """
        An answer that comes byte by byte is understood.
        """
        self.server.silent(HANDSHAKE)
        client = self.start_client()
        peer = self.server.peer
        self.server.shake_hands(peer, peer.received[0])
        (data,) = peer.transport.inbound
        peer.transport.inbound[:] = [bytes([byte]) for byte in data]
        self.network.settle()
        self.assertTrue(client.is_online)

    def test_switch_before_the_next_packet(self) -> None:
        """
        A push in the same read as the handshake's answer is read with the new key
        (clients 10.3, 3).
        """

        def together(peer: FakePeer, got: Received) -> None:
            self.server.shake_hands(peer, got)
            peer.push(b"early")
            peer.transport.inbound[:] = [b"".join(peer.transport.inbound)]

        self.server.answers[HANDSHAKE] = together
        self.start_client()
        self.assertEqual(self.listener.named("push"), [("push", b"early", 0)])

    def test_nothing_else_before_it(self) -> None:
        """
        Until the handshake is done nothing but HANDSHAKE is sent, whatever is asked
        for.
        """
        self.server.silent(HANDSHAKE)
        client = self.start_client(user_id="u")
        refused = [client.push("x"), client.unbind_user()]
        client.bind_user("u").addErrback(lambda _: None)
        self.assertFalse(client.ack(5))
        self.network.settle()
        self.assertEqual(self.server.peer.commands, [HANDSHAKE])
        for answer in refused:
            self.failureResultOf(answer, Disconnected)

    def test_timeout(self) -> None:
        """
        A server that accepts and says nothing is left after 3 seconds.
        """
        self.server.silent(HANDSHAKE)
        client = self.start_client()
        self.network.pass_time(2.9)
        self.assertEqual(self.listener.named("disconnected"), [])
        self.network.pass_time(0.1)
        self.assertEqual(
            self.listener.named("disconnected"),
            [("disconnected", "no answer to HANDSHAKE within 3 s")],
        )
        self.assertEqual(client.state, ClientState.WAITING)

    def test_retries(self) -> None:
        """
        With retries the identical packet is sent again before the client gives up.
        """
        self.server.silent(HANDSHAKE)
        self.start_client(handshake_timeout=1, handshake_retries=2)
        self.network.pass_time(2.9)
        peer = self.server.peer
        self.assertEqual(peer.commands, [HANDSHAKE] * 3)
        third = len(peer.raw) // 3
        self.assertEqual(peer.raw, peer.raw[:third] * 3)
        self.network.pass_time(0.1)
        self.assertEqual(len(self.listener.named("disconnected")), 1)

    def test_answer_to_both_copies(self) -> None:
        """
        A server that answers the packet and its copy changes nothing the second time.
        """
        self.server.silent(HANDSHAKE)
        client = self.start_client(handshake_timeout=1, handshake_retries=1)
        self.network.pass_time(1)
        peer = self.server.peer
        self.server.shake_hands(peer, peer.received[0])
        self.network.settle()
        cipher = peer.cipher
        self.server.shake_hands(peer, peer.received[1])
        peer.cipher = cipher
        peer.error(1, HANDSHAKE, 102, "repeat handshake")
        peer.push(b"x")
        self.network.settle()
        self.assertTrue(client.is_online)
        self.assertEqual(self.listener.named("push"), [("push", b"x", 0)])


class UselessAnswerTests(ClientTestCase):
    """
    Answers to HANDSHAKE that no session can be made of.
    """

    def answered(self, answer: HandshakeOk | bytes, encrypted: bool = True) -> None:
        """
        The client leaves a server that answers like this, and tries again later.
        """

        def respond(peer: FakePeer, got: Received) -> None:
            message = got.message
            cipher = AesCipher(message.client_key, message.iv) if encrypted else None
            body = answer if isinstance(answer, bytes) else answer.encode()
            peer.send(HANDSHAKE, got.session_id, body, cipher=cipher)

        self.server.answers[HANDSHAKE] = respond
        client = self.start_client()
        self.assertEqual(client.state, ClientState.WAITING)
        self.assertEqual(self.listener.named("handshake_ok"), [])
        self.assertEqual(len(self.listener.named("disconnected")), 1)

    def test_short_key(self) -> None:
        """
        A server key that is not 16 bytes.
        """
        self.answered(HandshakeOk(SERVER_KEY[:15], HEARTBEAT_MS, "s", 1))

    def test_no_heartbeat(self) -> None:
        """
        A heartbeat of nothing.
        """
        self.answered(HandshakeOk(SERVER_KEY, 0, "s", 1))

    def test_cut_short(self) -> None:
        """
        A body that ends too early.
        """
        self.answered(HandshakeOk(SERVER_KEY, HEARTBEAT_MS, "s", 1).encode()[:-1])

    def test_empty(self) -> None:
        """
        No body at all.
        """
        self.answered(b"", encrypted=False)

    def test_in_clear(self) -> None:
        """
        An answer that is not encrypted may be anybody's (clients 12.11).
        """
        self.answered(HandshakeOk(SERVER_KEY, HEARTBEAT_MS, "s", 1), encrypted=False)

    def test_without_session_id(self) -> None:
        """
        An answer without a session id opens a session, but none that can be stored.
        """
        self.server.session_id = ""
        storage = MemorySessionStorage()
        client = self.start_client(session_storage=storage)
        self.assertTrue(client.is_online)
        self.assertIsNone(storage.get())

    def test_wrong_key(self) -> None:
        """
        An answer under another key ends the connection.
        """

        def respond(peer: FakePeer, got: Received) -> None:
            peer.send(HANDSHAKE, got.session_id, bytes(30), cipher=OTHER_CIPHER)

        self.server.answers[HANDSHAKE] = respond
        client = self.start_client()
        self.assertEqual(client.state, ClientState.WAITING)


OTHER_CIPHER = AesCipher(b"o" * 16, b"o" * 16)


class HandshakeRefusedTests(ClientTestCase):
    """
    ERROR as the answer to HANDSHAKE.
    """

    def test_backs_off(self) -> None:
        """
        A refusal is told, and the client tries again later; it is not off for good
        (defect 12.7).
        """
        self.server.refuse(HANDSHAKE, 100, "handle message error")
        client = self.start_client()
        self.assertEqual(
            self.listener.events,
            [
                ("connected",),
                ("error", 2, 100, "handle message error"),
                (
                    "disconnected",
                    "HANDSHAKE refused: handle message error (code 100)",
                ),
            ],
        )
        self.assertEqual(client.state, ClientState.WAITING)
        self.server.answers[HANDSHAKE] = self.server.shake_hands
        self.network.pass_time(1)
        self.assertTrue(client.is_online)

    def test_param_invalid_stops(self) -> None:
        """
        "Param invalid" would come for ever: the client stops, and has told why.
        """
        self.server.refuse(HANDSHAKE, 0, "Param invalid")
        client = self.start_client()
        self.assertEqual(client.state, ClientState.STOPPED)
        self.assertEqual(
            self.listener.named("error"), [("error", 2, 0, "Param invalid")]
        )
        self.network.pass_time(1000)
        self.assertEqual(len(self.network.attempts), 1)

    def test_setting_stops(self) -> None:
        """
        An application may want every refusal to stop the client.
        """
        self.server.refuse(HANDSHAKE, 0, "no room")
        client = self.start_client(on_handshake_refused="stop")
        self.assertEqual(client.state, ClientState.STOPPED)

    def test_repeat_handshake_is_ignored(self) -> None:
        """
        "repeat handshake", told by its code or by its text, is not an answer.
        """
        for code, reason in ((102, "x"), (0, "repeat handshake")):
            self.server.refuse(HANDSHAKE, code, reason)
            client = self.start_client()
            self.assertEqual(client.state, ClientState.CONNECTED)
            peer = self.server.peer
            self.server.shake_hands(peer, peer.received[0])
            self.network.settle()
            self.assertTrue(client.is_online)
        self.assertEqual(self.listener.named("error"), [])

    def test_goes_to_the_end_of_the_list(self) -> None:
        """
        A server that refused is tried last the next time.
        """
        self.server.refuse(HANDSHAKE, 0, "no room")
        self.start_client(servers="10.0.0.2:3000")
        self.network.pass_time(1)
        self.assertEqual(
            [host for host, _ in self.network.attempts], ["10.0.0.1", "10.0.0.2"]
        )


class FastConnectTests(ClientTestCase):
    """
    Coming back with a stored session.
    """

    def setUp(self) -> None:
        super().setUp()
        self.storage = MemorySessionStorage()

    def come_back(self, **settings: Any) -> Any:
        """
        A client that was online and starts again.
        """
        client = self.start_client(session_storage=self.storage, **settings)
        client.stop()
        self.network.settle()
        del self.listener.events[:]
        client.start()
        self.network.settle()
        return client

    def test_session_is_saved(self) -> None:
        """
        After the handshake the session is in the storage, with the mixed key.
        """
        self.start_client(session_storage=self.storage)
        stored = StoredSession.decode(self.storage.get() or "")
        assert stored is not None and self.server.peer.cipher is not None
        self.assertEqual((stored.session_id, stored.expire_ms), (SESSION_ID, 86400000))
        self.assertEqual(stored.cipher.key, self.server.peer.cipher.key)
        self.assertEqual(stored.cipher.iv, self.server.peer.cipher.iv)

    def test_session_is_resumed(self) -> None:
        """
        FAST_CONNECT is sent in clear with the session id, the device and the
        heartbeats; its OK opens the session and the user is bound under the old key.
        """
        client = self.come_back(user_id="u", max_heartbeat=10_000)
        self.assertEqual(self.server.peer.commands, [FAST_CONNECT, BIND])
        fast, bind = self.server.peer.received
        self.assertEqual(fast.message, (SESSION_ID, "dev-1", 240_000, 10_000))
        self.assertEqual((fast.flags, bind.flags), (0, 1))
        self.assertEqual(
            self.listener.events,
            [("connected",), ("handshake_ok", HEARTBEAT_MS), ("bind", True, "u")],
        )
        self.assertTrue(client.is_online)

    def test_stored_session_is_kept(self) -> None:
        """
        A fast connect neither changes the stored session nor its expiry.
        """
        self.start_client(session_storage=self.storage)
        before = self.storage.get()
        self.network.pass_time(60)
        self.come_back()
        self.assertEqual(self.storage.get(), before)

    def test_numbers_go_on(self) -> None:
        """
        Request numbers are not used twice by one client: a late answer cannot meet the
        wrong request.
        """
        self.come_back(user_id="u")
        numbers = [p.session_id for peer in self.server.peers for p in peer.received]
        self.assertEqual(numbers, [1, 2, 3, 4])

    def test_refused(self) -> None:
        """
        A server that has forgotten the session gets a HANDSHAKE on the same connection;
        the application hears nothing of it, and the new session is stored.
        """
        client = self.start_client(session_storage=self.storage)
        old = self.storage.get()
        client.stop()
        self.network.settle()
        self.server.sessions.clear()
        del self.listener.events[:]
        client.start()
        self.network.settle()
        self.assertEqual(self.server.peer.commands, [FAST_CONNECT, HANDSHAKE])
        self.assertEqual(
            self.listener.events, [("connected",), ("handshake_ok", HEARTBEAT_MS)]
        )
        self.assertNotEqual(self.storage.get(), old)

    def test_refused_session_is_cleared(self) -> None:
        """
        A session that was refused is not kept, even if no new one comes about.
        """
        client = self.start_client(session_storage=self.storage)
        client.stop()
        self.network.settle()
        self.server.refuse(FAST_CONNECT, ErrorCode.INVALID_DEVICE, "invalid device")
        self.server.silent(HANDSHAKE)
        client.start()
        self.network.settle()
        self.assertIsNone(self.storage.get())

    def test_timeout(self) -> None:
        """
        FAST_CONNECT without an answer costs the connection, not the session.
        """
        client = self.start_client(session_storage=self.storage)
        client.stop()
        self.network.settle()
        self.server.silent(FAST_CONNECT)
        client.start()
        self.network.pass_time(3)
        self.assertEqual(
            self.listener.named("disconnected")[-1],
            ("disconnected", "no answer to FAST_CONNECT within 3 s"),
        )
        self.assertIsNotNone(self.storage.get())

    def test_useless_answer(self) -> None:
        """
        A heartbeat of 0 in the answer is no session.
        """
        self.server.answers[FAST_CONNECT] = lambda peer, got: peer.send(
            FAST_CONNECT, got.session_id, FastConnectOk(0).encode()
        )
        client = self.come_back()
        self.assertEqual(client.state, ClientState.WAITING)

    def test_expired(self) -> None:
        """
        A session whose time is over is cleared, and hands are shaken.
        """
        client = self.start_client(session_storage=self.storage)
        client.stop()
        self.network.pass_time(86_401)
        self.server.silent(HANDSHAKE)
        client.start()
        self.network.settle()
        self.assertEqual(self.server.peer.commands, [HANDSHAKE])
        self.assertIsNone(self.storage.get())

    def test_damaged(self) -> None:
        """
        A text that is no session is cleared, and hands are shaken (defect 12.6).
        """
        self.server.silent(HANDSHAKE)
        for text in ("", "rubbish", "s1,1,x|y,z", f"s1,9999999999999,{'1|' * 15}x,1"):
            self.storage.save(text)
            self.start_client(session_storage=self.storage)
            self.assertEqual(self.server.peer.commands, [HANDSHAKE])
            self.assertIn(self.storage.get(), (None, ""))

    def test_file_survives_the_process(self) -> None:
        """
        A new client with the file of an earlier one resumes its session.
        """
        path = self.mktemp()
        self.start_client(session_storage=path).stop()
        self.network.settle()
        self.start_client(session_storage=path)
        self.assertEqual(self.server.peer.commands, [FAST_CONNECT])
        self.assertIsNotNone(FileSessionStorage(path).get())


class SlowStorage:
    """
    A storage that answers later, if at all.
    """

    def __init__(self) -> None:
        self.wanted: list[Deferred[Any]] = []

    def _later(self, *_: Any) -> Deferred[Any]:
        self.wanted.append(Deferred())
        return self.wanted[-1]

    get = save = clear = _later


class BrokenStorage:
    """
    A storage that raises.
    """

    def _fail(self, *_: Any) -> Any:
        raise OSError("no such disk")

    get = save = clear = _fail


class StorageTroubleTests(ClientTestCase):
    """
    Storages that are slow or broken.
    """

    def test_asynchronous(self) -> None:
        """
        The storage may answer with a Deferred; the client waits for it.
        """
        first = self.start_client(session_storage=(memory := MemorySessionStorage()))
        first.stop()
        storage = SlowStorage()
        self.start_client(session_storage=storage)
        self.assertEqual(self.server.peer.commands, [])
        storage.wanted[0].callback(memory.get())
        self.network.settle()
        self.assertEqual(self.server.peer.commands, [FAST_CONNECT])

    def test_silent(self) -> None:
        """
        A storage that never answers costs a handshake time-out, then hands are shaken.
        """
        self.start_client(session_storage=SlowStorage())
        self.network.pass_time(3)
        self.assertEqual(self.server.peer.commands, [HANDSHAKE])

    def test_answers_after_the_connection(self) -> None:
        """
        What the storage brings for a connection that is gone is not used on the next.
        """
        storage = SlowStorage()
        client = self.start_client(session_storage=storage)
        client.stop()
        self.network.settle()
        storage.wanted[0].callback(None)
        client.start()
        self.network.settle()
        self.assertEqual(self.server.peer.commands, [])

    def test_broken(self) -> None:
        """
        A storage that raises is logged; the client works without.
        """
        client = self.start_client(session_storage=BrokenStorage())
        self.assertTrue(client.is_online)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 2)

    def test_answers_nonsense(self) -> None:
        """
        So is one that gives something else than text.
        """
        storage = MemorySessionStorage()
        storage.save(7)  # type: ignore[arg-type]
        client = self.start_client(session_storage=storage)
        self.assertTrue(client.is_online)
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)


class ByHandTests(ClientTestCase):
    """
    C{handshake} and C{fast_connect} called by the application.
    """

    def test_nothing_to_greet(self) -> None:
        """
        Without a connection neither does anything.
        """
        client = self.make_client()
        self.assertFalse(client.handshake() or client.fast_connect())

    def test_handshake_in_on_connected(self) -> None:
        """
        Called when the connection is made, C{handshake} saves the fast connect.
        """
        storage = MemorySessionStorage()
        client = self.start_client(session_storage=storage)
        client.stop()
        self.network.settle()
        self.listener.on_connected = lambda: client.handshake()  # type: ignore[method-assign]
        client.start()
        self.network.settle()
        self.assertEqual(self.server.peer.commands, [HANDSHAKE])
        self.assertTrue(client.is_online)

    def test_not_twice(self) -> None:
        """
        While one is under way, another is not begun.
        """
        self.server.silent(HANDSHAKE)
        client = self.start_client()
        self.assertFalse(client.handshake() or client.fast_connect())
        self.network.settle()
        self.assertEqual(self.server.peer.commands, [HANDSHAKE])

    def test_repeat_changes_nothing(self) -> None:
        """
        A server that answers "repeat handshake" goes on with the session there was:
        pushes arrive, requests are served.
        """
        client = self.start_client(user_id="u")
        self.server.refuse(HANDSHAKE, 102, "repeat handshake")
        self.assertTrue(client.handshake())
        self.assertFalse(client.is_online)
        self.server.peer.push(b"meanwhile")
        self.network.settle()
        self.assertTrue(client.is_online)
        answer = client.push("x")
        self.network.settle()
        self.successResultOf(answer)

    def test_repeat_is_accepted(self) -> None:
        """
        A server that shakes hands again has forgotten the user, who is bound again.
        """
        client = self.start_client(user_id="u")
        client.handshake()
        self.network.settle()
        self.assertEqual(self.server.peer.commands, [HANDSHAKE, BIND, HANDSHAKE, BIND])

    def test_old_requests_fail(self) -> None:
        """
        What was asked under the old session is not answered under the new one.
        """
        client = self.start_client()
        self.server.silent(Command.PUSH)
        answer = client.push("x")
        client.handshake()
        self.failureResultOf(answer, Disconnected)

    def test_fast_connect_again(self) -> None:
        """
        C{fast_connect} on a connection that is online resumes the stored session, and
        falls back to the session there was if the server will not.
        """
        client = self.start_client()
        self.assertTrue(client.fast_connect())
        self.network.settle()
        self.assertTrue(client.is_online)
        self.server.sessions.clear()
        self.server.refuse(HANDSHAKE, 102, "repeat handshake")
        client.fast_connect()
        self.network.settle()
        self.assertTrue(client.is_online)
        self.assertEqual(
            self.server.peer.commands,
            [HANDSHAKE, FAST_CONNECT, FAST_CONNECT, HANDSHAKE],
        )
        answer = client.push("x")
        self.network.settle()
        self.successResultOf(answer)


class ClearTextTests(ClientTestCase):
    """
    Encryption never gives way to clear text (clients 10.3, 6).
    """

    def test_nothing_readable_on_the_wire(self) -> None:
        """
        Neither the user nor a message can be found in what was sent.
        """
        client = self.start_client(user_id="the-user", tags="the-tags")
        client.push("the-message")
        client.unbind_user()
        self.network.settle()
        for word in (b"the-user", b"the-tags", b"the-message", b"dev-1"):
            self.assertNotIn(word, self.server.peer.raw)

    def test_failing_cipher(self) -> None:
        """
        If the key cannot encrypt, the request fails, the connection ends, and nothing
        is sent.
        """
        client = self.start_client()
        sent = len(self.server.peer.raw)

        class Broken:
            def encrypt(self, plain: bytes) -> bytes:
                raise ValueError("no")

        connection = client._connection
        assert connection is not None
        connection._cipher = Broken()  # type: ignore[assignment]
        answer = client.push("x")
        self.network.settle()
        self.failureResultOf(answer, Disconnected)
        self.assertEqual(len(self.server.peer.raw), sent)
        self.assertEqual(client.state, ClientState.WAITING)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_encrypted_packet_without_key(self) -> None:
        """
        A packet that claims to be encrypted before there is a key is a bad packet.
        """
        self.server.silent(HANDSHAKE)
        client = self.start_client()
        self.server.peer.send(Command.OK, 1, bytes(16), flags=1)
        self.network.settle()
        self.assertEqual(client.state, ClientState.WAITING)

    def test_undecryptable_push(self) -> None:
        """
        A push that does not decrypt ends the connection and is not delivered.
        """
        client = self.start_client()
        self.server.peer.send(Command.PUSH, 5, bytes(17), flags=1)
        self.network.settle()
        self.assertEqual(client.state, ClientState.WAITING)
        self.assertEqual(self.listener.named("push"), [])

    def test_laboratory(self) -> None:
        """
        Only a client without a key that was told so shakes hands in clear; its session
        is encrypted all the same.
        """
        client = self.start_client(
            public_key=None, encrypt_required=False, user_id="the-user"
        )
        shaken, bound = self.server.peer.received
        self.assertEqual((shaken.flags, bound.flags), (0, 1))
        self.assertTrue(client.is_online)

    def test_consent_is_no_fallback(self) -> None:
        """
        With the key at hand the handshake is encrypted though it need not be.
        """
        self.start_client(encrypt_required=False)
        self.assertEqual(self.server.peer.received[0].flags, 1)


class BadServerTests(ClientTestCase):
    """
    Bytes that no server should send.
    """

    def ended_by(self, data: bytes) -> None:
        """
        The connection ends, and the client comes back later.
        """
        client = self.start_client()
        self.server.peer.send_raw(data)
        self.network.settle()
        self.assertEqual(client.state, ClientState.WAITING)
        self.network.pass_time(1)
        self.assertTrue(client.is_online)

    def test_oversized(self) -> None:
        """
        A length above the limit, as soon as it can be read.
        """
        self.ended_by((10 * 1024 * 1024 + 1).to_bytes(4, "big"))

    def test_negative(self) -> None:
        """
        A negative length.
        """
        self.ended_by(b"\x80" + bytes(12))

    def test_ok_cut_short(self) -> None:
        """
        OK with a body that ends inside.
        """
        self.ended_by(b"\0\0\0\1" + bytes([Command.OK]) + bytes(8) + b"\5")

    def test_bad_compression(self) -> None:
        """
        A body that does not inflate.
        """
        self.ended_by(b"\0\0\0\1" + bytes([Command.PUSH, 0, 0, 2]) + bytes(5) + b"x")

    def test_bomb(self) -> None:
        """
        A small body that inflates to more than C{max_packet_size}.
        """
        from zlib import compress

        client = self.start_client(max_packet_size=2000)
        self.server.peer.send(Command.PUSH, 5, compress(bytes(2001)), flags=2)
        self.network.settle()
        self.assertEqual(client.state, ClientState.WAITING)
        self.assertEqual(self.listener.named("push"), [])

    def test_rest_is_not_carried_over(self) -> None:
        """
        Half a packet from the old connection is not the beginning of one on the new
        (clients 10.3, 4).
        """
        client = self.start_client()
        self.server.peer.send_raw(bytes(HEADER_SIZE - 1))
        self.server.peer.close()
        self.network.pass_time(1)
        self.assertTrue(client.is_online)
        self.server.peer.push(b"whole")
        self.network.settle()
        self.assertEqual(self.listener.named("push"), [("push", b"whole", 0)])

    def test_nothing_after_the_bad_packet(self) -> None:
        """
        What follows a bad packet in the same read is not looked at.
        """
        self.start_client()
        peer = self.server.peer
        peer.send(Command.PUSH, 5, bytes(17), flags=1)
        peer.push(b"behind")
        peer.transport.inbound[:] = [b"".join(peer.transport.inbound)]
        self.network.settle()
        self.assertEqual(self.listener.named("push"), [])

    def test_unknown_commands(self) -> None:
        """
        Unknown commands, and known ones that nobody asked for, are ignored.
        """
        client = self.start_client()
        for command in (99, -7, Command.LOGIN, Command.HTTP_PROXY, HANDSHAKE, BIND):
            self.server.peer.send(command, 1234, b"body")
        self.server.peer.send_raw(HEARTBEAT_BYTE)
        self.network.settle()
        self.assertTrue(client.is_online)

    def test_pushes_before_the_session(self) -> None:
        """
        A push or kick before the handshake is not handed on.
        """
        self.server.silent(HANDSHAKE)
        self.start_client(user_id="u")
        peer = self.server.peer
        peer.push(b"x", flags=8)
        peer.kick("dev-1", "u")
        self.network.settle()
        self.assertEqual(self.listener.events, [("connected",)])
        self.assertEqual(peer.commands, [HANDSHAKE])
