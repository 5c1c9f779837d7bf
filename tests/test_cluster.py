"""
What a cluster shares, put together (DESIGN 4).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mpush_tw.cluster import cluster_sender, shared_stores
from mpush_tw.config import Settings
from mpush_tw.errors import ConfigError, PushError
from mpush_tw.interfaces import (
    ICache,
    IMessageQueue,
    IServiceDiscovery,
    IServiceRegistry,
)
from mpush_tw.sender import PushContext, PushSender
from tests.sender.gateway import Network

STANDALONE = """
import sys
from twisted.internet.task import Clock
from mpush_tw.cluster import cluster_sender, shared_stores
from mpush_tw.config import Settings
from mpush_tw.errors import ConfigError, PushError
shared_stores(Settings(), Clock())
print(*sys.modules)
"""


class SharedStoresTests(SynchronousTestCase):
    """
    L{shared_stores}.
    """

    def test_standalone_in_memory(self) -> None:
        """
        Without a cluster the stores are in the process, and nothing has to be reached.
        """
        stores = shared_stores(Settings(), Clock())
        verifyObject(ICache, stores.cache)
        verifyObject(IMessageQueue, stores.queue)
        verifyObject(IServiceRegistry, stores.registry)
        verifyObject(IServiceDiscovery, stores.discovery)
        self.successResultOf(stores.cache.start())
        self.successResultOf(stores.discovery.start())

    def test_standalone_without_libraries(self) -> None:
        """
        A standalone node does not load what only a cluster needs.
        """
        loaded = subprocess.run(
            [sys.executable, "-c", STANDALONE],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            check=True,
            text=True,
            timeout=60,
        ).stdout.split()
        self.assertIn("mpush_tw.integrations.memory", loaded)
        for name in ("kazoo", "txredisapi", "mpush_tw.integrations.redis"):
            self.assertNotIn(name, loaded)


class ClusterSenderTests(SynchronousTestCase):
    """
    L{cluster_sender} without a cluster; with one it is tested on real servers in
    C{tests/sender/test_servers.py}.
    """

    def setUp(self) -> None:
        self.network = Network()

    def make(self, *lines: str) -> Any:
        file = Path(self.mktemp())
        file.write_text("\n".join(lines))
        return cluster_sender(file, reactor=self.network)

    def test_standalone(self) -> None:
        """
        The file of a standalone node is enough to push through its gateway.
        """
        sender = self.make("mp.net.gateway-server-port = 4001")
        sender.start()
        self.assertEqual(self.network.attempts, [("127.0.0.1", 4001)])

    def test_connections(self) -> None:
        """
        There are as many connections to a gateway as the file says.
        """
        sender = self.make("mp.net.gateway-client-num = 3")
        sender.start()
        self.assertEqual(self.network.attempts, [("127.0.0.1", 3001)] * 3)

    def test_packet_size(self) -> None:
        """
        What the nodes would refuse the sender does.
        """
        sender = self.make("mp.core.max-packet-size = 100")
        sender.start()
        context = PushContext(bytes(100), user_id="alice")
        self.failureResultOf(sender.send(context), PushError)

    def test_any_port(self) -> None:
        """
        A gateway on any free port cannot be found by its file.
        """
        with self.assertRaises(ConfigError) as caught:
            self.make("mp.net.gateway-server-port = 0")
        self.assertEqual(caught.exception.key, "mp.net.gateway-server-port")

    def test_no_key(self) -> None:
        """
        A sender of a cluster needs no RSA key: the private one stays with the nodes.
        """
        sender = self.make(
            'mp.redis.nodes = ["127.0.0.1:1"]', 'mp.zk.server-address = "127.0.0.1:1"'
        )
        self.assertIsInstance(sender, PushSender)

    def test_no_file(self) -> None:
        """
        A file that is not there is a mistake in the configuration.
        """
        with self.assertRaises(ConfigError):
            cluster_sender("/nowhere/mpush.conf", reactor=self.network)
