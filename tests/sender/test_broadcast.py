"""
Broadcasts of the sender, against gateways in memory.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.errors import PushError
from mpush_tw.protocol.commands import ErrorCode
from mpush_tw.protocol.gateway import GatewayPush
from mpush_tw.sender import (
    AckModel,
    BroadcastCounts,
    BroadcastResult,
    NodeBroadcast,
    PushContext,
    PushSender,
    ResultCode,
    Wait,
    _request,
)
from mpush_tw.sender.audience import total
from tests.sender.gateway import FakeGateway, Network
from tests.sender.stores import FakeStores
from tests.sender.test_push_sender import ONE, TWO, SenderTestCase

COUNTS = {
    "online": 7,
    "matched": 5,
    "sent": 4,
    "filtered": 1,
    "busy": 1,
    "gone": 1,
    "failed": 0,
    "left_out": 0,
}


class BroadcastTestCase(SenderTestCase):
    """
    A sender that is connected to two gateways.
    """

    addresses: Any = TWO

    def broadcast(
        self, wait: Wait = Wait.ALL, **settings: Any
    ) -> Deferred[BroadcastResult]:
        return self.sender.broadcast(
            PushContext(**{"content": b"hi", **settings}), wait
        )

    def finished(self, which: int, **counts: int | str) -> None:
        """
        Have a gateway say that it has finished its last broadcast.
        """
        gateway = self.gateways[which]
        gateway.finished(gateway.asked[-1], {**COUNTS, **counts})

    def nodes(self, result: BroadcastResult) -> list[tuple[Any, str]]:
        """
        What became of each gateway's part.
        """
        return [(one.code, one.reason) for one in result.nodes]


class WireTests(BroadcastTestCase):
    """
    What goes to the gateways.
    """

    def test_everybody(self) -> None:
        """
        Each gateway is asked once, for nobody in particular; each time with a session
        id of its own.
        """
        self.broadcast(timeout=5)
        [one], [two] = (gateway.asked for gateway in self.gateways)
        self.assertEqual(one.push, GatewayPush(None, 0, 5000, b"hi"))
        self.assertEqual(two.push, one.push)
        self.assertNotEqual(one.session_id, two.session_id)

    def test_fields(self) -> None:
        """
        Task, tags, condition and ack flag are handed on.
        """
        self.broadcast(
            task_id="t1",
            tags=["vip", 'a"b'],
            condition="userId%100<20",
            ack=AckModel.AUTO_ACK,
        )
        [asked] = self.gateways[0].asked
        self.assertEqual(
            asked.push,
            GatewayPush(None, 0, 60_000, b"hi", "t1", ("vip", 'a"b'), "userId%100<20"),
        )
        self.assertEqual(asked.flags, 8)

    def test_bytes(self) -> None:
        """
        But for session id and time-out the packet is the one that was recorded of the
        original (cluster 4.12).
        """
        expected = bytearray.fromhex(
            "00000031 10 0000 08 00000008 00"
            "0000 00000000 00000000 0002 6869 0002 7431"
            "000e 5b22766970222c22615c2262225d 000d 7573657249642531 30303c3230"
        )
        self.broadcast(
            task_id="t1",
            tags=["vip", 'a"b'],
            condition="userId%100<20",
            ack=AckModel.AUTO_ACK,
        )
        sent = self.transports[0].value()
        expected[8:12] = sent[8:12]
        expected[19:23] = sent[19:23]
        self.assertEqual(sent, bytes(expected))

    def test_several_connections(self) -> None:
        """
        A gateway with several connections is asked over one of them.
        """
        sender = PushSender(ONE, reactor=self.network, connections_per_gateway=3)
        sender.start()
        gateways = [self.network.accept()[0] for _ in range(3)]
        self.network.advance(0)
        sender.broadcast(PushContext(b"hi"))
        self.assertEqual(sum(len(gateway.asked) for gateway in gateways), 1)


class ResultTests(BroadcastTestCase):
    """
    What comes back.
    """

    def test_all_finished(self) -> None:
        """
        It succeeds when the last gateway has finished; the counts are those of each,
        and their sum.
        """
        sent = self.broadcast()
        self.finished(1)
        self.assertNoResult(sent)
        self.finished(0, sent=40, online=43)
        result = self.successResultOf(sent)
        self.assertIs(result.code, ResultCode.SUCCESS)
        self.assertTrue(result.counted)
        self.assertEqual([one.address for one in result.nodes], TWO)
        self.assertEqual(
            [one.counts for one in result.nodes],
            [
                BroadcastCounts(43, 5, 40, 1, 1, 1, 0, 0),
                BroadcastCounts(7, 5, 4, 1, 1, 1, 0, 0),
            ],
        )
        self.assertEqual(result.counts, BroadcastCounts(50, 10, 44, 2, 2, 2, 0, 0))
        assert result.first is not None
        self.assertEqual(result.first.address, TWO[1])

    def test_node_of_the_original(self) -> None:
        """
        A node of the original finishes without counts; the others' still count.
        """
        sent = self.broadcast()
        self.gateways[0].finished(self.gateways[0].asked[0])
        self.finished(1)
        result = self.successResultOf(sent)
        self.assertTrue(result.succeeded)
        self.assertFalse(result.counted)
        self.assertIsNone(result.nodes[0].counts)
        self.assertEqual(result.counts.sent, 4)

    def test_node_says_it_failed(self) -> None:
        """
        One gateway that says so is enough for a failure; what the other did is told.
        """
        sent = self.broadcast()
        gateway = self.gateways[0]
        gateway.error(gateway.asked[0], ErrorCode.PUSH_CLIENT_FAILURE)
        self.assertNoResult(sent)
        self.finished(1)
        result = self.successResultOf(sent)
        self.assertEqual(
            self.nodes(result),
            [(ResultCode.FAILURE, "push to client failure"), (ResultCode.SUCCESS, "")],
        )
        self.assertIs(result.code, ResultCode.FAILURE)
        self.assertEqual(result.counts.sent, 4)

    def test_ended_early(self) -> None:
        """
        Why a node ended early, and the first error of the condition, are told.
        """
        sent = self.broadcast(condition="nonsense")
        self.finished(0, reason="cancelled", left_out=3)
        self.finished(1, error="ReferenceError: nonsense is not defined")
        one, two = self.successResultOf(sent).nodes
        self.assertEqual((one.reason, one.error), ("cancelled", ""))
        self.assertEqual(two.error, "ReferenceError: nonsense is not defined")

    def test_time_lines(self) -> None:
        """
        The result has the milestones of this side, and each node's its own.
        """
        sent = self.broadcast()
        for gateway in self.gateways:
            gateway.finished(gateway.asked[0], COUNTS, [("before-send", 12)])
        result = self.successResultOf(sent)
        self.assertEqual(
            [name for name, _ in result.time_line],
            ["begin", "send-to-gateway-begin", "send-to-gateway-end", "end"],
        )
        self.assertEqual(result.nodes[0].time_line, (("before-send", 12),))

    def test_silence(self) -> None:
        """
        A gateway that does not answer within a minute has timed out, and so has the
        broadcast; nothing is left of it.
        """
        sent = self.broadcast()
        self.finished(1)
        self.network.advance(59.9)
        self.assertNoResult(sent)
        self.network.advance(0.2)
        result = self.successResultOf(sent)
        self.assertEqual(
            self.nodes(result), [(ResultCode.TIMEOUT, ""), (ResultCode.SUCCESS, "")]
        )
        self.assertIs(result.code, ResultCode.TIMEOUT)
        self.assertEqual(self.sender.pending, 0)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_own_timeout(self) -> None:
        """
        The caller may give it less time, or more.
        """
        sent = self.broadcast(timeout=100)
        self.network.advance(99)
        self.assertNoResult(sent)
        self.network.advance(2)
        self.assertIs(self.successResultOf(sent).code, ResultCode.TIMEOUT)

    def test_connection_lost(self) -> None:
        """
        A gateway whose connection is lost has failed, at once.
        """
        sent = self.broadcast()
        self.transports[0].loseConnection()
        self.finished(1)
        self.assertEqual(
            self.nodes(self.successResultOf(sent)),
            [
                (ResultCode.FAILURE, "the connection was lost"),
                (ResultCode.SUCCESS, ""),
            ],
        )

    def test_late_answer(self) -> None:
        """
        What a gateway says afterwards changes nothing.
        """
        sent = self.broadcast(timeout=1)
        self.network.advance(1.1)
        self.finished(0)
        self.finished(1)
        self.assertIs(self.successResultOf(sent).code, ResultCode.TIMEOUT)

    def test_odd_counts(self) -> None:
        """
        Counts that are none do no harm.
        """
        sent = self.broadcast()
        gateway = self.gateways[0]
        gateway.finished(gateway.asked[0], {"sent": -5, "online": 3, "else": 7})
        self.finished(1)
        self.assertEqual(
            self.successResultOf(sent).nodes[0].counts, BroadcastCounts(online=3)
        )

    def test_bounded(self) -> None:
        """
        When too many pushes are under way it fails, and is not sent.
        """
        self.patch(_request, "MAX_PENDING", 1)
        sent = self.broadcast()
        self.assertIs(self.successResultOf(sent).code, ResultCode.FAILURE)
        self.assertEqual([gateway.asked for gateway in self.gateways], [[], []])


class WaitTests(BroadcastTestCase):
    """
    What is waited for.
    """

    def test_first(self) -> None:
        """
        Whoever wants it is told when the first gateway has finished, as senders of the
        original are; the other has no code then.
        """
        sent = self.broadcast(Wait.FIRST)
        gateway = self.gateways[0]
        gateway.error(gateway.asked[0], ErrorCode.PUSH_CLIENT_FAILURE)
        self.assertNoResult(sent)
        self.finished(1)
        result = self.successResultOf(sent)
        self.assertIs(result.code, ResultCode.SUCCESS)
        self.assertEqual(result.first, result.nodes[1])

    def test_first_does_not_wait_for_the_rest(self) -> None:
        """
        Nor does it hold on to anything for the gateways that have not finished.
        """
        sent = self.broadcast(Wait.FIRST)
        self.finished(0)
        self.assertEqual(
            self.nodes(self.successResultOf(sent)),
            [(ResultCode.SUCCESS, ""), (None, "")],
        )
        self.assertEqual(self.sender.pending, 0)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_first_of_none(self) -> None:
        """
        If none finishes it is what it would be otherwise.
        """
        sent = self.broadcast(Wait.FIRST, timeout=1)
        self.network.advance(1.1)
        self.assertIs(self.successResultOf(sent).code, ResultCode.TIMEOUT)

    def test_not_at_all(self) -> None:
        """
        Whoever does not want to wait is told when all gateways have been asked.
        """
        sent = self.broadcast(Wait.NONE, task_id="t1")
        result = self.successResultOf(sent)
        self.assertEqual([len(gateway.asked) for gateway in self.gateways], [1, 1])
        self.assertTrue(result.succeeded)
        self.assertEqual([one.code for one in result.nodes], [None, None])
        self.assertEqual(result.task_id, "t1")
        self.assertEqual(self.sender.pending, 0)

    def test_task(self) -> None:
        """
        With a task id the result still waits for the gateways, unlike the original's.
        """
        sent = self.broadcast(task_id="t1")
        self.finished(0)
        self.assertNoResult(sent)
        self.finished(1)
        self.assertEqual(self.successResultOf(sent).task_id, "t1")


class ConnectingTests(BroadcastTestCase):
    """
    Gateways that are not connected when a broadcast begins.
    """

    def setUp(self) -> None:
        super().setUp()
        self.transports[1].loseConnection()
        self.network.advance(1)

    def test_waits(self) -> None:
        """
        A gateway that is just being connected gets it when it is.
        """
        sent = self.broadcast()
        self.finished(0)
        self.assertNoResult(sent)
        self.gateways[1], _ = self.network.accept()
        self.network.advance(0)
        self.finished(1)
        self.assertTrue(self.successResultOf(sent).succeeded)

    def test_refused(self) -> None:
        """
        One that cannot be connected has failed.
        """
        sent = self.broadcast()
        self.finished(0)
        self.network.refuse(Failure(ConnectionRefusedError()))
        self.assertEqual(
            self.nodes(self.successResultOf(sent)),
            [(ResultCode.SUCCESS, ""), (ResultCode.FAILURE, "not connected")],
        )
        sent = self.broadcast()
        self.finished(0)
        self.assertIs(self.successResultOf(sent).code, ResultCode.FAILURE)

    def test_too_slow(self) -> None:
        """
        One that is not connected in time has failed; it was not asked.
        """
        sent = self.broadcast(timeout=1)
        self.finished(0)
        self.network.advance(1.1)
        self.assertEqual(
            self.nodes(self.successResultOf(sent)),
            [(ResultCode.SUCCESS, ""), (ResultCode.FAILURE, "not connected")],
        )
        gateway, _ = self.network.accept()
        self.network.advance(0)
        self.assertEqual(gateway.asked, [])

    def test_first_is_not_all(self) -> None:
        """
        Whoever waits for the first only has the message brought to all the same.
        """
        sent = self.broadcast(Wait.FIRST)
        self.finished(0)
        self.assertTrue(self.successResultOf(sent).succeeded)
        gateway, _ = self.network.accept()
        self.network.advance(0)
        self.assertEqual(len(gateway.asked), 1)
        self.assertEqual(self.sender.pending, 0)

    def test_all_written(self) -> None:
        """
        Whoever does not wait for answers waits for connections.
        """
        sent = self.broadcast(Wait.NONE)
        self.assertNoResult(sent)
        self.network.accept()
        self.network.advance(0)
        self.assertTrue(self.successResultOf(sent).succeeded)


class CallbackTests(BroadcastTestCase):
    """
    The callback of a context (C-36).
    """

    def setUp(self) -> None:
        super().setUp()
        self.told: list[BroadcastResult] = []

    def test_once(self) -> None:
        """
        It is called once with the result, however many gateways answer.
        """
        sent = self.broadcast(callback=self.told.append)
        self.finished(0)
        self.assertEqual(self.told, [])
        self.finished(1)
        self.assertEqual(self.told, [self.successResultOf(sent)])

    def test_once_after_the_first(self) -> None:
        """
        Further gateways do not call it again.
        """
        self.broadcast(Wait.FIRST, callback=self.told.append)
        self.finished(0)
        self.finished(1)
        self.network.advance(61)
        self.assertEqual(len(self.told), 1)

    def test_broken(self) -> None:
        """
        One that raises is logged, and the result comes.
        """
        sent = self.broadcast(callback=lambda result: 1 / 0)
        self.finished(0)
        self.finished(1)
        self.assertTrue(self.successResultOf(sent).succeeded)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_cancel_in_callback(self) -> None:
        """
        One that cancels the broadcast does no harm.
        """
        sent = self.broadcast(callback=lambda result: sent.cancel())
        self.finished(0)
        self.finished(1)
        self.failureResultOf(sent, CancelledError)


class EndTests(BroadcastTestCase):
    """
    Broadcasts that are given up.
    """

    def test_cancel(self) -> None:
        """
        After cancelling nothing is left of it.
        """
        sent = self.broadcast()
        sent.cancel()
        self.failureResultOf(sent, CancelledError)
        self.finished(0)
        self.assertEqual(self.sender.pending, 0)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_stop(self) -> None:
        """
        When the sender stops it ends as a failure.
        """
        sent = self.broadcast()
        self.finished(0)
        self.sender.stop()
        self.assertIs(self.successResultOf(sent).code, ResultCode.FAILURE)

    def test_stop_while_connecting(self) -> None:
        """
        So it does while a gateway is being connected.
        """
        self.transports[1].loseConnection()
        self.network.advance(1)
        sent = self.broadcast()
        self.finished(0)
        self.sender.stop()
        self.assertIs(self.successResultOf(sent).code, ResultCode.FAILURE)
        self.assertEqual(self.sender.pending, 0)


class RefusedTests(BroadcastTestCase):
    """
    What is refused before anything is sent.
    """

    def refused(self, **settings: Any) -> str:
        error = self.failureResultOf(self.broadcast(**settings), PushError)
        self.assertEqual([gateway.asked for gateway in self.gateways], [[], []])
        return str(error.value)

    def test_users(self) -> None:
        """
        A context that names users is not for everybody, not even with an empty id,
        which on the wire would be everybody (D-14).
        """
        for users in ({"user_id": "bob"}, {"user_id": ""}, {"user_ids": []}):
            self.assertIn("takes no users", self.refused(**users))

    def test_content(self) -> None:
        """
        Nothing, and more than fits into a packet with everything else in it, is not
        sent (C-47).
        """
        self.assertIn("empty", self.refused(content=b""))
        self.assertIn("too large", self.refused(content=bytes(10240)))
        size = 10240 - 18
        self.assertIn("too large", self.refused(content=bytes(size), task_id="t1"))
        self.assertIn("too large", self.refused(content=bytes(size), condition="1"))
        self.assertIn("too large", self.refused(content=bytes(size), tags=["a"]))
        self.assertNoResult(self.broadcast(content=bytes(size)))

    def test_audience(self) -> None:
        """
        Tags, conditions and tasks that are none are named.
        """
        for name, value in (
            ("tags", []),
            ("tags", "vip"),
            ("tags", ["vip", ""]),
            ("tags", [7]),
            ("condition", ""),
            ("condition", 7),
            ("condition", "\udc80"),
            ("task_id", ""),
            ("task_id", 7),
            ("task_id", "x" * 257),
        ):
            with self.subTest(name=name, value=value):
                self.assertIn(name.rstrip("s"), self.refused(**{name: value}))

    def test_trace(self) -> None:
        """
        A broadcast has its task for that.
        """
        self.assertIn("task_id", self.refused(trace_id="x"))

    def test_timeout(self) -> None:
        """
        A time-out that never ends is refused.
        """
        self.assertIn("timeout", self.refused(timeout=float("inf")))

    def test_not_started(self) -> None:
        """
        Before the start nobody can be asked.
        """
        sender = PushSender(ONE, reactor=self.network)
        self.failureResultOf(sender.broadcast(PushContext(b"hi")), PushError)

    def test_single_push(self) -> None:
        """
        Who names users and a part of them by tags has mixed something up.
        """
        for name, value in (
            ("tags", ["vip"]),
            ("condition", "true"),
            ("task_id", "t"),
        ):
            one = self.send(**{name: value})
            self.assertIn(name, str(self.failureResultOf(one, PushError).value))
            fields: dict[str, Any] = {name: value}
            context = PushContext(b"hi", user_ids=["bob"], **fields)
            several = self.sender.send_all(context)
            self.assertIn(name, str(self.failureResultOf(several, PushError).value))
        self.assertEqual([gateway.asked for gateway in self.gateways], [[], []])


class ClusterTests(SynchronousTestCase):
    """
    In a cluster all gateways that are registered are asked.
    """

    def setUp(self) -> None:
        self.network = Network()
        self.stores = FakeStores(self.network)
        self.sender = PushSender(self.stores.directory, reactor=self.network)
        self.sender.start()
        self.network.advance(0)

    def test_no_gateway(self) -> None:
        """
        With no gateway at all it is a failure, at once.
        """
        sent = self.sender.broadcast(PushContext(b"hi"))
        result = self.successResultOf(sent)
        self.assertEqual((result.code, result.nodes), (ResultCode.FAILURE, ()))
        self.assertEqual(self.sender.pending, 0)

    def test_registered(self) -> None:
        """
        Gateways are asked once each, however often they are registered (C-40); those
        that have gone are not.
        """
        for host, node_id in (("10.0.0.1", "a"), ("10.0.0.1", "b"), ("10.0.0.2", "c")):
            self.stores.registry.add(host, node_id)
        gateways: list[FakeGateway] = []
        while self.network.attempts:
            gateways.append(self.network.accept()[0])
        self.network.advance(0)
        self.stores.registry.remove("10.0.0.2", "c")
        self.network.advance(10)
        sent = self.sender.broadcast(PushContext(b"hi"))
        self.assertEqual([len(gateway.asked) for gateway in gateways], [1, 0])
        gateways[0].finished(gateways[0].asked[0], COUNTS)
        self.assertEqual(len(self.successResultOf(sent).nodes), 1)


class CountsTests(SynchronousTestCase):
    """
    Sums.
    """

    def test_total(self) -> None:
        """
        Counts add up field by field; who told none adds nothing.
        """
        one = BroadcastCounts(*range(8))
        self.assertEqual(
            total([one, None, one]), BroadcastCounts(*(2 * n for n in range(8)))
        )
        self.assertEqual(total([]), BroadcastCounts())

    def test_nobody_counted(self) -> None:
        """
        A broadcast to no gateway is not one that was counted.
        """
        self.assertFalse(BroadcastResult(ResultCode.FAILURE).counted)
        node = NodeBroadcast(ONE[0], ResultCode.SUCCESS, BroadcastCounts())
        self.assertTrue(BroadcastResult(ResultCode.SUCCESS, [node]).counted)
