"""
Tests for L{mpush_tw.transports.alloc}.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import attrs
from prometheus_client.parser import text_string_to_metric_families

from twisted.internet.defer import Deferred, fail

from mpush_tw.core.alloc import (
    Allocation,
    PushOrder,
    PushOrders,
    make_strategy,
)
from mpush_tw.errors import PushError, Unavailable
from mpush_tw.interfaces import ServiceNode
from mpush_tw.transports.alloc import (
    MAX_ORDER,
    AllocRoot,
    Page,
    alloc_site,
    browser_files,
    sender_page,
)
from tests.core.alloc.fakes import AllocTestCase, page_server, server
from tests.transports.http import HttpAnswer, HttpConnection

VECTORS = Path(__file__).parents[1] / "vectors"
RECORDED: str = json.loads((VECTORS / "redis-zk.json").read_text())[
    "addressServiceAnswer"
]
"""
What an original alloc answered; the recording added a line feed at the end.
"""

PLAIN = "text/plain; charset=utf-8"
PUSHED = "服务已经开始推送,请注意查收消息"


class DoorTestCase(AllocTestCase):
    """
    A door in memory, with three servers that have 30, 10 and 20 users.
    """

    options: Mapping[str, Any] = {}
    pushes = True

    def setUp(self) -> None:
        super().setUp()
        self.allocation = Allocation(
            self.registry,
            self.cache,
            lambda: make_strategy("online", Random(1)),
            self.clock,
            self.log,
            refresh_interval=300,
            count_interval=15,
        )
        for number, users in ((1, 30), (2, 10), (3, 20)):
            self.registry.register(server(number))
            self.cache.bring(f"10.0.0.{number}", users)
        self.pushed: list[PushOrder] = []
        self.problem: Exception | None = None
        self.root = AllocRoot(
            self.allocation,
            self.log,
            orders=PushOrders(self._push, self.log) if self.pushes else None,
            pages={"/index.html": sender_page()} if self.pushes else None,
            **self.options,
        )
        self.site = alloc_site(self.root, self.clock)
        self.site.doStart()
        self.addCleanup(self.site.doStop)

    def _push(self, order: PushOrder) -> Deferred[str]:
        if self.problem is not None:
            return fail(self.problem)
        self.pushed.append(order)
        return Deferred()

    def start(self) -> None:
        """
        Begin to look for servers.
        """
        self.successResultOf(Deferred.fromCoroutine(self.allocation.start()))
        self.addCleanup(self.allocation.stop)

    def ask(self, path: str, method: str = "GET", **options: Any) -> HttpAnswer:
        """
        Ask over a connection of its own.
        """
        connection = HttpConnection(self.site, options.pop("peer", "127.0.0.1"))
        return connection.ask(path, method, **options)

    def push(
        self,
        body: bytes = b'{"userId":"user-0","hello":"hi"}',
        headers: Mapping[str, str] | None = None,
        peer: str = "127.0.0.1",
        path: str = "/push",
    ) -> HttpAnswer:
        """
        Order a test push.
        """
        return self.ask(path, "POST", body=body, headers=headers, peer=peer)


class RecordingTests(DoorTestCase):
    """
    The answer of an original alloc.
    """

    def test_answer(self) -> None:
        """
        Two nodes behind one address get the recorded answer; beside its headers there
        are the documented content type, and that it is not to be kept.
        """
        head, _, body = RECORDED.rstrip("\n").partition("\n\n")
        for number in (1, 2, 3):
            self.registry.deregister(server(number))
        for port in (3100, 3000):
            attributes = {"weight": 1}
            self.registry.register(
                ServiceNode("/cluster/cs", "127.0.0.1", port, attributes, f"id-{port}")
            )
        self.start()
        answer = self.ask("/")
        self.assertEqual(answer.body, body.encode())
        status, *headers = head.split("\n")
        self.assertEqual(status, f"{answer.version} {answer.code} OK")
        recorded = dict(line.lower().split(": ", 1) for line in headers)
        self.assertEqual(
            answer.headers.keys() - recorded.keys(),
            {"content-type", "cache-control", "x-content-type-options"},
        )
        self.assertLessEqual(recorded.keys(), answer.headers.keys())
        self.assertEqual(answer.headers["content-length"], recorded["content-length"])


class ListTests(DoorTestCase):
    """
    C{/}, and every other path that is not known.
    """

    EXPECTED = b"10.0.0.2:3000,10.0.0.3:3000,10.0.0.1:3000"

    def test_list(self) -> None:
        """
        The list has its documented type, and is not kept by anybody on the way.
        """
        self.start()
        answer = self.ask("/")
        self.assertEqual((answer.code, answer.body), (200, self.EXPECTED))
        self.assertEqual(answer.headers["content-type"], PLAIN)
        self.assertEqual(answer.headers["cache-control"], "no-store")
        self.assertEqual(answer.headers["content-length"], str(len(self.EXPECTED)))
        self.assertNotIn("server", answer.headers)

    def test_any_path(self) -> None:
        """
        Old clients may have any path and query in their settings.
        """
        self.start()
        for path in ("/alloc", "/a/b/c", "/?x=1", "/wsx", "/ws/", "/health/x", "//"):
            answer = self.ask(path)
            self.assertEqual(len(answer.body), len(self.EXPECTED), path)
            self.assertEqual(answer.code, 200)

    def test_any_method(self) -> None:
        """
        Every method gets the list, as from the original.
        """
        self.start()
        for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "BREW"):
            answer = self.ask("/", method, body=b"some body")
            self.assertEqual((answer.code, len(answer.body)), (200, 41), method)

    def test_head(self) -> None:
        """
        HEAD gets what GET gets, without the body.
        """
        self.start()
        answer = self.ask("/", "HEAD")
        self.assertEqual((answer.code, answer.body), (200, b""))
        self.assertEqual(answer.headers["content-length"], "41")
        self.assertEqual(answer.headers["content-type"], PLAIN)

    def test_large_body(self) -> None:
        """
        What is sent along does not matter, however much it is.
        """
        self.start()
        self.assertEqual(self.ask("/", "POST", body=b"x" * 100_000).code, 200)

    def test_empty(self) -> None:
        """
        Without any server the answer is empty and says so.
        """
        for number in (1, 2, 3):
            self.registry.deregister(server(number))
        self.start()
        answer = self.ask("/")
        self.assertEqual((answer.code, answer.body), (200, b""))
        self.assertEqual(answer.headers["content-length"], "0")
        self.assertEqual(answer.headers["content-type"], PLAIN)

    def test_before_the_start(self) -> None:
        """
        Before anything is known clients are told to come again: an empty list would be
        a lie.
        """
        for path in ("/", "/ws", "/list.json", "/health"):
            answer = self.ask(path)
            self.assertEqual((answer.code, answer.headers["retry-after"]), (503, "1"))

    def test_many_on_one_connection(self) -> None:
        """
        A proxy may ask for many on one connection.
        """
        self.start()
        connection = HttpConnection(self.site)
        for _ in range(5):
            self.assertEqual(len(connection.ask("/").body), 41)
        self.assertTrue(connection.open)

    def test_websocket_list(self) -> None:
        """
        /ws has the same form.
        """
        self.registry.register(page_server(1))
        self.registry.register(page_server(3))
        self.start()
        answer = self.ask("/ws")
        self.assertEqual(answer.body, b"10.0.0.3:3004,10.0.0.1:3004")
        self.assertEqual(answer.headers["content-type"], PLAIN)

    def test_json(self) -> None:
        """
        Programs get the servers as JSON.
        """
        self.registry.register(server(2, weight=0.5))
        self.registry.register(server(3, weight=2))
        self.start()
        answer = self.ask("/list.json")
        self.assertEqual(answer.headers["content-type"], "application/json")
        self.assertEqual(
            answer.body,
            b'[{"host":"10.0.0.3","port":3000,"online":20,"weight":2,"id":"node-3"},'
            b'{"host":"10.0.0.2","port":3000,"online":10,"weight":0.5,"id":"node-2"},'
            b'{"host":"10.0.0.1","port":3000,"online":30,"weight":1,"id":"node-1"}]',
        )

    def test_host_names(self) -> None:
        """
        A server that is registered by name is listed by name.
        """
        self.registry.register(
            attrs.evolve(server(9), host="push.example.com", port=443)
        )
        self.start()
        self.assertEqual(self.ask("/").body.split(b",")[0], b"push.example.com:443")

    def test_icon(self) -> None:
        """
        Browsers that ask for an icon get none.
        """
        self.start()
        self.assertEqual(self.ask("/favicon.ico").code, 404)

    def test_no_origin(self) -> None:
        """
        Pages of other sites may not read the lists unless that is set.
        """
        self.start()
        answer = self.ask("/", headers={"Origin": "https://www.example.com"})
        self.assertNotIn("access-control-allow-origin", answer.headers)


class OriginTests(DoorTestCase):
    """
    C{allow-origin}.
    """

    options = {"allow_origin": "https://www.example.com"}

    def test_lists(self) -> None:
        """
        The lists may be read by pages of that origin.
        """
        self.start()
        for path in ("/", "/ws", "/list.json"):
            self.assertEqual(
                self.ask(path).headers["access-control-allow-origin"],
                "https://www.example.com",
            )

    def test_nothing_else(self) -> None:
        """
        Nothing else may.
        """
        self.start()
        for answer in (self.push(), self.ask("/metrics"), self.ask("/index.html")):
            self.assertNotIn("access-control-allow-origin", answer.headers)


class HealthTests(DoorTestCase):
    """
    C{/health} and C{/metrics}.
    """

    def test_well(self) -> None:
        """
        With servers to hand out all is well.
        """
        self.start()
        answer = self.ask("/health")
        self.assertEqual((answer.code, answer.body), (200, b"ok"))

    def test_no_server(self) -> None:
        """
        Without any, a load balancer may prefer another alloc.
        """
        for number in (1, 2, 3):
            self.registry.register(server(number, weight=0))
        self.start()
        answer = self.ask("/health")
        self.assertEqual((answer.code, answer.body), (503, b"no server to hand out"))

    def test_metrics(self) -> None:
        """
        Prometheus can read what was asked, found and counted.
        """
        self.start()
        self.ask("/")
        self.ask("/any")
        self.ask("/ws")
        self.push()
        self.push(b"{}")
        answer = self.ask("/metrics")
        self.assertTrue(answer.headers["content-type"].startswith("text/plain"))
        samples = {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(answer.body.decode())
            for sample in family.samples
        }
        self.assertEqual(
            samples,
            {
                ("mpush_alloc_requests_total", "/", "200"): 2,
                ("mpush_alloc_requests_total", "/ws", "200"): 1,
                ("mpush_alloc_requests_total", "/push", "200"): 1,
                ("mpush_alloc_requests_total", "/push", "400"): 1,
                ("mpush_alloc_servers",): 3,
                ("mpush_alloc_refresh_total", "ok"): 1,
                ("mpush_alloc_server_online", "10.0.0.1:3000"): 30,
                ("mpush_alloc_server_online", "10.0.0.2:3000"): 10,
                ("mpush_alloc_server_online", "10.0.0.3:3000"): 20,
            },
        )

    def test_bounded_labels(self) -> None:
        """
        Whoever asks for ever new paths fills no memory.
        """
        self.start()
        for number in range(50):
            self.ask(f"/{number}")
            self.ask(f"/push{number}")
            self.ask(f"/index.html{number}")
        self.assertEqual(
            set(self.root.requests), {("/", 200), ("/push", 405), ("/index.html", 200)}
        )


class PushTests(DoorTestCase):
    """
    C{/push} without a token.
    """

    def test_push(self) -> None:
        """
        The answer of the original comes at once.
        """
        answer = self.push()
        self.assertEqual((answer.code, answer.body.decode()), (200, PUSHED))
        self.assertEqual(answer.headers["content-type"], PLAIN)
        self.assertEqual([one.user_id for one in self.pushed], ["user-0"])

    def test_original_page(self) -> None:
        """
        The page of the original misspells the type of the content.
        """
        headers = {"context-type": "application/json", "Content-Type": "text/plain"}
        self.assertEqual(self.push(headers=headers).code, 200)

    def test_longer_path(self) -> None:
        """
        Every path that begins so is meant, as in the original.
        """
        for path in ("/pushabc", "/push/x", "/push?x=1"):
            self.assertEqual(self.push(path=path).code, 200)

    def test_ipv6(self) -> None:
        """
        This machine is this machine by every address.
        """
        for peer in ("::1", "127.0.0.2", "::ffff:127.0.0.1"):
            self.assertEqual(self.push(peer=peer).code, 200, peer)

    def test_bad_order(self) -> None:
        """
        Bad input gets its reason in one line (A-7).
        """
        for body in (b"", b"x", b"{}", b'{"userId":1}'):
            answer = self.push(body)
            self.assertEqual(answer.code, 400)
            self.assertEqual(answer.headers["content-type"], PLAIN)
            self.assertNotIn(b"\n", answer.body)
            self.assertTrue(answer.body)

    def test_methods(self) -> None:
        """
        Only POST pushes (A-7).
        """
        for method in ("GET", "HEAD", "PUT", "OPTIONS"):
            answer = self.ask("/push", method)
            self.assertEqual((answer.code, answer.headers["allow"]), (405, "POST"))

    def test_too_large(self) -> None:
        """
        More than 64 KiB are refused, 64 KiB are not (A-7).
        """
        begin, end = b'{"userId":"u","hello":"', b'"}'
        fill = MAX_ORDER - len(begin) - len(end)
        self.assertEqual(self.push(begin + b"x" * fill + end).code, 200)
        self.assertEqual(self.push(begin + b"x" * (fill + 1) + end).code, 413)

    def test_too_large_for_devices(self) -> None:
        """
        What does not fit into a packet gets the reason as well.
        """
        self.problem = PushError("push content of 20000 bytes is too large")
        answer = self.push()
        self.assertEqual((answer.code, answer.body.decode()), (400, str(self.problem)))

    def test_no_way(self) -> None:
        """
        When nothing can be pushed that is said.
        """
        self.problem = Unavailable("the node is starting")
        self.assertEqual(self.push().code, 503)

    # ---------------------------------------------------------- who may push

    def refused(self, **options: Any) -> None:
        """
        See that a push is refused, with a line in the log.
        """
        answer = self.push(**options)
        self.assertEqual(answer.code, 403, options)
        self.assertEqual(self.pushed, [])
        self.assertIn("was refused", self.logged()[-1])

    def test_stranger(self) -> None:
        """
        Nobody else than this machine may push (DESIGN 5c).
        """
        for peer in ("10.0.0.9", "203.0.113.7", "2001:db8::1", "::ffff:10.0.0.9"):
            self.refused(peer=peer)

    def test_passed_on(self) -> None:
        """
        Nor may somebody behind a proxy on this machine, whatever header tells of him.
        """
        for header in (
            "X-Forwarded-For",
            "x-forwarded-port",
            "X-Forwarded",
            "Forwarded",
            "Via",
            "X-Real-IP",
            "X-Client-IP",
            "True-Client-IP",
            "CF-Connecting-IP",
            "WL-Proxy-Client-IP",
        ):
            self.refused(headers={header: "127.0.0.1"})

    def test_other_page(self) -> None:
        """
        Nor may a page of another site in a browser here, be it with a name of its own
        that leads to this machine.
        """
        for origin, host in (
            ("https://evil.example", "127.0.0.1:9999"),
            ("http://127.0.0.1:8080", "127.0.0.1:9999"),
            ("null", "127.0.0.1:9999"),
            ("http://evil.example:9999", "evil.example:9999"),
            ("http://127.0.0.1.evil.example:9999", "127.0.0.1.evil.example:9999"),
        ):
            self.refused(headers={"Origin": origin, "Host": host})

    def test_own_page(self) -> None:
        """
        The page of this door may, under each name of this machine.
        """
        for host in ("127.0.0.1:9999", "localhost:9999", "[::1]:9999", "LocalHost"):
            headers = {"Origin": f"http://{host}", "Host": host}
            self.assertEqual(self.push(headers=headers).code, 200, host)

    def test_another_token(self) -> None:
        """
        A token that nobody asked for does not matter.
        """
        headers = {"Authorization": "Bearer x"}
        self.refused(peer="10.0.0.9", headers=headers)
        self.assertEqual(self.push(headers=headers).code, 200)


class TokenTests(DoorTestCase):
    """
    C{/push} with a token.
    """

    options = {"push_token": "s3cret"}

    def test_right_token(self) -> None:
        """
        With the token anybody may push, through proxies too.
        """
        headers = {"Authorization": "Bearer s3cret", "X-Forwarded-For": "10.0.0.9"}
        answer = self.push(peer="203.0.113.7", headers=headers)
        self.assertEqual(answer.code, 200)

    def test_spelling(self) -> None:
        """
        The scheme may be in any case.
        """
        headers = {"Authorization": "bearer  s3cret "}
        self.assertEqual(self.push(headers=headers).code, 200)

    def test_wrong_token(self) -> None:
        """
        Without it nobody may, not even from this machine.
        """
        for given in (None, "", "Bearer", "Bearer ", "Bearer s3creT", "Basic s3cret"):
            headers = {} if given is None else {"Authorization": given}
            answer = self.push(headers=headers)
            self.assertEqual(answer.code, 401, given)
            self.assertTrue(answer.headers["www-authenticate"].startswith("Bearer"))
        self.assertEqual(self.pushed, [])

    def test_token_is_not_logged(self) -> None:
        """
        Neither the token nor what was tried appears in the log.
        """
        self.push(headers={"Authorization": "Bearer guess-1"})
        self.assertEqual(len(self.events), 1)
        text = repr(self.events)
        self.assertNotIn("s3cret", text)
        self.assertNotIn("guess-1", text)


class PageTests(DoorTestCase):
    """
    C{/index.html}.
    """

    def test_page(self) -> None:
        """
        The page has the title and the fields of the original.
        """
        answer = self.ask("/index.html")
        self.assertEqual(answer.code, 200)
        self.assertEqual(answer.headers["content-type"], "text/html; charset=utf-8")
        page = answer.body.decode()
        for text in (
            "<title>MPush Message Sender</title>",
            "To User Id",
            'value="user-0"',
            "Push Content",
            "hello mpush",
            "Broadcast",
            "Condition",
            "Send To Client",
        ):
            self.assertIn(text, page)

    def test_languages(self) -> None:
        """
        Every text is there in English and in Chinese.
        """
        page = self.ask("/index.html").body.decode()

        def names(language: str) -> list[str]:
            _, _, rest = page.partition(f"  {language}: {{\n")
            return re.findall(r'(\w+): "(?!,)', rest.partition("\n  },")[0])

        english, chinese = names("en"), names("zh")
        self.assertIn("noUser", english)
        self.assertEqual(english, chinese)
        used = re.findall(r'data-text="(\w+)"', page) + re.findall(
            r"TEXTS\[language\]\.(\w+)", page
        )
        self.assertLessEqual(set(used), set(english))

    def test_policy(self) -> None:
        """
        Nothing but its own script and style may run in it, and it is not framed.
        """
        policy = self.ask("/index.html").headers["content-security-policy"]
        self.assertIn("default-src 'none'", policy)
        self.assertIn("frame-ancestors 'none'", policy)
        self.assertEqual(len(re.findall(r"'sha256-[A-Za-z0-9+/]{43}='", policy)), 2)
        page = self.ask("/index.html").body.decode()
        self.assertEqual(re.findall(r"\son\w+=|\sstyle=|(?:src|href)=", page), [])


class FileTests(DoorTestCase):
    """
    Scripts for pages.
    """

    SCRIPT = Page(b"text/javascript", b"export {};", {b"etag": b'"1"'})
    options = {"files": {b"/mpush.js": SCRIPT}, "allow_origin": "*"}

    def test_script(self) -> None:
        """
        A script is served under its name, and may be used by pages of the origin that
        is set.
        """
        answer = self.ask("/mpush.js")
        self.assertEqual((answer.code, answer.body), (200, b"export {};"))
        self.assertEqual(answer.headers["content-type"], "text/javascript")
        self.assertEqual(answer.headers["access-control-allow-origin"], "*")

    def test_known(self) -> None:
        """
        Who has it already is told so.
        """
        answer = self.ask("/mpush.js", headers={"If-None-Match": '"1"'})
        self.assertEqual((answer.code, answer.body), (304, b""))
        self.assertEqual(self.ask("/mpush.js", "HEAD").code, 200)

    def test_other_names(self) -> None:
        """
        Other names get the list.
        """
        self.start()
        self.assertIn(b"10.0.0.2:3000", self.ask("/mpush.js/x").body)

    def test_of_this_package(self) -> None:
        """
        What this package has for browsers is served, but not the page of the WebSocket
        port.
        """
        files = browser_files()
        self.assertNotIn(b"/index.html", files)
        for name, file in files.items():
            self.assertIn(b"etag", file.headers, name)


class SwitchedOffTests(DoorTestCase):
    """
    C{push-enabled = false}.
    """

    pushes = False

    def test_nothing_there(self) -> None:
        """
        There is neither push nor page, and nobody takes a list for an answer to a push.
        """
        self.start()
        for path in ("/push", "/pushabc", "/index.html"):
            for method in ("GET", "POST"):
                answer = self.ask(path, method)
                self.assertEqual((answer.code, answer.body), (404, b"404 Not Found"))
