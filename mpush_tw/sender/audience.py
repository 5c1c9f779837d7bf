"""
What became of a broadcast, and how many one would reach: per gateway, and in all
(cluster 7.9).

Nodes of ours count what they do with each connection. Nodes of the original tell only
that they have finished, and cannot say whom they would reach: counts are C{None} there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

import attrs

from mpush_tw.protocol.broadcasts import BroadcastCounts
from mpush_tw.sender.directory import Address
from mpush_tw.sender.result import ResultCode


class Wait(Enum):
    """
    How long a broadcast is waited for.

    C{ALL}: until every gateway has finished. C{FIRST}: until one has, as senders of the
    original do without a task id (C-45). C{NONE}: until it has been written to every
    gateway, as they do with one.
    """

    ALL = "all"
    FIRST = "first"
    NONE = "none"


def total(counts: Iterable[BroadcastCounts | None]) -> BroadcastCounts:
    """
    Add up the counts that there are.
    """
    return sum((one for one in counts if one is not None), BroadcastCounts())


@attrs.frozen
class NodeBroadcast:
    """
    One gateway's part of a broadcast.

    @ivar code: C{SUCCESS}: it has finished. C{FAILURE}: it could not be asked, or says
        so, or its connection was lost. C{TIMEOUT}: no answer in time; nodes of the
        original never answer when they needed more than one window of flow control
        (C-33). C{None}: it was not waited for.
    @ivar counts: C{None} where the node did not tell.
    @ivar reason: Why it ended early or failed: C{cancelled}, C{over-maximum} or a
        sentence; empty if it did not.
    @ivar error: The first error of the condition; empty if there was none.
    @ivar time_line: Name and Unix ms, by the clock of the node.
    """

    address: Address
    code: ResultCode | None
    counts: BroadcastCounts | None = None
    reason: str = ""
    error: str = ""
    time_line: Sequence[tuple[str, int]] = ()


@attrs.frozen
class BroadcastResult:
    """
    The end of a broadcast.

    @ivar code: C{SUCCESS} when every gateway has finished; with L{Wait.FIRST} when one
        has, with L{Wait.NONE} when every one has been asked. C{FAILURE} when one has
        failed, or there is none; C{TIMEOUT} otherwise.
    @ivar nodes: One for each gateway, in the order of their addresses.
    @ivar first: The one that finished first, if any has.
    @ivar time_line: What happened on this side: name and Unix ms.
    """

    code: ResultCode
    nodes: Sequence[NodeBroadcast] = ()
    task_id: str | None = None
    first: NodeBroadcast | None = None
    time_line: Sequence[tuple[str, int]] = ()

    @property
    def succeeded(self) -> bool:
        return self.code is ResultCode.SUCCESS

    @property
    def counts(self) -> BroadcastCounts:
        """
        The sum over the nodes that told theirs.
        """
        return total(node.counts for node in self.nodes)

    @property
    def counted(self) -> bool:
        """
        Whether C{counts} is the whole truth: every node told its own.
        """
        return bool(self.nodes) and all(node.counts is not None for node in self.nodes)


@attrs.frozen
class NodeAudience:
    """
    Whom a broadcast would reach at one gateway.

    @ivar online: Connections that are bound; C{None} where the node cannot tell.
    @ivar matched: Those that the condition or the tags let through; likewise.
    @ivar reason: Why it cannot tell, or why it did not count to the end.
    @ivar error: The first error of the condition; empty if there was none.
    """

    address: Address
    online: int | None = None
    matched: int | None = None
    reason: str = ""
    error: str = ""


@attrs.frozen
class AudienceCount:
    """
    Whom a broadcast would reach.

    @ivar nodes: One for each gateway, in the order of their addresses.
    """

    nodes: Sequence[NodeAudience]

    @property
    def online(self) -> int:
        """
        Connections of all nodes that can tell.
        """
        return sum(node.online or 0 for node in self.nodes)

    @property
    def matched(self) -> int:
        """
        How many of them a broadcast would reach.
        """
        return sum(node.matched or 0 for node in self.nodes)

    @property
    def counted(self) -> bool:
        """
        Whether that is the whole truth: every node could tell, to the end.
        """
        return bool(self.nodes) and all(
            node.matched is not None and not node.reason for node in self.nodes
        )
