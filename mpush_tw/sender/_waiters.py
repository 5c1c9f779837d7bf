"""
Several who wait for one thing, and one who waits for several.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.python.failure import Failure

_Result = TypeVar("_Result")


class Waiters(Generic[_Result]):
    """
    Deferreds that fire together. Each may be cancelled without harm to the others.
    """

    def __init__(self) -> None:
        self._waiting: dict[Deferred[_Result], None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self) -> Deferred[_Result]:
        """
        Wait for the next L{tell}.
        """
        waiting: Deferred[_Result] = Deferred(
            lambda cancelled: self._waiting.pop(cancelled, None)
        )
        self._waiting[waiting] = None
        return waiting

    def tell(self, result: _Result | Failure) -> None:
        """
        Fire all that wait now, in order.
        """
        waiting, self._waiting = self._waiting, {}
        for one in waiting:
            # Somebody who was told before may have cancelled it.
            if not one.called:
                one.callback(result)


def all_of(waiting: Iterable[Deferred[_Result]]) -> Deferred[list[_Result]]:
    """
    Wait for all, or for the first that fails.

    @return: A Deferred firing with the results, in order; it fails as that one did.
        Cancelling it cancels all.
    """
    return gatherResults(list(waiting), consumeErrors=True).addErrback(_first_reason)


def _first_reason(failure: Failure) -> Failure:
    """
    Take what one of several has failed with out of its wrapping.
    """
    failure.trap(FirstError)
    reason: Failure = failure.value.subFailure  # type: ignore[union-attr]
    return reason
