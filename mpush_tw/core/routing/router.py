"""
Binding and unbinding: both tables, the displaced routes, and the events (server 11).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import attrs

from mpush_tw.core.connection import Connection
from mpush_tw.core.events import Events
from mpush_tw.core.log import NodeLog
from mpush_tw.core.metrics import NodeMetrics
from mpush_tw.core.routing.local import LocalRoutes
from mpush_tw.core.routing.remote import NodeIdentity, RemoteRoutes
from mpush_tw.errors import Unavailable
from mpush_tw.interfaces import (
    IClientClassifier,
    RouteChanged,
    UserKicked,
    UserOffline,
    UserOnline,
)
from mpush_tw.protocol.gateway import GatewayKick
from mpush_tw.protocol.routes import RemoteRoute

_UNNAMED_OS = "unknown"
_MAX_UNFINISHED = 200_000


@attrs.frozen
class Unended:
    """
    A route to end in the store.

    @ivar refused: Whether it belongs to a bind that was refused because the store did
        not answer. If it was written all the same it has replaced another one.
    """

    user_id: str
    client_type: int
    route: RemoteRoute
    refused: bool = False


class Unfinished:
    """
    Routes that say online in the store, or may say so, although no connection stands
    for them: the store was away when they were to be ended, or did not answer when they
    were to be made. Bounded; the oldest are forgotten, and found stale by the first
    push (server 14.2).
    """

    def __init__(self) -> None:
        self._routes: OrderedDict[tuple[str, int, str | None], Unended] = OrderedDict()

    def __len__(self) -> int:
        return len(self._routes)

    def add(self, unended: Unended) -> None:
        """
        Remember one.
        """
        key = unended.user_id, unended.client_type, unended.route.connection_id
        self._routes[key] = unended
        if len(self._routes) > _MAX_UNFINISHED:
            self._routes.popitem(last=False)

    def take(self) -> Unended | None:
        """
        Take the oldest out; C{None} when there is none.
        """
        if not self._routes:
            return None
        return self._routes.popitem(last=False)[1]


class Router:
    """
    Keeps local and remote table in step.

    @ivar local: The connections of this node.
    @ivar remote: The routes of the cluster.
    @ivar unfinished: Routes that should have been ended while the store was away.
    @ivar route_doubted: Called with a bound connection of which another node does not
        know, so that its route in the store is looked after.
    """

    def __init__(
        self,
        identity: NodeIdentity,
        local: LocalRoutes,
        remote: RemoteRoutes,
        classifier: IClientClassifier,
        events: Events,
        log: NodeLog,
        metrics: NodeMetrics,
        max_per_user: int,
        send_kick: Callable[[GatewayKick], None],
    ) -> None:
        """
        @param max_per_user: C{mp.limits.max-per-user}.
        @param send_kick: Has a message delivered to the node that it names; does not
            wait, and does not fail.
        """
        self._identity = identity
        self.local = local
        self.remote = remote
        self._classifier = classifier
        self._events = events
        self._log = log
        self._metrics = metrics
        self._max_per_user = max_per_user
        self._send_kick = send_kick
        self.unfinished = Unfinished()
        self.route_doubted: Callable[[Connection], None] = lambda _: None

    async def bind(
        self, connection: Connection, user_id: str, tags: str | None
    ) -> bool:
        """
        Route a user to a connection, kick the one it displaces, and announce it.

        @param connection: Handshaken, and not bound.
        @return: C{False} when the shared store did not take the route; nothing of the
            binding remains then (S-3), and a displaced local route is back.
        """
        local = self.local
        connection.client_type = self._type_of(connection)
        displaced = local.register(connection, user_id)
        route = self.route_of(connection)
        try:
            old = await self.remote.register(user_id, connection.client_type, route)
        except Unavailable as error:
            self._log.general.error(
                "register router ex, userId={user_id}, connection={connection}: "
                "{error}",
                user_id=user_id,
                connection=connection,
                error=error,
            )
            self._step_back(connection, user_id, displaced)
            self.unfinished.add(
                Unended(user_id, connection.client_type, route, refused=True)
            )
            return False
        if not connection.connected:
            # It went away while the store was asked; the end of the connection did not
            # know of this route.
            self._step_back(connection, user_id, displaced)
            if (
                old is not None
                and displaced is not None
                and old.connection_id == displaced.id
                and displaced.user_id != user_id
            ):
                # The other one has left as well, and could not end a route that was
                # not its own any more.
                old = None
            await self.remote.give_back(user_id, connection.client_type, route, old)
            return False
        self._displaced(user_id, connection, displaced, old)
        connection.user_id = user_id
        connection.tags = tags
        self._events.post(
            UserOnline(
                user_id,
                connection.id,
                connection.device_id or "",
                connection.client_type,
            )
        )
        return True

    async def unbind(self, connection: Connection) -> None:
        """
        Take a connection's user off it. Routes that another connection has
        taken over stay (S-5, S-14).

        @param connection: Does nothing if it is not bound.
        @raise Unavailable: If the shared store was down; the local side is done.
        """
        user_id = connection.user_id
        if user_id is None:
            return
        client_type = connection.client_type
        route = self.route_of(connection)
        connection.user_id = connection.tags = None
        if self.local.unregister(connection, user_id):
            self._log.general.info(
                "unRegister local router success userId={user_id}, router={router}",
                user_id=user_id,
                router=connection,
            )
        try:
            await self.remote.mark_offline(user_id, client_type, route)
        except Unavailable:
            self.unfinished.add(Unended(user_id, client_type, route))
            raise
        finally:
            self._events.post(
                UserOffline(
                    user_id,
                    connection.id,
                    connection.device_id,
                    client_type,
                    # A connection that is only being bound does not count yet.
                    any(
                        other.user_id == user_id
                        for other in self.local.lookup_all(user_id)
                    ),
                )
            )

    def route_of(self, connection: Connection) -> RemoteRoute:
        """
        Give the route that the store has to hold for a bound connection.
        """
        return RemoteRoute(
            self._identity.host,
            self._identity.port,
            connection.device_id,
            connection.os_name or _UNNAMED_OS,
            connection.client_version,
            connection.id,
        )

    def _step_back(
        self, connection: Connection, user_id: str, displaced: Connection | None
    ) -> None:
        """
        Undo the local side of a binding that came to nothing.
        """
        self.local.unregister(connection, user_id)
        if displaced is not None and displaced.connected:
            self.local.restore(displaced, user_id)

    def _type_of(self, connection: Connection) -> int:
        value = self._classifier.client_type(connection.os_name)
        return (value + 128) % 256 - 128

    def _displaced(
        self,
        user_id: str,
        connection: Connection,
        displaced: Connection | None,
        old: RemoteRoute | None,
    ) -> None:
        if displaced is not None and displaced is not connection:
            self._events.post(
                RouteChanged(
                    user_id,
                    connection.client_type,
                    displaced.id,
                    displaced.device_id,
                    local=True,
                )
            )
            self.kick(displaced, user_id, from_remote=False)
            for surplus in self.local.surplus(user_id, self._max_per_user):
                surplus.close("max-per-user")
        if old is not None and old.online:
            if (old.host, old.port) == (self._identity.host, self._identity.port):
                self._log.conn.debug(
                    "kick remote router in local pc, ignore remote broadcast, "
                    "userId={user_id}",
                    user_id=user_id,
                )
            else:
                self._events.post(
                    RouteChanged(
                        user_id,
                        connection.client_type,
                        old.connection_id,
                        old.device_id,
                        local=False,
                        host=old.host,
                        port=old.port,
                    )
                )
                self.ask_to_kick(user_id, connection.client_type, old)

    def ask_to_kick(self, user_id: str, client_type: int, route: RemoteRoute) -> None:
        """
        Ask the node that a route names to kick the connection that it names.
        """
        self._send_kick(
            GatewayKick(
                user_id,
                route.device_id,
                route.connection_id,
                client_type,
                route.host,
                route.port,
            )
        )

    def kick_requested(self, kick: GatewayKick) -> bool:
        """
        Do what another node asks: kick the connection that it names, if it is still the
        one that has the user here (cluster 5.3).

        @return: Whether KICK was written.
        """
        log = self._log.conn
        if (kick.target_server, kick.target_port) != (
            self._identity.host,
            self._identity.port,
        ):
            log.error(
                "receive kick msg, but not in current server, msg={kick}",
                kick=str(kick),
            )
        elif (connection := self._local_of(kick)) is None:
            log.warn(
                "can't find local connection, kick failed, msg={kick}", kick=str(kick)
            )
        elif connection.id != kick.connection_id:
            log.warn(
                "kick target is not the connection of this user any more, msg={kick}, "
                "conn={conn}",
                kick=str(kick),
                conn=connection,
            )
            self.route_doubted(connection)
        else:
            assert kick.user_id is not None
            return self.kick(connection, kick.user_id, from_remote=True)
        self._metrics.kicks["remote", "ignored"] += 1
        return False

    def _local_of(self, kick: GatewayKick) -> Connection | None:
        if kick.user_id is None:
            return None
        return self.local.lookup(kick.user_id, kick.client_type)

    def kick(self, connection: Connection, user_id: str, from_remote: bool) -> bool:
        """
        Send KICK to a connection of this node; it is not closed and keeps its context
        (server 11.5).

        @return: Whether it was written.
        """
        delivered = connection.device_id is not None and connection.send_kick(user_id)
        origin = "remote" if from_remote else "local"
        self._metrics.kicks[origin, "success" if delivered else "failure"] += 1
        log: Callable[..., None] = (
            self._log.conn.info if delivered else self._log.conn.warn
        )
        log(
            "kick local connection {result}, userId={user_id}, conn={conn}",
            result="success" if delivered else "failure",
            user_id=user_id,
            conn=connection,
        )
        if delivered:
            self._events.post(
                UserKicked(user_id, connection.device_id, connection.id, from_remote)
            )
        return delivered
