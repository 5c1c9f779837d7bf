"""
Broadcasts to nodes of both kinds (check 13).
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from tests.interop.ours import OurDevice
from tests.interop.processes import SUCCESS, pause, until
from tests.interop.support import InteropTestCase, full_set

test_suite = full_set(__name__)

if TYPE_CHECKING:
    _Base = InteropTestCase
else:
    # Only what derives from a check and from the test case is run.
    _Base = object


class Broadcasts(_Base):
    """
    A device on their node and one on ours, each with tags.
    """

    sender_kind: str

    async def setUp(self) -> None:
        super().setUp()
        theirs = self.cluster.java_node.doors
        ours = self.cluster.our_node.doors
        self.users = [f"{self.user}-java", f"{self.user}-ours"]
        self.devices: list[OurDevice] = []
        for user, doors in zip(self.users, (theirs, ours), strict=True):
            tags = f'["everywhere","{user}"]'
            device = await self.our_device(f"{user}-1", doors, user, tags=tags)
            self.devices.append(device)
            await until(lambda user=user: self.cluster.online(user), "the route")
        self.on_theirs, self.on_ours = self.devices
        self.sender = await self.a_sender(self.sender_kind)

    async def test_everybody(self) -> None:
        """
        Everybody gets it once.
        """
        self.assertEqual(await self.sender.broadcast("to all"), SUCCESS)
        for device in self.devices:
            await device.pushed("to all")
        await pause(0.3)
        self.assertEqual([len(device.pushes) for device in self.devices], [1, 1])

    async def test_tags(self) -> None:
        """
        Who has one of the tags gets it, on either node, and nobody else.
        """
        for chosen, other in (self.devices, self.devices[::-1]):
            text = f"for {chosen.name}"
            tag = chosen.name.removesuffix("-1")
            self.assertEqual(await self.sender.broadcast(text, tags=tag), SUCCESS)
            await chosen.pushed(text)
            await pause(0.3)
            self.assertNotIn((text, 0), other.pushes)
        await self.sender.broadcast("for both", tags="nowhere,everywhere")
        for device in self.devices:
            await device.pushed("for both")

    async def test_condition(self) -> None:
        """
        Whom the condition picks on our node gets it; on theirs nobody does on a Java
        without Nashorn (cluster 7.10).
        """
        condition = 'tags != null && tags.indexOf("everywhere") != -1'
        await self.sender.broadcast("if it holds", condition=condition)
        await self.on_ours.pushed("if it holds")
        await self.sender.broadcast("if not", condition=f"!({condition})")
        await pause(0.3)
        self.assertEqual(self.on_ours.pushes, [("if it holds", 0)])
        self.assertEqual(self.on_theirs.pushes, [])

    async def test_task(self) -> None:
        """
        With a task id the nodes count together what they have sent, and list the users;
        theirs leaves out whom it is still writing to when it lists (C-15).
        """
        task = str(uuid4())
        await self.sender.broadcast("counted", task=task)
        for device in self.devices:
            await device.pushed("counted")
        redis = self.cluster.redis

        def listed() -> list[str]:
            return redis.cli("LRANGE", f"{task}:sui", "0", "-1").split()

        await until(
            lambda: redis.cli("HGET", f"mp:pt{task}", "sc") == "2", "the count of two"
        )
        _, ours = self.users
        await until(lambda: ours in listed(), "our node to list its user")
        await pause(0.3)
        self.note(f"listed: {len(listed())} of 2 users")
        self.assertLessEqual(set(listed()), set(self.users))
        told = await self.cluster.java_sender.task(task)
        self.assertEqual(told["sent"], "2")
        # Their reader takes user ids for JSON, also those that their nodes have
        # written: for ids that are none it gives as many nulls.
        self.assertEqual(told["users"].split(","), ["null" for _ in listed()])


class Check13JavaSenderTests(Broadcasts, InteropTestCase):
    """
    Their sender broadcasts to a device on their node and one on ours.
    """

    sender_kind = "java"


class Check13OurSenderTests(Broadcasts, InteropTestCase):
    """
    Our sender broadcasts to a device on their node and one on ours.
    """

    sender_kind = "ours"
