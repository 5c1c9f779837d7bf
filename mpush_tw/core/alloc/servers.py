"""
A server that clients may be sent to, read from what is registered (services A4, A8).

Anything may stand in the registry: older nodes write other attributes, and who has the
password writes what he likes. What no client could use is no server.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Mapping

import attrs

from mpush_tw.interfaces import ServiceNode

CONNECT_SERVERS = "/cluster/cs"
WEBSOCKET_SERVERS = "/cluster/ws"
"""
Where servers for devices and for web pages are registered (cluster 3.4).
"""

ONLINE_LISTS = "mp:oul:"
"""
Begins the names of the lists of online users; a public address follows (cluster 2.6).
"""

ONLINE_KEY = "online_key"
"""
The attribute in which a node of ours names its list of online users, where that is not
the one of the address that it is registered under (A-4). The original's alloc does not
look at it.
"""

_PUBLIC_IP = "public_ip"
_WEIGHT = "weight"
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.IGNORECASE | re.ASCII)
_LONGEST_NAME = 253
_LONGEST_KEY = len(ONLINE_LISTS) + _LONGEST_NAME


@attrs.frozen
class Server:
    """
    One entry of the list.

    @ivar host: An IPv4 address or a host name: clients split at the colon (A2).
    @ivar port: 1 to 65535.
    @ivar weight: Its share of the clients beside others, 0 or more; 0 takes it off the
        list and leaves its clients where they are.
    @ivar online_list: The key of the sorted set of its users.
    @ivar node_id: What it is registered under.
    """

    host: str
    port: int
    weight: float
    online_list: str
    node_id: str

    @property
    def address(self) -> str:
        """
        The entry as clients get it.
        """
        return f"{self.host}:{self.port}"


def read_server(node: ServiceNode) -> Server | None:
    """
    Take a registered node for what it is to a client.

    Its address is the attribute C{public_ip}, which nodes of 0.7 have, or else its host
    (A4).

    @return: C{None} if no client could use it.
    """
    known = node.attributes or {}
    public_ip = known.get(_PUBLIC_IP)
    host = public_ip if isinstance(public_ip, str) and public_ip else node.host
    if not is_client_host(host) or not 1 <= node.port <= 65535:
        return None
    online_list = known.get(ONLINE_KEY)
    if not _is_online_list(online_list):
        online_list = ONLINE_LISTS + host
    return Server(
        host, node.port, read_weight(known.get(_WEIGHT)), str(online_list), node.node_id
    )


def registered_attributes(
    configured: Mapping[str, object], host: str, public_ip: str
) -> dict[str, object]:
    """
    Give the attributes under which a node registers its connection server: those that
    are configured, and where its users are counted if its address does not tell.

    @param host: The address that it registers.
    @param public_ip: Names the list of its users.
    """
    if host == public_ip:
        return dict(configured)
    return {ONLINE_KEY: ONLINE_LISTS + public_ip, **configured}


def is_client_host(host: object) -> bool:
    """
    Whether every client can use an address: IPv4, or a host name.
    """
    if not isinstance(host, str) or len(host) > _LONGEST_NAME:
        return False
    labels = host.split(".")
    if labels[-1].isdigit():
        # As browsers and resolvers do: what ends in a number is meant as an address.
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            return False
        return True
    return all(map(_LABEL.fullmatch, labels))


def read_weight(written: object) -> float:
    """
    Read the attribute C{weight}: what is not a number counts as 1, what is below 0 as
    0. A number in quotes is one: C{--set …weight=0} registers a text.
    """
    weight = math.nan
    if isinstance(written, (int, float, str)) and not isinstance(written, bool):
        try:
            weight = float(written)
        except (ValueError, OverflowError):
            pass
    return max(weight, 0.0) if math.isfinite(weight) else 1.0


def _is_online_list(key: object) -> bool:
    return (
        isinstance(key, str)
        and key.startswith(ONLINE_LISTS)
        and len(key) <= _LONGEST_KEY
    )
