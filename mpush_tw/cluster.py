"""
Composition of what a cluster shares: the stores of a node or of a sender.

The providers for Redis and ZooKeeper are imported when they are needed: a standalone
node does without their libraries.
"""

from __future__ import annotations

from typing import Any

import attrs

from mpush_tw.config import Settings
from mpush_tw.interfaces import (
    ICache,
    IMessageQueue,
    IServiceDiscovery,
    IServiceRegistry,
)


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


def shared_stores(settings: Settings, reactor: Any) -> Stores:
    """
    Make the stores that the settings ask for: Redis and ZooKeeper in a cluster, memory
    otherwise (DESIGN 4).

    @raise ConfigError: If the settings of a store cannot be used.
    """
    if settings.cluster:
        return _cluster_stores(settings, reactor)
    from mpush_tw.integrations.memory import MemoryCache, MemoryQueue, MemoryRegistry

    nodes = MemoryRegistry()
    return Stores(MemoryCache(reactor), MemoryQueue(reactor), nodes, nodes)


def _cluster_stores(settings: Settings, reactor: Any) -> Stores:
    from mpush_tw.integrations.redis import (  # type: ignore[import-not-found,unused-ignore]
        RedisCache,
        RedisQueue,
    )
    from mpush_tw.integrations.zookeeper import (  # type: ignore[import-not-found,unused-ignore]
        ZooKeeperRegistry,
    )

    nodes = ZooKeeperRegistry(settings.zk, reactor)
    return Stores(
        RedisCache(settings.redis, reactor),
        RedisQueue(settings.redis, reactor),
        nodes,
        nodes,
    )
