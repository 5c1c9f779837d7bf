"""
Tests for L{mpush_tw.core.routing.online} (server 12).
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.routing.online import OFFLINE_TOPIC, ONLINE_TOPIC
from mpush_tw.interfaces import ServerStarted, UserOffline, UserOnline
from tests.core.fakes import Core, start


class OnlineUsersTests(SynchronousTestCase):
    """
    The list of who is online here, and what is announced of it.
    """

    def setUp(self) -> None:
        self.core = Core()
        self.online = self.core.online
        self.published: list[tuple[str, str]] = []
        for topic in (ONLINE_TOPIC, OFFLINE_TOPIC):
            self.core.queue.subscribe(
                topic, lambda topic, text: self.published.append((topic, text))
            )

    def comes(self, user_id: str = "u") -> Deferred[None]:
        """
        Tell that a user came online.
        """
        done = self.online.event_occurred(UserOnline(user_id, "c1", "d1", 1))
        assert done is not None
        return done

    def goes(self, user_id: str = "u", still_here: bool = False) -> Deferred[None]:
        """
        Tell that a user went offline.
        """
        done = self.online.event_occurred(
            UserOffline(user_id, "c1", "d1", 1, still_here)
        )
        assert done is not None
        return done

    def listed(self) -> list[str]:
        """
        Who is on the list.
        """
        listed = self.online.page(0, -1)
        return self.successResultOf(listed)  # type: ignore[no-any-return]

    def announced(self) -> list[tuple[str, str]]:
        """
        What has been published since the last call.
        """
        self.core.clock.advance(0)
        published = list(self.published)
        self.published.clear()
        return published

    def test_online(self) -> None:
        """
        Who comes is listed and announced by the bare user id.
        """
        self.comes()
        self.assertEqual(self.listed(), ["u"])
        self.assertEqual(self.announced(), [("/mpush/online/", "u")])

    def test_key(self) -> None:
        """
        The list is named after the node's public address.
        """
        self.comes()
        count = self.core.cache.zcard("mp:oul:203.0.113.1")
        self.assertEqual(self.successResultOf(count), 1)

    def test_offline(self) -> None:
        """
        Who goes is taken off and announced.
        """
        self.comes()
        self.announced()
        self.goes()
        self.assertEqual(self.listed(), [])
        self.assertEqual(self.announced(), [("/mpush/offline/", "u")])

    def test_other_device_still_here(self) -> None:
        """
        A user with another device here stays listed, and nothing is announced (S-5).
        """
        self.comes()
        self.announced()
        self.goes(still_here=True)
        self.assertEqual(self.listed(), ["u"])
        self.assertEqual(self.announced(), [])

    def test_online_elsewhere(self) -> None:
        """
        A user who is online on another node leaves this list without being announced
        as offline (S-5).
        """
        self.comes()
        self.announced()
        start(self.core.remote.register("u", 2, self.core.route(self.core.elsewhere)))
        self.goes()
        self.assertEqual(self.listed(), [])
        self.assertEqual(self.announced(), [])

    def test_offline_elsewhere(self) -> None:
        """
        Routes that say offline keep nobody online.
        """
        self.comes()
        self.announced()
        start(
            self.core.remote.register(
                "u", 2, self.core.route(self.core.elsewhere, None)
            )
        )
        self.goes()
        self.assertEqual(self.announced(), [("/mpush/offline/", "u")])

    def test_counted(self) -> None:
        """
        The list can be counted and read in pages.
        """
        for number in range(5):
            self.comes(f"u{number}")
        self.assertEqual(self.successResultOf(self.online.count()), 5)
        page = self.successResultOf(self.online.page(1, 2))
        self.assertEqual(page, ["u1", "u2"])

    def test_cleared(self) -> None:
        """
        At start and at the end of a stop the list is emptied.
        """
        self.comes()
        self.successResultOf(self.online.clear())
        self.assertEqual(self.listed(), [])

    def test_other_events(self) -> None:
        """
        Other events do not concern the list.
        """
        self.assertIsNone(self.online.event_occurred(ServerStarted()))

    def test_order(self) -> None:
        """
        What happens to a user is written in the order in which it happened, however
        slow the store (S-21).
        """
        self.core.cache.slow = True
        self.comes()
        self.goes()
        self.comes()
        self.assertEqual(len(self.core.cache.commands), 1)
        self.core.cache.release()
        self.assertEqual(
            [name for name, _ in self.core.cache.commands],
            ["zadd", "zrem", "hgetall", "zadd"],
        )
        self.assertEqual(self.listed(), ["u"])
        self.assertEqual(
            self.announced(),
            [
                ("/mpush/online/", "u"),
                ("/mpush/offline/", "u"),
                ("/mpush/online/", "u"),
            ],
        )

    def test_users_do_not_wait_for_each_other(self) -> None:
        """
        The store is asked for one user although another one still waits.
        """
        self.core.cache.slow = True
        self.comes("u")
        self.core.cache.slow = False
        self.comes("v")
        self.assertEqual(self.announced(), [("/mpush/online/", "v")])

    def test_nobody_is_remembered(self) -> None:
        """
        When all is written nothing is kept of it.
        """
        self.comes()
        self.goes()
        self.assertEqual(self.online._waiting, {})

    def test_store_is_down(self) -> None:
        """
        A store that is down is logged, and what comes later is written.
        """
        self.core.cache.down = True
        self.successResultOf(self.comes())
        self.assertIn("online list of {user_id} not updated", self.core.texts())
        self.core.cache.down = False
        self.comes()
        self.assertEqual(self.listed(), ["u"])

    def test_store_fails_while_others_wait(self) -> None:
        """
        What waited behind a command that failed is done all the same.
        """
        self.core.cache.slow = True
        self.core.cache.fails.add("zadd")
        self.comes()
        self.core.cache.fails.clear()
        self.goes()
        self.comes()
        self.core.cache.release()
        self.assertEqual(self.listed(), ["u"])
