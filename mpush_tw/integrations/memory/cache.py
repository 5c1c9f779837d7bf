"""
The shared store of a node that shares with nobody.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from heapq import heappop, heappush

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from mpush_tw.errors import Unavailable
from mpush_tw.interfaces import ICache


@implementer(ICache)
class MemoryCache:
    """
    A store in the memory of the process, bounded.

    What strangers can make it keep is bounded: expiring texts (sessions) and hashes
    (routes) each have a limit by count and by size, and the oldest give way. A device
    whose session gave way shakes hands again; a route that gave way is found in the
    local table all the same.
    """

    def __init__(
        self,
        clock: IReactorTime,
        max_expiring: int = 200_000,
        max_hashes: int = 1_000_000,
        max_characters: int = 256 << 20,
    ) -> None:
        """
        @param max_expiring: Most texts with a time to live.
        @param max_hashes: Most hashes.
        @param max_characters: Most characters of keys and values, for expiring texts
            and for hashes each.
        """
        self._clock = clock
        self._max_expiring = max_expiring
        self._max_hashes = max_hashes
        self._max_characters = max_characters
        self._expiring_size = 0
        self._hashes_size = 0
        self._texts: dict[str, str] = {}
        self._expiring: dict[int, OrderedDict[str, tuple[float, str]]] = {}
        self._hashes: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._sets: dict[str, dict[str, None]] = {}
        self._lists: dict[str, list[str]] = {}
        self._ends: dict[str, float] = {}
        self._endings: list[tuple[float, str]] = []

    def start(self) -> Deferred[None]:
        return succeed(None)

    def stop(self) -> Deferred[None]:
        return succeed(None)

    def on_restored(self, listener: Callable[[], None]) -> None:
        """
        Never called: memory does not go away.
        """

    # ----------------------------------------------------------------- texts

    def get(self, key: str) -> Deferred[str | None]:
        now = self._clock.seconds()
        for texts in self._expiring.values():
            entry = texts.get(key)
            if entry is not None:
                return succeed(entry[1] if entry[0] > now else None)
        return succeed(self._texts.get(key))

    def set(self, key: str, value: str, ttl_seconds: int = 0) -> Deferred[None]:
        self._forget_text(key)
        if ttl_seconds <= 0:
            self._texts[key] = value
            return succeed(None)
        now = self._clock.seconds()
        # One queue for each time to live: its order is the order of expiry.
        texts = self._expiring.setdefault(ttl_seconds, OrderedDict())
        texts[key] = (now + ttl_seconds, value)
        self._expiring_size += len(key) + len(value)
        while texts:
            expires, _ = next(iter(texts.values()))
            if (
                expires > now
                and len(texts) <= self._max_expiring
                and self._expiring_size <= self._max_characters
            ):
                break
            oldest, (_, text) = texts.popitem(last=False)
            self._expiring_size -= len(oldest) + len(text)
        return succeed(None)

    def _forget_text(self, key: str) -> None:
        self._texts.pop(key, None)
        for texts in self._expiring.values():
            entry = texts.pop(key, None)
            if entry is not None:
                self._expiring_size -= len(key) + len(entry[1])

    def expire(self, key: str, ttl_seconds: int) -> Deferred[None]:
        end = self._clock.seconds() + ttl_seconds
        self._ends[key] = end
        heappush(self._endings, (end, key))
        return succeed(None)

    def _drop_ended(self) -> None:
        """
        Remove what L{expire} gave an end; asked before a hash or a list is read.
        """
        now = self._clock.seconds()
        while self._endings and self._endings[0][0] <= now:
            end, key = heappop(self._endings)
            if self._ends.get(key) == end:
                del self._ends[key]
                self.delete(key)

    def delete(self, key: str) -> Deferred[None]:
        self._forget_text(key)
        self._ends.pop(key, None)
        self._put(key, ())
        self._sets.pop(key, None)
        self._lists.pop(key, None)
        return succeed(None)

    # ---------------------------------------------------------------- hashes
    #
    # A hash is the flat tuple of its fields and values: most have one field, and a
    # dictionary for each user would cost four times as much.

    def hget(self, key: str, field: str) -> Deferred[str | None]:
        return succeed(self._fields(key).get(field))

    def hset(self, key: str, field: str, value: str) -> Deferred[None]:
        self._write(key, field, value)
        return succeed(None)

    def hswap(self, key: str, field: str, value: str) -> Deferred[str | None]:
        old = self._fields(key).get(field)
        self._write(key, field, value)
        return succeed(old)

    def hset_if(
        self, key: str, field: str, expected: str | None, value: str
    ) -> Deferred[bool]:
        if self._fields(key).get(field) != expected:
            return succeed(False)
        self._write(key, field, value)
        return succeed(True)

    def hdel(self, key: str, field: str) -> Deferred[None]:
        fields = self._fields(key)
        fields.pop(field, None)
        self._store(key, fields)
        return succeed(None)

    def hgetall(self, key: str) -> Deferred[dict[str, str]]:
        return succeed(self._fields(key))

    def hincrby(self, key: str, field: str, amount: int) -> Deferred[int]:
        fields = self._fields(key)
        try:
            total = int(fields.get(field, "0")) + amount
        except ValueError:
            return fail(Unavailable(f"field {field} of {key} is no number"))
        self._write(key, field, str(total))
        return succeed(total)

    def _write(self, key: str, field: str, value: str) -> None:
        flat = self._hashes.get(key)
        if flat is None or (len(flat) == 2 and flat[0] == field):
            self._put(key, (field, value))
        else:
            self._store(key, self._fields(key) | {field: value})

    def _fields(self, key: str) -> dict[str, str]:
        if self._endings:
            self._drop_ended()
        flat = self._hashes.get(key, ())
        return dict(zip(flat[::2], flat[1::2], strict=True))

    def _store(self, key: str, fields: dict[str, str]) -> None:
        self._put(key, tuple(text for item in fields.items() for text in item))

    def _put(self, key: str, flat: tuple[str, ...]) -> None:
        hashes = self._hashes
        old = hashes.pop(key, None)
        if old is not None:
            self._hashes_size -= len(key) + sum(map(len, old))
        if not flat:
            return
        hashes[key] = flat
        self._hashes_size += len(key) + sum(map(len, flat))
        while (
            len(hashes) > self._max_hashes or self._hashes_size > self._max_characters
        ):
            oldest, texts = hashes.popitem(last=False)
            self._hashes_size -= len(oldest) + sum(map(len, texts))

    # ----------------------------------------------------------- sorted sets

    def zadd(self, key: str, member: str) -> Deferred[None]:
        self._sets.setdefault(key, {})[member] = None
        return succeed(None)

    def zrem(self, key: str, member: str) -> Deferred[None]:
        members = self._sets.get(key)
        if members is not None:
            members.pop(member, None)
            if not members:
                del self._sets[key]
        return succeed(None)

    def zcard(self, key: str) -> Deferred[int]:
        return succeed(len(self._sets.get(key, ())))

    def zrange(self, key: str, start: int, end: int) -> Deferred[list[str]]:
        members = sorted(self._sets.get(key, ()), key=str.encode)
        return succeed(_slice(members, start, end))

    # ----------------------------------------------------------------- lists

    def lpush(self, key: str, values: Sequence[str]) -> Deferred[None]:
        if values:
            held = self._lists.get(key, [])
            self._lists[key] = [*reversed(values), *held]
        return succeed(None)

    def lrange(self, key: str, start: int, end: int) -> Deferred[list[str]]:
        self._drop_ended()
        return succeed(_slice(self._lists.get(key, []), start, end))


def _slice(values: list[str], start: int, end: int) -> list[str]:
    count = len(values)
    first = max(0, start + count if start < 0 else start)
    last = end + count if end < 0 else end
    return values[first : max(0, last + 1)]
