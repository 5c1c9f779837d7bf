"""
Tests for L{mpush_tw.core.registry} (server 5, DESIGN 5b).
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.registry import Admission, Connections
from tests.core.fakes import Core, FakeConnection


class AdmissionTests(SynchronousTestCase):
    """
    Who may connect at all.
    """

    def test_total(self) -> None:
        """
        Connections beyond the maximum are refused, wherever they come from.
        """
        admission = Admission(3, 100)
        verdicts = [admission.admit(f"192.0.2.{number}") for number in range(4)]
        self.assertEqual(verdicts, [None, None, None, "max-connections"])
        self.assertEqual(admission.total, 3)

    def test_address(self) -> None:
        """
        One address may not take all places.
        """
        admission = Admission(100, 2)
        verdicts = [admission.admit("192.0.2.1") for _ in range(3)]
        self.assertEqual(verdicts, [None, None, "max-per-address"])
        self.assertIsNone(admission.admit("192.0.2.2"))

    def test_released(self) -> None:
        """
        A place that becomes free is given again.
        """
        admission = Admission(2, 1)
        admission.admit("192.0.2.1")
        admission.admit("192.0.2.2")
        admission.release("192.0.2.1")
        self.assertIsNone(admission.admit("192.0.2.1"))
        self.assertEqual(admission.admit("192.0.2.3"), "max-connections")

    def test_refused_do_not_count(self) -> None:
        """
        Those who were refused take no place.
        """
        admission = Admission(100, 1)
        admission.admit("192.0.2.1")
        for _ in range(10):
            admission.admit("192.0.2.1")
        self.assertEqual(admission.total, 1)
        admission.release("192.0.2.1")
        self.assertIsNone(admission.admit("192.0.2.1"))

    def test_addresses_are_forgotten(self) -> None:
        """
        Addresses that have left cost nothing.
        """
        admission = Admission(100, 100)
        for number in range(50):
            admission.admit(f"192.0.2.{number}")
            admission.release(f"192.0.2.{number}")
        self.assertEqual(len(admission._by_address), 0)


class ConnectionsTestCase(SynchronousTestCase):
    """
    A registry whose handshakes may take ten seconds.
    """

    max_unsecured = 1000

    def setUp(self) -> None:
        self.core = Core()
        self.clock = self.core.clock
        self.registry = Connections(
            self.core.wheel,
            self.clock,
            self.core.log,
            self.core.metrics,
            self.core.metrics.conn,
            10.0,
            self.max_unsecured,
            2,
        )

    def connect(self) -> FakeConnection:
        """
        Accept a connection.
        """
        connection = FakeConnection(None, now=self.clock.seconds())
        connection.registry = self.registry
        self.registry.add(connection)
        return connection

    def secured(self, heartbeat: float = 60.0) -> FakeConnection:
        """
        Accept a connection and let it shake hands.
        """
        connection = self.connect()
        connection.device_id = "d1"
        connection.heartbeat = heartbeat
        self.registry.secured(connection)
        return connection

    def pass_time(self, seconds: float, step: float = 0.1) -> None:
        """
        Let time pass in small steps.
        """
        for _ in range(round(seconds / step)):
            self.clock.advance(step)


class ConnectionsTests(ConnectionsTestCase):
    """
    Who is there.
    """

    def test_known(self) -> None:
        """
        A connection is known from accept to end.
        """
        connection = self.connect()
        self.assertEqual(list(self.registry), [connection])
        self.assertEqual(len(self.registry), 1)
        self.registry.remove(connection)
        self.assertEqual(list(self.registry), [])

    def test_removed_twice(self) -> None:
        """
        An end that is told twice is one end.
        """
        connection = self.connect()
        self.registry.remove(connection)
        self.registry.remove(connection)
        self.assertEqual(len(self.registry), 0)

    def test_closing_while_looking(self) -> None:
        """
        Connections may end while somebody goes through all of them.
        """
        for _ in range(5):
            self.connect()
        for connection in self.registry:
            self.registry.remove(connection)
        self.assertEqual(len(self.registry), 0)

    def test_unsecured(self) -> None:
        """
        Those before their handshake are counted.
        """
        self.connect()
        self.connect()
        self.secured()
        self.assertEqual(self.registry.unsecured, 2)

    def test_ended_before_the_handshake(self) -> None:
        """
        One that ends before its handshake leaves nothing on the wheel.
        """
        self.registry.remove(self.connect())
        self.assertEqual(self.registry.unsecured, 0)
        self.assertEqual(len(self.core.wheel), 0)

    def test_ended_after_it(self) -> None:
        """
        Neither does one that ends later.
        """
        self.registry.remove(self.secured())
        self.assertEqual(len(self.core.wheel), 0)


class HandshakeDeadlineTests(ConnectionsTestCase):
    """
    How long a handshake may take.
    """

    def test_silent(self) -> None:
        """
        A connection that says nothing is aborted when the time is over, not before.
        """
        connection = self.connect()
        self.pass_time(9.9)
        self.assertIsNone(connection.ended)
        self.pass_time(0.3)
        self.assertEqual(connection.ended, "handshake-timeout")
        self.assertTrue(connection.aborted)

    def test_whatever_trickles_in(self) -> None:
        """
        Heartbeats and other packets do not put the deadline off.
        """
        connection = self.connect()
        for _ in range(102):
            connection.last_read = self.clock.seconds()
            self.clock.advance(0.1)
        self.assertEqual(connection.ended, "handshake-timeout")

    def test_done(self) -> None:
        """
        A handshake in time lifts the deadline.
        """
        connection = self.connect()
        self.pass_time(9)
        connection.heartbeat = 60.0
        self.registry.secured(connection)
        connection.last_read = self.clock.seconds()
        self.pass_time(30)
        self.assertIsNone(connection.ended)


class HeartbeatTests(ConnectionsTestCase):
    """
    Who has gone silent (server 5.2).
    """

    def test_third_miss(self) -> None:
        """
        The third check in a row without a sign of life aborts the connection.
        """
        connection = self.secured(10.0)
        misses = []
        while connection.ended is None and self.clock.seconds() < 100:
            self.clock.advance(0.1)
            misses.append(connection.missed_heartbeats)
        self.assertEqual(connection.ended, "heartbeat")
        self.assertTrue(connection.aborted)
        self.assertEqual(sorted(set(misses)), [0, 1, 2, 3])
        self.assertEqual(self.core.metrics.heartbeat_timeouts, {"wait": 2, "close": 1})

    def test_when(self) -> None:
        """
        A silent peer is gone between 3H + 1 and 4H + 5 seconds after its last packet,
        whenever that came.
        """
        for heartbeat in (10.0, 60.0, 180.0):
            for phase in (0.0, 0.3, 0.5, 0.999):
                connection = self.secured(heartbeat)
                self.pass_time(heartbeat * phase)
                spoke = connection.last_read = self.clock.seconds()
                while connection.ended is None:
                    self.clock.advance(0.25)
                silent = self.clock.seconds() - spoke
                self.registry.remove(connection)
                self.assertGreaterEqual(silent, 3 * heartbeat + 1)
                self.assertLessEqual(silent, 4 * heartbeat + 5)

    def test_first_check(self) -> None:
        """
        However short the heartbeat, the first check does not come before ten seconds;
        from then on the heartbeat counts.
        """
        connection = self.secured(1.0)
        self.pass_time(9.9)
        self.assertEqual(connection.missed_heartbeats, 0)
        self.pass_time(1.2)
        self.assertEqual(connection.missed_heartbeats, 1)
        self.pass_time(4)
        self.assertEqual(connection.ended, "heartbeat")

    def test_alive(self) -> None:
        """
        A peer that says something in every interval stays.
        """
        connection = self.secured(10.0)
        for _ in range(30):
            self.pass_time(9, 0.5)
            connection.last_read = self.clock.seconds()
        self.assertIsNone(connection.ended)

    def test_back_to_life(self) -> None:
        """
        One sign of life makes up for two misses.
        """
        connection = self.secured(10.0)
        while connection.missed_heartbeats < 2:
            self.clock.advance(0.1)
        self.pass_time(5)
        connection.last_read = self.clock.seconds()
        self.pass_time(6.5)
        self.assertEqual(connection.missed_heartbeats, 0)
        self.assertIsNone(connection.ended)

    def test_new_interval(self) -> None:
        """
        A heartbeat that was agreed anew counts from the next check on.
        """
        connection = self.secured(10.0)
        connection.heartbeat = 100.0
        self.pass_time(150)
        self.assertIsNone(connection.ended)

    def test_tolerance_is_configured(self) -> None:
        """
        How many misses are tolerated is the operator's choice.
        """
        self.registry._max_missed = 0
        connection = self.secured(10.0)
        self.pass_time(23.5)
        self.assertEqual(connection.ended, "heartbeat")


class MaxUnsecuredTests(ConnectionsTestCase):
    """
    A crowd without handshakes (C{mp.limits.max-unsecured}).
    """

    max_unsecured = 3

    def test_oldest_gives_way(self) -> None:
        """
        One too many costs the oldest its place.
        """
        crowd = [self.connect() for _ in range(5)]
        self.assertEqual(
            [connection.ended for connection in crowd],
            ["max-unsecured", "max-unsecured", None, None, None],
        )
        self.assertEqual(self.core.metrics.conn.refused, {"max-unsecured": 2})

    def test_sessions_do_not_count(self) -> None:
        """
        Devices after their handshake neither count nor give way.
        """
        device = self.secured()
        crowd = [self.connect() for _ in range(3)]
        self.assertIsNone(device.ended)
        self.assertEqual([connection.ended for connection in crowd], [None] * 3)

    def test_ended_do_not_count(self) -> None:
        """
        Those that ended by themselves leave their place to others.
        """
        for _ in range(10):
            self.registry.remove(self.connect())
        connection = self.connect()
        self.assertIsNone(connection.ended)
        self.assertEqual(self.core.metrics.conn.refused, {})
