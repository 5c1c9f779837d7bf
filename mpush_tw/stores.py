"""
The stores of a node or a sender: what the nodes and senders of a cluster have in
common.

The providers for Redis and ZooKeeper are imported when they are needed: a standalone
node does without their libraries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from mpush_tw.config import Settings
from mpush_tw.extensions import (
    CACHE,
    DISCOVERY,
    MESSAGE_QUEUE,
    REGISTRY,
    Extension,
    Extensions,
    Point,
    built_in,
)
from mpush_tw.interfaces import (
    ICache,
    IMessageQueue,
    IServiceDiscovery,
    IServiceRegistry,
)

if TYPE_CHECKING:
    from mpush_tw.integrations.memory import MemoryRegistry
    from mpush_tw.integrations.zookeeper import ZooKeeperRegistry

_MEMORY = "memory"


@attrs.frozen
class Stores:
    """
    What the nodes and senders of a cluster have in common; in the memory of the process
    when there is no cluster.

    Nothing is started. The registry and the discovery may be one object.
    """

    cache: ICache
    queue: IMessageQueue
    registry: IServiceRegistry
    discovery: IServiceDiscovery


def shared_stores(
    settings: Settings, reactor: Any, extensions: Extensions | None = None
) -> Stores:
    """
    Make the stores that the settings ask for: Redis and ZooKeeper in a cluster, memory
    otherwise (DESIGN 4), or what plug-ins provide.

    @param extensions: The plug-ins that may serve; none by default.
    @raise ConfigError: If the settings of a store cannot be used, or there is none.
    """
    if extensions is None:
        extensions = Extensions(settings, reactor)
    return _Choice(settings, reactor, extensions).stores()


class _Choice:
    """
    One choice of stores.
    """

    def __init__(self, settings: Settings, reactor: Any, extensions: Extensions):
        self._settings = settings
        self._reactor = reactor
        self._extensions = extensions
        self._zookeeper_nodes: ZooKeeperRegistry | None = None
        self._memory_nodes: MemoryRegistry | None = None

    def stores(self) -> Stores:
        redis = bool(self._settings.redis.nodes)
        zookeeper = bool(self._settings.zk.server_address)
        cache = self._choose(
            CACHE, self._memory_cache, redis and ("redis", self._redis_cache)
        )
        queue = self._choose(
            MESSAGE_QUEUE, self._memory_queue, redis and ("redis", self._redis_queue)
        )
        nodes = zookeeper and ("zookeeper", self._zookeeper)
        registry = self._choose(REGISTRY, self._memory, nodes)
        discovery = self._choose(
            DISCOVERY, self._memory, nodes, self._discovery_of(registry)
        )
        return Stores(cache, queue, registry, discovery)

    def _choose(
        self,
        point: Point,
        memory: Callable[[], object],
        shared: tuple[str, Callable[[], object]] | bool,
        also: Extension | None = None,
    ) -> Any:
        """
        Choose for one point.

        @param shared: The name and the factory of what the nodes of a cluster share, if
            the settings say where it is.
        """
        offered = []
        if isinstance(shared, tuple):
            offered.append(built_in(point.interface, *shared))
        # In a cluster memory is a choice, never what is left over: nodes would not
        # know of each other.
        if not self._settings.cluster or self._extensions.wanted(point) == _MEMORY:
            offered.append(built_in(point.interface, _MEMORY, memory))
        return self._extensions.choose(point, *offered, also=also)

    def _discovery_of(self, registry: object) -> Extension | None:
        """
        Offer a plug-in's registry as the discovery, if it is one as well.
        """
        chosen = self._extensions.chosen[-1]
        if chosen.built_in or not IServiceDiscovery.providedBy(registry):
            return None
        extension = chosen.extension
        return Extension(
            IServiceDiscovery, extension.name, lambda: registry, extension.order
        )

    def _memory_cache(self) -> object:
        from mpush_tw.integrations.memory import MemoryCache

        return MemoryCache(self._reactor)

    def _memory_queue(self) -> object:
        from mpush_tw.integrations.memory import MemoryQueue

        return MemoryQueue(self._reactor)

    def _memory(self) -> object:
        from mpush_tw.integrations.memory import MemoryRegistry

        if self._memory_nodes is None:
            self._memory_nodes = MemoryRegistry()
        return self._memory_nodes

    def _redis_cache(self) -> object:
        from mpush_tw.integrations.redis import RedisCache

        return RedisCache(self._settings.redis, self._reactor)

    def _redis_queue(self) -> object:
        from mpush_tw.integrations.redis import RedisQueue

        return RedisQueue(self._settings.redis, self._reactor)

    def _zookeeper(self) -> object:
        from mpush_tw.integrations.zookeeper import ZooKeeperRegistry

        if self._zookeeper_nodes is None:
            self._zookeeper_nodes = ZooKeeperRegistry(self._settings.zk, self._reactor)
        return self._zookeeper_nodes
