"""
Waiting: how long before something is tried again (cluster 3.9), and with whom.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import randrange

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mpush_tw.config.settings import ZkRetrySettings

_MOST_RETRIES = 29


def pauses(
    retry: ZkRetrySettings, random: Callable[[int], int] = randrange
) -> Iterator[float]:
    """
    The pauses between the attempts of one operation: one fewer than attempts.

    @param random: Gives a number from 0 up to, not including, its argument.
    @return: Seconds.
    """
    for number in range(min(retry.max_retries, _MOST_RETRIES)):
        factor = max(1, random(2 ** (number + 1)))
        yield min(retry.base_sleep_time * factor, retry.max_sleep)


class Backoff:
    """
    The growing pauses of something that is tried until it succeeds.
    """

    def __init__(self, first: float, longest: float) -> None:
        """
        @param first: The first pause in seconds, doubled from one to the next.
        @param longest: The longest one.
        """
        self._first = first
        self._longest = max(first, longest)
        self._next = first

    def pause(self) -> float:
        """
        @return: Seconds to wait before the next attempt.
        """
        pause, self._next = self._next, min(self._next * 2, self._longest)
        return pause

    def reset(self) -> None:
        """
        Begin anew: it has succeeded.
        """
        self._next = self._first


class Waiters:
    """
    Those who wait for the same, each with a Deferred that may be cancelled alone.
    """

    def __init__(self) -> None:
        self._waiting: list[Deferred[None]] = []

    def wait(self) -> Deferred[None]:
        """
        @return: Fires with the next L{tell}.
        """
        waiter: Deferred[None] = Deferred(self._leave)
        self._waiting.append(waiter)
        return waiter

    def _leave(self, waiter: Deferred[None]) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)

    def tell(self, failure: Failure | None = None) -> None:
        """
        Let all who wait go on, or fail.
        """
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if failure is None:
                waiter.callback(None)
            else:
                waiter.errback(failure)
