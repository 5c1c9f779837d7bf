"""
What the nodes remember of pushes that carry an id: their time lines, put together.

Each node that was asked keeps what became of the push there, for a while and as far as
it has room (C{mp.push.trace} of the node); the sender's own milestones travel with the
push. Clocks of several machines are compared here, so their order is as good as those
are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import attrs

from mpush_tw.protocol.broadcasts import BroadcastCounts
from mpush_tw.sender.directory import Address

_FIRST_OF_NODE = "push-center-begin"


class Milestone(NamedTuple):
    """
    One thing that happened to a push.

    @ivar at: Unix ms.
    @ivar address: The gateway of the node where; C{None} for the sender.
    @ivar user_id: Whose push; C{None} for a broadcast.
    @ivar client_type: Of the device that was asked for, 0 for all; 0 at the sender.
    """

    at: int
    name: str
    address: Address | None
    user_id: str | None
    client_type: int


@attrs.frozen
class TracedPush:
    """
    What one node remembers of a push.

    @ivar user_id: C{None} for a broadcast.
    @ivar client_type: Of the device that was asked for; 0 for all, and in a broadcast.
    @ivar outcome: What became of it there, in the node's words: C{success},
        C{ack_success}, C{failure}, C{offline}, C{redirect}, C{timeout},
        C{broadcast_complete}.
    @ivar time_line: Name and Unix ms: first the sender's milestones until it asked this
        node, then the node's.
    @ivar counts: Of a broadcast.
    """

    address: Address
    user_id: str | None
    client_type: int
    outcome: str
    time_line: Sequence[tuple[str, int]] = ()
    counts: BroadcastCounts | None = None

    @property
    def milestones(self) -> list[Milestone]:
        """
        The time line, each point with the place where it happened.
        """
        names = [name for name, _ in self.time_line]
        begin = names.index(_FIRST_OF_NODE) if _FIRST_OF_NODE in names else 0
        return [
            Milestone(at, name, None, self.user_id, 0)
            if position < begin
            else Milestone(at, name, self.address, self.user_id, self.client_type)
            for position, (name, at) in enumerate(self.time_line)
        ]


@attrs.frozen
class Trace:
    """
    What all nodes remember of an id.

    @ivar pushes: By node, and there in the order in which they ended.
    @ivar silent: Gateways that could not tell, and why.
    """

    trace_id: str
    pushes: Sequence[TracedPush] = ()
    silent: Sequence[tuple[Address, str]] = ()

    @property
    def milestones(self) -> list[Milestone]:
        """
        All that happened, in the order of time, each once: what the sender did before
        it asked several nodes is told by all of them.
        """
        points = [point for push in self.pushes for point in push.milestones]
        return sorted(dict.fromkeys(points), key=lambda point: point.at)
