"""
Threads for what blocks, under the names of the original's pools (server 19.2,
operations 2.11).

One reactor does what most of those pools did, so there are two: C{mq}, and
C{event-bus}, whose threads run the calls of all other names too. Nothing is run in the
thread that submits it, as the original does when a queue is full: the call is refused.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import attrs

from twisted.internet.defer import (
    Deferred,
    TimeoutError,
    gatherResults,
    maybeDeferred,
    succeed,
)
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from mpush_tw.errors import Unavailable
from mpush_tw.interfaces import IExecutor, PoolStatistics

_T = TypeVar("_T")

POOLS = ("push-client", "push-task", "ack-timer", "event-bus", "mq")
"""
The names that are known.
"""

STOP_SECONDS = 5.0
"""
How long calls that are under way may go on when everything stops.
"""

_MOST_WAITING = 100_000


class _DaemonThread(threading.Thread):
    """
    A thread that does not keep the process alive: a call that hangs must not.
    """

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **{**keywords, "daemon": True})


class _DaemonPool(ThreadPool):
    threadFactory = _DaemonThread


class _Pool:
    """
    Threads, and a bound for the calls that wait for one.
    """

    def __init__(self, name: str, least: int, most: int, queue_size: int) -> None:
        """
        @param least: Threads that are kept once there were some.
        @param most: Threads at most; 0 counts as 1.
        @param queue_size: Calls that may wait for a thread; negative is very many.
        """
        most = max(1, most)
        self.threads = _DaemonPool(min(least, most), most, f"mpush-{name}")
        if queue_size < 0:
            queue_size = _MOST_WAITING
        self._most = most + queue_size
        self.under_way = 0

    @property
    def full(self) -> bool:
        """
        Whether no further call is taken.
        """
        return self.under_way >= self._most

    def stop(self, reactor: Any) -> Deferred[None]:
        """
        End the threads, without waiting for them here.
        """
        if not self.threads.started:
            return succeed(None)
        stopped: Deferred[None] = Deferred()

        def join() -> None:
            self.threads.stop()
            reactor.callFromThread(fire)

        def fire() -> None:
            if not stopped.called:
                stopped.callback(None)

        threading.Thread(target=join, daemon=True).start()
        return stopped.addTimeout(STOP_SECONDS, reactor)


@attrs.frozen
class PoolSize:
    """
    C{min}, C{max} and C{queue-size} of a pool.
    """

    min: int
    max: int
    queue_size: int


@implementer(IExecutor)
class ThreadExecutor:
    """
    The executor that comes with a node. There is no thread before the first call.
    """

    _log = Logger()

    def __init__(self, reactor: Any, event_bus: PoolSize, mq: PoolSize) -> None:
        """
        @param reactor: Provides C{IReactorFromThreads} and C{IReactorTime}.
        """
        self._reactor = reactor
        self._event_bus = _Pool(
            "event-bus", event_bus.min, event_bus.max, event_bus.queue_size
        )
        self._mq = _Pool("mq", mq.min, mq.max, mq.queue_size)
        self._done: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._stopping: Deferred[None] | None = None

    def _pool(self, name: str) -> _Pool:
        if name not in POOLS:
            raise ValueError(f"there is no pool {name}; there are {', '.join(POOLS)}")
        return self._mq if name == "mq" else self._event_bus

    def run_blocking(
        self, pool: str, function: Callable[..., _T], *args: object
    ) -> Deferred[_T]:
        """
        Call something in a thread.
        """
        threads = self._pool(pool)
        if self._stopping is not None or threads.full:
            self._refused[pool] += 1
            refused: Deferred[_T] = Deferred()
            what = "stopped" if self._stopping else "full"
            refused.errback(Unavailable(f"the thread pool {pool} is {what}"))
            return refused
        if not threads.threads.started:
            threads.threads.start()
        threads.under_way += 1
        result = deferToThreadPool(self._reactor, threads.threads, function, *args)

        def ended(outcome: Any) -> Any:
            threads.under_way -= 1
            self._done[pool] += 1
            return outcome

        # Whoever waits may cancel; the call goes on, and is still counted.
        waiter: Deferred[_T] = Deferred(lambda _: None)

        def hand_on(outcome: Any) -> None:
            if waiter.called:
                if isinstance(outcome, Failure):
                    self._log.failure("a call that nobody waits for failed", outcome)
            else:
                waiter.callback(outcome)

        result.addBoth(ended).addBoth(hand_on)
        return waiter

    def statistics(self) -> Mapping[str, PoolStatistics]:
        """
        Tell what each pool does.
        """
        return {name: self._statistics(name) for name in POOLS}

    def _statistics(self, name: str) -> PoolStatistics:
        pool = self._pool(name)
        threads = pool.threads
        running = len(threads.working)
        return PoolStatistics(
            threads.workers,
            running,
            max(0, pool.under_way - running),
            self._done[name],
            self._refused[name],
        )

    def stop(self) -> Deferred[None]:
        """
        Take no more, and wait a while for what is under way.
        """
        if self._stopping is None:
            self._stopping = Deferred()
            both = gatherResults(
                [
                    maybeDeferred(pool.stop, self._reactor).addErrback(self._hung)
                    for pool in (self._event_bus, self._mq)
                ]
            )
            both.addCallback(lambda _: None).chainDeferred(self._stopping)
        waiter: Deferred[None] = Deferred()

        def fired(result: None) -> None:
            waiter.callback(None)

        self._stopping.addCallback(fired)
        return waiter

    def _hung(self, failure: Failure) -> None:
        if not failure.check(TimeoutError):
            self._log.failure("stopping a thread pool failed", failure)
            return
        self._log.error(
            "calls in threads are still under way after {seconds:g} seconds and are "
            "left to themselves",
            seconds=STOP_SECONDS,
        )
