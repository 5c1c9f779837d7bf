"""
What a node or a sender gives to each of its plug-ins (server 19.1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import attrs

from twisted.internet.defer import Deferred
from twisted.logger import Logger, LogLevel
from zope.interface import implementer

from mpush_tw.config import Settings
from mpush_tw.core.extension_metrics import ExtensionMetrics
from mpush_tw.core.log import Category, NodeLog
from mpush_tw.core.push.centre import PushCentre
from mpush_tw.core.push.listeners import SafeListener
from mpush_tw.core.push.request import PushRequest
from mpush_tw.core.routing.remote import NodeIdentity
from mpush_tw.errors import PushError, Unavailable
from mpush_tw.interfaces import (
    ICache,
    IEvents,
    IExecutor,
    IExtensionContext,
    IMessageQueue,
    IServiceDiscovery,
    IServiceRegistry,
)

_T = TypeVar("_T")

_PLUG_IN_POOL = "event-bus"


class PushDoor:
    """
    The way of plug-ins into the push centre; open while the node serves.

    @ivar open: Whether pushes are taken.
    """

    def __init__(self, centre: PushCentre, log: NodeLog, max_content: int) -> None:
        """
        @param max_content: Longest content, in bytes: more does not fit into a packet.
        """
        self._centre = centre
        self._log = log
        self._max_content = max_content
        self.open = False

    def push(self, request: PushRequest) -> None:
        """
        See L{IExtensionContext.push}.
        """
        if not self.open:
            raise Unavailable("the node does not serve: it starts or stops")
        size = len(request.content or b"")
        if size > self._max_content:
            raise PushError(
                f"the content has {size} bytes, mp.core.max-packet-size allows "
                f"{self._max_content}"
            )
        request.listener = SafeListener(request.listener, self._log)
        self._centre.push(request)


class LevelledLogger(Logger):
    """
    A plug-in's logger, at the level of its node.
    """

    def __init__(self, namespace: str, level: Category) -> None:
        super().__init__(namespace=namespace)
        self._level = level

    def emit(self, level: Any, format: str | None = None, **fields: object) -> None:
        if (
            (level is LogLevel.debug and not self._level.debug_on)
            or (level is LogLevel.info and not self._level.info_on)
            or (level is LogLevel.warn and not self._level.warn_on)
            or (level is LogLevel.error and not self._level.error_on)
        ):
            return
        super().emit(level, format, **fields)


def plug_in_logger(name: str, log: NodeLog) -> Logger:
    """
    Make the logger of one plug-in.
    """
    return LevelledLogger(f"mpush.extension.{name}", log.general)


@implementer(IExtensionContext)
@attrs.frozen(eq=False)
class NodeContext:
    """
    The context of one plug-in of a node.
    """

    name: str
    settings: Settings = attrs.field(repr=False)
    reactor: Any
    log: Logger
    cache: ICache
    queue: IMessageQueue
    registry: IServiceRegistry
    discovery: IServiceDiscovery
    events: IEvents
    metrics: ExtensionMetrics
    _identity: NodeIdentity
    _tree: Mapping[str, Any] = attrs.field(repr=False)
    _executor: IExecutor
    _door: PushDoor

    @property
    def address(self) -> tuple[str, int]:
        """
        How routes name this node.
        """
        return self._identity.host, self._identity.port

    def setting(self, path: str, default: object = None) -> object:
        """
        Read a key of the operator's file.
        """
        return find_setting(self._tree, path, default)

    def push(self, request: PushRequest) -> None:
        """
        Have the push centre push.
        """
        self._door.push(request)

    def run_blocking(self, function: Callable[..., _T], *args: object) -> Deferred[_T]:
        """
        Call something in a thread.
        """
        return self._executor.run_blocking(_PLUG_IN_POOL, function, *args)


def find_setting(tree: Mapping[str, Any], path: str, default: object) -> object:
    """
    Look a dotted path up in what was read from the operator's files.
    """
    value: Any = tree
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return default
        value = value[name]
    return default if value is None else value
