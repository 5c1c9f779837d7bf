"""
Which gateways there are, and which of them serve a user: the seam for a cluster.

A sender in standalone mode is told the addresses and knows no routes
(L{StaticGateways}). A registry and a route store answer the same two questions.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from twisted.internet.defer import Deferred, succeed
from zope.interface import Interface, implementer

from mpush_tw.errors import PushError

Address = tuple[str, int]
"""
Host and port of a gateway.
"""

ANY_CLIENT_TYPE = 0


@attrs.frozen
class Route:
    """
    A gateway to ask for a user.

    @ivar client_type: Which of the user's connections on that node: 1 mobile, 2 pc,
        3 web, -1 unknown; 0 means all of them (DESIGN 5c).
    """

    host: str
    port: int
    client_type: int = ANY_CLIENT_TYPE

    @property
    def address(self) -> Address:
        return self.host, self.port


class IGatewayDirectory(Interface):
    """
    What a L{PushSender<mpush_tw.sender.PushSender>} has to know of the cluster.
    """

    def gateways() -> Sequence[Address]:
        """
        Name the gateways to connect to; asked once per start.
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

    def __init__(self, addresses: Sequence[Address]) -> None:
        """
        @param addresses: At least one; each counts once.
        @raise PushError: If there is none.
        """
        if not addresses:
            raise PushError("a sender needs at least one gateway address")
        self._addresses = tuple(dict.fromkeys((host, port) for host, port in addresses))
        self._routes = tuple(Route(host, port) for host, port in self._addresses)

    def gateways(self) -> Sequence[Address]:
        return self._addresses

    def routes(self, user_id: str) -> Deferred[Sequence[Route]]:
        return succeed(self._routes)

    def outdated(self, user_id: str) -> None:
        """
        Nothing is remembered here.
        """
