"""
Tests for L{mpush_tw.integrations.http._connection}: whatever a server sends, a request
ends once, and a connection is at rest only after a whole answer.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import treq
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web._newclient import Request
from twisted.web.http_headers import Headers

from mpush_tw.integrations.http._connection import BackendProtocol

_DONE = Failure(ConnectionDone())

_LINES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 204 No Content",
        b"HTTP/1.1 100 Continue",
        b"HTTP/1.0 200 OK",
        b"HTTP/1.1 200",
        b"HTTP/1.1 -1 x",
        b"Content-Length: 5",
        b"Content-Length: 0",
        b"Content-Length: x",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: gzip",
        b"Connection: close",
        b"X: y",
        b" folded",
        b"no colon",
        b": nothing",
        b"",
        b"5",
        b"0",
        b"hello",
    ]
)
_SAID = st.lists(_LINES | st.binary(max_size=40), max_size=20).map(b"\r\n".join)


class FakeTransport(StringTransport):
    """
    Tells its protocol of the end when it is closed.
    """

    protocol: Any = None

    def loseConnection(self) -> None:
        if self.connected:
            self.connected = False
            super().loseConnection()
            self.protocol.connectionLost(_DONE)

    def abortConnection(self) -> None:
        self.loseConnection()


class AnythingTests(SynchronousTestCase):
    """
    Servers that say anything.
    """

    def setUp(self) -> None:
        self.begin()

    def begin(self) -> None:
        """
        Make a connection, and a request on it.
        """
        self.rests: list[bool] = []
        self.ended: list[bool] = []
        self.bodies: list[bytes] = []
        self.failures: list[Failure] = []
        self.connection = BackendProtocol(
            lambda connection: self.rests.append(not self.bodies),
            lambda connection: self.ended.append(True),
        )
        transport = FakeTransport()
        transport.protocol = self.connection
        self.transport = transport
        self.connection.makeConnection(transport)
        self.ask()

    def ask(self) -> None:
        """
        Make a request.
        """

        def collect(reply: Any) -> Any:
            parts: list[bytes] = []
            done = treq.collect(reply, parts.append)
            return done.addCallback(lambda _: self.bodies.append(b"".join(parts)))

        answer: Any = self.connection.request(
            Request(b"GET", b"/", Headers({b"host": [b"a"]}), None, persistent=True)
        )
        answer.addCallback(collect).addErrback(self.failures.append)

    def say(self, said: bytes, cuts: list[int]) -> None:
        """
        Have the server say something, in pieces.
        """
        edges = [0, *sorted(cut % (len(said) + 1) for cut in cuts), len(said)]
        for start, end in pairwise(edges):
            if self.transport.connected and start < end:
                self.connection.dataReceived(said[start:end])

    @given(_SAID, st.lists(st.integers(0, 1000), max_size=5))
    @settings(deadline=None)
    def test_anything(self, said: bytes, cuts: list[int]) -> None:
        """
        The request ends exactly once, at the latest with the connection; nothing but
        that is logged, and a connection that rests has given an answer.
        """
        self.begin()
        self.say(said, cuts)
        at_rest = bool(self.rests)
        if self.transport.connected:
            self.transport.loseConnection()
        self.assertEqual(len(self.bodies) + len(self.failures), 1)
        self.assertEqual(self.ended, [True])
        if at_rest:
            self.assertEqual(len(self.rests), 1)
            self.assertEqual(len(self.bodies), 1)
        self.assertEqual(self.flushLoggedErrors(), [])

    @given(_SAID, st.lists(st.integers(0, 1000), max_size=5))
    @settings(deadline=None)
    def test_behind_an_answer(self, said: bytes, cuts: list[int]) -> None:
        """
        Whatever stands behind an answer, however it is cut, is no answer to the next
        request.
        """
        self.begin()
        self.say(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine" + said, cuts)
        self.assertEqual(self.bodies, [b"mine"])
        if said:
            self.assertFalse(self.transport.connected)

    def test_next(self) -> None:
        """
        A connection at rest takes the next request.
        """
        for number in (b"1", b"2"):
            self.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + number, [])
            self.assertEqual(self.bodies[-1], number)
            self.assertTrue(self.transport.connected)
            if number == b"1":
                self.ask()
        self.assertEqual(self.connection.used, 2)
