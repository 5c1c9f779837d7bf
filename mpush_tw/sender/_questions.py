"""
What a sender wants to know of its gateways, put into questions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from twisted.internet.defer import Deferred
from zope.interface import implementer

from mpush_tw.broadcast_task import IBroadcastTask, check_page, check_rate
from mpush_tw.errors import Unavailable
from mpush_tw.protocol.broadcasts import BroadcastCounts
from mpush_tw.protocol.gateway import GatewayQuery
from mpush_tw.sender._queries import TOO_LONG, Queries, QueryAnswer
from mpush_tw.sender._waiters import all_of
from mpush_tw.sender.audience import AudienceCount, NodeAudience
from mpush_tw.sender.directory import Address
from mpush_tw.sender.trace import Trace, TracedPush

_TRACE_PAGE = 64
"""
More pushes than a node remembers under one id.
"""

AskPage = Callable[[int, int], Awaitable[QueryAnswer]]
"""
Asks for what begins at a position, and so many of it.
"""


async def pages_of(ask: AskPage, first: int, most: int) -> list[QueryAnswer]:
    """
    Ask for a range, in smaller parts where an answer would be too long.

    @return: The answers, in order.
    """
    answer = await ask(first, most)
    if answer.reason != TOO_LONG or most == 1:
        return [answer]
    half = most // 2
    return [
        *await pages_of(ask, first, half),
        *await pages_of(ask, first + half, most - half),
    ]


# ------------------------------------------------------------------ audience


class _CountForm(msgspec.Struct):
    online: int
    matched: int
    reason: str = ""
    error: str = ""


async def count_audience(
    queries: Queries,
    addresses: Iterable[Address],
    condition: str | None,
    tags: Sequence[str] | None,
    seconds: float,
) -> AudienceCount:
    """
    Ask all gateways whom a broadcast would reach.
    """
    arguments: dict[str, object] = {}
    if condition is not None:
        arguments["condition"] = condition
    if tags is not None:
        arguments["tags"] = list(tags)
    query = GatewayQuery("count", arguments)
    answers = await queries.ask_all(addresses, query, seconds)
    return AudienceCount(tuple(map(_node_audience, answers)))


def _node_audience(answer: QueryAnswer) -> NodeAudience:
    told = answer.read(_CountForm)
    if told is None:
        return NodeAudience(answer.address, reason=answer.trouble)
    return NodeAudience(
        answer.address, told.online, told.matched, told.reason, told.error
    )


# --------------------------------------------------------------------- trace


class _PushForm(msgspec.Struct):
    outcome: str
    points: list[tuple[str, int]]
    userId: str | None = None
    clientType: int = 0
    counts: dict[str, int | str] | None = None


class _TraceForm(msgspec.Struct):
    pushes: list[_PushForm]


async def trace_of(
    queries: Queries, addresses: Iterable[Address], trace_id: str, seconds: float
) -> Trace:
    """
    Ask all gateways what they remember of an id.
    """

    def ask(address: Address) -> AskPage:
        def ask_page(first: int, most: int) -> Awaitable[QueryAnswer]:
            arguments = {"id": trace_id, "first": first, "most": most}
            return queries.ask(address, GatewayQuery("trace", arguments), seconds)

        return ask_page

    asking = [
        Deferred.fromCoroutine(pages_of(ask(address), 0, _TRACE_PAGE))
        for address in sorted(addresses)
    ]
    pushes: list[TracedPush] = []
    silent: dict[Address, str] = {}
    for pages in await all_of(asking):
        for answer in pages:
            told = answer.read(_TraceForm)
            if told is None:
                silent.setdefault(answer.address, answer.trouble)
            else:
                pushes += [_traced_push(answer.address, one) for one in told.pushes]
    return Trace(trace_id, tuple(pushes), tuple(silent.items()))


def _traced_push(address: Address, told: _PushForm) -> TracedPush:
    return TracedPush(
        address,
        told.userId,
        told.clientType,
        told.outcome,
        tuple(told.points),
        None if told.counts is None else BroadcastCounts.read(told.counts),
    )


# ---------------------------------------------------------------------- task


class _DoneForm(msgspec.Struct):
    """
    An answer that says nothing but that something was done.
    """


class _TaskForm(msgspec.Struct):
    sent: int
    users: list[str] = []


@implementer(IBroadcastTask)
class GatewayTask:
    """
    The control of a task where the nodes have no store in common: by asking each of
    them. All have to answer; otherwise it fails, and may have been done by some.
    """

    def __init__(
        self,
        task_id: str,
        queries: Queries,
        addresses: Callable[[], Sequence[Address]],
        seconds: float,
    ) -> None:
        """
        @param addresses: Gives the gateways that there are now.
        @param seconds: For an answer.
        """
        self.task_id = task_id
        self._queries = queries
        self._addresses = addresses
        self._seconds = seconds

    def set_rate(self, per_second: int) -> Deferred[None]:
        rate = {"rate": check_rate(per_second)}
        return Deferred.fromCoroutine(self._have_done("rate", rate))

    def cancel(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._have_done("cancel", {}))

    async def _have_done(self, what: str, arguments: Mapping[str, object]) -> None:
        for answer in await self._ask_all(what, arguments):
            _read(answer, _DoneForm)

    def progress(self) -> Deferred[int]:
        return Deferred.fromCoroutine(self._progress())

    async def _progress(self) -> int:
        return sum((await self._sent()).values())

    def users(self, first: int = 0, most: int = 1000) -> Deferred[list[str]]:
        check_page(first, most)
        return Deferred.fromCoroutine(self._users(first, most))

    async def _users(self, first: int, most: int) -> list[str]:
        users: list[str] = []
        for address, sent in (await self._sent()).items():
            # One gateway after the other: each has as many as it has sent to.
            skipped = min(first, sent)
            wanted = min(most - len(users), sent - skipped)
            first -= skipped
            if wanted > 0:
                users += await self._users_of(address, skipped, wanted)
        return users

    async def _users_of(self, address: Address, first: int, most: int) -> list[str]:
        def ask(first: int, most: int) -> Awaitable[QueryAnswer]:
            page = {"first": first, "most": most}
            return self._queries.ask(address, self._query("task", page), self._seconds)

        users: list[str] = []
        for answer in await pages_of(ask, first, most):
            users += _read(answer, _TaskForm).users
        return users

    async def _sent(self) -> dict[Address, int]:
        return {
            answer.address: _read(answer, _TaskForm).sent
            for answer in await self._ask_all("task", {})
        }

    def _ask_all(
        self, what: str, arguments: Mapping[str, object]
    ) -> Deferred[list[QueryAnswer]]:
        return self._queries.ask_all(
            self._addresses(), self._query(what, arguments), self._seconds
        )

    def _query(self, what: str, arguments: Mapping[str, object]) -> GatewayQuery:
        return GatewayQuery(what, {"id": self.task_id, **arguments})


def _read(answer: QueryAnswer, form: type[Any]) -> Any:
    """
    Read an answer.

    @raise Unavailable: If there is none.
    """
    told = answer.read(form)
    if told is None:
        host, port = answer.address
        raise Unavailable(f"gateway {host}:{port}: {answer.trouble}")
    return told
