"""
One node alone loses its way to Redis while the others go on (DESIGN 7).
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread
from twisted.protocols.portforward import ProxyFactory, ProxyServer

from mpush_tw.bench.node import NodeProcess
from mpush_tw.sender import ResultCode
from tests.cluster.support import ClusterTestCase, pause, seconds, until

USERS = 10


class Cable(ProxyFactory):
    """
    The way from a node to a server; it can be cut.
    """

    noisy = False

    def __init__(self, port: int) -> None:
        super().__init__("127.0.0.1", port)
        self._open: list[ProxyServer] = []
        self._cut = False
        some_reactor: Any = reactor
        self._listening = some_reactor.listenTCP(0, self, interface="127.0.0.1")

    @property
    def address(self) -> str:
        """
        Where it begins.
        """
        return f"127.0.0.1:{self._listening.getHost().port}"

    def buildProtocol(self, addr: object) -> Any:
        if self._cut:
            return None
        protocol = Factory.buildProtocol(self, addr)
        self._open.append(protocol)
        return protocol

    def cut(self) -> None:
        """
        End all connections, and let none be made.
        """
        self._cut = True
        for protocol in self._open:
            if protocol.transport is not None:
                protocol.transport.abortConnection()
        self._open.clear()

    def mend(self) -> None:
        """
        Let connections be made again.
        """
        self._cut = False

    async def close(self) -> None:
        """
        Take it away.
        """
        self.cut()
        await self._listening.stopListening()
        # The other halves of the connections notice in a turn of their own.
        await pause(0.05)


class CutOffTests(ClusterTestCase):
    """
    A third node, whose way to Redis can be cut.
    """

    async def setUp(self) -> None:
        super().setUp()
        self.cable = Cable(self.redis.port)
        self.addCleanup(self.cable.close)
        settings = {
            **self.cluster.settings,
            "mp.redis.nodes": [self.cable.address],
        }
        self.third = NodeProcess(settings, "127.0.0.3")
        self.addCleanup(self.third.close)
        self.third.launch()
        await deferToThread(self.third.wait_started)
        self.users = self.names(USERS)
        self.devices = await self.crowd(self.users, [self.third])
        self.pushes = await self.sender()
        await self.pushes_succeed(self.pushes, self.users)

    async def back(self) -> None:
        """
        Mend the cable and wait until the node hears kicks again and has looked after
        its routes.
        """
        start = seconds()
        rounds = self.third.log().count("the store is back")
        self.cable.mend()
        await until(
            lambda: self.third.log().count("the store is back") > rounds,
            "the node to look after its routes",
        )
        await until(lambda: self.listeners(self.third) == 1, "the subscription")
        self.measured("a node cut off from Redis alone", seconds() - start)

    async def test_nobody_moved(self) -> None:
        """
        Its devices stay, are reached meanwhile, and are where they were.
        """
        self.cable.cut()
        await pause(1.0)
        results = await self.pushes.push_to_all(self.users)
        self.assertEqual(set(results.values()), {ResultCode.SUCCESS})
        await self.back()
        self.assertTrue(self.online_at(self.third, self.users))
        self.assertEqual(self.listed(self.third), set(self.users))
        self.assertEqual((self.devices.drops, self.devices.kicks), (0, 0))
        self.assertNothingLost()
