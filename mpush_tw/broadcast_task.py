"""
The control of a broadcast under way, from outside: its rate, its end, how far it is.

Where the rules are: cluster 2.7, server 14.8. Nodes and controllers meet in a hash and
a list of the shared store, whose names and forms are the original's. A standalone node
keeps them in its memory, and controls them for senders with this same code.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import Attribute, Interface, implementer

from mpush_tw.errors import PushError
from mpush_tw.interfaces import ICache

RATE = "q"
CANCELLED = "c"
SENT = "sc"
"""
Fields of the hash: messages a second for each node, C{1} when cancelled, messages sent
by all nodes together.
"""

KEEP_SECONDS = 7 * 86400
"""
How long the store remembers a task after it was last written to (C-15).
"""

DEFAULT_RATE = 1000
MAX_RATE = 2**31 - 1
MAX_PAGE = 10_000
"""
Users that may be asked for at a time.
"""


def task_key(task_id: str) -> str:
    """
    Name the hash of a task; there is no colon before the id.
    """
    return f"mp:pt{task_id}"


def users_key(task_id: str) -> str:
    """
    Name the list of the users that a task has reached, newest first.
    """
    return f"{task_id}:sui"


def check_rate(per_second: object) -> int:
    """
    See that this can be a rate.

    @raise PushError: If it cannot.
    """
    if (
        not isinstance(per_second, int)
        or isinstance(per_second, bool)
        or not 1 <= per_second <= MAX_RATE
    ):
        raise PushError(
            f"a rate is a number of messages a second from 1 to {MAX_RATE}, "
            f"not {per_second!r}"
        )
    return per_second


def check_page(first: object, most: object) -> None:
    """
    See that these can say which users are asked for.

    @raise PushError: If they cannot.
    """
    for name, value, least in (("first", first, 0), ("most", most, 1)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise PushError(f"{name} is a whole number from {least} on, not {value!r}")
    if isinstance(most, int) and most > MAX_PAGE:
        raise PushError(f"most can be {MAX_PAGE}, not {most}")


class IBroadcastTask(Interface):
    """
    A broadcast with a task id, as its controller sees it; it may not have begun yet, or
    have ended.

    Every method may fail with L{Unavailable<mpush_tw.errors.Unavailable>}.
    """

    task_id = Attribute("What the broadcast carries.")

    def set_rate(per_second: int) -> Deferred[None]:
        """
        Say how many messages a second each node may send; from the next window on,
        which is a second away at most.

        @raise PushError: If it is no number from 1 on.
        """

    def cancel() -> Deferred[None]:
        """
        End the broadcast: before the next window. Counts tell how far it came.
        """

    def progress() -> Deferred[int]:
        """
        Tell how many messages have been sent so far, as nodes report it: once a window,
        and at the end.
        """

    def users(first: int = 0, most: int = 1000) -> Deferred[list[str]]:
        """
        List users that have been reached, each device of a user once more; the earliest
        first, so that what is read page by page stays in its place while more come.
        Nodes of the original repeat users (C-15).

        @param first: Where to begin, 0 for the beginning.
        @param most: How many, 1 to L{MAX_PAGE}.
        @return: Fewer than C{most} when there are no more yet.
        @raise PushError: If these are other numbers.
        """


@implementer(IBroadcastTask)
class BroadcastTask:
    """
    The control through a store.
    """

    _log = Logger()

    def __init__(self, cache: ICache, task_id: str) -> None:
        """
        @param cache: The store of the nodes, started.
        """
        self.task_id = task_id
        self._cache = cache
        self._key = task_key(task_id)

    def set_rate(self, per_second: int) -> Deferred[None]:
        return self._put(RATE, str(check_rate(per_second)))

    def cancel(self) -> Deferred[None]:
        return self._put(CANCELLED, "1")

    def _put(self, field: str, value: str) -> Deferred[None]:
        return Deferred.fromCoroutine(self._put_and_keep(field, value))

    async def _put_and_keep(self, field: str, value: str) -> None:
        await self._cache.hset(self._key, field, value)
        # No node may ever come to end it.
        await self._cache.expire(self._key, KEEP_SECONDS)

    def progress(self) -> Deferred[int]:
        return self._cache.hget(self._key, SENT).addCallback(self._number)

    def _number(self, text: str | None) -> int:
        try:
            return max(0, int(text or "0"))
        except ValueError:
            self._log.warn("unreadable {field} in {key}", field=SENT, key=self._key)
            return 0

    def users(self, first: int = 0, most: int = 1000) -> Deferred[list[str]]:
        check_page(first, most)
        # The list grows at its front: positions from its end stay.
        page = self._cache.lrange(
            users_key(self.task_id), -(first + most), -(first + 1)
        )
        return page.addCallback(lambda newest_first: newest_first[::-1])
