"""
What tests of the lists share: a registry and a store that can be away, and nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.alloc import CONNECT_SERVERS, WEBSOCKET_SERVERS
from mpush_tw.core.log import NodeLog
from mpush_tw.errors import Unavailable
from mpush_tw.integrations.memory import MemoryCache, MemoryRegistry
from mpush_tw.interfaces import ServiceNode


class FakeRegistry(MemoryRegistry):
    """
    A registry whose look-ups can fail or wait.

    @ivar away: Whether look-ups fail.
    @ivar held: If set, look-ups wait here; what they say is settled when they are made.
    @ivar lookups: The service paths that were looked up.
    """

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.held: list[Callable[[], None]] | None = None
        self.lookups: list[str] = []

    def lookup(self, service: str) -> Deferred[list[ServiceNode]]:
        self.lookups.append(service)
        if self.away:
            return fail(Unavailable("the registry is away"))
        found = super().lookup(service)
        if self.held is None:
            return found
        waiting: Deferred[list[ServiceNode]] = Deferred()
        self.held.append(lambda: found.chainDeferred(waiting))
        return waiting

    def forget(self, node: ServiceNode) -> None:
        """
        Lose a node without telling anybody.
        """
        del self._nodes[node.service][node.node_id]


class FakeCounts(MemoryCache):
    """
    A store that can fail to count.

    @ivar away: Whether counting fails.
    @ivar error: What it fails with.
    @ivar counted: The keys that were counted, in order.
    """

    def __init__(self, clock: Any) -> None:
        super().__init__(clock)
        self.away = False
        self.error: Exception = Unavailable("the store is away")
        self.counted: list[str] = []

    def zcard(self, key: str) -> Deferred[int]:
        self.counted.append(key)
        return fail(self.error) if self.away else super().zcard(key)

    def bring(self, host: str, users: int) -> None:
        """
        Have so many more users online at a host.
        """
        key = f"mp:oul:{host}"
        first = len(self.counted)
        for number in range(users):
            self.zadd(key, f"{host}-{first}-{number}")


def server(number: int, **attributes: object) -> ServiceNode:
    """
    Make the connection server of a node, as it is registered.
    """
    return ServiceNode(
        CONNECT_SERVERS,
        f"10.0.0.{number}",
        3000,
        {"weight": 1, **attributes},
        f"node-{number}",
    )


def page_server(number: int, node_id: str = "") -> ServiceNode:
    """
    Make the WebSocket server of a node, as it is registered.
    """
    return ServiceNode(
        WEBSOCKET_SERVERS, f"10.0.0.{number}", 3004, None, node_id or f"node-{number}"
    )


class AllocTestCase(SynchronousTestCase):
    """
    A clock, a registry, a store and a log.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.registry = FakeRegistry()
        self.cache = FakeCounts(self.clock)
        self.events: list[dict[str, Any]] = []
        observer: Any = self.events.append
        self.log = NodeLog("info", self.clock, observer)

    def logged(self) -> list[str]:
        """
        The formats of all lines so far.
        """
        return [str(event.get("log_format")) for event in self.events]
