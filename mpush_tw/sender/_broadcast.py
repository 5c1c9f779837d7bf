"""
A broadcast on its way to all gateways.

Where the rules are: cluster 7.9, 8.6. Each gateway that is known when it begins gets
one GATEWAY_PUSH without a user: over any of its links, after waiting for one as a push
to a user does; or all of them get one multicast datagram, and if that cannot leave this
machine, each gets one of its own. Nothing is ever sent twice.

A gateway's part ends with its answer, with its connection, or when time is up. What the
whole comes to is said in L{BroadcastResult}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mpush_tw.protocol.broadcasts import BroadcastCounts
from mpush_tw.protocol.commands import Command
from mpush_tw.protocol.gateway import GatewayPush, decode_broadcast_result
from mpush_tw.protocol.packet import encode_packet
from mpush_tw.sender._pool import Answer, IGatewayLink, Verdict
from mpush_tw.sender._request import MAX_PENDING, Sending
from mpush_tw.sender.audience import (
    BroadcastResult,
    NodeBroadcast,
    Wait,
)
from mpush_tw.sender.context import PushContext
from mpush_tw.sender.directory import Address
from mpush_tw.sender.result import ResultCode

BROADCAST_TIMEOUT = 60.0
"""
Seconds that a broadcast may take if its context does not say: nodes send it by windows
of flow control.
"""

_NOT_CONNECTED = "not connected"


class BroadcastPush:
    """
    One broadcast under way.

    @ivar finished: Fires with the result. Cancelling it gives the broadcast up: what
        has been written is done all the same.
    """

    _log = Logger()

    def __init__(
        self, context: PushContext, payload: bytes, sending: Sending, wait: Wait
    ) -> None:
        self._context = context
        self._payload = payload
        self._sending = sending
        self._wait = wait
        self._clock = sending.clock
        self._timeout = context.seconds(BROADCAST_TIMEOUT)
        self._time_line: list[tuple[str, int]] = []
        self._deadline: Any = None
        self._group = 0
        # What has not ended: where the question is open, if it has been put to a link.
        self._open: dict[Address, tuple[IGatewayLink, int] | None] = {}
        self._reaching: dict[Address, Deferred[IGatewayLink | None]] = {}
        self._ended: dict[Address, NodeBroadcast] = {}
        self._first: NodeBroadcast | None = None
        self._starting = True
        self._told = False
        self._over = False
        self.finished: Deferred[BroadcastResult] = Deferred(self._cancelled)

    def start(self) -> None:
        """
        Set the time-out and send, if there is anybody to send to.
        """
        self._note("begin")
        addresses = self._sending.pool.addresses
        self._open = dict.fromkeys(addresses)
        if not self._sending.has_room(len(addresses)):
            self._end_rest(ResultCode.FAILURE, f"{MAX_PENDING} pushes are pending")
            self._open.clear()
        else:
            self._sending.pushes.add(self)
            self._deadline = self._clock.callLater(self._timeout, self._time_is_up)
            if addresses:
                self._note("send-to-gateway-begin")
                self._ask_all(addresses)
                self._note("send-to-gateway-end")
        self._starting = False
        self._look_whether_over()

    def fail(self) -> None:
        """
        End as a failure, if not ended yet: the sender stops.
        """
        if not self._told:
            self._end_rest(ResultCode.FAILURE, "the sender was stopped")
            self._tell()
        self._let_go()

    # ---------------------------------------------------------------- asking

    def _packet(self, session_id: int) -> bytes:
        context = self._context
        body = GatewayPush(
            None,
            0,
            # Nodes of ours tell their counts to senders that have a time-out.
            max(1, round(self._timeout * 1000)),
            self._payload,
            context.task_id,
            context.tags,
            context.condition,
        ).encode()
        return encode_packet(Command.GATEWAY_PUSH, session_id, int(context.ack), body)

    def _ask_all(self, addresses: tuple[Address, ...]) -> None:
        pool = self._sending.pool
        session_id = self._sending.next_session_id()
        if pool.ask_group(session_id, self._packet(session_id), self._answered):
            self._group = session_id
            return
        for address in addresses:
            link = pool.choose(address)
            if link is None:
                self._reach(address)
            else:
                self._ask(address, link)

    def _reach(self, address: Address) -> None:
        """
        Ask a gateway when it is connected, if that does not fail.
        """
        finding = self._reaching[address] = self._sending.pool.link(address)

        def reached(link: IGatewayLink | None) -> None:
            self._reaching.pop(address, None)
            if self._over:
                return
            if link is None:
                self._not_connected(address)
            else:
                self._ask(address, link)
                self._look_whether_over()

        def failed(failure: Failure) -> None:
            # Nobody waits for it any more if it has been cancelled.
            if not failure.check(CancelledError):
                self._log.failure("a broadcast broke off", failure)

        finding.addCallback(reached).addErrback(failed)

    def _ask(self, address: Address, link: IGatewayLink) -> None:
        session_id = self._sending.next_session_id()
        self._open[address] = link, session_id

        def answered(answer: Answer) -> None:
            self._answered(address, answer)

        if not link.ask(session_id, self._packet(session_id), answered):
            self._not_connected(address)

    # -------------------------------------------------------------- deciding

    def _answered(self, address: Address, answer: Answer) -> None:
        points = tuple(answer.points)
        if answer.verdict is not Verdict.DELIVERED:
            reason = answer.text or "the connection was lost"
            node = NodeBroadcast(
                address, ResultCode.FAILURE, None, reason, time_line=points
            )
        else:
            told = decode_broadcast_result(answer.text)
            node = NodeBroadcast(
                address,
                ResultCode.SUCCESS,
                BroadcastCounts.read(told) if told else None,
                str(told.get("reason", "")),
                str(told.get("error", "")),
                points,
            )
            self._first = self._first or node
        self._node_ended(node)

    def _not_connected(self, address: Address) -> None:
        self._node_ended(
            NodeBroadcast(address, ResultCode.FAILURE, None, _NOT_CONNECTED)
        )

    def _node_ended(self, node: NodeBroadcast) -> None:
        self._open.pop(node.address, None)
        self._ended[node.address] = node
        self._look_whether_over()

    def _look_whether_over(self) -> None:
        if self._starting or self._over:
            return
        if not self._told and self._has_come():
            self._tell()
        if self._told and not self._reaching:
            self._let_go()

    def _has_come(self) -> bool:
        """
        Whether what the caller waits for has come.
        """
        if not self._open:
            return True
        if self._wait is Wait.FIRST:
            return self._first is not None
        return self._wait is Wait.NONE and not self._reaching

    def _time_is_up(self) -> None:
        if not self._told:
            for address in self._reaching:
                self._open.pop(address)
                self._ended[address] = NodeBroadcast(
                    address, ResultCode.FAILURE, None, _NOT_CONNECTED
                )
            self._end_rest(ResultCode.TIMEOUT)
            self._tell()
        self._let_go()

    def _end_rest(self, code: ResultCode | None, reason: str = "") -> None:
        for address in self._open:
            self._ended[address] = NodeBroadcast(address, code, None, reason)

    def _code(self) -> ResultCode:
        if self._wait is Wait.FIRST and self._first is not None:
            return ResultCode.SUCCESS
        codes = {node.code for node in self._ended.values()}
        if ResultCode.FAILURE in codes or not codes:
            return ResultCode.FAILURE
        return ResultCode.TIMEOUT if ResultCode.TIMEOUT in codes else ResultCode.SUCCESS

    def _tell(self) -> None:
        """
        Tell the result, once (C-36). Gateways that are still being connected are asked
        all the same.
        """
        self._note("end")
        self._told = True
        ended = self._ended
        for address in self._open:
            ended.setdefault(address, NodeBroadcast(address, None))
        result = BroadcastResult(
            self._code(),
            tuple(ended[address] for address in sorted(ended)),
            self._context.task_id,
            self._first,
            tuple(self._time_line),
        )
        if not self._reaching:
            self._let_go()
        callback = self._context.callback
        if callback is not None:
            try:
                callback(result)
            except Exception:
                self._log.failure("the callback of a broadcast failed")
        # The callback may have cancelled it.
        if not self.finished.called:
            self.finished.callback(result)

    def _cancelled(self, finished: Deferred[BroadcastResult]) -> None:
        self._told = True
        self._let_go()

    def _let_go(self) -> None:
        """
        Give back what a broadcast holds: timer, waits, open questions.
        """
        if self._over:
            return
        self._over = True
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        for waiting in list(self._reaching.values()):
            waiting.cancel()
        for question in self._open.values():
            if question is not None:
                link, session_id = question
                link.forget(session_id)
        if self._group:
            self._sending.pool.forget(self._group)
        self._sending.pushes.discard(self)

    def _note(self, name: str) -> None:
        if not self._told:
            self._time_line.append((name, int(self._clock.seconds() * 1000)))
