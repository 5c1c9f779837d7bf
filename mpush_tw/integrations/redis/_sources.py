"""
Where the server to connect to is: one that is configured, the master that sentinels
name, or any node of a Redis Cluster.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed

from mpush_tw.config.settings import RedisSettings
from mpush_tw.integrations.redis._cluster_nodes import ClusterNodes
from mpush_tw.integrations.redis._connection import Address, Connection
from mpush_tw.integrations.redis._dial import Dialler
from mpush_tw.integrations.redis._sentinel import Sentinels

Moved = Callable[[Callable[[Address], bool]], None]
"""
Called with a test that tells which servers may still be used.
"""


class Source(Protocol):
    """
    Leads to a server on which commands without a key, or on all keys, can be run.

    @ivar name: It, for sentences, with an address.
    @ivar follows: Whether two calls of L{dial} may lead to different servers.
    """

    name: str
    follows: bool

    async def dial(self) -> Connection:
        """
        Connect.

        @raise Unavailable: If there is no such server, with a sentence.
        """
        ...

    def start(self, moved: Moved) -> None:
        """
        Begin to watch for changes; never fails.
        """
        ...

    def stop(self) -> Deferred[None]:
        """
        End that.
        """
        ...


class OneServer:
    """
    The first of C{mp.redis.nodes} (cluster 2.1).
    """

    follows = False

    def __init__(self, settings: RedisSettings, dialler: Dialler) -> None:
        node = settings.endpoints()[0]
        self._address = Address(node.host, node.port)
        self._password = node.password
        self._dialler = dialler
        self.name = f"Redis at {self._address}"

    async def dial(self) -> Connection:
        return await self._dialler.connect(self._address, self._password)

    def start(self, moved: Moved) -> None:
        pass

    def stop(self) -> Deferred[None]:
        return succeed(None)


def source_of(settings: RedisSettings, reactor: Any) -> Source:
    """
    Choose by C{mp.redis.cluster-model}.

    @raise ConfigError: If a file of C{mp.redis.tls} cannot be used.
    """
    dialler = Dialler(settings, reactor)
    if settings.cluster_model == "cluster":
        return ClusterNodes(settings, dialler)
    if settings.cluster_model == "sentinel" and settings.sentinel_master:
        return Sentinels(settings, dialler)
    return OneServer(settings, dialler)
