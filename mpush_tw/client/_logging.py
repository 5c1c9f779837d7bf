"""
Where a client logs to: C{twisted.logger}, or a logger with the Java SDK's methods.
"""

from __future__ import annotations

from functools import cache

from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    globalLogPublisher,
)
from zope.interface import implementer

_METHODS = {
    LogLevel.debug: "d",
    LogLevel.info: "i",
    LogLevel.warn: "w",
    LogLevel.error: "e",
    LogLevel.critical: "e",
}


@implementer(ILogObserver)
class JavaStyleLogObserver:
    """
    Hands log lines to an object with the methods C{d}, C{i}, C{w}, C{e} (clients 2.1).
    """

    def __init__(self, target: object) -> None:
        self._target = target

    def __call__(self, event: LogEvent) -> None:
        text = formatEvent(event)
        failure = event.get("log_failure")
        if failure is not None:
            text = f"{text}: {failure.getTraceback()}"
        method = getattr(self._target, _METHODS[event["log_level"]], None)
        if method is not None:
            method(text)


@cache
def _standard_log(verbose: bool) -> Logger:
    # Two for the whole process: thousands of clients need not have one each.
    return _log(globalLogPublisher, verbose)


def client_log(target: object | None, verbose: bool) -> Logger:
    """
    Make the log of one client.

    @param target: A logger with Java's methods, or C{None} for C{twisted.logger}.
    @param verbose: Whether anything below a warning is wanted.
    """
    if target is None:
        return _standard_log(verbose)
    return _log(JavaStyleLogObserver(target), verbose)


def _log(observer: ILogObserver, verbose: bool) -> Logger:
    if not verbose:
        quiet = LogLevelFilterPredicate(defaultLogLevel=LogLevel.warn)
        observer = FilteringLogObserver(observer, [quiet])
    return Logger(namespace="mpush_tw.client", observer=observer)
