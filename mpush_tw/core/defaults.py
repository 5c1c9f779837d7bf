"""
The built-in providers of the core's extension points (server 19.2).
"""

from __future__ import annotations

from zope.interface import implementer

from mpush_tw.interfaces import IBindValidator, IUpstreamHandler, UpstreamMessage


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
