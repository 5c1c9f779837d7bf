"""
The web servers of the campaign: a real nginx, and behind it and beside it small ones
that do what a path says.

Every answer that could be mistaken for another one has the token of its request in it.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.integrations.http.backends import Asked, Backend, BackendConnection, ok
from tests.servers import LOOPBACK, free_port
from tests.servers.nginx import Nginx

FILE = b"a file that does not change\n" * 40
FILE_TAG = '"file-1"'

_SERVER = """
    location /file {{
      root {root};
      etag off;
      add_header ETag '{tag}';
      if ($http_if_none_match = '{tag}') {{ return 304; }}
    }}
    location /packed/ {{
      gzip on;
      gzip_min_length 1;
      gzip_types *;
      proxy_pass http://behind/;
    }}
    location /moved {{ return 302 /echo?$args; }}
    location /limited/ {{ client_max_body_size 10; proxy_pass http://behind/; }}
    location / {{
      proxy_pass http://behind;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }}
"""


class WebServers:
    """
    All of them.

    @ivar behind: The one that nginx asks.
    @ivar raw: The one that the node asks itself, and that does not always speak HTTP.
    @ivar nobody: A port that nobody listens on.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.behind = Backend(self._answer)
        self.raw = Backend(self._answer_raw)
        self.nobody = free_port()
        self.nginx: Nginx | None = None
        self._calls: set[Any] = set()

    def _later(self, seconds: float, what: Any, *args: Any) -> None:
        """
        Do something later, unless all is over by then.
        """

        def call() -> None:
            self._calls.discard(delayed)
            what(*args)

        delayed = self._reactor.callLater(seconds, call)
        self._calls.add(delayed)

    def start(self) -> None:
        """
        Start them all. Blocks for a moment.
        """
        self.behind.start(self._reactor)
        self.raw.start(self._reactor)
        server = (
            _SERVER.replace("{tag}", FILE_TAG).replace("{{", "{").replace("}}", "}")
        )
        upstream = (
            f"upstream behind {{ server {LOOPBACK}:{self.behind.port}; keepalive 16; }}"
        )
        self.nginx = Nginx(server, upstream)
        self.nginx.start()
        (self.nginx.root / "file").write_bytes(FILE)

    async def stop(self) -> None:
        """
        Stop them.
        """
        for delayed in self._calls:
            delayed.cancel()
        self._calls.clear()
        if self.nginx is not None:
            self.nginx.stop()
        await self.behind.stop()
        await self.raw.stop()

    @property
    def mapping(self) -> dict[str, list[str]]:
        """
        What C{mp.http.dns-mapping} has to be.
        """
        assert self.nginx is not None
        return {
            "web.test": [f"{LOOPBACK}:{self.nginx.port}"],
            "raw.test": [f"{LOOPBACK}:{self.raw.port}"],
            "down.test": [f"{LOOPBACK}:{self.nobody}"],
        }

    # ------------------------------------------------------------ behind nginx

    def _answer(self, connection: BackendConnection, asked: Asked) -> None:
        _, target, _ = asked.line.decode().split(" ")
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        token = query.get("token", [""])[0].encode()
        method = asked.line.partition(b" ")[0]
        said = b"%s %s %s" % (method, token, asked.body)
        if path == "/echo":
            connection.send(ok(said, b"Content-Type: text/plain"))
        elif path == "/chunked":
            parts = [said[at : at + 7] for at in range(0, len(said), 7)]
            chunks = b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in parts)
            connection.send(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                chunks + b"0\r\n\r\n",
            )
        elif path == "/slow":
            delay = float(query["seconds"][0])
            self._later(delay, self._late, connection, ok(said))
        elif path == "/empty":
            connection.send(b"HTTP/1.1 204 No Content\r\nX-Token: %s\r\n\r\n" % token)
        elif path == "/missing":
            connection.send(ok(said, status=b"404 Not Found"))
        elif path == "/failing":
            connection.close()
        elif path == "/big":
            connection.send(ok(os.urandom(int(query["size"][0]))))
        elif path.startswith("/again/"):
            status = path.removeprefix("/again/").encode()
            location = b"Location: /echo?token=" + token
            connection.send(ok(b"", location, status=status + b" Elsewhere"))
        elif path == "/away":
            connection.send(
                ok(b"", b"Location: http://127.0.0.1/", status=b"302 Found")
            )
        else:
            connection.send(ok(b"no such path", status=b"404 Not Found"))

    def _late(self, connection: BackendConnection, said: bytes) -> None:
        if not connection.lost:
            connection.send(said)

    # ------------------------------------------------------------- no manners

    def _answer_raw(self, connection: BackendConnection, asked: Asked) -> None:
        _, target, _ = asked.line.decode().split(" ")
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        token = query.get("token", [""])[0].encode()
        good = ok(token)
        head = b"HTTP/1.1 200 OK\r\n"
        if path == "/twice":
            connection.send(good, ok(b"FOREIGN"))
        elif path == "/early":
            # Answered, and then answered again, as if the body had been a request.
            connection.send(
                ok(
                    b"",
                    b"Location: /plain?token=" + token,
                    status=b"307 Temporary Redirect",
                )
            )
            self._later(0.005, self._late, connection, ok(b"FOREIGN"))
        elif path == "/interim":
            connection.send(b"HTTP/1.1 100 Continue\r\n\r\n", good)
        elif path == "/closing":
            connection.close()
        elif path == "/half":
            connection.send(head + b"Content-Length: 100\r\n\r\n" + token)
            connection.close()
        elif path == "/half-chunk":
            connection.send(head + b"Transfer-Encoding: chunked\r\n\r\n64\r\n" + token)
            connection.close()
        elif path == "/headless":
            # As if to HEAD: a length, and nothing behind it.
            connection.send(head + b"Content-Length: 100\r\n\r\n")
        elif path == "/garbage":
            connection.send(b"this is not HTTP " + token + b"\r\n\r\n")
        elif path == "/until-close":
            connection.send(head + b"\r\n" + token)
            connection.close()
        elif path == "/endless":
            self._pour(connection, 0)
        elif path == "/plain":
            connection.send(good)
        else:
            connection.send(ok(b"", status=b"404 Not Found"))

    def _pour(self, connection: BackendConnection, sent: int) -> None:
        """
        Send more than anybody wants, a piece at a time.
        """
        if connection.lost or sent > 32 << 20:
            return
        if not sent:
            connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.send(b"10000\r\n" + bytes(65536) + b"\r\n")
        self._later(0.001, self._pour, connection, sent + 65536)
