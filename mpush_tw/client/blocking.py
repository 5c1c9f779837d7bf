"""
The client for programs without a reactor: calls that block until they are done.

    >>> with BlockingClient(settings, listener) as client:
    ...     client.bind_user("alice")
    ...     client.push("good morning")

Where the reactor comes from is said in L{mpush_tw.reactor_thread}. The listener is
called in the reactor's thread and must not call back into the blocking client.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.python.failure import Failure

from mpush_tw.client.client import Client
from mpush_tw.client.errors import Disconnected
from mpush_tw.client.http import NOTHING, Data, Headers, HttpAnswer, Params
from mpush_tw.client.settings import AckModel, BindData, ClientSettings
from mpush_tw.reactor_thread import ReactorStopped, ReactorThread

_Result = TypeVar("_Result")


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
        @param reactor: As for L{ReactorThread}.
        @raise ConfigError: As L{Client}.
        @raise RuntimeError: If the reactor does not run.
        """
        self._thread = ReactorThread(reactor)
        self._client = self._wait(
            lambda: succeed(Client(settings, listener, reactor=self._thread.reactor))
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
            online.addTimeout(timeout, self._thread.reactor, self._not_in_time)
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
    ) -> HttpAnswer:
        """
        See L{Client.send_http}.
        """
        return self._wait(
            lambda: self._client.send_http(
                method, url, headers, data, timeout, params=params, json=json
            )
        )

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
        try:
            return self._thread.wait(function)
        except ReactorStopped as error:
            raise Disconnected(str(error)) from None
