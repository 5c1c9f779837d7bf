"""
The original's device asks web servers through our node (server 15).
"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.integrations.http.backends import Asked, Backend, BackendConnection, ok
from tests.interop.build import build_drivers
from tests.interop.processes import Event, JavaDevice
from tests.interop.support import full_set
from tests.support import NodeTestCase

test_suite = full_set(__name__)


class JavaHttpTests(NodeTestCase):
    """
    HTTP of the original's device through our node.
    """

    timeout = 120

    def setUp(self) -> Any:
        drivers = build_drivers()
        self.web = Backend(self.tell)
        self.web.start(reactor)
        self.addCleanup(self.web.stop)
        targets = {"web.test": [f"127.0.0.1:{self.web.port}"]}
        self.settings = (
            "mp.http.proxy-enabled=true",
            f"mp.http.dns-mapping={json.dumps(targets)}",
        )
        self.java = lambda: JavaDevice(
            "java-web", drivers, ("127.0.0.1", self.ports[3000])
        )
        return super().setUp()

    def tell(self, connection: BackendConnection, asked: Asked) -> None:
        """
        Say what was asked; nothing at C{/slow}. Not at once: the device is not ready
        for an answer that comes within a millisecond (clients 2.14).
        """
        if b"/slow" in asked.line:
            return
        size = 40_000 if b"/long" in asked.line else 0
        said = asked.line + b"|" + asked.body + b"x" * size
        deferLater(reactor, 0.05).addCallback(  # type: ignore[arg-type]
            lambda _: connection.send(ok(said, b"X-Web: yes"))
        )

    async def device(self) -> JavaDevice:
        """
        Connect a device.
        """
        device = self.java()
        self.addCleanup(device.stop)
        await device.connect()
        return device

    async def ask(
        self, device: JavaDevice, method: int, path: str, **more: Any
    ) -> Event:
        """
        Have a device ask, and wait for its answer.
        """
        url = path if "://" in path else f"http://web.test{path}"
        device.order("http", method=method, url=url, **({"timeout": 5000} | more))
        return await device.next("http", url=url)

    async def test_answers(self) -> None:
        """
        GET, POST, PUT and DELETE with headers and bodies; a long answer; statuses of
        the node's own; and the device is still connected.
        """
        device = await self.device()
        answer = await self.ask(device, 0, "/a?b=1", header="one")
        self.assertEqual(answer["status"], "200")
        self.assertEqual(answer["reason"], "OK")
        self.assertEqual(answer["web"], "yes")
        self.assertEqual(answer["body"], "GET /a?b=1 HTTP/1.1|")
        self.assertEqual(self.web.asked[-1].header(b"x-device"), b"one")
        for number, method in ((1, "POST"), (2, "PUT"), (3, "DELETE")):
            answer = await self.ask(device, number, f"/{method}", body="b\u00f6dy")
            self.assertEqual(answer["body"], f"{method} /{method} HTTP/1.1|b\u00f6dy")
        answer = await self.ask(device, 0, "/long")
        self.assertGreater(len(answer["body"]), 40_000)
        for _ in range(5):
            # The node's own answer does come at once.
            answer = await self.ask(device, 0, "http://127.0.0.1/", timeout=500)
            if answer["status"] != "408":
                break
        self.assertEqual((answer["status"], answer["reason"]), ("403", "Forbidden"))
        answer = await self.ask(device, 0, "/slow", timeout=1000)
        self.assertEqual(answer["status"], "408")
        answer = await self.ask(device, 0, "/again")
        self.assertEqual(answer["status"], "200")
        self.assertIsNone(device.take("disconnected"))
