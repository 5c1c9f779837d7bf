"""
What tests of the example plug-ins share: their code, and nodes that use them.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import twisted.plugins  # first: what it finds later does not serve in other tests
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mpush_tw.core.extension_metrics import CounterFamily
from mpush_tw.embedding import ServerLauncher
from mpush_tw.extensions import Extension
from mpush_tw.service import Node
from tests.integration.devices import Device
from tests.test_embedding import CONFIG

PLUGINS = Path(__file__).parents[2] / "examples" / "plugins"

assert twisted.plugins.__path__
for _project in PLUGINS.iterdir():
    # As if they were installed, but for the module in twisted/plugins.
    sys.path.append(str(_project))


def end_in_time(
    test: SynchronousTestCase, process: subprocess.Popen[str], seconds: float = 90.0
) -> None:
    """
    Kill a process that a test may wait for in vain.
    """
    timer = threading.Timer(seconds, process.kill)
    timer.daemon = True
    timer.start()
    test.addCleanup(timer.cancel)


class PluginTestCase(TestCase):
    """
    Nodes with one plug-in each.
    """

    timeout = 60

    def launcher(self, extension: Extension, **settings: object) -> ServerLauncher:
        """
        Make a launcher of a node with a plug-in; stopped after the test.

        @param settings: What stands below C{mp.spi-settings} and the plug-in's name.
        """
        home = self.mktemp()
        own = {name.replace("_", "-"): value for name, value in settings.items()}
        config = {
            **CONFIG,
            "mp.home": home,
            "mp.net.gateway-server-bind-ip": "127.0.0.1",
            "mp": {"spi-settings": {extension.name: own}},
        }
        launcher = ServerLauncher(config, reactor, extensions=[extension])
        self.addCleanup(launcher.stop)
        return launcher

    async def start(self, extension: Extension, **settings: object) -> Node:
        """
        Start a node with a plug-in.
        """
        return await self.launcher(extension, **settings).start()

    async def device(self, node: Node, device_id: str = "d") -> Device:
        """
        Connect a device that has shaken hands.
        """

        def connect() -> Device:
            device = Device(node.connect_listener.port)
            self.addCleanup(device.close)
            return device.shake_hands(device_id)

        return await deferToThread(connect)

    async def online(self, node: Node, user_id: str, device_id: str = "d") -> Device:
        """
        Connect a user's device.
        """
        device = await self.device(node, device_id)
        return await deferToThread(device.bind, user_id)

    async def until(self, true: Callable[[], Any], seconds: float = 10.0) -> None:
        """
        Let time pass until something is so.
        """
        end = reactor.seconds() + seconds  # type: ignore[attr-defined]
        while not true():
            if reactor.seconds() > end:  # type: ignore[attr-defined]
                self.fail(f"waited {seconds} seconds in vain")
            await deferLater(reactor, 0.01)

    def counts(self, node: Node, name: str) -> dict[str, int]:
        """
        What a plug-in has counted, by the text of its one label.
        """
        families: list[CounterFamily] = node.extension_metrics.counters
        (family,) = [one for one in families if one.name == name]
        return {texts[0]: count for texts, count in family.counts.items()}
