"""
Alloc beside nodes of both kinds, and devices of both kinds that ask it (check 3).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import treq
from twisted.internet import reactor

from tests.client.test_loopback import certificate
from tests.interop.processes import SUCCESS, JavaDevice
from tests.interop.support import InteropTestCase, Node, full_set, until
from tests.servers import free_port
from tests.servers.alloc import AllocServer

test_suite = full_set(__name__)

COUNT_MS = 200
PASSWORD = "changeit"


class AllocTestCase(InteropTestCase):
    """
    A node of ours, one of theirs, and alloc.
    """

    def setUp(self) -> None:
        super().setUp()
        self.ours, self.theirs = self.node("ours"), self.node("java")
        self.users = 0
        self.alloc = self.make_alloc({"mp.alloc.push-enabled": True})
        self.alloc.start()

    def make_alloc(self, settings: Mapping[str, object]) -> AllocServer:
        """
        Prepare an alloc that ends with the test.
        """
        alloc = AllocServer(
            {
                "mp.log-level": "info",
                "mp.redis.nodes": [self.cluster.redis.address],
                "mp.zk.server-address": self.cluster.zookeeper.address,
                "mp.alloc.count-interval": f"{COUNT_MS}ms",
                **settings,
            }
        )
        self.addCleanup(alloc.kill)
        return alloc

    @staticmethod
    def address(node: Node) -> str:
        """
        The entry of a node in the list.
        """
        host, port = node.doors.address
        return f"{host}:{port}"

    def listed(self) -> list[str]:
        """
        Look at the list, as a program: nobody is taken to be on his way. Nodes that
        other tests have started are left out.
        """
        both = {self.address(self.ours), self.address(self.theirs)}
        servers = json.loads(self.alloc.get("/list.json"))
        listed = [f"{one['host']}:{one['port']}" for one in servers]
        return [one for one in listed if one in both]

    async def become_first(self, node: Node) -> None:
        """
        Wait until a node is first.
        """

        def first() -> bool:
            return self.listed()[0] == self.address(node)

        await until(first, f"{node!r} to be the first of the list")

    async def fill(self, node: Node, users: int) -> None:
        """
        Bind so many users more at a node.
        """
        for _ in range(users):
            self.users += 1
            name = f"{self.user}-{self.users}"
            await self.our_device(name, node.doors, name)

    async def java_device_at(self, node: Node, url: str) -> JavaDevice:
        """
        Have a device of theirs ask alloc while a node is the first of the list.
        """
        name = f"{self.user}-{node.doors.port}"
        await self.become_first(node)
        device = await self.java_device(name, self.ours.doors, name, alloc=url)
        route = self.route_of(name, name)
        assert route is not None
        self.assertEqual(f"{route['host']}:{route['port']}", node.doors.gateway)
        return device


class Check03AllocTests(AllocTestCase):
    """
    The list, of nodes of both kinds.
    """

    async def test_both(self) -> None:
        """
        Both are listed, and nothing but addresses.
        """
        listed = self.alloc.servers()
        for node in (self.ours, self.theirs):
            self.assertEqual(listed.count(self.address(node)), 1)

    async def test_less_loaded_first(self) -> None:
        """
        The node with fewer users is first, of whichever kind.
        """
        await self.fill(self.ours, 2)
        await self.become_first(self.theirs)
        await self.fill(self.theirs, 4)
        await self.become_first(self.ours)

    async def test_our_device(self) -> None:
        """
        A device of ours that asks alloc is where alloc sends it, and is reached there.
        """
        for node, other, users in (
            (self.ours, self.theirs, 3),
            (self.theirs, self.ours, 9),
        ):
            await self.fill(other, users)
            await self.become_first(node)
            name = f"{self.user}-{node.doors.port}"
            device = await self.our_device(name, node.doors, name, alloc=self.alloc.url)
            self.assertEqual(device.server, node.doors.address)
            outcome = await (await self.a_sender("ours")).push(name, "there you are")
            self.assertEqual(outcome.location, node.doors.gateway)
            await device.pushed("there you are")

    async def test_java_device(self) -> None:
        """
        A device of theirs reads our answer, and goes where it is sent.
        """
        await self.fill(self.theirs, 3)
        device = await self.java_device_at(self.ours, self.alloc.url)
        sender = await self.a_sender("java")
        name = f"{self.user}-{self.ours.doors.port}"
        self.assertEqual((await sender.push(name, "hi", "AUTO_ACK")).code, SUCCESS)
        await device.pushed("hi")

    async def test_pushes(self) -> None:
        """
        What the page of alloc sends reaches devices of both kinds, at nodes of both.
        """
        await self.fill(self.theirs, 3)
        java = await self.java_device_at(self.ours, self.alloc.url)
        ours = await self.our_device(f"{self.user}-2", self.theirs.doors, self.user)
        for order in (
            {"userId": f"{self.user}-{self.ours.doors.port}", "hello": "one"},
            {"userId": self.user, "hello": "two"},
        ):
            response = await treq.post(
                self.alloc.url + "push",
                json.dumps(order).encode(),
                persistent=False,
                reactor=reactor,
            )
            self.assertEqual(response.code, 200)
        event = await java.next("push")
        self.assertIn("MPush开源推送，one", event["text"])
        self.assertEqual(json.loads(event["text"])["msgType"], 3)
        await until(lambda: bool(ours.pushes), "the push to our device")
        self.assertIn("MPush开源推送，two", ours.pushes[0][0])


class TrustingDevice(JavaDevice):
    """
    A device of theirs whose platform trusts one certificate more.
    """

    store: Path

    def _properties(self) -> Mapping[str, str]:
        return {
            **super()._properties(),
            "javax.net.ssl.trustStore": str(self.store),
            "javax.net.ssl.trustStorePassword": PASSWORD,
        }


class Check03HttpsTests(AllocTestCase):
    """
    A device of theirs that asks over TLS.

    Later versions of the original's client accept every certificate (services A2); the
    published one goes by its platform.
    """

    async def test_java_device(self) -> None:
        """
        It goes where it is sent.
        """
        directory = Path(tempfile.mkdtemp(prefix="mpush-interop-alloc-"))
        self.addCleanup(shutil.rmtree, directory)
        known, private = certificate()
        (directory / "known.pem").write_bytes(known)
        (directory / "alloc.pem").write_bytes(private.dumpPEM())
        port = free_port()
        endpoint = f"ssl:{port}:privateKey={directory}/alloc.pem:interface=127.0.0.1"
        self.make_alloc({"mp.net.alloc-server-endpoint": endpoint}).start()
        await self.fill(self.theirs, 3)
        await self.become_first(self.ours)
        device = TrustingDevice(
            self.user,
            self.cluster.drivers,
            self.theirs.doors.address,
            self.user,
            alloc=f"https://127.0.0.1:{port}/",
        )
        device.store = self.trust_store(directory)
        self.addCleanup(device.stop)
        await device.connect()
        await until(lambda: self.route_of(self.user, self.user), "it to be bound")
        route = self.route_of(self.user, self.user)
        assert route is not None
        self.assertEqual(f"{route['host']}:{route['port']}", self.ours.doors.gateway)

    def trust_store(self, directory: Path) -> Path:
        """
        Give what Java reads certificates from.
        """
        store = directory / "trusted.p12"
        keytool = Path(self.cluster.drivers.java).resolve().with_name("keytool")
        subprocess.run(
            [
                *(str(keytool), "-importcert", "-noprompt", "-alias", "alloc"),
                *("-file", str(directory / "known.pem")),
                *("-keystore", str(store), "-storetype", "PKCS12"),
                *("-storepass", PASSWORD),
            ],
            check=True,
            capture_output=True,
            timeout=60,
        )
        return store
