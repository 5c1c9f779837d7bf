"""
Keys that have another name today, and keys that are gone (operations 2.13).

An old key counts when its successor is not set in the same or a stronger layer. What an
operator is told about them is decided in L{mpush_tw.config._notices}.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from mpush_tw.config import _fields
from mpush_tw.config.hocon import Text
from mpush_tw.config.settings import RedisPoolSettings

__all__ = ["ALIASES", "RETIRED", "Alias", "aliases_in_use"]


@attrs.frozen
class Alias:
    """
    Another name of a key.

    @ivar old: The path that an operator may have written.
    @ivar new: The path of today.
    @ivar retired: Whether the old name is to be reported; otherwise both are good.
    """

    old: tuple[str, ...]
    new: tuple[str, ...]
    retired: bool = True


def _path(dotted: str) -> tuple[str, ...]:
    return tuple(dotted.split("."))


def _pool_aliases() -> Iterator[Alias]:
    """
    The hyphenated spellings of C{mp.redis.config}; the camelCase ones win (2.9).
    """
    section = ("mp", "redis", "config")
    for (*_, name), _key in _fields.walk(RedisPoolSettings, section):
        hyphenated = re.sub("([A-Z])", lambda upper: f"-{upper[0].lower()}", name)
        if hyphenated != name:
            yield Alias((*section, hyphenated), (*section, name), retired=False)


ALIASES: Final = (
    Alias(_path("mp.log.level"), _path("mp.log-level")),
    Alias(_path("mp.log.dir"), _path("mp.log-dir")),
    Alias(_path("mp.zk.local-cache-path"), _path("mp.zk.watch-path")),
    Alias(_path("mp.thread.pool.work.max"), _path("mp.thread.pool.conn-work")),
    Alias(_path("mp.thread.pool.http-proxy.max"), _path("mp.thread.pool.http-work")),
    Alias(
        _path("mp.thread.pool.push-callback.max"), _path("mp.thread.pool.push-client")
    ),
    Alias(_path("mp.thread.pool.push-center.max"), _path("mp.thread.pool.push-task")),
    Alias(
        _path("mp.monitor.metrics-port"),
        _path("mp.net.metrics-server-port"),
        retired=False,
    ),
    Alias(
        _path("mp.monitor.metrics-bind-ip"),
        _path("mp.net.metrics-server-bind-ip"),
        retired=False,
    ),
    *_pool_aliases(),
)
"""
Every other name that is understood.
"""


def _pool(name: str, least: str, most: str, queue: str) -> dict[tuple[str, ...], str]:
    pool = ("mp", "thread", "pool", name)
    return {
        (*pool, "min"): least,
        (*pool, "max"): most,
        (*pool, "queue-size"): queue,
    }


RETIRED: Final = {
    ("mp", "redis", "write-to-zk"): "false",
    **_pool("boss", "1", "1", "0"),
    **_pool("work", "0", "0", "0"),
    **_pool("http-proxy", "0", "0", "0"),
    **_pool("biz", "1", "4", "16"),
    **_pool("push-callback", "2", "2", "0"),
    **_pool("push-center", "4", "4", "0"),
}
"""
Keys of older releases without effect here, and the defaults they had there: a key that
holds its old default is not worth a word.
"""


def aliases_in_use(layers: Sequence[Text]) -> list[Alias]:
    """
    Find the old names whose values count.

    @param layers: The operator's layers, strongest first, without the defaults.
    """
    in_use = []
    for alias in ALIASES:
        for layer in layers:
            if layer.has(alias.new):
                break
            if layer.has(alias.old):
                in_use.append(alias)
                break
    return in_use
