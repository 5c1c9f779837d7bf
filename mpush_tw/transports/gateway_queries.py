"""
Questions that a sender of ours asks a node of ours through its gateway: how many would
get a broadcast, what became of a push, which broadcasts are under way.

The command is C{GATEWAY_QUERY}, which the original does not have: its nodes answer
ERROR 101 and close the connection, so senders ask over a connection made for it.
Request and answer are JSON (L{mpush_tw.protocol.gateway.GatewayQuery}).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from zope.interface import implementer

from mpush_tw.core.push.broadcast import Broadcast
from mpush_tw.core.push.centre import PushCentre
from mpush_tw.core.push.request import Outcome, PushRequest
from mpush_tw.errors import ProtocolError
from mpush_tw.interfaces import IPushListener
from mpush_tw.protocol.gateway import TimePoints

Answer = dict[str, object]


@implementer(IPushListener)
class _Nobody:
    """
    Hears how a dry run ended; its counts are what matters.
    """

    def push_finished(
        self, request: PushRequest, outcome: Outcome, points: TimePoints
    ) -> None:
        return None


class GatewayQueries:
    """
    Answers questions from what the push centre knows.
    """

    def __init__(self, centre: PushCentre) -> None:
        self._centre = centre
        self._answers: dict[
            str, Callable[[Mapping[str, object]], Awaitable[Answer]]
        ] = {
            "count": self._count,
            "trace": self._trace,
            "broadcasts": self._broadcasts,
            "cancel": self._cancel,
        }

    async def answer(self, question: str, arguments: Mapping[str, object]) -> Answer:
        """
        Answer one question.

        @return: What the answer's JSON has to say.
        @raise ProtocolError: If there is no such question, or an argument is not what
            it has to be.
        @raise Unavailable: If it cannot be answered now.
        """
        ask = self._answers.get(question)
        if ask is None:
            known = ", ".join(sorted(self._answers))
            raise ProtocolError(f"no such question; there are {known}")
        return await ask(arguments)

    async def _count(self, arguments: Mapping[str, object]) -> Answer:
        condition = _text(arguments, "condition")
        tags = arguments.get("tags")
        if tags is not None and not (
            isinstance(tags, list) and all(isinstance(tag, str) for tag in tags)
        ):
            raise ProtocolError("tags: expected a list of texts")
        wanted = None if tags is None else tuple(tags)
        request = PushRequest(None, 0, 0, None, None, wanted, condition, 0, _Nobody())
        dry_run = await self._centre.broadcasts.count(request)
        return dry_run.report()

    async def _trace(self, arguments: Mapping[str, object]) -> Answer:
        trace_id = _text(arguments, "id")
        if not trace_id:
            raise ProtocolError("id: expected a text")
        return {"pushes": self._centre.traces.find(trace_id)}

    async def _broadcasts(self, arguments: Mapping[str, object]) -> Answer:
        return {"running": [_shown(one) for one in self._centre.broadcasts.running]}

    async def _cancel(self, arguments: Mapping[str, object]) -> Answer:
        task_id = _text(arguments, "id")
        if not task_id:
            raise ProtocolError("id: expected a text")
        cancelled = 0
        for broadcast in self._centre.broadcasts.running:
            if broadcast.request.task_id == task_id:
                self._centre.broadcasts.cancel(broadcast)
                cancelled += 1
        return {"cancelled": cancelled}


def _text(arguments: Mapping[str, object], name: str) -> str | None:
    value = arguments.get(name)
    if value is not None and not isinstance(value, str):
        raise ProtocolError(f"{name}: expected a text")
    return value


def _shown(broadcast: Broadcast) -> Answer:
    return {
        "id": broadcast.request.task_id,
        "started": int(broadcast.request.started * 1000),
        "dryRun": broadcast.dry_run,
        "counts": broadcast.counts.as_dict(),
    }
