"""
What became of each push of a run: what the sender was told against what devices got.
"""

from __future__ import annotations

from collections import Counter

import attrs

from mpush_tw.sender import ResultCode

_PREFIX = b"push "


@attrs.frozen
class Account:
    """
    The sums of a ledger.

    @ivar sent: Pushes handed to the sender.
    @ivar delivered: Reported as acknowledged by the device.
    @ivar offline: Reported as offline.
    @ivar failed: Reported as failed.
    @ivar timed_out: Reported as timed out.
    @ivar unanswered: Never reported.
    @ivar received: Pushes that devices got, each counted once.
    @ivar lost: Reported as delivered, yet no device got them.
    @ivar twice: Pushes that devices got more than once.
    @ivar unreported: Reported as failed or timed out though a device got them: the
        acknowledgement was lost with the node.
    @ivar denied: Reported as offline though a device got them.
    """

    sent: int
    delivered: int
    offline: int
    failed: int
    timed_out: int
    unanswered: int
    received: int
    lost: int
    twice: int
    unreported: int
    denied: int

    @property
    def adds_up(self) -> bool:
        """
        Whether each push that was sent ended in exactly one way.
        """
        ended = self.delivered + self.offline + self.failed + self.timed_out
        return self.sent == ended and not self.unanswered

    @property
    def truthful(self) -> bool:
        """
        Whether the reports agree with what the devices got.
        """
        known = self.delivered + self.unreported
        return not (self.lost or self.denied) and self.received == known


class Ledger:
    """
    Numbers the pushes of a run and keeps both sides' word on each.
    """

    def __init__(self) -> None:
        self._sent = 0
        self._codes: dict[int, ResultCode] = {}
        self._arrivals: Counter[int] = Counter()

    @property
    def open(self) -> int:
        """
        How many pushes have not been reported on yet.
        """
        return self._sent - len(self._codes)

    def next(self) -> tuple[int, bytes]:
        """
        Give out a number, and the content that carries it.
        """
        self._sent += 1
        return self._sent, _PREFIX + b"%d" % self._sent

    def ended(self, number: int, code: ResultCode) -> None:
        """
        Note what the sender was told of a push.

        @raise ValueError: If it was told of that push before.
        """
        if number in self._codes:
            raise ValueError(f"push {number} ended twice")
        self._codes[number] = code

    def arrived(self, content: bytes) -> None:
        """
        Note that a device got a push; contents that are not ours do not count.
        """
        number = content.removeprefix(_PREFIX)
        if number != content and number.isdigit():
            self._arrivals[int(number)] += 1

    def account(self) -> Account:
        """
        Add everything up.
        """
        counts = Counter(self._codes.values())
        got = set(self._arrivals)

        def of(*codes: ResultCode) -> set[int]:
            return {number for number, code in self._codes.items() if code in codes}

        return Account(
            sent=self._sent,
            delivered=counts[ResultCode.SUCCESS],
            offline=counts[ResultCode.OFFLINE],
            failed=counts[ResultCode.FAILURE],
            timed_out=counts[ResultCode.TIMEOUT],
            unanswered=self.open,
            received=len(got),
            lost=len(of(ResultCode.SUCCESS) - got),
            twice=sum(count > 1 for count in self._arrivals.values()),
            unreported=len(of(ResultCode.FAILURE, ResultCode.TIMEOUT) & got),
            denied=len(of(ResultCode.OFFLINE) & got),
        )
