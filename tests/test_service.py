"""
Tests for L{mpush_tw.service}: the order in which a node starts and stops (DESIGN 5.13,
server 12, 16).
"""

from __future__ import annotations

import resource
import shutil
import socket
import tempfile
from collections.abc import Iterable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mpush_tw.config import load_settings
from mpush_tw.core.log import NodeLog
from mpush_tw.errors import ConfigError, MPushError, Unavailable
from mpush_tw.interfaces import (
    ConnectionClosed,
    Event,
    ServerStarted,
    ServerStopping,
    ServiceNode,
    UserOffline,
)
from mpush_tw.protocol.commands import Command, Flag
from mpush_tw.protocol.gateway import GatewayPush
from mpush_tw.protocol.packet import Packet, encode_packet
from mpush_tw.service import Node
from tests.integration.devices import Device, Peer
from tests.support import SAMPLE, NodeTestCase, RawPeer

_AUTO_ACK = int(Flag.AUTO_ACK)


def make_node(test: TestCase, *overrides: str) -> Node:
    """
    Make a node on free ports that nobody has started; it is stopped after the test.
    """
    home = tempfile.mkdtemp()
    test.addCleanup(shutil.rmtree, home)
    settings = [
        f"mp.home={home}",
        f'mp.security.private-key="{SAMPLE["rsaPrivateKeyBase64"]}"',
        f'mp.security.public-key="{SAMPLE["rsaPublicKeyBase64"]}"',
        "mp.security.allow-sample-key=true",
        "mp.net.connect-server-port=0",
        "mp.net.connect-server-bind-ip=127.0.0.1",
        "mp.net.gateway-server-port=0",
        "mp.net.admin-server-port=0",
        *overrides,
    ]
    logged: list[dict[str, Any]] = []
    log = NodeLog("warn", reactor, logged.append)  # type: ignore[arg-type]
    node = Node(load_settings(None, settings, {}), reactor, log=log)
    test.addCleanup(node.stopService)
    return node


class SocketTests(NodeTestCase):
    """
    What the doors of a node have the kernel do.
    """

    async def keep_alive(self, peer: RawPeer, connections: Iterable[Any]) -> list[int]:
        """
        Wait until a peer has been accepted.

        @param connections: Those of its door.
        @return: The keep-alive option of their sockets.
        """
        self.addCleanup(peer.close)
        for _ in range(100):
            if accepted := list(connections):
                break
            await deferLater(reactor, 0.02)
        return [
            connection.transport.socket.getsockopt(
                socket.SOL_SOCKET, socket.SO_KEEPALIVE
            )
            for connection in accepted
        ]

    async def test_senders(self) -> None:
        """
        A sender sends no heartbeats: the kernel finds out when its machine is gone.
        """
        peer = RawPeer(self.node.gateway_listener.port)
        options = await self.keep_alive(peer, self.node.gateway_door.connections)
        self.assertEqual([bool(option) for option in options], [True])

    async def test_devices(self) -> None:
        """
        A device does; the kernel need not wake a million phones.
        """
        peer = RawPeer(self.node.connect_listener.port)
        options = await self.keep_alive(peer, self.node.connections)
        self.assertEqual(options, [0])


class FileLimitTests(TestCase):
    """
    How many connections there may be when C{mp.limits.max-connections} is 0.
    """

    def most(self, soft: int) -> int:
        """
        What a node takes that may open so many files.
        """
        self.patch(resource, "getrlimit", lambda _: (soft, resource.RLIM_INFINITY))
        return make_node(self).connect_door.admission.max_connections

    def test_limited(self) -> None:
        """
        As many as there are files, less what the node needs itself.
        """
        self.assertEqual(self.most(100_000), 100_000 - 256)

    def test_scarce(self) -> None:
        """
        A few in any case.
        """
        self.assertEqual(self.most(100), 64)

    def test_unlimited(self) -> None:
        """
        Where files have no limit there are very many.
        """
        self.assertEqual(self.most(resource.RLIM_INFINITY), 1_000_000)


class StartTests(TestCase):
    """
    From settings to a node that serves.
    """

    timeout = 30

    def registered(self, node: Node, path: str) -> list[ServiceNode]:
        """
        What the registry knows below a path.
        """
        found = node.registry.lookup(path)
        return self.successResultOf(found)  # type: ignore[no-any-return]

    def test_nothing_is_open_before(self) -> None:
        """
        A node that was only made has no port.
        """
        node = make_node(self)
        self.assertEqual(node.connect_listener.port, 0)
        self.assertEqual(node.gateway_listener.port, 0)

    def test_open_before_registered(self) -> None:
        """
        The ports are open before the node is announced (S-30).
        """
        node = make_node(self)
        node.privilegedStartService()
        self.assertGreater(node.connect_listener.port, 0)
        self.assertGreater(node.gateway_listener.port, 0)
        self.assertEqual(self.registered(node, "/cluster/cs"), [])
        node.startService()
        self.assertEqual(len(self.registered(node, "/cluster/cs")), 1)

    async def test_registered(self) -> None:
        """
        What is announced are the ports that are open.
        """
        node = make_node(self)
        node.startService()
        await node.started
        [devices] = self.registered(node, "/cluster/cs")
        [senders] = self.registered(node, "/cluster/gs")
        self.assertEqual(devices.port, node.connect_listener.port)
        self.assertEqual(dict(devices.attributes or {}), {"weight": 1})
        self.assertEqual(
            (senders.host, senders.port), (node.identity.host, node.identity.port)
        )
        self.assertEqual(senders.port, node.gateway_listener.port)
        self.assertIsNone(senders.attributes)

    async def test_event(self) -> None:
        """
        Listeners hear of the start when all of that is done.
        """
        node = make_node(self)
        known: list[int] = []

        def listen(event: Event) -> None:
            if isinstance(event, ServerStarted):
                known.append(len(self.registered(node, "/cluster/cs")))

        node.events.subscribe(listen)
        node.startService()
        await node.started
        await deferLater(reactor, 0)  # type: ignore[arg-type]
        self.assertEqual(known, [1])

    async def test_cannot_be_announced(self) -> None:
        """
        Whoever waits for the start learns that it failed; no port stays open.
        """
        node = make_node(self)
        self.patch(node.registry, "register", lambda _: fail(Unavailable("registry")))
        node.startService()
        await self.assertFailure(node.started, Unavailable)
        self.assertEqual((node.connect_listener.port, node.ports), (0, []))

    async def test_stopped_while_starting(self) -> None:
        """
        A node can be stopped while it waits for its stores.
        """
        node = make_node(self)
        self.patch(node.registry, "start", Deferred)
        node.startService()
        starting = self.assertFailure(node.started, MPushError)
        await node.stopService()
        await starting
        self.assertEqual((node.connect_listener.port, node.ports), (0, []))

    async def test_nobody_is_served_too_early(self) -> None:
        """
        A device that connects while the stores are not ready waits, and is served then.
        """
        node = make_node(self)
        ready: Deferred[None] = Deferred()
        self.patch(node.registry, "start", lambda: ready)
        node.startService()
        peer = await deferToThread(RawPeer, node.connect_listener.port)
        self.addCleanup(peer.close)
        peer.send(b"\xdf")
        self.assertIsNone(await deferToThread(peer.packet, 0.3))
        self.assertEqual(len(node.connections), 0)
        ready.callback(None)
        await node.started
        self.assertEqual(await deferToThread(peer.packet), (1, 0, 0, b""))

    def test_two_in_one_process(self) -> None:
        """
        Two nodes share nothing but the process.
        """
        first, second = make_node(self), make_node(self)
        first.startService()
        second.startService()
        self.assertNotEqual(first.connect_listener.port, second.connect_listener.port)
        self.assertEqual(len(self.registered(first, "/cluster/cs")), 1)
        self.assertIsNot(first.local_routes, second.local_routes)


class BusyPortTests(TestCase):
    """
    A port that somebody else has.
    """

    timeout = 30

    def setUp(self) -> None:
        self.other = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.other.close)
        self.port: int = self.other.getsockname()[1]

    def refusal(self, key: str) -> tuple[Node, ConfigError]:
        """
        Why a node with this port does not start.
        """
        node = make_node(self, f"{key}={self.port}")
        error = self.assertRaises(ConfigError, node.privilegedStartService)
        assert isinstance(error, ConfigError)
        return node, error

    def test_devices(self) -> None:
        """
        The sentence names the key and the port of the device door.
        """
        _, error = self.refusal("mp.net.connect-server-port")
        self.assertEqual(error.key, "mp.net.connect-server-port")
        self.assertIn(f"port {self.port} ", str(error))
        self.assertNotIn("\n", str(error))

    def test_senders(self) -> None:
        """
        It names those of the gateway, too.
        """
        _, error = self.refusal("mp.net.gateway-server-port")
        self.assertEqual(error.key, "mp.net.gateway-server-port")
        self.assertIn(f"port {self.port} ", str(error))

    def test_others_are_closed_again(self) -> None:
        """
        Ports that had been opened before are closed again.
        """
        node, _ = self.refusal("mp.net.connect-server-port")
        self.assertEqual(node.gateway_listener.port, 0)
        self.assertEqual(node.ports, [])


class StopTestCase(NodeTestCase):
    """
    A node with a device of user C{u}.
    """

    settings: tuple[str, ...] = ("mp.core.shutdown-grace=1s",)

    def setUp(self) -> Any:
        self.heard: list[Event] = []

        def connect(ignored: object) -> Deferred[None]:
            self.node.events.subscribe(self.heard.append)
            joined: Deferred[None] = self.in_thread(self.join)
            return joined

        return super().setUp().addCallback(connect)

    def join(self) -> None:
        """
        Bind a device and connect a sender, from a thread.
        """
        self.device = Device(self.ports[3000]).shake_hands("d1").bind("u")
        self.sender = Peer(self.ports[3001])
        self.addCleanup(self.device.close)
        self.addCleanup(self.sender.close)

    def push(self) -> Packet:
        """
        Push something that is to be acknowledged, from a thread.

        @return: What the device got.
        """
        body = GatewayPush("u", 1, 30000, b"hello").encode()
        self.sender.send(encode_packet(Command.GATEWAY_PUSH, 9, _AUTO_ACK, body))
        packet = self.device.packet()
        assert packet is not None and packet[0] == Command.PUSH
        return packet


class StopTests(StopTestCase):
    """
    From a node that serves to nothing.
    """

    async def test_clients_are_closed(self) -> None:
        """
        Devices and senders are disconnected, and nobody gets in any more.
        """
        ports = self.ports
        await self.node.stopService()
        self.assertTrue(await self.in_thread(self.device.wait_end))
        self.assertTrue(await self.in_thread(self.sender.wait_end))
        for port in ports.values():
            with socket.socket() as late:
                self.assertNotEqual(late.connect_ex(("127.0.0.1", port)), 0)
        self.assertEqual(self.node.metrics.conn.closed, {"stop": 1})

    async def test_routes(self) -> None:
        """
        Afterwards all routes are offline and the online list is empty.
        """
        await self.node.stopService()
        route = await Deferred.fromCoroutine(self.node.remote_routes.find("u", 1))
        assert route is not None
        self.assertFalse(route.online)
        self.assertEqual(await self.node.online.count(), 0)
        self.assertEqual(len(self.node.local_routes), 0)

    async def test_events(self) -> None:
        """
        First the stop is told, then that the user is offline, then the end of the
        connection.
        """
        await self.node.stopService()
        ends = (ServerStopping, UserOffline, ConnectionClosed)
        told = [type(event) for event in self.heard if isinstance(event, ends)]
        self.assertEqual(told, list(ends))

    async def test_withdrawn_first(self) -> None:
        """
        The node is withdrawn from the registry while its devices are still connected.
        """
        connected: list[int] = []
        deregister = self.node.registry.deregister

        def watch(node: ServiceNode) -> Deferred[None]:
            connected.append(len(self.node.connections))
            return deregister(node)

        self.patch(self.node.registry, "deregister", watch)
        await self.node.stopService()
        self.assertEqual(connected, [1, 1])

    async def test_twice(self) -> None:
        """
        Stopping twice is stopping.
        """
        first = self.node.stopService()
        self.assertIs(self.node.stopService(), first)
        await first

    async def test_nothing_remains(self) -> None:
        """
        Afterwards nobody waits on the wheel or for an acknowledgement.
        """
        await self.node.stopService()
        self.assertEqual(len(self.node.wheel), 0)
        self.assertEqual(self.node.centre.acks.waiting, 0)
        self.assertEqual(len(self.node.connections), 0)
        self.assertEqual(self.node.gateway_connections, 0)


class DrainTests(StopTestCase):
    """
    Pushes that are under way when a node stops.
    """

    async def test_acknowledged(self) -> None:
        """
        A device may still acknowledge, and the sender gets its answer.
        """
        packet = await self.in_thread(self.push)
        stopping = self.node.stopService()
        self.device.send(encode_packet(Command.ACK, packet[2], 0, b""))
        answer = await self.in_thread(self.sender.packet)
        self.assertEqual((answer[0], answer[2]), (Command.OK, 9))
        await stopping

    async def test_not_acknowledged(self) -> None:
        """
        What is not acknowledged within the grace is reported as failure.
        """
        await self.in_thread(self.push)
        began = self.node.clock.seconds()
        await self.node.stopService()
        self.assertLess(self.node.clock.seconds() - began, 4)
        answer = await self.in_thread(self.sender.packet)
        self.assertEqual((answer[0], answer[2]), (Command.ERROR, 9))

    async def test_nobody_new(self) -> None:
        """
        Meanwhile no device gets in.
        """
        packet = await self.in_thread(self.push)
        port = self.ports[3000]
        stopping = self.node.stopService()
        await deferLater(reactor, 0.15)  # type: ignore[arg-type]
        with socket.socket() as late:
            self.assertNotEqual(late.connect_ex(("127.0.0.1", port)), 0)
        self.device.send(encode_packet(Command.ACK, packet[2], 0, b""))
        await stopping


class PacedDrainTests(StopTestCase):
    """
    C{mp.core.drain-rate}.
    """

    settings = ("mp.core.drain-rate=50",)

    async def test_pace(self) -> None:
        """
        Devices are let go at the pace that the operator chose, all of them.
        """

        def crowd() -> list[Peer]:
            return [Peer(self.ports[3000]) for _ in range(20)]

        peers = await self.in_thread(crowd)
        for peer in peers:
            self.addCleanup(peer.close)
        while len(self.node.connections) < 21:
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]
        began = self.node.clock.seconds()
        await self.node.stopService()
        # 21 connections, 5 in each tenth of a second.
        self.assertGreater(self.node.clock.seconds() - began, 0.35)
        self.assertEqual(self.node.metrics.conn.closed, {"stop": 21})


class StuckDeviceTests(StopTestCase):
    """
    A device that does not read.
    """

    settings = (
        "mp.core.shutdown-grace=0s",
        "mp.net.snd_buf.connect-server=4k",
        "mp.limits.max-outbound=0",
    )

    async def test_cut_off(self) -> None:
        """
        A device that never takes what is queued for it does not keep a node from
        stopping.
        """
        [connection] = self.node.connections
        for _ in range(2000):
            connection.send_push(1 << 30, 0, bytes(9000))
        self.assertTrue(connection.busy)
        await self.node.stopService()
        await deferLater(reactor, 0)  # type: ignore[arg-type]
        self.assertEqual(len(self.node.connections), 0)
        route = await Deferred.fromCoroutine(self.node.remote_routes.find("u", 1))
        assert route is not None
        self.assertFalse(route.online)
