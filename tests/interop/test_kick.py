"""
Users who appear twice, on nodes of both kinds (checks 8 to 10).
"""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

from mpush_tw.protocol.commands import Command
from mpush_tw.protocol.gateway import GatewayKick
from mpush_tw.protocol.packet import encode_packet
from tests.interop.ours import OurDevice
from tests.interop.processes import SUCCESS, pause, until
from tests.interop.support import MOBILE, NET, PC, InteropTestCase, full_set

test_suite = full_set(__name__)

if TYPE_CHECKING:
    _Base = InteropTestCase
else:
    # Only what derives from a check and from the test case is run.
    _Base = object


class Kicks(_Base):
    """
    A user whose device is on one node, and another device of the same type.
    """

    nets = ("tcp", "udp")
    first_kind: str
    second_kind: str

    async def setUp(self) -> None:
        super().setUp()
        self.here = self.node(self.first_kind).doors
        self.there = self.node(self.second_kind).doors

    async def test_kicked(self) -> None:
        """
        The first device is kicked when the second is bound on the other node, and the
        route names the other node.
        """
        first = await self.our_device(f"{self.user}-1", self.here, self.user)
        second = await self.our_device(f"{self.user}-2", self.there, self.user)
        await first.kicked()
        self.assertEqual(first.kicks, [self.user])
        route = await until(
            lambda: self.route_of(f"{self.user}-2", self.user), "the new route"
        )
        self.assertEqual(
            f"{route['host']}:{route['port']}", self.there.gateway, "the route"
        )
        self.assertEqual(second.kicks, [])

    async def test_java_device(self) -> None:
        """
        Their device is kicked like ours, by theirs.
        """
        first = await self.java_device(f"{self.user}-1", self.here, self.user)
        await self.java_device(f"{self.user}-2", self.there, self.user)
        await first.kicked()

    async def test_foreign_kicks(self) -> None:
        """
        A kick that means another connection or another node, or that is no kick at all,
        is ignored; the right one counts.
        """
        device = await self.our_device(f"{self.user}-1", self.here, self.user)
        right = GatewayKick(
            user_id=self.user,
            device_id=f"{self.user}-1",
            connection_id=self.cluster.routes(self.user)[MOBILE]["connId"],
            client_type=MOBILE,
            target_server=self.here.host,
            target_port=self.here.gateway_port,
        )
        for wrong in (
            right._replace(connection_id="deadbeef"),
            right._replace(target_server="127.9.9.9"),
            right._replace(target_port=1),
            right._replace(client_type=PC),
            right._replace(user_id="somebody else"),
        ):
            self.say(wrong)
        if NET == "tcp" or self.first_kind == "ours":
            # One bad datagram, and a node of theirs hears no other (C-25).
            self.say(None)
        await pause(0.5)
        self.assertEqual(device.kicks, [])
        self.say(right)
        await device.kicked()
        self.assertEqual(device.kicks, [self.user])

    def say(self, kick: GatewayKick | None) -> None:
        """
        Tell the first node what it should take for a kick, by the way of this cluster.

        @param kick: L{None} for something that is no kick.
        """
        if NET == "udp":
            body = b"no kick at all" if kick is None else kick.encode()
            datagram = encode_packet(Command.GATEWAY_KICK, 7, 0, body)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(datagram, (self.here.host, self.here.gateway_port))
            return
        text = "no kick at all" if kick is None else kick.to_json_text()
        channel = f"/mpush/kick/{self.here.gateway}"
        self.assertEqual(self.cluster.redis.cli("PUBLISH", channel, text), "1")


class Messages(_Base):
    """
    What nodes with a TCP gateway tell each other through Redis.
    """

    first_kind: str
    second_kind: str

    async def test_message(self) -> None:
        """
        The second node tells the first what the original tells, byte for byte.
        """
        here = self.node(self.first_kind).doors
        there = self.node(self.second_kind).doors
        user = self.user
        first = await self.our_device(f"{user}-1", here, user)
        connection_id = self.cluster.routes(user)[MOBILE]["connId"]
        with self.cluster.redis.monitor() as monitor:
            await self.our_device(f"{user}-2", there, user)
            await first.kicked()
            commands = monitor.commands()
        text = json.dumps(
            {
                "clientType": MOBILE,
                "connId": connection_id,
                "deviceId": f"{user}-1",
                "targetPort": here.gateway_port,
                "targetServer": here.host,
                "userId": user,
            },
            separators=(",", ":"),
        )
        quoted = text.replace('"', '\\"')
        self.assertEqual(
            [line for line in commands if "/mpush/kick/" in line],
            [f'"PUBLISH" "/mpush/kick/{here.gateway}" "{quoted}"'],
        )


class Check08KickFromOursTests(Kicks, InteropTestCase):
    """
    First on their node, then on ours.
    """

    first_kind, second_kind = "java", "ours"


class Check09KickFromJavaTests(Kicks, InteropTestCase):
    """
    First on our node, then on theirs.
    """

    first_kind, second_kind = "ours", "java"


class Check08MessageTests(Messages, InteropTestCase):
    """
    First on their node, then on ours: what ours tells theirs.
    """

    first_kind, second_kind = "java", "ours"


class Check09MessageTests(Messages, InteropTestCase):
    """
    First on our node, then on theirs: what theirs tells ours.
    """

    first_kind, second_kind = "ours", "java"


class Check09UserManagerTests(InteropTestCase):
    """
    The original's user manager and our node.
    """

    async def test_user_manager(self) -> None:
        """
        It kicks a user off our node.
        """
        user = self.user
        doors = self.cluster.our_node.doors
        device = await self.our_device(f"{user}-1", doors, user)
        self.cluster.java_sender.order("kick", user=user)
        await self.cluster.java_sender.next("kicked", user=user)
        await device.kicked()


class Check08OriginalTests(Kicks, InteropTestCase):
    """
    For comparison: first on one of their nodes, then on another.
    """

    first_kind, second_kind = "java", "other java"


class TwoTypes(_Base):
    """
    A user with a phone on one node and a PC on the other.
    """

    nets = ("tcp", "udp")
    phone_kind: str
    pc_kind: str

    async def setUp(self) -> None:
        super().setUp()
        self.phone_doors = self.node(self.phone_kind).doors
        self.pc_doors = self.node(self.pc_kind).doors
        self.phone = await self.our_device(
            f"{self.user}-phone", self.phone_doors, self.user
        )
        self.pc = await self.our_device(
            f"{self.user}-pc", self.pc_doors, self.user, os_name="linux"
        )

    async def test_side_by_side(self) -> None:
        """
        Nobody is kicked, and there is a route for each type.
        """
        await pause(0.5)
        self.assertEqual((self.phone.kicks, self.pc.kicks), ([], []))
        routes = self.cluster.routes(self.user)
        self.assertEqual(set(routes), {MOBILE, PC})
        self.assertEqual(routes[MOBILE]["port"], self.phone_doors.gateway_port)
        self.assertEqual(routes[PC]["port"], self.pc_doors.gateway_port)

    async def test_java_sender_reaches_both(self) -> None:
        """
        Their sender delivers to both and tells a result for each.
        """
        sender = await self.a_sender("java")
        waiting = sender.begin_push(self.user, "to both", "AUTO_ACK")
        results = [await sender.result(waiting) for _ in range(2)]
        self.assertEqual([result.code for result in results], [SUCCESS, SUCCESS])
        self.assertEqual(
            {(result.client_type, result.location) for result in results},
            {(MOBILE, self.phone_doors.gateway), (PC, self.pc_doors.gateway)},
        )
        await self.both_pushed("to both")

    async def both_pushed(self, text: str) -> None:
        """
        Wait until both devices have a push.
        """
        devices: list[OurDevice] = [self.phone, self.pc]
        for device in devices:
            await device.pushed(text)


class Check10PhoneOnJavaTests(TwoTypes, InteropTestCase):
    """
    The phone on their node, the PC on ours.
    """

    phone_kind, pc_kind = "java", "ours"

    async def test_our_sender_reaches_both(self) -> None:
        """
        Our sender delivers to both.
        """
        sender = await self.a_sender("ours")
        outcome = await sender.push(self.user, "to both of you", "AUTO_ACK")
        self.assertEqual(outcome.code, SUCCESS)
        await self.both_pushed("to both of you")


class Check10OriginalTests(TwoTypes, InteropTestCase):
    """
    For comparison: both on nodes of theirs.
    """

    phone_kind, pc_kind = "java", "other java"
