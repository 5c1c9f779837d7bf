"""
Tests for L{mpush_tw.core.alloc.allocation} and L{mpush_tw.core.alloc.counts}.
"""

from __future__ import annotations

from collections import Counter
from random import Random

import attrs

from twisted.internet.defer import Deferred

from mpush_tw.core.alloc import Allocation, Listed, make_strategy
from mpush_tw.core.alloc.registered import GRACE
from mpush_tw.errors import Unavailable
from tests.core.alloc.fakes import AllocTestCase, page_server, server

REFRESH = 300.0
COUNT = 15.0


class AllocationTestCase(AllocTestCase):
    """
    An allocation with three servers, which have 30, 10 and 20 users.
    """

    strategy = "online"
    max_servers = 0

    def setUp(self) -> None:
        super().setUp()
        random = Random(20261125)
        self.allocation = Allocation(
            self.registry,
            self.cache,
            lambda: make_strategy(self.strategy, random),
            self.clock,
            self.log,
            refresh_interval=REFRESH,
            count_interval=COUNT,
            max_servers=self.max_servers,
        )
        for number, users in ((1, 30), (2, 10), (3, 20)):
            self.registry.register(server(number))
            self.cache.bring(f"10.0.0.{number}", users)

    def start(self) -> Deferred[None]:
        """
        Begin to look.
        """
        self.addCleanup(self.allocation.stop)
        return Deferred.fromCoroutine(self.allocation.start())

    def answer(self) -> list[int]:
        """
        Ask as a client does: the last numbers of the addresses.
        """
        text = self.allocation.connect.hand_out()
        return [
            int(one.partition(":")[0].rpartition(".")[2]) for one in text.split(",")
        ]

    def quiet_answer(self) -> list[int]:
        """
        Ask right after a count.
        """
        self.clock.advance(COUNT)
        return self.answer()


class ListTests(AllocationTestCase):
    """
    The list.
    """

    def test_before_the_start(self) -> None:
        """
        Before anything is known the list is empty.
        """
        self.assertEqual(self.allocation.connect.hand_out(), "")

    def test_text(self) -> None:
        """
        The list has the fewest users first, commas between, nothing around.
        """
        self.successResultOf(self.start())
        self.assertEqual(
            self.allocation.connect.hand_out(),
            "10.0.0.2:3000,10.0.0.3:3000,10.0.0.1:3000",
        )

    def test_registry_away(self) -> None:
        """
        Without the registry there is no start, and nothing is left behind by it.
        """
        self.registry.away = True
        self.failureResultOf(self.start(), Unavailable)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_comes_and_goes(self) -> None:
        """
        A server that comes is listed at once, with its users counted, one that goes is
        not listed any more.
        """
        self.successResultOf(self.start())
        self.cache.bring("10.0.0.4", 25)
        self.registry.register(server(4))
        self.registry.deregister(server(2))
        self.assertEqual(self.answer(), [3, 4, 1])

    def test_drain(self) -> None:
        """
        A server of weight 0 is off the list at once, and back with a weight.
        """
        self.successResultOf(self.start())
        self.registry.register(server(2, weight=0))
        self.assertEqual(self.answer(), [3, 1])
        self.registry.register(server(2, weight=1))
        self.assertEqual(self.quiet_answer(), [2, 3, 1])

    def test_all_drained(self) -> None:
        """
        If all are taken off the list it is empty at once: that was somebody's will.
        """
        self.successResultOf(self.start())
        for number in (1, 2, 3):
            self.registry.register(server(number, weight=0))
        self.assertEqual(self.allocation.connect.hand_out(), "")

    def test_weights(self) -> None:
        """
        A heavy server may have more users.
        """
        self.registry.register(server(1, weight=4))
        self.successResultOf(self.start())
        self.assertEqual(self.answer(), [1, 2, 3])

    def test_registered_twice(self) -> None:
        """
        A server that was restarted, and whose old registration has not vanished yet, is
        listed once.
        """
        self.registry.register(attrs.evolve(server(2), node_id="older"))
        self.successResultOf(self.start())
        self.assertEqual(self.answer(), [2, 3, 1])
        self.registry.deregister(attrs.evolve(server(2), node_id="older"))
        self.assertEqual(self.quiet_answer(), [2, 3, 1])

    def test_restarted_to_be_drained(self) -> None:
        """
        A server that was restarted with weight 0 is off the list, although its old
        registration has not vanished yet, whichever of the two is read first.
        """
        for node_id in ("a", "z"):
            drained = attrs.evolve(server(2, weight=0), node_id=node_id)
            self.registry.register(drained)
            self.successResultOf(self.start())
            self.assertEqual(self.answer(), [3, 1])
            self.allocation.stop()
            self.registry.deregister(drained)

    def test_all_vanished(self) -> None:
        """
        When all have vanished the list ends after a while, and begins anew with the
        next that comes (C-48).
        """
        self.successResultOf(self.start())
        for number in (1, 2, 3):
            self.registry.deregister(server(number))
        self.assertEqual(len(self.answer()), 1)
        self.clock.advance(GRACE)
        self.assertEqual(self.allocation.connect.hand_out(), "")
        self.registry.register(server(3))
        self.assertEqual(self.answer(), [3])

    def test_for_programs(self) -> None:
        """
        Programs get the same servers with what is known of them.
        """
        self.registry.register(server(3, weight=0.5))
        self.successResultOf(self.start())
        self.assertEqual(
            self.allocation.connect.listed(),
            [
                Listed("10.0.0.2", 3000, 10, 1.0, "node-2"),
                Listed("10.0.0.1", 3000, 30, 1.0, "node-1"),
                Listed("10.0.0.3", 3000, 20, 0.5, "node-3"),
            ],
        )

    def test_programs_go_nowhere(self) -> None:
        """
        That a program looks at the list does not count as a client on its way.
        """
        self.successResultOf(self.start())
        for _ in range(100):
            self.allocation.connect.listed()
        self.assertEqual(self.answer(), [2, 3, 1])

    def test_online(self) -> None:
        """
        The users of each server can be shown.
        """
        self.successResultOf(self.start())
        shown = {one.host: count for one, count in self.allocation.online()}
        self.assertEqual(shown, {"10.0.0.1": 30, "10.0.0.2": 10, "10.0.0.3": 20})


class ShortListTests(AllocationTestCase):
    """
    C{max-servers}.
    """

    max_servers = 2

    def test_best(self) -> None:
        """
        Only the best are named.
        """
        self.successResultOf(self.start())
        self.assertEqual(self.answer(), [2, 3])
        self.assertEqual(len(self.allocation.connect.listed()), 2)


class TurnsTests(AllocationTestCase):
    """
    Each list has its own strategy.
    """

    strategy = "round-robin"

    def test_turns(self) -> None:
        """
        What is asked for web pages takes no turn of the devices.
        """
        self.successResultOf(self.start())
        answers = []
        for _ in range(3):
            answers.append(self.answer()[0])
            self.allocation.websocket.hand_out()
        self.assertEqual(answers, [1, 2, 3])


class WebSocketTests(AllocationTestCase):
    """
    The list for web pages.
    """

    def pages(self) -> str:
        """
        Ask as a web page does.
        """
        return self.allocation.websocket.hand_out()

    def test_apart(self) -> None:
        """
        Web pages get WebSocket servers and devices connection servers.
        """
        for number in (1, 3):
            self.registry.register(page_server(number))
        self.successResultOf(self.start())
        self.assertEqual(self.pages(), "10.0.0.3:3004,10.0.0.1:3004")
        self.assertEqual(self.answer(), [2, 3, 1])

    def test_none(self) -> None:
        """
        Without WebSocket servers that list is empty.
        """
        self.successResultOf(self.start())
        self.assertEqual(self.pages(), "")

    def test_drain(self) -> None:
        """
        A node that is drained gets no web pages either: its WebSocket server has no
        weight of its own.
        """
        for number in (1, 3):
            self.registry.register(page_server(number))
        self.successResultOf(self.start())
        self.registry.register(server(3, weight=0))
        self.assertEqual(self.pages(), "10.0.0.1:3004")

    def test_drain_node_of_the_original(self) -> None:
        """
        The same for a node that has an id for each server: its host tells.
        """
        for number in (1, 3):
            self.registry.register(page_server(number, f"other-{number}"))
        self.registry.register(server(3, weight=0))
        self.successResultOf(self.start())
        self.assertEqual(self.pages(), "10.0.0.1:3004")

    def test_two_on_a_host(self) -> None:
        """
        Of two nodes on a host one may be drained; the host is not.
        """
        self.registry.register(page_server(3, "other"))
        self.registry.register(server(3, weight=0))
        second = attrs.evolve(server(3), port=3100, node_id="node-33")
        self.registry.register(second)
        self.successResultOf(self.start())
        self.assertEqual(self.pages(), "10.0.0.3:3004")

    def test_registered_first(self) -> None:
        """
        A WebSocket server that registers before its connection server is listed, and
        has its weight when that is known.
        """
        self.successResultOf(self.start())
        self.registry.register(page_server(4))
        self.assertEqual(self.pages(), "10.0.0.4:3004")
        self.registry.register(server(4, weight=0))
        self.assertEqual(self.pages(), "")

    def test_attributes_of_its_own(self) -> None:
        """
        A WebSocket server that has attributes goes by them.
        """
        own = attrs.evolve(page_server(1), attributes={"weight": 0})
        self.registry.register(own)
        self.successResultOf(self.start())
        self.assertEqual(self.pages(), "")


class CountTests(AllocationTestCase):
    """
    Counting users.
    """

    def test_counted_again(self) -> None:
        """
        Users who come are noticed at the next count.
        """
        self.successResultOf(self.start())
        self.cache.bring("10.0.0.2", 15)
        self.clock.advance(COUNT - 1)
        self.assertEqual(self.answer()[0], 2)
        self.clock.advance(1)
        self.assertEqual(self.answer(), [3, 2, 1])

    def test_store_away(self) -> None:
        """
        While the store is away the last counts stay in use; it is said once, and once
        that it is back.
        """
        self.successResultOf(self.start())
        self.cache.away = True
        for _ in range(5):
            self.clock.advance(COUNT)
        self.assertEqual(self.answer(), [2, 3, 1])
        (line,) = self.logged()
        self.assertIn("cannot be counted", line)
        self.cache.away = False
        self.cache.bring("10.0.0.2", 100)
        self.assertEqual(self.quiet_answer(), [3, 1, 2])
        self.assertIn("can be counted again", self.logged()[-1])
        self.assertEqual(self.allocation.refreshes["no-counts"], 5)

    def test_store_away_at_start(self) -> None:
        """
        A store that is away when the counting begins only makes all equal.
        """
        self.cache.away = True
        self.successResultOf(self.start())
        self.assertEqual(self.answer(), [1, 2, 3])
        self.assertEqual(
            {one.online for one in self.allocation.connect.listed()}, {None}
        )
        self.cache.away = False
        self.assertEqual(self.quiet_answer(), [2, 3, 1])

    def test_broken_store(self) -> None:
        """
        A store with a bug in it ends nothing (A-1).
        """
        self.successResultOf(self.start())
        self.cache.away, self.cache.error = True, ZeroDivisionError()
        self.clock.advance(COUNT)
        self.assertIn("counting online users", self.logged())
        self.cache.away = False
        self.cache.bring("10.0.0.2", 100)
        self.assertEqual(self.quiet_answer(), [3, 1, 2])

    def test_shared_list(self) -> None:
        """
        Two servers behind one address share a list, which is counted once.
        """
        self.registry.register(attrs.evolve(server(2), port=3100, node_id="second"))
        self.successResultOf(self.start())
        self.assertEqual(len(self.cache.counted), 3)
        self.assertEqual(
            self.allocation.connect.hand_out(),
            "10.0.0.2:3000,10.0.0.2:3100,10.0.0.3:3000,10.0.0.1:3000",
        )

    def test_forgotten(self) -> None:
        """
        Counts of servers that have gone are not kept.
        """
        self.successResultOf(self.start())
        for number in range(100, 200):
            self.registry.register(server(number))
            self.registry.deregister(server(number))
        self.clock.advance(COUNT)
        self.assertEqual(len(self.allocation._counts._counts), 3)


class RefreshTests(AllocationTestCase):
    """
    Looking at the whole registry now and then.
    """

    def test_unseen_change(self) -> None:
        """
        A server whose going nobody told leaves the list after five minutes.
        """
        self.successResultOf(self.start())
        self.registry.forget(server(2))
        for _ in range(20):
            self.clock.advance(COUNT)
        self.assertEqual(self.answer(), [3, 1])

    def test_registry_away(self) -> None:
        """
        While the registry is away the list stays, and refreshing goes on (A-1).
        """
        self.successResultOf(self.start())
        self.registry.away = True
        for _ in range(40):
            self.clock.advance(COUNT)
        self.assertEqual(self.answer(), [2, 3, 1])
        self.assertEqual(self.allocation.refreshes["no-registry"], 2)
        self.registry.away = False
        self.registry.forget(server(2))
        for _ in range(20):
            self.clock.advance(COUNT)
        self.assertEqual(self.answer(), [3, 1])

    def test_stop(self) -> None:
        """
        After a stop nothing is left to be done, and the last list stays readable.
        """
        self.successResultOf(self.start())
        self.allocation.stop()
        self.allocation.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.answer(), [2, 3, 1])

    def test_stop_during_start(self) -> None:
        """
        A stop while the registry is being asked starts nothing later.
        """
        self.registry.held = []
        starting = self.start()
        self.registry.held.pop(0)()
        self.allocation.stop()
        self.registry.held.pop(0)()
        self.successResultOf(starting)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.registry.register(page_server(1))
        self.assertEqual(self.allocation.websocket.hand_out(), "")


class RushTests(AllocationTestCase):
    """
    All clients of a node that died ask at the same time (A-3).
    """

    def firsts(self, requests: int) -> Counter[int]:
        """
        Where so many clients go that ask within one interval.
        """
        return Counter(self.answer()[0] for _ in range(requests))

    def test_no_crowd_at_the_emptiest(self) -> None:
        """
        The rush fills up who has the fewest, and is spread evenly beyond that.
        """
        self.successResultOf(self.start())
        firsts = self.firsts(9_000)
        totals = [30 + firsts[1], 10 + firsts[2], 20 + firsts[3]]
        self.assertEqual(sum(totals), 9_060)
        for total in totals:
            self.assertApproximates(total, 3020, 330)

    def test_by_weight(self) -> None:
        """
        Twice the weight, twice the clients.
        """
        self.registry.register(server(3, weight=2))
        self.successResultOf(self.start())
        firsts = self.firsts(8_000)
        self.assertApproximates(firsts[3], 4_000, 450)
        self.assertApproximates(firsts[1], 2_000, 250)

    def test_while_the_store_is_away(self) -> None:
        """
        It is spread as well if the users cannot be counted meanwhile.
        """
        self.successResultOf(self.start())
        self.cache.away = True
        firsts: Counter[int] = Counter()
        for _ in range(10):
            firsts += self.firsts(300)
            self.clock.advance(COUNT)
        for number in (1, 2, 3):
            self.assertApproximates(firsts[number], 1_000, 130)

    def test_a_count_ends_it(self) -> None:
        """
        After a count the list goes by the users that are really there.
        """
        self.successResultOf(self.start())
        self.firsts(1_000)
        self.assertEqual(self.quiet_answer(), [2, 3, 1])
