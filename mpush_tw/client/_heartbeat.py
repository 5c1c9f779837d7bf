"""
Heartbeats of one connection (clients 2.10 and 10.3, 9).
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mpush_tw.client._wire import Wire
from mpush_tw.client.errors import ClientError, TimedOut
from mpush_tw.protocol.commands import Command
from mpush_tw.protocol.packet import HEARTBEAT_BYTE

# Sums of floats may come out just short of the moment that a timer was set for.
_SLACK = 0.0005


class Heartbeat:
    """
    Pings when nothing was written for a while, and tells when nothing is heard any
    more.

    There is one timer per connection. It looks whether something is due and sleeps
    until something could be; traffic does not touch it.
    """

    __slots__ = (
        "_clock",
        "_idle",
        "_interval",
        "_misses",
        "_silent",
        "_timer",
        "_wire",
    )

    def __init__(
        self, wire: Wire, clock: IReactorTime, silent: Callable[[ClientError], None]
    ) -> None:
        """
        @param silent: Called when the server must be taken for dead.
        """
        self._wire = wire
        self._clock = clock
        self._silent = silent
        self._interval = 0.0
        self._idle = 0.0
        self._misses = 0
        self._timer: IDelayedCall | None = None

    def start(self, interval: float, automatic: bool, early: float) -> None:
        """
        Begin, or begin anew with another interval.

        @param interval: The agreed heartbeat in seconds.
        @param automatic: Whether to ping and judge by ourselves.
        @param early: How much of its time the first ping comes early, 0 to 0.1. Clients
            that connected together would otherwise ping together for ever.
        """
        self._interval = interval
        self._misses = 0
        self._idle = self._longest_idle() * (1 - early)
        self.stop()
        if automatic:
            self._sleep()

    def stop(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _longest_idle(self) -> float:
        return max(self._interval - 1.0, self._interval / 2)

    def _longest_silence(self) -> float:
        return 2 * self._interval + 1.0

    def _sleep(self) -> None:
        wire = self._wire
        due = min(
            wire.last_write + self._idle, wire.last_read + self._longest_silence()
        )
        wait = max(0.0, due - self._clock.seconds())
        self._timer = self._clock.callLater(wait, self._wake)

    def _wake(self) -> None:
        wire = self._wire
        now = self._clock.seconds()
        if wire.held:
            # We do not listen, so silence proves nothing.
            wire.last_read = now
        if now + _SLACK >= wire.last_read + self._longest_silence():
            self._silent(TimedOut(Command.HEARTBEAT, self._longest_silence()))
            return
        if now + _SLACK >= wire.last_write + self._idle:
            self.ping()
        self._sleep()

    def ping(self) -> None:
        """
        Send the heartbeat byte. Not into a network that takes no more: what is queued
        there will show the server that we live, if it ever gets it.
        """
        wire = self._wire
        self._idle = self._longest_idle()
        if wire.choked:
            wire.last_write = self._clock.seconds()
        elif not wire.closed:
            wire.write(HEARTBEAT_BYTE)

    def check(self) -> bool:
        """
        The Java client's health check, for applications with a timer of their own:
        the second check in a row that comes later than the heartbeat and a second after
        the last byte finds the server dead. Before the handshake there is nothing to
        check.

        @return: Whether the connection goes on.
        """
        wire = self._wire
        if wire.closed:
            return False
        if not self._interval:
            return True
        now = self._clock.seconds()
        if wire.held or now - wire.last_read <= self._interval + 1.0:
            self._misses = 0
        else:
            self._misses += 1
        if self._misses >= 2:
            self._silent(TimedOut(Command.HEARTBEAT, now - wire.last_read))
            return False
        if now - wire.last_write > self._longest_idle():
            self.ping()
        return True
