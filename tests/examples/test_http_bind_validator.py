"""
Tests for C{examples/plugins/http-bind-validator}, with a real HTTP backend and real
devices.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from mpush_tw.errors import ConfigError
from mpush_tw.extensions import Extension
from mpush_tw.interfaces import IBindValidator
from mpush_tw.protocol.commands import Command, Flag
from mpush_tw.protocol.messages import BindUser
from mpush_tw.protocol.packet import encode_packet
from mpush_tw.service import Node
from tests.examples.support import PluginTestCase
from tests.integration.devices import Device

# Behind the import that makes the examples known.
from mpush_http_bind.validator import Answers, expiry  # isort: skip

SECRET = b"the backend's own"
EXTENSION = Extension(
    IBindValidator, "http-bind", "mpush_http_bind.validator.HttpBindValidator"
)


def _part(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def signed(claims: Any, secret: bytes = SECRET) -> str:
    """
    Make a JWT with HS256.
    """
    head = _part(b'{"alg":"HS256","typ":"JWT"}')
    body = _part(json.dumps(claims).encode())
    signature = hmac.digest(secret, f"{head}.{body}".encode(), "sha256")
    return f"{head}.{body}.{_part(signature)}"


class Backend(Resource):
    """
    Says yes to tokens that it has signed for the user who is asked about.

    @ivar asked: The users that were asked about.
    @ivar behave: What to do instead, if anything.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.waiting: list[Any] = []
        self.behave: Any = None

    def render_POST(self, request: Any) -> Any:
        scheme, _, token = request.getHeader("authorization").partition(" ")
        assert scheme == "Bearer"
        user_id = json.load(request.content)["user_id"]
        self.asked.append(user_id)
        if self.behave is not None:
            return self.behave(request)
        head, body, signature = token.split(".")
        right = _part(hmac.digest(SECRET, f"{head}.{body}".encode(), hashlib.sha256))
        claims = json.loads(base64.urlsafe_b64decode(body + "=="))
        if signature != right:
            request.setResponseCode(401)
        elif claims.get("sub") != user_id:
            request.setResponseCode(403)
        return b"{}"

    def hang(self, request: Any) -> Any:
        """
        Answer later, or never.
        """
        self.waiting.append(request)
        return NOT_DONE_YET


class ValidatorTestCase(PluginTestCase):
    """
    A node that asks a backend.
    """

    def setUp(self) -> None:
        self.backend = Backend()
        self.port = reactor.listenTCP(0, Site(self.backend), interface="127.0.0.1")
        self.url = f"http://127.0.0.1:{self.port.getHost().port}/bind"
        self.addCleanup(self.shut)

    async def shut(self) -> None:
        """
        Take the backend away, with all its connections.
        """
        for request in self.backend.waiting:
            if getattr(request, "channel", None) is not None:
                request.transport.abortConnection()
        await maybeDeferred(self.port.stopListening)

    async def ask(self, **settings: object) -> Node:
        """
        Start a node that asks the backend.
        """
        self.node = await self.start(EXTENSION, url=self.url, **settings)
        return self.node

    async def bind(self, user_id: str, data: str | None) -> bool:
        """
        Have a new device ask to be a user's.
        """
        device = await self.device(self.node, f"d{time.monotonic_ns()}")
        return await deferToThread(self.try_to_bind, device, user_id, data)

    def try_to_bind(self, device: Device, user_id: str, data: str | None) -> bool:
        assert device.cipher is not None
        body = device.cipher.encrypt(BindUser(user_id, data=data).encode())
        device.send(encode_packet(Command.BIND, 2, int(Flag.CRYPTO), body))
        packet = device.packet(12)
        assert packet is not None
        return packet[0] == Command.OK

    def answers(self) -> dict[str, int]:
        return self.counts(self.node, "http_bind")


class AnswerTests(ValidatorTestCase):
    """
    Who may be bound.
    """

    async def test_allowed(self) -> None:
        """
        A device with a token for a user becomes that user's.
        """
        await self.ask()
        self.assertTrue(await self.bind("alice", signed({"sub": "alice"})))
        self.assertEqual(self.backend.asked, ["alice"])
        self.assertEqual(self.answers(), {"allowed": 1})

    async def test_somebody_else(self) -> None:
        """
        With a token for another user it does not.
        """
        await self.ask()
        self.assertFalse(await self.bind("bob", signed({"sub": "alice"})))
        self.assertEqual(self.answers(), {"refused": 1})

    async def test_forged(self) -> None:
        """
        Nor with one that somebody else has signed.
        """
        await self.ask()
        self.assertFalse(await self.bind("alice", signed({"sub": "alice"}, b"other")))
        self.assertEqual(self.answers(), {"refused": 1})

    async def test_no_token(self) -> None:
        """
        What is no token is refused without asking.
        """
        await self.ask()
        for data in (None, "", "secret", "a.b", "a.b.c", "!.!.!", "x" * 9000):
            self.assertFalse(await self.bind("alice", data))
        self.assertEqual(self.backend.asked, [])
        self.assertEqual(self.answers(), {"malformed": 7})

    async def test_expired(self) -> None:
        """
        So is a token that says that it has expired.
        """
        await self.ask()
        token = signed({"sub": "alice", "exp": time.time() - 1})
        self.assertFalse(await self.bind("alice", token))
        self.assertEqual(self.backend.asked, [])
        self.assertEqual(self.answers(), {"expired": 1})


class MemoryTests(ValidatorTestCase):
    """
    What is remembered.
    """

    async def test_yes(self) -> None:
        """
        A device that comes back soon is not asked about again.
        """
        await self.ask()
        token = signed({"sub": "alice"})
        for _ in range(3):
            self.assertTrue(await self.bind("alice", token))
        self.assertEqual(self.backend.asked, ["alice"])
        self.assertEqual(self.answers(), {"allowed": 1, "remembered": 2})

    async def test_no(self) -> None:
        """
        Nor is one that tries again and again.
        """
        await self.ask()
        token = signed({"sub": "alice"}, b"other")
        for _ in range(3):
            self.assertFalse(await self.bind("alice", token))
        self.assertEqual(self.backend.asked, ["alice"])

    async def test_for_that_user_only(self) -> None:
        """
        The answer for one user is none for another.
        """
        await self.ask()
        token = signed({"sub": "alice"})
        self.assertTrue(await self.bind("alice", token))
        self.assertFalse(await self.bind("bob", token))
        self.assertEqual(self.backend.asked, ["alice", "bob"])

    async def test_not_for_ever(self) -> None:
        """
        After a while it is asked again.
        """
        await self.ask(allowed_ttl="50ms")
        token = signed({"sub": "alice"})
        self.assertTrue(await self.bind("alice", token))
        await deferLater(reactor, 0.1)
        self.assertTrue(await self.bind("alice", token))
        self.assertEqual(self.backend.asked, ["alice"] * 2)

    async def test_no_answer_is_not_remembered(self) -> None:
        """
        A backend that is well again is asked at once.
        """
        await self.ask()
        token = signed({"sub": "alice"})
        self.backend.behave = lambda request: request.setResponseCode(503) or b""
        self.assertFalse(await self.bind("alice", token))
        self.backend.behave = None
        self.assertTrue(await self.bind("alice", token))

    async def test_asked_once(self) -> None:
        """
        Devices that come with the same token at the same time wait for one answer.
        """
        await self.ask()
        self.backend.behave = self.backend.hang
        token = signed({"sub": "alice"})
        waiting = [Deferred.fromCoroutine(self.bind("alice", token)) for _ in range(3)]
        await self.until(lambda: self.backend.waiting)
        await deferLater(reactor, 0.2)
        (request,) = self.backend.waiting
        request.finish()
        self.assertEqual(await gatherResults(waiting), [True] * 3)


class OutageTests(ValidatorTestCase):
    """
    Backends that are not well: nobody is bound.
    """

    async def test_errors(self) -> None:
        """
        What is neither yes nor no is no.
        """
        await self.ask()
        token = signed({"sub": "alice"})
        for code in (302, 400, 429, 500, 503):
            self.backend.behave = lambda r, c=code: r.setResponseCode(c) or b""
            self.assertFalse(await self.bind("alice", token))
        self.assertEqual(self.answers(), {"failed": 5})

    async def test_away(self) -> None:
        """
        A backend that is away is told in the log, and is a no.
        """
        await self.ask()
        self.node.log.set_level("warn")
        await self.port.stopListening()
        with capturedLogs() as lines:
            self.assertFalse(await self.bind("alice", signed({"sub": "alice"})))
        texts = [str(line.get("log_format")) for line in lines]
        self.assertTrue(any("nobody answered" in text for text in texts), texts)

    async def test_hangs(self) -> None:
        """
        One that does not answer in time is a no in time.
        """
        await self.ask(timeout="200ms")
        self.backend.behave = self.backend.hang
        before = time.monotonic()
        self.assertFalse(await self.bind("alice", signed({"sub": "alice"})))
        self.assertLess(time.monotonic() - before, 5)
        self.assertEqual(self.answers(), {"timeout": 1})

    async def test_body_hangs(self) -> None:
        """
        So is one that does not come to an end; its connection is closed.
        """
        await self.ask(timeout="300ms")
        ended: list[object] = []

        def drip(request: Any) -> Any:
            request.notifyFinish().addBoth(ended.append)
            request.write(b"x")
            return NOT_DONE_YET

        self.backend.behave = drip
        self.assertFalse(await self.bind("alice", signed({"sub": "alice"})))
        await self.until(lambda: ended)

    async def test_endless_body(self) -> None:
        """
        An answer whose body is too long counts; its connection is not used again.
        """
        await self.ask()
        self.backend.behave = lambda request: b"x" * 1_000_000
        self.assertTrue(await self.bind("alice", signed({"sub": "alice"})))

    async def test_closed_connection(self) -> None:
        """
        A connection that the backend closes just when it is used again costs nobody the
        answer.
        """
        await self.ask()
        self.assertTrue(await self.bind("alice", signed({"sub": "alice"})))

        def close(request: Any) -> Any:
            self.backend.behave = None
            request.transport.abortConnection()
            return NOT_DONE_YET

        self.backend.behave = close
        self.assertTrue(await self.bind("bob", signed({"sub": "bob"})))
        self.assertEqual(self.backend.asked, ["alice", "bob", "bob"])

    async def test_busy(self) -> None:
        """
        Only so many questions are asked at a time, and only so many wait.
        """
        await self.ask(concurrency=2, waiting=1, timeout="2s")
        self.backend.behave = self.backend.hang
        users = ["a", "b", "c", "d"]
        devices = [await self.device(self.node, f"d-{user}") for user in users]
        waiting = [
            deferToThread(self.try_to_bind, device, user, signed({"sub": user}))
            for device, user in zip(devices, users, strict=True)
        ]
        await self.until(lambda: self.answers().get("busy"))
        await self.until(lambda: len(self.backend.waiting) == 2)
        for _ in range(2):
            for request in list(self.backend.waiting):
                self.backend.waiting.remove(request)
                request.finish()
            await deferLater(reactor, 0.1)
        self.assertEqual(
            sorted(await gatherResults(waiting)), [False, True, True, True]
        )
        self.assertEqual(self.answers(), {"busy": 1, "allowed": 3})

    async def test_stop(self) -> None:
        """
        A node that is stopped leaves no connection to the backend.
        """
        node = await self.ask()
        self.assertTrue(await self.bind("alice", signed({"sub": "alice"})))
        await node.stopService()
        readers = [str(reader) for reader in reactor.getReaders()]
        self.assertFalse([text for text in readers if "HTTP11Client" in text])


class SettingsTests(PluginTestCase):
    """
    What the operator may write.
    """

    async def refusal(self, **settings: object) -> str:
        launcher = self.launcher(EXTENSION, **settings)
        return str(await self.assertFailure(launcher.start(), ConfigError))

    async def test_no_url(self) -> None:
        """
        Without a place to ask the node does not start.
        """
        self.assertIn(
            "mp.spi-settings.http-bind.url: found , expected a URL",
            await self.refusal(),
        )

    async def test_wrong_url(self) -> None:
        """
        Nor with one that is none.
        """
        for url in ("localhost:80", "ftp://a/b", "http://"):
            self.assertIn("http-bind.url", await self.refusal(url=url))

    async def test_wrong_duration(self) -> None:
        """
        Nor with a time that is none.
        """
        self.assertIn(
            "mp.spi-settings.http-bind.timeout: found soon",
            await self.refusal(url="http://a", timeout="soon"),
        )

    async def test_wrong_number(self) -> None:
        """
        Nor with room for no question at all.
        """
        self.assertIn("concurrency", await self.refusal(url="http://a", concurrency=0))


class ExpiryTests(SynchronousTestCase):
    """
    What a token says of itself.
    """

    def test_time(self) -> None:
        """
        A number is a time.
        """
        self.assertEqual(expiry(signed({"exp": 17})), 17)
        self.assertEqual(expiry(signed({"exp": 17.5})), 17.5)

    def test_none(self) -> None:
        """
        Without one it does not expire.
        """
        self.assertEqual(expiry(signed({})), float("inf"))

    def test_large(self) -> None:
        """
        Nor does one that is valid beyond all numbers.
        """
        self.assertEqual(expiry(signed({"exp": 10**400})), float("inf"))

    def test_nonsense(self) -> None:
        """
        What cannot be read is no token.
        """
        for claims in ({"exp": "17"}, {"exp": True}, {"exp": None}, [], 1, "x"):
            self.assertIsNone(expiry(signed(claims)), claims)
        deep = _part(b"[" * 5000)
        for text in (f"a.{deep}.c", "a.\u20ac.c", "a..c", ".."):
            self.assertIsNone(expiry(text), text)


class AnswersTests(SynchronousTestCase):
    """
    The memory itself.
    """

    def test_until(self) -> None:
        """
        An answer holds until its time.
        """
        answers = Answers(10)
        answers.add(b"k", True, 5.0)
        self.assertIs(answers.find(b"k", 4.9), True)
        self.assertIsNone(answers.find(b"k", 5.0))
        self.assertIsNone(answers.find(b"k", 1.0))

    def test_bounded(self) -> None:
        """
        The oldest is forgotten when there are too many.
        """
        answers = Answers(2)
        for key in (b"a", b"b", b"c"):
            answers.add(key, False, 5.0)
        found = [answers.find(key, 0.0) for key in (b"a", b"b", b"c")]
        self.assertEqual(found, [None, False, False])
