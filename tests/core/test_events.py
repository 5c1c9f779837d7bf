"""
Tests for L{mpush_tw.core.events} (server 13).
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, TimeoutError, fail
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.events import LISTENER_SECONDS, MAX_OPEN, Events
from mpush_tw.interfaces import ConnectionOpened, Event, ServerStarted, ServerStopping


def _opened(name: str) -> Event:
    return ConnectionOpened("conn", name)


class EventsTests(SynchronousTestCase):
    """
    Posting and hearing.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.events = Events(self.clock)
        self.heard: list[Event] = []

    def test_later(self) -> None:
        """
        An event is heard after the code that posted it has returned.
        """
        self.events.subscribe(self.heard.append)
        self.events.post(ServerStarted())
        self.assertEqual(self.heard, [])
        self.clock.advance(0)
        self.assertEqual(self.heard, [ServerStarted()])

    def test_order(self) -> None:
        """
        Events are heard in the order they were posted.
        """
        self.events.subscribe(self.heard.append)
        posted = [_opened(name) for name in "abc"]
        for event in posted:
            self.events.post(event)
        self.clock.advance(0)
        self.assertEqual(self.heard, posted)

    def test_everybody(self) -> None:
        """
        All listeners hear an event before any of them hears the next.
        """
        order: list[str] = []
        self.events.subscribe(lambda event: order.append(f"1{event}"))
        self.events.subscribe(lambda event: order.append(f"2{event}"))
        self.events.post(ServerStarted())
        self.events.post(ServerStopping())
        self.clock.advance(0)
        self.assertEqual(
            order,
            [
                "1ServerStarted()",
                "2ServerStarted()",
                "1ServerStopping()",
                "2ServerStopping()",
            ],
        )

    def test_raises(self) -> None:
        """
        A listener that raises is logged and counted; the others hear the event.
        """

        def broken(event: Event) -> None:
            raise ZeroDivisionError

        self.events.subscribe(broken)
        self.events.subscribe(self.heard.append)
        self.events.post(ServerStarted())
        self.events.post(ServerStopping())
        self.clock.advance(0)
        self.assertEqual(self.heard, [ServerStarted(), ServerStopping()])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assertEqual(self.events.failed, {"ServerStarted": 1, "ServerStopping": 1})

    def test_fails_later(self) -> None:
        """
        So is one whose Deferred fails.
        """
        self.events.subscribe(lambda event: fail(ZeroDivisionError()))
        self.events.post(ServerStarted())
        self.clock.advance(0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.events.failed, {"ServerStarted": 1})

    def test_not_waited_for(self) -> None:
        """
        Nobody waits for a listener.
        """
        self.events.subscribe(lambda event: Deferred())
        self.events.subscribe(self.heard.append)
        self.events.post(ServerStarted())
        self.clock.advance(0)
        self.assertEqual(self.heard, [ServerStarted()])

    def test_coroutine(self) -> None:
        """
        A listener may be an C{async def}; its failure is counted as well.
        """

        async def listener(event: Event) -> None:
            self.heard.append(event)
            raise ZeroDivisionError

        self.events.subscribe(listener)
        self.events.post(ServerStarted())
        self.clock.advance(0)
        self.assertEqual(self.heard, [ServerStarted()])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.events.failed, {"ServerStarted": 1})

    def test_never_answers(self) -> None:
        """
        A Deferred that does not fire is cancelled after a while, logged and counted.
        """
        cancelled: list[object] = []
        self.events.subscribe(lambda event: Deferred(cancelled.append))
        self.events.post(ServerStarted())
        self.clock.advance(0)
        self.clock.advance(LISTENER_SECONDS - 0.1)
        self.assertEqual(cancelled, [])
        self.clock.advance(0.2)
        self.assertEqual(len(cancelled), 1)
        self.assertEqual(len(self.flushLoggedErrors(TimeoutError)), 1)
        self.assertEqual(self.events.failed, {"ServerStarted": 1})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_does_not_pile_up(self) -> None:
        """
        A listener with too much open misses what comes, which is counted and said once;
        the others do not.
        """
        asked: list[Event] = []

        def hangs(event: Event) -> Deferred[None]:
            asked.append(event)
            return Deferred()

        self.events.subscribe(hangs)
        self.events.subscribe(self.heard.append)
        for number in range(MAX_OPEN + 5):
            self.events.post(_opened(str(number)))
        with capturedLogs() as logged:
            self.clock.advance(0)
        self.assertEqual(len(asked), MAX_OPEN)
        self.assertEqual(len(self.heard), MAX_OPEN + 5)
        self.assertEqual(self.events.missed, {"ConnectionOpened": 5})
        self.assertEqual(len(logged), 1)

    def test_catches_up(self) -> None:
        """
        When it has caught up it hears again.
        """
        open_ones: list[Deferred[None]] = []

        def slow(event: Event) -> Deferred[None]:
            open_ones.append(Deferred())
            return open_ones[-1]

        self.events.subscribe(slow)
        for number in range(MAX_OPEN + 1):
            self.events.post(_opened(str(number)))
        self.clock.advance(0)
        for one in open_ones:
            one.callback(None)
        self.events.post(ServerStopping())
        self.clock.advance(0)
        self.assertEqual(len(open_ones), MAX_OPEN + 1)
        self.assertEqual(self.events.missed, {"ConnectionOpened": 1})

    def test_posted_by_a_listener(self) -> None:
        """
        What a listener posts is heard by all after what was posted before.
        """

        def chatty(event: Event) -> None:
            if event == _opened("a"):
                self.events.post(_opened("c"))

        self.events.subscribe(chatty)
        self.events.subscribe(self.heard.append)
        self.events.post(_opened("a"))
        self.events.post(_opened("b"))
        self.clock.advance(0)
        self.assertEqual(self.heard, [_opened(name) for name in "abc"])

    def test_flush(self) -> None:
        """
        A node that stops has everything heard at once, and once only.
        """
        self.events.subscribe(self.heard.append)
        self.events.post(ServerStopping())
        self.events.flush()
        self.assertEqual(self.heard, [ServerStopping()])
        self.clock.advance(1)
        self.assertEqual(self.heard, [ServerStopping()])

    def test_counted(self) -> None:
        """
        Events are counted by kind.
        """
        self.events.post(ServerStarted())
        self.events.post(_opened("a"))
        self.events.post(_opened("b"))
        self.assertEqual(
            self.events.posted, {"ServerStarted": 1, "ConnectionOpened": 2}
        )
