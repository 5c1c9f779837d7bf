"""
Twisted's reactor for programs that have none: what the blocking SDKs stand on.

Twisted's reactor can be run once per process. If nobody has run it, the first
L{ReactorThread} does, in a daemon thread that stays until the process ends; all others,
and whatever else uses the reactor, share it. A reactor that runs already, in the main
thread for instance, is used as it is; a program that is only about to run its own gives
it, so that nobody runs it first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ReactorAlreadyRunning
from twisted.python import threadable
from twisted.python.failure import Failure

from mpush_tw.errors import MPushError

_Result = TypeVar("_Result")

_START_TIMEOUT = 10.0
_LOOK_EVERY = 1.0
"""
Seconds between two looks whether the reactor, on which a call waits, still runs.
"""
_starting = threading.Lock()


class ReactorStopped(MPushError):
    """
    The reactor was stopped before a call was done; it will not run again.
    """


class ReactorThread:
    """
    The reactor, as seen from the threads of a program that blocks.

    @ivar reactor: It runs, in another thread.
    """

    def __init__(self, reactor: object | None = None) -> None:
        """
        @param reactor: The reactor if the program runs it, now or within 10 seconds;
            C{None} to take the process's, and to run it if nobody ever has.
        @raise RuntimeError: If the reactor does not run, or this is its thread.
        """
        _refuse_reactor_thread()
        self.reactor: Any = _running_reactor(reactor)

    def wait(self, function: Callable[[], Deferred[_Result]]) -> _Result:
        """
        Call C{function} in the reactor's thread and wait for what comes of it.

        @raise RuntimeError: In the reactor's thread, which would wait for itself.
        @raise ReactorStopped: If the reactor does not run any more.
        """
        _refuse_reactor_thread()
        outcome: SimpleQueue[Any] = SimpleQueue()
        self.reactor.callFromThread(
            lambda: maybeDeferred(function).addBoth(outcome.put)
        )
        while self.reactor.running:
            try:
                result = outcome.get(timeout=_LOOK_EVERY)
            except Empty:
                continue
            if isinstance(result, Failure):
                result.raiseException()
            answer: _Result = result
            return answer
        raise ReactorStopped("the reactor was stopped")


def _refuse_reactor_thread() -> None:
    if threadable.isInIOThread():
        raise RuntimeError("a blocking call in the reactor's thread would never end")


def _running_reactor(given: object | None) -> Any:
    """
    Give a reactor that runs, after starting it in a thread of its own if need be.

    @raise RuntimeError: If it does not run.
    """
    if given is not None:
        _wait_until_running(given)
        return given
    # Imported late: the import installs the reactor for the whole process.
    from twisted.internet import reactor

    with _starting:
        # The thread is set for good by whoever runs the reactor, before it says that it
        # is running. A reactor that was run and is not running will not run again.
        if threadable.ioThread is None:
            threading.Thread(
                target=_run, args=(reactor,), name="mpush reactor", daemon=True
            ).start()
        _wait_until_running(reactor)
    return reactor


def _wait_until_running(reactor: Any) -> None:
    started = threading.Event()
    reactor.callFromThread(started.set)
    if not started.wait(_START_TIMEOUT):
        raise RuntimeError("the reactor does not run")


def _run(reactor: Any) -> None:
    try:
        reactor.run(installSignalHandlers=False)
    except ReactorAlreadyRunning:
        # Somebody was quicker, and theirs will do.
        pass
