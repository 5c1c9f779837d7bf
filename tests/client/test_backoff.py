"""
Tests for L{mpush_tw.client.backoff}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.client.backoff import CompatBackoff, StandardBackoff


class StandardBackoffTests(SynchronousTestCase):
    """
    Exponential waits with full jitter.
    """

    def test_first_attempt_is_immediate(self) -> None:
        """
        A client that is started connects without waiting.
        """
        self.assertEqual(StandardBackoff(lambda: 0.99).next_delay(), 0)

    def test_upper_bounds_double_up_to_a_minute(self) -> None:
        """
        With the unluckiest random numbers the waits are 1, 2, 4 .. 60, 60 seconds.
        """
        backoff = StandardBackoff(lambda: 1.0)
        delays = [backoff.next_delay() for _ in range(10)]
        self.assertEqual(delays, [0, 1, 2, 4, 8, 16, 32, 60, 60, 60])

    def test_whole_range_is_used(self) -> None:
        """
        The jitter is full: the luckiest client waits for nothing at all.
        """
        backoff = StandardBackoff(lambda: 0.0)
        self.assertEqual([backoff.next_delay() for _ in range(5)], [0, 0, 0, 0, 0])

    def test_no_lifetime_limit(self) -> None:
        """
        The client of a server that is gone for months goes on trying (defect 12.3).
        """
        backoff = StandardBackoff(lambda: 0.5)
        for _ in range(100_000):
            delay = backoff.next_delay()
        self.assertEqual(delay, 30)

    def test_settled_connection_begins_anew(self) -> None:
        """
        After a connection that lasted 10 seconds the next wait is 0 to 1 second.
        """
        backoff = StandardBackoff(lambda: 1.0)
        for _ in range(6):
            backoff.next_delay()
        backoff.connection_ended(10.0, False)
        self.assertEqual([backoff.next_delay(), backoff.next_delay()], [1, 2])

    def test_short_connection_does_not(self) -> None:
        """
        A server that drops its clients after the handshake is not hammered (12.1).
        """
        backoff = StandardBackoff(lambda: 1.0)
        for _ in range(4):
            backoff.next_delay()
        backoff.connection_ended(9.9, False)
        self.assertEqual(backoff.next_delay(), 8)

    def test_connection_without_handshake_does_not(self) -> None:
        """
        A mere TCP connect proves nothing about the server.
        """
        backoff = StandardBackoff(lambda: 1.0)
        for _ in range(4):
            backoff.next_delay()
        backoff.connection_ended(None, False)
        self.assertEqual(backoff.next_delay(), 8)

    def test_refused_bind_does_not(self) -> None:
        """
        However slowly the server refuses a bind, it does not count as success.
        """
        backoff = StandardBackoff(lambda: 1.0)
        for _ in range(4):
            backoff.next_delay()
        backoff.connection_ended(100.0, True)
        self.assertEqual(backoff.next_delay(), 8)


class CompatBackoffTests(SynchronousTestCase):
    """
    The Java client's table (clients 2.5).
    """

    def test_table(self) -> None:
        """
        Twice at once, then 3 to 10 seconds, then 10 minutes, then from the beginning.
        """
        backoff = CompatBackoff()
        cycle = [0.0, 0.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 600.0]
        delays = [backoff.next_delay() for _ in range(22)]
        self.assertEqual(delays, cycle + cycle)

    def test_handshake_begins_anew(self) -> None:
        """
        After a handshake the next attempt is made at once.
        """
        backoff = CompatBackoff()
        for _ in range(5):
            backoff.next_delay()
        backoff.connection_ended(0.1, False)
        self.assertEqual(backoff.next_delay(), 0)

    def test_tcp_connect_does_not(self) -> None:
        """
        Unlike in the Java client, a server that accepts and closes is not hammered.
        """
        backoff = CompatBackoff()
        for _ in range(5):
            backoff.next_delay()
        backoff.connection_ended(None, False)
        self.assertEqual(backoff.next_delay(), 6)

    def test_refused_bind_does_not(self) -> None:
        """
        Nor is one that refuses the user.
        """
        backoff = CompatBackoff()
        for _ in range(5):
            backoff.next_delay()
        backoff.connection_ended(1.0, True)
        self.assertEqual(backoff.next_delay(), 6)
