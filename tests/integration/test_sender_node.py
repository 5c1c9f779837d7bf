"""
The sender against a real node with real devices: what a device gets, what the sender is
told of it (cluster 4.5, 7; DESIGN 5c), and that the examples of the manual run.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet import reactor
from twisted.internet.defer import (
    Deferred,
    DeferredQueue,
    ensureDeferred,
    gatherResults,
)
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from mpush_tw.config import load_settings
from mpush_tw.core.log import NodeLog
from mpush_tw.errors import PushError
from mpush_tw.protocol.body import open_body, seal_body
from mpush_tw.protocol.commands import ACK_FLAGS, Command
from mpush_tw.protocol.crypto import (
    AesCipher,
    RsaPublicKey,
    mix_session_key,
    random_key,
)
from mpush_tw.protocol.messages import BindUser, Handshake, HandshakeOk, Ok
from mpush_tw.protocol.packet import DEFAULT_MAX_BODY, PacketDecoder, encode_packet
from mpush_tw.sender import AckModel, PushContext, PushMsg, PushSender, ResultCode
from mpush_tw.service import Node
from tests.support import SAMPLE, NodeTestCase

ROOT = Path(__file__).parents[2]
CLIENT_POINTS = [
    "begin",
    "lookup-remote",
    "check-gateway-conn",
    "send-to-gateway-begin",
    "send-to-gateway-end",
]
LARGEST = DEFAULT_MAX_BODY - len("alice") - 18
"""
Content that just fits for alice: the other fields and the lengths take 18 bytes.
"""


class Received(NamedTuple):
    """
    One PUSH as a device got it.
    """

    message_id: int
    flags: int
    content: bytes


class Device(Protocol):
    """
    A device that shakes hands, binds and takes pushes.

    @ivar pushes: What it got and nobody has taken yet.
    @ivar acknowledges: Whether it answers at once where an ack is asked for.
    """

    acknowledges = False

    def __init__(self) -> None:
        self.pushes: DeferredQueue[Received] = DeferredQueue()
        self._answers: DeferredQueue[tuple[int, bytes]] = DeferredQueue()
        # Sealed, the largest push is longer than a packet may be towards the node.
        self._decoder = PacketDecoder(2 * DEFAULT_MAX_BODY)
        self._cipher: AesCipher | None = None
        self._gone: Deferred[None] = Deferred()

    async def log_in(self, user_id: str, device_id: str, os_name: str) -> None:
        """
        Shake hands and bind.
        """
        key, iv = random_key(), random_key()
        hello = Handshake(device_id, os_name, "13", "1.0", iv, key, 0, 180000)
        public = RsaPublicKey.load(SAMPLE["rsaPublicKeyBase64"])
        self._cipher = AesCipher(key, iv)
        flags, _ = seal_body(b"x", self._cipher)
        self._write(Command.HANDSHAKE, 1, flags, public.encrypt(hello.encode()))
        cmd, body = await self._answers.get()
        assert cmd == Command.HANDSHAKE, cmd
        server_key = HandshakeOk.decode(body).server_key
        self._cipher = AesCipher(mix_session_key(key, server_key), iv)
        flags, body = seal_body(BindUser(user_id).encode(), self._cipher)
        self._write(Command.BIND, 2, flags, body)
        cmd, body = await self._answers.get()
        assert cmd == Command.OK, cmd
        assert Ok.decode(body).data == "bind success"

    def acknowledge(self, push: Received) -> None:
        """
        Say that a push has arrived.
        """
        self._write(Command.ACK, push.message_id, 0, b"")

    def leave(self) -> Deferred[None]:
        """
        Hang up.
        """
        transport: Any = self.transport
        transport.abortConnection()
        return self._gone

    def dataReceived(self, data: bytes) -> None:
        for cmd, flags, session_id, body in self._decoder.receive(data):
            plain = open_body(flags, body, self._cipher)
            if cmd != Command.PUSH:
                self._answers.put((cmd, plain))
                continue
            push = Received(session_id, flags & ACK_FLAGS, plain)
            if push.flags and self.acknowledges:
                self.acknowledge(push)
            self.pushes.put(push)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone.callback(None)

    def _write(self, cmd: int, session_id: int, flags: int, body: bytes) -> None:
        transport: Any = self.transport
        transport.write(encode_packet(cmd, session_id, flags, body))


class SenderNodeTestCase(NodeTestCase):
    """
    A node, and what else a test asks for; all of it ends with the test.
    """

    async def device(
        self,
        user_id: str = "alice",
        os_name: str = "android",
        node: Node | None = None,
    ) -> Device:
        """
        Connect a device of a user.
        """
        port = (node or self.node).connect_listener.port
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port, 5)
        device: Device = await connectProtocol(endpoint, Device())
        self.addCleanup(device.leave)
        await device.log_in(user_id, f"{os_name}-of-{user_id}", os_name)
        return device

    async def sender(self, *nodes: Node) -> PushSender:
        """
        Start a sender that knows some nodes, or the one of the test, and is connected
        to each.
        """
        nodes = nodes or (self.node,)
        gateways = [("127.0.0.1", node.gateway_listener.port) for node in nodes]
        sender = PushSender(gateways, reactor=reactor)
        self.addCleanup(sender.stop)
        await sender.start()
        await self.wait_until(lambda: all(node.gateway_connections for node in nodes))
        return sender

    async def another_node(self, gateway_port: int = 0) -> Node:
        """
        Start a second node, apart from the first.
        """
        overrides = [
            f"mp.home={self.home}",
            f'mp.security.private-key="{SAMPLE["rsaPrivateKeyBase64"]}"',
            f'mp.security.public-key="{SAMPLE["rsaPublicKeyBase64"]}"',
            "mp.security.allow-sample-key=true",
            "mp.net.connect-server-port=0",
            "mp.net.connect-server-bind-ip=127.0.0.1",
            f"mp.net.gateway-server-port={gateway_port}",
            "mp.net.admin-server-port=0",
        ]
        log = NodeLog("debug", reactor, self.events.append)  # type: ignore[arg-type]
        node = Node(load_settings(None, overrides, {}), reactor, log=log)
        self.addCleanup(node.stopService)
        node.startService()
        await node.started
        return node

    async def wait_until(self, condition: Any) -> None:
        """
        Give the node time to notice something.
        """
        for _ in range(500):
            if condition():
                return
            await deferLater(reactor, 0.01)
        self.fail("waited in vain")

    def run_async(self, story: Coroutine[Any, Any, None]) -> Deferred[None]:
        """
        Hand a test's coroutine to trial.
        """
        return ensureDeferred(story)


class DeliveryTests(SenderNodeTestCase):
    """
    One user on one node.
    """

    def test_content(self) -> Any:
        """
        The device gets the very bytes, asked for no ack, and the sender is told of a
        success.
        """

        async def story() -> None:
            device, sender = await self.device(), await self.sender()
            content = bytes(range(256))
            result = await sender.send(PushContext(content, user_id="alice"))
            self.assertIs(result.code, ResultCode.SUCCESS)
            push = await device.pushes.get()
            self.assertEqual((push.flags, push.content), (0, content))

        return self.run_async(story())

    def test_message(self) -> Any:
        """
        A message arrives as the JSON that apps read.
        """

        async def story() -> None:
            device, sender = await self.device(), await self.sender()
            message = PushMsg("\u4f60\u597d", msg_id="7", msg_type=3)
            await sender.send(PushContext(message=message, user_id="alice"))
            push = await device.pushes.get()
            self.assertEqual(
                push.content.decode(),
                '{"content":"\u4f60\u597d","msgId":"7","msgType":3}',
            )

        return self.run_async(story())

    def test_time_line(self) -> Any:
        """
        The time line has the sender's points, then the node's, then the end, and never
        runs backwards on one machine.
        """

        async def story() -> None:
            (await self.device()).acknowledges = True
            sender = await self.sender()
            result = await sender.send(
                PushContext(b"hi", user_id="alice", ack=AckModel.AUTO_ACK)
            )
            names = [name for name, _ in result.time_line]
            self.assertEqual(
                names,
                [
                    *CLIENT_POINTS,
                    "push-center-begin",
                    "before-send",
                    "waiting-ack",
                    "success-end",
                    "end",
                ],
            )
            times = [at for _, at in result.time_line]
            self.assertEqual(times, sorted(times))
            self.assertIn("--> waiting-ack", result.render())

        return self.run_async(story())

    def test_largest_content(self) -> Any:
        """
        Content that just fits arrives whole; one byte more is refused, and does not
        cost the connection.
        """

        async def story() -> None:
            device, sender = await self.device(), await self.sender()
            content = random.Random(1).randbytes(LARGEST)
            with self.assertRaises(PushError):
                await sender.send(PushContext(content + b"x", user_id="alice"))
            result = await sender.send(PushContext(content, user_id="alice"))
            self.assertIs(result.code, ResultCode.SUCCESS)
            self.assertEqual((await device.pushes.get()).content, content)
            self.assertEqual(self.node.metrics.gateway.opened, 1)

        return self.run_async(story())

    def test_offline(self) -> Any:
        """
        A user whose device has left is offline.
        """

        async def story() -> None:
            device, sender = await self.device(), await self.sender()
            await device.leave()
            await self.wait_until(lambda: not len(self.node.connections))
            result = await sender.send(PushContext(b"hi", user_id="alice"))
            self.assertIs(result.code, ResultCode.OFFLINE)

        return self.run_async(story())

    def test_every_device_of_the_user(self) -> Any:
        """
        A user with a phone and a PC gets the message on both, and the sender one
        result.
        """

        async def story() -> None:
            phone, pc = await self.device(), await self.device(os_name="windows")
            sender = await self.sender()
            results: list[object] = []
            result = await sender.send(
                PushContext(b"hi", user_id="alice", callback=results.append)
            )
            self.assertIs(result.code, ResultCode.SUCCESS)
            self.assertEqual((await phone.pushes.get()).content, b"hi")
            self.assertEqual((await pc.pushes.get()).content, b"hi")
            self.assertEqual(results, [result])

        return self.run_async(story())


class AckTests(SenderNodeTestCase):
    """
    Pushes that a device has to acknowledge.
    """

    async def _acknowledged(self, ack: AckModel) -> None:
        device, sender = await self.device(), await self.sender()
        sent = sender.send(PushContext(b"hi", user_id="alice", ack=ack))
        push = await device.pushes.get()
        self.assertEqual(push.flags, int(ack))
        # Time for an answer that would come too early.
        await deferLater(reactor, 0.05)
        self.assertWaiting(sent)
        device.acknowledge(push)
        self.assertIs((await sent).code, ResultCode.SUCCESS)

    def assertWaiting(self, sent: Deferred[Any]) -> None:
        """
        A push has no result yet.
        """
        self.assertFalse(sent.called, "there is a result already")

    def test_auto(self) -> Any:
        """
        With AUTO_ACK the success waits for the ack of the client library.
        """
        return self.run_async(self._acknowledged(AckModel.AUTO_ACK))

    def test_biz(self) -> Any:
        """
        With BIZ_ACK the success waits for the ack of the app.
        """
        return self.run_async(self._acknowledged(AckModel.BIZ_ACK))

    def test_none_comes(self) -> Any:
        """
        Without an ack the push is a time-out at the caller's time, though the device
        has the message; a late ack changes nothing and the next push is served.
        """

        async def story() -> None:
            device, sender = await self.device(), await self.sender()
            context = PushContext(
                b"hi", user_id="alice", ack=AckModel.AUTO_ACK, timeout=0.8
            )
            began = reactor.seconds()
            result = await sender.send(context)
            took = reactor.seconds() - began
            self.assertIs(result.code, ResultCode.TIMEOUT)
            self.assertGreaterEqual(took, 0.8)
            push = await device.pushes.get()
            self.assertEqual(push.content, b"hi")
            device.acknowledge(push)
            device.acknowledges = True
            self.assertIs((await sender.send(context)).code, ResultCode.SUCCESS)

        return self.run_async(story())

    def test_acks_in_any_order(self) -> Any:
        """
        Each ack ends its own push, in whatever order a device sends them.
        """

        async def story() -> None:
            device, sender = await self.device(), await self.sender()
            sent = {
                content: sender.send(
                    PushContext(content, user_id="alice", ack=AckModel.BIZ_ACK)
                )
                for content in (b"one", b"two", b"three")
            }
            pushes = [await device.pushes.get() for _ in sent]
            for push in reversed(pushes):
                device.acknowledge(push)
                self.assertIs((await sent.pop(push.content)).code, ResultCode.SUCCESS)
                for other in sent.values():
                    self.assertWaiting(other)

        return self.run_async(story())

    def test_device_leaves(self) -> Any:
        """
        When the device leaves instead of acknowledging, the push fails at once.
        """

        async def story() -> None:
            device, sender = await self.device(), await self.sender()
            sent = sender.send(
                PushContext(b"hi", user_id="alice", ack=AckModel.BIZ_ACK, timeout=50)
            )
            await device.pushes.get()
            await device.leave()
            self.assertIs((await sent).code, ResultCode.FAILURE)

        return self.run_async(story())


class ListTests(SenderNodeTestCase):
    def test_some_are_there(self) -> Any:
        """
        Of a long list those who are online get the message once, each with an ack of
        their own; the others are offline.
        """

        async def story() -> None:
            users = [f"user-{number}" for number in range(600)]
            present = users[::100]
            devices = [await self.device(user_id) for user_id in present]
            for device in devices:
                device.acknowledges = True
            sender = await self.sender()
            done = await sender.send_all(
                PushContext(b"hi", user_ids=users, ack=AckModel.AUTO_ACK, timeout=20)
            )
            reached = [one.user_id for one in done.results if one.succeeded]
            self.assertEqual(reached, present)
            self.assertEqual(done.count(ResultCode.OFFLINE), 594)
            for device in devices:
                self.assertEqual(len(device.pushes.pending), 1)

        return self.run_async(story())


class TwoNodesTests(SenderNodeTestCase):
    """
    A sender that knows two nodes, which know nothing of each other.
    """

    def test_user_on_either(self) -> Any:
        """
        A user is reached on whichever node they are.
        """

        async def story() -> None:
            other = await self.another_node()
            await self.device("alice")
            await self.device("bob", node=other)
            sender = await self.sender(self.node, other)
            done = await sender.send_all(
                PushContext(b"hi", user_ids=["alice", "bob", "nobody"])
            )
            self.assertEqual(
                [one.code for one in done.results],
                [ResultCode.SUCCESS, ResultCode.SUCCESS, ResultCode.OFFLINE],
            )

        return self.run_async(story())

    def test_one_node_gone(self) -> Any:
        """
        When one node has stopped, users on the other are reached; somebody who is not
        there is no longer called offline, for they may be on the node that is gone.
        """

        async def story() -> None:
            other = await self.another_node()
            await self.device("alice")
            sender = await self.sender(self.node, other)
            await other.stopService()
            reached = await sender.send(PushContext(b"hi", user_id="alice"))
            self.assertIs(reached.code, ResultCode.SUCCESS)
            unknown = await sender.send(PushContext(b"hi", user_id="nobody"))
            self.assertIs(unknown.code, ResultCode.FAILURE)

        return self.run_async(story())


class RestartTests(SenderNodeTestCase):
    settings = ("mp.core.shutdown-grace=0s",)

    def test_node_comes_back(self) -> Any:
        """
        A push that waits when its node stops fails at once; when the node is there
        again the sender finds it by itself.
        """

        async def story() -> None:
            device, sender = await self.device(), await self.sender()
            sent = sender.send(
                PushContext(b"hi", user_id="alice", ack=AckModel.BIZ_ACK, timeout=50)
            )
            await device.pushes.get()
            port = self.node.gateway_listener.port
            await self.node.stopService()
            self.assertTrue(sent.called)
            self.assertIs((await sent).code, ResultCode.FAILURE)
            again = await self.another_node(port)
            device = await self.device(node=again)
            for _ in range(200):
                result = await sender.send(PushContext(b"again", user_id="alice"))
                if result.succeeded:
                    break
                await deferLater(reactor, 0.1)
            self.assertIs(result.code, ResultCode.SUCCESS)
            self.assertEqual((await device.pushes.get()).content, b"again")

        return self.run_async(story())


class ManualTests(SenderNodeTestCase):
    """
    The programs in C{docs/sending.md}, run as they stand but for the port.
    """

    def _example(self, number: int) -> str:
        manual = (ROOT / "docs" / "sending.md").read_text()
        program = re.findall(r"```python\n(.*?)```", manual, re.DOTALL)[number]
        port = str(self.node.gateway_listener.port)
        self.assertEqual(program.count("3001"), 1)
        changed: str = program.replace("3001", port)
        return changed

    def _run_program(self, program: str) -> Deferred[Any]:
        ended: Deferred[Any] = self.in_thread(
            lambda: subprocess.run(
                [sys.executable, "-c", program],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                timeout=30,
            )
        )
        return ended

    def test_script(self) -> Any:
        """
        The script pushes to alice and to a list, and prints what became of it.
        """

        async def story() -> None:
            device = await self.device()
            device.acknowledges = True
            done = await self._run_program(self._example(0))
            self.assertEqual(done.stderr, "")
            first, *others = done.stdout.splitlines()
            self.assertRegex(first, r"^SUCCESS Push-Time-Line\[\d+\]\(ms\)\{begin ")
            self.assertEqual(others, ["alice SUCCESS", "bob OFFLINE"])
            pushes = await gatherResults([device.pushes.get(), device.pushes.get()])
            self.assertEqual(
                [push.content for push in pushes],
                [
                    b'{"content":"Your parcel is here","msgId":"42","msgType":3}',
                    b"hello",
                ],
            )

        return self.run_async(story())

    def test_twisted_program(self) -> Any:
        """
        The Twisted program pushes to alice and ends.
        """

        async def story() -> None:
            device = await self.device()
            done = await self._run_program(self._example(1))
            self.assertEqual((done.stdout, done.stderr), ("SUCCESS\n", ""))
            self.assertEqual((await device.pushes.get()).content, b"hello")

        return self.run_async(story())
