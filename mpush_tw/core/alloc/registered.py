"""
The servers of one kind that are registered (services A4, A-2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from mpush_tw.core.alloc.servers import read_server
from mpush_tw.core.log import NodeLog
from mpush_tw.errors import Unavailable
from mpush_tw.interfaces import IServiceDiscovery, IServiceListener, ServiceNode

GRACE = 30.0
"""
Seconds for which the last servers are still listed after all of them have vanished
(A-2): nodes that lost their registration for a moment are back by then.
"""

ASK_AGAIN = 5.0
"""
Seconds between questions whether there is a server, while the registry is away.
"""


@implementer(IServiceListener)
class RegisteredServers:
    """
    Follows one service path. While the registry is away the nodes stay as they are.

    The original goes on with the last servers for ever when all have vanished (C-48).
    Here they are gone after L{GRACE}, as soon as the registry confirms it.
    """

    def __init__(
        self,
        service: str,
        discovery: IServiceDiscovery,
        clock: IReactorTime,
        log: NodeLog,
        changed: Callable[[], None],
    ) -> None:
        """
        @param changed: Called when L{nodes} are others than before.
        """
        self._service = service
        self._discovery = discovery
        self._clock = clock
        self._log = log
        self._changed = changed
        self._registered: dict[str, ServiceNode] = {}
        self._last: tuple[ServiceNode, ...] = ()
        self._lookups: list[set[str]] = []
        self._useless: set[tuple[str, str, int]] = set()
        self._ending: IDelayedCall | None = None
        self._confirming = False
        self._asking: Deferred[None] | None = None
        self._watching = False

    @property
    def nodes(self) -> Sequence[ServiceNode]:
        """
        The nodes that clients can use, by id; for a while the last ones, when there is
        none any more.
        """
        return self._last

    async def start(self) -> None:
        """
        Find the nodes, and watch them until L{stop}.

        @raise Unavailable: If the registry cannot be asked.
        """
        self._watching = True
        # In this order: what is registered in between is told of.
        self._discovery.subscribe(self._service, self)
        try:
            await self.refresh()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """
        Watch no more. The nodes stay as they are. Idempotent.
        """
        if self._watching:
            self._watching = False
            self._discovery.unsubscribe(self._service, self)
        if self._asking is not None:
            self._asking.cancel()
        self._keep_none_waiting()

    async def refresh(self) -> None:
        """
        Ask the registry for all nodes.

        @raise Unavailable: If it cannot be asked; all stays as it is.
        """
        # What is told while the answer is on its way may be newer than the answer.
        told: set[str] = set()
        self._lookups.append(told)
        try:
            nodes = await self._discovery.lookup(self._service)
        finally:
            self._lookups = [one for one in self._lookups if one is not told]
        found = {node.node_id: node for node in nodes if node.node_id not in told}
        for node_id in told & self._registered.keys():
            found[node_id] = self._registered[node_id]
        if self._watching:
            self._registered = found
            self._look()

    # --------------------------------------------------- told by the registry

    def service_added(self, node: ServiceNode) -> None:
        self._note(node)
        self._registered[node.node_id] = node
        self._look()

    def service_updated(self, node: ServiceNode) -> None:
        self.service_added(node)

    def service_removed(self, node: ServiceNode) -> None:
        self._note(node)
        self._registered.pop(node.node_id, None)
        self._look()

    def _note(self, node: ServiceNode) -> None:
        for told in self._lookups:
            told.add(node.node_id)

    # ------------------------------------------------------------- the list

    def _look(self) -> None:
        """
        See what is registered now.
        """
        usable = tuple(
            node for _, node in sorted(self._registered.items()) if self._usable(node)
        )
        if usable:
            self._keep_none_waiting()
        elif self._last:
            if self._ending is None and not self._confirming:
                self._log.general.warn(
                    "no server is registered at {service} any more; the last ones "
                    "stay listed for {seconds} s",
                    service=self._service,
                    seconds=GRACE,
                )
                self._ending = self._clock.callLater(GRACE, self._confirm)
            return
        self._become(usable)

    def _become(self, nodes: tuple[ServiceNode, ...]) -> None:
        if nodes != self._last:
            self._last = nodes
            self._changed()

    def _usable(self, node: ServiceNode) -> bool:
        if read_server(node) is not None:
            return True
        seen = (node.node_id, node.host, node.port)
        if seen not in self._useless:
            if len(self._useless) >= 1000:
                self._useless.clear()
            self._useless.add(seen)
            self._log.general.warn(
                "{service}/{node_id} is not listed: clients cannot use the address "
                "{host} port {port}",
                service=self._service,
                node_id=node.node_id,
                host=str(node.host),
                port=node.port,
            )
        return False

    def _keep_none_waiting(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None

    def _confirm(self) -> None:
        """
        Ask whether there is really nobody: the registry itself may be away by now.
        """
        self._ending = None
        self._confirming = True
        asking = self._asking = Deferred.fromCoroutine(self.refresh())
        asking.addBoth(self._asked)
        asking.addCallbacks(self._confirmed, self._not_confirmed)

    def _asked(self, result: Failure | None) -> Failure | None:
        self._confirming = False
        return result

    def _confirmed(self, result: None) -> None:
        if self._watching and not any(map(self._usable, self._registered.values())):
            self._log.general.warn(
                "no server is registered at {service}: clients get an empty list",
                service=self._service,
            )
            self._become(())

    def _not_confirmed(self, failure: Failure) -> None:
        if not self._watching:
            return
        if not failure.check(Unavailable):
            self._log.general.failure("asking for servers", failure)
        self._ending = self._clock.callLater(ASK_AGAIN, self._confirm)
