"""
Publish and subscribe within one process.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mpush_tw.interfaces import IMessageQueue


@implementer(IMessageQueue)
class MemoryQueue:
    """
    Delivers in a later turn of the reactor, as a queue between processes would.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._receivers: dict[str, Callable[[str, str], None]] = {}

    def start(self) -> Deferred[None]:
        return succeed(None)

    def stop(self) -> Deferred[None]:
        self._receivers.clear()
        return succeed(None)

    def on_restored(self, listener: Callable[[], None]) -> None:
        """
        Never called: memory does not go away.
        """

    def publish(self, topic: str, text: str) -> Deferred[None]:
        if topic in self._receivers:
            self._clock.callLater(0, self._deliver, topic, text)
        return succeed(None)

    def subscribe(
        self, topic: str, receiver: Callable[[str, str], None]
    ) -> Deferred[None]:
        self._receivers[topic] = receiver
        return succeed(None)

    def unsubscribe(self, topic: str) -> Deferred[None]:
        self._receivers.pop(topic, None)
        return succeed(None)

    def _deliver(self, topic: str, text: str) -> None:
        receiver = self._receivers.get(topic)
        if receiver is not None:
            try:
                receiver(topic, text)
            except Exception:
                self._log.failure("receiver of {topic} failed", Failure(), topic=topic)
