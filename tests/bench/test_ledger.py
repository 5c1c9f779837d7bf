"""
The ledger: what the sender was told against what devices got.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.bench.ledger import Ledger
from mpush_tw.sender import ResultCode


class LedgerTests(SynchronousTestCase):
    """
    One run's pushes.
    """

    def setUp(self) -> None:
        self.ledger = Ledger()

    def push(self, code: ResultCode | None, arrivals: int) -> None:
        """
        Send a push, have it end, and have it arrive that many times.
        """
        number, content = self.ledger.next()
        for _ in range(arrivals):
            self.ledger.arrived(content)
        if code is not None:
            self.ledger.ended(number, code)

    def test_all_well(self) -> None:
        """Delivered and received, or offline and not: the sums agree."""
        self.push(ResultCode.SUCCESS, 1)
        self.push(ResultCode.OFFLINE, 0)
        self.push(ResultCode.FAILURE, 0)
        self.push(ResultCode.TIMEOUT, 0)
        account = self.ledger.account()
        self.assertTrue(account.adds_up)
        self.assertTrue(account.truthful)
        self.assertEqual(
            (account.sent, account.delivered, account.offline),
            (4, 1, 1),
        )
        self.assertEqual(
            (account.failed, account.timed_out, account.received), (1,) * 3
        )

    def test_lost(self) -> None:
        """A push that was reported as delivered and never arrived is lost."""
        self.push(ResultCode.SUCCESS, 0)
        account = self.ledger.account()
        self.assertEqual(account.lost, 1)
        self.assertTrue(account.adds_up)
        self.assertFalse(account.truthful)

    def test_unanswered(self) -> None:
        """A push that nothing was heard of spoils the sum."""
        self.push(None, 1)
        account = self.ledger.account()
        self.assertEqual((account.unanswered, self.ledger.open), (1, 1))
        self.assertFalse(account.adds_up)

    def test_unreported(self) -> None:
        """A push whose acknowledgement was lost is no lie, but is told apart."""
        self.push(ResultCode.FAILURE, 1)
        self.push(ResultCode.TIMEOUT, 1)
        account = self.ledger.account()
        self.assertEqual((account.unreported, account.lost), (2, 0))
        self.assertTrue(account.truthful)

    def test_denied(self) -> None:
        """A push that arrived though its user was called offline is a lie."""
        self.push(ResultCode.OFFLINE, 1)
        account = self.ledger.account()
        self.assertEqual(account.denied, 1)
        self.assertFalse(account.truthful)

    def test_twice(self) -> None:
        """A push that arrives twice counts once, and as one that came twice."""
        self.push(ResultCode.SUCCESS, 2)
        account = self.ledger.account()
        self.assertEqual((account.received, account.twice), (1, 1))

    def test_other_contents(self) -> None:
        """What others push to the same devices does not count."""
        self.ledger.arrived(b"push")
        self.ledger.arrived(b"push me")
        self.ledger.arrived(b"42")
        self.assertEqual(self.ledger.account().received, 0)

    def test_ended_twice(self) -> None:
        """A second result for the same push is refused, never counted."""
        number, _ = self.ledger.next()
        self.ledger.ended(number, ResultCode.SUCCESS)
        self.assertRaises(ValueError, self.ledger.ended, number, ResultCode.SUCCESS)
        self.assertEqual(self.ledger.account().delivered, 1)
