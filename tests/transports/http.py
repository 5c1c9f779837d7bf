"""
What tests of HTTP doors share: connections in memory, and answers taken apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.testing import StringTransportWithDisconnection


@attrs.frozen
class HttpAnswer:
    """
    An answer, as it was written.

    @ivar headers: By name, in lower case.
    """

    version: str
    code: int
    headers: Mapping[str, str]
    body: bytes

    @classmethod
    def read(cls, written: bytes) -> HttpAnswer:
        """
        Take apart what a connection has got; one answer.
        """
        head, _, body = written.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        version, code, _ = first.split(" ", 2)
        headers = {}
        for line in lines:
            name, _, value = line.partition(": ")
            assert name.lower() not in headers, f"{name} is there twice"
            headers[name.lower()] = value
        return cls(version, int(code), headers, body)


class HttpConnection:
    """
    A connection to a site, in memory.
    """

    def __init__(self, site: Any, peer: str = "127.0.0.1") -> None:
        """
        @param peer: The address that it comes from.
        """
        kind = IPv6Address if ":" in peer else IPv4Address
        address = kind("TCP", peer, 50001)
        self.transport = StringTransportWithDisconnection(peerAddress=address)
        self.protocol: Any = site.buildProtocol(address)
        self.transport.protocol = self.protocol
        self.protocol.makeConnection(self.transport)

    @property
    def open(self) -> bool:
        """
        Whether it is.
        """
        return bool(self.transport.connected)

    def send(self, data: bytes) -> None:
        """
        Send bytes.
        """
        self.protocol.dataReceived(data)

    def answer(self) -> HttpAnswer:
        """
        Take what was answered so far.
        """
        written = self.transport.value()
        self.transport.clear()
        return HttpAnswer.read(written)

    def ask(
        self,
        path: str,
        method: str = "GET",
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> HttpAnswer:
        """
        Ask, and take the answer.
        """
        lines = {"Host": "127.0.0.1:9999", **(headers or {})}
        if body:
            lines["Content-Length"] = str(len(body))
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.send(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        return self.answer()
