"""
Devices, a node, an nginx and web servers without manners: every request gets its one
answer, and nobody gets anybody else's.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater

from mpush_tw.protocol.messages import HttpRequest
from tests.servers import LOOPBACK
from tests.support import NodeTestCase
from tests.web.campaign import KINDS, MAX_CONTENT_LENGTH, Campaign
from tests.web.servers import WebServers

DEVICES = 20
REQUESTS = 1000


class CampaignTests(NodeTestCase):
    """
    The small campaign; the large one is C{make proxy-campaign}.
    """

    timeout = 120

    def setUp(self) -> Any:
        self.servers = WebServers(reactor)
        self.servers.start()
        self.addCleanup(self.servers.stop)
        self.settings = (
            "mp.http.proxy-enabled=true",
            f"mp.http.dns-mapping={json.dumps(self.servers.mapping)}",
            f"mp.http.max-content-length={MAX_CONTENT_LENGTH}",
        )
        return super().setUp()

    async def test_campaign(self) -> None:
        """
        Every kind of answer, many times, mixed, from many devices at a time.
        """
        campaign = Campaign(reactor, self.node.connect_listener.port, seed=1)
        self.addCleanup(campaign.leave)
        await campaign.connect(DEVICES)
        tally = await campaign.run(REQUESTS, window=6)
        self.assertTrue(tally.good, str(tally))
        self.assertEqual(set(tally.asked), {kind.name for kind in KINDS})
        self.assertEqual(sum(tally.asked.values()), REQUESTS)
        self.check_nothing_left()
        self.assertEqual(
            sum(self.node.metrics.http_requests.values()), sum(tally.asked.values())
        )

    def check_nothing_left(self) -> None:
        """
        Assert that the node has no more connections than it keeps, and nothing else.
        """
        proxy = self.node.web_proxy
        assert proxy is not None
        idle = proxy.fetcher.idle_connections()
        for count in idle.values():
            self.assertLessEqual(count, 5)
        self.assertEqual(proxy.fetcher.pool.open, sum(idle.values()))
        self.assertEqual(proxy.handler.under_way, 0)
        self.assertEqual((proxy.handler.held, proxy.fetcher.buffered), (0, 0))

    async def test_devices_leave(self) -> None:
        """
        When devices go, what they have asked for is given up, and nothing is left.
        """
        campaign = Campaign(reactor, self.node.connect_listener.port, seed=2)
        await campaign.connect(5)
        slow = HttpRequest(0, "http://web.test/slow?seconds=60")
        for device in campaign.devices:
            for _ in range(10):
                device.ask(slow).addErrback(lambda _: None)
        proxy = self.node.web_proxy
        assert proxy is not None
        while proxy.fetcher.pool.open < 50:
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]
        self.assertEqual(proxy.handler.under_way, 50)
        campaign.leave()
        while proxy.handler.under_way or proxy.fetcher.pool.open:
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]
        self.check_nothing_left()
        self.assertEqual(self.node.metrics.http_requests, {"gone": 50})

    async def test_log(self) -> None:
        """
        Each refusal has one line in the log, and none of them a line of the device's.
        """
        campaign = Campaign(reactor, self.node.connect_listener.port, seed=3)
        self.addCleanup(campaign.leave)
        await campaign.connect(1)
        refused = [
            kind for kind in KINDS if kind.name in ("private", "disguised", "split")
        ]
        for kind in refused:
            await campaign.devices[0].ask(kind.request(b"t0"))
        lines = [
            event
            for event in self.events
            if event.get("log_namespace") == "mpush.http.log"
        ]
        self.assertEqual(len(lines), len(refused))
        for event in lines:
            self.assertNotIn("\n", event["request"])
            self.assertIn(LOOPBACK, str(event["conn"]) if "conn" in event else LOOPBACK)
