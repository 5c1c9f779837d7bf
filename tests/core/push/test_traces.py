"""
Tests for L{mpush_tw.core.push.traces}.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.push.request import Outcome, PushRequest
from mpush_tw.core.push.traces import Traces
from tests.core.fakes import FakeListener


class TracesTests(SynchronousTestCase):
    """
    What is remembered of pushes that carry an id.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.traces = Traces(self.clock, 60, 3)

    def note(
        self,
        trace_id: str | None,
        user_id: str = "u",
        tags: tuple[str, ...] | None = None,
        outcome: Outcome = Outcome.SUCCESS,
    ) -> None:
        """
        Have a push end.
        """
        request = PushRequest(
            user_id, 1, 9, b"x", trace_id, tags, None, 0, FakeListener()
        )
        request.points.append(("success-end", 5))
        self.traces.note(request, outcome)

    def test_found(self) -> None:
        """
        A push is found by its id.
        """
        self.note("a", outcome=Outcome.OFFLINE)
        self.assertEqual(
            self.traces.find("a"),
            [
                {
                    "userId": "u",
                    "clientType": 1,
                    "outcome": "offline",
                    "points": [["success-end", 5]],
                }
            ],
        )

    def test_several(self) -> None:
        """
        Pushes that share an id are found together, the last of very many.
        """
        for number in range(40):
            self.note("a", f"u{number}")
        found = self.traces.find("a")
        self.assertEqual(len(found), 32)
        self.assertEqual(found[-1]["userId"], "u39")

    def test_without_id(self) -> None:
        """
        A push without an id is not remembered.
        """
        self.note(None)
        self.assertEqual(len(self.traces), 0)

    def test_time(self) -> None:
        """
        After a while it is forgotten.
        """
        self.note("a")
        self.clock.advance(59)
        self.assertEqual(len(self.traces.find("a")), 1)
        self.clock.advance(1)
        self.assertEqual(self.traces.find("a"), [])
        self.assertEqual(len(self.traces), 0)

    def test_number(self) -> None:
        """
        Only so many ids are kept; the oldest give way.
        """
        for name in "abcd":
            self.note(name)
        self.assertEqual(self.traces.find("a"), [])
        self.assertEqual(len(self.traces), 3)

    def test_switched_off(self) -> None:
        """
        Nothing is kept when nothing is to be kept.
        """
        self.traces = Traces(self.clock, 0, 3)
        self.note("a")
        self.assertEqual(len(self.traces), 0)

    def test_points_of_the_sender(self) -> None:
        """
        What the sender sent along of its own way stands in front; what is no milestone
        is left out.
        """
        self.note(
            "a", tags=("trace:begin=1", "vip", "trace:x", "trace:y=z", "trace:b=2")
        )
        [entry] = self.traces.find("a")
        self.assertEqual(entry["points"], [["begin", 1], ["b", 2], ["success-end", 5]])
