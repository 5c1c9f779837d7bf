"""
Pushes that carry an id to be traced by, against gateways in memory.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import succeed

from mpush_tw.core.push.request import Outcome, PushRequest
from mpush_tw.core.push.traces import Traces
from mpush_tw.errors import PushError
from mpush_tw.protocol.commands import ErrorCode
from mpush_tw.protocol.gateway import GatewayPush
from mpush_tw.sender import PushContext
from tests.core.fakes import FakeListener
from tests.sender.gateway import FakeGateway
from tests.sender.test_push_sender import (
    FIRST,
    SECOND,
    FakeDirectory,
    SenderTestCase,
)


class TracedPushTests(SenderTestCase):
    """
    What travels with a push.
    """

    def setUp(self) -> None:
        self.directory = FakeDirectory()
        self.addresses = self.directory
        super().setUp()
        self.network.advance(100)

    def asked(self, **settings: Any) -> GatewayPush:
        """
        Push, and take what the first gateway is asked.
        """
        self.directory.answers = [succeed([FIRST])]
        self.send(**settings)
        return self.gateways[0].asked[-1].push

    def test_id_and_milestones(self) -> None:
        """
        The id goes into the field for a task, and what the sender has done so far into
        that for tags.
        """
        push = self.asked(trace_id="t1")
        self.assertEqual(push.task_id, "t1")
        self.assertEqual(
            push.tags,
            (
                "trace:begin=100000",
                "trace:lookup-remote=100000",
                "trace:check-gateway-conn=100000",
                "trace:send-to-gateway-begin=100000",
            ),
        )

    def test_node_reads_them(self) -> None:
        """
        A node finds the milestones in there.
        """
        push = self.asked(trace_id="t1")
        traces = Traces(self.network, 600, 10)
        request = PushRequest(*push, 0, FakeListener())
        traces.note(request, Outcome.SUCCESS)
        [found] = traces.find("t1")
        points: Any = found["points"]
        self.assertEqual(points[0], ["begin", 100_000])
        self.assertEqual(len(points), 4)

    def test_without_id(self) -> None:
        """
        A push without an id carries nothing of it.
        """
        push = self.asked()
        self.assertEqual((push.task_id, push.tags), (None, None))

    def test_after_redirects(self) -> None:
        """
        The way of a user who has moved is told as far as a node takes it.
        """
        self.directory.answers = [succeed([one]) for one in (FIRST, SECOND) * 2]
        self.send(trace_id="t1")
        for which in (0, 1, 0):
            gateway = self.gateways[which]
            gateway.error(gateway.asked[-1], ErrorCode.ROUTER_CHANGE)
        tags = self.gateways[1].asked[-1].push.tags
        assert tags is not None
        self.assertEqual(len(tags), 16)
        self.assertIn("trace:redirect=100000", tags)
        self.assertEqual(tags[-1], "trace:send-to-gateway-begin=100000")

    def test_no_room(self) -> None:
        """
        Content that leaves no room for milestones goes without them; content that
        leaves none for the id is refused.
        """
        largest = 10240 - len(GatewayPush("bob", content=b"", task_id="t1").encode())
        push = self.asked(content=bytes(largest), trace_id="t1")
        self.assertEqual((push.task_id, push.tags), ("t1", None))
        self.directory.answers = [succeed([FIRST])]
        sent = self.send(content=bytes(largest + 1), trace_id="t1")
        self.failureResultOf(sent, PushError)

    def test_no_id(self) -> None:
        """
        An id that is none is refused.
        """
        for trace_id in ("", "x" * 257, "\udc80", 7):
            self.failureResultOf(self.send(trace_id=trace_id), PushError)

    def test_result(self) -> None:
        """
        The result has the id, and the milestones of the node that answered.
        """
        self.directory.answers = [succeed([FIRST])]
        self.gateways[0].on_asked = lambda gateway, asked: gateway.ok(
            asked, [("written", 5)]
        )
        result = self.successResultOf(self.send(trace_id="t1"))
        self.assertEqual(result.trace_id, "t1")
        self.assertIn(("written", 5), result.time_line)

    def test_list(self) -> None:
        """
        Each push of a list carries the id.
        """
        self.directory.answers = [succeed([FIRST]), succeed([FIRST])]
        self.gateways[0].on_asked = FakeGateway.ok
        self.sender.send_all(PushContext(b"hi", user_ids=["a", "b"], trace_id="t1"))
        self.assertEqual(
            [(one.push.user_id, one.push.task_id) for one in self.gateways[0].asked],
            [("a", "t1"), ("b", "t1")],
        )
