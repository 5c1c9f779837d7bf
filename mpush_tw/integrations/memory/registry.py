"""
Registry and discovery within one process.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from mpush_tw.interfaces import (
    IServiceDiscovery,
    IServiceListener,
    IServiceRegistry,
    ServiceNode,
)


@implementer(IServiceRegistry, IServiceDiscovery)
class MemoryRegistry:
    """
    Nodes by service path and id. Existing ones are not told to a new listener.
    """

    _log = Logger()

    def __init__(self) -> None:
        self._nodes: dict[str, dict[str, ServiceNode]] = {}
        self._listeners: dict[str, list[IServiceListener]] = {}

    def start(self) -> Deferred[None]:
        return succeed(None)

    def stop(self) -> Deferred[None]:
        for nodes in list(self._nodes.values()):
            for node in list(nodes.values()):
                self.deregister(node)
        return succeed(None)

    def register(self, node: ServiceNode) -> Deferred[None]:
        nodes = self._nodes.setdefault(node.service, {})
        before = nodes.get(node.node_id)
        nodes[node.node_id] = node
        if before is None:
            self._tell(node, lambda listener: listener.service_added(node))
        elif before != node:
            self._tell(node, lambda listener: listener.service_updated(node))
        return succeed(None)

    def deregister(self, node: ServiceNode) -> Deferred[None]:
        last = self._nodes.get(node.service, {}).pop(node.node_id, None)
        if last is not None:
            self._tell(last, lambda listener: listener.service_removed(last))
        return succeed(None)

    def _tell(
        self, node: ServiceNode, event: Callable[[IServiceListener], None]
    ) -> None:
        listeners = self._listeners.get(node.service, [])
        for listener in list(listeners):
            if listener not in listeners:
                # An earlier listener made it listen no more.
                continue
            try:
                event(listener)
            except Exception:
                self._log.failure("a listener for service nodes failed")

    def lookup(self, service: str) -> Deferred[list[ServiceNode]]:
        nodes = self._nodes.get(service, {})
        return succeed([nodes[node_id] for node_id in sorted(nodes, reverse=True)])

    def subscribe(self, service: str, listener: IServiceListener) -> None:
        self._listeners.setdefault(service, []).append(listener)

    def unsubscribe(self, service: str, listener: IServiceListener) -> None:
        listeners = self._listeners.get(service, [])
        if listener in listeners:
            listeners.remove(listener)
