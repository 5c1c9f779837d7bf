"""
The remote table: on which node of the cluster a user is (server 11.3, cluster 2.3).
"""

from __future__ import annotations

import attrs

from twisted.logger import Logger

from mpush_tw.interfaces import ICache
from mpush_tw.protocol.routes import ROUTES_PREFIX, RemoteRoute


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

        @return: The route that it replaced, online or not.
        """
        old = await self.find(user_id, client_type)
        await self._write(user_id, client_type, route)
        return old

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
        self, user_id: str, client_type: int, connection_id: str | None
    ) -> bool:
        """
        Take the connection out of a route.

        @param connection_id: The connection that the route must name for that (S-14);
            C{None} stands for any.
        @return: Whether the route was changed.
        """
        route = await self.find(user_id, client_type)
        if route is None or not route.online:
            return False
        if connection_id is not None and route.connection_id != connection_id:
            return False
        await self._write(user_id, client_type, attrs.evolve(route, connection_id=None))
        return True

    async def give_back(
        self,
        user_id: str,
        client_type: int,
        connection_id: str,
        old: RemoteRoute | None,
    ) -> None:
        """
        Undo a registration, unless another one has followed.

        @param connection_id: The connection that was registered.
        @param old: What L{register} returned.
        """
        route = await self.find(user_id, client_type)
        if route is None or route.connection_id != connection_id:
            return
        if old is None:
            old = attrs.evolve(route, connection_id=None)
        await self._write(user_id, client_type, old)

    async def _write(self, user_id: str, client_type: int, route: RemoteRoute) -> None:
        await self._cache.hset(
            ROUTES_PREFIX + user_id, str(client_type), route.encode()
        )

    def _decode(self, user_id: str, text: str) -> RemoteRoute | None:
        route = RemoteRoute.decode(text)
        if route is None:
            self._log.warn("unreadable route in {key}", key=ROUTES_PREFIX + user_id)
        return route
