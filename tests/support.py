"""
What integration tests share: a node of their own, and a peer that speaks raw packets.
"""

from __future__ import annotations

import json
import select
import shutil
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mpush_tw.config import load_settings
from mpush_tw.core.log import NodeLog
from mpush_tw.protocol.packet import HEADER, HEADER_SIZE, Packet
from mpush_tw.service import Node

VECTORS = Path(__file__).parent / "vectors"
SAMPLE = json.loads((VECTORS / "transcripts.json").read_text())["keys"]
"""
The original's published key pair: the recorded handshakes are encrypted with it.
"""


class NodeTestCase(TestCase):
    """
    A test with a whole node on loopback ports, with the sample key.
    """

    timeout = 60
    settings: tuple[str, ...] = ()

    def setUp(self) -> Any:
        self.home = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.home)
        self.events: list[dict[str, Any]] = []
        overrides = [
            f"mp.home={self.home}",
            "mp.core.min-heartbeat=10s",
            f'mp.security.private-key="{SAMPLE["rsaPrivateKeyBase64"]}"',
            f'mp.security.public-key="{SAMPLE["rsaPublicKeyBase64"]}"',
            "mp.security.allow-sample-key=true",
            "mp.net.connect-server-port=0",
            "mp.net.connect-server-bind-ip=127.0.0.1",
            "mp.net.gateway-server-port=0",
            "mp.net.admin-server-port=0",
            *self.settings,
        ]
        loaded = load_settings(None, overrides, {})
        log = NodeLog("debug", reactor, self.events.append)  # type: ignore[arg-type]
        self.node = Node(loaded, reactor, log=log)
        self.node.startService()
        self.addCleanup(self.node.stopService)
        return self.node.started

    def in_thread(self, function: Any, *args: Any) -> Any:
        """
        Run blocking client code beside the reactor.
        """
        return deferToThread(function, *args)

    @property
    def ports(self) -> dict[int, int]:
        """
        The recorded port numbers and this node's.
        """
        return {
            3000: self.node.connect_listener.port,
            3001: self.node.gateway_listener.port,
        }

    def logged(self) -> str:
        """
        All log formats so far, for looking a sentence up.
        """
        return "\n".join(str(event.get("log_format")) for event in self.events)


class RawPeer:
    """
    A blocking connection that sends bytes and takes packets.
    """

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 5)
        self.buffer = b""
        self.ended = False

    def send(self, data: bytes) -> None:
        """
        Send bytes; a connection that the peer has closed is no error here.
        """
        try:
            self.socket.sendall(data)
        except OSError:
            self.ended = True

    def close(self) -> None:
        self.socket.close()

    def leave(self) -> None:
        """
        Close, and return only when the server has noticed: what another connection does
        next then finds this one gone.
        """
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        self.wait_end()
        self.close()

    def _fill(self, seconds: float) -> bool:
        readable, _, _ = select.select([self.socket], [], [], seconds)
        if not readable:
            return False
        try:
            data = self.socket.recv(65536)
        except OSError:
            data = b""
        if not data:
            self.ended = True
        self.buffer += data
        return True

    def packet(self, seconds: float = 5.0) -> Packet | None:
        """
        Take the next packet; C{None} when none comes in time, or at the end.
        """
        deadline = time.monotonic() + seconds
        while True:
            if self.buffer[:1] == b"\xdf":
                self.buffer = self.buffer[1:]
                return (1, 0, 0, b"")
            if len(self.buffer) >= HEADER_SIZE:
                length, cmd, cc, flags, session_id, lrc = HEADER.unpack_from(
                    self.buffer
                )
                end = HEADER_SIZE + length
                if len(self.buffer) >= end:
                    assert cc == 0 and lrc == 0
                    body = self.buffer[HEADER_SIZE:end]
                    self.buffer = self.buffer[end:]
                    return (cmd, flags, session_id, body)
            left = deadline - time.monotonic()
            if self.ended or left <= 0:
                return None
            self._fill(left)

    def receive_all(self, seconds: float = 5.0) -> bytes:
        """
        Take everything until the end of the connection or until it is quiet.
        """
        deadline = time.monotonic() + seconds
        while not self.ended and time.monotonic() < deadline:
            if not self._fill(deadline - time.monotonic()):
                break
        data, self.buffer = self.buffer, b""
        return data

    def wait_end(self, seconds: float = 5.0) -> bool:
        """
        Whether the peer closes in time.
        """
        deadline = time.monotonic() + seconds
        while not self.ended and time.monotonic() < deadline:
            self._fill(deadline - time.monotonic())
        return self.ended
