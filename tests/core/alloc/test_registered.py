"""
Tests for L{mpush_tw.core.alloc.registered}.
"""

from __future__ import annotations

from typing import Any

import attrs

from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from mpush_tw.core.alloc.registered import ASK_AGAIN, GRACE, RegisteredServers
from mpush_tw.errors import Unavailable
from mpush_tw.interfaces import IServiceListener
from tests.core.alloc.fakes import AllocTestCase, page_server, server


class RegisteredServersTests(AllocTestCase):
    """
    Following one service path.
    """

    def setUp(self) -> None:
        super().setUp()
        self.changes: list[list[str]] = []
        self.servers = RegisteredServers(
            "/cluster/cs", self.registry, self.clock, self.log, self._changed
        )

    def _changed(self) -> None:
        self.changes.append(self.ids())

    def ids(self) -> list[str]:
        """
        The nodes that are listed.
        """
        return [node.node_id for node in self.servers.nodes]

    def start(self) -> Deferred[None]:
        """
        Begin to follow.
        """
        return Deferred.fromCoroutine(self.servers.start())

    def refresh(self) -> Deferred[None]:
        """
        Ask for all of them again.
        """
        return Deferred.fromCoroutine(self.servers.refresh())

    def test_listens(self) -> None:
        """
        It is what the registry tells.
        """
        verifyObject(IServiceListener, self.servers)

    def test_found_at_start(self) -> None:
        """
        Nodes that are there already are found, sorted by their ids.
        """
        for number in (2, 1):
            self.registry.register(server(number))
        self.registry.register(page_server(3))
        self.successResultOf(self.start())
        self.assertEqual(self.changes, [["node-1", "node-2"]])

    def test_nobody_at_start(self) -> None:
        """
        Where there never was a node nothing is waited for and nothing is said.
        """
        self.successResultOf(self.start())
        self.clock.advance(10 * GRACE)
        self.assertEqual((self.changes, self.logged()), ([], []))

    def test_registry_away_at_start(self) -> None:
        """
        A start without the registry fails, and leaves no listener behind.
        """
        self.registry.away = True
        self.failureResultOf(self.start(), Unavailable)
        self.registry.register(server(1))
        self.assertEqual(self.ids(), [])

    def test_changes(self) -> None:
        """
        What comes, changes and goes is seen at once.
        """
        self.successResultOf(self.start())
        self.registry.register(server(1))
        self.registry.register(server(2))
        self.registry.register(server(2, weight=0))
        self.assertEqual(self.servers.nodes[1].attributes, {"weight": 0})
        self.registry.deregister(server(1))
        self.assertEqual(
            self.changes,
            [["node-1"], ["node-1", "node-2"], ["node-1", "node-2"], ["node-2"]],
        )

    def test_told_twice(self) -> None:
        """
        What is known already changes nothing.
        """
        self.registry.register(server(1))
        self.successResultOf(self.start())
        self.servers.service_added(server(1))
        self.successResultOf(self.refresh())
        self.assertEqual(len(self.changes), 1)

    def test_useless(self) -> None:
        """
        A node that clients cannot use is left out, and named in the log once.
        """
        bad = attrs.evolve(server(1), host="::1")
        self.registry.register(bad)
        self.registry.register(server(2))
        self.successResultOf(self.start())
        self.successResultOf(self.refresh())
        self.assertEqual(self.ids(), ["node-2"])
        (event,) = self.events
        self.assertEqual((event["node_id"], event["host"]), ("node-1", "::1"))

    def test_useless_nodes_without_end(self) -> None:
        """
        Who registers rubbish all the time fills no memory.
        """
        self.successResultOf(self.start())
        for number in range(3000):
            node = attrs.evolve(server(1), node_id=f"x{number}", port=0)
            self.servers.service_added(node)
            self.servers.service_removed(node)
        self.assertLessEqual(len(self.servers._useless), 1000)

    # ------------------------------------------------------------- refresh

    def test_refresh_finds_what_was_not_told(self) -> None:
        """
        What came or went unseen is noticed at the next look.
        """
        self.registry.register(server(1))
        self.registry.register(server(2))
        self.successResultOf(self.start())
        self.registry.forget(server(1))
        self.assertEqual(self.ids(), ["node-1", "node-2"])
        self.successResultOf(self.refresh())
        self.assertEqual(self.ids(), ["node-2"])

    def test_refresh_without_registry(self) -> None:
        """
        While the registry is away the nodes stay as they are.
        """
        self.registry.register(server(1))
        self.successResultOf(self.start())
        self.registry.away = True
        self.failureResultOf(self.refresh(), Unavailable)
        self.assertEqual(self.ids(), ["node-1"])

    def test_answer_older_than_the_news(self) -> None:
        """
        An answer that was on its way while a node left and another came does not undo
        that.
        """
        self.registry.register(server(1))
        self.registry.register(server(2))
        self.successResultOf(self.start())
        self.registry.held = []
        asked = [self.refresh(), self.refresh()]
        self.registry.deregister(server(1))
        self.registry.register(server(3))
        for answer in self.registry.held:
            answer()
        for one in asked:
            self.successResultOf(one)
        self.assertEqual(self.ids(), ["node-2", "node-3"])

    # ------------------------------------------------- the last one has gone

    def leave(self) -> None:
        """
        Have the only server leave.
        """
        self.registry.register(server(1))
        self.successResultOf(self.start())
        self.registry.deregister(server(1))

    def test_last_one_stays_for_a_while(self) -> None:
        """
        When all have vanished the last ones are listed for 30 seconds more, and not
        longer (A-2).
        """
        self.leave()
        self.clock.advance(GRACE - 0.1)
        self.assertEqual(self.ids(), ["node-1"])
        self.clock.advance(0.1)
        self.assertEqual(self.ids(), [])
        self.assertEqual(self.changes[-1], [])
        self.assertIn("clients get an empty list", self.logged()[-1])

    def test_comes_back_in_time(self) -> None:
        """
        Nodes that lost their registration for a moment are listed without a gap.
        """
        self.leave()
        self.clock.advance(GRACE / 2)
        self.registry.register(server(1))
        self.clock.advance(10 * GRACE)
        self.assertEqual(self.ids(), ["node-1"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_another_one_comes(self) -> None:
        """
        The first that comes takes the place of those that have gone.
        """
        self.leave()
        self.registry.register(server(2))
        self.assertEqual(self.ids(), ["node-2"])

    def test_registry_away_meanwhile(self) -> None:
        """
        The last ones stay listed as long as the registry cannot be asked.
        """
        self.leave()
        self.registry.away = True
        self.clock.advance(GRACE)
        for _ in range(100):
            self.clock.advance(ASK_AGAIN)
        self.assertEqual(self.ids(), ["node-1"])
        self.registry.away = False
        self.clock.advance(ASK_AGAIN)
        self.assertEqual(self.ids(), [])

    def test_registry_has_one_after_all(self) -> None:
        """
        A server that is there, although nobody told, is found instead.
        """
        self.leave()
        self.registry._nodes["/cluster/cs"]["node-2"] = server(2)
        self.clock.advance(GRACE)
        self.assertEqual(self.ids(), ["node-2"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_comes_while_it_is_asked(self) -> None:
        """
        A server that registers while the registry is asked is listed and stays.
        """
        self.leave()
        self.registry.held = []
        self.clock.advance(GRACE)
        self.registry.register(server(2))
        (answer,) = self.registry.held
        answer()
        self.assertEqual(self.ids(), ["node-2"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_broken_registry(self) -> None:
        """
        A registry with a bug in it is asked again later, and the bug is logged.
        """
        self.leave()
        broken: Any = self.registry
        lookup = broken.lookup
        broken.lookup = lambda service: 1 / 0
        self.clock.advance(GRACE)
        self.assertEqual(self.ids(), ["node-1"])
        self.assertIn("asking for servers", self.logged())
        broken.lookup = lookup
        self.clock.advance(ASK_AGAIN)
        self.assertEqual(self.ids(), [])

    # ---------------------------------------------------------------- stop

    def test_stop(self) -> None:
        """
        After a stop nothing is heard and nothing waits; the nodes stay.
        """
        self.leave()
        self.servers.stop()
        self.servers.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.registry.register(server(2))
        self.assertEqual(self.ids(), ["node-1"])

    def test_stop_while_it_is_asked(self) -> None:
        """
        An answer that comes after the stop changes nothing, nor does one that never
        comes.
        """
        self.leave()
        self.registry.held = []
        asked = self.refresh()
        self.clock.advance(GRACE)
        self.servers.stop()
        self.registry.held[0]()
        self.successResultOf(asked)
        self.assertEqual(self.ids(), ["node-1"])
        self.assertEqual(self.clock.getDelayedCalls(), [])
