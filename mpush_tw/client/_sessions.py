"""
The stored session of one client (clients 2.7 and 10.3, 10).
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mpush_tw.client.storage import ISessionStorage, StoredSession


class Sessions:
    """
    Stands between the client and its storage: what fails there is logged and costs no
    more than a full handshake.
    """

    __slots__ = ("_clock", "_log", "_patience", "_storage")

    def __init__(
        self,
        storage: ISessionStorage,
        clock: IReactorTime,
        patience: float,
        log: Logger,
    ) -> None:
        """
        @param clock: Tells Unix time.
        @param patience: Seconds that C{get} may take.
        """
        self._storage = storage
        self._clock = clock
        self._patience = patience
        self._log = log

    def load(self) -> Deferred[StoredSession | None]:
        """
        @return: Fires with a session that is worth trying, or C{None}. Never fails. A
            text that is damaged or has expired is cleared (defect 12.6).
        """
        loading: Deferred[str | None] = maybeDeferred(cast(Any, self._storage.get))
        loading.addTimeout(self._patience, self._clock)
        loading.addErrback(self._failed, "get")
        return loading.addCallback(self._judge).addErrback(self._failed, "get")

    def save(self, session: StoredSession) -> None:
        saving = maybeDeferred(cast(Any, self._storage.save), session.encode())
        saving.addErrback(self._failed, "save")

    def clear(self) -> None:
        clearing = maybeDeferred(cast(Any, self._storage.clear))
        clearing.addErrback(self._failed, "clear")

    def _judge(self, text: str | None) -> StoredSession | None:
        if not text:
            return None
        session = StoredSession.decode(text)
        if session is not None and session.expire_ms >= self._clock.seconds() * 1000:
            return session
        self._log.info("the stored session has expired or is damaged")
        self.clear()
        return None

    def _failed(self, failure: Failure, operation: str) -> None:
        if failure.check(CancelledError, TimeoutError):
            self._log.warn(
                "the session storage did not {operation} in time", operation=operation
            )
        else:
            self._log.failure(
                "the session storage failed to {operation}",
                operation=operation,
                failure=failure,
            )
