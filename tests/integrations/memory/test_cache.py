"""
Tests for L{mpush_tw.integrations.memory.cache}.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mpush_tw.errors import Unavailable
from mpush_tw.integrations.memory import MemoryCache
from mpush_tw.interfaces import ICache
from tests.integrations.contracts import CacheContract


class MemoryCacheContractTests(CacheContract, TestCase):
    """
    It does what every store does.
    """

    def make_cache(self) -> ICache:
        self.clock = Clock()
        return MemoryCache(self.clock)

    def pass_time(self, seconds: float) -> Deferred[None]:
        self.clock.advance(seconds)
        return succeed(None)


class BoundsTests(SynchronousTestCase):
    """
    What strangers can make it keep.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.cache = MemoryCache(self.clock, max_expiring=3, max_hashes=3)

    def get(self, key: str) -> str | None:
        """
        Read a text.
        """
        return self.successResultOf(self.cache.get(key))  # type: ignore[no-any-return]

    def test_sessions(self) -> None:
        """
        Expiring texts beyond the bound cost the oldest.
        """
        for number in range(5):
            self.cache.set(f"s{number}", "x", 100)
        kept = [number for number in range(5) if self.get(f"s{number}")]
        self.assertEqual(kept, [2, 3, 4])

    def test_expired_make_room(self) -> None:
        """
        Texts whose time is over are dropped when others come.
        """
        for number in range(3):
            self.cache.set(f"s{number}", "x", 10)
        self.clock.advance(11)
        self.cache.set("new", "x", 10)
        self.assertEqual(sum(map(len, self.cache._expiring.values())), 1)

    def test_written_again(self) -> None:
        """
        A text that is written again counts once, and is young again.
        """
        for key in ("a", "b", "a", "c", "d"):
            self.cache.set(key, "x", 100)
        self.assertIsNone(self.get("b"))
        self.assertEqual(self.get("a"), "x")

    def test_hashes(self) -> None:
        """
        Hashes beyond the bound cost the oldest.
        """
        for number in range(5):
            self.cache.hset(f"h{number}", "1", "x")
        kept = [
            number
            for number in range(5)
            if self.successResultOf(self.cache.hgetall(f"h{number}"))
        ]
        self.assertEqual(kept, [2, 3, 4])

    def test_known_hashes(self) -> None:
        """
        Writing to a hash that is there costs none.
        """
        for number in range(3):
            self.cache.hset(f"h{number}", "1", "x")
        self.cache.hset("h0", "1", "y")
        self.cache.hset("h1", "2", "y")
        for number in range(3):
            found = self.successResultOf(self.cache.hgetall(f"h{number}"))
            self.assertTrue(found, number)

    def test_counters(self) -> None:
        """
        Counters are hashes, and bounded like them.
        """
        for number in range(5):
            self.cache.hincrby(f"c{number}", "n", 1)
        self.assertEqual(len(self.cache._hashes), 3)

    def test_no_number(self) -> None:
        """
        Counting in a field that is no number fails as a real store would.
        """
        self.cache.hset("h", "n", "x")
        self.failureResultOf(self.cache.hincrby("h", "n", 1), Unavailable)

    def test_nothing_left(self) -> None:
        """
        What becomes empty costs nothing.
        """
        self.cache.zadd("z", "m")
        self.cache.zrem("z", "m")
        self.cache.hset("h", "f", "v")
        self.cache.hdel("h", "f")
        self.assertEqual((self.cache._sets, self.cache._hashes), ({}, {}))


class SizeTests(SynchronousTestCase):
    """
    The same bounds by size: a few long texts weigh as much as many short ones.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.cache = MemoryCache(self.clock, max_characters=100)

    def texts(self) -> list[str]:
        """
        The sessions that are left.
        """
        return [
            key
            for key in ("s0", "s1", "s2", "s3")
            if self.successResultOf(self.cache.get(key)) is not None
        ]

    def hashes(self) -> list[str]:
        """
        The hashes that are left.
        """
        return [
            key
            for key in ("h0", "h1", "h2", "h3")
            if self.successResultOf(self.cache.hgetall(key))
        ]

    def test_sessions(self) -> None:
        """
        Keys and values of expiring texts beyond the bound cost the oldest.
        """
        for number in range(2):
            self.cache.set(f"s{number}", "x" * 48, 100)
        self.assertEqual(self.texts(), ["s0", "s1"])
        self.cache.set("s2", "", 100)
        self.assertEqual(self.texts(), ["s1", "s2"])
        self.cache.set("s3", "x" * 97, 100)
        self.assertEqual(self.texts(), ["s3"])

    def test_sessions_that_have_gone(self) -> None:
        """
        Texts that were deleted, replaced or that expired do not count.
        """
        for _ in range(10):
            self.cache.set("s0", "x" * 40, 10)
            self.cache.set("s1", "x" * 40, 10)
            self.cache.delete("s1")
        self.clock.advance(11)
        for number in range(1, 3):
            self.cache.set(f"s{number}", "x" * 48, 10)
        self.assertEqual(self.texts(), ["s1", "s2"])

    def test_hashes(self) -> None:
        """
        Keys, fields and values of hashes beyond the bound cost the oldest.
        """
        for number in range(2):
            self.cache.hset(f"h{number}", "1", "x" * 47)
        self.assertEqual(self.hashes(), ["h0", "h1"])
        self.cache.hset("h2", "1", "x")
        self.assertEqual(self.hashes(), ["h1", "h2"])

    def test_hash_written_again(self) -> None:
        """
        A hash that is written is young again, and counts once.
        """
        for _ in range(10):
            self.cache.hset("h0", "1", "x" * 30)
            self.cache.hset("h1", "1", "x" * 30)
        self.cache.hset("h0", "1", "x" * 30)
        self.cache.hset("h2", "1", "x" * 40)
        self.assertEqual(self.hashes(), ["h0", "h2"])

    def test_hash_that_grows(self) -> None:
        """
        One that grows field by field is bounded as well.
        """
        self.cache.hset("h0", "1", "x")
        for number in range(20):
            self.cache.hset("h1", str(number), "x" * 8)
            fields = self.successResultOf(self.cache.hgetall("h1"))
            self.assertLess(sum(map(len, fields.values())), 100)
        self.assertNotIn("h0", self.hashes())

    def test_hashes_that_have_gone(self) -> None:
        """
        Hashes and fields that were deleted do not count.
        """
        for _ in range(10):
            self.cache.hset("h0", "1", "x" * 40)
            self.cache.hset("h0", "2", "x" * 40)
            self.cache.hdel("h0", "2")
            self.cache.delete("h0")
        for number in range(1, 3):
            self.cache.hset(f"h{number}", "1", "x" * 47)
        self.assertEqual(self.hashes(), ["h1", "h2"])

    def test_apart(self) -> None:
        """
        Sessions do not cost routes, nor routes sessions.
        """
        self.cache.hset("h0", "1", "x" * 90)
        self.cache.set("s0", "x" * 90, 100)
        self.assertEqual((self.texts(), self.hashes()), (["s0"], ["h0"]))
