"""
Tests for L{mpush_tw.integrations.memory.registry}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mpush_tw.integrations.memory import MemoryRegistry
from mpush_tw.interfaces import (
    IServiceDiscovery,
    IServiceListener,
    IServiceRegistry,
    ServiceNode,
)

_PATH = "/cluster/cs"


@implementer(IServiceListener)
class FakeServiceListener:
    """
    Notes what it hears.
    """

    def __init__(self) -> None:
        self.heard: list[tuple[str, ServiceNode]] = []

    def service_added(self, node: ServiceNode) -> None:
        self.heard.append(("added", node))

    def service_updated(self, node: ServiceNode) -> None:
        self.heard.append(("updated", node))

    def service_removed(self, node: ServiceNode) -> None:
        self.heard.append(("removed", node))


def _node(number: int, port: int = 3000) -> ServiceNode:
    return ServiceNode(_PATH, f"10.0.0.{number}", port, {"weight": 1}, f"id{number}")


class MemoryRegistryTests(SynchronousTestCase):
    """
    Registry and discovery in one process.
    """

    def setUp(self) -> None:
        self.registry = MemoryRegistry()
        self.listener = FakeServiceListener()

    def lookup(self, path: str = _PATH) -> list[ServiceNode]:
        """
        The nodes below a path.
        """
        found = self.registry.lookup(path)
        return self.successResultOf(found)  # type: ignore[no-any-return]

    def test_interfaces(self) -> None:
        """
        It is both, and the listener of these tests is one.
        """
        verifyObject(IServiceRegistry, self.registry)
        verifyObject(IServiceDiscovery, self.registry)
        verifyObject(IServiceListener, self.listener)

    def test_found(self) -> None:
        """
        Registered nodes are found below their path.
        """
        self.registry.register(_node(1))
        self.registry.register(_node(2))
        self.assertEqual(self.lookup(), [_node(1), _node(2)])
        self.assertEqual(self.lookup("/cluster/gs"), [])

    def test_withdrawn(self) -> None:
        """
        A withdrawn node is not found; withdrawing it twice does no harm.
        """
        self.registry.register(_node(1))
        self.registry.deregister(_node(1))
        self.successResultOf(self.registry.deregister(_node(1)))
        self.assertEqual(self.lookup(), [])

    def test_changes(self) -> None:
        """
        A listener hears of every later change below its path.
        """
        self.registry.register(_node(1))
        self.registry.subscribe(_PATH, self.listener)
        self.registry.register(_node(2))
        self.registry.register(_node(2, 4000))
        self.registry.deregister(_node(2))
        self.registry.register(ServiceNode("/cluster/gs", "10.0.0.1", 3001))
        self.assertEqual(
            self.listener.heard,
            [
                ("added", _node(2)),
                ("updated", _node(2, 4000)),
                ("removed", _node(2)),
            ],
        )

    def test_unsubscribed(self) -> None:
        """
        Who has unsubscribed hears no more; doing so twice does no harm.
        """
        self.registry.subscribe(_PATH, self.listener)
        self.registry.unsubscribe(_PATH, self.listener)
        self.registry.unsubscribe(_PATH, self.listener)
        self.registry.register(_node(1))
        self.assertEqual(self.listener.heard, [])

    def test_stopped(self) -> None:
        """
        What is still registered at a stop vanishes.
        """
        self.registry.register(_node(1))
        self.registry.stop()
        self.assertEqual(self.lookup(), [])
