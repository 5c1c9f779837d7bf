"""
The sender against gateways in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mpush_tw.errors import PushError, Unavailable
from mpush_tw.protocol.commands import Command, ErrorCode
from mpush_tw.sender import (
    AckModel,
    IGatewayDirectory,
    PushContext,
    PushResult,
    PushSender,
    ResultCode,
    Route,
    StaticGateways,
    _link,
    _request,
)
from mpush_tw.sender._batch import WINDOW
from tests.sender.gateway import FakeGateway, Network

ONE = [("10.0.0.1", 3001)]
TWO = [("10.0.0.1", 3001), ("10.0.0.2", 3001)]


class SenderTestCase(SynchronousTestCase):
    """
    A started sender, connected to each of its gateways.
    """

    addresses: Any = ONE

    def setUp(self) -> None:
        self.network = Network()
        self.sender = PushSender(self.addresses, reactor=self.network)
        started = self.sender.start()
        pairs = [self.network.accept() for _ in self.network.attempts]
        self.gateways = [gateway for gateway, _ in pairs]
        self.transports = [transport for _, transport in pairs]
        self.network.advance(0)
        self.successResultOf(started)

    def send(self, **settings: Any) -> Deferred[PushResult]:
        return self.sender.send(
            PushContext(**{"content": b"hi", "user_id": "bob", **settings})
        )

    def code(self, sent: Deferred[PushResult]) -> ResultCode:
        return self.successResultOf(sent).code


class StartTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = Network()
        self.sender = PushSender(TWO, reactor=self.network)

    def test_first_connection_is_enough(self) -> None:
        """
        The sender has started when one of its gateways is connected.
        """
        started = self.sender.start()
        self.assertNoResult(started)
        self.network.accept()
        self.network.advance(0)
        self.successResultOf(started)

    def test_not_inside_the_connecting(self) -> None:
        """
        The start is reported when connecting is over, so that a caller may stop at
        once; one who stopped meanwhile hears that.
        """
        started = self.sender.start()
        self.network.accept()
        self.assertNoResult(started)
        self.sender.stop()
        self.network.advance(0)
        self.failureResultOf(started, PushError)

    def test_no_gateway(self) -> None:
        """
        After 4 seconds without any connection the start fails.
        """
        started = self.sender.start()
        self.network.advance(3.9)
        self.assertNoResult(started)
        self.network.advance(0.2)
        self.failureResultOf(started, Unavailable)

    def test_failed_start_leaves_nothing(self) -> None:
        """
        A start that failed does not go on trying behind the caller's back.
        """
        self.failureResultOf(self._start_in_vain(), Unavailable)
        tried = len(self.network.tcpClients)
        self.network.pump([5.0] * 20)
        self.assertEqual(len(self.network.tcpClients), tried)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def _start_in_vain(self) -> Deferred[None]:
        started = self.sender.start()
        for _ in TWO:
            self.network.refuse(Failure(ConnectionRefusedError()))
        self.network.advance(4.1)
        return started

    def test_again_after_failure(self) -> None:
        """
        After a start that failed another may succeed.
        """
        self.failureResultOf(self._start_in_vain(), Unavailable)
        while self.network.attempts:
            self.network.refuse(Failure(ConnectionRefusedError()))
        started = self.sender.start()
        self.network.accept()
        self.network.advance(0)
        self.successResultOf(started)

    def test_twice(self) -> None:
        """
        Starting a started sender is an error.
        """
        self.sender.start()
        self.failureResultOf(self.sender.start(), PushError)

    def test_stopped_while_starting(self) -> None:
        """
        A start that is stopped fails at once.
        """
        started = self.sender.start()
        self.sender.stop()
        self.failureResultOf(started, PushError)

    def test_send_before_start(self) -> None:
        """
        Nothing can be sent before the start.
        """
        sent = self.sender.send(PushContext(b"hi", user_id="bob"))
        self.failureResultOf(sent, PushError)

    def test_no_addresses(self) -> None:
        """
        A sender without a gateway cannot be made.
        """
        self.assertRaises(PushError, PushSender, [], reactor=self.network)

    def test_connections_per_gateway(self) -> None:
        """
        As many connections are made to each gateway as asked for; an address given
        twice counts once.
        """
        sender = PushSender(
            [*TWO, *TWO], reactor=self.network, connections_per_gateway=2
        )
        sender.start()
        self.assertEqual(sorted(self.network.attempts), sorted([*TWO, *TWO]))


class SendTests(SenderTestCase):
    def test_question(self) -> None:
        """
        The gateway is asked for all of the user's connections, with half a second less
        than the caller waits.
        """
        self.send(ack=AckModel.AUTO_ACK, timeout=3.0)
        (asked,) = self.gateways[0].asked
        self.assertEqual(asked.flags, 8)
        self.assertEqual(asked.push[:4], ("bob", 0, 2500, b"hi"))
        self.assertEqual(asked.push[4:], (None, None, None))

    def test_short_timeout(self) -> None:
        """
        With less than half a second to go the gateway gets one millisecond.
        """
        self.send(timeout=0.2)
        self.assertEqual(self.gateways[0].asked[0].push.timeout_ms, 1)

    def test_delivered(self) -> None:
        """
        OK is a success.
        """
        sent = self.send()
        self.assertNoResult(sent)
        self.gateways[0].ok(self.gateways[0].asked[0])
        result = self.successResultOf(sent)
        self.assertEqual((result.code, result.user_id), (ResultCode.SUCCESS, "bob"))
        self.assertIsNone(result.location)

    def test_time_line(self) -> None:
        """
        The time line has the sender's points, then the gateway's, then the end.
        """
        sent = self.send()
        self.network.advance(1)
        self.gateways[0].ok(self.gateways[0].asked[0], [("before-send", 77)])
        self.assertEqual(
            self.successResultOf(sent).time_line,
            (
                ("begin", 0),
                ("lookup-remote", 0),
                ("check-gateway-conn", 0),
                ("send-to-gateway-begin", 0),
                ("send-to-gateway-end", 0),
                ("before-send", 77),
                ("end", 1000),
            ),
        )

    def test_error_codes(self) -> None:
        """
        ERROR 1 is offline; every other code is a failure, none leaves the caller
        waiting.
        """
        for code in ErrorCode:
            with self.subTest(code=code):
                sent = self.send()
                self.gateways[0].error(self.gateways[0].asked[-1], code)
                offline = code is ErrorCode.OFFLINE
                self.assertIs(
                    self.code(sent),
                    ResultCode.OFFLINE if offline else ResultCode.FAILURE,
                )

    def test_error_for_another_command(self) -> None:
        """
        An ERROR whose cmd byte names no push still ends the push it answers.
        """
        sent = self.send()
        asked = self.gateways[0].asked[0]
        self.gateways[0].error(asked, ErrorCode.UNSUPPORTED_CMD, cmd=0)
        self.assertIs(self.code(sent), ResultCode.FAILURE)

    def test_answer_without_time_points(self) -> None:
        """
        An OK without any data is a success all the same.
        """
        sent = self.send()
        self.gateways[0].say(
            Command.OK, self.gateways[0].asked[0], bytes.fromhex("10000000")
        )
        self.assertIs(self.code(sent), ResultCode.SUCCESS)

    def test_answer_in_the_same_turn(self) -> None:
        """
        An answer that comes while the question is being written is not lost.
        """
        self.gateways[0].on_asked = FakeGateway.ok
        self.assertIs(self.code(self.send()), ResultCode.SUCCESS)

    def test_answers_find_their_questions(self) -> None:
        """
        Answers may come in any order.
        """
        first, second = self.send(), self.send()
        gateway = self.gateways[0]
        gateway.ok(gateway.asked[1])
        self.assertNoResult(first)
        self.assertIs(self.code(second), ResultCode.SUCCESS)

    def test_timeout(self) -> None:
        """
        Without an answer the push ends when its time is up.
        """
        sent = self.send(timeout=2.0)
        self.network.advance(1.9)
        self.assertNoResult(sent)
        self.network.advance(0.2)
        self.assertIs(self.code(sent), ResultCode.TIMEOUT)

    def test_late_answer(self) -> None:
        """
        An answer after the time-out changes nothing.
        """
        results: list[PushResult] = []
        sent = self.send(callback=results.append)
        self.network.advance(3.1)
        self.gateways[0].ok(self.gateways[0].asked[0])
        self.assertIs(self.code(sent), ResultCode.TIMEOUT)
        self.assertEqual(len(results), 1)

    def test_nothing_is_left(self) -> None:
        """
        A finished push leaves no timer and no entry behind.
        """
        self.send()
        self.assertEqual(self.sender.pending, 1)
        self.gateways[0].ok(self.gateways[0].asked[0])
        self.assertEqual(self.sender.pending, 0)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_refused_is_not_sent(self) -> None:
        """
        A push that is refused never reaches a gateway.
        """
        self.failureResultOf(self.send(user_id=""), PushError)
        self.failureResultOf(self.send(content=b""), PushError)
        self.failureResultOf(self.send(content=bytes(10240)), PushError)
        self.assertEqual(self.gateways[0].asked, [])

    def test_cancel(self) -> None:
        """
        A push that is given up fails, calls nobody back and holds nothing.
        """
        results: list[PushResult] = []
        sent = self.send(callback=results.append)
        sent.cancel()
        self.failureResultOf(sent, CancelledError)
        self.gateways[0].ok(self.gateways[0].asked[0])
        self.assertEqual(results, [])
        self.assertEqual(self.sender.pending, 0)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_session_ids_wrap(self) -> None:
        """
        Behind the largest session id comes 1 again.
        """
        self.sender._session_id = 2**31 - 2
        self.send()
        self.send()
        ids = [asked.session_id for asked in self.gateways[0].asked]
        self.assertEqual(ids, [2**31 - 1, 1])


class CallbackTests(SenderTestCase):
    def test_result(self) -> None:
        """
        The callback gets the result that the Deferred fires with.
        """
        results: list[PushResult] = []
        sent = self.send(callback=results.append)
        self.gateways[0].ok(self.gateways[0].asked[0])
        self.assertEqual(results, [self.successResultOf(sent)])

    def test_broken_callback(self) -> None:
        """
        A callback that raises is logged and does not spoil the result.
        """

        def broken(result: PushResult) -> None:
            raise ValueError("broken")

        sent = self.send(callback=broken)
        self.gateways[0].ok(self.gateways[0].asked[0])
        self.assertIs(self.code(sent), ResultCode.SUCCESS)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_cancel_in_callback(self) -> None:
        """
        A callback may give up the very push it is told about.
        """
        sent: Deferred[PushResult] = self.send(callback=lambda _: sent.cancel())
        self.gateways[0].ok(self.gateways[0].asked[0])
        self.failureResultOf(sent, CancelledError)


class SeveralGatewaysTests(SenderTestCase):
    addresses = TWO

    def answer(self, which: int, code: ErrorCode | None = None) -> None:
        gateway = self.gateways[which]
        if code is None:
            gateway.ok(gateway.asked[-1])
        else:
            gateway.error(gateway.asked[-1], code)

    def test_all_are_asked(self) -> None:
        """
        Without known routes every gateway is asked for the user.
        """
        self.send()
        for gateway in self.gateways:
            self.assertEqual([asked.push.user_id for asked in gateway.asked], ["bob"])

    def test_first_success_wins(self) -> None:
        """
        One gateway that delivered is enough, and the other's answer is not waited for.
        """
        results: list[PushResult] = []
        sent = self.send(callback=results.append)
        self.answer(1)
        self.assertIs(self.code(sent), ResultCode.SUCCESS)
        self.answer(0, ErrorCode.OFFLINE)
        self.assertEqual(len(results), 1)

    def test_success_after_offline(self) -> None:
        """
        A user who is unknown to one gateway may be known to the other.
        """
        sent = self.send()
        self.answer(0, ErrorCode.OFFLINE)
        self.assertNoResult(sent)
        self.answer(1)
        self.assertIs(self.code(sent), ResultCode.SUCCESS)

    def test_offline_if_all_say_so(self) -> None:
        """
        A user is offline when no gateway has them.
        """
        sent = self.send()
        self.answer(0, ErrorCode.OFFLINE)
        self.answer(1, ErrorCode.OFFLINE)
        self.assertIs(self.code(sent), ResultCode.OFFLINE)

    def test_offline_and_failure(self) -> None:
        """
        A user is not called offline when one gateway failed.
        """
        sent = self.send()
        self.answer(0, ErrorCode.PUSH_CLIENT_FAILURE)
        self.answer(1, ErrorCode.OFFLINE)
        self.assertIs(self.code(sent), ResultCode.FAILURE)

    def test_offline_and_silence(self) -> None:
        """
        Nor when one gateway did not answer: that is a time-out.
        """
        sent = self.send()
        self.answer(0, ErrorCode.OFFLINE)
        self.network.advance(3.1)
        self.assertIs(self.code(sent), ResultCode.TIMEOUT)

    def test_offline_and_not_connected(self) -> None:
        """
        Nor when one gateway could not be asked: the user may be there.
        """
        self.transports[0].loseConnection()
        self.network.advance(0.5)
        self.network.refuse(Failure(ConnectionRefusedError()))
        sent = self.send()
        self.answer(1, ErrorCode.OFFLINE)
        self.assertIs(self.code(sent), ResultCode.FAILURE)


class ConnectionTests(SenderTestCase):
    def test_lost(self) -> None:
        """
        Pushes that wait for an answer fail as soon as the connection is lost.
        """
        first, second = self.send(), self.send()
        self.transports[0].loseConnection()
        self.assertIs(self.code(first), ResultCode.FAILURE)
        self.assertIs(self.code(second), ResultCode.FAILURE)

    def test_waits_for_new_connection(self) -> None:
        """
        A push that finds the connection just lost goes out on the next one.
        """
        self.transports[0].loseConnection()
        sent = self.send()
        self.network.advance(0.5)
        gateway, _ = self.network.accept()
        self.network.advance(0)
        (asked,) = gateway.asked
        self.assertEqual(asked.push.timeout_ms, 2000)
        gateway.ok(asked)
        self.assertIs(self.code(sent), ResultCode.SUCCESS)

    def test_connecting_fails(self) -> None:
        """
        It fails when there is no next one.
        """
        self.transports[0].loseConnection()
        sent = self.send()
        self.network.advance(0.5)
        self.assertNoResult(sent)
        self.network.refuse(Failure(ConnectionRefusedError()))
        self.assertIs(self.code(sent), ResultCode.FAILURE)

    def test_known_to_be_away(self) -> None:
        """
        While the gateway is known to be away pushes fail at once.
        """
        self.transports[0].loseConnection()
        self.network.advance(0.5)
        self.network.refuse(Failure(ConnectionRefusedError()))
        self.assertIs(self.code(self.send()), ResultCode.FAILURE)

    def test_connecting_takes_too_long(self) -> None:
        """
        A push that nobody could be asked for is a failure and no time-out: it cannot
        have been delivered.
        """
        self.transports[0].loseConnection()
        sent = self.send(timeout=2)
        self.network.pump([0.5] * 4)
        self.assertIs(self.code(sent), ResultCode.FAILURE)
        self.assertEqual(self.sender.pending, 0)

    def test_cancel_while_connecting(self) -> None:
        """
        A push that is given up before the connection is there is not sent.
        """
        self.transports[0].loseConnection()
        given_up, other = self.send(), self.send()
        given_up.cancel()
        self.failureResultOf(given_up, CancelledError)
        self.network.advance(0.5)
        gateway, _ = self.network.accept()
        self.network.advance(0)
        self.assertEqual(len(gateway.asked), 1)
        self.assertNoResult(other)

    def test_reconnects(self) -> None:
        """
        A lost connection is made again by itself, and used.
        """
        self.transports[0].loseConnection()
        self.network.pump([0.5] * 10)
        gateway, _ = self.network.accept()
        sent = self.send()
        gateway.ok(gateway.asked[0])
        self.assertIs(self.code(sent), ResultCode.SUCCESS)

    def test_backs_off(self) -> None:
        """
        A gateway that refuses is not tried again and again at full speed: within a
        minute there are a few attempts, not dozens.
        """
        self.transports[0].loseConnection()
        attempts = 0
        for _ in range(600):
            self.network.advance(0.1)
            if self.network.attempts:
                attempts += 1
                self.network.refuse(Failure(ConnectionRefusedError()))
        self.assertTrue(3 <= attempts <= 15, attempts)

    def test_broken_frame(self) -> None:
        """
        A gateway that sends no packets is hung up on, and its pushes fail.
        """
        sent = self.send()
        self.gateways[0].write(b"\x7f\xff\xff\xff")
        self.assertIs(self.code(sent), ResultCode.FAILURE)
        self.assertFalse(self.transports[0].connected)

    def test_unexpected_command(self) -> None:
        """
        So is one that sends a command which is not for senders.
        """
        sent = self.send()
        self.gateways[0].say(Command.PUSH, self.gateways[0].asked[0], b"hi")
        self.assertIs(self.code(sent), ResultCode.FAILURE)
        self.assertFalse(self.transports[0].connected)

    def test_pending_is_bounded(self) -> None:
        """
        Above the limit of open pushes another one fails at once and is not sent.
        """
        self.patch(_request, "MAX_PENDING", 2)
        self.send()
        self.send()
        self.assertIs(self.code(self.send()), ResultCode.FAILURE)
        self.assertEqual(len(self.gateways[0].asked), 2)

    def test_send_buffer_is_bounded(self) -> None:
        """
        While a gateway does not read, pushes wait up to a limit; the next one fails.
        """
        self.patch(_link, "MAX_UNSENT", 100)
        self.transports[0].held = True
        producer: Any = self.transports[0].producer
        producer.pauseProducing()
        waiting = self.send()
        self.assertNoResult(waiting)
        self.assertIs(self.code(self.send(content=bytes(80))), ResultCode.FAILURE)

    def test_send_buffer_drained(self) -> None:
        """
        When the gateway reads again pushes go out again.
        """
        self.patch(_link, "MAX_UNSENT", 100)
        producer: Any = self.transports[0].producer
        producer.pauseProducing()
        self.assertNoResult(self.send(content=bytes(50)))
        self.assertIs(self.code(self.send(content=bytes(50))), ResultCode.FAILURE)
        producer.resumeProducing()
        producer.pauseProducing()
        self.assertNoResult(self.send(content=bytes(50)))


class StopTests(SenderTestCase):
    addresses = TWO

    def test_closes(self) -> None:
        """
        Stopping closes the connections, leaves no timer, and does not reconnect.
        """
        self.successResultOf(self.sender.stop())
        self.assertFalse(any(transport.connected for transport in self.transports))
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_pushes_fail(self) -> None:
        """
        Pushes under way end as failures.
        """
        sent = self.send()
        self.sender.stop()
        self.assertIs(self.code(sent), ResultCode.FAILURE)

    def test_rest_of_a_list_is_not_sent(self) -> None:
        """
        What is left of a list is not sent while stopping, and named.
        """
        users = [f"user-{number}" for number in range(WINDOW + 50)]
        sent = self.sender.send_all(PushContext(b"hi", user_ids=users))
        self.network.pump([0] * 10)
        self.sender.stop()
        aggregate = self.successResultOf(sent)
        self.assertEqual(aggregate.count(ResultCode.FAILURE), WINDOW)
        self.assertEqual(list(aggregate.unsent), users[WINDOW:])
        self.assertEqual(
            [len(gateway.asked) for gateway in self.gateways], [WINDOW] * 2
        )

    def test_twice(self) -> None:
        """
        Stopping a stopped sender does nothing.
        """
        self.sender.stop()
        self.successResultOf(self.sender.stop())


@implementer(IGatewayDirectory)
class FakeDirectory:
    """
    A route store: gives one list of routes after another.
    """

    fixed = False
    cache = None

    def __init__(self, *answers: Deferred[Sequence[Route]]) -> None:
        self.answers = list(answers)
        self.dropped: list[str] = []
        self.addresses: Sequence[tuple[str, int]] = TWO
        self.changed: Any = None
        self.registration: Deferred[bool] = succeed(True)
        self.asked_for: list[tuple[str, int]] = []
        self.starting: Deferred[None] = succeed(None)
        self.stopped = 0

    def start(self, gateways_changed: Any) -> Deferred[None]:
        self.changed = gateways_changed
        if self.addresses:
            gateways_changed(self.addresses)
        return self.starting

    def stop(self) -> Deferred[None]:
        self.stopped += 1
        return succeed(None)

    def registered(self, address: tuple[str, int]) -> Deferred[bool]:
        self.asked_for.append(address)
        return self.registration

    def routes(self, user_id: str) -> Deferred[Sequence[Route]]:
        return self.answers.pop(0)

    def outdated(self, user_id: str) -> None:
        self.dropped.append(user_id)


FIRST = Route("10.0.0.1", 3001, 1)
SECOND = Route("10.0.0.2", 3001, 1)


class DirectoryTests(SenderTestCase):
    """
    With a directory only the gateways that have the user are asked.
    """

    def setUp(self) -> None:
        self.directory = FakeDirectory()
        self.addresses = self.directory
        super().setUp()

    def with_routes(self, *answers: Sequence[Route]) -> Deferred[PushResult]:
        self.directory.answers = [succeed(routes) for routes in answers]
        return self.send()

    def redirect(self, which: int) -> None:
        gateway = self.gateways[which]
        gateway.error(gateway.asked[-1], ErrorCode.ROUTER_CHANGE)

    def test_interfaces(self) -> None:
        """
        The fixed list and the fake one are both directories.
        """
        verifyObject(IGatewayDirectory, StaticGateways(ONE))
        verifyObject(IGatewayDirectory, self.directory)

    def test_route(self) -> None:
        """
        Only the gateway of the route is asked, for the route's client type, and the
        result tells it.
        """
        sent = self.with_routes([SECOND])
        self.assertEqual(self.gateways[0].asked, [])
        (asked,) = self.gateways[1].asked
        self.assertEqual(asked.push.client_type, 1)
        self.gateways[1].ok(asked)
        self.assertEqual(self.successResultOf(sent).location, SECOND)

    def test_no_route(self) -> None:
        """
        A user without a route is offline.
        """
        self.assertIs(self.code(self.with_routes([])), ResultCode.OFFLINE)

    def test_unavailable(self) -> None:
        """
        A push fails when nobody knows the routes.
        """
        self.directory.answers = [fail(Unavailable("route store"))]
        self.assertIs(self.code(self.send()), ResultCode.FAILURE)

    def test_slow_lookup(self) -> None:
        """
        Looking up is part of the time-out, and ends with it.
        """
        lookup: Deferred[Sequence[Route]] = Deferred()
        self.directory.answers = [lookup]
        sent = self.send()
        self.network.advance(3.1)
        self.assertIs(self.code(sent), ResultCode.TIMEOUT)
        self.assertTrue(lookup.called)

    def test_moved_user(self) -> None:
        """
        A user who moved is followed, with the same content and the time that is left.
        """
        sent = self.with_routes([FIRST], [SECOND])
        self.network.advance(1)
        self.redirect(0)
        (asked,) = self.gateways[1].asked
        self.assertEqual(asked.push.content, b"hi")
        self.assertEqual(asked.push.timeout_ms, 1500)
        self.gateways[1].ok(asked)
        result = self.successResultOf(sent)
        self.assertIs(result.code, ResultCode.SUCCESS)
        self.assertIn("redirect", [name for name, _ in result.time_line])

    def test_deadline_stays(self) -> None:
        """
        Following does not lengthen the time-out.
        """
        sent = self.with_routes([FIRST], [SECOND])
        self.network.advance(2)
        self.redirect(0)
        self.network.advance(1.1)
        self.assertIs(self.code(sent), ResultCode.TIMEOUT)

    def test_three_redirects(self) -> None:
        """
        A user who is sent for in circles is followed three times.
        """
        sent = self.with_routes(*[[FIRST], [SECOND]] * 3)
        for which in (0, 1, 0):
            self.redirect(which)
        self.assertNoResult(sent)
        self.redirect(1)
        self.assertIs(self.code(sent), ResultCode.FAILURE)

    def test_same_route_again(self) -> None:
        """
        If the store insists on the route that was wrong, the push fails.
        """
        sent = self.with_routes([FIRST], [FIRST])
        self.redirect(0)
        self.assertIs(self.code(sent), ResultCode.FAILURE)

    def test_outdated(self) -> None:
        """
        The directory learns of routes that did not work, and only of those.
        """
        self.with_routes([FIRST])
        self.gateways[0].ok(self.gateways[0].asked[0])
        self.assertEqual(self.directory.dropped, [])
        self.with_routes([FIRST])
        self.network.advance(3.1)
        self.assertEqual(self.directory.dropped, ["bob"])

    def test_stop_while_looking_up(self) -> None:
        """
        A push that is given up while the sender stops calls nobody back.
        """
        lookups: list[Deferred[Sequence[Route]]] = [Deferred(), Deferred()]
        self.directory.answers = list(lookups)
        sent: list[Deferred[PushResult]] = []
        results: list[PushResult] = []

        def ended(result: PushResult) -> None:
            results.append(result)
            for one in sent:
                one.cancel()

        sent += [self.send(callback=ended), self.send(callback=ended)]
        self.sender.stop()
        self.assertEqual(len(results), 1)
        for one in sent:
            self.failureResultOf(one, CancelledError)
