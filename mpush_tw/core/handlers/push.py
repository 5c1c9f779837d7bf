"""
PUSH from a device, and ACK (server 8.6, 8.7).
"""

from __future__ import annotations

from inspect import iscoroutine

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from mpush_tw.core.connection import Connection
from mpush_tw.core.log import NodeLog
from mpush_tw.core.metrics import NodeMetrics
from mpush_tw.core.push.centre import PushCentre
from mpush_tw.errors import Unavailable
from mpush_tw.interfaces import IUpstreamHandler, UpstreamMessage
from mpush_tw.protocol.commands import Flag

_HANDLER_SECONDS = 10.0
_AUTO_ACK = int(Flag.AUTO_ACK)


class PushHandler:
    """
    Hands upstream messages to the provider and acknowledgements to the push centre.
    """

    def __init__(
        self,
        upstream: IUpstreamHandler,
        centre: PushCentre,
        clock: IReactorTime,
        log: NodeLog,
        metrics: NodeMetrics,
    ) -> None:
        self._upstream = upstream
        self._centre = centre
        self._clock = clock
        self._log = log.push
        self._metrics = metrics

    def push_received(
        self, connection: Connection, session_id: int, flags: int, body: object
    ) -> Deferred[None] | None:
        """
        Handle one PUSH from a device.
        """
        message = UpstreamMessage(
            connection.id,
            connection.device_id,
            connection.user_id,
            connection.tags,
            connection.os_name,
            connection.client_version,
            session_id,
            connection.decode_content(flags, body),
            flags,
        )
        if self._log.info_on:
            self._log.info(
                "receive client push message={size} bytes, conn={conn}",
                size=len(message.content),
                conn=connection,
            )
        try:
            waiting = self._upstream.message_received(message)
        except Exception:
            self._refused(Failure(), connection)
            return None
        if iscoroutine(waiting):
            waiting = Deferred.fromCoroutine(waiting)
        if not isinstance(waiting, Deferred):
            self._accepted(None, connection, message)
            return None
        waiting.addTimeout(_HANDLER_SECONDS, self._clock)
        return waiting.addCallbacks(
            self._accepted, self._refused, (connection, message), {}, (connection,)
        )

    def _accepted(
        self, result: None, connection: Connection, message: UpstreamMessage
    ) -> None:
        self._metrics.upstream["accepted"] += 1
        if message.flags & _AUTO_ACK:
            connection.send_ack(message.session_id)
            if self._log.info_on:
                self._log.info(
                    "send ack for push message={session_id}, conn={conn}",
                    session_id=message.session_id,
                    conn=connection,
                )

    def _refused(self, failure: Failure, connection: Connection) -> None:
        self._metrics.upstream["failed"] += 1
        if failure.check(Unavailable, TimeoutError):
            # Whatever it needs is away, and devices go on pushing.
            self._log.error(
                "upstream message refused, conn={conn}: {error}",
                conn=connection,
                error=failure.value
                if failure.check(Unavailable)
                else f"no answer in {_HANDLER_SECONDS:g} seconds",
            )
            return
        self._log.failure(
            "upstream handler failed, conn={conn}", failure, conn=connection
        )

    def ack_received(
        self, connection: Connection, session_id: int, flags: int, body: object
    ) -> None:
        """
        Handle one ACK; its body, should there be one, means nothing (protocol 10.9).
        """
        self._centre.acknowledged(connection, session_id)
