"""
Who the user of a device is: BIND, UNBIND, KICK.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail

from mpush_tw.client import (
    BadRequest,
    ClientState,
    Disconnected,
    Refused,
    Superseded,
    TimedOut,
    TooManyPending,
)
from mpush_tw.protocol.commands import Command
from tests.client.support import ClientTestCase, FakePeer, Received

HANDSHAKE, BIND, UNBIND = Command.HANDSHAKE, Command.BIND, Command.UNBIND


class BindingTestCase(ClientTestCase):
    """
    What the tests below have in common.
    """

    def sent(self) -> list[tuple[int, str]]:
        """
        The users of BIND and UNBIND on the latest connection, in order.
        """
        return [
            (packet.command, packet.message.user_id)
            for packet in self.server.peer.received
            if packet.command in (BIND, UNBIND)
        ]


class BindTests(BindingTestCase):
    """
    C{bind_user}.
    """

    def test_bind(self) -> None:
        """
        BIND carries user, data and tags, encrypted; OK fires the Deferred and is told.
        """
        client = self.start_client()
        bound = client.bind_user("u", "t1,t2", "token")
        self.assertNoResult(bound)
        self.network.settle()
        packet = self.server.peer.received[-1]
        self.assertEqual(packet.message, ("u", "token", "t1,t2"))
        self.assertEqual(packet.flags, 1)
        self.assertIsNone(self.successResultOf(bound))
        self.assertEqual(self.listener.events[-1], ("bind", True, "u"))
        self.assertEqual(client.user_id, "u")

    def test_automatic(self) -> None:
        """
        The user of the settings is bound after the handshake.
        """
        self.start_client(user_id="u", tags="t", bind_data="token")
        self.assertEqual(self.server.peer.received[-1].message, ("u", "token", "t"))
        self.assertEqual(self.listener.events[-1], ("bind", True, "u"))

    def test_again_after_reconnect(self) -> None:
        """
        The last user, tags and data given are bound again on every new connection.
        """
        client = self.start_client(user_id="first", tags="old")
        client.bind_user("u", "t", "token")
        self.network.settle()
        self.server.peer.close()
        self.network.pass_time(1)
        self.assertEqual(self.server.peer.received[-1].message, ("u", "token", "t"))
        self.assertEqual(len(self.server.peers), 2)

    def test_blank_user(self) -> None:
        """
        A blank user id is refused without a question to the server.
        """
        client = self.start_client()
        for user_id in ("", "  "):
            self.failureResultOf(client.bind_user(user_id), BadRequest)
        self.assertEqual(self.sent(), [])

    def test_same_is_skipped(self) -> None:
        """
        The same user with the same tags is not bound twice on one connection.
        """
        client = self.start_client(user_id="u", tags="t")
        bound = client.bind_user("u", "t")
        self.network.settle()
        self.successResultOf(bound)
        self.assertEqual(self.sent(), [(BIND, "u")])

    def test_same_shares_the_answer(self) -> None:
        """
        Nor while the first bind waits for its answer; both calls get it.
        """
        client = self.start_client()
        both = [client.bind_user("u", "t") for _ in range(2)]
        self.network.settle()
        for bound in both:
            self.successResultOf(bound)
        self.assertEqual(self.sent(), [(BIND, "u")])

    def test_other_tags(self) -> None:
        """
        Other tags, or none, are told to the server; the user is not unbound for it.
        """
        client = self.start_client(user_id="u", tags="t")
        client.bind_user("u", "other")
        client.bind_user("u")
        client.bind_user("u")
        self.network.settle()
        self.assertEqual(
            [p.message.tags for p in self.server.peer.packets(BIND)],
            ["t", "other", None, None],
        )
        self.assertEqual(self.server.peer.packets(UNBIND), [])

    def test_other_data(self) -> None:
        """
        A fresh token is told to the server, too.
        """
        client = self.start_client()
        client.bind_user("u", "t", "one")
        client.bind_user("u", "t", "two")
        self.network.settle()
        self.assertEqual(
            [p.message.data for p in self.server.peer.packets(BIND)], ["one", "two"]
        )

    def test_other_user(self) -> None:
        """
        Another user is bound after the first one was unbound.
        """
        client = self.start_client(user_id="u1", tags="t")
        bound = client.bind_user("u2")
        self.network.settle()
        self.successResultOf(bound)
        self.assertEqual(self.sent(), [(BIND, "u1"), (UNBIND, "u1"), (BIND, "u2")])
        self.assertEqual(
            self.listener.named("bind", "unbind"),
            [("bind", True, "u1"), ("unbind", True, "u1"), ("bind", True, "u2")],
        )

    def test_collision_with_a_push(self) -> None:
        """
        A push of the server that has the number of the bind does not answer it (12.8),
        nor does an OK about something else.
        """
        self.server.silent(BIND)
        client = self.start_client()
        bound = client.bind_user("u")
        self.network.settle()
        number = self.server.peer.received[-1].session_id
        self.server.peer.push(b"x", session_id=number)
        self.server.peer.ok(number, UNBIND)
        self.server.peer.send(Command.ACK, number)
        self.server.peer.send(BIND, number)
        self.server.peer.ok(number + 1, BIND)
        self.network.settle()
        self.assertNoResult(bound)
        self.server.peer.ok(number, BIND)
        self.network.settle()
        self.successResultOf(bound)

    def test_cancelled(self) -> None:
        """
        Who cancels does not wait any more; the user is bound all the same.
        """
        client = self.start_client()
        bound = client.bind_user("u")
        bound.cancel()
        self.failureResultOf(bound, CancelledError)
        self.network.settle()
        self.assertEqual(self.listener.events[-1], ("bind", True, "u"))


class EarlyBindTests(BindingTestCase):
    """
    C{bind_user} before there is a session.
    """

    def test_not_started(self) -> None:
        """
        Without a connection in the making the call fails, and the user is bound when
        the client is started.
        """
        client = self.make_client()
        self.failureResultOf(client.bind_user("u"), Disconnected)
        client.start()
        self.network.settle()
        self.assertEqual(self.sent(), [(BIND, "u")])

    def test_while_connecting(self) -> None:
        """
        Right after C{start} the call waits for the handshake and the bind.
        """
        client = self.make_client()
        client.start()
        bound = client.bind_user("u", "t")
        self.network.settle()
        self.successResultOf(bound)
        self.assertEqual(self.sent(), [(BIND, "u")])

    def test_during_the_handshake(self) -> None:
        """
        So does a call while the handshake is under way.
        """
        self.server.silent(HANDSHAKE)
        client = self.start_client()
        bound = client.bind_user("u")
        self.assertNoResult(bound)
        peer = self.server.peer
        self.server.shake_hands(peer, peer.received[0])
        self.network.settle()
        self.successResultOf(bound)

    def test_connection_fails(self) -> None:
        """
        If no handshake comes about the call fails; the user is remembered.
        """
        self.server.silent(HANDSHAKE)
        client = self.start_client()
        bound = client.bind_user("u")
        self.server.peer.close()
        self.network.settle()
        self.failureResultOf(bound, Disconnected)
        self.server.answers[HANDSHAKE] = self.server.shake_hands
        self.network.pass_time(1)
        self.assertEqual(self.sent(), [(BIND, "u")])
        self.assertTrue(client.is_online)

    def test_nobody_reached(self) -> None:
        """
        The same if no server can be reached.
        """
        self.network.down.add(("10.0.0.1", 3000))
        client = self.make_client()
        client.start()
        bound = client.bind_user("u")
        self.network.settle()
        self.failureResultOf(bound, Disconnected)
        self.failureResultOf(client.bind_user("u"), Disconnected)

    def test_last_one_counts(self) -> None:
        """
        Of several calls before the handshake the last one counts; the others are told.
        """
        client = self.make_client(user_id="u0")
        client.start()
        first = client.bind_user("u1")
        second = client.bind_user("u2")
        third = client.bind_user("u2")
        self.network.settle()
        self.failureResultOf(first, Superseded)
        self.successResultOf(second)
        self.successResultOf(third)
        self.assertEqual(self.sent(), [(BIND, "u2")])

    def test_unbound_before(self) -> None:
        """
        An unbind before the handshake takes the bind back.
        """
        client = self.make_client()
        client.start()
        bound = client.bind_user("u1")
        self.failureResultOf(client.unbind_user(), Disconnected)
        self.failureResultOf(bound, Superseded)
        self.network.settle()
        self.assertEqual(self.sent(), [])

    def test_in_on_handshake_ok(self) -> None:
        """
        A listener that binds somebody in C{on_handshake_ok} has the last word; the user
        of the settings is not bound before or after.
        """
        client = self.make_client(user_id="u1")

        def bind(_: int) -> None:
            client.bind_user("u2")

        self.listener.on_handshake_ok = bind  # type: ignore[method-assign]
        client.start()
        self.network.settle()
        self.assertEqual(self.sent(), [(BIND, "u2")])

    def test_too_many_calls(self) -> None:
        """
        The number of calls that wait is limited.
        """
        client = self.make_client(max_pending=2)
        client.start()
        calls = [client.bind_user("u") for _ in range(3)]
        self.failureResultOf(calls[2], TooManyPending)
        self.network.settle()
        self.successResultOf(calls[1])


class BindRefusedTests(BindingTestCase):
    """
    ERROR, silence, and loss in place of OK.
    """

    def test_told(self) -> None:
        """
        A refusal fails the call, is told as such, and leaves the connection alone
        (defect 12.14).
        """
        self.server.refuse(BIND, 0, "bind failed")
        client = self.start_client()
        bound = client.bind_user("u")
        self.network.settle()
        refused = self.failureResultOf(bound, Refused).value
        self.assertEqual(
            (refused.command, refused.code, refused.reason), (BIND, 0, "bind failed")
        )
        self.assertEqual(
            self.listener.events[-2:],
            [("error", BIND, 0, "bind failed"), ("bind", False, "u")],
        )
        self.assertTrue(client.is_online)
        self.assertEqual(len(self.server.peer.packets(BIND)), 1)

    def test_application_tries_again(self) -> None:
        """
        The application may try again with another token on the same connection.
        """
        self.server.refuse(BIND)
        client = self.start_client()
        client.bind_user("u", "t", "bad").addErrback(lambda _: None)
        self.network.settle()
        self.server.answers[BIND] = lambda peer, got: peer.ok(got.session_id, BIND)
        bound = client.bind_user("u", "t", "good")
        self.network.settle()
        self.successResultOf(bound)

    def test_closed_after_refusal(self) -> None:
        """
        A server that refuses the user and closes is not hammered: the waits grow
        (defect 12.1).
        """

        def refuse(peer: FakePeer, got: Received) -> None:
            peer.error(got.session_id, BIND, 0, "bind failed")
            peer.close()

        self.server.answers[BIND] = refuse
        self.random = 1.0
        self.start_client(user_id="u")
        self.network.pass_time(100)
        # At once, then after 1, 2, 4, 8, 16, 32, (60) seconds.
        self.assertEqual(len(self.network.attempts), 7)

    def test_slow_refusals_are_no_success(self) -> None:
        """
        The waits grow as well when every refusal takes its time.
        """

        def refuse(peer: FakePeer, got: Received) -> None:
            def later() -> None:
                peer.error(got.session_id, BIND, 0, "bind failed")
                peer.close()

            self.network.callLater(20, later)

        self.server.answers[BIND] = refuse
        self.random = 1.0
        self.start_client(user_id="u", bind_timeout=30)
        self.network.pass_time(20 * 5 + 1 + 2 + 4 + 8 - 0.1)
        self.assertEqual(len(self.network.attempts), 5)
        self.network.pass_time(1)

    def test_not_again_on_the_same_connection(self) -> None:
        """
        A new handshake on the same connection does not bind the refused user again.
        """
        self.server.refuse(BIND)
        client = self.start_client(user_id="u")
        client.handshake()
        self.network.settle()
        self.assertEqual(len(self.server.peer.packets(BIND)), 1)

    def test_silence(self) -> None:
        """
        Without an answer the identical packet is sent once more after 3 seconds; after
        6 the call fails and the connection is given up (clients 14).
        """
        self.server.silent(BIND)
        client = self.start_client()
        before = len(self.server.peer.raw)
        bound = client.bind_user("u")
        self.network.pass_time(2.9)
        self.assertEqual(len(self.server.peer.packets(BIND)), 1)
        self.network.pass_time(0.2)
        sent = self.server.peer.raw[before:]
        half = len(sent) // 2
        self.assertEqual(sent[:half], sent[half:])
        self.assertEqual(len(self.server.peer.packets(BIND)), 2)
        self.assertTrue(client.is_online)
        self.network.pass_time(2.9)
        self.assertEqual(self.failureResultOf(bound, TimedOut).value.command, BIND)
        self.assertEqual(client.state, ClientState.WAITING)
        self.network.pass_time(1)
        self.assertEqual(self.server.peer.commands, [Command.FAST_CONNECT, BIND])

    def test_late_answer_to_the_retry(self) -> None:
        """
        An answer after the retry counts, and a second one is ignored.
        """
        self.server.silent(BIND)
        client = self.start_client()
        bound = client.bind_user("u")
        self.network.pass_time(3.5)
        number = self.server.peer.received[-1].session_id
        self.server.peer.ok(number, BIND)
        self.server.peer.ok(number, BIND)
        self.network.settle()
        self.successResultOf(bound)
        self.assertEqual(self.listener.named("bind"), [("bind", True, "u")])

    def test_connection_lost(self) -> None:
        """
        A lost connection fails the call at once; the next one binds.
        """
        self.server.silent(BIND)
        client = self.start_client()
        bound = client.bind_user("u")
        self.server.peer.close()
        self.network.settle()
        self.failureResultOf(bound, Disconnected)
        self.assertEqual(self.listener.named("bind"), [])
        self.network.pass_time(1)
        self.assertEqual(self.sent(), [(BIND, "u")])
        self.assertTrue(client.is_online)


class TokenTests(BindingTestCase):
    """
    Bind data from a function.
    """

    def test_fresh_for_every_bind(self) -> None:
        """
        The function is asked before every bind, also before automatic ones.
        """
        tokens = iter(["one", "two"])
        self.start_client(user_id="u", bind_data=lambda: next(tokens))
        self.server.peer.close()
        self.network.pass_time(1)
        sent = [peer.packets(BIND)[0].message.data for peer in self.server.peers]
        self.assertEqual(sent, ["one", "two"])

    def test_later(self) -> None:
        """
        It may give a Deferred; BIND waits for it.
        """
        token: Deferred[str | None] = Deferred()
        client = self.start_client(bind_data=lambda: token)
        bound = client.bind_user("u")
        self.network.settle()
        self.assertEqual(self.sent(), [])
        token.callback("t")
        self.network.settle()
        self.successResultOf(bound)
        self.assertEqual(self.server.peer.received[-1].message.data, "t")

    def test_of_the_call(self) -> None:
        """
        What the call brings is used instead of the settings'.
        """
        client = self.start_client(bind_data="general")
        client.bind_user("u", data=lambda: "special")
        self.network.settle()
        self.assertEqual(self.server.peer.received[-1].message.data, "special")

    def test_failing(self) -> None:
        """
        A function that fails fails the bind with what it raised; the connection stays.
        """
        client = self.start_client(bind_data=lambda: fail(KeyError("no token")))
        bound = client.bind_user("u")
        self.failureResultOf(bound, KeyError)
        self.assertEqual(self.listener.events[-1], ("bind", False, "u"))
        self.assertTrue(client.is_online)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assertEqual(self.sent(), [])

    def test_never(self) -> None:
        """
        One that never answers is not waited for longer than the bind time-out.
        """
        client = self.start_client(bind_data=Deferred)
        bound = client.bind_user("u")
        self.network.pass_time(3)
        self.failureResultOf(bound)
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    def test_unbound_meanwhile(self) -> None:
        """
        An unbind while the token is fetched takes the bind back; nothing is sent.
        """
        token: Deferred[str | None] = Deferred()
        client = self.start_client(bind_data=lambda: token)
        bound = client.bind_user("u")
        unbound = client.unbind_user()
        self.failureResultOf(bound, Superseded)
        self.successResultOf(unbound)
        token.callback("t")
        self.network.settle()
        self.assertEqual(self.sent(), [])

    def test_other_user_meanwhile(self) -> None:
        """
        So does another bind, which is sent alone.
        """
        tokens: list[Deferred[str | None]] = []

        def fetch() -> Deferred[str | None]:
            tokens.append(Deferred())
            return tokens[-1]

        client = self.start_client(bind_data=fetch)
        first = client.bind_user("u1")
        second = client.bind_user("u2")
        self.failureResultOf(first, Superseded)
        tokens[0].callback("1")
        tokens[1].callback("2")
        self.network.settle()
        self.successResultOf(second)
        self.assertEqual(self.sent(), [(BIND, "u2")])

    def test_connection_lost_meanwhile(self) -> None:
        """
        A token that comes after the connection is not sent on the next one twice.
        """
        tokens: list[Deferred[str | None]] = []

        def fetch() -> Deferred[str | None]:
            tokens.append(Deferred())
            return tokens[-1]

        client = self.start_client(bind_data=fetch)
        bound = client.bind_user("u")
        self.server.peer.close()
        self.network.pass_time(1)
        self.failureResultOf(bound, Disconnected)
        tokens[0].callback("old")
        tokens[1].callback("new")
        self.network.settle()
        self.assertEqual(
            [p.message.data for p in self.server.peer.packets(BIND)], ["new"]
        )


class UnbindTests(BindingTestCase):
    """
    C{unbind_user}.
    """

    def test_unbind(self) -> None:
        """
        UNBIND names the user and nothing else; OK fires the Deferred and is told.
        """
        client = self.start_client(user_id="u", tags="t", bind_data="d")
        unbound = client.unbind_user()
        self.network.settle()
        self.successResultOf(unbound)
        packet = self.server.peer.received[-1]
        self.assertEqual((packet.command, packet.message), (UNBIND, ("u", None, None)))
        self.assertEqual(self.listener.events[-1], ("unbind", True, "u"))
        self.assertIsNone(client.user_id)

    def test_stays_unbound(self) -> None:
        """
        After an unbind reconnects bind nobody, not even the user of the settings.
        """
        client = self.start_client(user_id="u")
        client.unbind_user()
        self.network.settle()
        self.server.peer.close()
        self.network.pass_time(1)
        self.assertTrue(client.is_online)
        self.assertEqual(self.sent(), [])

    def test_nobody_bound(self) -> None:
        """
        Without a user there is nothing to ask the server for: the original would close.
        """
        client = self.start_client()
        self.successResultOf(client.unbind_user())
        self.network.settle()
        self.assertEqual(self.sent(), [])

    def test_not_connected(self) -> None:
        """
        Without a connection the call fails, and the user is forgotten all the same.
        """
        client = self.make_client(user_id="u")
        self.failureResultOf(client.unbind_user(), Disconnected)
        client.start()
        self.network.settle()
        self.assertEqual(self.sent(), [])

    def test_refused(self) -> None:
        """
        A refusal is told and leaves the connection alone.
        """
        self.server.refuse(UNBIND, 0, "unbind failed")
        client = self.start_client(user_id="u")
        unbound = client.unbind_user()
        self.network.settle()
        self.failureResultOf(unbound, Refused)
        self.assertEqual(self.listener.events[-1], ("unbind", False, "u"))
        self.assertTrue(client.is_online)

    def test_silence(self) -> None:
        """
        Without an answer the connection is given up: with it the user certainly goes.
        """
        self.server.silent(UNBIND)
        client = self.start_client(user_id="u")
        unbound = client.unbind_user()
        self.network.pass_time(3)
        self.failureResultOf(unbound, TimedOut)
        self.assertEqual(client.state, ClientState.WAITING)
        self.network.pass_time(1)
        self.assertEqual(self.sent(), [])

    def test_while_bind_is_under_way(self) -> None:
        """
        Both are sent in this order, and both answers count.
        """
        client = self.start_client()
        bound, unbound = client.bind_user("u"), client.unbind_user()
        self.network.settle()
        self.successResultOf(bound)
        self.successResultOf(unbound)
        self.assertEqual(self.sent(), [(BIND, "u"), (UNBIND, "u")])


class KickTests(BindingTestCase):
    """
    Another device took the user over.
    """

    def kicked(self, policy: str | None = None, **settings: Any) -> Any:
        """
        A client that was online as C{u} and has got KICK.
        """
        if policy is not None:
            settings["kick_policy"] = policy
        client = self.start_client(user_id="u", tags="t", **settings)
        self.server.peer.kick("dev-1", "u")
        self.network.settle()
        return client

    def test_forget(self) -> None:
        """
        By default the device forgets the user, tells the server so and stays connected.
        """
        client = self.kicked()
        self.assertEqual(self.sent(), [(BIND, "u"), (UNBIND, "u")])
        self.assertEqual(
            self.listener.events[-2:], [("kick", "dev-1", "u"), ("unbind", True, "u")]
        )
        self.assertTrue(client.is_online)
        self.assertIsNone(client.user_id)

    def test_no_kicking_back(self) -> None:
        """
        After the next reconnect nobody is bound: two devices do not kick each other for
        ever (defect 12.16).
        """
        self.kicked()
        self.server.peer.close()
        self.network.pass_time(1)
        self.assertEqual(self.sent(), [])

    def test_refused_unbind_is_harmless(self) -> None:
        """
        A server that has taken the user away already may refuse the UNBIND.
        """
        self.server.refuse(UNBIND)
        client = self.kicked()
        self.assertTrue(client.is_online)

    def test_listener_binds_another(self) -> None:
        """
        A listener may bind somebody else at once.
        """
        client = self.start_client(user_id="u")

        def bind(device_id: str, user_id: str) -> None:
            client.bind_user("guest")

        self.listener.on_kick_user = bind  # type: ignore[method-assign]
        self.server.peer.kick("dev-1", "u")
        self.network.settle()
        self.assertEqual(self.sent(), [(BIND, "u"), (UNBIND, "u"), (BIND, "guest")])

    def test_late_kick(self) -> None:
        """
        A kick of a user who was here before does not touch the present one.
        """
        client = self.start_client(user_id="before")
        client.bind_user("now")
        self.network.settle()
        self.server.peer.kick("dev-1", "before")
        self.network.settle()
        self.assertEqual(client.user_id, "now")
        self.assertEqual(self.listener.events[-1], ("kick", "dev-1", "before"))
        self.assertEqual(self.sent()[-1], (BIND, "now"))

    def test_nobody_named(self) -> None:
        """
        A kick that names nobody means whoever is bound.
        """
        client = self.start_client(user_id="u")
        self.server.peer.kick("", "")
        self.network.settle()
        self.assertIsNone(client.user_id)
        self.assertIn(("kick", "", ""), self.listener.events)

    def test_stop(self) -> None:
        """
        With C{stop} the client tells the listener and stops.
        """
        client = self.kicked("stop")
        self.assertEqual(client.state, ClientState.STOPPED)
        self.assertEqual(
            self.listener.events[-2:],
            [
                ("kick", "dev-1", "u"),
                ("disconnected", "another device was bound to u"),
            ],
        )
        self.network.pass_time(100)
        self.assertEqual(len(self.server.peers), 1)

    def test_rebind(self) -> None:
        """
        With C{rebind} nothing happens until the next reconnect, as in Java.
        """
        client = self.kicked("rebind")
        self.assertEqual(client.user_id, "u")
        self.assertEqual(self.sent(), [(BIND, "u")])
        self.server.peer.close()
        self.network.pass_time(1)
        self.assertEqual(self.sent(), [(BIND, "u")])
