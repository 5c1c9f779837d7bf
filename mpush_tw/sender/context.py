"""
What a caller asks for: content, users, acknowledgement, time (cluster 7.2 to 7.4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from typing import Any

import attrs

from mpush_tw.errors import PushError
from mpush_tw.protocol.commands import Flag
from mpush_tw.protocol.fields import encode_json
from mpush_tw.protocol.gateway import GatewayPush

DEFAULT_TIMEOUT = 3.0
"""
Seconds that the push to a user may take if its context does not say (cluster 7.2).
"""

MAX_TIMEOUT = (2**31 - 1) / 1000
MAX_USERS = 100_000
"""
Users of one list.
"""

MAX_ID_BYTES = 256
"""
Longest id of a task or a trace.
"""


class AckModel(IntEnum):
    """
    Who has to acknowledge before a push counts as a success; the values are the flags
    of the GATEWAY_PUSH frame (cluster 7.4).

    C{NO_ACK}: nobody, the node has written to the device's socket. C{AUTO_ACK}: the
    client library. C{BIZ_ACK}: the app itself.
    """

    NO_ACK = 0
    AUTO_ACK = int(Flag.AUTO_ACK)
    BIZ_ACK = int(Flag.BIZ_ACK)


@attrs.frozen
class PushMsg:
    """
    The JSON convention between business and app (cluster 7.3); servers do not read it.

    @ivar content: Text, often JSON itself.
    @ivar msg_id: Identifies the message to the app.
    @ivar msg_type: 1 notification, 2 message, 3 both.
    """

    content: str | None
    msg_id: str | None = None
    msg_type: int = 1

    def encode(self) -> bytes:
        """
        Write C{{"content":...,"msgId":...,"msgType":...}} as UTF-8, absent texts left
        out.
        """
        members: dict[str, object] = {}
        if self.content is not None:
            members["content"] = self.content
        if self.msg_id is not None:
            members["msgId"] = self.msg_id
        members["msgType"] = self.msg_type
        return encode_json(members)


def _tuple_of(tags: Iterable[str] | None) -> Any:
    """
    Keep tags as they are now; one text is left alone, to be refused.
    """
    return tags if tags is None or isinstance(tags, str) else tuple(tags)


@attrs.frozen
class PushContext:
    """
    One order to push: to C{user_id} by L{PushSender.send}, to each of C{user_ids} by
    L{PushSender.send_all}, or to everybody by L{PushSender.broadcast}. A context may be
    used again.

    @ivar content: What the device receives, as it is.
    @ivar message: If given, its JSON replaces C{content}.
    @ivar ack: In a broadcast it is sent along, and nodes do not act on it.
    @ivar timeout: Seconds that one user's push may take in all, redirects included, or
        that a broadcast may; C{None} for 3, and for 60 in a broadcast.
    @ivar callback: Called once per user with the L{PushResult}, or once with the
        L{BroadcastResult}, before the Deferred fires; what it raises is logged. Not
        called for a push that was refused or cancelled.
    @ivar tags: A broadcast goes to devices that were bound with one of these (cluster
        7.10); C{None} for all.
    @ivar condition: A broadcast goes to devices for which this JavaScript gives
        C{true}; if there is one, C{tags} do not count.
    @ivar task_id: With it a broadcast can be watched, slowed and cancelled, see
        L{PushSender.task}.
    @ivar trace_id: Under this id each node that is asked remembers what became of the
        push, see L{PushSender.trace}. A broadcast has its C{task_id} for that.
    """

    content: bytes | None = None
    message: PushMsg | None = None
    user_id: str | None = None
    user_ids: Sequence[str] | None = None
    ack: AckModel = AckModel.NO_ACK
    timeout: float | None = None
    callback: Callable[[Any], object] | None = attrs.field(
        default=None, eq=False, repr=False
    )
    tags: tuple[str, ...] | None = attrs.field(default=None, converter=_tuple_of)
    condition: str | None = None
    task_id: str | None = None
    trace_id: str | None = None

    def seconds(self, default: float = DEFAULT_TIMEOUT) -> float:
        """
        Give the time-out.
        """
        return default if self.timeout is None else self.timeout

    def payload(self) -> bytes:
        """
        Give the bytes for the device.

        @raise PushError: If there are none, or they are not bytes.
        """
        content = self.content if self.message is None else self.message.encode()
        if not content:
            raise PushError("push content can not be empty")
        if not isinstance(content, bytes):
            raise PushError(f"push content must be bytes, not {type(content).__name__}")
        return content


def single_user(context: PushContext) -> str:
    """
    Take the one user of a context.

    @raise PushError: If there is none, or there are fields of a broadcast. A message
        without a user would be a broadcast on the wire (cluster 4.3, server D-14), so
        it must not leave this process.
    """
    if context.user_ids is not None:
        raise PushError("send() takes user_id; use send_all() for user_ids")
    _no_broadcast(context)
    return _checked_user(context.user_id)


def several_users(context: PushContext) -> list[str]:
    """
    Take the users of a context, each once, in their order.

    @raise PushError: If there are none, or more than L{MAX_USERS}, or one of them is
        empty, or there are fields of a broadcast.
    """
    if context.user_id is not None:
        raise PushError("send_all() takes user_ids; use send() for user_id")
    if isinstance(context.user_ids, str):
        raise PushError("user_ids must be a sequence of user ids, not one text")
    _no_broadcast(context)
    user_ids = context.user_ids or ()
    if len(user_ids) > MAX_USERS:
        raise PushError(f"{len(user_ids)} user_ids are too many, {MAX_USERS} the most")
    users = [_checked_user(user_id) for user_id in user_ids]
    if not users:
        raise PushError("user_ids can not be empty")
    return list(dict.fromkeys(users))


def everybody(context: PushContext) -> None:
    """
    See that a context is meant for everybody.

    @raise PushError: If it names users, or its tags, condition or task cannot be used.
    """
    if context.user_id is not None or context.user_ids is not None:
        raise PushError("broadcast() takes no users; use send() or send_all()")
    if context.trace_id is not None:
        raise PushError("a broadcast is traced by its task_id, it takes no trace_id")
    check_audience(context.condition, context.tags)
    check_id("task_id", context.task_id)


def check_audience(condition: str | None, tags: Sequence[str] | None) -> None:
    """
    See that these can say who is meant.

    @raise PushError: If they cannot.
    """
    if condition is not None:
        if not condition:
            raise PushError("condition can not be empty; None means everybody")
        _check_text("condition", condition)
    if tags is not None:
        if isinstance(tags, str):
            raise PushError("tags must be a sequence of texts, not one text")
        if not tags:
            raise PushError("tags can not be empty; None means everybody")
        for tag in tags:
            if not tag:
                raise PushError("a tag can not be empty")
            _check_text("tag", tag)


def check_id(name: str, value: str | None, required: bool = False) -> None:
    """
    See that this can be the id of a task or a trace.

    @param name: Of what it is for, to be named.
    @raise PushError: If it cannot.
    """
    if value is None and not required:
        return
    if not value:
        raise PushError(f"{name} can not be empty")
    _check_text(name, value)
    if len(value.encode()) > MAX_ID_BYTES:
        raise PushError(f"{name} has more than {MAX_ID_BYTES} bytes")


def check_order(
    context: PushContext, payload: bytes, users: Sequence[str], max_packet_size: int
) -> None:
    """
    Refuse what cannot be sent, before any of it is (cluster defect C-47).

    @param users: Who it is for; empty for everybody.
    @param max_packet_size: Largest GATEWAY_PUSH body the gateways accept, in bytes.
    @raise PushError: If the time-out is out of range, or the body would be too large.
    """
    timeout = context.seconds()
    if not isinstance(timeout, (int, float)) or not 0 < timeout <= MAX_TIMEOUT:
        raise PushError(f"timeout must be above 0 seconds, not {timeout!r}")
    if context.ack not in tuple(AckModel):
        raise PushError(f"unknown ack model {context.ack!r}")
    check_id("trace_id", context.trace_id)
    fields = GatewayPush(
        content=payload,
        task_id=context.trace_id or context.task_id,
        tags=context.tags,
        condition=context.condition,
    )
    # Of lengths that grow with their text the longest one decides.
    longest = max(users, key=_size, default=None)
    size = len(fields._replace(user_id=longest).encode())
    if size > max_packet_size:
        raise PushError(
            f"push content of {len(payload)} bytes is too large: the packet would "
            f"have {size}, the limit is {max_packet_size}"
        )


def _size(text: str) -> int:
    return len(text.encode())


def _no_broadcast(context: PushContext) -> None:
    for name in ("tags", "condition", "task_id"):
        if getattr(context, name) is not None:
            raise PushError(f"{name} is for broadcast(); users were named here")


def _checked_user(user_id: str | None) -> str:
    if not user_id:
        raise PushError("a push needs a user id")
    _check_text("user id", user_id)
    return user_id


def _check_text(name: str, text: str) -> None:
    if not isinstance(text, str):
        raise PushError(f"{name} must be a text, not {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError:
        # On the wire it would have a C{?} in it (protocol 4.1): another user's id.
        raise PushError(f"{name} {text!r} is no valid text") from None
