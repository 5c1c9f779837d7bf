"""
Who is meant by a broadcast (server 14.5).

Everybody, so far: a broadcast with tags or a script reaches nobody, and says why.
"""

from __future__ import annotations

from mpush_tw.core.connection import Connection


class AlwaysCondition:
    """
    Everybody.
    """

    first_error: str | None = None

    def matches(self, connection: Connection) -> bool:
        return True

    def close(self) -> None:
        pass


class NobodyCondition(AlwaysCondition):
    """
    What cannot be judged yet.
    """

    first_error = "this version has no conditions"

    def matches(self, connection: Connection) -> bool:
        return False


def condition_for(
    condition: str | None, tags: tuple[str, ...] | None, tags_match: str
) -> AlwaysCondition:
    """
    Make the condition of a broadcast.
    """
    if condition is None and tags is None:
        return AlwaysCondition()
    return NobodyCondition()
