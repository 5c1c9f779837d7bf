"""
One connection to Redis, by the clock.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.integrations.redis._connection import Connection, Lost, Refused
from tests.integrations.redis.fakes import FakeServer, lose, sent, transport_of

PING = b"*1\r\n$4\r\nPING\r\n"


class ConnectionTestCase(SynchronousTestCase):
    """
    A connection that was just made.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.connection = FakeServer(self.clock).connect()
        self.transport = transport_of(self.connection)

    def get(self, key: str = "k") -> Deferred[Any]:
        """
        Send a command.
        """
        return self.connection.send(("GET", key))

    def answer(self, data: bytes) -> None:
        """
        Have the server say something.
        """
        self.connection.dataReceived(data)

    def lost(self, call: Deferred[Any]) -> Lost:
        """
        Give the reason why a call has failed.
        """
        reason: Lost = self.failureResultOf(call, Lost).value
        return reason


class AnswerTests(ConnectionTestCase):
    """
    Answers find their commands.
    """

    def test_pipelined(self) -> None:
        """
        Commands go out without waiting; answers belong to them in order.
        """
        calls = [self.get(key) for key in "abc"]
        self.assertEqual(sent(self.connection).count(b"GET"), 3)
        self.answer(b"$1\r\n1\r\n$-1\r\n:3\r\n")
        self.assertEqual([self.successResultOf(call) for call in calls], ["1", None, 3])

    def test_in_pieces(self) -> None:
        """
        It does not matter how answers are cut on their way.
        """
        calls = [self.get(), self.get()]
        for byte in "*2\r\n$3\r\n推\r\n$0\r\n\r\n-ERR no\r\n".encode():
            self.answer(bytes([byte]))
        self.assertEqual(self.successResultOf(calls[0]), ["推", ""])
        refused: Refused = self.failureResultOf(calls[1], Refused).value
        self.assertEqual((refused.code, refused.text), ("ERR", "ERR no"))
        self.assertEqual(str(refused.address), "10.0.0.1:6379")

    def test_cancelled(self) -> None:
        """
        The answer to a call that was given up is not taken for another's.
        """
        first, second = self.get(), self.get()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.answer(b"+1\r\n+2\r\n")
        self.assertEqual(self.successResultOf(second), "2")

    def test_messages(self) -> None:
        """
        On a connection that has subscribed, messages go their own way.
        """
        received: list[tuple[object, object]] = []
        self.connection.message_received = lambda *message: received.append(message)
        call = self.connection.send(("SUBSCRIBE", "c"))
        self.answer(b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\n1\r\n")
        self.answer(b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n")
        self.answer(b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\n\xff\r\n")
        self.assertEqual(self.successResultOf(call), ["subscribe", "c", 1])
        self.assertEqual(received, [("c", "1"), ("c", b"\xff")])

    def test_nothing_was_asked(self) -> None:
        """
        An answer without a question ends the connection.
        """
        self.answer(b"+OK\r\n")
        self.assertTrue(self.transport.aborted)
        self.assertFalse(self.connection.usable)

    def test_other_protocol(self) -> None:
        """
        What is no answer at all ends the connection.
        """
        call = self.get()
        self.answer(b"HTTP/1.1 400 Bad Request\r\n")
        self.clock.advance(0)
        self.assertEqual(str(self.lost(call)), "does not speak Redis's protocol")


class TimeTests(ConnectionTestCase):
    """
    Servers that take their time.
    """

    def test_silent(self) -> None:
        """
        A server that says nothing for two seconds is given up.
        """
        call = self.get()
        self.clock.advance(1.9)
        self.assertNoResult(call)
        self.clock.advance(0.2)
        self.clock.advance(0)
        self.assertTrue(self.transport.aborted)
        self.assertTrue(self.lost(call).timed_out)
        self.assertFalse(self.connection.usable)

    def test_silent_after_a_pause(self) -> None:
        """
        The two seconds count from the question, not from when it was last busy.
        """
        self.clock.advance(4.5)
        call = self.get()
        self.clock.pump([0.1] * 19)
        self.assertNoResult(call)
        self.clock.pump([0.1] * 3)
        self.lost(call)

    def test_slow(self) -> None:
        """
        A server that says something now and then is not given up.
        """
        call = self.get()
        self.answer(b"$6\r\n")
        for byte in b"abcdef\r\n":
            self.clock.pump([0.1] * 15)
            self.answer(bytes([byte]))
        self.assertEqual(self.successResultOf(call), "abcdef")

    def test_idle(self) -> None:
        """
        A connection without traffic is tested after five seconds, and again.
        """
        for _ in range(3):
            self.clock.pump([0.1] * 49)
            self.assertEqual(sent(self.connection), b"")
            self.clock.pump([0.1] * 3)
            self.assertEqual(sent(self.connection), PING)
            self.answer(b"+PONG\r\n")
            self.assertTrue(self.connection.usable)

    def test_dead(self) -> None:
        """
        A server that vanished without a word is found within eight seconds, and nobody
        had to ask it anything.
        """
        lost: list[Connection] = []
        self.connection.on_lost = lambda connection, reason: lost.append(connection)
        self.clock.pump([0.1] * 80)
        self.assertEqual(lost, [self.connection])

    def test_busy(self) -> None:
        """
        One with traffic is not tested.
        """
        for _ in range(100):
            call = self.get()
            self.answer(b"+1\r\n")
            self.successResultOf(call)
            self.clock.advance(0.5)
        self.assertNotIn(PING, sent(self.connection))

    def test_held_up(self) -> None:
        """
        When it was this process that did nothing for a while, the server gets a second
        chance: the answer may lie in the socket already.
        """
        call = self.get()
        self.clock.advance(10)
        self.assertTrue(self.connection.usable)
        self.answer(b"+1\r\n")
        self.assertEqual(self.successResultOf(call), "1")

    def test_held_up_and_silent(self) -> None:
        """
        But only one.
        """
        call = self.get()
        self.clock.advance(10)
        self.clock.pump([0.1] * 4)
        self.assertTrue(self.lost(call).timed_out)


class EndTests(ConnectionTestCase):
    """
    The end of a connection.
    """

    def test_lost(self) -> None:
        """
        Outstanding commands fail, after the owner was told; later ones fail at once.
        """
        call = self.get()
        told: list[bool] = []
        self.connection.on_lost = lambda *_: told.append(call.called)
        lose(self.connection)
        self.assertEqual(told, [False])
        self.assertFalse(self.lost(call).timed_out)
        self.lost(self.get())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close(self) -> None:
        """
        It is closed when the outstanding answers are there; no more are asked for.
        """
        call = self.get()
        closed = self.connection.close(2)
        self.lost(self.get())
        self.clock.advance(1)
        self.assertNoResult(closed)
        self.answer(b"+1\r\n")
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(call), "1")
        self.successResultOf(closed)
        self.assertFalse(self.transport.aborted)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_in_vain(self) -> None:
        """
        A server that does not answer is not waited for longer than that.
        """
        call = self.get()
        closed = self.connection.close(1)
        self.clock.advance(1)
        self.clock.advance(0)
        self.lost(call)
        self.successResultOf(closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_peer_does_not_close(self) -> None:
        """
        One that does not close its side is cut off.
        """
        self.transport.deaf = True
        closed = self.connection.close(1)
        self.clock.advance(1)
        self.clock.advance(0)
        self.successResultOf(closed)
        self.assertTrue(self.transport.aborted)

    def test_closed_twice(self) -> None:
        """
        Closing twice is closing, also afterwards.
        """
        first, second = self.connection.close(1), self.connection.close(1)
        self.clock.advance(0)
        self.successResultOf(first)
        self.successResultOf(second)
        self.successResultOf(self.connection.close(1))
