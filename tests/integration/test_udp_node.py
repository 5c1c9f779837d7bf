"""
Nodes whose gateway is UDP, with real devices and a real sender: pushes, kicks between
nodes, what the node says of multicast (protocol 13, cluster 4.6, 4.8).
"""

from __future__ import annotations

import shutil
import tempfile
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.threads import deferToThread

from mpush_tw import parts, service
from mpush_tw.cluster import Stores
from mpush_tw.config import load_settings
from mpush_tw.integrations.memory import MemoryCache, MemoryQueue, MemoryRegistry
from mpush_tw.protocol.commands import Command
from mpush_tw.protocol.messages import Kick
from mpush_tw.protocol.packet import Packet
from mpush_tw.sender import PushContext, PushSender, ResultCode
from mpush_tw.sender._datagrams import DatagramPool
from mpush_tw.service import Node
from tests.datagrams import LOOPBACK, NOT_HERE, Peer, multicast_works
from tests.integration.devices import Device
from tests.support import SAMPLE, NodeTestCase


class DatagramNodeTestCase(NodeTestCase):
    """
    A node with a UDP gateway, in a store that other nodes can share.
    """

    settings = ("mp.net.gateway-server-net=udp",)
    interface = LOOPBACK

    def setUp(self) -> Any:
        self.patch(
            service.node_addresses, "multicast_ip", lambda settings: self.interface
        )
        nodes = MemoryRegistry()
        stores = Stores(MemoryCache(reactor), MemoryQueue(reactor), nodes, nodes)  # type: ignore[arg-type]
        self.patch(parts, "shared_stores", lambda *_: stores)
        return super().setUp()

    def bind(self, node: Node, device_id: str, user_id: str = "alice") -> Device:
        """
        Have a device log in; blocking.
        """
        device = Device(node.connect_listener.port)
        self.addCleanup(device.close)
        return device.shake_hands(device_id).bind(user_id)

    async def another_node(self, gateway_port: int = 0) -> Node:
        """
        Start one more node in the same store, with the same key.
        """
        home = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, home)
        overrides = [
            f"mp.home={home}",
            *self.settings,
            f'mp.security.private-key="{SAMPLE["rsaPrivateKeyBase64"]}"',
            f'mp.security.public-key="{SAMPLE["rsaPublicKeyBase64"]}"',
            "mp.security.allow-sample-key=true",
            "mp.net.connect-server-port=0",
            "mp.net.admin-server-port=0",
            f"mp.net.gateway-server-port={gateway_port}",
        ]
        node = Node(load_settings(None, overrides, {}), reactor)
        node.startService()
        self.addCleanup(node.stopService)
        await node.started
        return node

    async def sender(self) -> PushSender:
        """
        Start a sender that knows the node.
        """
        sender = PushSender(
            [(LOOPBACK, self.node.gateway_listener.port)],
            reactor=reactor,
            make_pool=lambda: DatagramPool(reactor, 10240),
        )
        await sender.start()
        self.addCleanup(sender.stop)
        return sender


class PushTests(DatagramNodeTestCase):
    """
    Pushes.
    """

    def test_push(self) -> Any:
        """
        A push reaches the device, whatever strangers have sent to the port before.
        """

        async def push() -> None:
            device = await deferToThread(self.bind, self.node, "d1")
            stranger = Peer.on()
            self.addCleanup(stranger.close)
            for bad in (b"", b"\xdf", b"\xff" * 13, bytes(2100), b"\x00" * 12):
                stranger.send(bad, (LOOPBACK, self.node.gateway_listener.port))
            sender = await self.sender()
            result = await sender.send(PushContext(b"hello", user_id="alice"))
            self.assertIs(result.code, ResultCode.SUCCESS)
            packet = await deferToThread(device.packet)
            assert packet is not None and device.cipher is not None
            self.assertEqual(packet[0], Command.PUSH)
            self.assertEqual(device.cipher.decrypt(packet[3]), b"hello")
            result = await sender.send(PushContext(b"hello", user_id="bob"))
            self.assertIs(result.code, ResultCode.OFFLINE)
            self.assertEqual(stranger.received.pending, [])

        return ensureDeferred(push())


class KickTests(DatagramNodeTestCase):
    """
    A user who moves to another node.
    """

    def test_kicked(self) -> Any:
        """
        The device that a user had on the first node is kicked when the user binds on
        the second, by a datagram from one gateway to the other.
        """

        async def move() -> None:
            other = await self.another_node()
            old = await deferToThread(self.bind, self.node, "d1")
            await deferToThread(self.bind, other, "d2")
            packet: Packet | None = await deferToThread(old.packet)
            assert packet is not None and old.cipher is not None
            self.assertEqual(packet[0], Command.KICK)
            kick = Kick.decode(old.cipher.decrypt(packet[3]))
            self.assertEqual(kick, Kick("d1", "alice"))
            kicks = self.node.metrics.gateway.packets_in[Command.GATEWAY_KICK]
            self.assertEqual(kicks, 1)

        return ensureDeferred(move())


class MulticastTests(DatagramNodeTestCase):
    """
    What the node says of multicast.
    """

    def test_works(self) -> None:
        """
        Where it works nothing is said.
        """
        said = "multicast to {group} does not work" in self.logged()
        self.assertEqual(said, not multicast_works())


class NoMulticastTests(DatagramNodeTestCase):
    """
    A node that cannot join its group.
    """

    interface = NOT_HERE

    def test_sentence(self) -> Any:
        """
        It starts, says so, and takes pushes to users.
        """

        async def push() -> None:
            self.assertIn("multicast to {group} does not work", self.logged())
            sender = await self.sender()
            result = await sender.send(PushContext(b"hello", user_id="bob"))
            self.assertIs(result.code, ResultCode.OFFLINE)

        return ensureDeferred(push())


class RestartTests(DatagramNodeTestCase):
    """
    A node that is started again.
    """

    def test_same_port(self) -> Any:
        """
        The port is free when the node has stopped, and a sender goes on with the next
        node there.
        """

        async def restart() -> None:
            sender = await self.sender()
            port = self.node.gateway_listener.port
            await self.node.stopService()
            late = sender.send(PushContext(b"hello", user_id="bob", timeout=0.2))
            self.assertIs((await late).code, ResultCode.TIMEOUT)
            await self.another_node(port)
            result = await sender.send(PushContext(b"hello", user_id="bob"))
            self.assertIs(result.code, ResultCode.OFFLINE)

        return ensureDeferred(restart())
