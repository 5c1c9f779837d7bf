"""
Tests for L{mpush_tw.core.push.broadcast} (server 14.7, 14.8).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.connection import Connection
from mpush_tw.core.flow import WindowFlow
from mpush_tw.core.push.broadcast import SLICE_SECONDS, Broadcast, Broadcasts
from mpush_tw.core.push.request import PushRequest
from mpush_tw.core.push.tasks import TaskControl
from mpush_tw.protocol.prepared import PreparedPush
from tests.core.fakes import Core, FakeCondition, FakeConnection, FakeListener


class BroadcastTestCase(SynchronousTestCase):
    """
    Broadcasts on a clock of their own.
    """

    def setUp(self) -> None:
        self.core = Core()
        self.clock = self.core.clock
        self.ended: list[Broadcast] = []
        self.broadcasts = Broadcasts(
            self.clock, self.core.log, self.core.metrics, self.ended.append
        )

    def users(self, count: int) -> list[FakeConnection]:
        """
        Make connections with a user each.
        """
        connections = [FakeConnection(f"d{number}") for number in range(count)]
        for number, connection in enumerate(connections):
            connection.user_id = f"u{number}"
        return connections

    def broadcast(
        self,
        connections: list[FakeConnection],
        condition: FakeCondition | None = None,
        limit: int = 1000,
        maximum: int = 100000,
        task_id: str | None = None,
        dry_run: bool = False,
    ) -> Broadcast:
        """
        Begin one.
        """
        request = PushRequest(
            None, 0, 0, b"hello", task_id, None, None, 0, FakeListener()
        )
        task = None
        if task_id is not None:
            task = TaskControl(self.core.cache, task_id, self.core.log)
        broadcast = Broadcast(
            request,
            list(connections),
            None if dry_run else PreparedPush(1, b"hello", 1000),
            condition or FakeCondition(),
            WindowFlow(self.clock, limit, maximum, 1.0),
            task,
            self.clock,
        )
        self.broadcasts.add(broadcast)
        return broadcast

    def turns(self, count: int = 50) -> None:
        """
        Let the reactor turn, without time passing.
        """
        for _ in range(count):
            self.clock.advance(0)

    def assertAddsUp(self, broadcast: Broadcast) -> None:
        """
        Every connection of the snapshot has become something, once.
        """
        counts = broadcast.counts
        self.assertEqual(
            counts.online,
            counts.filtered
            + counts.gone
            + counts.left_out
            + counts.busy
            + counts.failed
            + (counts.matched if broadcast.dry_run else counts.sent),
        )


class BroadcastTests(BroadcastTestCase):
    """
    Who gets it, and what is said of it.
    """

    def test_everybody(self) -> None:
        """
        Everybody gets it once, and its end is told once.
        """
        connections = self.users(5)
        broadcast = self.broadcast(connections)
        self.turns()
        for connection in connections:
            self.assertEqual(connection.sent, [("push", 1, 0, b"hello")])
        self.assertEqual(self.ended, [broadcast])
        self.assertEqual(broadcast.counts.sent, 5)
        self.assertAddsUp(broadcast)

    def test_nobody(self) -> None:
        """
        A broadcast to nobody ends as well.
        """
        broadcast = self.broadcast([])
        self.turns()
        self.assertEqual(self.ended, [broadcast])

    def test_not_at_once(self) -> None:
        """
        Nothing is sent in the turn in which it was asked for.
        """
        [connection] = self.users(1)
        self.broadcast([connection])
        self.assertEqual(connection.sent, [])

    def test_condition(self) -> None:
        """
        Who does not match gets nothing; the condition is closed at the end.
        """
        connections = self.users(4)
        condition = FakeCondition(lambda one: one.user_id in ("u1", "u3"))
        broadcast = self.broadcast(connections, condition)
        self.turns()
        self.assertEqual([len(one.sent) for one in connections], [0, 1, 0, 1])
        self.assertEqual((broadcast.counts.matched, broadcast.counts.filtered), (2, 2))
        self.assertEqual(condition.closed, 1)

    def test_left_meanwhile(self) -> None:
        """
        Who has left or unbound by the time gets nothing and is counted as gone.
        """
        connections = self.users(3)
        broadcast = self.broadcast(connections)
        connections[0].user_id = None
        connections[1].ended = "peer"
        self.turns()
        self.assertEqual(broadcast.counts.gone, 2)
        self.assertEqual([len(one.sent) for one in connections], [0, 0, 1])
        self.assertAddsUp(broadcast)

    def test_broken(self) -> None:
        """
        A connection that cannot be written to is counted as failed.
        """
        connections = self.users(2)
        connections[0].broken = True
        broadcast = self.broadcast(connections)
        self.turns()
        self.assertEqual((broadcast.counts.failed, broadcast.counts.sent), (1, 1))

    def test_dry_run(self) -> None:
        """
        A dry run counts who would get it and sends nothing; no limit applies.
        """
        connections = self.users(30)
        condition = FakeCondition(lambda one: one.user_id != "u0")
        broadcast = self.broadcast(connections, condition, limit=1, dry_run=True)
        self.turns()
        self.assertEqual(broadcast.counts.matched, 29)
        self.assertEqual([one.sent for one in connections], [[]] * 30)
        self.assertAddsUp(broadcast)

    def test_bug(self) -> None:
        """
        A condition that raises ends its broadcast and no other.
        """

        def fail(connection: Connection) -> bool:
            raise RuntimeError("a bug")

        bad = self.broadcast(self.users(2), FakeCondition(fail))
        good = self.broadcast(self.users(2))
        self.turns()
        self.assertEqual(self.ended, [bad, good])
        self.assertEqual(bad.reason, "failed")
        self.assertEqual(good.counts.sent, 2)


class BusyTests(BroadcastTestCase):
    """
    Connections whose buffers are full.
    """

    def test_drains(self) -> None:
        """
        One that has drained a little later gets it, once.
        """
        connections = self.users(3)
        connections[1].full = True
        broadcast = self.broadcast(connections)
        self.turns()
        self.assertEqual(self.ended, [])
        connections[1].full = False
        self.clock.advance(0.05)
        self.turns()
        self.assertEqual(self.ended, [broadcast])
        self.assertEqual([len(one.sent) for one in connections], [1, 1, 1])
        self.assertAddsUp(broadcast)

    def test_never_drains(self) -> None:
        """
        One that stays full is left out in the end and counted; the end is told once.
        """
        connections = self.users(3)
        connections[1].full = True
        broadcast = self.broadcast(connections)
        self.clock.pump([0.1] * 40)
        self.assertEqual(self.ended, [broadcast])
        self.assertEqual((broadcast.counts.busy, broadcast.counts.sent), (1, 2))
        self.assertEqual(connections[1].sent, [])
        self.assertAddsUp(broadcast)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class PaceTests(BroadcastTestCase):
    """
    How fast it goes.
    """

    def test_windows(self) -> None:
        """
        No window sees more than its limit, and the end is told after the last (S-19).
        """
        connections = self.users(7)
        broadcast = self.broadcast(connections, limit=2)
        served = []
        for _ in range(4):
            self.turns()
            served.append(sum(len(one.sent) for one in connections))
            self.clock.advance(1.0)
        self.turns()
        self.assertEqual(served, [2, 4, 6, 7])
        self.assertEqual(self.ended, [broadcast])

    def test_maximum(self) -> None:
        """
        At the maximum it ends; who was not reached is counted.
        """
        broadcast = self.broadcast(self.users(10), limit=4, maximum=6)
        self.clock.pump([0.5] * 10)
        self.assertEqual((broadcast.counts.sent, broadcast.counts.left_out), (6, 4))
        self.assertEqual(broadcast.reason, "over-maximum")
        self.assertEqual(self.ended, [broadcast])

    def test_slices(self) -> None:
        """
        One turn of the reactor sees no more work than its slice, for all together.
        """

        order: list[str] = []

        def slow(name: str) -> Callable[[PreparedPush], bool]:
            def send(message: PreparedPush) -> bool:
                self.clock.rightNow += SLICE_SECONDS / 4
                order.append(name)
                return True

            return send

        for name in ("one", "two"):
            connections = self.users(10)
            for connection in connections:
                self.patch(connection, "send_prepared", slow(name))
            self.broadcast(connections)
        self.turns()
        slices = [(name, len(list(group))) for name, group in groupby(order)]
        self.assertEqual(
            slices,
            [("one", 4), ("two", 4), ("one", 4), ("two", 4), ("one", 2), ("two", 2)],
        )

    def test_slow_condition(self) -> None:
        """
        Deciding counts as work, too: a broadcast that filters does not hold the reactor
        for all of it, and ends with the right counts.
        """
        asked: list[float] = []

        def slow(connection: Connection) -> bool:
            self.clock.rightNow += 0.0001
            asked.append(self.clock.rightNow)
            return False

        turns: list[int] = []
        broadcast = self.broadcast(self.users(1000), FakeCondition(slow))
        self.clock.callLater(0, lambda: turns.append(len(asked)))
        self.turns()
        self.assertEqual(broadcast.counts.filtered, 1000)
        self.assertLess(turns[0], 1000)

    def test_cancelled(self) -> None:
        """
        One that is cancelled ends at once and is told once.
        """
        connections = self.users(10)
        broadcast = self.broadcast(connections, limit=3)
        self.turns()
        self.broadcasts.cancel(broadcast)
        self.broadcasts.cancel(broadcast)
        self.clock.pump([1.0] * 5)
        self.assertEqual(self.ended, [broadcast])
        self.assertEqual(broadcast.reason, "cancelled")
        self.assertEqual((broadcast.counts.sent, broadcast.counts.left_out), (3, 7))

    def test_stop(self) -> None:
        """
        A node that stops ends all of them, and no timer is left.
        """
        first = self.broadcast(self.users(10), limit=3)
        self.turns()
        second = self.broadcast(self.users(10))
        self.broadcasts.stop()
        self.assertEqual(self.ended, [first, second])
        self.assertEqual([one.reason for one in self.ended], ["stop", "stop"])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.broadcasts), 0)

    @given(
        st.lists(st.sampled_from(["ok", "gone", "full", "broken", "no"]), max_size=60),
        st.integers(1, 20),
        st.integers(0, 40),
    )
    def test_adds_up(self, kinds: list[str], limit: int, maximum: int) -> None:
        """
        Whatever the connections do, the counts add up, nobody gets it twice, and the
        end is told once.
        """
        self.setUp()
        connections = self.users(len(kinds))
        for kind, connection in zip(kinds, connections, strict=True):
            connection.full = kind == "full"
            connection.broken = kind == "broken"
            if kind == "gone":
                connection.ended = "peer"
        refused = {
            one for kind, one in zip(kinds, connections, strict=True) if kind == "no"
        }
        broadcast = self.broadcast(
            connections,
            FakeCondition(lambda one: one not in refused),
            limit,
            maximum,
        )
        self.clock.pump([0.25] * 300)
        self.assertEqual(self.ended, [broadcast])
        self.assertAddsUp(broadcast)
        self.assertEqual(
            sum(len(one.sent) for one in connections), broadcast.counts.sent
        )
        self.assertLessEqual(max([len(one.sent) for one in connections], default=0), 1)


class TaskTests(BroadcastTestCase):
    """
    Control through the store.
    """

    def field(self, name: str) -> str | None:
        """
        A field of the task.
        """
        text = self.core.cache.hget("mp:ptt", name)
        return self.successResultOf(text)  # type: ignore[no-any-return]

    def served(self) -> list[str]:
        """
        The users that the task names.
        """
        users = self.core.cache.lrange("t:sui", 0, -1)
        return self.successResultOf(users)  # type: ignore[no-any-return]

    def test_counted(self) -> None:
        """
        The number sent is added to the task's, and the users are named once each.
        """
        self.core.cache.hset("mp:ptt", "sc", "10")
        self.broadcast(self.users(5), limit=2, task_id="t")
        self.clock.pump([0.5] * 10)
        self.assertEqual(self.field("sc"), "15")
        self.assertEqual(sorted(self.served()), ["u0", "u1", "u2", "u3", "u4"])

    def test_cancelled(self) -> None:
        """
        A task that is cancelled ends at the end of its window.
        """
        self.core.cache.hset("mp:ptt", "c", "1")
        broadcast = self.broadcast(self.users(7), limit=3, task_id="t")
        self.clock.pump([0.5] * 10)
        self.assertEqual((broadcast.counts.sent, broadcast.reason), (3, "cancelled"))
        self.assertEqual(self.field("sc"), "3")

    def test_new_rate(self) -> None:
        """
        A new rate counts from the next window on.
        """
        connections = self.users(20)
        self.broadcast(connections, limit=2, task_id="t")
        self.core.cache.hset("mp:ptt", "q", "15")
        self.turns()
        self.assertEqual(sum(len(one.sent) for one in connections), 2)
        self.clock.advance(1.0)
        self.turns()
        self.assertEqual(sum(len(one.sent) for one in connections), 17)

    def test_forgotten(self) -> None:
        """
        What is kept of a task vanishes some days later (C-15).
        """
        self.broadcast(self.users(2), task_id="t")
        self.turns()
        self.assertEqual(len(self.served()), 2)
        self.clock.advance(8 * 86400)
        self.assertEqual(self.served(), [])
        self.assertIsNone(self.field("sc"))

    def test_store_goes_away(self) -> None:
        """
        Without the store it goes on at its rate; what was sent is reported when the
        store is there again.
        """
        self.core.cache.hset("mp:ptt", "q", "2")
        broadcast = self.broadcast(self.users(6), limit=2, task_id="t")
        self.turns()
        self.core.cache.down = True
        self.clock.advance(1.0)
        self.turns()
        self.core.cache.down = False
        self.clock.pump([1.0] * 3)
        self.assertEqual(self.ended, [broadcast])
        self.assertEqual(broadcast.counts.sent, 6)
        self.assertEqual(self.field("sc"), "6")
        self.assertEqual(len(self.served()), 6)

    def test_never_comes_back(self) -> None:
        """
        If it does not come back the end is told all the same.
        """
        broadcast = self.broadcast(self.users(2), task_id="t")
        self.core.cache.down = True
        self.core.cache.fails.add("hincrby")
        self.turns()
        self.assertEqual(self.ended, [broadcast])
