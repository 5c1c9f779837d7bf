"""
Tests for L{mpush_tw.core.routing.remote} (server 11.3, cluster 2.3).
"""

from __future__ import annotations

import json

import attrs

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.errors import Unavailable
from mpush_tw.protocol.routes import RemoteRoute
from tests.core.fakes import Core, start
from tests.support import VECTORS

_ROUTE = RemoteRoute("10.0.0.1", 3001, "d1", "android", "1.0", "0a1b2c3d")


class RemoteRouteTests(SynchronousTestCase):
    """
    A route as it is stored.
    """

    def test_text(self) -> None:
        """
        The members stand in the order in which the original writes them.
        """
        self.assertEqual(
            _ROUTE.encode(),
            '{"port":3001,"host":"10.0.0.1","deviceId":"d1","osName":"android",'
            '"clientVersion":"1.0","connId":"0a1b2c3d"}',
        )

    def test_absent_members(self) -> None:
        """
        What a device did not tell is left out, and so is the connection when offline.
        """
        route = RemoteRoute("10.0.0.1", 3001, None, "unknown", None, None)
        self.assertEqual(
            route.encode(), '{"port":3001,"host":"10.0.0.1","osName":"unknown"}'
        )
        self.assertFalse(route.online)

    def test_read_back(self) -> None:
        """
        A route is read as it was written.
        """
        self.assertEqual(RemoteRoute.decode(_ROUTE.encode()), _ROUTE)
        self.assertTrue(_ROUTE.online)

    def test_quotes(self) -> None:
        """
        Quotes in what a device says of itself forge nothing (S-26).
        """
        route = RemoteRoute("10.0.0.1", 1, 'd","host":"evil', "o", None, "c")
        self.assertEqual(json.loads(route.encode())["host"], "10.0.0.1")
        self.assertEqual(RemoteRoute.decode(route.encode()), route)

    def test_unreadable(self) -> None:
        """
        What is no route is none.
        """
        for text in ("", "x", "[]", "null", "{}", '{"port":"x"}', "[" * 100000):
            self.assertIsNone(RemoteRoute.decode(text), text[:20])

    def test_unknown_members(self) -> None:
        """
        Members that we do not know do no harm.
        """
        text = _ROUTE.encode()[:-1] + ',"more":[1]}'
        self.assertEqual(RemoteRoute.decode(text), _ROUTE)

    def test_recorded(self) -> None:
        """
        Every route that the original wrote can be read, and is written the same.
        """
        recorded = (VECTORS / "redis-zk.json").read_text()
        texts = {
            text
            for text in _strings(json.loads(recorded))
            if text.startswith('{"port":') and '"host"' in text and "osName" in text
        }
        self.assertGreater(len(texts), 0)
        for text in texts:
            route = RemoteRoute.decode(text)
            assert route is not None, text
            self.assertEqual(json.loads(route.encode()), json.loads(text))


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [text for item in value for text in _strings(item)]
    return []


class RemoteRoutesTests(SynchronousTestCase):
    """
    Routes in the store.
    """

    def setUp(self) -> None:
        self.core = Core()
        self.routes = self.core.remote

    def register(self, route: RemoteRoute = _ROUTE, client_type: int = 1) -> object:
        """
        Write a route of user C{u}.
        """
        writing = start(self.routes.register("u", client_type, route))
        return self.successResultOf(writing)  # type: ignore[no-any-return]

    def find(self, client_type: int = 1) -> RemoteRoute | None:
        """
        Read a route of user C{u}.
        """
        finding = start(self.routes.find("u", client_type))
        return self.successResultOf(finding)  # type: ignore[no-any-return]

    def test_key(self) -> None:
        """
        A route is a field, named by the client type, of the user's hash.
        """
        self.register(client_type=-1)
        text = self.successResultOf(self.core.cache.hget("mp:ur:u", "-1"))
        self.assertEqual(text, _ROUTE.encode())

    def test_order_of_commands(self) -> None:
        """
        The store is asked once: it reads, then writes, in one step (C-2).
        """
        self.register()
        self.assertEqual(self.core.cache.commands, [("hswap", "mp:ur:u")])

    def test_replaced(self) -> None:
        """
        Who registers learns what was there before, online or not.
        """
        other = RemoteRoute("10.0.0.2", 3001, "d2", "ios", "2", None)
        self.assertIsNone(self.register(other))
        self.assertEqual(self.register(), other)
        self.assertEqual(self.find(), _ROUTE)

    def test_none(self) -> None:
        """
        A user without a route has none.
        """
        self.assertIsNone(self.find())
        self.assertEqual(self.successResultOf(start(self.routes.find_all("u"))), [])

    def test_all(self) -> None:
        """
        All routes of a user are found, offline ones too; unreadable ones are not.
        """
        offline = RemoteRoute("10.0.0.2", 3001, "d2", "windows", "2", None)
        self.register()
        self.register(offline, 2)
        self.core.cache.hset("mp:ur:u", "3", "rubbish")
        found = self.successResultOf(start(self.routes.find_all("u")))
        self.assertEqual(found, [_ROUTE, offline])

    def test_offline(self) -> None:
        """
        Going offline takes the connection out and keeps the rest.
        """
        self.register()
        marked = start(self.routes.mark_offline("u", 1, _ROUTE))
        self.assertTrue(self.successResultOf(marked))
        self.assertEqual(
            self.find(), RemoteRoute("10.0.0.1", 3001, "d1", "android", "1.0", None)
        )

    def test_not_ours(self) -> None:
        """
        A route that names another connection stays (S-14).
        """
        self.register()
        other = attrs.evolve(_ROUTE, connection_id="ffffffff")
        marked = start(self.routes.mark_offline("u", 1, other))
        self.assertFalse(self.successResultOf(marked))
        self.assertEqual(self.find(), _ROUTE)

    def test_other_words(self) -> None:
        """
        A route that was written in another order, with members of its own, is ended as
        well: it names the same connection.
        """
        text = (
            '{"connId":"0a1b2c3d","clientVersion":"1.0","deviceId":"d1","more":1,'
            '"host":"10.0.0.1","osName":"android","port":3001}'
        )
        self.core.cache.hset("mp:ur:u", "1", text)
        marked = start(self.routes.mark_offline("u", 1, _ROUTE))
        self.assertTrue(self.successResultOf(marked))
        self.assertEqual(self.find(), _ROUTE.ended())

    def test_found_route(self) -> None:
        """
        A route that was read can be ended however it was written.
        """
        text = _ROUTE.encode().replace(":", ": ")
        self.core.cache.hset("mp:ur:u", "1", text)
        found = self.find()
        assert found is not None
        self.core.cache.commands.clear()
        marked = start(self.routes.mark_offline("u", 1, found))
        self.assertTrue(self.successResultOf(marked))
        self.assertEqual(self.core.cache.commands, [("hset_if", "mp:ur:u")])

    def test_offline_already(self) -> None:
        """
        A route that is offline is not written again, nor is one that is not there.
        """
        for _ in range(2):
            marked = start(self.routes.mark_offline("u", 1, _ROUTE))
            self.assertFalse(self.successResultOf(marked))
            self.register(_ROUTE.ended())
        self.assertEqual(self.find(), _ROUTE.ended())

    def give_back(self, route: RemoteRoute, old: RemoteRoute | None) -> None:
        """
        Undo a registration for user C{u}.
        """
        self.successResultOf(start(self.routes.give_back("u", 1, route, old)))

    def test_given_back(self) -> None:
        """
        A registration that came to nothing is undone: the route is who had it before.
        """
        self.register()
        newer = attrs.evolve(_ROUTE, device_id="d2", connection_id="ffff0000")
        old = self.register(newer)
        assert isinstance(old, RemoteRoute)
        self.give_back(newer, old)
        self.assertEqual(self.find(), _ROUTE)

    def test_given_back_to_nobody(self) -> None:
        """
        If nobody had it before, the route says offline.
        """
        self.register()
        self.give_back(_ROUTE, None)
        self.assertEqual(self.find(), attrs.evolve(_ROUTE, connection_id=None))

    def test_not_given_back(self) -> None:
        """
        A route that another connection has taken since stays with that one.
        """
        self.register()
        newer = attrs.evolve(_ROUTE, device_id="d2", connection_id="ffff0000")
        self.register(newer)
        self.give_back(_ROUTE, None)
        self.assertEqual(self.find(), newer)

    def test_nothing_to_give_back(self) -> None:
        """
        Without a route there is nothing to undo, and nothing is written.
        """
        self.give_back(_ROUTE, _ROUTE)
        self.assertIsNone(self.find())

    def restore(self) -> object:
        """
        See that the route of user C{u} is there.
        """
        restoring = start(self.routes.restore("u", 1, _ROUTE))
        return self.successResultOf(restoring)  # type: ignore[no-any-return]

    def test_restored(self) -> None:
        """
        A route that is missing, offline or damaged is written again.
        """
        for text in (None, _ROUTE.ended().encode(), "{damaged"):
            self.core.cache.delete("mp:ur:u")
            if text is not None:
                self.core.cache.hset("mp:ur:u", "1", text)
            self.assertIsNone(self.restore())
            self.assertEqual(self.find(), _ROUTE)

    def test_nothing_to_restore(self) -> None:
        """
        A route that is there is not written again.
        """
        self.register()
        self.core.cache.commands.clear()
        self.assertIsNone(self.restore())
        self.assertEqual(self.core.cache.commands, [("hget", "mp:ur:u")])

    def test_somebody_else_has_it(self) -> None:
        """
        A route that another node has taken stays, and is named.
        """
        other = attrs.evolve(_ROUTE, host="10.0.0.2", connection_id="ffff0000")
        self.register(other)
        self.assertEqual(self.restore(), other)
        self.assertEqual(self.find(), other)

    def test_unreadable(self) -> None:
        """
        A damaged entry counts as none and is overwritten.
        """
        self.core.cache.hset("mp:ur:u", "1", "{damaged")
        self.assertIsNone(self.find())
        self.assertIsNone(self.register())
        self.assertEqual(self.find(), _ROUTE)

    def test_store_is_down(self) -> None:
        """
        When the store is down, every question says so.
        """
        self.core.cache.down = True
        for question in (
            start(self.routes.find("u", 1)),
            start(self.routes.find_all("u")),
            start(self.routes.register("u", 1, _ROUTE)),
            start(self.routes.mark_offline("u", 1, _ROUTE)),
            start(self.routes.restore("u", 1, _ROUTE)),
        ):
            self.failureResultOf(question, Unavailable)
