"""
The event bus of one node (server 13).

Events are delivered in posting order after the current handler has returned. No
listener disturbs the node or the others: one that raises, or whose Deferred fails, is
logged; a Deferred that does not fire is cancelled after a while, and a listener with
too many of them open misses events until it has caught up. All of that is counted.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Coroutine
from inspect import iscoroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mpush_tw.interfaces import Event, IEvents

Listener = Callable[[Event], "Deferred[None] | Coroutine[Any, Any, None] | None"]

LISTENER_SECONDS = 30.0
"""
How long a listener's Deferred may take.
"""

MAX_OPEN = 1000
"""
Deferreds of one listener that may be open at a time.
"""


class _Subscription:
    """
    One listener.

    @ivar open: Its Deferreds that have not fired.
    @ivar missing: Whether the last event was kept from it.
    """

    __slots__ = ("listener", "missing", "open")

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.open = 0
        self.missing = False


@implementer(IEvents)
class Events:
    """
    Posts events to listeners.

    @ivar posted: Events posted so far, by class name.
    @ivar failed: Listener failures so far, by class name of the event: exceptions,
        time-outs, and events that were missed.
    @ivar missed: Events that were kept from a busy listener, by class name.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._subscriptions: list[_Subscription] = []
        self._queue: deque[Event] = deque()
        self._scheduled = False
        self.posted: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()

    def subscribe(self, listener: Listener) -> None:
        """
        Add a listener; all hear every event, in the order they subscribed.
        """
        self._subscriptions.append(_Subscription(listener))

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
            for subscription in self._subscriptions:
                self._deliver(event, subscription)

    def _deliver(self, event: Event, subscription: _Subscription) -> None:
        if subscription.open >= MAX_OPEN:
            self._miss(event, subscription)
            return
        subscription.missing = False
        try:
            waiting = subscription.listener(event)
        except Exception:
            self._failed(Failure(), event)
            return
        if iscoroutine(waiting):
            waiting = Deferred.fromCoroutine(waiting)
        if isinstance(waiting, Deferred) and not (
            waiting.called and waiting.result is None
        ):
            self._await(event, subscription, waiting)

    def _await(
        self, event: Event, subscription: _Subscription, waiting: Deferred[None]
    ) -> None:
        def ended(result: object) -> None:
            subscription.open -= 1

        subscription.open += 1
        waiting.addTimeout(LISTENER_SECONDS, self._clock)
        waiting.addErrback(self._failed, event)
        waiting.addBoth(ended)

    def _miss(self, event: Event, subscription: _Subscription) -> None:
        kind = type(event).__name__
        self.missed[kind] += 1
        self.failed[kind] += 1
        if not subscription.missing:
            subscription.missing = True
            self._log.error(
                "event listener {listener!r} has {count} events under way and misses "
                "the next ones, from {event} on",
                listener=subscription.listener,
                count=subscription.open,
                event=event,
            )

    def _failed(self, failure: Failure, event: Event) -> None:
        self.failed[type(event).__name__] += 1
        self._log.failure("event listener failed on {event}", failure, event=event)
