"""
HANDSHAKE and FAST_CONNECT on a door with encryption (server 8.2, 8.3).
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from mpush_tw.core.connection import Connection
from mpush_tw.core.log import NodeLog
from mpush_tw.core.metrics import NodeMetrics
from mpush_tw.core.routing.router import Router
from mpush_tw.core.sessions import ReusableSessions
from mpush_tw.errors import ProtocolError, Unavailable
from mpush_tw.protocol.commands import Command, ErrorCode
from mpush_tw.protocol.crypto import (
    AES_KEY_LENGTH,
    AesCipher,
    mix_session_key,
    random_key,
)
from mpush_tw.protocol.messages import (
    Error,
    FastConnect,
    FastConnectOk,
    Handshake,
    HandshakeOk,
)
from mpush_tw.protocol.sessions import SessionRecord, new_session_id

MAX_FIELD = 1024
"""
Longest device id and description that a handshake may carry, in characters: they are
kept with the session, for a day, and must not weigh more than that.
"""

_MAX_SHARED = 4096
_MAX_SHARED_TEXT = 64


class HandshakeHandler:
    """
    Opens sessions, new ones and stored ones.
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
    ) -> None:
        """
        @param min_heartbeat: Lower bound of the agreed heartbeat, in seconds.
        @param max_heartbeat: Upper bound, in seconds.
        @param secured: Told of each connection that finished a handshake.
        """
        self._sessions = sessions
        self._router = router
        self._clock = clock
        self._log = log.conn
        self._metrics = metrics
        self._min_heartbeat_ms = int(min_heartbeat * 1000)
        self._max_heartbeat_ms = int(max_heartbeat * 1000)
        self._secured = secured
        self._texts: dict[str, str] = {}

    def agreed_heartbeat(self, client_maximum_ms: int) -> int:
        """
        Agree on a heartbeat; nonsense yields the configured minimum (server 5.3).

        @return: Milliseconds.
        """
        return max(
            self._min_heartbeat_ms, min(client_maximum_ms, self._max_heartbeat_ms)
        )

    def expire_time(self) -> int:
        """
        Tell until when a session that begins now can be taken up again, in Unix
        milliseconds.
        """
        now_ms = int(self._clock.seconds() * 1000)
        return now_ms + self._sessions.ttl_seconds * 1000

    # ------------------------------------------------------------ HANDSHAKE

    def handshake_received(
        self, connection: Connection, session_id: int, flags: int, body: object
    ) -> Deferred[None] | None:
        """
        Handle one HANDSHAKE.
        """
        digest = hash((session_id, body))
        if digest == connection.handshake_digest and connection.handshaken:
            # The answer crossed a repetition: clients 0.0.6 to 0.8.0 resend after a
            # second, and would stop for good on an ERROR (DESIGN 5a).
            return None
        message = connection.decode(Handshake, flags, body)
        if not message.client_key or len(message.client_key) < AES_KEY_LENGTH:
            raise ProtocolError("client key missing or too short")
        if message.device_id and message.iv is None:
            raise ProtocolError("iv missing")
        valid = (
            len(message.iv or b"") == AES_KEY_LENGTH
            and len(message.client_key) == AES_KEY_LENGTH
        )
        return self._decide(connection, session_id, message, digest, valid)

    def _decide(
        self,
        connection: Connection,
        session_id: int,
        message: Handshake,
        digest: int,
        valid: bool,
    ) -> Deferred[None] | None:
        """
        Accept a HANDSHAKE, or answer with what is wrong about it.

        @param valid: Whether the door finds no fault with it.
        """
        if not valid or not message.device_id or _too_long(message):
            self._metrics.handshakes["invalid"] += 1
            self._log.error(
                "handshake failure, message={message}, conn={conn}",
                message=repr(message),
                conn=connection,
            )
            connection.answer(session_id, Error(Command.HANDSHAKE, 0, "Param invalid"))
            connection.close("handshake-invalid")
            return None
        if message.device_id == connection.device_id:
            self._metrics.handshakes["repeat"] += 1
            self._log.warn(
                "handshake failure, repeat handshake, conn={conn}", conn=connection
            )
            connection.answer(
                session_id, Error.of(Command.HANDSHAKE, ErrorCode.REPEAT_HANDSHAKE)
            )
            return None
        if connection.user_id is not None:
            return Deferred.fromCoroutine(
                self._shake_hands_anew(connection, session_id, message, digest)
            )
        self._shake_hands(connection, session_id, message, digest)
        return None

    async def _shake_hands_anew(
        self, connection: Connection, session_id: int, message: Handshake, digest: int
    ) -> None:
        # Another device takes the connection over: its user is not that one (S-11).
        try:
            await self._router.unbind(connection)
        except Unavailable as error:
            # This node has let the user go; an ERROR would stop the client for good.
            self._log.error(
                "unbind before a handshake failed, conn={conn}: {error}",
                conn=connection,
                error=error,
            )
        self._shake_hands(connection, session_id, message, digest)

    def _shake_hands(
        self, connection: Connection, session_id: int, message: Handshake, digest: int
    ) -> None:
        client_key, iv = message.client_key, message.iv
        assert client_key is not None and iv is not None
        server_key = random_key()
        ticket = new_session_id()
        heartbeat_ms = self.agreed_heartbeat(message.max_heartbeat)
        connection.cipher = AesCipher(client_key, iv)
        written = connection.answer(
            session_id,
            HandshakeOk(server_key, heartbeat_ms, ticket, self.expire_time()),
        )
        if not written:
            self._not_written(connection)
            return
        # In the same turn, so that nothing is ever sealed with the first key that
        # should not be (DESIGN 5a, protocol 7.3).
        connection.cipher = AesCipher(mix_session_key(client_key, server_key), iv)
        self._shaken(
            connection, message, connection.cipher, heartbeat_ms, digest, ticket
        )

    def _not_written(self, connection: Connection) -> None:
        self._metrics.handshakes["failure"] += 1
        self._log.info("handshake failure, conn={conn}", conn=connection)

    def _shaken(
        self,
        connection: Connection,
        message: Handshake,
        cipher: AesCipher,
        heartbeat_ms: int,
        digest: int,
        ticket: str | None,
    ) -> None:
        """
        The answer is written: the connection is the device's.

        @param cipher: Goes into the session's record.
        @param ticket: Under what the session is stored; C{None} if it is not.
        """
        assert message.device_id is not None
        self._take_over(
            connection,
            SessionRecord(
                message.os_name,
                message.os_version,
                message.client_version,
                message.device_id,
                cipher,
            ),
            heartbeat_ms,
            digest,
        )
        if ticket is not None:
            storing = self._sessions.store(
                ticket,
                SessionRecord(
                    connection.os_name,
                    connection.os_version,
                    connection.client_version,
                    message.device_id,
                    cipher,
                ),
            )
            if storing is not None:
                storing.addErrback(self._not_stored, connection)
        self._metrics.handshakes["success"] += 1
        if self._log.info_on:
            self._log.info("handshake success, conn={conn}", conn=connection)

    def _not_stored(self, failure: Failure, connection: Connection) -> None:
        self._log.error(
            "session not stored, a fast connect will be refused, conn={conn}: {error}",
            conn=connection,
            error=failure.value,
        )

    # --------------------------------------------------------- FAST_CONNECT

    def fast_connect_received(
        self, connection: Connection, session_id: int, flags: int, body: object
    ) -> Deferred[None]:
        """
        Handle one FAST_CONNECT.
        """
        message = connection.decode(FastConnect, flags, body)
        return Deferred.fromCoroutine(
            self._fast_connect(connection, session_id, message)
        )

    async def _fast_connect(
        self, connection: Connection, session_id: int, message: FastConnect
    ) -> None:
        record = None
        if message.session_id:
            record = await self._sessions.find(message.session_id)
        if record is None:
            self._refuse_fast_connect(
                connection,
                session_id,
                message,
                ErrorCode.SESSION_EXPIRED,
                "session is expired",
            )
            return
        if record.device_id != message.device_id:
            self._refuse_fast_connect(
                connection,
                session_id,
                message,
                ErrorCode.INVALID_DEVICE,
                "not the same device",
            )
            return
        # A restored session knows no user; the one that is bound leaves (S-8).
        await self._router.unbind(connection)
        heartbeat_ms = self.agreed_heartbeat(message.max_heartbeat)
        if not connection.answer(session_id, FastConnectOk(heartbeat_ms)):
            self._metrics.fast_connects["failure"] += 1
            self._log.info("fast connect failure, conn={conn}", conn=connection)
            return
        connection.cipher = record.cipher
        self._take_over(connection, record, heartbeat_ms, 0)
        self._metrics.fast_connects["success"] += 1
        if self._log.info_on:
            self._log.info("fast connect success, conn={conn}", conn=connection)

    def _refuse_fast_connect(
        self,
        connection: Connection,
        session_id: int,
        message: FastConnect,
        code: ErrorCode,
        why: str,
    ) -> None:
        self._metrics.fast_connects[code.reason.replace(" ", "-")] += 1
        self._log.warn(
            "fast connect failure, {why}, deviceId={device_id}, conn={conn}",
            why=why,
            device_id=message.device_id,
            conn=connection,
        )
        connection.answer(session_id, Error.of(Command.FAST_CONNECT, code))

    # ----------------------------------------------------------------- both

    def _take_over(
        self,
        connection: Connection,
        record: SessionRecord,
        heartbeat_ms: int,
        digest: int,
    ) -> None:
        # A few operating systems and versions serve millions of phones: one text each.
        connection.os_name = self._shared(record.os_name)
        connection.os_version = self._shared(record.os_version)
        connection.client_version = self._shared(record.client_version)
        connection.device_id = record.device_id
        connection.client_type = 0
        connection.heartbeat = heartbeat_ms / 1000
        connection.missed_heartbeats = 0
        connection.handshake_digest = digest
        self._secured(connection)

    def _shared(self, text: str | None) -> str | None:
        """
        Give the one copy of a text that many devices send.
        """
        if text is None or len(text) > _MAX_SHARED_TEXT:
            return text
        if len(self._texts) >= _MAX_SHARED:
            return self._texts.get(text, text)
        return self._texts.setdefault(text, text)


def _too_long(message: Handshake) -> bool:
    return any(
        len(text or "") > MAX_FIELD
        for text in (
            message.device_id,
            message.os_name,
            message.os_version,
            message.client_version,
        )
    )
