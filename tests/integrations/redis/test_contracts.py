"""
The providers over Redis do what every provider does, in each mode.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import TestCase

from mpush_tw.config.settings import RedisSettings
from mpush_tw.interfaces import ICache, IMessageQueue
from tests.integrations.contracts import CacheContract, QueueContract
from tests.integrations.redis.support import (
    cluster,
    pass_time,
    sentinel,
    shared_cluster,
    shared_sentinels,
    shared_server,
    single,
    sleep,
    started_cache,
    started_queue,
)
from tests.servers.redis import RedisServer


class _RedisCacheContract(CacheContract):
    """
    A store on real servers, emptied before each test.
    """

    def servers(self) -> list[RedisServer]:
        """
        Give the servers that hold keys.
        """
        raise NotImplementedError

    def settings(self) -> RedisSettings:
        """
        Give the settings that lead there.
        """
        raise NotImplementedError

    def make_cache(self) -> Deferred[ICache]:
        for server in self.servers():
            server.cli("FLUSHALL")
        return Deferred.fromCoroutine(started_cache(self, self.settings()))

    def pass_time(self, seconds: float) -> Deferred[None]:
        for server in self.servers():
            pass_time(server, seconds)
        return succeed(None)


class SingleCacheTests(_RedisCacheContract, TestCase):
    """
    One server.
    """

    def servers(self) -> list[RedisServer]:
        return [shared_server()]

    def settings(self) -> RedisSettings:
        return single(shared_server())


class SentinelCacheTests(_RedisCacheContract, TestCase):
    """
    The master of sentinels; both have passwords.
    """

    def servers(self) -> list[RedisServer]:
        return [shared_sentinels().master]

    def settings(self) -> RedisSettings:
        return sentinel(shared_sentinels())


class ClusterCacheTests(_RedisCacheContract, TestCase):
    """
    A Redis Cluster of three masters.
    """

    def servers(self) -> list[RedisServer]:
        return shared_cluster().servers

    def settings(self) -> RedisSettings:
        return cluster(shared_cluster())


class _RedisQueueContract(QueueContract):
    """
    A queue on real servers.
    """

    def settings(self) -> RedisSettings:
        """
        Give the settings that lead there.
        """
        raise NotImplementedError

    def make_queue(self) -> Deferred[IMessageQueue]:
        return Deferred.fromCoroutine(started_queue(self, self.settings()))

    def settle(self) -> Deferred[None]:
        return sleep(0.05)


class SingleQueueTests(_RedisQueueContract, TestCase):
    """
    One server.
    """

    def settings(self) -> RedisSettings:
        return single(shared_server())


class SentinelQueueTests(_RedisQueueContract, TestCase):
    """
    The master of sentinels.
    """

    def settings(self) -> RedisSettings:
        return sentinel(shared_sentinels())


class ClusterQueueTests(_RedisQueueContract, TestCase):
    """
    A Redis Cluster: what is published at one node is heard at all.
    """

    def settings(self) -> RedisSettings:
        return cluster(shared_cluster())
