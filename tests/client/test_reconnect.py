"""
Getting a connection, losing it, and coming back.
"""

from __future__ import annotations

from typing import Any

from mpush_tw.client import ClientState, Disconnected, TooManyPending
from mpush_tw.protocol.commands import Command
from tests.client.support import ClientTestCase, FakePeer, Received

A, B, C = (("10.0.0.1", 3000), ("10.0.0.2", 3000), ("10.0.0.3", 3000))
MORE = ("10.0.0.2:3000", "10.0.0.3:3000")


class ServerListTests(ClientTestCase):
    """
    Several servers, tried in order.
    """

    def test_first_one(self) -> None:
        """
        The first server is taken if it is there.
        """
        self.start_client(servers=MORE)
        self.assertEqual(self.network.attempts, [A])

    def test_next_one(self) -> None:
        """
        Servers that refuse are passed over at once.
        """
        self.network.down |= {A, B}
        client = self.start_client(servers=MORE)
        self.assertEqual(self.network.attempts, [A, B, C])
        self.assertTrue(client.is_online)

    def test_silent_one(self) -> None:
        """
        One that does not answer costs C{connect_timeout} (defect 12.13).
        """
        self.network.black_holes.add(A)
        client = self.start_client(servers=MORE, connect_timeout=2)
        self.network.pass_time(1.9)
        self.assertEqual(self.network.attempts, [A])
        self.network.pass_time(0.1)
        self.assertEqual(self.network.attempts, [A, B])
        self.assertTrue(client.is_online)
        self.assertTrue(self.network.connectors[0].stoppedConnecting)

    def test_working_one_stays_in_front(self) -> None:
        """
        After a loss the server that worked last is tried first.
        """
        self.network.down.add(A)
        self.start_client(servers=MORE)
        self.server.peer.close()
        self.network.pass_time(1)
        self.assertEqual(self.network.attempts, [A, B, B])

    def test_silent_handshake_goes_to_the_end(self) -> None:
        """
        A server that accepts and does not shake hands is tried last the next time.
        """
        self.server.silent(Command.HANDSHAKE)
        self.start_client(servers=MORE)
        self.network.pass_time(3 + 1)
        self.assertEqual(self.network.attempts, [A, B])

    def test_nobody(self) -> None:
        """
        When all have failed the client waits, and begins at the front.
        """
        self.network.down |= {A, B, C}
        client = self.start_client(servers=MORE)
        self.assertEqual(client.state, ClientState.WAITING)
        self.assertEqual(self.listener.events, [])
        self.network.pass_time(0.6)
        self.assertEqual(self.network.attempts, [A, B, C, A, B, C])

    def test_broken_way(self) -> None:
        """
        A server to which there is no way at all, for want of a PEM file, is a server
        that cannot be reached.
        """
        client = self.start_client(tls=True, verify_tls=self.mktemp())
        self.assertEqual(client.state, ClientState.WAITING)


class BackoffTests(ClientTestCase):
    """
    When the client comes back.
    """

    def setUp(self) -> None:
        super().setUp()
        self.random = 1.0

    def attempts_within(self, seconds: float) -> int:
        """
        How many attempts are made in this time from now.
        """
        before = len(self.network.attempts)
        self.network.pass_time(seconds)
        return len(self.network.attempts) - before

    def test_exponential(self) -> None:
        """
        A server that is down is asked after 1, 2, 4 seconds more, and so on.
        """
        self.network.down.add(A)
        self.start_client()
        counts = [self.attempts_within(seconds) for seconds in (1, 2, 4, 8, 16, 32, 60)]
        self.assertEqual(counts, [1] * 7)

    def test_jitter(self) -> None:
        """
        The wait is a random part of that.
        """
        self.network.down.add(A)
        self.start_client()
        self.network.pass_time(1)
        self.random = 0.25
        self.network.pass_time(2)
        # The wait of 2 seconds was drawn before; the one of 4 is a quarter of it.
        self.assertEqual(self.attempts_within(1), 1)

    def test_first_retry_is_quick(self) -> None:
        """
        A client that was online for long is back within a second.
        """
        client = self.start_client()
        self.network.pass_time(100)
        self.server.peer.close()
        self.network.pass_time(1)
        self.assertTrue(client.is_online)

    def test_loop_of_handshakes(self) -> None:
        """
        A server that shakes hands and closes does not get a storm (defect 12.1).
        """

        def shake_and_close(peer: FakePeer, got: Received) -> None:
            self.server.shake_hands(peer, got)
            peer.close()

        self.server.answers[Command.HANDSHAKE] = shake_and_close
        self.server.answers[Command.FAST_CONNECT] = lambda peer, _: peer.close()
        self.start_client()
        self.assertEqual(self.attempts_within(63), 6)

    def test_settled(self) -> None:
        """
        A connection that lasted 10 seconds makes the waits short again.
        """
        self.network.down.add(A)
        client = self.start_client()
        self.network.pass_time(1 + 2 + 4)
        self.network.down.clear()
        self.network.pass_time(8 + 10)
        self.assertTrue(client.is_online)
        self.server.peer.close()
        self.assertEqual(self.attempts_within(1), 1)

    def test_compat(self) -> None:
        """
        In the compatible mode the table of the Java client holds.
        """
        self.network.down.add(A)
        self.start_client(reconnect="compat")
        self.assertEqual(len(self.network.attempts), 2)
        counts = [self.attempts_within(seconds) for seconds in range(3, 11)]
        self.assertEqual(counts, [1] * 8)
        self.assertEqual(self.attempts_within(599), 0)
        self.assertEqual(self.attempts_within(1), 3)

    def test_compat_after_a_handshake(self) -> None:
        """
        There a lost session is repaired without any wait.
        """
        client = self.start_client(reconnect="compat")
        self.server.peer.close()
        self.network.settle()
        self.assertTrue(client.is_online)
        self.assertEqual(len(self.network.attempts), 2)

    def test_start_begins_anew(self) -> None:
        """
        Stop and start end every wait.
        """
        self.network.down.add(A)
        client = self.start_client()
        self.network.pass_time(200)
        client.stop()
        client.start()
        self.network.settle()
        self.assertEqual(self.attempts_within(1), 1)


class DisconnectTests(ClientTestCase):
    """
    C{on_disconnected}: once for each connection, whoever ended it (defect 12.2).
    """

    def test_server_closes(self) -> None:
        """
        The server closed.
        """
        self.start_client()
        self.server.peer.close()
        self.network.settle()
        self.assertEqual(
            self.listener.named("connected", "disconnected"),
            [("connected",), ("disconnected", "the server closed the connection")],
        )

    def test_connection_breaks(self) -> None:
        """
        The network broke.
        """
        self.start_client()
        self.server.peer.transport.lose(ConnectionResetError("reset by peer"))
        self.network.settle()
        self.assertEqual(
            self.listener.named("disconnected"), [("disconnected", "reset by peer")]
        )

    def test_client_stops(self) -> None:
        """
        The client was stopped: told at once, and not again when the socket closes.
        """
        client = self.start_client()
        client.stop()
        self.assertEqual(len(self.listener.named("disconnected")), 1)
        self.network.pass_time(5)
        self.assertEqual(len(self.listener.named("disconnected")), 1)

    def test_told_before_the_next_connection(self) -> None:
        """
        The end of one connection comes before the beginning of the next, also without
        a wait between them.
        """
        self.start_client(reconnect="compat")
        self.server.peer.close()
        self.network.settle()
        names = [event[0] for event in self.listener.named("connected", "disconnected")]
        self.assertEqual(names, ["connected", "disconnected", "connected"])

    def test_old_connection_is_ignored(self) -> None:
        """
        What still comes from a connection that was given up reaches nobody, and its end
        does not touch the new one (defect 12.1).
        """
        self.server.silent(Command.BIND)
        client = self.start_client(user_id="u")
        old = self.server.peer
        old.transport.stuck = True
        old.transport.outbound = b"unsent"
        self.network.pass_time(7)
        self.assertIsNot(self.server.peer, old)
        old.transport.disconnecting = False
        old.push(b"late")
        old.transport.turn()
        old.transport.lose(ConnectionError())
        self.network.settle()
        self.assertEqual(self.listener.named("push"), [])
        self.assertTrue(client.is_online)
        self.assertEqual(len(self.listener.named("disconnected")), 1)

    def test_listener_stops(self) -> None:
        """
        A listener that stops the client there has it stopped.
        """
        client = self.make_client()

        def stop(_: object) -> None:
            client.stop()

        self.listener.on_disconnected = stop  # type: ignore[method-assign]
        client.start()
        self.network.settle()
        self.server.peer.close()
        self.network.pass_time(100)
        self.assertEqual(client.state, ClientState.STOPPED)
        self.assertEqual(len(self.network.attempts), 1)

    def test_listener_restarts(self) -> None:
        """
        One that stops and starts it there gets one new connection, at once.
        """
        client = self.make_client()

        def restart(_: object) -> None:
            client.stop()
            client.start()

        self.listener.on_disconnected = restart  # type: ignore[method-assign]
        client.start()
        self.network.settle()
        self.server.peer.close()
        self.network.settle()
        self.assertTrue(client.is_online)
        self.network.pass_time(100)
        self.assertEqual(len(self.network.attempts), 2)
        self.listener.on_disconnected = lambda _: None  # type: ignore[method-assign]


class StartStopTests(ClientTestCase):
    """
    The life of a client.
    """

    def test_new_one_is_stopped(self) -> None:
        """
        A client does nothing before it is started.
        """
        client = self.make_client(user_id="u")
        self.network.pass_time(10)
        self.assertEqual(client.state, ClientState.STOPPED)
        self.assertFalse(client.is_running or client.is_online)
        self.assertEqual(self.network.attempts, [])

    def test_started_twice(self) -> None:
        """
        A second start does nothing, in whatever state the client is.
        """
        client = self.make_client()
        client.start()
        client.start()
        self.network.settle()
        client.start()
        self.network.settle()
        self.assertEqual(len(self.network.attempts), 1)

    def test_stop(self) -> None:
        """
        Stopping closes the connection; the Deferred fires when it is closed.
        """
        client = self.start_client()
        stopped = client.stop()
        self.assertNoResult(stopped)
        self.assertEqual(client.state, ClientState.STOPPED)
        self.network.settle()
        self.successResultOf(stopped)
        self.assertTrue(self.server.peer.client_closed)

    def test_last_words_go_out(self) -> None:
        """
        What was written before the stop still reaches the server.
        """
        client = self.start_client()
        client.push(b"goodbye").addErrback(lambda _: None)
        client.stop()
        self.network.settle()
        self.assertEqual(self.server.peer.received[-1].plain, b"goodbye")

    def test_stop_has_an_end(self) -> None:
        """
        A connection that does not close is aborted after 2 seconds.
        """
        client = self.start_client()
        transport = self.server.peer.transport
        transport.stuck = True
        transport.outbound = b"unsent"
        stopped = client.stop()
        self.network.pass_time(1.9)
        self.assertNoResult(stopped)
        self.network.pass_time(0.1)
        self.successResultOf(stopped)

    def test_stopped_twice(self) -> None:
        """
        Both stops fire; a stop of a stopped client fires at once.
        """
        client = self.start_client()
        first, second = client.stop(), client.stop()
        self.network.settle()
        self.successResultOf(first)
        self.successResultOf(second)
        self.successResultOf(client.stop())

    def test_stop_while_waiting(self) -> None:
        """
        Stopping ends a wait, and nothing is tried any more.
        """
        self.network.down.add(A)
        client = self.start_client()
        self.successResultOf(client.stop())
        self.network.pass_time(100)
        self.assertEqual(len(self.network.attempts), 1)

    def test_stop_while_connecting(self) -> None:
        """
        Stopping ends an attempt that is under way.
        """
        self.network.black_holes.add(A)
        client = self.start_client(servers=MORE)
        self.successResultOf(client.stop())
        self.assertTrue(self.network.connectors[0].stoppedConnecting)
        self.network.pass_time(100)
        self.assertEqual(len(self.network.attempts), 1)

    def test_stop_in_on_connected(self) -> None:
        """
        A client that is stopped when it has just connected sends nothing.
        """
        client = self.make_client()
        self.listener.on_connected = client.stop  # type: ignore[method-assign]
        client.start()
        self.network.settle()
        self.assertEqual(client.state, ClientState.STOPPED)
        self.assertEqual(self.server.peer.received, [])

    def test_stop_in_on_handshake_ok(self) -> None:
        """
        Nor is the user of one bound that is stopped when it has just shaken hands.
        """
        client = self.make_client(user_id="u")

        def stop(_: int) -> None:
            client.stop()

        self.listener.on_handshake_ok = stop  # type: ignore[method-assign]
        online = []
        client.start()
        client.when_online().addBoth(online.append)
        self.network.settle()
        self.assertEqual(client.state, ClientState.STOPPED)
        self.assertEqual(self.server.peer.commands, [Command.HANDSHAKE])
        self.assertTrue(online[0].check(Disconnected))

    def test_start_again(self) -> None:
        """
        A stopped client may be started again and binds the same user.
        """
        client = self.start_client(user_id="u")
        client.stop()
        client.start()
        self.network.settle()
        self.assertTrue(client.is_online)
        self.assertEqual(self.listener.events[-1], ("bind", True, "u"))

    def test_pause_and_resume(self) -> None:
        """
        They are other names for stop and start.
        """
        client = self.start_client()
        paused = client.pause()
        self.network.settle()
        self.successResultOf(paused)
        self.assertEqual(client.state, ClientState.STOPPED)
        client.resume()
        self.network.settle()
        self.assertTrue(client.is_online)

    def test_destroy(self) -> None:
        """
        A destroyed client cannot be started again, and none of its methods raises.
        """
        client = self.start_client()
        destroyed = client.destroy()
        self.network.settle()
        self.successResultOf(destroyed)
        client.start()
        client.on_net_state_change(True)
        self.network.pass_time(10)
        self.assertEqual(client.state, ClientState.DESTROYED)
        self.assertEqual(len(self.network.attempts), 1)
        self.failureResultOf(client.when_online(), Disconnected)
        self.successResultOf(client.stop())
        self.assertEqual(client.state, ClientState.DESTROYED)

    def test_independent(self) -> None:
        """
        Two clients in one process share nothing: the end of one leaves the other alone
        (defect 12.9).
        """
        first = self.start_client(user_id="u1")
        second = self.start_client(device_id="dev-2", user_id="u2")
        first.destroy()
        self.network.settle()
        self.assertTrue(second.is_online)
        self.assertEqual(
            [peer.received[0].session_id for peer in self.server.peers], [1, 1]
        )
        self.assertEqual(self.server.peer.received[1].message.user_id, "u2")

    def test_request_numbers_wrap(self) -> None:
        """
        Request numbers stay positive: after 2^31-1 comes 1.
        """
        client = self.make_client()
        client._session_id = 2**31 - 2
        numbers = [client.next_session_id() for _ in range(3)]
        self.assertEqual(numbers, [2**31 - 1, 1, 2])


class WhenOnlineTests(ClientTestCase):
    """
    C{when_online}.
    """

    def test_online(self) -> None:
        """
        It fires at once if there is a session, with the heartbeat.
        """
        client = self.start_client()
        self.assertEqual(self.successResultOf(client.when_online()), 180_000)

    def test_later(self) -> None:
        """
        It survives failed attempts.
        """
        self.network.down.add(A)
        client = self.start_client()
        online = client.when_online()
        self.network.pass_time(5)
        self.assertNoResult(online)
        self.network.down.clear()
        self.network.pass_time(10)
        self.assertEqual(self.successResultOf(online), 180_000)

    def test_why_not(self) -> None:
        """
        Meanwhile C{last_failure} tells what is in the way: the network, then the
        server.
        """
        self.network.down.add(A)
        client = self.make_client()
        self.assertIsNone(client.last_failure)
        client.start()
        self.network.settle()
        self.assertIsInstance(client.last_failure, Disconnected)
        self.assertIn("10.0.0.1:3000: Connection was refused", str(client.last_failure))
        self.network.down.clear()
        self.server.refuse(Command.HANDSHAKE, 100, "handle message error")
        self.network.pass_time(5)
        self.assertEqual(
            str(client.last_failure),
            "HANDSHAKE refused: handle message error (code 100)",
        )

    def test_stopped(self) -> None:
        """
        It fails for a client that is stopped, before or while it waits.
        """
        self.network.down.add(A)
        client = self.make_client()
        self.failureResultOf(client.when_online(), Disconnected)
        client.start()
        online = client.when_online()
        client.stop()
        self.failureResultOf(online, Disconnected)

    def test_cancelled(self) -> None:
        """
        A waiter that is cancelled is forgotten, also by another one's callback.
        """
        client = self.make_client()
        client.start()
        first, second = client.when_online(), client.when_online()
        for one, other in ((first, second), (second, first)):
            one.addCallbacks(lambda _, other=other: other.cancel(), lambda _: None)
        self.network.settle()
        self.assertTrue(client.is_online)
        self.successResultOf(first)
        self.successResultOf(second)

    def test_limited(self) -> None:
        """
        The number of waiters is limited.
        """
        client = self.make_client(max_pending=1)
        client.start()
        client.when_online().addErrback(lambda _: None)
        self.failureResultOf(client.when_online(), TooManyPending)


class NetStateTests(ClientTestCase):
    """
    C{on_net_state_change} (clients 2.11).
    """

    def down(self, **settings: Any) -> Any:
        """
        A client that was online and is told that the network is gone.
        """
        client = self.start_client(**settings)
        client.on_net_state_change(False)
        return client

    def test_silent_server(self) -> None:
        """
        A ping after 3 seconds; nothing heard after 6: closed, and no reconnect until
        the network is back (clients 14).
        """
        self.server.silent(Command.HEARTBEAT)
        client = self.down()
        self.network.pass_time(2.9)
        self.assertEqual(self.server.peer.packets(Command.HEARTBEAT), [])
        self.network.pass_time(0.1)
        self.assertEqual(len(self.server.peer.packets(Command.HEARTBEAT)), 1)
        self.network.pass_time(2.9)
        self.assertTrue(client.is_running)
        self.network.pass_time(0.1)
        self.assertEqual(client.state, ClientState.OFFLINE)
        self.network.pass_time(1000)
        self.assertEqual(len(self.network.attempts), 1)
        client.on_net_state_change(True)
        self.network.settle()
        self.assertTrue(client.is_online)

    def test_answering_server(self) -> None:
        """
        A server that answers the ping shows that the connection is good; it stays.
        """
        client = self.down()
        self.network.pass_time(100)
        self.assertTrue(client.is_online)
        self.assertEqual(len(self.network.attempts), 1)

    def test_back_in_time(self) -> None:
        """
        A network that is back within the 6 seconds is not probed any further.
        """
        self.server.silent(Command.HEARTBEAT)
        client = self.down()
        self.network.pass_time(4)
        client.on_net_state_change(True)
        self.network.pass_time(10)
        self.assertTrue(client.is_online)

    def test_later_loss_is_not_repaired(self) -> None:
        """
        Until the network is back a loss is not repaired.
        """
        client = self.down()
        self.network.pass_time(10)
        self.server.peer.close()
        self.network.pass_time(100)
        self.assertEqual(client.state, ClientState.OFFLINE)
        self.assertEqual(len(self.network.attempts), 1)

    def test_start_repairs(self) -> None:
        """
        Nor until C{start} is called.
        """
        client = self.down()
        self.server.peer.close()
        self.network.pass_time(100)
        client.start()
        self.network.settle()
        self.assertTrue(client.is_online)

    def test_while_waiting(self) -> None:
        """
        A wait ends without an attempt when the network goes, and with one when it
        comes.
        """
        self.network.down.add(A)
        client = self.start_client()
        client.on_net_state_change(False)
        self.assertEqual(client.state, ClientState.OFFLINE)
        self.network.pass_time(100)
        self.assertEqual(len(self.network.attempts), 1)
        self.network.down.clear()
        client.on_net_state_change(True)
        self.network.settle()
        self.assertTrue(client.is_online)

    def test_up_ends_a_wait(self) -> None:
        """
        The network's return ends a long wait at once.
        """
        self.network.down.add(A)
        client = self.start_client()
        self.network.pass_time(300)
        self.network.down.clear()
        client.on_net_state_change(True)
        self.network.settle()
        self.assertTrue(client.is_online)

    def test_while_connecting(self) -> None:
        """
        An attempt is given up when the network goes.
        """
        self.network.black_holes.add(A)
        client = self.start_client()
        bound = client.bind_user("u")
        client.on_net_state_change(False)
        self.failureResultOf(bound, Disconnected)
        self.assertTrue(self.network.connectors[0].stoppedConnecting)
        self.network.pass_time(100)
        self.assertEqual(client.state, ClientState.OFFLINE)

    def test_up_when_all_is_well(self) -> None:
        """
        Without need nothing is done.
        """
        client = self.start_client()
        client.on_net_state_change(True)
        self.network.pass_time(10)
        self.assertEqual(len(self.network.attempts), 1)
        self.assertTrue(client.is_online)

    def test_stopped(self) -> None:
        """
        A stopped client stays stopped.
        """
        client = self.make_client()
        client.on_net_state_change(False)
        client.on_net_state_change(True)
        self.network.pass_time(10)
        self.assertEqual(client.state, ClientState.STOPPED)
        self.assertEqual(self.network.attempts, [])
