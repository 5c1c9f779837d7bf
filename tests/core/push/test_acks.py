"""
Tests for L{mpush_tw.core.push.acks} (server 14.3).
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.push.acks import PendingAcks
from mpush_tw.core.push.request import PushRequest
from mpush_tw.core.wheel import TimingWheel
from tests.core.fakes import FakeConnection, FakeListener


def _request() -> PushRequest:
    return PushRequest("u", 1, 5000, b"x", None, None, None, 8, FakeListener())


class PendingAcksTests(SynchronousTestCase):
    """
    Waiting for acknowledgements.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.wheel = TimingWheel(self.clock)
        self.late: list[PushRequest] = []
        self.acks = PendingAcks(self.wheel, self.late.append)
        self.device = FakeConnection()

    def test_acknowledged(self) -> None:
        """
        The request that a number belongs to is given out, once.
        """
        request = _request()
        self.acks.register(request, self.device, 7, 5.0)
        self.assertEqual(self.acks.waiting, 1)
        self.assertIs(self.acks.acknowledged(self.device, 7), request)
        self.assertIsNone(self.acks.acknowledged(self.device, 7))
        self.assertEqual(self.acks.waiting, 0)

    def test_by_connection(self) -> None:
        """
        The same number on another connection is another wait (S-13).
        """
        other = FakeConnection()
        first, second = _request(), _request()
        self.acks.register(first, self.device, 7, 5.0)
        self.acks.register(second, other, 7, 5.0)
        self.assertIs(self.acks.acknowledged(other, 7), second)
        self.assertIs(self.acks.acknowledged(self.device, 7), first)

    def test_unknown(self) -> None:
        """
        A number that nobody waits for belongs to nothing.
        """
        self.assertIsNone(self.acks.acknowledged(self.device, 7))
        self.acks.register(_request(), self.device, 7, 5.0)
        self.assertIsNone(self.acks.acknowledged(self.device, 8))
        self.assertEqual(self.acks.waiting, 1)

    def test_late(self) -> None:
        """
        Without an acknowledgement the request is handed over when its time is up.
        """
        request = _request()
        self.acks.register(request, self.device, 7, 5.0)
        self.clock.advance(4.99)
        self.assertEqual(self.late, [])
        self.clock.advance(0.05)
        self.assertEqual(self.late, [request])
        self.assertEqual(self.acks.waiting, 0)
        self.assertIsNone(self.acks.acknowledged(self.device, 7))

    def test_each_its_own_time(self) -> None:
        """
        Each wait has a time of its own.
        """
        slow, quick = _request(), _request()
        self.acks.register(slow, self.device, 7, 5.0)
        self.acks.register(quick, self.device, 8, 1.0)
        self.clock.advance(2)
        self.assertEqual(self.late, [quick])
        self.clock.advance(4)
        self.assertEqual(self.late, [quick, slow])

    def test_not_after_the_acknowledgement(self) -> None:
        """
        Nobody is told of a time that was up later.
        """
        self.acks.register(_request(), self.device, 7, 5.0)
        self.acks.acknowledged(self.device, 7)
        self.clock.advance(60)
        self.assertEqual(self.late, [])

    def test_forgotten(self) -> None:
        """
        A wait can be ended without an outcome, also twice.
        """
        pending = self.acks.register(_request(), self.device, 7, 5.0)
        self.acks.forget(pending)
        self.acks.forget(pending)
        self.clock.advance(60)
        self.assertEqual((self.late, self.acks.waiting), ([], 0))

    def test_abandoned(self) -> None:
        """
        When a connection ends all its requests are given out, in order, and others
        wait on.
        """
        other = FakeConnection()
        requests = [_request() for _ in range(3)]
        for number, request in enumerate(requests):
            self.acks.register(request, self.device, number, 5.0)
        self.acks.register(_request(), other, 1, 5.0)
        self.assertEqual(self.acks.abandon(self.device), requests)
        self.assertEqual(self.acks.abandon(self.device), [])
        self.assertEqual(self.acks.waiting, 1)
        self.clock.advance(60)
        self.assertEqual(len(self.late), 1)

    def test_abandoned_when_one_is_late(self) -> None:
        """
        If the connection is given up when the first wait is over, those of the same
        moment are not late as well.
        """
        given_up: list[PushRequest] = []
        self.acks.timed_out = lambda request: given_up.extend(
            self.acks.abandon(self.device)
        )
        requests = [_request() for _ in range(3)]
        for number, request in enumerate(requests):
            self.acks.register(request, self.device, number, 5.0)
        self.clock.advance(6)
        self.assertEqual(given_up, requests[1:])
        self.assertEqual(self.acks.waiting, 0)

    def test_idle_connections_cost_nothing(self) -> None:
        """
        A connection that nothing waits for keeps nothing.
        """
        self.assertIsNone(self.device.acks)
        self.acks.register(_request(), self.device, 7, 5.0)
        self.acks.acknowledged(self.device, 7)
        self.assertIsNone(self.device.acks)
        self.acks.register(_request(), self.device, 8, 5.0)
        self.clock.advance(6)
        self.assertIsNone(self.device.acks)
        self.assertEqual(len(self.wheel), 0)
