"""
Tests for L{mpush_tw.integrations.http.dns_mapping} (server 15.4, cluster 3.10).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from mpush_tw.errors import Unavailable
from mpush_tw.integrations.http.dns_mapping import (
    SERVICE,
    DnsMapping,
    round_robin,
    target_of,
)
from mpush_tw.integrations.memory import MemoryRegistry
from mpush_tw.interfaces import DnsTarget, IDnsMapping, IServiceListener, ServiceNode


class FakeLog:
    """
    Keeps what operators are told.
    """

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def warn(self, text: str, **fields: Any) -> None:
        self.lines.append((text, fields))

    info = warn


def node(
    origin: object, host: str = "10.0.0.7", port: int = 8080, node_id: str = "n1"
) -> ServiceNode:
    """
    Make a node of the registry.
    """
    attributes = None if origin is None else {"origin": origin}
    return ServiceNode(SERVICE, host, port, attributes, node_id)


class ConfiguredTests(SynchronousTestCase):
    """
    What the settings say.
    """

    def mapping(self, **options: Any) -> DnsMapping:
        """
        Make a mapping.
        """
        return DnsMapping(
            {
                "one.test": ["10.0.0.1"],
                "Two.test": ["10.0.0.1:8080", "10.0.0.2:8080"],
                "none.test": [],
            },
            MemoryRegistry(),
            MemoryReactorClock(),
            **options,
        )

    def test_interface(self) -> None:
        """
        It is a mapping, and hears of nodes.
        """
        verifyObject(IDnsMapping, self.mapping())
        verifyObject(IServiceListener, self.mapping())

    def test_targets(self) -> None:
        """
        A target is an address or a name, with port 80 unless it says another.
        """
        for text, host, port in (
            ("10.0.0.1", "10.0.0.1", 80),
            ("10.0.0.1:8080", "10.0.0.1", 8080),
            ("backend.test:81", "backend.test", 81),
            ("[2001:db8::1]:81", "2001:db8::1", 81),
            ("[2001:db8::1]", "2001:db8::1", 80),
        ):
            self.assertEqual(target_of(text), DnsTarget(host, port))

    def test_one(self) -> None:
        """
        The only backend is always chosen.
        """
        self.assertEqual(self.mapping().lookup("one.test"), DnsTarget("10.0.0.1", 80))

    def test_none(self) -> None:
        """
        A name that is not mapped, or to nobody, is not mapped.
        """
        for host in ("other.test", "none.test", "one.test:80", ""):
            self.assertIsNone(self.mapping().lookup(host))

    def test_capitals(self) -> None:
        """
        Names mean the same in capitals, and with a dot at the end.
        """
        mapping = self.mapping()
        for host in ("TWO.test", "two.test", "Two.Test."):
            self.assertIsNotNone(mapping.lookup(host))

    def test_random(self) -> None:
        """
        Of several each has its share, with equal probability.
        """
        mapping = self.mapping()
        counts = Counter(mapping.lookup("two.test") for _ in range(2000))
        self.assertEqual(len(counts), 2)
        for count in counts.values():
            self.assertTrue(850 < count < 1150, counts)

    def test_round_robin(self) -> None:
        """
        Or one follows the other, for each name by itself.
        """
        mapping = self.mapping(choose=round_robin())
        chosen = []
        for _ in range(4):
            chosen.append(mapping.lookup("two.test"))
            mapping.lookup("one.test")
        first, second = DnsTarget("10.0.0.1", 8080), DnsTarget("10.0.0.2", 8080)
        self.assertEqual(chosen, [first, second, first, second])


class RegistryTests(SynchronousTestCase):
    """
    What the registry says.
    """

    def setUp(self) -> None:
        self.registry = MemoryRegistry()
        self.log = FakeLog()
        self.reactor = MemoryReactorClock()
        self.mapping = DnsMapping({"a.test": ["10.0.0.1"]}, self.registry, self.reactor)

    def start(self) -> None:
        """
        Start the mapping.
        """
        self.successResultOf(Deferred.fromCoroutine(self.mapping.start(self.log)))
        self.addCleanup(self.mapping.stop)

    def hosts(self, host: str) -> set[str]:
        """
        Give whoever may be chosen.
        """
        found = (self.mapping.lookup(host) for _ in range(50))
        return {target.host for target in found if target is not None}

    def test_there_before(self) -> None:
        """
        Nodes that are there at the start are known.
        """
        self.registry.register(node("b.test"))
        self.start()
        self.assertEqual(self.mapping.lookup("b.test"), DnsTarget("10.0.0.7", 8080))

    def test_come_and_go(self) -> None:
        """
        So are those that come later, as long as they stay.
        """
        self.start()
        for number in (1, 2):
            self.registry.register(node("b.test", f"10.0.0.{number}", 80, f"n{number}"))
        self.assertEqual(self.hosts("b.test"), {"10.0.0.1", "10.0.0.2"})
        self.registry.deregister(node("b.test", node_id="n1"))
        self.assertEqual(self.hosts("b.test"), {"10.0.0.2"})
        self.registry.deregister(node("b.test", node_id="n2"))
        self.assertEqual(self.hosts("b.test"), set())

    def test_changed(self) -> None:
        """
        A node that changes is one node, not two.
        """
        self.start()
        self.registry.register(node("b.test", "10.0.0.1"))
        self.registry.register(node("b.test", "10.0.0.2"))
        self.assertEqual(self.hosts("b.test"), {"10.0.0.2"})
        self.registry.register(node("c.test", "10.0.0.2"))
        self.assertEqual(self.hosts("b.test"), set())
        self.assertEqual(self.hosts("c.test"), {"10.0.0.2"})

    def test_told_twice(self) -> None:
        """
        Nor is one that is told twice, as after an interruption.
        """
        self.start()
        for _ in range(2):
            self.mapping.service_added(node("b.test"))
        self.mapping.service_removed(node("b.test"))
        self.assertIsNone(self.mapping.lookup("b.test"))

    def test_before_the_settings(self) -> None:
        """
        They go before those of the settings, which serve when there are none.
        """
        self.start()
        self.registry.register(node("a.test"))
        self.assertEqual(self.hosts("a.test"), {"10.0.0.7"})
        self.registry.deregister(node("a.test"))
        self.assertEqual(self.hosts("a.test"), {"10.0.0.1"})

    def test_capitals(self) -> None:
        """
        Their names mean the same in capitals.
        """
        self.start()
        self.registry.register(node("B.Test"))
        self.assertEqual(self.hosts("b.test"), {"10.0.0.7"})

    def test_without_origin(self) -> None:
        """
        One that does not say whose it is is left out, with a warning, and stops nothing
        (C-19).
        """
        for number, origin in enumerate((None, "", 5, ["b.test"])):
            self.registry.register(node(origin, node_id=f"bad{number}"))
        self.registry.register(node("b.test"))
        self.start()
        self.assertEqual(self.hosts("b.test"), {"10.0.0.7"})
        self.assertEqual(len(self.log.lines), 4)
        self.assertEqual(self.log.lines[0][1]["node"][:3], "bad")

    def test_loses_its_origin(self) -> None:
        """
        So is one that does not say so any more.
        """
        self.start()
        self.registry.register(node("b.test"))
        self.registry.register(node(None))
        self.assertIsNone(self.mapping.lookup("b.test"))

    def test_away(self) -> None:
        """
        A registry that cannot be asked stops the start.
        """
        self.registry.lookup = lambda service: fail(Unavailable("away"))  # type: ignore[method-assign]
        starting = Deferred.fromCoroutine(self.mapping.start())
        self.failureResultOf(starting, Unavailable)
        self.mapping.stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stopped(self) -> None:
        """
        A mapping that was stopped listens no more and leaves no timer behind.
        """
        self.start()
        self.mapping.stop()
        self.mapping.stop()
        self.registry.register(node("b.test"))
        self.assertIsNone(self.mapping.lookup("b.test"))
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class CheckTimeTests(SynchronousTestCase):
    """
    When backends are looked after.
    """

    def start(self, configured: dict[str, list[str]]) -> MemoryReactorClock:
        """
        Start a mapping.
        """
        clock = MemoryReactorClock()
        mapping = DnsMapping(configured, MemoryRegistry(), clock)
        self.successResultOf(Deferred.fromCoroutine(mapping.start()))
        self.addCleanup(mapping.stop)
        return clock

    def test_none(self) -> None:
        """
        If there are none, nothing is done (server 15.4).
        """
        self.assertEqual(self.start({"a.test": []}).getDelayedCalls(), [])

    def test_times(self) -> None:
        """
        First after a second, then every twenty seconds.
        """
        clock = self.start({"a.test": ["127.0.0.1:9"]})
        counts = []
        for seconds in (0.9, 0.2, 19.8, 0.2, 20):
            clock.advance(seconds)
            counts.append(len(clock.tcpClients))
        self.assertEqual(counts, [0, 1, 1, 2, 3])


class HealthTests(TestCase):
    """
    Backends that come and go, on real sockets.
    """

    timeout = 20

    def setUp(self) -> Deferred[None]:
        self.port = self.listen()
        self.log = FakeLog()
        self.number = self.port.getHost().port
        self.mapping = DnsMapping(
            {
                "a.test": [f"127.0.0.1:{self.number}"],
                "b.test": [f"127.0.0.1:{self.number}", "127.0.0.1:1"],
            },
            MemoryRegistry(),
            reactor,
        )
        self.addCleanup(self.mapping.stop)
        self.addCleanup(lambda: self.port.stopListening())
        return Deferred.fromCoroutine(self.mapping.start(self.log))

    def listen(self, number: int = 0) -> Any:
        """
        Listen as a backend.
        """
        factory = Factory.forProtocol(Protocol)
        factory.noisy = False
        return reactor.listenTCP(number, factory, interface="127.0.0.1")  # type: ignore[attr-defined]

    async def test_dead(self) -> None:
        """
        A backend that does not answer is left out, and the operator is told once.
        """
        await self.mapping.check()
        await self.mapping.check()
        found = {self.mapping.lookup("b.test") for _ in range(50)}
        self.assertEqual(found, {DnsTarget("127.0.0.1", self.number)})
        self.assertEqual(len(self.log.lines), 1)
        self.assertEqual(self.log.lines[0][1]["port"], 1)

    async def test_all_dead(self) -> None:
        """
        If all are, the name is not mapped any more.
        """
        await self.port.stopListening()
        await self.mapping.check()
        self.assertIsNone(self.mapping.lookup("a.test"))

    async def test_back(self) -> None:
        """
        When it answers again it serves again.
        """
        await self.port.stopListening()
        await self.mapping.check()
        self.port = self.listen(self.number)
        await self.mapping.check()
        self.assertIsNotNone(self.mapping.lookup("a.test"))
        self.assertIn("again", self.log.lines[-1][0])

    async def test_stopped_meanwhile(self) -> None:
        """
        A stop while a check is under way ends it.
        """
        checked = self.mapping.check()
        self.mapping.stop()
        await checked
        self.assertEqual(self.log.lines, [])
