"""
What the tests of the providers over Redis share: servers that are started once, and
providers for them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import attrs

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from mpush_tw.config.settings import RedisSettings
from mpush_tw.errors import Unavailable
from mpush_tw.integrations.redis import RedisCache, RedisQueue
from tests.servers.redis import (
    RedisCluster,
    RedisServer,
    SentinelSet,
    redis_cluster,
    sentinel_set,
)

# A server that is shared ends with the test process; see tests.servers.


@cache
def shared_server() -> RedisServer:
    """
    Give the server that tests use which leave it running.
    """
    server = RedisServer()
    server.start()
    return server


@cache
def shared_cluster() -> RedisCluster:
    """
    Give the Redis Cluster that tests use which leave it whole.
    """
    return redis_cluster()


@cache
def shared_sentinels() -> SentinelSet:
    """
    Give the sentinels that tests use which leave their master alone.
    """
    return sentinel_set(password="of-master", sentinel_password="of-sentinel")


_PASS_TIME = """
for _, key in ipairs(redis.call('KEYS', '*')) do
    local left = redis.call('PTTL', key)
    if left > 0 then
        redis.call('PEXPIRE', key, left - ARGV[1])
    end
end
"""


def pass_time(server: RedisServer, seconds: float) -> None:
    """
    Take time from what all keys of a server still have to live.
    """
    server.cli("EVAL", _PASS_TIME, "0", str(int(seconds * 1000)))


def single(server: RedisServer, **changes: Any) -> RedisSettings:
    """
    Make the settings for one server.
    """
    return attrs.evolve(RedisSettings(nodes=(server.address,)), **changes)


def cluster(servers: RedisCluster, **changes: Any) -> RedisSettings:
    """
    Make the settings for a Redis Cluster.
    """
    settings = RedisSettings(cluster_model="cluster", nodes=tuple(servers.addresses))
    return attrs.evolve(settings, **changes)


def sentinel(servers: SentinelSet, **changes: Any) -> RedisSettings:
    """
    Make the settings for the master of the shared sentinels, or of others that have
    the same passwords.
    """
    settings = RedisSettings(
        cluster_model="sentinel",
        sentinel_master=servers.name,
        nodes=tuple(f"{address}:of-sentinel" for address in servers.addresses),
        password="of-master",
    )
    return attrs.evolve(settings, **changes)


def sleep(seconds: float) -> Deferred[None]:
    """
    Let real time pass, the reactor running.
    """
    return deferLater(reactor, seconds, lambda: None)


async def until(true: Callable[[], Any], seconds: float = 15.0) -> None:
    """
    Wait for something, the reactor running.
    """
    for _ in range(int(seconds / 0.02)):
        if true():
            return
        await sleep(0.02)
    raise AssertionError(f"waited {seconds} seconds in vain")


async def failing(call: Deferred[Any]) -> Unavailable:
    """
    Wait for a call that must fail.
    """
    try:
        result = await call
    except Unavailable as error:
        return error
    raise AssertionError(f"it gave {result!r}")


def log_of(case: TestCase) -> list[LogEvent]:
    """
    Collect what is logged until the end of a test.
    """
    events: list[LogEvent] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        events.append(event)

    globalLogPublisher.addObserver(observe)
    case.addCleanup(globalLogPublisher.removeObserver, observe)
    return events


async def started_cache(case: TestCase, settings: RedisSettings) -> RedisCache:
    """
    Make a store and start it; it is stopped behind the test.
    """
    made = RedisCache(settings, reactor)
    case.addCleanup(made.stop)
    await made.start()
    return made


async def started_queue(case: TestCase, settings: RedisSettings) -> RedisQueue:
    """
    Make a queue and start it; it is stopped behind the test.
    """
    made = RedisQueue(settings, reactor)
    case.addCleanup(made.stop)
    await made.start()
    return made
