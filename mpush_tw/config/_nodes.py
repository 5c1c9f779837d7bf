"""
Addresses of Redis nodes and ZooKeeper servers, as configured, in parts.
"""

from __future__ import annotations

import re

import attrs

__all__ = ["RedisNode", "host_and_port", "redis_node", "zookeeper_addresses"]

_HOST = r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/,\[\]]+)"
_REDIS_NODE = re.compile(rf"{_HOST}:(?P<port>[0-9]{{1,5}})(?::(?P<password>.*))?")
_HOST_PORT = re.compile(rf"{_HOST}(?::(?P<port>[0-9]{{1,5}}))?")


@attrs.frozen
class RedisNode:
    """
    One element of C{mp.redis.nodes}.

    @ivar host: Host name or address, without brackets.
    @ivar port: 1 to 65535.
    @ivar password: What stands behind the port (the form of 0.8.0 and earlier), or an
        empty string.
    @ivar written: The element as configured.
    """

    host: str
    port: int
    password: str = attrs.field(default="", repr=False)
    written: str = attrs.field(default="", repr=False)


def _port(text: str) -> int | None:
    port = int(text)
    return port if 1 <= port <= 65535 else None


def redis_node(written: str) -> RedisNode:
    """
    Read C{host:port} or C{host:port:password}.

    @raise ValueError: If it is neither, with what was expected.
    """
    match = _REDIS_NODE.fullmatch(written)
    port = match and _port(match["port"])
    if match is None or not port:
        raise ValueError("expected nodes as host:port or host:port:password")
    return RedisNode(match["host"].strip("[]"), port, match["password"] or "", written)


def host_and_port(written: str) -> tuple[str, int | None]:
    """
    Read C{host} or C{host:port}.

    @raise ValueError: If it is neither, with what was expected.
    """
    match = _HOST_PORT.fullmatch(written)
    port = match and match["port"] and _port(match["port"])
    if match is None or (match["port"] and not port):
        raise ValueError("expected a host or host:port")
    return match["host"].strip("[]"), port or None


def zookeeper_addresses(written: str) -> str:
    """
    Accept C{host:port,host:port}, with an optional path behind the last, or nothing.

    @return: C{written} without blanks around its parts.
    @raise ValueError: If a part is not an address, with what was expected.
    """
    servers, slash, path = written.strip().partition("/")
    parts = [part.strip() for part in servers.split(",")] if servers else []
    try:
        for part in parts:
            host_and_port(part)
    except ValueError:
        parts = []
    if written.strip() and not parts:
        raise ValueError("expected servers such as 10.0.0.1:2181,10.0.0.2:2181")
    return ",".join(parts) + slash + path
