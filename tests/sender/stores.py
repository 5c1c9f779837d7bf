"""
The shared stores of a cluster for the tests of the sender: those in memory, which can
be made to fail, and what nodes would put into them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed

from mpush_tw.errors import Unavailable
from mpush_tw.integrations.memory import MemoryCache, MemoryQueue, MemoryRegistry
from mpush_tw.interfaces import ServiceNode
from mpush_tw.protocol.routes import ROUTES_PREFIX, RemoteRoute
from mpush_tw.sender._registrations import GATEWAYS
from mpush_tw.sender.cluster import ClusterGateways


class Stoppable:
    """
    What all three have: tests see whether they run, and can keep them from starting.

    @ivar running: Between start and stop.
    @ivar starting: What the next start gives, if not success.
    """

    running = False
    starting: Deferred[None] | None = None

    def start(self) -> Deferred[None]:
        self.running = True
        return self.starting or succeed(None)

    def stop(self) -> Deferred[None]:
        self.running = False
        return succeed(None)


class FakeCache(Stoppable, MemoryCache):
    """
    A route store.

    @ivar away: While true, it cannot be asked.
    @ivar held: If set, look-ups wait here instead of being answered.
    @ivar asked: The keys that were looked up.
    """

    def __init__(self, clock: Any) -> None:
        super().__init__(clock)
        self.away = False
        self.held: list[Callable[[], None]] | None = None
        self.asked: list[str] = []

    def hgetall(self, key: str) -> Deferred[dict[str, str]]:
        self.asked.append(key)
        if self.away:
            return fail(Unavailable("the route store is away"))
        found = super().hgetall(key)
        if self.held is None:
            return found
        waiting: Deferred[dict[str, str]] = Deferred()
        # What is stored now is what is told then.
        self.held.append(lambda: found.chainDeferred(waiting))
        return waiting

    def answer(self) -> None:
        """
        Answer the oldest look-up that waits.
        """
        assert self.held is not None
        self.held.pop(0)()

    def put(self, user_id: str, host: str, **values: Any) -> None:
        """
        Store a route as a node does at a BIND.
        """
        route = RemoteRoute(
            host,
            values.get("port", 3001),
            values.get("device_id", "device"),
            values.get("os_name", "android"),
            values.get("client_version", "1.0"),
            values.get("connection_id", "c0ffee"),
        )
        self.put_text(user_id, values.get("field", "1"), route.encode())

    def put_text(self, user_id: str, field: str, text: str) -> None:
        """
        Store anything in place of a route.
        """
        self.hset(ROUTES_PREFIX + user_id, field, text)


class FakeQueue(Stoppable, MemoryQueue):
    """
    A queue that can be interrupted.
    """

    def __init__(self, clock: Any) -> None:
        super().__init__(clock)
        self._restored: list[Callable[[], None]] = []

    def on_restored(self, listener: Callable[[], None]) -> None:
        self._restored.append(listener)

    def interrupt(self) -> None:
        """
        Be away for a moment.
        """
        for listener in self._restored:
            listener()


class FakeRegistry(Stoppable, MemoryRegistry):
    """
    A registry.

    @ivar away: While true, it cannot be asked.
    @ivar held: If set, the answer of look-ups.
    @ivar lookups: How often it was asked.
    """

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.held: Deferred[list[ServiceNode]] | None = None
        self.lookups = 0

    def lookup(self, service: str) -> Deferred[list[ServiceNode]]:
        self.lookups += 1
        if self.away:
            return fail(Unavailable("the registry is away"))
        return self.held or super().lookup(service)

    def add(self, host: str, node_id: str, port: int = 3001) -> None:
        """
        Register a gateway.
        """
        self.register(ServiceNode(GATEWAYS, host, port, None, node_id))

    def add_silently(self, host: str, node_id: str, port: int = 3001) -> None:
        """
        Register a gateway of which listeners are not told yet.
        """
        node = ServiceNode(GATEWAYS, host, port, None, node_id)
        self._nodes.setdefault(GATEWAYS, {})[node_id] = node

    def remove_silently(self, node_id: str) -> None:
        """
        Let a registration vanish; listeners are not told yet.
        """
        del self._nodes[GATEWAYS][node_id]

    def remove(self, host: str, node_id: str, port: int = 3001) -> None:
        """
        Let a registration vanish.
        """
        self.deregister(ServiceNode(GATEWAYS, host, port, None, node_id))


class FakeStores:
    """
    All three, and the directory that stands on them.
    """

    def __init__(self, clock: Any) -> None:
        self.cache = FakeCache(clock)
        self.queue = FakeQueue(clock)
        self.registry = FakeRegistry()
        self.directory = ClusterGateways(self.registry, self.cache, self.queue, clock)
