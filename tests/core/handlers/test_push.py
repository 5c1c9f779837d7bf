"""
Tests for L{mpush_tw.core.handlers.push} (server 8.6, 8.7).
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mpush_tw.core.handlers import Dispatcher
from mpush_tw.core.handlers.push import PushHandler
from mpush_tw.core.push.request import Outcome, PushRequest
from mpush_tw.errors import ProtocolError, Unavailable
from mpush_tw.interfaces import IUpstreamHandler, UpstreamMessage
from mpush_tw.protocol.commands import Command
from mpush_tw.protocol.messages import Error
from tests.core.fakes import Core, FakeConnection, FakeListener, start

_BIZ_ACK = 4
_AUTO_ACK = 8


@implementer(IUpstreamHandler)
class FakeUpstream:
    """
    Keeps what devices sent.

    @ivar received: The messages, in order.
    @ivar answer: Returned, or raised if it is an exception.
    """

    def __init__(self) -> None:
        self.received: list[UpstreamMessage] = []
        self.answer: Any = None

    def message_received(self, message: UpstreamMessage) -> Any:
        self.received.append(message)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class PushTestCase(SynchronousTestCase):
    """
    The handlers behind a dispatcher.
    """

    def setUp(self) -> None:
        self.core = Core()
        self.upstream = FakeUpstream()
        handler = PushHandler(
            self.upstream,
            self.core.centre,
            self.core.clock,
            self.core.log,
            self.core.metrics,
        )
        self.table = Dispatcher(self.core.log, self.core.metrics.conn)
        self.table.register(Command.PUSH, handler.push_received, after_handshake=True)
        self.table.register(Command.ACK, handler.ack_received, after_handshake=True)
        self.device = FakeConnection("d1")

    def push(
        self, flags: int = 0, body: object = b"report", session_id: int = 5
    ) -> Deferred[None] | None:
        """
        Receive a PUSH.
        """
        return self.table.dispatch(self.device, Command.PUSH, session_id, flags, body)


class UpstreamTests(PushTestCase):
    """
    PUSH from a device.
    """

    def test_fake(self) -> None:
        """
        The handler of these tests is one.
        """
        verifyObject(IUpstreamHandler, self.upstream)

    def test_handed_over(self) -> None:
        """
        The provider gets the content and who sent it.
        """
        self.device.user_id, self.device.tags = "u", "a"
        self.push(_AUTO_ACK)
        self.assertEqual(
            self.upstream.received,
            [
                UpstreamMessage(
                    self.device.id,
                    "d1",
                    "u",
                    "a",
                    "android",
                    "1.0",
                    5,
                    b"report",
                    _AUTO_ACK,
                )
            ],
        )

    def test_unbound(self) -> None:
        """
        A device without a user may send as well.
        """
        self.push()
        self.assertIsNone(self.upstream.received[0].user_id)

    def test_empty(self) -> None:
        """
        The content may be empty.
        """
        self.push(body=b"")
        self.assertEqual(self.upstream.received[0].content, b"")

    def test_acknowledged(self) -> None:
        """
        With AUTO_ACK the message is acknowledged under its number.
        """
        self.push(_AUTO_ACK, session_id=-9)
        self.assertEqual(self.device.sent, [("ack", -9)])

    def test_nothing_asked(self) -> None:
        """
        Without it nothing is sent.
        """
        self.push()
        self.assertEqual(self.device.sent, [])

    def test_business_ack(self) -> None:
        """
        BIZ_ACK alone is not answered by the server.
        """
        self.push(_BIZ_ACK)
        self.assertEqual(self.device.sent, [])

    def test_provider_takes_its_time(self) -> None:
        """
        The acknowledgement waits for the provider, and so does the next packet.
        """
        later: Deferred[None] = Deferred()
        self.upstream.answer = later
        waiting = self.push(_AUTO_ACK)
        assert waiting is not None
        self.assertEqual(self.device.sent, [])
        later.callback(None)
        self.assertEqual(self.device.sent, [("ack", 5)])
        self.successResultOf(waiting)

    def test_provider_raises(self) -> None:
        """
        A provider that fails means no acknowledgement; the device stays connected.
        """
        self.upstream.answer = ZeroDivisionError()
        self.assertIsNone(self.push(_AUTO_ACK))
        self.assertEqual(self.device.sent, [])
        self.assertTrue(self.device.connected)
        self.assertEqual(self.core.metrics.upstream, {"failed": 1})

    def test_provider_fails_later(self) -> None:
        """
        The same if it fails later.
        """
        self.upstream.answer = fail(ZeroDivisionError())
        self.push(_AUTO_ACK)
        self.assertEqual(self.device.sent, [])
        self.assertTrue(self.device.connected)

    def test_provider_is_a_coroutine(self) -> None:
        """
        A provider may be an C{async def}.
        """

        async def answer() -> None:
            await later

        later: Deferred[None] = Deferred()
        self.upstream.answer = answer()
        waiting = self.push(_AUTO_ACK)
        assert waiting is not None
        self.assertEqual(self.device.sent, [])
        later.callback(None)
        self.assertEqual(self.device.sent, [("ack", 5)])

    def test_provider_is_unavailable(self) -> None:
        """
        A provider whose store is away is told in a line, without a traceback: devices
        go on pushing.
        """
        for answer in (Unavailable("no disk"), fail(Unavailable("no disk"))):
            self.core.logged.clear()
            self.upstream.answer = answer
            self.push(_AUTO_ACK)
            (refusal,) = [one for one in self.core.logged if "error" in one]
            self.assertEqual(str(refusal["error"]), "no disk")
            self.assertNotIn("log_failure", refusal)
        self.assertEqual(self.device.sent, [])
        self.assertEqual(self.core.metrics.upstream, {"failed": 2})

    def test_provider_never_answers(self) -> None:
        """
        After ten seconds the provider counts as failed, and the device goes on.
        """
        self.upstream.answer = Deferred()
        waiting = self.push(_AUTO_ACK)
        assert waiting is not None
        self.core.clock.advance(9.9)
        self.assertNoResult(waiting)
        self.core.clock.advance(0.2)
        self.successResultOf(waiting)
        self.assertEqual(self.device.sent, [])
        self.assertTrue(self.device.connected)

    def test_unreadable(self) -> None:
        """
        Content that cannot be decrypted gets ERROR 100, then close.
        """
        self.push(body=ProtocolError("no"))
        self.assertEqual(
            self.device.answers, [Error(Command.PUSH, 100, "handle message error")]
        )
        self.assertEqual(self.device.ended, "handler-failed")
        self.assertEqual(self.upstream.received, [])

    def test_before_the_handshake(self) -> None:
        """
        Before the handshake nothing is taken (S-12).
        """
        self.device.device_id = None
        self.push(_AUTO_ACK)
        self.assertEqual(self.device.answers, [Error(Command.PUSH, 0, "not handshake")])
        self.assertEqual(self.device.ended, "not-handshaken")
        self.assertEqual(self.upstream.received, [])

    def test_content_is_not_logged(self) -> None:
        """
        What people write to each other stays out of the log.
        """
        self.push(body=b"private words")
        self.assertNotIn("private words", repr(self.core.logged))


class AckTests(PushTestCase):
    """
    ACK from a device.
    """

    def setUp(self) -> None:
        super().setUp()
        start(self.core.router.bind(self.device, "u", None))
        self.listener = FakeListener()
        request = PushRequest(
            "u", 1, 5000, b"hello", None, None, None, _BIZ_ACK, self.listener
        )
        self.core.centre.push(request)
        self.message_id: int = self.device.sent[-1][1]

    def ack(self, message_id: int, body: object = b"") -> None:
        """
        Receive an ACK.
        """
        self.table.dispatch(self.device, Command.ACK, message_id, 0, body)

    def test_ends_the_push(self) -> None:
        """
        An acknowledgement ends the push it names.
        """
        self.ack(self.message_id)
        self.assertEqual(self.listener.outcomes, [Outcome.ACK_SUCCESS])

    def test_body_means_nothing(self) -> None:
        """
        Whatever is in its body.
        """
        self.ack(self.message_id, b"\xff\xff")
        self.assertEqual(self.listener.outcomes, [Outcome.ACK_SUCCESS])
        self.assertTrue(self.device.connected)

    def test_unknown(self) -> None:
        """
        An acknowledgement of an unknown number is noted and nothing else.
        """
        sent = len(self.device.sent)
        self.ack(12345)
        self.assertEqual(self.listener.outcomes, [])
        self.assertEqual(len(self.device.sent), sent)
        self.assertTrue(self.device.connected)
        self.assertEqual(self.core.metrics.late_acks, 1)
