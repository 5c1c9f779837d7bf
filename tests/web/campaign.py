"""
Requests of many kinds, mixed, from many devices at a time; and what must come of each.
"""

from __future__ import annotations

import gzip
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import attrs

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from mpush_tw.protocol.messages import HttpRequest, HttpResponse
from tests.web.devices import WebDevice, web_device
from tests.web.servers import FILE, FILE_TAG

MAX_CONTENT_LENGTH = 262144
"""
What C{mp.http.max-content-length} has to be, so that too much is soon too much.
"""

Judge = Callable[[HttpResponse, bytes], bool]


@attrs.frozen
class Kind:
    """
    One kind of request.

    @ivar request: Makes it for a token.
    @ivar right: Whether an answer is right for that token.
    @ivar share: How often it is chosen, relative to the others.
    """

    name: str
    request: Callable[[bytes], HttpRequest]
    right: Judge
    share: int = 1


def _made_here(status: int, reason: str) -> Judge:
    return lambda answer, token: answer == HttpResponse(status, reason)


def _get(
    url: str, headers: dict[str, str] | None = None
) -> Callable[[bytes], HttpRequest]:
    def make(token: bytes) -> HttpRequest:
        mark = "&" if "?" in url else "?"
        return HttpRequest(0, f"http://{url}{mark}token={token.decode()}", headers)

    return make


def _send(method: int, url: str, headers: dict[str, str] | None = None) -> Any:
    def make(token: bytes) -> HttpRequest:
        uri = f"http://{url}?token={token.decode()}"
        return HttpRequest(method, uri, headers, b"body " + token)

    return make


def _said(method: bytes, status: int = 200, body: bool = False) -> Judge:
    def right(answer: HttpResponse, token: bytes) -> bool:
        sent = b"body " + token if body else b""
        said = b"%s %s %s" % (method, token, sent)
        return answer.status == status and answer.body == said

    return right


def _token_alone(answer: HttpResponse, token: bytes) -> bool:
    return answer.status == 200 and answer.body == token


def _unpacked(answer: HttpResponse, token: bytes) -> bool:
    headers = answer.headers or {}
    return (
        answer.status == 200
        and headers.get("Content-Encoding") == "gzip"
        and gzip.decompress(answer.body or b"") == b"GET " + token + b" "
    )


def _not_modified(answer: HttpResponse, token: bytes) -> bool:
    return (answer.status, answer.body) == (304, None)


def _file(answer: HttpResponse, token: bytes) -> bool:
    return (answer.status, answer.body) == (200, FILE)


def _status(status: int) -> Judge:
    return lambda answer, token: answer.status == status


def _empty(answer: HttpResponse, token: bytes) -> bool:
    headers = answer.headers or {}
    return answer.status == 204 and headers.get("X-Token") == token.decode()


_BAD_GATEWAY = _made_here(502, "Bad Gateway")
_TIMEOUT = _made_here(408, "Request Timeout")
_FORBIDDEN = _made_here(403, "Forbidden")
_UNREACHABLE = _made_here(504, "Gateway Timeout")

_SOON = {"readTimeout": "400"}

# Not among them: a second answer that comes when the next request is on its way.
# Nothing tells that from the next answer; what comes before is noticed.
KINDS = (
    Kind("get", _get("web.test/echo"), _said(b"GET"), 12),
    Kind("post", _send(1, "web.test/echo"), _said(b"POST", body=True), 6),
    Kind("put", _send(2, "web.test/echo"), _said(b"PUT", body=True), 2),
    Kind("delete", _send(3, "web.test/echo"), _said(b"DELETE", body=True), 2),
    Kind("file", _get("web.test/file"), _file, 4),
    Kind(
        "304",
        _get("web.test/file", {"If-None-Match": FILE_TAG}),
        _not_modified,
        4,
    ),
    Kind("chunked", _get("web.test/chunked"), _said(b"GET"), 4),
    Kind(
        "gzip",
        _get("web.test/packed/echo", {"Accept-Encoding": "gzip"}),
        _unpacked,
        4,
    ),
    Kind("empty", _get("web.test/empty"), _empty, 2),
    Kind("404", _get("web.test/missing"), _said(b"GET", 404), 2),
    Kind("too-large-for-nginx", _send(1, "web.test/limited/echo"), _status(413), 2),
    Kind("behind-closes", _get("web.test/failing"), _status(502), 2),
    Kind("slow", _get("web.test/slow?seconds=0.3"), _said(b"GET"), 2),
    Kind("too-slow", _get("web.test/slow?seconds=3", _SOON), _TIMEOUT, 2),
    Kind("oversize", _get(f"web.test/big?size={MAX_CONTENT_LENGTH + 1}"), _BAD_GATEWAY),
    Kind("endless", _get("raw.test/endless"), _BAD_GATEWAY),
    Kind("refusing", _get("down.test/"), _UNREACHABLE, 2),
    Kind("redirect", _get("web.test/moved"), _said(b"GET"), 4),
    Kind("307", _send(1, "web.test/again/307"), _said(b"POST", body=True), 2),
    Kind("303", _send(1, "web.test/again/303"), _said(b"GET"), 2),
    Kind("away", _get("web.test/away"), _status(302), 1),
    Kind("plain", _get("raw.test/plain"), _token_alone, 8),
    Kind("twice", _get("raw.test/twice"), _token_alone, 2),
    Kind("early-307", _send(1, "raw.test/early"), _token_alone, 2),
    Kind("100-continue", _send(1, "raw.test/interim"), _token_alone, 4),
    Kind("closing", _get("raw.test/closing"), _BAD_GATEWAY, 2),
    Kind("half", _get("raw.test/half"), _BAD_GATEWAY, 2),
    Kind("half-chunk", _get("raw.test/half-chunk"), _BAD_GATEWAY, 2),
    Kind("headless", _get("raw.test/headless", _SOON), _TIMEOUT, 2),
    Kind("garbage", _get("raw.test/garbage"), _status(999), 2),
    Kind("until-close", _get("raw.test/until-close"), _token_alone, 2),
    Kind("private", _get("127.0.0.1/"), _FORBIDDEN),
    Kind("disguised", _get("web.test@127.0.0.1/"), _FORBIDDEN),
    Kind("split", _get("web.test/", {"X": "a\rY: b"}), _BAD_GATEWAY),
)


@attrs.define
class Tally:
    """
    What became of the requests.

    @ivar asked: How many of each kind.
    @ivar wrong: Answers that were not right: kind, token and answer.
    @ivar unanswered: Requests that got none.
    @ivar twice: Answers that were one too many.
    @ivar foreign: Answers with another request's token in them.
    @ivar seconds: How long all of it took.
    """

    asked: Counter[str] = attrs.Factory(Counter)
    wrong: list[tuple[str, bytes, HttpResponse]] = attrs.Factory(list)
    unanswered: int = 0
    twice: int = 0
    foreign: int = 0
    strange: int = 0
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """
        Whether every request got its one right answer.
        """
        return not (
            self.wrong or self.unanswered or self.twice or self.foreign or self.strange
        )

    def __str__(self) -> str:
        total = sum(self.asked.values())
        lines = [
            f"{total} requests in {self.seconds:.1f} s: {len(self.wrong)} wrong, "
            f"{self.unanswered} unanswered, {self.twice} answered twice, "
            f"{self.foreign} with somebody else's answer, {self.strange} strange "
            "packets"
        ]
        lines += [
            f"  {kind} {token.decode()}: {tuple(answer)!r:.300}"
            for kind, token, answer in self.wrong[:20]
        ]
        return "\n".join(lines)


class Campaign:
    """
    One run.
    """

    def __init__(self, reactor: Any, port: int, seed: int) -> None:
        """
        @param port: The node's connect port.
        @param seed: Of the order in which the kinds come.
        """
        self._reactor = reactor
        self._port = port
        self._random = random.Random(seed)
        self.tally = Tally()
        self.devices: list[WebDevice] = []

    async def connect(self, count: int) -> None:
        """
        Connect devices.
        """
        for number in range(count):
            name = f"web-device-{number}"
            self.devices.append(await web_device(self._reactor, self._port, name))

    async def run(self, requests: int, window: int) -> Tally:
        """
        Ask, and judge.

        @param requests: In all; each kind comes at least once if there are enough.
        @param window: Requests that a device has under way.
        """
        kinds = list(KINDS)
        weights = [kind.share for kind in KINDS]
        kinds += self._random.choices(KINDS, weights, k=max(0, requests - len(KINDS)))
        self._random.shuffle(kinds)
        plan = iter(enumerate(kinds[:requests]))
        started = time.monotonic()
        await gatherResults(
            [
                Deferred.fromCoroutine(self._worker(device, plan))
                for device in self.devices
                for _ in range(window)
            ],
            consumeErrors=True,
        )
        self.tally.seconds = time.monotonic() - started
        # An answer too many may still be on its way.
        await deferLater(self._reactor, 0.2)
        self.tally.twice = sum(device.twice for device in self.devices)
        self.tally.strange = sum(len(device.strange) for device in self.devices)
        return self.tally

    async def _worker(self, device: WebDevice, plan: Any) -> None:
        for number, kind in plan:
            await self._one(device, b"t%06dt" % number, kind)

    async def _one(self, device: WebDevice, token: bytes, kind: Kind) -> None:
        tally = self.tally
        tally.asked[kind.name] += 1
        waiting = device.ask(kind.request(token))
        waiting.addTimeout(30, self._reactor)
        try:
            answer = await waiting
        except Exception:
            tally.unanswered += 1
            return
        body = answer.body or b""
        if b"FOREIGN" in body or (b"t0" in body and token not in body):
            tally.foreign += 1
        if not kind.right(answer, token):
            tally.wrong.append((kind.name, token, answer))

    def leave(self) -> None:
        """
        Have all devices go.
        """
        for device in self.devices:
            if not device.ended:
                device.leave()
