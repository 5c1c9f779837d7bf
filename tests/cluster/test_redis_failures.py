"""
Redis goes away and comes back, and nobody restarts anything (cluster 2.11, DESIGN 7).
"""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from mpush_tw.bench.drill import SteadyPushes
from mpush_tw.cluster import shared_stores
from mpush_tw.errors import Unavailable
from mpush_tw.protocol.commands import Command
from mpush_tw.protocol.messages import BindUser, Error
from mpush_tw.protocol.packet import encode_packet
from mpush_tw.sender import PushSender, ResultCode
from tests.cluster.support import ClusterTestCase, failure_of, pause, seconds, until
from tests.integration.devices import Device

USERS = 20


def refusal(port: int, user_id: str) -> str:
    """
    Bind a user by hand and give the reason with which the node refuses it; blocks.
    """
    device = Device(port).shake_hands(f"device-{user_id}")
    try:
        assert device.cipher is not None
        body = device.cipher.encrypt(BindUser(user_id).encode())
        device.send(encode_packet(Command.BIND, 2, 1, body))
        packet = device.packet()
        assert packet is not None and packet[0] == Command.ERROR, packet
        plain = device.cipher.decrypt(packet[3]) if packet[1] & 1 else packet[3]
        return Error.decode(plain).reason or ""
    finally:
        device.close()


class RedisTestCase(ClusterTestCase):
    """
    Half of the users at each node, and a sender that has reached all of them.
    """

    async def setUp(self) -> None:
        super().setUp()
        self.users = self.names(USERS)
        self.homes = {
            self.nodes[0]: self.users[::2],
            self.nodes[1]: self.users[1::2],
        }
        self.devices = await self.crowd(self.users)
        self.pushes = await self.sender()
        await self.pushes_succeed(self.pushes, self.users)

    async def recovered(self, what: str, since: float) -> None:
        """
        Wait until store and subscriptions are as they should be, state how long that
        took, and see that everybody is reached.
        """
        await self.counts_become_right(self.homes, what)
        self.measured(what, seconds() - since)
        everybody = [user for users in self.homes.values() for user in users]
        await self.pushes_succeed(self.pushes, everybody)
        self.assertEqual(self.devices.drops, 0)
        self.assertEqual(self.devices.refused, 0)
        self.assertNothingLost()


class RedisRestartTests(RedisTestCase):
    """
    Redis is restarted.
    """

    async def test_with_data(self) -> None:
        """
        After a restart that loses nothing the nodes hear kicks again and nobody was
        dropped.
        """
        self.redis.restart(keep_data=True)
        await self.recovered("Redis restarted with its data", seconds())

    async def test_without_data(self) -> None:
        """
        After a restart that loses everything, routes and online lists are back.
        """
        self.redis.cli("SET", "foreign", "1")
        self.redis.restart(keep_data=False)
        self.assertEqual(self.redis.cli("EXISTS", "foreign"), "0")
        await self.recovered("Redis restarted empty", seconds())

    async def test_kicks_again(self) -> None:
        """
        After a restart a device that binds at one node still displaces the one at the
        other.
        """
        self.redis.restart(keep_data=False)
        await self.recovered("Redis restarted empty, before a kick", seconds())
        newer = await self.crowd(self.users[:1], self.nodes[1:], device="newer")
        await until(lambda: self.devices.kicks == 1, "the older device to be kicked")
        self.assertTrue(self.online_at(self.nodes[1], self.users[:1]))
        self.assertEqual(newer.bound, 1)

    async def test_stands_still(self) -> None:
        """
        A Redis that does not answer for a while is as good as away, and as good as new
        when it goes on.
        """
        self.redis.pause()
        await pause(4.0)
        results = await self.pushes.push_to_all(self.users)
        self.assertEqual(set(results.values()), {ResultCode.SUCCESS})
        self.redis.resume()
        await self.recovered("Redis stood still for 4 s", seconds())

    async def test_late_write(self) -> None:
        """
        A BIND that was refused because Redis did not answer takes no effect when Redis
        goes on and finds what the node had written: who has the user keeps it.
        """
        user = self.users[1]
        self.assertTrue(self.online_at(self.nodes[1], [user]))
        self.redis.pause()
        reason = await deferToThread(refusal, self.nodes[0].port, user)
        self.assertEqual(reason, "bind failed")
        self.redis.resume()
        await self.recovered("Redis stood still during a BIND", seconds())
        self.assertEqual(self.devices.kicks, 0)

    async def test_old_snapshot(self) -> None:
        """
        Redis comes back with a snapshot from before some users changed their node: they
        are where they are, and no device is told to leave.
        """
        movers = [f"{self.users[0]}-mover-{number}" for number in range(4)]
        crowd = await self.crowd(movers, self.nodes[:1])
        self.redis.cli("SAVE")
        await crowd.close()
        crowd = await self.crowd(movers, self.nodes[1:])
        self.redis.kill()
        self.redis.start()
        self.homes[self.nodes[1]] = [*self.homes[self.nodes[1]], *movers]
        await self.recovered("Redis restarted with an old snapshot", seconds())
        self.assertEqual((crowd.kicks, crowd.drops), (0, 0))


class RedisAwayTests(RedisTestCase):
    """
    While Redis is away. When it comes back it holds what it held before.
    """

    async def setUp(self) -> None:
        await super().setUp()
        self.redis.cli("SAVE")
        self.redis.kill()
        # Until the nodes have noticed, an answer may still be on its way.
        await pause(0.2)

    async def come_back(self) -> float:
        """
        Start Redis again.

        @return: When.
        """
        self.redis.start()
        return seconds()

    async def test_devices_stay(self) -> None:
        """
        No device is dropped, and a sender that knows the routes reaches all.
        """
        for _ in range(5):
            results = await self.pushes.push_to_all(self.users)
            self.assertEqual(set(results.values()), {ResultCode.SUCCESS})
            await pause(0.3)
        await self.recovered("Redis away for 2 s", await self.come_back())

    async def test_gateway(self) -> None:
        """
        A sender that asks the gateways themselves reaches all, too.
        """
        direct = PushSender(
            [(node.host, node.gateway_port) for node in self.nodes], reactor=reactor
        )
        await direct.start()
        self.addCleanup(direct.stop)
        pushes = SteadyPushes(direct, self.ledger, 3.0, reactor)
        results = await pushes.push_to_all(self.users)
        self.assertEqual(set(results.values()), {ResultCode.SUCCESS})
        await self.recovered("Redis away, gateways asked", await self.come_back())

    async def test_bind(self) -> None:
        """
        A BIND is refused with C{bind failed}, and within the time a client waits.
        """
        start = seconds()
        reason = await deferToThread(refusal, self.nodes[0].port, "somebody")
        self.assertEqual(reason, "bind failed")
        self.assertLess(seconds() - start, 3.0)
        await self.recovered("Redis away, a BIND refused", await self.come_back())

    async def test_lookups(self) -> None:
        """
        Who asks the store is told that it is not available; a push to a user whose
        route is not known fails, and is not called offline.
        """
        cache = shared_stores(self.loaded_settings(), reactor).cache
        self.addCleanup(cache.stop)
        problem = await failure_of(cache.start())
        self.assertIsInstance(problem, Unavailable)
        self.assertIn(self.redis.address, str(problem))
        stranger = [f"{self.users[0]}-stranger"]
        results = await self.pushes.push_to_all(stranger)
        self.assertEqual(results, {stranger[0]: ResultCode.FAILURE})
        await self.recovered("Redis away, a look-up failed", await self.come_back())
        results = await self.pushes.push_to_all(stranger)
        self.assertEqual(results, {stranger[0]: ResultCode.OFFLINE})

    async def test_who_left(self) -> None:
        """
        Devices that leave meanwhile are offline afterwards: their routes, the lists,
        and for senders.
        """
        gone = self.users[:4]
        self.homes = {
            node: [user for user in users if user not in gone]
            for node, users in self.homes.items()
        }
        await self.devices.leave(gone)
        await pause(0.5)
        back = await self.come_back()
        await until(lambda: self.offline(gone), "them to be offline")
        await self.recovered("Redis away while devices left", back)
        self.assertTrue(self.offline(gone))
        results = await self.pushes.push_to_all(gone)
        self.assertEqual(set(results.values()), {ResultCode.OFFLINE})

    async def test_who_comes(self) -> None:
        """
        A device that cannot be bound meanwhile tries again, and is bound when Redis is
        back.
        """
        late = [f"{self.users[0]}-late"]
        coming = Deferred.fromCoroutine(self.crowd(late, self.nodes[:1]))
        await pause(1.5)
        back = await self.come_back()
        newcomers = await coming
        self.measured("Redis away, a device waited to be bound", seconds() - back)
        self.assertGreater(newcomers.refused, 0)
        self.homes[self.nodes[0]] = [*self.homes[self.nodes[0]], *late]
        await self.recovered("Redis away, a device came", back)
