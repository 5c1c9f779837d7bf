"""
Flow control: how many pushes may go out in a window of time (server 14.6).
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from mpush_tw.errors import PushError


class OverMaximum(PushError):
    """
    The total that a limiter ever allows is used up; the push ends as failure (S-16).
    """


class GlobalFlow:
    """
    The one limiter of all single-user pushes of a node.

    Up to C{limit} sends in each window of C{duration} seconds: C{limit - 1} and the one
    that opens the window. Unlike the original's, the window is measured from the first
    send in it, on the node's clock.
    """

    def __init__(
        self, clock: IReactorTime, limit: int, maximum: int, duration: float
    ) -> None:
        """
        @param limit: Sends per window, at least 1.
        @param maximum: Sends ever; 0 or less means no end.
        @param duration: Length of a window in seconds.
        """
        self._clock = clock
        self.limit = limit
        self.maximum = maximum
        self.duration = duration
        self._count = 0
        self._window_start = clock.seconds()
        self.total = 0

    def acquire(self) -> bool:
        """
        Ask to send one push now.

        @return: C{False} when the window is full; ask again after L{delay}.
        @raise OverMaximum: If no push will ever be allowed again.
        """
        self._count += 1
        if self._count < self.limit:
            self.total += 1
            return True
        if 0 < self.maximum < self.total:
            raise OverMaximum(f"{self.total} pushes sent, maximum is {self.maximum}")
        now = self._clock.seconds()
        if now - self._window_start > self.duration:
            self._count = 0
            self._window_start = now
            self.total += 1
            return True
        return False

    def delay(self) -> float:
        """
        @return: Seconds until the window ends, 0 or more.
        """
        elapsed = self._clock.seconds() - self._window_start
        return max(0.0, self.duration - elapsed)
