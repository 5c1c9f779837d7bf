"""
The client for programs without a reactor: calls that block until they are done.

    >>> with BlockingClient(settings, listener) as client:
    ...     client.bind_user("alice")
    ...     client.push("good morning")

Twisted's reactor can be run once per process. If nobody has run it, the first
L{BlockingClient} does, in a daemon thread that stays until the process ends; all
others, and whatever else uses the reactor, share it. A reactor that runs already, in
the main thread for instance, is used as it is; a program that is only about to run its
own gives it as C{reactor}, so that nobody runs it first. The listener is called in the
reactor's thread and must not call back into the blocking client.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.error import ReactorAlreadyRunning
from twisted.python import threadable
from twisted.python.failure import Failure

from mpush_tw.client.client import Client
from mpush_tw.client.errors import Disconnected
from mpush_tw.client.settings import AckModel, BindData, ClientSettings

_Result = TypeVar("_Result")

_START_TIMEOUT = 10.0
_LOOK_EVERY = 1.0
"""
Seconds between two looks whether the reactor, on which a call waits, still runs.
"""
_starting = threading.Lock()


class BlockingClient:
    """
    One device, with L{mpush_tw.client.Client}'s methods for other threads than the
    reactor's. They raise what the Deferreds there fail with, L{Disconnected} if the
    reactor has been stopped, and C{RuntimeError} if called in the reactor's thread,
    which they would block for ever.
    """

    def __init__(
        self,
        settings: ClientSettings,
        listener: object | None = None,
        *,
        reactor: object | None = None,
    ) -> None:
        """
        @param listener: As for L{Client}; its methods run in the reactor's thread.
        @param reactor: The reactor if the program runs it, now or within 10 seconds;
            C{None} to take the process's, and to run it if nobody ever has.
        @raise ConfigError: As L{Client}.
        @raise RuntimeError: If the reactor does not run.
        """
        _refuse_reactor_thread()
        self._reactor: Any = _running_reactor(reactor)
        self._client = self._wait(
            lambda: succeed(Client(settings, listener, reactor=self._reactor))
        )

    def __enter__(self) -> BlockingClient:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def is_running(self) -> bool:
        """
        See L{Client.is_running}.
        """
        return self._client.is_running

    def start(self, timeout: float = 30.0) -> None:
        """
        Connect and wait for the first handshake.

        @param timeout: Seconds to wait.
        @raise Disconnected: If there is no session by then, with the reason of the last
            failure. The client goes on trying until L{stop}.
        """

        def start() -> Deferred[int]:
            self._client.start()
            online = self._client.when_online()
            online.addTimeout(timeout, self._reactor, self._not_in_time)
            return online

        self._wait(start)

    def stop(self) -> None:
        """
        Disconnect, within a few seconds. Nothing is left to do if the reactor has been
        stopped.
        """
        try:
            self._wait(self._client.stop)
        except Disconnected:
            pass

    def bind_user(
        self, user_id: str, tags: str | None = None, data: BindData | None = None
    ) -> None:
        """
        See L{Client.bind_user}.
        """
        self._wait(lambda: self._client.bind_user(user_id, tags, data))

    def unbind_user(self) -> None:
        """
        See L{Client.unbind_user}.
        """
        self._wait(self._client.unbind_user)

    def push(
        self,
        content: bytes | str,
        ack: AckModel = AckModel.AUTO,
        timeout: float | None = None,
        retries: int = 0,
    ) -> int:
        """
        See L{Client.push}.

        @return: The number the message went out under.
        """
        return self._wait(lambda: self._client.push(content, ack, timeout, retries))

    def ack(self, message_id: int) -> bool:
        """
        See L{Client.ack}.
        """
        return self._wait(lambda: succeed(self._client.ack(message_id)))

    def _not_in_time(self, result: int | Failure, seconds: float) -> int:
        if isinstance(result, Failure):
            result.trap(CancelledError)
            why = self._client.last_failure
            reason = "" if why is None else f": {why}"
            raise Disconnected(f"no handshake within {seconds:g} s{reason}") from why
        return result

    def _wait(self, function: Callable[[], Deferred[_Result]]) -> _Result:
        """
        Call C{function} in the reactor's thread and wait for what comes of it.
        """
        _refuse_reactor_thread()
        outcome: SimpleQueue[Any] = SimpleQueue()
        self._reactor.callFromThread(
            lambda: maybeDeferred(function).addBoth(outcome.put)
        )
        while self._reactor.running:
            try:
                result = outcome.get(timeout=_LOOK_EVERY)
            except Empty:
                continue
            if isinstance(result, Failure):
                result.raiseException()
            answer: _Result = result
            return answer
        raise Disconnected("the reactor was stopped")


def _refuse_reactor_thread() -> None:
    if threadable.isInIOThread():
        raise RuntimeError("a blocking call in the reactor's thread would never end")


def _running_reactor(given: object | None) -> Any:
    """
    Give a reactor that runs, after starting it in a thread of its own if need be.

    @raise RuntimeError: If it does not run.
    """
    if given is not None:
        _wait_until_running(given)
        return given
    # Imported late: the import installs the reactor for the whole process.
    from twisted.internet import reactor

    with _starting:
        # The thread is set for good by whoever runs the reactor, before it says that it
        # is running. A reactor that was run and is not running will not run again.
        if threadable.ioThread is None:
            threading.Thread(
                target=_run, args=(reactor,), name="mpush reactor", daemon=True
            ).start()
        _wait_until_running(reactor)
    return reactor


def _wait_until_running(reactor: Any) -> None:
    started = threading.Event()
    reactor.callFromThread(started.set)
    if not started.wait(_START_TIMEOUT):
        raise RuntimeError("the reactor does not run")


def _run(reactor: Any) -> None:
    try:
        reactor.run(installSignalHandlers=False)
    except ReactorAlreadyRunning:
        # Somebody was quicker, and theirs will do.
        pass
