"""
HANDSHAKE and FAST_CONNECT on a door without encryption (server 10.4).
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from mpush_tw.core.connection import Connection
from mpush_tw.core.handlers.handshake import HandshakeHandler
from mpush_tw.core.log import NodeLog
from mpush_tw.core.metrics import NodeMetrics
from mpush_tw.core.routing.router import Router
from mpush_tw.core.sessions import ReusableSessions
from mpush_tw.protocol.crypto import AesCipher, random_key
from mpush_tw.protocol.messages import Handshake, HandshakeOk
from mpush_tw.protocol.sessions import SessionRecord, new_session_id

NEVER_SECONDS = (2**31 - 1) / 1000
"""
The heartbeat of a connection that is not asked for signs of life (server 3.2).
"""


class WebHandshakeHandler(HandshakeHandler):
    """
    Opens the sessions of pages: only a device id is required, and there is no key.

    A page of the original gets an answer without a body. One that names a
    C{maxHeartbeat} gets what a device gets, but for the key: the agreed heartbeat and a
    session for FAST_CONNECT. The agreed heartbeat is the page's affair; whether it is
    alive, the server finds out by pings of the WebSocket (S-25).
    """

    def __init__(
        self,
        sessions: ReusableSessions,
        router: Router,
        clock: IReactorTime,
        log: NodeLog,
        metrics: NodeMetrics,
        min_heartbeat: float,
        max_heartbeat: float,
        secured: Callable[[Connection], None],
        check_seconds: float,
    ) -> None:
        """
        @param check_seconds: How often signs of life are looked for; it becomes the
            connection's heartbeat. 0 is never.
        """
        super().__init__(
            sessions,
            router,
            clock,
            log,
            metrics,
            min_heartbeat,
            max_heartbeat,
            secured,
        )
        self._check_ms = round((check_seconds or NEVER_SECONDS) * 1000)

    def handshake_received(
        self, connection: Connection, session_id: int, flags: int, body: object
    ) -> Deferred[None] | None:
        """
        Handle one HANDSHAKE. An exact repetition is one too many, as for the original:
        its page sends none.
        """
        message = connection.decode(Handshake, flags, body)
        return self._decide(connection, session_id, message, 0, valid=True)

    def _shake_hands(
        self, connection: Connection, session_id: int, message: Handshake, digest: int
    ) -> None:
        ticket, answer = None, HandshakeOk(b"", 0, "", 0)
        if message.max_heartbeat > 0:
            ticket = new_session_id()
            answer = HandshakeOk(
                b"",
                self.agreed_heartbeat(message.max_heartbeat),
                ticket,
                self.expire_time(),
            )
        if not connection.answer(session_id, answer):
            self._not_written(connection)
            return
        # A record has a key and an iv (protocol 7.5); nothing is sealed with these.
        cipher = AesCipher(random_key(), random_key())
        self._shaken(connection, message, cipher, self._check_ms, digest, ticket)

    def _take_over(
        self,
        connection: Connection,
        record: SessionRecord,
        heartbeat_ms: int,
        digest: int,
    ) -> None:
        super()._take_over(connection, record, self._check_ms, digest)
        connection.cipher = None
