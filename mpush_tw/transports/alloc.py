"""
The door of alloc: tells clients over HTTP which servers to connect to (services A).

By the beginning of the path, as the original has it (A3)::

    /push…          POST: a test push, if that is switched on
    /index.html…    the page for it
    anything else   the list: clients may have any path in their settings

and, by the exact path, what the original does not have::

    /ws             the list of WebSocket servers
    /list.json      the servers for programs
    /health         200, or 503 with a reason
    /metrics        for Prometheus
    /favicon.ico    404
    /NAME           a file of mpush_tw/web, such as a script for pages

All answers come from memory.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import resources

import attrs
import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from twisted.internet.interfaces import IReactorTime
from twisted.web.http import CACHED
from twisted.web.resource import Resource

from mpush_tw.core.alloc import Allocation, BadOrder, Listed, PushOrders
from mpush_tw.core.log import NodeLog
from mpush_tw.errors import Unavailable
from mpush_tw.transports.http_site import BoundedRequest, BoundedSite
from mpush_tw.transports.web_pages import INDEX, load_pages

__all__ = [
    "AllocCollector",
    "AllocRoot",
    "Page",
    "alloc_site",
    "browser_files",
    "sender_page",
]

MAX_ORDER = 64 * 1024
"""
Bytes of a test push's body (A-7).
"""

MAX_CONNECTIONS = 10_000
REQUEST_SECONDS = 10
IDLE_SECONDS = 10
"""
Bounds of the site: devices ask once and leave, and in a rush they are many.
"""

_TEXT = b"text/plain; charset=utf-8"
_JSON = b"application/json"
_PUSHED = "服务已经开始推送,请注意查收消息".encode()
_NOT_FOUND = b"404 Not Found"

_FORWARDED = re.compile(
    rb"forwarded|via|x-forwarded(-.+)?|x-real-ip|.*client-ip|.*connecting-ip",
    re.IGNORECASE,
)
"""
Headers by which those who pass a request on say so.
"""


@attrs.frozen
class Page:
    """
    A document that does not change.

    @ivar headers: Beside C{Content-Type}.
    """

    content_type: bytes
    body: bytes = attrs.field(repr=False)
    headers: Mapping[bytes, bytes] = attrs.field(factory=dict)


@attrs.frozen
class _Answer:
    """
    What one request gets.

    @ivar label: The path for the metrics.
    """

    label: str
    code: int
    body: bytes = b""
    content_type: bytes = _TEXT
    headers: Mapping[bytes, bytes] = attrs.field(factory=dict)


class AllocRoot(Resource):
    """
    Answers every request.

    @ivar requests: How many there were, by path and status.
    """

    isLeaf = True

    def __init__(
        self,
        allocation: Allocation,
        log: NodeLog,
        *,
        orders: PushOrders | None = None,
        push_token: str = "",
        allow_origin: str = "",
        pages: Mapping[str, Page] | None = None,
        files: Mapping[bytes, Page] | None = None,
    ) -> None:
        """
        @param orders: Takes test pushes; C{None} for none.
        @param push_token: What a test push has to bring along. Without one they are
            taken from this machine, if nobody has passed them on (DESIGN 5c).
        @param allow_origin: Of web pages that may read the lists; empty for none.
        @param pages: Documents by the beginning of their path.
        @param files: Documents by their exact path, for pages of other sites too.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self._allocation = allocation
        self._log = log
        self._orders = orders
        self._token = push_token.encode()
        self._list_headers = (
            {b"access-control-allow-origin": allow_origin.encode()}
            if allow_origin
            else {}
        )
        self._pages = dict(pages or {})
        self._metrics = CollectorRegistry()
        self._metrics.register(AllocCollector(allocation, self))
        self.requests: Counter[tuple[str, int]] = Counter()
        self._exact: dict[bytes, Callable[[BoundedRequest], _Answer]] = {
            b"/ws": self._websocket_list,
            b"/list.json": self._json_list,
            b"/health": self._health,
            b"/metrics": self._show_metrics,
            b"/favicon.ico": lambda _: _Answer("/favicon.ico", 404, _NOT_FOUND),
        }
        for name, file in (files or {}).items():
            self._exact[name] = partial(self._file, name.decode(), file)

    def render(self, request: BoundedRequest) -> bytes:
        """
        Called by the site for every request.
        """
        answer = self._answer(request)
        self.requests[answer.label, answer.code] += 1
        request.setResponseCode(answer.code)
        headers = request.responseHeaders
        headers.removeHeader(b"server")
        headers.setRawHeaders(b"content-type", [answer.content_type])
        headers.setRawHeaders(b"cache-control", [b"no-store"])
        headers.setRawHeaders(b"x-content-type-options", [b"nosniff"])
        for name, value in answer.headers.items():
            headers.setRawHeaders(name, [value])
        if request.method == b"HEAD":
            headers.setRawHeaders(b"content-length", [b"%d" % len(answer.body)])
            return b""
        return answer.body

    def _answer(self, request: BoundedRequest) -> _Answer:
        path = request.path
        exact = self._exact.get(path)
        if exact is not None:
            return exact(request)
        if path.startswith(b"/push"):
            return self._push(request)
        for begin, page in self._pages.items():
            if path.startswith(begin.encode()):
                return _Answer(begin, 200, page.body, page.content_type, page.headers)
        if path.startswith(b"/index.html"):
            return _Answer("/index.html", 404, _NOT_FOUND)
        return self._list(request)

    def _file(self, label: str, file: Page, request: BoundedRequest) -> _Answer:
        headers = {**file.headers, **self._list_headers}
        tag = file.headers.get(b"etag")
        if tag is not None and request.setETag(tag) is CACHED:  # type: ignore[no-untyped-call]
            return _Answer(label, 304, b"", file.content_type, headers)
        return _Answer(label, 200, file.body, file.content_type, headers)

    # ------------------------------------------------------------- the lists

    def _list(self, request: BoundedRequest) -> _Answer:
        return self._text_list("/", self._allocation.connect.hand_out)

    def _websocket_list(self, request: BoundedRequest) -> _Answer:
        return self._text_list("/ws", self._allocation.websocket.hand_out)

    def _text_list(self, label: str, hand_out: Callable[[], str]) -> _Answer:
        if not self._allocation.running:
            return self._not_running(label)
        return _Answer(label, 200, hand_out().encode(), headers=self._list_headers)

    def _json_list(self, request: BoundedRequest) -> _Answer:
        if not self._allocation.running:
            return self._not_running("/list.json")
        servers = [_members(one) for one in self._allocation.connect.listed()]
        return _Answer(
            "/list.json", 200, msgspec.json.encode(servers), _JSON, self._list_headers
        )

    def _not_running(self, label: str) -> _Answer:
        """
        Nobody knows yet; to clients any other status than 200 means: ask again (A2).
        """
        return _Answer(label, 503, b"not started yet", headers={b"retry-after": b"1"})

    def _health(self, request: BoundedRequest) -> _Answer:
        if not self._allocation.running:
            return self._not_running("/health")
        if not self._allocation.connect.servers:
            return _Answer("/health", 503, b"no server to hand out")
        return _Answer("/health", 200, b"ok")

    def _show_metrics(self, request: BoundedRequest) -> _Answer:
        return _Answer(
            "/metrics",
            200,
            generate_latest(self._metrics),
            b"text/plain; version=0.0.4; charset=utf-8",
        )

    # ------------------------------------------------------------ test pushes

    def _push(self, request: BoundedRequest) -> _Answer:
        if self._orders is None:
            return _Answer("/push", 404, _NOT_FOUND)
        if request.method != b"POST":
            return _refusal(405, "only POST pushes", {b"allow": b"POST"})
        refused = self._not_allowed(request)
        if refused is not None:
            self._log.push.warn(
                "a test push from {peer} was refused: {reason}",
                peer=_peer(request),
                reason=refused.body.decode(),
            )
            return refused
        if request.too_large:
            return _refusal(413, f"expected {MAX_ORDER} bytes at most")
        assert request.content is not None
        try:
            self._orders.take(request.content.read())
        except BadOrder as error:
            return _refusal(400, str(error))
        except Unavailable as error:
            return _refusal(503, str(error))
        return _Answer("/push", 200, _PUSHED)

    def _not_allowed(self, request: BoundedRequest) -> _Answer | None:
        """
        Judge who asks for a push (A-6, DESIGN 5c).

        Without a token it must be somebody on this machine, asking himself: not a
        proxy, and not a web page of somebody else in a browser on this machine, which
        may have any name lead here.
        """
        if self._token:
            given = (request.getHeader(b"authorization") or b"").split(b" ", 1)
            if (
                len(given) == 2
                and given[0].lower() == b"bearer"
                and hmac.compare_digest(given[1].strip(), self._token)
            ):
                return None
            return _refusal(
                401,
                "expected Authorization: Bearer and the token",
                {b"www-authenticate": b'Bearer realm="mpush alloc"'},
            )
        forwarded = any(
            _FORWARDED.fullmatch(name)
            for name, _ in request.requestHeaders.getAllRawHeaders()
        )
        if forwarded or not _is_loopback(_peer(request)):
            return _refusal(
                403,
                "without mp.alloc.push-token only this machine may push, and not "
                "through a proxy",
            )
        origin = request.getHeader(b"origin")
        if origin is not None and not _is_own_page(origin, request):
            return _refusal(403, "pages of other sites may not push")
        return None


def _refusal(
    code: int, reason: str, headers: Mapping[bytes, bytes] | None = None
) -> _Answer:
    return _Answer("/push", code, reason.encode(), headers=headers or {})


def _peer(request: BoundedRequest) -> str:
    """
    Give the address of who asks; empty where there is none.
    """
    address = request.getClientAddress()  # type: ignore[no-untyped-call]
    return str(getattr(address, "host", ""))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _is_own_page(origin: bytes, request: BoundedRequest) -> bool:
    """
    Whether a page comes from this site, under an address of this machine.
    """
    host = request.getHeader(b"host") or b""
    if origin.lower() not in (b"http://" + host.lower(), b"https://" + host.lower()):
        return False
    asked: bytes = request.getRequestHostname()  # type: ignore[no-untyped-call]
    name = asked.decode("latin-1").lower()
    return _is_loopback(name.strip("[]"))


def _members(one: Listed) -> dict[str, object]:
    weight = int(one.weight) if one.weight.is_integer() else one.weight
    return {
        "host": one.host,
        "port": one.port,
        "online": one.online,
        "weight": weight,
        "id": one.id,
    }


def sender_page() -> Page:
    """
    Give the page that orders test pushes (A3.3). It loads nothing, and nothing runs in
    it but its own script.
    """
    body = resources.files("mpush_tw.transports").joinpath("alloc.html").read_bytes()
    policy = "; ".join(
        (
            "default-src 'none'",
            "connect-src 'self'",
            f"script-src {_hash_of(body, b'script')}",
            f"style-src {_hash_of(body, b'style')}",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
    headers = {
        b"content-security-policy": policy.encode(),
        b"referrer-policy": b"no-referrer",
    }
    return Page(b"text/html; charset=utf-8", body, headers)


def browser_files() -> dict[bytes, Page]:
    """
    Give what this package has for browsers, but the page of the WebSocket port.
    """
    return {
        name: Page(
            file.content_type.encode(),
            file.content,
            {b"etag": file.etag.encode(), b"cache-control": b"no-cache"},
        )
        for name, file in load_pages().items()
        if name != f"/{INDEX}".encode()
    }


def _hash_of(page: bytes, element: bytes) -> str:
    """
    Name the content of an element so that a browser allows that and no other.
    """
    _, _, rest = page.partition(b"<" + element + b">")
    content, _, _ = rest.partition(b"</" + element + b">")
    return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'"


class AllocCollector(Collector):
    """
    What alloc counts, as Prometheus text (services A8).
    """

    def __init__(self, allocation: Allocation, root: AllocRoot) -> None:
        self._allocation = allocation
        self._root = root

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "mpush_alloc_requests",
            "Requests answered, by path and status.",
            labels=("path", "code"),
        )
        for (path, code), count in sorted(self._root.requests.items()):
            requests.add_metric((path, str(code)), count)
        yield requests
        yield GaugeMetricFamily(
            "mpush_alloc_servers",
            "Connection servers that are handed out.",
            len(self._allocation.connect.servers),
        )
        refreshes = CounterMetricFamily(
            "mpush_alloc_refresh",
            "Looks at the registry and counts of the users, by how they ended.",
            labels=("result",),
        )
        for result, count in sorted(self._allocation.refreshes.items()):
            refreshes.add_metric((result,), count)
        yield refreshes
        online = GaugeMetricFamily(
            "mpush_alloc_server_online",
            "Users online at the last count, by connection server.",
            labels=("server",),
        )
        for server, users in self._allocation.online():
            online.add_metric((server.address,), users)
        yield online


def alloc_site(root: AllocRoot, clock: IReactorTime) -> BoundedSite:
    """
    Make what listens on C{mp.net.alloc-server-port}.
    """
    return BoundedSite(
        root,
        clock,
        max_connections=MAX_CONNECTIONS,
        request_seconds=REQUEST_SECONDS,
        idle_seconds=IDLE_SECONDS,
        max_body=MAX_ORDER,
    )
