"""
Composition of what a cluster shares: the stores of a node or of a sender, and senders
made from a configuration file::

    sender = cluster_sender("/etc/mpush/mpush.conf", reactor=reactor)
    await sender.start()

The providers for Redis and ZooKeeper are imported when they are needed: a standalone
node does without their libraries. So are the senders: a node has none.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import attrs

from mpush_tw.config import Settings, addresses, load_settings
from mpush_tw.errors import ConfigError
from mpush_tw.interfaces import (
    ICache,
    IClientClassifier,
    IMessageQueue,
    IServiceDiscovery,
    IServiceRegistry,
)

if TYPE_CHECKING:
    from mpush_tw.sender import PushSender
    from mpush_tw.sender.blocking import BlockingSender

Config = str | os.PathLike[str] | Settings
"""
A configuration file, or what was read from one.
"""


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
    from mpush_tw.integrations.redis import RedisCache, RedisQueue
    from mpush_tw.integrations.zookeeper import ZooKeeperRegistry

    nodes = ZooKeeperRegistry(settings.zk, reactor)
    return Stores(
        RedisCache(settings.redis, reactor),
        RedisQueue(settings.redis, reactor),
        nodes,
        nodes,
    )


def cluster_sender(
    config: Config, *, reactor: Any, classifier: IClientClassifier | None = None
) -> PushSender:
    """
    Make a sender for any Twisted program from the configuration of the nodes.

    In a cluster it finds the gateways in ZooKeeper and the routes in Redis. If the file
    is that of a standalone node, the sender pushes through that node's gateway.

    @param config: What nodes are started with, or a file with less in it: C{mp.redis},
        C{mp.zk}, C{mp.net.gateway-*} and C{mp.core.max-packet-size} are used. A sender
        needs no RSA key.
    @param reactor: Provides C{IReactorTCP}, C{IReactorTime} and C{IReactorThreads}.
    @param classifier: That of the nodes, if they have one of their own.
    @return: A sender that is not started.
    @raise ConfigError: If the file cannot be read or used.
    """
    from mpush_tw.sender import PushSender, StaticGateways
    from mpush_tw.sender.cluster import ClusterGateways

    settings = config if isinstance(config, Settings) else _sender_settings(config)
    net = settings.net
    if net.gateway_server_net != "tcp":
        raise ConfigError(
            "mp.net.gateway-server-net", "this version has only the tcp gateway"
        )
    directory: StaticGateways | ClusterGateways
    if settings.cluster:
        stores = shared_stores(settings, reactor)
        directory = ClusterGateways(
            stores.discovery, stores.cache, stores.queue, reactor, classifier
        )
    else:
        directory = StaticGateways([_own_gateway(settings)])
    return PushSender(
        directory,
        reactor=reactor,
        max_packet_size=settings.core.max_packet_size,
        connections_per_gateway=net.gateway_client_num,
    )


def blocking_cluster_sender(
    config: Config,
    *,
    reactor: object | None = None,
    classifier: IClientClassifier | None = None,
) -> BlockingSender:
    """
    Make the same for a plain script; see L{mpush_tw.sender.blocking}.

    @param reactor: As for L{ReactorThread<mpush_tw.reactor_thread.ReactorThread>}.
    @raise ConfigError: If the file cannot be read or used.
    """
    from mpush_tw.sender.blocking import BlockingSender

    settings = config if isinstance(config, Settings) else _sender_settings(config)
    return BlockingSender(
        lambda running: cluster_sender(
            settings, reactor=running, classifier=classifier
        ),
        reactor=reactor,
    )


def _sender_settings(path: str | os.PathLike[str]) -> Settings:
    """
    Read a node's file for a sender. It handshakes with nobody: it is content with any
    key, the published one included, and with none.
    """
    consent = "mp.security.allow-sample-key=true"
    return load_settings(os.fspath(path), [consent]).settings


def _own_gateway(settings: Settings) -> tuple[str, int]:
    """
    The gateway of the standalone node that a file is for.
    """
    port = settings.net.gateway_server_port
    if port == 0:
        raise ConfigError(
            "mp.net.gateway-server-port",
            "found 0, which is any port, expected the one to push through",
        )
    return addresses.gateway_register_ip(settings), port
