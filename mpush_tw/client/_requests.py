"""
Requests that wait for their answers, on one connection (clients 10.3, 2).
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mpush_tw.client.errors import ClientError, Disconnected, TimedOut


class _Request:
    """
    @ivar command: What was sent, and what the answer must be about.
    @ivar packet: The bytes, kept only if they may have to be sent again.
    """

    __slots__ = ("answer", "command", "packet", "retries", "timeout", "timer")

    def __init__(self, command: int, timeout: float, retries: int) -> None:
        self.answer: Deferred[bytes]
        self.timer: IDelayedCall
        self.command = command
        self.timeout = timeout
        self.retries = retries
        self.packet = b""


class Requests:
    """
    The table of one connection: session id to what waits under it.

    An answer settles a request only if it is about the same command; numbers alone
    collide, because the server counts its own messages in the same field (defect 12.8).
    """

    __slots__ = ("_clock", "_pending", "_resend")

    def __init__(self, clock: IReactorTime, resend: Callable[[bytes], None]) -> None:
        """
        @param resend: Called with the identical packet for every retry.
        """
        self._clock = clock
        self._resend = resend
        self._pending: dict[int, _Request] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def expects(self, session_id: int, command: int) -> bool:
        request = self._pending.get(session_id)
        return request is not None and request.command == command

    def add(
        self, session_id: int, command: int, packet: bytes, timeout: float, retries: int
    ) -> Deferred[bytes]:
        """
        Enter a request; the caller does so before it writes the packet (defect 12.4).

        @param timeout: Seconds until it is sent again or given up.
        @param retries: How often it is sent again.
        @return: Fires with the plain body of the answer; fails with L{TimedOut}, with
            what L{refuse} or L{fail_all} was given, or when it is cancelled.
        """
        request = _Request(command, timeout, retries)
        if retries > 0:
            request.packet = packet
        request.answer = Deferred(lambda _: self._forget(session_id))
        request.timer = self._clock.callLater(timeout, self._time_out, session_id)
        self._pending[session_id] = request
        return request.answer

    def settle(self, session_id: int, command: int, body: bytes) -> bool:
        """
        Hand an answer to its request.

        @return: Whether there was one for this number and command.
        """
        if not self.expects(session_id, command):
            return False
        request = self._take(session_id)
        assert request is not None
        request.answer.callback(body)
        return True

    def refuse(self, session_id: int, command: int, reason: ClientError) -> bool:
        """
        Fail the one request that an ERROR is about.

        @return: As L{settle}.
        """
        if not self.expects(session_id, command):
            return False
        request = self._take(session_id)
        assert request is not None
        request.answer.errback(reason)
        return True

    def fail_all(self, reason: ClientError) -> None:
        """
        Fail everything that waits, because the connection is gone (defect 12.10).
        """
        pending, self._pending = self._pending, {}
        for request in pending.values():
            request.timer.cancel()
        for request in pending.values():
            error = Disconnected(f"the connection ended: {reason}")
            error.__cause__ = reason
            request.answer.errback(error)

    def _forget(self, session_id: int) -> None:
        self._take(session_id)

    def _take(self, session_id: int) -> _Request | None:
        request = self._pending.pop(session_id, None)
        if request is not None and request.timer.active():
            request.timer.cancel()
        return request

    def _time_out(self, session_id: int) -> None:
        request = self._pending[session_id]
        if request.retries > 0:
            request.retries -= 1
            request.timer = self._clock.callLater(
                request.timeout, self._time_out, session_id
            )
            self._resend(request.packet)
            return
        del self._pending[session_id]
        request.answer.errback(TimedOut(request.command, request.timeout))
