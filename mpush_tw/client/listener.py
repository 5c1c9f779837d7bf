"""
What the application hears from its client.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import Interface, implementer

from mpush_tw.client.errors import ClientError

if TYPE_CHECKING:
    from mpush_tw.client.client import Client


class IClientListener(Interface):
    """
    The events of one client, in the order in which they happened (clients 10.2).

    All methods are called in the reactor thread and must not block it. What they raise
    is logged and changes nothing else: an automatic ack is still sent, the session
    still saved, the user still bound. They may call every method of the client.
    """

    def on_connected() -> object:
        """
        A TCP connection is made; the handshake follows by itself.
        """

    def on_disconnected(reason: ClientError) -> object:
        """
        That connection is gone, closed by either side. Exactly once for each
        C{on_connected}.
        """

    def on_handshake_ok(heartbeat_ms: int) -> object:
        """
        The session is there, by HANDSHAKE or FAST_CONNECT. The user, if there is one,
        is bound next.

        @param heartbeat_ms: The agreed interval, above 0.
        """

    def on_receive_push(content: bytes, message_id: int) -> Awaitable[object] | object:
        """
        A message arrived.

        If a Deferred or coroutine is returned, an automatic ack waits for it, but for 1
        second at most. When C{max_pending} of them are unfinished, the client stops
        reading until one is done; after 30 seconds one is cancelled.

        @param message_id: Above 0 if the sender wants the application to confirm with
            C{client.ack(message_id)}, otherwise 0.
        """

    def on_kick_user(device_id: str, user_id: str) -> object:
        """
        Another device of the same kind was bound to the user of this one. What C{
        kick_policy} demands has been done, except that C{stop} follows after this call.

        @param device_id: The device that is kicked: this one.
        """

    def on_bind(success: bool, user_id: str) -> object:
        """
        A bind, asked for or automatic, was answered.
        """

    def on_unbind(success: bool, user_id: str) -> object:
        """
        An unbind, asked for or automatic, was answered.
        """

    def on_error(command: int, code: int, reason: str) -> object:
        """
        The server answered ERROR. Those of which the client takes care without a trace
        are not told: a refused FAST_CONNECT, "repeat handshake".

        @param command: The number of the refused command, possibly an unknown one.
        @param code: See L{mpush_tw.protocol.commands.ErrorCode}; 0 with a free text.
        """


@implementer(IClientListener)
class ClientListener:
    """
    A listener that does nothing; override what is of interest.
    """

    def on_connected(self) -> object:
        return None

    def on_disconnected(self, reason: ClientError) -> object:
        return None

    def on_handshake_ok(self, heartbeat_ms: int) -> object:
        return None

    def on_receive_push(
        self, content: bytes, message_id: int
    ) -> Awaitable[object] | object:
        return None

    def on_kick_user(self, device_id: str, user_id: str) -> object:
        return None

    def on_bind(self, success: bool, user_id: str) -> object:
        return None

    def on_unbind(self, success: bool, user_id: str) -> object:
        return None

    def on_error(self, command: int, code: int, reason: str) -> object:
        return None


@implementer(IClientListener)
class JavaStyleListener:
    """
    Lets an object with the method names of the Java SDK listen (clients 2.3, 13).

    C{onConnected(client)}, C{onDisConnected(client)}, C{onHandshakeOk(client,
    heartbeat)}, C{onReceivePush(client, content, messageId)} or the manual's older
    C{onReceivePush(client, content)}, C{onKickUser(deviceId, userId)},
    C{onBind(success, userId)}, C{onUnbind(success, userId)}. Methods that the object
    lacks are left out.
    """

    __slots__ = ("_client", "_target", "_with_id")

    NAMES = (
        "onConnected",
        "onDisConnected",
        "onHandshakeOk",
        "onReceivePush",
        "onKickUser",
        "onBind",
        "onUnbind",
    )

    def __init__(self, client: Client, target: object) -> None:
        self._client = client
        self._target = target
        receive = getattr(target, "onReceivePush", None)
        self._with_id = receive is not None and _accepts(receive, 3)

    def on_connected(self) -> object:
        return self._call("onConnected", self._client)

    def on_disconnected(self, reason: ClientError) -> object:
        return self._call("onDisConnected", self._client)

    def on_handshake_ok(self, heartbeat_ms: int) -> object:
        return self._call("onHandshakeOk", self._client, heartbeat_ms)

    def on_receive_push(
        self, content: bytes, message_id: int
    ) -> Awaitable[object] | object:
        if self._with_id:
            return self._call("onReceivePush", self._client, content, message_id)
        return self._call("onReceivePush", self._client, content)

    def on_kick_user(self, device_id: str, user_id: str) -> object:
        return self._call("onKickUser", device_id, user_id)

    def on_bind(self, success: bool, user_id: str) -> object:
        return self._call("onBind", success, user_id)

    def on_unbind(self, success: bool, user_id: str) -> object:
        return self._call("onUnbind", success, user_id)

    def on_error(self, command: int, code: int, reason: str) -> object:
        return None

    def _call(self, name: str, *arguments: object) -> object:
        method = getattr(self._target, name, None)
        return None if method is None else method(*arguments)


@implementer(IClientListener)
class IsolatedListener:
    """
    Keeps what an application's listener raises away from the client (clients 10.3, 7).

    Failures are logged; so are those of a Deferred or coroutine that is returned. The
    one of C{on_receive_push} is handed on, because an ack may wait for it.
    """

    __slots__ = ("_log", "_target")

    def __init__(self, target: IClientListener, log: Logger) -> None:
        self._target = target
        self._log = log

    def on_connected(self) -> None:
        self._finish(self._call("on_connected"))

    def on_disconnected(self, reason: ClientError) -> None:
        self._finish(self._call("on_disconnected", reason))

    def on_handshake_ok(self, heartbeat_ms: int) -> None:
        self._finish(self._call("on_handshake_ok", heartbeat_ms))

    def on_receive_push(
        self, content: bytes, message_id: int
    ) -> Awaitable[object] | object:
        return self._call("on_receive_push", content, message_id)

    def on_kick_user(self, device_id: str, user_id: str) -> None:
        self._finish(self._call("on_kick_user", device_id, user_id))

    def on_bind(self, success: bool, user_id: str) -> None:
        self._finish(self._call("on_bind", success, user_id))

    def on_unbind(self, success: bool, user_id: str) -> None:
        self._finish(self._call("on_unbind", success, user_id))

    def on_error(self, command: int, code: int, reason: str) -> None:
        self._finish(self._call("on_error", command, code, reason))

    def _call(self, name: str, *arguments: object) -> object:
        try:
            return getattr(self._target, name)(*arguments)
        except Exception:
            self._log.failure("the listener's {name} failed", name=name)
            return None

    def _finish(self, result: object) -> None:
        waiting = as_deferred(result)
        if waiting is not None:
            waiting.addErrback(
                lambda failure: self._log.failure("a listener failed", failure=failure)
            )


def as_deferred(result: object) -> Deferred[object] | None:
    """
    @param result: What a listener's method returned.
    @return: Something to wait for if it was a Deferred or a coroutine.
    """
    if isinstance(result, Deferred):
        return result
    if inspect.iscoroutine(result):
        return Deferred.fromCoroutine(result)
    return None


def as_listener(client: Client, listener: object | None) -> IClientListener:
    """
    Make a listener of what the application gave.

    @param listener: A provider of L{IClientListener}, an object with Java names, or
        C{None} for nobody.
    @raise TypeError: If it is neither.
    """
    if listener is None:
        return ClientListener()
    if IClientListener.providedBy(listener):
        return IClientListener(listener)
    if any(hasattr(listener, name) for name in JavaStyleListener.NAMES):
        return JavaStyleListener(client, listener)
    raise TypeError(
        f"{listener!r} is no IClientListener and has no method of the Java listener"
    )


def _accepts(function: object, count: int) -> bool:
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:
        # Built-in callables without a signature: take the current form.
        return True
    return True
