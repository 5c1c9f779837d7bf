"""
Two nodes do something to the same user at the same time (C-2, C-12, C-14).
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet import reactor

from mpush_tw.bench.crowd import Crowd
from mpush_tw.keys import SAMPLE_PUBLIC_KEY
from mpush_tw.sender import ResultCode
from tests.cluster.support import ClusterTestCase, pause, until

USERS = 50


class RaceTests(ClusterTestCase):
    """
    Each user has two phones, one at each node.
    """

    def both(self, users: Sequence[str]) -> list[Crowd]:
        """
        Have both phones of all users come at the same time, a pair after the other.
        """
        crowds = [
            Crowd(
                reactor,
                SAMPLE_PUBLIC_KEY,
                [(node.host, node.port)],
                users,
                self.ledger.arrived,
                f"at-{node.host}",
            )
            for node in self.nodes
        ]
        for crowd in crowds:
            self.addCleanup(crowd.close)
        for user_id in users:
            for crowd in crowds:
                crowd.client(user_id).start()
        return crowds

    async def test_bound_at_the_same_time(self) -> None:
        """
        One of the two is told to leave, always, and the other is reached.
        """
        users = self.names(USERS)
        crowds = self.both(users)

        def one_of_each_left() -> bool:
            return sum(crowd.kicks for crowd in crowds) == len(users)

        await until(one_of_each_left, "one phone of each user to be kicked")
        # A second kick would be on its way already.
        await pause(0.5)
        self.assertTrue(one_of_each_left())
        self.assertEqual(sum(crowd.bound for crowd in crowds), len(users))
        pushes = await self.sender()
        results = await pushes.push_to_all(users)
        self.assertEqual(set(results.values()), {ResultCode.SUCCESS})
        await until(lambda: self.each_listed_once(users), "each to be listed once")
        self.assertNothingLost()

    def each_listed_once(self, users: Sequence[str]) -> bool:
        """
        Whether the lists of both nodes together hold each user once, where it is.
        """
        lists = [self.listed(node) for node in self.nodes]
        return sorted(user for one in lists for user in one) == sorted(users) and all(
            self.online_at(node, one)
            for node, one in zip(self.nodes, lists, strict=True)
        )

    async def test_leaves_while_the_other_comes(self) -> None:
        """
        The phone at one node hangs up in the moment in which the other one is bound:
        the user is online there, and stays so.
        """
        users = self.names(USERS)
        older = await self.crowd(users, self.nodes[:1], device="older")
        leaving = older.close()
        newer = await self.crowd(users, self.nodes[1:], device="newer")
        await leaving
        await until(
            lambda: not self.listed(self.nodes[0]), "the first list to be empty"
        )
        await pause(0.3)
        self.assertTrue(self.online_at(self.nodes[1], users))
        self.assertEqual(self.listed(self.nodes[1]), set(users))
        self.assertEqual(newer.bound, len(users))
        pushes = await self.sender()
        results = await pushes.push_to_all(users)
        self.assertEqual(set(results.values()), {ResultCode.SUCCESS})

    async def test_pushes_follow(self) -> None:
        """
        A user's phone goes to and fro between the nodes; each push reaches it where it
        is, by at most one redirection.
        """
        users = self.names(5)
        pushes = await self.sender()
        for number in range(6):
            node = self.nodes[number % 2]
            crowd = await self.crowd(users, [node], device="wanderer")
            results = await pushes.push_to_all(users)
            self.assertEqual(set(results.values()), {ResultCode.SUCCESS})
            await crowd.close()
        self.assertNothingLost()
