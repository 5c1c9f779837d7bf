"""
A pool of connections, by the clock.
"""

from __future__ import annotations

import itertools
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.config.settings import RedisPoolSettings
from mpush_tw.errors import Unavailable
from mpush_tw.integrations.redis._commands import Command
from mpush_tw.integrations.redis._pool import (
    ATTEMPT_TIMEOUT,
    Away,
    Pool,
    PoolLimits,
)
from tests.integrations.redis.fakes import FakeServer, lose, sent, transport_of


class PoolTestCase(SynchronousTestCase):
    """
    A pool whose attempts wait for the test.
    """

    limits = PoolLimits()
    follows = False

    def setUp(self) -> None:
        self.clock = Clock()
        self.server = FakeServer(self.clock)
        self.events: list[str] = []
        self.pool = self.make(self.limits)

    def make(self, limits: PoolLimits) -> Pool:
        """
        Make a pool that notes when its server is lost and back.
        """
        return Pool(
            "Redis at 10.0.0.1:6379",
            "store",
            self.server.dial,
            limits,
            self.clock,
            lost=lambda: self.events.append("lost"),
            back=lambda: self.events.append("back"),
            follows=self.follows,
        )

    def start(self) -> None:
        """
        Start it, and have all its first connections made.
        """
        started = self.pool.start()
        for _ in range(self.limits.kept):
            self.server.accept()
        self.successResultOf(started)

    def get(self, repeatable: bool = True) -> Deferred[Any]:
        """
        Send a command.
        """
        return self.pool.execute(Command(("GET", "k"), "k", repeatable))

    def steady(self) -> None:
        """
        Let connections last long enough to count as good ones.
        """
        self.clock.advance(1.5)

    def lose_all(self) -> None:
        """
        End all connections.
        """
        for connection in self.server.connections:
            lose(connection)
        self.server.connections.clear()

    def answer_ping(self, index: int) -> None:
        """
        Have a connection answer to the PING that it was sent.
        """
        connection = self.server.connections[index]
        self.assertIn(b"PING", sent(connection))
        connection.dataReceived(b"+PONG\r\n")


class StartTests(PoolTestCase):
    """
    Start and stop.
    """

    def test_starts(self) -> None:
        """
        It is started with its first connection.
        """
        started = self.pool.start()
        self.assertNoResult(started)
        self.server.accept()
        self.successResultOf(started)
        self.assertTrue(self.pool.up)

    def test_refused(self) -> None:
        """
        When the first attempt fails, so does the start, with its reason, and nothing
        goes on.
        """
        started = self.pool.start()
        self.server.refuse(Unavailable("no way"))
        self.assertEqual(
            str(self.failureResultOf(started, Unavailable).value), "no way"
        )
        self.clock.advance(100)
        self.assertEqual(self.server.dials, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_end(self) -> None:
        """
        An attempt without an end is ended.
        """
        started = self.pool.start()
        self.clock.advance(ATTEMPT_TIMEOUT)
        error = self.failureResultOf(started, Unavailable).value
        self.assertIn("did not answer within 4.5 s", str(error))

    def test_bug(self) -> None:
        """
        An attempt that fails with what nobody expects is logged, and a failed attempt.
        """
        started = self.pool.start()
        self.server.refuse(ZeroDivisionError())
        self.failureResultOf(started, Unavailable)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_started_twice(self) -> None:
        """
        Starting twice is starting.
        """
        self.start()
        self.successResultOf(self.pool.start())
        self.assertEqual(self.server.dials, [])

    def test_stopped_meanwhile(self) -> None:
        """
        A stop ends the attempt, and the start fails.
        """
        started = self.pool.start()
        self.successResultOf(self.pool.stop())
        self.assertTrue(self.server.dials[0].called)
        self.failureResultOf(started, Unavailable)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop(self) -> None:
        """
        A stop waits for outstanding answers; what comes later fails.
        """
        self.start()
        call = self.get()
        stopped = self.pool.stop()
        self.failureResultOf(self.get(), Away)
        self.assertNoResult(stopped)
        self.server.connections[0].dataReceived(b"+1\r\n")
        self.clock.advance(0)
        self.successResultOf(stopped)
        self.assertEqual(self.successResultOf(call), "1")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.events, [])

    def test_stop_while_waiting(self) -> None:
        """
        Commands that wait for a connection fail when it stops.
        """
        self.start()
        self.lose_all()
        call = self.get()
        self.successResultOf(self.pool.stop())
        self.failureResultOf(call, Away)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class ReconnectTests(PoolTestCase):
    """
    Connections that are lost.
    """

    def test_at_once(self) -> None:
        """
        After a connection that lasted, the first attempt is made at once.
        """
        self.start()
        self.steady()
        self.lose_all()
        self.assertEqual(len(self.server.dials), 1)

    def test_short_lived(self) -> None:
        """
        A server that accepts and then hangs up is not hammered.
        """
        self.start()
        attempts = 0
        for _ in range(600):
            self.lose_all()
            self.clock.advance(0.05)
            if self.server.dials:
                attempts += 1
                self.server.accept()
        self.assertTrue(5 < attempts < 16, attempts)

    def test_back_off(self) -> None:
        """
        Attempts become rarer, from a tenth of a second to five.
        """
        self.start()
        self.steady()
        self.lose_all()
        pauses = []
        for _ in range(10):
            self.server.refuse(Unavailable("no"))
            before = self.clock.seconds()
            while not self.server.dials:
                self.clock.advance(0.01)
            pauses.append(self.clock.seconds() - before)
        self.assertTrue(0.07 < pauses[0] <= 0.12, pauses)
        self.assertTrue(all(3.7 < pause <= 5.02 for pause in pauses[-3:]), pauses)
        for short, long in itertools.pairwise(pauses[:5]):
            self.assertLess(short, long)

    def test_commands_wait(self) -> None:
        """
        While the first attempt is under way commands wait, and go out together.
        """
        self.start()
        self.steady()
        self.lose_all()
        calls = [self.get() for _ in range(3)]
        connection = self.server.accept()
        self.assertEqual(sent(connection).count(b"GET"), 3)
        connection.dataReceived(b"+1\r\n+2\r\n+3\r\n")
        self.assertEqual(
            [self.successResultOf(call) for call in calls], ["1", "2", "3"]
        )

    def test_commands_do_not_wait_for_long(self) -> None:
        """
        They wait two seconds each, not longer.
        """
        self.start()
        self.steady()
        self.lose_all()
        first = self.get()
        self.clock.advance(1)
        second = self.get()
        self.clock.advance(1)
        self.failureResultOf(first, Away)
        self.assertNoResult(second)
        self.clock.advance(1)
        self.failureResultOf(second, Away)

    def test_cancelled_while_waiting(self) -> None:
        """
        A command that was given up while it waited is not sent.
        """
        self.start()
        self.steady()
        self.lose_all()
        given_up, kept = self.get(), self.get()
        given_up.cancel()
        self.failureResultOf(given_up, CancelledError)
        connection = self.server.accept()
        self.assertEqual(sent(connection).count(b"GET"), 1)
        connection.dataReceived(b"+1\r\n")
        self.assertEqual(self.successResultOf(kept), "1")

    def test_commands_fail_at_once(self) -> None:
        """
        After an attempt that failed, those that wait fail, and later ones do so at
        once, until there is a connection.
        """
        self.start()
        self.steady()
        self.lose_all()
        waiting = self.get()
        self.server.refuse(Unavailable("no"))
        self.assertEqual(str(self.failureResultOf(waiting, Away).value), "no")
        error = self.failureResultOf(self.get(), Away).value
        self.assertAlmostEqual(error.retry_after, 0.1)
        self.clock.advance(1)
        self.failureResultOf(self.get(), Away)
        self.server.accept()
        self.assertNoResult(self.get())

    def test_lost_twice(self) -> None:
        """
        A command is repeated once, not more often.
        """
        self.start()
        self.steady()
        call = self.get()
        self.lose_all()
        self.assertIn(b"GET", sent(self.server.accept()))
        self.steady()
        self.lose_all()
        self.failureResultOf(call, Unavailable)

    def test_not_repeatable(self) -> None:
        """
        One that must not be run twice is not repeated.
        """
        self.start()
        self.steady()
        call = self.get(repeatable=False)
        self.lose_all()
        error = self.failureResultOf(call, Unavailable).value
        self.assertNotIsInstance(error, Away)
        self.assertIn("Redis at 10.0.0.1:6379 gave no answer to GET", str(error))

    def test_timed_out(self) -> None:
        """
        One that has waited for two seconds in vain is not made to wait longer.
        """
        self.start()
        call = self.get()
        self.clock.pump([0.1] * 22)
        error = self.failureResultOf(call, Unavailable).value
        self.assertIn("did not answer within 2 s", str(error))

    def test_too_many(self) -> None:
        """
        Commands that wait are counted as well.
        """
        self.start()
        self.steady()
        self.lose_all()
        calls = [self.get() for _ in range(50_000)]
        self.failureResultOf(self.get(), Away)
        self.successResultOf(self.pool.stop())
        for call in calls:
            self.failureResultOf(call, Away)


class LostTests(PoolTestCase):
    """
    When the server counts as lost, and as back.
    """

    limits = PoolLimits(kept=2, most=2)

    def test_all(self) -> None:
        """
        It is lost when all connections are, and back with the first.
        """
        self.start()
        self.answer_ping(0)
        self.steady()
        self.lose_all()
        self.assertEqual(self.events, ["lost"])
        self.server.accept()
        self.assertEqual(self.events, ["lost", "back"])
        self.server.accept()
        self.assertEqual(self.events, ["lost", "back"])

    def test_one(self) -> None:
        """
        It is not when another connection is to the same server.
        """
        self.start()
        self.answer_ping(0)
        self.steady()
        lose(self.server.connections[1])
        self.server.accept()
        self.answer_ping(0)
        self.clock.advance(1)
        self.assertEqual(self.events, [])

    def test_remaining_one_is_dead(self) -> None:
        """
        When one connection is made anew, and the other turns out to be to a server that
        is no more, there was a restart: it was lost and is back.
        """
        self.start()
        self.answer_ping(0)
        self.steady()
        lose(self.server.connections[0])
        self.server.accept()
        # The second connection never says a word again.
        self.clock.pump([0.1] * 25)
        self.assertEqual(self.events, ["lost", "back"])
        self.assertTrue(self.pool.up)

    def test_remaining_ones_are_dead(self) -> None:
        """
        However many they are, all are asked at once.
        """
        self.pool = self.make(PoolLimits(kept=4, most=4))
        started = self.pool.start()
        for _ in range(4):
            self.server.accept()
        self.successResultOf(started)
        for _ in range(3):
            self.server.connections[0].dataReceived(b"+PONG\r\n")
        self.steady()
        lose(self.server.connections[0])
        self.server.accept()
        self.clock.pump([0.1] * 25)
        self.assertEqual(self.events, ["lost", "back"])

    def test_long_outage(self) -> None:
        """
        However many attempts fail, it is lost once and back once.
        """
        self.start()
        self.answer_ping(0)
        self.steady()
        self.lose_all()
        for _ in range(5):
            self.server.refuse(Unavailable("no"))
            self.clock.advance(6)
        self.server.accept()
        self.assertEqual(self.events, ["lost", "back"])

    def test_never_reached(self) -> None:
        """
        One that is opened, not started, is lost when its first attempt fails, and goes
        on.
        """
        tried = self.pool.open()
        self.server.refuse(Unavailable("no"))
        self.assertEqual(self.successResultOf(tried), "no")
        self.assertEqual(self.events, ["lost"])
        self.clock.advance(1)
        self.server.accept()
        self.assertEqual(self.events, ["lost", "back"])


class GrowthTests(PoolTestCase):
    """
    More connections under load.
    """

    limits = PoolLimits(kept=1, most=3)

    def load(self, count: int) -> None:
        """
        Send many commands.
        """
        for _ in range(count):
            self.get().addErrback(lambda failure: failure.trap(Unavailable))

    def test_grows(self) -> None:
        """
        Another connection is made when a thousand answers are outstanding on each, and
        the least loaded one is used.
        """
        self.start()
        self.load(1000)
        self.assertEqual(self.server.dials, [])
        self.load(1)
        second = self.server.accept()
        self.load(50)
        self.assertEqual(sent(second).count(b"GET"), 50)
        self.assertEqual(self.server.dials, [])

    def test_has_an_end(self) -> None:
        """
        There are never more than the settings say.
        """
        self.start()
        for _ in range(10):
            self.load(2000)
            while self.server.dials:
                self.server.accept()
        self.assertEqual(len(self.server.connections), 3)

    def test_does_not_succeed(self) -> None:
        """
        When no more are to be had, those that are there go on.
        """
        self.start()
        self.load(1001)
        self.server.refuse(Unavailable("too many clients"))
        self.assertEqual(self.events, [])
        self.load(1)
        self.assertEqual(sent(self.server.connections[0]).count(b"GET"), 1002)

    def test_shrinks(self) -> None:
        """
        After an outage it begins with those that are kept.
        """
        self.start()
        self.load(1001)
        self.server.accept()
        self.clock.advance(1.5)
        self.lose_all()
        self.server.accept()
        self.assertEqual(self.server.dials, [])


class FollowTests(PoolTestCase):
    """
    A pool whose server may change.
    """

    follows = True

    def test_leave(self) -> None:
        """
        A server that is left gets no more commands, but may answer those it has.
        """
        self.start()
        self.steady()
        call = self.get()
        self.pool.leave(lambda address: False)
        self.assertEqual(self.events, ["lost"])
        later = self.get()
        old, new = self.server.connections[0], self.server.accept()
        self.assertEqual(sent(old).count(b"GET"), 1)
        self.assertEqual(sent(new).count(b"GET"), 1)
        old.dataReceived(b"+old\r\n")
        new.dataReceived(b"+new\r\n")
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(call), "old")
        self.assertEqual(self.successResultOf(later), "new")
        self.assertTrue(transport_of(old).gone)
        self.assertEqual(self.events, ["lost", "back"])

    def test_stay(self) -> None:
        """
        A server that may stay is not left.
        """
        self.start()
        self.pool.leave(lambda address: address == self.server.address)
        self.assertEqual((self.events, self.server.dials), ([], []))

    def test_read_only(self) -> None:
        """
        One that says it is read-only is left, and the command goes to the next,
        whatever it is.
        """
        self.start()
        self.steady()
        call = self.get(repeatable=False)
        self.server.connections[0].dataReceived(b"-READONLY no\r\n")
        connection = self.server.accept()
        connection.dataReceived(b"+1\r\n")
        self.assertEqual(self.successResultOf(call), "1")


class LimitsTests(SynchronousTestCase):
    """
    The settings of a pool.
    """

    def limits(self, **settings: Any) -> tuple[int, int, float]:
        limits = PoolLimits.of(RedisPoolSettings(**settings))
        return limits.kept, limits.most, limits.wait

    def test_default(self) -> None:
        """
        One connection is kept, eight there may be.
        """
        self.assertEqual(self.limits(), (1, 8, 2.0))

    def test_bounds(self) -> None:
        """
        At least one is kept, at most as many as there may be; no wait is longer than
        two seconds.
        """
        self.assertEqual(self.limits(min_idle=0, max_wait_millis=-1), (1, 8, 2.0))
        self.assertEqual(self.limits(min_idle=9, max_total=3), (3, 3, 2.0))
        self.assertEqual(self.limits(max_wait_millis=500), (1, 8, 0.5))

    def test_no_wait(self) -> None:
        """
        Who must not block does not wait.
        """
        self.assertEqual(self.limits(block_when_exhausted=False), (1, 8, 0.0))
