"""
Setting the shared store right after it was away (DESIGN 7, cluster 2.11).

While the store is away this node serves on: its local table is right. The store is not:
it may have lost everything, it misses the ends of connections, and another node may
have taken users over without this one hearing of it. When the store is back:

  - routes whose connection has ended are ended there, and their users taken off the
    online list;
  - each bound connection has its route and its user on the list again, unless another
    node has the user now: then this one is kicked, as it would have been.
"""

from __future__ import annotations

from collections.abc import Coroutine
from itertools import islice
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.python.failure import Failure

from mpush_tw.core.connection import Connection
from mpush_tw.core.log import NodeLog
from mpush_tw.core.metrics import NodeMetrics
from mpush_tw.core.routing.online import OnlineUsers
from mpush_tw.core.routing.router import Router
from mpush_tw.errors import Unavailable
from mpush_tw.protocol.routes import RemoteRoute

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
        self, router: Router, online: OnlineUsers, log: NodeLog, metrics: NodeMetrics
    ) -> None:
        self._router = router
        self._online = online
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
        self._log.warn(
            "the store is back: {restored} routes looked after, {ended} ended",
            restored=restored,
            ended=ended,
        )

    async def _end_unfinished(self) -> int:
        unfinished = self._router.unfinished
        count = 0
        while unfinished:
            taken = [one for one in (unfinished.take() for _ in range(_SLICE)) if one]
            await _all([self._end(*one) for one in taken])
            count += len(taken)
        return count

    async def _end(self, user_id: str, client_type: int, route: RemoteRoute) -> None:
        try:
            await self._router.remote.mark_offline(user_id, client_type, route)
        except Unavailable:
            self._router.unfinished.add(user_id, client_type, route)
            raise
        self._online.note_missed(user_id)

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
        elif router.local.lookup(user_id, client_type) is connection:
            router.kick(connection, user_id, from_remote=True)


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
