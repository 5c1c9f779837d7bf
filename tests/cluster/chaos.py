"""
One failure after the other, two at a time, with devices and pushes going on: each time
the cluster has to find its way back. Run by C{make campaign}, or by hand::

    MPUSH_CHAOS_ROUNDS=20 MPUSH_CHAOS_SEED=1 trial tests.cluster.chaos

The name keeps it out of the suite: it takes as long as one lets it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from mpush_tw.bench.drill import SteadyPushes
from mpush_tw.bench.node import NodeProcess
from mpush_tw.sender import ResultCode
from tests.cluster.support import ClusterTestCase, pause, seconds, until

ROUNDS = int(os.environ.get("MPUSH_CHAOS_ROUNDS", "5"))
SEED = int(os.environ.get("MPUSH_CHAOS_SEED", "1"))
USERS = 100
RATE = 100.0
RECOVERY_SECONDS = 60.0
"""
How long the cluster has to find its way back: devices wait up to half a minute between
two attempts when several have failed.
"""


class ChaosTests(ClusterTestCase):
    """
    A hundred devices that know both nodes.
    """

    timeout = 3600
    _log = Logger()

    async def test_chaos(self) -> None:
        """
        After each round every device is bound and reached, the lists hold each user
        once, and no push was lost or reported wrongly.
        """
        dice = random.Random(SEED)
        users = self.names(USERS)
        crowd = await self.crowd(users)
        pushes = await self.sender()
        await self.pushes_succeed(pushes, users)
        pushes.begin(users, RATE)
        self.addCleanup(pushes.end)
        for number in range(1, ROUNDS + 1):
            chosen = dice.sample(list(self.failures(dice)), 2)
            what = f"chaos round {number}: {chosen[0][0]}, {chosen[1][0]}"
            print(what, flush=True)
            await gatherResults([Deferred.fromCoroutine(run()) for _, run in chosen])
            await deferToThread(self.cluster.heal)
            since = seconds()
            try:
                await crowd.all_bound(RECOVERY_SECONDS)
                await self.pushes_succeed(pushes, users, RECOVERY_SECONDS)
                await until(lambda: self.everybody_is_listed(users), what)
            except Exception:
                await self.describe(pushes, users)
                raise
            self.measured(what, seconds() - since)
            account = self.ledger.account()
            self.assertEqual((account.lost, account.denied), (0, 0), (what, account))
        await pushes.end()
        self.assertNothingLost()
        print(self.ledger.account(), "drops:", crowd.drops, "kicks:", crowd.kicks)

    def everybody_is_listed(self, users: list[str]) -> bool:
        """
        Whether the online lists hold each user once, and each node hears its kicks.
        """
        lists = [self.listed(node) for node in self.nodes]
        return (
            sorted(user for one in lists for user in one) == sorted(users)
            and [self.listeners(node) for node in self.nodes] == [1, 1]
            and all(
                self.online_at(node, one)
                for node, one in zip(self.nodes, lists, strict=True)
            )
        )

    async def describe(self, pushes: SteadyPushes, users: list[str]) -> None:
        """
        Print what is wrong.
        """
        for user, code in (await pushes.push_to_all(users)).items():
            if code is not ResultCode.SUCCESS:
                print(user, code, self.route(user))
        for node in self.nodes:
            print(node.gateway, sorted(self.listed(node)), self.listeners(node))
            print(node.log()[-4000:])

    # ------------------------------------------------------------- failures

    def failures(
        self, dice: random.Random
    ) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        """
        What can happen, with lengths by chance: one of each thing that can fail.
        """
        node = dice.choice(self.nodes)
        length = dice.uniform(0.3, 6.0)
        redis = dice.choice(
            (
                self.redis_restarts,
                self.redis_loses,
                self.redis_stands,
                self.redis_dies,
                self.redis_ages,
            )
        )
        registry = dice.choice((self.registry_restarts, self.registry_stands))
        fate = dice.choice((self.node_dies, self.node_stands, self.node_stops))
        return [
            (f"{redis.__name__} {length:.1f} s", lambda: redis(length)),
            (f"{registry.__name__} {length:.1f} s", lambda: registry(length)),
            (f"{fate.__name__} {node.host} {length:.1f} s", lambda: fate(node, length)),
        ]

    async def redis_restarts(self, length: float) -> None:
        """
        With its data.
        """
        self.redis.restart(keep_data=True)

    async def redis_loses(self, length: float) -> None:
        """
        Restarted without its data.
        """
        self.redis.restart(keep_data=False)

    async def redis_stands(self, length: float) -> None:
        """
        Answers nobody for a while.
        """
        self.redis.pause()
        await pause(length)
        self.redis.resume()

    async def redis_dies(self, length: float) -> None:
        """
        Killed; when it comes back later it has what it had.
        """
        self.redis.cli("SAVE")
        self.redis.kill()
        await pause(length)
        self.redis.start()

    async def redis_ages(self, length: float) -> None:
        """
        Killed; when it comes back it has what it had when it was last saved.
        """
        self.redis.kill()
        await pause(length)
        self.redis.start()

    async def registry_restarts(self, length: float) -> None:
        """
        Without its data.
        """
        await deferToThread(self.zookeeper.restart, lose_data=length > 3.0)

    async def registry_stands(self, length: float) -> None:
        """
        Answers nobody for a while.
        """
        self.zookeeper.pause()
        await pause(length)
        self.zookeeper.resume()

    async def node_dies(self, node: NodeProcess, length: float) -> None:
        """
        Killed, and started again later.
        """
        node.kill()
        await pause(length)

    async def node_stands(self, node: NodeProcess, length: float) -> None:
        """
        Does nothing for a while.
        """
        node.pause()
        await pause(length)
        node.resume()

    async def node_stops(self, node: NodeProcess, length: float) -> None:
        """
        Stopped in order, and started again later.
        """
        await deferToThread(node.terminate)
        await pause(length)
