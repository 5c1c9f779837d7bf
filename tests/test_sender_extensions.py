"""
Tests for L{mpush_tw.sender_extensions}: a node and a sender that share stores which are
plug-ins, found where Twisted looks for them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import twisted.plugins
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.python.threadable import isInIOThread
from twisted.trial.unittest import TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mpush_tw.cluster import cluster_sender
from mpush_tw.config import LoadedSettings, load_settings
from mpush_tw.core.push.request import Outcome, PushRequest
from mpush_tw.errors import ConfigError, Unavailable
from mpush_tw.integrations.memory import MemoryCache, MemoryQueue, MemoryRegistry
from mpush_tw.interfaces import IClientClassifier, IExtensionContext, IPushListener
from mpush_tw.protocol.gateway import TimePoints
from mpush_tw.sender import PushContext, PushSender, ResultCode
from mpush_tw.service import Node
from tests.integration.devices import Device
from tests.support import SAMPLE

PLUGINS = """
from mpush_tw.extensions import Extension
from mpush_tw.interfaces import *
HERE = "tests.test_sender_extensions."
cache = Extension(ICache, "shared", HERE + "shared_cache")
queue = Extension(IMessageQueue, "shared", HERE + "shared_queue")
registry = Extension(IServiceRegistry, "shared", HERE + "shared_registry")
types = Extension(IClientClassifier, "tablets", HERE + "Tablets")
"""


class Shared:
    """
    What all nodes and senders of a test share.
    """

    def __init__(self) -> None:
        self.cache = SharedCache(reactor)
        self.registry = MemoryRegistry()
        self.queues: list[MemoryQueue] = []
        self.contexts: list[Any] = []
        self.calls: list[str] = []


shared: Shared


class SharedCache(MemoryCache):
    """
    A store that tells what is done with it.
    """

    def init(self, context: Any) -> None:
        shared.contexts.append(context)
        shared.calls.append("init")

    def start(self) -> Deferred[None]:
        shared.calls.append("start")
        return super().start()

    def stop(self) -> Deferred[None]:
        # The store outlives who uses it.
        shared.calls.append("stop")
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def destroy(self) -> None:
        shared.calls.append("destroy")


@implementer(IClientClassifier)
class Tablets:
    """
    Everything is a tablet.
    """

    def client_type(self, os_name: str | None) -> int:
        return 9


def shared_cache() -> SharedCache:
    return shared.cache


def shared_queue() -> MemoryQueue:
    return MemoryQueue(reactor)


def shared_registry() -> MemoryRegistry:
    return shared.registry


@implementer(IPushListener)
class Nobody:
    """
    Hears of a push that nobody takes.
    """

    def push_finished(
        self, request: PushRequest, outcome: Outcome, points: TimePoints
    ) -> None:
        raise NotImplementedError


class SharedStoresTests(TestCase):
    """
    A cluster without Redis and ZooKeeper.
    """

    timeout = 30

    def setUp(self) -> None:
        global shared
        shared = Shared()
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        (directory / "mpush_shared_plugin.py").write_text(PLUGINS)
        self.patch(
            twisted.plugins, "__path__", [*twisted.plugins.__path__, str(directory)]
        )
        self.addCleanup(sys.modules.pop, "twisted.plugins.mpush_shared_plugin", None)

    def loaded(self, *overrides: str) -> LoadedSettings:
        """
        Settings of a cluster whose stores are all plug-ins. Nothing listens where they
        say that ZooKeeper is.
        """
        settings = [
            f"mp.home={self.mktemp()}",
            "mp.zk.server-address=127.0.0.1:1",
            "mp.spi.cache=shared",
            "mp.spi.mq-client=shared",
            "mp.spi.registry=shared",
            f'mp.security.private-key="{SAMPLE["rsaPrivateKeyBase64"]}"',
            "mp.security.allow-sample-key=true",
            "mp.net.local-ip=127.0.0.1",
            "mp.net.public-ip=127.0.0.1",
            "mp.net.connect-server-port=0",
            "mp.net.connect-server-bind-ip=127.0.0.1",
            "mp.net.gateway-server-port=0",
            "mp.net.gateway-server-bind-ip=127.0.0.1",
            "mp.net.admin-server-port=0",
            "mp.log-level=off",
            "mp.spi-settings.shared.answer=42",
            *overrides,
        ]
        return load_settings(None, settings, {})

    def sender(self, config: Any) -> PushSender:
        """
        Make a sender that is stopped after the test.
        """
        sender = cluster_sender(config, reactor=reactor)
        self.addCleanup(sender.stop)
        return sender

    async def test_push(self) -> None:
        """
        The sender finds the gateway and the route where the node has put them, even the
        client type that the node's plug-in gave.
        """
        node = Node(self.loaded(), reactor)
        self.addCleanup(node.stopService)
        node.startService()
        await node.started
        sender = self.sender(self.loaded())
        await sender.start()
        device = Device(node.connect_listener.port)
        self.addCleanup(device.close)

        def join() -> None:
            device.shake_hands("d").bind("u")

        await deferToThread(join)
        self.assertIsNotNone(await shared.cache.hget("mp:ur:u", "9"))
        result = await sender.send(PushContext(b"hello", user_id="u"))
        self.assertEqual(result.code, ResultCode.SUCCESS)
        packet = await deferToThread(device.packet)
        assert packet is not None and device.cipher is not None
        self.assertEqual(device.cipher.decrypt(packet[3]), b"hello")

    async def test_life(self) -> None:
        """
        A plug-in of a sender begins before it is used and ends after that, each time
        that the sender is started.
        """
        sender = self.sender(self.loaded())
        self.assertEqual(shared.calls, [])
        for _ in range(2):
            await sender.start()
            self.assertEqual(shared.calls, ["init", "start"])
            await sender.stop()
            self.assertEqual(shared.calls, ["init", "start", "stop", "destroy"])
            shared.calls.clear()

    async def test_context(self) -> None:
        """
        It gets what a sender has; what only a node has is refused or empty.
        """
        await self.sender(self.loaded()).start()
        (context,) = shared.contexts
        verifyObject(IExtensionContext, context)
        self.assertEqual((context.name, context.address), ("shared", None))
        self.assertEqual(context.setting("mp.spi-settings.shared.answer"), 42)
        self.assertEqual(context.setting("mp.zk.server-address"), "127.0.0.1:1")
        request = PushRequest("u", 0, 1, b"x", None, None, None, 0, Nobody())
        self.assertRaises(Unavailable, context.push, request)
        self.assertFalse(await context.run_blocking(isInIOThread))
        context.metrics.counter("asked", "Questions.")()
        context.events.subscribe(lambda event: None)

    async def test_settings(self) -> None:
        """
        A sender that was given settings knows at least the plug-ins' own keys.
        """
        await self.sender(self.loaded().settings).start()
        (context,) = shared.contexts
        self.assertEqual(context.setting("mp.spi-settings.shared.answer"), 42)

    async def test_unknown(self) -> None:
        """
        A name that nobody has is refused when the sender is made.
        """
        loaded = self.loaded("mp.spi.client-classifier=phones")
        error = self.assertRaises(ConfigError, self.sender, loaded)
        self.assertIn("tablets", str(error))

    async def test_built_in(self) -> None:
        """
        A plug-in that the settings do not want is not used.
        """
        node = Node(self.loaded("mp.spi.client-classifier=os-name"), reactor)
        self.assertEqual(node.parts.classifier.client_type("ios"), 1)
