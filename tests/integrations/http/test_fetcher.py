"""
Tests for L{mpush_tw.integrations.http.fetcher}, on real sockets: what is sent, what
comes back, and above all which connections are used again.
"""

from __future__ import annotations

import gzip
import os
import socket
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from mpush_tw.errors import ConfigError, FetchError, FetchProblem
from mpush_tw.integrations.http._connection import MAX_HEAD
from mpush_tw.integrations.http.fetcher import TreqFetcher
from mpush_tw.interfaces import HttpFetch, HttpFetched, HttpTarget, IHttpFetcher
from tests.integrations.http.backends import (
    Asked,
    Backend,
    BackendConnection,
    certificate_for,
    ok,
)


class FetcherTestCase(TestCase):
    """
    A fetcher, and a web server whose answer the test chooses.

    @ivar said: The answer to each request, as bytes.
    """

    timeout = 20
    max_idle = 5
    max_content_length = 100_000
    max_buffered = 150_000

    def setUp(self) -> None:
        self.said = ok(b"hello")
        self.backend = Backend(self.answer)
        self.backend.start(reactor)
        self.addCleanup(self.backend.stop)
        self.fetcher = TreqFetcher(
            reactor,
            max_idle_per_target=self.max_idle,
            connect_timeout=1.0,
            max_content_length=self.max_content_length,
            max_buffered=self.max_buffered,
        )
        self.addCleanup(self.fetcher.stop)

    def answer(self, connection: BackendConnection, asked: Asked) -> None:
        """
        Answer a request.
        """
        connection.send(self.said)

    def fetch(
        self,
        uri: str = "/",
        method: str = "GET",
        body: bytes = b"",
        headers: tuple[tuple[bytes, bytes], ...] = (),
        target: HttpTarget | None = None,
    ) -> Deferred[HttpFetched]:
        """
        Ask the backend.
        """
        return self.fetcher.fetch(
            HttpFetch(
                target or self.backend.target(),
                method,
                uri,
                ((b"host", b"backend.test"), *headers),
                body,
            )
        )

    async def problem(self, said: bytes | None = None) -> FetchProblem:
        """
        Ask, and tell why there is no answer.

        @param said: Sent by the backend, which closes then.
        """
        if said is not None:
            self.backend.answer = lambda connection, asked: (
                connection.send(said),
                connection.close(),
            )
        error = await self.assertFailure(self.fetch(), FetchError)
        assert isinstance(error, FetchError)
        return error.problem

    async def settle(self) -> None:
        """
        Let what was written arrive: the reactor looks at its sockets each time.
        """
        for _ in range(10):
            await deferLater(reactor, 0.002)  # type: ignore[arg-type]

    async def connections_for_two(self) -> int:
        """
        Ask twice, and count the connections it took.
        """
        await self.fetch()
        await self.settle()
        await self.fetch()
        return len(self.backend.connections)


class RequestTests(FetcherTestCase):
    """
    What the server is asked.
    """

    def test_interface(self) -> None:
        """
        It is a fetcher.
        """
        verifyObject(IHttpFetcher, self.fetcher)

    async def test_get(self) -> None:
        """
        A request goes out as it is, with nothing added but the wish to stay connected.
        """
        await self.fetch("/a?b=%7e", headers=((b"x-ONE", b"1"),))
        (asked,) = self.backend.asked
        self.assertEqual(asked.line, b"GET /a?b=%7e HTTP/1.1")
        self.assertEqual(
            asked.headers,
            [
                (b"host", b"backend.test"),
                (b"x-ONE", b"1"),
                (b"connection", b"keep-alive"),
            ],
        )

    async def test_split(self) -> None:
        """
        A header that would be two is not sent, whoever has let it come this far.
        """
        for name, value in ((b"X", b"a\r\nY: b"), (b"X\n", b"a"), (b"X", b"a\x00")):
            await self.assertFailure(self.fetch(headers=((name, value),)), ValueError)
        for options in ({"method": "GET /x"}, {"uri": "/ HTTP/1.1\r\nX: y"}):
            await self.assertFailure(self.fetch(**options), ValueError)  # type: ignore[arg-type]
        self.assertEqual(self.backend.asked, [])

    async def test_absolute(self) -> None:
        """
        The target may be a whole URL (server 15.2).
        """
        await self.fetch("http://backend.test/a")
        self.assertEqual(
            self.backend.asked[0].line, b"GET http://backend.test/a HTTP/1.1"
        )

    async def test_body(self) -> None:
        """
        A body is sent with its length, whatever the method.
        """
        for method in ("POST", "PUT", "DELETE", "GET"):
            await self.fetch(method=method, body=b"body")
            asked = self.backend.asked[-1]
            self.assertTrue(asked.line.startswith(method.encode()))
            self.assertEqual(asked.body, b"body")
            self.assertEqual(asked.header(b"content-length"), b"4")

    async def test_repeated_headers(self) -> None:
        """
        A header that is given twice is sent twice.
        """
        await self.fetch(headers=((b"X-A", b"1"), (b"X-A", b"2")))
        values = [v for n, v in self.backend.asked[0].headers if n.lower() == b"x-a"]
        self.assertEqual(values, [b"1", b"2"])

    async def test_no_cookies(self) -> None:
        """
        What a server gives one device to keep is not shown for the next.
        """
        self.said = ok(b"", b"Set-Cookie: session=alice; Path=/")
        await self.fetch()
        await self.fetch()
        self.assertIsNone(self.backend.asked[1].header(b"cookie"))


class ResponseTests(FetcherTestCase):
    """
    What comes back.
    """

    async def test_plain(self) -> None:
        """
        Status, reason, headers and body; header names in the case they came in, without
        those that concerned the connection.
        """
        self.said = ok(
            b"hello",
            b"x-LOWER: a",
            b"ETag:  w ",
            b"Connection: keep-alive",
            b"Keep-Alive: timeout=5",
            b"Set-Cookie: a=1",
            b"Set-Cookie: b=2",
            status=b"404 Not Here",
        )
        self.assertEqual(
            await self.fetch(),
            HttpFetched(
                404,
                b"Not Here",
                (
                    (b"x-LOWER", b"a"),
                    (b"ETag", b"w"),
                    (b"Set-Cookie", b"a=1"),
                    (b"Set-Cookie", b"b=2"),
                ),
                b"hello",
            ),
        )

    async def test_chunked(self) -> None:
        """
        Chunks are joined.
        """
        self.said = (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n"
            b"5\r\nhello\r\n1;ext=1\r\n \r\n5\r\nworld\r\n0\r\nTrailer: x\r\n\r\n"
        )
        fetched = await self.fetch()
        self.assertEqual(fetched.body, b"hello world")
        self.assertEqual(fetched.headers, ((b"X-A", b"b"),))

    async def test_until_the_end(self) -> None:
        """
        A body without a length ends with the connection.
        """
        said = b"HTTP/1.1 200 OK\r\n\r\nhello"
        self.backend.answer = lambda connection, asked: (
            connection.send(said),
            connection.close(),
        )
        self.assertEqual((await self.fetch()).body, b"hello")

    async def test_gzip(self) -> None:
        """
        What is packed stays packed.
        """
        packed = gzip.compress(b"hello" * 100)
        self.said = ok(packed, b"Content-Encoding: gzip")
        fetched = await self.fetch(headers=((b"Accept-Encoding", b"gzip"),))
        self.assertEqual(fetched.body, packed)
        self.assertEqual(fetched.headers, ((b"Content-Encoding", b"gzip"),))

    async def test_empty(self) -> None:
        """
        Answers without a body: of length 0, and those that never have one.
        """
        for said in (
            ok(b""),
            b"HTTP/1.1 204 No Content\r\n\r\n",
            b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 99\r\n\r\n",
        ):
            self.said = said
            self.assertEqual((await self.fetch()).body, b"")
        self.assertEqual(len(self.backend.connections), 1)

    async def test_head(self) -> None:
        """
        The answer to HEAD has the length of what GET would bring, and no body.
        """
        self.said = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"
        self.assertEqual((await self.fetch(method="HEAD")).body, b"")
        self.said = ok(b"next")
        self.assertEqual((await self.fetch()).body, b"next")
        self.assertEqual(len(self.backend.connections), 1)

    async def test_interim(self) -> None:
        """
        Interim responses are not the answer, nor are their headers.
        """
        self.said = (
            b"HTTP/1.1 100 Continue\r\nX-Interim: 1\r\n\r\n"
            b"HTTP/1.1 103 Early Hints\r\nX-Interim: 2\r\n\r\n"
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        )
        fetched = await self.fetch(method="POST", body=b"x")
        self.assertEqual(fetched, HttpFetched(200, b"OK", (), b"ok"))

    async def test_byte_by_byte(self) -> None:
        """
        It does not matter how an answer is cut in pieces.
        """
        said = ok(b"hello", b"X-A: b")

        def trickle(connection: BackendConnection, asked: Asked, at: int = 0) -> None:
            connection.send(said[at : at + 1])
            if at + 1 < len(said):
                reactor.callLater(0, trickle, connection, asked, at + 1)  # type: ignore[attr-defined]

        self.backend.answer = trickle
        fetched = await self.fetch()
        self.assertEqual((fetched.headers, fetched.body), (((b"X-A", b"b"),), b"hello"))

    async def test_largest(self) -> None:
        """
        A body of just the size that is allowed arrives.
        """
        body = os.urandom(self.max_content_length)
        self.said = ok(body)
        self.assertEqual((await self.fetch()).body, body)


class ProblemTests(FetcherTestCase):
    """
    What is no answer.
    """

    async def test_refused(self) -> None:
        """
        Nobody listens.
        """
        target = self.backend.target()
        await self.backend.stop()
        error = await self.assertFailure(self.fetch(target=target), FetchError)
        assert isinstance(error, FetchError)
        self.assertEqual(error.problem, FetchProblem.NOT_CONNECTED)
        self.assertIn(f"127.0.0.1:{target.port}", str(error))

    async def test_closed(self) -> None:
        """
        The server closes without an answer: known at once (S-37).
        """
        self.assertEqual(await self.problem(b""), FetchProblem.BROKEN)

    async def test_cut_off(self) -> None:
        """
        It closes in the middle of the headers, of a body with a length, of a chunk.
        """
        for said in (
            b"HTTP/1.1 200 OK\r\nContent-",
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhello",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        ):
            self.assertEqual(await self.problem(said), FetchProblem.BROKEN, said)

    async def test_not_http(self) -> None:
        """
        What comes is not HTTP, or says of itself what cannot be.
        """
        for said in (
            b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
            b"hello world, this is no HTTP\r\n\r\n",
            b"HTTP/1.1 abc OK\r\n\r\n",
            b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 -200 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 99999 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\n: empty\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n folded: first\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello",
        ):
            self.assertEqual(await self.problem(said), FetchProblem.UNREADABLE, said)

    async def test_bad_chunks(self) -> None:
        """
        Chunks that are none.
        """
        for chunk in (b"x\r\nhello\r\n", b"-5\r\nhello\r\n", b"5\r\nhello--"):
            head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            self.assertEqual(
                await self.problem(head + chunk), FetchProblem.MALFORMED, chunk
            )

    async def test_too_large(self) -> None:
        """
        A body that is announced as too large is not read.
        """
        self.said = b"HTTP/1.1 200 OK\r\nContent-Length: 100001\r\n\r\n"
        self.assertEqual(await self.problem(), FetchProblem.TOO_LARGE)

    async def test_grows_too_large(self) -> None:
        """
        One that turns out to be is read no further.
        """
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.said = head + b"2710\r\n" + bytes(10000) + b"\r\n"
        self.said += (b"2710\r\n" + bytes(10000) + b"\r\n") * 10
        self.assertEqual(await self.problem(), FetchProblem.TOO_LARGE)
        self.assertEqual(self.fetcher.buffered, 0)

    async def test_endless_headers(self) -> None:
        """
        Headers without end are read no further than any headers have reason to go.
        """
        sent = 0

        def more(connection: BackendConnection) -> None:
            nonlocal sent
            if not connection.lost:
                connection.send(b"X-A: b\r\n" * 1000)
                sent += 8000
                reactor.callLater(0, more, connection)  # type: ignore[attr-defined]

        def answer(connection: BackendConnection, asked: Asked) -> None:
            connection.send(b"HTTP/1.1 200 OK\r\n")
            more(connection)

        self.backend.answer = answer
        self.assertEqual(await self.problem(), FetchProblem.UNREADABLE)
        self.assertLess(sent, MAX_HEAD + (4 << 20))

    async def test_endless_interim(self) -> None:
        """
        Nor are interim responses.
        """
        self.said = b"HTTP/1.1 100 Continue\r\n\r\n" * (MAX_HEAD // 10)
        self.assertEqual(await self.problem(), FetchProblem.UNREADABLE)

    async def test_too_much_in_all(self) -> None:
        """
        Many bodies that are allowed each are too much together; when one has failed the
        others go on.
        """
        held: list[BackendConnection] = []
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"

        def answer(connection: BackendConnection, asked: Asked) -> None:
            connection.send(head + bytes(90_000))
            held.append(connection)

        self.backend.answer = answer
        first = self.fetch()
        while self.fetcher.buffered < 90_000:
            await self.settle()
        self.assertEqual(await self.problem(), FetchProblem.OVERLOADED)
        held[0].send(bytes(10_000))
        self.assertEqual(len((await first).body), 100_000)
        self.assertEqual(self.fetcher.buffered, 0)

    async def test_cancelled(self) -> None:
        """
        A request that nobody waits for any more ends with its connection, whether the
        headers have arrived or not.
        """
        for said in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"):
            self.said = said
            waiting = self.fetch()
            await self.settle()
            waiting.cancel()
            await self.assertFailure(waiting, CancelledError)
            await self.settle()
            self.assertEqual(self.backend.open, 0)
            self.assertEqual(self.fetcher.pool.open, 0)

    async def test_cancelled_while_connecting(self) -> None:
        """
        Nor is a connection made for it, to whichever address.
        """
        target = HttpTarget(
            "http", "far.test", self.backend.port, ("192.0.2.1", "127.0.0.1")
        )
        waiting = self.fetch(target=target)
        waiting.cancel()
        await self.assertFailure(waiting, CancelledError, FetchError)
        await self.settle()
        self.assertEqual(self.backend.connections, [])

    async def test_next_address(self) -> None:
        """
        If the first address cannot be reached the next one is asked.
        """
        target = HttpTarget(
            "http", "two.test", self.backend.port, ("127.0.0.9", "127.0.0.1")
        )
        self.assertEqual((await self.fetch(target=target)).body, b"hello")


class ReuseTests(FetcherTestCase):
    """
    Which connections are used again: those of which nothing but the next answer can
    come (S-32, S-37).
    """

    async def test_used_again(self) -> None:
        """
        A connection serves one request after the other.
        """
        self.assertEqual(await self.connections_for_two(), 1)
        self.assertEqual(
            self.fetcher.idle_connections(), {f"backend.test:{self.backend.port}": 1}
        )

    async def test_at_the_same_time(self) -> None:
        """
        Requests at the same time have connections of their own.
        """
        both = [self.fetch("/1"), self.fetch("/2")]
        for one in both:
            await one
        self.assertEqual({asked.connection for asked in self.backend.asked}, {1, 2})

    async def test_other_target(self) -> None:
        """
        A connection is for one scheme, host, port and address (S-32).
        """
        await self.fetch()
        await self.fetch(target=self.backend.target("other.test"))
        self.assertEqual(len(self.backend.connections), 2)

    async def test_close(self) -> None:
        """
        A server that says close, in whatever way, is not asked again on it.
        """
        for header in (
            b"Connection: close",
            b"Connection: Close",
            b"connection: keep-alive, CLOSE",
            b"Connection: x\r\nConnection: close",
        ):
            before = len(self.backend.connections)
            self.said = ok(b"hello", header)
            self.assertEqual(await self.connections_for_two() - before, 2, header)
            self.assertEqual(self.fetcher.idle_connections(), {})

    async def test_old_version(self) -> None:
        """
        Nor is one that speaks an older HTTP.
        """
        self.said = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"
        self.assertEqual(await self.connections_for_two(), 2)

    async def test_two_answers(self) -> None:
        """
        Two answers to one request: the second never reaches the next request.
        """
        self.said = ok(b"mine") + ok(b"yours")
        self.assertEqual((await self.fetch()).body, b"mine")
        self.said = ok(b"mine too")
        self.assertEqual((await self.fetch()).body, b"mine too")
        self.assertEqual(len(self.backend.connections), 2)

    async def test_late_answer(self) -> None:
        """
        Nor does one that comes later.
        """
        self.assertEqual((await self.fetch()).body, b"hello")
        self.backend.connections[0].send(ok(b"late"))
        await self.settle()
        self.assertEqual((await self.fetch()).body, b"hello")
        self.assertEqual(len(self.backend.connections), 2)

    async def test_late_answer_unread(self) -> None:
        """
        Not even if it has only just arrived and nobody has read it yet.
        """
        await self.fetch()
        transport: Any = self.backend.connections[0].transport
        transport.socket.send(ok(b"late"))
        self.assertEqual((await self.fetch()).body, b"hello")
        self.assertEqual(len(self.backend.connections), 2)

    async def test_garbage_behind(self) -> None:
        """
        Nor what is behind the length, or the last chunk, and no answer at all.
        """
        chunked = (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        )
        for said in (ok(b"hello") + b"x", chunked + b"\r\n", ok(b"") + b"HTTP/1.1"):
            before = len(self.backend.connections)
            self.said = said
            self.assertEqual(await self.connections_for_two() - before, 2, said)

    async def test_two_lengths(self) -> None:
        """
        A response with a length and chunks may have been read in two ways.
        """
        self.said = (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Length: 4\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        )
        self.assertEqual((await self.fetch()).body, b"ok")
        await self.fetch()
        self.assertEqual(len(self.backend.connections), 2)

    async def test_body_not_wanted(self) -> None:
        """
        A server that answers before it has read the body, as redirects do, may take the
        body for the next request, and answer that (S-37).
        """
        self.backend.waits_for_bodies = False
        self.said = ok(b"", b"Location: /x", status=b"307 Temporary Redirect")
        await self.fetch(method="POST", body=b"GET /evil HTTP/1.1\r\n\r\n")
        self.said = ok(b"mine")
        self.assertEqual((await self.fetch()).body, b"mine")
        self.assertEqual(len(self.backend.connections), 2)

    async def test_body_read(self) -> None:
        """
        One that has done what it was asked for has read it.
        """
        await self.fetch(method="POST", body=b"x")
        await self.fetch(method="POST", body=b"x")
        self.assertEqual(len(self.backend.connections), 1)

    async def test_not_read_to_the_end(self) -> None:
        """
        A response that was too large leaves no connection behind.
        """
        self.said = b"HTTP/1.1 200 OK\r\nContent-Length: 100001\r\n\r\n" + bytes(100)
        await self.problem()
        self.said = ok(b"next")
        self.assertEqual((await self.fetch()).body, b"next")
        await self.settle()
        self.assertEqual(self.backend.open, 1)

    async def test_closed_meanwhile(self) -> None:
        """
        One that the server has closed is not tried.
        """
        await self.fetch()
        self.backend.connections[0].close()
        await self.settle()
        self.assertEqual(self.fetcher.idle_connections(), {})
        await self.fetch(method="POST", body=b"x")
        self.assertEqual(len(self.backend.connections), 2)

    async def test_closed_just_now(self) -> None:
        """
        Nor one of which the kernel has only just learnt that it is closed, so that a
        request that must not be made twice need not fail.
        """
        await self.fetch()
        transport: Any = self.backend.connections[0].transport
        transport.socket.shutdown(socket.SHUT_WR)
        fetched = await self.fetch(method="POST", body=b"x")
        self.assertEqual(fetched.body, b"hello")
        self.assertEqual(len(self.backend.connections), 2)

    async def test_closed_at_that_moment(self) -> None:
        """
        If it closes when the next request arrives, that is made again on a new
        connection, once; but not if it may have done something.
        """
        await self.fetch()

        def close_the_old(connection: BackendConnection, asked: Asked) -> None:
            if connection.number == 1:
                connection.close()
            else:
                connection.send(ok(b"again"))

        self.backend.answer = close_the_old
        self.assertEqual((await self.fetch("/get")).body, b"again")
        self.assertEqual(
            [asked.line.split()[1] for asked in self.backend.asked],
            [b"/", b"/get", b"/get"],
        )

    async def test_not_made_again(self) -> None:
        """
        A request that changes something is never made twice.
        """
        await self.fetch()
        self.backend.answer = lambda connection, asked: connection.close()
        for body in (b"x", b""):
            error = await self.assertFailure(
                self.fetch(method="POST", body=body), FetchError
            )
            assert isinstance(error, FetchError)
            self.assertEqual(error.problem, FetchProblem.BROKEN)
        self.assertEqual(len(self.backend.asked), 3)

    async def test_new_connection_is_closed(self) -> None:
        """
        Nor is any on a connection that was new.
        """
        self.assertEqual(await self.problem(b""), FetchProblem.BROKEN)
        self.assertEqual(len(self.backend.asked), 1)

    async def test_bounded(self) -> None:
        """
        Of many connections only so many are kept (C{mp.http.max-conn-per-host}).
        """
        waiting = [self.fetch() for _ in range(12)]
        for one in waiting:
            await one
        await self.settle()
        self.assertEqual(self.backend.open, self.max_idle)
        self.assertEqual(sum(self.fetcher.idle_connections().values()), self.max_idle)

    async def test_stop(self) -> None:
        """
        A fetcher that was stopped has no connections, and what is under way fails.
        """
        await self.fetch()
        self.said = b""
        waiting = self.fetch()
        await self.settle()
        await self.fetcher.stop()
        await self.fetcher.stop()
        await self.assertFailure(waiting, FetchError)
        self.assertEqual(self.fetcher.pool.open, 0)


class NothingKeptTests(FetcherTestCase):
    """
    C{mp.http.max-conn-per-host=0}.
    """

    max_idle = 0

    async def test_closed(self) -> None:
        """
        No connection is kept.
        """
        self.assertEqual(await self.connections_for_two(), 2)
        await self.settle()
        self.assertEqual(self.backend.open, 0)


class TlsTests(TestCase):
    """
    https: encrypted, and certain who is at the other end (S-36).
    """

    timeout = 20

    def serve(self, *names: str) -> None:
        """
        Start a server whose certificate is for these names, and a fetcher that trusts
        it.
        """
        pem, certificate = certificate_for(*names)
        path = Path(self.mktemp())
        path.write_bytes(pem)
        self.backend = Backend(lambda connection, asked: connection.send(ok(b"hello")))
        self.backend.start(reactor, certificate.options())
        self.addCleanup(self.backend.stop)
        self.fetcher = TreqFetcher(reactor, ca_file=str(path))
        self.addCleanup(self.fetcher.stop)

    def fetch(self, host: str, fetcher: TreqFetcher | None = None) -> Any:
        """
        Ask the server under a name.
        """
        target = self.backend.target(host, "https")
        request = HttpFetch(target, "GET", "/", ((b"host", host.encode()),))
        return (fetcher or self.fetcher).fetch(request)

    async def test_name(self) -> None:
        """
        A server with a certificate for the name is asked, and again on the same
        connection.
        """
        self.serve("api.example.com")
        for _ in range(2):
            self.assertEqual((await self.fetch("api.example.com")).body, b"hello")
        self.assertEqual(len(self.backend.connections), 1)

    async def test_address(self) -> None:
        """
        A certificate may be for an address.
        """
        self.serve("127.0.0.1")
        self.assertEqual((await self.fetch("127.0.0.1")).body, b"hello")

    async def test_other_name(self) -> None:
        """
        One with a certificate for another name is told nothing.
        """
        self.serve("other.example.com")
        error = await self.assertFailure(self.fetch("api.example.com"), FetchError)
        self.assertEqual(error.problem, FetchProblem.NOT_CONNECTED)
        self.assertEqual(self.backend.asked, [])

    async def test_unknown_authority(self) -> None:
        """
        Nor is one that nobody vouches for.
        """
        self.serve("api.example.com")
        system = TreqFetcher(reactor)
        self.addCleanup(system.stop)
        error = await self.assertFailure(
            self.fetch("api.example.com", system), FetchError
        )
        self.assertEqual(error.problem, FetchProblem.NOT_CONNECTED)
        self.assertIn("TLS", str(error))
        self.assertEqual(self.backend.asked, [])

    async def test_not_tls(self) -> None:
        """
        A server that speaks no TLS is not reached.
        """
        backend = Backend(lambda connection, asked: None)
        backend.greeting = lambda connection: connection.send(b"220 hello\r\n")
        backend.start(reactor)
        self.addCleanup(backend.stop)
        self.serve("api.example.com")
        target = backend.target("api.example.com", "https")
        error = await self.assertFailure(
            self.fetcher.fetch(HttpFetch(target, "GET", "/", ((b"host", b"a"),))),
            FetchError,
        )
        self.assertEqual(error.problem, FetchProblem.NOT_CONNECTED)

    async def test_cancelled(self) -> None:
        """
        A request that nobody waits for ends with its connection, here as well.
        """
        self.serve("api.example.com")
        self.backend.answer = lambda connection, asked: None
        waiting = self.fetch("api.example.com")
        while not self.backend.asked:
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]
        waiting.cancel()
        await self.assertFailure(waiting, CancelledError)
        while self.backend.open:
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]

    async def test_closed_just_now(self) -> None:
        """
        Nor is one used that was closed just now.
        """
        self.serve("api.example.com")
        await self.fetch("api.example.com")
        transport: Any = self.backend.connections[0].transport
        transport.transport.socket.shutdown(socket.SHUT_WR)
        self.assertEqual((await self.fetch("api.example.com")).body, b"hello")
        self.assertEqual(len(self.backend.connections), 2)


class SettingTests(SynchronousTestCase):
    """
    Authorities of one's own.
    """

    def test_missing(self) -> None:
        """
        A file that cannot be read stops the start, with the key's name.
        """
        error = self.assertRaises(
            ConfigError, TreqFetcher, MemoryReactorClock(), ca_file="/no/such/file"
        )
        self.assertEqual(error.key, "mp.http.ca-file")

    def test_empty(self) -> None:
        """
        So does one without a certificate, or with a broken one.
        """
        for text in (
            "",
            "hello",
            "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n",
        ):
            path = Path(self.mktemp())
            path.write_text(text)
            self.assertRaises(
                ConfigError, TreqFetcher, MemoryReactorClock(), ca_file=str(path)
            )
