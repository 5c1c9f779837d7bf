"""
Tests for L{mpush_tw.core.alloc.strategies}.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.alloc.servers import Server
from mpush_tw.core.alloc.strategies import Candidate, Strategy, make_strategy


def candidate(
    number: int, online: int | None = 0, weight: float = 1.0, handed_out: int = 0
) -> Candidate:
    """
    Make one of ten servers, which sort by number.
    """
    address = f"10.0.0.{number}"
    server = Server(address, 3000, weight, f"mp:oul:{address}", str(number))
    return Candidate(server, online, handed_out)


def strategy(name: str) -> Strategy:
    """
    Make a strategy whose chance is the same in each run.
    """
    return make_strategy(name, Random(20261125))


def numbers(candidates: Sequence[Candidate]) -> list[int]:
    """
    Which they are.
    """
    return [int(one.server.node_id) for one in candidates]


class FewestUsersTests(SynchronousTestCase):
    """
    The strategy C{online}.
    """

    def setUp(self) -> None:
        self.order = strategy("online")

    def test_by_users(self) -> None:
        """
        The server with the fewest users is first.
        """
        given = [candidate(1, 30), candidate(2, 10), candidate(3, 20)]
        self.assertEqual(numbers(self.order(given)), [2, 3, 1])

    def test_ties(self) -> None:
        """
        Servers with equally many users are in the order of their addresses.
        """
        given = [candidate(number, 5) for number in range(1, 8)]
        self.assertEqual(numbers(self.order(given)), [1, 2, 3, 4, 5, 6, 7])

    def test_near_in_quiet(self) -> None:
        """
        The first answer after a count is exact, however near the servers are.
        """
        given = [candidate(1, 1001), candidate(2, 1000), candidate(3, 1002)]
        self.assertEqual(numbers(self.order(given)), [2, 1, 3])

    def test_weights(self) -> None:
        """
        A server of weight 2 may have twice the users.
        """
        given = [candidate(1, 10), candidate(2, 18, weight=2), candidate(3, 30)]
        self.assertEqual(numbers(self.order(given)), [2, 1, 3])

    def test_not_counted_yet(self) -> None:
        """
        A server whose users were never counted is taken for empty.
        """
        given = [candidate(1, 1), candidate(2, None)]
        self.assertEqual(numbers(self.order(given)), [2, 1])

    def test_clients_on_their_way(self) -> None:
        """
        Clients that were sent to a server since the last count are counted with it.
        """
        given = [candidate(1, 10, handed_out=100), candidate(2, 50)]
        self.assertEqual(numbers(self.order(given)), [2, 1])

    def test_near_in_a_rush(self) -> None:
        """
        In a rush those within ten per cent of the fewest take turns at being first.
        """
        given = [
            candidate(1, 1000, handed_out=1),
            candidate(2, 1099),
            candidate(3, 1110),
            candidate(4, 2000),
        ]
        answers = [numbers(self.order(given)) for _ in range(200)]
        firsts = Counter(answer[0] for answer in answers)
        self.assertEqual(set(firsts), {1, 2})
        self.assertGreater(min(firsts.values()), 50)
        self.assertEqual({tuple(answer[2:]) for answer in answers}, {(3, 4)})

    def test_nobody(self) -> None:
        """
        No server, no list.
        """
        self.assertEqual(self.order([]), [])


class ByWeightTests(SynchronousTestCase):
    """
    The strategy C{weight}.
    """

    def test_in_proportion(self) -> None:
        """
        How often a server is first goes by its weight; its users do not matter.
        """
        order = strategy("weight")
        given = [candidate(1, 0), candidate(2, 900, weight=3), candidate(3, weight=6)]
        firsts = Counter(numbers(order(given))[0] for _ in range(10_000))
        for number, share in ((1, 0.1), (2, 0.3), (3, 0.6)):
            self.assertApproximates(firsts[number] / 10_000, share, 0.02)

    def test_the_rest(self) -> None:
        """
        The places behind the first go by weight too.
        """
        order = strategy("weight")
        given = [candidate(1, weight=1), candidate(2, weight=9), candidate(3, weight=1)]
        answers = [numbers(order(given)) for _ in range(5_000)]
        seconds = Counter(one[1] for one in answers if one[0] == 1)
        self.assertApproximates(seconds[2] / seconds.total(), 0.9, 0.05)


class ShuffledTests(SynchronousTestCase):
    """
    The strategy C{random}.
    """

    def test_every_order(self) -> None:
        """
        Each of the six orders of three servers is as likely as any other.
        """
        order = strategy("random")
        given = [candidate(1, 9), candidate(2, weight=5), candidate(3)]
        seen = Counter(tuple(numbers(order(given))) for _ in range(6_000))
        self.assertEqual(len(seen), 6)
        for count in seen.values():
            self.assertApproximates(count, 1000, 150)


class InTurnTests(SynchronousTestCase):
    """
    The strategy C{round-robin}.
    """

    def test_turns(self) -> None:
        """
        Every answer begins one further.
        """
        order = strategy("round-robin")
        given = [candidate(1, 9), candidate(2), candidate(3)]
        answers = [numbers(order(given)) for _ in range(4)]
        self.assertEqual(answers, [[1, 2, 3], [2, 3, 1], [3, 1, 2], [1, 2, 3]])

    def test_fewer_servers(self) -> None:
        """
        It goes on when servers have left, down to none.
        """
        order = strategy("round-robin")
        for _ in range(3):
            order([candidate(1), candidate(2), candidate(3)])
        self.assertEqual(numbers(order([candidate(1), candidate(2)])), [2, 1])
        self.assertEqual(order([]), [])
        self.assertEqual(numbers(order([candidate(1)])), [1])


class EveryStrategyTests(SynchronousTestCase):
    """
    What holds for all of them.
    """

    @given(
        name=st.sampled_from(("online", "weight", "random", "round-robin")),
        users=st.lists(
            st.tuples(
                st.none() | st.integers(0, 10**6),
                st.floats(0.001, 1000),
                st.integers(0, 1000),
            ),
            max_size=12,
        ),
    )
    def test_nothing_is_lost(
        self, name: str, users: list[tuple[int | None, float, int]]
    ) -> None:
        """
        The answer has every server once.
        """
        given = [candidate(i, *one) for i, one in enumerate(users)]
        ordered = strategy(name)(given)
        self.assertEqual(sorted(numbers(ordered)), list(range(len(users))))

    def test_unknown(self) -> None:
        """
        There are four.
        """
        self.assertRaises(KeyError, strategy, "least")
