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
