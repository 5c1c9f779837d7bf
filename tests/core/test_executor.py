"""
Tests for L{mpush_tw.core.executor}, with real threads (server 19.2).
"""

from __future__ import annotations

import threading
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, gatherResults
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.python.threadable import isInIOThread
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from mpush_tw.core import executor as module
from mpush_tw.core.executor import POOLS, PoolSize, ThreadExecutor
from mpush_tw.errors import Unavailable
from mpush_tw.interfaces import IExecutor


class ThreadExecutorTests(TestCase):
    """
    Calls that block.
    """

    timeout = 30

    def setUp(self) -> None:
        self.gate = threading.Event()
        self.executor = self.make(PoolSize(1, 2, 3))

    def make(self, size: PoolSize) -> ThreadExecutor:
        """
        Make an executor that is stopped after the test.
        """
        executor = ThreadExecutor(reactor, size, PoolSize(0, 1, 0))
        self.addCleanup(executor.stop)
        self.addCleanup(self.gate.set)
        return executor

    def wait(self) -> bool:
        """
        Block until the test opens the gate.
        """
        return self.gate.wait(20)

    def run_blocking(self, function: Any, *args: object) -> Any:
        return self.executor.run_blocking("event-bus", function, *args)

    def test_interface(self) -> None:
        """
        It is an executor.
        """
        verifyObject(IExecutor, self.executor)

    async def test_result(self) -> None:
        """
        The result comes back, in the reactor's thread, from another one.
        """
        names: list[str] = []

        def work(a: int, b: int) -> int:
            names.append(threading.current_thread().name)
            return a + b

        self.assertEqual(await self.run_blocking(work, 2, 3), 5)
        self.assertTrue(isInIOThread())
        self.assertNotEqual(names, [threading.current_thread().name])

    async def test_exception(self) -> None:
        """
        So does an exception.
        """
        with self.assertRaises(ZeroDivisionError):
            await self.run_blocking(lambda: 1 / 0)

    async def test_every_name(self) -> None:
        """
        All names of the original's pools work.
        """
        for name in POOLS:
            self.assertEqual(await self.executor.run_blocking(name, int, "7"), 7)
        done = {n: s.done for n, s in self.executor.statistics().items()}
        self.assertEqual(done, dict.fromkeys(POOLS, 1))

    def test_unknown_name(self) -> None:
        """
        Another name is a mistake.
        """
        error = self.assertRaises(
            ValueError, self.executor.run_blocking, "http", self.wait
        )
        self.assertIn("event-bus", str(error))

    async def test_full(self) -> None:
        """
        When as many wait as may, one more is refused at once, and the rest is done.
        """
        taken = [self.run_blocking(self.wait) for _ in range(5)]
        refused = self.run_blocking(self.wait)
        self.failureResultOf(refused, Unavailable)
        for _ in range(200):
            statistics = self.executor.statistics()["event-bus"]
            if statistics.running == 2:
                break
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]
        self.assertEqual(
            (statistics.threads, statistics.running, statistics.waiting), (2, 2, 3)
        )
        self.assertEqual(statistics.refused, 1)
        self.gate.set()
        self.assertEqual(await gatherResults(taken), [True] * 5)
        self.assertEqual(await self.run_blocking(int, "1"), 1)

    async def test_no_queue(self) -> None:
        """
        A pool without a queue takes no more calls than it has threads.
        """
        first = self.executor.run_blocking("mq", self.wait)
        second = self.executor.run_blocking("mq", self.wait)
        self.failureResultOf(second, Unavailable)
        self.gate.set()
        self.assertTrue(await first)

    async def test_unbounded_by_name(self) -> None:
        """
        A negative queue size is a large one.
        """
        self.executor = self.make(PoolSize(1, 1, -1))
        taken = [self.run_blocking(int, "1") for _ in range(200)]
        self.assertEqual(await gatherResults(taken), [1] * 200)

    async def test_cancelled(self) -> None:
        """
        Who does not want to wait any more need not; the call is counted all the same.
        """
        waiting = self.run_blocking(self.wait)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.gate.set()
        await self.executor.stop()
        self.assertEqual(self.executor.statistics()["event-bus"].done, 1)

    async def test_failure_of_a_cancelled_call(self) -> None:
        """
        The failure of a call that nobody waits for is logged.
        """

        def work() -> None:
            self.wait()
            raise ZeroDivisionError

        waiting = self.run_blocking(work)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.gate.set()
        await self.executor.stop()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_no_thread_before_the_first_call(self) -> None:
        """
        A node whose plug-ins do not block has no thread.
        """
        self.assertEqual(self.executor.statistics()["event-bus"].threads, 0)

    async def test_stopped(self) -> None:
        """
        When it has been stopped it takes no more, and its threads end.
        """
        await self.run_blocking(int, "1")
        await gatherResults([self.executor.stop(), self.executor.stop()])
        self.failureResultOf(self.run_blocking(int, "1"), Unavailable)
        mine = [t for t in threading.enumerate() if "mpush-event-bus" in t.name]
        self.assertEqual(mine, [])

    async def test_hangs(self) -> None:
        """
        A call that does not end does not keep a node from stopping.
        """
        self.patch(module, "STOP_SECONDS", 0.05)
        waiting = self.run_blocking(self.wait)
        outcomes: list[object] = []
        waiting.addBoth(outcomes.append)
        await self.executor.stop()
        self.assertEqual(outcomes, [])
        self.gate.set()
        for _ in range(200):
            if outcomes:
                break
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]
        self.assertNotIsInstance(outcomes[0], Failure)
