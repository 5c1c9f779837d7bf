"""
The built-in providers of the core's extension points (server 19.2, 19.3).
"""

from __future__ import annotations

import msgspec

from zope.interface import implementer

from mpush_tw.interfaces import (
    Event,
    IBindValidator,
    IJsonCodec,
    IServerEventListener,
    IUpstreamHandler,
    UpstreamMessage,
)
from mpush_tw.protocol.fields import encode_json


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
