"""
The user of a client: who it should be, and who it is on the current connection.

Where the rules are: clients 2.9 and 10.3, 11 and 16.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mpush_tw.client._connection import Connection
from mpush_tw.client.errors import (
    ClientError,
    Disconnected,
    Refused,
    Superseded,
    TimedOut,
    TooManyPending,
)
from mpush_tw.client.listener import IClientListener
from mpush_tw.client.settings import BindData, ClientSettings
from mpush_tw.protocol.commands import Command
from mpush_tw.protocol.messages import BindUser


class Identity(NamedTuple):
    """
    Whom to bind, with what.
    """

    user_id: str
    tags: str | None = None
    data: BindData | None = None


class _Bind:
    """
    One bind, and the callers that wait for it.

    @ivar sent: Whether the packet has gone out. Before that it may wait for the token.
    @ivar accepted: Whether the server said OK.
    @ivar error: Why it failed, if it did.
    """

    __slots__ = ("_waiting", "accepted", "error", "identity", "sent")

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.sent = False
        self.accepted = False
        self.error: Exception | None = None
        self._waiting: list[Deferred[None]] = []

    def wait(self, limit: int) -> Deferred[None]:
        if self.accepted:
            return succeed(None)
        if self.error is not None:
            return fail(self.error)
        if len(self._waiting) >= limit:
            return fail(TooManyPending(f"{limit} calls wait for this bind"))
        waiter: Deferred[None] = Deferred(self._cancelled)
        self._waiting.append(waiter)
        return waiter

    def _cancelled(self, waiter: Deferred[None]) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)

    def succeeded(self) -> None:
        self.accepted = True
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)

    def failed(self, reason: Exception) -> None:
        self.error = reason
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.errback(reason)


class UserBinding:
    """
    Keeps the server's idea of the user equal to the application's.

    @ivar identity: The user that every new session is bound to, if any.
    @ivar refused: Whether the server refused a bind on the current connection.
    """

    __slots__ = (
        "_clock",
        "_connection",
        "_current",
        "_early",
        "_listener",
        "_log",
        "_settings",
        "identity",
        "refused",
    )

    def __init__(
        self,
        settings: ClientSettings,
        listener: IClientListener,
        clock: IReactorTime,
        log: Logger,
    ) -> None:
        """
        @param listener: Hears C{on_bind} and C{on_unbind}; must not raise.
        """
        self._settings = settings
        self._listener = listener
        self._clock = clock
        self._log = log
        self.identity: Identity | None = None
        if settings.user_id:
            self.identity = Identity(settings.user_id, settings.tags)
        self.refused = False
        self._connection: Connection | None = None
        # The last bind on this connection that was not refused.
        self._current: _Bind | None = None
        # The bind that waits for the handshake of the attempt under way.
        self._early: _Bind | None = None

    # -- what the application wants --

    def bind(self, identity: Identity, attempt_under_way: bool) -> Deferred[None]:
        """
        Make C{identity} the user, now and after every handshake to come.

        @param attempt_under_way: Whether a handshake may be expected soon.
        @return: Fires when the server said OK. Fails with L{Disconnected} at once if
            there is no session and none is in the making.
        """
        self.identity = identity
        connection = self._connection
        if connection is not None and connection.ready:
            return self._bind(connection, identity).wait(self._settings.max_pending)
        self._drop_early(unless=identity)
        if self._early is None and attempt_under_way:
            self._early = _Bind(identity)
        if self._early is None:
            return fail(
                Disconnected(
                    "not connected; the user will be bound after the handshake"
                )
            )
        return self._early.wait(self._settings.max_pending)

    def unbind(self) -> Deferred[None]:
        """
        Forget the user, and tell the server if it knows of one.

        @return: Fires when the server said OK, or at once if it knows of nobody. Fails
            with L{Disconnected} if there is no session; the user is forgotten all the
            same, and the server forgets with the connection.
        """
        self.identity = None
        self._drop_early()
        connection = self._connection
        if connection is None or not connection.ready:
            return fail(Disconnected("not connected; the user is forgotten"))
        current, self._current = self._current, None
        if current is None:
            return succeed(None)
        if not current.sent:
            current.failed(Superseded("unbound before the bind was sent"))
            return succeed(None)
        return self._unbind(connection, current.identity.user_id)

    def forget(self, user_id: str | None) -> None:
        """
        Drop the user because another device has taken over (KICK), and send UNBIND as
        the Android client does. A kick of somebody else, who was our user before, is
        ignored.
        """
        identity = self.identity
        if identity is not None and user_id in (None, identity.user_id):
            self.unbind().addErrback(self._log_failure, "UNBIND after KICK")

    # -- what happens on the connection --

    def session_opened(self, connection: Connection) -> None:
        """
        A handshake succeeded: what was bound on this connection is not any more.
        """
        if connection is not self._connection:
            self.refused = False
        self._connection = connection
        self._current = None

    def bind_again(self) -> None:
        """
        Bind the user after a handshake, unless a listener has just done it, or the
        server has refused the very same on this connection before.
        """
        connection, identity = self._connection, self.identity
        if connection is None or not connection.ready or identity is None:
            return
        if self._current is None and not self.refused:
            self._bind(connection, identity)

    def connection_ended(self, reason: ClientError) -> None:
        """
        Nobody is bound any more; who waits for a handshake waits in vain.
        """
        self._connection = None
        current, self._current = self._current, None
        if current is not None and not current.accepted:
            current.failed(Disconnected(f"the connection ended: {reason}"))
        early, self._early = self._early, None
        if early is not None:
            early.failed(Disconnected(f"no handshake: {reason}"))

    def _drop_early(self, unless: Identity | None = None) -> None:
        early = self._early
        if early is not None and early.identity != unless:
            self._early = None
            early.failed(Superseded("another call came before the handshake"))

    # -- BIND --

    def _bind(self, connection: Connection, identity: Identity) -> _Bind:
        current = self._current
        if current is not None:
            if current.identity == identity and identity.tags is not None:
                return current
            if not current.sent:
                current.failed(Superseded(f"{identity.user_id} is bound instead"))
            elif current.identity.user_id != identity.user_id:
                self._unbind(connection, current.identity.user_id).addErrback(
                    self._log_failure, "UNBIND of the user before"
                )
        self._drop_early(unless=identity)
        early, self._early = self._early, None
        bind = self._current = early or _Bind(identity)
        data = identity.data if identity.data is not None else self._settings.bind_data
        if callable(data):
            token: Deferred[str | None] = maybeDeferred(cast(Any, data))
            token.addTimeout(self._settings.bind_timeout, self._clock)
            token.addCallback(self._send, connection, bind)
            token.addErrback(self._token_failed, bind)
        else:
            self._send(data, connection, bind)
        return bind

    def _send(self, data: str | None, connection: Connection, bind: _Bind) -> None:
        if self._current is not bind:
            # Another bind or an unbind came while the token was fetched.
            return
        user_id, tags, _ = bind.identity
        settings = self._settings
        bind.sent = True
        connection.request(
            Command.BIND,
            BindUser(user_id, data, tags).encode(),
            settings.bind_timeout,
            settings.bind_retries,
        ).addCallbacks(
            self._accepted,
            self._failed,
            callbackArgs=(bind,),
            errbackArgs=(connection, bind),
        ).addErrback(self._log_failure, "BIND")

    def _accepted(self, _: bytes, bind: _Bind) -> None:
        if self._current is bind:
            self.refused = False
        self._listener.on_bind(True, bind.identity.user_id)
        bind.succeeded()

    def _failed(self, failure: Failure, connection: Connection, bind: _Bind) -> None:
        current = self._current is bind
        if current:
            self._current = None
        reason = failure.value
        assert isinstance(reason, Exception)
        if isinstance(reason, Refused) and connection is self._connection:
            self.refused = self.refused or current
        if isinstance(reason, Refused):
            self._log.warn(
                "{user_id} was not bound: {reason}",
                user_id=bind.identity.user_id,
                reason=str(reason),
            )
            self._listener.on_bind(False, bind.identity.user_id)
        bind.failed(reason)
        if isinstance(reason, TimedOut):
            connection.end(reason)

    def _token_failed(self, failure: Failure, bind: _Bind) -> None:
        if self._current is bind:
            self._current = None
        self._log.failure("bind_data gave nothing to bind with", failure=failure)
        reason = failure.value
        assert isinstance(reason, Exception)
        self._listener.on_bind(False, bind.identity.user_id)
        bind.failed(reason)

    # -- UNBIND --

    def _unbind(self, connection: Connection, user_id: str) -> Deferred[None]:
        return connection.request(
            Command.UNBIND,
            BindUser(user_id).encode(),
            self._settings.bind_timeout,
            0,
        ).addCallbacks(
            self._unbound,
            self._unbind_failed,
            callbackArgs=(user_id,),
            errbackArgs=(connection, user_id),
        )

    def _unbound(self, _: bytes, user_id: str) -> None:
        self._listener.on_unbind(True, user_id)

    def _unbind_failed(
        self, failure: Failure, connection: Connection, user_id: str
    ) -> Failure:
        if isinstance(failure.value, Refused):
            self._listener.on_unbind(False, user_id)
        elif isinstance(failure.value, TimedOut):
            # Without an answer the user may still be reachable here: with the
            # connection that ends for certain.
            connection.end(failure.value)
        return failure

    def _log_failure(self, failure: Failure, what: str) -> None:
        if failure.check(ClientError):
            self._log.warn(
                "{what} failed: {reason}", what=what, reason=failure.getErrorMessage()
            )
        else:
            self._log.failure("{what} failed", what=what, failure=failure)
