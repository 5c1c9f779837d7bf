"""
Pushes to one user: senders of both kinds to nodes of both kinds (checks 4 to 7, 12).

What is expected does not depend on who is whose, so each check is written once. The
original's sender with the original's node is among the cases, to show that the check
asks for what the original does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tests.interop.ours import OurDevice
from tests.interop.processes import FAILURE, OFFLINE, SUCCESS, TIMEOUT, until
from tests.interop.support import MOBILE, NET, InteropTestCase, Sender, full_set

test_suite = full_set(__name__)

if TYPE_CHECKING:
    _Base = InteropTestCase
else:
    # Only what derives from a check and from the test case is run.
    _Base = object

ACKNOWLEDGED = ["push-center-begin", "before-send", "waiting-ack", "success-end"]
WRITTEN = ["push-center-begin", "before-send", "success-end"]


class Acknowledgements(_Base):
    """
    Each ack model, with a device that acknowledges and one that does not.
    """

    nets = ("tcp", "udp")
    sender_kind: str
    node_kind: str
    device_kind: str

    async def setUp(self) -> None:
        super().setUp()
        self.doors = self.node(self.node_kind).doors
        self.sender = await self.a_sender(self.sender_kind)
        self.device = await self.a_device(
            self.device_kind, f"{self.user}-1", self.doors, self.user
        )

    async def test_no_ack(self) -> None:
        """
        A push without ack succeeds when the device has been written to.
        """
        outcome = await self.push(self.sender, self.user, "no ack")
        self.assertEqual(outcome.code, SUCCESS)
        self.assertEqual(outcome.location, self.doors.gateway)
        self.assertEqual(await self.device.pushed("no ack"), 0)
        self.assert_points(outcome.points, WRITTEN)

    async def test_auto_ack(self) -> None:
        """
        A push with automatic ack succeeds when the client library has acknowledged.
        """
        outcome = await self.push(self.sender, self.user, "auto ack", "AUTO_ACK")
        self.assertEqual(outcome.code, SUCCESS)
        self.assertEqual(outcome.location, self.doors.gateway)
        self.assertEqual(await self.device.pushed("auto ack"), 0)
        self.assert_points(outcome.points, ACKNOWLEDGED)

    async def test_app_acks(self) -> None:
        """
        A push with the app's ack succeeds when the app has acknowledged, not before.
        """
        waiting = self.sender.begin_push(self.user, "app acks", "BIZ_ACK")
        number = await self.device.pushed("app acks")
        self.assertGreater(number, 0)
        self.assertFalse(self.sender.has_result(waiting))
        self.device.ack(number)
        outcome = await self.sender.result(waiting)
        self.assertEqual(outcome.code, SUCCESS)
        self.assert_points(outcome.points, ACKNOWLEDGED)

    async def test_nobody_acks(self) -> None:
        """
        A push with the app's ack to an app that gives none is timed out by the sender.
        """
        waiting = self.sender.begin_push(
            self.user, "nobody acks", "BIZ_ACK", timeout_ms=1500
        )
        self.assertGreater(await self.device.pushed("nobody acks"), 0)
        outcome = await self.sender.result(waiting)
        self.assertEqual(outcome.code, TIMEOUT)
        # Nothing came from the node: the sender's own points only.
        self.assertNotIn("push-center-begin", outcome.points)

    def assert_points(self, points: Sequence[str], node: Sequence[str]) -> None:
        """
        Look for the node's points on the sender's time line.
        """
        self.assertEqual([name for name in points if name in ACKNOWLEDGED], node)


class Unreachable(_Base):
    """
    Users who cannot be reached.
    """

    nets = ("tcp", "udp")
    sender_kind: str
    node_kind: str

    async def setUp(self) -> None:
        super().setUp()
        self.doors = self.node(self.node_kind).doors
        self.sender = await self.a_sender(self.sender_kind)

    async def test_left(self) -> None:
        """
        A user whose device has left is offline.
        """
        device = await self.our_device(f"{self.user}-1", self.doors, self.user)
        await device.leave()
        await until(
            lambda: self.cluster.online(self.user) is None, "the route to go offline"
        )
        outcome = await self.push(self.sender, self.user, "too late")
        self.assertEqual(outcome.code, OFFLINE)

    async def test_unknown(self) -> None:
        """
        A user who never was there is offline.
        """
        outcome = await self.push(self.sender, self.user, "who?")
        self.assertEqual(outcome.code, OFFLINE)
        self.assertIsNone(outcome.location)

    async def test_stale_route(self) -> None:
        """
        A user whose route names a node that does not have the user is offline, and the
        route says so afterwards.
        """
        route = {
            "port": self.doors.gateway_port,
            "host": self.doors.host,
            "deviceId": "ghost",
            "osName": "android",
            "clientVersion": "1",
            "connId": "deadbeef",
        }
        text = json.dumps(route, separators=(",", ":"))
        self.cluster.redis.cli("HSET", f"mp:ur:{self.user}", str(MOBILE), text)
        outcome = await self.push(self.sender, self.user, "ghost")
        self.assertEqual(outcome.code, OFFLINE)
        await until(
            lambda: "connId" not in self.cluster.routes(self.user)[MOBILE],
            "the stale route to lose its connection",
        )
        left = self.cluster.routes(self.user)[MOBILE]
        self.assertEqual(left["deviceId"], "ghost")
        self.assertEqual(left["host"], self.doors.host)


class Check05JavaSenderTests(Acknowledgements, InteropTestCase):
    """
    Their sender to their device on our node, each ack model.
    """

    sender_kind, node_kind, device_kind = "java", "ours", "java"


class Check05JavaSenderOurDeviceTests(Acknowledgements, InteropTestCase):
    """
    Their sender to our device on our node, each ack model.
    """

    sender_kind, node_kind, device_kind = "java", "ours", "ours"


class Check05OriginalTests(Acknowledgements, InteropTestCase):
    """
    For comparison: their sender to their device on their node.
    """

    sender_kind, node_kind, device_kind = "java", "java", "java"


class Check06JavaSenderTests(Unreachable, InteropTestCase):
    """
    Their sender to users whom our node does not have.
    """

    sender_kind, node_kind = "java", "ours"


class Check06OriginalTests(Unreachable, InteropTestCase):
    """
    For comparison: their sender to users whom their node does not have.
    """

    sender_kind, node_kind = "java", "java"


class Check07OurSenderTests(Acknowledgements, InteropTestCase):
    """
    Our sender to their device on their node, each ack model.
    """

    sender_kind, node_kind, device_kind = "ours", "java", "java"


class Check07OurSenderOurDeviceTests(Acknowledgements, InteropTestCase):
    """
    Our sender to our device on their node, each ack model.
    """

    sender_kind, node_kind, device_kind = "ours", "java", "ours"


class Check07UnreachableTests(Unreachable, InteropTestCase):
    """
    Our sender to users whom their node does not have.
    """

    sender_kind, node_kind = "ours", "java"


class Check04LaterNodeTests(InteropTestCase):
    """
    A node of ours that starts after their sender.
    """

    nets = ("tcp", "udp")

    async def test_found_and_used(self) -> None:
        """
        Their sender opens the configured number of connections to the new node within
        seconds (by UDP: none), and pushes to its users.
        """
        sender = self.cluster.java_sender
        node = self.cluster.add_our_node("later", 5)
        self.addCleanup(node.stop)
        # Orderly, so that nobody looks for it in vain for another five seconds.
        self.addCleanup(node.end)
        port = node.doors.gateway_port
        if NET == "tcp":
            await until(lambda: sender.connections(port), "the sender to connect", 5)
            self.assertEqual(sender.connections(port), 1)
        device = await self.our_device("later-1", node.doors, "later")
        # Connected is not yet known to be connected, in another thread of it.
        failures = await self.reaches_again(sender, "later", "hello", 5)
        self.assertLess(len(failures), 3)
        await device.pushed("hello")
        outcome = await sender.push("later", "and again", "AUTO_ACK")
        self.assertEqual(outcome.code, SUCCESS)
        self.assertEqual(outcome.location, node.doors.gateway)


class Moved(_Base):
    """
    A user who moves to another node after the sender has looked the route up.
    """

    nets = ("tcp", "udp")
    sender_kind: str
    first_kind: str
    second_kind: str

    async def move(self) -> tuple[Sender, str, OurDevice]:
        """
        Have a user pushed to on one node and move to the other.

        @return: The sender, the user and the user's device on the second node.
        """
        here = self.node(self.first_kind).doors
        there = self.node(self.second_kind).doors
        sender = await self.a_sender(self.sender_kind)
        user = self.user
        first = await self.our_device(f"{user}-1", here, user)
        outcome = await sender.push(user, "here", "AUTO_ACK")
        self.assertEqual((outcome.code, outcome.location), (SUCCESS, here.gateway))
        await first.leave()
        await until(lambda: self.cluster.online(user) is None, "the user to leave")
        second = await self.our_device(f"{user}-2", there, user)
        return sender, user, second


class OurSenderFollows(Moved):
    """
    Our sender and a user who moves.
    """

    sender_kind = "ours"

    async def test_hears_of_it(self) -> None:
        """
        It hears that the user has moved, and asks the right node at once.
        """
        self.assertNotIn("redirect", await self.follow("there"))

    async def test_is_told(self) -> None:
        """
        If it has not heard of it, the node says that the user has moved; the push
        reaches the user there, whole.
        """
        self.sender_kind = "deaf"
        self.assertIn("redirect", await self.follow("there"))

    async def follow(self, text: str) -> Sequence[str]:
        """
        Push to the user who has moved.

        @return: The time line.
        """
        sender, user, device = await self.move()
        outcome = await sender.push(user, text, "AUTO_ACK")
        self.assertEqual(outcome.code, SUCCESS)
        self.assertEqual(outcome.location, self.node(self.second_kind).doors.gateway)
        await device.pushed(text)
        return outcome.points


class Check12OurSenderTests(OurSenderFollows, InteropTestCase):
    """
    Our sender, a user who moves from our node to theirs.
    """

    first_kind, second_kind = "ours", "java"


class Check12OurSenderFromJavaTests(OurSenderFollows, InteropTestCase):
    """
    Our sender, a user who moves from their node to ours.
    """

    first_kind, second_kind = "java", "ours"


class JavaSenderLosesContent(Moved):
    """
    Their sender with a route that is not true any more: it asks the right node then,
    but with an empty message (C-35).
    """

    sender_kind = "java"

    async def test_content_is_lost(self) -> None:
        """
        Their node hands the empty message on and says that all is well; ours says that
        the push has failed and leaves the device alone (C-29).
        """
        sender, user, device = await self.move()
        outcome = await sender.push(user, "there")
        self.assertIn("redirect", " ".join(outcome.points))
        self.assertEqual(outcome.location, self.node(self.second_kind).doors.gateway)
        # Or a time-out, when it has missed the answer (C-38).
        if self.second_kind == "ours":
            self.assertIn(outcome.code, (FAILURE, TIMEOUT))
            await sender.push(user, "next")
            await device.pushed("next")
            self.assertEqual(device.pushes, [("next", 0)])
        else:
            self.assertIn(outcome.code, (SUCCESS, TIMEOUT))
            await device.pushed("")
            self.assertEqual(device.pushes, [("", 0)])


class Check12JavaSenderTests(JavaSenderLosesContent, InteropTestCase):
    """
    Their sender, a user who moves from our node to theirs.
    """

    first_kind, second_kind = "ours", "java"


class Check12JavaSenderFromJavaTests(JavaSenderLosesContent, InteropTestCase):
    """
    Their sender, a user who moves from their node to ours.
    """

    first_kind, second_kind = "java", "ours"


class Check12OriginalTests(JavaSenderLosesContent, InteropTestCase):
    """
    For comparison: their sender, a user who moves between their nodes.
    """

    first_kind, second_kind = "java", "other java"


class Many(_Base):
    """
    Many pushes by their sender, to a device that acknowledges at once.
    """

    sender_kind = "java"
    node_kind: str
    bursts, burst = 15, 20

    async def test_no_ack(self) -> None:
        """
        All are delivered, also those whose answer the sender misses (C-38).
        """
        await self.push_many("NO_ACK")

    async def test_auto_ack(self) -> None:
        """
        All are delivered, also those whose ack the original's node misses (C-30).
        """
        await self.push_many("AUTO_ACK")

    async def push_many(self, ack: str) -> None:
        """
        Push in bursts, each when the one before has been delivered.
        """
        doors = self.node(self.node_kind).doors
        sender = await self.a_sender(self.sender_kind)
        device = await self.our_device(f"{self.user}-1", doors, self.user)
        device.ack_delay = 0
        numbers = []
        for burst in range(self.bursts):
            texts = [f"{burst}-{index}" for index in range(self.burst)]
            numbers += [sender.begin_push(self.user, text, ack) for text in texts]
            for text in texts:
                await device.pushed(text)
            # Takes what it says off the pipe, which holds 64 KB.
            sender.has_result(numbers[-1])
        codes = [(await sender.result(number)).code for number in numbers]
        missed = codes.count(TIMEOUT)
        self.note(f"{ack}: {missed} of {len(numbers)} pushes timed out")
        self.assertLessEqual(set(codes), {SUCCESS, TIMEOUT})
        self.assertLess(missed, len(numbers) / 3)
        self.assertEqual(len(device.pushes), len(numbers))


class Check05JavaSenderManyTests(Many, InteropTestCase):
    """
    Their sender to our node, many pushes.
    """

    node_kind = "ours"


class Check05OriginalManyTests(Many, InteropTestCase):
    """
    For comparison: their sender to their node, many pushes.
    """

    node_kind = "java"
