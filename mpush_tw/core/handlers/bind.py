"""
BIND and UNBIND (server 8.4, 8.5).
"""

from __future__ import annotations

from inspect import iscoroutine

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from mpush_tw.core.connection import Connection
from mpush_tw.core.log import NodeLog
from mpush_tw.core.metrics import NodeMetrics
from mpush_tw.core.routing.router import Router
from mpush_tw.errors import Unavailable
from mpush_tw.interfaces import IBindValidator
from mpush_tw.protocol.commands import Command
from mpush_tw.protocol.messages import BindUser, Error, Ok

_VALIDATOR_SECONDS = 10.0

MAX_USER_ID = 1024
MAX_TAGS = 16384
"""
Longest user id and tags, in characters: what a stranger sends is kept, in routes and
on the connection, and must not weigh more than that.
"""


class BindHandler:
    """
    Puts users on connections and takes them off.
    """

    def __init__(
        self,
        router: Router,
        validator: IBindValidator,
        clock: IReactorTime,
        log: NodeLog,
        metrics: NodeMetrics,
    ) -> None:
        self._router = router
        self._validator = validator
        self._clock = clock
        self._log = log.conn
        self._metrics = metrics

    # ----------------------------------------------------------------- BIND

    def bind_received(
        self, connection: Connection, session_id: int, flags: int, body: object
    ) -> Deferred[None] | None:
        """
        Handle one BIND.
        """
        message = connection.decode(BindUser, flags, body)
        if not self._acceptable(connection, session_id, message, Command.BIND):
            return None
        if message.user_id == connection.user_id:
            connection.tags = message.tags
            self._metrics.binds["rebind"] += 1
            self._log.info(
                "rebind user success, userId={user_id}, session={session}",
                user_id=message.user_id,
                session=connection.context(),
            )
            connection.answer(session_id, Ok(Command.BIND, 0, "bind success"))
            return None
        return Deferred.fromCoroutine(self._bind(connection, session_id, message))

    async def _bind(
        self, connection: Connection, session_id: int, message: BindUser
    ) -> None:
        user_id = message.user_id
        assert user_id is not None
        # Silently: the answer must be that of the BIND alone (S-4).
        await self._unbind_current(connection)
        verdict = self._validator.validate(user_id, message.data)
        if iscoroutine(verdict):
            verdict = Deferred.fromCoroutine(verdict)
        if isinstance(verdict, Deferred):
            verdict = await verdict.addTimeout(_VALIDATOR_SECONDS, self._clock)
        if not connection.connected:
            # It left while the validator thought; whoever has the user keeps it.
            return
        bound = verdict is True and await self._router.bind(
            connection, user_id, message.tags
        )
        if not bound:
            # Nothing was routed for this connection, so nothing is removed (S-2).
            self._metrics.binds["refused" if verdict is not True else "failure"] += 1
            self._log.info(
                "bind user failure, userId={user_id}, session={session}",
                user_id=user_id,
                session=connection.context(),
            )
            connection.answer(session_id, Error(Command.BIND, 0, "bind failed"))
            connection.close("bind-failed")
            return
        self._metrics.binds["success"] += 1
        if self._log.info_on:
            self._log.info(
                "bind user success, userId={user_id}, session={session}",
                user_id=user_id,
                session=connection.context(),
            )
        connection.answer(session_id, Ok(Command.BIND, 0, "bind success"))

    async def _unbind_current(self, connection: Connection) -> None:
        if connection.user_id is None:
            return
        try:
            await self._router.unbind(connection)
        except Unavailable as error:
            self._log.error(
                "unbind user failure, unRegister router failure, session={session}: "
                "{error}",
                session=connection.context(),
                error=error,
            )

    # --------------------------------------------------------------- UNBIND

    def unbind_received(
        self, connection: Connection, session_id: int, flags: int, body: object
    ) -> Deferred[None] | None:
        """
        Handle one UNBIND. The user that is unbound is the connection's, whatever the
        message names (server 8.5).
        """
        message = connection.decode(BindUser, flags, body)
        if not self._acceptable(connection, session_id, message, Command.UNBIND):
            return None
        return Deferred.fromCoroutine(self._unbind(connection, session_id))

    async def _unbind(self, connection: Connection, session_id: int) -> None:
        user_id = connection.user_id
        try:
            await self._router.unbind(connection)
        except Unavailable as error:
            self._metrics.unbinds["failure"] += 1
            self._log.error(
                "unbind user failure, unRegister router failure, userId={user_id}, "
                "session={session}: {error}",
                user_id=user_id,
                session=connection.context(),
                error=error,
            )
            connection.answer(session_id, Error(Command.UNBIND, 0, "unbind failed"))
            return
        # Also without a bound user: clients that unbind twice stay (S-6).
        self._metrics.unbinds["success"] += 1
        self._log.info(
            "unbind user success, userId={user_id}, session={session}",
            user_id=user_id,
            session=connection.context(),
        )
        connection.answer(session_id, Ok(Command.UNBIND, 0, "unbind success"))

    # ----------------------------------------------------------------- both

    def _acceptable(
        self,
        connection: Connection,
        session_id: int,
        message: BindUser,
        command: Command,
    ) -> bool:
        name = command.name.lower()
        if not message.user_id or _too_long(message):
            reason = "invalid param"
            self._log.error(
                "{name} user failure for invalid param, conn={conn}",
                name=name,
                conn=connection,
            )
        elif not connection.handshaken:
            reason = "not handshake"
            self._log.error(
                "{name} user failure not handshake, userId={user_id}, conn={conn}",
                name=name,
                user_id=message.user_id,
                conn=connection,
            )
        else:
            return True
        counts = (
            self._metrics.binds if command is Command.BIND else self._metrics.unbinds
        )
        counts[reason.replace(" ", "-")] += 1
        connection.answer(session_id, Error(command, 0, reason))
        connection.close(reason.replace(" ", "-"))
        return False


def _too_long(message: BindUser) -> bool:
    return (
        len(message.user_id or "") > MAX_USER_ID or len(message.tags or "") > MAX_TAGS
    )
