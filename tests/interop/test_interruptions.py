"""
Devices, nodes and stores that go away and come back (checks 14 to 17).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs

from mpush_tw.protocol.gateway import GatewayKick
from tests.interop.processes import SUCCESS, pause, until
from tests.interop.support import (
    MOBILE,
    InteropTestCase,
    Node,
    Sender,
    drop_shared_cluster,
    full_set,
)

test_suite = full_set(__name__)

if TYPE_CHECKING:
    _Base = InteropTestCase
else:
    # Only what derives from a check and from the test case is run.
    _Base = object


class Check14LeavingTests(InteropTestCase):
    """
    A device that closes its connection.
    """

    async def leave(self, node: Node) -> list[str]:
        """
        Have a device leave a node.

        @return: What the node did in Redis, names of the node and the connection
            replaced, in the order of the words: what concerns the route and what
            concerns the online list may overtake each other.
        """
        user = f"leaver-{node.name}"
        doors = node.doors
        device = await self.our_device(f"{user}-1", doors, user)
        members = ["ZRANGE", f"mp:oul:{doors.host}", "0", "-1"]
        await until(
            lambda: user in self.cluster.redis.cli(*members).split(), "the online list"
        )
        with self.cluster.redis.monitor() as monitor:
            await device.leave()
            await until(
                lambda: (
                    any("/mpush/offline/" in line for line in monitor.commands())
                    and self.cluster.online(user) is None
                ),
                "the node to say that the user is offline",
            )
            commands = monitor.commands()
        self.assertNotIn(user, self.cluster.redis.cli(*members).split())
        route = self.cluster.routes(user)[MOBILE]
        self.assertEqual((route["deviceId"], route["host"]), (f"{user}-1", doors.host))
        # Without other users, and without what this test itself has asked.
        asked = f'"HGETALL" "mp:ur:{user}"'
        told = [line for line in commands if user in line and line != asked]
        names = (
            (user, "USER"),
            (doors.host, "HOST"),
            (str(doors.gateway_port), "PORT"),
        )
        for index, line in enumerate(told):
            for name, word in names:
                line = line.replace(name, word)
            told[index] = line
        return sorted(told)

    async def test_same_commands(self) -> None:
        """
        The route loses its connection, the user leaves the online list and is announced
        as offline: by commands of the same kind, whoever's the node is.
        """
        ours = await self.leave(self.cluster.our_node)
        theirs = await self.leave(self.cluster.java_node)
        self.assertEqual(
            [line.split('"')[1] for line in ours],
            [line.split('"')[1] for line in theirs],
        )
        # The text of the route: 0.8.0 writes three more members (cluster 2.3).
        self.assertEqual(
            [line for line in ours if "HSET" not in line],
            [line for line in theirs if "HSET" not in line],
        )


class Suspended(_Base):
    """
    A node that is suspended until ZooKeeper has given it up, and then goes on.
    """

    node_kind: str

    async def test_comes_back(self) -> None:
        """
        Its registrations vanish and come back under the same names; its devices have
        not noticed, and senders of both kinds reach them again without help.
        """
        node = self.node(self.node_kind)
        user = self.user
        device = await self.our_device(f"{user}-1", node.doors, user)
        self.addCleanup(self.renew_java_sender)
        senders = [await self.a_sender(kind) for kind in ("java", "ours")]
        for sender in senders:
            outcome = await self.push(sender, user, "before", "AUTO_ACK")
            self.assertEqual(outcome.code, SUCCESS)
        names = self.names(node)
        self.assertEqual(len(names), 2)
        self.addCleanup(node.resume)
        node.pause()
        await until(lambda: not self.names(node), "the registrations to vanish", 20)
        node.resume()
        resumed = time.monotonic()
        await until(
            lambda: self.names(node) == names, "the registrations to come back", 40
        )
        self.report("registered again", resumed)
        for sender in senders:
            await self.reaches_again(sender, user, "after")
            self.report(f"reached by {type(sender).__name__}", resumed)
        await device.pushed("after")
        route = self.cluster.online(user)
        self.assertIsNotNone(route)
        self.assertEqual(device.connects, 1)

    def names(self, node: Node) -> set[str]:
        """
        List the paths under which a node is registered.
        """
        host, port, gateway_port = attrs.astuple(node.doors)
        return {
            path
            for service, port in (("cs", port), ("gs", gateway_port))
            for path, told in self.cluster.registered(service).items()
            if (told["host"], told["port"]) == (host, port)
        }


class Check15OurNodeTests(Suspended, InteropTestCase):
    """
    Our node, suspended beyond the session time-out.
    """

    node_kind = "ours"


class Check15OriginalTests(Suspended, InteropTestCase):
    """
    For comparison: their node, suspended beyond the session time-out.
    """

    node_kind = "java"


class Check16RedisRestartTests(InteropTestCase):
    """
    A restart of Redis.
    """

    async def test_kicks_are_heard_again(self) -> None:
        """
        Our node subscribes again to its kicks and heeds them; theirs does not (C-5).
        Their devices and ours stay connected all the while.
        """
        # Their node is deaf now, and their sender's pool full of dead connections.
        self.addCleanup(drop_shared_cluster)
        ours, theirs = self.cluster.our_node.doors, self.cluster.java_node.doors
        device = await self.our_device("restart-1", ours, "restart")
        other = await self.our_device("restart-2", theirs, "restart-java")
        channels = [f"/mpush/kick/{doors.gateway}" for doors in (ours, theirs)]
        self.assertEqual([*map(self.cluster.subscribers, channels)], [1, 1])
        self.cluster.redis.restart()
        restarted = time.monotonic()
        await until(
            lambda: self.cluster.subscribers(channels[0]) == 1,
            "our node to subscribe again",
            20,
        )
        self.report("subscribed again", restarted)
        await pause(max(0.0, restarted + 5 - time.monotonic()))
        self.assertEqual([*map(self.cluster.subscribers, channels)], [1, 0])
        kick = GatewayKick(
            user_id="restart",
            device_id="restart-1",
            connection_id=self.cluster.routes("restart")[MOBILE]["connId"],
            client_type=MOBILE,
            target_server=ours.host,
            target_port=ours.gateway_port,
        )
        self.cluster.redis.cli("PUBLISH", channels[0], kick.to_json_text())
        await device.kicked()
        sender = await self.a_sender("ours")
        outcome = await sender.push("restart", "still there", "AUTO_ACK")
        self.assertEqual(outcome.code, SUCCESS)
        self.assertEqual((device.connects, other.connects), (1, 1))


class Killed(_Base):
    """
    A node that is killed and started again before ZooKeeper has noticed.
    """

    sender_kind: str
    node_kind: str

    async def restarted(self) -> tuple[Sender, str]:
        """
        Push to a user on the node, kill the node, start it again, and wait until the
        user is back and the killed node's registration is gone.

        @return: The sender and the user.
        """
        self.addCleanup(self.renew_java_sender)
        node = self.node(self.node_kind)
        sender = await self.a_sender(self.sender_kind)
        user = self.user
        device = await self.our_device(f"{user}-1", node.doors, user)
        outcome = await sender.push(user, "before", "AUTO_ACK")
        self.assertEqual(outcome.code, SUCCESS)
        connection_id = self.cluster.routes(user)[MOBILE]["connId"]
        killed = time.monotonic()
        node.kill()
        node.spawn()

        def registrations() -> int:
            return self.cluster.addresses("gs").count(node.doors.gateway)

        await until(lambda: registrations() == 2, "the new registration by the old", 5)
        await until(
            lambda: (
                device.connects == 2
                and (self.cluster.online(user) or {}).get("connId")
                not in (None, connection_id)
            ),
            "the device to come back",
            40,
        )
        self.report("device back", killed)
        await until(
            lambda: registrations() == 1,
            "the killed node's registration to vanish",
            20,
        )
        self.report("old registration gone", killed)
        return sender, user


class OurSenderGoesOn(Killed):
    """
    Our sender and a node that is killed and started again.
    """

    sender_kind = "ours"

    async def test_goes_on(self) -> None:
        """
        It pushes to the node without a failure once the old registration is gone.
        """
        sender, user = await self.restarted()
        for text in ("after", "and again"):
            outcome = await sender.push(user, text, "AUTO_ACK")
            self.assertEqual(outcome.code, SUCCESS)


class Check17OurSenderTests(OurSenderGoesOn, InteropTestCase):
    """
    Our sender, our node killed and started again.
    """

    node_kind = "ours"


class Check17OurSenderJavaNodeTests(OurSenderGoesOn, InteropTestCase):
    """
    Our sender, their node killed and started again.
    """

    node_kind = "java"


class JavaSenderRecovers(Killed):
    """
    Their sender and a node that is killed and started again.
    """

    sender_kind = "java"

    async def test_recovers(self) -> None:
        """
        It may fail at first, because the end of the old registration closes its
        connections to the new node (C-40); then it pushes again.
        """
        sender, user = await self.restarted()
        failures = await self.reaches_again(sender, user, "after")
        self.assertLess(len(failures), 4, failures)


class Check17JavaSenderTests(JavaSenderRecovers, InteropTestCase):
    """
    Their sender, our node killed and started again.
    """

    node_kind = "ours"


class Check17OriginalTests(JavaSenderRecovers, InteropTestCase):
    """
    For comparison: their sender, their node killed and started again.
    """

    node_kind = "java"
