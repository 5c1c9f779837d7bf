"""
Composition of senders from a configuration file::

    sender = cluster_sender("/etc/mpush/mpush.conf", reactor=reactor)
    await sender.start()

What a sender is made of is imported when it is needed: a node has none. The stores that
nodes and senders share are those of L{mpush_tw.stores}.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mpush_tw.config import LoadedSettings, Settings, addresses, load_settings
from mpush_tw.errors import ConfigError
from mpush_tw.extensions import Extensions
from mpush_tw.interfaces import IClientClassifier
from mpush_tw.stores import Stores, shared_stores

if TYPE_CHECKING:
    from mpush_tw.sender import PushSender
    from mpush_tw.sender._pool import IGatewayPool
    from mpush_tw.sender.blocking import BlockingSender
    from mpush_tw.sender.directory import IGatewayDirectory

__all__ = [
    "Config",
    "Stores",
    "blocking_cluster_sender",
    "cluster_sender",
    "shared_stores",
]

Config = str | os.PathLike[str] | Settings | LoadedSettings
"""
A configuration file, or what was read from one.
"""


def cluster_sender(
    config: Config,
    *,
    reactor: Any,
    classifier: IClientClassifier | None = None,
    large_datagrams: bool = False,
) -> PushSender:
    """
    Make a sender for any Twisted program from the configuration of the nodes.

    In a cluster it finds the gateways in ZooKeeper and the routes in Redis. If the file
    is that of a standalone node, the sender pushes through that node's gateway.

    @param config: What nodes are started with, or a file with less in it: C{mp.redis},
        C{mp.zk}, C{mp.net.gateway-*} and C{mp.core.max-packet-size} are used. A sender
        needs no RSA key.
    @param reactor: Provides C{IReactorTCP}, C{IReactorTime} and C{IReactorThreads};
        for gateways over UDP, C{IReactorFDSet} as well.
    @param classifier: That of the nodes, if they have one of their own that is not a
        plug-in: those are chosen as the nodes choose, by C{mp.spi}, the stores as well.
    @param large_datagrams: Where gateways are asked over UDP, whether all of them take
        datagrams of more than 2048 bytes: nodes of the original stop serving at one
        (C-25), so that larger pushes are refused without this.
    @return: A sender that is not started.
    @raise ConfigError: If the file cannot be read or used.
    """
    from mpush_tw.sender import PushSender, StaticGateways

    config = _read(config)
    settings = config if isinstance(config, Settings) else config.settings
    directory: IGatewayDirectory
    if settings.cluster:
        directory = _cluster_gateways(config, settings, reactor, classifier)
    else:
        directory = StaticGateways([_own_gateway(settings)])
    limit, make_pool = settings.core.max_packet_size, None
    if settings.net.gateway_server_net == "udp":
        limit, make_pool = _over_udp(settings, reactor, large_datagrams)
    return PushSender(
        directory,
        reactor=reactor,
        max_packet_size=limit,
        connections_per_gateway=settings.net.gateway_client_num,
        make_pool=make_pool,
    )


def _cluster_gateways(
    config: Settings | LoadedSettings,
    settings: Settings,
    reactor: Any,
    classifier: IClientClassifier | None,
) -> IGatewayDirectory:
    """
    Make what finds gateways and routes in the stores of a cluster, which may be
    plug-ins.
    """
    from mpush_tw.sender.cluster import ClusterGateways
    from mpush_tw.sender_extensions import choose_classifier, with_extensions

    extensions = Extensions.find(settings, reactor)
    stores = shared_stores(settings, reactor, extensions)
    if classifier is None:
        classifier = choose_classifier(extensions)
    directory = ClusterGateways(
        stores.discovery, stores.cache, stores.queue, reactor, classifier
    )
    if all(one.built_in for one in extensions.chosen):
        return directory
    if isinstance(config, Settings):
        tree: dict[str, Any] = {"mp": {"spi-settings": settings.spi_settings}}
    else:
        tree = config.whole
    return with_extensions(directory, extensions, settings, tree, stores, reactor)


def _over_udp(
    settings: Settings, reactor: Any, large_datagrams: bool
) -> tuple[int, Callable[[], IGatewayPool]]:
    """
    @return: The largest packet body that may be sent, and what makes the pool.
    """
    from mpush_tw.datagrams import LARGEST_DATAGRAM, ORIGINAL_DATAGRAM
    from mpush_tw.protocol.packet import HEADER_SIZE
    from mpush_tw.sender._datagrams import DatagramPool

    net = settings.net
    datagram = LARGEST_DATAGRAM if large_datagrams else ORIGINAL_DATAGRAM
    limit = min(settings.core.max_packet_size, datagram - HEADER_SIZE)
    try:
        interface = addresses.multicast_ip(settings)
    except ConfigError:
        # A sender pushes to users without multicast; the kernel may know a way.
        interface = ""

    def make_pool() -> IGatewayPool:
        return DatagramPool(
            reactor,
            limit,
            port=_client_port(settings),
            server_group=(net.gateway_server_multicast, net.gateway_server_port),
            client_group=net.gateway_client_multicast,
            interface=interface,
            large_datagrams=large_datagrams,
            send_buffer=net.snd_buf.gateway_client,
            receive_buffer=net.rcv_buf.gateway_client,
        )

    return limit, make_pool


def _client_port(settings: Settings) -> int:
    """
    Give a sender's UDP port: one of its own, unless another than the default is
    configured. Of several senders that share one, each answer reaches only one (C-44).
    """
    port = settings.net.gateway_client_port
    return 0 if port == Settings().net.gateway_client_port else port


def blocking_cluster_sender(
    config: Config,
    *,
    reactor: object | None = None,
    classifier: IClientClassifier | None = None,
    large_datagrams: bool = False,
) -> BlockingSender:
    """
    Make the same for a plain script; see L{mpush_tw.sender.blocking}.

    @param reactor: As for L{ReactorThread<mpush_tw.reactor_thread.ReactorThread>}.
    @param large_datagrams: As for L{cluster_sender}, like C{classifier}.
    @raise ConfigError: If the file cannot be read or used.
    """
    from mpush_tw.sender.blocking import BlockingSender

    read = _read(config)
    return BlockingSender(
        lambda running: cluster_sender(
            read,
            reactor=running,
            classifier=classifier,
            large_datagrams=large_datagrams,
        ),
        reactor=reactor,
    )


def _read(config: Config) -> Settings | LoadedSettings:
    """
    Read a node's file for a sender. It handshakes with nobody: it is content with any
    key, the published one included, and with none.
    """
    if isinstance(config, (Settings, LoadedSettings)):
        return config
    consent = "mp.security.allow-sample-key=true"
    return load_settings(os.fspath(config), [consent])


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
