"""
From a packet to its handler, and the error policy (server 6.2).

Which command is legal when is a table: commands across, the two states of a connection
down. BIND and UNBIND answer for themselves before the handshake, because an empty user
id is complained about first (server 8.4)::

                      HEARTBEAT  HANDSHAKE  FAST_CONNECT  BIND UNBIND  PUSH ACK HTTP
    before handshake     yes        yes         yes        (handler)     refused
    after it             yes        yes         yes           yes          yes

Every other command is answered with ERROR 101, then close.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mpush_tw.core.connection import Connection
from mpush_tw.core.log import NodeLog
from mpush_tw.core.metrics import DoorMetrics
from mpush_tw.errors import ProtocolError, Unavailable
from mpush_tw.protocol.commands import Command, ErrorCode, command_name
from mpush_tw.protocol.messages import Error

Handler = Callable[[Connection, int, int, object], "Deferred[None] | None"]
"""
C{handler(connection, session_id, flags, body)}: C{body} is as the door received it.

A handler answers through the connection. It may raise: L{ProtocolError} and everything
else end in ERROR 100 and close. A Deferred makes the connection's next packet wait.
"""


class Dispatcher:
    """
    The table of one door.
    """

    def __init__(self, log: NodeLog, metrics: DoorMetrics) -> None:
        self._log = log
        self._metrics = metrics
        self._handlers: dict[int, Handler] = {}
        self._after_handshake: set[int] = set()

    def register(
        self, cmd: Command, handler: Handler, after_handshake: bool = False
    ) -> None:
        """
        Have a command handled. The first registration stands, so that an
        embedding program can put its own in front (server 2).

        @param after_handshake: Refuse the command before the handshake (S-12).
        """
        if int(cmd) in self._handlers:
            return
        self._handlers[int(cmd)] = handler
        if after_handshake:
            self._after_handshake.add(int(cmd))

    def dispatch(
        self,
        connection: Connection,
        cmd: int,
        session_id: int,
        flags: int,
        body: object,
    ) -> Deferred[None] | None:
        """
        Handle one packet.

        @return: A Deferred that fires, never with a failure, when the next packet may
            be handled; C{None} if that is now.
        """
        handler = self._handlers.get(cmd)
        if handler is None:
            self._unsupported(connection, cmd, session_id)
            return None
        if connection.device_id is None and cmd in self._after_handshake:
            self._log.conn.error(
                "{command} before handshake, conn={conn}",
                command=command_name(cmd),
                conn=connection,
            )
            connection.answer(session_id, Error(cmd, 0, "not handshake"))
            connection.close("not-handshaken")
            return None
        try:
            waiting = handler(connection, session_id, flags, body)
        except Exception:
            self._failed(Failure(), connection, cmd, session_id)
            return None
        if waiting is not None:
            waiting.addErrback(self._failed, connection, cmd, session_id)
            if waiting.called and not waiting.paused:
                return None
        return waiting

    def _unsupported(self, connection: Connection, cmd: int, session_id: int) -> None:
        self._log.conn.error(
            "dispatch message failure, cmd={command} ({number}) unsupported, "
            "connect={conn}",
            command=command_name(cmd),
            number=cmd,
            conn=connection,
        )
        connection.answer(session_id, Error.of(cmd, ErrorCode.UNSUPPORTED_CMD))
        connection.close("unsupported-command")

    def _failed(
        self, failure: Failure, connection: Connection, cmd: int, session_id: int
    ) -> None:
        if failure.check(ProtocolError):
            self._metrics.decode_errors["body"] += 1
        if failure.check(ProtocolError, Unavailable):
            self._log.conn.error(
                "dispatch message ex, cmd={command}, sessionId={session_id}, "
                "connect={conn}, error={error}",
                command=command_name(cmd),
                session_id=session_id,
                conn=connection,
                error=failure.value,
            )
        else:
            self._log.conn.failure(
                "dispatch message ex, cmd={command}, connect={conn}",
                failure,
                command=command_name(cmd),
                conn=connection,
            )
        connection.answer(session_id, Error.of(cmd, ErrorCode.DISPATCH_ERROR))
        connection.close("handler-failed")
