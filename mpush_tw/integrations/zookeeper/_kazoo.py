"""
The only module that knows kazoo: how a client of it is made, and what it says.

A kazoo client has three threads: one that connects, reads and writes, and two that call
back. They see nothing of ours but the reactor: whatever they have to say comes by
C{callFromThread}, and what goes to them is put into a queue that does not block.
Closing a client does block, so that happens in a thread of its own.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
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

from twisted.logger import Logger

from mpush_tw.integrations.zookeeper._errors import (
    NoAuth,
    NodeExists,
    NoNode,
    NotEmpty,
    Refusal,
)

CREATOR_ALL = [ACL(31, Id("auth", ""))]
"""
Whoever is authenticated may do everything: the server puts the identity in (cluster
3.3). An ACL made from a name and a password would name another identity.
"""

_FIRST_PAUSE_S = 0.1
"""
Pause before the first new connection attempt, doubled from one to the next. The pauses
of cluster 3.9 are for operations.
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


class Digest(str):
    """
    The text of the digest authentication, true even when it is empty: kazoo takes what
    is false for a null, at which the server closes the connection.
    """

    __slots__ = ()

    def __bool__(self) -> bool:
        return True


@attrs.frozen
class Watch:
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


class Threads(SequentialThreadingHandler):  # type: ignore[misc]
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


def _without_fields(value: object) -> object:
    return type(value).__name__ if isinstance(value, tuple) else value


class Complaints(logging.Handler):
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
        if isinstance(record.args, tuple):
            # A request that kazoo complains of may hold the session's password.
            record.args = tuple(map(_without_fields, record.args))
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


def new_client(
    servers: str,
    digest: str,
    session_timeout: float,
    longest_pause: float,
    threads: Threads,
    complaints: Complaints,
) -> Any:
    """
    Make a client that tries to be connected from its C{start_async} to its C{stop}.

    @param servers: C{host:port,host:port}.
    @param session_timeout: Seconds.
    @param longest_pause: Longest pause between two attempts to connect, in seconds.
    @return: A C{KazooClient}.
    """
    logger = logging.Logger("kazoo")
    logger.addHandler(complaints)
    logger.setLevel(complaints.level)
    return KazooClient(
        servers,
        timeout=session_timeout,
        handler=threads,
        auth_data=[("digest", Digest(digest))],
        connection_retry=KazooRetry(
            max_tries=-1,
            delay=_FIRST_PAUSE_S,
            max_delay=max(longest_pause, _FIRST_PAUSE_S),
        ),
        logger=logger,
    )


def session_of(kazoo: Any, state: str) -> int | None:
    """
    What a state that a client reports means.

    @return: The session that is connected; L{None} when none is.
    """
    if state == KazooState.CONNECTED and kazoo.client_id is not None:
        session: int = kazoo.client_id[0]
        return session
    return None


def refusal(error: Exception, path: str) -> Refusal | None:
    """
    What a failed request means.

    @return: L{None} when the server could not be asked.
    """
    if isinstance(error, _GONE):
        return None
    return _REFUSALS.get(type(error), Refusal)(path, type(error).__name__)
