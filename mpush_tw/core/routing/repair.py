"""
Setting the shared store right after it was away (DESIGN 7, cluster 2.11).

While the store is away this node serves on: its local table is right. The store is not:
it may have lost everything, it misses the ends of connections, and another node may
have taken users over without this one hearing of it. When the store is back:

  - routes whose connection has ended are ended there, and their users taken off the
    online list;
  - each bound connection has its route and its user on the list again. If the store
    says that another node has the user, which it may from before the user came here,
    that node is asked to kick the connection that the store names: if there is one it
    goes, and if there is none nobody is disturbed;
  - who is on the online list and not here is taken off it;
  - a bind that was refused because the store did not answer may have been written all
    the same, over the route of another node. It is ended, and the nodes are asked
    whether one of them has the user: by a kick that fits no connection, which makes
    ours look after their route and which others drop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from itertools import islice
from typing import Any

import attrs

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.python.failure import Failure

from mpush_tw.core.connection import Connection
from mpush_tw.core.log import NodeLog
from mpush_tw.core.metrics import NodeMetrics
from mpush_tw.core.routing.online import OnlineUsers
from mpush_tw.core.routing.router import Router, Unended
from mpush_tw.errors import Unavailable
from mpush_tw.protocol.routes import RemoteRoute

_MAX_DOUBTED = 1000
"""
Routes that are looked after at a time because another node does not know of them.
"""

_PAGE = 1000
_SLICE = 200
"""
Routes that are looked after at a time: they go out pipelined, and binds of new devices
do not wait behind all of them.
"""


class StoreRepair:
    """
    Goes through all routes of the node, once for each time the store came back.

    @ivar running: Whether a round is under way.
    """

    def __init__(
        self,
        router: Router,
        online: OnlineUsers,
        gateways: Callable[[], Awaitable[list[tuple[str, int]]]],
        owns_list: Callable[[], bool],
        log: NodeLog,
        metrics: NodeMetrics,
    ) -> None:
        """
        @param gateways: Finds the gateway addresses of the other nodes.
        @param owns_list: Whether the online list is this node's alone (C-11).
        """
        self._router = router
        self._online = online
        self._gateways = gateways
        self._owns_list = owns_list
        self._doubted: dict[Connection, None] = {}
        router.route_doubted = self.look_after
        self._log = log.general
        self._metrics = metrics
        self._again = False
        self._round: Deferred[None] | None = None

    @property
    def running(self) -> bool:
        return self._round is not None

    def store_restored(self) -> None:
        """
        Begin a round, or have the one under way followed by another.
        """
        if self._round is not None:
            self._again = True
            return
        self._round = Deferred.fromCoroutine(self._go_round())
        self._round.addBoth(self._round_ended)

    def look_after(self, connection: Connection) -> None:
        """
        Have the route of one connection looked after: another node does not know it.
        """
        if len(self._doubted) >= _MAX_DOUBTED or connection in self._doubted:
            return
        self._doubted[connection] = None
        looking = Deferred.fromCoroutine(self._restore(connection))

        def done(result: Failure | None) -> None:
            del self._doubted[connection]
            if isinstance(result, Failure):
                self._log.error(
                    "route of {conn} not looked after: {error}",
                    conn=connection,
                    error=result.value,
                )

        looking.addBoth(done)

    def stop(self) -> None:
        """
        Give up a round that is under way.
        """
        self._again = False
        if self._round is not None:
            self._round.cancel()

    def _round_ended(self, result: Failure | None) -> None:
        self._round = None
        if isinstance(result, Failure):
            # The store went away again; it will be told when it is back.
            self._log.error(
                "routes are not all restored yet: {error}", error=result.value
            )
        if self._again:
            self._again = False
            self.store_restored()

    async def _go_round(self) -> None:
        self._metrics.store_repairs += 1
        ended = await self._end_unfinished()
        missed = self._online.take_missed()
        for start in range(0, len(missed), _SLICE):
            await _all([self._list(one) for one in missed[start : start + _SLICE]])
        restored = 0
        waiting = iter(list(self._router.local))
        while connections := list(islice(waiting, _SLICE)):
            await _all([self._restore(one) for one in connections])
            restored += len(connections)
        if self._owns_list():
            await self._clear_strangers()
        self._log.warn(
            "the store is back: {restored} routes looked after, {ended} ended",
            restored=restored,
            ended=ended,
        )

    async def _clear_strangers(self) -> None:
        """
        Take users off the list who are not here: an old snapshot has them.
        """
        strangers: list[str] = []
        start = 0
        while page := await self._online.page(start, start + _PAGE - 1):
            start += len(page)
            strangers += [one for one in page if not self._router.local.lookup_all(one)]
        for start in range(0, len(strangers), _SLICE):
            await _all([self._list(one) for one in strangers[start : start + _SLICE]])

    async def _end_unfinished(self) -> int:
        unfinished = self._router.unfinished
        count = 0
        while unfinished:
            taken = [one for one in (unfinished.take() for _ in range(_SLICE)) if one]
            await _all([self._end(one) for one in taken])
            count += len(taken)
        return count

    async def _end(self, unended: Unended) -> None:
        user_id, client_type = unended.user_id, unended.client_type
        route = unended.route
        try:
            ended = await self._router.remote.mark_offline(user_id, client_type, route)
        except Unavailable:
            self._router.unfinished.add(unended)
            raise
        if unended.refused:
            if ended:
                await self._ask_around(user_id, client_type, route)
            # Not on the list and not announced: it has never been bound.
            return
        self._online.note_missed(user_id)

    async def _ask_around(
        self, user_id: str, client_type: int, route: RemoteRoute
    ) -> None:
        try:
            gateways = await self._gateways()
        except Unavailable as error:
            self._log.error("nodes not asked for a user: {error}", error=error)
            return
        for host, port in gateways:
            asked = attrs.evolve(route, host=host, port=port, written="")
            self._router.ask_to_kick(user_id, client_type, asked)

    async def _list(self, user_id: str) -> None:
        here = bool(self._router.local.lookup_all(user_id))
        await self._online.restore(user_id, here)

    async def _restore(self, connection: Connection) -> None:
        user_id = connection.user_id
        if user_id is None or not connection.connected:
            return
        router = self._router
        client_type = connection.client_type
        route = router.route_of(connection)
        other = await router.remote.restore(user_id, client_type, route)
        if connection.user_id != user_id:
            # It left while the store was asked, and its own end came first or comes
            # now; ending the route twice does no harm.
            await router.remote.mark_offline(user_id, client_type, route)
        elif other is None:
            await self._online.restore(user_id, True)
        elif router.local.lookup(
            user_id, client_type
        ) is connection and await router.remote.replace(
            user_id, client_type, other, route
        ):
            router.ask_to_kick(user_id, client_type, other)
            await self._online.restore(user_id, True)


async def _all(steps: list[Coroutine[Deferred[Any], Any, None]]) -> None:
    """
    Run some steps at the same time, to their end.

    @raise Unavailable: If one of them did.
    """
    done = gatherResults(
        [Deferred.fromCoroutine(step).addErrback(_note) for step in steps]
    )
    for error in await done:
        if error is not None:
            raise error


def _note(failure: Failure) -> Exception:
    failure.trap(Unavailable, CancelledError)
    error = failure.value
    assert isinstance(error, Unavailable | CancelledError)
    return error
