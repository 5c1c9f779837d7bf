"""
Questions that a sender of ours asks a node of ours through its gateway: how many would
get a broadcast, what became of a push, which broadcasts are under way; and the control
of a broadcast with a task, for senders that cannot reach the node's store.

The command is C{GATEWAY_QUERY}, which the original does not have: its nodes answer
ERROR 101 and close the connection, so senders ask over a connection made for it.
Request and answer are JSON (L{mpush_tw.protocol.gateway.GatewayQuery}).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from zope.interface import implementer

from mpush_tw.broadcast_task import MAX_PAGE, check_page, check_rate
from mpush_tw.core.push.broadcast import Broadcast
from mpush_tw.core.push.centre import PushCentre
from mpush_tw.core.push.request import Outcome, PushRequest
from mpush_tw.errors import ProtocolError, PushError
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
            "task": self._task,
            "rate": self._rate,
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
        """
        C{first} and C{most} ask for a part, for answers that would be too long.
        """
        pushes = self._centre.traces.find(_id(arguments))
        first, most = _page(arguments)
        return {"pushes": pushes[first : first + most], "total": len(pushes)}

    async def _broadcasts(self, arguments: Mapping[str, object]) -> Answer:
        return {"running": [_shown(one) for one in self._centre.broadcasts.running]}

    async def _cancel(self, arguments: Mapping[str, object]) -> Answer:
        running = self._running(_id(arguments))
        for broadcast in running:
            self._centre.broadcasts.cancel(broadcast)
        return {"cancelled": len(running)}

    async def _task(self, arguments: Mapping[str, object]) -> Answer:
        """
        Tell how far a task is; with C{most}, also the users that it has reached.
        """
        task_id = _id(arguments)
        task = self._centre.broadcasts.task(task_id)
        answer: Answer = {
            "sent": await task.progress(),
            "running": len(self._running(task_id)),
        }
        if "most" in arguments:
            answer["users"] = await task.users(*_page(arguments))
        return answer

    async def _rate(self, arguments: Mapping[str, object]) -> Answer:
        """
        Change the rate of a task, from this moment on.
        """
        task_id = _id(arguments)
        try:
            rate = check_rate(arguments.get("rate"))
        except PushError as error:
            raise ProtocolError(f"rate: {error}") from None
        # Where broadcasts look before each of their windows.
        await self._centre.broadcasts.task(task_id).set_rate(rate)
        running = self._running(task_id)
        for broadcast in running:
            broadcast.flow.limit = rate
        return {"changed": len(running)}

    def _running(self, task_id: str) -> list[Broadcast]:
        return [
            broadcast
            for broadcast in self._centre.broadcasts.running
            if broadcast.request.task_id == task_id
        ]


def _id(arguments: Mapping[str, object]) -> str:
    value = _text(arguments, "id")
    if not value:
        raise ProtocolError("id: expected a text")
    return value


def _page(arguments: Mapping[str, object]) -> tuple[int, int]:
    first, most = arguments.get("first", 0), arguments.get("most", MAX_PAGE)
    try:
        check_page(first, most)
    except PushError as error:
        raise ProtocolError(str(error)) from None
    assert isinstance(first, int) and isinstance(most, int)
    return first, most


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
