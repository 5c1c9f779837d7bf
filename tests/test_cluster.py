"""
What a cluster shares, put together (DESIGN 4).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mpush_tw.cluster import shared_stores
from mpush_tw.config import Settings
from mpush_tw.interfaces import (
    ICache,
    IMessageQueue,
    IServiceDiscovery,
    IServiceRegistry,
)

STANDALONE = """
import sys
from twisted.internet.task import Clock
from mpush_tw.cluster import shared_stores
from mpush_tw.config import Settings
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
