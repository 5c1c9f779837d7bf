"""
The remote table: on which node of the cluster a user is (server 11.3, cluster 2.3).
"""

from __future__ import annotations

import attrs

from twisted.logger import Logger

from mpush_tw.interfaces import ICache
from mpush_tw.protocol.routes import ROUTES_PREFIX, RemoteRoute

_RESTORE_TRIES = 3


@attrs.define
class NodeIdentity:
    """
    The gateway address of a node as the cluster knows it (cluster 1).

    @ivar host: Text; compared, never resolved.
    @ivar port: Set when the gateway has opened its port.
    """

    host: str
    port: int


class RemoteRoutes:
    """
    Routes in the shared store: a hash for each user, a field for each client type.

    Nothing is ever deleted: going offline rewrites the route without C{connId}.
    Every method may raise L{mpush_tw.errors.Unavailable}.
    """

    _log = Logger()

    def __init__(self, cache: ICache) -> None:
        self._cache = cache

    async def register(
        self, user_id: str, client_type: int, route: RemoteRoute
    ) -> RemoteRoute | None:
        """
        Write a route.

        @return: The route that it replaced, online or not. Of two nodes that register
            at the same time one gets the other's (C-2).
        """
        text = await self._cache.hswap(
            ROUTES_PREFIX + user_id, str(client_type), route.text
        )
        return None if text is None else self._decode(user_id, text)

    async def find(self, user_id: str, client_type: int) -> RemoteRoute | None:
        """
        Read one route; what cannot be read is logged and counts as none.
        """
        text = await self._cache.hget(ROUTES_PREFIX + user_id, str(client_type))
        return None if text is None else self._decode(user_id, text)

    async def find_all(self, user_id: str) -> list[RemoteRoute]:
        """
        Read all routes of a user, offline ones included.
        """
        texts = await self._cache.hgetall(ROUTES_PREFIX + user_id)
        routes = [self._decode(user_id, text) for text in texts.values()]
        return [route for route in routes if route is not None]

    async def mark_offline(
        self, user_id: str, client_type: int, route: RemoteRoute
    ) -> bool:
        """
        Take the connection out of a route, unless another one has followed (S-14).

        @param route: As it was registered or found.
        @return: Whether the route was changed.
        """
        return await self.replace(user_id, client_type, route, route.ended())

    async def give_back(
        self,
        user_id: str,
        client_type: int,
        route: RemoteRoute,
        old: RemoteRoute | None,
    ) -> None:
        """
        Undo a registration, unless another one has followed.

        @param route: What was registered.
        @param old: What L{register} returned.
        """
        await self.replace(user_id, client_type, route, old or route.ended())

    async def restore(
        self, user_id: str, client_type: int, route: RemoteRoute
    ) -> RemoteRoute | None:
        """
        See that a route of a living connection is there after the store was away.

        @return: C{None} when it is; otherwise the online route of another connection
            that has the user now.
        """
        for _ in range(_RESTORE_TRIES):
            found = await self.find(user_id, client_type)
            if found is not None and found.online:
                return None if _same_connection(found, route) else found
            key, field = ROUTES_PREFIX + user_id, str(client_type)
            held = None if found is None else found.text
            if await self._cache.hset_if(key, field, held, route.text):
                return None
            if found is None:
                # Either somebody was quicker, or it is rubbish that decodes to none.
                text = await self._cache.hget(key, field)
                if text is not None and RemoteRoute.decode(text) is None:
                    await self._cache.hset(key, field, route.text)
                    return None
        return None

    async def replace(
        self, user_id: str, client_type: int, route: RemoteRoute, new: RemoteRoute
    ) -> bool:
        """
        Put a route in the place of another one.

        @param route: What has to be there, in these or in other words.
        @return: Whether it was.
        """
        key, field = ROUTES_PREFIX + user_id, str(client_type)
        if await self._cache.hset_if(key, field, route.text, new.text):
            return True
        # Seldom: somebody else has the user, or has written the same in other words.
        found = await self.find(user_id, client_type)
        if found is None or not _same_connection(found, route):
            return False
        return await self._cache.hset_if(key, field, found.text, new.text)

    def _decode(self, user_id: str, text: str) -> RemoteRoute | None:
        route = RemoteRoute.decode(text)
        if route is None:
            self._log.warn("unreadable route in {key}", key=ROUTES_PREFIX + user_id)
        return route


def _same_connection(one: RemoteRoute, other: RemoteRoute) -> bool:
    """
    Whether both name the same connection of the same node (C-14).
    """
    return (one.host, one.port, one.connection_id) == (
        other.host,
        other.port,
        other.connection_id,
    )
