"""
The list of users that are online on this node, and its announcements (server 12).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from mpush_tw.core.log import NodeLog
from mpush_tw.core.routing.remote import RemoteRoutes
from mpush_tw.errors import Unavailable
from mpush_tw.interfaces import Event, ICache, IMessageQueue, UserOffline, UserOnline

ONLINE_TOPIC = "/mpush/online/"
OFFLINE_TOPIC = "/mpush/offline/"
_PREFIX = "mp:oul:"
_MAX_MISSED = 200_000


class OnlineUsers:
    """
    Follows L{UserOnline} and L{UserOffline} events into the shared store.

    What happens to one user is written in the order it happened (S-21), however long
    the store takes; different users do not wait for each other.
    """

    def __init__(
        self,
        cache: ICache,
        queue: IMessageQueue,
        routes: RemoteRoutes,
        public_ip: str,
        log: NodeLog,
    ) -> None:
        """
        @param public_ip: Names the list; one list a machine (S-22).
        """
        self._cache = cache
        self._queue = queue
        self._routes = routes
        self._key = _PREFIX + public_ip
        self._log = log
        self._waiting: dict[str, deque[Callable[[], Awaitable[None]]]] = {}
        self._missed: dict[str, None] = {}

    @property
    def busy(self) -> bool:
        """
        Whether something is still being written.
        """
        return bool(self._waiting)

    def clear(self) -> Deferred[None]:
        """
        Empty the list: at start, and at the end of a stop (server 12).
        """
        return self._cache.delete(self._key)

    def count(self) -> Deferred[int]:
        """
        Count the users on the list.
        """
        return self._cache.zcard(self._key)

    def page(self, start: int, end: int) -> Deferred[list[str]]:
        """
        Read a part of the list, by rank, C{end} included.
        """
        return self._cache.zrange(self._key, start, end)

    def event_occurred(self, event: Event) -> Deferred[None] | None:
        """
        Hear one event of the bus.
        """
        if isinstance(event, UserOnline):
            return self._in_turn(event.user_id, lambda: self._went_online(event))
        if isinstance(event, UserOffline):
            return self._in_turn(event.user_id, lambda: self._went_offline(event))
        return None

    def note_missed(self, user_id: str) -> None:
        """
        Remember a user whose coming or going has still to be written.
        """
        if len(self._missed) < _MAX_MISSED:
            self._missed[user_id] = None

    def take_missed(self) -> list[str]:
        """
        Name the users whose coming or going could not be written, once.
        """
        missed, self._missed = self._missed, {}
        return list(missed)

    def restore(self, user_id: str, online: bool) -> Deferred[None]:
        """
        Put a user on the list again, or take it off, after the store was away; what
        happened meanwhile is announced.

        @param online: Whether a connection of this node has the user.
        """
        return self._in_turn(user_id, lambda: self._restore(user_id, online))

    async def _restore(self, user_id: str, online: bool) -> None:
        if online:
            await self._cache.zadd(self._key, user_id)
        else:
            await self._leave(user_id)

    async def _went_online(self, event: UserOnline) -> None:
        await self._cache.zadd(self._key, event.user_id)
        await self._queue.publish(ONLINE_TOPIC, event.user_id)
        self._log.general.info("user online {user_id}", user_id=event.user_id)

    async def _went_offline(self, event: UserOffline) -> None:
        # S-5: a device that leaves does not take the user's other devices offline.
        if event.still_here:
            return
        await self._leave(event.user_id)

    async def _leave(self, user_id: str) -> None:
        await self._cache.zrem(self._key, user_id)
        if any(route.online for route in await self._routes.find_all(user_id)):
            return
        await self._queue.publish(OFFLINE_TOPIC, user_id)
        self._log.general.info("user offline {user_id}", user_id=user_id)

    def _in_turn(
        self, user_id: str, job: Callable[[], Awaitable[None]]
    ) -> Deferred[None]:
        queue = self._waiting.get(user_id)
        if queue is not None:
            queue.append(job)
            return succeed(None)
        self._waiting[user_id] = deque((job,))
        return Deferred.fromCoroutine(self._work_off(user_id))

    async def _work_off(self, user_id: str) -> None:
        queue = self._waiting[user_id]
        try:
            while queue:
                try:
                    await queue.popleft()()
                except Unavailable as error:
                    self.note_missed(user_id)
                    self._log.general.error(
                        "online list of {user_id} not updated: {error}",
                        user_id=user_id,
                        error=error,
                    )
                except Exception:
                    self._log.general.failure("online list", Failure())
        finally:
            del self._waiting[user_id]
