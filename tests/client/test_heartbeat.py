"""
Heartbeats: pings, silence, and the Java client's health check.
"""

from __future__ import annotations

from mpush_tw.client import AckModel, ClientState
from mpush_tw.protocol.commands import Command
from tests.client.support import ClientTestCase

PING = Command.HEARTBEAT


class HeartbeatTests(ClientTestCase):
    """
    The built-in timer, with a heartbeat of 100 seconds.
    """

    def setUp(self) -> None:
        super().setUp()
        self.server.heartbeat_ms = 100_000
        self.random = 0.0

    def pings(self) -> int:
        """
        How many pings the server got on the latest connection.
        """
        return len(self.server.peer.packets(PING))

    def test_idle(self) -> None:
        """
        An idle client pings every heartbeat less one second.
        """
        self.start_client()
        self.network.pass_time(98.9)
        self.assertEqual(self.pings(), 0)
        self.network.pass_time(0.1)
        self.assertEqual(self.pings(), 1)
        self.network.pass_time(98.9)
        self.assertEqual(self.pings(), 1)
        self.network.pass_time(0.1)
        self.assertEqual(self.pings(), 2)

    def test_single_byte(self) -> None:
        """
        A ping is the byte DF.
        """
        self.start_client()
        before = len(self.server.peer.raw)
        self.network.pass_time(99)
        self.assertEqual(self.server.peer.raw[before:], b"\xdf")

    def test_first_one_is_early(self) -> None:
        """
        The first ping comes up to 10 % early, so that clients that came together do not
        ping together; the ones after it keep the full distance.
        """
        self.random = 1.0
        self.start_client()
        self.network.pass_time(89.2)
        self.assertEqual(self.pings(), 1)
        self.network.pass_time(98.8)
        self.assertEqual(self.pings(), 1)
        self.network.pass_time(0.2)
        self.assertEqual(self.pings(), 2)

    def test_after_the_last_write(self) -> None:
        """
        The distance counts from whatever was written last: never further apart than the
        heartbeat, and no ping too many.
        """
        client = self.start_client()
        self.network.pass_time(50)
        client.push(b"x", AckModel.NONE)
        self.network.pass_time(98.9)
        self.assertEqual(self.pings(), 0)
        self.network.pass_time(0.2)
        self.assertEqual(self.pings(), 1)

    def test_busy_client_does_not_ping(self) -> None:
        """
        A client that writes all the time does not ping at all.
        """
        client = self.start_client()
        for _ in range(50):
            self.network.pass_time(10)
            client.push(b"x", AckModel.NONE)
        self.assertEqual(self.pings(), 0)

    def test_alive(self) -> None:
        """
        As long as the server answers the connection stays.
        """
        client = self.start_client()
        self.network.pass_time(5000)
        self.assertTrue(client.is_online)
        self.assertEqual(len(self.server.peers), 1)

    def test_silence(self) -> None:
        """
        When nothing was heard for two heartbeats and a second, the client reconnects.
        """
        self.server.silent(PING)
        client = self.start_client()
        self.network.pass_time(200.9)
        self.assertTrue(client.is_online)
        self.network.pass_time(0.1)
        self.assertEqual(
            self.listener.events[2],
            ("disconnected", "no answer to HEARTBEAT within 201 s"),
        )
        self.network.pass_time(1)
        self.assertTrue(client.is_online)
        self.assertEqual(len(self.server.peers), 2)

    def test_any_traffic_counts(self) -> None:
        """
        Whatever the server sends shows that it lives.
        """
        self.server.silent(PING)
        client = self.start_client()
        for _ in range(10):
            self.network.pass_time(150)
            self.server.peer.push(b"x")
        self.assertTrue(client.is_online)
        self.assertEqual(len(self.server.peers), 1)

    def test_dead_peer_is_aborted(self) -> None:
        """
        A connection that does not close by itself within 2 seconds is aborted.
        """
        self.start_client()
        transport = self.server.peer.transport
        transport.stuck = True
        transport.outbound = b"never taken"
        self.network.pass_time(201)
        self.assertFalse(transport.aborted)
        self.network.pass_time(2)
        self.assertTrue(transport.aborted)

    def test_short_heartbeat(self) -> None:
        """
        A heartbeat of a second is kept with two pings a second.
        """
        self.server.heartbeat_ms = 1000
        client = self.start_client()
        self.network.pass_time(10)
        self.assertEqual(self.pings(), 20)
        self.assertTrue(client.is_online)

    def test_one_timer(self) -> None:
        """
        An idle client has one timer, which sleeps until something may be due.
        """
        self.start_client()
        timers = self.network.getDelayedCalls()
        self.assertEqual([call.getTime() for call in timers], [99.0])


class HealthCheckTests(ClientTestCase):
    """
    C{health_check} for applications with a timer of their own (clients 2.10).
    """

    def setUp(self) -> None:
        super().setUp()
        self.server.heartbeat_ms = 3000
        self.client = self.make_client(auto_heartbeat=False)

    def begin(self) -> None:
        """
        Go online.
        """
        self.client.start()
        self.network.settle()

    def test_no_timer(self) -> None:
        """
        With C{auto_heartbeat} off nothing happens by itself.
        """
        self.begin()
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_without_connection(self) -> None:
        """
        Without a connection there is nothing to check.
        """
        self.assertFalse(self.client.health_check())

    def test_before_the_handshake(self) -> None:
        """
        Before the handshake the check finds nothing wrong and sends nothing.
        """
        self.server.silent(Command.HANDSHAKE)
        self.begin()
        self.network.pass_time(2)
        self.assertTrue(self.client.health_check())
        self.network.settle()
        self.assertEqual(self.server.peer.commands, [Command.HANDSHAKE])

    def test_trace_of_the_java_client(self) -> None:
        """
        With a heartbeat of 3 seconds, a check every 2.5 and a silent server: a ping, a
        miss with a ping, a second miss with a reconnect (clients 14).
        """
        self.server.silent(PING)
        self.begin()
        results = []
        for _ in range(3):
            self.network.pass_time(2.5)
            results.append(self.client.health_check())
            self.network.settle()
        self.assertEqual(results, [True, True, False])
        self.assertEqual(len(self.server.peers[0].packets(PING)), 2)
        self.assertEqual(self.client.state, ClientState.WAITING)

    def test_alive(self) -> None:
        """
        An answer in between starts the count anew.
        """
        self.begin()
        for _ in range(20):
            self.network.pass_time(2.5)
            self.assertTrue(self.client.health_check())
            self.network.settle()
        self.assertTrue(self.client.is_online)

    def test_recent_write(self) -> None:
        """
        Right after a write no ping is needed.
        """
        self.begin()
        self.network.pass_time(1.9)
        self.assertTrue(self.client.health_check())
        self.network.settle()
        self.assertEqual(self.server.peer.packets(PING), [])
