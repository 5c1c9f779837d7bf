"""
The web server that the recorded conversations of the HTTP proxy were had with.
"""

from __future__ import annotations

from typing import Any

from tests.integrations.http.backends import Asked, Backend, BackendConnection, ok

RECORDED_PORT = 8090
"""
Where it listened then.
"""

_HEADERS = (
    b"Server: testweb",
    b"X-Test: yes",
    b"Date: Mon, 01 Jan 2024 00:00:00 GMT",
    b"Content-Type: text/plain",
)


class TestWeb:
    """
    Tells back what it is asked: the request line without the version, the headers in
    order, an empty line and the body. Its own port it tells as it was then, and the
    name of C{content-length}, which Twisted writes, in the writing of then.
    """

    __test__ = False

    def __init__(self) -> None:
        self.backend = Backend(self._answer)

    def start(self, reactor: Any) -> None:
        """
        Listen on a loopback port.
        """
        self.backend.start(reactor)

    @property
    def port(self) -> int:
        """
        Where it listens now.
        """
        return self.backend.port

    def as_recorded(self, text: bytes) -> bytes:
        """
        Write the recorded port for the real one.
        """
        return text.replace(b":%d" % self.port, b":%d" % RECORDED_PORT)

    def _answer(self, connection: BackendConnection, asked: Asked) -> None:
        method, target, _ = asked.line.split(b" ")
        if target.endswith(b"/slow"):
            return
        if target.endswith(b"/redirect"):
            connection.send(
                ok(b"", *_HEADERS, b"Location: /after", status=b"302 Found")
            )
            return
        lines = [method + b" " + self.as_recorded(target)]
        headers = sorted(asked.headers, key=lambda pair: pair[0].lower())
        for name, value in headers:
            shown = name.lower() if name == b"Content-Length" else name
            lines.append(shown + b": " + self.as_recorded(value))
        status = b"404 Not Found" if target.endswith(b"/missing") else b"200 OK"
        body = b"\n".join([*lines, b"", asked.body])
        connection.send(ok(body, *_HEADERS, status=status))
