"""
The original by itself: two of its nodes, its sender and its device.

If these fail, the machine or the drivers are at fault and not our programs; they also
show what the other tests compare with.
"""

from __future__ import annotations

from tests.interop.processes import OFFLINE, SUCCESS, until
from tests.interop.support import InteropTestCase, full_set

test_suite = full_set(__name__)


class OriginalTests(InteropTestCase):
    """
    The original's nodes, sender and device with one another.
    """

    async def setUp(self) -> None:
        super().setUp()
        self.here = self.cluster.java_node.doors
        self.sender = await self.a_sender("java")

    async def test_push(self) -> None:
        """
        A push to a device of a node is acknowledged by the device.
        """
        device = await self.java_device("o-1", self.here, "original-1")
        outcome = await self.sender.push("original-1", "grüß Gott", "AUTO_ACK")
        self.assertEqual(outcome.code, SUCCESS)
        self.assertEqual(outcome.location, self.here.gateway)
        self.assertEqual(await device.pushed("grüß Gott"), 0)

    async def test_unknown_user(self) -> None:
        """
        A push to nobody is told to be offline.
        """
        outcome = await self.sender.push("original-nobody", "hello")
        self.assertEqual(outcome.code, OFFLINE)
        self.assertIsNone(outcome.location)

    async def test_kick_from_another_node(self) -> None:
        """
        A user who appears on a second node is kicked off the first.
        """
        other = self.cluster.other_java_node.doors
        first = await self.java_device("o-2", self.here, "original-2")
        await self.java_device("o-3", other, "original-2")
        await first.kicked()
        route = await until(
            lambda: self.route_of("o-3", "original-2"), "the route to the second"
        )
        self.assertEqual(f"{route['host']}:{route['port']}", other.gateway)
