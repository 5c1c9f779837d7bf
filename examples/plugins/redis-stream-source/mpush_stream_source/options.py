"""
What the operator may set.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from mpush_tw.config import units
from mpush_tw.errors import ConfigError
from mpush_tw.interfaces import IExtensionContext

KEYS = "mp.spi-settings.redis-stream-source"
"""
Below it the operator writes what this plug-in needs to know.
"""


@attrs.frozen
class Options:
    """
    All of it.

    @ivar redis: Host and port.
    @ivar password: Empty for none.
    @ivar stream: The stream that all nodes read; a node's own has C{@host:port} behind
        this name.
    @ivar group: The consumer group.
    @ivar results: The stream that outcomes are written to.
    @ivar results_max_length: About how many of them it keeps.
    @ivar in_flight: Entries that are being worked on at a time.
    @ivar claim_idle: Seconds after which an entry that another node has taken and not
        finished is taken over from it.
    """

    redis: tuple[str, int]
    password: str = attrs.field(repr=False)
    stream: str
    group: str
    results: str
    results_max_length: int
    in_flight: int
    claim_idle: float

    @classmethod
    def read(cls, context: IExtensionContext) -> Options:
        """
        Read them.

        @raise ConfigError: If one cannot be used.
        """

        def value(name: str, default: str, read: Callable[[str], Any] = str) -> Any:
            written = str(context.setting(f"{KEYS}.{name}", default))
            try:
                return read(written)
            except ValueError as error:
                raise ConfigError(
                    f"{KEYS}.{name}", f"found {written}, {error}"
                ) from None

        def number(written: str) -> int:
            return units.integer(written, 1)

        return cls(
            value("redis", "127.0.0.1:6379", host_and_port),
            value("password", ""),
            value("stream", "mpush:push"),
            value("group", "mpush"),
            value("results", "mpush:push:results"),
            value("results-max-length", "100000", number),
            value("in-flight", "1000", number),
            value("claim-idle", "60s", lambda text: units.duration(text, 0.1)),
        )


def host_and_port(written: str) -> tuple[str, int]:
    """
    Read C{host:port}.

    @raise ValueError: If it is none.
    """
    host, _, port = written.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("expected a server such as 127.0.0.1:6379")
    return host.strip("[]"), int(port)
