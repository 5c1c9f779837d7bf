"""
Tests for L{mpush_tw.alloc_tap}, L{mpush_tw.process} and the plug-in: C{twistd
mpush-alloc} as an operator runs it.
"""

from __future__ import annotations

import contextlib
import io
import socket
import urllib.error
from typing import Any

from twisted.application.service import IService, IServiceMaker
from twisted.internet.testing import MemoryReactorClock
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.alloc_tap import MpushAlloc, Options, makeService
from tests.servers import LOOPBACK, free_port
from tests.servers.alloc import AllocServer
from tests.servers.redis import RedisServer
from tests.servers.zookeeper import ZooKeeperServer

CLUSTER = (
    *("--set", 'mp.redis.nodes=["10.0.0.1:6379"]'),
    *("--set", "mp.zk.server-address=10.0.0.2:2181"),
)


class PluginTests(SynchronousTestCase):
    """
    How C{twistd} finds it.
    """

    def test_found(self) -> None:
        """
        There is one service maker of that name, and it leads to this module.
        """
        makers: list[Any] = list(getPlugins(IServiceMaker))
        [maker] = [maker for maker in makers if maker.tapname == "mpush-alloc"]
        self.assertEqual(maker.module, "mpush_tw.alloc_tap")
        self.assertIs(maker.options, Options)


class MakeServiceTests(SynchronousTestCase):
    """
    From options to the service.
    """

    def make(self, *arguments: str) -> IService:
        """
        Make it, and start nothing.
        """
        options = Options()
        options.parseOptions(list(arguments))
        return makeService(options, MemoryReactorClock())

    def test_made(self) -> None:
        """
        A file that says where the stores are is enough: alloc has no key.
        """
        service = self.make(*CLUSTER, "--set", "mp.net.alloc-server-port=81")
        assert isinstance(service, MpushAlloc)
        self.assertEqual(service.settings.net.alloc_server_port, 81)

    def refusal(self, *arguments: str) -> str:
        """
        What is printed before the process ends with status 1.
        """
        printed = io.StringIO()
        with contextlib.redirect_stderr(printed):
            stop = self.assertRaises(SystemExit, self.make, *arguments)
        assert isinstance(stop, SystemExit)
        self.assertEqual(stop.code, 1)
        return printed.getvalue()

    def test_standalone(self) -> None:
        """
        Without a cluster there is nothing to allocate, and what to do is said.
        """
        text = self.refusal()
        self.assertTrue(text.startswith("mpush: mp.zk.server-address: "), text)
        self.assertIn("mp.alloc.enabled=true", text)

    def test_bad_value(self) -> None:
        """
        A value that makes no sense is named with its key.
        """
        self.assertIn(
            "mp.alloc.strategy", self.refusal(*CLUSTER, "--set", "mp.alloc.strategy=x")
        )

    def test_no_file(self) -> None:
        """
        So is a file that is not there.
        """
        self.assertIn("/no/such.conf", self.refusal("--config", "/no/such.conf"))


class ProcessTests(SynchronousTestCase):
    """
    The real process, beside a real Redis and a real ZooKeeper.
    """

    def setUp(self) -> None:
        self.redis, self.zookeeper = RedisServer(), ZooKeeperServer()
        for server in (self.redis, self.zookeeper):
            self.addCleanup(server.stop)
            server.start()

    def server(self, **settings: object) -> AllocServer:
        """
        Prepare a process.

        @param settings: Keys, with two underscores for each dot.
        """
        alloc = AllocServer(
            {
                "mp.redis.nodes": [self.redis.address],
                "mp.zk.server-address": self.zookeeper.address,
                "mp.zk.connectionTimeoutMs": 1000,
                **{
                    key.replace("__", ".").replace("_", "-"): value
                    for key, value in settings.items()
                },
            }
        )
        self.addCleanup(alloc.kill)
        return alloc

    def refusal(self, **settings: object) -> str:
        """
        Start a process that cannot, and see it end with status 1.

        @return: Its one sentence.
        """
        alloc = self.server(**settings)
        alloc.launch()
        self.assertEqual(alloc.wait(), 1, alloc.log())
        lines = [line for line in alloc.log().splitlines() if " mpush: " in line]
        self.assertEqual(len(lines), 1, alloc.log())
        self.assertNotIn("Traceback", alloc.log())
        return lines[0]

    def test_runs_until_told(self) -> None:
        """
        It serves, answers that there is no server yet, and ends with status 0 when it
        is terminated.
        """
        alloc = self.server()
        alloc.start()
        self.assertEqual(alloc.get(), b"")
        error = self.assertRaises(urllib.error.HTTPError, alloc.get, "/health")
        assert isinstance(error, urllib.error.HTTPError)
        self.addCleanup(error.close)
        self.assertEqual(error.code, 503)
        self.assertEqual(alloc.stop(), 0)
        self.assertIn("ALLOC SERVER STOPPED SUCCESS", alloc.log())

    def test_port_in_use(self) -> None:
        """
        A busy port ends the process with status 1 and one sentence that names key and
        port.
        """
        other = socket.create_server((LOOPBACK, 0))
        self.addCleanup(other.close)
        port = other.getsockname()[1]
        sentence = self.refusal(mp__net__alloc_server_port=port)
        self.assertIn("mp.net.alloc-server-port", sentence)
        self.assertIn(f"port {port} ", sentence)

    def test_no_redis(self) -> None:
        """
        So does a Redis that is not there.
        """
        nowhere = f"{LOOPBACK}:{free_port()}"
        self.assertIn(nowhere, self.refusal(mp__redis__nodes=[nowhere]))
