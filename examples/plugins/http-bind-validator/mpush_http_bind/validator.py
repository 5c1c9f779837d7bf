"""
The validator, and the question that it asks::

    POST {url}
    Authorization: Bearer {the JWT of the BIND}
    Content-Type: application/json

    {"user_id": "alice"}

2xx means yes, 401, 403 and 404 mean no. Everything else is no answer, and no answer is
a no: without the backend nobody is bound. The backend checks the signature; what is
done here before is to spare it texts that cannot be a JWT, and tokens that say
themselves that they have expired.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import attrs

from treq.client import HTTPClient
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredSemaphore,
    TimeoutError,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, ResponseNeverReceived
from zope.interface import implementer

from mpush_tw.config import units
from mpush_tw.errors import ConfigError
from mpush_tw.interfaces import IBindValidator, IExtensionContext

KEYS = "mp.spi-settings.http-bind"
"""
Below it the operator writes what this plug-in needs to know.
"""

MAX_TOKEN = 8192
"""
Longest token, in characters.
"""

_MAX_BODY = 64 << 10
_REFUSALS = frozenset((401, 403, 404))


class NoAnswer(Exception):
    """
    The backend answered neither yes nor no.
    """


@attrs.frozen
class Options:
    """
    What the operator may set.

    @ivar url: Where to ask, C{http} or C{https}.
    @ivar timeout: Seconds until an answer counts as no.
    @ivar allowed_ttl: Seconds that a yes is remembered, but not longer than the token
        is valid; 0 remembers nothing.
    @ivar refused_ttl: Seconds that a no is remembered.
    @ivar cache_size: Answers that are remembered.
    @ivar concurrency: Questions at a time.
    @ivar waiting: Questions that may wait for their turn.
    """

    url: str
    timeout: float
    allowed_ttl: float
    refused_ttl: float
    cache_size: int
    concurrency: int
    waiting: int

    @classmethod
    def read(cls, context: IExtensionContext) -> Options:
        """
        Read them.

        @raise ConfigError: If one cannot be used.
        """

        def value(
            name: str, default: str, read: Callable[[str], Any] = units.duration
        ) -> Any:
            written = str(context.setting(f"{KEYS}.{name}", default))
            try:
                return read(written)
            except ValueError as error:
                raise ConfigError(
                    f"{KEYS}.{name}", f"found {written}, {error}"
                ) from None

        def number(written: str) -> int:
            return units.integer(written, 1, 1_000_000)

        return cls(
            value("url", "", _url),
            value("timeout", "3s"),
            value("allowed-ttl", "5m"),
            value("refused-ttl", "10s"),
            value("cache-size", "10000", number),
            value("concurrency", "50", number),
            value("waiting", "1000", number),
        )


def _url(written: str) -> str:
    parts = urlsplit(written)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected a URL such as https://login.example.com/push/bind")
    return written


@implementer(IBindValidator)
class HttpBindValidator:
    """
    Asks the backend, and remembers its answers for a while.
    """

    def init(self, context: IExtensionContext) -> None:
        """
        Called by the node before it starts.

        @raise ConfigError: If the operator's settings cannot be used.
        """
        self._options = options = Options.read(context)
        self._clock = context.reactor
        self._log = context.log
        self._answers = Answers(options.cache_size)
        self._asking: dict[bytes, list[Deferred[bool]]] = {}
        self._turns = DeferredSemaphore(options.concurrency)
        self._pool = HTTPConnectionPool(context.reactor)
        self._pool.maxPersistentPerHost = options.concurrency
        agent = Agent(context.reactor, connectTimeout=options.timeout, pool=self._pool)
        self._http = HTTPClient(agent)
        self._unanswered = 0
        self._complained = 0.0
        self._count = context.metrics.counter(
            "http_bind", "Users that devices wanted to become, by answer.", ("answer",)
        )
        context.metrics.gauge(
            "http_bind_waiting",
            "Questions to the backend under way or waiting.",
            lambda: len(self._asking),
        )

    def destroy(self) -> Deferred[None]:
        """
        Called by the node when everything has stopped.
        """
        closing: Deferred[None] = self._pool.closeCachedConnections()
        return closing

    def validate(self, user_id: str, data: str | None) -> bool | Deferred[bool]:
        """
        Called by the node for each BIND.

        @param data: The JWT.
        """
        now = self._clock.seconds()
        expires = expiry(data)
        if data is None or expires is None:
            self._count("malformed")
            return False
        if expires <= now:
            self._count("expired")
            return False
        key = hashlib.sha256(f"{len(user_id)}:{user_id}{data}".encode()).digest()
        known = self._answers.find(key, now)
        if known is not None:
            self._count("remembered")
            return known
        return self._wait(key, user_id, data, expires)

    def _wait(
        self, key: bytes, user_id: str, token: str, expires: float
    ) -> bool | Deferred[bool]:
        """
        Wait for the answer to a question; one that is under way is not asked again.
        """
        waiter: Deferred[bool] = Deferred()
        if key in self._asking:
            self._asking[key].append(waiter)
            return waiter
        options = self._options
        if len(self._asking) >= options.concurrency + options.waiting:
            self._count("busy")
            return False
        waiters = self._asking[key] = [waiter]
        asking = Deferred.fromCoroutine(self._ask_in_turn(user_id, token))
        asking.addTimeout(options.timeout, self._clock)

        def answered(allowed: bool) -> bool:
            self._count("allowed" if allowed else "refused")
            now = self._clock.seconds()
            ttl = options.allowed_ttl if allowed else options.refused_ttl
            self._answers.add(key, allowed, min(now + ttl, expires))
            return allowed

        def failed(failure: Failure) -> bool:
            kind = "timeout" if failure.check(TimeoutError) else "failed"
            self._count(kind)
            self._complain(user_id, failure.getErrorMessage() or kind)
            return False

        def tell(allowed: bool) -> None:
            del self._asking[key]
            for one in waiters:
                # A device that has left waits no more.
                if not one.called:
                    one.callback(allowed)

        asking.addCallbacks(answered, failed).addCallback(tell)
        return waiter

    def _complain(self, user_id: str, error: str) -> None:
        """
        Log a question without an answer; one a second is enough.
        """
        self._unanswered += 1
        now = self._clock.seconds()
        if now - self._complained >= 1:
            self._log.error(
                "{count} times nobody answered whether a user may be bound, at last "
                "{user_id!r}: {error}",
                count=self._unanswered,
                user_id=user_id,
                error=error,
            )
            self._complained, self._unanswered = now, 0

    async def _ask_in_turn(self, user_id: str, token: str) -> bool:
        await self._turns.acquire()
        try:
            try:
                return await self._ask(user_id, token)
            except ResponseNeverReceived as error:
                if any(reason.check(CancelledError) for reason in error.reasons):
                    raise CancelledError() from None
                # The backend had closed a connection that was kept for later.
                return await self._ask(user_id, token)
        finally:
            self._turns.release()

    async def _ask(self, user_id: str, token: str) -> bool:
        headers: dict[bytes | str, bytes | str] = {"Authorization": f"Bearer {token}"}
        response = await self._http.post(
            self._options.url,
            json={"user_id": user_id},
            headers=headers,
            allow_redirects=False,
            unbuffered=True,
        )
        body = _Unread()
        response.deliverBody(body)
        await body.ended
        if 200 <= response.code < 300:
            return True
        if response.code in _REFUSALS:
            return False
        raise NoAnswer(f"the backend said {response.code}")


class Answers:
    """
    What was answered lately; the oldest are forgotten first.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._found: OrderedDict[bytes, tuple[bool, float]] = OrderedDict()

    def find(self, key: bytes, now: float) -> bool | None:
        """
        Look an answer up; C{None} if there is none that still holds.
        """
        allowed, until = self._found.get(key, (False, now))
        if until <= now:
            self._found.pop(key, None)
            return None
        return allowed

    def add(self, key: bytes, allowed: bool, until: float) -> None:
        """
        Remember an answer.

        @param until: Seconds, on the clock of L{find}.
        """
        self._found[key] = (allowed, until)
        if len(self._found) > self._size:
            self._found.popitem(last=False)


class _Unread(Protocol):
    """
    Takes a body in and forgets it, so that its connection can be used again. One that
    is too long, or that nobody waits for any more, is cut off.

    @ivar ended: Fires at its end, however it came.
    """

    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred(lambda _: self._cut_off())
        self._size = 0

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > _MAX_BODY:
            self._cut_off()

    def _cut_off(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.ended.called:
            self.ended.callback(None)


def expiry(token: str | None) -> float | None:
    """
    Read when a token says that it expires. The signature is not looked at.

    @return: Unix seconds, infinite if it does not say; C{None} if it is no JWT.
    """
    if token is None or len(token) > MAX_TOKEN or token.count(".") != 2:
        return None
    part = token.split(".")[1]
    try:
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None
    if not isinstance(claims, dict):
        return None
    expires = claims.get("exp", float("inf"))
    if isinstance(expires, bool) or not isinstance(expires, (int, float)):
        return None
    try:
        return float(expires)
    except OverflowError:
        return float("inf")
