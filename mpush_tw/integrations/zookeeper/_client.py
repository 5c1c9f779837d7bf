"""
ZooKeeper as Deferreds: a session that comes back, and requests that end.

What kazoo leaves open and is settled here:

  - a request that is queued while there is no connection may wait for ever: it is
    refused at once, and each request has an end;
  - the connection's thread may end with an exception, for instance when something else
    than a ZooKeeper answers: the client is replaced by a new one, with a back-off;
  - closing may take as long as a connection attempt when the server is silent: after a
    grace the socket is shut down under it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from itertools import count
from typing import Any

import attrs

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from mpush_tw.config.settings import ZkSettings
from mpush_tw.errors import Unavailable
from mpush_tw.integrations.zookeeper._errors import Refusal
from mpush_tw.integrations.zookeeper._kazoo import (
    CREATOR_ALL,
    Complaints,
    Threads,
    Watch,
    new_client,
    refusal,
    session_of,
)
from mpush_tw.integrations.zookeeper._waiting import Backoff, Waiters

_SESSION_S = 10.0
"""
The session time-out where C{sessionTimeoutMs} is 0.
"""

_SHORTEST_S = 1.0
"""
The shortest session or connection time-out that is asked for.
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


@attrs.frozen
class _Request:
    """
    What a server has been, or is to be, asked.

    @ivar send: Gives it to kazoo.
    @ivar bound: Ends it when there is no answer.
    """

    path: str
    send: Callable[[], Any]
    result: Deferred[Any]
    bound: IDelayedCall


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
        # A server that comes back is to find us before the session ends, or the whole
        # cluster sees our nodes go and come: three attempts at least.
        self._longest_pause = min(settings.retry.max_sleep, self._session_timeout / 3)
        self._reactor = reactor
        self._connected = connected
        self._disconnected = disconnected
        self._kazoo: Any = None
        self._threads: Threads | None = None
        self._complaints = Complaints(reactor)
        self._backoff = Backoff(1.0, settings.retry.max_sleep)
        self._reopening: IDelayedCall | None = None
        self._doubt: IDelayedCall | None = None
        self._numbers = count()
        self._requests: dict[int, _Request] = {}
        self._unsent: deque[int] = deque()
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
        threads = Threads(
            self._connect_timeout, lambda: report(self._thread_ended, threads)
        )
        kazoo = new_client(
            self.servers,
            self._digest,
            self._session_timeout,
            self._longest_pause,
            threads,
            self._complaints,
        )

        def moved(state: str) -> None:
            report(self._moved, threads, session_of(kazoo, state))

        kazoo.add_listener(moved)
        self._kazoo, self._threads = kazoo, threads
        kazoo.start_async()

    def _moved(self, threads: Threads, session_id: int | None) -> None:
        if threads is not self._threads or session_id == self.session_id:
            return
        self.session_id = session_id
        self._stop_doubting()
        if session_id is None:
            self._doubt = self._reactor.callLater(self._patience, self._start_over)
            # Those that were sent kazoo fails itself.
            self._fail(self._unsent, self._unavailable())
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

    def _thread_ended(self, threads: Threads) -> None:
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
        self._fail(self._requests, Unavailable("the registry is being closed"))
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
            "create_async", path, data, acl=CREATOR_ALL, ephemeral=ephemeral
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

    def _watch(self, callback: Callable[[], None] | None) -> Watch | None:
        return None if callback is None else Watch(callback, self._reactor)

    def _request(self, method: str, path: str, *args: Any, **kw: Any) -> Deferred[Any]:
        """
        @return: What kazoo says; fails with L{Unavailable}, or with a L{Refusal} when
            the server does not want to.
        """
        if self.session_id is None:
            return fail(self._unavailable())
        number = next(self._numbers)

        def give_up() -> None:
            silent = f"ZooKeeper at {self.servers} does not answer"
            self._settle(number, Failure(Unavailable(silent)))
            self._send()

        def forget(_: object) -> None:
            self._forget(number)
            self._send()

        result: Deferred[Any] = Deferred(forget)
        bound = self._reactor.callLater(self._patience, give_up)
        self._requests[number] = _Request(
            path, lambda: getattr(self._kazoo, method)(path, *args, **kw), result, bound
        )
        self._unsent.append(number)
        self._send()
        return result

    def _send(self) -> None:
        # Connected: what was not sent has failed when the connection was lost.
        while self._unsent and len(self._requests) - len(self._unsent) < _IN_FLIGHT:
            number = self._unsent.popleft()
            request = self._requests[number]
            try:
                request.send().rawlink(partial(self._answer, number))
            except (TypeError, ValueError) as error:
                self._settle(number, Failure(Refusal(request.path, str(error))))

    def _answer(self, number: int, answer: Any) -> None:
        # Called in one of kazoo's threads.
        self._reactor.callFromThread(
            self._answered, number, answer.value, answer.exception
        )

    def _answered(self, number: int, value: Any, error: Exception | None) -> None:
        request = self._requests.get(number)
        if request is None:
            # Given up before, or answered twice.
            return
        if error is None:
            self._settle(number, value)
        else:
            refused = refusal(error, request.path)
            self._settle(number, Failure(refused or self._unavailable()))
        self._send()

    def _settle(self, number: int, outcome: Any) -> None:
        request = self._forget(number)
        if request is not None:
            request.result.callback(outcome)

    def _forget(self, number: int) -> _Request | None:
        request = self._requests.pop(number, None)
        if request is not None:
            if number in self._unsent:
                self._unsent.remove(number)
            if request.bound.active():
                request.bound.cancel()
        return request

    def _fail(self, numbers: Iterable[int], why: Unavailable) -> None:
        for number in list(numbers):
            self._settle(number, Failure(why))

    def _unavailable(self) -> Unavailable:
        return Unavailable(f"ZooKeeper at {self.servers} cannot be reached")


def _nothing(_: object) -> None:
    return None
