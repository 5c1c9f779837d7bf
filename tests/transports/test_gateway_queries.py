"""
Tests for L{mpush_tw.transports.gateway_queries}, over a gateway connection.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.push.request import PushRequest
from mpush_tw.protocol.commands import Command
from mpush_tw.protocol.gateway import GatewayPush, GatewayQuery
from mpush_tw.protocol.messages import Error, Ok
from mpush_tw.protocol.packet import PacketDecoder, encode_packet
from mpush_tw.transports.gateway import GatewayDoor, GatewayFactory
from tests.core.fakes import Core, FakeConnection, FakeListener, start
from tests.transports.fakes import FakeTransport


class DoorTestCase(SynchronousTestCase):
    """
    A gateway connection of a node with devices.
    """

    def setUp(self) -> None:
        self.core = Core()
        self.door = GatewayDoor(
            self.core.centre,
            self.core.clock,
            self.core.log,
            self.core.metrics.gateway,
            10240,
            1 << 20,
            ["192.0.2.0/24"],
        )
        address = IPv4Address("TCP", "192.0.2.1", 40000)
        self.protocol = GatewayFactory(self.door).buildProtocol(address)
        self.transport = FakeTransport()
        self.protocol.makeConnection(self.transport)

    def users(self, count: int) -> list[FakeConnection]:
        """
        Bind a user each on so many devices.
        """
        connections = [FakeConnection(f"d{number}") for number in range(count)]
        for number, connection in enumerate(connections):
            binding = start(self.core.router.bind(connection, f"u{number}", None))
            self.assertTrue(self.successResultOf(binding))
        return connections

    def packets(self) -> list[tuple[int, int, int, bytes]]:
        """
        What has been answered since the last call.
        """
        self.core.clock.advance(0)
        return list(PacketDecoder(1 << 20).receive(self.transport.take()))


class QueryTests(DoorTestCase):
    """
    Questions of a sender.
    """

    def ask(self, query: str, **arguments: Any) -> Ok | Error:
        """
        Ask, and take the answer.
        """
        body = GatewayQuery(query, arguments).encode()
        self.protocol.dataReceived(encode_packet(Command.GATEWAY_QUERY, 7, 0, body))
        self.core.clock.advance(0)
        [(cmd, _, session_id, answer)] = self.packets()
        self.assertEqual(session_id, 7)
        if cmd == Command.OK:
            return Ok.decode(answer)
        return Error.decode(answer)

    def told(self, query: str, **arguments: Any) -> dict[str, Any]:
        """
        Ask, and read the data of the answer.
        """
        answer = self.ask(query, **arguments)
        assert isinstance(answer, Ok), answer
        self.assertEqual(answer.cmd, Command.GATEWAY_QUERY)
        told: dict[str, Any] = json.loads(answer.data or "")
        return told

    def refused(self, query: str, **arguments: Any) -> str:
        """
        Ask, and read the reason of the refusal.
        """
        answer = self.ask(query, **arguments)
        assert isinstance(answer, Error), answer
        self.assertEqual((answer.cmd, answer.code), (Command.GATEWAY_QUERY, 0))
        return answer.reason or ""

    def test_count(self) -> None:
        """
        A dry run tells how many would get a broadcast; nobody gets anything.
        """
        connections = self.users(3)
        told = self.told("count", condition="u1")
        self.assertEqual((told["online"], told["matched"]), (3, 1))
        self.assertEqual([one.contents for one in connections], [[], [], []])
        self.assertEqual(self.told("count")["matched"], 3)

    def test_trace(self) -> None:
        """
        A push with an id is remembered with its milestones, its sender's as well.
        """
        self.users(1)
        request = PushRequest(
            "u0",
            1,
            3000,
            b"x",
            "t1",
            ("trace:begin=12", "vip"),
            None,
            0,
            FakeListener(),
        )
        self.core.centre.push(request)
        [push] = self.told("trace", id="t1")["pushes"]
        self.assertEqual((push["userId"], push["outcome"]), ("u0", "success"))
        self.assertEqual(push["points"][0], ["begin", 12])
        self.assertEqual(
            [name for name, _ in push["points"][1:]],
            ["push-center-begin", "before-send", "written", "success-end"],
        )

    def test_no_trace(self) -> None:
        """
        Of an id that nobody used nothing is known.
        """
        self.assertEqual(self.told("trace", id="none"), {"pushes": [], "total": 0})

    def test_part_of_a_trace(self) -> None:
        """
        Of an id that many pushes carried a part can be asked for.
        """
        self.users(3)
        for number in range(3):
            self.core.centre.push(
                PushRequest(
                    f"u{number}", 1, 9, b"x", "t", None, None, 0, FakeListener()
                )
            )
        told = self.told("trace", id="t", first=1, most=1)
        self.assertEqual([one["userId"] for one in told["pushes"]], ["u1"])
        self.assertEqual(told["total"], 3)

    def test_running(self) -> None:
        """
        Broadcasts under way are listed, and can be cancelled by their id.
        """
        self.users(3)
        self.core.cache.hset("mp:ptslow", "q", "1")
        listener = FakeListener()
        self.core.centre.push(
            PushRequest(None, 0, 0, b"x", "slow", None, None, 0, listener)
        )
        self.core.clock.advance(0)
        [running] = self.told("broadcasts")["running"]
        self.assertEqual((running["id"], running["counts"]["sent"]), ("slow", 1))
        self.assertEqual(self.told("cancel", id="slow"), {"cancelled": 1})
        self.assertEqual(self.told("broadcasts"), {"running": []})
        self.assertEqual(len(listener.finished), 1)

    def slow_broadcast(self, users: int) -> FakeListener:
        """
        Begin a broadcast of a message a second.
        """
        self.users(users)
        self.told("rate", id="slow", rate=1)
        listener = FakeListener()
        self.core.centre.push(
            PushRequest(None, 0, 0, b"x", "slow", None, None, 0, listener)
        )
        self.core.clock.advance(0)
        return listener

    def test_task(self) -> None:
        """
        How far a task is can be asked for, and whom it has reached: the earliest first,
        in parts, while it runs and afterwards.
        """
        self.assertEqual(self.told("task", id="slow"), {"sent": 0, "running": 0})
        self.slow_broadcast(3)
        told = self.told("task", id="slow", most=10)
        self.assertEqual(told, {"sent": 1, "running": 1, "users": ["u0"]})
        self.core.clock.pump([1.0] * 5)
        told = self.told("task", id="slow", first=1, most=1)
        self.assertEqual(told, {"sent": 3, "running": 0, "users": ["u1"]})

    def test_rate(self) -> None:
        """
        A broadcast under way goes on with the new rate, and keeps it.
        """
        listener = self.slow_broadcast(6)
        self.assertEqual(self.told("rate", id="slow", rate=2), {"changed": 1})
        self.core.clock.pump([1.0] * 2)
        self.assertEqual(listener.finished, [])
        sent = self.told("broadcasts")["running"][0]["counts"]["sent"]
        self.assertEqual(sent, 5)
        self.core.clock.pump([1.0])
        self.assertEqual(len(listener.finished), 1)

    def test_rate_in_advance(self) -> None:
        """
        The rate of a broadcast can be set before it begins; it is none of the others'.
        """
        self.assertEqual(self.told("rate", id="later", rate=7), {"changed": 0})
        stored = self.successResultOf(self.core.cache.hgetall("mp:ptlater"))
        self.assertEqual(stored, {"q": "7"})
        self.slow_broadcast(2)
        self.assertEqual(self.told("rate", id="other", rate=5), {"changed": 0})

    def test_unknown(self) -> None:
        """
        A question that nobody knows is refused with those that are known; the
        connection stays.
        """
        self.assertIn("trace", self.refused("weather"))
        self.assertEqual(self.told("broadcasts"), {"running": []})

    def test_wrong_arguments(self) -> None:
        """
        Arguments of the wrong kind are refused by name.
        """
        self.assertIn("id:", self.refused("trace"))
        self.assertIn("id:", self.refused("cancel", id=7))
        self.assertIn("tags:", self.refused("count", tags="vip"))
        self.assertIn("tags:", self.refused("count", tags=[1]))
        self.assertIn("condition:", self.refused("count", condition=1))
        self.assertIn("id:", self.refused("task"))
        self.assertIn("id:", self.refused("rate", rate=1))
        for rate in (0, -1, 1.5, True, "7", None, 2**31):
            self.assertIn("rate:", self.refused("rate", id="t", rate=rate))
        for page in ({"first": -1}, {"first": "a"}, {"most": 0}, {"most": 10001}):
            self.assertIn(next(iter(page)), self.refused("trace", id="t", **page))

    def test_rubbish(self) -> None:
        """
        What is no question at all ends the connection, as for a push.
        """
        for body in (b"", b"[]", b"{", b'{"query":1}', b"\xff"):
            self.setUp()
            self.protocol.dataReceived(encode_packet(Command.GATEWAY_QUERY, 7, 0, body))
            [(cmd, _, _, answer)] = self.packets()
            self.assertEqual((cmd, Error.decode(answer).code), (Command.ERROR, 100))

    def test_long_answer(self) -> None:
        """
        An answer that is longer than the sender takes is refused with a sentence.
        """
        self.users(1)
        for _ in range(32):
            self.core.centre.push(
                PushRequest("u0", 1, 9, b"x", "t", None, None, 0, FakeListener())
            )
        self.protocol.answer_limit = 1000
        self.assertEqual(self.refused("trace", id="t"), "the answer is too long")


class BroadcastAnswerTests(DoorTestCase):
    """
    How a broadcast is answered.
    """

    def broadcast(self, timeout_ms: int) -> Ok:
        """
        Broadcast, and take the answer.
        """
        body = GatewayPush(None, 0, timeout_ms, b"hello").encode()
        self.protocol.dataReceived(encode_packet(Command.GATEWAY_PUSH, 5, 0, body))
        [(cmd, _, session_id, answer)] = self.packets()
        self.assertEqual((cmd, session_id), (Command.OK, 5))
        return Ok.decode(answer)

    def test_sender_of_the_original(self) -> None:
        """
        A sender of the original, which asks with a time-out of 0, gets no data.
        """
        self.users(2)
        self.assertEqual(self.broadcast(0), Ok(Command.GATEWAY_PUSH, 0, None))

    def test_our_sender(self) -> None:
        """
        Ours asks with a time-out and is told what became of it.
        """
        self.users(2)
        told = json.loads(self.broadcast(3000).data or "")
        self.assertEqual((told["counts"]["online"], told["counts"]["sent"]), (2, 2))
        self.assertEqual(told["timePoints"][::2][0], "push-center-begin")
