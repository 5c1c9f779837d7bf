"""
The node's own addresses: what it listens on and what it tells others (operations 3).

Settings come first; what they leave open is found out by looking at the network
interfaces. Only IPv4 counts, as for the original. Every function takes the interfaces
as an argument, so that one look serves all of them and a test needs no network; the
composition asks once and keeps the answers, because addresses published in Redis and
ZooKeeper must not change while a node runs.
"""

from __future__ import annotations

import array
import fcntl
import ipaddress
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from twisted.logger import Logger

from mpush_tw.config.settings import Settings
from mpush_tw.errors import ConfigError

__all__ = [
    "InterfaceAddress",
    "connect_register_ip",
    "gateway_bind_ip",
    "gateway_register_ip",
    "interface_addresses",
    "local_ip",
    "multicast_ip",
    "public_ip",
]

_log = Logger()

LOOPBACK: Final = "127.0.0.1"

_SITE_LOCAL = [
    ipaddress.IPv4Network(network)
    for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
]

# linux/sockios.h, net/if.h; the layout is that of struct ifreq and struct ifconf.
_SIOCGIFCONF = 0x8912
_SIOCGIFFLAGS = 0x8913
_IFF_UP = 0x1
_IFREQ_SIZE = struct.calcsize("16sHHI") + struct.calcsize("PP")
_MAX_ADDRESSES = 1024


@attrs.frozen
class InterfaceAddress:
    """
    One IPv4 address of this machine.

    @ivar interface: The interface's name, C{"eth0"}.
    @ivar address: The address, dotted.
    @ivar default_route: Whether the default route leaves through this interface.
    """

    interface: str
    address: str
    default_route: bool = False

    @property
    def is_loopback(self) -> bool:
        return ipaddress.IPv4Address(self.address).is_loopback

    @property
    def is_site_local(self) -> bool:
        """
        Whether the address is in 10/8, 172.16/12 or 192.168/16.
        """
        address = ipaddress.IPv4Address(self.address)
        return any(address in network for network in _SITE_LOCAL)


Interfaces = Sequence[InterfaceAddress] | None
"""
What the functions take: the addresses of this machine, or None to look them up.
"""


def interface_addresses(
    list_all: Callable[[], list[tuple[str, str]]] | None = None,
    read_routes: Callable[[], str] | None = None,
) -> list[InterfaceAddress]:
    """
    List the addresses of all interfaces that are up, in the system's order.

    A machine that does not let us look counts as one without addresses; that is logged
    (operations 3).

    @param list_all: Gives names and addresses; for tests.
    @param read_routes: Gives the text of C{/proc/net/route}; for tests.
    """
    try:
        found = (list_all or _list_addresses)()
    except OSError:
        _log.failure("network interfaces cannot be listed")
        return []
    try:
        default = _default_interface((read_routes or _read_routes)())
    except OSError:
        default = ""
    return [
        InterfaceAddress(name, address, name.partition(":")[0] == default)
        for name, address in found
    ]


def _list_addresses() -> list[tuple[str, str]]:
    buffer = array.array("B", bytes(_MAX_ADDRESSES * _IFREQ_SIZE))
    where, size = buffer.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("iP", size, where)
        (size, _) = struct.unpack(
            "iP", fcntl.ioctl(probe.fileno(), _SIOCGIFCONF, request)
        )
        found = []
        for start in range(0, size, _IFREQ_SIZE):
            name = bytes(buffer[start : start + 16]).rstrip(b"\0")
            address = socket.inet_ntoa(bytes(buffer[start + 20 : start + 24]))
            if _is_up(probe, name):
                found.append((name.decode(), address))
    return found


def _is_up(probe: socket.socket, name: bytes) -> bool:
    request = name.ljust(_IFREQ_SIZE, b"\0")
    try:
        answer = fcntl.ioctl(probe.fileno(), _SIOCGIFFLAGS, request)
    except OSError:  # gone since it was listed
        return False
    (flags,) = struct.unpack_from("H", answer, 16)
    return bool(flags & _IFF_UP)


def _read_routes() -> str:
    with open("/proc/net/route", encoding="ascii") as routes:
        return routes.read()


def _default_interface(routes: str) -> str:
    """
    Give the interface of the default route with the lowest metric, or nothing.
    """
    best: tuple[int, str] | None = None
    for line in routes.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8 or fields[1] != "00000000" or fields[7] != "00000000":
            continue
        candidate = (int(fields[6]), fields[0])
        best = candidate if best is None else min(best, candidate)
    return best[1] if best else ""


def _site_local(interfaces: Sequence[InterfaceAddress]) -> list[InterfaceAddress]:
    """
    Give the site-local addresses, those behind the default route first.
    """
    found = [entry for entry in interfaces if entry.is_site_local]
    return sorted(found, key=lambda entry: not entry.default_route)


def local_ip(settings: Settings, interfaces: Interfaces = None) -> str:
    """
    Give the node's address in its local network: C{mp.net.local-ip}, or the first
    site-local address, those behind the default route before others, or 127.0.0.1.

    A choice among several is logged; the other functions make the same one silently.
    """
    if interfaces is None:
        interfaces = interface_addresses()
    found = [] if settings.net.local_ip else _site_local(interfaces)
    if len(found) > 1:
        _log.info(
            "own address is {address} of {interface}; set mp.net.local-ip for another "
            "of {count}",
            address=found[0].address,
            interface=found[0].interface,
            count=len(found),
        )
    return _local_ip(settings, interfaces)


def _local_ip(settings: Settings, interfaces: Interfaces) -> str:
    if settings.net.local_ip:
        return settings.net.local_ip
    found = _site_local(interface_addresses() if interfaces is None else interfaces)
    return found[0].address if found else LOOPBACK


def public_ip(settings: Settings, interfaces: Interfaces = None) -> str:
    """
    Give the node's address as clients see it: C{mp.net.public-ip}, or what
    C{mp.net.public-host-mapping} says for the local ip, or the first address that is
    neither loopback nor site-local, or the local ip.
    """
    if settings.net.public_ip:
        return settings.net.public_ip
    if interfaces is None:
        interfaces = interface_addresses()
    own = _local_ip(settings, interfaces)
    mapped = settings.net.public_host_mapping.get(own)
    if mapped:
        return mapped
    for entry in interfaces:
        if not entry.is_loopback and not entry.is_site_local:
            return entry.address
    return own


def connect_register_ip(settings: Settings, interfaces: Interfaces = None) -> str:
    """
    Give the address published for the connect and the WebSocket server.
    """
    return settings.net.connect_server_register_ip or public_ip(settings, interfaces)


def gateway_bind_ip(settings: Settings, interfaces: Interfaces = None) -> str:
    """
    Give the address that the TCP gateway listens on (DESIGN 5b): what is configured,
    or 127.0.0.1 on a standalone node, or the local ip in a cluster.
    """
    if settings.net.gateway_server_bind_ip:
        return settings.net.gateway_server_bind_ip
    return _local_ip(settings, interfaces) if settings.cluster else LOOPBACK


def gateway_register_ip(settings: Settings, interfaces: Interfaces = None) -> str:
    """
    Give the address published for the gateway and stored in user routes: what is
    configured, or the local ip.

    On a standalone node whose gateway listens on 127.0.0.1 only, that is its address
    for others as well. C{mp.net.local-ip} flows into the register ip by default
    (C{${mp.net.local-ip}}), so the two being equal does not count as configured.
    """
    net = settings.net
    if not settings.cluster and not net.gateway_server_bind_ip:
        configured = net.gateway_server_register_ip
        return configured if configured not in ("", net.local_ip) else LOOPBACK
    return net.gateway_server_register_ip or _local_ip(settings, interfaces)


def multicast_ip(settings: Settings, interfaces: Interfaces = None) -> str:
    """
    Give the address of the interface on which UDP gateways join their group: the
    configured local ip, or the first with a site-local address, the one of the default
    route before others.

    @raise ConfigError: If there is none; the original fails to start likewise.
    """
    if settings.net.local_ip:
        return settings.net.local_ip
    found = _site_local(interface_addresses() if interfaces is None else interfaces)
    if not found:
        raise ConfigError(
            "mp.net.gateway-server-net",
            "found udp, but no interface has an address in 10/8, 172.16/12 or "
            "192.168/16 to join the multicast group on; expected tcp, or "
            "mp.net.local-ip to say which",
        )
    return found[0].address
