"""
Connections to one server, kept: made again when they are lost, more of them when there
is much to do.

This is not C{twisted.application.internet.ClientService}, one for each connection: what
counts here is whether I{the server} is there. Its connections share a back-off and the
knowledge that the last attempt failed, and an attempt is more than a TCP connect: a
connection that is lost while it shows its password is a failed attempt here, and no
legal event there.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import attrs

from twisted.internet.defer import Deferred, DeferredList, fail, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from mpush_tw.config.settings import RedisPoolSettings
from mpush_tw.errors import Unavailable
from mpush_tw.integrations.redis._commands import Command
from mpush_tw.integrations.redis._connection import (
    Address,
    Connection,
    Lost,
    Refused,
    Reply,
)

ATTEMPT_TIMEOUT = 4.5
"""
Seconds for one attempt to get a usable connection, all steps together.
"""

LONGEST_WAIT = 2.0
"""
Seconds at most that a command waits for a connection that is being made.
"""

MAX_COMMANDS = 50_000
"""
Commands that may be outstanding or waiting, in one pool. More fail at once.
"""

CLOSE_TIMEOUT = 2.0
"""
Seconds at most that a stop waits for outstanding answers.
"""

GROW_AT = 1000
"""
Outstanding answers on each connection that have another one made. One connection is not
slower than several; what others are good for is to overtake a long answer.
"""

_FIRST_DELAY, _LONGEST_DELAY = 0.1, 5.0
_STEADY = 1.0

Dial = Callable[[], Coroutine[Any, Any, Connection]]
"""
Gives a connection that is ready for use, or raises L{Unavailable} with a sentence.
"""


class Away(Unavailable):
    """
    The command was not sent: there is no connection.
    """


@attrs.frozen
class PoolLimits:
    """
    @ivar kept: Connections that are kept open.
    @ivar most: Connections at most.
    @ivar wait: Seconds that a command may wait for a connection that is being made.
    """

    kept: int = 1
    most: int = 1
    wait: float = LONGEST_WAIT

    @classmethod
    def of(cls, settings: RedisPoolSettings) -> PoolLimits:
        """
        Read them from C{mp.redis.config}.
        """
        wait = settings.max_wait_millis / 1000
        if wait < 0 or wait > LONGEST_WAIT:
            wait = LONGEST_WAIT
        if not settings.block_when_exhausted:
            wait = 0.0
        kept = min(max(settings.min_idle, 1), settings.max_total)
        return cls(kept, settings.max_total, wait)


@attrs.define(eq=False)
class _Waiting:
    command: Command
    asking: bool
    answered: Deferred[Reply]
    until: float


class Pool:
    """
    Sends each command over one of its connections: the first that has few answers
    outstanding, so that on a quiet node all take the same way, in order.

    While a connection is being made commands wait for it; once an attempt has failed
    they fail at once, until one succeeds.

    The server is I{lost} when every connection that was known to be to it is gone, and
    I{back} when there is one again. A connection made while others are open is known
    to be to the same server, not to its successor, when one of those has answered
    since: this is how a restart is noticed that was too quick for a command to fail.

    @ivar up: Whether there is a usable connection.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        purpose: str,
        dial: Dial,
        limits: PoolLimits,
        clock: Any,
        *,
        lost: Callable[[], None] = lambda: None,
        back: Callable[[], None] = lambda: None,
        follows: bool = False,
    ) -> None:
        """
        @param name: Where it leads, for sentences, with an address.
        @param purpose: What it is for, for the log.
        @param dial: Makes a connection.
        @param clock: Provides C{IReactorTime}.
        @param lost: Called when the server is lost, also at a first attempt that
            fails in L{open}.
        @param back: Called when there is a connection again after that.
        @param follows: Whether another attempt may lead to another server: then a
            server that is only a replica is left.
        """
        self.name = name
        self._purpose = purpose
        self._dial = dial
        self._limits = limits
        self._clock = clock
        self._on_lost = lost
        self._on_back = back
        self._follows = follows
        self._running = False
        self._connections: list[Connection] = []
        self._known: set[Connection] = set()
        self._closing: set[Deferred[None]] = set()
        self._wanted = limits.kept
        self._attempt: Deferred[Any] | None = None
        self._retry: IDelayedCall | None = None
        self._streak = 0
        self._away: str | None = None
        self._lost_at: float | None = None
        self._waiting: deque[_Waiting] = deque()
        self._expiry: IDelayedCall | None = None
        self._tried: list[Deferred[str | None]] = []

    def __repr__(self) -> str:
        return f"<Pool {self.name}: {len(self._connections)} connections>"

    @property
    def up(self) -> bool:
        return bool(self._connections)

    @property
    def addresses(self) -> set[Address]:
        """
        The servers that there are connections to.
        """
        return {connection.address for connection in self._connections}

    # ----------------------------------------------------------- start, stop

    def start(self) -> Deferred[None]:
        """
        Make the first connection.

        @return: Fires when it can be used; fails with L{Unavailable} when the first
            attempt fails, and all is as before.
        """
        if self._running and not self._tried:
            return succeed(None)
        tried = self._open()

        def judge(problem: str | None) -> Deferred[None] | None:
            if problem is None:
                return None

            def refuse(result: None) -> None:
                raise Unavailable(problem)

            return self.stop().addCallback(refuse)

        return tried.addCallback(judge)

    def open(self) -> Deferred[str | None]:
        """
        Begin to make connections, and go on until L{stop}.

        @return: Fires after the first attempt: with C{None} if it succeeded, else with
            what was wrong, which has been logged.
        """

        def note(problem: str | None) -> str | None:
            if problem is not None:
                self._gone(problem)
            return problem

        return self._open().addCallback(note)

    def _open(self) -> Deferred[str | None]:
        tried: Deferred[str | None] = Deferred()
        if self._running and (self.up or self._away is not None):
            return succeed(self._away)
        self._tried.append(tried)
        if not self._running:
            self._running = True
            self._streak = 0
            self._away = self._lost_at = None
            self._wanted = self._limits.kept
            self._fill()
        return tried

    def stop(self) -> Deferred[None]:
        """
        Close everything: outstanding commands have L{CLOSE_TIMEOUT} seconds, waiting
        ones fail. Idempotent.

        @return: Fires when all is closed; never fails.
        """
        self._running = False
        for timer in (self._retry, self._expiry):
            if timer is not None:
                timer.cancel()
        self._retry = self._expiry = None
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()
        connections, self._connections = self._connections, []
        self._known.clear()
        for connection in connections:
            self._close(connection)
        self._fail_waiting(lambda: Away(f"{self.name} is being closed"))
        self._tell_tried("it was stopped")
        closed: Deferred[None] = Deferred()
        DeferredList(list(self._closing)).addCallback(lambda _: closed.callback(None))
        return closed

    def _close(self, connection: Connection) -> None:
        connection.on_lost = None
        closing = connection.close(CLOSE_TIMEOUT)
        if not closing.called:
            self._closing.add(closing)
            closing.addCallback(lambda _: self._closing.discard(closing))

    # -------------------------------------------------------------- commands

    def execute(self, command: Command, asking: bool = False) -> Deferred[Reply]:
        """
        Run a command.

        @param asking: Send ASKING in front of it.
        @return: Fires with the answer. Fails with L{Refused} when that is an error,
            with L{Away} when it was not sent, with L{Unavailable} when no answer came.
        """
        connection: Connection | None = None
        outstanding = len(self._waiting)
        for candidate in self._connections:
            count = candidate.outstanding
            outstanding += count
            if candidate.usable and (
                connection is None or count < connection.outstanding >= GROW_AT
            ):
                connection = candidate
        if outstanding >= MAX_COMMANDS:
            return fail(Away(f"{self.name} has {outstanding} commands to answer"))
        if connection is None:
            return self._wait(command, asking)
        if connection.outstanding >= GROW_AT:
            self._grow()
        if asking:
            connection.send(("ASKING",)).addErrback(lambda failure: None)
        answered = connection.send(command.words)
        answered.addErrback(self._unanswered, command, asking, connection)
        return answered

    def _unanswered(
        self, failure: Failure, command: Command, asking: bool, connection: Connection
    ) -> Deferred[Reply] | Failure:
        error = failure.value
        if isinstance(error, Refused) and error.code == "READONLY" and self._follows:
            # It was not run, so it may run elsewhere, whatever it is.
            self.leave(lambda address: address != connection.address)
            if command.repeated:
                return failure
            command.repeated = True
            return self.execute(command, asking)
        if not isinstance(error, Lost):
            return failure
        if (
            self._running
            and command.repeatable
            and not command.repeated
            and not error.timed_out
        ):
            command.repeated = True
            return self.execute(command, asking)
        return Failure(
            Unavailable(
                f"Redis at {connection.address} gave no answer to {command}: {error}"
            )
        )

    def _wait(self, command: Command, asking: bool) -> Deferred[Reply]:
        wait = self._limits.wait
        if not self._running:
            return fail(Away(f"{self.name} is not connected"))
        if self._away is not None or wait <= 0:
            return fail(self._absence())
        until = self._clock.seconds() + wait
        # One that is cancelled is dropped when its turn comes.
        waiting = _Waiting(command, asking, Deferred(), until)
        self._waiting.append(waiting)
        if self._expiry is None:
            self._expiry = self._clock.callLater(wait, self._expire)
        return waiting.answered

    def _absence(self) -> Away:
        after = 1.0
        if self._retry is not None:
            after = max(self._retry.getTime() - self._clock.seconds(), _FIRST_DELAY)
        return Away(self._away or f"{self.name} is being connected", after)

    def _expire(self) -> None:
        """
        Fail what has waited long enough.
        """
        self._expiry = None
        now = self._clock.seconds()
        while self._waiting and self._waiting[0].until <= now:
            waiting = self._waiting.popleft()
            if not waiting.answered.called:
                waiting.answered.errback(self._absence())
        if self._waiting:
            delay = self._waiting[0].until - now
            self._expiry = self._clock.callLater(delay, self._expire)

    def _fail_waiting(self, error: Callable[[], Away]) -> None:
        waiting, self._waiting = self._waiting, deque()
        for each in waiting:
            if not each.answered.called:
                each.answered.errback(error())

    # ----------------------------------------------------------- connections

    def _grow(self) -> None:
        count = len(self._connections)
        if self._wanted <= count < self._limits.most:
            self._wanted = count + 1
            self._fill()

    def _fill(self) -> None:
        """
        Begin an attempt if there are too few connections and nothing is under way.
        """
        if (
            not self._running
            or self._attempt is not None
            or self._retry is not None
            or len(self._connections) >= self._wanted
        ):
            return
        attempt: Deferred[Any] = Deferred.fromCoroutine(self._dial())
        self._attempt = attempt
        attempt.addTimeout(ATTEMPT_TIMEOUT, self._clock)
        attempt.addCallbacks(
            partial(self._made, attempt), partial(self._not_made, attempt)
        )
        attempt.addErrback(
            lambda failure: self._log.failure("{name}", failure, name=self.name)
        )

    def _made(self, attempt: Deferred[Any], connection: Connection) -> None:
        if self._attempt is not attempt:
            self._close(connection)
            return
        self._attempt = None
        connection.on_lost = self._connection_lost
        known = list(self._known)
        self._connections.append(connection)
        self._away = None
        if known:
            known[0].send(("PING",)).addCallbacks(
                lambda _: self._vouched(connection), lambda failure: None
            )
        else:
            self._known.add(connection)
            self._returned(connection)
        self._tell_tried(None)
        waiting, self._waiting = self._waiting, deque()
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        for each in waiting:
            if not each.answered.called:
                self.execute(each.command, each.asking).chainDeferred(each.answered)
        self._fill()

    def _not_made(self, attempt: Deferred[Any], failure: Failure) -> None:
        if self._attempt is not attempt:
            return
        self._attempt = None
        if failure.check(Unavailable):
            problem = str(failure.value)
        elif failure.check(DeferredTimeout):
            problem = f"{self.name} did not answer within {ATTEMPT_TIMEOUT:g} s"
        else:
            self._log.failure("connecting {name}", failure, name=self.name)
            problem = f"{self.name} cannot be connected"
        self._streak += 1
        self._schedule()
        if self._connections:
            self._wanted = max(self._limits.kept, len(self._connections))
            return
        self._away = problem
        if self._tried:
            self._tell_tried(problem)
        self._fail_waiting(self._absence)

    def _schedule(self) -> None:
        """
        Have the next attempt made after a while that grows with each failure.
        """
        if self._running and self._retry is None:
            delay = min(_FIRST_DELAY * 2 ** min(self._streak - 1, 10), _LONGEST_DELAY)
            delay *= random.uniform(0.75, 1.0)
            self._retry = self._clock.callLater(delay, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self._fill()

    def _tell_tried(self, problem: str | None) -> None:
        tried, self._tried = self._tried, []
        for waiter in tried:
            waiter.callback(problem)

    def _connection_lost(self, connection: Connection, lost: Lost) -> None:
        self._connections.remove(connection)
        self._without(connection, str(lost))

    def leave(self, keep: Callable[[Address], bool]) -> None:
        """
        Leave servers, and have connections made anew. What is outstanding there has
        L{CLOSE_TIMEOUT} seconds.

        @param keep: Tells which ones may stay.
        """
        for connection in [c for c in self._connections if not keep(c.address)]:
            self._connections.remove(connection)
            self._close(connection)
            self._without(connection, "is not the one to ask any more")

    def _without(self, connection: Connection, why: str) -> None:
        self._known.discard(connection)
        steady = self._clock.seconds() - connection.since >= _STEADY
        self._streak = 0 if steady else self._streak + 1
        if not self._connections:
            self._wanted = self._limits.kept
        for other in self._known:
            other.ping()
        if not self._known:
            self._gone(f"Redis at {connection.address} {why}")
            if self._connections:
                self._known.update(self._connections)
                self._returned(self._connections[0])
        if steady:
            self._fill()
        else:
            self._schedule()

    # ------------------------------------------------------- lost and back

    def _vouched(self, connection: Connection) -> None:
        if connection in self._connections:
            self._known.add(connection)

    def _gone(self, problem: str) -> None:
        if self._running and self._lost_at is None:
            self._lost_at = self._clock.seconds()
            self._log.error(
                "lost the {purpose}: {problem}", purpose=self._purpose, problem=problem
            )
            self._on_lost()

    def _returned(self, connection: Connection) -> None:
        if self._lost_at is not None:
            seconds = self._clock.seconds() - self._lost_at
            self._lost_at = None
            self._log.warn(
                "the {purpose} is there again: Redis at {address}, "
                "after {seconds:.1f} s",
                purpose=self._purpose,
                address=str(connection.address),
                seconds=seconds,
            )
            self._on_back()
