"""
What a caller asks for: content, users, acknowledgement, time (cluster 7.2 to 7.4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum

import attrs

from mpush_tw.errors import PushError
from mpush_tw.protocol.commands import Flag
from mpush_tw.protocol.fields import encode_json, encode_text
from mpush_tw.protocol.gateway import GatewayPush
from mpush_tw.sender.result import PushResult

DEFAULT_TIMEOUT = 3.0
MAX_TIMEOUT = (2**31 - 1) / 1000


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


@attrs.frozen
class PushContext:
    """
    One order to push: to C{user_id} by L{PushSender.send}, or to each of C{user_ids}
    by L{PushSender.send_all}. A context may be used again.

    @ivar content: What the device receives, as it is.
    @ivar message: If given, its JSON replaces C{content}.
    @ivar timeout: Seconds that one user's push may take in all, redirects included.
    @ivar callback: Called once per user with the result, before the Deferred of
        C{send} fires; what it raises is logged. Not called for a push that was refused
        or cancelled.
    """

    content: bytes | None = None
    message: PushMsg | None = None
    user_id: str | None = None
    user_ids: Sequence[str] | None = None
    ack: AckModel = AckModel.NO_ACK
    timeout: float = DEFAULT_TIMEOUT
    callback: Callable[[PushResult], object] | None = attrs.field(
        default=None, eq=False, repr=False
    )

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

    @raise PushError: If there is none. A message without a user would be a broadcast
        on the wire (cluster 4.3), so it must not leave this process.
    """
    if context.user_ids is not None:
        raise PushError("send() takes user_id; use send_all() for user_ids")
    return _checked_user(context.user_id)


def several_users(context: PushContext) -> list[str]:
    """
    Take the users of a context, each once, in their order.

    @raise PushError: If there are none, or one of them is empty.
    """
    if context.user_id is not None:
        raise PushError("send_all() takes user_ids; use send() for user_id")
    if isinstance(context.user_ids, str):
        raise PushError("user_ids must be a sequence of user ids, not one text")
    users = [_checked_user(user_id) for user_id in context.user_ids or ()]
    if not users:
        raise PushError("user_ids can not be empty")
    return list(dict.fromkeys(users))


def check_order(
    context: PushContext, payload: bytes, users: Sequence[str], max_packet_size: int
) -> None:
    """
    Refuse what cannot be sent, before any of it is (cluster defect C-47).

    @param max_packet_size: Largest GATEWAY_PUSH body the gateways accept, in bytes.
    @raise PushError: If the time-out is out of range, or the body would be too large.
    """
    timeout = context.timeout
    if not isinstance(timeout, (int, float)) or not 0 < timeout <= MAX_TIMEOUT:
        raise PushError(f"timeout must be above 0 seconds, not {timeout!r}")
    if context.ack not in tuple(AckModel):
        raise PushError(f"unknown ack model {context.ack!r}")
    no_user = len(GatewayPush(content=payload).encode()) - len(encode_text(None))
    for user_id in users:
        size = no_user + len(encode_text(user_id))
        if size > max_packet_size:
            raise PushError(
                f"push content of {len(payload)} bytes is too large: the packet would "
                f"have {size}, the limit is {max_packet_size}"
            )


def _checked_user(user_id: str | None) -> str:
    if not user_id:
        raise PushError("a push needs a user id")
    if not isinstance(user_id, str):
        raise PushError(f"a user id is a text, not {type(user_id).__name__}")
    try:
        user_id.encode()
    except UnicodeEncodeError:
        # On the wire it would have a C{?} in it (protocol 4.1): another user's id.
        raise PushError(f"user id {user_id!r} is no valid text") from None
    return user_id
