"""
The results of a list, in little room.

What is kept of a long list are plain tuples of texts and numbers, which the garbage
collector passes over, and no time lines; results are made of them when they are looked
at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

from mpush_tw.sender._routes import plain_route
from mpush_tw.sender.directory import Route
from mpush_tw.sender.result import PushResult, ResultCode


class KeptResults(Mapping[str, PushResult]):
    """
    The results of the pushes that have ended, by user.
    """

    def __init__(self, whole: bool, trace_id: str | None) -> None:
        """
        @param whole: Keep them as they are, with their time lines.
        """
        self._whole = whole
        self._trace_id = trace_id
        self._kept: dict[str, Any] = {}

    def put(self, result: PushResult) -> None:
        """
        Keep one more.
        """
        if self._whole:
            self._kept[result.user_id] = result
            return
        location = result.location
        code = int(result.code)
        self._kept[result.user_id] = (
            code if location is None else (code, plain_route(location))
        )

    def __getitem__(self, user_id: str) -> PushResult:
        kept = self._kept[user_id]
        if self._whole:
            result: PushResult = kept
            return result
        code, plain = (kept, None) if isinstance(kept, int) else kept
        location = None if plain is None else Route(*plain)
        return PushResult(ResultCode(code), user_id, (), location, self._trace_id)

    def __contains__(self, user_id: object) -> bool:
        return user_id in self._kept

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, users: Sequence[str]) -> Sequence[PushResult]:
        """
        Give those of these users that there are, in their order.
        """
        ended = [user_id for user_id in users if user_id in self._kept]
        if self._whole:
            return tuple(self._kept[user_id] for user_id in ended)
        return _InOrder(ended, self)


class _InOrder(Sequence[PushResult]):
    """
    Results in the order of a list.
    """

    def __init__(self, users: Sequence[str], results: KeptResults) -> None:
        self._users = users
        self._results = results

    def __len__(self) -> int:
        return len(self._users)

    @overload
    def __getitem__(self, position: int) -> PushResult: ...

    @overload
    def __getitem__(self, position: slice) -> Sequence[PushResult]: ...

    def __getitem__(self, position: int | slice) -> PushResult | Sequence[PushResult]:
        if isinstance(position, slice):
            return _InOrder(self._users[position], self._results)
        return self._results[self._users[position]]
