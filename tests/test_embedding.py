"""
Tests for L{mpush_tw.embedding} (operations 5).
"""

from __future__ import annotations

import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from mpush_tw.config import LoadedSettings, load_settings
from mpush_tw.embedding import ServerLauncher
from mpush_tw.errors import ConfigError, MPushError
from mpush_tw.extensions import Extension
from mpush_tw.interfaces import Event, IBindValidator, IServerEventListener
from mpush_tw.service import Node
from tests.integration.devices import Device
from tests.support import SAMPLE

CONFIG: dict[str, Any] = {
    "mp.security.private-key": SAMPLE["rsaPrivateKeyBase64"],
    "mp.security.public-key": SAMPLE["rsaPublicKeyBase64"],
    "mp.security.allow-sample-key": True,
    "mp.net.connect-server-port": 0,
    "mp.net.connect-server-bind-ip": "127.0.0.1",
    "mp.net.gateway-server-port": 0,
    "mp.net.admin-server-port": 0,
    "mp.log-level": "off",
}


@implementer(IServerEventListener)
class Listener:
    """
    Remembers what it heard.
    """

    def __init__(self) -> None:
        self.heard: list[str] = []

    def event_occurred(self, event: Event) -> None:
        self.heard.append(type(event).__name__)


class ConfigTests(SynchronousTestCase):
    """
    What a launcher takes for a configuration.
    """

    def loaded(self, config: Any) -> LoadedSettings:
        launcher = ServerLauncher(config, reactor)
        launcher.init()
        assert isinstance(launcher.config, LoadedSettings)
        return launcher.config

    def test_dotted_keys(self) -> None:
        """
        A mapping of dotted keys.
        """
        settings = self.loaded({**CONFIG, "mp.core.min-heartbeat": "10s"}).settings
        self.assertEqual(settings.core.min_heartbeat, 10)
        self.assertEqual(settings.net.connect_server_port, 0)
        self.assertTrue(settings.security.allow_sample_key)

    def test_whole(self) -> None:
        """
        A mapping with C{mp} in it, and dotted keys beside that.
        """
        loaded = self.loaded(
            {
                "mp": {"core": {"min-heartbeat": "10s"}},
                "mp.core": {"max-heartbeat": "20s"},
                **CONFIG,
                "shop": {"url": "u"},
            }
        )
        core = loaded.settings.core
        self.assertEqual((core.min_heartbeat, core.max_heartbeat), (10, 20))
        self.assertEqual(loaded.whole["shop"], {"url": "u"})

    def test_section(self) -> None:
        """
        A mapping of what stands in C{mp}, as a parsed tree is.
        """
        tree = self.loaded(CONFIG).tree
        again = self.loaded(tree)
        self.assertEqual(again.settings, self.loaded(CONFIG).settings)

    def test_loaded(self) -> None:
        """
        Settings that were read before.
        """
        overrides = [f"{key}={value}" for key, value in CONFIG.items()]
        overrides = [text.replace("=True", "=true") for text in overrides]
        loaded = load_settings(None, overrides, {})
        self.assertIs(self.loaded(loaded), loaded)

    def test_file(self) -> None:
        """
        A file, as text or path.
        """
        path = Path(self.mktemp())
        path.write_text("mp.security.allow-sample-key=true\nmp.core.min-heartbeat=10s")
        for given in (path, str(path)):
            loaded = self.loaded(given)
            self.assertEqual(loaded.settings.core.min_heartbeat, 10)
            self.assertEqual(loaded.source, str(path))

    def test_bad_value(self) -> None:
        """
        A value that cannot be used is told with its key.
        """
        launcher = ServerLauncher({"mp.core.min-heartbeat": "soon"}, reactor)
        error = self.assertRaises(ConfigError, launcher.init)
        self.assertIn("mp.core.min-heartbeat: found soon", str(error))
        self.assertIn("in the program", str(error))

    def test_no_data(self) -> None:
        """
        So is what is no data at all.
        """
        launcher = ServerLauncher({"mp.core.min-heartbeat": object()}, reactor)
        self.assertRaises(ConfigError, launcher.init)

    def test_text_is_taken_as_it_is(self) -> None:
        """
        A program's text is no configuration language: nothing in it is replaced.
        """
        loaded = self.loaded({**CONFIG, "mp.net.admin-server-password": "${HOME}#1"})
        self.assertEqual(loaded.settings.net.admin_server_password, "${HOME}#1")


class LauncherTests(TestCase):
    """
    Starting and stopping.
    """

    timeout = 30

    def launcher(self, listener: Any = None, **more: Any) -> ServerLauncher:
        """
        Make a launcher; what it started is stopped after the test.
        """
        home = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, home)
        config = {**CONFIG, "mp.home": home, **more.pop("config", {})}
        launcher = ServerLauncher(config, reactor, listener, **more)
        self.addCleanup(launcher.stop)
        return launcher

    def test_nothing_done(self) -> None:
        """
        A launcher that was only made has made nothing.
        """
        launcher = self.launcher()
        self.assertIsNone(launcher.server)
        self.successResultOf(launcher.stop())

    def test_init(self) -> None:
        """
        C{init} makes the node, once, and opens nothing.
        """
        launcher = self.launcher()
        node = launcher.init()
        self.assertIs(launcher.init(), node)
        self.assertIs(launcher.server, node)
        self.assertEqual(node.connect_listener.port, 0)
        self.successResultOf(launcher.stop())

    async def test_start(self) -> None:
        """
        C{start} does without C{init}, and gives the node when it serves.
        """
        launcher = self.launcher()
        node = await launcher.start()
        assert node is not None
        self.assertIs(launcher.server, node)
        await deferToThread(self.bind, node)
        for part in ("cache", "queue", "registry", "discovery", "events", "metrics"):
            self.assertTrue(hasattr(node, part), part)

    def bind(self, node: Node) -> None:
        device = Device(node.connect_listener.port)
        self.addCleanup(device.close)
        device.shake_hands("d").bind("u")

    async def test_start_twice(self) -> None:
        """
        Who asks again gets the same node.
        """
        launcher = self.launcher()
        first, second = await gatherResults([launcher.start(), launcher.start()])
        self.assertIs(first, second)
        self.assertIs(await launcher.start(), first)

    async def test_listener(self) -> None:
        """
        A listener hears from the start to the stop.
        """
        listener = Listener()
        launcher = self.launcher(listener)
        self.assertIs(launcher.listener, listener)
        await launcher.start()
        await launcher.stop()
        self.assertEqual(listener.heard, ["ServerStarted", "ServerStopping"])

    async def test_listener_set_later(self) -> None:
        """
        It may be set until C{init}, as in the original.
        """
        launcher = self.launcher()
        launcher.listener = listener = Listener()
        await launcher.start()
        await launcher.stop()
        self.assertEqual(listener.heard, ["ServerStarted", "ServerStopping"])

    async def test_extensions(self) -> None:
        """
        A program brings parts of its own along.
        """

        @implementer(IBindValidator)
        class Nobody:
            def validate(self, user_id: str, data: str | None) -> bool:
                return False

        launcher = self.launcher(
            extensions=[Extension(IBindValidator, "nobody", Nobody)]
        )
        node = await launcher.start()
        with self.assertRaises(AssertionError):
            await deferToThread(self.bind, node)

    async def test_stop(self) -> None:
        """
        After C{stop} everything is closed; it may be called again.
        """
        launcher = self.launcher()
        node = await launcher.start()
        await gatherResults([launcher.stop(), launcher.stop()])
        await launcher.stop()
        self.assertEqual((node.connect_listener.port, node.ports), (0, []))

    async def test_no_second_life(self) -> None:
        """
        What was stopped is not started again.
        """
        launcher = self.launcher()
        await launcher.start()
        await launcher.stop()
        error = await self.assertFailure(launcher.start(), MPushError)
        self.assertIn("make another", str(error))

    async def test_stop_while_starting(self) -> None:
        """
        A launcher can be stopped while its node waits for a store.
        """
        launcher = self.launcher()
        self.patch(launcher.init().registry, "start", Deferred)
        starting = self.assertFailure(launcher.start(), MPushError)
        await launcher.stop()
        await starting
        node = launcher.server
        assert node is not None
        self.assertEqual((node.connect_listener.port, node.ports), (0, []))

    async def test_busy_port(self) -> None:
        """
        A start that fails says why, and leaves nothing open.
        """
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            launcher = self.launcher(config={"mp.net.connect-server-port": port})
            error = await self.assertFailure(launcher.start(), ConfigError)
            self.assertIn("mp.net.connect-server-port", str(error))
            await self.assertFailure(launcher.start(), ConfigError)
            node = launcher.server
            assert node is not None
            self.assertEqual((node.gateway_listener.port, node.ports), (0, []))
            await launcher.stop()

    async def test_bad_configuration(self) -> None:
        """
        So does one with a configuration that cannot be used.
        """
        launcher = self.launcher(config={"mp.core.min-heartbeat": "soon"})
        await self.assertFailure(launcher.start(), ConfigError)
        self.assertIsNone(launcher.server)
        await launcher.stop()

    async def test_several(self) -> None:
        """
        Several in one process have nothing in common.
        """
        one, two = Listener(), Listener()
        first, second = self.launcher(one), self.launcher(two)
        a, b = await gatherResults([first.start(), second.start()])
        await deferToThread(self.bind, b)
        await first.stop()
        await deferToThread(self.bind, b)
        await deferLater(reactor, 0)
        self.assertEqual(one.heard, ["ServerStarted", "ServerStopping"])
        self.assertIn("UserOnline", two.heard)
        self.assertIsNot(a, b)

    def test_default_reactor(self) -> None:
        """
        Without a reactor it is the process's.
        """
        launcher = ServerLauncher(CONFIG)
        self.assertIs(launcher.init().reactor, reactor)
