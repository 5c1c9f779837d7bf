"""
Tests for L{mpush_tw.core.handlers.http_proxy} (DESIGN 5.9).
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.handlers.http_proxy import proxy_is_off
from mpush_tw.protocol.messages import HttpResponse
from tests.core.fakes import FakeConnection


class ProxyIsOffTests(SynchronousTestCase):
    """
    HTTP_PROXY on a node without the proxy.
    """

    def test_answered(self) -> None:
        """
        The device gets an HTTP answer, which it understands, and stays connected.
        """
        device = FakeConnection()
        proxy_is_off(device, 8, 0, b"whatever")
        self.assertEqual(
            device.sent, [("answer", 8, HttpResponse(503, "Service Unavailable"))]
        )
        self.assertTrue(device.connected)
