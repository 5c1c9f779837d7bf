"""
The built-in providers of the core's extension points (server 19.2, 19.3).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import msgspec

from zope.interface import implementer

from mpush_tw.interfaces import (
    DnsTarget,
    Event,
    IBindValidator,
    IDnsMapping,
    IJsonCodec,
    IServerEventListener,
    IUpstreamHandler,
    UpstreamMessage,
)
from mpush_tw.protocol.fields import encode_json

_HTTP_PORT = 80


@implementer(IServerEventListener)
class IgnoreEvents:
    """
    Hears nothing. Naming it in the settings silences those that are installed.
    """

    def event_occurred(self, event: Event) -> None:
        return None


@implementer(IBindValidator)
class AcceptEveryBind:
    """
    Binds whoever asks.
    """

    def validate(self, user_id: str, data: str | None) -> bool:
        return True


@implementer(IUpstreamHandler)
class DropUpstream:
    """
    Takes every message and keeps none; the log line and the acknowledgement are the
    server's (server 8.6).
    """

    def message_received(self, message: UpstreamMessage) -> None:
        return None


@implementer(IJsonCodec)
class MsgspecJson:
    """
    JSON by the library that the rest of the node uses.
    """

    def encode(self, value: object) -> bytes:
        return encode_json(value)

    def decode(self, text: bytes) -> object:
        try:
            return msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ValueError(str(error)) from None


@implementer(IDnsMapping)
class ConfiguredDnsMapping:
    """
    The targets of C{mp.http.dns-mapping}, one of them at random for each request
    (server 15.4).
    """

    def __init__(self, mapping: Mapping[str, Sequence[str]]) -> None:
        """
        @param mapping: For each host name its targets, C{host} or C{host:port}; the
            port is 80 by default.
        """
        self._targets = {
            host: [_target(text) for text in targets]
            for host, targets in mapping.items()
        }

    def lookup(self, host: str) -> DnsTarget | None:
        targets = self._targets.get(host)
        return random.choice(targets) if targets else None


def _target(text: str) -> DnsTarget:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit():
        return DnsTarget(text.strip("[]"), _HTTP_PORT)
    return DnsTarget(host.strip("[]"), int(port))
