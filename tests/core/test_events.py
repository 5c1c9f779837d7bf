"""
Tests for L{mpush_tw.core.events} (server 13).
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.events import Events
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
