"""
Questions of the sender that are no pushes, against gateways in memory.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mpush_tw.errors import PushError, Unavailable
from mpush_tw.protocol.commands import Command
from mpush_tw.protocol.messages import Ok
from mpush_tw.protocol.packet import encode_packet
from mpush_tw.sender import (
    AudienceCount,
    BroadcastCounts,
    IBroadcastTask,
    Milestone,
    NodeAudience,
    PushSender,
    ResultCode,
    Trace,
    TracedPush,
)
from mpush_tw.sender._queries import NO_ANSWERS, TOO_LONG
from tests.sender.gateway import FakeGateway, Network
from tests.sender.stores import FakeStores
from tests.sender.test_push_sender import TWO, SenderTestCase


class QueryTestCase(SenderTestCase):
    """
    A sender that is connected to two gateways.
    """

    addresses: Any = TWO

    def accept(self, count: int = 2) -> list[FakeGateway]:
        """
        Accept the connections on which questions are asked.
        """
        pairs = [self.network.accept() for _ in range(count)]
        self.question_transports = [transport for _, transport in pairs]
        return [gateway for gateway, _ in pairs]


class AskingTests(QueryTestCase):
    """
    How gateways are asked: here, whom a broadcast would reach.
    """

    def counted(self, asking: Deferred[AudienceCount]) -> list[tuple[int | None, str]]:
        count = self.successResultOf(asking)
        return [(node.matched, node.reason) for node in count.nodes]

    def test_count(self) -> None:
        """
        Each gateway is asked; the sum and each one's answer are told.
        """
        asking = self.sender.count("userId % 2 == 0", ["vip"])
        one, two = self.accept()
        [(_, query)] = one.queries
        self.assertEqual(query.query, "count")
        self.assertEqual(
            query.arguments, {"condition": "userId % 2 == 0", "tags": ["vip"]}
        )
        two.tell({"online": 5, "matched": 2, "error": "TypeError: no"})
        self.assertNoResult(asking)
        one.tell({"online": 40, "matched": 20, "sent": 0})
        count = self.successResultOf(asking)
        self.assertEqual((count.online, count.matched), (45, 22))
        self.assertTrue(count.counted)
        self.assertEqual(
            count.nodes,
            (
                NodeAudience(TWO[0], 40, 20),
                NodeAudience(TWO[1], 5, 2, "", "TypeError: no"),
            ),
        )

    def test_everybody(self) -> None:
        """
        Without a condition everybody counts.
        """
        self.sender.count()
        self.assertEqual(self.accept()[0].queries[0][1].arguments, {})

    def test_own_connection(self) -> None:
        """
        A question has a connection of its own, which is closed after the answer;
        pushes keep theirs.
        """
        asking = self.sender.count()
        gateways = self.accept()
        for gateway in gateways:
            gateway.tell({"online": 1, "matched": 1})
        self.successResultOf(asking)
        self.assertEqual(
            [transport.connected for transport in self.question_transports],
            [False, False],
        )
        self.assertTrue(all(transport.connected for transport in self.transports))
        self.assertEqual([gateway.queries for gateway in self.gateways], [[], []])
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_node_of_the_original(self) -> None:
        """
        A node of the original does not know the question and hangs up: it is listed as
        one that cannot tell, and pushes go to it as ever.
        """
        asking = self.sender.count()
        one, two = self.accept()
        one.refuse(101, "unsupported command")
        self.question_transports[0].loseConnection()
        two.tell({"online": 3, "matched": 3})
        self.assertEqual(self.counted(asking), [(None, NO_ANSWERS), (3, "")])
        sent = self.send()
        self.gateways[0].ok(self.gateways[0].asked[0])
        self.assertIs(self.code(sent), ResultCode.SUCCESS)

    def test_not_the_whole_truth(self) -> None:
        """
        When one cannot tell, the sum is that of the others.
        """
        asking = self.sender.count()
        one, two = self.accept()
        one.refuse(101, "unsupported command")
        two.tell({"online": 3, "matched": 2})
        count = self.successResultOf(asking)
        self.assertEqual((count.online, count.matched), (3, 2))
        self.assertFalse(count.counted)

    def test_ended_early(self) -> None:
        """
        A node that did not count to the end has not told the whole truth.
        """
        asking = self.sender.count()
        for gateway in self.accept():
            gateway.tell({"online": 3, "matched": 2, "reason": "stop"})
        self.assertFalse(self.successResultOf(asking).counted)

    def test_refused(self) -> None:
        """
        What a node says against the question is told.
        """
        asking = self.sender.count()
        one, two = self.accept()
        one.refuse(0, "tags: expected a list of texts")
        two.refuse(0, "")
        self.assertEqual(
            self.counted(asking),
            [(None, "tags: expected a list of texts"), (None, "error 0")],
        )

    def test_not_connected(self) -> None:
        """
        A gateway that cannot be connected says nothing, and the reason is told.
        """
        asking = self.sender.count()
        self.network.refuse(Failure(ConnectionRefusedError()))
        self.accept(1)[0].tell({"online": 3, "matched": 2})
        (_, reason), other = self.counted(asking)
        self.assertIn("not connected: Connection was refused", reason)
        self.assertEqual(other, (2, ""))

    def test_hangs_up(self) -> None:
        """
        So it is with one that closes without an answer.
        """
        asking = self.sender.count()
        self.accept(1)[0].tell({"online": 3, "matched": 2})
        _, transport = self.network.accept()
        transport.loseConnection()
        self.assertEqual(
            self.counted(asking), [(2, ""), (None, "the connection was closed")]
        )

    def test_silence(self) -> None:
        """
        A gateway has ten seconds, or what the caller gives it; then it is hung up on.
        """
        for timeout, seconds in (({}, 10), ({"timeout": 2}, 2)):
            asking = self.sender.count(**timeout)
            self.accept(1)[0].tell({"online": 3, "matched": 2})
            self.network.advance(seconds - 0.1)
            self.assertNoResult(asking)
            _, transport = self.network.accept()
            self.network.advance(0.2)
            self.assertEqual(
                self.counted(asking), [(2, ""), (None, "no answer in time")]
            )
            self.assertFalse(transport.connected)
            self.assertEqual(self.network.getDelayedCalls(), [])

    def test_unreadable(self) -> None:
        """
        Answers that are something else do no harm.
        """
        for answer in ([], {}, {"online": "many", "matched": 1}, None):
            asking = self.sender.count()
            for gateway in self.accept():
                gateway.tell(answer)
            self.assertEqual(self.counted(asking), [(None, "unreadable answer")] * 2)

    def test_garbage(self) -> None:
        """
        Nor do bytes that are none; other packets are passed over.
        """
        asking = self.sender.count()
        one, two = self.accept()
        one.write(encode_packet(Command.OK, one.queries[0][0], 0, b"\x40"))
        session_id = two.queries[0][0]
        two.write(encode_packet(Command.OK, session_id + 99, 0, b"\x40"))
        two.write(encode_packet(Command.OK, session_id, 0, Ok(16).encode()))
        two.write(encode_packet(Command.PUSH, session_id, 0, b""))
        two.tell({"online": 3, "matched": 2})
        (_, reason), other = self.counted(asking)
        self.assertNotEqual(reason, "")
        self.assertEqual(other, (2, ""))

    def test_endless_answer(self) -> None:
        """
        An answer that is announced as a huge one is not waited for.
        """
        asking = self.sender.count()
        one, two = self.accept()
        one.write(b"\x7f\xff\xff\xff" + bytes(9))
        two.tell({"online": 3, "matched": 2})
        (matched, reason), _ = self.counted(asking)
        self.assertIsNone(matched)
        self.assertNotEqual(reason, "")

    def test_few_at_a_time(self) -> None:
        """
        Sixteen gateways are asked at a time, and all of them in the end.
        """
        addresses = [(f"10.0.1.{number}", 3001) for number in range(20)]
        sender = PushSender(addresses, reactor=self.network)
        sender.start()
        while self.network.attempts:
            self.network.accept()
        self.network.advance(0)
        asking = sender.count()
        self.assertEqual(len(self.network.attempts), 16)
        answered = 0
        while self.network.attempts:
            self.accept(1)[0].tell({"online": 1, "matched": 1})
            answered += 1
        self.assertEqual(answered, 20)
        self.assertEqual(self.successResultOf(asking).online, 20)

    def test_cancel(self) -> None:
        """
        Whoever does not want to know any more leaves no connection and no timer.
        """
        asking = self.sender.count()
        self.accept(1)
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.assertFalse(self.question_transports[0].connected)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_stop(self) -> None:
        """
        When the sender stops, questions end as well.
        """
        asking = self.sender.count()
        self.accept(1)
        self.sender.stop()
        self.assertEqual(self.counted(asking), [(None, "the sender was stopped")] * 2)
        self.assertFalse(self.question_transports[0].connected)

    def test_refused_before(self) -> None:
        """
        What can be no question is refused before any gateway is asked.
        """
        for arguments in (
            {"condition": ""},
            {"tags": []},
            {"tags": "vip"},
            {"condition": "x" * 10240},
        ):
            self.failureResultOf(self.sender.count(**arguments), PushError)
        self.assertEqual(self.network.attempts, [])

    def test_not_started(self) -> None:
        """
        A sender that is not started cannot ask.
        """
        sender = PushSender(TWO, reactor=self.network)
        self.failureResultOf(sender.count(), PushError)
        self.failureResultOf(sender.trace("t"), PushError)
        self.assertRaises(PushError, sender.task, "t")


SENDER_POINTS = [["begin", 10], ["send-to-gateway-begin", 12]]


def traced(user_id: str | None, outcome: str, at: int, **more: Any) -> dict[str, Any]:
    """
    What a node tells of a push that it got at a certain time.
    """
    return {
        "userId": user_id,
        "clientType": 1,
        "outcome": outcome,
        "points": [*SENDER_POINTS, ["push-center-begin", at], ["end", at + 1]],
        **more,
    }


class TraceTests(QueryTestCase):
    """
    What became of pushes with an id.
    """

    def trace(self, *answers: Any) -> Trace:
        asking = self.sender.trace("t1")
        for gateway, answer in zip(self.accept(), answers, strict=True):
            [(_, query)] = gateway.queries
            self.assertEqual((query.query, query.arguments["id"]), ("trace", "t1"))
            gateway.tell(answer)
        return self.successResultOf(asking)

    def test_pushes(self) -> None:
        """
        Each node tells what it knows.
        """
        trace = self.trace(
            {"pushes": [traced("bob", "redirect", 15)]},
            {"pushes": [traced("bob", "ack_success", 20)]},
        )
        self.assertEqual(
            [(push.address, push.outcome) for push in trace.pushes],
            [(TWO[0], "redirect"), (TWO[1], "ack_success")],
        )
        self.assertEqual(trace.pushes[0].time_line[0], ("begin", 10))
        self.assertEqual(trace.silent, ())

    def test_milestones(self) -> None:
        """
        All that happened is put in the order of time; what the sender did is told once,
        and as the sender's.
        """
        trace = self.trace(
            {"pushes": [traced("bob", "redirect", 15)]},
            {"pushes": [traced("bob", "ack_success", 14)]},
        )
        self.assertEqual(
            trace.milestones,
            [
                Milestone(10, "begin", None, "bob", 0),
                Milestone(12, "send-to-gateway-begin", None, "bob", 0),
                Milestone(14, "push-center-begin", TWO[1], "bob", 1),
                Milestone(15, "push-center-begin", TWO[0], "bob", 1),
                Milestone(15, "end", TWO[1], "bob", 1),
                Milestone(16, "end", TWO[0], "bob", 1),
            ],
        )

    def test_broadcast(self) -> None:
        """
        A broadcast is traced by its task, with its counts.
        """
        counts = {"online": 3, "sent": 2, "reason": "cancelled"}
        told = traced(None, "broadcast_complete", 15, counts=counts)
        told["points"] = told["points"][2:]
        trace = self.trace({"pushes": [told]}, {"pushes": []})
        self.assertEqual(
            trace.pushes,
            (
                TracedPush(
                    TWO[0],
                    None,
                    1,
                    "broadcast_complete",
                    (("push-center-begin", 15), ("end", 16)),
                    BroadcastCounts(online=3, sent=2),
                ),
            ),
        )
        self.assertEqual(trace.milestones[0].address, TWO[0])

    def test_nothing(self) -> None:
        """
        Nothing may be known of an id.
        """
        trace = self.trace({"pushes": []}, {"pushes": []})
        self.assertEqual((trace.pushes, trace.milestones), ((), []))

    def test_silent(self) -> None:
        """
        Gateways that cannot tell are listed.
        """
        asking = self.sender.trace("t1")
        one, two = self.accept()
        one.refuse(101, "unsupported command")
        two.tell({"pushes": [{"outcome": 1}]})
        self.assertEqual(
            self.successResultOf(asking).silent,
            ((TWO[0], NO_ANSWERS), (TWO[1], "unreadable answer")),
        )

    def test_long(self) -> None:
        """
        What does not fit into one answer is asked for in parts, in the same order.
        """
        asking = self.sender.trace("t1")
        one, two = self.accept()
        two.tell({"pushes": []})
        pushes = [traced(f"u{number}", "success", number) for number in range(40)]
        while one.queries:
            arguments: Any = one.queries[-1][1].arguments
            first, most = arguments["first"], arguments["most"]
            part = pushes[first : first + most]
            if len(part) > 10:
                one.refuse(0, TOO_LONG)
            else:
                one.tell({"pushes": part})
            if not self.network.attempts:
                break
            [one] = self.accept(1)
        self.assertEqual(
            [push.user_id for push in self.successResultOf(asking).pushes],
            [f"u{number}" for number in range(40)],
        )

    def test_too_long_for_any_answer(self) -> None:
        """
        One push that does not fit by itself is not asked for again and again.
        """
        asking = self.sender.trace("t1")
        one, two = self.accept()
        two.tell({"pushes": []})
        for _ in range(200):
            one.refuse(0, TOO_LONG)
            if not self.network.attempts:
                break
            [one] = self.accept(1)
        self.assertEqual(self.successResultOf(asking).silent, ((TWO[0], TOO_LONG),))

    def test_no_id(self) -> None:
        """
        An empty id is none.
        """
        for trace_id in ("", "x" * 257, "\udc80"):
            self.failureResultOf(self.sender.trace(trace_id), PushError)
        self.assertEqual(self.network.attempts, [])


class GatewayTaskTests(QueryTestCase):
    """
    Control of a broadcast through gateways that have no store in common.
    """

    def setUp(self) -> None:
        super().setUp()
        self.task = self.sender.task("t1")

    def asked(self, *answers: Any) -> list[Any]:
        """
        Answer both gateways' next question, and give what each was asked.
        """
        queries = []
        for gateway, answer in zip(self.accept(len(answers)), answers, strict=True):
            queries.append(gateway.queries[0][1])
            gateway.tell(answer)
        return queries

    def test_interface(self) -> None:
        """
        It is one of the ways to control a task.
        """
        verifyObject(IBroadcastTask, self.task)

    def test_rate(self) -> None:
        """
        All gateways are told the new rate.
        """
        changing = self.task.set_rate(50)
        for query in self.asked({"changed": 1}, {"changed": 0}):
            self.assertEqual(query, ("rate", {"id": "t1", "rate": 50}))
        self.assertIsNone(self.successResultOf(changing))
        self.assertRaises(PushError, self.task.set_rate, 0)

    def test_cancel(self) -> None:
        """
        All gateways are told to end it.
        """
        cancelling = self.task.cancel()
        for query in self.asked({"cancelled": 1}, {"cancelled": 1}):
            self.assertEqual(query, ("cancel", {"id": "t1"}))
        self.assertIsNone(self.successResultOf(cancelling))

    def test_one_is_silent(self) -> None:
        """
        If one gateway does not answer nobody knows: it fails, and names the gateway.
        """
        cancelling = self.task.cancel()
        self.asked({"cancelled": 1})
        self.network.refuse(Failure(ConnectionRefusedError()))
        error = self.failureResultOf(cancelling, Unavailable).value
        self.assertIn("10.0.0.2:3001", str(error))

    def test_progress(self) -> None:
        """
        The progress is the sum of all.
        """
        asking = self.task.progress()
        self.asked({"sent": 40, "running": 1}, {"sent": 2, "running": 0})
        self.assertEqual(self.successResultOf(asking), 42)

    def users(self, first: int, most: int, *pages: list[str]) -> list[Any]:
        """
        Ask for users while the first gateway has reached three and the second two.

        @param pages: What is answered to each further question.
        @return: What was asked, and the users.
        """
        asking = self.task.users(first, most)
        self.asked({"sent": 3, "running": 0}, {"sent": 2, "running": 0})
        queries: list[Any] = []
        for page in pages:
            [query] = self.asked({"sent": 0, "users": page})
            queries.append((query.arguments["first"], query.arguments["most"]))
        return [*queries, self.successResultOf(asking)]

    def test_users(self) -> None:
        """
        Users are listed gateway by gateway, page by page.
        """
        for first, most, pages, expected in (
            (0, 1000, (["a", "b", "c"], ["d", "e"]), [(0, 3), (0, 2)]),
            (0, 2, (["a", "b"],), [(0, 2)]),
            (2, 2, (["c"], ["d"]), [(2, 1), (0, 1)]),
            (4, 2, (["e"],), [(1, 1)]),
            (5, 2, (), []),
        ):
            with self.subTest(first=first, most=most):
                *queries, users = self.users(first, most, *pages)
                self.assertEqual(queries, expected)
                self.assertEqual(users, [user for page in pages for user in page])

    def test_no_page(self) -> None:
        """
        A page that is none is refused.
        """
        self.assertRaises(PushError, self.task.users, -1)

    def test_no_id(self) -> None:
        """
        An empty id is none.
        """
        self.assertRaises(PushError, self.sender.task, "")


class StoredTaskTests(SynchronousTestCase):
    """
    Control of a broadcast in a cluster.
    """

    def test_store(self) -> None:
        """
        It goes through the store, and no gateway is asked.
        """
        network = Network()
        stores = FakeStores(network)
        sender = PushSender(stores.directory, reactor=network)
        sender.start()
        network.advance(0)
        self.successResultOf(sender.task("t1").set_rate(5))
        stored = self.successResultOf(stores.cache.hgetall("mp:ptt1"))
        self.assertEqual(stored, {"q": "5"})
        self.assertEqual(network.attempts, [])
