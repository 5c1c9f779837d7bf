"""
Where requests of devices may go, and where they really go (server 15.4, DESIGN 5.9).

The ladder for a host, the first rule that applies:

  1. A mapping has a target for it: that, whatever its address. The operator has said
     so.
  2. It is named in C{mp.http.dns-mapping} or C{mp.http.allowed-hosts}: the public
     addresses that it has.
  3. It is none of a device's business: refused.

A host is looked up once. What comes out is judged, and it is these addresses that the
connection is made to: between the judgement and the connection nobody can say anything
else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

import attrs

from mpush_tw.core.http.urls import BadUrl, Url, address_of, is_public, normal_host
from mpush_tw.errors import MPushError
from mpush_tw.interfaces import DnsTarget, HttpTarget, IDnsMapping

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""
Gives the IP addresses of a name; none if it has none. Does not fail.
"""


class Refused(MPushError):
    """
    A device may not go there.
    """


class NoAddress(MPushError):
    """
    Nobody knows where that is, or nobody is there now.
    """


@attrs.frozen
class Place:
    """
    Where a URL leads.

    @ivar url: As it was asked for.
    @ivar mapped: What the mapping says; C{None} where it says nothing.
    @ivar target: Whom to connect to.
    """

    url: Url
    mapped: DnsTarget | None
    target: HttpTarget

    @property
    def mapped_url(self) -> Url:
        """
        The URL with the mapping's host and port in it (server 15.4).
        """
        if self.mapped is None:
            return self.url
        try:
            host = normal_host(self.mapped.host)
        except BadUrl:
            host = self.mapped.host
        return self.url._replace(host=host, port=self.mapped.port)


class Reach:
    """
    What devices can reach.
    """

    def __init__(
        self,
        mapping: IDnsMapping,
        mapped_hosts: Iterable[str],
        allowed_hosts: Iterable[str],
        resolve: Resolve,
        follow_outside: bool = False,
    ) -> None:
        """
        @param mapped_hosts: Names in C{mp.http.dns-mapping}; the mapping may know more,
            and may have no target for one of these now.
        @param allowed_hosts: C{mp.http.allowed-hosts}.
        @param follow_outside: Whether redirects may lead to hosts that are not named.
        @raise BadUrl: If one of the names is none.
        """
        self._mapping = mapping
        self._mapped = frozenset(map(normal_host, mapped_hosts))
        self._allowed = frozenset(map(normal_host, allowed_hosts))
        self._resolve = resolve
        self._follow_outside = follow_outside

    async def place(self, url: Url) -> Place:
        """
        Find the place of a URL that a device has sent.

        @raise Refused: If the device may not go there.
        @raise NoAddress: If there is nobody.
        """
        return await self._place(url, outside=False)

    async def redirect(self, before: Place, url: Url) -> Place:
        """
        Find the place that a redirect leads to.

        @param before: Where it came from.
        @raise Refused: If it may not be followed.
        @raise NoAddress: If there is nobody.
        """
        if url.origin in (before.url.origin, before.mapped_url.origin):
            # The same server, by the name that it was asked under or by its own.
            return attrs.evolve(before, url=before.url._replace(path=url.path))
        return await self._place(url, self._follow_outside)

    async def _place(self, url: Url, outside: bool) -> Place:
        mapped = self._mapping.lookup(url.host)
        if mapped is not None:
            addresses = await self._addresses(mapped.host)
            if not addresses:
                raise NoAddress(f"{mapped.host}, which {url.host} is mapped to")
            target = HttpTarget(url.scheme, url.host, mapped.port, addresses)
            return Place(url, mapped, target)
        known = url.host in self._allowed or url.host in self._mapped
        if not known and not outside:
            raise Refused(
                f"{url.host} is neither in mp.http.dns-mapping nor in "
                "mp.http.allowed-hosts"
            )
        addresses = await self._addresses(url.host)
        if not addresses:
            raise NoAddress(url.host)
        public = tuple(
            one for one in addresses if (a := address_of(one)) and is_public(a)
        )
        if not public:
            if url.host in self._mapped:
                raise NoAddress(f"no backend of {url.host} can be reached")
            raise Refused(
                f"{url.host} is at {addresses[0]}, which only mp.http.dns-mapping "
                "leads to"
            )
        return Place(url, None, HttpTarget(url.scheme, url.host, url.port, public))

    async def _addresses(self, host: str) -> tuple[str, ...]:
        """
        Give the addresses of a host, those of IPv4 first, in an order that does not
        change from one question to the next: connections are kept under them.
        """
        bare = host.strip("[]")
        if address_of(bare) is not None:
            return (bare,)
        return tuple(sorted(set(await self._resolve(bare)), key=_rank))


def _rank(address: str) -> tuple[bool, str]:
    return ":" in address, address


def host_header(place: Place, keep_original: bool) -> str:
    """
    Say what C{Host} the server is told (S-36).

    @param keep_original: Whether an http server of the mapping is told the host of the
        device's URL instead of its own address. An https server always is: its
        certificate is for that.
    """
    return _shown(place, keep_original).authority


def absolute_target(place: Place, keep_original: bool) -> str:
    """
    Write the whole URL, as the original asks for it (server 15.2).
    """
    return str(_shown(place, keep_original))


def _shown(place: Place, keep_original: bool) -> Url:
    if keep_original or place.url.scheme == "https":
        return place.url
    return place.mapped_url
