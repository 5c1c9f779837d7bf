"""
The push to one user, from the look-up of its routes to the result.

The ladder of outcomes (cluster 7.6, DESIGN 5c), with every route asked at once:

  - one gateway delivered: success, whatever the others say;
  - all answered and all say offline, or there was no route: offline;
  - all answered, some say that the user is elsewhere: look up again, at most three
    times and within the same time-out (C-41); failure if the routes are the old ones;
  - all answered in any other mix, a lost or missing connection counting as an answer:
    failure. A gateway that could not be asked might have had the user;
  - time is up: time-out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mpush_tw.errors import Unavailable
from mpush_tw.protocol.commands import Command
from mpush_tw.protocol.gateway import GatewayPush, TimePoints
from mpush_tw.protocol.packet import encode_packet
from mpush_tw.sender._link import Answer, GatewayLink, GatewayPool, Verdict
from mpush_tw.sender.context import PushContext
from mpush_tw.sender.directory import ANY_CLIENT_TYPE, IGatewayDirectory, Route
from mpush_tw.sender.result import PushResult, ResultCode

MAX_PENDING = 100_000
"""
Questions open on all connections together; pushes above it fail at once.
"""

MAX_REDIRECTS = 3
_ANSWER_RESERVE_MS = 500
"""
What a gateway gets less than the sender itself waits (cluster 7.5).
"""


class UserPush:
    """
    One user's push under way. It keeps the payload until it is finished (C-35).

    @ivar finished: Fires with the result. Cancelling it gives the push up: what has
        been written is delivered all the same.
    """

    _log = Logger()

    def __init__(
        self,
        context: PushContext,
        user_id: str,
        payload: bytes,
        directory: IGatewayDirectory,
        pool: GatewayPool,
        clock: Any,
        next_session_id: Callable[[], int],
    ) -> None:
        self._context = context
        self._user_id = user_id
        self._payload = payload
        self._directory = directory
        self._pool = pool
        self._clock = clock
        self._next_session_id = next_session_id
        self._time_line: list[tuple[str, int]] = []
        self._open: dict[int, GatewayLink] = {}
        self._asking = False
        self._verdicts: list[Verdict] = []
        self._routes: Sequence[Route] = ()
        self._redirects = 0
        self._lookup: Deferred[Any] | None = None
        self._done = False
        self.finished: Deferred[PushResult] = Deferred(self._cancelled)

    def start(self) -> None:
        """
        Set the time-out and ask.
        """
        self._deadline = self._clock.callLater(
            self._context.timeout, self._finish, ResultCode.TIMEOUT
        )
        self._look_up()

    def fail(self) -> None:
        """
        End as a failure, if not ended yet: the sender stops.
        """
        self._finish(ResultCode.FAILURE)

    # ---------------------------------------------------------------- asking

    def _look_up(self) -> None:
        self._note("begin")
        lookup = maybeDeferred(self._directory.routes, self._user_id)
        self._lookup = lookup
        lookup.addCallback(self._routes_found)
        lookup.addErrback(self._lookup_failed)

    def _routes_found(self, routes: Sequence[Route]) -> None:
        self._lookup = None
        if self._done:
            return
        self._note("lookup-remote")
        if not routes:
            self._finish(ResultCode.OFFLINE)
        elif self._redirects and set(routes) == set(self._routes):
            self._finish(ResultCode.FAILURE)
        elif self._pool.pending + len(routes) > MAX_PENDING:
            self._log.warn("{limit} pushes are pending, one fails", limit=MAX_PENDING)
            self._finish(ResultCode.FAILURE)
        else:
            self._routes = routes
            self._ask_all()

    def _lookup_failed(self, failure: Failure) -> None:
        self._lookup = None
        if self._done and failure.check(CancelledError):
            return
        if failure.check(Unavailable):
            self._log.error("no routes: {error}", error=failure.value)
        else:
            self._log.failure("push to a user broke off", failure)
        self._finish(ResultCode.FAILURE)

    def _ask_all(self) -> None:
        self._asking = True
        self._verdicts.clear()
        self._note("check-gateway-conn")
        links = [(route, self._pool.choose(route.address)) for route in self._routes]
        self._note("send-to-gateway-begin")
        for route, link in links:
            if self._done:
                return
            if link is None or not self._ask(route, link):
                self._log.debug(
                    "get gateway connection failure, {host}:{port}",
                    host=route.host,
                    port=route.port,
                )
                self._verdicts.append(Verdict.FAILED)
        self._note("send-to-gateway-end")
        self._asking = False
        self._decide(())

    def _ask(self, route: Route, link: GatewayLink) -> bool:
        session_id = self._next_session_id()

        def answered(answer: Answer) -> None:
            del self._open[session_id]
            self._answered(route, answer)

        self._open[session_id] = link
        if link.ask(session_id, self._packet(session_id, route), answered):
            return True
        del self._open[session_id]
        return False

    def _packet(self, session_id: int, route: Route) -> bytes:
        left = self._deadline.getTime() - self._clock.seconds()
        body = GatewayPush(
            self._user_id,
            route.client_type,
            max(1, round(left * 1000) - _ANSWER_RESERVE_MS),
            self._payload,
        ).encode()
        ack = int(self._context.ack)
        return encode_packet(Command.GATEWAY_PUSH, session_id, ack, body)

    # --------------------------------------------------------------- deciding

    def _answered(self, route: Route, answer: Answer) -> None:
        if answer.verdict is Verdict.DELIVERED:
            located = route.client_type != ANY_CLIENT_TYPE
            self._finish(ResultCode.SUCCESS, answer.points, route if located else None)
            return
        self._verdicts.append(answer.verdict)
        self._decide(answer.points)

    def _decide(self, points: TimePoints) -> None:
        """
        End, or go round again, if nobody is left to answer.

        @param points: From the answer that came last.
        """
        if self._done or self._asking or self._open:
            return
        said = set(self._verdicts)
        if said == {Verdict.OFFLINE}:
            self._finish(ResultCode.OFFLINE, points)
        elif Verdict.ELSEWHERE in said and self._redirects < MAX_REDIRECTS:
            self._redirects += 1
            self._directory.outdated(self._user_id)
            self._note("redirect")
            self._look_up()
        else:
            self._finish(ResultCode.FAILURE, points)

    def _finish(
        self,
        code: ResultCode,
        points: TimePoints = (),
        location: Route | None = None,
    ) -> None:
        """
        Tell the result, once: the first end counts (C-36).
        """
        if self._done:
            return
        self._let_go()
        self._time_line.extend(points)
        self._note("end")
        if code is not ResultCode.SUCCESS:
            self._directory.outdated(self._user_id)
        result = PushResult(code, self._user_id, tuple(self._time_line), location)
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
        self._let_go()

    def _let_go(self) -> None:
        """
        Give back what an unfinished push holds: timer, look-up, open questions.
        """
        self._done = True
        if self._deadline.active():
            self._deadline.cancel()
        if self._lookup is not None:
            self._lookup.cancel()
        for session_id, link in self._open.items():
            link.forget(session_id)
        self._open.clear()

    def _note(self, name: str) -> None:
        self._time_line.append((name, int(self._clock.seconds() * 1000)))
