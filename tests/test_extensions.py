"""
Tests for L{mpush_tw.extensions}: who serves at which point (server 19.1).
"""

from __future__ import annotations

import importlib
import pickle
import sys
import types
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError, fail
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import Interface, implementer
from zope.interface.verify import verifyObject

from mpush_tw.config import Settings
from mpush_tw.errors import ConfigError, Unavailable
from mpush_tw.extensions import (
    BIND_VALIDATOR,
    CACHE,
    DISCOVERY,
    EVENT_LISTENER,
    POINTS,
    REGISTRY,
    BrokenModule,
    Extension,
    Extensions,
    canonical_name,
    find_extensions,
)
from mpush_tw.integrations.memory import MemoryCache, MemoryRegistry
from mpush_tw.interfaces import (
    Event,
    IBindValidator,
    ICache,
    IExtension,
    IPeerConnection,
    IServerEventListener,
    IServiceDiscovery,
    IServiceRegistry,
    ServiceNode,
)


@implementer(IBindValidator)
class Says:
    """
    A validator that a test recognizes.
    """

    answer = True

    def validate(self, user_id: str, data: str | None) -> bool:
        return self.answer


class SaysNo(Says):
    answer = False


@implementer(IServerEventListener)
class Hears:
    def event_occurred(self, event: Event) -> None:
        return None


class Declares:
    """
    Something with the method, that does not say what it is.
    """

    def validate(self, user_id: str, data: str | None) -> bool:
        return True


@implementer(IBindValidator)
class Lacks:
    """
    Something that says what it is, without the method.
    """


@implementer(IBindValidator)
class OtherArguments:
    def validate(self, user_id: str) -> bool:
        return True


def cannot() -> object:
    raise OSError("no\nsuch  key")


def validator(name: str, order: int = 0, factory: Any = Says) -> Extension:
    return Extension(IBindValidator, name, factory, order)


BUILT_IN = validator("accept-all", 1, Says)


class ExtensionTests(SynchronousTestCase):
    """
    One plug-in.
    """

    def test_interfaces(self) -> None:
        """
        It is what Twisted looks for, and what a node looks for.
        """
        extension = validator("tokens")
        verifyObject(IPlugin, extension)
        verifyObject(IExtension, extension)

    def test_a_product_each_time(self) -> None:
        """
        Each node gets one of its own.
        """
        extension = validator("tokens")
        self.assertIsNot(extension.factory(), extension.factory())

    def test_dotted_name(self) -> None:
        """
        A factory may be named instead, and is imported when it is needed.
        """
        extension = validator("tokens", factory="tests.test_extensions.SaysNo")
        self.assertIsInstance(extension.factory(), SaysNo)
        self.assertEqual(extension.where, "tests.test_extensions.SaysNo")

    def test_where(self) -> None:
        """
        An operator is told where a plug-in is from.
        """
        self.assertEqual(validator("a").where, "tests.test_extensions.Says")

    def test_names(self) -> None:
        """
        A name can be written into a configuration without quotes.
        """
        for name in ("", "A", "a b", "-a", "a-", "a--b", "a.b", "a\n"):
            self.assertRaises(ValueError, validator, name)
        validator("jwt-2")

    def test_no_interface(self) -> None:
        """
        What is no interface is a mistake that shows at once.
        """
        self.assertRaises(ValueError, Extension, Says, "tokens", Says)


class PointTests(SynchronousTestCase):
    """
    The table of points.
    """

    def test_names(self) -> None:
        """
        Points go by the names of the original's factories, in our spelling.
        """
        self.assertEqual(
            [point.name for point in POINTS],
            [
                "server-event-listener",
                "bind-validator",
                "client-classifier",
                "push-handler",
                "executor",
                "cache-manager",
                "mq-client",
                "service-registry",
                "service-discovery",
                "push-listener",
                "rsa-cipher",
                "json",
                "dns-mapping",
            ],
        )

    def test_aliases(self) -> None:
        """
        Short names, and the two of the manual, mean the same.
        """
        for written, meant in (
            ("cache", "cache-manager"),
            ("registry", "service-registry"),
            ("discovery", "service-discovery"),
            ("thread-pool-factory", "executor"),
            ("dns-mapping-manager", "dns-mapping"),
            ("json", "json"),
            ("jsn", None),
        ):
            self.assertEqual(canonical_name(written), meant)

    def test_one_point_an_interface(self) -> None:
        """
        An interface says what a plug-in is for.
        """
        self.assertEqual(len({point.interface for point in POINTS}), len(POINTS))


class ChoiceTestCase(SynchronousTestCase):
    """
    What the settings and the orders choose.
    """

    def extensions(self, *installed: Extension, **spi: str) -> Extensions:
        names = {name.replace("_", "-"): value for name, value in spi.items()}
        return Extensions(Settings(spi=names), Clock(), installed)

    def choice(self, *installed: Extension, **spi: str) -> str:
        """
        The name of the validator that serves.
        """
        extensions = self.extensions(*installed, **spi)
        product = extensions.choose(BIND_VALIDATOR, BUILT_IN)
        self.assertTrue(IBindValidator.providedBy(product))
        (chosen,) = extensions.chosen
        self.assertIs(chosen.product, product)
        return chosen.extension.name

    def refusal(self, *installed: Extension, **spi: str) -> str:
        """
        Why no validator can serve.
        """
        extensions = self.extensions(*installed, **spi)
        error = self.assertRaises(
            ConfigError, extensions.choose, BIND_VALIDATOR, BUILT_IN
        )
        assert isinstance(error, ConfigError)
        self.assertEqual(error.key, "mp.spi.bind-validator")
        self.assertNotIn("\n", str(error))
        return str(error)


class ChoiceTests(ChoiceTestCase):
    def test_nothing_installed(self) -> None:
        """
        What is built in serves, and there is nothing to say about it.
        """
        extensions = self.extensions()
        extensions.choose(BIND_VALIDATOR, BUILT_IN)
        self.assertEqual(extensions.notices, [])

    def test_installed(self) -> None:
        """
        An installed one takes its place, and the operator is told.
        """
        extensions = self.extensions(validator("tokens"))
        extensions.choose(BIND_VALIDATOR, BUILT_IN)
        self.assertEqual(
            extensions.notices,
            ["bind-validator: the plug-in tokens serves (tests.test_extensions.Says)"],
        )

    def test_order(self) -> None:
        """
        The lowest order wins.
        """
        self.assertEqual(
            self.choice(validator("a", 0), validator("b", -1), validator("c", 3)), "b"
        )
        self.assertEqual(self.choice(validator("c", 3)), "accept-all")

    def test_equal_order(self) -> None:
        """
        Of equal ones the first by name wins, which a notice says, and how to change it.
        """
        extensions = self.extensions(validator("b"), validator("a"), validator("c"))
        extensions.choose(BIND_VALIDATOR, BUILT_IN)
        self.assertEqual(extensions.chosen[0].extension.name, "a")
        notice = extensions.notices[0]
        self.assertIn("others: b, c", notice)
        self.assertIn("mp.spi.bind-validator", notice)

    def test_equal_to_the_built_in_one(self) -> None:
        """
        Order 1 is that of the built-in ones.
        """
        self.assertEqual(self.choice(validator("b", 1)), "accept-all")
        self.assertEqual(self.choice(validator("aa", 1)), "aa")

    def test_named(self) -> None:
        """
        The settings win over all orders.
        """
        installed = validator("a", -5), validator("b", 7)
        self.assertEqual(self.choice(*installed, bind_validator="b"), "b")
        self.assertEqual(
            self.choice(*installed, bind_validator="accept-all"), "accept-all"
        )

    def test_other_points(self) -> None:
        """
        A name at one point, and a plug-in for one interface, is none for another.
        """
        listener = Extension(IServerEventListener, "a", Hears, -1)
        self.assertEqual(self.choice(listener, push_handler="x"), "accept-all")

    def test_names_nobody_has(self) -> None:
        """
        A name that nobody has stops the start with a list of those that there are.
        """
        text = self.refusal(validator("tokens"), bind_validator="token")
        self.assertIn("found token, which no plug-in is called", text)
        self.assertIn("tokens (tests.test_extensions.Says)", text)
        self.assertIn("accept-all", text)

    def test_broken_module(self) -> None:
        """
        If a module could not be imported it may be the one that is asked for: the
        sentence says why.
        """
        broken = BrokenModule("twisted.plugins.tokens", "ImportError: no jwt")
        extensions = Extensions(
            Settings(spi={"bind-validator": "tokens"}), Clock(), (), [broken]
        )
        error = self.assertRaises(
            ConfigError, extensions.choose, BIND_VALIDATOR, BUILT_IN
        )
        self.assertIn("twisted.plugins.tokens (ImportError: no jwt)", str(error))

    def test_broken_module_that_nobody_needs(self) -> None:
        """
        Otherwise it is left out, which is said.
        """
        broken = BrokenModule("twisted.plugins.tokens", "ImportError: no jwt")
        extensions = Extensions(Settings(), Clock(), (), [broken])
        extensions.choose(BIND_VALIDATOR, BUILT_IN)
        (notice,) = extensions.notices
        self.assertIn("twisted.plugins.tokens cannot be imported", notice)
        self.assertIn("(ImportError: no jwt)", notice)

    def test_missing(self) -> None:
        """
        All names that nobody has can be listed before anything is made.
        """
        registry = Extension(IServiceRegistry, "consul", cannot)
        extensions = self.extensions(
            validator("tokens", factory=cannot),
            registry,
            bind_validator="tokens",
            cache="redis",
            discovery="consul",
            push_handler="inbox",
            json="fast",
        )
        self.assertEqual(
            [error.key for error in extensions.missing()],
            ["mp.spi.push-handler", "mp.spi.json"],
        )
        self.assertEqual(extensions.chosen, [])

    def test_twice_by_name(self) -> None:
        """
        Two of one name cannot be told apart.
        """
        text = self.refusal(
            validator("a", 0), validator("a", 2, SaysNo), bind_validator="a"
        )
        self.assertIn("tests.test_extensions.Says, tests.test_extensions.SaysNo", text)

    def test_twice_by_order(self) -> None:
        """
        Nor can they if name and order are equal.
        """
        text = self.refusal(validator("a"), validator("a", 0, SaysNo))
        self.assertIn("tests.test_extensions.Says, tests.test_extensions.SaysNo", text)

    def test_provides_what_no_plug_in_can(self) -> None:
        """
        A plug-in for something that is no extension point is left out, which is said.
        """

        class IOther(Interface):
            pass

        for interface in (IOther, IPeerConnection):
            extensions = self.extensions(Extension(interface, "a", Says))
            (notice,) = extensions.notices
            self.assertIn(interface.__name__, notice)

    def test_all(self) -> None:
        """
        Of event listeners all hear, in the order of their orders and names.
        """
        listeners = [
            Extension(IServerEventListener, name, Hears, order)
            for name, order in (("b", 0), ("a", 0), ("c", -1))
        ]
        extensions = self.extensions(*listeners)
        self.assertEqual(len(extensions.choose_all(EVENT_LISTENER)), 3)
        self.assertEqual(
            [one.extension.name for one in extensions.chosen], ["c", "a", "b"]
        )

    def test_all_but_named(self) -> None:
        """
        Unless the settings name one.
        """
        listeners = [Extension(IServerEventListener, name, Hears) for name in "ab"]
        none = Extension(IServerEventListener, "none", Hears, 1)
        for name in ("b", "none"):
            extensions = self.extensions(*listeners, server_event_listener=name)
            self.assertEqual(len(extensions.choose_all(EVENT_LISTENER, none)), 1)
            self.assertEqual(extensions.chosen[0].extension.name, name)
        extensions = self.extensions(*listeners, server_event_listener="c")
        self.assertRaises(ConfigError, extensions.choose_all, EVENT_LISTENER, none)

    def test_also(self) -> None:
        """
        What another product provides as well counts as installed, unless there is one
        of that name.
        """
        both = Extension(IServiceDiscovery, "b", MemoryRegistry)
        own = Extension(IServiceDiscovery, "b", MemoryRegistry, -1)
        built_in = Extension(IServiceDiscovery, "memory", MemoryRegistry, 1)
        extensions = self.extensions(own)
        extensions.choose(DISCOVERY, built_in, also=both)
        self.assertIs(extensions.chosen[0].extension, own)
        extensions = self.extensions()
        extensions.choose(DISCOVERY, built_in, also=both)
        self.assertIs(extensions.chosen[0].extension, both)


class ProductTests(ChoiceTestCase):
    """
    What plug-ins make.
    """

    def test_does_not_declare(self) -> None:
        """
        A product that does not say that it provides the interface stops the start.
        """
        text = self.refusal(validator("a", factory=Declares))
        self.assertIn("the plug-in a (tests.test_extensions.Declares)", text)
        self.assertIn("does not provide IBindValidator", text)

    def test_lacks(self) -> None:
        """
        So does one that lacks a method; the sentence names it.
        """
        self.assertIn("validate", self.refusal(validator("a", factory=Lacks)))

    def test_other_arguments(self) -> None:
        """
        So does one whose method takes other arguments.
        """
        text = self.refusal(validator("a", factory=OtherArguments))
        self.assertIn("validate", text)
        self.assertIn("enough arguments", text)

    def test_cannot_be_made(self) -> None:
        """
        So does one that cannot be made; the sentence says what happened.
        """
        text = self.refusal(validator("a", factory=cannot))
        self.assertIn("cannot be made: OSError: no such key", text)

    def test_cannot_be_imported(self) -> None:
        """
        So does one whose code is not there.
        """
        text = self.refusal(validator("a", factory="nowhere.at.all"))
        self.assertIn("cannot be made", text)
        self.assertIn("nowhere", text)

    def test_own_sentence(self) -> None:
        """
        A plug-in that knows which key is at fault says so itself.
        """

        def refuses() -> object:
            raise ConfigError("mp.spi-settings.a.url", "found nothing")

        extensions = self.extensions(validator("a", factory=refuses))
        error = self.assertRaises(
            ConfigError, extensions.choose, BIND_VALIDATOR, BUILT_IN
        )
        assert isinstance(error, ConfigError)
        self.assertEqual(error.key, "mp.spi-settings.a.url")

    def test_async_def(self) -> None:
        """
        Methods may be written as C{async def}.
        """

        @implementer(IBindValidator)
        class Thinks:
            async def validate(self, user_id: str, data: str | None) -> bool:
                return user_id == "u"

        extensions = self.extensions(validator("a", factory=Thinks))
        product = extensions.choose(BIND_VALIDATOR, BUILT_IN)
        self.assertIs(self.successResultOf(product.validate("u", None)), True)
        self.assertIs(self.successResultOf(product.validate("x", None)), False)

    def test_untouched(self) -> None:
        """
        Others are used as they are.
        """
        extensions = self.extensions(validator("a", factory=Says))
        self.assertIsInstance(extensions.choose(BIND_VALIDATOR, BUILT_IN), Says)


class SlowCache(MemoryCache):
    """
    A store that a test can break.
    """

    def __init__(self) -> None:
        super().__init__(Clock())
        self.answer: Any = None

    def get(self, key: str) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def start(self) -> Any:
        return self.get("")


class StoreTests(SynchronousTestCase):
    """
    Stores that plug-ins provide: the core waits for them as long as they take.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.store = SlowCache()
        extension = Extension(ICache, "disk", lambda: self.store)
        extensions = Extensions(Settings(), self.clock, [extension])
        built_in = Extension(ICache, "memory", lambda: MemoryCache(self.clock), 1)
        self.cache = extensions.choose(CACHE, built_in)

    def test_interface(self) -> None:
        """
        What the core gets is a store.
        """
        verifyObject(ICache, self.cache)

    def test_works(self) -> None:
        """
        It does what the plug-in's does.
        """
        self.successResultOf(self.cache.set("k", "v"))
        self.assertIs(self.cache.get("k"), None)
        self.store.answer = "text"
        self.assertEqual(self.cache.get("k"), "text")

    def test_does_not_answer(self) -> None:
        """
        One that does not answer is unavailable after ten seconds.
        """
        self.store.answer = Deferred()
        asked = self.cache.get("k")
        self.clock.advance(9)
        self.assertNoResult(asked)
        self.clock.advance(2)
        failure = self.failureResultOf(asked, Unavailable)
        self.assertIn("the plug-in disk", str(failure.value))

    def test_starts_slowly(self) -> None:
        """
        It has a minute to start.
        """
        self.store.answer = Deferred()
        started = self.cache.start()
        self.clock.advance(59)
        self.assertNoResult(started)
        self.clock.advance(2)
        self.failureResultOf(started, Unavailable)

    def test_fails_in_its_own_way(self) -> None:
        """
        A failure of a kind that the core does not know is one that it knows, and is
        logged, whether it is raised or not.
        """
        for answer in (ZeroDivisionError("x"), fail(ZeroDivisionError("x"))):
            self.store.answer = answer
            failure = self.failureResultOf(self.cache.get("k"), Unavailable)
            self.assertIn("ZeroDivisionError: x", str(failure.value))
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_unavailable(self) -> None:
        """
        One that says itself that it is unavailable is taken at its word.
        """
        self.store.answer = fail(Unavailable("the disk is full", 7.0))
        failure = self.failureResultOf(self.cache.get("k"), Unavailable)
        self.assertEqual(str(failure.value), "the disk is full")

    def test_listener(self) -> None:
        """
        What answers no Deferred is passed on.
        """
        self.cache.on_restored(lambda: None)


class Context:
    """
    A context with nothing in it.
    """

    log = Logger()


class LifeTests(TestCase):
    """
    C{init} and C{destroy}.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.calls: list[str] = []

    def extensions(self, *products: object) -> Extensions:
        """
        Make extensions of which all serve.
        """
        installed = [
            Extension(
                IServerEventListener, f"e{number}", lambda product=product: product
            )
            for number, product in enumerate(products)
        ]
        extensions = Extensions(Settings(), self.clock, installed)
        extensions.choose_all(EVENT_LISTENER)
        return extensions

    def product(self, name: str, init: Any = None, destroy: Any = None) -> object:
        """
        Make a product whose life a test follows.
        """

        class Product(Hears):
            def init(self, context: object) -> object:
                calls.append(f"init {name}")
                return init() if init else None

            def destroy(self) -> object:
                calls.append(f"destroy {name}")
                return destroy() if destroy else None

        calls = self.calls
        return Product()

    def start(self, extensions: Extensions) -> Deferred[None]:
        return Deferred.fromCoroutine(extensions.start(lambda chosen: Context()))

    def stop(self, extensions: Extensions) -> Deferred[None]:
        return Deferred.fromCoroutine(extensions.stop())

    def test_order(self) -> None:
        """
        They are begun in order, one after the other, and ended in reverse.
        """
        ready: Deferred[None] = Deferred()
        extensions = self.extensions(
            self.product("a", lambda: ready), Hears(), self.product("b")
        )
        started = self.start(extensions)
        self.assertEqual(self.calls, ["init a"])
        ready.callback(None)
        self.successResultOf(started)
        self.successResultOf(self.stop(extensions))
        self.successResultOf(self.stop(extensions))
        self.assertEqual(self.calls, ["init a", "init b", "destroy b", "destroy a"])

    def test_context(self) -> None:
        """
        Each gets a context of its own, made for what it serves as.
        """
        got: list[object] = []

        class Product(Hears):
            def init(self, context: object) -> None:
                got.append(context)

        extensions = self.extensions(Product(), Product())
        starting = Deferred.fromCoroutine(extensions.start(lambda chosen: chosen))
        self.successResultOf(starting)
        self.assertEqual(got, extensions.chosen)

    def test_coroutine(self) -> None:
        """
        Both may be C{async def}.
        """

        async def work() -> None:
            self.calls.append("done")

        extensions = self.extensions(self.product("a", work, work))
        self.successResultOf(self.start(extensions))
        self.successResultOf(self.stop(extensions))
        self.assertEqual(self.calls, ["init a", "done", "destroy a", "done"])

    def test_init_fails(self) -> None:
        """
        One that cannot begin stops the start with a sentence; those before it are
        ended, itself is not.
        """
        extensions = self.extensions(
            self.product("a"), self.product("b", lambda: 1 / 0), self.product("c")
        )
        failure = self.failureResultOf(self.start(extensions), ConfigError)
        self.assertIn("the plug-in e1", str(failure.value))
        self.assertIn("cannot start: ZeroDivisionError", str(failure.value))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.successResultOf(self.stop(extensions))
        self.assertEqual(self.calls, ["init a", "init b", "destroy a"])

    def test_init_hangs(self) -> None:
        """
        Nobody waits for one for ever.
        """
        extensions = self.extensions(self.product("a", Deferred))
        started = self.start(extensions)
        self.clock.advance(29)
        self.assertNoResult(started)
        self.clock.advance(2)
        failure = self.failureResultOf(started, ConfigError)
        self.assertIn("TimeoutError", str(failure.value))
        self.flushLoggedErrors(TimeoutError)

    def test_init_refuses(self) -> None:
        """
        One that finds fault with its settings says so in its own words.
        """

        def refuse() -> None:
            raise ConfigError("mp.spi-settings.a", "found nothing, expected a url")

        failure = self.failureResultOf(
            self.start(self.extensions(self.product("a", refuse))), ConfigError
        )
        self.assertEqual(
            str(failure.value),
            "mp.spi-settings.a: found nothing, expected a url",
        )

    def test_destroy_fails(self) -> None:
        """
        A failure at the end is logged and keeps nobody from ending.
        """
        extensions = self.extensions(
            self.product("a"), self.product("b", None, lambda: 1 / 0)
        )
        self.successResultOf(self.start(extensions))
        self.successResultOf(self.stop(extensions))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.calls[2:], ["destroy b", "destroy a"])

    def test_destroy_hangs(self) -> None:
        """
        It has five seconds.
        """
        extensions = self.extensions(self.product("a", None, Deferred))
        self.successResultOf(self.start(extensions))
        stopped = self.stop(extensions)
        self.clock.advance(4)
        self.assertNoResult(stopped)
        self.clock.advance(2)
        self.successResultOf(stopped)
        self.assertEqual(len(self.flushLoggedErrors(TimeoutError)), 1)

    def test_serves_twice(self) -> None:
        """
        One product that serves at two points is begun and ended once.
        """
        calls = self.calls

        @implementer(IServiceRegistry, IServiceDiscovery)
        class Both(MemoryRegistry):
            def init(self, context: object) -> None:
                calls.append("init")

            def destroy(self) -> None:
                calls.append("destroy")

            def register(self, node: ServiceNode) -> Deferred[None]:
                return super().register(node)

        registry = Extension(IServiceRegistry, "both", Both)
        extensions = Extensions(Settings(), self.clock, [registry])
        product = extensions.choose(REGISTRY)
        extensions.choose(
            DISCOVERY, also=Extension(IServiceDiscovery, "both", lambda: product)
        )
        self.successResultOf(self.start(extensions))
        self.successResultOf(self.stop(extensions))
        self.assertEqual(calls, ["init", "destroy"])


PLUGIN = """
from mpush_tw.extensions import Extension
from mpush_tw.interfaces import IBindValidator
{name} = Extension(IBindValidator, "{name}", "tests.test_extensions.Says", {order})
"""


class FindTests(SynchronousTestCase):
    """
    What Twisted finds, here in a directory of the test's own.
    """

    def setUp(self) -> None:
        parent = Path(self.mktemp()).absolute()
        self.directory = parent / "plugins_of_a_test"
        self.directory.mkdir(parents=True)
        (self.directory / "__init__.py").touch()
        self.patch(sys, "path", [str(parent), *sys.path])
        self.addCleanup(self.forget)
        self.package = importlib.import_module("plugins_of_a_test")

    def forget(self) -> None:
        for name in list(sys.modules):
            if name.partition(".")[0] == "plugins_of_a_test":
                del sys.modules[name]

    def write(self, module: str, text: str) -> None:
        (self.directory / f"{module}.py").write_text(text)

    def found(self) -> tuple[list[str], list[BrokenModule]]:
        extensions, broken = find_extensions(self.package)
        return sorted(extension.name for extension in extensions), broken

    def test_found(self) -> None:
        """
        Every module of the directory is looked at, and every plug-in in it.
        """
        self.write("one", PLUGIN.format(name="a", order=0))
        self.write(
            "two", PLUGIN.format(name="b", order=0) + PLUGIN.format(name="c", order=3)
        )
        self.assertEqual(self.found(), (["a", "b", "c"], []))

    def test_found_again(self) -> None:
        """
        The second node of a process, and the next process, find the same.
        """
        self.write("one", PLUGIN.format(name="a", order=0))
        self.found()
        cache = self.directory / "dropin.cache"
        self.assertIn("one", pickle.loads(cache.read_bytes()))
        self.assertEqual(self.found(), (["a"], []))

    def test_others(self) -> None:
        """
        What else is in such a directory is no concern of ours.
        """
        self.write("other", "from twisted.plugins.twisted_core import *\nx = 1\n")
        self.assertEqual(self.found(), ([], []))

    def test_broken(self) -> None:
        """
        A module that cannot be imported is told by its name and its error, and the
        others are found.
        """
        self.write("whole", PLUGIN.format(name="a", order=0))
        self.write("raises", "raise OSError('no\\n key')")
        self.write("misspelt", "def")
        self.write("leaves", "raise SystemExit(3)")
        names, broken = self.found()
        self.assertEqual(names, ["a"])
        said = sorted(map(str, broken))
        self.assertEqual(len(said), 3)
        self.assertEqual(said[0], "plugins_of_a_test.leaves (SystemExit: 3)")
        self.assertTrue(
            said[1].startswith("plugins_of_a_test.misspelt (SyntaxError: "), said
        )
        self.assertEqual(said[2], "plugins_of_a_test.raises (OSError: no key)")
        self.assertEqual(len(self.flushLoggedErrors()), 3)

    def test_broken_later(self) -> None:
        """
        So is one that could be imported when it was looked at for the first time.
        """
        self.write("one", "import absent_module\n" + PLUGIN.format(name="a", order=0))
        sys.modules["absent_module"] = types.ModuleType("absent_module")
        self.assertEqual(self.found(), (["a"], []))
        del sys.modules["absent_module"]
        del sys.modules["plugins_of_a_test.one"]
        names, broken = self.found()
        self.assertEqual(names, [])
        self.assertEqual([one.name for one in broken], ["plugins_of_a_test.one"])
        self.assertIn("absent_module", broken[0].error)
        self.flushLoggedErrors()

    def test_mistake(self) -> None:
        """
        A plug-in with a name that cannot be one breaks its module.
        """
        self.write("one", PLUGIN.format(name="a", order=0).replace('"a"', '"A b"'))
        names, broken = self.found()
        self.assertEqual(names, [])
        self.assertIn("ValueError: 'A b' is not a name", broken[0].error)
        self.flushLoggedErrors()

    def test_real_place(self) -> None:
        """
        Without a directory it is Twisted's own place that is looked at.
        """
        extensions, broken = find_extensions()
        self.assertIsInstance(extensions, list)
        self.assertEqual(broken, [])
