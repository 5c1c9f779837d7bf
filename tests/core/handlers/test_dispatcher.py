"""
Tests for L{mpush_tw.core.handlers.dispatcher} and the error policy (server 6.2).
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.connection import Connection
from mpush_tw.core.handlers import Dispatcher
from mpush_tw.errors import ProtocolError, Unavailable
from mpush_tw.protocol.commands import Command, ErrorCode
from mpush_tw.protocol.messages import Error
from tests.core.fakes import Core, FakeConnection


class DispatcherTests(SynchronousTestCase):
    """
    From a command to its handler, and what happens when there is none or it fails.
    """

    def setUp(self) -> None:
        self.core = Core()
        self.table = Dispatcher(self.core.log, self.core.metrics.conn)
        self.connection = FakeConnection()
        self.calls: list[tuple[int, int, object]] = []

    def handle(
        self, connection: Connection, session_id: int, flags: int, body: object
    ) -> None:
        """
        Note what was handled.
        """
        self.calls.append((session_id, flags, body))

    def fail_with(self, error: Exception, cmd: int = Command.PUSH) -> None:
        """
        Dispatch a packet whose handler raises.
        """

        def handler(*args: object) -> None:
            raise error

        self.table.register(Command(cmd), handler)
        self.assertIsNone(self.table.dispatch(self.connection, cmd, 7, 0, b""))

    def failures(self) -> int:
        """
        How many tracebacks were logged.
        """
        return sum("log_failure" in event for event in self.core.logged)

    def test_handled(self) -> None:
        """
        A packet goes to the handler of its command, as it came.
        """
        self.table.register(Command.PUSH, self.handle)
        waiting = self.table.dispatch(self.connection, 15, 7, 9, b"body")
        self.assertIsNone(waiting)
        self.assertEqual(self.calls, [(7, 9, b"body")])
        self.assertEqual(self.connection.sent, [])

    def test_unsupported(self) -> None:
        """
        A command that nobody handles gets ERROR 101 with its number, then close.
        """
        self.table.dispatch(self.connection, Command.CHAT, 7, 0, b"")
        self.assertEqual(
            self.connection.sent,
            [("answer", 7, Error.of(Command.CHAT, ErrorCode.UNSUPPORTED_CMD))],
        )
        self.assertEqual(self.connection.ended, "unsupported-command")
        self.assertFalse(self.connection.aborted)

    def test_unknown_byte(self) -> None:
        """
        So does a byte that is no command at all.
        """
        self.table.dispatch(self.connection, -100, 7, 0, b"")
        self.assertEqual(
            self.connection.answers, [Error(-100, 101, "unsupported command")]
        )

    def test_first_registration_stands(self) -> None:
        """
        An embedding program that registered first keeps its handler.
        """
        self.table.register(Command.PUSH, self.handle)
        self.table.register(Command.PUSH, lambda *args: None, after_handshake=True)
        self.connection.device_id = None
        self.table.dispatch(self.connection, 15, 7, 0, b"")
        self.assertEqual(len(self.calls), 1)

    def test_before_the_handshake(self) -> None:
        """
        What needs a session is refused before the handshake, then close (S-12).
        """
        self.table.register(Command.PUSH, self.handle, after_handshake=True)
        self.connection.device_id = None
        self.table.dispatch(self.connection, 15, 7, 0, b"")
        self.assertEqual(self.connection.answers, [Error(15, 0, "not handshake")])
        self.assertEqual(self.connection.ended, "not-handshaken")
        self.assertEqual(self.calls, [])

    def test_after_the_handshake(self) -> None:
        """
        With a session it is served.
        """
        self.table.register(Command.PUSH, self.handle, after_handshake=True)
        self.table.dispatch(self.connection, 15, 7, 0, b"")
        self.assertEqual(len(self.calls), 1)

    def test_bad_packet(self) -> None:
        """
        A body that cannot be read gets ERROR 100, then close, and is counted; it is no
        reason for a traceback.
        """
        self.fail_with(ProtocolError("broken"))
        self.assertEqual(
            self.connection.answers, [Error(15, 100, "handle message error")]
        )
        self.assertEqual(self.connection.ended, "handler-failed")
        self.assertEqual(self.core.metrics.conn.decode_errors, {"body": 1})
        self.assertEqual(self.failures(), 0)

    def test_store_is_down(self) -> None:
        """
        A store that is down gets the same answer, and is not the peer's fault.
        """
        self.fail_with(Unavailable("redis"))
        self.assertEqual(
            self.connection.answers, [Error(15, 100, "handle message error")]
        )
        self.assertEqual(self.core.metrics.conn.decode_errors, {})
        self.assertEqual(self.failures(), 0)

    def test_bug(self) -> None:
        """
        Any other exception gets the same answer and is logged with its traceback.
        """
        self.fail_with(ZeroDivisionError("bug"))
        self.assertEqual(
            self.connection.answers, [Error(15, 100, "handle message error")]
        )
        self.assertEqual(self.connection.ended, "handler-failed")
        self.assertEqual(self.failures(), 1)

    def test_waiting(self) -> None:
        """
        A handler that has to wait makes the next packet wait.
        """
        going: Deferred[None] = Deferred()
        self.table.register(Command.PUSH, lambda *args: going)
        waiting = self.table.dispatch(self.connection, 15, 7, 0, b"")
        assert waiting is not None
        self.assertNoResult(waiting)
        going.callback(None)
        self.assertIsNone(self.successResultOf(waiting))

    def test_waiting_in_vain(self) -> None:
        """
        One that waited and then failed is answered; the wait ends without failure.
        """
        going: Deferred[None] = Deferred()
        self.table.register(Command.PUSH, lambda *args: going)
        waiting = self.table.dispatch(self.connection, 15, 7, 0, b"")
        assert waiting is not None
        going.errback(ProtocolError("broken"))
        self.assertIsNone(self.successResultOf(waiting))
        self.assertEqual(
            self.connection.answers, [Error(15, 100, "handle message error")]
        )

    def test_nothing_to_wait_for(self) -> None:
        """
        A handler whose work is done when it returns does not make anybody wait.
        """
        done: Deferred[None] = Deferred()
        done.callback(None)
        self.table.register(Command.PUSH, lambda *args: done)
        self.assertIsNone(self.table.dispatch(self.connection, 15, 7, 0, b""))

    def test_paused(self) -> None:
        """
        One that has a result and yet waits for something makes the next packet wait.
        """
        outer: Deferred[None] = Deferred()
        inner: Deferred[None] = Deferred()
        outer.callback(None)
        outer.addCallback(lambda _: inner)
        self.table.register(Command.PUSH, lambda *args: outer)
        waiting = self.table.dispatch(self.connection, 15, 7, 0, b"")
        assert waiting is not None
        self.assertNoResult(waiting)
        inner.callback(None)
        self.assertIsNone(self.successResultOf(waiting))

    def test_failed_before_it_returned(self) -> None:
        """
        One that has failed when it returns is answered, and nobody waits.
        """
        self.table.register(Command.PUSH, lambda *args: fail(ProtocolError("broken")))
        self.assertIsNone(self.table.dispatch(self.connection, 15, 7, 0, b""))
        self.assertEqual(
            self.connection.answers, [Error(15, 100, "handle message error")]
        )
