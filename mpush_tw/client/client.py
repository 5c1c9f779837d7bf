"""
The device client: stays connected, and offers what a connection is good for.

Its states (clients 2.4, 10.2)::

                 start              reached            handshake ok
    STOPPED -----------> CONNECTING ------> CONNECTED -------------> ONLINE
       ^                  ^   | none          |  lost                  | lost
       | stop (from all)  |   | reached       |                        |
       |            over  |   v               |                        |
       +---------------- WAITING <------------+------------------------+

    While the network is reported down: OFFLINE instead of WAITING, until
    on_net_state_change(True) or start(). After destroy(): DESTROYED for good.

The work is divided: C{_connection} knows one connection, C{_connector} how to get one,
C{_binding} the user, C{_deliveries} the pushes in hand, C{_sessions} what is stored,
and L{backoff} when to try again; C{_alloc} asks for servers. The client puts them
together.
"""

from __future__ import annotations

import random as _random
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import (
    Deferred,
    fail,
    succeed,
)
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mpush_tw.client._binding import Identity, UserBinding
from mpush_tw.client._connection import Connection
from mpush_tw.client._connector import Connector
from mpush_tw.client._deliveries import Deliveries
from mpush_tw.client._logging import client_log
from mpush_tw.client._sessions import Sessions
from mpush_tw.client.backoff import Backoff, CompatBackoff, StandardBackoff
from mpush_tw.client.errors import (
    BadRequest,
    ClientError,
    Disconnected,
    Refused,
    TooManyPending,
)
from mpush_tw.client.http import (
    GRACE_SECONDS,
    NOTHING,
    Data,
    Headers,
    HttpAnswer,
    Params,
    http_answer,
    http_request,
)
from mpush_tw.client.listener import IsolatedListener, as_listener
from mpush_tw.client.servers import ServerAddress, Servers
from mpush_tw.client.settings import (
    AckModel,
    BindData,
    ClientSettings,
    KickPolicy,
    OnHandshakeRefused,
    Reconnect,
)
from mpush_tw.client.storage import StoredSession
from mpush_tw.errors import ConfigError
from mpush_tw.protocol.commands import Command, Flag
from mpush_tw.protocol.messages import Kick

if TYPE_CHECKING:
    from mpush_tw.client._alloc import AllocLookup

_PARAM_INVALID = "param invalid"
_LAST_SESSION_ID = 2**31 - 1
_PROBE_AFTER = 3.0
"""
Seconds after the report of a lost network until the ping, and again until the verdict.
"""


class ClientState(Enum):
    """
    See the picture at the head of this module.
    """

    STOPPED = "stopped"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    ONLINE = "online"
    WAITING = "waiting"
    OFFLINE = "offline"
    DESTROYED = "destroyed"


class Client:
    """
    One device (clients 10).

    Clients share nothing, so a process may run thousands. All methods are called in the
    reactor thread (elsewhere: L{mpush_tw.client.blocking.BlockingClient}); none of them
    raises because of the state the client is in. A Deferred that is cancelled is only
    not waited for any more: what was sent is sent.

    @ivar settings: As given.
    """

    __slots__ = (
        "_backoff",
        "_binding",
        "_closing",
        "_connection",
        "_connector",
        "_deliveries",
        "_heartbeat_ms",
        "_last_failure",
        "_listener",
        "_log",
        "_net_down",
        "_online_waiters",
        "_probe",
        "_random",
        "_reactor",
        "_servers",
        "_session_id",
        "_sessions",
        "_state",
        "_stop_waiters",
        "_timer",
        "settings",
    )

    def __init__(
        self,
        settings: ClientSettings,
        listener: object | None = None,
        *,
        reactor: IReactorTime,
        random: Callable[[], float] = _random.random,
    ) -> None:
        """
        @param listener: An
            L{IClientListener<mpush_tw.client.listener.IClientListener>}, or an object
            with the Java SDK's method names; C{settings.listener} if C{None}.
        @param reactor: Provides C{IReactorTCP} as well. Its clock must tell Unix time
            for the expiry of stored sessions to be judged.
        @param random: Numbers from 0 to 1 for the jitter.
        @raise ConfigError: If the settings name no server, or no key where one is
            needed.
        """
        if not settings.addresses and not settings.alloc_server:
            raise ConfigError(
                "server_host", "neither a server nor an alloc service is named"
            )
        if settings.public_key is None and settings.encrypt_required:
            raise ConfigError("public_key", "is required to encrypt the handshake")
        self.settings = settings
        self._reactor = reactor
        self._random = random
        self._log: Logger = client_log(settings.logger, settings.log_enabled)
        self._listener = IsolatedListener(
            as_listener(self, settings.listener if listener is None else listener),
            self._log,
        )
        # With alloc those that the settings name are a last resort.
        self._servers = Servers(() if settings.alloc_server else settings.addresses)
        self._sessions = Sessions(
            settings.new_storage(), reactor, settings.handshake_timeout, self._log
        )
        self._backoff: Backoff = self._new_backoff()
        self._binding = UserBinding(settings, self._listener, reactor, self._log)
        self._deliveries = Deliveries(reactor, settings.max_pending, self._log)
        self._state = ClientState.STOPPED
        self._net_down = False
        self._session_id = 0
        self._heartbeat_ms = 0
        self._last_failure: ClientError | None = None
        self._connector = Connector(
            settings,
            self._servers,
            reactor,
            self._make_connection,
            self._nobody_reached,
            self._log,
            _alloc_lookup(settings, reactor, self._log),
        )
        # The one that is in use, from TCP connect to its end.
        self._connection: Connection | None = None
        self._timer: IDelayedCall | None = None
        self._probe: IDelayedCall | None = None
        # Connections that are over but whose transports are still there.
        self._closing: set[Connection] = set()
        self._stop_waiters: list[Deferred[None]] = []
        self._online_waiters: list[Deferred[int]] = []

    def _new_backoff(self) -> Backoff:
        if self.settings.reconnect is Reconnect.COMPAT:
            return CompatBackoff()
        return StandardBackoff(self._random)

    # -- start and stop --

    @property
    def state(self) -> ClientState:
        """
        The connect state.
        """
        return self._state

    @property
    def is_running(self) -> bool:
        """
        Whether the client is started and has a TCP connection; tells nothing about the
        handshake (clients 2.2). See L{is_online}.
        """
        return self._state in (ClientState.CONNECTED, ClientState.ONLINE)

    @property
    def is_online(self) -> bool:
        """
        Whether there is a session now, so that requests can be sent.
        """
        return self._connection is not None and self._connection.ready

    @property
    def server(self) -> ServerAddress | None:
        """
        The server that the client is connected to now.
        """
        return None if self._connection is None else self._connection.server

    @property
    def last_failure(self) -> ClientError | None:
        """
        Why the latest connection ended, or why none came about; C{None} before that.
        """
        return self._last_failure

    @property
    def user_id(self) -> str | None:
        """
        The user that is bound, or will be after the next handshake.
        """
        identity = self._binding.identity
        return None if identity is None else identity.user_id

    def start(self) -> None:
        """
        Connect, and keep connected. Does nothing if started already, or destroyed.
        """
        if self._state is ClientState.STOPPED:
            self._backoff = self._new_backoff()
            self._net_down = False
            # Asked so that the attempt is counted; the first one waits for nothing.
            self._backoff.next_delay()
            self._connect()
        elif self._state is ClientState.OFFLINE:
            self.on_net_state_change(True)

    def stop(self) -> Deferred[None]:
        """
        Disconnect and stay so. The user is kept for the next L{start}; the server is
        not told, it forgets with the connection.

        @return: Fires when no transport is left, after
            L{CLOSE_TIMEOUT<mpush_tw.client._wire.CLOSE_TIMEOUT>} at the latest.
        """
        if self._state not in (ClientState.STOPPED, ClientState.DESTROYED):
            self._stop_because(Disconnected("the client was stopped"))
        if not self._closing:
            return succeed(None)
        waiter: Deferred[None] = Deferred(self._stop_waiters.remove)
        self._stop_waiters.append(waiter)
        return waiter

    def pause(self) -> Deferred[None]:
        """
        Another name for L{stop}.
        """
        return self.stop()

    def resume(self) -> None:
        """
        Another name for L{start}.
        """
        self.start()

    def destroy(self) -> Deferred[None]:
        """
        Stop for good: L{start} does nothing afterwards.

        @return: As L{stop}.
        """
        stopped = self.stop()
        self._state = ClientState.DESTROYED
        return stopped

    def when_online(self) -> Deferred[int]:
        """
        Wait for a session.

        @return: Fires with the heartbeat in milliseconds, at once if there is a session
            now. Fails with L{Disconnected} when the client is stopped or was not
            started; otherwise it waits as long as it takes, so add a time-out.
        """
        if self.is_online:
            return succeed(self._heartbeat_ms)
        if self._state in (ClientState.STOPPED, ClientState.DESTROYED):
            return fail(Disconnected("the client is not started"))
        if len(self._online_waiters) >= self.settings.max_pending:
            return fail(TooManyPending("too many calls wait for the handshake"))
        waiter: Deferred[int] = Deferred(self._online_waiters.remove)
        self._online_waiters.append(waiter)
        return waiter

    def on_net_state_change(self, up: bool) -> None:
        """
        Tell what the operating system says about the network (clients 2.11).

        @param up: C{True} ends every wait and connects at once. C{False} ends attempts
            to connect; an existing connection is probed, and closed if nothing was
            heard on it for 6 seconds. Until C{True} or L{start} nothing is repaired.
        """
        if self._state in (ClientState.STOPPED, ClientState.DESTROYED):
            return
        self._net_down = not up
        self._cancel_timers()
        if up:
            if self._state in (ClientState.WAITING, ClientState.OFFLINE):
                self._connect()
        elif self._state in (ClientState.WAITING, ClientState.CONNECTING):
            self._state = ClientState.OFFLINE
            self._let_go(Disconnected("the network is down"))
        elif self._connection is not None:
            connection = self._connection
            connection.wire.heard = False
            self._probe = self._reactor.callLater(
                _PROBE_AFTER, self._probe_connection, connection
            )

    def _probe_connection(self, connection: Connection) -> None:
        connection.heartbeat.ping()
        self._probe = self._reactor.callLater(
            _PROBE_AFTER, self._judge_connection, connection
        )

    def _judge_connection(self, connection: Connection) -> None:
        self._probe = None
        if not connection.wire.heard:
            connection.end(Disconnected("the network is down"))

    # -- requests --

    def bind_user(
        self, user_id: str, tags: str | None = None, data: BindData | None = None
    ) -> Deferred[None]:
        """
        Make C{user_id} the user of this device, now and after every reconnect (clients
        2.9). Another user is unbound first. The same user with the same tags is not
        bound again on the same connection, but with other tags or none.

        @param tags: What broadcasts choose by; C{None} clears those the server has.
        @param data: For the server's bind validator; C{settings.bind_data} if C{None}.
        @return: Fires when the server said OK. Fails with L{Refused}, L{TimedOut} (the
            connection is closed then), L{Superseded}; with L{Disconnected} if the
            connection ends first or if none is in the making. The user is bound after
            the next handshake in any case.
        """
        if not user_id or not user_id.strip():
            return fail(BadRequest("the user id is blank"))
        under_way = self._state in (
            ClientState.CONNECTING,
            ClientState.CONNECTED,
            ClientState.ONLINE,
        )
        return self._binding.bind(Identity(user_id, tags or None, data), under_way)

    def unbind_user(self) -> Deferred[None]:
        """
        Let the device have no user, now and after every reconnect.

        @return: Fires when the server said OK, or at once if nobody was bound. Fails as
            L{bind_user}; the user is forgotten in any case.
        """
        return self._binding.unbind()

    def push(
        self,
        content: bytes | str,
        ack: AckModel = AckModel.AUTO,
        timeout: float | None = None,
        retries: int = 0,
    ) -> Deferred[int]:
        """
        Send a message up to the server (clients 2.13).

        @param content: Not empty; text goes out as UTF-8.
        @param ack: Whose confirmation to wait for. With C{AckModel.NONE} nothing is
            waited for.
        @param timeout: Seconds; C{settings.push_timeout} if C{None}.
        @param retries: How often the identical packet is sent again after a time-out.
        @return: Fires with the number the message went out under. Fails with
            L{TimedOut}, L{Refused}, L{Disconnected}, L{TooManyPending} or
            L{BadRequest}.
        """
        body = (
            content.encode("utf-8", "replace") if isinstance(content, str) else content
        )
        if not body:
            return fail(BadRequest("the content is empty"))
        if timeout is None:
            timeout = self.settings.push_timeout
        if timeout <= 0 or retries < 0:
            return fail(BadRequest("timeout must be above 0, retries not below"))
        connection = self._connection
        if connection is None:
            return fail(Disconnected("not connected"))
        if ack is AckModel.NONE:
            try:
                return succeed(connection.send(Command.PUSH, body))
            except ClientError:
                return fail()
        answer = connection.request(Command.PUSH, body, timeout, retries, ack.value)
        session_id = self._session_id
        return answer.addCallback(lambda _: session_id)

    def send_http(
        self,
        method: str,
        url: str,
        headers: Headers | None = None,
        data: Data | None = None,
        timeout: float | None = None,
        *,
        params: Params | None = None,
        json: Any = NOTHING,
    ) -> Deferred[HttpAnswer]:
        """
        Have the node ask a web server (clients 2.14); called as C{treq.request} is. The
        node decides who may be asked.

        @param method: GET, POST, PUT or DELETE.
        @param headers: A value, or several, for each name.
        @param data: The body. Text goes out as UTF-8; a mapping, or a sequence of
            pairs, as a form.
        @param timeout: Seconds that the node and the server may take, redirects
            included; C{settings.http_timeout} if C{None}.
        @param params: Added to the URL's query.
        @param json: The body, as JSON.
        @return: Fires with the answer, whatever its status. Fails with L{TimedOut} if
            none comes although the node should have said 408 by then; with L{Refused},
            L{Disconnected}, L{TooManyPending} or L{BadRequest}. Cancelled, it is not
            waited for any more.
        """
        if timeout is None:
            timeout = self.settings.http_timeout
        try:
            if not self.settings.enable_http_proxy:
                raise BadRequest("enable_http_proxy is off")
            if timeout <= 0:
                raise BadRequest("timeout must be above 0")
            request = http_request(method, url, headers, data, timeout, params, json)
        except BadRequest:
            return fail()
        connection = self._connection
        if connection is None:
            return fail(Disconnected("not connected"))
        answer = connection.request(
            Command.HTTP_PROXY, request.encode(), timeout + GRACE_SECONDS, 0
        )
        return answer.addCallback(http_answer)

    def ack(self, message_id: int) -> bool:
        """
        Confirm a message that C{on_receive_push} gave with an id.

        @return: Whether an ACK was sent: not for ids of 0 or less, nor without a
            session.
        """
        connection = self._connection
        return (
            message_id > 0
            and connection is not None
            and connection.acknowledge(message_id)
        )

    def health_check(self) -> bool:
        """
        Look whether the connection is alive and ping if it was idle (clients 2.10), for
        applications that switched C{auto_heartbeat} off; call it about once in a
        heartbeat. The second check in a row that finds nothing heard reconnects.

        @return: Whether there is a connection to go on checking.
        """
        connection = self._connection
        return connection is not None and connection.heartbeat.check()

    def fast_connect(self) -> bool:
        """
        Resume the stored session on the current connection, or shake hands if there is
        none to resume. Happens by itself on every connect.

        @return: Whether that was begun: not without a connection, nor while the same or
            a handshake is under way.
        """
        connection = self._connection
        if connection is None or connection.greeting:
            return False
        self._greet(connection)
        return True

    def handshake(self) -> bool:
        """
        Shake hands on the current connection, whether or not a session is stored.
        Called in C{on_connected} it saves the attempt to resume one. On a connection
        that has a session, servers answer "repeat handshake" and nothing changes.

        @return: As L{fast_connect}.
        """
        connection = self._connection
        return connection is not None and connection.handshake()

    # -- connecting --

    def _attempt_later(self) -> None:
        """
        Wait as long as the back-off demands, then connect.
        """
        self._state = ClientState.WAITING
        delay = self._backoff.next_delay()
        self._timer = self._reactor.callLater(delay, self._connect)

    def _connect(self) -> None:
        self._cancel_timers()
        self._state = ClientState.CONNECTING
        self._connector.start()

    def _nobody_reached(self, reason: ClientError) -> None:
        self._last_failure = reason
        self._binding.connection_ended(reason)
        self._attempt_later()

    def _make_connection(self, server: ServerAddress) -> Connection:
        return Connection(self, self.settings, server, self._reactor)

    def _let_go(self, reason: ClientError) -> None:
        """
        End the connection, or the attempt to make one. The state that is wanted has
        been set before.
        """
        self._cancel_timers()
        self._connector.stop()
        if self._connection is not None:
            self._connection.end(reason)
        else:
            self._binding.connection_ended(reason)

    def _stop_because(self, reason: ClientError) -> None:
        self._state = ClientState.STOPPED
        self._net_down = False
        self._let_go(reason)
        self._tell_online_waiters(reason)

    def _cancel_timers(self) -> None:
        for timer in (self._timer, self._probe):
            if timer is not None and timer.active():
                timer.cancel()
        self._timer = self._probe = None

    def _unexpected(self, failure: Failure) -> None:
        self._log.failure("unexpected in the client", failure=failure)

    # -- what the connection tells (ConnectionOwner) --

    def next_session_id(self) -> int:
        self._session_id = self._session_id % _LAST_SESSION_ID + 1
        return self._session_id

    def next_random(self) -> float:
        return self._random()

    def connection_made(self, connection: Connection) -> None:
        if not self._connector.made(connection):
            return
        self._connection = connection
        self._state = ClientState.CONNECTED
        self._log.info("connected to {server}", server=str(connection.server))
        self._listener.on_connected()
        if not connection.ended and not connection.greeting:
            self._greet(connection)

    def _greet(self, connection: Connection) -> None:
        """
        Resume the stored session, or shake hands.
        """

        def greet(session: StoredSession | None) -> None:
            if session is None:
                connection.handshake()
            else:
                connection.fast_connect(session)

        self._sessions.load().addCallback(greet).addErrback(self._unexpected)

    def session_opened(
        self, connection: Connection, heartbeat_ms: int, session: StoredSession | None
    ) -> None:
        self._state = ClientState.ONLINE
        self._servers.worked()
        self._heartbeat_ms = heartbeat_ms
        self._log.info("session opened, heartbeat {ms} ms", ms=heartbeat_ms)
        if session is not None:
            self._sessions.save(session)
        self._binding.session_opened(connection)
        self._listener.on_handshake_ok(heartbeat_ms)
        self._binding.bind_again()
        self._tell_online_waiters(None)

    def fast_connect_refused(self, connection: Connection) -> None:
        self._sessions.clear()
        connection.handshake()

    def handshake_refused(self, connection: Connection, reason: Refused) -> None:
        # error_received has told the listener, which may have stopped the client.
        final = reason.reason.lower() == _PARAM_INVALID or (
            self.settings.on_handshake_refused is OnHandshakeRefused.STOP
        )
        self._log.warn("{reason}", reason=str(reason))
        if final:
            self._stop_because(reason)
        connection.end(reason)

    def push_received(
        self, connection: Connection, content: bytes, flags: int, session_id: int
    ) -> None:
        message_id = session_id if flags & Flag.BIZ_ACK else 0
        result = self._listener.on_receive_push(content, message_id)
        self._deliveries.delivered(
            connection, session_id, bool(flags & Flag.AUTO_ACK), result
        )

    def kick_received(self, connection: Connection, kick: Kick) -> None:
        policy = self.settings.kick_policy
        self._log.info("kicked: user {user_id}", user_id=kick.user_id)
        if policy is KickPolicy.FORGET:
            self._binding.forget(kick.user_id)
        self._listener.on_kick_user(kick.device_id or "", kick.user_id or "")
        if policy is KickPolicy.STOP:
            self._stop_because(
                Disconnected(f"another device was bound to {kick.user_id}")
            )

    def error_received(self, connection: Connection, reason: Refused) -> None:
        self._listener.on_error(reason.command, reason.code, reason.reason)

    def connection_ended(self, connection: Connection, reason: ClientError) -> None:
        if connection.wire.transport is not None:
            self._closing.add(connection)
        self._connection = None
        self._last_failure = reason
        self._log.info("disconnected: {reason}", reason=str(reason))
        if connection.opened_at is None:
            self._servers.move_to_end(connection.server)
            lasted = None
        else:
            lasted = self._reactor.seconds() - connection.opened_at
        self._backoff.connection_ended(lasted, self._binding.refused)
        self._cancel_timers()
        repair = self._state in (ClientState.CONNECTED, ClientState.ONLINE)
        if repair:
            self._state = ClientState.WAITING
            if self._net_down:
                self._state = ClientState.OFFLINE
        self._binding.connection_ended(reason)
        self._deliveries.connection_ended(connection)
        self._listener.on_disconnected(reason)
        if self._state is ClientState.WAITING and self._timer is None:
            self._attempt_later()

    def connection_closed(self, connection: Connection) -> None:
        self._closing.discard(connection)
        if not self._closing:
            waiters, self._stop_waiters = self._stop_waiters, []
            while waiters:
                waiters.pop().callback(None)

    def _tell_online_waiters(self, reason: ClientError | None) -> None:
        waiters, self._online_waiters = self._online_waiters, []
        # Emptied one by one: a callback may cancel another waiter.
        while waiters:
            if reason is None:
                waiters.pop().callback(self._heartbeat_ms)
            else:
                waiters.pop().errback(reason)


def _alloc_lookup(
    settings: ClientSettings, reactor: IReactorTime, log: Logger
) -> AllocLookup | None:
    if not settings.alloc_server:
        return None
    # Only now: an HTTP client takes as long to import as all the rest.
    from mpush_tw.client._alloc import AllocLookup

    return AllocLookup(settings, reactor, log)
