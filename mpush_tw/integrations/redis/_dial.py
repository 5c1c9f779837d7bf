"""
Making a connection to Redis: to reach the server, to show the password, to see that it
answers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, NamedTuple, TypeVar

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import CancelledError, Deferred, FailureGroup, race
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.error import (
    ConnectingCancelledError,
    ConnectionRefusedError,
    TimeoutError,
)
from twisted.internet.interfaces import IAddress, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from mpush_tw.config.settings import RedisSettings
from mpush_tw.errors import Unavailable
from mpush_tw.integrations.redis._connection import (
    Address,
    Connection,
    Lost,
    Refused,
    explain,
)
from mpush_tw.integrations.redis._tls import ClientTls

CONNECT_TIMEOUT = 2.0
"""
Seconds to reach a server, the resolution of its name included (cluster 2.1).
"""


class PasswordTexts(NamedTuple):
    """
    How to speak of a password that is configured somewhere.

    @ivar missing: What to do when one is wanted and there is none.
    @ivar wrong: Which one was refused.
    @ivar needless: That there is one where none is wanted.
    """

    missing: str
    wrong: str
    needless: str


COMMON_PASSWORD = PasswordTexts(
    "set mp.redis.password",
    "the password of mp.redis.password",
    "mp.redis.password is set",
)
OWN_PASSWORD = PasswordTexts(
    "write it behind the port in mp.redis.nodes",
    "the password behind its port in mp.redis.nodes",
    "one is behind its port in mp.redis.nodes",
)

_AT_A_TIME = 3
_LONGEST_TEXT = 120

_T = TypeVar("_T")


class _OneConnection(Factory):
    noisy = False

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        return self._connection


class Dialler:
    """
    Makes connections to any server, with the same encryption.
    """

    def __init__(self, settings: RedisSettings, reactor: Any) -> None:
        """
        @param reactor: Provides C{IReactorTCP} and C{IReactorTime}.
        @raise ConfigError: If a file of C{mp.redis.tls} cannot be used.
        """
        self.reactor = reactor
        self._tls = ClientTls(settings.tls) if settings.tls.enabled else None

    async def connect(
        self,
        address: Address,
        password: str,
        what: str = "Redis",
        texts: PasswordTexts = COMMON_PASSWORD,
    ) -> Connection:
        """
        Make a connection on which PING was answered.

        @param password: Empty: none is sent.
        @param what: What is expected there, for sentences.
        @param texts: Where the password is configured, for sentences.
        @raise Unavailable: If that does not succeed, with a sentence that names the
            address and the reason. It takes L{CONNECT_TIMEOUT} and twice
            L{mpush_tw.integrations.redis._connection.READ_TIMEOUT} at most.
        """
        where = f"{what} at {address}"
        connection = Connection(address, self.reactor)
        attempt = self._endpoint(address).connect(_OneConnection(connection))
        attempt.addTimeout(CONNECT_TIMEOUT, self.reactor, _timed_out)
        try:
            await attempt
        except (CancelledError, ConnectingCancelledError):
            raise CancelledError from None
        except Exception as error:
            raise Unavailable(f"{where} cannot be reached: {_reason(error)}") from None
        try:
            if password:
                await _authenticate(connection, password, where, texts)
            await connection.send(("PING",))
        except Lost as error:
            raise Unavailable(f"{where} {_sentence(error)}") from None
        except Refused as error:
            # With a disk that is full Redis refuses PING, but not to be read.
            if error.code != "MISCONF":
                connection.abort("is not wanted")
                raise Unavailable(_refusal(error, where, texts)) from None
        except BaseException:
            connection.abort("is not wanted")
            raise
        return connection

    def _endpoint(self, address: Address) -> IStreamClientEndpoint:
        host, port = address
        endpoint: IStreamClientEndpoint
        if isIPAddress(host):
            endpoint = TCP4ClientEndpoint(self.reactor, host, port, CONNECT_TIMEOUT)
        elif isIPv6Address(host):
            endpoint = TCP6ClientEndpoint(self.reactor, host, port, CONNECT_TIMEOUT)
        else:
            endpoint = HostnameEndpoint(self.reactor, host, port, CONNECT_TIMEOUT)
        if self._tls is None:
            return endpoint
        return wrapClientTLS(self._tls.towards(host), endpoint)


async def _authenticate(
    connection: Connection, password: str, where: str, texts: PasswordTexts
) -> None:
    try:
        await connection.send(("AUTH", password))
    except Refused as error:
        connection.abort("is not wanted")
        # Redis 6 says the first, older ones the second.
        for no_password in ("without any password", "no password is set"):
            if no_password in error.text:
                raise Unavailable(
                    f"{where} has no password, but {texts.needless}"
                ) from None
        raise Unavailable(f"{where} refuses {texts.wrong}") from None


def _refusal(error: Refused, where: str, texts: PasswordTexts) -> str:
    if error.code == "NOAUTH":
        return f"{where} wants a password: {texts.missing}"
    return f"{where} answers PING with {error.text[:_LONGEST_TEXT]}"


def _timed_out(result: object, seconds: float) -> Failure:
    # Endpoints have an exception of their own for a cancelled attempt.
    return Failure(TimeoutError())


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no connection within {CONNECT_TIMEOUT:g} s"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return explain(error)


def _sentence(lost: Lost) -> str:
    text = str(lost)
    if text.startswith(("closed ", "did not ", "does not ", "sent ", "was ")):
        return text
    return f"was lost: {text}"


async def reach_any(
    addresses: Iterable[Address],
    reach: Callable[[Address], Coroutine[Any, Any, _T]],
) -> _T:
    """
    Try servers in random order, a few at a time, until one does what it should.

    @param reach: Called with an address; raises L{Unavailable}. It is cancelled when
        another was quicker.
    @raise Unavailable: If there is none, with the reasons of those tried last.
    """
    waiting = list(dict.fromkeys(addresses))
    random.shuffle(waiting)
    reasons = ["there is no address"]
    while waiting:
        tried, waiting = waiting[:_AT_A_TIME], waiting[_AT_A_TIME:]
        attempts = [Deferred.fromCoroutine(reach(address)) for address in tried]
        try:
            _, reached = await race(attempts)
        except FailureGroup as group:
            failures: list[Any] = [failure.value for failure in group.failures]
            for error in failures:
                if not isinstance(error, (Unavailable, CancelledError)):
                    raise error from None
            if any(isinstance(error, CancelledError) for error in failures):
                raise CancelledError from None
            reasons = [str(error) for error in failures]
        else:
            return reached
    raise Unavailable("; ".join(reasons))
