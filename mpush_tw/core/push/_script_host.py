"""
Where the scripts of a node are evaluated: one process for all of them, which is started
when it is needed and again when a script was the end of it.
"""

from __future__ import annotations

import time
from collections import deque
from itertools import count
from typing import Protocol

import attrs

from mpush_tw.core.push._script_process import (
    Batch,
    Ended,
    Program,
    Report,
    ScriptProcess,
)

_SCRIPTS = 32
"""
Scripts that the process keeps; of more, the one not used for longest is compiled again.
"""

_RENEWAL_SECONDS = 60.0
"""
CPU time after which a process that nobody needs at the moment is not kept for the next.
"""


@attrs.frozen
class ScriptLimits:
    """
    What a script condition may cost.

    @ivar source_length: Characters of its text. A longer one is refused unread. A
        gateway packet has room for some 10,000.
    @ivar memory_bytes: What a script may hold in the engine.
    @ivar stack_bytes: How deep it may call.
    @ivar call_seconds: CPU time for one connection. The engine stops most calls soon
        after it; the kernel ends the process if the engine does not, about 10 ms later.
    @ivar compile_seconds: CPU time for compiling.
    @ivar total_seconds: CPU time for the whole broadcast on this node.
    @ivar failures: After so many calls that broke a limit no further one is made.
        Ordinary errors, such as a member of null, are not counted.
    @ivar patience_seconds: Time beyond the CPU limits after which a process that says
        nothing is taken for lost. Reached only where the machine has no time for it.
    """

    source_length: int = 65536
    memory_bytes: int = 16 << 20
    stack_bytes: int = 256 << 10
    call_seconds: float = 0.010
    compile_seconds: float = 0.100
    total_seconds: float = 5.0
    failures: int = 20
    patience_seconds: float = 2.0


class Hosted(Protocol):
    """
    A script as its host sees it.
    """

    def program(self) -> Program:
        """
        Give what is to be compiled.
        """

    def next_batch(self) -> Batch | None:
        """
        Give what is to be evaluated next; C{None} if nothing.
        """

    def reported(self, report: Report) -> None:
        """
        Take the result of the last batch, which may be a part of it.
        """

    def lost(self, ended: Ended) -> None:
        """
        Learn that the process ended while it had the last batch.
        """

    def refused(self, problem: str) -> None:
        """
        Learn that the script will not be evaluated any more.
        """


class ScriptHost:
    """
    Gives the scripts of a node their turns: a batch each, which takes some twenty
    milliseconds at most unless it breaks its limits.

    It works when one of its conditions is asked for answers, and then for all of them.
    A script that ends the process costs the others a new compilation.

    @ivar limits: For each script.
    """

    def __init__(self, limits: ScriptLimits | None = None) -> None:
        self.limits = limits or ScriptLimits()
        self._process: ScriptProcess | None = None
        self._cpu = 0.0
        self._numbers = count()
        self._scripts: dict[Hosted, int] = {}
        self._compiled: dict[int, None] = {}
        self._queue: deque[Hosted] = deque()
        self._current: Hosted | None = None
        self._allowed = self._deadline = 0.0
        self._closed = False

    @property
    def pid(self) -> int | None:
        """
        The process; C{None} while there is none.
        """
        return None if self._process is None else self._process.pid

    def want(self, script: Hosted) -> None:
        """
        Have the batches of a script evaluated in its turn. It may be refused at once.
        """
        if self._closed:
            script.refused("the node stops")
            return
        if script not in self._scripts:
            self._scripts[script] = next(self._numbers)
        if script is not self._current and script not in self._queue:
            self._queue.append(script)
        if self._current is None:
            self._send_next()

    def advance(self, until: float) -> bool:
        """
        See one batch, of whichever script, to its end.

        @param until: When to stop waiting for it, as L{time.monotonic} counts.
        @return: Whether there was one; C{False} also if nothing is wanted.
        """
        if self._current is None:
            self._send_next()
        process, script = self._process, self._current
        if process is None or script is None:
            return False
        report = self._report(process, until)
        if report is None:
            return False
        self._current = None
        self._cpu += report.cpu_seconds
        if isinstance(report, Ended):
            self._end_process()
        if script in self._scripts:
            if isinstance(report, Ended):
                script.lost(report)
            else:
                script.reported(report)
        # Else it has been forgotten while it was running.
        if script in self._scripts:
            self._queue.append(script)
        self._send_next()
        return True

    def forget(self, script: Hosted) -> None:
        """
        Have nothing more to do with a script; it is told nothing.
        """
        number = self._scripts.pop(script, None)
        if number is None:
            return
        if script in self._queue:
            self._queue.remove(script)
        self._drop(number)
        if not self._scripts and self._cpu > _RENEWAL_SECONDS:
            self._current = None
            self._end_process()

    def close(self) -> None:
        """
        End the process; idempotent. What is still wanted is refused.
        """
        self._closed = True
        self._end_process()
        self._current = None
        for script in list(self._scripts):
            self.forget(script)
            script.refused("the node stops")

    def _report(self, process: ScriptProcess, until: float) -> Report | Ended | None:
        """
        Wait for what becomes of the batch, and give the process up if it is silent.
        """
        while True:
            unsent = process.unsent
            wait = min(until, self._deadline) - time.monotonic()
            report = process.report(max(0.0, wait))
            if report is not None:
                return report
            now = time.monotonic()
            if process.unsent < unsent:
                # It was us who had not given it the whole batch yet.
                self._deadline = now + self._allowed
            if now >= self._deadline:
                return attrs.evolve(process.kill(), how="no answer in time")
            if now >= until:
                return None

    def _send_next(self) -> None:
        """
        Give the process the next batch, if there is one.
        """
        while self._current is None and self._queue:
            script = self._queue.popleft()
            batch = script.next_batch()
            if batch is None:
                continue
            if self._process is None:
                try:
                    self._process = ScriptProcess(self.limits.memory_bytes)
                except OSError as error:
                    script.refused(f"the script engine cannot be started: {error}")
                    continue
            number = self._scripts[script]
            program = None if number in self._compiled else script.program()
            self._compiled.pop(number, None)
            self._compiled[number] = None
            if len(self._compiled) > _SCRIPTS:
                self._drop(next(iter(self._compiled)))
            self._process.ask(number, program, batch)
            self._current = script
            seconds = min(batch.budget, len(batch.rows) * self.limits.call_seconds)
            self._allowed = seconds + self.limits.patience_seconds
            self._deadline = time.monotonic() + self._allowed

    def _drop(self, number: int) -> None:
        if number in self._compiled:
            del self._compiled[number]
            if self._process is not None:
                self._process.forget(number)

    def _end_process(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process = None
        self._compiled.clear()
        self._cpu = 0.0
