"""
Tests for L{mpush_tw.core.push.broadcast_centre} (server 14.7, 14.8).
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.push.broadcast import MAX_RUNNING
from mpush_tw.core.push.broadcast_centre import BroadcastLimits
from mpush_tw.core.push.request import Outcome, PushRequest
from mpush_tw.errors import Unavailable
from tests.core.fakes import Core, FakeConnection, FakeListener, start


class BroadcastCentreTests(SynchronousTestCase):
    """
    Requests to push to everybody.
    """

    def setUp(self) -> None:
        self.core = Core()
        self.listener = FakeListener()

    def users(self, count: int) -> list[FakeConnection]:
        """
        Bind a user each on so many devices.
        """
        connections = [FakeConnection(f"d{number}") for number in range(count)]
        for number, connection in enumerate(connections):
            binding = start(self.core.router.bind(connection, f"u{number}", None))
            self.assertTrue(self.successResultOf(binding))
        return connections

    def push(
        self,
        content: bytes | None = b"hello",
        condition: str | None = None,
        task_id: str | None = None,
    ) -> PushRequest:
        """
        Ask the push centre for a broadcast.
        """
        request = PushRequest(
            None, 0, 0, content, task_id, None, condition, 8, self.listener
        )
        self.core.centre.push(request)
        return request

    def turns(self) -> None:
        """
        Let the reactor turn.
        """
        for _ in range(5):
            self.core.clock.advance(0)

    def test_everybody(self) -> None:
        """
        Everybody gets it, without ack flags; the listener hears of the end once, with
        the counts.
        """
        connections = self.users(3)
        request = self.push()
        self.turns()
        sent = {one.sent[-1] for one in connections}
        self.assertEqual(len(sent), 1)
        [(kind, _, flags, content)] = sent
        self.assertEqual((kind, flags, content), ("push", 0, b"hello"))
        self.assertEqual(self.listener.outcomes, [Outcome.BROADCAST_COMPLETE])
        assert request.report is not None
        self.assertEqual((request.report["online"], request.report["sent"]), (3, 3))

    def test_milestones(self) -> None:
        """
        Its milestones are those of the original.
        """
        request = self.push()
        self.turns()
        self.assertEqual(
            [name for name, _ in request.points],
            ["push-center-begin", "before-send", "end"],
        )

    def test_no_content(self) -> None:
        """
        Without content it is a failure, and nobody gets anything (S-15).
        """
        [connection] = self.users(1)
        for content in (None, b""):
            self.push(content)
        self.turns()
        self.assertEqual(self.listener.outcomes, [Outcome.FAILURE] * 2)
        self.assertEqual(connection.contents, [])

    def test_condition(self) -> None:
        """
        The condition of the request decides.
        """
        connections = self.users(3)
        self.push(condition="u1")
        self.turns()
        self.assertEqual([len(one.contents) for one in connections], [0, 1, 0])

    def test_all_devices_of_a_user(self) -> None:
        """
        A user with several kinds of devices gets it on each.
        """
        phone, computer = FakeConnection("d1"), FakeConnection("d2", "mac")
        for connection in (phone, computer):
            start(self.core.router.bind(connection, "u", None))
        self.push()
        self.turns()
        self.assertEqual((len(phone.contents), len(computer.contents)), (1, 1))

    def test_binding_does_not_count(self) -> None:
        """
        A device whose bind has not been answered yet gets nothing.
        """
        self.core.cache.slow = True
        connection = FakeConnection()
        start(self.core.router.bind(connection, "u", None))
        self.push()
        self.turns()
        self.assertEqual(connection.contents, [])

    def test_limit(self) -> None:
        """
        Without a task the limits of the node hold, those of the moment it began.
        """
        connections = self.users(5)
        self.core.broadcasts.limits = BroadcastLimits(2, 100, 1.0)
        self.push()
        self.turns()
        self.assertEqual(sum(len(one.contents) for one in connections), 2)
        self.core.clock.pump([1.0, 0, 0, 1.0, 0, 0])
        self.assertEqual(sum(len(one.contents) for one in connections), 5)

    def test_rate_of_the_task(self) -> None:
        """
        With a task its own rate holds.
        """
        connections = self.users(5)
        self.core.cache.hset("mp:ptt", "q", "3")
        self.push(task_id="t")
        self.turns()
        self.assertEqual(sum(len(one.contents) for one in connections), 3)

    def test_unreadable_rate(self) -> None:
        """
        Rubbish in the task's rate counts as none, and is logged with the key's name.
        """
        self.users(5)
        self.core.cache.hset("mp:ptt", "q", "many")
        request = self.push(task_id="t")
        self.turns()
        assert request.report is not None
        self.assertEqual(request.report["sent"], 5)
        self.assertIn("unreadable rate", self.core.texts())

    def test_task_not_readable(self) -> None:
        """
        When the store is down a broadcast with a task is a failure, told at once
        (S-16).
        """
        self.users(1)
        self.core.cache.down = True
        self.push(task_id="t")
        self.assertEqual(self.listener.outcomes, [Outcome.FAILURE])

    def test_too_many(self) -> None:
        """
        Above the bound they are refused, and dry runs likewise.
        """
        self.users(1)
        for _ in range(MAX_RUNNING):
            self.push()
        self.assertEqual(self.listener.outcomes, [])
        self.push()
        self.assertEqual(self.listener.outcomes, [Outcome.FAILURE])
        question = PushRequest(None, 0, 0, None, None, None, None, 0, self.listener)
        self.failureResultOf(self.core.broadcasts.count(question), Unavailable)
        self.turns()
        self.assertEqual(len(self.listener.outcomes), MAX_RUNNING + 1)

    def test_count(self) -> None:
        """
        A dry run counts and sends nothing; no listener is told.
        """
        connections = self.users(4)
        question = PushRequest(None, 0, 0, None, None, None, "u2", 0, self.listener)
        counting = self.core.broadcasts.count(question)
        self.turns()
        dry_run = self.successResultOf(counting)
        self.assertEqual((dry_run.counts.online, dry_run.counts.matched), (4, 1))
        self.assertEqual([one.contents for one in connections], [[]] * 4)
        self.assertEqual(self.listener.outcomes, [])

    def test_stop(self) -> None:
        """
        A centre that stops ends broadcasts as failures and leaves no timer.
        """
        self.users(5)
        self.core.broadcasts.limits = BroadcastLimits(2, 100, 1.0)
        self.push()
        self.turns()
        self.core.centre.stop()
        self.assertEqual(self.listener.outcomes, [Outcome.FAILURE])
        self.assertEqual(self.core.broadcasts.running, [])

    def test_counted(self) -> None:
        """
        Results and connections are counted.
        """
        self.users(3)
        self.push(condition="u1")
        self.turns()
        metrics = self.core.metrics
        self.assertEqual(metrics.broadcast_results, {"broadcast_complete": 1})
        self.assertEqual(metrics.broadcast_connections["sent"], 1)
        self.assertEqual(metrics.broadcast_connections["filtered"], 2)

    def test_traced(self) -> None:
        """
        A broadcast with a task is remembered with its counts.
        """
        self.users(2)
        self.push(task_id="t")
        self.turns()
        [entry] = self.core.traces.find("t")
        counts = entry["counts"]
        assert isinstance(counts, dict)
        self.assertEqual((entry["userId"], counts["sent"]), (None, 2))
