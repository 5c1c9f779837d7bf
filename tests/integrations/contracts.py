"""
What every provider of a storage interface has to do, as mixins: run against the
in-process ones here, and against real servers where those are tested.

Tests are coroutines, so that a provider may take its time. A test case derives from a
contract and from L{TestCase}, in this order.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from mpush_tw.interfaces import ICache, IMessageQueue

if TYPE_CHECKING:
    _Base = TestCase
else:
    # Only what derives from a contract and from TestCase is run.
    _Base = object

Steps = Callable[[Any], Coroutine[Deferred[Any], Any, None]]


def steps(method: Steps) -> Callable[[Any], Deferred[None]]:
    """
    Make a test of a coroutine.
    """

    @wraps(method)
    def test(self: Any) -> Deferred[None]:
        return Deferred.fromCoroutine(method(self))

    return test


class CacheContract(_Base):
    """
    What an L{ICache} has to do. Derive from it and supply the two methods.

    @ivar cache: A started store, empty as far as keys below L{prefix} go.
    @ivar prefix: Begins all keys.
    """

    cache: ICache
    prefix = "mpush-tw-test:"

    def make_cache(self) -> ICache | Deferred[ICache]:
        """
        Make a store and start it; it is cleaned up by the derived class.
        """
        raise NotImplementedError

    def pass_time(self, seconds: float) -> Deferred[None]:
        """
        Let this much time pass for the store.
        """
        raise NotImplementedError

    @steps
    async def setUp(self) -> None:  # type: ignore[override]
        made = self.make_cache()
        self.cache = await made if isinstance(made, Deferred) else made

    def key(self, name: str) -> str:
        """
        Make a key that collides with nobody's.
        """
        return self.prefix + name

    def test_interface(self) -> None:
        """
        It is a store.
        """
        verifyObject(ICache, self.cache)

    @steps
    async def test_text(self) -> None:
        """
        A text is read as it was written, whatever is in it.
        """
        for text in ("value", "", "ünïcödé 推送", '{"a": "b\\n"}', "a,b|c"):
            await self.cache.set(self.key("t"), text)
            self.assertEqual(await self.cache.get(self.key("t")), text)

    @steps
    async def test_no_text(self) -> None:
        """
        One that was never written is not there.
        """
        self.assertIsNone(await self.cache.get(self.key("none")))

    @steps
    async def test_expires(self) -> None:
        """
        A text with a time to live is gone when that is over, not before.
        """
        await self.cache.set(self.key("t"), "value", 2)
        await self.pass_time(1)
        self.assertEqual(await self.cache.get(self.key("t")), "value")
        await self.pass_time(1.2)
        self.assertIsNone(await self.cache.get(self.key("t")))

    @steps
    async def test_stays(self) -> None:
        """
        A time to live of 0 or less means for ever, also after a shorter one.
        """
        for seconds in (0, -1):
            await self.cache.set(self.key("t"), "short", 1)
            await self.cache.set(self.key("t"), "long", seconds)
            await self.pass_time(1.2)
            self.assertEqual(await self.cache.get(self.key("t")), "long")

    @steps
    async def test_new_time(self) -> None:
        """
        Writing again starts the time anew.
        """
        await self.cache.set(self.key("t"), "long", 100)
        await self.cache.set(self.key("t"), "short", 1)
        await self.pass_time(1.2)
        self.assertIsNone(await self.cache.get(self.key("t")))

    @steps
    async def test_expire(self) -> None:
        """
        A key of any kind can be given an end, and one that is not there too.
        """
        hashes, values = self.key("eh"), self.key("el")
        await self.cache.hset(hashes, "f", "v")
        await self.cache.lpush(values, ["a"])
        for name in (hashes, values, self.key("none")):
            await self.cache.expire(name, 2)
        await self.pass_time(1)
        self.assertEqual(await self.cache.hgetall(hashes), {"f": "v"})
        await self.pass_time(1.2)
        self.assertEqual(await self.cache.hgetall(hashes), {})
        self.assertEqual(await self.cache.lrange(values, 0, -1), [])

    @steps
    async def test_delete(self) -> None:
        """
        A key of any kind can be removed, and one that is not there too.
        """
        name = self.key("d")
        await self.cache.set(name, "text")
        await self.cache.delete(name)
        self.assertIsNone(await self.cache.get(name))
        await self.cache.set(name, "text", 100)
        await self.cache.delete(name)
        self.assertIsNone(await self.cache.get(name))
        await self.cache.hset(name, "f", "v")
        await self.cache.delete(name)
        self.assertEqual(await self.cache.hgetall(name), {})
        await self.cache.zadd(name, "m")
        await self.cache.delete(name)
        self.assertEqual(await self.cache.zcard(name), 0)
        await self.cache.lpush(name, ["a"])
        await self.cache.delete(name)
        self.assertEqual(await self.cache.lrange(name, 0, -1), [])
        await self.cache.delete(name)

    @steps
    async def test_hash(self) -> None:
        """
        Fields of a hash are written and read one by one, or read together.
        """
        name = self.key("h")
        await self.cache.hset(name, "1", "one")
        await self.cache.hset(name, "-1", "minus")
        await self.cache.hset(name, "1", "ONE")
        self.assertEqual(await self.cache.hget(name, "1"), "ONE")
        self.assertIsNone(await self.cache.hget(name, "2"))
        self.assertEqual(await self.cache.hgetall(name), {"1": "ONE", "-1": "minus"})

    @steps
    async def test_one_field(self) -> None:
        """
        A hash with one field keeps its last value, and is gone without the field.
        """
        name = self.key("h")
        await self.cache.hset(name, "1", "one")
        await self.cache.hset(name, "1", "two")
        self.assertEqual(await self.cache.hgetall(name), {"1": "two"})
        await self.cache.hdel(name, "1")
        self.assertEqual(await self.cache.hgetall(name), {})

    @steps
    async def test_swap(self) -> None:
        """
        Swapping a field writes it and gives what it held.
        """
        name = self.key("h")
        self.assertIsNone(await self.cache.hswap(name, "1", "one"))
        await self.cache.hset(name, "2", "two")
        self.assertEqual(await self.cache.hswap(name, "1", "ünï"), "one")
        self.assertEqual(await self.cache.hswap(name, "1", ""), "ünï")
        self.assertEqual(await self.cache.hgetall(name), {"1": "", "2": "two"})

    @steps
    async def test_swap_once(self) -> None:
        """
        Of swaps at the same time each gets another one's value.
        """
        name = self.key("h")
        values = [str(number) for number in range(20)]
        got = await gatherResults(
            [self.cache.hswap(name, "1", value) for value in values]
        )
        last = await self.cache.hget(name, "1")
        self.assertEqual(
            sorted([last or "", *(value or "" for value in got)]),
            sorted(["", *values]),
        )

    @steps
    async def test_conditional_write(self) -> None:
        """
        A field is written only if it holds what was expected, nothing included.
        """
        name = self.key("h")
        self.assertFalse(await self.cache.hset_if(name, "1", "one", "two"))
        self.assertEqual(await self.cache.hgetall(name), {})
        self.assertTrue(await self.cache.hset_if(name, "1", None, "one"))
        self.assertFalse(await self.cache.hset_if(name, "1", None, "two"))
        self.assertFalse(await self.cache.hset_if(name, "1", "", "two"))
        self.assertEqual(await self.cache.hget(name, "1"), "one")
        self.assertTrue(await self.cache.hset_if(name, "1", "one", ""))
        self.assertTrue(await self.cache.hset_if(name, "1", "", "推送"))
        self.assertEqual(await self.cache.hget(name, "1"), "推送")

    @steps
    async def test_no_hash(self) -> None:
        """
        A hash that is not there is empty.
        """
        self.assertIsNone(await self.cache.hget(self.key("none"), "1"))
        self.assertEqual(await self.cache.hgetall(self.key("none")), {})
        await self.cache.hdel(self.key("none"), "1")

    @steps
    async def test_hash_delete(self) -> None:
        """
        One field can be removed without the others.
        """
        name = self.key("h")
        for field in "abc":
            await self.cache.hset(name, field, field.upper())
        await self.cache.hdel(name, "b")
        self.assertEqual(await self.cache.hgetall(name), {"a": "A", "c": "C"})

    @steps
    async def test_what_is_read_is_a_copy(self) -> None:
        """
        Changing what was read changes nothing in the store.
        """
        name = self.key("h")
        await self.cache.hset(name, "a", "A")
        (await self.cache.hgetall(name))["a"] = "changed"
        await self.cache.lpush(name + "l", ["x"])
        (await self.cache.lrange(name + "l", 0, -1)).append("changed")
        self.assertEqual(await self.cache.hgetall(name), {"a": "A"})
        self.assertEqual(await self.cache.lrange(name + "l", 0, -1), ["x"])

    @steps
    async def test_counter(self) -> None:
        """
        A field counts from 0, up and down, and keeps the others beside it.
        """
        name = self.key("c")
        await self.cache.hset(name, "other", "x")
        self.assertEqual(await self.cache.hincrby(name, "n", 5), 5)
        self.assertEqual(await self.cache.hincrby(name, "n", -7), -2)
        self.assertEqual(await self.cache.hgetall(name), {"other": "x", "n": "-2"})

    @steps
    async def test_sorted_set(self) -> None:
        """
        Members are counted once each, and read in the order of their bytes.
        """
        name = self.key("z")
        for member in ("b", "ä", "a", "B", "b", "推"):
            await self.cache.zadd(name, member)
        self.assertEqual(await self.cache.zcard(name), 5)
        self.assertEqual(
            await self.cache.zrange(name, 0, -1), ["B", "a", "b", "ä", "推"]
        )
        await self.cache.zrem(name, "a")
        await self.cache.zrem(name, "not there")
        self.assertEqual(await self.cache.zrange(name, 0, -1), ["B", "b", "ä", "推"])

    @steps
    async def test_no_sorted_set(self) -> None:
        """
        A set that is not there is empty.
        """
        name = self.key("none")
        self.assertEqual(await self.cache.zcard(name), 0)
        self.assertEqual(await self.cache.zrange(name, 0, -1), [])
        await self.cache.zrem(name, "a")

    @steps
    async def test_ranks(self) -> None:
        """
        Ranks count from 0, the end included, negative ones from the end; ranges beyond
        the ends are cut.
        """
        name = self.key("z")
        for member in "abcde":
            await self.cache.zadd(name, member)
        for start, end, expected in _RANGES:
            found = await self.cache.zrange(name, start, end)
            self.assertEqual("".join(found), expected, (start, end))

    @steps
    async def test_list(self) -> None:
        """
        Values are put in front, one after the other.
        """
        name = self.key("l")
        await self.cache.lpush(name, ["a", "b"])
        await self.cache.lpush(name, ["c"])
        await self.cache.lpush(name, [])
        self.assertEqual(await self.cache.lrange(name, 0, -1), ["c", "b", "a"])

    @steps
    async def test_positions(self) -> None:
        """
        Positions of a list are meant like ranks of a set.
        """
        name = self.key("l")
        await self.cache.lpush(name, list("edcba"))
        for start, end, expected in _RANGES:
            found = await self.cache.lrange(name, start, end)
            self.assertEqual("".join(found), expected, (start, end))

    @steps
    async def test_nothing_pushed(self) -> None:
        """
        Pushing nothing makes no list.
        """
        await self.cache.lpush(self.key("none"), [])
        self.assertEqual(await self.cache.lrange(self.key("none"), 0, -1), [])

    @steps
    async def test_stopped_twice(self) -> None:
        """
        Stopping twice is stopping.
        """
        await self.cache.stop()
        await self.cache.stop()


_RANGES = (
    (0, -1, "abcde"),
    (0, 0, "a"),
    (1, 3, "bcd"),
    (-2, -1, "de"),
    (-100, 1, "ab"),
    (3, 100, "de"),
    (2, 1, ""),
    (5, 9, ""),
    (0, -6, ""),
    (-8, -7, ""),
    (-7, -5, "a"),
    (-1, -2, ""),
)


class QueueContract(_Base):
    """
    What an L{IMessageQueue} has to do. Derive from it and supply the two methods.

    @ivar queue: A started queue.
    """

    queue: IMessageQueue
    topic = "/mpush-tw-test/topic"

    def make_queue(self) -> IMessageQueue | Deferred[IMessageQueue]:
        """
        Make a queue and start it; it is cleaned up by the derived class.
        """
        raise NotImplementedError

    def settle(self) -> Deferred[None]:
        """
        Wait until what was published has surely arrived.
        """
        raise NotImplementedError

    @steps
    async def setUp(self) -> None:  # type: ignore[override]
        made = self.make_queue()
        self.queue = await made if isinstance(made, Deferred) else made
        self.received: list[tuple[str, str]] = []

    def receive(self, topic: str, text: str) -> None:
        """
        Note what arrives.
        """
        self.received.append((topic, text))

    def test_interface(self) -> None:
        """
        It is a queue.
        """
        verifyObject(IMessageQueue, self.queue)

    @steps
    async def test_published(self) -> None:
        """
        A text reaches the subscriber of its topic, as it is and in order.
        """
        await self.queue.subscribe(self.topic, self.receive)
        for text in ("1", '{"a":"ü"}', "", "2"):
            await self.queue.publish(self.topic, text)
        await self.settle()
        self.assertEqual(
            self.received,
            [(self.topic, text) for text in ("1", '{"a":"ü"}', "", "2")],
        )

    @steps
    async def test_not_inside_publish(self) -> None:
        """
        Nobody is called from within C{publish}.
        """
        inside = True

        def receive(topic: str, text: str) -> None:
            self.received.append((topic, str(inside)))

        await self.queue.subscribe(self.topic, receive)
        publishing = self.queue.publish(self.topic, "x")
        inside = False
        await publishing
        await self.settle()
        self.assertEqual(self.received, [(self.topic, "False")])

    @steps
    async def test_other_topic(self) -> None:
        """
        Other topics are not heard.
        """
        await self.queue.subscribe(self.topic, self.receive)
        await self.queue.publish(self.topic + "/more", "x")
        await self.settle()
        self.assertEqual(self.received, [])

    @steps
    async def test_unsubscribed(self) -> None:
        """
        Who has unsubscribed hears no more; doing so twice does no harm.
        """
        await self.queue.subscribe(self.topic, self.receive)
        await self.queue.unsubscribe(self.topic)
        await self.queue.unsubscribe(self.topic)
        await self.queue.publish(self.topic, "x")
        await self.settle()
        self.assertEqual(self.received, [])

    @steps
    async def test_replaced(self) -> None:
        """
        A second receiver of a topic replaces the first.
        """
        await self.queue.subscribe(self.topic, self.receive)
        second: list[str] = []
        await self.queue.subscribe(self.topic, lambda _, text: second.append(text))
        await self.queue.publish(self.topic, "x")
        await self.settle()
        self.assertEqual((self.received, second), ([], ["x"]))

    @steps
    async def test_receiver_raises(self) -> None:
        """
        A receiver that raises is logged, and hears the next text.
        """

        def fail(topic: str, text: str) -> None:
            self.received.append((topic, text))
            raise ZeroDivisionError

        await self.queue.subscribe(self.topic, fail)
        await self.queue.publish(self.topic, "1")
        await self.queue.publish(self.topic, "2")
        await self.settle()
        self.assertEqual(len(self.received), 2)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    @steps
    async def test_stopped_twice(self) -> None:
        """
        Stopping twice is stopping.
        """
        await self.queue.stop()
        await self.queue.stop()
