"""
The local table: which connection of this node serves a user (server 11.2).
"""

from __future__ import annotations

from collections.abc import Iterator

from mpush_tw.core.connection import Connection


class LocalRoutes:
    """
    User id to connections, one for each client type.

    A user has one to four connections, so each entry is a short tuple that is searched,
    not a dictionary: it is smaller by the factor of four that decides how many
    phones fit (DESIGN 6). Users without a connection have no entry (S-27).

    Connections that were displaced stay open until the device leaves (server 11.5);
    they are remembered here so that one user cannot pile them up.
    """

    def __init__(self) -> None:
        self._routes: dict[str, tuple[Connection, ...]] = {}
        self._displaced: dict[str, list[Connection]] = {}

    def __len__(self) -> int:
        """
        @return: The number of users with at least one connection.
        """
        return len(self._routes)

    def __iter__(self) -> Iterator[Connection]:
        for connections in self._routes.values():
            yield from connections

    @property
    def connections(self) -> int:
        """
        The number of routes.
        """
        return sum(map(len, self._routes.values()))

    def register(self, connection: Connection, user_id: str) -> Connection | None:
        """
        Route a user's client type to a connection.

        @param connection: Its C{client_type} is set.
        @return: The connection that held the route, which may be the same one.
        """
        client_type = connection.client_type
        current = self._routes.get(user_id, ())
        displaced = None
        for held in current:
            if held.client_type == client_type:
                displaced = held
        if displaced is connection:
            return displaced
        kept = current
        if displaced is not None:
            kept = tuple(held for held in current if held is not displaced)
            self._displaced.setdefault(user_id, []).append(displaced)
        self._routes[user_id] = (*kept, connection)
        return displaced

    def unregister(self, connection: Connection, user_id: str) -> bool:
        """
        Forget a connection, but never another one that took its place.

        @return: Whether it held the route.
        """
        displaced = self._displaced.get(user_id)
        if displaced is not None and connection in displaced:
            displaced.remove(connection)
            if not displaced:
                del self._displaced[user_id]
        current = self._routes.get(user_id, ())
        if connection not in current:
            return False
        kept = tuple(held for held in current if held is not connection)
        if kept:
            self._routes[user_id] = kept
        else:
            del self._routes[user_id]
        return True

    def restore(self, connection: Connection, user_id: str) -> None:
        """
        Give a displaced connection its route back, unless it has left the user or
        another one has taken the route meanwhile.
        """
        if (
            connection in self._displaced.get(user_id, ())
            and self.lookup(user_id, connection.client_type) is None
        ):
            self.unregister(connection, user_id)
            self.register(connection, user_id)

    def lookup(self, user_id: str, client_type: int) -> Connection | None:
        """
        Find the connection of a user's client type.
        """
        for connection in self._routes.get(user_id, ()):
            if connection.client_type == client_type:
                return connection
        return None

    def lookup_all(self, user_id: str) -> tuple[Connection, ...]:
        """ """
        return self._routes.get(user_id, ())

    def surplus(self, user_id: str, limit: int) -> list[Connection]:
        """
        Name the displaced connections to close so that a user has no more than
        C{limit} in all (C{mp.limits.max-per-user}), the longest displaced first.
        """
        displaced = self._displaced.get(user_id, [])
        excess = len(displaced) + len(self._routes.get(user_id, ())) - limit
        return displaced[: max(0, excess)]
