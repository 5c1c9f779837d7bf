"""
Tests for L{mpush_tw.core.alloc.orders}.
"""

from __future__ import annotations

import json

from twisted.internet.defer import Deferred, fail

from mpush_tw.core.alloc.orders import (
    MAX_UNDER_WAY,
    BadOrder,
    PushOrder,
    PushOrders,
)
from mpush_tw.errors import PushError, Unavailable
from tests.core.alloc.fakes import AllocTestCase


class PushOrdersTests(AllocTestCase):
    """
    Orders as the page and the Android demo send them.
    """

    def setUp(self) -> None:
        super().setUp()
        self.pushed: list[PushOrder] = []
        self.waiting: list[Deferred[str]] = []
        self.problem: Exception | None = None
        self.orders = PushOrders(self._push, self.log)

    def _push(self, order: PushOrder) -> Deferred[str]:
        if self.problem is not None:
            return fail(self.problem)
        self.pushed.append(order)
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def order(self, **members: object) -> PushOrder:
        """
        Give an order, and take what was pushed for it.
        """
        self.orders.take(json.dumps(members).encode())
        return self.pushed[-1]

    def refused(self, body: bytes) -> str:
        """
        Send what is no order; gives what the sender is told.
        """
        return str(self.assertRaises(BadOrder, self.orders.take, body))

    # ------------------------------------------------------------ what is sent

    def test_content(self) -> None:
        """
        The device gets the notification of the original, byte for byte.
        """
        order = self.order(userId="user-0", hello="hello mpush")
        self.assertEqual(order.user_id, "user-0")
        self.assertEqual(
            order.content.decode(),
            '{"content":"{\\"content\\":\\"MPush开源推送，hello mpush\\",\\"nid\\":1,'
            '\\"ticker\\":\\"你有一条新的消息,请注意查收\\",\\"title\\":\\"MPUSH推送\\"}",'
            '"msgId":"msg_1","msgType":3}',
        )

    def test_numbers(self) -> None:
        """
        Messages are numbered, and take the two notification slots in turn.
        """
        told = [self.order(userId="u", hello="x") for _ in range(3)]
        envelopes = [json.loads(one.content) for one in told]
        ids = [one["msgId"] for one in envelopes]
        slots = [json.loads(one["content"])["nid"] for one in envelopes]
        self.assertEqual((ids, slots), (["msg_1", "msg_2", "msg_3"], [1, 2, 1]))
        self.assertEqual([one.message_id for one in told], ids)

    def test_no_hello(self) -> None:
        """
        Without a text the word null is sent, as by the original.
        """
        inner = json.loads(self.order(userId="u").content)["content"]
        self.assertEqual(json.loads(inner)["content"], "MPush开源推送，null")

    def test_android(self) -> None:
        """
        The body of the Android demo is an order.
        """
        order = self.order(userId="bob", hello="alice say:hi")
        self.assertEqual((order.user_id, order.condition), ("bob", None))

    def test_broadcast(self) -> None:
        """
        A broadcast wins over a user, and takes the condition along.
        """
        order = self.order(
            userId="user-0", hello="x", broadcast=True, condition="tags != null"
        )
        self.assertEqual((order.user_id, order.condition), (None, "tags != null"))

    def test_blank_condition(self) -> None:
        """
        A blank condition is none.
        """
        self.assertIsNone(self.order(broadcast=True, condition=" ").condition)

    def test_condition_without_broadcast(self) -> None:
        """
        A push to one user has no condition.
        """
        order = self.order(userId="u", broadcast=False, condition="false")
        self.assertIsNone(order.condition)

    def test_nulls_and_unknown_members(self) -> None:
        """
        Null counts as absent, what is not known does no harm.
        """
        order = self.order(userId="u", broadcast=None, condition=None, other=[1])
        self.assertEqual(order.user_id, "u")

    # ----------------------------------------------------------- what is refused

    def test_nobody(self) -> None:
        """
        An order without a user or a broadcast is refused: it would reach everybody.
        """
        for body in (b"{}", b'{"userId":""}', b'{"userId":" \\n"}', b'{"userId":null}'):
            self.assertIn("expected a userId", self.refused(body))
        self.assertEqual(self.pushed, [])

    def test_no_object(self) -> None:
        """
        What is not a JSON object in UTF-8 is refused, in one line.
        """
        for body in (
            b"",
            b"hello",
            b"[]",
            b"null",
            b'{"userId":"u"',
            b'{"userId":"\xff"}',
            b'{"userId":"\\ud800"}',
            b'{"x":' + b"[" * 60_000,
            "{'userId':'u'}".encode("utf-16"),
        ):
            reason = self.refused(body)
            self.assertTrue(reason)
            self.assertNotIn("\n", reason)

    def test_wrong_types(self) -> None:
        """
        A member of another type is refused by name.
        """
        for body, name in (
            (b'{"userId":1}', "userId"),
            (b'{"userId":"u","hello":{}}', "hello"),
            (b'{"broadcast":"true"}', "broadcast"),
            (b'{"broadcast":true,"condition":1}', "condition"),
        ):
            self.assertIn(name, self.refused(body))

    def test_refused_by_the_sender(self) -> None:
        """
        What cannot be pushed, for instance because it is too large, is a bad order.
        """
        self.problem = PushError("push content is too large")
        self.assertEqual(self.refused(b'{"userId":"u"}'), "push content is too large")
        self.assertEqual(self.orders.under_way, 0)

    def test_no_way(self) -> None:
        """
        While nothing can be pushed that is said.
        """
        self.problem = Unavailable("no gateway")
        self.assertRaises(Unavailable, self.orders.take, b'{"userId":"u"}')

    def test_too_many(self) -> None:
        """
        Orders that nobody carries out do not pile up.
        """
        for _ in range(MAX_UNDER_WAY):
            self.order(userId="u")
        self.assertRaises(Unavailable, self.orders.take, b'{"userId":"u"}')
        self.waiting[0].callback("success")
        self.order(userId="u")

    # ------------------------------------------------------------- how it ended

    def test_outcome(self) -> None:
        """
        How a push ended is logged.
        """
        self.order(userId="alice")
        self.waiting[0].callback("success")
        (event,) = self.events
        told = (event["message_id"], event["user"], event["outcome"])
        self.assertEqual(told, ("msg_1", "alice", "success"))

    def test_failure_later(self) -> None:
        """
        So is that it failed.
        """
        self.order(broadcast=True)
        self.waiting[0].errback(Unavailable("the registry is away"))
        (event,) = self.events
        told = (event["user"], event["outcome"])
        self.assertEqual(told, ("everybody", "the registry is away"))
        self.assertEqual(self.orders.under_way, 0)

    def test_bug(self) -> None:
        """
        A bug in what pushes is logged as one.
        """
        self.order(userId="u")
        self.waiting[0].errback(ZeroDivisionError())
        self.assertEqual(self.logged(), ["a test push failed"])
        self.assertEqual(self.orders.under_way, 0)
