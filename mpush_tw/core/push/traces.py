"""
What became of single messages: the time line of the original, kept for a while.

A push is traced when its sender gave it an id: a GATEWAY_PUSH to one user carries it in
the field for the task, which nodes of the original do not look at there. The sender's
own milestones travel in the field for tags, likewise unused, as C{trace:NAME=MS}.
"""

from __future__ import annotations

from collections import OrderedDict

from twisted.internet.interfaces import IReactorTime

from mpush_tw.core.push.request import Outcome, PushRequest
from mpush_tw.protocol.broadcasts import MAX_SENDER_POINTS, POINT_PREFIX

_MOST_PER_ID = 32


class Traces:
    """
    The last pushes that carried an id; bounded in number and in time.
    """

    def __init__(self, clock: IReactorTime, keep_seconds: float, most: int) -> None:
        """
        @param keep_seconds: C{mp.push.trace.keep}; 0 keeps none.
        @param most: C{mp.push.trace.max}: ids that are kept; the oldest give way.
        """
        self._clock = clock
        self._keep = keep_seconds
        self._most = most
        self._traces: OrderedDict[str, tuple[float, list[dict[str, object]]]] = (
            OrderedDict()
        )

    def __len__(self) -> int:
        return len(self._traces)

    def note(self, request: PushRequest, outcome: Outcome) -> None:
        """
        Keep how a push ended.

        @param request: Its C{task_id} is the id.
        """
        trace_id = request.task_id
        if trace_id is None or self._keep <= 0:
            return
        self._drop_old()
        entry: dict[str, object] = {
            "userId": request.user_id,
            "clientType": request.client_type,
            "outcome": outcome.value,
            "points": [*_sender_points(request), *map(list, request.points)],
        }
        if request.report is not None:
            entry["counts"] = request.report
        _, entries = self._traces.pop(trace_id, (0.0, []))
        entries.append(entry)
        del entries[:-_MOST_PER_ID]
        self._traces[trace_id] = (self._clock.seconds() + self._keep, entries)
        while len(self._traces) > self._most:
            self._traces.popitem(last=False)

    def find(self, trace_id: str) -> list[dict[str, object]]:
        """
        Give what is known of an id: for each push that carried it C{userId},
        C{clientType}, C{outcome} and C{points}, a list of name and Unix ms; for
        broadcasts C{counts} too. Empty when nothing is, or is any more.
        """
        self._drop_old()
        _, entries = self._traces.get(trace_id, (0.0, []))
        return list(entries)

    def _drop_old(self) -> None:
        now = self._clock.seconds()
        while self._traces:
            until, _ = next(iter(self._traces.values()))
            if until > now:
                break
            self._traces.popitem(last=False)


def _sender_points(request: PushRequest) -> list[list[object]]:
    """
    Read the milestones that the sender sent along; what is none of them is left out.
    """
    points: list[list[object]] = []
    if request.user_id is None:
        return points
    for tag in (request.tags or ())[:MAX_SENDER_POINTS]:
        name, separator, at = tag.removeprefix(POINT_PREFIX).partition("=")
        if tag.startswith(POINT_PREFIX) and separator and at.isascii() and at.isdigit():
            points.append([name, int(at[:15])])
    return points
