"""
What nodes tell senders of broadcasts and traced pushes, beside the original's messages.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

POINT_PREFIX = "trace:"
"""
Begins a tag of a traced push that is a milestone of its sender: C{trace:NAME=MS}.
"""

MAX_SENDER_POINTS = 16
"""
Milestones of the sender that a node takes.
"""


@attrs.define
class BroadcastCounts:
    """
    Connections of a node, or of several, by what became of them.

    @ivar online: Those that were bound when the broadcast began. All others but
        C{matched} add up to it, once it has ended.
    @ivar matched: Those that the condition or the tags let through.
    @ivar filtered: Those that they did not.
    @ivar busy: Their buffers stayed full, although they were tried again.
    @ivar gone: They left before it was their turn.
    @ivar failed: The write failed.
    @ivar left_out: Not reached, because the broadcast ended early.
    """

    online: int = 0
    matched: int = 0
    sent: int = 0
    filtered: int = 0
    busy: int = 0
    gone: int = 0
    failed: int = 0
    left_out: int = 0

    @classmethod
    def read(cls, told: Mapping[str, object]) -> BroadcastCounts:
        """
        Take the counts out of what a node told; what is no number of connections counts
        as 0.
        """
        numbers = {}
        for name in attrs.fields_dict(cls):
            value = told.get(name)
            if isinstance(value, int) and value > 0:
                numbers[name] = int(value)
        return cls(**numbers)

    def as_dict(self) -> dict[str, int]:
        """
        Give them by name, as they travel.
        """
        return attrs.asdict(self)

    def __add__(self, other: BroadcastCounts) -> BroadcastCounts:
        mine, its = self.as_dict(), other.as_dict()
        return BroadcastCounts(**{name: mine[name] + its[name] for name in mine})
