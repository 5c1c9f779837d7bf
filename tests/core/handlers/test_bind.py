"""
Tests for L{mpush_tw.core.handlers.bind} (server 8.4, 8.5).
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mpush_tw.core.handlers import Dispatcher
from mpush_tw.core.handlers.bind import MAX_TAGS, MAX_USER_ID, BindHandler
from mpush_tw.errors import ProtocolError, Unavailable
from mpush_tw.interfaces import IBindValidator, UserOffline, UserOnline
from mpush_tw.protocol.commands import Command
from mpush_tw.protocol.messages import BindUser, Error, Ok
from mpush_tw.protocol.routes import RemoteRoute
from tests.core.fakes import Core, FakeConnection, start

_BOUND = Ok(Command.BIND, 0, "bind success")
_UNBOUND = Ok(Command.UNBIND, 0, "unbind success")


@implementer(IBindValidator)
class FakeValidator:
    """
    Says what the test wants.

    @ivar verdict: Returned, or raised if it is an exception.
    @ivar asked: User and data of each question.
    """

    def __init__(self) -> None:
        self.verdict: Any = True
        self.asked: list[tuple[str, str | None]] = []

    def validate(self, user_id: str, data: str | None) -> Any:
        self.asked.append((user_id, data))
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict


class BindTestCase(SynchronousTestCase):
    """
    The two handlers behind a dispatcher.
    """

    def setUp(self) -> None:
        self.core = Core()
        self.validator = FakeValidator()
        handler = BindHandler(
            self.core.router,
            self.validator,
            self.core.clock,
            self.core.log,
            self.core.metrics,
        )
        self.table = Dispatcher(self.core.log, self.core.metrics.conn)
        self.table.register(Command.BIND, handler.bind_received)
        self.table.register(Command.UNBIND, handler.unbind_received)
        self.device = FakeConnection("d1")

    def bind(
        self,
        user_id: str | None = "u",
        data: str | None = None,
        tags: str | None = None,
        device: FakeConnection | None = None,
    ) -> Deferred[None] | None:
        """
        Receive a BIND with number 2.
        """
        return self.table.dispatch(
            device or self.device, Command.BIND, 2, 0, BindUser(user_id, data, tags)
        )

    def unbind(
        self, user_id: str | None = "u", device: FakeConnection | None = None
    ) -> Deferred[None] | None:
        """
        Receive an UNBIND with number 3.
        """
        return self.table.dispatch(
            device or self.device, Command.UNBIND, 3, 0, BindUser(user_id)
        )

    def remote(self, user_id: str = "u") -> RemoteRoute | None:
        """
        The Android route of a user in the shared store.
        """
        found = start(self.core.remote.find(user_id, 1))
        return self.successResultOf(found)  # type: ignore[no-any-return]

    def heard(self) -> list[object]:
        """
        The events that were posted since the last call.
        """
        self.core.clock.advance(0)
        events = list(self.core.posted)
        self.core.posted.clear()
        return list(events)

    def assertRefused(self, answer: Error, reason: str) -> None:
        """
        The device got this one answer, then the connection was closed.
        """
        self.assertEqual(self.device.answers, [answer])
        self.assertEqual(self.device.ended, reason)
        self.assertFalse(self.device.aborted)


class BindTests(BindTestCase):
    """
    BIND.
    """

    def test_fake(self) -> None:
        """
        The validator of these tests is one.
        """
        verifyObject(IBindValidator, self.validator)

    def test_bound(self) -> None:
        """
        A BIND is answered with OK under its own number, and the context knows the user.
        """
        self.assertIsNone(self.bind("u", tags="a,b"))
        self.assertEqual(self.device.sent, [("answer", 2, _BOUND)])
        self.assertEqual((self.device.user_id, self.device.tags), ("u", "a,b"))
        self.assertTrue(self.device.connected)

    def test_routes(self) -> None:
        """
        The user is found on this connection, here and in the shared store.
        """
        self.bind()
        self.assertIs(self.core.local.lookup("u", 1), self.device)
        self.assertEqual(
            self.remote(),
            RemoteRoute("10.0.0.1", 3001, "d1", "android", "1.0", self.device.id),
        )

    def test_event(self) -> None:
        """
        That the user is online is announced.
        """
        self.bind()
        self.assertEqual(self.heard(), [UserOnline("u", self.device.id, "d1", 1)])

    def test_no_user(self) -> None:
        """
        A BIND without a user id is refused, then close.
        """
        self.bind("")
        self.assertRefused(Error(Command.BIND, 0, "invalid param"), "invalid-param")
        self.assertEqual(self.validator.asked, [])

    def test_no_user_before_the_handshake(self) -> None:
        """
        Even before the handshake it is the missing user that is complained about.
        """
        self.device.device_id = None
        self.bind(None)
        self.assertRefused(Error(Command.BIND, 0, "invalid param"), "invalid-param")

    def test_longest(self) -> None:
        """
        A user id and tags of the greatest length are taken.
        """
        user_id, tags = "u" * MAX_USER_ID, "t" * MAX_TAGS
        self.bind(user_id, tags=tags)
        self.assertEqual(self.device.answers, [_BOUND])
        self.assertEqual((self.device.user_id, self.device.tags), (user_id, tags))

    def test_user_too_long(self) -> None:
        """
        A longer user id is refused, then close; nobody is asked and nothing is kept.
        """
        user_id = "u" * (MAX_USER_ID + 1)
        self.bind(user_id)
        self.assertRefused(Error(Command.BIND, 0, "invalid param"), "invalid-param")
        self.assertEqual(self.validator.asked, [])
        self.assertEqual(self.core.cache.commands, [])
        self.assertEqual(self.core.local.lookup_all(user_id), ())

    def test_tags_too_long(self) -> None:
        """
        So are longer tags.
        """
        self.bind("u", tags="t" * (MAX_TAGS + 1))
        self.assertRefused(Error(Command.BIND, 0, "invalid param"), "invalid-param")
        self.assertIsNone(self.device.tags)
        self.assertEqual(self.core.local.lookup_all("u"), ())

    def test_tags_too_long_again(self) -> None:
        """
        Longer tags are not slipped in by a BIND of the same user either.
        """
        self.bind("u", tags="a")
        self.bind("u", tags="t" * (MAX_TAGS + 1))
        self.assertEqual(
            self.device.answers, [_BOUND, Error(Command.BIND, 0, "invalid param")]
        )
        self.assertEqual(self.device.tags, "a")
        self.assertEqual(self.device.ended, "invalid-param")

    def test_before_the_handshake(self) -> None:
        """
        A BIND before the handshake is refused, then close.
        """
        self.device.device_id = None
        self.bind()
        self.assertRefused(Error(Command.BIND, 0, "not handshake"), "not-handshake")
        self.assertIsNone(self.remote())

    def test_unreadable(self) -> None:
        """
        A BIND that cannot be read gets ERROR 100, then close.
        """
        self.table.dispatch(self.device, Command.BIND, 2, 0, ProtocolError("cut short"))
        self.assertRefused(
            Error(Command.BIND, 100, "handle message error"), "handler-failed"
        )

    def test_again(self) -> None:
        """
        A BIND of the same user is OK and replaces the tags, also by none; nobody is
        asked and nothing is announced.
        """
        self.bind("u", tags="a")
        self.heard()
        asked = len(self.core.cache.commands)
        self.bind("u")
        self.assertEqual(self.device.answers, [_BOUND, _BOUND])
        self.assertIsNone(self.device.tags)
        self.assertEqual(len(self.validator.asked), 1)
        self.assertEqual(len(self.core.cache.commands), asked)
        self.assertEqual(self.heard(), [])

    def test_another_user(self) -> None:
        """
        A BIND of another user takes the first one off the connection, with one OK for
        the BIND (S-4).
        """
        self.bind("u")
        self.bind("v")
        self.assertEqual(self.device.answers, [_BOUND, _BOUND])
        self.assertEqual(self.device.user_id, "v")
        self.assertIsNone(self.core.local.lookup("u", 1))
        self.assertIs(self.core.local.lookup("v", 1), self.device)
        old, new = self.remote("u"), self.remote("v")
        assert old is not None and new is not None
        self.assertFalse(old.online)
        self.assertTrue(new.online)

    def test_another_user_announced(self) -> None:
        """
        First the old user's end is announced, then the new one's beginning.
        """
        self.bind("u")
        self.heard()
        self.bind("v")
        self.assertEqual(
            self.heard(),
            [
                UserOffline("u", self.device.id, "d1", 1, False),
                UserOnline("v", self.device.id, "d1", 1),
            ],
        )

    def test_another_user_refused(self) -> None:
        """
        If the other user is refused, the first one is off the connection all the same.
        """
        self.bind("u")
        self.validator.verdict = False
        self.bind("v")
        self.assertEqual(
            self.device.answers, [_BOUND, Error(Command.BIND, 0, "bind failed")]
        )
        self.assertIsNone(self.core.local.lookup("u", 1))

    def test_another_user_and_the_store_stumbles(self) -> None:
        """
        When the first user's route could not be ended in the store, the BIND goes on.
        """
        self.bind("u")

        async def unavailable(*args: object) -> bool:
            raise Unavailable("redis")

        self.patch(self.core.remote, "mark_offline", unavailable)
        self.bind("v")
        self.assertEqual(self.device.answers, [_BOUND, _BOUND])
        self.assertEqual(self.device.user_id, "v")

    def test_validator(self) -> None:
        """
        The validator is asked about the user, with the text of the BIND.
        """
        self.bind("u", "secret")
        self.assertEqual(self.validator.asked, [("u", "secret")])

    def test_refused(self) -> None:
        """
        A user whom the validator does not want gets C{bind failed}, then close.
        """
        self.validator.verdict = False
        self.bind()
        self.assertRefused(Error(Command.BIND, 0, "bind failed"), "bind-failed")
        self.assertIsNone(self.device.user_id)
        self.assertIsNone(self.remote())
        self.assertEqual(self.heard(), [])

    def test_refusal_harms_nobody(self) -> None:
        """
        A refused BIND leaves the routes of the real user alone (S-2).
        """
        real = FakeConnection("real")
        self.bind(device=real)
        self.validator.verdict = False
        self.bind()
        self.assertIs(self.core.local.lookup("u", 1), real)
        route = self.remote()
        assert route is not None
        self.assertEqual(route.connection_id, real.id)
        self.assertEqual(real.sent, [("answer", 2, _BOUND)])

    def test_validator_raises(self) -> None:
        """
        A validator that fails ends in ERROR 100, then close.
        """
        self.validator.verdict = ZeroDivisionError()
        self.bind()
        self.assertRefused(
            Error(Command.BIND, 100, "handle message error"), "handler-failed"
        )

    def test_validator_takes_its_time(self) -> None:
        """
        While the validator thinks nothing is answered and the next packet waits.
        """
        verdict: Deferred[bool] = Deferred()
        self.validator.verdict = verdict
        waiting = self.bind()
        assert waiting is not None
        self.assertEqual(self.device.sent, [])
        self.assertIsNone(self.remote())
        verdict.callback(True)
        self.assertEqual(self.device.answers, [_BOUND])
        self.successResultOf(waiting)

    def test_validator_is_a_coroutine(self) -> None:
        """
        A validator may be an C{async def}.
        """

        async def think(answer: bool) -> bool:
            return answer

        self.validator.verdict = think(True)
        self.bind("u")
        self.assertEqual(self.device.user_id, "u")
        self.validator.verdict = think(False)
        self.bind("v")
        self.assertNotEqual(self.device.user_id, "v")

    def test_validator_says_no_later(self) -> None:
        """
        A late no is a no.
        """
        self.validator.verdict = succeed(False)
        self.bind()
        self.assertRefused(Error(Command.BIND, 0, "bind failed"), "bind-failed")

    def test_validator_fails_later(self) -> None:
        """
        A late failure is one: ERROR 100, then close.
        """
        self.validator.verdict = fail(ZeroDivisionError())
        self.bind()
        self.assertRefused(
            Error(Command.BIND, 100, "handle message error"), "handler-failed"
        )

    def test_validator_never_answers(self) -> None:
        """
        After ten seconds the validator counts as failed, and is told.
        """
        cancelled: list[object] = []
        self.validator.verdict = Deferred(cancelled.append)
        self.bind()
        self.core.clock.advance(9.9)
        self.assertEqual(self.device.sent, [])
        self.core.clock.advance(0.2)
        self.assertRefused(
            Error(Command.BIND, 100, "handle message error"), "handler-failed"
        )
        self.assertEqual(len(cancelled), 1)

    def test_store_is_down(self) -> None:
        """
        When the store does not take the route the BIND fails, and nothing of it remains
        (S-3).
        """
        self.core.cache.down = True
        self.bind()
        self.assertRefused(Error(Command.BIND, 0, "bind failed"), "bind-failed")
        self.assertEqual(self.core.local.lookup_all("u"), ())
        self.assertIsNone(self.device.user_id)
        self.assertEqual(self.heard(), [])

    def test_gone_while_the_validator_thought(self) -> None:
        """
        A device that left meanwhile is bound nowhere.
        """
        verdict: Deferred[bool] = Deferred()
        self.validator.verdict = verdict
        self.bind()
        self.device.ended = "peer"
        verdict.callback(True)
        self.assertEqual(self.core.local.lookup_all("u"), ())
        route = self.remote()
        self.assertTrue(route is None or not route.online)
        self.assertEqual(self.heard(), [])

    def test_gone_while_the_validator_thought_of_another(self) -> None:
        """
        A device that left meanwhile takes the user from nobody: who has it keeps both
        routes, hears of no KICK, and the store is not asked.
        """
        real = FakeConnection("real")
        self.bind(device=real)
        self.heard()
        self.core.cache.commands.clear()
        verdict: Deferred[bool] = Deferred()
        self.validator.verdict = verdict
        waiting = self.bind()
        assert waiting is not None
        self.device.ended = "peer"
        verdict.callback(True)
        self.successResultOf(waiting)
        self.assertEqual(self.core.cache.commands, [])
        self.assertEqual(self.core.local.lookup_all("u"), (real,))
        route = self.remote()
        assert route is not None
        self.assertEqual(route.connection_id, real.id)
        self.assertEqual(real.sent, [("answer", 2, _BOUND)])
        self.assertEqual(self.heard(), [])
        self.assertEqual(self.core.metrics.binds, {"success": 1})

    def test_token_is_not_logged(self) -> None:
        """
        What the validator takes as proof does not end up in the log.
        """
        self.bind("u", "my-token")
        self.assertNotIn("my-token", repr(self.core.logged))

    def test_counted(self) -> None:
        """
        Each way to end is counted.
        """
        self.bind("u")
        self.bind("u")
        self.validator.verdict = False
        self.bind("v")
        self.assertEqual(
            self.core.metrics.binds, {"success": 1, "rebind": 1, "refused": 1}
        )


class UnbindTests(BindTestCase):
    """
    UNBIND.
    """

    def setUp(self) -> None:
        super().setUp()
        self.bind("u", tags="a")
        self.heard()
        self.device.sent.clear()

    def test_unbound(self) -> None:
        """
        An UNBIND is answered with OK, and the user is gone from the context.
        """
        self.unbind()
        self.assertEqual(self.device.sent, [("answer", 3, _UNBOUND)])
        self.assertIsNone(self.device.user_id)
        self.assertIsNone(self.device.tags)
        self.assertTrue(self.device.connected)

    def test_routes(self) -> None:
        """
        The local route is gone; the one in the store says offline, and is kept.
        """
        self.unbind()
        self.assertEqual(self.core.local.lookup_all("u"), ())
        self.assertEqual(
            self.remote(), RemoteRoute("10.0.0.1", 3001, "d1", "android", "1.0", None)
        )

    def test_event(self) -> None:
        """
        That the user has gone is announced.
        """
        self.unbind()
        self.assertEqual(
            self.heard(), [UserOffline("u", self.device.id, "d1", 1, False)]
        )

    def test_whoever_is_named(self) -> None:
        """
        It is the connection's user who is unbound, whoever the message names.
        """
        other = FakeConnection("d2")
        self.bind("v", device=other)
        self.unbind("v")
        self.assertIsNone(self.device.user_id)
        self.assertIs(self.core.local.lookup("v", 1), other)
        self.assertEqual(self.core.local.lookup_all("u"), ())

    def test_no_user(self) -> None:
        """
        An UNBIND that names nobody is refused, then close.
        """
        self.unbind("")
        self.assertRefused(Error(Command.UNBIND, 0, "invalid param"), "invalid-param")

    def test_too_long(self) -> None:
        """
        So is one that names a user longer than there are.
        """
        self.unbind("u" * (MAX_USER_ID + 1))
        self.assertRefused(Error(Command.UNBIND, 0, "invalid param"), "invalid-param")

    def test_before_the_handshake(self) -> None:
        """
        So is one before the handshake.
        """
        self.device = FakeConnection(None)
        self.unbind()
        self.assertRefused(Error(Command.UNBIND, 0, "not handshake"), "not-handshake")

    def test_twice(self) -> None:
        """
        A second UNBIND is OK too, and announces nothing (S-6).
        """
        self.unbind()
        self.heard()
        self.unbind()
        self.assertEqual(self.device.answers, [_UNBOUND, _UNBOUND])
        self.assertEqual(self.heard(), [])

    def test_kicked(self) -> None:
        """
        A device that was kicked and unbinds does not take the newer one's routes (S-5).
        """
        newer = FakeConnection("d2")
        self.bind(device=newer)
        self.heard()
        self.unbind()
        self.assertEqual(self.device.answers, [_UNBOUND])
        self.assertIs(self.core.local.lookup("u", 1), newer)
        route = self.remote()
        assert route is not None
        self.assertEqual(route.connection_id, newer.id)
        self.assertEqual(
            self.heard(), [UserOffline("u", self.device.id, "d1", 1, True)]
        )

    def test_same_device_on_a_newer_connection(self) -> None:
        """
        Neither does the same device's own older connection (S-14).
        """
        newer = FakeConnection("d1")
        self.bind(device=newer)
        self.unbind()
        self.assertIs(self.core.local.lookup("u", 1), newer)
        route = self.remote()
        assert route is not None
        self.assertEqual(route.connection_id, newer.id)

    def test_store_is_down(self) -> None:
        """
        When the store is down the UNBIND fails, and the connection stays.
        """
        self.core.cache.down = True
        self.unbind()
        self.assertEqual(
            self.device.answers, [Error(Command.UNBIND, 0, "unbind failed")]
        )
        self.assertTrue(self.device.connected)
        self.assertEqual(self.core.local.lookup_all("u"), ())

    def test_bind_again(self) -> None:
        """
        After an UNBIND the device can be bound again.
        """
        self.unbind()
        self.bind("v")
        self.assertEqual(self.device.answers, [_UNBOUND, _BOUND])
        self.assertIs(self.core.local.lookup("v", 1), self.device)
