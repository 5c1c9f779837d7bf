"""
The event bus of one node (server 13).

Events are delivered in posting order after the current handler has returned; a listener
that raises, or whose Deferred fails, is logged and does not disturb the others.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mpush_tw.interfaces import Event

Listener = Callable[[Event], "Deferred[None] | None"]


class Events:
    """
    Posts events to listeners.

    @ivar posted: Events posted so far, by class name.
    @ivar failed: Listener failures so far, by class name of the event.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._listeners: list[Listener] = []
        self._queue: deque[Event] = deque()
        self._scheduled = False
        self.posted: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()

    def subscribe(self, listener: Listener) -> None:
        """
        Add a listener; all hear every event, in the order they subscribed.
        """
        self._listeners.append(listener)

    def post(self, event: Event) -> None:
        """
        Have an event delivered in a later turn of the reactor.
        """
        self.posted[type(event).__name__] += 1
        self._queue.append(event)
        if not self._scheduled:
            self._scheduled = True
            self._clock.callLater(0, self.flush)

    def flush(self) -> None:
        """
        Deliver now what has been posted; called by the bus, and when a node stops.
        """
        self._scheduled = False
        queue = self._queue
        while queue:
            event = queue.popleft()
            for listener in self._listeners:
                try:
                    waiting = listener(event)
                except Exception:
                    self._failed(Failure(), event)
                else:
                    if waiting is not None:
                        waiting.addErrback(self._failed, event)

    def _failed(self, failure: Failure, event: Event) -> None:
        self.failed[type(event).__name__] += 1
        self._log.failure("event listener failed on {event}", failure, event=event)
