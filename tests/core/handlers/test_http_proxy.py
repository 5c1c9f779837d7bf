"""
Tests for L{mpush_tw.core.handlers.http_proxy} (server 8.8, 15; DESIGN 5.9).
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.handlers.http_proxy import (
    HttpProxyHandler,
    ProxyLimits,
    proxy_is_off,
)
from mpush_tw.core.http.exchange import WebRequests
from mpush_tw.core.http.reach import Reach
from mpush_tw.core.log import NodeLog
from mpush_tw.core.metrics import NodeMetrics
from mpush_tw.core.wheel import TimingWheel
from mpush_tw.errors import FetchError, FetchProblem, ProtocolError
from mpush_tw.interfaces import HttpFetched
from mpush_tw.protocol.messages import HttpRequest, HttpResponse
from tests.core.fakes import FakeConnection
from tests.core.http.fakes import OK, FakeFetcher, FakeMapping, FakeNames

HELLO = HttpResponse(200, "OK", {"content-length": "5", "Server": "fake"}, b"hello")
URL = "http://a.test/x"


class ProxyIsOffTests(SynchronousTestCase):
    """
    HTTP_PROXY on a node without the proxy.
    """

    def test_answered(self) -> None:
        """
        The device gets an HTTP answer, which it understands, and stays connected.
        """
        device = FakeConnection()
        proxy_is_off(device, 8, 0, b"whatever")
        self.assertEqual(
            device.sent, [("answer", 8, HttpResponse(503, "Service Unavailable"))]
        )
        self.assertTrue(device.connected)


class ProxyTestCase(SynchronousTestCase):
    """
    A proxy whose servers answer as the test wants; C{a.test} may be asked.
    """

    limits = ProxyLimits(max_requests=6, max_per_device=4, max_held=1000)

    def setUp(self) -> None:
        self.clock = Clock()
        self.logged: list[dict[str, Any]] = []
        self.log = NodeLog("debug", self.clock, self.logged.append)  # type: ignore[arg-type]
        self.metrics = NodeMetrics()
        self.fetcher = FakeFetcher()
        self.names = FakeNames({"a.test": ["8.8.8.8"], "in.test": ["10.0.0.1"]})
        reach = Reach(
            FakeMapping({}), [], ["a.test", "in.test", "nowhere.test"], self.names
        )
        self.wheel = TimingWheel(self.clock)
        self.proxy = HttpProxyHandler(
            WebRequests(reach, self.fetcher, self.log.http),
            self.wheel,
            self.clock,
            self.log,
            self.metrics,
            self.limits,
        )
        self.device = FakeConnection()

    def ask(
        self,
        number: int = 1,
        uri: str | None = URL,
        headers: dict[str, str] | None = None,
        device: FakeConnection | None = None,
    ) -> None:
        """
        Have a device send a request.
        """
        message = HttpRequest(0, uri, headers)
        self.proxy.request_received(device or self.device, number, 0, message)

    def answer(self, fetched: HttpFetched | Exception | None = OK) -> HttpResponse:
        """
        Have a device ask, and give its one answer.
        """
        self.fetcher.answers = [fetched]
        self.device.sent.clear()
        self.ask()
        (answer,) = self.device.answers
        assert isinstance(answer, HttpResponse)
        return answer

    def status_of(self, uri: str | None, headers: dict[str, str] | None = None) -> int:
        """
        Ask for a URI, and give the status of the one answer, which the proxy must have
        made itself.
        """
        self.device.sent.clear()
        self.ask(1, uri, headers)
        (answer,) = self.device.answers
        assert isinstance(answer, HttpResponse)
        self.assertEqual((answer.headers, answer.body), (None, None))
        return answer.status

    def lines(self) -> list[str]:
        """
        Give the formats of what was logged since the last call, all of it about HTTP.
        """
        events, self.logged[:] = self.logged[:], []
        self.assertEqual(
            {event["log_namespace"] for event in events} - {"mpush.http.log"}, set()
        )
        return [event["log_format"] for event in events]


class AnswerTests(ProxyTestCase):
    """
    What devices get (server 15.3).
    """

    def test_answer(self) -> None:
        """
        What the server has said, under the number of the request.
        """
        self.ask(7)
        self.assertEqual(self.device.sent, [("answer", 7, HELLO)])
        self.assertEqual(self.metrics.http_requests, {"success": 1})
        self.assertEqual(self.proxy.under_way, 0)

    def test_any_status(self) -> None:
        """
        Whatever its status.
        """
        answer = self.answer(HttpFetched(503, b"Later", (), b""))
        self.assertEqual(answer, HttpResponse(503, "Later", {}, None))

    def test_empty_map(self) -> None:
        """
        An answer without headers has an empty map, so that the door can tell it from
        one that the proxy makes.
        """
        self.assertEqual(self.answer(HttpFetched(204, b"", (), b"")).headers, {})

    def test_out_of_order(self) -> None:
        """
        Answers come as they come about, each under its own number.
        """
        self.fetcher.answers = [None, None, None]
        for number in (1, 2, 3):
            self.ask(number)
        self.assertEqual(self.proxy.under_way, 3)
        for index in (1, 1, 0):
            self.fetcher.waiting.pop(index).callback(OK)
        self.assertEqual([item[1] for item in self.device.sent], [2, 3, 1])
        self.assertEqual(self.proxy.under_way, 0)

    def test_same_number(self) -> None:
        """
        Two requests under one number get two answers.
        """
        self.fetcher.answers = [None]
        self.ask(1)
        self.ask(1)
        self.fetcher.waiting.pop().callback(OK)
        self.assertEqual(self.device.answers, [HELLO, HELLO])

    def test_without_uri(self) -> None:
        """
        A request without a URI gets one answer, not two (S-33).
        """
        for uri in (None, ""):
            self.assertEqual(self.status_of(uri), 400)
            self.assertEqual(len(self.lines()), 1)

    def test_problems(self) -> None:
        """
        What is wrong with the server decides the status.
        """
        for problem, status, reason, word in (
            (FetchProblem.NOT_CONNECTED, 504, "Gateway Timeout", "unreachable"),
            (FetchProblem.NOT_SENT, 503, "Service Unavailable", "not-sent"),
            (FetchProblem.OVERLOADED, 503, "Service Unavailable", "overload"),
            (FetchProblem.BROKEN, 502, "Bad Gateway", "error"),
            (FetchProblem.MALFORMED, 502, "Bad Gateway", "error"),
            (FetchProblem.TOO_LARGE, 502, "Bad Gateway", "error"),
        ):
            self.metrics.http_requests.clear()
            answer = self.answer(FetchError(problem, "details"))
            self.assertEqual(answer, HttpResponse(status, reason), problem)
            self.assertEqual(len(self.lines()), 1)
            self.assertEqual(self.metrics.http_requests, {word: 1})

    def test_not_http(self) -> None:
        """
        What is not HTTP is a status of its own, which counts as the server's.
        """
        answer = self.answer(FetchError(FetchProblem.UNREADABLE))
        self.assertEqual(answer, HttpResponse(999, "Unknown", {}))

    def test_nobody(self) -> None:
        """
        A host that nobody knows.
        """
        self.assertEqual(self.status_of("http://nowhere.test/"), 504)
        self.assertEqual(len(self.lines()), 1)

    def test_broken(self) -> None:
        """
        A URI that is none, or a header that is none, as with the original.
        """
        for uri in ("/relative", "x", "http:///x", "ftp://a.test/", "http://a.test/ x"):
            self.assertEqual(self.status_of(uri), 502, uri)
            self.assertEqual(len(self.lines()), 1)
        for headers in ({"a b": "c"}, {"X": "a\rX-Admin: 1"}, {"X": "a\x00"}):
            self.assertEqual(self.status_of(URL, headers), 502)
            self.assertEqual(len(self.lines()), 1)
        self.assertEqual(self.fetcher.asked, [])

    def test_refused(self) -> None:
        """
        A place that devices may not go to, or a URL that hides where it goes.
        """
        for uri in (
            "http://stranger.test/",
            "http://in.test/",
            "http://10.0.0.1/",
            "http://127.0.0.1:8080/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://localhost/",
            "http://169.254.169.254/latest/meta-data/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://a.test@127.0.0.1/",
            "http://user:password@a.test/",
            "http://a.test\\@127.0.0.1/",
            "http://[fe80::1%25eth0]/",
            "http://a.test\u3002in.test/",
        ):
            self.assertEqual(self.status_of(uri), 403, uri)
            (line,) = self.lines()
            self.assertIn("refused", line)
        self.assertEqual(self.fetcher.asked, [])
        self.assertEqual(set(self.metrics.http_requests), {"refused"})

    def test_bug(self) -> None:
        """
        A fault of ours is logged as one, and the device still gets its answer.
        """
        self.assertEqual(self.answer(ZeroDivisionError()).status, 502)
        self.assertIn("the HTTP proxy failed", self.lines())
        self.assertEqual(self.proxy.under_way, 0)

    def test_unreadable_request(self) -> None:
        """
        A packet that cannot be read is the dispatcher's to answer.
        """
        self.assertRaises(
            ProtocolError,
            self.proxy.request_received,
            self.device,
            1,
            0,
            ProtocolError("x"),
        )
        self.assertEqual(self.device.sent, [])


class LogTests(ProxyTestCase):
    """
    What operators read.
    """

    def test_success(self) -> None:
        """
        A line for each request, with what was asked and what came.
        """
        self.ask()
        (event,) = self.logged
        self.assertTrue(
            event["log_format"].startswith("send proxy request success end request=")
        )
        self.assertIn(URL, event["request"])
        self.assertIn("200", event["response"])

    def test_secrets(self) -> None:
        """
        Neither passwords in URLs nor credentials in headers get into the log (S-39).
        """
        secret = {"Authorization": "s3cret", "Cookie": "s3cret"}
        self.ask(1, "http://user:s3cret@a.test/", secret)
        self.ask(2, URL, secret)
        self.fetcher.answers = [
            HttpFetched(200, b"OK", ((b"Set-Cookie", b"s3cret"),), b"s3cret")
        ]
        self.ask(3, URL, secret)
        self.assertEqual(len(self.logged), 3)
        self.assertNotIn("s3cret", str(self.logged))

    def test_lines(self) -> None:
        """
        A device cannot write lines of its own into the log.
        """
        self.ask(1, "http://a.test/\r\nWARN something else")
        self.assertNotIn("\n", self.logged[0]["request"])


class TimeTests(ProxyTestCase):
    """
    No request waits for ever.
    """

    def test_default(self) -> None:
        """
        Without a word of the device it is C{mp.http.default-read-timeout}.
        """
        self.fetcher.answers = [None]
        self.ask()
        self.clock.advance(9.9)
        self.assertEqual(self.device.sent, [])
        self.clock.advance(0.2)
        self.assertEqual(self.device.answers, [HttpResponse(408, "Request Timeout")])
        self.assertEqual(self.fetcher.cancelled, 1)
        self.assertEqual(self.metrics.http_requests, {"timeout": 1})
        self.assertEqual(len(self.lines()), 1)

    def test_named(self) -> None:
        """
        The device may name a time.
        """
        self.fetcher.answers = [None]
        self.ask(headers={"readTimeout": "1500"})
        self.clock.advance(1.4)
        self.assertEqual(self.device.sent, [])
        self.clock.advance(0.2)
        self.assertEqual(len(self.device.sent), 1)

    def test_too_long(self) -> None:
        """
        But not a longer one than the node has patience for.
        """
        self.fetcher.answers = [None]
        self.ask(headers={"readTimeout": "2147483647"})
        self.clock.advance(299.9)
        self.assertEqual(self.device.sent, [])
        self.clock.advance(0.2)
        self.assertEqual(len(self.device.sent), 1)

    def test_in_time(self) -> None:
        """
        One in time leaves no timer behind.
        """
        self.fetcher.answers = [None]
        self.ask()
        self.fetcher.waiting.pop().callback(OK)
        self.clock.advance(20)
        self.assertEqual(self.device.answers, [HELLO])
        self.assertEqual(len(self.wheel), 0)

    def test_measured(self) -> None:
        """
        How long it took is measured.
        """
        self.fetcher.answers = [None]
        self.ask()
        self.clock.advance(0.2)
        self.fetcher.waiting.pop().callback(OK)
        self.assertAlmostEqual(self.metrics.http_seconds.total, 0.2)


class LimitTests(ProxyTestCase):
    """
    No device, and not all of them together, can have the node do too much at a time.
    """

    def test_device(self) -> None:
        """
        Beyond its limit a device is told so at once; others are served.
        """
        self.fetcher.answers = [None] * 5
        for number in range(5):
            self.ask(number)
        self.assertEqual(
            self.device.sent, [("answer", 4, HttpResponse(503, "Service Unavailable"))]
        )
        other = FakeConnection("d2")
        self.fetcher.answers = [OK]
        self.ask(1, device=other)
        self.assertEqual(other.answers, [HELLO])
        self.assertEqual(self.metrics.http_requests, {"overload": 1, "success": 1})

    def test_device_again(self) -> None:
        """
        When one has been answered it may ask again.
        """
        self.fetcher.answers = [None] * 4
        for number in range(4):
            self.ask(number)
        self.fetcher.waiting.pop().callback(OK)
        self.ask(9)
        self.assertEqual(self.device.answers, [HELLO, HELLO])

    def test_all(self) -> None:
        """
        Beyond the node's limit nobody is served.
        """
        self.fetcher.answers = [None] * 10
        devices = [FakeConnection(f"d{number}") for number in range(7)]
        for device in devices:
            self.ask(device=device)
        self.assertEqual([len(device.sent) for device in devices], [0] * 6 + [1])
        self.assertEqual(self.proxy.under_way, 6)

    def test_slow_devices(self) -> None:
        """
        Answers that devices are slow to read are held up to a limit; beyond it the body
        is not sent, and no more is asked for.
        """
        page = HttpFetched(200, b"OK", (), bytes(600))
        self.device.full = True
        self.fetcher.answers = [page, page]
        self.ask(1)
        self.ask(2)
        self.assertEqual(
            [answer.status for answer in self.device.answers],  # type: ignore[attr-defined]
            [200, 503],
        )
        self.assertEqual(self.proxy.held, 600)

    def test_too_much_held(self) -> None:
        """
        When the limit is reached, no server is asked for more.
        """
        self.device.full = True
        self.fetcher.answers = [HttpFetched(200, b"OK", (), bytes(1000))]
        self.ask(1)
        self.ask(2)
        self.assertEqual(len(self.fetcher.asked), 1)
        self.assertEqual(len(self.device.sent), 2)

    def test_read_at_last(self) -> None:
        """
        When a device has read, its answers are held no longer.
        """
        self.device.full = True
        self.fetcher.answers = [HttpFetched(200, b"OK", (), bytes(1000))]
        self.ask(1)
        self.clock.advance(1)
        self.assertEqual(self.proxy.held, 1000)
        self.device.full = False
        self.clock.advance(1)
        self.assertEqual(self.proxy.held, 0)
        self.assertEqual(len(self.wheel), 0)
        self.ask(2)
        self.assertEqual(self.device.answers[-1], HELLO)

    def test_never_read(self) -> None:
        """
        Nor when it has gone.
        """
        self.device.full = True
        self.fetcher.answers = [HttpFetched(200, b"OK", (), bytes(1000))]
        self.ask(1)
        self.device.close("test")
        self.proxy.connection_lost(self.device)
        self.assertEqual(self.proxy.held, 0)


class GoneTests(ProxyTestCase):
    """
    Devices that do not wait.
    """

    def test_gone(self) -> None:
        """
        When a device has gone, its requests are given up.
        """
        self.fetcher.answers = [None, None]
        self.ask(1)
        self.ask(2)
        self.device.close("test")
        self.proxy.connection_lost(self.device)
        self.assertEqual(self.fetcher.cancelled, 2)
        self.assertEqual(self.proxy.under_way, 0)
        self.assertEqual(len(self.wheel), 0)
        self.assertEqual(self.metrics.http_requests, {"gone": 2})
        self.assertEqual(self.device.sent, [])

    def test_others(self) -> None:
        """
        Those of others go on.
        """
        other = FakeConnection("d2")
        self.fetcher.answers = [None, None]
        self.ask(1)
        self.ask(1, device=other)
        self.proxy.connection_lost(self.device)
        (waiting,) = self.fetcher.waiting
        waiting.callback(OK)
        self.assertEqual(other.answers, [HELLO])

    def test_never_asked(self) -> None:
        """
        The end of a device that has asked for nothing is no event.
        """
        self.proxy.connection_lost(self.device)
        self.assertEqual(self.metrics.http_requests, {})

    def test_other_device(self) -> None:
        """
        When another device has shaken hands on the connection meanwhile, it does not
        get an answer that was meant for the first.
        """
        self.fetcher.answers = [None]
        self.ask(1)
        self.device.device_id = "another"
        self.fetcher.waiting.pop().callback(OK)
        self.assertEqual(self.device.sent, [])
        self.assertEqual(self.metrics.http_requests, {"gone": 1})

    def test_stop(self) -> None:
        """
        A node that stops gives up what is under way.
        """
        self.fetcher.answers = [None, None]
        self.ask(1)
        self.ask(1, device=FakeConnection("d2"))
        self.proxy.stop()
        self.assertEqual(self.fetcher.cancelled, 2)
        self.assertEqual(self.proxy.under_way, 0)
        self.assertEqual(len(self.wheel), 0)

    def test_after_the_stop(self) -> None:
        """
        And takes no more.
        """
        self.proxy.stop()
        self.ask(1)
        self.assertEqual(
            self.device.answers, [HttpResponse(503, "Service Unavailable")]
        )
        self.assertEqual(self.fetcher.asked, [])


class IosTests(ProxyTestCase):
    """
    Clients that cannot read long fields (clients 9.14).
    """

    def setUp(self) -> None:
        super().setUp()
        self.proxy._limits = ProxyLimits()
        self.device = FakeConnection(os_name="iOS 9.0")

    def sized(self, body: int = 0, header: int = 0) -> HttpFetched:
        """
        Make an answer with a body and a header text of so many bytes.
        """
        headers = ((b"X", bytes(b"a" * (header - 3))),) if header else ()
        return HttpFetched(200, b"OK", headers, bytes(body))

    def test_short(self) -> None:
        """
        What they can read they get.
        """
        self.assertEqual(self.answer(self.sized(body=32766)).status, 200)
        self.assertEqual(self.answer(self.sized(header=32766)).status, 200)

    def test_long(self) -> None:
        """
        Instead of what they cannot they get a word that says so.
        """
        for fetched in (self.sized(body=32767), self.sized(header=32767)):
            self.assertEqual(
                self.answer(fetched), HttpResponse(502, "response too large for client")
            )

    def test_others(self) -> None:
        """
        Other clients get everything.
        """
        self.device = FakeConnection(os_name="android")
        self.assertEqual(self.answer(self.sized(body=32767)).status, 200)

    def test_switched_off(self) -> None:
        """
        So do these, if the operator wants it (C{mp.http.limit-ios-answers}).
        """
        self.proxy._limits = ProxyLimits(limit_ios=False)
        self.assertEqual(self.answer(self.sized(body=32767)).status, 200)
