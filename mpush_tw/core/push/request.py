"""
A push request and the ways it can end (server 14.1, 14.4).
"""

from __future__ import annotations

from enum import Enum

from mpush_tw.core.log import printable
from mpush_tw.interfaces import IPushListener


class Outcome(Enum):
    """
    How a push ended, with the name of its last milestone.
    """

    SUCCESS = "success"
    ACK_SUCCESS = "ack_success"
    BROADCAST_COMPLETE = "broadcast_complete"
    FAILURE = "failure"
    OFFLINE = "offline"
    REDIRECT = "redirect"
    TIMEOUT = "timeout"

    milestone: str


for _outcome in Outcome:
    _outcome.milestone = (
        "success-end" if "success" in _outcome.value else f"{_outcome.value}-end"
    )
Outcome.BROADCAST_COMPLETE.milestone = "end"


class PushRequest:
    """
    One request to push, whatever source it came from.

    @ivar user_id: Whom; C{None} asks for a broadcast.
    @ivar client_type: Which of the user's connections; 0 means all (DESIGN 5c).
    @ivar timeout_ms: How long the outcome may take.
    @ivar content: The body of the PUSH.
    @ivar flags: Ack bits only.
    @ivar listener: Who is told the outcome, exactly once.
    @ivar origin: Owned by the listener, for instance where its answer goes.
    @ivar started: Clock time of acceptance; set by the push centre.
    @ivar points: Milestones so far: name and Unix ms.
    @ivar report: What became of a broadcast, see
        L{Broadcast.report<mpush_tw.core.push.broadcast.Broadcast.report>}; set at its
        end.
    """

    __slots__ = (
        "client_type",
        "condition",
        "content",
        "flags",
        "listener",
        "origin",
        "points",
        "report",
        "started",
        "tags",
        "task_id",
        "timeout_ms",
        "user_id",
    )

    def __init__(
        self,
        user_id: str | None,
        client_type: int,
        timeout_ms: int,
        content: bytes | None,
        task_id: str | None,
        tags: tuple[str, ...] | None,
        condition: str | None,
        flags: int,
        listener: IPushListener,
        origin: object = None,
    ) -> None:
        self.user_id = user_id
        self.client_type = client_type
        self.timeout_ms = timeout_ms
        self.content = content
        self.task_id = task_id
        self.tags = tags
        self.condition = condition
        self.flags = flags
        self.listener = listener
        self.origin = origin
        self.started = 0.0
        self.points: list[tuple[str, int]] = []
        self.report: dict[str, object] | None = None

    def __repr__(self) -> str:
        size = len(self.content) if self.content else 0
        return (
            f"GatewayPushMessage{{userId='{printable(self.user_id or 'null')}', "
            f"clientType='{self.client_type}', timeout='{self.timeout_ms}', "
            f"content='{size}'}}"
        )
