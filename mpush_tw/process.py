"""
What a service does to the process that runs it: end it, with the right status.
"""

from __future__ import annotations

import atexit
import os
import resource
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.python.failure import Failure

from mpush_tw.core.log import NodeLog
from mpush_tw.errors import ConfigError

if TYPE_CHECKING:
    _Base = Service
else:
    # Only mixed into a service.
    _Base = object


class EndsProcess(_Base):
    """
    Mixed into a service: it ends the process, with one sentence and status 1 when it
    cannot start, with status 0 when it is terminated (operations 4.2).

    @ivar started: The service's own: fires when it serves, fails when it cannot.
    """

    started: Deferred[None]
    reactor: Any
    log: NodeLog

    def privilegedStartService(self) -> None:
        try:
            super().privilegedStartService()  # type: ignore[no-untyped-call]
        except ConfigError as error:
            give_up(error)

    def startService(self) -> None:
        # Now, because the process may be told to end before its reactor runs; again,
        # because the reactor puts a handler of its own in place then.
        signal.signal(signal.SIGTERM, self._terminated)
        self.started.addErrback(self._not_started)
        super().startService()  # type: ignore[no-untyped-call]
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


def give_up(error: ConfigError) -> NoReturn:
    """
    Say why, in one sentence, and end the process with status 1.
    """
    print(f"mpush: {error}", file=sys.stderr, flush=True)
    raise SystemExit(1)


def raise_file_limit() -> None:
    """
    Take as many files as the system allows: most start a process with 1024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _leave_with_failure() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
