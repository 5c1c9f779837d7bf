"""
The push centre of a node.

The ladder of a single-user push (server 14.2), from the top::

    no content                        -> FAILURE   (D15: a device must never get it)
    no local connection               -> remote route: none, offline or this node
                                                   -> OFFLINE
                                         other node -> REDIRECT
    its buffer is over the high mark  -> FAILURE   (too busy)
    the window of flow control is full -> waits in line, or TIMEOUT when too late
    the write failed                  -> FAILURE
    written, no ack wanted            -> SUCCESS
    written, the device acknowledged  -> ACK_SUCCESS
    written, no ack in time           -> TIMEOUT
    written, connection ended         -> FAILURE

Every request ends exactly once, and its listener is told.
"""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from mpush_tw.core.connection import Connection
from mpush_tw.core.flow import GlobalFlow, OverMaximum
from mpush_tw.core.log import NodeLog
from mpush_tw.core.metrics import NodeMetrics
from mpush_tw.core.push.acks import PendingAcks
from mpush_tw.core.push.broadcast_centre import BroadcastCentre
from mpush_tw.core.push.message_ids import MessageIds
from mpush_tw.core.push.request import Outcome, PushRequest
from mpush_tw.core.push.traces import Traces
from mpush_tw.core.routing.local import LocalRoutes
from mpush_tw.core.routing.remote import NodeIdentity, RemoteRoutes
from mpush_tw.core.wheel import TimingWheel
from mpush_tw.errors import Unavailable
from mpush_tw.interfaces import IPushListener
from mpush_tw.protocol.gateway import TimePoints
from mpush_tw.protocol.routes import RemoteRoute

_FALLBACK_ACK_SECONDS = 3.0
_MAX_DELAYED = 100_000
_MAX_DELAYED_BYTES = 64 << 20
_MAX_TIMEOUT_MS = 600_000
"""
Longest time-out that is granted: a push that nobody acknowledges is not remembered for
days because its sender said so.
"""


class PushCentre:
    """
    Takes push requests and sees each to its end.
    """

    def __init__(
        self,
        identity: NodeIdentity,
        local: LocalRoutes,
        remote: RemoteRoutes,
        flow: GlobalFlow,
        wheel: TimingWheel,
        clock: IReactorTime,
        log: NodeLog,
        metrics: NodeMetrics,
        ids: MessageIds,
        broadcasts: BroadcastCentre,
        traces: Traces,
    ) -> None:
        self._identity = identity
        self._local = local
        self._remote = remote
        self._flow = flow
        self._clock = clock
        self._seconds = clock.seconds
        self._push_log = log.push
        self._metrics = metrics
        self.acks = PendingAcks(wheel, self._ack_timed_out)
        self.next_message_id = ids.next
        self.broadcasts = broadcasts
        self.traces = traces
        self._delayed: deque[PushRequest] = deque()
        self._delayed_bytes = 0
        self._delayed_call: IDelayedCall | None = None

    @property
    def delayed(self) -> int:
        """
        How many requests wait for flow control.
        """
        return len(self._delayed)

    def push(self, request: PushRequest) -> None:
        """
        Accept a request. Its listener may be told before this returns.
        """
        now = self._seconds()
        request.started = now
        request.timeout_ms = min(request.timeout_ms, _MAX_TIMEOUT_MS)
        request.points.append(("push-center-begin", int(now * 1000)))
        self._metrics.pushes_new += 1
        if not request.content:
            self._finish(request, Outcome.FAILURE)
        elif request.user_id is None:
            self.broadcasts.begin(request)
        else:
            self._find_and_attempt(request, request.user_id)

    def acknowledged(self, connection: Connection, message_id: int) -> None:
        """
        A device acknowledged a message; called for each ACK packet.
        """
        request = self.acks.acknowledged(connection, message_id)
        if request is None:
            self._metrics.late_acks += 1
            if self._push_log.debug_on:
                self._push_log.debug(
                    "receive client ack, but task timeout message={message_id}",
                    message_id=message_id,
                )
            return
        self._metrics.ack_seconds.observe(self._seconds() - request.started)
        self._finish(request, Outcome.ACK_SUCCESS)

    def connection_lost(self, connection: Connection) -> None:
        """
        A connection ended: nobody will acknowledge what was sent to it (S-13).
        """
        for request in self.acks.abandon(connection):
            self._finish(request, Outcome.FAILURE)

    def stop(self) -> None:
        """
        Give up what waits for flow control, and broadcasts; each ends as failure.
        """
        self.broadcasts.stop()
        if self._delayed_call is not None:
            self._delayed_call.cancel()
            self._delayed_call = None
        while self._delayed:
            self._finish(self._delayed.popleft(), Outcome.FAILURE)

    # ----------------------------------------------------------- the ladder

    def _find_and_attempt(self, request: PushRequest, user_id: str) -> None:
        if request.client_type == 0:
            self._push_to_all_types(request, user_id)
        else:
            self._attempt(request, self._local.lookup(user_id, request.client_type))

    def _attempt(self, request: PushRequest, connection: Connection | None) -> None:
        if connection is None:
            self._without_connection(request)
            return
        if not connection.connected:
            self._push_log.warn(
                "[SingleUserPush] find local router but conn disconnected, "
                "message={message}",
                message=request,
            )
            assert request.user_id is not None
            self._local.unregister(connection, request.user_id)
            self._without_connection(request)
            return
        if connection.busy:
            self._push_log.error(
                "[SingleUserPush] push message to client failure, tcp sender too busy, "
                "message={message}, conn={conn}",
                message=request,
                conn=connection,
            )
            self._finish(request, Outcome.FAILURE)
            return
        try:
            allowed = self._flow.acquire()
        except OverMaximum as error:
            self._push_log.error(
                "push refused by flow control: {error}, message={message}",
                error=error,
                message=request,
            )
            self._finish(request, Outcome.FAILURE)
            return
        if allowed:
            self._send(request, connection)
        else:
            self._delay(request)

    def _send(self, request: PushRequest, connection: Connection) -> None:
        now = self._seconds()
        request.points.append(("before-send", int(now * 1000)))
        message_id = self.next_message_id()
        flags = request.flags
        content = request.content
        assert content is not None
        if not flags:
            if not connection.send_push(message_id, 0, content):
                self._finish(request, Outcome.FAILURE)
                return
            self._note_written(request)
            if (self._seconds() - request.started) * 1000 > request.timeout_ms:
                self._finish(request, Outcome.TIMEOUT)
            else:
                self._finish(request, Outcome.SUCCESS)
            return
        remaining = request.timeout_ms / 1000 - (now - request.started)
        if remaining <= 0:
            remaining = _FALLBACK_ACK_SECONDS
        pending = self.acks.register(request, connection, message_id, remaining)
        request.points.append(("waiting-ack", int(now * 1000)))
        if connection.send_push(message_id, flags, content):
            # The content has been handed over; the wait needs only the rest.
            request.content = None
            self._note_written(request)
        else:
            self.acks.forget(pending)
            request.points.pop()
            self._finish(request, Outcome.FAILURE)

    def _note_written(self, request: PushRequest) -> None:
        if request.task_id is not None:
            request.points.append(("written", int(self._seconds() * 1000)))

    def _without_connection(self, request: PushRequest) -> None:
        waiting = Deferred.fromCoroutine(self._ask_remote(request))
        waiting.addErrback(
            lambda failure: self._push_log.failure("push centre", failure)
        )

    async def _ask_remote(self, request: PushRequest) -> None:
        user_id, client_type = request.user_id, request.client_type
        assert user_id is not None
        log = self._push_log
        try:
            route = await self._remote.find(user_id, client_type)
        except Exception as error:
            # Whatever the store did, the sender is told (S-16).
            log.error(
                "remote route not readable, message={message}: {error}",
                message=request,
                error=error,
            )
            self._finish(request, Outcome.FAILURE)
            return
        if route is None or not route.online:
            if log.info_on:
                log.info(
                    "[SingleUserPush] remote router not exists user offline, "
                    "message={message}",
                    message=request,
                )
            self._finish(request, Outcome.OFFLINE)
        elif (route.host, route.port) != (self._identity.host, self._identity.port):
            if log.info_on:
                log.info(
                    "[SingleUserPush] find router in another pc, userId={user_id}, "
                    "clientType={client_type}, router={router}",
                    user_id=user_id,
                    client_type=client_type,
                    router=route,
                )
            self._finish(request, Outcome.REDIRECT)
        else:
            if log.info_on:
                log.info(
                    "[SingleUserPush] find remote router in this pc, but local router "
                    "not exists, userId={user_id}, clientType={client_type}, "
                    "router={router}",
                    user_id=user_id,
                    client_type=client_type,
                    router=route,
                )
            self._finish(request, Outcome.OFFLINE)
            if self._local.lookup(user_id, client_type) is None:
                await self._forget_route(user_id, client_type, route)

    async def _forget_route(
        self, user_id: str, client_type: int, route: RemoteRoute
    ) -> None:
        try:
            await self._remote.mark_offline(user_id, client_type, route)
        except Unavailable as error:
            self._push_log.error(
                "stale route of {user_id} stays: {error}", user_id=user_id, error=error
            )

    def _push_to_all_types(self, request: PushRequest, user_id: str) -> None:
        connections = self._local.lookup_all(user_id)
        if not connections:
            self._finish(request, Outcome.OFFLINE)
            return
        if len(connections) == 1:
            self._attempt(request, connections[0])
            return
        parts = _Parts(self, request, len(connections))
        for connection in connections:
            part = PushRequest(
                user_id,
                connection.client_type,
                request.timeout_ms,
                request.content,
                None,
                None,
                None,
                request.flags,
                parts,
            )
            part.started = request.started
            part.points = list(request.points)
            self._attempt(part, connection)

    def finish_parts(
        self, request: PushRequest, outcome: Outcome, points: TimePoints
    ) -> None:
        """
        End a push to all types with the outcome that its parts have settled.
        """
        request.points = list(points)
        self._count(request, outcome, self._seconds())
        if request.task_id is not None:
            self.traces.note(request, outcome)
        request.listener.push_finished(request, outcome, request.points)

    def _count(self, request: PushRequest, outcome: Outcome, now: float) -> None:
        self._metrics.push_results[outcome.value] += 1
        self._metrics.push_seconds.observe(now - request.started)

    # -------------------------------------------------------- flow control

    def _delay(self, request: PushRequest) -> None:
        size = len(request.content or b"")
        if (
            len(self._delayed) >= _MAX_DELAYED
            or self._delayed_bytes + size > _MAX_DELAYED_BYTES
        ):
            self._push_log.error(
                "flow control has {count} pushes waiting, message={message} refused",
                count=len(self._delayed),
                message=request,
            )
            self._finish(request, Outcome.FAILURE)
            return
        self._metrics.pushes_requeued += 1
        if request.task_id is not None and request.points[-1][0] != "delayed":
            request.points.append(("delayed", int(self._seconds() * 1000)))
        self._delayed.append(request)
        self._delayed_bytes += size
        if self._delayed_call is None:
            self._delayed_call = self._clock.callLater(
                self._flow.delay() + 0.001, self._retry_delayed
            )

    def _retry_delayed(self) -> None:
        self._delayed_call = None
        waiting, self._delayed = self._delayed, deque()
        self._delayed_bytes = 0
        now = self._seconds()
        while waiting:
            request = waiting.popleft()
            assert request.user_id is not None
            if (now - request.started) * 1000 > request.timeout_ms:
                if self._push_log.info_on:
                    self._push_log.info(
                        "[SingleUserPush] push message to client timeout, "
                        "timeLine={points}, message={message}",
                        points=request.points,
                        message=request,
                    )
                self._finish(request, Outcome.TIMEOUT)
                continue
            self._find_and_attempt(request, request.user_id)
            if self._delayed:
                # The window is full again: the rest keeps its place in line.
                self._delayed.extend(waiting)
                self._delayed_bytes += sum(len(one.content or b"") for one in waiting)
                break

    # -------------------------------------------------------------- the end

    def _ack_timed_out(self, request: PushRequest) -> None:
        self._push_log.warn(
            "[SingleUserPush] client ack timeout, timeLine={points}, task={message}",
            points=request.points,
            message=request,
        )
        self._finish(request, Outcome.TIMEOUT)

    def _finish(self, request: PushRequest, outcome: Outcome) -> None:
        now = self._seconds()
        points = request.points
        points.append((outcome.milestone, int(now * 1000)))
        if type(request.listener) is not _Parts:
            # The parts of a push to all devices are counted as the one push they are.
            self._count(request, outcome, now)
            if request.task_id is not None:
                self.traces.note(request, outcome)
        if self._push_log.info_on and outcome in _DELIVERED:
            self._push_log.info(
                "[SingleUserPush] {what} success, timeLine={points}, message={message}",
                what=_DELIVERED[outcome],
                points=points,
                message=request,
            )
        request.listener.push_finished(request, outcome, points)


_DELIVERED = {
    Outcome.SUCCESS: "push message to client",
    Outcome.ACK_SUCCESS: "client ack",
}


@implementer(IPushListener)
class _Parts:
    """
    Listens to the parts of a push to all of a user's devices (DESIGN 5c).

    The first success decides; without one, the best of what the others came to: failure
    before time-out before offline.
    """

    _RANK = (Outcome.FAILURE, Outcome.TIMEOUT)

    def __init__(self, centre: PushCentre, request: PushRequest, count: int) -> None:
        self._centre = centre
        self._request = request
        self._left = count
        self._done = False
        self._ended: dict[Outcome, TimePoints] = {}

    def push_finished(
        self, request: PushRequest, outcome: Outcome, points: TimePoints
    ) -> None:
        self._left -= 1
        if self._done:
            return
        if outcome in _DELIVERED:
            self._done = True
            self._centre.finish_parts(self._request, outcome, points)
            return
        self._ended[outcome] = points
        if self._left == 0:
            self._done = True
            for worst in self._RANK:
                if worst in self._ended:
                    self._centre.finish_parts(self._request, worst, self._ended[worst])
                    return
            self._centre.finish_parts(self._request, Outcome.OFFLINE, points)
