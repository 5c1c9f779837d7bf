"""
The device client against a real node, over sockets: the clients here and the node must
work together, not only each with the specification (clients 10.3, 15).
"""

from __future__ import annotations

import os
import random
import re
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredQueue, gatherResults, succeed
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from zope.interface import implementer

from mpush_tw.client import (
    AckModel,
    Client,
    ClientListener,
    ClientSettings,
    ClientState,
    Disconnected,
    FileSessionStorage,
    KickPolicy,
    Refused,
    TimedOut,
)
from mpush_tw.client.blocking import BlockingClient
from mpush_tw.config import load_settings
from mpush_tw.core.log import NodeLog
from mpush_tw.extensions import Extension
from mpush_tw.interfaces import IBindValidator, IUpstreamHandler, UpstreamMessage
from mpush_tw.protocol.commands import Command
from mpush_tw.protocol.crypto import RsaPrivateKey
from mpush_tw.sender import AckModel as SenderAck
from mpush_tw.sender import PushContext, PushSender, ResultCode
from mpush_tw.service import Node
from tests.support import SAMPLE, NodeTestCase

ROOT = Path(__file__).parents[2]
clock: Any = reactor


class App(ClientListener):
    """
    An application: keeps what it hears, by name and in order, until it is asked for.

    @ivar client: Set by the test case.
    @ivar confirms: Whether it acknowledges what asks for it.
    @ivar result: Makes what C{on_receive_push} returns.
    """

    def __init__(self) -> None:
        self.client: Any = None
        self.confirms = True
        self.result: Any = lambda: None
        self._heard: dict[str, DeferredQueue[Any]] = defaultdict(DeferredQueue)

    async def next(self, name: str) -> tuple[Any, ...]:
        """
        Take the next event of this name; it must come within 10 seconds.
        """
        waiting = self._heard[name].get()
        event: tuple[Any, ...] = await waiting.addTimeout(10, clock)
        return event

    def left(self, name: str) -> int:
        """
        How many events of this name nobody has taken.
        """
        return len(self._heard[name].pending)

    def on_connected(self) -> None:
        self._heard["connected"].put(())

    def on_disconnected(self, reason: Exception) -> None:
        self._heard["disconnected"].put((reason,))

    def on_handshake_ok(self, heartbeat_ms: int) -> None:
        self._heard["handshake"].put((heartbeat_ms,))

    def on_receive_push(self, content: bytes, message_id: int) -> Any:
        self._heard["push"].put((content, message_id))
        if self.confirms and message_id:
            self.client.ack(message_id)
        return self.result()

    def on_kick_user(self, device_id: str, user_id: str) -> None:
        self._heard["kick"].put((device_id, user_id))

    def on_bind(self, success: bool, user_id: str) -> None:
        self._heard["bind"].put((success, user_id))

    def on_unbind(self, success: bool, user_id: str) -> None:
        self._heard["unbind"].put((success, user_id))

    def on_error(self, command: int, code: int, reason: str) -> None:
        self._heard["error"].put((command, code, reason))


@implementer(IBindValidator)
class Tokens:
    """
    Lets those bind who have a token; each is good once.
    """

    def __init__(self, *tokens: str) -> None:
        self.good = set(tokens)

    def validate(self, user_id: str, data: str | None) -> bool:
        if data not in self.good:
            return False
        self.good.remove(data)
        return True


@implementer(IUpstreamHandler)
class Inbox:
    """
    Keeps what devices push to the server, or fails.
    """

    def __init__(self) -> None:
        self.messages: list[UpstreamMessage] = []
        self.broken = False

    def message_received(self, message: UpstreamMessage) -> Deferred[None] | None:
        if self.broken:
            raise RuntimeError("the business is closed")
        self.messages.append(message)
        return None


class ClientNodeTestCase(NodeTestCase):
    """
    A node, and devices and senders that end with the test.
    """

    def device(
        self, name: str = "phone", node: Node | None = None, **settings: Any
    ) -> tuple[Client, App]:
        """
        Make a client of a node and start it.
        """
        app = App()
        client = app.client = Client(
            self.client_settings(name, node, **settings),
            app,
            reactor=clock,
            random=lambda: 0.01,
        )
        self.addCleanup(client.stop)
        client.start()
        return client, app

    def client_settings(
        self, name: str, node: Node | None = None, **settings: Any
    ) -> ClientSettings:
        defaults: dict[str, Any] = {
            "device_id": name,
            "os_name": "android",
            "server_host": "127.0.0.1",
            "server_port": (node or self.node).connect_listener.port,
            "public_key": SAMPLE["rsaPublicKeyBase64"],
        }
        return ClientSettings(**(defaults | settings))

    async def online(self, *args: Any, **settings: Any) -> tuple[Client, App]:
        """
        Make a client that has shaken hands and, if it has a user, bound it.
        """
        client, app = self.device(*args, **settings)
        await client.when_online().addTimeout(10, clock)
        await app.next("handshake")
        if client.user_id is not None:
            self.assertEqual(await app.next("bind"), (True, client.user_id))
        return client, app

    async def sender(self, node: Node | None = None) -> PushSender:
        """
        Make a sender that is connected to a node.
        """
        port = (node or self.node).gateway_listener.port
        sender = PushSender([("127.0.0.1", port)], reactor=clock)
        self.addCleanup(sender.stop)
        await sender.start()
        return sender

    async def another_node(self, port: int = 0, *extensions: Extension) -> Node:
        """
        Start a node beside the first.

        @param extensions: What it uses instead of what is built in.
        """
        overrides = [
            f"mp.home={self.home}",
            f'mp.security.private-key="{SAMPLE["rsaPrivateKeyBase64"]}"',
            f'mp.security.public-key="{SAMPLE["rsaPublicKeyBase64"]}"',
            "mp.security.allow-sample-key=true",
            f"mp.net.connect-server-port={port}",
            "mp.net.connect-server-bind-ip=127.0.0.1",
            "mp.net.gateway-server-port=0",
            "mp.net.admin-server-port=0",
        ]
        log = NodeLog("debug", clock, self.events.append)
        node = Node(
            load_settings(None, overrides, {}), clock, log=log, extensions=extensions
        )
        self.addCleanup(node.stopService)
        node.startService()
        await node.started
        return node

    def drop(self, node: Node | None = None) -> None:
        """
        Let a node close all its devices' connections.
        """
        for connection in (node or self.node).connections:
            connection.close("test")


class HandshakeTests(ClientNodeTestCase):
    """
    Getting a session.
    """

    async def test_session(self) -> None:
        """
        The node knows the device as it describes itself, and both agree on the
        heartbeat.
        """
        client, _ = await self.online(
            "d1", os_name="ios", os_version="17.1", client_version="3.2"
        )
        self.assertEqual(await client.when_online(), 180_000)
        (known,) = self.node.connections
        self.assertEqual(
            (known.device_id, known.os_name, known.os_version, known.client_version),
            ("d1", "ios", "17.1", "3.2"),
        )
        self.assertEqual(known.heartbeat, 180)

    async def test_again(self) -> None:
        """
        A second handshake on a connection changes nothing: requests go on.
        """
        client, app = await self.online(user_id="alice")
        self.assertTrue(client.handshake())
        while not client.is_online:
            await deferLater(clock, 0.01)
        await client.push(b"still here")
        self.assertEqual(self.node.metrics.handshakes["repeat"], 1)
        self.assertEqual(app.left("disconnected"), 0)

    async def test_wrong_key(self) -> None:
        """
        A client with the key of another server gets no session, and keeps trying.
        """
        other = RsaPrivateKey.generate(1024).public.text()
        client, app = self.device(public_key=other)
        for _ in range(2):
            await app.next("disconnected")
            self.assertFalse(client.is_online)
        self.assertEqual(self.node.metrics.handshakes["success"], 0)
        await client.stop()

    async def test_stop(self) -> None:
        """
        When C{stop} is done the node knows of no connection any more.
        """
        client, app = await self.online(user_id="alice")
        await client.stop()
        while len(self.node.connections):
            await deferLater(clock, 0.01)
        self.assertEqual(len(self.node.local_routes), 0)
        (reason,) = await app.next("disconnected")
        self.assertEqual(str(reason), "the client was stopped")


class HeartbeatTests(ClientNodeTestCase):
    """
    A node with the shortest heartbeat.
    """

    settings = ("mp.core.min-heartbeat=1s", "mp.core.max-heartbeat=1s")

    async def test_pings(self) -> None:
        """
        An idle client pings before its heartbeat is over, again and again, and the node
        answers each time.
        """
        client, app = await self.online()
        self.assertEqual(await client.when_online(), 1000)
        begun = clock.seconds()
        while self.node.metrics.heartbeats < 2:
            await deferLater(clock, 0.02)
        self.assertLess(clock.seconds() - begun, 2)
        self.assertEqual(self.node.metrics.conn.packets_out[Command.HEARTBEAT], 2)
        self.assertEqual(app.left("disconnected"), 0)


class BindTests(ClientNodeTestCase):
    """
    A user on a device.
    """

    async def test_bind(self) -> None:
        """
        After C{bind_user} the node reaches the user with these tags here.
        """
        client, app = await self.online()
        await client.bind_user("alice", "t1,t2")
        (known,) = self.node.local_routes.lookup_all("alice")
        self.assertEqual((known.device_id, known.tags), ("phone", "t1,t2"))
        self.assertEqual(await app.next("bind"), (True, "alice"))

    async def test_other_tags(self) -> None:
        """
        The same user may be bound with other tags, and with none.
        """
        client, _ = await self.online(user_id="alice", tags="t1")
        for tags in ("t2", None):
            await client.bind_user("alice", tags)
            (known,) = self.node.local_routes.lookup_all("alice")
            self.assertEqual(known.tags, tags)

    async def test_other_user(self) -> None:
        """
        Another user takes the place of the first, whom nothing reaches any more.
        """
        client, app = await self.online(user_id="alice")
        sender = await self.sender()
        await client.bind_user("bob")
        self.assertEqual(await app.next("unbind"), (True, "alice"))
        result = await sender.send(PushContext(b"a", user_id="alice"))
        self.assertIs(result.code, ResultCode.OFFLINE)
        result = await sender.send(PushContext(b"b", user_id="bob"))
        self.assertIs(result.code, ResultCode.SUCCESS)
        self.assertEqual(await app.next("push"), (b"b", 0))

    async def test_unbind(self) -> None:
        """
        After C{unbind_user} nothing reaches the user, not even after a reconnect.
        """
        client, app = await self.online(user_id="alice")
        sender = await self.sender()
        await client.unbind_user()
        self.assertEqual(await app.next("unbind"), (True, "alice"))
        self.drop()
        await app.next("handshake")
        await client.push(b"a round trip behind what might have been a bind")
        result = await sender.send(PushContext(b"a", user_id="alice"))
        self.assertIs(result.code, ResultCode.OFFLINE)
        self.assertEqual(self.node.metrics.binds["success"], 1)


class PushDownTests(ClientNodeTestCase):
    """
    Messages from a sender, by way of the node.
    """

    async def push(
        self, ack: SenderAck, content: bytes = b"hello", timeout: float = 3.0
    ) -> ResultCode:
        """
        Push to alice.
        """
        sender = await self.sender()
        result = await sender.send(
            PushContext(content, user_id="alice", ack=ack, timeout=timeout)
        )
        return result.code

    async def test_no_ack(self) -> None:
        """
        The content arrives; the application has nothing to confirm.
        """
        _, app = await self.online(user_id="alice")
        self.assertIs(await self.push(SenderAck.NO_ACK), ResultCode.SUCCESS)
        self.assertEqual(await app.next("push"), (b"hello", 0))

    async def test_auto_ack(self) -> None:
        """
        The client confirms by itself; the application has nothing to confirm.
        """
        _, app = await self.online(user_id="alice")
        self.assertIs(await self.push(SenderAck.AUTO_ACK), ResultCode.SUCCESS)
        self.assertEqual(await app.next("push"), (b"hello", 0))
        self.assertEqual(self.node.metrics.conn.packets_in[Command.ACK], 1)

    async def test_auto_ack_waits_for_the_application(self) -> None:
        """
        If the application returns a Deferred, the sender hears of a success only when
        that has fired.
        """
        _, app = await self.online(user_id="alice")
        working: Deferred[None] = Deferred()
        app.result = lambda: working
        pushing = Deferred.fromCoroutine(self.push(SenderAck.AUTO_ACK))
        await app.next("push")
        await deferLater(clock, 0.1)
        self.assertNoResult(pushing)
        working.callback(None)
        self.assertIs(await pushing, ResultCode.SUCCESS)

    async def test_biz_ack(self) -> None:
        """
        The application gets a number, and the sender hears of a success when it has
        confirmed that.
        """
        _, app = await self.online(user_id="alice")
        self.assertIs(await self.push(SenderAck.BIZ_ACK), ResultCode.SUCCESS)
        content, message_id = await app.next("push")
        self.assertEqual(content, b"hello")
        self.assertGreater(message_id, 0)

    async def test_biz_ack_withheld(self) -> None:
        """
        Nobody confirms in the application's place.
        """
        _, app = await self.online(user_id="alice")
        app.confirms = False
        code = await self.push(SenderAck.BIZ_ACK, timeout=0.8)
        self.assertIs(code, ResultCode.TIMEOUT)
        self.assertEqual(app.left("push"), 1)

    async def test_compressed(self) -> None:
        """
        A large content, which the node compresses, arrives as it was.
        """
        _, app = await self.online(user_id="alice")
        content = b"many of these. " * 600
        await self.push(SenderAck.NO_ACK, content)
        self.assertEqual((await app.next("push"))[0], content)

    async def test_order(self) -> None:
        """
        Many messages at once arrive in the order in which they were sent, each once.
        """
        _, app = await self.online(user_id="alice")
        sender = await self.sender()
        contents = [b"%d" % number for number in range(200)]
        await gatherResults(
            sender.send(
                PushContext(
                    content, user_id="alice", ack=random.choice(list(SenderAck))
                )
            )
            for content in contents
        )
        got = [(await app.next("push"))[0] for _ in contents]
        self.assertEqual(got, contents)
        self.assertEqual(app.left("push"), 0)

    async def test_many_clients(self) -> None:
        """
        A process has many devices; each gets what is for its user, and nothing else.
        """
        users = [f"user-{number}" for number in range(100)]
        devices = await gatherResults(
            Deferred.fromCoroutine(self.online(f"of-{user}", user_id=user))
            for user in users
        )
        sender = await self.sender()
        await gatherResults(
            sender.send(
                PushContext(user.encode(), user_id=user, ack=SenderAck.AUTO_ACK)
            )
            for user in users
        )
        for user, (_, app) in zip(users, devices, strict=True):
            self.assertEqual(await app.next("push"), (user.encode(), 0))
            self.assertEqual(app.left("push"), 0)


class PushUpTests(ClientNodeTestCase):
    """
    Messages of the device to the business, which is an upstream handler.
    """

    async def start(self, **settings: Any) -> tuple[Client, App]:
        """
        Start a node with an inbox, and a client of it.
        """
        self.inbox = Inbox()
        self.business = await self.another_node(
            0, Extension(IUpstreamHandler, "inbox", lambda: self.inbox)
        )
        return await self.online("phone", self.business, **settings)

    async def test_acknowledged(self) -> None:
        """
        C{push} is done when the node has confirmed, and the business knows from whom
        the message is.
        """
        client, _ = await self.start(user_id="alice", tags="t")
        number = await client.push("good morning \u2600")
        (got,) = self.inbox.messages
        self.assertEqual(got.content.decode(), "good morning \u2600")
        self.assertEqual(
            (got.session_id, got.user_id, got.device_id, got.tags),
            (number, "alice", "phone", "t"),
        )

    async def test_no_ack(self) -> None:
        """
        What asks for no confirmation arrives, too.
        """
        client, _ = await self.start()
        await client.push(b"first", AckModel.NONE)
        await client.push(b"second")
        self.assertEqual(
            [m.content for m in self.inbox.messages], [b"first", b"second"]
        )
        self.assertEqual(self.business.metrics.conn.packets_out[Command.ACK], 1)

    async def test_many(self) -> None:
        """
        Messages at once are confirmed each by itself, and stay in order.
        """
        client, _ = await self.start()
        contents = [b"%d" % number for number in range(100)]
        numbers = await gatherResults(client.push(content) for content in contents)
        self.assertEqual([m.content for m in self.inbox.messages], contents)
        self.assertEqual([m.session_id for m in self.inbox.messages], numbers)

    async def test_compressed(self) -> None:
        """
        A large content, which the client compresses, arrives as it was.
        """
        client, _ = await self.start()
        content = b"many of these. " * 5000
        await client.push(content)
        self.assertEqual(self.inbox.messages[0].content, content)

    async def test_business_fails(self) -> None:
        """
        What the business could not take is not confirmed; the connection stays.
        """
        client, app = await self.start()
        self.inbox.broken = True
        with self.assertRaises(TimedOut):
            await client.push(b"x", timeout=0.3)
        self.inbox.broken = False
        await client.push(b"y")
        self.assertEqual(app.left("disconnected"), 0)

    async def test_too_large_for_the_node(self) -> None:
        """
        A message larger than the node takes costs the connection: C{push} fails, and
        the client comes back with its user.
        """
        client, app = await self.start(user_id="alice")
        with self.assertRaises(Disconnected):
            await client.push(random.Random(1).randbytes(20_000), timeout=5)
        self.assertEqual(await app.next("bind"), (True, "alice"))
        await client.push(b"small")
        self.assertEqual([m.content for m in self.inbox.messages], [b"small"])


class KickTests(ClientNodeTestCase):
    """
    Two devices of one user.
    """

    async def test_same_kind(self) -> None:
        """
        The second device of a kind kicks the first, which forgets the user and lets the
        second alone, now and after a reconnect.
        """
        first, first_app = await self.online("d1", user_id="alice")
        _, second_app = await self.online("d2", user_id="alice", os_name="ios")
        self.assertEqual(await first_app.next("kick"), ("d1", "alice"))
        self.assertEqual(await first_app.next("unbind"), (True, "alice"))
        self.assertIsNone(first.user_id)
        sender = await self.sender()
        for content in (b"at once", b"after a reconnect"):
            result = await sender.send(
                PushContext(content, user_id="alice", ack=SenderAck.AUTO_ACK)
            )
            self.assertIs(result.code, ResultCode.SUCCESS)
            self.assertEqual(await second_app.next("push"), (content, 0))
            for connection in self.node.connections:
                if connection.device_id == "d1":
                    connection.close("test")
            await first_app.next("handshake")
            await first.push(b"a round trip behind what might have been a bind")
        self.assertEqual(first_app.left("push"), 0)
        self.assertEqual(second_app.left("kick"), 0)

    async def test_stop(self) -> None:
        """
        With C{kick_policy} C{stop} the first device leaves.
        """
        first, first_app = await self.online(
            "d1", user_id="alice", kick_policy=KickPolicy.STOP
        )
        await self.online("d2", user_id="alice")
        await first_app.next("kick")
        await first_app.next("disconnected")
        self.assertIs(first.state, ClientState.STOPPED)

    async def test_other_kind(self) -> None:
        """
        A phone and a computer of one user both stay, and both get the message.
        """
        _, phone = await self.online("d1", user_id="alice")
        _, computer = await self.online("d2", user_id="alice", os_name="linux")
        sender = await self.sender()
        await sender.send(PushContext(b"hello", user_id="alice"))
        for app in (phone, computer):
            self.assertEqual(await app.next("push"), (b"hello", 0))
            self.assertEqual(app.left("kick"), 0)


class ReconnectTests(ClientNodeTestCase):
    """
    Coming back.
    """

    async def reached(self, app: App, node: Node | None = None) -> None:
        """
        Check that alice's client gets pushes and can send.
        """
        sender = await self.sender(node)
        result = await sender.send(
            PushContext(b"back", user_id="alice", ack=SenderAck.BIZ_ACK)
        )
        self.assertIs(result.code, ResultCode.SUCCESS)
        self.assertEqual((await app.next("push"))[0], b"back")
        await app.client.push(b"back")

    async def test_fast_connect(self) -> None:
        """
        After a loss the session is resumed without a new handshake, and the user is
        bound again.
        """
        _, app = await self.online(user_id="alice")
        self.drop()
        await app.next("disconnected")
        self.assertEqual(await app.next("handshake"), (180_000,))
        self.assertEqual(await app.next("bind"), (True, "alice"))
        metrics = self.node.metrics
        self.assertEqual(metrics.handshakes["success"], 1)
        self.assertEqual(metrics.fast_connects["success"], 1)
        await self.reached(app)

    async def test_new_process(self) -> None:
        """
        With a file for its sessions a client resumes what the process before it left.
        """
        path = self.mktemp()
        first, _ = await self.online(session_storage=FileSessionStorage(path))
        await first.stop()
        _, app = await self.online(
            user_id="alice", session_storage=FileSessionStorage(path)
        )
        metrics = self.node.metrics
        self.assertEqual(metrics.handshakes["success"], 1)
        self.assertEqual(metrics.fast_connects["success"], 1)
        await self.reached(app)

    async def test_session_of_another_device(self) -> None:
        """
        A stored session that the node refuses costs a handshake on the same connection
        and is replaced.
        """
        path = self.mktemp()
        first, _ = await self.online("d1", session_storage=FileSessionStorage(path))
        await first.stop()
        _, app = await self.online(
            "d2", user_id="alice", session_storage=FileSessionStorage(path)
        )
        metrics = self.node.metrics
        self.assertEqual(metrics.fast_connects["invalid-device"], 1)
        self.assertEqual(metrics.handshakes["success"], 2)
        self.assertEqual(app.left("error"), 0)
        await self.reached(app)
        self.drop()
        await app.next("handshake")
        self.assertEqual(metrics.fast_connects["success"], 1)

    async def test_node_restarts(self) -> None:
        """
        A client outlives its node: it comes back to the next one at the same address,
        which does not know its session, with a handshake and its user.
        """
        _, app = await self.online(user_id="alice")
        port = self.node.connect_listener.port
        await self.node.stopService()
        await app.next("disconnected")
        await deferLater(clock, 0.1)
        node = await self.another_node(port)
        self.assertEqual(await app.next("bind"), (True, "alice"))
        self.assertEqual(node.metrics.fast_connects["session-expired"], 1)
        self.assertEqual(node.metrics.handshakes["success"], 1)
        await self.reached(app, node)

    async def test_other_server(self) -> None:
        """
        When its node is gone a client goes on with the next of its list.
        """
        other = await self.another_node()
        _, app = await self.online(
            user_id="alice", servers=f"127.0.0.1:{other.connect_listener.port}"
        )
        await self.node.stopService()
        self.assertEqual(await app.next("bind"), (True, "alice"))
        await self.reached(app, other)

    async def test_requests_under_way(self) -> None:
        """
        What waits for an answer when the node goes fails at once.
        """
        inbox = Inbox()
        inbox.broken = True
        node = await self.another_node(
            0, Extension(IUpstreamHandler, "inbox", lambda: inbox)
        )
        client, app = await self.online(node=node)
        answer = client.push(b"x", timeout=60)
        while not node.metrics.upstream["failed"]:
            await deferLater(clock, 0.01)
        self.drop(node)
        await app.next("disconnected")
        self.failureResultOf(answer, Disconnected)


class RefusedBindTests(ClientNodeTestCase):
    """
    A node that asks for proof, by a bind validator.
    """

    async def start(self, *tokens: str, **settings: Any) -> tuple[Client, App]:
        """
        Start a node that takes these tokens, and a client of it.
        """
        self.strict = await self.another_node(
            0, Extension(IBindValidator, "tokens", lambda: Tokens(*tokens))
        )
        client, app = self.device("phone", self.strict, **settings)
        await app.next("handshake")
        return client, app

    async def test_refused(self) -> None:
        """
        The application hears of the refusal, with the node's words.
        """
        client, app = await self.start()
        with self.assertRaises(Refused) as caught:
            await client.bind_user("alice", data="forged")
        self.assertEqual(caught.exception.reason, "bind failed")
        self.assertEqual(await app.next("bind"), (False, "alice"))
        self.assertEqual(await app.next("error"), (Command.BIND, 0, "bind failed"))
        self.assertEqual(len(self.strict.local_routes), 0)

    async def test_better_proof(self) -> None:
        """
        The node closes after a refusal; the client comes back, and binds with what the
        application gave meanwhile.
        """
        client, app = await self.start("genuine")
        with self.assertRaises(Refused):
            await client.bind_user("alice", data="forged")
        self.assertEqual(await app.next("bind"), (False, "alice"))
        # It may be in time for the connection that ends, or for the next one.
        client.bind_user("alice", data="genuine").addErrback(
            lambda failure: failure.trap(Disconnected)
        )
        self.assertEqual(await app.next("bind"), (True, "alice"))
        self.assertTrue(self.strict.local_routes.lookup_all("alice"))

    async def test_backs_off(self) -> None:
        """
        Without better proof the client asks again only with every reconnect, for which
        it waits longer and longer.
        """
        _, app = await self.start(user_id="alice", bind_data="forged")
        times = []
        for _ in range(5):
            self.assertEqual(await app.next("bind"), (False, "alice"))
            times.append(clock.seconds())
        waits = [after - before for before, after in pairwise(times)]
        self.assertGreater(waits[3], 0.07)
        self.assertGreater(sum(waits), 0.14)
        self.assertEqual(self.strict.metrics.binds["refused"], 5)

    async def test_giving_up(self) -> None:
        """
        C{unbind_user} ends that: the client comes back and stays, without a user.
        """
        client, app = await self.start(user_id="alice", bind_data="forged")
        self.assertEqual(await app.next("bind"), (False, "alice"))
        client.unbind_user().addErrback(lambda failure: failure.trap(Disconnected))
        await app.next("handshake")
        await client.push(b"a round trip behind what might have been a bind")
        self.assertEqual(self.strict.metrics.binds["refused"], 1)
        self.assertEqual(app.left("bind"), 0)

    async def test_fresh_tokens(self) -> None:
        """
        Tokens that are good once are fetched for every bind, also after a reconnect.
        """
        tokens = iter(["token-1", "token-2"])
        _, app = await self.start(
            "token-1",
            "token-2",
            user_id="alice",
            bind_data=lambda: succeed(next(tokens)),
        )
        self.assertEqual(await app.next("bind"), (True, "alice"))
        self.drop(self.strict)
        self.assertEqual(await app.next("bind"), (True, "alice"))


class BlockingTests(ClientNodeTestCase):
    """
    The client for programs without a reactor.
    """

    async def test_calls(self) -> None:
        """
        From a thread: bind, get a push, confirm it, push, unbind.
        """
        settings = self.client_settings("phone")
        inbox: SimpleQueue[tuple[bytes, int]] = SimpleQueue()

        class Terminal(ClientListener):
            def on_receive_push(self, content: bytes, message_id: int) -> None:
                inbox.put((content, message_id))

        bound: Deferred[None] = Deferred()

        def work() -> bytes:
            with BlockingClient(settings, Terminal(), reactor=clock) as client:
                client.bind_user("alice", "t")
                client.push(b"are you there?")
                clock.callFromThread(bound.callback, None)
                content, message_id = inbox.get(timeout=10)
                client.ack(message_id)
                client.unbind_user()
            return content

        working = deferToThread(work)
        await bound.addTimeout(10, clock)
        result = await (await self.sender()).send(
            PushContext(b"hello", user_id="alice", ack=SenderAck.BIZ_ACK)
        )
        self.assertIs(result.code, ResultCode.SUCCESS)
        self.assertEqual(await working, b"hello")
        self.assertEqual(len(self.node.local_routes), 0)


class Program(ProcessProtocol):
    """
    A Python program, line by line.

    @ivar lines: What it prints.
    @ivar complaints: What it wrote to standard error.
    @ivar ended: Fires with its exit status, C{None} after a signal.
    """

    def __init__(self) -> None:
        self.lines: DeferredQueue[str] = DeferredQueue()
        self.complaints = b""
        self.ended: Deferred[int | None] = Deferred()
        self._part = b""

    async def next(self) -> str:
        """
        Take the next line; it must come within 10 seconds.
        """
        line: str = await self.lines.get().addTimeout(10, clock)
        return line

    def outReceived(self, data: bytes) -> None:
        *lines, self._part = (self._part + data).split(b"\n")
        for line in lines:
            self.lines.put(line.decode())

    def errReceived(self, data: bytes) -> None:
        self.complaints += data

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(getattr(reason.value, "exitCode", None))


class ManualTests(ClientNodeTestCase):
    """
    The programs in C{docs/device-client.md}, run as they stand but for the port, in a
    directory with the node's key.
    """

    def run_example(self, number: int) -> Program:
        """
        Start one of the programs; it is killed after the test if it has not ended.
        """
        keys = Path(self.home) / "keys"
        keys.mkdir()
        (keys / "public.pem").write_text(SAMPLE["rsaPublicKeyBase64"])
        manual = (ROOT / "docs" / "device-client.md").read_text()
        text = re.findall(r"```python\n(.*?)```", manual, re.DOTALL)[number]
        self.assertEqual(text.count("3000"), 1)
        text = text.replace("3000", str(self.node.connect_listener.port))
        program = Program()
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        process = clock.spawnProcess(
            program,
            sys.executable,
            [sys.executable, "-c", text],
            environment,
            self.home,
        )

        def end() -> Deferred[int | None]:
            if not program.ended.called:
                process.signalProcess("KILL")
            return program.ended

        self.addCleanup(end)
        return program

    async def test_complete_program(self) -> None:
        """
        The program binds alice, prints what is pushed to her, confirms and answers, and
        ends when it is interrupted.
        """
        program = self.run_example(0)
        self.assertEqual(await program.next(), "bound alice")
        sender = await self.sender()
        for ack in SenderAck:
            result = await sender.send(PushContext(b"hello", user_id="alice", ack=ack))
            self.assertIs(result.code, ResultCode.SUCCESS)
            self.assertEqual(await program.next(), "push: hello")
            self.assertEqual(await program.next(), "the server has our answer")
        self.assertEqual(self.node.metrics.upstream["accepted"], 3)
        (session,) = Path(self.home).glob("*.session")
        self.assertEqual(session.stat().st_mode & 0o777, 0o600)
        self.assertEqual(program.complaints, b"")
        clock.callLater(0, program.transport.signalProcess, "INT")
        self.assertEqual(await program.next(), "disconnected: the client was stopped")
        await program.ended

    async def test_without_reactor(self) -> None:
        """
        The script binds alice, pushes, and ends.
        """
        program = self.run_example(1)
        self.assertEqual(await program.ended, 0)
        self.assertEqual(program.complaints, b"")
        self.assertEqual(self.node.metrics.binds["success"], 1)
        self.assertEqual(self.node.metrics.upstream["accepted"], 1)
