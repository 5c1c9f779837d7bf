"""
The push to one user, from the look-up of its routes to the result.

All routes are asked at once, and each goes its own way (cluster 7.6, DESIGN 5c):

  - no link to the gateway: wait for one, as long as connecting has not failed. If it
    has, or the gateway is not known at all, ask the directory. A gateway that is not
    registered has no users: offline. One that is might have the user: failure;
  - the gateway says that the device is elsewhere: look up again and follow, at most
    three times (C-41). The old route again: failure; no route any more: offline;
  - the gateway delivered, or says offline, or anything else, or the connection is lost:
    that is the route's end.

And the push as a whole:

  - one route delivered: success, whatever the others say. They are followed all the
    same, so that each of the user's devices gets the message;
  - all ended as offline, or there was no route: offline;
  - all ended, in any other mix: failure;
  - time is up: time-out, or failure if nothing was sent because there was no link.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import attrs

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mpush_tw.errors import Unavailable
from mpush_tw.protocol.broadcasts import MAX_SENDER_POINTS, POINT_PREFIX
from mpush_tw.protocol.commands import Command
from mpush_tw.protocol.gateway import GatewayPush, TimePoints
from mpush_tw.protocol.packet import encode_packet
from mpush_tw.sender._pool import Answer, IGatewayLink, IGatewayPool, Verdict
from mpush_tw.sender._queries import Queries
from mpush_tw.sender.context import PushContext
from mpush_tw.sender.directory import (
    ANY_CLIENT_TYPE,
    Address,
    IGatewayDirectory,
    Route,
)
from mpush_tw.sender.result import PushResult, ResultCode

_Result = TypeVar("_Result")

MAX_PENDING = 100_000
"""
Pushes under way, and questions open on all connections together; pushes above it fail
at once.
"""

_MANY_QUESTIONS = 100
"""
More than one push has open, with few exceptions.
"""

MAX_REDIRECTS = 3
_ANSWER_RESERVE_MS = 500
"""
What a gateway gets less than the sender itself waits (cluster 7.5).
"""

_COMPLAIN_EVERY = 1.0
"""
Seconds between two log lines that say that nobody can tell where users are.
"""


class UnderWay(Protocol):
    """
    A push that has not ended.
    """

    def fail(self) -> None:
        """
        End as a failure, if not ended yet: the sender stops.
        """


@attrs.define(eq=False)
class Sending:
    """
    What the pushes of a started sender share.

    @ivar clock: Provides C{IReactorTime}.
    @ivar queries: How gateways are asked about them.
    @ivar max_packet_size: Largest body of a packet, in bytes.
    @ivar pushes: Those under way, to a user or to everybody.
    @ivar batches: Lists under way.
    """

    directory: IGatewayDirectory
    pool: IGatewayPool
    clock: Any
    next_session_id: Callable[[], int]
    queries: Queries
    max_packet_size: int
    pushes: set[UnderWay] = attrs.field(factory=set)
    batches: set[UnderWay] = attrs.field(factory=set)
    _complained: float = float("-inf")
    _silent: int = 0
    _log = Logger()

    def has_room(self, questions: int = 1) -> bool:
        """
        Whether more questions may be put.
        """
        pushes = len(self.pushes)
        if pushes * _MANY_QUESTIONS + questions <= MAX_PENDING:
            # That is so whatever has been asked; counting it takes longer.
            return True
        open_now = max(self.pool.pending, pushes)
        if open_now + questions <= MAX_PENDING:
            return True
        self._log.warn("{limit} pushes are pending, one fails", limit=MAX_PENDING)
        return False

    def unavailable(self, error: Exception) -> None:
        """
        Log why pushes fail: once a second, with the number of those since.
        """
        now = self.clock.seconds()
        if now - self._complained < _COMPLAIN_EVERY:
            self._silent += 1
            return
        self._log.error(
            "pushes fail: {error} ({more} more since the last line)",
            error=error,
            more=self._silent,
        )
        self._complained, self._silent = now, 0


class _Leg:
    """
    One route of a push that has not ended.

    @ivar link: Where the question is open; C{None} while something is waited for.
    @ivar reaching: Whether it is a link that is waited for.
    """

    __slots__ = ("link", "reaching", "redirects", "route", "session_id")

    def __init__(self, route: Route) -> None:
        self.route = route
        self.redirects = 0
        self.reaching = False
        self.link: IGatewayLink | None = None
        self.session_id = 0

    @property
    def located(self) -> bool:
        """
        Whether a route store named this route.
        """
        return self.route.client_type != ANY_CLIENT_TYPE


class UserPush:
    """
    One user's push under way. It keeps the payload until it is over (C-35).

    @ivar finished: Fires with the result. Cancelling it gives the push up: what has
        been written is delivered all the same.
    """

    _log = Logger()

    def __init__(
        self, context: PushContext, user_id: str, payload: bytes, sending: Sending
    ) -> None:
        self._context = context
        self._user_id = user_id
        self._payload = payload
        self._sending = sending
        self._clock = sending.clock
        self._time_line: list[tuple[str, int]] = []
        self._deadline: Any = None
        self._waits: set[Deferred[Any]] = set()
        self._legs: list[_Leg] = []
        self._live: set[_Leg] = set()
        self._verdicts: set[Verdict] = set()
        self._told = False
        self._over = False
        self.finished: Deferred[PushResult] = Deferred(self._cancelled)

    def start(self, routes: Sequence[Route] | None = None) -> None:
        """
        Set the time-out and ask, if there is room for one more push.

        @param routes: Where the user is, if that has just been looked up.
        """
        if not self._sending.has_room():
            self._tell(ResultCode.FAILURE)
            return
        self._sending.pushes.add(self)
        self._deadline = self._clock.callLater(
            self._context.seconds(), self._time_is_up
        )
        self._note("begin")
        if routes is not None:
            self._routes_found(routes)
        else:
            self._look_up(self._routes_found, lambda: self._tell(ResultCode.FAILURE))

    def fail(self) -> None:
        """
        End as a failure, if not ended yet: the sender stops.
        """
        if self._told:
            self._let_go()
        else:
            self._tell(ResultCode.FAILURE)

    # --------------------------------------------------------------- waiting

    def _look_up(
        self, found: Callable[[Sequence[Route]], None], failed: Callable[[], None]
    ) -> None:
        routes = maybeDeferred(self._sending.directory.routes, self._user_id)
        self._wait(routes, found, failed)

    def _wait(
        self,
        wait: Deferred[_Result],
        then: Callable[[_Result], None],
        failed: Callable[[], None],
    ) -> None:
        """
        Go on with C{then} or C{failed} unless the push is over by then.
        """
        self._waits.add(wait)

        def waited(result: _Result) -> None:
            self._waits.discard(wait)
            if not self._over:
                then(result)

        def broke_off(failure: Failure) -> None:
            self._waits.discard(wait)
            if self._over and failure.check(CancelledError):
                return
            if isinstance(failure.value, Unavailable):
                self._sending.unavailable(failure.value)
            else:
                self._log.failure("push to a user broke off", failure)
            if not self._over:
                failed()

        wait.addCallback(waited).addErrback(broke_off)

    # ---------------------------------------------------------------- asking

    def _routes_found(self, routes: Sequence[Route]) -> None:
        self._note("lookup-remote")
        if not routes:
            self._tell(ResultCode.OFFLINE)
        elif not self._sending.has_room(len(routes) - 1):
            self._tell(ResultCode.FAILURE)
        else:
            self._legs = [_Leg(route) for route in routes]
            self._live.update(self._legs)
            self._ask_all(self._legs)

    def _ask_all(self, legs: Sequence[_Leg]) -> None:
        self._note("check-gateway-conn")
        pool = self._sending.pool
        links = [(leg, pool.choose(leg.route.address)) for leg in legs]
        linked = [(leg, link) for leg, link in links if link is not None]
        if linked:
            self._note("send-to-gateway-begin")
            for leg, link in linked:
                if self._over:
                    return
                self._ask(leg, link)
            self._note("send-to-gateway-end")
        for leg, found in links:
            if found is None and not self._over:
                self._reach(leg)

    def _ask(self, leg: _Leg, link: IGatewayLink) -> None:
        session_id = leg.session_id = self._sending.next_session_id()
        leg.link = link

        def answered(answer: Answer) -> None:
            leg.link = None
            self._answered(leg, answer)

        if not link.ask(session_id, self._packet(session_id, leg.route), answered):
            leg.link = None
            self._not_asked(leg, Verdict.FAILED)

    def _packet(self, session_id: int, route: Route) -> bytes:
        left = self._deadline.getTime() - self._clock.seconds()
        message = GatewayPush(
            self._user_id,
            route.client_type,
            max(1, round(left * 1000) - _ANSWER_RESERVE_MS),
            self._payload,
            self._context.trace_id,
        )
        body = message.encode()
        if message.task_id is not None:
            # The milestones so far go along where there is room for them.
            points = self._time_line[-MAX_SENDER_POINTS:]
            tags = tuple(f"{POINT_PREFIX}{name}={at}" for name, at in points)
            traced = message._replace(tags=tags).encode()
            if len(traced) <= self._sending.max_packet_size:
                body = traced
        ack = int(self._context.ack)
        return encode_packet(Command.GATEWAY_PUSH, session_id, ack, body)

    def _reach(self, leg: _Leg) -> None:
        """
        Find a link to a gateway that has none.
        """
        leg.reaching = True

        def reached(found: IGatewayLink | Verdict) -> None:
            leg.reaching = False
            if isinstance(found, Verdict):
                self._not_asked(leg, found)
                return
            self._note("send-to-gateway-begin")
            self._ask(leg, found)
            self._note("send-to-gateway-end")

        def failed() -> None:
            leg.reaching = False
            self._not_asked(leg, Verdict.FAILED)

        finding = Deferred.fromCoroutine(self._find_link(leg.route.address))
        self._wait(finding, reached, failed)

    async def _find_link(self, address: Address) -> IGatewayLink | Verdict:
        pool, directory = self._sending.pool, self._sending.directory
        link = await pool.link(address)
        if link is None:
            if not await directory.registered(address):
                return Verdict.OFFLINE
            # Nobody there at once if it was tried just now.
            link = await pool.link(address)
        return Verdict.FAILED if link is None else link

    def _not_asked(self, leg: _Leg, verdict: Verdict) -> None:
        self._log.debug(
            "get gateway connection failure, {host}:{port}",
            host=leg.route.host,
            port=leg.route.port,
        )
        self._leg_ended(leg, verdict)

    # --------------------------------------------------------------- deciding

    def _answered(self, leg: _Leg, answer: Answer) -> None:
        if answer.verdict is not Verdict.ELSEWHERE:
            self._leg_ended(leg, answer.verdict, answer.points)
        elif leg.redirects < MAX_REDIRECTS:
            self._redirect(leg)
        else:
            self._leg_ended(leg, Verdict.FAILED, answer.points)

    def _redirect(self, leg: _Leg) -> None:
        leg.redirects += 1
        self._sending.directory.outdated(self._user_id)
        self._note("redirect")
        self._note("begin")
        self._look_up(
            lambda routes: self._rerouted(leg, routes),
            lambda: self._leg_ended(leg, Verdict.FAILED),
        )

    def _rerouted(self, leg: _Leg, routes: Sequence[Route]) -> None:
        self._note("lookup-remote")
        client_type = leg.route.client_type
        same_type = [route for route in routes if route.client_type == client_type]
        # Nobody is asked twice: what another leg sees to is left to it.
        seen_to = {
            other.route.address
            for other in self._legs
            if other is not leg and other.route.client_type == client_type
        }
        for route in same_type:
            if route != leg.route and route.address not in seen_to:
                leg.route = route
                self._ask_all([leg])
                return
        unchanged = leg.route in same_type
        self._leg_ended(leg, Verdict.FAILED if unchanged else Verdict.OFFLINE)

    def _leg_ended(self, leg: _Leg, verdict: Verdict, points: TimePoints = ()) -> None:
        if self._over:
            return
        self._live.discard(leg)
        self._verdicts.add(verdict)
        if self._told:
            if verdict is not Verdict.DELIVERED:
                self._sending.directory.outdated(self._user_id)
            if not self._live:
                self._let_go()
        elif verdict is Verdict.DELIVERED:
            self._tell(ResultCode.SUCCESS, points, leg)
        elif not self._live:
            offline = self._verdicts == {Verdict.OFFLINE}
            code = ResultCode.OFFLINE if offline else ResultCode.FAILURE
            self._tell(code, points, leg)

    def _time_is_up(self) -> None:
        if self._told:
            self._let_go()
            return
        unlinked = bool(self._live) and all(leg.reaching for leg in self._live)
        leg = next((one for one in self._legs if one in self._live), None)
        code = ResultCode.FAILURE if unlinked else ResultCode.TIMEOUT
        self._tell(code, (), leg)

    def _tell(
        self, code: ResultCode, points: TimePoints = (), leg: _Leg | None = None
    ) -> None:
        """
        Tell the result, once: the first end counts (C-36).

        @param points: From the answer that decided.
        @param leg: What decided.
        """
        self._time_line.extend(points)
        self._note("end")
        self._told = True
        if code is not ResultCode.SUCCESS:
            self._sending.directory.outdated(self._user_id)
        if code is not ResultCode.SUCCESS or not any(
            other.located for other in self._live
        ):
            self._let_go()
        location = leg.route if leg is not None and leg.located else None
        result = PushResult(
            code,
            self._user_id,
            tuple(self._time_line),
            location,
            self._context.trace_id,
        )
        callback = self._context.callback
        if callback is not None:
            try:
                callback(result)
            except Exception:
                self._log.failure("the callback of a push failed")
        # The callback may have cancelled it.
        if not self.finished.called:
            self.finished.callback(result)

    def _cancelled(self, finished: Deferred[PushResult]) -> None:
        self._told = True
        self._let_go()

    def _let_go(self) -> None:
        """
        Give back what a push holds: timer, look-ups, open questions.
        """
        if self._over:
            return
        self._over = True
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        for wait in list(self._waits):
            wait.cancel()
        for leg in self._live:
            if leg.link is not None:
                leg.link.forget(leg.session_id)
        self._live.clear()
        self._sending.pushes.discard(self)

    def _note(self, name: str) -> None:
        if not self._told:
            self._time_line.append((name, int(self._clock.seconds() * 1000)))
