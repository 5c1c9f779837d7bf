"""
Messages down to the device and up to the server, and who confirms them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from mpush_tw.client import (
    AckModel,
    BadRequest,
    ClientState,
    Disconnected,
    Refused,
    TimedOut,
    TooManyPending,
)
from mpush_tw.protocol.commands import Command
from mpush_tw.protocol.packet import HEADER_SIZE
from tests.client.support import ClientTestCase, RecordingListener

PUSH, ACK = Command.PUSH, Command.ACK
BIZ, AUTO = 4, 8


class ReceiveTests(ClientTestCase):
    """
    PUSH from the server.
    """

    def acks(self) -> list[int]:
        """
        The numbers of the ACKs that the server got.
        """
        return [packet.session_id for packet in self.server.peer.packets(ACK)]

    def push(self, content: bytes, session_id: int, flags: int) -> None:
        """
        Send a push and let the client handle it.
        """
        self.server.peer.push(content, session_id, flags)
        self.network.settle()

    def test_no_ack(self) -> None:
        """
        A push without ack flags is handed out with id 0 and not confirmed.
        """
        self.start_client()
        self.push(b"hello", 77, 0)
        self.assertEqual(self.listener.events[-1], ("push", b"hello", 0))
        self.assertEqual(self.acks(), [])

    def test_auto_ack(self) -> None:
        """
        With the auto flag the client confirms by itself; the id stays 0.
        """
        self.start_client()
        self.push(b"hello", 77, AUTO)
        self.assertEqual(self.listener.events[-1], ("push", b"hello", 0))
        self.assertEqual(self.acks(), [77])

    def test_ack_packet(self) -> None:
        """
        An ACK is a bare header: no body, no flags.
        """
        self.start_client()
        before = len(self.server.peer.raw)
        self.push(b"hello", 77, AUTO)
        expected = bytes.fromhex("00000000 17 0000 00 0000004d 00")
        self.assertEqual(self.server.peer.raw[before:], expected)

    def test_biz_ack(self) -> None:
        """
        With the business flag the application gets the id and confirms.
        """
        client = self.start_client()
        self.push(b"hello", 77, BIZ)
        self.assertEqual(self.listener.events[-1], ("push", b"hello", 77))
        self.assertEqual(self.acks(), [])
        self.assertTrue(client.ack(77))
        self.network.settle()
        self.assertEqual(self.acks(), [77])

    def test_both(self) -> None:
        """
        With both flags both do, as with Java.
        """
        client = self.start_client()
        self.push(b"hello", 77, BIZ | AUTO)
        client.ack(self.listener.events[-1][2])
        self.network.settle()
        self.assertEqual(self.acks(), [77, 77])

    def test_ids_that_cannot_be_confirmed(self) -> None:
        """
        Ids of 0 and below are none; without a session nothing is confirmed.
        """
        client = self.start_client()
        self.assertFalse(client.ack(0) or client.ack(-1))
        client.stop()
        self.assertFalse(client.ack(77))
        self.network.settle()
        self.assertEqual(self.acks(), [])

    def test_compressed(self) -> None:
        """
        Compressed content is inflated, whether zlib or gzip.
        """
        import gzip

        self.start_client()
        for packed in (zlib.compress(b"a" * 5000), gzip.compress(b"a" * 5000)):
            self.server.peer.send(PUSH, 5, packed, 2)
            self.network.settle()
            self.assertEqual(self.listener.events[-1], ("push", b"a" * 5000, 0))

    def test_in_clear(self) -> None:
        """
        The flags of the packet decide: content that is not encrypted is taken as it is.
        """
        self.start_client()
        self.server.peer.send(PUSH, 5, b"plain")
        self.network.settle()
        self.assertEqual(self.listener.events[-1], ("push", b"plain", 0))

    def test_empty(self) -> None:
        """
        A push without content, on which the Java client breaks, is handed out as such.
        """
        self.start_client()
        self.push(b"", 77, AUTO)
        self.assertEqual(self.listener.events[-1], ("push", b"", 0))
        self.assertEqual(self.acks(), [77])

    def test_arrival_order(self) -> None:
        """
        Many pushes in one read come in order, none is lost (defect 12.17).
        """
        self.start_client()
        for number in range(1, 501):
            self.server.peer.push(b"%d" % number, number, AUTO)
        inbound = self.server.peer.transport.inbound
        inbound[:] = [b"".join(inbound)]
        self.network.settle()
        got = [int(event[1]) for event in self.listener.named("push")]
        self.assertEqual(got, list(range(1, 501)))
        self.assertEqual(self.acks(), list(range(1, 501)))

    def test_listener_raises(self) -> None:
        """
        An exception in the application neither stops the ack nor the connection
        (clients 10.3, 7).
        """
        client = self.start_client()

        def fail(content: bytes, message_id: int) -> None:
            raise KeyError("application")

        self.listener.on_receive_push = fail  # type: ignore[method-assign]
        self.push(b"x", 77, AUTO)
        self.assertEqual(self.acks(), [77])
        self.assertTrue(client.is_online)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_listener_stops(self) -> None:
        """
        A listener that stops the client gets nothing of what is left in the read.
        """
        client = self.start_client()
        listener = self.listener

        def stop(content: bytes, message_id: int) -> None:
            listener.events.append(("push", content, message_id))
            client.stop()

        listener.on_receive_push = stop  # type: ignore[method-assign]
        self.server.peer.push(b"1")
        self.server.peer.push(b"2")
        inbound = self.server.peer.transport.inbound
        inbound[:] = [b"".join(inbound)]
        self.network.settle()
        self.assertEqual(len(listener.named("push")), 1)
        self.assertEqual(client.state, ClientState.STOPPED)


class WaitingListener(RecordingListener):
    """
    Returns a Deferred for every push.
    """

    def __init__(self, make: Callable[[], Any] = Deferred) -> None:
        super().__init__()
        self.make = make
        self.waiting: list[Any] = []

    def on_receive_push(self, content: bytes, message_id: int) -> Any:
        super().on_receive_push(content, message_id)
        self.waiting.append(self.make())
        return self.waiting[-1]


class SlowListenerTests(ClientTestCase):
    """
    Listeners that take their time.
    """

    def setUp(self) -> None:
        super().setUp()
        self.listener = self.slow = WaitingListener()

    def acks(self) -> int:
        return len(self.server.peer.packets(ACK))

    def push(self, count: int = 1, flags: int = AUTO) -> None:
        """
        Send pushes, all in one read.
        """
        inbound = self.server.peer.transport.inbound
        for number in range(count):
            self.server.peer.push(b"%d" % number, 100 + number, flags)
        inbound[:] = [b"".join(inbound)]
        self.network.settle()

    def test_ack_waits(self) -> None:
        """
        The automatic ack waits for the application's Deferred.
        """
        self.start_client()
        self.push()
        self.network.pass_time(0.9)
        self.assertEqual(self.acks(), 0)
        self.slow.waiting[0].callback(None)
        self.network.settle()
        self.assertEqual(self.acks(), 1)
        self.network.pass_time(2)
        self.assertEqual(self.acks(), 1)

    def test_ack_waits_a_second(self) -> None:
        """
        But for one second only; then it is sent, once.
        """
        self.start_client()
        self.push()
        self.network.pass_time(1)
        self.assertEqual(self.acks(), 1)
        self.slow.waiting[0].callback(None)
        self.network.settle()
        self.assertEqual(self.acks(), 1)

    def test_already_done(self) -> None:
        """
        A Deferred that has fired already is not waited for.
        """
        from twisted.internet.defer import succeed

        self.slow.make = lambda: succeed(None)
        self.start_client()
        self.push()
        self.assertEqual(self.acks(), 1)

    def test_failing(self) -> None:
        """
        One that fails is logged, and the ack is sent.
        """
        self.start_client()
        self.push()
        self.slow.waiting[0].errback(KeyError("application"))
        self.network.settle()
        self.assertEqual(self.acks(), 1)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_coroutine(self) -> None:
        """
        A listener may be a coroutine function.
        """
        step: Deferred[None] = Deferred()

        async def work() -> None:
            await step

        self.slow.make = work
        self.start_client()
        self.push()
        self.assertEqual(self.acks(), 0)
        step.callback(None)
        self.network.settle()
        self.assertEqual(self.acks(), 1)

    def test_without_ack(self) -> None:
        """
        Without the auto flag nothing is confirmed however long it takes.
        """
        self.start_client()
        self.push(flags=BIZ)
        self.network.pass_time(5)
        self.slow.waiting[0].callback(None)
        self.network.settle()
        self.assertEqual(self.acks(), 0)

    def test_overdue(self) -> None:
        """
        After 30 seconds the application's Deferred is cancelled.
        """
        self.start_client()
        self.push()
        self.network.pass_time(29)
        self.assertFalse(self.slow.waiting[0].called)
        self.network.pass_time(1)
        self.assertTrue(self.slow.waiting[0].called)

    def test_connection_lost(self) -> None:
        """
        A push that is finished after its connection ended is not confirmed on the next.
        """
        self.start_client()
        self.push()
        self.server.peer.close()
        self.network.pass_time(0.6)
        self.assertEqual(len(self.server.peers), 2)
        self.slow.waiting[0].callback(None)
        self.network.pass_time(1)
        self.assertEqual([len(p.packets(ACK)) for p in self.server.peers], [0, 0])

    def test_reading_stops(self) -> None:
        """
        When C{max_pending} pushes are unfinished, the next is not handed out, and
        nothing more is read from the network.
        """
        self.start_client(max_pending=2)
        self.push(5)
        self.assertEqual(len(self.slow.named("push")), 2)
        self.assertTrue(self.server.peer.transport.paused)
        self.slow.make = lambda: None
        for waiting in self.slow.waiting[:2]:
            waiting.callback(None)

    def test_reading_goes_on(self) -> None:
        """
        As they are finished the rest is handed out, in order and without loss.
        """
        self.start_client(max_pending=2)
        self.push(5)
        self.server.peer.push(b"5", 105)
        for index in range(6):
            self.slow.waiting[index].callback(None)
            self.network.settle()
        got = [event[1] for event in self.slow.named("push")]
        self.assertEqual(got, [b"0", b"1", b"2", b"3", b"4", b"5"])
        self.assertFalse(self.server.peer.transport.paused)

    def test_waiting_is_not_silence(self) -> None:
        """
        A client that does not read because of its application does not take the server
        for dead, and still pings.
        """
        self.server.heartbeat_ms = 10_000
        self.slow.make = lambda: Deferred(lambda _: self.fail("cancelled"))
        client = self.start_client(max_pending=1)
        self.push(2)
        self.network.pass_time(29)
        self.assertTrue(client.is_online)
        self.assertGreaterEqual(len(self.server.peer.packets(Command.HEARTBEAT)), 3)
        for index in range(2):
            self.slow.waiting[index].callback(None)
            self.network.settle()

    def test_held_connection_lost(self) -> None:
        """
        What was not handed out of a connection that ends is gone with it; the next
        connection is read as soon as the application is ready.
        """
        self.start_client(max_pending=1)
        self.push(3, flags=0)
        self.server.peer.transport.lose(ConnectionError("reset"))
        self.network.pass_time(1)
        self.push(1, flags=0)
        self.assertEqual([e[1] for e in self.slow.named("push")], [b"0", b"0"])
        for waiting in list(self.slow.waiting):
            waiting.callback(None)
        self.push(1, flags=0)
        self.assertEqual(len(self.slow.named("push")), 3)
        self.slow.waiting[-1].callback(None)


class SendTests(ClientTestCase):
    """
    C{push}.
    """

    def test_auto_ack(self) -> None:
        """
        The message goes out encrypted with the auto flag; the server's ACK fires the
        Deferred with its number.
        """
        client = self.start_client()
        answer = client.push(b"hello")
        self.network.settle()
        packet = self.server.peer.received[-1]
        self.assertEqual(packet[:2] + packet[3:], (PUSH, 1 | AUTO, b"hello"))
        self.assertEqual(self.successResultOf(answer), packet.session_id)

    def test_text(self) -> None:
        """
        Text goes out as UTF-8.
        """
        client = self.start_client()
        client.push("推送")
        self.network.settle()
        self.assertEqual(self.server.peer.received[-1].plain, "推送".encode())

    def test_no_ack(self) -> None:
        """
        Without an ack model the Deferred fires at once and nothing is waited for.
        """
        client = self.start_client()
        number = self.successResultOf(client.push(b"x", AckModel.NONE))
        self.network.settle()
        packet = self.server.peer.received[-1]
        self.assertEqual((packet.flags, packet.session_id), (1, number))

    def test_biz_ack(self) -> None:
        """
        With the business model the flag is 4, and a server that answers counts.
        """
        client = self.start_client()
        answer = client.push(b"x", AckModel.BIZ)
        self.network.settle()
        packet = self.server.peer.received[-1]
        self.assertEqual(packet.flags, 1 | BIZ)
        self.assertNoResult(answer)
        self.server.peer.send(ACK, packet.session_id)
        self.network.settle()
        self.successResultOf(answer)

    def test_timeout(self) -> None:
        """
        Without an ACK the Deferred fails after a second; the connection stays.
        """
        self.server.silent(PUSH)
        client = self.start_client()
        answer = client.push(b"x")
        self.network.pass_time(0.9)
        self.assertNoResult(answer)
        self.network.pass_time(0.1)
        self.assertEqual(self.failureResultOf(answer, TimedOut).value.command, PUSH)
        self.assertTrue(client.is_online)

    def test_timeout_of_the_settings(self) -> None:
        """
        The time-out may be set for the client or for the call.
        """
        self.server.silent(PUSH)
        client = self.start_client(push_timeout=5)
        general, special = client.push(b"x"), client.push(b"x", timeout=2)
        self.network.pass_time(2)
        self.assertNoResult(general)
        self.failureResultOf(special, TimedOut)
        self.network.pass_time(3)
        self.failureResultOf(general, TimedOut)

    def test_retries(self) -> None:
        """
        With retries the identical packet is sent again.
        """
        self.server.silent(PUSH)
        client = self.start_client()
        before = len(self.server.peer.raw)
        answer = client.push(b"x", retries=1)
        self.network.pass_time(2)
        sent = self.server.peer.raw[before:]
        self.assertEqual(sent[: len(sent) // 2] * 2, sent)
        self.assertEqual(len(self.server.peer.packets(PUSH)), 2)
        self.failureResultOf(answer, TimedOut)

    def test_late_ack(self) -> None:
        """
        An ACK after the time-out, or a second one, is ignored.
        """
        self.server.silent(PUSH)
        client = self.start_client()
        answer = client.push(b"x")
        self.network.pass_time(1)
        self.failureResultOf(answer, TimedOut)
        self.server.peer.send(ACK, self.server.peer.received[-1].session_id)
        self.network.settle()
        self.assertTrue(client.is_online)

    def test_refused(self) -> None:
        """
        ERROR fails this request and is told; the connection stays (clients 10.3, 11).
        """
        self.server.refuse(PUSH, 101, "unsupported command")
        client = self.start_client()
        answer = client.push(b"x")
        self.network.settle()
        self.assertEqual(self.failureResultOf(answer, Refused).value.code, 101)
        self.assertEqual(
            self.listener.events[-1], ("error", PUSH, 101, "unsupported command")
        )
        self.assertTrue(client.is_online)

    def test_error_about_nothing(self) -> None:
        """
        An ERROR that answers nothing is told, and that is all.
        """
        client = self.start_client()
        self.server.peer.error(999, 99, 101, "unsupported command")
        self.network.settle()
        self.assertEqual(
            self.listener.events[-1], ("error", 99, 101, "unsupported command")
        )
        self.assertTrue(client.is_online)

    def test_connection_lost(self) -> None:
        """
        A lost connection fails everything that waits, at once (defect 12.10).
        """
        self.server.silent(PUSH)
        client = self.start_client()
        answers = [client.push(b"x") for _ in range(3)]
        self.server.peer.close()
        self.network.settle()
        for answer in answers:
            self.failureResultOf(answer, Disconnected)

    def test_not_sent_on_the_next_connection(self) -> None:
        """
        What was asked on one connection is never sent on another (defect 12.5).
        """
        self.server.silent(PUSH)
        client = self.start_client()
        client.push(b"x", retries=9).addErrback(lambda _: None)
        self.server.peer.close()
        self.network.pass_time(5)
        self.assertEqual(self.server.peer.packets(PUSH), [])

    def test_not_connected(self) -> None:
        """
        Without a session the Deferred fails; nothing is raised.
        """
        client = self.make_client()
        for ack in AckModel:
            self.failureResultOf(client.push(b"x", ack), Disconnected)
        self.server.silent(Command.HANDSHAKE)
        client.start()
        self.network.settle()
        for ack in AckModel:
            self.failureResultOf(client.push(b"x", ack), Disconnected)

    def test_useless_arguments(self) -> None:
        """
        Empty content, no time and negative retries are refused; so is what is larger
        than any packet.
        """
        client = self.start_client(max_packet_size=2000, compress_limit=0)
        for answer in (
            client.push(b""),
            client.push(""),
            client.push(b"x", timeout=0),
            client.push(b"x", retries=-1),
            client.push(b"x" * 2000),
            client.push(b"x" * 2000, AckModel.NONE),
        ):
            self.failureResultOf(answer, BadRequest)
        self.network.settle()
        self.assertEqual(self.server.peer.packets(PUSH), [])

    def test_compression(self) -> None:
        """
        What is longer than the limit is compressed, what is not, not.
        """
        client = self.start_client(compress_limit=100)
        client.push(b"a" * 100)
        client.push(b"a" * 101)
        self.network.settle()
        exact, longer = self.server.peer.packets(PUSH)
        self.assertEqual((exact.flags & 2, longer.flags & 2), (0, 2))
        self.assertEqual(longer.plain, b"a" * 101)

    def test_no_compression(self) -> None:
        """
        A limit of 0 switches it off.
        """
        client = self.start_client(compress_limit=0)
        client.push(b"a" * 5000)
        self.network.settle()
        self.assertEqual(self.server.peer.received[-1].flags & 2, 0)

    def test_cancelled(self) -> None:
        """
        Who cancels does not wait any more; a late ACK meets nobody.
        """
        client = self.start_client()
        answer = client.push(b"x")
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.network.settle()
        self.assertTrue(client.is_online)

    def test_too_many_requests(self) -> None:
        """
        When C{max_pending} requests wait, the next fails at once and nothing is sent.
        """
        self.server.silent(PUSH)
        client = self.start_client(max_pending=3)
        answers = [client.push(b"x") for _ in range(4)]
        self.failureResultOf(answers.pop(), TooManyPending)
        self.network.settle()
        self.assertEqual(len(self.server.peer.packets(PUSH)), 3)
        self.network.pass_time(1)
        for answer in answers:
            self.failureResultOf(answer, TimedOut)


class SlowNetworkTests(ClientTestCase):
    """
    A network that takes nothing for a while.
    """

    def choke(self, client: Any) -> Any:
        """
        Make the client's network stuck, and notice it.
        """
        transport = self.server.peer.transport
        transport.stuck = True
        client.push(b"x", AckModel.NONE)
        return transport

    def test_bounded(self) -> None:
        """
        C{max_pending} packets may wait for the network; the next fails at once.
        """
        client = self.start_client(max_pending=3)
        transport = self.choke(client)
        for _ in range(3):
            self.successResultOf(client.push(b"x", AckModel.NONE))
        self.failureResultOf(client.push(b"x", AckModel.NONE), TooManyPending)
        self.failureResultOf(client.push(b"x"), TooManyPending)
        self.assertFalse(client.ack(5))
        transport.unstick()
        self.successResultOf(client.push(b"x", AckModel.NONE))
        self.network.settle()
        self.assertEqual(len(self.server.peer.packets(PUSH)), 5)

    def test_not_reading_either(self) -> None:
        """
        While the network takes nothing, nothing is handled, and no more is read than
        what shows that there is something: acks cannot pile up.
        """
        client = self.start_client()
        transport = self.choke(client)
        self.server.peer.push(b"hello")
        self.network.settle()
        self.assertTrue(transport.paused)
        self.assertEqual(self.listener.named("push"), [])
        transport.unstick()
        self.network.settle()
        self.assertEqual(len(self.listener.named("push")), 1)
        self.assertFalse(transport.paused)

    def test_no_pings_into_it(self) -> None:
        """
        Pings are not queued behind what is stuck, and in the end the connection is
        given up.
        """
        client = self.start_client()
        transport = self.choke(client)
        size = len(transport.outbound)
        self.network.pass_time(360)
        self.assertEqual(len(transport.outbound), size)
        self.network.pass_time(1)
        self.assertEqual(len(self.listener.named("disconnected")), 1)

    def test_retry_does_not_pile_up(self) -> None:
        """
        A request that is still stuck is not sent a second time over the limit.
        """
        client = self.start_client(max_pending=1)
        transport = self.choke(client)
        answer = client.push(b"x", retries=1)
        size = len(transport.outbound)
        self.assertGreater(size, HEADER_SIZE)
        self.network.pass_time(1)
        self.assertEqual(len(transport.outbound), size)
        transport.unstick()
        self.network.settle()
        self.successResultOf(answer)
