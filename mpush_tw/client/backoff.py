"""
How long to wait before connecting again (clients 2.5, 10.1 C{reconnect}).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

SETTLED_AFTER = 10.0
"""
Seconds that a connection must have lasted after its handshake to count as a good one.
"""


class Backoff(Protocol):
    """
    The policy of one client, from C{start} to C{stop}.
    """

    def next_delay(self) -> float:
        """
        Called before every attempt, the first one after C{start} included. One attempt
        tries every server of the list once.

        @return: Seconds to wait before it, 0 for none.
        """
        ...

    def connection_ended(self, lasted: float | None, bind_refused: bool) -> None:
        """
        Called when a TCP connection that had been made is gone.

        @param lasted: Seconds since its handshake, C{None} if that never succeeded.
        @param bind_refused: Whether the server refused a BIND on it.
        """
        ...


class StandardBackoff:
    """
    Exponential with full jitter: before retry n a random time between 0 and
    C{min(cap, 2 ** n)} seconds, n counting from 0. No limit to the number of attempts.

    Only a connection that lasted L{SETTLED_AFTER} and on which no bind was refused lets
    it begin anew: a server that accepts and then closes must not be hammered (defect
    12.1).
    """

    __slots__ = ("_attempts", "_random")

    BASE = 1.0
    FACTOR = 2.0
    CAP = 60.0

    def __init__(self, random: Callable[[], float]) -> None:
        """
        @param random: Gives numbers from 0 (included) to 1 (excluded).
        """
        self._attempts = 0
        self._random = random

    def next_delay(self) -> float:
        self._attempts += 1
        retry = self._attempts - 2
        if retry < 0:
            return 0.0
        # The exponent is bounded so that years of failures do not overflow a float.
        widest = min(self.CAP, self.BASE * self.FACTOR ** min(retry, 32))
        return self._random() * widest

    def connection_ended(self, lasted: float | None, bind_refused: bool) -> None:
        if lasted is not None and lasted >= SETTLED_AFTER and not bind_refused:
            self._attempts = 1


class CompatBackoff:
    """
    The table of the Java client: none, none, 3, 4 .. 10 seconds, 10 minutes, and again.

    Unlike there the cycle begins anew after a handshake, not after a mere TCP connect
    (defect 12.1), and a refused bind does not let it begin anew either.
    """

    __slots__ = ("_attempts",)

    LONGEST = 600.0

    def __init__(self) -> None:
        self._attempts = 0

    def next_delay(self) -> float:
        self._attempts += 1
        if self._attempts <= 2:
            return 0.0
        if self._attempts <= 10:
            return float(self._attempts)
        self._attempts = 0
        return self.LONGEST

    def connection_ended(self, lasted: float | None, bind_refused: bool) -> None:
        if lasted is not None and not bind_refused:
            self._attempts = 0
