"""
Pushes that the application has in hand (clients 10.3, 8 and defect 12.17).
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mpush_tw.client._connection import Connection
from mpush_tw.client.listener import as_deferred

ACK_WITHIN = 1.0
"""
Seconds after which an automatic ack is sent though the application is not done.
"""

LONGEST = 30.0
"""
Seconds after which the application's Deferred is cancelled.
"""


class Deliveries:
    """
    Counts what is unfinished and holds up reading when it is too much, so that nothing
    is dropped and nothing piles up.
    """

    __slots__ = ("_clock", "_limit", "_log", "_unfinished", "held")

    def __init__(self, clock: IReactorTime, limit: int, log: Logger) -> None:
        """
        @param limit: How many may be unfinished.
        """
        self._clock = clock
        self._limit = limit
        self._log = log
        self._unfinished = 0
        self.held: Connection | None = None

    def delivered(
        self, connection: Connection, session_id: int, auto_ack: bool, result: object
    ) -> None:
        """
        Note that the application was given a push.

        @param session_id: What an ack has to name.
        @param auto_ack: Whether to send one when the application is done.
        @param result: What the listener returned.
        """
        waiting = as_deferred(result)
        if waiting is None:
            if auto_ack:
                connection.acknowledge(session_id)
            return
        self._unfinished += 1
        if self._unfinished >= self._limit and not connection.ended:
            self.held = connection
            connection.wire.hold()
        _Delivery(self, connection, session_id, auto_ack, waiting)

    def finished(self) -> None:
        self._unfinished -= 1
        if self._unfinished < self._limit and self.held is not None:
            connection, self.held = self.held, None
            connection.wire.release()

    def connection_ended(self, connection: Connection) -> None:
        """
        There is nothing to go on reading from any more. What is unfinished still
        counts.
        """
        if self.held is connection:
            self.held = None


class _Delivery:
    """
    One push whose listener returned a Deferred.
    """

    __slots__ = ("_ack", "_connection", "_end", "_owner", "_session_id")

    def __init__(
        self,
        owner: Deliveries,
        connection: Connection,
        session_id: int,
        auto_ack: bool,
        waiting: Deferred[object],
    ) -> None:
        self._owner: Deliveries | None = owner
        self._connection = connection
        self._session_id = session_id
        clock = owner._clock
        self._ack: IDelayedCall | None = None
        if auto_ack:
            self._ack = clock.callLater(ACK_WITHIN, self._acknowledge)
        self._end = clock.callLater(LONGEST, self._overdue, waiting)
        waiting.addErrback(self._failed).addBoth(self._done)

    def _acknowledge(self) -> None:
        self._ack = None
        self._connection.acknowledge(self._session_id)

    def _done(self, _: object) -> None:
        owner, self._owner = self._owner, None
        if owner is None:
            return
        if self._end.active():
            self._end.cancel()
        if self._ack is not None:
            self._ack.cancel()
            self._acknowledge()
        owner.finished()

    def _failed(self, failure: Failure) -> None:
        if self._owner is not None and not failure.check(CancelledError):
            self._owner._log.failure("on_receive_push failed", failure=failure)

    def _overdue(self, waiting: Deferred[object]) -> None:
        if self._owner is not None:
            self._owner._log.warn(
                "on_receive_push is not done with a message after {seconds} s",
                seconds=LONGEST,
            )
        waiting.cancel()
        # Whatever the cancelling brought, this one does not count any more.
        self._done(None)
