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


class WindowFlow:
    """
    The limiter of one broadcast: up to C{limit} sends in each window of C{duration}
    seconds, counted exactly (S-19). A window begins with the first send in it.

    @ivar limit: Sends per window; may be changed at any time, 1 or more.
    @ivar total: Sends so far.
    """

    def __init__(
        self, clock: IReactorTime, limit: int, maximum: int, duration: float
    ) -> None:
        """
        @param maximum: Sends in all; 0 or less means that the first full window is the
            last one (server 14.6).
        """
        self._clock = clock
        self.limit = limit
        self.maximum = maximum
        self.duration = duration
        self._count = 0
        self._window_start = clock.seconds()
        self.total = 0

    def room(self) -> int:
        """
        Give the number of sends that are allowed now; 0 when the window is full, until
        L{delay} has passed.

        @raise OverMaximum: If nothing will ever be allowed again.
        """
        if self._clock.seconds() - self._window_start >= self.duration:
            self._count = 0
        left = self.limit - self._count
        if 0 < self.maximum <= self.total or (left <= 0 and self.maximum <= 0):
            raise OverMaximum(f"{self.total} pushes sent, maximum is {self.maximum}")
        if self.maximum > 0:
            left = min(left, self.maximum - self.total)
        return max(0, left)

    def spend(self, count: int) -> None:
        """
        Note sends, no more of them than there was room for.
        """
        if self._count == 0:
            self._window_start = self._clock.seconds()
        self._count += count
        self.total += count

    def delay(self) -> float:
        """
        @return: Seconds until the window ends, 0 or more.
        """
        elapsed = self._clock.seconds() - self._window_start
        return max(0.0, self.duration - elapsed)


_BUCKETS = 100


class EvenFlow:
    """
    A limiter without bursts: a second is cut into 100 buckets of 10 ms, each with its
    share (server 14.6, C{EXACT}). Below 100 per second there is one bucket of a second.
    """

    def __init__(self, clock: IReactorTime, per_second: int) -> None:
        """
        @param per_second: 1 or more; rounded down to a multiple of 100 from there on.
        """
        self._clock = clock
        self._buckets = _BUCKETS if per_second >= _BUCKETS else 1
        self._limit = per_second // self._buckets
        self._bucket = -1
        self._count = 0
        self.total = 0

    def acquire(self) -> bool:
        """
        Ask to send one now.

        @return: C{False} when the bucket is full; ask again after L{delay}.
        """
        bucket = int(self._clock.seconds() * self._buckets)
        if bucket != self._bucket:
            self._bucket, self._count = bucket, 0
        if self._count >= self._limit:
            return False
        self._count += 1
        self.total += 1
        return True

    def delay(self) -> float:
        """
        @return: Seconds after which asking again makes sense.
        """
        return 0.001
