"""
Plug-ins: how a program puts a part of its own into a node (server 19).

A plug-in is an L{Extension} object in any module of C{twisted/plugins}, of an installed
wheel or of a directory on C{PYTHONPATH}::

    from mpush_tw.extensions import Extension
    from mpush_tw.interfaces import IBindValidator

    tokens = Extension(IBindValidator, "tokens", "shop.push.TokenValidator")

Every node calls the factory once, so several nodes of one process share nothing. Which
extension serves as what: the one that C{mp.spi} names; else the one with the lowest
order, built-in ones having 1; of equal ones the first by name. Of event listeners all
are used. C{docs/plugins.md} is the tutorial.

This module is what the files in C{twisted/plugins} import, at each start of C{twistd}:
it imports little itself.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import attrs

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.plugin import IPlugin, getPlugins
from twisted.python.modules import getModule
from twisted.python.reflect import namedAny
from zope.interface import implementer
from zope.interface.exceptions import Invalid
from zope.interface.interface import InterfaceClass
from zope.interface.verify import verifyObject

from mpush_tw import _products, interfaces
from mpush_tw._products import said
from mpush_tw.errors import ConfigError
from mpush_tw.interfaces import IExtension

if TYPE_CHECKING:
    from mpush_tw.config import Settings

__all__ = [
    "BUILT_IN_ORDER",
    "POINTS",
    "BrokenModule",
    "Chosen",
    "Extension",
    "Extensions",
    "Point",
    "built_in",
    "canonical_name",
    "find_extensions",
]

BUILT_IN_ORDER: Final = 1

_NAME: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


@implementer(IPlugin, IExtension)
class Extension:
    """
    One plug-in.

    @ivar where: The dotted name of the factory, for operators.
    """

    def __init__(
        self,
        provides: Any,
        name: str,
        factory: Callable[[], object] | str,
        order: int = 0,
    ) -> None:
        """
        @param provides: An interface of L{mpush_tw.interfaces}.
        @param name: What operators write into C{mp.spi}: lower-case words and digits
            with hyphens between them.
        @param factory: Makes one product for each node; takes no arguments, opens
            nothing. As a dotted name it is imported when a node is made, so that the
            module with the plug-in need not import what it takes to work.
        @param order: The lowest wins; built-in ones have 1.
        @raise ValueError: If C{provides} is no interface, or the name cannot be used.
        """
        if not isinstance(provides, InterfaceClass):
            raise ValueError(f"{provides!r} is not an interface")
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} is not a name: expected lower-case words and digits with "
                "hyphens between them"
            )
        self.provides = provides
        self.name = name
        self._factory = factory
        self.order = order

    def factory(self) -> object:
        """
        Make a product.
        """
        factory = self._factory
        if isinstance(factory, str):
            factory = namedAny(factory)
        return factory()

    @property
    def where(self) -> str:
        factory = self._factory
        if isinstance(factory, str):
            return factory
        module = getattr(factory, "__module__", None) or type(factory).__module__
        name = getattr(factory, "__qualname__", None) or type(factory).__qualname__
        return f"{module}.{name}"

    def __repr__(self) -> str:
        return (
            f"<Extension {self.name} of {self.provides.__name__} by {self.where}, "
            f"order {self.order}>"
        )


def built_in(provides: Any, name: str, factory: Callable[[], object]) -> Extension:
    """
    Describe what comes with mpush_tw.
    """
    return Extension(provides, name, factory, BUILT_IN_ORDER)


# --------------------------------------------------------------------- points


@attrs.frozen
class Point:
    """
    Something that a plug-in can take the place of (server 19.2, 19.3).

    @ivar name: In C{mp.spi}: the original's factory in our spelling.
    @ivar built_in: The names of what comes with mpush_tw.
    @ivar aliases: Other names that are understood there.
    @ivar bounded: Whether the core waits for its Deferreds however long they take, so
        that somebody else has to bound them.
    """

    name: str
    interface: Any
    built_in: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    bounded: bool = False

    @property
    def key(self) -> str:
        """
        The dotted key that chooses.
        """
        return f"mp.spi.{self.name}"


EVENT_LISTENER: Final = Point(
    "server-event-listener", interfaces.IServerEventListener, ("none",)
)
BIND_VALIDATOR: Final = Point(
    "bind-validator", interfaces.IBindValidator, ("accept-all",)
)
CLIENT_CLASSIFIER: Final = Point(
    "client-classifier", interfaces.IClientClassifier, ("os-name",)
)
PUSH_HANDLER: Final = Point("push-handler", interfaces.IUpstreamHandler, ("drop",))
EXECUTOR: Final = Point(
    "executor", interfaces.IExecutor, ("threads",), ("thread-pool-factory",)
)
CACHE: Final = Point(
    "cache-manager", interfaces.ICache, ("memory", "redis"), ("cache",), bounded=True
)
MESSAGE_QUEUE: Final = Point(
    "mq-client", interfaces.IMessageQueue, ("memory", "redis"), bounded=True
)
REGISTRY: Final = Point(
    "service-registry",
    interfaces.IServiceRegistry,
    ("memory", "zookeeper"),
    ("registry",),
    bounded=True,
)
DISCOVERY: Final = Point(
    "service-discovery",
    interfaces.IServiceDiscovery,
    ("memory", "zookeeper"),
    ("discovery",),
    bounded=True,
)
PUSH_LISTENER: Final = Point("push-listener", interfaces.IPushListener, ("gateway",))
CIPHER: Final = Point("rsa-cipher", interfaces.IHandshakeCipher, ("rsa",))
JSON: Final = Point("json", interfaces.IJsonCodec, ("msgspec",))
DNS_MAPPING: Final = Point(
    "dns-mapping", interfaces.IDnsMapping, ("configured",), ("dns-mapping-manager",)
)

POINTS: Final[tuple[Point, ...]] = (
    EVENT_LISTENER,
    BIND_VALIDATOR,
    CLIENT_CLASSIFIER,
    PUSH_HANDLER,
    EXECUTOR,
    CACHE,
    MESSAGE_QUEUE,
    REGISTRY,
    DISCOVERY,
    PUSH_LISTENER,
    CIPHER,
    JSON,
    DNS_MAPPING,
)

_CANONICAL: Final = {
    name: point.name for point in POINTS for name in (point.name, *point.aliases)
}


def canonical_name(written: str) -> str | None:
    """
    Find the point that a key below C{mp.spi} means; C{None} when there is none.
    """
    return _CANONICAL.get(written)


# -------------------------------------------------------------------- finding


@attrs.frozen
class BrokenModule:
    """
    A plug-in module that cannot be imported.

    @ivar name: Its dotted name.
    @ivar error: Kind and text of what happened.
    """

    name: str
    error: str

    def __str__(self) -> str:
        return f"{self.name} ({self.error})"


def find_extensions(
    package: ModuleType | None = None,
) -> tuple[list[Extension], list[BrokenModule]]:
    """
    Ask Twisted for all that is installed.

    @param package: Where plug-ins are; C{twisted.plugins} by default.
    @return: The extensions, and the modules that cannot be imported.
    """
    failed: list[LogEvent] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        # Twisted's plug-in system logs the old way.
        if event.get("isError"):
            failed.append(event)

    globalLogPublisher.addObserver(observe)
    try:
        found = [
            plugin
            for plugin in getPlugins(IExtension, package)
            if isinstance(plugin, Extension)
        ]
    finally:
        globalLogPublisher.removeObserver(observe)
    return found, list(_broken(package)) if failed else []


def _broken(package: ModuleType | None) -> Iterator[BrokenModule]:
    """
    Twisted logs that a module failed, but not which. Find out: import those that are
    not imported.
    """
    if package is None:
        package = importlib.import_module("twisted.plugins")
    for module in getModule(package.__name__).iterModules():
        if module.name in sys.modules:
            continue
        try:
            importlib.import_module(module.name)
        except (Exception, SystemExit) as error:
            yield BrokenModule(module.name, said(error))


# ------------------------------------------------------------------- choosing


@attrs.frozen
class Chosen:
    """
    What serves at a point.

    @ivar product: What the extension has made for this node.
    @ivar built_in: Whether it comes with mpush_tw.
    """

    point: Point
    extension: Extension
    product: Any
    built_in: bool


class Extensions:
    """
    The extensions of one node or sender: those that there are, and those that serve.

    @ivar chosen: Those that serve, in the order they were chosen.
    @ivar notices: What the operator should read about the choice, a sentence each.
    @ivar broken: Plug-in modules that cannot be imported.
    """

    def __init__(
        self,
        settings: Settings,
        clock: IReactorTime,
        installed: Sequence[Extension] = (),
        broken: Sequence[BrokenModule] = (),
    ) -> None:
        self._clock = clock
        self._running: list[Any] = []
        self._installed = tuple(installed)
        self._names = {
            name: wanted
            for written, wanted in settings.spi.items()
            if (name := canonical_name(written)) is not None
        }
        self.broken = tuple(broken)
        self.chosen: list[Chosen] = []
        self.notices: list[str] = [
            f"the plug-in module {module.name} cannot be imported and is left out "
            f"({module.error})"
            for module in self.broken
        ]
        known = {point.interface for point in POINTS}
        self.notices += [
            f"the plug-in {one.name} ({one.where}) provides {one.provides.__name__}, "
            "which no plug-in can, and is left out"
            for one in self._installed
            if one.provides not in known
        ]

    @classmethod
    def find(
        cls, settings: Settings, clock: IReactorTime, more: Sequence[Extension] = ()
    ) -> Extensions:
        """
        Take what is installed, and what a program brings along itself.
        """
        installed, broken = find_extensions()
        return cls(settings, clock, [*installed, *more], broken)

    def choose(
        self, point: Point, *built_in: Extension, also: Extension | None = None
    ) -> Any:
        """
        Have one serve at a point.

        @param built_in: What comes with mpush_tw.
        @param also: Counts as installed, if no other of that name is.
        @return: What it has made: provides the point's interface.
        @raise ConfigError: If nobody provides what the settings name, two are of that
            name, or what is chosen cannot be made or used.
        """
        installed = self._of(point)
        if also is not None and also.name not in {one.name for one in installed}:
            installed.append(also)
        candidates = [*installed, *built_in]
        extension = self._named(point, candidates)
        if not candidates:
            raise ConfigError(
                point.key, "found nothing, expected a plug-in: nothing is built in"
            )
        if extension is None:
            extension = self._first(point, candidates)
        return self._make(point, extension, extension in built_in)

    def choose_all(self, point: Point, *built_in: Extension) -> list[Any]:
        """
        Have all serve that are installed, or the one that the settings name.

        @param built_in: What the settings may name beside those.
        @raise ConfigError: As L{choose}.
        """
        installed = sorted(self._of(point), key=_rank)
        extension = self._named(point, [*installed, *built_in])
        serving = installed if extension is None else [extension]
        return [self._make(point, one, one in built_in) for one in serving]

    def wanted(self, point: Point) -> str | None:
        """
        Give the name of what the settings want at a point, if they name one.
        """
        return self._names.get(point.name)

    def missing(self) -> Iterator[ConfigError]:
        """
        Find the names in the settings that nobody has, without making anything.
        """
        for point in POINTS:
            wanted = self.wanted(point)
            candidates = self._of(point)
            if point is DISCOVERY:
                # A registry may be one as well.
                candidates += self._of(REGISTRY)
            names = {*point.built_in, *(one.name for one in candidates)}
            if wanted is not None and wanted not in names:
                yield self._nobody(point, wanted, candidates)

    def _of(self, point: Point) -> list[Extension]:
        return [one for one in self._installed if one.provides is point.interface]

    def _named(self, point: Point, candidates: list[Extension]) -> Extension | None:
        wanted = self.wanted(point)
        if wanted is None:
            return None
        found = [one for one in candidates if one.name == wanted]
        if len(found) == 1:
            return found[0]
        if found:
            raise ConfigError(
                point.key,
                f"found {wanted}, which several plug-ins are called: "
                + ", ".join(one.where for one in found),
            )
        raise self._nobody(point, wanted, candidates)

    def _nobody(
        self, point: Point, wanted: str, candidates: Sequence[Extension]
    ) -> ConfigError:
        """
        Say that nobody is called as the settings want.
        """
        there = {one.name: f" ({one.where})" for one in candidates}
        there.update((name, "") for name in point.built_in if name not in there)
        names = [f"{name}{where}" for name, where in sorted(there.items())]
        problem = (
            f"found {wanted}, which no plug-in is called, expected one of those that "
            f"there are: {', '.join(names)}"
        )
        if self.broken:
            problem += ". These plug-in modules cannot be imported: " + ", ".join(
                map(str, self.broken)
            )
        return ConfigError(point.key, problem)

    def _first(self, point: Point, candidates: list[Extension]) -> Extension:
        first, *others = sorted(candidates, key=_rank)
        equal = [one for one in others if one.order == first.order]
        if any(one.name == first.name for one in equal):
            raise ConfigError(
                point.key,
                f"found nothing, expected a choice: there are several plug-ins "
                f"{first.name} of order {first.order}, by "
                + ", ".join(one.where for one in (first, *equal)),
            )
        if equal:
            self.notices.append(
                f"{point.name}: {first.name} is used, the first by name of several "
                f"with order {first.order} (others: "
                f"{', '.join(one.name for one in equal)}); {point.key} chooses another"
            )
        return first

    def _make(self, point: Point, extension: Extension, built_in: bool) -> Any:
        if built_in:
            product: Any = extension.factory()
        else:
            product = self._make_foreign(point, extension)
            self.notices.append(
                f"{point.name}: the plug-in {extension.name} serves ({extension.where})"
            )
        self.chosen.append(Chosen(point, extension, product, built_in))
        return product

    def _make_foreign(self, point: Point, extension: Extension) -> Any:
        name = f"the plug-in {extension.name} ({extension.where})"
        try:
            product = extension.factory()
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(
                point.key, f"{name} cannot be made: {said(error)}"
            ) from error
        try:
            verifyObject(point.interface, product)
        except Invalid as error:
            raise ConfigError(
                point.key,
                f"{name} does not provide {point.interface.__name__}: {_fault(error)}",
            ) from None
        product = _products.with_deferreds(point.interface, product)
        if point.bounded:
            product = _products.bounded(
                point.interface, product, extension.name, self._clock
            )
        return product

    # --------------------------------------------------------------- their life

    async def start(self, context_of: Callable[[Chosen], Any]) -> None:
        """
        Call C{init(context)} of those that have it, one after the other, in the order
        they were chosen. A product that serves at two points is called once.

        @param context_of: Makes the L{IExtensionContext
            <mpush_tw.interfaces.IExtensionContext>} of one.
        @raise ConfigError: If one fails, or takes too long.
        """
        for one in self.chosen:
            product = _products.original(one.product)
            if one.built_in or any(product is other for other in self._running):
                continue
            init = getattr(product, "init", None)
            if init is not None:
                await self._begin(one, init, context_of(one))
            self._running.append(product)

    async def _begin(
        self, one: Chosen, init: Callable[[Any], Any], context: Any
    ) -> None:
        try:
            await _products.begin(init, context, self._clock)
        except (ConfigError, CancelledError):
            raise
        except Exception as error:
            context.log.failure("init of this plug-in failed")
            raise ConfigError(
                one.point.key,
                f"the plug-in {one.extension.name} ({one.extension.where}) cannot "
                f"start: {said(error)}",
            ) from error

    async def stop(self) -> None:
        """
        Call C{destroy()} of those that have it and whose C{init} succeeded, the last
        first. Idempotent.
        """
        while self._running:
            destroy = getattr(self._running.pop(), "destroy", None)
            if destroy is not None:
                await _products.end(destroy, self._clock)


def _fault(error: Invalid) -> str:
    """
    Give what C{verifyObject} found, in one line, without the object's name.
    """
    text = " ".join(str(error).split())
    return re.sub(r"^The object .*? interface \S+: ", "", text)


def _rank(extension: Extension) -> tuple[int, str]:
    return extension.order, extension.name
