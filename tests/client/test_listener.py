"""
Tests for L{mpush_tw.client.listener}: what applications hear, and how.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass, verifyObject

from mpush_tw.client import Client, ClientListener, IClientListener, JavaStyleListener
from mpush_tw.client.listener import IsolatedListener
from mpush_tw.protocol.commands import Command
from tests.client.support import ClientTestCase, RecordingListener

EVENTS = [
    "on_connected",
    "on_disconnected",
    "on_handshake_ok",
    "on_receive_push",
    "on_kick_user",
    "on_bind",
    "on_unbind",
    "on_error",
]


class InterfaceTests(SynchronousTestCase):
    """
    The listeners of the package.
    """

    def test_verified(self) -> None:
        """
        All of them provide L{IClientListener}.
        """
        for kind in (ClientListener, JavaStyleListener, IsolatedListener):
            self.assertTrue(verifyClass(IClientListener, kind))
        self.assertTrue(verifyObject(IClientListener, ClientListener()))

    def test_complete(self) -> None:
        """
        The events are those of clients 10.2.
        """
        self.assertEqual(sorted(IClientListener.names()), sorted(EVENTS))


class JavaListener:
    """
    Has the method names of the Java SDK.
    """

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def onConnected(self, client: Any) -> None:
        self.heard.append(("onConnected", client))

    def onDisConnected(self, client: Any) -> None:
        self.heard.append(("onDisConnected", client))

    def onHandshakeOk(self, client: Any, heartbeat: int) -> None:
        self.heard.append(("onHandshakeOk", client, heartbeat))

    def onReceivePush(self, client: Any, content: bytes, message_id: int) -> None:
        self.heard.append(("onReceivePush", client, content, message_id))

    def onKickUser(self, device_id: str, user_id: str) -> None:
        self.heard.append(("onKickUser", device_id, user_id))

    def onBind(self, success: bool, user_id: str) -> None:
        self.heard.append(("onBind", success, user_id))

    def onUnbind(self, success: bool, user_id: str) -> None:
        self.heard.append(("onUnbind", success, user_id))


class JavaStyleListenerTests(ClientTestCase):
    """
    Objects with Java's method names.
    """

    def test_all_events(self) -> None:
        """
        They hear everything in Java's order of arguments; the client itself comes first
        where it does in Java.
        """
        listener = JavaListener()
        client = self.start_client(listener, user_id="u")
        self.server.peer.push(b"x", 77, 4)
        self.server.refuse(Command.PUSH)
        client.push(b"refused").addErrback(lambda _: None)
        self.network.settle()
        self.server.peer.kick("dev-1", "u")
        self.network.settle()
        client.stop()
        self.network.settle()
        self.assertEqual(
            listener.heard,
            [
                ("onConnected", client),
                ("onHandshakeOk", client, 180_000),
                ("onBind", True, "u"),
                ("onReceivePush", client, b"x", 77),
                ("onKickUser", "dev-1", "u"),
                ("onUnbind", True, "u"),
                ("onDisConnected", client),
            ],
        )

    def test_older_form(self) -> None:
        """
        The manual's C{onReceivePush(client, content)} is called without the id, and
        what the object lacks is left out.
        """
        heard = []

        class Older:
            def onReceivePush(self, client: Any, content: bytes) -> None:
                heard.append((client, content))

        client = self.start_client(Older(), user_id="u")
        self.server.peer.push(b"x", 77, 4)
        self.network.settle()
        self.assertEqual(heard, [(client, b"x")])

    def test_of_the_settings(self) -> None:
        """
        C{clientListener} of the settings listens when nobody else does.
        """
        java = JavaListener()
        settings = self.settings(listener=java)
        client = Client(settings, reactor=self.network)
        self.clients.append(client)
        client.start()
        self.network.settle()
        self.assertEqual(len(java.heard), 2)

    def test_other_objects(self) -> None:
        """
        An object that cannot hear anything is a mistake of the caller.
        """
        self.assertRaises(TypeError, self.make_client, object())

    def test_nobody(self) -> None:
        """
        A client without a listener works.
        """
        client = Client(self.settings(), reactor=self.network)
        self.clients.append(client)
        client.start()
        self.network.settle()
        self.assertTrue(client.is_online)


class RaisingListener(RecordingListener):
    """
    Raises in every method, after keeping what it heard.
    """

    def __getattribute__(self, name: str) -> Any:
        method = super().__getattribute__(name)
        if not name.startswith("on_"):
            return method

        def raising(*arguments: Any) -> None:
            method(*arguments)
            raise ZeroDivisionError(name)

        return raising


class IsolationTests(ClientTestCase):
    """
    What listeners raise stays with them (clients 10.3, 7).
    """

    def test_everything_goes_on(self) -> None:
        """
        With a listener that raises always, the session is saved, the user bound, the
        push acknowledged, the kick obeyed, the connection repaired.
        """
        self.listener = RaisingListener()
        client = self.start_client(user_id="u")
        self.server.refuse(Command.PUSH)
        client.push(b"x").addErrback(lambda _: None)
        self.server.peer.push(b"x", 77, 8)
        self.network.settle()
        self.server.peer.kick("dev-1", "u")
        self.network.settle()
        self.assertEqual(
            self.server.peer.commands,
            [
                Command.HANDSHAKE,
                Command.BIND,
                Command.PUSH,
                Command.ACK,
                Command.UNBIND,
            ],
        )
        self.server.peer.close()
        self.network.pass_time(1)
        self.assertEqual(self.server.peer.commands, [Command.FAST_CONNECT])
        self.assertTrue(client.is_online)
        client.stop()
        errors = self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual({str(error.value) for error in errors}, set(EVENTS))
        self.assertEqual(len(errors), len(self.listener.events))

    def test_coroutines(self) -> None:
        """
        Every method may be a coroutine function; what it raises later is logged, too.
        """
        step: Deferred[None] = Deferred()

        class Slow(ClientListener):
            async def on_connected(self) -> None:
                await step
                raise ZeroDivisionError

        client = self.start_client(Slow())
        self.assertTrue(client.is_online)
        step.callback(None)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
