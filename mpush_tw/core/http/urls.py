"""
URLs that devices send, and addresses that names stand for: what they mean, with no room
for two opinions.

A proxy is used to reach what its owner did not mean to offer by URLs that it and the
library below it read differently. So there is one reading, made here, and everything
that is not plainly an http or https URL of a host is refused (DESIGN 5.9). What goes to
the backend is put together from the parts, never cut out of what the device sent.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final, NamedTuple
from urllib.parse import quote, urljoin

from mpush_tw.errors import MPushError

Address = IPv4Address | IPv6Address

_URL: Final = re.compile(r"(?i:(https?)):(?://([^/?#]*))?([^#]*)")
_NAME: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?")
_CONTROL: Final = re.compile(r"[\x00-\x20\x7f]")
_LONGEST_HOST: Final = 253
_LONGEST_LABEL: Final = 63
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_KEPT: Final = "".join(map(chr, range(0x21, 0x7F)))
_NAT64: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))


class BadUrl(MPushError):
    """
    Not a URL that the proxy serves.

    @ivar suspicious: Whether it looks like an attempt to reach something else than it
        says (an address in an odd form, a user name before the host); not only broken.
    """

    def __init__(self, problem: str, suspicious: bool = False) -> None:
        super().__init__(problem)
        self.suspicious = suspicious


class Url(NamedTuple):
    """
    An absolute URL, taken apart.

    @ivar scheme: C{http} or C{https}.
    @ivar host: A host name in lower case without a final dot, or an address in its
        canonical form, an IPv6 one without brackets.
    @ivar port: 1 to 65535.
    @ivar path: Path and query as they go out: ASCII without blanks, begins with a
        slash.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> tuple[str, str, int]:
        """
        What two URLs have in common that lead to the same place.
        """
        return self[:3]

    @property
    def authority(self) -> str:
        """
        Host and, unless it is the scheme's own, port.
        """
        return authority(self.scheme, self.host, self.port)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


def authority(scheme: str, host: str, port: int) -> str:
    """
    Write a host and a port as in a URL or a C{Host} header (S-36).

    @param host: As L{Url.host}.
    """
    shown = f"[{host}]" if ":" in host else host
    return shown if port == _DEFAULT_PORTS[scheme] else f"{shown}:{port}"


def parse_url(text: str) -> Url:
    """
    Read an absolute URL; the fragment is dropped, as the original does.

    @raise BadUrl: If it is not one, or not plainly.
    """
    if _CONTROL.search(text):
        raise BadUrl("a blank or control character in the URL")
    match = _URL.fullmatch(text.partition("#")[0])
    if match is None:
        raise BadUrl("not an http or https URL")
    scheme, place, path = match.groups()
    if not place:
        raise BadUrl("no host in the URL")
    if "@" in place:
        raise BadUrl("a user name in the URL", suspicious=True)
    scheme = scheme.lower()
    host, port = _host_and_port(place, _DEFAULT_PORTS[scheme])
    if not path.startswith("/"):
        path = "/" + path
    return Url(scheme, host, port, quote(path, safe=_KEPT, errors="replace"))


def resolve_location(base: Url, location: str) -> Url:
    """
    Find out where a redirect leads (RFC 3986, 5).

    @param location: Of the header; what no URL holds as it stands is escaped.
    @raise BadUrl: As L{parse_url}.
    """
    escaped = quote(location.strip(" \t"), safe=_KEPT, errors="replace")
    try:
        return parse_url(urljoin(str(base), escaped))
    except ValueError as error:
        raise BadUrl(f"a redirect that cannot be read: {error}") from None


def without_user(text: str) -> str:
    """
    Make a URL fit for a log: who names a user there names the password, too (S-39).
    """
    return re.sub(r"//[^/?#]*@", "//***@", text)


def _host_and_port(place: str, default_port: int) -> tuple[str, int]:
    if place.startswith("["):
        inner, bracket, rest = place[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise BadUrl("an IPv6 address that is not closed", suspicious=True)
        return _ipv6(inner), _port(rest[1:], default_port)
    host, _, port = place.partition(":")
    return parse_host(host), _port(port, default_port)


def _port(text: str, default: int) -> int:
    if not text:
        return default
    if not re.fullmatch("[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise BadUrl("no port number behind the host")
    return int(text)


def _ipv6(text: str) -> str:
    # No zone: it would choose an interface of this machine.
    try:
        if "%" not in text:
            return str(IPv6Address(text))
    except ValueError:
        pass
    raise BadUrl("not an IPv6 address between the brackets", suspicious=True)


def parse_host(text: str) -> str:
    """
    Read a host name or an IPv4 address.

    Whatever ends in a number is an address for one resolver or another (C{2130706433},
    C{0x7f.1}, C{127.1}, C{0177.0.0.1}), so only the usual form of one is accepted.
    Names in other scripts must come in their ASCII form: what they become depends on
    who translates them.

    @return: As L{Url.host}.
    @raise BadUrl: If it is neither.
    """
    if not text.isascii():
        raise BadUrl("a host name that is not in ASCII", suspicious=True)
    host = text.lower().removesuffix(".")
    labels = host.split(".")
    if re.fullmatch("[0-9]+|0x[0-9a-f]*", labels[-1]):
        try:
            return str(IPv4Address(host))
        except ValueError:
            raise BadUrl(
                "an address in another form than a.b.c.d", suspicious=True
            ) from None
    if len(host) > _LONGEST_HOST or not all(
        len(label) <= _LONGEST_LABEL and _NAME.fullmatch(label) for label in labels
    ):
        raise BadUrl("no host name that DNS could know", suspicious=bool(host))
    return host


def normal_host(text: str) -> str:
    """
    Bring a host of the settings into the form of L{Url.host}.

    @raise BadUrl: If it is no host.
    """
    bare = text.strip("[]")
    return _ipv6(bare) if ":" in bare else parse_host(bare)


def address_of(host: str) -> Address | None:
    """
    Give the address that a host is written as; C{None} for a name.
    """
    try:
        return ip_address(host)
    except ValueError:
        return None


def is_public(address: Address) -> bool:
    """
    Whether an address belongs to the open internet: not to this machine, its networks,
    its link, or a group. Addresses that stand for another one are as public as that.
    """
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address.teredo is not None:
            inner = address.teredo[1]
        for network in _NAT64:
            if address in network:
                inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved)
