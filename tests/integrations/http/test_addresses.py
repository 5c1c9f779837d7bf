"""
Tests for L{mpush_tw.integrations.http.addresses}.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mpush_tw.integrations.http.addresses import KEPT_SECONDS, HostAddresses


class FakeResolver:
    """
    Answers when the test wants.

    @ivar asked: Names and who waits for their addresses.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []

    def resolveHostName(
        self, receiver: Any, name: str, port: int, types: Any, semantics: str
    ) -> None:
        receiver.resolutionBegan(None)
        self.asked.append((name, receiver))

    def answer(self, *addresses: str) -> None:
        """
        Answer the oldest question.
        """
        _, receiver = self.asked.pop(0)
        for address in addresses:
            kind = IPv6Address if ":" in address else IPv4Address
            receiver.addressResolved(kind("TCP", address, 0))
        receiver.resolutionComplete()


class ResolverClock(Clock):
    """
    A clock that knows a resolver.
    """

    def __init__(self) -> None:
        super().__init__()
        self.nameResolver = FakeResolver()


class AddressTests(SynchronousTestCase):
    """
    Looking names up.
    """

    def setUp(self) -> None:
        self.reactor = ResolverClock()
        self.resolver = self.reactor.nameResolver
        self.names = HostAddresses(self.reactor)

    def result(self, waiting: Deferred[Sequence[str]]) -> Sequence[str]:
        """
        Give what came out.
        """
        return self.successResultOf(waiting)

    def test_found(self) -> None:
        """
        All addresses of a name, in the resolver's order.
        """
        waiting = self.names("a.test")
        self.assertNoResult(waiting)
        self.resolver.answer("192.0.2.1", "2001:db8::1")
        self.assertEqual(self.result(waiting), ("192.0.2.1", "2001:db8::1"))

    def test_unknown(self) -> None:
        """
        A name without addresses has none, which is no failure, and is asked for again.
        """
        for _ in range(2):
            waiting = self.names("a.test")
            self.resolver.answer()
            self.assertEqual(self.result(waiting), ())

    def test_own_link(self) -> None:
        """
        An address that is good on one interface only is none.
        """
        waiting = self.names("a.test")
        self.resolver.answer("fe80::1%eth0")
        self.assertEqual(self.result(waiting), ())

    def test_at_the_same_time(self) -> None:
        """
        Who asks for a name that is being looked up waits for the same answer.
        """
        both = [self.names("a.test"), self.names("a.test")]
        self.assertEqual(len(self.resolver.asked), 1)
        self.resolver.answer("192.0.2.1")
        self.assertEqual([self.result(one) for one in both], [("192.0.2.1",)] * 2)

    def test_given_up(self) -> None:
        """
        One that gives up does not disturb the others.
        """
        both = [self.names("a.test"), self.names("a.test")]
        both[0].cancel()
        self.failureResultOf(both[0])
        self.resolver.answer("192.0.2.1")
        self.assertEqual(self.result(both[1]), ("192.0.2.1",))

    def test_remembered(self) -> None:
        """
        An answer is good for a while.
        """
        self.names("a.test")
        self.resolver.answer("192.0.2.1")
        self.reactor.advance(KEPT_SECONDS - 0.1)
        self.assertEqual(self.result(self.names("a.test")), ("192.0.2.1",))
        self.reactor.advance(0.1)
        waiting = self.names("a.test")
        self.resolver.answer("192.0.2.2")
        self.assertEqual(self.result(waiting), ("192.0.2.2",))

    def test_bounded(self) -> None:
        """
        Not everything is remembered for ever.
        """
        for number in range(1100):
            self.names(f"host{number}.test")
            self.resolver.answer("192.0.2.1")
        self.assertEqual(len(self.names._known), 1000)
        self.assertEqual(self.result(self.names("host1099.test")), ("192.0.2.1",))


class RealTests(TestCase):
    """
    The resolver of this machine.
    """

    async def test_localhost(self) -> None:
        """
        It knows itself.
        """
        self.assertIn("127.0.0.1", await HostAddresses(reactor)("localhost"))
