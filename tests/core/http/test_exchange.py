"""
Tests for L{mpush_tw.core.http.exchange}: what servers are asked, and redirects.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.http.exchange import MOST_REDIRECTS, WebRequests
from mpush_tw.core.http.headers import BadHeader
from mpush_tw.core.http.reach import NoAddress, Reach, Refused
from mpush_tw.core.http.urls import BadUrl
from mpush_tw.core.log import NodeLog
from mpush_tw.errors import FetchError, FetchProblem
from mpush_tw.interfaces import DnsTarget, HttpFetched, HttpTarget
from mpush_tw.protocol.messages import HttpRequest
from tests.core.http.fakes import OK, FakeFetcher, FakeMapping, FakeNames, redirect


class ExchangeTestCase(SynchronousTestCase):
    """
    A fetcher that answers as the test wants.
    """

    options: dict[str, Any] = {}

    def setUp(self) -> None:
        self.fetcher = FakeFetcher()
        self.names = FakeNames(
            {"public.test": ["8.8.8.8"], "other.test": ["8.8.4.4"], "in.test": ["::1"]}
        )
        mapping = FakeMapping({"mapped.test": DnsTarget("10.0.0.9", 8080)})
        reach = Reach(
            mapping,
            ["mapped.test"],
            ["public.test", "other.test", "in.test"],
            self.names,
        )
        self.logged: list[dict[str, Any]] = []
        log = NodeLog("debug", Clock(), self.logged.append)  # type: ignore[arg-type]
        self.requests = WebRequests(reach, self.fetcher, log.http, **self.options)

    def start(
        self,
        uri: str,
        method: int = 0,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> Deferred[HttpFetched]:
        """
        Begin a request.
        """
        return Deferred.fromCoroutine(
            self.requests.fetch(
                HttpRequest(method, uri, headers, body), "192.0.2.1", 40000
            )
        )

    def fetch(self, uri: str, *args: Any) -> HttpFetched:
        """
        Make a request that is answered at once.
        """
        return self.successResultOf(self.start(uri, *args))

    def headers(self, number: int = -1) -> dict[bytes, bytes]:
        """
        Give the headers of a request that was made.
        """
        pairs = self.fetcher.asked[number].headers
        headers = {name.lower(): value for name, value in pairs}
        self.assertEqual(len(headers), len(pairs))
        return headers


class AskedTests(ExchangeTestCase):
    """
    What a server is asked (server 15.2).
    """

    def test_get(self) -> None:
        """
        The path, who it is for, and for whom we ask.
        """
        self.assertEqual(self.fetch("http://public.test/a?b", 0, {"X-One": "1"}), OK)
        (asked,) = self.fetcher.asked
        self.assertEqual((asked.method, asked.uri, asked.body), ("GET", "/a?b", b""))
        self.assertEqual(
            asked.target, HttpTarget("http", "public.test", 80, ("8.8.8.8",))
        )
        self.assertEqual(
            self.headers(),
            {
                b"host": b"public.test",
                b"x-one": b"1",
                b"x-forwarded-for": b"192.0.2.1",
                b"x-forwarded-port": b"40000",
            },
        )

    def test_methods(self) -> None:
        """
        Methods have numbers; those without a meaning mean GET.
        """
        for number in (0, 1, 2, 3, 4, 7, -1, -128, 127):
            self.fetch("http://public.test/", number, None, b"x")
        self.assertEqual(
            [asked.method for asked in self.fetcher.asked],
            ["GET", "POST", "PUT", "DELETE", "GET", "GET", "GET", "GET", "GET"],
        )
        self.assertEqual({asked.body for asked in self.fetcher.asked}, {b"x"})

    def test_mapped(self) -> None:
        """
        A mapped backend is told its own address.
        """
        self.fetch("http://mapped.test/x")
        self.assertEqual(self.headers()[b"host"], b"10.0.0.9:8080")
        self.assertEqual(self.fetcher.asked[0].uri, "/x")

    def test_split(self) -> None:
        """
        Nothing is asked by a device that tries to ask for two things at once.
        """
        uri = "http://public.test/ HTTP/1.1\r\nX: y"
        self.failureResultOf(self.start(uri), BadUrl)
        self.failureResultOf(
            self.start("http://public.test/", 0, {"X": "a\rb"}), BadHeader
        )
        self.assertEqual(self.fetcher.asked, [])

    def test_elsewhere(self) -> None:
        """
        Nor by one that wants to go where it may not.
        """
        self.failureResultOf(self.start("http://in.test/"), Refused)
        self.failureResultOf(self.start("http://127.0.0.1/"), Refused)
        self.failureResultOf(self.start("http://mapped.test@127.0.0.1/"), BadUrl)
        self.assertEqual(self.fetcher.asked, [])

    def test_failed(self) -> None:
        """
        What goes wrong is told as it is.
        """
        self.fetcher.answers = [FetchError(FetchProblem.BROKEN)]
        self.failureResultOf(self.start("http://public.test/"), FetchError)

    def test_cancelled(self) -> None:
        """
        A request that is given up is given up by the fetcher.
        """
        self.fetcher.answers = [None]
        waiting = self.start("http://public.test/")
        waiting.cancel()
        self.failureResultOf(waiting)
        self.assertEqual(self.fetcher.cancelled, 1)


class OriginalTests(ExchangeTestCase):
    """
    C{mp.http.request-target=absolute} and C{mp.http.host-header=original}.
    """

    options = {"absolute": True, "original_host": True}

    def test_asked(self) -> None:
        """
        The whole URL, with the host that the device has named.
        """
        self.fetch("http://mapped.test/x#y")
        self.assertEqual(self.fetcher.asked[0].uri, "http://mapped.test/x")
        self.assertEqual(self.headers()[b"host"], b"mapped.test")


class AbsoluteTests(ExchangeTestCase):
    """
    C{mp.http.request-target=absolute}, what the original does.
    """

    options = {"absolute": True}

    def test_asked(self) -> None:
        """
        The whole mapped URL.
        """
        self.fetch("http://mapped.test/x?y")
        self.assertEqual(self.fetcher.asked[0].uri, "http://10.0.0.9:8080/x?y")
        self.assertEqual(self.headers()[b"host"], b"10.0.0.9:8080")


class RedirectTests(ExchangeTestCase):
    """
    Redirects (server 15.5, S-37).
    """

    def follow(self, *answers: HttpFetched | Exception, method: int = 0) -> HttpFetched:
        """
        Make a request that is answered so, and then well.
        """
        self.fetcher.answers = list(answers)
        return self.fetch(
            "http://public.test/a/b",
            method,
            {
                "Authorization": "secret",
                "Cookie": "c",
                "Content-Type": "text/plain",
                "X-A": "1",
            },
            b"body" if method else None,
        )

    def asked(self) -> list[tuple[str, str, str, bytes]]:
        """
        Give what was asked.
        """
        return [
            (one.method, one.target.host, one.uri, one.body)
            for one in self.fetcher.asked
        ]

    def test_followed(self) -> None:
        """
        The device gets what is at the end.
        """
        for status in (300, 301, 302, 303, 305, 307):
            self.assertEqual(self.follow(redirect("/c", status)), OK)
            self.assertEqual(self.fetcher.asked[-1].uri, "/c")

    def test_relative(self) -> None:
        """
        A relative one goes by the page (S-37).
        """
        self.follow(redirect("c?d"))
        self.assertEqual(self.fetcher.asked[-1].uri, "/a/c?d")

    def test_not_followed(self) -> None:
        """
        Other statuses are the device's business.
        """
        for status in (200, 304, 306, 308, 404):
            answer = redirect("/c", status)
            self.assertEqual(self.follow(answer), answer)
        self.assertEqual(len(self.fetcher.asked), 5)

    def test_without_location(self) -> None:
        """
        One that leads nowhere is handed to the device (S-37).
        """
        answer = HttpFetched(302, b"Found", (), b"x")
        self.assertEqual(self.follow(answer), answer)

    def test_five(self) -> None:
        """
        Five are followed; the sixth is handed to the device.
        """
        last = redirect("/6")
        answers = [redirect(f"/{number}") for number in range(1, MOST_REDIRECTS + 1)]
        self.assertEqual(self.follow(*answers, last), last)
        self.assertEqual(
            [one.uri for one in self.fetcher.asked],
            ["/a/b", "/1", "/2", "/3", "/4", "/5"],
        )

    def test_in_a_circle(self) -> None:
        """
        A circle is no different.
        """
        circle = [redirect("/a/b")] * 10
        self.assertEqual(self.follow(*circle), circle[0])
        self.assertEqual(len(self.fetcher.asked), MOST_REDIRECTS + 1)

    def test_body_sent_again(self) -> None:
        """
        With 307 the same is asked of the next server, body and all.
        """
        self.follow(redirect("/c", 307), method=1)
        self.assertEqual(self.asked()[1], ("POST", "public.test", "/c", b"body"))
        self.assertEqual(self.headers()[b"content-type"], b"text/plain")

    def test_turns_into_get(self) -> None:
        """
        With 303, and for a POST with 301 and 302, the next page is only looked at.
        """
        for method, status in ((1, 303), (2, 303), (3, 303), (1, 301), (1, 302)):
            self.follow(redirect("/c", status), method=method)
            self.assertEqual(self.asked()[-1], ("GET", "public.test", "/c", b""))
            self.assertNotIn(b"content-type", self.headers())
            self.assertEqual(self.headers()[b"x-a"], b"1")

    def test_stays(self) -> None:
        """
        PUT and DELETE with 301 and 302 stay what they are.
        """
        for method, name in ((2, "PUT"), (3, "DELETE")):
            self.follow(redirect("/c", 301), method=method)
            self.assertEqual(self.asked()[-1], (name, "public.test", "/c", b"body"))

    def test_same_server(self) -> None:
        """
        The same server gets the credentials again.
        """
        self.follow(redirect("/c"))
        self.assertEqual(self.headers()[b"authorization"], b"secret")

    def test_other_server(self) -> None:
        """
        Another one does not, nor the same one over another scheme or port; nor does the
        next, should it lead back.
        """
        for location in (
            "http://other.test/c",
            "https://public.test/c",
            "http://public.test:81/c",
        ):
            self.follow(redirect(location), redirect("http://public.test/d"))
            for number in (-1, -2):
                headers = self.headers(number)
                self.assertNotIn(b"authorization", headers)
                self.assertNotIn(b"cookie", headers)
                self.assertEqual(headers[b"x-a"], b"1")

    def test_host(self) -> None:
        """
        Each server is told its own name.
        """
        self.follow(redirect("http://other.test/c"))
        self.assertEqual(self.headers()[b"host"], b"other.test")

    def test_not_allowed(self) -> None:
        """
        One that leads where devices may not go is handed to the device, with a line in
        the log.
        """
        for location in (
            "http://stranger.test/",
            "http://127.0.0.1/",
            "http://in.test/",
            "http://[::1]/",
            "http://2130706433/",
            "http://public.test@127.0.0.1/",
            "ftp://public.test/",
        ):
            self.logged.clear()
            answer = redirect(location)
            self.assertEqual(self.follow(answer), answer, location)
            (event,) = self.logged
            self.assertEqual(event["log_namespace"], "mpush.http.log")
            self.assertEqual(event["location"], location)
        self.assertEqual(len(self.fetcher.asked), 7)

    def test_nobody_there(self) -> None:
        """
        One that leads to nobody ends there.
        """
        self.names.addresses["other.test"] = []
        self.fetcher.answers = [redirect("http://other.test/")]
        self.failureResultOf(self.start("http://public.test/"), NoAddress)
