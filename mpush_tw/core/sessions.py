"""
The reusable sessions of the cluster: what FAST_CONNECT finds (server 9).
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from mpush_tw.interfaces import ICache
from mpush_tw.protocol.sessions import SessionRecord

_PREFIX = "mp:rs:"


class ReusableSessions:
    """
    Session records in the shared store, by session id.
    """

    def __init__(self, cache: ICache, ttl_seconds: int) -> None:
        """
        @param ttl_seconds: How long a record lives; 0 or less means for ever.
        """
        self._cache = cache
        self.ttl_seconds = ttl_seconds

    def store(self, session_id: str, record: SessionRecord) -> Deferred[None] | None:
        """
        Keep a record.

        @return: C{None} when there is nothing to keep: the device id cannot be part
            of a record (D11), and the device's FAST_CONNECT will get 103.
        """
        text = record.encode()
        if text is None:
            return None
        return self._cache.set(_PREFIX + session_id, text, self.ttl_seconds)

    async def find(self, session_id: str) -> SessionRecord | None:
        """
        Look a record up. It is neither consumed nor refreshed (server 8.3).

        @raise Unavailable: If the store is down.
        @return: C{None} when there is none, or none that can be read.
        """
        text = await self._cache.get(_PREFIX + session_id)
        return None if not text else SessionRecord.decode(text)
