"""
What every provider of an extension point has to do: a contract for each, run against
what is built in and against an independent one that shares no code with it (server
19.2, 19.3).

Stores and registries have theirs in L{tests.integrations}, where they are run against
real servers as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cryptography.fernet import Fernet, InvalidToken

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mpush_tw.client_types import DefaultClassifier
from mpush_tw.core.defaults import (
    AcceptEveryBind,
    DropUpstream,
    IgnoreEvents,
    MsgspecJson,
)
from mpush_tw.core.executor import POOLS, PoolSize, ThreadExecutor
from mpush_tw.core.push.request import Outcome, PushRequest
from mpush_tw.errors import ProtocolError, Unavailable
from mpush_tw.integrations.http.dns_mapping import DnsMapping
from mpush_tw.integrations.memory import MemoryRegistry
from mpush_tw.interfaces import (
    ConnectionClosed,
    ConnectionOpened,
    DnsTarget,
    Event,
    IBindValidator,
    IClientClassifier,
    IDnsMapping,
    IExecutor,
    IHandshakeCipher,
    IJsonCodec,
    IPushListener,
    IServerEventListener,
    IUpstreamHandler,
    PoolStatistics,
    RouteChanged,
    ServerStarted,
    ServerStopping,
    UpstreamMessage,
    UserKicked,
    UserOffline,
    UserOnline,
)
from mpush_tw.protocol.crypto import RsaPrivateKey
from mpush_tw.protocol.gateway import TimePoints
from mpush_tw.transports.gateway import GatewayListener
from tests.core.fakes import Core

if TYPE_CHECKING:
    _Base = TestCase
else:
    # Only what derives from a contract and from a test case is run.
    _Base = object

EVENTS: tuple[Event, ...] = (
    ServerStarted(),
    ConnectionOpened("conn", "00000001"),
    RouteChanged("u", 1, "00000000", "d0", True),
    UserKicked("u", "d0", "00000000", False),
    UserOnline("u", "00000001", "d", 1),
    UserOffline("u", "00000001", "d", 1, False),
    ConnectionClosed("conn", "00000001", "d", "u"),
    ServerStopping(),
)
"""
One of each, as a node posts them.
"""


# ------------------------------------------------------------- event listeners


class EventListenerContract(_Base):
    """
    What an L{IServerEventListener} has to do.
    """

    listener: IServerEventListener

    def test_interface(self) -> None:
        """It is one."""
        verifyObject(IServerEventListener, self.listener)

    def test_every_kind(self) -> None:
        """It stands every event, more than once, and gives nothing or a Deferred."""
        for event in EVENTS * 2:
            waiting = self.listener.event_occurred(event)
            if waiting is not None:
                assert isinstance(waiting, Deferred)
                self.successResultOf(waiting)


class IgnoreEventsTests(EventListenerContract, SynchronousTestCase):
    listener = IgnoreEvents()


@implementer(IServerEventListener)
class Counting:
    """Takes its time, in theory."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def event_occurred(self, event: Event) -> Deferred[None]:
        self.heard.append(type(event).__name__)
        return succeed(None)


class CountingTests(EventListenerContract, SynchronousTestCase):
    def setUp(self) -> None:
        self.listener = Counting()


# ---------------------------------------------------------------- validators


class ValidatorContract(_Base):
    """
    What an L{IBindValidator} has to do. Say whom it lets in and whom it does not.
    """

    validator: IBindValidator
    welcome: tuple[tuple[str, str | None], ...]
    unwelcome: tuple[tuple[str, str | None], ...] = ()

    def verdict(self, user_id: str, data: str | None) -> object:
        return self.successResultOf(
            maybeDeferred(self.validator.validate, user_id, data)
        )

    def test_interface(self) -> None:
        """It is one."""
        verifyObject(IBindValidator, self.validator)

    def test_welcome(self) -> None:
        """Yes is True and nothing else."""
        for user_id, data in self.welcome:
            self.assertIs(self.verdict(user_id, data), True)

    def test_unwelcome(self) -> None:
        """No is False, also for texts that nobody expects."""
        for user_id, data in self.unwelcome:
            self.assertIs(self.verdict(user_id, data), False)

    def test_any_text(self) -> None:
        """Whatever a stranger sends, there is an answer."""
        for data in (None, "", "\0", "x" * 100_000, "\ud800", "\u202e"):
            self.assertIsInstance(self.verdict("u", data), bool)


class AcceptEveryBindTests(ValidatorContract, SynchronousTestCase):
    validator = AcceptEveryBind()
    welcome = (("u", None), ("u", "token"))


@implementer(IBindValidator)
class PasswordFile:
    """Thinks of passwords, and about them."""

    _known: Mapping[str, str] = {"alice": "wonder"}

    def validate(self, user_id: str, data: str | None) -> Deferred[bool]:
        return succeed(data is not None and self._known.get(user_id) == data)


class PasswordFileTests(ValidatorContract, SynchronousTestCase):
    validator = PasswordFile()
    welcome = (("alice", "wonder"),)
    unwelcome = (("alice", None), ("alice", "x"), ("bob", "wonder"))


# --------------------------------------------------------------- classifiers


class ClassifierContract(_Base):
    """
    What an L{IClientClassifier} has to do.
    """

    classifier: IClientClassifier

    def test_interface(self) -> None:
        """It is one."""
        verifyObject(IClientClassifier, self.classifier)

    def test_types(self) -> None:
        """Every name, and none, has a type that fits into a route, always the same."""
        names = (
            None,
            "",
            "android",
            "ANDROID 13",
            "ios",
            "web",
            "linux",
            "\u4f60",
            "-",
        )
        for name in names:
            kind = self.classifier.client_type(name)
            self.assertIsInstance(kind, int)
            self.assertTrue(-128 <= kind <= 127 and kind != 0, name)
            self.assertEqual(self.classifier.client_type(name), kind)


class DefaultClassifierTests(ClassifierContract, SynchronousTestCase):
    classifier = DefaultClassifier()


@implementer(IClientClassifier)
class ByLength:
    """Nobody would do this."""

    def client_type(self, os_name: str | None) -> int:
        return -min(len(os_name or "") + 1, 100)


class ByLengthTests(ClassifierContract, SynchronousTestCase):
    classifier = ByLength()


# ------------------------------------------------------------ upstream handlers


class UpstreamContract(_Base):
    """
    What an L{IUpstreamHandler} has to do.
    """

    handler: IUpstreamHandler

    def test_interface(self) -> None:
        """It is one."""
        verifyObject(IUpstreamHandler, self.handler)

    def test_messages(self) -> None:
        """It takes what devices send, before and after BIND, empty and large."""
        for user_id in (None, "u"):
            for content in (b"", b"x", bytes(100_000)):
                for flags in (0, 4, 8, 12):
                    message = UpstreamMessage(
                        "c", "d", user_id, None, None, None, -7, content, flags
                    )
                    waiting = self.handler.message_received(message)
                    if waiting is not None:
                        assert isinstance(waiting, Deferred)
                        self.successResultOf(waiting)


class DropUpstreamTests(UpstreamContract, SynchronousTestCase):
    handler = DropUpstream()


@implementer(IUpstreamHandler)
class Inbox:
    """Keeps the last."""

    last: UpstreamMessage | None = None

    def message_received(self, message: UpstreamMessage) -> Deferred[None]:
        self.last = message
        return succeed(None)


class InboxTests(UpstreamContract, SynchronousTestCase):
    handler = Inbox()


# --------------------------------------------------------------- push listeners


class PushListenerContract(_Base):
    """
    What an L{IPushListener} has to do.
    """

    listener: IPushListener

    def origin(self) -> object:
        """
        Make what this listener keeps with its own requests.
        """
        return None

    def test_interface(self) -> None:
        """It is one."""
        verifyObject(IPushListener, self.listener)

    def test_outcomes(self) -> None:
        """It stands every outcome, of pushes to users and of broadcasts."""
        for outcome in Outcome:
            for user_id in (None, "u"):
                request = PushRequest(
                    *(user_id, 1, 3000, None, None, None, None, 0),
                    self.listener,
                    self.origin(),
                )
                points = [("push-center-begin", 1), (outcome.milestone, 2)]
                self.listener.push_finished(request, outcome, points)


class Peer:
    """A sender that is gone already."""

    peer = "127.0.0.1:1"
    answer_limit = 10_000

    def answer(self, cmd: int, data: bytes) -> bool:
        return False


class GatewayListenerTests(PushListenerContract, SynchronousTestCase):
    def setUp(self) -> None:
        self.listener = GatewayListener(Core().log)

    def origin(self) -> object:
        return Peer(), 7


@implementer(IPushListener)
class Ledger:
    """Sums up."""

    def __init__(self) -> None:
        self.sums: dict[str, int] = {}

    def push_finished(
        self, request: PushRequest, outcome: Outcome, points: TimePoints
    ) -> None:
        self.sums[outcome.value] = self.sums.get(outcome.value, 0) + 1


class LedgerTests(PushListenerContract, SynchronousTestCase):
    def setUp(self) -> None:
        self.listener = Ledger()


# ------------------------------------------------------------------- executors


class ExecutorContract(_Base):
    """
    What an L{IExecutor} has to do.
    """

    executor: IExecutor

    def make_executor(self) -> IExecutor:
        raise NotImplementedError

    def setUp(self) -> None:
        self.executor = self.make_executor()
        self.addCleanup(self.executor.stop)

    def test_interface(self) -> None:
        """It is one."""
        verifyObject(IExecutor, self.executor)

    async def test_result(self) -> None:
        """The result comes, whichever pool was named."""
        for pool in POOLS:
            self.assertEqual(
                await self.executor.run_blocking(pool, divmod, 7, 2), (3, 1)
            )

    async def test_exception(self) -> None:
        """So does an exception."""
        with self.assertRaises(ZeroDivisionError):
            await self.executor.run_blocking("mq", divmod, 7, 0)

    def test_unknown_pool(self) -> None:
        """A pool that there is not is refused at once."""
        self.assertRaises(ValueError, self.executor.run_blocking, "none", int)

    async def test_statistics(self) -> None:
        """Every pool is counted."""
        await self.executor.run_blocking("mq", int)
        statistics = self.executor.statistics()
        self.assertEqual(set(statistics), set(POOLS))
        self.assertEqual(statistics["mq"].done, 1)
        self.assertEqual(statistics["event-bus"].done, 0)

    async def test_stopped(self) -> None:
        """When it was stopped, as often as that may be, it takes nothing more."""
        await self.executor.stop()
        await self.executor.stop()
        with self.assertRaises(Unavailable):
            await self.executor.run_blocking("mq", int)


class ThreadExecutorTests(ExecutorContract, TestCase):
    def make_executor(self) -> IExecutor:
        size = PoolSize(0, 2, 10)
        return ThreadExecutor(reactor, size, size)


@implementer(IExecutor)
class AtOnce:
    """Blocks, which a test may."""

    def __init__(self) -> None:
        self._done = dict.fromkeys(POOLS, 0)
        self._stopped = False

    def run_blocking(
        self, pool: str, function: Callable[..., Any], *args: object
    ) -> Deferred[Any]:
        if pool not in self._done:
            raise ValueError(pool)
        if self._stopped:
            return fail(Unavailable("stopped"))
        self._done[pool] += 1
        try:
            return succeed(function(*args))
        except Exception:
            return fail(Failure())

    def statistics(self) -> Mapping[str, PoolStatistics]:
        return {
            pool: PoolStatistics(0, 0, 0, done, 0) for pool, done in self._done.items()
        }

    def stop(self) -> Deferred[None]:
        self._stopped = True
        return succeed(None)


class AtOnceTests(ExecutorContract, TestCase):
    def make_executor(self) -> IExecutor:
        return AtOnce()


# --------------------------------------------------------------------- ciphers


class CipherContract(_Base):
    """
    What an L{IHandshakeCipher} has to do.
    """

    cipher: IHandshakeCipher

    def test_methods(self) -> None:
        """It has what the doors call."""
        verifyObject(IHandshakeCipher, self.cipher, tentative=True)

    def test_round_trip(self) -> None:
        """It opens what it has sealed; a handshake has up to a few hundred bytes."""
        for plain in (b"x", bytes(range(100)), b"y" * 300):
            self.assertEqual(self.cipher.decrypt(self.cipher.encrypt(plain)), plain)

    def test_refusals_are_alike(self) -> None:
        """Whatever cannot be opened is refused in the same words (DESIGN 5.6)."""
        sealed = self.cipher.encrypt(b"hello")
        texts = set()
        for wrong in (b"", b"x", sealed[:-1]):
            error = self.assertRaises(ProtocolError, self.cipher.decrypt, wrong)
            texts.add(str(error))
        self.assertEqual(len(texts), 1)

    def test_forged(self) -> None:
        """What was not sealed for it is refused, or opened to nonsense."""
        sealed = self.cipher.encrypt(b"hello")
        try:
            opened = self.cipher.decrypt(b"0" * len(sealed))
        except ProtocolError:
            opened = b""
        self.assertNotIn(b"hello", opened)


class RsaTests(CipherContract, SynchronousTestCase):
    cipher = RsaPrivateKey.generate(1024)


@implementer(IHandshakeCipher)
class Sealed:
    """Another kind of cipher altogether."""

    def __init__(self) -> None:
        self._fernet = Fernet(Fernet.generate_key())

    def encrypt(self, plain: bytes) -> bytes:
        return self._fernet.encrypt(plain)

    def decrypt(self, sealed: bytes) -> bytes:
        try:
            return self._fernet.decrypt(sealed)
        except InvalidToken:
            raise ProtocolError("the body cannot be decrypted") from None


class SealedTests(CipherContract, SynchronousTestCase):
    cipher = Sealed()


# ------------------------------------------------------------------------ JSON


class JsonContract(_Base):
    """
    What an L{IJsonCodec} has to do.
    """

    codec: IJsonCodec

    def test_interface(self) -> None:
        """It is one."""
        verifyObject(IJsonCodec, self.codec)

    def test_written(self) -> None:
        """Compact UTF-8, members in their order."""
        value = {"b": [1, -2, 1.5, True, None], "a": {"\u4f60": 'q"\\'}}
        self.assertEqual(
            self.codec.encode(value),
            '{"b":[1,-2,1.5,true,null],"a":{"\u4f60":"q\\"\\\\"}}'.encode(),
        )

    def test_round_trip(self) -> None:
        """What was written is read back."""
        for value in ({}, [], "", 0, None, {"a": [{"b": "\U0001f600"}]}, 2**31 - 1):
            self.assertEqual(self.codec.decode(self.codec.encode(value)), value)

    def test_refused(self) -> None:
        """What is no JSON is a ValueError, however strange."""
        for text in (b"", b"{", b"[1,]", b"\xff", b"{'a':1}", b"[" * 100_000):
            self.assertRaises(ValueError, self.codec.decode, text)


class MsgspecJsonTests(JsonContract, SynchronousTestCase):
    codec = MsgspecJson()


@implementer(IJsonCodec)
class StandardJson:
    """The standard library's."""

    def encode(self, value: object) -> bytes:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()

    def decode(self, text: bytes) -> object:
        try:
            return json.loads(text)
        except RecursionError:
            raise ValueError("too deep") from None


class StandardJsonTests(JsonContract, SynchronousTestCase):
    codec = StandardJson()


# ----------------------------------------------------------------- DNS mappings


class DnsMappingContract(_Base):
    """
    What an L{IDnsMapping} has to do; make one that maps C{one} to a single target and
    C{two} to two.
    """

    mapping: IDnsMapping
    one = DnsTarget("10.0.0.1", 8080)
    two = (DnsTarget("10.0.0.2", 80), DnsTarget("10.0.0.3", 81))

    def test_interface(self) -> None:
        """It is one."""
        verifyObject(IDnsMapping, self.mapping)

    def test_one(self) -> None:
        """A name with one target always gets it."""
        self.assertEqual({self.mapping.lookup("one") for _ in range(20)}, {self.one})

    def test_two(self) -> None:
        """Of two both are used."""
        self.assertEqual(
            {self.mapping.lookup("two") for _ in range(200)}, set(self.two)
        )

    def test_none(self) -> None:
        """A name that is not mapped gets none."""
        for name in ("", "three", "10.0.0.1", "\u4f60"):
            self.assertIsNone(self.mapping.lookup(name))


class BuiltInDnsMappingTests(DnsMappingContract, SynchronousTestCase):
    def setUp(self) -> None:
        self.mapping = DnsMapping(
            {"one": ["10.0.0.1:8080"], "two": ["10.0.0.2", "10.0.0.3:81"]},
            MemoryRegistry(),
            Clock(),
        )


@implementer(IDnsMapping)
class InTurn:
    """One after the other."""

    def __init__(self, targets: Mapping[str, tuple[DnsTarget, ...]]) -> None:
        self._targets = dict(targets)

    def lookup(self, host: str) -> DnsTarget | None:
        if host not in self._targets:
            return None
        first, *others = self._targets[host]
        self._targets[host] = (*others, first)
        return first


class InTurnTests(DnsMappingContract, SynchronousTestCase):
    def setUp(self) -> None:
        self.mapping = InTurn({"one": (self.one,), "two": self.two})
