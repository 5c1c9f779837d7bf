"""
Registry and discovery within one process.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
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
    Nodes by service path and id.
    """

    def __init__(self) -> None:
        self._nodes: dict[str, dict[str, ServiceNode]] = {}
        self._listeners: dict[str, list[IServiceListener]] = {}

    def start(self) -> Deferred[None]:
        return succeed(None)

    def stop(self) -> Deferred[None]:
        self._nodes.clear()
        return succeed(None)

    def register(self, node: ServiceNode) -> Deferred[None]:
        nodes = self._nodes.setdefault(node.service, {})
        known = node.node_id in nodes
        nodes[node.node_id] = node
        for listener in self._listeners.get(node.service, []):
            if known:
                listener.service_updated(node)
            else:
                listener.service_added(node)
        return succeed(None)

    def deregister(self, node: ServiceNode) -> Deferred[None]:
        if self._nodes.get(node.service, {}).pop(node.node_id, None) is not None:
            for listener in self._listeners.get(node.service, []):
                listener.service_removed(node)
        return succeed(None)

    def lookup(self, service: str) -> Deferred[list[ServiceNode]]:
        return succeed(list(self._nodes.get(service, {}).values()))

    def subscribe(self, service: str, listener: IServiceListener) -> None:
        self._listeners.setdefault(service, []).append(listener)

    def unsubscribe(self, service: str, listener: IServiceListener) -> None:
        listeners = self._listeners.get(service, [])
        if listener in listeners:
            listeners.remove(listener)
