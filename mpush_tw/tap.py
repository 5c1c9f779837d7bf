"""
C{twistd mpush}: options, and the service made from them.
"""

from __future__ import annotations

import atexit
import gc
import os
import resource
import signal
import sys
from contextlib import suppress
from typing import Any

from twisted.application.service import IService
from twisted.internet.error import ReactorNotRunning
from twisted.python import usage
from twisted.python.failure import Failure

from mpush_tw.config import load_settings
from mpush_tw.embedding import ServerLauncher
from mpush_tw.errors import ConfigError
from mpush_tw.service import Node


class Options(usage.Options):
    """
    The little that an operator changes for one run.
    """

    synopsis = "[--config FILE] [--set mp.key=value]..."
    longdesc = (
        "Run an MPush server. Without --config the file named by MP_CONF is read, or "
        "none: then everything has its default and the node is standalone. "
        "`mpush config check FILE` looks at a file without starting anything."
    )
    optParameters = [
        ["config", "c", None, "The configuration, a HOCON file such as mpush.conf."]
    ]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self["set"] = []

    def opt_set(self, setting: str) -> None:
        """
        Override one key for this run: mp.key=value. May be repeated.
        """
        if "=" not in setting:
            raise usage.UsageError(f"--set {setting}: expected mp.key=value")
        self["set"].append(setting)


class MpushNode(Node):
    """
    A node that ends the process: with one sentence and status 1 when it cannot start,
    with status 0 when it is terminated (operations 4.2).
    """

    def privilegedStartService(self) -> None:
        try:
            super().privilegedStartService()
        except ConfigError as error:
            _give_up(error)

    def startService(self) -> None:
        # Now, because the process may be told to end before its reactor runs; again,
        # because the reactor puts a handler of its own in place then.
        signal.signal(signal.SIGTERM, self._terminated)
        self.started.addErrback(self._not_started)
        super().startService()
        self.reactor.callWhenRunning(signal.signal, signal.SIGTERM, self._terminated)

    def _not_started(self, failure: Failure) -> None:
        """
        Say why, in one sentence, and end the process with status 1.
        """
        self.log.console.error("not started: {error}", error=failure.value)
        print(f"mpush: {failure.value}", file=sys.stderr, flush=True)
        # C{twistd} knows no status: it would end with 0, after it has cleaned up.
        atexit.register(_leave_with_failure)
        self.reactor.callWhenRunning(self._stop_reactor)

    def _terminated(self, number: int, frame: object) -> None:
        """
        Take C{SIGTERM} as the order to stop that it is. The reactor's own handler would
        have C{twistd} die by the signal after a clean stop.
        """
        self.reactor.callFromThread(self._stop_reactor)

    def _stop_reactor(self) -> None:
        with suppress(ReactorNotRunning):
            # A second signal while the stop is under way changes nothing.
            self.reactor.stop()


def makeService(options: Options, reactor: Any = None) -> IService:
    """
    Make the service; called by C{twistd}.
    """
    if reactor is None:
        from twisted.internet import reactor
    try:
        # First, because the node asks how many connections that leaves room for.
        _raise_file_limit()
        loaded = load_settings(options["config"], options["set"])
        node = ServerLauncher(loaded, reactor, make_node=MpushNode).init()
    except ConfigError as error:
        _give_up(error)
    _tune_garbage_collection()
    return node


def _give_up(error: ConfigError) -> Any:
    print(f"mpush: {error}", file=sys.stderr, flush=True)
    raise SystemExit(1)


def _leave_with_failure() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _raise_file_limit() -> None:
    """
    Take as many files as the system allows: most start a process with 1024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _tune_garbage_collection() -> None:
    """
    Collect less eagerly: tens of thousands of long-lived connections make each full
    collection long, and there is next to no cyclic garbage.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
