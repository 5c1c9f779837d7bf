"""
Tests for L{mpush_tw.core.routing.kicks} (cluster 5.2, 5.3).
"""

from __future__ import annotations

import json

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.routing.kicks import KickMessages, kick_topic
from mpush_tw.errors import Unavailable
from mpush_tw.protocol.gateway import GatewayKick
from tests.core.fakes import Core
from tests.support import VECTORS

_KICK = GatewayKick("user-b", "device-b", "67b8e2d9", 1, "127.0.0.1", 3001)


class KickMessagesTests(SynchronousTestCase):
    """
    Asking and being asked over the queue.
    """

    def setUp(self) -> None:
        self.core = Core()
        self.asked: list[GatewayKick] = []
        self.kicks = KickMessages(
            self.core.queue, self.core.here, self.asked.append, self.core.log
        )
        self.successResultOf(self.kicks.listen())

    def published(self, text: str) -> list[GatewayKick]:
        """
        What this node is asked when somebody publishes a text on its topic.
        """
        self.core.queue.publish("/mpush/kick/10.0.0.1:3001", text)
        self.core.clock.advance(0)
        return self.asked

    def test_topic(self) -> None:
        """
        A node is asked on the topic that its gateway address names.
        """
        self.assertEqual(kick_topic("10.0.0.2", 3101), "/mpush/kick/10.0.0.2:3101")

    def test_recorded(self) -> None:
        """
        What is published is, byte for byte, what the original published.
        """
        steps = json.loads((VECTORS / "redis-zk.json").read_text())["steps"]
        command = next(
            command
            for step in steps
            if step["name"] == "kick-remote"
            for command in step["commands"]
            if command.startswith('"PUBLISH" "/mpush/kick/')
        )
        published: list[tuple[str, str]] = []
        self.core.queue.subscribe(
            "/mpush/kick/127.0.0.1:3001",
            lambda topic, text: published.append((topic, text)),
        )
        self.kicks.send(_KICK)
        self.core.clock.advance(0)
        [(topic, text)] = published
        escaped = text.replace('"', '\\"')
        self.assertEqual(f'"PUBLISH" "{topic}" "{escaped}"', command)

    def test_received(self) -> None:
        """
        A message on the node's own topic is handed on.
        """
        self.assertEqual(self.published(_KICK.to_json_text()), [_KICK])

    def test_another_writer(self) -> None:
        """
        Order, blanks and members that we do not know do not matter.
        """
        text = (
            '{"userId": "u", "x": [1], "targetServer": "10.0.0.1", '
            '"targetPort": 3001, "connId": "c", "clientType": 2}'
        )
        self.assertEqual(
            self.published(text), [GatewayKick("u", None, "c", 2, "10.0.0.1", 3001)]
        )

    def test_rubbish(self) -> None:
        """
        What is no kick message is logged and dropped.
        """
        for text in ("", "{", "[]", '"kick"', '{"clientType":"x"}', "[" * 10000):
            self.assertEqual(self.published(text), [])
        self.assertEqual(self.core.texts().count("receive an error kick message"), 6)

    def test_queue_is_away(self) -> None:
        """
        A kick that cannot be sent is logged; the bind that caused it goes on.
        """

        def publish(topic: str, text: str) -> Deferred[None]:
            return fail(Unavailable("the queue is away"))

        self.patch(self.core.queue, "publish", publish)
        self.kicks.send(_KICK)
        self.assertIn("kick request not sent", self.core.texts())
