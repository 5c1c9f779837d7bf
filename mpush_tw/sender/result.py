"""
What became of a push (cluster 7.7).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from itertools import pairwise

import attrs

from mpush_tw.sender.directory import Route


class ResultCode(IntEnum):
    """
    The four ways a push to a user ends.
    """

    SUCCESS = 1
    FAILURE = 2
    OFFLINE = 3
    TIMEOUT = 4


@attrs.frozen
class PushResult:
    """
    The end of the push to one user.

    @ivar location: The stored route that was used; C{None} where gateways are asked
        without one, as by a sender in standalone mode.
    @ivar time_line: Name and Unix ms of what happened, in order: this side's points,
        those of the gateway whose answer decided, and C{end}. The gateway's are from
        its own clock.
    @ivar trace_id: That of the context: L{PushSender.trace} tells more.
    """

    code: ResultCode
    user_id: str
    time_line: Sequence[tuple[str, int]] = ()
    location: Route | None = None
    trace_id: str | None = None

    @property
    def succeeded(self) -> bool:
        return self.code is ResultCode.SUCCESS

    def render(self) -> str:
        """
        Write the time line in one line for a log (operations 7.4).

        The bracket before a duration is the full-width one, as in the original: log
        tools look for it.
        """
        line = self.time_line
        if not line:
            return "Push-Time-Line[0](ms){}"
        text = line[0][0]
        for (_, before), (name, at) in pairwise(line):
            text += f" --\uff08{at - before}ms) --> {name}"
        return f"Push-Time-Line[{line[-1][1] - line[0][1]}](ms){{{text}}}"


@attrs.frozen
class AggregateResult:
    """
    The end of a push to several users (cluster defects C-42, C-43).

    @ivar results: One for each user, in the order of the users asked for. Those of a
        list of more than 1000 have no time lines.
    @ivar unsent: Users to whom nothing was sent, because the list was ended early by
        its caller or with the sender; they have no result.
    """

    results: Sequence[PushResult]
    unsent: Sequence[str] = ()

    def count(self, code: ResultCode) -> int:
        """
        How many users ended with C{code}.
        """
        return sum(result.code is code for result in self.results)

    @property
    def counts(self) -> dict[ResultCode, int]:
        """
        How many users ended with each code; all four are present.
        """
        counts = dict.fromkeys(ResultCode, 0)
        for result in self.results:
            counts[result.code] += 1
        return counts

    @property
    def succeeded(self) -> bool:
        """
        Whether every user was reached.
        """
        return not self.unsent and all(result.succeeded for result in self.results)
