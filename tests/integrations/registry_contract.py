"""
What every registry has to do, as a mixin: run against the one in memory, and against
ZooKeeper where that is tested.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mpush_tw.interfaces import (
    IServiceDiscovery,
    IServiceListener,
    IServiceRegistry,
    ServiceNode,
)
from tests.integrations.contracts import steps

if TYPE_CHECKING:
    _Base = TestCase
else:
    # Only what derives from a contract and from TestCase is run.
    _Base = object

CS = "/cluster/cs"
GS = "/cluster/gs"


def node(
    node_id: str, port: int = 3000, service: str = CS, attributes: Any = None
) -> ServiceNode:
    """
    A node of 10.0.0.1.
    """
    return ServiceNode(service, "10.0.0.1", port, attributes, node_id)


@implementer(IServiceListener)
class FakeServiceListener:
    """
    Notes what it hears.

    @ivar heard: Every event.
    @ivar nodes: What is there, if the events are right.
    """

    def __init__(self) -> None:
        self.heard: list[tuple[str, ServiceNode]] = []
        self.nodes: dict[str, ServiceNode] = {}

    def service_added(self, node: ServiceNode) -> None:
        assert node.node_id not in self.nodes, f"{node} added twice"
        self.heard.append(("added", node))
        self.nodes[node.node_id] = node

    def service_updated(self, node: ServiceNode) -> None:
        assert node.node_id in self.nodes, f"{node} updated before it was added"
        self.heard.append(("updated", node))
        self.nodes[node.node_id] = node

    def service_removed(self, node: ServiceNode) -> None:
        self.heard.append(("removed", node))
        self.nodes.pop(node.node_id, None)


async def until(condition: Callable[[], Any], seconds: float = 15.0) -> None:
    """
    Wait for what has to come from elsewhere.
    """
    clock: Any = reactor
    deadline = clock.seconds() + seconds
    while not condition():
        if clock.seconds() > deadline:
            raise AssertionError(f"did not happen within {seconds:g} seconds")
        await pause(0.02)


def pause(seconds: float) -> Deferred[None]:
    """
    Let a time pass.
    """
    return deferLater(reactor, seconds)  # type: ignore[arg-type]


class RegistryContract(_Base):
    """
    What an L{IServiceRegistry} and an L{IServiceDiscovery} have to do. Derive from it
    and supply the method.

    @ivar registry: A started registry, without nodes.
    @ivar discovery: Sees what the registry does; maybe the same object.
    """

    registry: IServiceRegistry
    discovery: IServiceDiscovery
    timeout = 60

    async def make_registry(self) -> tuple[IServiceRegistry, IServiceDiscovery]:
        """
        Make and start them; the derived class cleans them up.
        """
        raise NotImplementedError

    @steps
    async def setUp(self) -> None:  # type: ignore[override]
        self.registry, self.discovery = await self.make_registry()
        self.listener = FakeServiceListener()

    async def found(self, *expected: ServiceNode, service: str = CS) -> None:
        """
        Assert what a lookup gives, in this order.
        """
        self.assertEqual(await self.discovery.lookup(service), list(expected))

    async def listen(self) -> FakeServiceListener:
        """
        Listen to CS and wait until a change is heard.
        """
        self.discovery.subscribe(CS, self.listener)
        await self.settled()
        self.listener.heard.clear()
        return self.listener

    async def settled(self) -> None:
        """
        Wait until all that has happened so far has been heard.
        """
        marker = node(f"marker-{uuid4()}")
        await self.registry.register(marker)
        await until(lambda: ("added", marker) in self.listener.heard)
        await self.registry.deregister(marker)
        await until(lambda: ("removed", marker) in self.listener.heard)
        self.listener.heard = [
            event for event in self.listener.heard if event[1] != marker
        ]

    def test_interfaces(self) -> None:
        """
        It is both, and so is the listener of these tests what it says.
        """
        verifyObject(IServiceRegistry, self.registry)
        verifyObject(IServiceDiscovery, self.discovery)
        verifyObject(IServiceListener, self.listener)

    @steps
    async def test_nothing_there(self) -> None:
        """
        A path that nobody has registered at has no nodes.
        """
        await self.found()

    @steps
    async def test_found(self) -> None:
        """
        Registered nodes are found below their path, in descending order of their ids.
        """
        for node_id in ("b", "c", "a"):
            await self.registry.register(node(node_id))
        await self.found(node("c"), node("b"), node("a"))

    @steps
    async def test_other_paths(self) -> None:
        """
        Nodes of another path are not found, even where its name begins alike.
        """
        await self.registry.register(node("a", service=GS))
        await self.registry.register(node("b", service="/cluster/gs2"))
        await self.found()
        await self.found(node("a", service=GS), service=GS)

    @steps
    async def test_everything_of_it(self) -> None:
        """
        Attributes of any depth are found as they were registered; none are not the
        same as no attributes.
        """
        deep = {"weight": 1, "zone": {"name": "ост 东", "racks": [1, 2.5, True, "x"]}}
        nodes = [
            node("c", attributes=deep),
            node("b", attributes={}),
            node("a", attributes=None),
        ]
        for each in nodes:
            await self.registry.register(each)
        await self.found(*nodes)

    @steps
    async def test_withdrawn(self) -> None:
        """
        A withdrawn node is not found; withdrawing one twice, or one that was never
        there, does no harm.
        """
        await self.registry.register(node("a"))
        await self.registry.register(node("b"))
        await self.registry.deregister(node("a"))
        await self.registry.deregister(node("a"))
        await self.registry.deregister(node("never"))
        await self.found(node("b"))

    @steps
    async def test_registered_again(self) -> None:
        """
        A node that is registered again has its new data, and one that was withdrawn
        can come back.
        """
        await self.registry.register(node("a"))
        await self.registry.register(node("a", 4000))
        await self.found(node("a", 4000))
        await self.registry.deregister(node("a"))
        await self.registry.register(node("a"))
        await self.found(node("a"))

    @steps
    async def test_changes(self) -> None:
        """
        A listener hears of a node that comes, changes and goes, with what was last
        known of it.
        """
        listener = await self.listen()
        await self.registry.register(node("a"))
        await until(lambda: len(listener.heard) == 1)
        await self.registry.register(node("a", 4000, attributes={"weight": 2}))
        await until(lambda: len(listener.heard) == 2)
        await self.registry.deregister(node("a"))
        await until(lambda: len(listener.heard) == 3)
        changed = node("a", 4000, attributes={"weight": 2})
        self.assertEqual(
            listener.heard,
            [("added", node("a")), ("updated", changed), ("removed", changed)],
        )

    @steps
    async def test_no_change(self) -> None:
        """
        A node that is registered again as it was is no news.
        """
        listener = await self.listen()
        await self.registry.register(node("a"))
        await self.registry.register(node("a"))
        await self.settled()
        self.assertEqual(listener.heard, [("added", node("a"))])

    @steps
    async def test_changes_elsewhere(self) -> None:
        """
        A listener hears nothing of other paths, even where their names begin alike, nor
        of the path itself (C-18).
        """
        listener = await self.listen()
        await self.registry.register(node("a", service="/cluster/cs2"))
        await self.registry.register(node("b", service=GS))
        await self.registry.register(node("c", service="/cluster"))
        await self.settled()
        self.assertEqual(listener.heard, [])

    @steps
    async def test_before_and_after(self) -> None:
        """
        Who subscribes and then looks up misses no node, whether existing ones are told
        or not.
        """
        await self.registry.register(node("a"))
        self.discovery.subscribe(CS, self.listener)
        found = await self.discovery.lookup(CS)
        await self.registry.register(node("b"))
        await until(lambda: ("added", node("b")) in self.listener.heard)
        known = {each.node_id: each for each in found} | self.listener.nodes
        self.assertEqual(known, {"a": node("a"), "b": node("b")})

    @steps
    async def test_two_listeners(self) -> None:
        """
        Everyone who listens is told; who has unsubscribed is not, and may do so twice.
        """
        listener = await self.listen()
        other = FakeServiceListener()
        self.discovery.subscribe(CS, other)
        await self.registry.register(node("a"))
        await until(lambda: "a" in listener.nodes and "a" in other.nodes)
        self.discovery.unsubscribe(CS, other)
        self.discovery.unsubscribe(CS, other)
        other.heard.clear()
        await self.registry.register(node("b"))
        await self.settled()
        self.assertEqual(listener.heard[-1], ("added", node("b")))
        self.assertEqual(other.heard, [])

    @steps
    async def test_listener_fails(self) -> None:
        """
        A listener that raises is logged and harms nobody.
        """

        class Broken(FakeServiceListener):
            def service_added(self, node: ServiceNode) -> None:
                raise ZeroDivisionError

        self.discovery.subscribe(CS, Broken())
        await self.listen()
        await self.registry.register(node("a"))
        await self.settled()
        self.assertEqual(self.listener.heard, [("added", node("a"))])
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))

    @steps
    async def test_listener_leaves_during_event(self) -> None:
        """
        A listener may unsubscribe, and subscribe others, while it is told of something.
        """
        test = self

        class Once(FakeServiceListener):
            def service_added(self, node: ServiceNode) -> None:
                super().service_added(node)
                test.discovery.unsubscribe(CS, self)
                test.discovery.subscribe(CS, later)

        once, later = Once(), FakeServiceListener()
        self.discovery.subscribe(CS, once)
        await self.listen()
        await self.registry.register(node("a"))
        await self.registry.register(node("b"))
        await until(lambda: "b" in later.nodes)
        self.assertEqual(len(once.heard), 1)

    @steps
    async def test_start_twice(self) -> None:
        """
        Starting what has been started does nothing, whatever it is started as.
        """
        await self.registry.register(node("a"))
        await self.registry.start()
        await self.discovery.start()
        await self.found(node("a"))

    @steps
    async def test_stop(self) -> None:
        """
        What is still registered at a stop vanishes at once; stopping twice does no
        harm.
        """
        listener = await self.listen()
        await self.registry.register(node("a"))
        await until(lambda: "a" in listener.nodes)
        await self.registry.stop()
        await self.registry.stop()
        await until(lambda: not listener.nodes, 2.0)
        await self.found()
