"""
One timing wheel for every deadline of a node: heartbeats, handshakes, acknowledgements.

A C{callLater} for each connection would cost a heap entry and an object per phone
(DESIGN 6). Here a waiting item is one entry in a dictionary shared by all that are due
in the same slice of time; putting it in and taking it out are constant in time, and
the clock is asked for one call at a time: the one for the earliest slice in use.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import ceil
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

_DUE = -1
"""
The C{wheel_slot} of an item whose time has come, until it is called.
"""

_STALE = 1024
"""
Emptied slices that may be remembered before they are cleaned out.
"""


class Expirable(Protocol):
    """
    Something that waits on a wheel. It waits for one thing at a time.

    @ivar wheel_slot: Owned by the wheel: where the item waits, 0 while it does not.
    """

    wheel_slot: int

    def expired(self, now: float) -> None:
        """
        The time has come; the item is no longer on the wheel.

        @param now: The clock's time in seconds.
        """
        ...


class TimingWheel:
    """
    Calls items back, never early, and late by less than one slice.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, slice_seconds: float = 0.02) -> None:
        """
        @param slice_seconds: Width of a slice: the resolution.
        """
        self._clock = clock
        self._slice = slice_seconds
        self._slots: dict[int, dict[Expirable, None]] = {}
        self._order: list[int] = []
        self._call: IDelayedCall | None = None
        self._call_slot = 0

    def __len__(self) -> int:
        return sum(map(len, self._slots.values()))

    def add(self, item: Expirable, delay_seconds: float, coarse: bool = False) -> None:
        """
        Let an item wait; one that waits already waits anew.

        @param coarse: Round up to a whole second, so that many items share a slice:
            for waits where a second more is of no concern.
        """
        if item.wheel_slot:
            self.remove(item)
        due = self._clock.seconds() + delay_seconds
        if coarse:
            due = float(ceil(due))
        slot = int(due / self._slice) + 1
        items = self._slots.get(slot)
        if items is None:
            items = self._slots[slot] = {}
            heappush(self._order, slot)
            if self._call is None or slot < self._call_slot:
                self._arm()
        items[item] = None
        item.wheel_slot = slot

    def remove(self, item: Expirable) -> None:
        """
        Let an item wait no longer; one that does not wait is left alone.
        """
        slot = item.wheel_slot
        if slot:
            item.wheel_slot = 0
            items = self._slots.get(slot)
            if items is not None:
                items.pop(item, None)
                if not items:
                    del self._slots[slot]
                    self._forget_emptied()

    def _forget_emptied(self) -> None:
        """
        Drop the numbers of slices that are empty, now and then: long waits that end
        early must not pile them up.
        """
        if len(self._order) > 2 * len(self._slots) + _STALE:
            self._order = list(self._slots)
            heapify(self._order)

    def stop(self) -> None:
        """
        Forget everything; no item is called any more.
        """
        if self._call is not None:
            self._call.cancel()
            self._call = None
        for items in self._slots.values():
            for item in items:
                item.wheel_slot = 0
        self._slots.clear()
        self._order.clear()

    def _arm(self) -> None:
        slot = self._order[0]
        delay = max(0.0, slot * self._slice - self._clock.seconds())
        if self._call is None:
            self._call = self._clock.callLater(delay, self._turn)
        else:
            self._call.reset(delay)
        self._call_slot = slot

    def _turn(self) -> None:
        self._call = None
        now = self._clock.seconds()
        current = int(now / self._slice + 1e-9)
        while self._order and self._order[0] <= current:
            items = self._slots.pop(heappop(self._order), None) or {}
            for item in items:
                item.wheel_slot = _DUE
            for item in items:
                if item.wheel_slot != _DUE:
                    # An earlier item of this slice took this one out, or made it
                    # wait anew.
                    continue
                item.wheel_slot = 0
                try:
                    item.expired(now)
                except Exception:
                    self._log.failure("a deadline raised", Failure())
        if self._order and self._call is None:
            self._arm()
