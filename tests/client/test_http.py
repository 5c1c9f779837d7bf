"""
HTTP through the connection (clients 2.14, 10.2).
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.client import (
    BadPacket,
    BadRequest,
    Disconnected,
    HttpAnswer,
    Refused,
    TimedOut,
    TooManyPending,
)
from mpush_tw.client.http import GRACE_SECONDS
from mpush_tw.protocol.commands import Command
from mpush_tw.protocol.messages import HttpRequest, HttpResponse
from tests.client.support import ClientTestCase, FakePeer, Received

HTTP = Command.HTTP_PROXY
URL = "http://api.test/x"


class SendTests(ClientTestCase):
    """
    Requests and their answers.
    """

    def setUp(self) -> None:
        super().setUp()
        self.said = HttpResponse(200, "OK", {"Server": "s"}, b"hello")
        self.server.answers[HTTP] = self.say

    def say(self, peer: FakePeer, got: Received) -> None:
        """
        Answer as a web server has.
        """
        peer.send(HTTP, got.session_id, self.said.encode(), cipher=peer.cipher)

    def send(self, *args: Any, **options: Any) -> HttpRequest:
        """
        Make a request that succeeds, and give what the server got.
        """
        client = self.start_client()
        answer = client.send_http(*args, **options)
        self.network.settle()
        self.successResultOf(answer)
        return self.sent()

    def sent(self) -> HttpRequest:
        """
        Give the latest request.
        """
        return HttpRequest.decode(self.server.peer.packets(HTTP)[-1].plain)

    def test_answer(self) -> None:
        """
        Status, reason, headers and body of the answer.
        """
        client = self.start_client()
        waiting = client.send_http("GET", URL)
        self.assertNoResult(waiting)
        self.network.settle()
        self.assertEqual(
            self.successResultOf(waiting),
            HttpAnswer(200, "OK", {"Server": "s"}, b"hello"),
        )

    def test_as_a_tuple(self) -> None:
        """
        It can be taken apart.
        """
        self.said = HttpResponse(204, "No Content")
        client = self.start_client()
        waiting = client.send_http("GET", URL)
        self.network.settle()
        status, reason, headers, body = self.successResultOf(waiting)
        self.assertEqual((status, reason), (204, "No Content"))
        self.assertEqual((headers, body), ({}, b""))

    def test_encrypted(self) -> None:
        """
        What is asked is nobody's business: the packet is encrypted.
        """
        self.send("GET", URL)
        self.assertNotIn(b"api.test", self.server.peer.raw)

    def test_plain(self) -> None:
        """
        The node's own answers are not, and count as well.
        """
        self.server.answers[HTTP] = lambda peer, got: peer.send(
            HTTP, got.session_id, HttpResponse(503, "Service Unavailable").encode()
        )
        client = self.start_client()
        waiting = client.send_http("GET", URL)
        self.network.settle()
        self.assertEqual(self.successResultOf(waiting).code, 503)

    def test_request(self) -> None:
        """
        Method, URL, headers, body, and how long the server may take.
        """
        request = self.send("POST", URL, {"X-A": "1"}, b"body", 2.5)
        self.assertEqual(
            request,
            HttpRequest(1, URL, {"X-A": "1", "readTimeout": "2500"}, b"body"),
        )

    def test_time_in_its_place(self) -> None:
        """
        Who names the header of the time says where it goes, not what it says.
        """
        request = self.send(
            "GET", URL, {"A": "1", "READTIMEOUT": "1", "B": "2"}, timeout=3
        )
        assert request.headers is not None
        self.assertEqual(
            list(request.headers.items()),
            [("A", "1"), ("READTIMEOUT", "3000"), ("B", "2")],
        )

    def test_default_time(self) -> None:
        """
        The settings say how long the server may take, if the call does not.
        """
        client = self.start_client(http_timeout=7)
        client.send_http("GET", URL)
        self.network.settle()
        self.assertEqual(self.sent().headers, {"readTimeout": "7000"})

    def test_methods(self) -> None:
        """
        Four methods, in any case.
        """
        client = self.start_client()
        for number, method in enumerate(("get", "POST", "Put", "DELETE")):
            client.send_http(method, URL)
            self.network.settle()
            self.assertEqual(self.sent().method, number)

    def test_text(self) -> None:
        """
        Text goes out as UTF-8.
        """
        self.assertEqual(self.send("PUT", URL, data="\u4f60").body, "\u4f60".encode())

    def test_form(self) -> None:
        """
        A mapping goes out as a form.
        """
        request = self.send("POST", URL, data={"a b": "c&d", "e": ["1", "2"]})
        self.assertEqual(request.body, b"a+b=c%26d&e=1&e=2")
        assert request.headers is not None
        self.assertEqual(
            request.headers["Content-Type"], "application/x-www-form-urlencoded"
        )

    def test_json(self) -> None:
        """
        JSON goes out as JSON, C{null} too; its type can be told otherwise.
        """
        request = self.send("POST", URL, json={"a": [1, None]})
        self.assertEqual(request.body, b'{"a":[1,null]}')
        assert request.headers is not None
        self.assertEqual(
            request.headers["Content-Type"], "application/json; charset=UTF-8"
        )
        self.assertEqual(self.send("POST", URL, json=None).body, b"null")
        request = self.send("POST", URL, {"content-type": "x/y"}, json=1)
        assert request.headers is not None
        self.assertEqual(request.headers["content-type"], "x/y")

    def test_params(self) -> None:
        """
        Parameters are added to the query.
        """
        for url, whole in (
            (URL, URL + "?a=1&b=%26&b=2"),
            (URL + "?z#f", URL + "?z&a=1&b=%26&b=2#f"),
        ):
            request = self.send("GET", url, params={"a": 1, "b": ["&", 2]})
            self.assertEqual(request.uri, whole)

    def test_several_values(self) -> None:
        """
        Several values of a header are one.
        """
        request = self.send("GET", URL, {"Accept": ["a/b", "c/d"]})
        assert request.headers is not None
        self.assertEqual(request.headers["Accept"], "a/b, c/d")

    def test_out_of_order(self) -> None:
        """
        Answers find their requests in whatever order they come.
        """
        self.server.silent(HTTP)
        client = self.start_client()
        waiting = [client.send_http("GET", f"{URL}{number}") for number in range(3)]
        self.network.settle()
        packets = self.server.peer.packets(HTTP)
        for index in (2, 0, 1):
            body = HttpResponse(200, "OK", None, b"%d" % index).encode()
            self.server.peer.send(HTTP, packets[index].session_id, body)
        self.network.settle()
        bodies = [self.successResultOf(one).body for one in waiting]
        self.assertEqual(bodies, [b"0", b"1", b"2"])

    def test_numbers_of_others(self) -> None:
        """
        A push under the number of a request is not its answer, nor is an answer to
        another command.
        """
        self.server.silent(HTTP)
        client = self.start_client()
        waiting = client.send_http("GET", URL)
        self.network.settle()
        number = self.server.peer.packets(HTTP)[-1].session_id
        self.server.peer.push(b"x", number)
        self.server.peer.ok(number, Command.BIND)
        self.network.settle()
        self.assertNoResult(waiting)
        waiting.addErrback(lambda failure: failure.trap(Disconnected))

    def test_not_asked_for(self) -> None:
        """
        An answer that nobody waits for is not looked at.
        """
        client = self.start_client()
        self.server.peer.send(HTTP, 99, b"\x00")
        self.network.settle()
        self.assertTrue(client.is_online)


class FailureTests(ClientTestCase):
    """
    Requests without an answer.
    """

    def start(self, **settings: Any) -> Deferred[HttpAnswer]:
        """
        Begin a request that nobody answers.
        """
        self.client = self.start_client(**settings)
        waiting = self.client.send_http("GET", URL, timeout=5)
        self.network.settle()
        return waiting

    def test_time(self) -> None:
        """
        The node is given a little longer than the server, to say that it was too slow.
        """
        waiting = self.start()
        self.network.pass_time(5 + GRACE_SECONDS - 0.1)
        self.assertNoResult(waiting)
        self.network.pass_time(0.2)
        error = self.failureResultOf(waiting, TimedOut).value
        self.assertEqual(error.command, HTTP)
        self.assertTrue(self.client.is_online)

    def test_late(self) -> None:
        """
        What comes after that is not looked at.
        """
        waiting = self.start()
        self.network.pass_time(10)
        self.failureResultOf(waiting, TimedOut)
        number = self.server.peer.packets(HTTP)[-1].session_id
        self.server.peer.send(HTTP, number, HttpResponse(200, "OK").encode())
        self.network.settle()
        self.assertTrue(self.client.is_online)

    def test_disconnected(self) -> None:
        """
        When the connection ends it is known at once.
        """
        waiting = self.start()
        self.server.peer.close()
        self.network.settle()
        self.failureResultOf(waiting, Disconnected)

    def test_refused(self) -> None:
        """
        A server that does not know the command says so; the client does not leave for
        that.
        """
        self.server.refuse(HTTP, 101, "unsupported cmd")
        self.failureResultOf(self.start(), Refused)
        self.assertTrue(self.client.is_online)

    def test_unreadable(self) -> None:
        """
        An answer that cannot be read ends the connection.
        """
        self.server.answers[HTTP] = lambda peer, got: peer.send(
            HTTP, got.session_id, b"\x00\x00"
        )
        error = self.failureResultOf(self.start(), Disconnected).value
        self.assertIsInstance(error.__cause__, BadPacket)

    def test_cancelled(self) -> None:
        """
        A request that is given up is forgotten.
        """
        waiting = self.start()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.network.pass_time(10)

    def test_not_connected(self) -> None:
        """
        Without a session nothing is sent, and nothing waits.
        """
        client = self.make_client()
        self.failureResultOf(client.send_http("GET", URL), Disconnected)

    def test_too_many(self) -> None:
        """
        Only so many requests wait at a time.
        """
        waiting = self.start(max_pending=1)
        self.failureResultOf(self.client.send_http("GET", URL), TooManyPending)
        self.assertNoResult(waiting)
        waiting.addErrback(lambda failure: failure.trap(Disconnected))

    def test_switched_off(self) -> None:
        """
        It can be switched off.
        """
        self.failureResultOf(self.start(enable_http_proxy=False), BadRequest)

    def test_of_no_use(self) -> None:
        """
        What no node would serve is not sent.
        """
        client = self.start_client(max_packet_size=10000)
        for args, options in (
            (("HEAD", URL), {}),
            (("", URL), {}),
            (("GET", "/relative"), {}),
            (("GET", ""), {}),
            (("GET", "ftp://api.test/"), {}),
            (("GET", URL, {"a\nb": "c"}), {}),
            (("GET", URL, {"a:b": "c"}), {}),
            (("GET", URL, {"": "c"}), {}),
            (("GET", URL, {"a": "b\r\nc: d"}), {}),
            (("GET", URL), {"timeout": 0}),
            (("POST", URL), {"data": b"", "json": 1}),
            (("POST", URL, None, os.urandom(10001)), {}),
        ):
            waiting: Any = client.send_http(*args, **options)  # type: ignore[arg-type]
            self.failureResultOf(waiting, BadRequest)
        self.network.settle()
        self.assertEqual(self.server.peer.packets(HTTP), [])


class AnswerTests(SynchronousTestCase):
    """
    What can be done with an answer.
    """

    def answer(self, body: bytes, kind: str = "") -> HttpAnswer:
        """
        Make an answer of a type.
        """
        return HttpAnswer(200, "OK", {"Content-Type": kind} if kind else {}, body)

    def test_header(self) -> None:
        """
        Headers are found in any case.
        """
        answer = HttpAnswer(200, "OK", {"x-A": "1"}, b"")
        self.assertEqual(answer.header("X-a"), "1")
        self.assertIsNone(answer.header("y"))
        self.assertEqual(answer.header("y", "2"), "2")

    def test_text(self) -> None:
        """
        Text is decoded as the server says, else as UTF-8, else as the caller says.
        """
        raw = "\u00e9".encode("latin-1")
        self.assertEqual(self.answer("\u4f60".encode()).text(), "\u4f60")
        self.assertEqual(
            self.answer(raw, 'text/plain; Charset="ISO-8859-1"').text(), "\u00e9"
        )
        self.assertEqual(self.answer(raw).text("latin-1"), "\u00e9")
        self.assertEqual(self.answer(b"a", "text/plain; charset=nonsense").text(), "a")
        self.assertEqual(self.answer(raw).text(), "\ufffd")

    def test_json(self) -> None:
        """
        JSON is read.
        """
        self.assertEqual(self.answer(b'{"a": [1]}').json(), {"a": [1]})
        self.assertRaises(ValueError, self.answer(b"{").json)
