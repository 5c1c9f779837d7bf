"""
The shared store of a cluster, in Redis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mpush_tw.config.settings import RedisSettings
from mpush_tw.errors import Unavailable
from mpush_tw.integrations.redis._cluster import ClusterStore
from mpush_tw.integrations.redis._cluster_nodes import ClusterNodes
from mpush_tw.integrations.redis._commands import SWAP_DIGEST, SWAP_SCRIPT, Command
from mpush_tw.integrations.redis._connection import Address, Refused, Reply, Words
from mpush_tw.integrations.redis._pool import Pool, PoolLimits
from mpush_tw.integrations.redis._sources import Source, source_of
from mpush_tw.integrations.redis._store import Restored, Store
from mpush_tw.interfaces import ICache

_SCORE = "0.0"
"""
As the original writes it (cluster 2.6).
"""

_T = TypeVar("_T")


class _OtherKind(Unavailable):
    """
    The key holds something that no node has written.
    """


class _SourceStore:
    """
    All keys on one server: a single one, or the master of sentinels.
    """

    def __init__(
        self, source: Source, limits: PoolLimits, clock: Any, restored: Restored
    ) -> None:
        self._source = source
        self._pool = Pool(
            source.name,
            "shared store",
            source.dial,
            limits,
            clock,
            back=restored.tell,
            follows=source.follows,
        )
        self.execute = self._pool.execute

    def start(self) -> Deferred[None]:
        return self._pool.start().addCallback(self._started)

    def _started(self, result: None) -> None:
        self._source.start(self._moved)

    def _moved(self, keep: Callable[[Address], bool]) -> None:
        self._pool.leave(keep)

    def stop(self) -> Deferred[None]:
        closing = [self._source.stop(), self._pool.stop()]
        closed: Deferred[None] = Deferred()
        DeferredList(closing).addCallback(lambda _: closed.callback(None))
        return closed


@implementer(ICache)
class RedisCache:
    """
    One plain command for each call, byte for byte as the original sends it (cluster 2.2
    to 2.10), but for a session's SET, which carries its time to live, and for
    L{hswap} and L{hset_if}, which are one script (DESIGN 5c).

    Calls do not wait for each other. What was sent and lost with its connection is sent
    once more, where that does no harm; everything ends within a few seconds. A value
    that is no UTF-8, or a key that holds something of another kind, was not written by
    a node: it is logged with the key's name and read as if it were not there; writing
    to such a key fails.
    """

    _log = Logger()

    def __init__(self, settings: RedisSettings, reactor: Any) -> None:
        """
        @param settings: With at least one node.
        @param reactor: Provides C{IReactorTCP} and C{IReactorTime}.
        @raise ConfigError: If a file of C{mp.redis.tls} cannot be used.
        """
        limits = PoolLimits.of(settings.config)
        self._restored = Restored()
        source = source_of(settings, reactor)
        self._store: Store
        if isinstance(source, ClusterNodes):
            self._store = ClusterStore(source, limits, reactor, self._restored)
        else:
            self._store = _SourceStore(source, limits, reactor, self._restored)

    def start(self) -> Deferred[None]:
        """
        Connect and see that Redis answers, within five seconds; see
        L{ICache.start}. After a failure it may be tried again.
        """
        return self._store.start()

    def stop(self) -> Deferred[None]:
        """
        Disconnect: outstanding calls have two seconds, others fail. L{start} may be
        called again when the Deferred has fired.
        """
        return self._store.stop()

    def on_restored(self, listener: Callable[[], None]) -> None:
        self._restored.add(listener)

    # ----------------------------------------------------------------- texts

    def get(self, key: str) -> Deferred[str | None]:
        return self._read(("GET", key), key, None, self._text)

    def set(self, key: str, value: str, ttl_seconds: int = 0) -> Deferred[None]:
        if ttl_seconds > 0:
            return self._write(("SET", key, value, "EX", ttl_seconds), key)
        return self._write(("SET", key, value), key)

    def expire(self, key: str, ttl_seconds: int) -> Deferred[None]:
        return self._write(("EXPIRE", key, ttl_seconds), key)

    def delete(self, key: str) -> Deferred[None]:
        return self._write(("DEL", key), key)

    # ---------------------------------------------------------------- hashes

    def hget(self, key: str, field: str) -> Deferred[str | None]:
        return self._read(("HGET", key, field), key, None, self._text)

    def hset(self, key: str, field: str, value: str) -> Deferred[None]:
        return self._write(("HSET", key, field, value), key)

    def hswap(self, key: str, field: str, value: str) -> Deferred[str | None]:
        return Deferred.fromCoroutine(self._hswap(key, field, value))

    async def _hswap(self, key: str, field: str, value: str) -> str | None:
        command = Command((), key, repeatable=False)
        _, held = await self._swap(command, (field, value, "any"))
        return self._text(held, key)

    def hset_if(
        self, key: str, field: str, expected: str | None, value: str
    ) -> Deferred[bool]:
        return Deferred.fromCoroutine(self._hset_if(key, field, expected, value))

    async def _hset_if(
        self, key: str, field: str, expected: str | None, value: str
    ) -> bool:
        condition = ("if",) if expected is None else ("if", expected)
        command = Command((), key)
        written, held = await self._swap(command, (field, value, *condition))
        # Sent again because its first answer was lost, it finds what it has written.
        return bool(written) or (command.repeated and held == value)

    async def _swap(self, command: Command, arguments: Words) -> Reply:
        key = command.key
        try:
            try:
                command.words = ("EVALSHA", SWAP_DIGEST, 1, key, *arguments)
                return await self._store.execute(command)
            except Refused as refused:
                if refused.code != "NOSCRIPT":
                    raise
            command.words = ("EVAL", SWAP_SCRIPT, 1, key, *arguments)
            return await self._store.execute(command)
        except Refused as refused:
            raise self._refusal(refused, command) from None

    def hdel(self, key: str, field: str) -> Deferred[None]:
        return self._write(("HDEL", key, field), key)

    def hgetall(self, key: str) -> Deferred[dict[str, str]]:
        return self._read(("HGETALL", key), key, {}, self._fields)

    def hincrby(self, key: str, field: str, amount: int) -> Deferred[int]:
        command = Command(("HINCRBY", key, field, amount), key, repeatable=False)
        return self._store.execute(command).addErrback(self._not_written, command)

    # ----------------------------------------------------------- sorted sets

    def zadd(self, key: str, member: str) -> Deferred[None]:
        return self._write(("ZADD", key, _SCORE, member), key)

    def zrem(self, key: str, member: str) -> Deferred[None]:
        return self._write(("ZREM", key, member), key)

    def zcard(self, key: str) -> Deferred[int]:
        return self._read(("ZCARD", key), key, 0, lambda reply, key: int(reply))

    def zrange(self, key: str, start: int, end: int) -> Deferred[list[str]]:
        return self._read(("ZRANGE", key, start, end), key, [], self._texts)

    # ----------------------------------------------------------------- lists

    def lpush(self, key: str, values: Sequence[str]) -> Deferred[None]:
        if not values:
            return succeed(None)
        return self._write(("LPUSH", key, *values), key, repeatable=False)

    def lrange(self, key: str, start: int, end: int) -> Deferred[list[str]]:
        return self._read(("LRANGE", key, start, end), key, [], self._texts)

    # ------------------------------------------------------------ the answers

    def _read(
        self, words: Words, key: str, absent: _T, decode: Callable[[Reply, str], _T]
    ) -> Deferred[_T]:
        command = Command(words, key)
        return self._store.execute(command).addCallbacks(
            decode, self._not_read, callbackArgs=(key,), errbackArgs=(command, absent)
        )

    def _write(self, words: Words, key: str, repeatable: bool = True) -> Deferred[None]:
        command = Command(words, key, repeatable)
        return self._store.execute(command).addCallbacks(
            _nothing, self._not_written, errbackArgs=(command,)
        )

    def _not_read(self, failure: Failure, command: Command, absent: _T) -> _T:
        failure.trap(Refused)
        refusal = self._refusal(failure.value, command)
        if isinstance(refusal, _OtherKind):
            return absent
        raise refusal

    def _not_written(self, failure: Failure, command: Command) -> Any:
        failure.trap(Refused)
        raise self._refusal(failure.value, command)

    def _refusal(self, refused: Any, command: Command) -> Unavailable:
        """
        Say why a command was not run. The key is named where it is at fault, and only
        there: that of a session is known to its device alone.
        """
        key = command.key
        # Within a script, Redis before 7 puts words of its own in front.
        if "WRONGTYPE" in refused.text:
            self._log.warn("{key!r} holds something of another kind", key=key)
            return _OtherKind(f"{key!r} holds something of another kind")
        if command.words[0] == "HINCRBY" and refused.code == "ERR":
            field = command.words[2]
            return Unavailable(f"{field!r} of {key!r} cannot count: {refused.text}")
        return Unavailable(
            f"Redis at {refused.address} refuses {command}: {refused.text}"
        )

    def _text(self, reply: Reply, key: str) -> str | None:
        if reply is None or isinstance(reply, str):
            return reply
        self._no_text(key)
        return None

    def _texts(self, reply: Reply, key: str) -> list[str]:
        texts = [text for text in reply if isinstance(text, str)]
        if len(texts) < len(reply):
            self._no_text(key)
        return texts

    def _fields(self, reply: Reply, key: str) -> dict[str, str]:
        pairs = zip(reply[::2], reply[1::2], strict=True)
        fields = {
            field: value
            for field, value in pairs
            if isinstance(field, str) and isinstance(value, str)
        }
        if len(fields) < len(reply) // 2:
            self._no_text(key)
        return fields

    def _no_text(self, key: str) -> None:
        self._log.warn("{key!r} holds a value that is no UTF-8 text", key=key)


def _nothing(reply: Reply) -> None:
    """
    Whatever a write answers.
    """
