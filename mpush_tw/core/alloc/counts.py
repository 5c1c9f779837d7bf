"""
How many users each server has: what nodes keep in the shared store (cluster 2.6).
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from twisted.internet.defer import Deferred, gatherResults
from twisted.python.failure import Failure

from mpush_tw.core.log import NodeLog
from mpush_tw.errors import Unavailable
from mpush_tw.interfaces import ICache


class OnlineCounts:
    """
    The last known counts, by the key of the list. While the store is away they stay as
    they are.
    """

    def __init__(self, cache: ICache, log: NodeLog) -> None:
        self._cache = cache
        self._log = log
        self._counts: dict[str, int] = {}
        self._away = False

    def of(self, online_list: str) -> int | None:
        """
        Give the count of a list; C{None} if it was never counted.
        """
        return self._counts.get(online_list)

    def keep_only(self, online_lists: Collection[str]) -> None:
        """
        Forget the counts of all other lists.
        """
        for gone in self._counts.keys() - set(online_lists):
            del self._counts[gone]

    async def refresh(self, online_lists: Collection[str]) -> bool:
        """
        Count these lists, all at once.

        @return: Whether all of them could be counted.
        """
        failures: list[Failure] = []
        await gatherResults(
            [
                self._count(online_list).addErrback(failures.append)
                for online_list in online_lists
            ]
        )
        for failure in failures:
            if not failure.check(Unavailable):
                self._log.general.failure("counting online users", failure)
        if failures and not self._away:
            self._log.general.warn(
                "online users cannot be counted, the last counts stay in use: {error}",
                error=failures[0].value,
            )
        elif self._away and not failures:
            self._log.general.info("online users can be counted again")
        self._away = bool(failures)
        return not failures

    def _count(self, online_list: str) -> Deferred[None]:
        counting = self._cache.zcard(online_list)
        return counting.addCallback(partial(self._counts.__setitem__, online_list))
