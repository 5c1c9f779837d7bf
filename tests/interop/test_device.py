"""
What the original's device does on our node, besides what the numbered checks ask for.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.interop.processes import pause, until
from tests.interop.support import InteropTestCase, full_set

test_suite = full_set(__name__)

if TYPE_CHECKING:
    _Base = InteropTestCase
else:
    # Only what derives from a check and from the test case is run.
    _Base = object

HEARTBEAT = 3.0
"""
Seconds; the cluster's nodes allow no less.
"""


class JavaDevice(_Base):
    """
    A device with the original's client, on a node.
    """

    node_kind: str

    def setUp(self) -> None:
        super().setUp()
        self.doors = self.node(self.node_kind).doors
        self.name = f"{self.user}-1"

    async def test_unbind(self) -> None:
        """
        A user who is unbound is offline, and the device stays connected.
        """
        device = await self.java_device(self.name, self.doors, self.user)
        device.order("unbind")
        await until(lambda: not self.cluster.online(self.user), "the user to leave")
        device.order("bind", user=self.user)
        await until(lambda: self.cluster.online(self.user), "the user to come back")
        self.assertIsNone(device.take("disconnected"))

    async def test_other_user(self) -> None:
        """
        A device that is bound to another user has left the first.
        """
        device = await self.java_device(self.name, self.doors, self.user)
        other = f"{self.user}-other"
        device.order("bind", user=other)
        await until(lambda: self.route_of(self.name, other), "the second user")
        await until(lambda: not self.cluster.online(self.user), "the first to leave")

    async def test_push_up(self) -> None:
        """
        Pushes from the device are acknowledged. Now and then, mostly the first time,
        the client is not ready for an answer that comes at once (clients 2.13), drops
        the connection and comes back, or has to be started anew.
        """
        device = await self.java_device(self.name, self.doors, self.user)
        answered = 0
        for index in range(10):
            text = f"up {index}"
            device.order("push", text=text, ack="AUTO_ACK")
            try:
                await device.next("answered", 2.5, text=text)
            except AssertionError:
                if device.take("handshake") is None:
                    device.kill()
                    await device.connect()
            else:
                answered += 1
        self.note(f"{answered} of 10 pushes up were answered in time for the client")
        self.assertGreaterEqual(answered, 3)

    async def test_long_push(self) -> None:
        """
        A push so long that it goes compressed arrives whole.
        """
        device = await self.java_device(self.name, self.doors, self.user)
        text = "long " * 2000
        outcome = await self.push_from(self.node_kind, text[:9000])
        self.assertEqual(outcome, 1)
        await device.pushed(text[:9000])

    async def test_heartbeat(self) -> None:
        """
        A silent device that looks after its connection keeps it.
        """
        device = await self.java_device(
            self.name, self.doors, self.user, heartbeat_ms=round(HEARTBEAT * 1000)
        )
        for _ in range(8):
            await pause(HEARTBEAT / 3)
            device.order("health")
            self.assertEqual((await device.next("health"))["ok"], "true")
        self.assertIsNone(device.take("disconnected"))

    async def test_silence(self) -> None:
        """
        A device that does not look after its connection loses it, and comes back.
        """
        device = await self.java_device(
            self.name, self.doors, self.user, heartbeat_ms=round(HEARTBEAT * 1000)
        )
        silent = time.monotonic()
        await device.next("disconnected", seconds=10 * HEARTBEAT)
        self.report(f"silent with a heartbeat of {HEARTBEAT:g} s: closed", silent)
        await device.next("handshake")
        await until(lambda: self.route_of(self.name, self.user), "the user to be back")

    async def push_from(self, kind: str, text: str) -> int:
        """
        Push with the sender of a kind.

        @return: The code of the result.
        """
        sender = await self.a_sender(kind)
        return (await sender.push(self.user, text, "AUTO_ACK")).code


class OurNodeTests(JavaDevice, InteropTestCase):
    """
    Their device on our node: binding, pushes up, long pushes, heartbeats.
    """

    node_kind = "ours"


class OriginalTests(JavaDevice, InteropTestCase):
    """
    For comparison: their device on their node.
    """

    node_kind = "java"
