"""
Tests for L{mpush_tw.transports.http_site}.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from mpush_tw.transports.http_site import (
    DRAINED_BYTES,
    LINGER_SECONDS,
    BoundedRequest,
    BoundedSite,
)
from tests.transports.http import HttpConnection

CONNECTIONS = 3
REQUEST = 10
IDLE = 5
BODY = 100

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Echo(Resource):
    """
    Answers with the body.
    """

    isLeaf = True

    def render(self, request: BoundedRequest) -> bytes:
        assert request.content is not None
        body = request.content.read()
        if request.too_large:
            request.setResponseCode(413)
            return b"too large"
        return body or b"nothing"


class SiteTestCase(SynchronousTestCase):
    """
    A site for three connections.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.site = BoundedSite(
            Echo(),  # type: ignore[no-untyped-call]
            self.clock,
            max_connections=CONNECTIONS,
            request_seconds=REQUEST,
            idle_seconds=IDLE,
            max_body=BODY,
        )
        self.site.doStart()
        self.addCleanup(lambda: self.site.numPorts and self.site.doStop())
        self.idle_calls = len(self.clock.getDelayedCalls())

    def connect(self) -> HttpConnection:
        """
        Open a connection.
        """
        return HttpConnection(self.site)


class TimeTests(SiteTestCase):
    """
    How long a connection may take.
    """

    def test_silent(self) -> None:
        """
        Who asks for nothing is closed.
        """
        connection = self.connect()
        self.clock.advance(REQUEST - 1)
        self.assertTrue(connection.open)
        self.clock.advance(1)
        self.assertFalse(connection.open)

    def test_slow(self) -> None:
        """
        Who sends a little every second has no more time than others.
        """
        connection = self.connect()
        connection.send(b"GET / HTTP/1.1\r\n")
        for _ in range(REQUEST):
            self.assertTrue(connection.open)
            connection.send(b"X-Slow: yes\r\n")
            self.clock.advance(1)
        self.assertFalse(connection.open)

    def test_next_request(self) -> None:
        """
        Who asks again soon keeps the connection.
        """
        connection = self.connect()
        for _ in range(4):
            self.assertEqual(connection.ask("/").body, b"nothing")
            self.clock.advance(IDLE - 1)
        self.assertTrue(connection.open)
        self.clock.advance(1)
        self.assertFalse(connection.open)

    def test_answer_not_taken(self) -> None:
        """
        Who does not take the answer is cut off.
        """
        connection = self.connect()
        aborted: list[bool] = []
        self.patch(connection.transport, "loseConnection", lambda: None)
        self.patch(
            connection.transport, "abortConnection", lambda: aborted.append(True)
        )
        connection.send(GET)
        self.clock.advance(IDLE)
        self.assertEqual(aborted, [])
        self.clock.advance(LINGER_SECONDS)
        self.assertEqual(aborted, [True])

    def test_nothing_is_left(self) -> None:
        """
        Connections that have ended leave nothing behind, however they ended.
        """
        for sent in (b"", GET, GET.replace(b"1.1", b"1.0"), b"?\r\n"):
            connection = self.connect()
            connection.send(sent)
            if connection.open:
                connection.transport.loseConnection()
            self.assertEqual(len(self.clock.getDelayedCalls()), self.idle_calls, sent)
            self.assertEqual(self.site.connections, 0)


class CrowdTests(SiteTestCase):
    """
    More connections than there is room for.
    """

    def test_oldest_makes_room(self) -> None:
        """
        The connection that was quiet for the longest time is closed for a new one.
        """
        first, second, third = (self.connect() for _ in range(CONNECTIONS))
        first.send(GET)
        self.connect()
        states = [one.open for one in (first, second, third)]
        self.assertEqual(states, [True, False, True])
        self.assertEqual(self.site.connections, CONNECTIONS)
        self.assertEqual(self.site.dropped, 1)

    def test_everybody_is_served(self) -> None:
        """
        Clients are served while others hold on to their connections.
        """
        for _ in range(CONNECTIONS):
            self.connect().send(b"GET / HTTP/1.1\r\n")
        for _ in range(20):
            self.assertEqual(self.connect().ask("/").code, 200)
        self.assertEqual(self.site.connections, CONNECTIONS)

    def test_room_again(self) -> None:
        """
        Who leaves makes room, too.
        """
        connections = [self.connect() for _ in range(CONNECTIONS)]
        connections[0].transport.loseConnection()
        self.connect()
        self.assertTrue(all(one.open for one in connections[1:]))
        self.assertEqual(self.site.dropped, 0)


class BodyTests(SiteTestCase):
    """
    What is sent along.
    """

    def test_within_the_limit(self) -> None:
        """
        A body of the allowed size is read whole.
        """
        body = b"x" * BODY
        self.assertEqual(self.connect().ask("/", "POST", body).body, body)

    def test_too_large(self) -> None:
        """
        A larger one is not kept, and its sender gets an answer.
        """
        connection = self.connect()
        self.assertEqual(connection.ask("/", "POST", b"x" * (BODY + 1)).code, 413)
        self.assertEqual(connection.ask("/", "POST", b"y").body, b"y")

    def test_in_pieces(self) -> None:
        """
        A body of which nobody said how long it is has the same limit.
        """
        connection = self.connect()
        connection.send(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(BODY + 1):
            connection.send(b"1\r\nx\r\n")
        connection.send(b"0\r\n\r\n")
        self.assertEqual(connection.answer().code, 413)

    def test_without_end(self) -> None:
        """
        Who goes on and on is cut off.
        """
        connection = self.connect()
        connection.send(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n"
        )
        piece = b"x" * 65536
        for _ in range(DRAINED_BYTES // len(piece) + 2):
            connection.send(piece)
        self.assertFalse(connection.open)

    def test_form(self) -> None:
        """
        A body that says it is a form, and is none, ends one connection at most.
        """
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        self.connect().ask("/", "POST", b"no form", kind)
        self.assertEqual(self.connect().ask("/").code, 200)


class StopTests(SiteTestCase):
    """
    The port is closed.
    """

    def test_connections_end(self) -> None:
        """
        Open connections end with it.
        """
        connection = self.connect()
        connection.send(GET)
        self.site.doStop()
        self.assertFalse(connection.open)
        self.assertIn(b"nothing", connection.transport.value())

    def test_only_the_version_it_bounds(self) -> None:
        """
        Under TLS no other protocol is agreed on.
        """
        self.assertEqual(self.site.acceptableProtocols(), [b"http/1.1"])
