"""
One connection to one Redis server: commands out, answers back, in order.

txredisapi reads the answers (with hiredis below); its pools and reconnecting are not
used. They wait without end while Redis is down, time with the global reactor, and let
nobody know when the store was away.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

from hiredis import pack_command
from service_identity import VerificationError

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

READ_TIMEOUT = 2.0
"""
Seconds without a byte while an answer is outstanding (cluster 2.1).
"""

IDLE = 5.0
"""
Seconds of silence after which a connection is tested with PING: a server that vanished
without a word is found within L{IDLE} + L{READ_TIMEOUT}.
"""

# Its stub takes one argument for all.
_pack: Callable[[tuple[str | int | bytes, ...]], bytes] = cast(Any, pack_command)

_HELD_UP = 0.5
_SECOND_CHANCE = 0.25

Words = Sequence[str | int]
"""
A command with its arguments.
"""

Reply = Any
"""
An answer: C{str}, C{int}, C{None} or a list of these. Where a text is no UTF-8 there
are C{bytes} in its place.
"""


class Address(NamedTuple):
    """
    Where a server listens: host name or address, and port.
    """

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Refused(Exception):
    """
    The server answered with an error. It did nothing then.

    @ivar code: The first word, in capitals: C{ERR}, C{WRONGTYPE}, C{MOVED} ...
    @ivar text: All of it.
    @ivar address: The server.
    """

    def __init__(self, text: str, address: Address) -> None:
        super().__init__(text)
        self.address = address
        self.code = text.partition(" ")[0].upper()
        self.text = text


class Lost(Exception):
    """
    The connection was gone before the answer came: whether the command was run is not
    known.

    @ivar timed_out: Whether it was given up because nothing came from the server.
    """

    def __init__(self, reason: str, timed_out: bool = False) -> None:
        super().__init__(reason)
        self.timed_out = timed_out


class Connection(Protocol):
    """
    Commands go out at once, in one piece for each turn of the reactor, and do not wait
    for the answers of earlier ones.

    @ivar address: The server.
    @ivar usable: Whether commands can be sent.
    @ivar since: When it was made, by the clock.
    @ivar on_lost: Called with the connection and the reason when it is gone, before the
        outstanding commands fail.
    @ivar message_received: Called with channel and payload for each message on a
        connection that has subscribed; a payload is C{bytes} when it is no UTF-8.
    """

    _log = Logger()

    def __init__(self, address: Address, clock: Any) -> None:
        """
        @param clock: Provides C{IReactorTime}.
        """
        self.address = address
        self.usable = False
        self.since = 0.0
        self.on_lost: Callable[[Connection, Lost], None] | None = None
        self.message_received: Callable[[str | bytes, str | bytes], None] | None = None
        self._clock = clock
        self._outstanding: deque[Deferred[Reply]] = deque()
        self._asked = self._heard = 0.0
        self._due = 0.0
        self._timer: IDelayedCall | None = None
        self._excused = False
        self._closing = False
        self._why: Lost | None = None
        self._deadline: IDelayedCall | None = None
        self._gone: list[Deferred[None]] = []
        self._lost = False
        self._redis: Any = None
        self._broken: type[Exception] = ValueError

    @property
    def outstanding(self) -> int:
        """
        How many answers are outstanding.
        """
        return len(self._outstanding)

    # ----------------------------------------------------------- the protocol

    def connectionMade(self) -> None:
        # txredisapi imports the global reactor, so it comes in when there is one.
        import txredisapi

        redis = txredisapi.RedisProtocol(charset="utf-8", convertNumbers=False)
        redis.replyReceived = self._reply_received
        self._redis = redis
        self._broken = txredisapi.InvalidData
        transport: Any = self.transport
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)
        self.since = self._heard = self._clock.seconds()
        self.usable = True
        self._look_in(IDLE)

    def dataReceived(self, data: bytes) -> None:
        if self._why is not None:
            return
        self._heard = self._clock.seconds()
        self._excused = False
        try:
            self._redis.dataReceived(data)
        except self._broken as error:
            self._log.error(
                "{address} does not speak Redis's protocol: {error}",
                address=str(self.address),
                error=error,
            )
            self.abort("does not speak Redis's protocol")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.usable = False
        self._lost = True
        for timer in (self._timer, self._deadline):
            if timer is not None and timer.active():
                timer.cancel()
        lost = self._why or Lost(_why(reason))
        # A pool sees to another connection first, so that commands can be repeated.
        if self.on_lost is not None:
            self.on_lost(self, lost)
        while self._outstanding:
            self._outstanding.popleft().errback(Lost(str(lost), lost.timed_out))
        gone, self._gone = self._gone, []
        for waiter in gone:
            waiter.callback(None)

    def _reply_received(self, reply: Reply) -> None:
        if (
            self.message_received is not None
            and type(reply) is list
            and reply[:1] == ["message"]
        ):
            self.message_received(reply[1], reply[2])
            return
        if not self._outstanding:
            self.abort("sent an answer that nobody asked for")
            return
        answered = self._outstanding.popleft()
        if isinstance(reply, Exception):
            answered.errback(Refused(str(reply), self.address))
        else:
            answered.callback(reply)
        if self._closing and not self._outstanding:
            self._lose()

    # ------------------------------------------------------------------ use

    def send(self, words: Words) -> Deferred[Reply]:
        """
        Send a command.

        @param words: Texts are sent as UTF-8. What cannot be (half of a surrogate
            pair) becomes a question mark, as on a Java node.
        @return: Fires with the answer; fails with L{Refused} or L{Lost}.
        """
        if not self.usable:
            return fail(self._why or Lost("the connection is closed"))
        if not self._outstanding:
            self._asked = self._clock.seconds()
            if self._due > self._asked + READ_TIMEOUT:
                self._look_in(READ_TIMEOUT)
        answered: Deferred[Reply] = Deferred()
        self._outstanding.append(answered)
        transport: Any = self.transport
        transport.write(packed(words))
        return answered

    def ping(self) -> None:
        """
        See whether the server is there; if not, the connection is lost in time.
        """
        self.send(("PING",)).addErrback(lambda failure: None)

    def close(self, within: float = 0.0) -> Deferred[None]:
        """
        Send no more, and close when the outstanding answers are there.

        @param within: Seconds after which it is closed in any case.
        @return: Fires when it is closed; never fails.
        """
        if self._lost:
            return succeed(None)
        gone: Deferred[None] = Deferred()
        self._gone.append(gone)
        if not self._closing:
            self._closing = True
            self.usable = False
            self._deadline = self._clock.callLater(
                within, self.abort, "was closed before it answered"
            )
            if not self._outstanding:
                self._lose()
        return gone

    def abort(self, reason: str, timed_out: bool = False) -> None:
        """
        Close at once. Outstanding commands fail with the reason, in a later turn.
        """
        self.usable = False
        if self._why is None and not self._lost:
            self._why = Lost(reason, timed_out)
            transport: Any = self.transport
            if transport is not None:
                transport.abortConnection()

    def _lose(self) -> None:
        transport: Any = self.transport
        transport.loseConnection()

    # ----------------------------------------------------------------- time

    def _look_in(self, seconds: float) -> None:
        self._due = self._clock.seconds() + seconds
        if self._timer is not None and self._timer.active():
            self._timer.reset(seconds)
        else:
            self._timer = self._clock.callLater(seconds, self._look)

    def _look(self) -> None:
        """
        Give a silent server up, test an idle one.
        """
        now = self._clock.seconds()
        silent = now - max(self._asked, self._heard)
        if not self._outstanding:
            if silent < IDLE or not self.usable:
                self._look_in(max(IDLE - silent, _SECOND_CHANCE))
            else:
                self.ping()
                self._look_in(READ_TIMEOUT)
        elif silent < READ_TIMEOUT:
            self._look_in(READ_TIMEOUT - silent)
        elif now - self._due > _HELD_UP and not self._excused:
            # It was this process that did not look: the answers may lie in the socket.
            self._excused = True
            self._look_in(_SECOND_CHANCE)
        else:
            self.abort(f"did not answer within {READ_TIMEOUT:g} s", timed_out=True)


def packed(words: Words) -> bytes:
    """
    Give the bytes of a command.
    """
    try:
        return _pack(tuple(words))
    except UnicodeEncodeError:
        return _pack(
            tuple(
                word.encode("utf-8", "replace") if isinstance(word, str) else word
                for word in words
            )
        )


def _why(reason: Failure) -> str:
    """
    Say in words why a connection was lost.
    """
    if reason.check(ConnectionDone):
        return "closed the connection"
    return explain(reason.value)


def explain(error: BaseException | None) -> str:
    """
    Make one short sentence of what the network says.
    """
    text = str(error).strip().rstrip(".")
    details = error.args[0] if error is not None and error.args else None
    if isinstance(error, VerificationError):
        text = "its certificate is for another address"
    elif isinstance(details, list) and details and isinstance(details[-1], tuple):
        # OpenSSL gives a list of (library, function, reason).
        text = str(details[-1][-1])
    return text.partition("\n")[0] or type(error).__name__
