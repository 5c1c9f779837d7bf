"""
Pushes that wait for a device's acknowledgement (server 14.3).

A wait is registered before the packet is written, so that the fastest device cannot be
too fast (D14, C-30), and under connection I{and} message id, so that nobody can
acknowledge for somebody else (S-13).
"""

from __future__ import annotations

from collections.abc import Callable

from mpush_tw.core.connection import Connection
from mpush_tw.core.push.request import PushRequest
from mpush_tw.core.wheel import TimingWheel


class PendingAck:
    """
    One wait, on the wheel and on its connection.
    """

    __slots__ = ("connection", "message_id", "owner", "request", "wheel_slot")

    def __init__(
        self,
        owner: PendingAcks,
        request: PushRequest,
        connection: Connection,
        message_id: int,
    ) -> None:
        self.owner = owner
        self.request = request
        self.connection = connection
        self.message_id = message_id
        self.wheel_slot = 0

    def expired(self, now: float) -> None:
        """
        No acknowledgement came in time.
        """
        self.owner.forget(self)
        self.owner.timed_out(self.request)


class PendingAcks:
    """
    All waits of a node.

    @ivar waiting: How many there are.
    @ivar timed_out: Called with the request whose time is up.
    """

    def __init__(
        self, wheel: TimingWheel, timed_out: Callable[[PushRequest], None]
    ) -> None:
        self._wheel = wheel
        self.timed_out = timed_out
        self.waiting = 0

    def register(
        self,
        request: PushRequest,
        connection: Connection,
        message_id: int,
        seconds: float,
    ) -> PendingAck:
        """
        Start to wait; called before the packet is written.
        """
        pending = PendingAck(self, request, connection, message_id)
        acks = connection.acks
        if acks is None:
            acks = connection.acks = {}
        acks[message_id] = pending
        self._wheel.add(pending, seconds)
        self.waiting += 1
        return pending

    def acknowledged(
        self, connection: Connection, message_id: int
    ) -> PushRequest | None:
        """
        Take the request that a device has acknowledged.

        @return: C{None} for an unknown or late number.
        """
        acks = connection.acks
        pending = acks.pop(message_id, None) if acks is not None else None
        if pending is None:
            return None
        if not acks:
            connection.acks = None
        self._wheel.remove(pending)
        self.waiting -= 1
        return pending.request

    def forget(self, pending: PendingAck) -> None:
        """
        End a wait without an outcome.
        """
        acks = pending.connection.acks
        if acks is not None and acks.pop(pending.message_id, None) is not None:
            self.waiting -= 1
            if not acks:
                pending.connection.acks = None
        self._wheel.remove(pending)

    def abandon(self, connection: Connection) -> list[PushRequest]:
        """
        End all waits of a connection that is gone.

        @return: The requests that will never be acknowledged.
        """
        acks = connection.acks
        if acks is None:
            return []
        connection.acks = None
        self.waiting -= len(acks)
        for pending in acks.values():
            self._wheel.remove(pending)
        return [pending.request for pending in acks.values()]
