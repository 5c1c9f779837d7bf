"""
Which gateways are registered.

Where the rules are: cluster 3.7, 4.9. A gateway is there as long as any registration
names its address: one that was restarted has two for a while (C-40). And for a moment
longer: nodes of the original withdraw and register again whenever their connection to
ZooKeeper was interrupted (C-20), and a node that stops withdraws before it closes its
devices. Both can be asked as ever.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mpush_tw.errors import Unavailable
from mpush_tw.interfaces import IServiceDiscovery, IServiceListener, ServiceNode
from mpush_tw.sender._routes import is_gateway
from mpush_tw.sender._waiters import Waiters
from mpush_tw.sender.directory import Address, GatewaysChanged

GATEWAYS = "/cluster/gs"
"""
Where gateways are registered (cluster 3.4).
"""

ASK_EVERY = 1.0
"""
Seconds for which the registry's word on one address is believed.
"""

GRACE = 2.0
"""
Seconds for which a gateway is used after its last registration has vanished.
"""

_MAX_ANSWERS = 1000


@implementer(IServiceListener)
class Registrations:
    """
    The gateways in the registry. While the registry is away they stay as they are.
    """

    _log = Logger()

    def __init__(self, discovery: IServiceDiscovery, clock: IReactorTime) -> None:
        self._discovery = discovery
        self._clock = clock
        self._changed: GatewaysChanged | None = None
        # What the registry told of, and what was only found by asking: that may vanish
        # without being told.
        self._told: dict[str, Address] = {}
        self._found: dict[str, Address] = {}
        self._leaving: dict[Address, IDelayedCall] = {}
        self._known: tuple[Address, ...] = ()
        self._lookup: Waiters[frozenset[Address]] | None = None
        self._asked: set[Address] = set()
        self._answers: dict[Address, tuple[float, bool | Unavailable]] = {}

    async def start(self, changed: GatewaysChanged) -> None:
        """
        Find the gateways and go on watching them.

        @raise Unavailable: If the registry cannot be asked.
        """
        self._changed = changed
        # In this order: what is registered in between is told of.
        self._discovery.subscribe(GATEWAYS, self)
        self._look_at(await self._discovery.lookup(GATEWAYS))

    def stop(self) -> None:
        """
        Watch no more, and forget.
        """
        self._changed = None
        self._discovery.unsubscribe(GATEWAYS, self)
        self._told.clear()
        self._found.clear()
        for leaving in self._leaving.values():
            leaving.cancel()
        self._leaving.clear()
        self._known = ()
        self._answers.clear()

    def registered(self, address: Address) -> Deferred[bool]:
        """
        Ask the registry whether a gateway is there: once for all who ask meanwhile, and
        at most once a second for one address.

        @return: A Deferred that fails with L{Unavailable} if it cannot be asked.
        """
        answer = self._answers.get(address)
        if answer is not None and answer[0] > self._clock.seconds():
            there = answer[1]
            return fail(there) if isinstance(there, Unavailable) else succeed(there)
        lookup = self._lookup
        if lookup is None:
            lookup = self._lookup = Waiters()
            waiting = lookup.wait()
            self._asked.add(address)
            self._look_up(lookup)
        else:
            waiting = lookup.wait()
            self._asked.add(address)
        return waiting.addCallback(lambda found: address in found)

    def _look_up(self, lookup: Waiters[frozenset[Address]]) -> None:
        def found(nodes: list[ServiceNode]) -> None:
            addresses = frozenset(self._look_at(nodes))
            self._remember(
                {address: address in addresses for address in self._asked}.items()
            )
            self._lookup = None
            lookup.tell(addresses)

        def failed(failure: Failure) -> None:
            self._lookup = None
            error = failure.value
            if isinstance(error, Unavailable):
                self._remember([(address, error) for address in self._asked])
            lookup.tell(failure)

        asked = maybeDeferred(self._discovery.lookup, GATEWAYS)
        asked.addCallback(found).addErrback(failed)

    def _remember(self, answers: Iterable[tuple[Address, bool | Unavailable]]) -> None:
        now = self._clock.seconds()
        self._answers = {
            address: answer
            for address, answer in self._answers.items()
            if answer[0] > now
        }
        for address, there in answers:
            if len(self._answers) < _MAX_ANSWERS:
                self._answers[address] = now + ASK_EVERY, there
        self._asked.clear()

    # ------------------------------------------------------- what is there

    def service_added(self, node: ServiceNode) -> None:
        address = self._address(node)
        self._found.pop(node.node_id, None)
        if address is None:
            self._told.pop(node.node_id, None)
        else:
            self._told[node.node_id] = address
        self._tell()

    def service_updated(self, node: ServiceNode) -> None:
        self.service_added(node)

    def service_removed(self, node: ServiceNode) -> None:
        self._found.pop(node.node_id, None)
        self._told.pop(node.node_id, None)
        self._tell()

    def _look_at(self, nodes: list[ServiceNode]) -> list[Address]:
        """
        Take note of what the registry answered.

        @return: The addresses.
        """
        addresses = {node.node_id: self._address(node) for node in nodes}
        there = {
            node_id: address
            for node_id, address in addresses.items()
            if address is not None
        }
        self._found = {
            node_id: address
            for node_id, address in there.items()
            if node_id not in self._told
        }
        self._tell()
        return list(there.values())

    def _address(self, node: ServiceNode) -> Address | None:
        if is_gateway(node.host, node.port):
            return node.host, node.port
        self._log.warn(
            "{service}/{node_id} is no gateway", service=GATEWAYS, node_id=node.node_id
        )
        return None

    def _tell(self) -> None:
        """
        Tell who watches if the gateways are others than before.
        """
        if self._changed is None:
            return
        registered = dict.fromkeys((*self._told.values(), *self._found.values()))
        for address in self._known:
            if address not in registered and address not in self._leaving:
                self._leaving[address] = self._clock.callLater(
                    GRACE, self._has_left, address
                )
        for address in registered:
            leaving = self._leaving.pop(address, None)
            if leaving is not None:
                leaving.cancel()
        known = (*registered, *self._leaving)
        if set(known) != set(self._known):
            self._known = known
            self._changed(known)

    def _has_left(self, address: Address) -> None:
        del self._leaving[address]
        self._known = tuple(one for one in self._known if one != address)
        if self._changed is not None:
            self._changed(self._known)
