"""
What every kind of condition can do.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpush_tw.core.connection import Connection


class Condition:
    """
    Chooses connections, and counts.

    Ask with L{matches}, with L{matches_many}, or with L{ask} and L{answers}, which
    never wait. One way at a time.

    @ivar evaluated: How many connections it has decided about, right or wrong.
    @ivar failed: How many of them it could not decide, so that they do not match.
    @ivar skipped: How many did not match because it had been refused, exhausted or
        closed before.
    @ivar first_error: Why the first of them failed, or why the condition was refused;
        printable and short. It holds words of the script and of the engine, the user
        id, and nothing else of a user.
    """

    evaluated = 0
    failed = 0
    skipped = 0
    first_error: str | None = None

    @property
    def exhausted(self) -> bool:
        """
        Whether it matches nobody any more, because it was refused, broke its limits or
        was closed.
        """
        raise NotImplementedError

    def matches(self, connection: Connection) -> bool:
        """
        Decide about one connection; never raises on account of what it holds.
        """
        return self.matches_many((connection,))[0]

    def matches_many(self, connections: Sequence[Connection]) -> list[bool]:
        """
        Decide about many connections at once.

        A script is waited for, for as long as its limits allow: on the reactor L{ask}
        is better unless the connections are few.
        """
        self.ask(connections)
        answers = self.answers(None)
        assert answers is not None
        return answers

    def ask(self, connections: Sequence[Connection]) -> None:
        """
        Begin to decide about many connections. Their session context is read now.

        @raise RuntimeError: If the answers of the last time were not fetched.
        """
        raise NotImplementedError

    def answers(self, wait_seconds: float | None = 0.0) -> list[bool] | None:
        """
        Fetch what L{ask} began.

        @param wait_seconds: How long this may take; C{None} as long as it takes, which
            the limits bound.
        @return: An answer for each connection asked about, in order; C{None} when they
            are not there yet. Without waiting it is worth looking again after a
            millisecond.
        @raise RuntimeError: If nothing was asked.
        """
        raise NotImplementedError

    def close(self) -> None:
        """
        Free what it holds; idempotent. Then it matches nobody.
        """
        raise NotImplementedError


class DirectCondition(Condition):
    """
    A condition that is decided where it is asked.
    """

    def __init__(self) -> None:
        self._answers: list[bool] | None = None
        self._closed = False

    def _decide(self, connection: Connection) -> bool:
        raise NotImplementedError

    @property
    def exhausted(self) -> bool:
        return self._closed

    def matches_many(self, connections: Sequence[Connection]) -> list[bool]:
        if self._closed:
            self.skipped += len(connections)
            return [False] * len(connections)
        self.evaluated += len(connections)
        return [self._decide(connection) for connection in connections]

    def ask(self, connections: Sequence[Connection]) -> None:
        if self._answers is not None:
            raise RuntimeError("the last answers were not fetched")
        self._answers = self.matches_many(connections)

    def answers(self, wait_seconds: float | None = 0.0) -> list[bool] | None:
        answers, self._answers = self._answers, None
        if answers is None:
            raise RuntimeError("nothing was asked")
        return answers

    def close(self) -> None:
        self._closed = True
