"""
Tests for L{mpush_tw.transports.websocket}: from HTTP to packets and back.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mpush_tw.core.connection import Connection
from mpush_tw.core.defaults import MsgspecJson
from mpush_tw.core.handlers import Dispatcher
from mpush_tw.core.registry import Admission, Connections
from mpush_tw.errors import ProtocolError
from mpush_tw.interfaces import IJsonCodec, IPeerConnection
from mpush_tw.protocol.commands import Command
from mpush_tw.protocol.messages import (
    BindUser,
    Error,
    FastConnect,
    FastConnectOk,
    Handshake,
    HandshakeOk,
    HttpRequest,
    HttpResponse,
    Ok,
)
from mpush_tw.protocol.prepared import PreparedPush
from mpush_tw.transports.web_pages import Page
from mpush_tw.transports.websocket import (
    Front,
    WebSocketConnection,
    WebSocketDoor,
    WebSocketFactory,
)
from tests.core.fakes import Core
from tests.transports.fakes import FakeTransport
from tests.websocket.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    client_frame,
    close,
    cut,
    deflated,
    inflated,
    opening,
    request,
    text,
)

_LOST = Failure(ConnectionDone())
_INDEX = Page.of(b"<p>index", "text/html; charset=UTF-8")
_SCRIPT = Page.of(b"let a", "text/javascript; charset=utf-8")
_PAGES = {b"/index.html": _INDEX, b"/mpush.js": _SCRIPT}
_DEFLATE = "permessage-deflate"


class WebTransport(FakeTransport):
    """
    A transport that can be half closed.

    @ivar half_closed: Whether nothing more can be written.
    @ivar queued: What the kernel has not taken, as the test says.
    """

    def __init__(self, client: tuple[str, int] = ("192.0.2.1", 40000)) -> None:
        super().__init__(client)
        self.half_closed = False
        self.queued = 0

    def setTcpNoDelay(self, enabled: bool) -> None:
        """
        Called by HTTP and by autobahn.
        """

    def loseWriteConnection(self) -> None:
        """
        Close one direction.
        """
        self.half_closed = True

    def write(self, data: bytes) -> None:
        assert not self.half_closed
        super().write(data)


class WebSocketTestCase(SynchronousTestCase):
    """
    A door whose only handler is the test's.
    """

    path = b"/"
    origins: tuple[str, ...] = ()
    max_per_address = 100
    threshold = 1000
    max_message = 4096

    def setUp(self) -> None:
        self.core = Core()
        self.metrics = self.core.metrics.ws
        self.connections = Connections(
            self.core.wheel,
            self.core.clock,
            self.core.log,
            self.core.metrics,
            self.metrics,
            10.0,
            1000,
            2,
        )
        self.dispatcher = Dispatcher(self.core.log, self.metrics)
        self.handled: list[tuple[int, int, object]] = []
        self.waiting: list[Deferred[None]] = []
        self.wait = False
        self.dispatcher.register(Command.PUSH, self.handle)
        self.opened: list[Connection] = []
        self.closed: list[Connection] = []
        self.admission = Admission(1000, self.max_per_address)
        self.door = WebSocketDoor(
            front=Front(self.path, _PAGES, self.origins),
            connections=self.connections,
            admission=self.admission,
            dispatcher=self.dispatcher,
            closed=self.connection_closed,
            opened=self.opened.append,
            wheel=self.core.wheel,
            clock=self.core.clock,
            log=self.core.log,
            metrics=self.core.metrics,
            max_message=self.max_message,
            compress_threshold=self.threshold,
            max_missed=2,
            json=MsgspecJson(),
        )
        self.factory = WebSocketFactory(self.door)
        self.page, self.transport = self.connect()

    def connect(self) -> tuple[WebSocketConnection, WebTransport]:
        """
        Accept a connection.
        """
        protocol = self.accept()
        assert isinstance(protocol, WebSocketConnection)
        transport = WebTransport()
        protocol.makeConnection(transport)
        return protocol, transport

    def accept(self) -> Any:
        """
        Have a connection accepted, or not.
        """
        return self.factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 40000))

    def connection_closed(self, connection: Connection) -> Deferred[None]:
        """
        Note the end of a connection.
        """
        self.closed.append(connection)
        return succeed(None)

    def handle(
        self, connection: Connection, session_id: int, flags: int, body: object
    ) -> Deferred[None] | None:
        """
        Note a packet, and wait if the test says so.
        """
        self.handled.append((session_id, flags, body))
        if self.wait:
            self.waiting.append(Deferred())
            return self.waiting[-1]
        return None

    def numbers(self) -> list[int]:
        """
        The numbers of the packets handled so far.
        """
        return [number for number, _, _ in self.handled]

    def push(self, number: int) -> bytes:
        """
        A message that is handled by L{handle}.
        """
        return text(f'{{"cmd":15,"sessionId":{number},"body":{{"content":"x"}}}}')

    def open(self, **headers: str | None) -> str:
        """
        Send an opening request, and give the answer.
        """
        self.page.dataReceived(opening(self.path.decode(), **headers))
        return self.transport.take().decode()

    def frames(self) -> list[Frame]:
        """
        The frames that the page got since the last call.
        """
        found, rest = cut(self.transport.take())
        self.assertEqual(rest, b"")
        return found

    def packets(self) -> list[Any]:
        """
        The JSON of the text frames that the page got since the last call.
        """
        frames = self.frames()
        self.assertEqual({frame.opcode for frame in frames} - {TEXT}, set())
        return [json.loads(frame.payload) for frame in frames]

    def logged(self) -> str:
        """
        The formats of all log events so far.
        """
        return self.core.texts()


class OpenTestCase(WebSocketTestCase):
    """
    A WebSocket that is open.
    """

    def setUp(self) -> None:
        super().setUp()
        self.assertIn("101 Switching Protocols", self.open())


class HttpTestCase(WebSocketTestCase):
    """
    Requests and answers.
    """

    def ask(
        self, target: str, method: str = "GET", **headers: str
    ) -> tuple[int, bytes]:
        """
        Send a request, and give status and body of the answer.
        """
        named: dict[str, str | None] = {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        self.page.dataReceived(request(method, target, named))
        head, _, body = self.transport.take().partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        self.headers = {
            name.lower(): value
            for name, value in (one.split(": ") for one in lines[1:])
        }
        return int(lines[0].split()[1]), body


class PageTests(HttpTestCase):
    """
    Files for browsers.
    """

    def test_index(self) -> None:
        """
        A browser that goes to the port sees the page, by either name.
        """
        for target in ("/", "/index.html"):
            self.assertEqual(self.ask(target), (200, _INDEX.content))
            self.assertEqual(self.headers["content-type"], "text/html; charset=UTF-8")
            self.assertEqual(self.headers["date"], "Thu, 01 Jan 1970 00:00:00 GMT")

    def test_script(self) -> None:
        """
        So it does its script.
        """
        self.assertEqual(self.ask("/mpush.js"), (200, _SCRIPT.content))

    def test_again(self) -> None:
        """
        Every request of a connection is answered (S-24).
        """
        for _ in range(5):
            self.assertEqual(self.ask("/")[0], 200)
        self.assertFalse(self.transport.half_closed)

    def test_pipelined(self) -> None:
        """
        Also those that come at once.
        """
        self.page.dataReceived(request("GET", "/") * 3)
        self.assertEqual(self.transport.take().count(b"HTTP/1.1 200"), 3)

    def test_head(self) -> None:
        """
        HEAD is answered like GET, without the body.
        """
        self.assertEqual(self.ask("/", "HEAD"), (200, b""))
        self.assertEqual(self.headers["content-length"], str(len(_INDEX.content)))

    def test_unchanged(self) -> None:
        """
        A browser that has the file does not get it again.
        """
        self.ask("/")
        etag = self.headers["etag"]
        self.assertEqual(self.ask("/", if_none_match=etag), (304, b""))
        self.assertEqual(self.ask("/", if_none_match='"other"')[0], 200)

    def test_close_wanted(self) -> None:
        """
        The connection ends if the browser says so.
        """
        self.assertEqual(self.ask("/", connection="close")[0], 200)
        self.assertTrue(self.transport.half_closed)

    def test_no_such_page(self) -> None:
        """
        Everything else is not found, a query included; the connection ends.
        """
        for target in ("/other", "/index.html?a=b", "/?a", "/../setup.cfg", "//"):
            self.page, self.transport = self.connect()
            self.assertEqual(self.ask(target), (404, b"404 Not Found"))
            self.assertEqual(self.headers["connection"], "close")
            self.assertTrue(self.transport.half_closed)

    def test_other_methods(self) -> None:
        """
        Nothing but GET and HEAD is allowed.
        """
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "BREW"):
            self.page, self.transport = self.connect()
            self.assertEqual(self.ask("/", method), (403, b"403 Forbidden"))
            self.assertTrue(self.transport.half_closed)

    def test_malformed(self) -> None:
        """
        What is no HTTP is answered with 400, and nothing behind it is read.
        """
        for data in (b"\x00\x01\r\n\r\n", b"GET /\r\n\r\n", b"GET / HTTP/1.1\r\nx\r\n"):
            self.page, self.transport = self.connect()
            self.page.dataReceived(data + b"a: b\r\n\r\n" + request("GET", "/"))
            answer = self.transport.take()
            self.assertTrue(answer.startswith(b"HTTP/1.1 400 Bad Request\r\n"), answer)
            self.assertEqual(answer.count(b"HTTP/1.1 "), 1)
            self.assertTrue(answer.endswith(b"400 Bad Request"))
            self.assertTrue(self.transport.half_closed)

    def test_endless_head(self) -> None:
        """
        A head of more than 16 KiB is not waited for.
        """
        for data in (b"GET /", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 600):
            self.page, self.transport = self.connect()
            self.page.dataReceived(data + b"x" * 40_000)
            self.assertIn(b"400 Bad Request", self.transport.take())
            self.assertTrue(self.transport.half_closed)

    def test_large_body(self) -> None:
        """
        A body of more than 64 KiB is not waited for; a smaller one is ignored.
        """
        for size, status in ((65536, b"403"), (65537, b"413")):
            self.page, self.transport = self.connect()
            head = request("POST", "/", {"content-length": str(size)})
            self.page.dataReceived(head + b"x" * 60_000)
            self.page.dataReceived(b"x" * (size - 60_000))
            answer = self.transport.take()
            self.assertTrue(answer.startswith(b"HTTP/1.1 " + status), answer)
            self.assertTrue(self.transport.half_closed)

    def test_endless_body(self) -> None:
        """
        A body without a length is not waited for either.
        """
        head = request("POST", "/", {"transfer-encoding": "chunked"})
        chunk = b"2000\r\n" + b"x" * 8192 + b"\r\n"
        self.page.dataReceived(head + chunk * 20)
        answer = self.transport.take()
        self.assertTrue(answer.startswith(b"HTTP/1.1 413"), answer)
        self.assertTrue(self.transport.half_closed)

    def test_answers_not_taken(self) -> None:
        """
        Who sends request after request and takes no answer is not read from.
        """
        producer = self.transport.producer
        assert producer is not None
        producer.pauseProducing()
        self.assertFalse(self.transport.reading)
        producer.resumeProducing()
        self.assertTrue(self.transport.reading)


class PathTests(HttpTestCase):
    """
    WebSocket at another path than the page.
    """

    path = b"/push"

    def test_page(self) -> None:
        """
        The page is where it always is.
        """
        for target in ("/", "/index.html"):
            self.assertEqual(self.ask(target), (200, _INDEX.content))

    def test_websocket(self) -> None:
        """
        The path gives a WebSocket, and only with an opening request.
        """
        self.assertIn("101 Switching Protocols", self.open())
        self.page, self.transport = self.connect()
        self.assertEqual(
            self.ask("/push"),
            (400, b"not a WebSocket handshake request: missing upgrade"),
        )

    def test_not_elsewhere(self) -> None:
        """
        The root gives none, nor does the path with a query.
        """
        self.page.dataReceived(opening("/"))
        self.assertIn(b" 200 OK", self.transport.take())
        self.page.dataReceived(opening("/push?a=b"))
        self.assertIn(b" 404 ", self.transport.take())


class PathOfAPageTests(HttpTestCase):
    """
    WebSocket at the path of a file.
    """

    path = b"/index.html"

    def test_no_page(self) -> None:
        """
        The path shows nothing then; the root still does.
        """
        self.assertEqual(self.ask("/")[0], 200)
        self.assertEqual(self.ask("/index.html")[0], 400)


class OpeningTests(HttpTestCase):
    """
    Opening requests (RFC 6455 4.2).
    """

    def test_accepted(self) -> None:
        """
        The answer proves that the request was understood: the example of RFC 6455 1.3.
        """
        answer = self.open().lower()
        self.assertTrue(answer.startswith("http/1.1 101 "))
        self.assertIn("\r\nupgrade: websocket\r\n", answer)
        self.assertIn("\r\nconnection: upgrade\r\n", answer)
        self.assertIn(
            "\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n", answer
        )
        self.assertNotIn("sec-websocket-protocol", answer)
        self.assertNotIn("sec-websocket-extensions", answer)

    def test_spellings(self) -> None:
        """
        Names have any case, and stand among others.
        """
        answer = self.open(upgrade="h2c, WebSocket", connection="keep-alive, UPGRADE")
        self.assertIn("101 Switching", answer)

    def refused(self, status: int, word: str, **headers: str | None) -> None:
        """
        Check that an opening request is refused.
        """
        self.page, self.transport = self.connect()
        answer = self.open(**headers)
        self.assertTrue(answer.startswith(f"HTTP/1.1 {status} "), answer)
        self.assertIn(word, answer.lower())
        self.assertTrue(self.transport.half_closed)

    def test_version(self) -> None:
        """
        Only version 13 is spoken, and an old client is told so.
        """
        for version in (None, "8", "12", "14", "x", "13, 8", ""):
            self.refused(
                426, "sec-websocket-version: 13", **{"sec_websocket_version": version}
            )

    def test_key(self) -> None:
        """
        The key must be one.
        """
        for key in (None, "", "abc", "dGhlIHNhbXBsZSBub25j", "?" * 22 + "=="):
            self.refused(400, "bad key", **{"sec_websocket_key": key})

    def test_connection(self) -> None:
        """
        The connection must be meant.
        """
        self.refused(400, "missing connection", connection=None)
        self.refused(400, "missing connection", connection="close")

    def test_body(self) -> None:
        """
        An opening request has no body.
        """
        self.page.dataReceived(opening(content_length="1") + b"x")
        self.assertIn(b"has a body", self.transport.take())

    def test_wants_another_protocol(self) -> None:
        """
        With 426 goes what to upgrade to.
        """
        answer = self.open(sec_websocket_version="8").lower()
        self.assertIn("http/1.1 426 upgrade required\r\n", answer)
        self.assertIn("\r\nupgrade: websocket\r\n", answer)
        self.assertIn("\r\nconnection: upgrade, close\r\n", answer)

    def test_noted(self) -> None:
        """
        Refusals are counted and logged.
        """
        self.refused(400, "bad key", **{"sec_websocket_key": "x"})
        self.assertEqual(self.metrics.refused, {"http-400": 1})
        self.assertIn("WebSocket refused", self.logged())

    def test_no_upgrade(self) -> None:
        """
        Without upgrade, it is a request for the page.
        """
        self.assertIn(" 200 OK", self.open(upgrade=None))
        self.assertIn(" 200 OK", self.open(upgrade="h2c"))

    def test_after_the_page(self) -> None:
        """
        A connection that has fetched the page may become a WebSocket.
        """
        self.ask("/")
        self.assertIn("101 Switching", self.open())

    def test_behind_it(self) -> None:
        """
        A client that does not wait for the answer is understood.
        """
        frame = self.push(2)
        self.page.dataReceived(opening() + self.push(1) + frame[:5])
        self.assertEqual(self.numbers(), [1])
        self.page.dataReceived(frame[5:])
        self.assertEqual(self.numbers(), [1, 2])

    def test_byte_by_byte(self) -> None:
        """
        All may come in any pieces.
        """
        for byte in opening() + self.push(1):
            self.page.dataReceived(bytes([byte]))
        self.assertEqual(self.numbers(), [1])


class OriginTests(HttpTestCase):
    """
    Pages of other people's sites (C{mp.net.ws-allowed-origins}).
    """

    origins = ("https://example.com", "https://*.example.org:8443")

    def test_allowed(self) -> None:
        """
        Pages of the sites named may connect, in any case of letters.
        """
        for origin in (
            "https://example.com",
            "HTTPS://Example.com",
            "https://a.b.example.org:8443",
        ):
            self.page, self.transport = self.connect()
            self.assertIn(" 101 ", self.open(origin=origin), origin)

    def test_refused(self) -> None:
        """
        Pages of other sites may not, and it is noted.
        """
        for origin in (
            "http://example.com",
            "https://example.com.evil.net",
            "https://example.com:444",
            "https://example.org:8443",
            "null",
            "",
        ):
            self.page, self.transport = self.connect()
            self.assertIn(" 403 ", self.open(origin=origin), origin)
            self.assertTrue(self.transport.half_closed)
        self.assertEqual(self.metrics.refused, {"http-403": 6})

    def test_not_a_page(self) -> None:
        """
        What is no page names no origin, and may connect.
        """
        self.assertIn(" 101 ", self.open())

    def test_page_is_shown(self) -> None:
        """
        Everybody may see the page.
        """
        self.assertEqual(self.ask("/", origin="http://evil")[0], 200)


class AnyOriginTests(HttpTestCase):
    """
    A node whose operator names no origins.
    """

    def test_all(self) -> None:
        """
        Every page may connect, as with the original.
        """
        for origin in ("http://a", "null", "file://", "chrome-extension://x", "%%%"):
            self.page, self.transport = self.connect()
            self.assertIn(" 101 ", self.open(origin=origin), origin)


class PacketsInTests(OpenTestCase):
    """
    From frames to handlers.
    """

    def test_one(self) -> None:
        """
        A packet is handled as it came.
        """
        self.page.dataReceived(self.push(7))
        self.assertEqual(self.handled, [(7, 16, {"content": "x"})])

    def test_in_order(self) -> None:
        """
        Many packets of one read are handled in their order.
        """
        self.page.dataReceived(b"".join(map(self.push, range(50))))
        self.assertEqual(self.numbers(), list(range(50)))

    def test_fragments(self) -> None:
        """
        A packet may come in fragments, with pings between (DESIGN 5c).
        """
        whole = b'{"cmd":15,"sessionId":7}'
        self.page.dataReceived(client_frame(TEXT, whole[:5], fin=False))
        self.page.dataReceived(client_frame(PING, b"p"))
        self.page.dataReceived(client_frame(CONTINUATION, b"", fin=False))
        self.page.dataReceived(client_frame(CONTINUATION, whole[5:]))
        self.assertEqual(self.numbers(), [7])
        self.assertEqual(self.frames(), [Frame(PONG, b"p")])

    def test_sign_of_life(self) -> None:
        """
        A packet sets the time of the last read.
        """
        self.core.clock.advance(5)
        self.page.dataReceived(self.push(1))
        self.assertEqual(self.page.last_read, 5)

    def test_unsupported(self) -> None:
        """
        A command that nobody handles is answered with 101, then the page is sent away.
        """
        self.page.dataReceived(text('{"cmd":19,"sessionId":3}'))
        [answer, farewell] = self.frames()
        self.assertEqual(
            json.loads(answer.payload),
            {
                "body": {"cmd": 19, "code": 101, "reason": "unsupported command"},
                "bodyLength": 3,
                "cmd": 10,
                "flags": 16,
                "sessionId": 3,
            },
        )
        self.assertEqual(farewell, Frame(CLOSE, b"\x03\xe8Bye"))
        self.assertEqual(self.transport.half_closed, True)

    def test_no_packet(self) -> None:
        """
        What is no packet is not answered; the page is sent away.
        """
        for message in ("hello", "", "[]", '{"body":5}', '{"cmd":"x"}'):
            self.page, self.transport = self.connect()
            self.open()
            self.page.dataReceived(text(message))
            [farewell] = self.frames()
            self.assertEqual(farewell.close_code, 1007)
            self.assertTrue(self.transport.half_closed)
        self.assertEqual(self.metrics.decode_errors, {"framing": 5})

    def test_no_utf8(self) -> None:
        """
        Nor is what is no UTF-8.
        """
        self.page.dataReceived(client_frame(TEXT, b'{"body":{"a":"\xff"}}'))
        self.assertEqual(self.frames()[0].close_code, 1007)

    def test_binary(self) -> None:
        """
        Binary messages are not taken.
        """
        self.page.dataReceived(client_frame(BINARY, b"\x01\x02"))
        self.assertEqual(self.frames()[0].close_code, 1003)
        self.assertTrue(self.transport.half_closed)

    def test_too_long(self) -> None:
        """
        Nor are messages above the limit, whole or in fragments.
        """
        for frame in (
            client_frame(TEXT, length=self.max_message + 1),
            client_frame(TEXT, b"x" * self.max_message, fin=False)
            + client_frame(CONTINUATION, b"x"),
            client_frame(TEXT, length=2**62),
        ):
            self.page, self.transport = self.connect()
            self.open()
            self.page.dataReceived(frame)
            self.assertEqual(self.frames()[0].close_code, 1009)
            self.assertTrue(self.transport.half_closed)

    def test_fragments_without_end(self) -> None:
        """
        Nor are messages of any number of empty fragments.
        """
        self.page.dataReceived(client_frame(TEXT, b"{", fin=False))
        self.page.dataReceived(
            client_frame(CONTINUATION, fin=False) * (self.max_message // 64)
        )
        self.assertEqual(self.frames(), [])
        self.page.dataReceived(client_frame(CONTINUATION, fin=False))
        self.assertEqual(self.frames()[0].close_code, 1009)

    def test_nothing_after_a_farewell(self) -> None:
        """
        What follows a message that ended the connection is not handled, of the same
        read or of later ones, and no pong is sent.
        """
        self.page.dataReceived(
            text('{"cmd":19}') + client_frame(PING, b"p") + self.push(1)
        )
        self.page.dataReceived(self.push(2) + b"\xff" * 1000)
        self.assertEqual(self.handled, [])
        self.assertEqual([one.opcode for one in self.frames()], [TEXT, CLOSE])
        self.assertFalse(self.transport.aborted)

    def test_counted(self) -> None:
        """
        Packets are counted by command, bytes in all.
        """
        before = self.metrics.bytes_in
        self.page.dataReceived(self.push(1) + self.push(2))
        self.assertEqual(self.metrics.packets_in[Command.PUSH], 2)
        self.assertEqual(self.metrics.bytes_in - before, 2 * len(self.push(1)))


class WaitingTests(OpenTestCase):
    """
    Handlers that take their time.
    """

    def setUp(self) -> None:
        super().setUp()
        self.wait = True

    def go_on(self) -> None:
        """
        Let the handler that is under way end.
        """
        self.waiting.pop(0).callback(None)

    def test_next_packet_waits(self) -> None:
        """
        The next packet of the same read is handled when the handler has ended.
        """
        self.page.dataReceived(self.push(1) + self.push(2))
        self.assertEqual(self.numbers(), [1])
        self.go_on()
        self.assertEqual(self.numbers(), [1, 2])

    def test_not_read_meanwhile(self) -> None:
        """
        Meanwhile the page is not read from.
        """
        self.page.dataReceived(self.push(1))
        self.assertFalse(self.transport.reading)
        self.go_on()
        self.assertTrue(self.transport.reading)

    def test_read_under_way(self) -> None:
        """
        What arrives all the same comes after what was there, pieces included.
        """
        data = b"".join(map(self.push, range(1, 6)))
        for start in range(0, len(data), 25):
            self.page.dataReceived(data[start : start + 25])
        self.assertEqual(self.numbers(), [1])
        for _ in range(5):
            self.go_on()
        self.assertEqual(self.numbers(), [1, 2, 3, 4, 5])

    def test_closed_meanwhile(self) -> None:
        """
        Nothing more is handled when the connection was closed meanwhile.
        """
        self.page.dataReceived(self.push(1) + self.push(2))
        self.page.close("test")
        self.go_on()
        self.assertEqual(self.numbers(), [1])

    def test_lost_meanwhile(self) -> None:
        """
        The end of the connection is reported when the handler has ended.
        """
        self.page.dataReceived(self.push(1) + self.push(2))
        self.page.connectionLost(_LOST)
        self.assertEqual(self.closed, [])
        self.go_on()
        self.assertEqual(self.closed, [self.page])
        self.assertEqual(self.numbers(), [1])

    def test_congested_meanwhile(self) -> None:
        """
        A page that does not read is not read from when the handler ends.
        """
        self.page.dataReceived(self.push(1))
        self.page.pauseProducing()
        self.go_on()
        self.assertFalse(self.transport.reading)
        self.page.resumeProducing()
        self.assertTrue(self.transport.reading)


class DecodingTests(OpenTestCase):
    """
    Messages of packets.
    """

    def test_messages(self) -> None:
        """
        Each kind has a JSON form.
        """
        self.assertEqual(
            self.page.decode(Handshake, 16, {"deviceId": "d"}), Handshake("d")
        )
        self.assertEqual(
            self.page.decode(BindUser, 16, {"userId": 5, "tags": "a"}),
            BindUser("5", None, "a"),
        )
        self.assertEqual(
            self.page.decode(FastConnect, 16, {"sessionId": "s"}), FastConnect("s")
        )
        self.assertEqual(
            self.page.decode(HttpRequest, 16, {"uri": "u"}), HttpRequest(0, "u")
        )
        self.assertRaises(ProtocolError, self.page.decode, BindUser, 16, {"tags": 5})

    def test_content(self) -> None:
        """
        The content of a PUSH is a text; it may be missing.
        """
        self.assertEqual(self.page.decode_content(16, {"content": "你"}), "你".encode())
        self.assertEqual(self.page.decode_content(16, {}), b"")
        self.assertRaises(
            ProtocolError, self.page.decode_content, 16, {"content": ["x"]}
        )


class CodecTests(OpenTestCase):
    """
    A plug-in's JSON in place of ours.
    """

    def setUp(self) -> None:
        super().setUp()
        self.door.json = ShoutingJson()

    def test_read(self) -> None:
        """
        It reads what pages say.
        """
        self.page.dataReceived(text('{"CMD":15,"SESSIONID":7}'))
        self.assertEqual(self.numbers(), [7])

    def test_written(self) -> None:
        """
        It writes what they get.
        """
        self.page.send_ack(9)
        self.page.send_push(4, 8, b"x")
        self.page.send_prepared(PreparedPush(7, b"y", 1000))
        packets = self.packets()
        self.assertEqual([one["SESSIONID"] for one in packets], [9, 4, 7])

    def test_bug(self) -> None:
        """
        One that fails in a way of its own costs the connection, in a waiting message
        too.
        """
        self.wait = True
        self.page.dataReceived(
            text('{"CMD":15,"SESSIONID":7}') + text('{"CMD":15,"SESSIONID":8}')
        )
        self.door.json = BrokenJson()
        self.waiting.pop().callback(None)
        self.assertTrue(self.transport.aborted)
        self.assertIn("bug", str(self.core.logged[-1].get("log_failure")))


@implementer(IJsonCodec)
class ShoutingJson:
    """
    JSON in capitals on the wire.
    """

    def encode(self, value: object) -> bytes:
        return json.dumps(value).upper().encode()

    def decode(self, text: bytes) -> object:
        form = json.loads(text)
        return {"cmd": form["CMD"], "sessionId": form["SESSIONID"]}


class BrokenJson(ShoutingJson):
    """
    JSON with a bug.
    """

    def decode(self, text: bytes) -> object:
        raise KeyError("bug")


class PacketsOutTests(OpenTestCase):
    """
    From messages to frames.
    """

    def test_answers(self) -> None:
        """
        Answers have the number of their request, and a body if they say something.
        """
        for message, cmd, body in (
            (Ok(5, 0, "bind success"), 11, {"cmd": 5, "data": "bind success"}),
            (Error(5, 0, "bind failed"), 10, {"cmd": 5, "reason": "bind failed"}),
            (HandshakeOk(b"", 0, "", 0), 2, None),
            (FastConnectOk(5), 7, {"heartbeat": 5}),
            (HttpResponse(204), 12, {"statusCode": 204}),
        ):
            self.assertTrue(self.page.answer(9, message))
            [packet] = self.packets()
            self.assertEqual((packet["cmd"], packet["sessionId"]), (cmd, 9))
            self.assertEqual(packet.get("body"), body)

    def test_push(self) -> None:
        """
        A push carries its content as a text, and the ack bits.
        """
        self.assertTrue(self.page.send_push(4, 8, "hello 推".encode()))
        payload = (
            '{"body":{"content":"hello 推"},"bodyLength":1,"cmd":15,"flags":24,'
            '"sessionId":4}'
        )
        self.assertEqual(self.frames(), [Frame(TEXT, payload.encode())])

    def test_malformed_content(self) -> None:
        """
        Bytes that are no UTF-8 are replaced.
        """
        self.page.send_push(4, 0, b"a\xffb")
        self.assertEqual(self.packets()[0]["body"], {"content": "a\ufffdb"})

    def test_others(self) -> None:
        """
        KICK names the page, ACK and heartbeat answer by number.
        """
        self.page.device_id = "web-1"
        self.page.send_kick("user-1")
        self.page.send_ack(9)
        self.dispatcher.register(
            Command.HEARTBEAT, lambda page, *rest: page.send_heartbeat() and None
        )
        self.page.dataReceived(text('{"cmd":1,"sessionId":6}'))
        self.assertEqual(
            self.packets(),
            [
                {
                    "body": {"deviceId": "web-1", "userId": "user-1"},
                    "bodyLength": 2,
                    "cmd": 13,
                    "flags": 16,
                    "sessionId": 0,
                },
                {"bodyLength": 0, "cmd": 23, "flags": 16, "sessionId": 9},
                {"bodyLength": 0, "cmd": 1, "flags": 16, "sessionId": 6},
            ],
        )

    def test_broadcast(self) -> None:
        """
        A broadcast sends the same bytes to all.
        """
        message = PreparedPush(7, b"hello", 1000)
        other, transport = self.connect()
        other.dataReceived(opening())
        transport.take()
        self.assertTrue(self.page.send_prepared(message))
        self.assertTrue(other.send_prepared(message))
        self.assertIs(self.transport.writes[-1], transport.writes[-1])
        self.assertEqual(self.packets()[0]["body"], {"content": "hello"})

    def test_counted(self) -> None:
        """
        Packets are counted by command, bytes in all.
        """
        self.page.send_push(4, 8, b"hello")
        self.assertEqual(self.metrics.packets_out[Command.PUSH], 1)
        self.assertEqual(self.metrics.bytes_out, len(self.transport.take()))

    def test_closed(self) -> None:
        """
        Nothing is written once the connection is being closed.
        """
        self.page.close("test")
        self.transport.take()
        self.assertFalse(self.page.connected)
        for sent in (
            self.page.send_push(4, 8, b"hello"),
            self.page.send_prepared(PreparedPush(1, b"x", 10)),
            self.page.send_kick("u"),
            self.page.send_ack(1),
            self.page.send_heartbeat(),
            self.page.answer(1, Ok(5)),
        ):
            self.assertFalse(sent)
        self.assertEqual(self.transport.take(), b"")

    def test_not_a_websocket(self) -> None:
        """
        What only speaks HTTP gets no broadcast.
        """
        page, transport = self.connect()
        self.assertFalse(page.send_prepared(PreparedPush(1, b"x", 10)))
        self.assertEqual(transport.take(), b"")

    def test_full(self) -> None:
        """
        A page whose buffer is full is busy.
        """
        self.assertFalse(self.page.busy)
        self.transport.busy = True
        self.assertTrue(self.page.busy)


class CompressionTests(WebSocketTestCase):
    """
    permessage-deflate (RFC 7692).
    """

    def extensions(self, offer: str) -> str:
        """
        What is agreed upon when a page makes an offer; empty for nothing.
        """
        self.page, self.transport = self.connect()
        answer = self.open(sec_websocket_extensions=offer)
        self.assertIn(" 101 ", answer)
        for line in answer.split("\r\n"):
            if line.lower().startswith("sec-websocket-extensions:"):
                return line.partition(":")[2].strip()
        return ""

    def test_agreed(self) -> None:
        """
        Compression is taken when it is offered, and no window is kept.
        """
        self.assertEqual(
            self.extensions(_DEFLATE), "permessage-deflate; client_no_context_takeover"
        )
        self.assertEqual(
            self.extensions("permessage-deflate; client_max_window_bits"),
            "permessage-deflate; client_no_context_takeover",
        )

    def test_demands(self) -> None:
        """
        What the page demands of the server is confirmed.
        """
        self.assertEqual(
            self.extensions(
                "permessage-deflate; server_no_context_takeover; "
                "server_max_window_bits=10"
            ),
            "permessage-deflate; server_no_context_takeover; "
            "server_max_window_bits=10; client_no_context_takeover",
        )

    def test_passed_over(self) -> None:
        """
        An offer that makes no sense, or cannot be met, is passed over.
        """
        for offer in (
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_no_context_takeover=1",
            "permessage-deflate; a; b",
            "permessage-deflate; server_max_window_bits=10; server_max_window_bits=10",
            "permessage-deflate; =",
            "permessage-bzip2",
            "x-webkit-deflate-frame",
            ",;,",
        ):
            self.assertEqual(self.extensions(offer), "", offer)

    def test_next_offer(self) -> None:
        """
        Then the next one counts.
        """
        self.assertIn(
            "server_max_window_bits=9",
            self.extensions(
                "foo, permessage-deflate; server_max_window_bits=8, "
                'permessage-deflate; server_max_window_bits="9", permessage-deflate'
            ),
        )

    def test_large_messages(self) -> None:
        """
        Messages above the threshold go out compressed, others do not.
        """
        self.extensions(_DEFLATE)
        self.page.send_push(1, 0, b"x" * 2000)
        self.page.send_push(2, 0, b"x")
        self.page.send_prepared(PreparedPush(3, b"y" * 2000, 1000))
        [large, small, broadcast] = self.frames()
        self.assertEqual((large.rsv, small.rsv, broadcast.rsv), (4, 0, 4))
        self.assertEqual(
            json.loads(inflated(large.payload))["body"], {"content": "x" * 2000}
        )
        self.assertEqual(
            json.loads(inflated(broadcast.payload))["body"], {"content": "y" * 2000}
        )
        self.assertLess(len(large.payload), 200)

    def test_received(self) -> None:
        """
        Compressed messages are read, one after the other, in fragments too.
        """
        self.extensions(_DEFLATE)
        for number in (1, 2):
            data = deflated(b'{"cmd":15,"sessionId":%d}' % number)
            self.page.dataReceived(client_frame(TEXT, data, rsv=4))
        data = deflated(b'{"cmd":15,"sessionId":3}')
        self.page.dataReceived(client_frame(TEXT, data[:4], rsv=4, fin=False))
        self.page.dataReceived(client_frame(CONTINUATION, data[4:]))
        self.page.dataReceived(self.push(4))
        self.assertEqual(self.numbers(), [1, 2, 3, 4])

    def test_bomb(self) -> None:
        """
        A message that inflates above the limit ends the connection.
        """
        self.extensions(_DEFLATE)
        data = deflated(b" " * 4_000_000, 9)
        self.assertLess(len(data), self.max_message)
        self.page.dataReceived(client_frame(TEXT, data, rsv=4))
        self.assertEqual(self.frames()[0].close_code, 1009)

    def test_bomb_in_fragments(self) -> None:
        """
        The limit counts all fragments of a message together.
        """
        self.extensions(_DEFLATE)
        data = deflated(b"{" + b" " * 2 * self.max_message, 9)
        half = len(data) // 2
        self.page.dataReceived(client_frame(TEXT, data[:half], rsv=4, fin=False))
        self.page.dataReceived(client_frame(CONTINUATION, data[half:]))
        self.assertEqual(self.frames()[0].close_code, 1009)

    def test_garbage(self) -> None:
        """
        What cannot be inflated ends the connection.
        """
        self.extensions(_DEFLATE)
        self.page.dataReceived(client_frame(TEXT, b"\xff\xff\xff", rsv=4))
        self.assertEqual(self.frames()[0].close_code, 1007)

    def test_not_agreed(self) -> None:
        """
        Without an agreement nothing may be compressed.
        """
        self.open()
        self.page.dataReceived(client_frame(TEXT, deflated(b"{}"), rsv=4))
        self.assertEqual(self.frames()[0].close_code, 1002)


class ClosingTests(OpenTestCase):
    """
    How connections end.
    """

    def test_by_the_page(self) -> None:
        """
        A close frame is answered by one with the same code, and the connection ends.
        """
        self.page.dataReceived(close(1001, b"leaving"))
        self.assertEqual(self.frames(), [Frame(CLOSE, b"\x03\xe9leaving")])
        self.assertTrue(self.transport.half_closed)
        self.page.connectionLost(_LOST)
        self.assertEqual(self.metrics.closed, {"peer": 1})

    def test_by_the_server(self) -> None:
        """
        A close frame goes out behind all that was written; then what the page still
        says is thrown away until it closes as well.
        """
        self.page.send_ack(1)
        self.page.close("test")
        self.page.close("again")
        self.assertEqual([one.opcode for one in self.frames()], [TEXT, CLOSE])
        self.assertTrue(self.transport.half_closed)
        self.assertTrue(self.transport.reading)
        self.page.dataReceived(self.push(1) + close(1000))
        self.assertEqual(self.handled, [])
        self.page.connectionLost(_LOST)
        self.assertEqual(self.metrics.closed, {"test": 1})

    def test_at_the_stop(self) -> None:
        """
        When the node stops the page is told that this is why.
        """
        self.page.close("stop")
        self.assertEqual(self.frames()[0].close_code, 1001)

    def test_not_waited_for_ever(self) -> None:
        """
        A page that does not close is cut off.
        """
        self.page.close("test")
        self.core.clock.advance(4)
        self.assertFalse(self.transport.aborted)
        self.core.clock.advance(2)
        self.assertTrue(self.transport.aborted)

    def test_slow_reader(self) -> None:
        """
        One that is still taking what was written gets more time, but not for ever.
        """
        self.page.close("test")
        self.transport.queued = 100_000
        for _ in range(11):
            self.core.clock.advance(5.1)
            self.assertFalse(self.transport.aborted)
            self.transport.queued -= 1000
        for _ in range(3):
            self.core.clock.advance(5.1)
        self.assertTrue(self.transport.aborted)

    def test_no_reader(self) -> None:
        """
        One that takes nothing gets no more.
        """
        self.page.close("test")
        self.transport.queued = 100_000
        for _ in range(3):
            self.core.clock.advance(5.1)
        self.assertTrue(self.transport.aborted)

    def test_abort(self) -> None:
        """
        Aborting says nothing.
        """
        self.page.abort("test")
        self.assertTrue(self.transport.aborted)
        self.assertEqual(self.frames(), [])
        self.page.connectionLost(_LOST)
        self.assertEqual(self.metrics.closed, {"test": 1})

    def test_lost(self) -> None:
        """
        The end is noted: registry, admission, log.
        """
        self.page.connectionLost(_LOST)
        self.assertEqual(len(self.connections), 0)
        self.assertEqual(self.admission.total, 0)
        self.assertEqual(self.closed, [self.page])
        self.assertIn("client disconnected", self.logged())
        self.assertEqual(len(self.core.wheel), 0)

    def test_overflow(self) -> None:
        """
        A page for which too much waits is cut off.
        """
        self.page.outbound_overflow()
        self.assertTrue(self.transport.aborted)
        self.page.connectionLost(_LOST)
        self.assertEqual(self.metrics.closed, {"max-outbound": 1})

    def test_broken_rule(self) -> None:
        """
        A page that breaks a rule of WebSocket is told which one; it is counted and
        logged.
        """
        self.page.dataReceived(client_frame(TEXT, b"{}", mask=None))
        [farewell] = self.frames()
        self.assertEqual(farewell.close_code, 1002)
        self.assertIn(b"unmasked", farewell.payload)
        self.assertEqual(self.metrics.decode_errors, {"framing": 1})
        self.page.connectionLost(_LOST)
        self.assertEqual(self.metrics.closed, {"framing": 1})

    def test_wrong_close_code(self) -> None:
        """
        A close frame with a code that may not be sent breaks a rule; the page can read
        that.
        """
        for code in (999, 1004, 1005, 1006, 1016, 2999, 5000):
            self.page, self.transport = self.connect()
            self.open()
            self.page.dataReceived(close(code))
            self.assertEqual(self.frames()[0].close_code, 1002, code)
            self.assertTrue(self.transport.half_closed)
            self.assertFalse(self.transport.aborted)


class DeadlineTests(WebSocketTestCase):
    """
    Who does not get on is sent away (DESIGN 5b).
    """

    def test_silent(self) -> None:
        """
        A connection that asks for nothing is closed.
        """
        self.core.clock.advance(10.1)
        self.assertTrue(self.transport.aborted)

    def test_trickle(self) -> None:
        """
        Single bytes win no time.
        """
        for byte in opening()[:12]:
            self.page.dataReceived(bytes([byte]))
            self.core.clock.advance(0.9)
        self.assertTrue(self.transport.aborted)

    def test_no_handshake(self) -> None:
        """
        Nor does a WebSocket, however much it pings, without a HANDSHAKE.
        """
        self.open()
        for _ in range(11):
            self.page.dataReceived(client_frame(PING))
            self.core.clock.advance(0.95)
        self.assertTrue(self.transport.aborted)

    def test_page_on_its_way(self) -> None:
        """
        A browser that is still taking the page gets time for it.
        """
        self.page.dataReceived(request("GET", "/"))
        self.transport.queued = 50_000
        for _ in range(2):
            self.core.clock.advance(10.1)
            self.assertTrue(self.page.connected)
            self.transport.queued -= 5000
        self.transport.queued = 0
        self.core.clock.advance(5.1)
        self.assertTrue(self.transport.half_closed)

    def test_idle_browser(self) -> None:
        """
        A browser that keeps its connection when it has the page is closed politely.
        """
        self.page.dataReceived(request("GET", "/"))
        self.core.clock.advance(10.1)
        self.assertTrue(self.transport.half_closed)
        self.assertFalse(self.transport.aborted)
        self.page.connectionLost(_LOST)
        self.assertEqual(self.metrics.closed, {"idle": 1})


class PingTests(OpenTestCase):
    """
    Finding pages that are no more (S-25).
    """

    def setUp(self) -> None:
        super().setUp()
        self.page.device_id = "web-1"
        self.page.heartbeat = 50.0
        self.connections.secured(self.page)

    def minute(self) -> list[int]:
        """
        Let the time until the next look go by, and give what was sent.
        """
        self.core.clock.advance(51)
        return [frame.opcode for frame in self.frames()]

    def test_alive(self) -> None:
        """
        A page that answers pings stays, for ever.
        """
        for _ in range(20):
            self.assertEqual(self.minute(), [PING])
            self.page.dataReceived(client_frame(PONG))
        self.assertFalse(self.transport.aborted)

    def test_dead(self) -> None:
        """
        One that answers three in a row with nothing is cut off, and not before.
        """
        for _ in range(3):
            self.assertEqual(self.minute(), [PING])
            self.assertFalse(self.transport.aborted)
        self.assertEqual(self.minute(), [])
        self.assertTrue(self.transport.aborted)
        self.assertEqual(self.core.metrics.heartbeat_timeouts, {"wait": 2, "close": 1})
        self.page.connectionLost(_LOST)
        self.assertEqual(self.metrics.closed, {"heartbeat": 1})

    def test_any_byte(self) -> None:
        """
        Anything that comes is a sign of life (clients 9.7).
        """
        frame = self.push(1)
        for number in range(8):
            self.minute()
            self.page.dataReceived(frame[number : number + 1])
        self.assertFalse(self.transport.aborted)

    def test_slow(self) -> None:
        """
        A page that takes its pushes slowly is not read from, but it is alive.
        """
        self.page.pauseProducing()
        self.page.send_push(1, 0, b"x" * 3000)
        self.transport.queued = 3000
        for _ in range(8):
            self.minute()
            self.transport.queued -= 300
        self.assertFalse(self.transport.aborted)

    def test_stuck(self) -> None:
        """
        One that takes nothing any more is not.
        """
        self.page.pauseProducing()
        self.page.send_push(1, 0, b"x" * 3000)
        self.transport.queued = 3000
        for _ in range(5):
            self.minute()
        self.assertTrue(self.transport.aborted)


class PressureTests(OpenTestCase):
    """
    Pages that do not read.
    """

    def test_not_read_from(self) -> None:
        """
        A page that does not read is not read from.
        """
        producer = self.transport.producer
        assert producer is not None
        producer.pauseProducing()
        self.assertFalse(self.transport.reading)
        producer.resumeProducing()
        self.assertTrue(self.transport.reading)
        producer.stopProducing()

    def test_last_words(self) -> None:
        """
        When it is being closed, what it says is read all the same, to be thrown away.
        """
        self.page.pauseProducing()
        self.page.close("test")
        self.assertTrue(self.transport.reading)
        self.assertIs(self.transport.producer, None)


frames = st.builds(
    client_frame,
    st.sampled_from([0, 1, 1, 1, 2, 3, 8, 9, 10, 11]),
    st.binary(max_size=200)
    | st.sampled_from(
        [b'{"cmd":15}', b'{"cmd":15,"body":{}}', b"\x03\xe8", deflated(b'{"cmd":15}')]
    ),
    fin=st.sampled_from([True, True, True, False]),
    rsv=st.sampled_from([0, 0, 0, 4, 1]),
    mask=st.sampled_from([b"", b"", b"", None]),
    length=st.none() | st.integers(0, 125),
)


class AnythingTests(WebSocketTestCase):
    """
    Whatever comes, it costs its connection at most.
    """

    def feed(self, pieces: list[bytes], offer: str | None) -> None:
        """
        Open a WebSocket and feed it; nothing may be raised, nor logged as a bug.
        """
        self.core.logged.clear()
        self.page, self.transport = self.connect()
        self.open(sec_websocket_extensions=offer)
        for piece in pieces:
            self.page.dataReceived(piece)
        self.page.connectionLost(_LOST)
        for event in self.core.logged:
            self.assertNotIn("log_failure", event)
        self.assertEqual(len(self.connections), 1)

    @given(st.lists(frames, max_size=12), st.sampled_from([None, _DEFLATE]))
    def test_frames(self, pieces: list[bytes], offer: str | None) -> None:
        """
        Frames in any order, right and wrong.
        """
        self.feed(pieces, offer)

    @given(st.lists(frames, min_size=1, max_size=12), st.integers(1, 9))
    def test_cut(self, pieces: list[bytes], size: int) -> None:
        """
        It makes no difference how they are cut.
        """
        whole = b"".join(pieces)
        self.feed([whole], _DEFLATE)
        at_once, handled = self.transport.take(), len(self.handled)
        self.handled.clear()
        cut_up = [whole[start : start + size] for start in range(0, len(whole), size)]
        self.feed(cut_up, _DEFLATE)
        self.assertEqual(self.transport.take(), at_once)
        self.assertEqual(len(self.handled), handled)
        self.handled.clear()

    @given(st.binary(max_size=500))
    def test_bytes(self, data: bytes) -> None:
        """
        Any bytes, before the opening and after it.
        """
        self.feed([data], None)
        page, _ = self.connect()
        page.dataReceived(data)
        page.connectionLost(_LOST)


class AcceptingTests(WebSocketTestCase):
    """
    Who is let in.
    """

    max_per_address = 2

    def test_noted(self) -> None:
        """
        A connection is counted, registered and logged, whatever it wants.
        """
        self.assertEqual(self.metrics.opened, 1)
        self.assertEqual(list(self.connections), [self.page])
        self.assertEqual(self.opened, [self.page])
        self.assertIn("client connected", self.logged())

    def test_too_many(self) -> None:
        """
        Above the limit of its address, a connection is told so in HTTP.
        """
        self.connect()
        refused, transport = self.accept(), WebTransport()
        refused.makeConnection(transport)
        answer = transport.take()
        self.assertTrue(answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n"))
        self.assertIn(b"\r\nretry-after: 30\r\n", answer)
        self.assertTrue(answer.endswith(b"\r\n\r\ntoo many connections"))
        self.assertTrue(transport.half_closed)
        refused.dataReceived(opening())
        self.assertEqual(transport.take(), b"")
        self.assertEqual(self.metrics.refused, {"max-per-address": 1})
        self.assertEqual(len(self.connections), 2)

    def test_not_for_ever(self) -> None:
        """
        It has some seconds to read that.
        """
        self.connect()
        refused, transport = self.accept(), WebTransport()
        refused.makeConnection(transport)
        self.core.clock.advance(5.1)
        self.assertTrue(transport.aborted)
        refused.connectionLost(_LOST)
        self.assertEqual(self.factory.refusals, 0)

    def test_very_many(self) -> None:
        """
        When many are being told, others are closed at once.
        """
        self.connect()
        refused = [self.accept() for _ in range(100)]
        self.assertEqual(refused.index(None), 64)
        for one in refused[:64]:
            one.makeConnection(WebTransport())
            one.connectionLost(_LOST)
        self.assertIsNot(self.accept(), None)

    def test_room_again(self) -> None:
        """
        Who leaves makes room, WebSocket or not.
        """
        self.open()
        other, _ = self.connect()
        other.connectionLost(_LOST)
        self.page.connectionLost(_LOST)
        self.assertEqual(self.admission.total, 0)

    def test_interfaces(self) -> None:
        """
        A connection is what the core and the transport take it for.
        """
        verifyObject(IPeerConnection, self.page)
        verifyObject(IPushProducer, self.page)

    def test_peer(self) -> None:
        """
        The other side is named as in every log.
        """
        self.assertEqual(self.page.peer, "192.0.2.1:40000")
        self.assertEqual(WebSocketConnection(self.door).peer, "?")
