"""
Which gateways there are, and which of them serve a user: the seam for a cluster.

A sender in standalone mode is told the addresses and knows no routes
(L{StaticGateways}). In a cluster the registry and the route store answer the same
questions (L{mpush_tw.sender.cluster}).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from twisted.internet.defer import Deferred, succeed
from zope.interface import Attribute, Interface, implementer

from mpush_tw.errors import PushError

Address = tuple[str, int]
"""
Host and port of a gateway.
"""

GatewaysChanged = Callable[[Sequence[Address]], None]
"""
Told of all the gateways that there are now, each once.
"""

ANY_CLIENT_TYPE = 0


@attrs.frozen
class Route:
    """
    A gateway to ask for a user, and what the route store says of the device there
    (cluster 2.3, 7.7).

    @ivar client_type: Which of the user's connections on that node: 1 mobile, 2 pc,
        3 web, -1 unknown; 0 means all of them (DESIGN 5c).
    @ivar connection_id: Of the device's connection on that node; C{None}, as the other
        texts, where no route store is asked.
    """

    host: str
    port: int
    client_type: int = ANY_CLIENT_TYPE
    os_name: str | None = None
    client_version: str | None = None
    device_id: str | None = None
    connection_id: str | None = None

    @property
    def address(self) -> Address:
        return self.host, self.port


class IGatewayDirectory(Interface):
    """
    What a L{PushSender<mpush_tw.sender.PushSender>} has to know of the cluster.
    """

    fixed = Attribute(
        """
        Whether the gateways never change. If so, a start waits for a connection to any
        of them and fails without one; otherwise there may be none yet.
        """
    )

    cache = Attribute(
        """
        The L{ICache<mpush_tw.interfaces.ICache>} that all nodes have in common, usable
        between L{start} and L{stop}; C{None} if they have none.
        """
    )

    def start(gateways_changed: GatewaysChanged) -> Deferred[None]:
        """
        Find the gateways, and go on watching them until L{stop}.

        @param gateways_changed: To be called, in the reactor's thread, with all
            gateways each time that they are others than before; for the first time
            before the Deferred fires, unless there are none.
        @return: A Deferred that fails with L{Unavailable<mpush_tw.errors.Unavailable>}
            naming what could not be reached. L{stop} is called then as well, and also
            after cancelling.
        """

    def stop() -> Deferred[None]:
        """
        Watch no more. May be followed by another L{start}.
        """

    def routes(user_id: str) -> Deferred[Sequence[Route]]:
        """
        Find out where a user is online. Called for each push and again after a
        redirect; may wait, within the time-out of the push, and must stand being
        cancelled then.

        @return: A Deferred firing with the routes to ask; empty when the user is
            offline. It fails with L{Unavailable<mpush_tw.errors.Unavailable>} when
            nobody can tell: the push is a failure then.
        """

    def registered(address: Address) -> Deferred[bool]:
        """
        Find out whether the gateway of a route, which is not known or cannot be
        connected, is there at all. May wait, and be cancelled, as L{routes}.

        @return: A Deferred firing with C{False} if nobody can be online at this
            gateway any more. If it is C{True}, C{gateways_changed} has been told of the
            gateway. It fails with L{Unavailable<mpush_tw.errors.Unavailable>} when
            nobody can tell: the push is a failure then.
        """

    def outdated(user_id: str) -> None:
        """
        Learn that a push ended other than by success: what is remembered of this
        user's routes may be wrong (cluster 7.8).
        """


@implementer(IGatewayDirectory)
class StaticGateways:
    """
    A fixed list of gateways, each of which may have any user (DESIGN 5c).
    """

    fixed = True
    cache = None

    def __init__(self, addresses: Sequence[Address]) -> None:
        """
        @param addresses: At least one; each counts once.
        @raise PushError: If there is none.
        """
        if not addresses:
            raise PushError("a sender needs at least one gateway address")
        self._addresses = tuple(dict.fromkeys((host, port) for host, port in addresses))
        self._routes = tuple(Route(host, port) for host, port in self._addresses)

    def start(self, gateways_changed: GatewaysChanged) -> Deferred[None]:
        gateways_changed(self._addresses)
        return succeed(None)

    def stop(self) -> Deferred[None]:
        return succeed(None)

    def routes(self, user_id: str) -> Deferred[Sequence[Route]]:
        return succeed(self._routes)

    def registered(self, address: Address) -> Deferred[bool]:
        """
        Say yes: a gateway of the list that does not answer may still have the user.
        """
        return succeed(True)

    def outdated(self, user_id: str) -> None:
        """
        Nothing is remembered here.
        """
