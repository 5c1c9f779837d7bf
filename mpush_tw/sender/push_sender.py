"""
The sender: what business code talks to (cluster 7).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import (
    CancelledError,
    Deferred,
    TimeoutError,
    fail,
    succeed,
)
from twisted.internet.task import deferLater
from twisted.logger import Logger

from mpush_tw.broadcast_task import BroadcastTask, IBroadcastTask
from mpush_tw.errors import PushError, Unavailable
from mpush_tw.protocol.packet import DEFAULT_MAX_BODY
from mpush_tw.sender._batch import Batch, Progress
from mpush_tw.sender._broadcast import BroadcastPush
from mpush_tw.sender._link import GatewayPool
from mpush_tw.sender._pool import CONNECT_TIMEOUT, IGatewayPool
from mpush_tw.sender._queries import QUERY_TIMEOUT, Queries
from mpush_tw.sender._questions import GatewayTask, count_audience, trace_of
from mpush_tw.sender._request import Sending, UserPush
from mpush_tw.sender.audience import AudienceCount, BroadcastResult, Wait
from mpush_tw.sender.context import (
    PushContext,
    check_audience,
    check_id,
    check_order,
    everybody,
    several_users,
    single_user,
)
from mpush_tw.sender.directory import Address, IGatewayDirectory, StaticGateways
from mpush_tw.sender.result import AggregateResult, PushResult
from mpush_tw.sender.trace import Trace

_LAST_SESSION_ID = 2**31 - 1


class PushSender:
    """
    Pushes to users through the gateways of the nodes.

    In standalone mode the gateways are given by address and each is asked for every
    user (DESIGN 5c). In a cluster a directory knows them; L{mpush_tw.cluster} makes
    such a sender from a configuration file. Not thread-safe: call it in the reactor's
    thread, or use L{mpush_tw.sender.blocking}.
    """

    _log = Logger()

    def __init__(
        self,
        gateways: Sequence[Address] | IGatewayDirectory,
        *,
        reactor: Any,
        max_packet_size: int = DEFAULT_MAX_BODY,
        connections_per_gateway: int = 1,
        make_pool: Callable[[], IGatewayPool] | None = None,
    ) -> None:
        """
        @param gateways: Host and port of each gateway, or who knows them.
        @param reactor: Provides C{IReactorTCP} and C{IReactorTime}.
        @param max_packet_size: C{mp.core.max-packet-size} of the nodes, in bytes.
        @param make_pool: Makes the links to the gateways for one start; C{None} for
            C{connections_per_gateway} TCP connections to each.
        @raise PushError: If there is no gateway, or a number below 1.
        """
        if max_packet_size < 1 or connections_per_gateway < 1:
            raise PushError("max_packet_size and connections_per_gateway start at 1")
        self._directory: Any = (
            gateways
            if IGatewayDirectory.providedBy(gateways)
            else StaticGateways(gateways)
        )
        self._reactor = reactor
        self._max_packet_size = max_packet_size
        self._make_pool = make_pool or (
            lambda: GatewayPool(reactor, max_packet_size, connections_per_gateway)
        )
        self._session_id = 0
        self._sending: Sending | None = None
        self._connecting: Deferred[None] = succeed(None)
        self._closing = False

    @property
    def pending(self) -> int:
        """
        How many pushes are under way, to a user or to everybody.
        """
        return 0 if self._sending is None else len(self._sending.pushes)

    # ------------------------------------------------------------ start, stop

    def start(self) -> Deferred[None]:
        """
        Connect to the gateways, and stay connected until L{stop}.

        @return: A Deferred firing when the first gateway is connected, if they are
            given by address. It fails with L{Unavailable} when none is after 4 seconds.

            In a cluster it fires when each gateway that was found is connected or could
            not be, after 4 seconds at the latest; there may be none yet. It fails with
            L{Unavailable} when the stores of the cluster cannot be reached.

            After a failure the sender is stopped and may be started again. It fails
            with L{PushError} on a second start, and if it is stopped meanwhile.
        """
        if self._sending is not None:
            return fail(PushError("the sender is started already"))
        if self._closing:
            return fail(PushError("the sender is still being stopped"))
        return Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        pool = self._make_pool()
        queries = Queries(
            pool.query, self._next_session_id, self._reactor, self._max_packet_size
        )
        sending = self._sending = Sending(
            self._directory,
            pool,
            self._reactor,
            self._next_session_id,
            queries,
            self._max_packet_size,
        )
        self._connecting = Deferred.fromCoroutine(self._connect(sending.pool))
        try:
            await self._connecting
        except BaseException as error:
            if self._sending is sending:
                await self._close(sending)
            elif isinstance(error, CancelledError):
                raise PushError("the sender was stopped") from None
            raise

    async def _connect(self, pool: IGatewayPool) -> None:
        pool.start()
        await self._directory.start(pool.set_gateways)
        fixed = self._directory.fixed
        connected = pool.opened() if fixed else pool.settled()
        connected.addTimeout(CONNECT_TIMEOUT, self._reactor)
        try:
            await connected
        except TimeoutError:
            if fixed:
                raise Unavailable(
                    f"no gateway could be connected in {CONNECT_TIMEOUT:g} seconds"
                ) from None
        # A turn of its own, for a caller who stops at once.
        await deferLater(self._reactor, 0)

    def stop(self) -> Deferred[None]:
        """
        Close the connections. Pushes under way end as failures.

        @return: A Deferred firing when all is closed, after 4 seconds at the latest
            for the gateways.
        """
        sending = self._sending
        if sending is None:
            return succeed(None)
        self._sending = None
        self._closing = True
        # First, so that nothing is started behind what stops.
        self._connecting.cancel()
        return Deferred.fromCoroutine(self._close(sending))

    async def _close(self, sending: Sending) -> None:
        self._sending = None
        self._closing = True
        try:
            sending.queries.stop()
            # The connections first: the rest of a list must not go out on them now.
            stopped = sending.pool.stop()
            for push in [*sending.batches, *sending.pushes]:
                push.fail()
            await stopped
            await self._directory.stop()
        except Exception:
            self._log.failure("the sender did not stop in order")
        finally:
            self._closing = False

    # ---------------------------------------------------------------- sending

    def send(self, context: PushContext) -> Deferred[PushResult]:
        """
        Push to C{context.user_id}.

        @return: A Deferred firing with the result, whatever it is, within
            C{context.timeout}. It fails with L{PushError}, before anything is sent,
            if the context cannot be pushed or the sender is not started.
        """
        try:
            user_id = single_user(context)
            sending, payload = self._accept(context, [user_id])
        except PushError as error:
            return fail(error)
        return self._push(context, user_id, payload, sending)

    def send_all(
        self, context: PushContext, progress: Progress | None = None
    ) -> Deferred[AggregateResult]:
        """
        Push to each of C{context.user_ids}, 100000 at most; see L{batch}.

        @return: A Deferred firing with one result for each user. Cancelled, it fires
            with those that there are. It fails with L{PushError}, before anything is
            sent, if the push to any of them would be refused.
        """
        try:
            return self.batch(context, progress).finished
        except PushError as error:
            return fail(error)

    def batch(self, context: PushContext, progress: Progress | None = None) -> Batch:
        """
        Push to each of C{context.user_ids}, 100000 at most, and watch it being done.

        Each gateway has its own stream, of 1000 pushes under way at most. The time-out
        runs for each user from the moment when its push is sent.

        @param progress: Called with the number of pushes that have ended, the number of
            users, and how many ended with each code: four times a second at most, while
            there is something new, and at the end.
        @raise PushError: If the push to any of them would be refused, before anything
            is sent.
        """
        users = several_users(context)
        sending, payload = self._accept(context, users)
        batch = Batch(context, users, payload, sending, progress)
        batch.start()
        return batch

    def broadcast(
        self, context: PushContext, wait: Wait = Wait.ALL
    ) -> Deferred[BroadcastResult]:
        """
        Push to everybody who is online, at every gateway that is known; or to those
        that C{context.tags} or C{context.condition} pick.

        A node sends no more than its flow control allows: 3000 a second, or what the
        task says, 1000 if nothing; and 100000 in all, unless it is set otherwise.

        @param wait: What for. With a task id as well the default is to wait for all
            (C-45).
        @return: A Deferred firing with what became of it, within C{context.timeout}. It
            fails with L{PushError}, before anything is sent, if the context cannot be
            pushed or the sender is not started.
        """
        try:
            everybody(context)
            sending, payload = self._accept(context, ())
        except PushError as error:
            return fail(error)
        push = BroadcastPush(context, payload, sending, wait)
        push.start()
        return push.finished

    # ----------------------------------------------------------------- asking

    def count(
        self,
        condition: str | None = None,
        tags: Sequence[str] | None = None,
        timeout: float = QUERY_TIMEOUT,
    ) -> Deferred[AudienceCount]:
        """
        Ask whom a broadcast would reach now, without sending anything (a dry run).

        @param condition: As that of a context, like C{tags}.
        @param timeout: Seconds that each gateway has.
        @return: A Deferred firing with what each gateway says. Nodes of the original
            cannot tell. It fails with L{PushError}, before any is asked, if the
            condition or the tags cannot be used or the sender is not started.
        """

        async def ask() -> AudienceCount:
            check_audience(condition, tags)
            sending = self._started()
            return await count_audience(
                sending.queries, sending.pool.addresses, condition, tags, timeout
            )

        return Deferred.fromCoroutine(ask())

    def trace(self, trace_id: str, timeout: float = QUERY_TIMEOUT) -> Deferred[Trace]:
        """
        Ask what became of pushes that carried an id, or of a broadcast with this task.

        @param timeout: Seconds that each gateway has.
        @return: A Deferred firing with what the nodes remember. It fails with
            L{PushError} if that can be no id or the sender is not started.
        """

        async def ask() -> Trace:
            check_id("trace_id", trace_id, required=True)
            sending = self._started()
            return await trace_of(
                sending.queries, sending.pool.addresses, trace_id, timeout
            )

        return Deferred.fromCoroutine(ask())

    def task(self, task_id: str, timeout: float = QUERY_TIMEOUT) -> IBroadcastTask:
        """
        Give the control of a broadcast with a task id: through the store of a cluster,
        or by asking each gateway.

        @param timeout: Seconds that each gateway has.
        @raise PushError: If that can be no id, or the sender is not started.
        """
        check_id("task_id", task_id, required=True)
        sending = self._started()
        cache = self._directory.cache
        task: IBroadcastTask = (
            GatewayTask(
                task_id, sending.queries, lambda: sending.pool.addresses, timeout
            )
            if cache is None
            else BroadcastTask(cache, task_id)
        )
        return task

    # ---------------------------------------------------------------- common

    def _started(self) -> Sending:
        if self._sending is None:
            raise PushError("the sender is not started")
        return self._sending

    def _accept(
        self, context: PushContext, users: Sequence[str]
    ) -> tuple[Sending, bytes]:
        payload = context.payload()
        check_order(context, payload, users, self._max_packet_size)
        return self._started(), payload

    def _push(
        self, context: PushContext, user_id: str, payload: bytes, sending: Sending
    ) -> Deferred[PushResult]:
        push = UserPush(context, user_id, payload, sending)
        push.start()
        return push.finished

    def _next_session_id(self) -> int:
        self._session_id = self._session_id % _LAST_SESSION_ID + 1
        return self._session_id
