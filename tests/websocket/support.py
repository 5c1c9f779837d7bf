"""
A node with a WebSocket port.
"""

from __future__ import annotations

import socket
from typing import Any

from tests.support import NodeTestCase
from tests.websocket.peer import WebPeer


def free_port() -> int:
    """
    Find a port that nobody uses: 0 in the settings would mean none at all.
    """
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class WebNodeTestCase(NodeTestCase):
    """
    A test with a whole node, its WebSocket port on loopback too.
    """

    def setUp(self) -> Any:
        self.settings = (
            f"mp.net.ws-server-port={free_port()}",
            "mp.net.ws-server-bind-ip=127.0.0.1",
            *type(self).settings,
        )
        return super().setUp()

    @property
    def web_port(self) -> int:
        """
        Where pages connect.
        """
        listener = self.node.websocket_listener
        assert listener is not None
        return listener.port

    async def connect(self, path: str = "/", **headers: str | None) -> WebPeer:
        """
        Open a WebSocket; it is closed when the test ends.
        """

        def connected() -> WebPeer:
            return WebPeer(self.web_port, path, **headers)

        peer: WebPeer = await self.in_thread(connected)
        self.addCleanup(peer.close)
        return peer
