"""
A standalone node that serves alloc itself, over real sockets.
"""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from mpush_tw.client import Client, ClientListener, ClientSettings
from mpush_tw.config import load_settings
from mpush_tw.errors import ConfigError
from mpush_tw.interfaces import ServiceNode
from mpush_tw.service import Node
from tests.support import SAMPLE, NodeTestCase

PUSHED = "服务已经开始推送,请注意查收消息"
SWITCHED_ON = (
    "mp.alloc.enabled=true",
    "mp.net.alloc-server-port=0",
    "mp.net.alloc-server-bind-ip=127.0.0.1",
    "mp.net.public-ip=127.0.0.1",
)


class Device(ClientListener):
    """
    A device that is told of alloc.

    @ivar bound: Fires when its user is bound.
    @ivar pushed: Fires with the first push.
    """

    def __init__(self, user: str, url: str) -> None:
        self.client = Client(
            ClientSettings(
                device_id=f"phone of {user}",
                public_key=SAMPLE["rsaPublicKeyBase64"],
                alloc_server=url,
                user_id=user,
            ),
            self,
            reactor=reactor,  # type: ignore[arg-type]
        )
        self.bound: Deferred[None] = Deferred()
        self.pushed: Deferred[bytes] = Deferred()

    def on_bind(self, success: bool, user_id: str) -> None:
        if not self.bound.called:
            self.bound.callback(None)

    def on_receive_push(self, content: bytes, message_id: int) -> None:
        self.pushed.callback(content)


class AllocNodeTestCase(NodeTestCase):
    """
    A node with alloc.
    """

    settings = SWITCHED_ON

    @property
    def url(self) -> str:
        """
        Where its alloc is.
        """
        assert self.node.alloc.door is not None
        return f"http://127.0.0.1:{self.node.alloc.door.port}/"

    def ask(
        self,
        path: str = "",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Deferred[tuple[int, bytes]]:
        """
        Ask it.

        @return: Status and body of the answer.
        """
        request = urllib.request.Request(self.url + path, body, dict(headers or {}))

        def blocking() -> tuple[int, bytes]:
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    return answer.status, answer.read()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read()

        asked: Deferred[tuple[int, bytes]] = self.in_thread(blocking)
        return asked

    async def device(self, user: str) -> Device:
        """
        Have a device of a user, that came by alloc.
        """
        device = Device(user, self.url)
        self.addCleanup(device.client.stop)
        device.client.start()
        await device.bound.addTimeout(10, reactor)  # type: ignore[arg-type]
        return device


class ListTests(AllocNodeTestCase):
    """
    The lists.
    """

    async def test_lists_itself(self) -> None:
        """
        The node is the one server.
        """
        expected = f"127.0.0.1:{self.node.connect_listener.port}".encode()
        self.assertEqual(await self.ask(), (200, expected))
        self.assertEqual(await self.ask("health"), (200, b"ok"))

    async def test_announced(self) -> None:
        """
        Where it is, and that nobody may push, is said at the start.
        """
        (event,) = [
            one for one in self.events if str(one["log_format"]).startswith("alloc: ")
        ]
        self.assertTrue(str(event["address"]).startswith("127.0.0.1:"))
        self.assertEqual(event["pushes"], "off")

    async def test_counts(self) -> None:
        """
        Its users are counted.
        """
        await self.device("alice")
        assert self.node.alloc.door is not None
        await self.node.alloc.door.allocation._count()
        (server,) = json.loads((await self.ask("list.json"))[1])
        self.assertEqual((server["online"], server["weight"]), (1, 1))

    async def test_withdrawn(self) -> None:
        """
        A node that was taken off the list by its operator is listed for 30 seconds
        more, as it is the only one, and as ever when it is back.
        """
        await self.node.withdraw()
        self.assertNotEqual((await self.ask())[1], b"")
        await self.node.return_to_list()
        self.assertEqual(await self.ask("health"), (200, b"ok"))

    async def test_push_is_off(self) -> None:
        """
        Unless it is switched on nobody can push.
        """
        order = b'{"userId":"alice"}'
        self.assertEqual((await self.ask("push", order))[0], 404)
        self.assertEqual((await self.ask("index.html"))[0], 404)

    async def test_stop(self) -> None:
        """
        When the node stops its alloc is closed before anything is withdrawn: nobody is
        sent to a node that stops.
        """
        order: list[str] = []
        registry: Any = self.node.registry
        deregister = registry.deregister

        def withdrawing(node: ServiceNode) -> Deferred[None]:
            assert self.node.alloc.door is not None
            order.append(self.node.alloc.door.shown)
            withdrawn: Deferred[None] = deregister(node)
            return withdrawn

        registry.deregister = withdrawing
        await self.node.stopService()
        self.assertEqual(set(order), {"closed"})


class PushTests(AllocNodeTestCase):
    """
    Test pushes, as C{etc/mpush.conf} has them.
    """

    settings = (*SWITCHED_ON, "mp.alloc.push-enabled=true")

    async def push(self, **order: object) -> tuple[int, str]:
        """
        Order a push.
        """
        status, body = await self.ask("push", json.dumps(order).encode())
        return status, body.decode()

    async def test_user(self) -> None:
        """
        A push arrives as the notification that apps of the original show.
        """
        device = await self.device("alice")
        self.assertEqual(await self.push(userId="alice", hello="hi"), (200, PUSHED))
        content = await device.pushed.addTimeout(10, reactor)  # type: ignore[arg-type]
        self.assertEqual(
            content.decode(),
            '{"content":"{\\"content\\":\\"MPush开源推送，hi\\",\\"nid\\":1,'
            '\\"ticker\\":\\"你有一条新的消息,请注意查收\\",\\"title\\":\\"MPUSH推送\\"}",'
            '"msgId":"msg_1","msgType":3}',
        )

    async def test_broadcast(self) -> None:
        """
        A broadcast reaches those whom its condition chooses.
        """
        alice, bob = [await self.device(user) for user in ("alice", "bob")]
        condition = "userId == 'bob'"
        await self.push(broadcast=True, hello="hi", condition=condition)
        await bob.pushed.addTimeout(10, reactor)  # type: ignore[arg-type]
        await deferLater(reactor, 0.1)
        self.assertFalse(alice.pushed.called)

    async def test_outcome(self) -> None:
        """
        What became of a push is in the node's log.
        """
        await self.push(userId="nobody", hello="hi")
        (event,) = [one for one in self.events if "outcome" in one]
        self.assertEqual((event["user"], event["outcome"]), ("nobody", "offline"))

    async def test_too_large(self) -> None:
        """
        What is too large for a packet is refused with the reason.
        """
        status, reason = await self.push(userId="alice", hello="x" * 20_000)
        self.assertEqual(status, 400)
        self.assertIn("mp.core.max-packet-size", reason)

    async def test_page(self) -> None:
        """
        There is a page.
        """
        status, page = await self.ask("index.html")
        self.assertEqual(status, 200)
        self.assertIn(b"MPush Message Sender", page)

    async def test_through_a_proxy(self) -> None:
        """
        Somebody behind a proxy on this machine may not push.
        """
        status, _ = await self.ask(
            "push", b'{"broadcast":true}', {"X-Forwarded-For": "203.0.113.7"}
        )
        self.assertEqual(status, 403)


class OtherAddressTests(AllocNodeTestCase):
    """
    A node that registers another address than its public one.
    """

    settings = (
        *SWITCHED_ON,
        "mp.net.public-ip=203.0.113.7",
        "mp.net.connect-server-register-ip=127.0.0.1",
    )

    async def test_counts(self) -> None:
        """
        Its users are found all the same (A-4).
        """
        await self.device("alice")
        assert self.node.alloc.door is not None
        await self.node.alloc.door.allocation._count()
        (server,) = json.loads((await self.ask("list.json"))[1])
        self.assertEqual((server["host"], server["online"]), ("127.0.0.1", 1))


class OffTests(NodeTestCase):
    """
    A node that is asked for nothing of the kind.
    """

    async def test_no_port(self) -> None:
        """
        It opens no port for it.
        """
        self.assertIsNone(self.node.alloc.door)
        self.assertNotIn("alloc: ", self.logged())


class BusyPortTests(NodeTestCase):
    """
    A second node whose alloc port is taken.
    """

    def test_named(self) -> None:
        """
        It does not start, and says which key is to blame.
        """
        other = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(other.close)
        loaded = load_settings(
            None,
            (
                f"mp.home={self.home}",
                "mp.security.allow-sample-key=true",
                "mp.net.connect-server-port=0",
                "mp.net.gateway-server-port=0",
                "mp.net.admin-server-port=0",
                *SWITCHED_ON,
                f"mp.net.alloc-server-port={other.getsockname()[1]}",
            ),
            {},
        )
        node = Node(loaded, reactor)
        self.addCleanup(node.stopService)
        error = self.assertRaises(ConfigError, node.privilegedStartService)
        self.assertEqual(error.key, "mp.net.alloc-server-port")
