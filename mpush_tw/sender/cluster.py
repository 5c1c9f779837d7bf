"""
The gateways and routes of a cluster, from what its nodes share.

Where the rules are: cluster 4.9, 7.1, 7.5, 7.8. A sender registers nothing and writes
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from mpush_tw.client_types import DefaultClassifier
from mpush_tw.interfaces import (
    ICache,
    IClientClassifier,
    IMessageQueue,
    IServiceDiscovery,
)
from mpush_tw.sender._registrations import Registrations
from mpush_tw.sender._routes import StoredRoutes
from mpush_tw.sender.directory import (
    Address,
    GatewaysChanged,
    IGatewayDirectory,
    Route,
)

USER_TOPICS = ("/mpush/online/", "/mpush/offline/")
"""
Where nodes say who came and who left, as the bare user id (cluster 2.8).
"""


@implementer(IGatewayDirectory)
class ClusterGateways:
    """
    The gateways that are registered, and the routes that nodes have stored.

    It starts and stops the stores, which must be its own: a queue has one receiver a
    topic. Routes are remembered for five minutes at most; less if a push ended other
    than by success, if a node says that the user came or left, and if that may have
    been missed (C-46).
    """

    _log = Logger()
    fixed = False

    def __init__(
        self,
        discovery: IServiceDiscovery,
        cache: ICache,
        queue: IMessageQueue,
        clock: IReactorTime,
        classifier: IClientClassifier | None = None,
    ) -> None:
        """
        @param classifier: That of the nodes, if it is not the default.
        """
        self._discovery = discovery
        self.cache = cache
        self._queue = queue
        self._gateways = Registrations(discovery, clock)
        self._routes = StoredRoutes(cache, classifier or DefaultClassifier(), clock)
        queue.on_restored(self._routes.forget_all)

    def start(self, gateways_changed: GatewaysChanged) -> Deferred[None]:
        return Deferred.fromCoroutine(self._start(gateways_changed))

    async def _start(self, gateways_changed: GatewaysChanged) -> None:
        await self.cache.start()
        await self._queue.start()
        for topic in USER_TOPICS:
            await self._queue.subscribe(topic, self._user_came_or_left)
        await self._discovery.start()
        await self._gateways.start(gateways_changed)

    def stop(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._gateways.stop()
        self._routes.forget_all()
        for store in (self._discovery, self._queue, self.cache):
            try:
                await store.stop()
            except Exception:
                self._log.failure("a store could not be stopped")

    def routes(self, user_id: str) -> Deferred[Sequence[Route]]:
        return self._routes.find(user_id)

    def registered(self, address: Address) -> Deferred[bool]:
        return self._gateways.registered(address)

    def outdated(self, user_id: str) -> None:
        self._routes.forget(user_id)

    def _user_came_or_left(self, topic: str, user_id: str) -> None:
        self._routes.forget(user_id)
