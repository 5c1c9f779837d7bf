"""
What the providers see of Redis: a place that runs commands, whichever mode it is in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mpush_tw.integrations.redis._commands import Command
from mpush_tw.integrations.redis._connection import Reply


class Store(Protocol):
    """
    Runs commands.
    """

    def start(self) -> Deferred[None]:
        """
        Connect; fails with L{mpush_tw.errors.Unavailable}, and all is as before.
        """
        ...

    def stop(self) -> Deferred[None]:
        """
        Disconnect; never fails. Idempotent.
        """
        ...

    def execute(self, command: Command) -> Deferred[Reply]:
        """
        Run a command.

        @return: Fires with the answer; fails with
            L{mpush_tw.integrations.redis._connection.Refused} when that is an error,
            and with L{mpush_tw.errors.Unavailable} when there is none.
        """
        ...


class Restored:
    """
    Those who want to know that the store can be used again after it could not.
    """

    _log = Logger()

    def __init__(self) -> None:
        self._listeners: list[Callable[[], None]] = []

    def add(self, listener: Callable[[], None]) -> None:
        """
        Have a listener called from now on.
        """
        self._listeners.append(listener)

    def tell(self) -> None:
        """
        Call all listeners; one that raises is logged and harms nobody.
        """
        for listener in list(self._listeners):
            try:
                listener()
            except Exception:
                self._log.failure("listener of a restored store failed", Failure())
