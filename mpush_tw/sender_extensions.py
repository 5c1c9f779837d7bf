"""
Plug-ins of a sender: the stores that it shares with the nodes of a cluster, and their
client types (server 19.2).

A sender chooses as a node does, by the same settings, because it has to look where the
nodes write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from zope.interface import implementer

from mpush_tw._products import Standing
from mpush_tw.client_types import DefaultClassifier
from mpush_tw.config import Settings
from mpush_tw.core.events import Events
from mpush_tw.core.extension_metrics import ExtensionMetrics
from mpush_tw.errors import Unavailable
from mpush_tw.extension_context import find_setting
from mpush_tw.extensions import CLIENT_CLASSIFIER, Chosen, Extensions, built_in
from mpush_tw.interfaces import IClientClassifier, IExtensionContext
from mpush_tw.sender.directory import GatewaysChanged, IGatewayDirectory
from mpush_tw.stores import Stores

_T = TypeVar("_T")


@implementer(IExtensionContext)
class SenderContext:
    """
    The context of one plug-in of a sender. Nothing happens on a sender that would be an
    event, nobody looks at its figures, and it pushes for whoever has made it only.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        tree: Mapping[str, Any],
        stores: Stores,
        reactor: Any,
    ) -> None:
        """
        @param tree: What was read from the operator's files.
        """
        self.name = name
        self.settings = settings
        self.reactor = reactor
        self.address = None
        self.log = Logger(namespace=f"mpush.extension.{name}")
        self.cache = stores.cache
        self.queue = stores.queue
        self.registry = stores.registry
        self.discovery = stores.discovery
        self.events = Events(reactor)
        self.metrics = ExtensionMetrics()
        self._tree = tree

    def setting(self, path: str, default: object = None) -> object:
        """
        Read a key of the operator's file.
        """
        return find_setting(self._tree, path, default)

    def push(self, request: object) -> None:
        """
        Refuse.
        """
        raise Unavailable("a sender has no push centre for plug-ins")

    def run_blocking(self, function: Callable[..., _T], *args: object) -> Deferred[_T]:
        """
        Call something in a thread of the reactor's pool.
        """
        pool = self.reactor.getThreadPool()
        return deferToThreadPool(self.reactor, pool, function, *args)


def choose_classifier(extensions: Extensions) -> IClientClassifier:
    """
    Choose what sorts devices into client types.

    @raise ConfigError: If what the settings name is not there, or cannot be used.
    """
    chosen: IClientClassifier = extensions.choose(
        CLIENT_CLASSIFIER, built_in(IClientClassifier, "os-name", DefaultClassifier)
    )
    return chosen


def with_extensions(
    directory: IGatewayDirectory,
    extensions: Extensions,
    settings: Settings,
    tree: Mapping[str, Any],
    stores: Stores,
    reactor: Any,
) -> IGatewayDirectory:
    """
    Have the plug-ins of a sender begin before its directory and end after it.

    @param directory: Uses what the plug-ins provide.
    @param tree: What was read from the operator's files.
    """
    log = Logger(namespace="mpush.extension")

    def context(chosen: Chosen) -> SenderContext:
        return SenderContext(chosen.extension.name, settings, tree, stores, reactor)

    async def start(gateways_changed: GatewaysChanged) -> None:
        for notice in extensions.notices:
            log.info("{notice}", notice=notice)
        await extensions.start(context)
        await directory.start(gateways_changed)

    async def stop() -> None:
        try:
            await directory.stop()
        finally:
            await extensions.stop()

    standing: Any = Standing(
        directory,
        {
            "start": lambda changed: Deferred.fromCoroutine(start(changed)),
            "stop": lambda: Deferred.fromCoroutine(stop()),
        },
    )
    provider: IGatewayDirectory = standing
    return provider
