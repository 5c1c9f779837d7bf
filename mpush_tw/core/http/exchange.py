"""
One request of a device, carried through to its answer: headers, redirects, and who is
asked (server 15.2, 15.5).
"""

from __future__ import annotations

from typing import Final

from mpush_tw.core.http.headers import (
    Pairs,
    request_headers,
    without_content,
    without_credentials,
)
from mpush_tw.core.http.reach import (
    Place,
    Reach,
    Refused,
    absolute_target,
    host_header,
)
from mpush_tw.core.http.urls import BadUrl, parse_url, resolve_location
from mpush_tw.core.log import Category
from mpush_tw.interfaces import HttpFetch, HttpFetched, IHttpFetcher
from mpush_tw.protocol.messages import HttpRequest

METHODS: Final = ("GET", "POST", "PUT", "DELETE")
"""
By the number that requests carry; all other numbers mean the first (protocol 10.11).
"""

MOST_REDIRECTS: Final = 5
"""
Followed for one request; the next one is the answer (server 15.5).
"""

_REDIRECTS: Final = frozenset((300, 301, 302, 303, 305, 307))
_TURN_INTO_GET: Final = {301: ("POST",), 302: ("POST",), 303: ("POST", "PUT", "DELETE")}
"""
What browsers do: the page that the redirect leads to is only looked at.
"""


class WebRequests:
    """
    Asks web servers for what devices want.
    """

    def __init__(
        self,
        reach: Reach,
        fetcher: IHttpFetcher,
        log: Category,
        original_host: bool = False,
        absolute: bool = False,
    ) -> None:
        """
        @param original_host: C{mp.http.host-header=original}.
        @param absolute: C{mp.http.request-target=absolute}.
        """
        self._reach = reach
        self._fetcher = fetcher
        self._log = log
        self._original_host = original_host
        self._absolute = absolute

    async def fetch(
        self, message: HttpRequest, device_host: str, device_port: int
    ) -> HttpFetched:
        """
        Ask, and follow redirects as far as they may be followed; one that may not is
        the answer itself.

        @param message: With a URI.
        @raise BadUrl: If the URI is not one that can be asked for.
        @raise BadHeader: If a header cannot be sent.
        @raise Refused: If the device may not go there.
        @raise NoAddress: If nobody is there.
        @raise FetchError: If there is no answer.
        """
        method = METHODS[message.method] if 0 <= message.method < 4 else METHODS[0]
        headers = request_headers(message.headers, device_host, device_port)
        body = message.body or b""
        place = await self._reach.place(parse_url(message.uri or ""))
        for _ in range(MOST_REDIRECTS):
            fetched = await self._ask(place, method, headers, body)
            following = await self._next(place, fetched)
            if following is None:
                return fetched
            if method in _TURN_INTO_GET.get(fetched.status, ()):
                method, headers, body = METHODS[0], without_content(headers), b""
            if following.url.origin != place.url.origin:
                headers = without_credentials(headers)
            place = following
        return await self._ask(place, method, headers, body)

    async def _ask(
        self, place: Place, method: str, headers: Pairs, body: bytes
    ) -> HttpFetched:
        host = host_header(place, self._original_host).encode("ascii")
        uri = place.url.path
        if self._absolute:
            uri = absolute_target(place, self._original_host)
        return await self._fetcher.fetch(
            HttpFetch(place.target, method, uri, ((b"host", host), *headers), body)
        )

    async def _next(self, place: Place, fetched: HttpFetched) -> Place | None:
        """
        Find out where a response sends us, if it does and if we go there.
        """
        if fetched.status not in _REDIRECTS:
            return None
        locations = [v for n, v in fetched.headers if n.lower() == b"location"]
        if not locations:
            return None
        location = locations[0].decode("utf-8", "replace")
        try:
            url = resolve_location(place.url, location)
            return await self._reach.redirect(place, url)
        except (BadUrl, Refused) as error:
            self._log.warn(
                "redirect not followed, from={url}, to={location}: {error}",
                url=str(place.url),
                location=location,
                error=str(error),
            )
            return None
