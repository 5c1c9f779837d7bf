"""
What others leave in our keys does no harm: it is logged with the key's name and read
as if it were not there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel
from twisted.trial.unittest import TestCase

from mpush_tw.errors import Unavailable
from mpush_tw.integrations.redis import RedisCache
from tests.integrations.contracts import steps
from tests.integrations.redis.support import (
    log_of,
    pass_time,
    shared_server,
    single,
    sleep,
    started_cache,
    started_queue,
)

NO_TEXT = "\udcff\udcfe"
"""
As an argument of redis-cli, the bytes FF FE.
"""

FOREIGN = {
    "text": ("SET", "text", "v"),
    "hash": ("HSET", "hash", "f", "v"),
    "zset": ("ZADD", "zset", "1", "m"),
    "list": ("LPUSH", "list", "a"),
    "set": ("SADD", "set", "a"),
    "stream": ("XADD", "stream", "*", "f", "v"),
}
"""
Kinds of keys, and how each is made.
"""

Call = Callable[[RedisCache, str], Deferred[Any]]

READS: list[tuple[str, Call, object]] = [
    ("text", lambda cache, key: cache.get(key), None),
    ("hash", lambda cache, key: cache.hget(key, "f"), None),
    ("hash", lambda cache, key: cache.hgetall(key), {}),
    ("zset", lambda cache, key: cache.zcard(key), 0),
    ("zset", lambda cache, key: cache.zrange(key, 0, -1), []),
    ("list", lambda cache, key: cache.lrange(key, 0, -1), []),
]
"""
The kind of key a read is for, the read, and what it gives for nothing.
"""

WRITES: list[tuple[str, Call]] = [
    ("hash", lambda cache, key: cache.hset(key, "f", "v")),
    ("hash", lambda cache, key: cache.hdel(key, "f")),
    ("hash", lambda cache, key: cache.hswap(key, "f", "v")),
    ("hash", lambda cache, key: cache.hset_if(key, "f", None, "v")),
    ("hash", lambda cache, key: cache.hincrby(key, "n", 1)),
    ("zset", lambda cache, key: cache.zadd(key, "m")),
    ("zset", lambda cache, key: cache.zrem(key, "m")),
    ("list", lambda cache, key: cache.lpush(key, ["a"])),
]


class GarbageTests(TestCase):
    """
    Keys that something else has written.
    """

    @steps
    async def setUp(self) -> None:  # type: ignore[override]
        self.server = shared_server()
        self.server.cli("FLUSHALL")
        self.cache = await started_cache(self, single(self.server))
        self.events = log_of(self)

    def warned(self) -> list[str]:
        """
        Name the keys that the log has warned of since this was last asked.
        """
        events, self.events[:] = list(self.events), []
        return [
            event["key"]
            for event in events
            if event["log_level"] is LogLevel.warn and "key" in event
        ]

    async def refused(self, writing: Awaitable[object]) -> Unavailable:
        """
        Wait for a call that must fail.
        """
        try:
            await writing
        except Unavailable as error:
            return error
        raise AssertionError("it was written")

    def make_foreign(self) -> None:
        """
        Make a key of each kind.
        """
        for command in FOREIGN.values():
            self.server.cli(*command)

    @steps
    async def test_other_kind_is_read(self) -> None:
        """
        A key of another kind reads like one that is missing.
        """
        self.make_foreign()
        for kind, read, nothing in READS:
            for key in FOREIGN.keys() - {kind}:
                self.assertEqual(await read(self.cache, key), nothing, (kind, key))
                self.assertEqual(self.warned(), [key])

    @steps
    async def test_other_kind_is_written(self) -> None:
        """
        Writing to a key of another kind fails, with the key's name, and changes
        nothing.
        """
        self.make_foreign()
        before = {key: self.server.cli("DUMP", key) for key in FOREIGN}
        for kind, write in WRITES:
            for key in FOREIGN.keys() - {kind}:
                error = await self.refused(write(self.cache, key))
                self.assertIn(repr(key), str(error))
                self.assertEqual(self.warned(), [key])
        after = {key: self.server.cli("DUMP", key) for key in FOREIGN}
        self.assertEqual(after, before)

    @steps
    async def test_overwritten(self) -> None:
        """
        A text takes the place of whatever is there, and every kind can be removed or
        given an end.
        """
        self.make_foreign()
        for key in FOREIGN:
            await self.cache.expire(key, 100)
            await self.cache.set(key, "text")
            self.assertEqual(await self.cache.get(key), "text")
            await self.cache.expire(key, 1)
        pass_time(self.server, 1)
        self.make_foreign()
        for key in FOREIGN:
            await self.cache.delete(key)
        self.assertEqual(self.server.cli("DBSIZE"), "0")

    @steps
    async def test_no_text(self) -> None:
        """
        A value that is no UTF-8 reads like one that is missing.
        """
        self.server.cli("SET", "t", NO_TEXT)
        self.server.cli("HSET", "h", "f", NO_TEXT)
        self.assertIsNone(await self.cache.get("t"))
        self.assertIsNone(await self.cache.hget("h", "f"))
        self.assertEqual(self.warned(), ["t", "h"])

    @steps
    async def test_no_text_among_others(self) -> None:
        """
        Of several values those that are no UTF-8 are left out, be they values, fields
        or members.
        """
        self.server.cli("HSET", "h", "a", "A", "b", NO_TEXT, NO_TEXT, "C", "d", "D")
        self.server.cli("ZADD", "z", "0", "m", "0", NO_TEXT)
        self.server.cli("RPUSH", "l", "1", NO_TEXT, "3")
        self.assertEqual(await self.cache.hgetall("h"), {"a": "A", "d": "D"})
        self.assertEqual(await self.cache.zrange("z", 0, -1), ["m"])
        self.assertEqual(await self.cache.lrange("l", 0, -1), ["1", "3"])
        self.assertEqual(self.warned(), ["h", "z", "l"])

    @steps
    async def test_no_text_is_swapped(self) -> None:
        """
        A swap takes the place of a value that is no UTF-8, and gives nothing.
        """
        self.server.cli("HSET", "h", "f", NO_TEXT)
        self.assertFalse(await self.cache.hset_if("h", "f", None, "new"))
        self.assertIsNone(await self.cache.hswap("h", "f", "new"))
        self.assertEqual(await self.cache.hget("h", "f"), "new")

    @steps
    async def test_no_number(self) -> None:
        """
        Counting on a field that is no number fails with key and field.
        """
        await self.cache.hset("h", "n", "many")
        error = await self.refused(self.cache.hincrby("h", "n", 1))
        self.assertIn("'n' of 'h'", str(error))

    @steps
    async def test_looks_like_a_number(self) -> None:
        """
        Texts that look like numbers, or like answers of Redis, come back as written.
        """
        for text in ("007", "1e5", "-0", "3.0", "+1", "OK", "QUEUED", "nil", " 1 "):
            await self.cache.set("t", text)
            await self.cache.hset("h", "f", text)
            self.assertEqual(await self.cache.get("t"), text)
            self.assertEqual(await self.cache.hgetall("h"), {"f": text})
            self.assertEqual(await self.cache.hswap("h", "f", "x"), text)

    @steps
    async def test_large(self) -> None:
        """
        Large and odd values come back as written.
        """
        for text in ("推" * 300_000, "\r\n$3\r\n", "\0", "*1\r\n" * 1000):
            await self.cache.set("t", text)
            self.assertEqual(await self.cache.get("t"), text)


class GarbageMessageTests(TestCase):
    """
    Messages that something else has published.
    """

    @steps
    async def setUp(self) -> None:  # type: ignore[override]
        self.server = shared_server()
        self.queue = await started_queue(self, single(self.server))
        self.events = log_of(self)

    @steps
    async def test_no_text(self) -> None:
        """
        A message that is no UTF-8 is logged with its topic; the next is received.
        """
        received: list[str] = []
        await self.queue.subscribe("/topic", lambda _, text: received.append(text))
        self.server.cli("PUBLISH", "/topic", NO_TEXT)
        self.server.cli("PUBLISH", "/topic", "good")
        await sleep(0.05)
        self.assertEqual(received, ["good"])
        logged = [
            event["topic"]
            for event in self.events
            if event["log_level"] is LogLevel.warn and "topic" in event
        ]
        self.assertEqual(logged, ["/topic"])

    @steps
    async def test_nobody_receives(self) -> None:
        """
        A message that comes when nobody wants it any more is dropped and logged.
        """
        await self.queue.subscribe("/topic", lambda topic, text: self.fail())
        unsubscribed = self.queue.unsubscribe("/topic")
        # Sent before Redis has read that: the reactor does not run meanwhile.
        self.server.cli("PUBLISH", "/topic", "late")
        await unsubscribed
        logged = [event["topic"] for event in self.events if "topic" in event]
        self.assertEqual(logged, ["/topic"])
        self.assertEqual(self.server.cli("PUBSUB", "NUMSUB", "/topic"), "/topic\n0")
