"""
Test pushes, as the page of alloc and the demo of Android order them (services A3.2).
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import msgspec

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from mpush_tw.core.log import NodeLog
from mpush_tw.errors import PushError, Unavailable
from mpush_tw.protocol.fields import encode_json

PUSH_TIMEOUT = 3.0
"""
Seconds that a test push may take (A3.2).
"""

MAX_UNDER_WAY = 100
"""
Test pushes at a time.
"""

_PREFIX = "MPush开源推送，"  # noqa: RUF001
_TICKER = "你有一条新的消息,请注意查收"
_TITLE = "MPUSH推送"
_NOTIFICATION_AND_MESSAGE = 3
_SLOTS = 2


class BadOrder(Exception):
    """
    What was sent is no order; the text is one line for who sent it.
    """


@attrs.frozen
class PushOrder:
    """
    One test push.

    @ivar user_id: Whom; C{None} is everybody who is online.
    @ivar condition: Chooses among everybody; C{None} is all.
    @ivar content: What devices get: the envelope of cluster 7.3.
    @ivar message_id: The id in it.
    """

    user_id: str | None
    condition: str | None
    content: bytes
    message_id: str


Pusher = Callable[[PushOrder], Deferred[str]]
"""
Pushes, with NO_ACK and L{PUSH_TIMEOUT}. Gives a Deferred with the outcome, for the log.
It fails at once, with L{PushError} or L{Unavailable}, if nothing was sent.
"""


class _Written(msgspec.Struct):
    """
    The JSON object. Names are the original's.
    """

    userId: str | None = None
    hello: str | None = None
    broadcast: bool | None = None
    condition: str | None = None


class PushOrders:
    """
    Takes orders and has them carried out.

    @ivar under_way: How many have not ended.
    """

    def __init__(self, push: Pusher, log: NodeLog) -> None:
        self._push = push
        self._log = log
        self._count = 0
        self.under_way = 0

    def take(self, body: bytes) -> None:
        """
        Begin to push; how that ends is only logged, as by the original.

        @param body: The JSON object, of a size that the caller has limited.
        @raise BadOrder: If it is none, or asks for nothing that can be pushed.
        @raise Unavailable: If nothing can be pushed now.
        """
        if self.under_way >= MAX_UNDER_WAY:
            raise Unavailable("too many test pushes are under way")
        order = self._read(body)
        pushing = maybeDeferred(self._push, order)
        refused: list[Failure] = []
        if pushing.called:
            pushing.addErrback(refused.append)
        if refused:
            if refused[0].check(PushError):
                raise BadOrder(refused[0].getErrorMessage())
            refused[0].raiseException()
        self.under_way += 1
        pushing.addBoth(self._ended)
        pushing.addCallbacks(
            self._report, self._failed, callbackArgs=(order,), errbackArgs=(order,)
        )

    def _read(self, body: bytes) -> PushOrder:
        try:
            written = msgspec.json.decode(body, type=_Written)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadOrder(str(error).replace("\n", " ")) from None
        user_id = None if written.broadcast else _filled(written.userId)
        if user_id is None and not written.broadcast:
            raise BadOrder("expected a userId, or broadcast: true")
        self._count += 1
        message_id = f"msg_{self._count}"
        return PushOrder(
            user_id,
            _filled(written.condition) if written.broadcast else None,
            self._content(written.hello, message_id),
            message_id,
        )

    def _content(self, hello: str | None, message_id: str) -> bytes:
        notification = {
            # A missing text appears as the word, as in the original.
            "content": _PREFIX + ("null" if hello is None else hello),
            "nid": (self._count - 1) % _SLOTS + 1,
            "ticker": _TICKER,
            "title": _TITLE,
        }
        return encode_json(
            {
                "content": encode_json(notification).decode(),
                "msgId": message_id,
                "msgType": _NOTIFICATION_AND_MESSAGE,
            }
        )

    def _ended(self, result: str | Failure) -> str | Failure:
        self.under_way -= 1
        return result

    def _report(self, outcome: str, order: PushOrder) -> None:
        self._log.push.info(
            "test push {message_id} to {user}: {outcome}",
            message_id=order.message_id,
            user="everybody" if order.user_id is None else order.user_id,
            outcome=outcome,
        )

    def _failed(self, failure: Failure, order: PushOrder) -> None:
        if failure.check(PushError, Unavailable):
            self._report(failure.getErrorMessage(), order)
        else:
            self._log.push.failure("a test push failed", failure)


def _filled(text: str | None) -> str | None:
    """
    Take a blank text for none.
    """
    return text if text and not text.isspace() else None
