"""
The HTTP proxy of a real node: the device client, pages, mappings that come and go, long
answers, names that change their addresses.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IHostnameResolver
from twisted.internet.task import deferLater
from zope.interface import implementer

from mpush_tw.client import Client, ClientSettings
from mpush_tw.client.blocking import BlockingClient
from mpush_tw.config import load_settings
from mpush_tw.core.http import reach
from mpush_tw.errors import ConfigError
from mpush_tw.extensions import Extension
from mpush_tw.integrations.http import addresses
from mpush_tw.interfaces import DnsTarget, IDnsMapping, ServiceNode
from mpush_tw.protocol.messages import HttpRequest, HttpResponse
from mpush_tw.service import Node
from tests.integrations.http.backends import (
    Asked,
    Backend,
    BackendConnection,
    certificate_for,
    ok,
)
from tests.support import SAMPLE, NodeTestCase
from tests.web.devices import WebDevice, web_device
from tests.websocket.support import WebNodeTestCase

clock: Any = reactor


class ProxyNodeTestCase(NodeTestCase):
    """
    A node whose proxy knows one web server, C{web.test}, which says what it was asked.

    @ivar more: Further settings.
    """

    more: tuple[str, ...] = ()

    def setUp(self) -> Any:
        self.web = self.backend(self.tell)
        self.settings = (
            "mp.http.proxy-enabled=true",
            self.mapping({"web.test": [f"127.0.0.1:{self.web.port}"]}),
            *self.more,
        )
        return super().setUp()

    def mapping(self, targets: dict[str, list[str]]) -> str:
        """
        Write C{mp.http.dns-mapping}.
        """
        return f"mp.http.dns-mapping={json.dumps(targets)}"

    def backend(
        self,
        answer: Callable[[BackendConnection, Asked], object],
        interface: str = "127.0.0.1",
        port: int = 0,
    ) -> Backend:
        """
        Start a web server.
        """
        backend = Backend(answer)
        backend.start(reactor, interface=interface, port=port)
        self.addCleanup(backend.stop)
        return backend

    def tell(self, connection: BackendConnection, asked: Asked) -> None:
        """
        Say what was asked.
        """
        connection.send(ok(asked.line + b"|" + asked.body, b"X-Web: yes"))

    async def device(self, name: str = "d1") -> WebDevice:
        """
        Connect a device.
        """
        device = await web_device(reactor, self.ports[3000], name)
        self.addCleanup(lambda: device.ended or device.leave())
        return device

    async def get(self, url: str, device: WebDevice | None = None) -> HttpResponse:
        """
        Have a device ask.
        """
        if device is None:
            device = await self.device()
        return await device.ask(HttpRequest(0, url))

    def http_lines(self) -> list[dict[str, Any]]:
        """
        Give what the node has logged about HTTP.
        """
        return [e for e in self.events if e.get("log_namespace") == "mpush.http.log"]


class DeviceClientTests(ProxyNodeTestCase):
    """
    The device client of this package.
    """

    def client_settings(self) -> ClientSettings:
        """
        Make the settings of a client.
        """
        return ClientSettings(
            server_host="127.0.0.1",
            server_port=self.ports[3000],
            public_key=SAMPLE["rsaPublicKeyBase64"],
            device_id="d1",
        )

    async def test_request(self) -> None:
        """
        It asks, and gets what the web server says.
        """
        client = Client(self.client_settings(), reactor=clock)
        client.start()
        self.addCleanup(client.stop)
        await client.when_online()
        answer = await client.send_http(
            "POST", "http://web.test/orders", json={"item": 7}, params={"a": 1}
        )
        self.assertEqual(answer.code, 200)
        self.assertEqual(answer.header("x-web"), "yes")
        self.assertEqual(answer.text(), 'POST /orders?a=1 HTTP/1.1|{"item":7}')
        (asked,) = self.web.asked
        self.assertEqual(asked.header(b"x-forwarded-for"), b"127.0.0.1")
        self.assertIsNone(asked.header(b"readTimeout"))

    async def test_refused(self) -> None:
        """
        The node says no with a status of its own.
        """
        client = Client(self.client_settings(), reactor=clock)
        client.start()
        self.addCleanup(client.stop)
        await client.when_online()
        answer = await client.send_http("GET", "http://127.0.0.1/")
        self.assertEqual(tuple(answer), (403, "Forbidden", {}, b""))
        self.assertTrue(client.is_online)

    async def test_server_is_slow(self) -> None:
        """
        The time that the call names is the server's; the node says that it is over.
        """
        self.web.answer = lambda connection, asked: None
        client = Client(self.client_settings(), reactor=clock)
        client.start()
        self.addCleanup(client.stop)
        await client.when_online()
        answer = await client.send_http("GET", "http://web.test/", timeout=0.2)
        self.assertEqual(answer.status, 408)

    async def test_blocking(self) -> None:
        """
        Programs without a reactor have the same.
        """

        def go() -> str:
            with BlockingClient(self.client_settings(), reactor=reactor) as client:
                return client.send_http("GET", "http://web.test/x").text()

        self.assertEqual(await self.in_thread(go), "GET /x HTTP/1.1|")


class PageTests(WebNodeTestCase):
    """
    Pages on the WebSocket port ask the same proxy.
    """

    def setUp(self) -> Any:
        self.web = Backend(self.tell)
        self.web.start(reactor)
        self.addCleanup(self.web.stop)
        targets = {"web.test": [f"127.0.0.1:{self.web.port}"]}
        self.patch(
            PageTests,
            "settings",
            (
                "mp.http.proxy-enabled=true",
                f"mp.http.dns-mapping={json.dumps(targets)}",
                "mp.limits.max-outbound=64k",
            ),
        )
        return super().setUp()

    def tell(self, connection: BackendConnection, asked: Asked) -> None:
        """
        Say what was asked, or very much.
        """
        long = b"/long" in asked.line
        connection.send(ok(b"x" * (2 << 20) if long else asked.line, b"X-Web: yes"))

    async def test_asked(self) -> None:
        """
        A page asks in JSON, and is answered in JSON.
        """
        page = await self.connect()
        await self.in_thread(page.shake_hands, "web-1")
        page.say({"cmd": 12, "sessionId": 4, "body": {"uri": "http://web.test/x"}})
        answer = await self.in_thread(page.hear)
        self.assertEqual((answer["cmd"], answer["sessionId"]), (12, 4))
        self.assertEqual(
            answer["body"],
            {
                "statusCode": 200,
                "reasonPhrase": "OK",
                "headers": {"content-length": "15", "X-Web": "yes"},
                "body": "GET /x HTTP/1.1",
            },
        )

    async def test_long(self) -> None:
        """
        What it has asked for may be longer than what else may wait for it.
        """
        page = await self.connect()
        await self.in_thread(page.shake_hands, "web-1")
        page.say({"cmd": 12, "sessionId": 4, "body": {"uri": "http://web.test/long"}})
        proxy = self.node.web_proxy
        assert proxy is not None
        while not proxy.handler.held:
            await deferLater(clock, 0.01)
        answer = await self.in_thread(page.hear)
        self.assertEqual(len(answer["body"]["body"]), 2 << 20)


class LongAnswerTests(ProxyNodeTestCase):
    """
    Answers longer than what else may wait for a device (C{mp.limits.max-outbound}).
    """

    more = ("mp.limits.max-outbound=64k",)

    async def test_long(self) -> None:
        """
        A page of megabytes arrives whole at a device that takes its time, and what is
        asked meanwhile is answered after it.
        """
        page = os.urandom(4 << 20)
        self.web.answer = lambda connection, asked: connection.send(
            ok(page if b"/page" in asked.line else b"short")
        )
        device = await self.device()
        assert device.transport is not None
        long = device.ask(HttpRequest(0, "http://web.test/page"))
        device.transport.pauseProducing()  # type: ignore[attr-defined]
        proxy = self.node.web_proxy
        assert proxy is not None
        while not proxy.handler.held:
            await deferLater(clock, 0.01)
        short = device.ask(HttpRequest(0, "http://web.test/short"))
        await deferLater(clock, 0.3)
        self.assertFalse(device.ended)
        device.transport.resumeProducing()  # type: ignore[attr-defined]
        self.assertEqual((await long).body, page)
        self.assertEqual((await short).body, b"short")
        while proxy.handler.held:
            await deferLater(clock, 0.05)

    async def test_longest(self) -> None:
        """
        Up to C{mp.http.max-content-length} all arrives, and nothing of one byte more.
        """
        size = 5 << 20
        self.web.answer = lambda connection, asked: connection.send(
            ok(bytes(size if b"/fits" in asked.line else size + 1))
        )
        device = await self.device()
        answer = await self.get("http://web.test/fits", device)
        self.assertEqual(answer.body, bytes(size))
        answer = await self.get("http://web.test/too-long", device)
        self.assertEqual(answer, HttpResponse(502, "Bad Gateway"))


class RegisteredTests(ProxyNodeTestCase):
    """
    Mappings of the registry (cluster 3.10).
    """

    def service(self, port: int, number: int = 1) -> ServiceNode:
        """
        Make what an administrator registers.
        """
        return ServiceNode(
            "/dns/mapping", "127.0.0.1", port, {"origin": "api.test"}, f"n{number}"
        )

    async def test_comes_and_goes(self) -> None:
        """
        A host is reached for as long as somebody serves it.
        """
        device = await self.device()
        self.assertEqual((await self.get("http://api.test/", device)).status, 403)
        await self.node.registry.register(self.service(self.web.port))
        self.assertEqual((await self.get("http://api.test/", device)).status, 200)
        await self.node.registry.deregister(self.service(self.web.port))
        self.assertEqual((await self.get("http://api.test/", device)).status, 403)

    async def test_several(self) -> None:
        """
        Several serve it together, and none gets the connection of another.
        """
        others = [self.backend(self.tell) for _ in range(2)]
        for number, backend in enumerate([self.web, *others]):
            await self.node.registry.register(self.service(backend.port, number))
        device = await self.device()
        for _ in range(60):
            self.assertEqual((await self.get("http://api.test/", device)).status, 200)
        asked = [len(backend.asked) for backend in (self.web, *others)]
        self.assertEqual(sum(asked), 60)
        self.assertTrue(all(count > 5 for count in asked), asked)
        for backend in (self.web, *others):
            self.assertEqual(len(backend.connections), 1)


class FailingBackendTests(ProxyNodeTestCase):
    """
    Backends of the settings that fail (server 15.4).
    """

    def setUp(self) -> Any:
        self.spare = self.backend(self.tell)
        targets = {"two.test": [f"127.0.0.1:{self.spare.port}", "127.0.0.1:1"]}
        self.more = (self.mapping(targets),)
        return super().setUp()

    async def test_left_out(self) -> None:
        """
        One that cannot be reached is asked no more once that is noticed.
        """
        device = await self.device()
        # The first look is a second after the start.
        while "cannot be reached" not in self.logged():
            await deferLater(clock, 0.05)
        for _ in range(20):
            self.assertEqual((await self.get("http://two.test/", device)).status, 200)


@implementer(IHostnameResolver)
class ChangingNames:
    """
    A resolver whose answers change.

    @ivar answers: The address for each question, in order; the last one stays.
    @ivar asked: The names so far.
    """

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def resolveHostName(
        self, receiver: Any, name: str, port: int = 0, *rest: Any, **more: Any
    ) -> Any:
        self.asked.append(name)
        address = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        receiver.resolutionBegan(None)
        receiver.addressResolved(IPv4Address("TCP", address, port))
        receiver.resolutionComplete()


class RebindingTests(ProxyNodeTestCase):
    """
    A name whose address is a public one when it is judged, and one inside a moment
    later. 127.0.0.1 is the public one here.
    """

    more = ('mp.http.allowed-hosts=["changing.test"]',)

    def setUp(self) -> Any:
        self.patch(reach, "is_public", lambda address: str(address) == "127.0.0.1")
        self.patch(addresses, "KEPT_SECONDS", 0.0)
        return super().setUp()

    def resolve(self, *answers: str) -> ChangingNames:
        """
        Have names resolved so.
        """
        names = ChangingNames(*answers)
        before = clock.installNameResolver(names)
        self.addCleanup(clock.installNameResolver, before)
        return names

    async def test_judged_and_connected_to(self) -> None:
        """
        The connection goes to the address that was judged; nobody is asked again.
        """
        inside = self.backend(self.tell, "127.0.0.2", self.web.port)
        names = self.resolve("127.0.0.1", "127.0.0.2")
        url = f"http://changing.test:{self.web.port}/"
        device = await self.device()
        self.assertEqual((await self.get(url, device)).status, 200)
        self.assertEqual(names.asked, ["changing.test"])
        self.assertEqual((await self.get(url, device)).status, 403)
        self.assertEqual(inside.connections, [])
        self.assertIn("refused", self.http_lines()[-1]["log_format"])

    async def test_redirect(self) -> None:
        """
        A redirect is judged anew.
        """
        inside = self.backend(self.tell, "127.0.0.2", self.web.port)
        self.web.answer = lambda connection, asked: connection.send(
            ok(
                b"",
                b"Location: https://changing.test:%d/" % self.web.port,
                status=b"302 Found",
            )
        )
        self.resolve("127.0.0.1", "127.0.0.2")
        answer = await self.get(f"http://changing.test:{self.web.port}/")
        self.assertEqual(answer.status, 302)
        self.assertEqual(inside.connections, [])
        self.assertIn("redirect not followed", self.logged())


class TlsTests(ProxyNodeTestCase):
    """
    https through the mapping (S-36).
    """

    def setUp(self) -> Any:
        pem, certificate = certificate_for("secure.test")
        path = Path(self.mktemp()).absolute()
        path.write_bytes(pem)
        self.secure = Backend(self.tell)
        self.secure.start(reactor, certificate.options())
        self.addCleanup(self.secure.stop)
        address = [f"127.0.0.1:{self.secure.port}"]
        self.more = (
            self.mapping({"secure.test": address, "other.test": address}),
            f"mp.http.ca-file={path}",
        )
        return super().setUp()

    async def test_name(self) -> None:
        """
        The backend shows a certificate for the name in the URL, and is told that name.
        """
        answer = await self.get("https://secure.test/x")
        self.assertEqual(answer.body, b"GET /x HTTP/1.1|")
        self.assertEqual(self.secure.asked[0].header(b"host"), b"secure.test")

    async def test_other_name(self) -> None:
        """
        Under another name it is told nothing.
        """
        answer = await self.get("https://other.test/x")
        self.assertEqual(answer, HttpResponse(504, "Gateway Timeout"))
        self.assertEqual(self.secure.asked, [])


@implementer(IDnsMapping)
class OwnMapping:
    """
    A mapping of somebody else's.
    """

    port = 0

    def lookup(self, host: str) -> DnsTarget | None:
        return DnsTarget("127.0.0.1", self.port) if host == "own.test" else None


class PlugInTests(ProxyNodeTestCase):
    """
    A plug-in that maps names (server 19.3).
    """

    async def test_asked(self) -> None:
        """
        It says where requests go.
        """
        await self.node.stopService()
        OwnMapping.port = self.web.port
        own = Extension(IDnsMapping, "own", OwnMapping)
        self.node = Node(self.node.loaded, reactor, extensions=[own])
        self.node.startService()
        self.addCleanup(self.node.stopService)
        await self.node.started
        device = await self.device()
        answer = await self.get("http://own.test/x", device)
        self.assertEqual(answer.body, b"GET /x HTTP/1.1|")
        self.assertEqual((await self.get("http://else.test/", device)).status, 403)


class StartTests(ProxyNodeTestCase):
    """
    What a node says, and what it does not start with.
    """

    async def test_notice(self) -> None:
        """
        Operators are told how far devices reach.
        """
        (line,) = [
            event for event in self.events if "HTTP proxy" in str(event["log_format"])
        ]
        self.assertEqual((line["mapped"], line["allowed"]), (1, 0))

    def test_room_for_connections(self) -> None:
        """
        Connections to web servers need files too: clients do not get all of them.
        """
        overrides = [f"mp.home={self.home}", "mp.security.allow-sample-key=true"]
        without = Node(load_settings(None, overrides, {}), reactor)
        room = without.admission.max_connections - self.node.admission.max_connections
        self.assertEqual(room, min(1000, without.admission.max_connections // 4))

    def test_bad_hosts(self) -> None:
        """
        A host that no URL can have stops the start, with the key's name.
        """
        for key, value in (
            ("mp.http.dns-mapping", '{"a b": ["127.0.0.1"]}'),
            ("mp.http.dns-mapping", '{"*.test": ["127.0.0.1"]}'),
            ("mp.http.allowed-hosts", '["127.1"]'),
        ):
            overrides = [
                f"mp.home={self.home}",
                "mp.http.proxy-enabled=true",
                "mp.security.allow-sample-key=true",
                f"{key}={value}",
            ]
            loaded = load_settings(None, overrides, {})
            error = self.assertRaises(ConfigError, Node, loaded, reactor)
            self.assertEqual(error.key, key)


class StopTests(ProxyNodeTestCase):
    """
    The end of a node.
    """

    async def test_under_way(self) -> None:
        """
        A node that stops while servers are asked leaves nothing behind.
        """
        self.web.answer = lambda connection, asked: None
        device = await self.device()
        waiting = device.ask(HttpRequest(0, "http://web.test/"))
        waiting.addErrback(lambda failure: None)
        while not self.web.asked:
            await deferLater(clock, 0.01)
        await self.node.stopService()
        proxy = self.node.web_proxy
        assert proxy is not None
        self.assertEqual((proxy.handler.under_way, proxy.fetcher.pool.open), (0, 0))
