"""
Tests for plug-ins in a whole node: L{mpush_tw.parts}, L{mpush_tw.extension_context},
and the order of events (server 13, 19).
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mpush_tw.client_types import DefaultClassifier
from mpush_tw.config import load_settings
from mpush_tw.core.defaults import MsgspecJson
from mpush_tw.core.executor import PoolSize, ThreadExecutor
from mpush_tw.core.log import NodeLog
from mpush_tw.core.push.request import Outcome, PushRequest
from mpush_tw.errors import ConfigError, PushError, Unavailable
from mpush_tw.extensions import POINTS, Extension
from mpush_tw.integrations.memory import MemoryCache, MemoryRegistry
from mpush_tw.interfaces import (
    ConnectionClosed,
    ConnectionOpened,
    Event,
    IBindValidator,
    ICache,
    IClientClassifier,
    IDnsMapping,
    IExecutor,
    IExtensionContext,
    IExtensionMetrics,
    IHandshakeCipher,
    IJsonCodec,
    IPushListener,
    IServerEventListener,
    IServiceDiscovery,
    IServiceRegistry,
    IUpstreamHandler,
    RouteChanged,
    ServerStarted,
    ServerStopping,
    UpstreamMessage,
    UserKicked,
    UserOffline,
    UserOnline,
)
from mpush_tw.protocol.commands import Command, Flag
from mpush_tw.protocol.crypto import RsaPrivateKey
from mpush_tw.protocol.gateway import GatewayPush, TimePoints
from mpush_tw.protocol.packet import encode_packet
from mpush_tw.service import Node
from tests.integration.devices import Device
from tests.support import SAMPLE, RawPeer
from tests.websocket.peer import WebPeer
from tests.websocket.support import free_port

KEYS = (
    f'mp.security.private-key="{SAMPLE["rsaPrivateKeyBase64"]}"',
    f'mp.security.public-key="{SAMPLE["rsaPublicKeyBase64"]}"',
    "mp.security.allow-sample-key=true",
)


class ExtendedNodeTestCase(TestCase):
    """
    Nodes with plug-ins, on free loopback ports.
    """

    timeout = 30

    def make(
        self, *extensions: Extension, settings: Any = (), keys: Any = KEYS
    ) -> Node:
        """
        Make a node that nobody has started; it is stopped after the test.
        """
        home = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, home)
        overrides = [
            f"mp.home={home}",
            *keys,
            "mp.net.connect-server-port=0",
            "mp.net.connect-server-bind-ip=127.0.0.1",
            "mp.net.gateway-server-port=0",
            "mp.net.admin-server-port=0",
            *settings,
        ]
        self.logged: list[dict[str, Any]] = []
        log = NodeLog("warn", reactor, self.logged.append)  # type: ignore[arg-type]
        loaded = load_settings(None, overrides, {})
        node = Node(loaded, reactor, log=log, extensions=extensions)
        self.addCleanup(node.stopService)
        return node

    async def start(self, *extensions: Extension, **more: Any) -> Node:
        """
        Make a node and start it.
        """
        node = self.make(*extensions, **more)
        node.startService()
        await node.started
        return node

    def device(self, node: Node) -> Device:
        """
        Connect a device; from a thread.
        """
        device = Device(node.connect_listener.port)
        self.addCleanup(device.close)
        return device

    async def online(self, node: Node, user_id: str, device_id: str = "d") -> Device:
        """
        Bind a device.
        """

        def connect() -> Device:
            return self.device(node).shake_hands(device_id).bind(user_id)

        return await deferToThread(connect)

    async def until(self, true: Any) -> None:
        """
        Let time pass until something is so.
        """
        for _ in range(500):
            if true():
                return
            await deferLater(reactor, 0.01)
        self.fail("waited in vain")

    def notices(self) -> str:
        """
        What the node has said about its plug-ins.
        """
        return "\n".join(
            str(event["notice"]) for event in self.logged if "notice" in event
        )


@implementer(IServerEventListener)
class Diary:
    """
    Writes down what it hears and what is done with it.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.calls: list[str] = []
        self.context: Any = None

    def event_occurred(self, event: Event) -> None:
        self.events.append(event)
        self.calls.append(type(event).__name__)

    def init(self, context: Any) -> None:
        self.context = context
        self.calls.append("init")

    def destroy(self) -> None:
        self.calls.append("destroy")


@implementer(IPushListener)
class Source:
    """
    A source of pushes.
    """

    def __init__(self) -> None:
        self.finished: list[tuple[PushRequest, Outcome]] = []
        self.context: Any = None

    def init(self, context: Any) -> None:
        self.context = context

    def request(self, user_id: str | None, content: bytes = b"hello") -> PushRequest:
        return PushRequest(user_id, 0, 5000, content, None, None, None, 0, self, "mine")

    def push_finished(
        self, request: PushRequest, outcome: Outcome, points: TimePoints
    ) -> None:
        self.finished.append((request, outcome))


def listener(product: Any, name: str = "diary") -> Extension:
    return Extension(IServerEventListener, name, lambda: product)


def source(product: Any) -> Extension:
    return Extension(IPushListener, "source", lambda: product)


class EventOrderTests(ExtendedNodeTestCase):
    """
    What a listener hears, and in which order.
    """

    def setUp(self) -> None:
        self.diary = Diary()

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.diary.events]

    async def test_one_device(self) -> None:
        """
        From the start of the node to its stop, with a device that comes and goes.
        """
        node = await self.start(listener(self.diary))
        device = await self.online(node, "u")
        await deferToThread(device.leave)
        await self.until(lambda: "ConnectionClosed" in self.kinds())
        await node.stopService()
        self.assertEqual(
            self.kinds(),
            [
                "ServerStarted",
                "ConnectionOpened",
                "UserOnline",
                "UserOffline",
                "ConnectionClosed",
                "ServerStopping",
            ],
        )
        opened, online, offline, closed = self.diary.events[1:5]
        assert isinstance(opened, ConnectionOpened)
        number = opened.connection_id
        self.assertEqual(opened, ConnectionOpened("conn", number))
        self.assertEqual(online, UserOnline("u", number, "d", 1))
        self.assertEqual(offline, UserOffline("u", number, "d", 1, False))
        self.assertEqual(closed, ConnectionClosed("conn", number, "d", "u"))

    async def test_displaced(self) -> None:
        """
        What a BIND brings about for another device is told before it itself.
        """
        node = await self.start(listener(self.diary))
        await self.online(node, "u", "old")
        await self.online(node, "u", "new")
        await self.until(lambda: self.kinds().count("UserOnline") == 2)
        self.assertEqual(
            self.kinds()[3:],
            ["ConnectionOpened", "RouteChanged", "UserKicked", "UserOnline"],
        )
        changed, kicked, online = self.diary.events[4:]
        assert isinstance(changed, RouteChanged) and isinstance(kicked, UserKicked)
        assert isinstance(online, UserOnline)
        self.assertEqual((changed.device_id, changed.local), ("old", True))
        self.assertEqual((kicked.device_id, kicked.from_remote), ("old", False))
        self.assertEqual(online.device_id, "new")

    async def test_stop_with_devices(self) -> None:
        """
        A stop is told before anything is closed; what it does to the users follows, and
        then a listener is ended.
        """
        node = await self.start(listener(self.diary))
        await self.online(node, "u")
        await node.stopService()
        self.assertEqual(
            self.diary.calls[-4:],
            ["ServerStopping", "UserOffline", "ConnectionClosed", "destroy"],
        )

    async def test_stop_before_withdrawal(self) -> None:
        """
        When a listener hears of the stop the node is still registered.
        """
        known: list[int] = []
        node = self.make()

        def hear(event: Event) -> None:
            if isinstance(event, ServerStopping):
                found = node.discovery.lookup("/cluster/cs")
                known.append(len(self.successResultOf(found)))

        node.events.subscribe(hear)
        node.startService()
        await node.started
        await node.stopService()
        self.assertEqual(known, [1])

    async def test_begun_before(self) -> None:
        """
        A listener's life begins before the first event.
        """
        await self.start(listener(self.diary))
        await self.until(lambda: self.diary.events)
        self.assertEqual(self.diary.calls, ["init", "ServerStarted"])

    async def test_several(self) -> None:
        """
        All listeners hear; one that raises harms neither the others nor the node.
        """

        class Broken(Diary):
            def event_occurred(self, event: Event) -> None:
                raise ZeroDivisionError

        node = await self.start(listener(Broken(), "a"), listener(self.diary, "b"))
        await self.online(node, "u")
        await node.stopService()
        self.assertEqual(len(self.kinds()), 6)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 6)
        self.assertEqual(node.events.failed.total(), 6)

    async def test_silenced(self) -> None:
        """
        An operator can have none hear.
        """
        node = await self.start(
            listener(self.diary), settings=["mp.spi.server-event-listener=none"]
        )
        await self.online(node, "u")
        self.assertEqual(self.diary.calls, [])


class PointTests(ExtendedNodeTestCase):
    """
    Each extension point.
    """

    def test_defaults(self) -> None:
        """
        Everything that is built in can be named.
        """
        names = {
            "server-event-listener": "none",
            "bind-validator": "accept-all",
            "client-classifier": "os-name",
            "push-handler": "drop",
            "executor": "threads",
            "cache-manager": "memory",
            "mq-client": "memory",
            "service-registry": "memory",
            "service-discovery": "memory",
            "push-listener": "gateway",
            "rsa-cipher": "rsa",
            "json": "msgspec",
            "dns-mapping": "configured",
        }
        self.assertEqual(list(names), [point.name for point in POINTS])
        for point in POINTS:
            self.assertIn(names[point.name], point.built_in)
        named = [f"mp.spi.{point}={name}" for point, name in names.items()]
        node = self.make(settings=named)
        chosen = {one.point.name: one for one in node.extensions.chosen}
        self.assertEqual({n: c.extension.name for n, c in chosen.items()}, names)
        for one in chosen.values():
            self.assertTrue(one.built_in)
            if one.point.name != "rsa-cipher":
                # The room of the key knows no zope.
                verifyObject(one.point.interface, one.product)

    def test_unknown(self) -> None:
        """
        A name that nobody has stops the start, at every point.
        """
        for point in POINTS:
            error = self.assertRaises(
                ConfigError, self.make, settings=[f"{point.key}=missing"]
            )
            self.assertIn(f"{point.key}: found missing", str(error))

    async def test_validator(self) -> None:
        """
        A bind validator decides, and may think about it.
        """

        @implementer(IBindValidator)
        class OnlyAlice:
            async def validate(self, user_id: str, data: str | None) -> bool:
                await deferLater(reactor, 0)
                return user_id == "alice"

        node = await self.start(Extension(IBindValidator, "alice", OnlyAlice))
        await self.online(node, "alice")
        with self.assertRaises(AssertionError):
            await self.online(node, "bob")
        self.assertEqual(node.metrics.binds, {"success": 1, "refused": 1})

    async def test_classifier(self) -> None:
        """
        A classifier says how many devices a user may have.
        """

        @implementer(IClientClassifier)
        class Tablets(DefaultClassifier):
            def client_type(self, os_name: str | None) -> int:
                return 7

        node = await self.start(Extension(IClientClassifier, "tablets", Tablets))
        await self.online(node, "u")
        self.assertIsNotNone(node.local_routes.lookup("u", 7))

    async def test_push_handler(self) -> None:
        """
        A push handler gets what devices push; its return is their acknowledgement.
        """
        messages: list[UpstreamMessage] = []

        @implementer(IUpstreamHandler)
        class Inbox:
            async def message_received(self, message: UpstreamMessage) -> None:
                messages.append(message)

        node = await self.start(Extension(IUpstreamHandler, "inbox", Inbox))
        device = await self.online(node, "u")

        def push() -> Any:
            assert device.cipher is not None
            flags = int(Flag.CRYPTO | Flag.AUTO_ACK)
            body = device.cipher.encrypt(b"hello")
            device.send(encode_packet(Command.PUSH, 9, flags, body))
            return device.packet()

        answer = await deferToThread(push)
        self.assertEqual((answer[0], answer[2]), (Command.ACK, 9))
        (message,) = messages
        self.assertEqual(
            (message.user_id, message.content, message.session_id), ("u", b"hello", 9)
        )

    async def test_executor(self) -> None:
        """
        An executor runs what plug-ins have run, and is stopped with the node.
        """
        calls: list[str] = []

        @implementer(IExecutor)
        class Noting(ThreadExecutor):
            def __init__(self) -> None:
                size = PoolSize(0, 1, 10)
                super().__init__(reactor, size, size)

            def run_blocking(self, pool: str, function: Any, *args: object) -> Any:
                calls.append(pool)
                return super().run_blocking(pool, function, *args)

            def stop(self) -> Deferred[None]:
                calls.append("stop")
                return super().stop()

        diary = Diary()
        node = await self.start(listener(diary), Extension(IExecutor, "noting", Noting))
        self.assertEqual(await diary.context.run_blocking(int, "7"), 7)
        await node.stopService()
        self.assertEqual(calls, ["event-bus", "stop"])

    async def test_executor_that_does_not_stop(self) -> None:
        """
        One that does not stop does not keep the node.
        """

        @implementer(IExecutor)
        class Hanging(ThreadExecutor):
            def __init__(self) -> None:
                size = PoolSize(0, 1, 10)
                super().__init__(reactor, size, size)

            def stop(self) -> Deferred[None]:
                raise ZeroDivisionError

        node = await self.start(Extension(IExecutor, "hanging", Hanging))
        await node.stopService()
        self.assertIn("the executor did not stop", str(self.logged))

    async def test_cache(self) -> None:
        """
        A store keeps routes and sessions.
        """
        made: list[MemoryCache] = []

        def disk() -> MemoryCache:
            made.append(MemoryCache(reactor))
            return made[-1]

        node = await self.start(Extension(ICache, "disk", disk))
        await self.online(node, "u")
        (store,) = made
        route = await store.hget("mp:ur:u", "1")
        self.assertIn('"host"', route or "")

    async def test_registry(self) -> None:
        """
        A registry that is a discovery as well serves as both.
        """
        made: list[MemoryRegistry] = []

        def consul() -> MemoryRegistry:
            made.append(MemoryRegistry())
            return made[-1]

        node = await self.start(Extension(IServiceRegistry, "consul", consul))
        (registry,) = made
        self.assertEqual(len(await registry.lookup("/cluster/cs")), 1)
        self.assertEqual(len(await node.discovery.lookup("/cluster/gs")), 1)
        chosen = {one.point.name: one for one in node.extensions.chosen}
        self.assertEqual(chosen["service-discovery"].extension.name, "consul")

    async def test_registry_without_discovery(self) -> None:
        """
        Whoever names the built-in discovery gets it.
        """
        node = await self.start(
            Extension(IServiceRegistry, "consul", MemoryRegistry),
            settings=["mp.spi.service-discovery=memory"],
        )
        self.assertEqual(await node.discovery.lookup("/cluster/cs"), [])

    async def test_discovery(self) -> None:
        """
        A discovery may be another plug-in than the registry.
        """
        node = await self.start(
            Extension(IServiceDiscovery, "dns", MemoryRegistry),
        )
        self.assertEqual(await node.discovery.lookup("/cluster/cs"), [])

    async def test_cipher(self) -> None:
        """
        A node whose handshakes a plug-in opens needs no key and makes none.
        """

        @implementer(IHandshakeCipher)
        class SecurityModule:
            def __init__(self) -> None:
                self._key = RsaPrivateKey.load(SAMPLE["rsaPrivateKeyBase64"])

            def decrypt(self, sealed: bytes) -> bytes:
                return self._key.decrypt(sealed)

            def encrypt(self, plain: bytes) -> bytes:
                return self._key.encrypt(plain)

        node = await self.start(
            Extension(IHandshakeCipher, "hsm", SecurityModule), keys=()
        )
        self.assertIsNone(node.key)
        await self.online(node, "u")
        self.assertEqual(node.metrics.handshakes, {"success": 1})

    async def test_dns_mapping(self) -> None:
        """
        A mapping is used by the HTTP proxy; if that is off, it is said to be idle.
        """

        @implementer(IDnsMapping)
        class Other:
            def lookup(self, host: str) -> None:
                return None

        node = await self.start(Extension(IDnsMapping, "other", Other))
        self.assertIsInstance(node.parts.dns_mapping, Other)
        self.assertIn("dns-mapping is not used: mp.http.proxy-enabled", self.notices())
        node = await self.start(
            Extension(IDnsMapping, "other", Other),
            settings=["mp.http.proxy-enabled=true"],
        )
        self.assertIsInstance(node.parts.dns_mapping, Other)
        self.assertNotIn("is not used", self.notices())

    async def test_json(self) -> None:
        """
        JSON is read and written by a plug-in's codec where pages are served.
        """

        @implementer(IJsonCodec)
        class Other(MsgspecJson):
            def encode(self, value: object) -> bytes:
                return b" " + super().encode(value)

        node = await self.start(
            Extension(IJsonCodec, "other", Other),
            settings=[f"mp.net.ws-server-port={free_port()}"],
        )
        assert node.websocket_listener is not None
        page = await deferToThread(WebPeer, node.websocket_listener.port)
        self.addCleanup(page.close)
        page.say({"cmd": 1})
        frame = await deferToThread(page.frame)
        self.assertEqual(frame.payload[:2], b" {")
        self.assertNotIn("not used by this version", self.notices())

    async def test_said_at_the_start(self) -> None:
        """
        What serves instead of what is built in is said at the start.
        """
        await self.start(listener(Diary()))
        self.assertIn("server-event-listener: the plug-in diary serves", self.notices())


class LifeTests(ExtendedNodeTestCase):
    """
    Plug-ins whose life goes wrong, and two nodes.
    """

    async def test_init_fails(self) -> None:
        """
        A plug-in that cannot begin keeps the node from starting: nothing stays open,
        and what had begun is ended.
        """
        diary = Diary()

        class Broken(Diary):
            def init(self, context: Any) -> None:
                raise ZeroDivisionError

        node = self.make(listener(diary, "a"), listener(Broken(), "b"))
        node.startService()
        failed = await self.assertFailure(node.started, ConfigError)
        self.assertIn("the plug-in b", str(failed))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(node.connect_listener.port, 0)
        self.assertEqual(diary.calls, ["init", "destroy"])

    async def test_stopped_while_it_begins(self) -> None:
        """
        A node can be stopped while it waits for a plug-in.
        """
        cancelled: list[object] = []

        class Slow(Diary):
            def init(self, context: Any) -> Any:
                return Deferred(cancelled.append)

        node = self.make(listener(Slow()))
        node.startService()
        starting = self.assertFailure(node.started, Exception)
        await node.stopService()
        await starting
        self.assertEqual(len(cancelled), 1)

    async def test_before_the_stores(self) -> None:
        """
        C{init} comes before the stores are connected and devices are served.
        """
        order: list[str] = []

        class Noting(Diary):
            def init(self, context: Any) -> None:
                order.append("init")

        class Store(MemoryCache):
            def start(self) -> Deferred[None]:
                order.append("start")
                return super().start()

        await self.start(
            listener(Noting()),
            Extension(ICache, "disk", lambda: Store(reactor)),
        )
        self.assertEqual(order, ["init", "start"])

    async def test_two_nodes(self) -> None:
        """
        Two nodes of one process have a product each.
        """
        diaries: list[Diary] = []

        def diary() -> Diary:
            diaries.append(Diary())
            return diaries[-1]

        extension = Extension(IServerEventListener, "diary", diary)
        await self.start(extension)
        second = await self.start(extension)
        await self.online(second, "u")
        await self.until(lambda: len(diaries[1].events) == 3)
        self.assertEqual([len(one.events) for one in diaries], [1, 3])


class ContextTests(ExtendedNodeTestCase):
    """
    What a plug-in is given.
    """

    async def begin(self, *settings: str) -> Any:
        """
        Start a node with a listener.

        @return: The listener's context.
        """
        self.diary = Diary()
        self.node = await self.start(listener(self.diary), settings=settings)
        return self.diary.context

    async def test_interface(self) -> None:
        """
        All that is promised is there.
        """
        context = await self.begin()
        verifyObject(IExtensionContext, context)
        verifyObject(IExtensionMetrics, context.metrics)
        self.assertEqual(context.name, "diary")
        self.assertIs(context.cache, self.node.cache)
        self.assertIs(context.queue, self.node.queue)
        self.assertIs(context.registry, self.node.registry)
        self.assertIs(context.discovery, self.node.discovery)
        self.assertIs(context.settings, self.node.settings)
        self.assertIs(context.reactor, reactor)
        self.assertEqual(
            context.address, ("127.0.0.1", self.node.gateway_listener.port)
        )

    async def test_settings(self) -> None:
        """
        A plug-in reads its own keys, and any other, as the operator wrote them.
        """
        context = await self.begin(
            "mp.spi-settings.diary.wait=3m", "mp.spi-settings.diary.list=[1, 2]"
        )
        self.assertEqual(context.setting("mp.spi-settings.diary.wait"), "3m")
        self.assertEqual(context.setting("mp.spi-settings.diary.list"), [1, 2])
        self.assertEqual(context.setting("mp.core.min-heartbeat"), "3m")
        self.assertEqual(context.setting("mp.spi-settings.diary.url", "u"), "u")
        self.assertIsNone(context.setting("mp.spi-settings.diary.wait.more"))
        self.assertIsNone(context.setting("nothing"))

    async def test_hides(self) -> None:
        """
        What it can read is not in its C{repr}.
        """
        context = await self.begin("mp.spi-settings.diary.key=hunter2")
        self.assertNotIn("hunter2", repr(context))

    async def test_log(self) -> None:
        """
        Its lines carry its name, and follow the level of the node.
        """
        context = await self.begin("mp.log-level=warn")
        with capturedLogs() as lines:
            context.log.debug("debug {what}", what=1)
            context.log.info("info {what}", what=1)
            context.log.warn("warn {what}", what=1)
            context.log.error("error {what}", what=1)
        self.assertEqual(
            [(line["log_namespace"], line["log_format"]) for line in lines],
            [
                ("mpush.extension.diary", "warn {what}"),
                ("mpush.extension.diary", "error {what}"),
            ],
        )

    async def test_log_level_changes(self) -> None:
        """
        When the node's level is changed, so is theirs.
        """
        context = await self.begin()
        self.node.log.set_level("debug")
        with capturedLogs() as lines:
            context.log.debug("debug")
        self.assertEqual(len(lines), 1)

    async def test_events(self) -> None:
        """
        It may hear events without being a listener.
        """
        context = await self.begin()
        heard: list[Event] = []
        context.events.subscribe(heard.append)
        await self.online(self.node, "u")
        await self.until(lambda: len(heard) == 3)
        self.assertIsInstance(heard[1], ConnectionOpened)

    async def test_metrics(self) -> None:
        """
        What it counts is the node's.
        """
        context = await self.begin()
        context.metrics.counter("asked", "Questions.")()
        (family,) = self.node.extension_metrics.counters
        self.assertEqual(family.counts, {(): 1})

    async def test_threads(self) -> None:
        """
        It may block, elsewhere.
        """
        context = await self.begin()
        name = await context.run_blocking(lambda: threading.current_thread().name)
        self.assertIn("event-bus", name)
        self.assertEqual(self.node.executor.statistics()["event-bus"].done, 1)


class PushSourceTests(ExtendedNodeTestCase):
    """
    Pushes that a plug-in brings, and outcomes that it hears.
    """

    def setUp(self) -> None:
        self.source = Source()

    async def test_delivered(self) -> None:
        """
        A push of a plug-in reaches the device, and the plug-in is told once.
        """
        node = await self.start(source(self.source))
        device = await self.online(node, "u")
        request = self.source.request("u")
        self.source.context.push(request)
        packet = await deferToThread(device.packet)
        assert packet is not None and device.cipher is not None
        self.assertEqual(device.cipher.decrypt(packet[3]), b"hello")
        self.assertEqual(self.source.finished, [(request, Outcome.SUCCESS)])

    async def test_broadcast(self) -> None:
        """
        So does one to everybody.
        """
        node = await self.start(source(self.source))
        device = await self.online(node, "u")
        self.source.context.push(self.source.request(None))
        packet = await deferToThread(device.packet)
        assert packet is not None and packet[0] == Command.PUSH
        await self.until(lambda: self.source.finished)
        self.assertEqual(self.source.finished[0][1], Outcome.BROADCAST_COMPLETE)

    async def test_offline(self) -> None:
        """
        A user who is not there is told as such.
        """
        await self.start(source(self.source))
        self.source.context.push(self.source.request("nobody"))
        await self.until(lambda: self.source.finished)
        self.assertEqual(self.source.finished[0][1], Outcome.OFFLINE)

    async def test_not_before_the_start(self) -> None:
        """
        Before the node serves, and when it stops, pushes are not taken.
        """
        early: list[Exception] = []
        source_ = self.source

        class Hasty(Diary):
            def init(self, context: Any) -> None:
                super().init(context)
                self.attempt()

            def event_occurred(self, event: Event) -> None:
                if isinstance(event, (ServerStarted, ServerStopping)):
                    self.attempt()

            def attempt(self) -> None:
                try:
                    self.context.push(source_.request("u"))
                except Unavailable as error:
                    early.append(error)
                else:
                    early.append(Exception("taken"))

        node = await self.start(listener(Hasty()))
        await self.until(lambda: len(early) == 2)
        await node.stopService()
        self.assertEqual(
            [type(error) for error in early], [Unavailable, Exception, Unavailable]
        )

    async def test_too_long(self) -> None:
        """
        What no device would take is refused.
        """
        await self.start(source(self.source), settings=["mp.core.max-packet-size=2k"])
        request = self.source.request("u", b"x" * 2049)
        error = self.assertRaises(PushError, self.source.context.push, request)
        self.assertIn("2048", str(error))

    async def test_listener_raises(self) -> None:
        """
        A source that raises when it is told harms nobody.
        """

        class Broken(Source):
            def push_finished(
                self, request: PushRequest, outcome: Outcome, points: TimePoints
            ) -> None:
                super().push_finished(request, outcome, points)
                raise ZeroDivisionError

        self.source = Broken()
        node = await self.start(source(self.source))
        await self.online(node, "u")
        for _ in range(2):
            self.source.context.push(self.source.request("u"))
        self.assertEqual(len(self.source.finished), 2)
        self.assertIn("push listener failed", str(self.logged))

    async def test_pushes_of_senders(self) -> None:
        """
        The gateway stays open; senders are answered, and the plug-in hears as well.
        """
        node = await self.start(source(self.source))
        await self.online(node, "u")

        def push() -> Any:
            peer = RawPeer(node.gateway_listener.port)
            self.addCleanup(peer.close)
            body = GatewayPush("u", 1, 5000, b"x").encode()
            peer.send(encode_packet(Command.GATEWAY_PUSH, 5, 0, body))
            return peer.packet()

        answer = await deferToThread(push)
        self.assertEqual((answer[0], answer[2]), (Command.OK, 5))
        ((request, outcome),) = self.source.finished
        self.assertEqual((request.user_id, outcome), ("u", Outcome.SUCCESS))
        self.assertNotEqual(request.origin, "mine")

    async def test_gateway_shut(self) -> None:
        """
        An operator can shut the gateway, so that the plug-in is the only source.
        """
        node = await self.start(
            source(self.source), settings=["mp.net.gateway-allowed-peers=[]"]
        )

        def push() -> bool:
            peer = RawPeer(node.gateway_listener.port)
            self.addCleanup(peer.close)
            return peer.wait_end()

        self.assertTrue(await deferToThread(push))
        device = await self.online(node, "u")
        self.source.context.push(self.source.request("u"))
        packet = await deferToThread(device.packet)
        assert packet is not None
        self.assertEqual(packet[0], Command.PUSH)
