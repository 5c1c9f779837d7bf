"""
ZooKeeper as Deferreds: the only module that knows kazoo.

A kazoo client has three threads: one that connects, reads and writes, and two that call
back. They see nothing of ours but the reactor: whatever they have to say comes by
C{callFromThread}, and what goes to them is put into a queue that does not block.
Closing a client does block, so it happens in a thread of its own.

What kazoo itself leaves open and is settled here:

  - a request that is queued while there is no connection may wait for ever: it is
    refused at once, and each request has an end;
  - the connection's thread may end with an exception, for instance when something else
    than a ZooKeeper answers: the client is replaced by a new one, with a back-off;
  - closing may take as long as a connection attempt when the server is silent: after a
    grace the socket is shut down under it.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from itertools import count
from typing import Any

import attrs
from kazoo.client import KazooClient  # type: ignore[import-untyped]
from kazoo.exceptions import (  # type: ignore[import-untyped]
    AuthFailedError,
    ConnectionClosedError,
    ConnectionLoss,
    NoAuthError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    OperationTimeoutError,
    SessionExpiredError,
    SessionMovedError,
)
from kazoo.handlers.threading import (  # type: ignore[import-untyped]
    SequentialThreadingHandler,
)
from kazoo.protocol.states import EventType, KazooState  # type: ignore[import-untyped]
from kazoo.retry import KazooRetry  # type: ignore[import-untyped]
from kazoo.security import ACL, Id  # type: ignore[import-untyped]

from twisted.internet.defer import Deferred, DeferredSemaphore, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from mpush_tw.config.settings import ZkSettings
from mpush_tw.errors import Unavailable
from mpush_tw.integrations.zookeeper._errors import (
    NoAuth,
    NodeExists,
    NoNode,
    NotEmpty,
    Refusal,
)
from mpush_tw.integrations.zookeeper._waiting import Backoff, Waiters

_CREATOR_ALL = [ACL(31, Id("auth", ""))]
"""
Whoever is authenticated may do everything: the server puts the identity in (cluster
3.3). An ACL made from a name and a password would name another identity.
"""

_SESSION_S = 10.0
"""
The session time-out where C{sessionTimeoutMs} is 0.
"""

_SHORTEST_S = 1.0
"""
The shortest session or connection time-out that is asked for.
"""

_FIRST_PAUSE_S = 0.1
"""
Pause before the first new connection attempt, doubled up to C{mp.zk.retry.maxSleepMs}
and at most a third of the session's time-out. The pauses of cluster 3.9 are for
operations; here a server that comes back is to find us before the session ends, or the
whole cluster sees our nodes go and come.
"""

_GRACE_S = 2.0
"""
How long a server may take to confirm the end of a session.
"""

_CLOSE_S = 4.0
"""
How long closing takes at most. Only a host name that cannot be resolved takes longer;
that thread is left to end by itself.
"""

_IN_FLIGHT = 64
"""
Requests under way at the same time; more wait. kazoo writes one byte for each into a
pipe that has room for some 270.
"""

_REASONS = 32
"""
Different sentences of kazoo's that are logged during one interruption.
"""

_KNOWN = ("Transition to", "Session has expired", "Failed connecting to Zookeeper")
"""
What kazoo says beside the states that it reports anyway, the last when it is closed.
"""


_REFUSALS: dict[type[Exception], type[Refusal]] = {
    NoNodeError: NoNode,
    NodeExistsError: NodeExists,
    NotEmptyError: NotEmpty,
    NoAuthError: NoAuth,
}

_GONE = (
    AuthFailedError,
    ConnectionClosedError,
    ConnectionLoss,
    OperationTimeoutError,
    SessionExpiredError,
    SessionMovedError,
)


class _Digest(str):
    """
    The text of the digest authentication, true even when it is empty: kazoo takes what
    is false for a null, at which the server closes the connection.
    """

    __slots__ = ()

    def __bool__(self) -> bool:
        return True


@attrs.frozen
class _Watch:
    """
    What kazoo calls when a watch fires, in a thread of its own.

    kazoo keeps one of equal ones: a watch that is set again before it has fired does
    not fire twice.
    """

    callback: Callable[[], None]
    reactor: Any = attrs.field(eq=False)

    def __call__(self, event: Any) -> None:
        # Without a type it says that the connection was lost, which is known.
        if event.type != EventType.NONE:
            self.reactor.callFromThread(self.callback)


class _Threads(SequentialThreadingHandler):  # type: ignore[misc]
    """
    kazoo's threads and sockets, such that they can be ended from outside.
    """

    def __init__(self, connect_timeout: float, thread_ended: Callable[[], None]):
        """
        @param connect_timeout: Seconds that a TCP connection may take.
        @param thread_ended: Called at the end of each thread, from it.
        """
        super().__init__()
        self._connect_timeout = connect_timeout
        self._thread_ended = thread_ended
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._cut = False

    def spawn(self, func: Callable[..., object], *args: Any, **kwargs: Any) -> Any:
        def run() -> None:
            try:
                func(*args, **kwargs)
            except Exception:
                # kazoo has logged it; Python would print it as well.
                pass
            finally:
                self._thread_ended()

        thread = threading.Thread(target=run, name="zookeeper", daemon=True)
        thread.start()
        return thread

    def create_socket_pair(self) -> tuple[socket.socket, socket.socket]:
        reading, writing = super().create_socket_pair()
        # The reactor writes into it.
        writing.setblocking(False)
        return reading, writing

    def create_connection(self, address: tuple[str, int], **_: object) -> socket.socket:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            with self._lock:
                if self._cut:
                    raise ConnectionAbortedError("closed")
                self._socket = connection
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(self._connect_timeout)
            connection.connect(address)
        except BaseException:
            connection.close()
            raise
        return connection

    def cut(self) -> None:
        """
        End the current connection, and the attempt to make one, at once.
        """
        with self._lock:
            self._cut = True
            connection = self._socket
        if connection is not None:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                # It has ended by itself.
                pass


class _Complaints(logging.Handler):
    """
    Where kazoo's own log goes, called from its threads.

    kazoo repeats itself with every attempt of a long outage; each sentence is said once
    until there is a connection again.
    """

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        # Below a warning kazoo tells of connections and sessions, as we do ourselves,
        # and at debug level of requests, the authentication with its secret included.
        super().__init__(logging.WARNING)
        self._reactor = reactor
        self._said: set[str] = set()
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f": {record.exc_info[1]!r}"
        self._reactor.callFromThread(self._heard, text)

    def _heard(self, text: str) -> None:
        if text.startswith(_KNOWN):
            return
        self.last = text
        if text not in self._said and len(self._said) < _REASONS:
            self._said.add(text)
            self._log.debug("kazoo: {text}", text=text)

    def connected(self) -> None:
        """
        Begin anew: there is a connection.
        """
        self._said.clear()
        self.last = ""


class ZooKeeperClient:
    """
    A session with the servers, and a new one whenever it has expired, until L{close}.

    @ivar session_id: The session while it is connected; L{None} otherwise, and then
        every request fails with L{Unavailable} at once.
    @ivar servers: The addresses, for messages.
    """

    _log = Logger()

    def __init__(
        self,
        servers: str,
        settings: ZkSettings,
        reactor: Any,
        connected: Callable[[int], None],
        disconnected: Callable[[], None],
    ) -> None:
        """
        @param servers: C{host:port,host:port}, without a path behind it.
        @param reactor: Provides C{IReactorTime} and C{IReactorFromThreads}.
        @param connected: Called with the id of the session each time it is connected:
            the same as before, or a new one when the old one has expired.
        @param disconnected: Called when the connection is lost; the session may be
            taken up again.
        """
        self.servers = servers
        self.session_id: int | None = None
        self._digest = settings.digest
        session = settings.session_timeout or _SESSION_S
        connection = settings.connection_timeout or session
        self._session_timeout = max(session, _SHORTEST_S)
        self._connect_timeout = max(connection, _SHORTEST_S)
        self._patience = max(self._session_timeout, self._connect_timeout)
        self._longest_pause = max(
            min(settings.retry.max_sleep, self._session_timeout / 3), _FIRST_PAUSE_S
        )
        self._reactor = reactor
        self._connected = connected
        self._disconnected = disconnected
        self._kazoo: Any = None
        self._threads: _Threads | None = None
        self._complaints = _Complaints(reactor)
        self._backoff = Backoff(1.0, settings.retry.max_sleep)
        self._reopening: IDelayedCall | None = None
        self._doubt: IDelayedCall | None = None
        self._requests = count()
        self._waiting: dict[int, tuple[str, Deferred[Any], IDelayedCall]] = {}
        self._slots = DeferredSemaphore(_IN_FLIGHT)
        self._ending = 0
        self._ended = Waiters()

    # ----------------------------------------------------------- the connection

    @property
    def complaint(self) -> str:
        """
        Why there is no connection, in kazoo's words; empty when nothing is known.
        """
        return self._complaints.last

    def open(self) -> None:
        """
        Begin to connect, and go on trying until L{close}. Nothing happens if it is
        open.
        """
        if self._kazoo is None and self._reopening is None:
            self._open()

    def _open(self) -> None:
        self._reopening = None
        report = self._reactor.callFromThread
        threads = _Threads(
            self._connect_timeout, lambda: report(self._thread_ended, threads)
        )
        logger = logging.Logger("kazoo")
        logger.addHandler(self._complaints)
        logger.setLevel(self._complaints.level)
        kazoo = KazooClient(
            self.servers,
            timeout=self._session_timeout,
            handler=threads,
            default_acl=_CREATOR_ALL,
            auth_data=[("digest", _Digest(self._digest))],
            connection_retry=KazooRetry(
                max_tries=-1, delay=_FIRST_PAUSE_S, max_delay=self._longest_pause
            ),
            logger=logger,
        )

        def moved(state: str) -> None:
            session = kazoo.client_id if state == KazooState.CONNECTED else None
            report(self._moved, threads, None if session is None else session[0])

        kazoo.add_listener(moved)
        self._kazoo, self._threads = kazoo, threads
        kazoo.start_async()

    def _moved(self, threads: _Threads, session_id: int | None) -> None:
        if threads is not self._threads or session_id == self.session_id:
            return
        self.session_id = session_id
        self._stop_doubting()
        if session_id is None:
            self._doubt = self._reactor.callLater(self._patience, self._start_over)
            self._disconnected()
        else:
            self._backoff.reset()
            self._complaints.connected()
            self._connected(session_id)

    def _start_over(self) -> None:
        """
        Take any server for granted, also one that has lost its data.

        Servers refuse a client that has seen more than they have, so that it does not
        go back in time; those that were set up anew refuse it for ever. The original
        throws its session away at this time (cluster 3.9). With nothing seen the
        session is taken up where it is still known and has expired elsewhere; and after
        an interruption everything is read again.
        """
        self._doubt = None
        if self._kazoo is not None:
            self._kazoo.last_zxid = 0

    def _stop_doubting(self) -> None:
        if self._doubt is not None:
            self._doubt.cancel()
            self._doubt = None

    def _thread_ended(self, threads: _Threads) -> None:
        if threads is not self._threads:
            return
        self._moved(threads, None)
        self._stop_doubting()
        self._end_client()
        self._reopening = self._reactor.callLater(self._backoff.pause(), self._open)

    def _end_client(self) -> None:
        kazoo, threads = self._kazoo, self._threads
        assert threads is not None
        self._kazoo = self._threads = None
        self._ending += 1

        def finished() -> None:
            if not bounds:
                return
            for call in bounds:
                if call.active():
                    call.cancel()
            bounds.clear()
            self._ending -= 1
            if not self._ending:
                self._ended.tell()

        bounds = [
            self._reactor.callLater(_GRACE_S, threads.cut),
            self._reactor.callLater(_CLOSE_S, finished),
        ]

        def end() -> None:
            try:
                kazoo.stop()
                kazoo.close()
            except Exception:
                # Its connection's thread is already dead, or hangs in a host name.
                pass
            finally:
                self._reactor.callFromThread(finished)

        threading.Thread(target=end, name="zookeeper-close", daemon=True).start()

    def close(self) -> Deferred[None]:
        """
        End the session, whose ephemeral nodes vanish at once if the server can be
        reached, and all requests, with L{Unavailable}. Idempotent.

        @return: Fires when the threads have ended, or are given up after 4 seconds.
        """
        if self._reopening is not None:
            self._reopening.cancel()
            self._reopening = None
        if self._kazoo is not None:
            self._end_client()
        self.session_id = None
        self._stop_doubting()
        for number in list(self._waiting):
            self._settle(number, Failure(Unavailable("the registry is being closed")))
        return self._ended.wait() if self._ending else succeed(None)

    # -------------------------------------------------------------- requests

    def exists(
        self, path: str, watch: Callable[[], None] | None = None
    ) -> Deferred[int | None]:
        """
        @param watch: Called once, from the reactor, when the node is made, changed or
            deleted; not when the connection is lost, which ends the watch.
        @return: The session that owns an ephemeral node, 0 for a persistent one,
            L{None} when there is no node.
        """
        stat = self._request("exists_async", path, watch=self._watch(watch))
        return stat.addCallback(
            lambda stat: None if stat is None else stat.ephemeralOwner
        )

    def get(
        self, path: str, watch: Callable[[], None] | None = None
    ) -> Deferred[bytes]:
        """
        @param watch: As for L{exists}; not set when there is no node.
        @return: The data of a node.
        """
        found = self._request("get_async", path, watch=self._watch(watch))
        # A node that was made without data by some clients has none at all.
        return found.addCallback(lambda found: found[0] or b"")

    def children(
        self, path: str, watch: Callable[[], None] | None = None
    ) -> Deferred[list[str]]:
        """
        @param watch: Called once, from the reactor, when a child is made or deleted, or
            the node itself is deleted; not set when there is no node.
        @return: The names of the children, in any order.
        """
        return self._request("get_children_async", path, watch=self._watch(watch))

    def create(
        self, path: str, data: bytes = b"", ephemeral: bool = False
    ) -> Deferred[None]:
        """
        Make a node that is ours alone (cluster 3.3).
        """
        return self._request(
            "create_async", path, data, acl=_CREATOR_ALL, ephemeral=ephemeral
        ).addCallback(_nothing)

    def set(self, path: str, data: bytes) -> Deferred[None]:
        """
        Replace the data of a node.
        """
        return self._request("set_async", path, data).addCallback(_nothing)

    def delete(self, path: str) -> Deferred[None]:
        """
        Remove a node that has no children.
        """
        return self._request("delete_async", path).addCallback(_nothing)

    def _watch(self, callback: Callable[[], None] | None) -> _Watch | None:
        return None if callback is None else _Watch(callback, self._reactor)

    def _request(self, method: str, path: str, *args: Any, **kw: Any) -> Deferred[Any]:
        """
        @return: What kazoo says; fails with L{Unavailable}, or with a L{Refusal} when
            the server does not want to.
        """
        if self.session_id is None:
            return fail(self._unavailable())
        return self._slots.run(self._send, method, path, *args, **kw)

    def _send(self, method: str, path: str, *args: Any, **kw: Any) -> Deferred[Any]:
        if self.session_id is None:
            return fail(self._unavailable())
        number = next(self._requests)
        result: Deferred[Any] = Deferred(lambda _: _nothing(self._forget(number)))
        bound = self._reactor.callLater(self._patience, self._give_up, number)
        self._waiting[number] = (path, result, bound)
        report = self._reactor.callFromThread
        try:
            pending = getattr(self._kazoo, method)(path, *args, **kw)
        except (TypeError, ValueError) as error:
            self._settle(number, Failure(Refusal(path, str(error))))
        else:
            pending.rawlink(lambda answer: report(self._answered, number, answer))
        return result

    def _answered(self, number: int, answer: Any) -> None:
        error = answer.exception
        if error is None:
            self._settle(number, answer.value)
        elif isinstance(error, _GONE):
            self._settle(number, Failure(self._unavailable()))
        elif number in self._waiting:
            path = self._waiting[number][0]
            refusal = _REFUSALS.get(type(error), Refusal)
            self._settle(number, Failure(refusal(path, type(error).__name__)))

    def _give_up(self, number: int) -> None:
        self._settle(
            number,
            Failure(Unavailable(f"ZooKeeper at {self.servers} does not answer")),
        )

    def _settle(self, number: int, outcome: Any) -> None:
        # A late answer to what was given up has nobody who waits for it.
        result = self._forget(number)
        if result is not None:
            result.callback(outcome)

    def _forget(self, number: int) -> Deferred[Any] | None:
        _, result, bound = self._waiting.pop(number, (None, None, None))
        if bound is not None and bound.active():
            bound.cancel()
        return result

    def _unavailable(self) -> Unavailable:
        return Unavailable(f"ZooKeeper at {self.servers} cannot be reached")


def _nothing(_: object) -> None:
    return None
