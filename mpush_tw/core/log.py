"""
The log of one node: a category for each of the original's log files, and a level.

Where the rules are: operations 8, STYLE 12. A category is a L{twisted.logger.Logger}
with a fixed namespace and a level. What is below the level costs one attribute look-up:
code on the packet path writes C{if log.info_on: log.info(...)} and builds nothing
otherwise.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import ILogObserver, Logger, LogLevel
from twisted.python.failure import Failure

LEVELS = {
    "all": 0,
    "trace": 0,
    "debug": 1,
    "info": 2,
    "warn": 3,
    "error": 4,
    "off": 5,
}
"""
Words of C{mp.log-level} and their rank.
"""

_LINES_PER_SECOND = 500
"""
Bound on the lines of one category that packets can provoke: strangers must not fill a
disk (DESIGN 5b).
"""

_LONGEST_TEXT = 512


def printable(text: str) -> str:
    """
    Make a text that came from outside fit for a log: what does not print is escaped,
    what is too long is cut.
    """
    if len(text) > _LONGEST_TEXT:
        text = text[:_LONGEST_TEXT] + "..."
    if text.isprintable():
        return text
    return text.encode("unicode_escape").decode()


def _shown(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        name: printable(value) if type(value) is str else value
        for name, value in fields.items()
    }


class Category:
    """
    One category of the log.

    @ivar debug_on: Whether debug lines are wanted; likewise C{info_on}, C{warn_on},
        C{error_on}.
    """

    __slots__ = (
        "_clock",
        "_left",
        "_logger",
        "_second",
        "_suppressed",
        "debug_on",
        "error_on",
        "info_on",
        "warn_on",
    )

    def __init__(
        self,
        namespace: str,
        level: str,
        clock: IReactorTime,
        observer: ILogObserver | None = None,
    ) -> None:
        self._logger = Logger(namespace=namespace, observer=observer)
        self._clock = clock
        self._second = 0
        self._left = _LINES_PER_SECOND
        self._suppressed = 0
        self.set_level(level)

    def set_level(self, level: str) -> None:
        """
        @param level: A word of L{LEVELS}.
        """
        rank = LEVELS[level]
        self.debug_on = rank <= 1
        self.info_on = rank <= 2
        self.warn_on = rank <= 3
        self.error_on = rank <= 4

    def debug(self, text: str, **fields: object) -> None:
        if self.debug_on:
            self._logger.emit(LogLevel.debug, text, **_shown(fields))

    def info(self, text: str, **fields: object) -> None:
        if self.info_on and self._within_bound():
            self._logger.emit(LogLevel.info, text, **_shown(fields))

    def warn(self, text: str, **fields: object) -> None:
        if self.warn_on and self._within_bound():
            self._logger.emit(LogLevel.warn, text, **_shown(fields))

    def error(self, text: str, **fields: object) -> None:
        if self.error_on and self._within_bound():
            self._logger.emit(LogLevel.error, text, **_shown(fields))

    def failure(self, text: str, failure: Failure, **fields: Any) -> None:
        """
        Log a bug with its traceback; these are never suppressed by the level.
        """
        self._logger.failure(text, failure, **fields)

    def notice(self, text: str, **fields: object) -> None:
        """
        Log what an operator must see whatever the level: starts, stops, addresses.
        """
        self._logger.emit(LogLevel.info, text, **fields)

    def _within_bound(self) -> bool:
        second = int(self._clock.seconds())
        if second != self._second:
            suppressed, self._suppressed = self._suppressed, 0
            self._second, self._left = second, _LINES_PER_SECOND
            if suppressed:
                self._logger.emit(
                    LogLevel.warn, "{count} more lines suppressed", count=suppressed
                )
        if self._left <= 0:
            self._suppressed += 1
            return False
        self._left -= 1
        return True


class NodeLog:
    """
    The categories of one node (operations 8.1).
    """

    def __init__(
        self,
        level: str,
        clock: IReactorTime,
        observer: ILogObserver | None = None,
    ) -> None:
        """
        @param level: A word of L{LEVELS}.
        @param observer: Where lines go; the process's publisher by default.
        """

        def category(namespace: str) -> Category:
            return Category(namespace, level, clock, observer)

        self.conn = category("mpush.conn.log")
        self.push = category("mpush.push.log")
        self.heartbeat = category("mpush.heartbeat.log")
        self.http = category("mpush.http.log")
        self.console = category("console")
        self.general = category("mpush")

    def set_level(self, level: str) -> None:
        """
        @param level: A word of L{LEVELS}.
        """
        for category in vars(self).values():
            category.set_level(level)
