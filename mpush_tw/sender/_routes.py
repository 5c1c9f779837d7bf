"""
Where users are online, as the route store says: looked up, and remembered for a while.

Where the rules are: cluster 2.3, 7.5, 7.8. What is stored under a user's key is written
by any node of the cluster, so whatever cannot be read there counts as absent.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mpush_tw.interfaces import ICache, IClientClassifier
from mpush_tw.protocol.routes import ROUTES_PREFIX, RemoteRoute
from mpush_tw.sender._waiters import Waiters
from mpush_tw.sender.directory import Address, Route

REMEMBERED_SECONDS = 300.0
MAX_REMEMBERED = 100_000
MAX_ROUTES = 32
"""
Routes of one user; there is one for each client type, of which few are in use.
"""


_Plain = tuple[str, int, int, str | None, str | None, str | None, str | None]


def plain_route(route: Route) -> _Plain:
    """
    Give what L{Route} is made of, in the order of its arguments.
    """
    return (
        route.host,
        route.port,
        route.client_type,
        route.os_name,
        route.client_version,
        route.device_id,
        route.connection_id,
    )


class RouteCache:
    """
    The routes of users, for five minutes from when they were read.

    At most L{MAX_REMEMBERED} users: the oldest give way.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        # All live equally long, so the oldest is also the next to expire. What is kept
        # are plain tuples of texts and numbers: the garbage collector passes those
        # over, and would otherwise look at hundreds of thousands of objects each time.
        self._entries: OrderedDict[str, tuple[float, tuple[_Plain, ...]]] = (
            OrderedDict()
        )

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, user_id: str) -> Sequence[Route] | None:
        """
        Give what is remembered; C{None} for nothing.
        """
        entry = self._entries.get(user_id)
        if entry is None or entry[0] <= self._clock.seconds():
            return None
        return tuple([Route(*plain) for plain in entry[1]])

    def put(self, user_id: str, routes: Sequence[Route]) -> None:
        """
        Remember routes that have just been read.
        """
        now = self._clock.seconds()
        entries = self._entries
        entries.pop(user_id, None)
        entries[user_id] = (
            now + REMEMBERED_SECONDS,
            tuple([plain_route(route) for route in routes]),
        )
        while len(entries) > MAX_REMEMBERED or next(iter(entries.values()))[0] <= now:
            entries.popitem(last=False)

    def drop(self, user_id: str) -> None:
        """
        Forget one user.
        """
        self._entries.pop(user_id, None)

    def clear(self) -> None:
        """
        Forget everybody.
        """
        self._entries.clear()


class StoredRoutes:
    """
    The routes of the route store.
    """

    _log = Logger()

    def __init__(
        self, store: ICache, classifier: IClientClassifier, clock: IReactorTime
    ) -> None:
        self._store = store
        self._classifier = classifier
        self._cache = RouteCache(clock)
        self._lookups: dict[str, Waiters[Sequence[Route]]] = {}

    def find(self, user_id: str) -> Deferred[Sequence[Route]]:
        """
        Find out where a user is online. One look-up serves all who ask meanwhile.

        @return: A Deferred firing with a route for each client type that is online. It
            fails with L{mpush_tw.errors.Unavailable} when the store cannot be asked.
        """
        known = self._cache.get(user_id)
        if known is not None:
            return succeed(known)
        lookup = self._lookups.get(user_id)
        if lookup is not None:
            return lookup.wait()
        lookup = self._lookups[user_id] = Waiters()
        waiting = lookup.wait()
        self._look_up(user_id, lookup)
        return waiting

    def forget(self, user_id: str) -> None:
        """
        Look this user up again next time. What is being looked up just now may be
        outdated already: it is told to those who wait for it, and not remembered.
        """
        self._cache.drop(user_id)
        self._lookups.pop(user_id, None)

    def forget_all(self) -> None:
        """
        Look everybody up again.
        """
        self._cache.clear()
        self._lookups.clear()

    def _look_up(self, user_id: str, lookup: Waiters[Sequence[Route]]) -> None:
        def is_current() -> bool:
            current = self._lookups.get(user_id) is lookup
            if current:
                del self._lookups[user_id]
            return current

        def found(stored: Mapping[str, str]) -> None:
            routes = self._read(ROUTES_PREFIX + user_id, stored)
            if is_current() and routes:
                self._cache.put(user_id, routes)
            lookup.tell(routes)

        def failed(failure: Failure) -> None:
            is_current()
            lookup.tell(failure)

        asked = maybeDeferred(self._store.hgetall, ROUTES_PREFIX + user_id)
        asked.addCallback(found).addErrback(failed)

    def _read(self, key: str, stored: Mapping[str, str]) -> Sequence[Route]:
        """
        Take the online routes out of a user's hash (C-42).

        The client type is judged from the operating system, as the original's senders
        do (cluster 2.4): two fields may turn out to be the same.
        """
        routes: dict[tuple[Address, int], Route] = {}
        for field, text in stored.items():
            route = self._decode(text)
            if route is None:
                self._log.warn(
                    "field {field!r} of {key} is no route", key=key, field=field[:40]
                )
            elif route.connection_id is not None:
                routes.setdefault((route.address, route.client_type), route)
        if len(routes) > MAX_ROUTES:
            self._log.warn(
                "{key} has {count} routes, {limit} are used",
                key=key,
                count=len(routes),
                limit=MAX_ROUTES,
            )
        return tuple(routes.values())[:MAX_ROUTES]

    def _decode(self, text: str) -> Route | None:
        """
        Read one route; C{None} for anything that nobody can be reached by.
        """
        stored = RemoteRoute.decode(text)
        if stored is None or not is_gateway(stored.host, stored.port):
            return None
        return Route(
            stored.host,
            stored.port,
            self._classifier.client_type(stored.os_name),
            stored.os_name,
            stored.client_version,
            stored.device_id,
            stored.connection_id,
        )


def is_gateway(host: str, port: int) -> bool:
    """
    Whether this can be the address of a gateway.
    """
    return bool(host) and 0 < port < 65536
