"""
The admin console: text lines over TCP, for an operator with telnet (operations 6).

Answers are byte for byte the original's where a command works there; what differs is
operations 6.4: words are split at runs of white space, C{count:conn} is C{count conn},
errors are one line, secrets are hidden, and a password may be asked for.
"""

from __future__ import annotations

import hmac
from datetime import datetime
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from mpush_tw.errors import Unavailable
from mpush_tw.transports.console import AdminNode, CommandError, Console

__all__ = ["AdminFactory", "AdminProtocol"]

MAX_LINE = 8192
"""
Longest command in bytes, without its line end (operations 6.1).
"""

MAX_SESSIONS = 10
IDLE_SECONDS = 600.0
"""
Bounds of operations 6.4. One session more is not refused, it takes another's place: ten
connections that say nothing would keep the operator out.
"""

AUTH_SECONDS = 60.0
"""
How long the password may take: one who has none holds a session no longer.
"""

ANSWER_SECONDS = 10.0
"""
How long a command may wait for the shared store.
"""

REFUSAL_SECONDS = 1.0
"""
Pause before a wrong password is refused, so that guessing takes long.
"""

_LINGER_SECONDS = 10.0
"""
How long the last answer of a session may take to reach its peer.
"""

_END = "\r\n\r\n"
_AUTH = "auth"


def parse(line: str) -> tuple[str, list[str]]:
    """
    Read a line: C{cmd arg} and C{cmd:arg} are the same, and nothing at all is C{help}.

    @return: The command in lower case, and its arguments.
    """
    words = line.split()
    if not words:
        return "help", []
    command, _, argument = words[0].partition(":")
    return command.lower(), [*filter(None, (argument,)), *words[1:]]


def _for_log(line: str) -> str:
    """
    A line as it may stand in a log: the password hidden, control characters visible.
    """
    if parse(line)[0] == _AUTH:
        return f"{_AUTH} ******"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


@implementer(IPushProducer)
class AdminProtocol(LineReceiver):
    """
    One session.

    Commands are answered in the order they came: while one waits, or while answers pile
    up because the peer does not read, nothing more is read from it.

    @ivar authenticated: Whether commands are done; so from the start without a
        password.
    @ivar closing: Whether it ends as soon as the peer has taken what was answered.
    @ivar active: When it was opened or the last command came, in seconds of the clock.
    """

    delimiter = b"\n"
    MAX_LENGTH = MAX_LINE + 1  # a carriage return may stand before the line feed
    transport: Any

    def __init__(self, factory: AdminFactory) -> None:
        self._factory = factory
        self._clock: IReactorTime = factory.node.clock
        self._log = factory.node.log.general
        self.authenticated = not factory.password
        self.closing = False
        self.active = self._clock.seconds()
        self._discarding = False
        self._rest = b""
        self._choked = False
        self._working: Deferred[None] | None = None
        self._refusal: IDelayedCall | None = None
        self._deadline: IDelayedCall | None = None

    # ------------------------------------------------------------ connection

    def connectionMade(self) -> None:
        """
        Greet (operations 6.1).
        """
        self._factory.sessions.append(self)
        self.transport.registerProducer(self, True)
        self._expect_within(IDLE_SECONDS if self.authenticated else AUTH_SECONDS)
        self._write(self._factory.greeting())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closing = True
        self._factory.sessions.remove(self)
        self._expect_within(None)
        self._forget_refusal()
        if self._working is not None:
            self._working.cancel()

    def _expect_within(self, seconds: float | None) -> None:
        """
        Set the time in which the next line, or the end, is to come.

        @param seconds: C{None} to wait for nothing any more.
        """
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if seconds is not None:
            self._deadline = self._clock.callLater(seconds, self._timed_out)

    def _timed_out(self) -> None:
        """
        Nothing was typed for too long, or the last answer cannot be delivered.
        """
        self._deadline = None
        if self.closing:
            self.transport.abortConnection()
        else:
            self.close()

    def close(self) -> None:
        """
        End the session when what was answered has gone out. Idempotent.
        """
        if self.closing:
            return
        self.closing = True
        self._forget_refusal()
        self._expect_within(_LINGER_SECONDS)
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def displace(self) -> None:
        """
        End the session for the sake of a newer one, and say so.
        """
        self._log.warn(
            "admin console: {count} sessions are open, that of {peer} ended for one "
            "more",
            count=MAX_SESSIONS,
            peer=self._peer,
        )
        reason = f"{MAX_SESSIONS} sessions are open, this one ended for one more"
        self._write(f"error: {reason}{_END}")
        self.close()

    def _forget_refusal(self) -> None:
        if self._refusal is not None:
            self._refusal.cancel()
            self._refusal = None

    def _write(self, text: str) -> None:
        self.transport.write(text.encode("utf-8", "replace"))

    # ---------------------------------------------------------------- lines

    def dataReceived(self, data: bytes) -> None:
        """
        Split into lines. One that is too long is dropped to its end, without an answer,
        and the session goes on (operations 6.1).
        """
        while not self.closing:
            if self._discarding:
                _, end, data = data.partition(self.delimiter)
                if not end:
                    return
                self._discarding = False
            super().dataReceived(data)  # type: ignore[no-untyped-call]
            if not self._discarding:
                return
            data, self._rest = self._rest, b""

    def lineLengthExceeded(self, line: bytes) -> None:
        """
        Leave what follows to L{dataReceived}.

        @param line: Everything that was received from the start of the line on.
        """
        self._discarding = True
        self._rest = line

    def lineReceived(self, line: bytes) -> None:
        line = line.removesuffix(b"\r")
        if self.closing or len(line) > MAX_LINE:
            return
        text = line.decode("utf-8", "replace")
        if self.authenticated:
            self.active = self._clock.seconds()
            self._expect_within(IDLE_SECONDS)
            self._command_received(text)
        else:
            self._password_received(text)

    def _password_received(self, text: str) -> None:
        command, _ = parse(text)
        given = text.strip()[len(_AUTH) + 1 :].strip()
        wanted = self._factory.password.strip()
        if command == _AUTH and hmac.compare_digest(given.encode(), wanted.encode()):
            self.authenticated = True
            self.active = self._clock.seconds()
            self._expect_within(IDLE_SECONDS)
            self._log.notice("receive admin command={line}", line=_for_log(text))
            self._write(f"authenticated{_END}")
            return
        self._log.warn("admin console: session of {peer} refused", peer=self._peer)
        self._stop_reading()
        self._refusal = self._clock.callLater(REFUSAL_SECONDS, self._refuse)

    def _refuse(self) -> None:
        self._refusal = None
        self._write(f"error: the first line must be {_AUTH} <password>{_END}")
        self.close()

    @property
    def _peer(self) -> str:
        return str(getattr(self.transport.getPeer(), "host", "unknown"))

    # ------------------------------------------------------------- commands

    def _command_received(self, text: str) -> None:
        command, arguments = parse(text)
        # A notice, because every command is audited whatever the level of the log.
        self._log.notice("receive admin command={line}", line=_for_log(text))
        answering = Deferred.fromCoroutine(
            self._factory.console.answer(command, arguments)
        )
        answering.addTimeout(ANSWER_SECONDS, self._clock)
        answering.addErrback(self._failed, command)
        done = answering.addCallback(self._answered, command)
        done.addErrback(self._broken)
        if not done.called:
            self._working = done
            self._stop_reading()

    def _answered(self, answer: str, command: str) -> None:
        was_waiting, self._working = self._working is not None, None
        if self.closing:
            return
        self._write(answer + _END)
        if command == "quit":
            self.close()
        elif was_waiting and not self._choked:
            self._read_on()

    def _failed(self, failure: Failure, command: str) -> str:
        error = failure.value
        if isinstance(error, DeferredTimeoutError):
            text = f"no answer within {ANSWER_SECONDS:.0f} s"
        elif isinstance(error, (CommandError, CancelledError, Unavailable)):
            text = str(error)
        else:
            self._log.failure("admin command {name} failed", failure, name=command)
            text = str(error) or type(error).__name__
        return f"error: {' '.join(text.split())}"

    def _broken(self, failure: Failure) -> None:
        self._log.failure("admin session broken", failure)
        self.transport.abortConnection()

    # --------------------------------------------------------- backpressure

    def pauseProducing(self) -> None:
        """
        The peer does not read its answers.
        """
        self._choked = True
        self._stop_reading()

    def resumeProducing(self) -> None:
        """
        It does again.
        """
        self._choked = False
        if self._working is None and self._refusal is None:
            self._read_on()

    def _stop_reading(self) -> None:
        super().pauseProducing()  # type: ignore[no-untyped-call]

    def _read_on(self) -> None:
        super().resumeProducing()  # type: ignore[no-untyped-call]


class AdminFactory(ServerFactory):
    """
    Accepts sessions.

    @ivar sessions: Those that are connected, oldest first.
    @ivar console: Does their commands.
    """

    noisy = False

    def __init__(
        self, node: AdminNode, password: str = "", bind_ip: str = "127.0.0.1"
    ) -> None:
        """
        @param password: C{mp.net.admin-server-password}; empty to ask for none.
        @param bind_ip: C{mp.net.admin-server-bind-ip}, the address it will listen on;
            empty means every address.
        """
        self.node = node
        self.password = password
        self._bind_ip = bind_ip
        self.console = Console(node)
        self.sessions: list[AdminProtocol] = []
        self._started = node.clock.seconds()

    def greeting(self) -> str:
        """
        Write what a new session sees first: who, since when, and the time.
        """
        now = self.node.clock.seconds()
        since = datetime.fromtimestamp(self._started).isoformat(timespec="milliseconds")
        today = datetime.fromtimestamp(now).astimezone()
        return (
            f"Welcome to MPush Console [{self.node.local_ip}]!\r\n"
            f"since {since} has running {int((now - self._started) // 3600)}(h){_END}"
            f"It is {today:%a %b %d %H:%M:%S %Z %Y} now.{_END}"
        )

    def startFactory(self) -> None:
        """
        Warn, if everybody who reaches the port may stop this node (O-1).
        """
        if not self.password and not _is_loopback(self._bind_ip):
            self.node.log.general.warn(
                "the admin console on {address} asks for no password: set "
                "mp.net.admin-server-password, or mp.net.admin-server-bind-ip to "
                "127.0.0.1",
                address=self._bind_ip or "every address",
            )

    def stopFactory(self) -> None:
        """
        End all sessions: the port was closed because the node stops.
        """
        for session in list(self.sessions):
            session.close()

    def buildProtocol(self, addr: IAddress | None) -> AdminProtocol:
        """
        Open a session, in the place of another when there are too many.
        """
        self._make_room()
        return AdminProtocol(self)

    def _make_room(self) -> None:
        """
        When all places are taken end the oldest session that has given no password, or
        else the one without a command for longest.
        """
        places = [session for session in self.sessions if not session.closing]
        if len(places) >= MAX_SESSIONS:
            strangers = [session for session in places if not session.authenticated]
            displaced = (
                strangers[0]
                if strangers
                else min(places, key=lambda session: session.active)
            )
            displaced.displace()
        # Those that end hold no place, and yet cannot be many: a peer that takes no
        # goodbye waits for its time-out only while few others do.
        ending = [session for session in self.sessions if session.closing]
        for session in ending[:-MAX_SESSIONS]:
            session.transport.abortConnection()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
