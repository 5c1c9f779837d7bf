"""
The control of a broadcast through the shared store (cluster 2.7, server 14.8).

A broadcast that carries a task id is counted, slowed and cancelled there, by any
program that can reach the store. Names and forms are the original's.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpush_tw.broadcast_task import (
    CANCELLED,
    DEFAULT_RATE,
    KEEP_SECONDS,
    RATE,
    SENT,
    task_key,
    users_key,
)
from mpush_tw.core.log import NodeLog
from mpush_tw.errors import Unavailable
from mpush_tw.interfaces import ICache

_MOST_PER_PUSH = 1000


class TaskControl:
    """
    One task, as one node sees it.

    What could not be reported is kept, and reported the next time.
    """

    def __init__(self, cache: ICache, task_id: str, log: NodeLog) -> None:
        self._cache = cache
        self._key = task_key(task_id)
        self._users_key = users_key(task_id)
        self._log = log.push
        self._sent = 0
        self._users: list[str] = []

    async def rate(self) -> int:
        """
        Read how many messages a second this node may send.

        @raise Unavailable: If the store is down.
        """
        text = await self._cache.hget(self._key, RATE)
        if text is None:
            return DEFAULT_RATE
        try:
            return max(1, int(text))
        except ValueError:
            self._log.warn("unreadable rate in {key}", key=self._key)
            return DEFAULT_RATE

    async def cancelled(self) -> bool:
        """
        Read whether somebody has cancelled the task.

        @raise Unavailable: If the store is down.
        """
        return await self._cache.hget(self._key, CANCELLED) == "1"

    def note(self, sent: int, users: Sequence[str]) -> None:
        """
        Note what has been sent since the last time.
        """
        self._sent += sent
        self._users.extend(users)

    async def report(self) -> None:
        """
        Add what has been noted to the counts of all nodes (C-15).

        @raise Unavailable: If the store is down; nothing is lost.
        """
        sent, self._sent = self._sent, 0
        if sent:
            try:
                await self._cache.hincrby(self._key, SENT, sent)
            except Unavailable:
                self._sent += sent
                raise
        while self._users:
            some = self._users[:_MOST_PER_PUSH]
            await self._cache.lpush(self._users_key, some)
            del self._users[: len(some)]

    async def finish(self) -> None:
        """
        Have the store forget the task some days from now (C-15).

        @raise Unavailable: If the store is down.
        """
        await self._cache.expire(self._key, KEEP_SECONDS)
        await self._cache.expire(self._users_key, KEEP_SECONDS)
