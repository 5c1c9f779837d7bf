"""
The client for programs without a reactor: calls that block until they are done.

    >>> with BlockingClient(settings, listener) as client:
    ...     client.bind_user("alice")
    ...     client.push("good morning")

Twisted's reactor can be run once per process. The first L{BlockingClient} runs it in a
daemon thread that stays until the process ends; all others, and whatever else uses the
reactor, share it. Where a reactor is running already, in the main thread for instance,
it is used as it is. The listener is called in the reactor's thread and must not call
back into the blocking client.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.threads import blockingCallFromThread
from twisted.python.failure import Failure
from twisted.python.threadable import isInIOThread

from mpush_tw.client.client import Client
from mpush_tw.client.errors import Disconnected
from mpush_tw.client.settings import AckModel, BindData, ClientSettings

_Result = TypeVar("_Result")

_START_TIMEOUT = 10.0
_starting = threading.Lock()


class BlockingClient:
    """
    One device, with L{mpush_tw.client.Client}'s methods for other threads than the
    reactor's. They raise what the Deferreds there fail with, and C{RuntimeError} if
    called in the reactor's thread, which they would block for ever.
    """

    def __init__(
        self, settings: ClientSettings, listener: object | None = None
    ) -> None:
        """
        @param listener: As for L{Client}; its methods run in the reactor's thread.
        @raise ConfigError: As L{Client}.
        """
        self._reactor: Any = _running_reactor()
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
        @raise Disconnected: If there is no session by then. The client goes on trying
            until L{stop}.
        """

        def start() -> Deferred[int]:
            self._client.start()
            online = self._client.when_online()
            online.addTimeout(timeout, self._reactor, _not_in_time)
            return online

        self._wait(start)

    def stop(self) -> None:
        """
        Disconnect, within a few seconds.
        """
        self._wait(self._client.stop)

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

    def _wait(self, function: Callable[[], Deferred[_Result]]) -> _Result:
        if isInIOThread():
            raise RuntimeError(
                "a blocking call in the reactor's thread would never end"
            )
        # Its annotation knows no function that gives a value of a type variable.
        run: Any = blockingCallFromThread
        result: _Result = run(self._reactor, function)
        return result


def _not_in_time(result: int | Failure, seconds: float) -> int:
    if isinstance(result, Failure):
        result.trap(CancelledError)
        raise Disconnected(f"no handshake within {seconds:g} s")
    return result


def _running_reactor() -> Any:
    """
    Give the reactor, after starting it in a thread of its own if nobody has.

    @raise RuntimeError: If it does not start.
    """
    # Imported late: the import installs the reactor for the whole process.
    from twisted.internet import reactor

    running: Any = reactor
    with _starting:
        if not running.running:
            started = threading.Event()
            running.callWhenRunning(started.set)
            threading.Thread(
                target=running.run,
                kwargs={"installSignalHandlers": False},
                name="mpush reactor",
                daemon=True,
            ).start()
            if not started.wait(_START_TIMEOUT):
                raise RuntimeError("the reactor does not start; was it stopped before?")
    return running
