"""
A script as a condition: the bookkeeping between who asks and the process that answers.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence

from mpush_tw.core.connection import Connection
from mpush_tw.core.log import printable
from mpush_tw.core.push import _script_text as text
from mpush_tw.core.push import _script_worker as worker
from mpush_tw.core.push._condition import Condition
from mpush_tw.core.push._script_host import ScriptHost
from mpush_tw.core.push._script_process import Batch, Ended, Program, Report, Row

_BATCH_CHARACTERS = 1 << 20
"""
Bound on a batch besides the number of its connections: tags may be long.
"""

_LONGEST_USER_ID = 64
_INTERRUPTED = "InternalError: interrupted"


class ScriptCondition(Condition):
    """
    Whom a script accepts: for whom its value is exactly C{true} (server 14.5).

    See L{mpush_tw.core.push.conditions} for what a script may rely on.

    @ivar cpu_seconds: What it has cost so far.
    """

    def __init__(self, source: str, host: ScriptHost | None = None) -> None:
        """
        Nothing is compiled before the first question.

        @param source: As the sender gave it.
        @param host: Where it is evaluated; without one it gets its own.
        """
        self._host = ScriptHost() if host is None else host
        self._own_host = self._host if host is None else None
        self._limits = limits = self._host.limits
        self._source = source
        self._used = text.used_variables(source)
        self._rows: deque[tuple[str | None, Row]] | None = None
        self._answers: list[bool] = []
        self._limit_failures = 0
        self.cpu_seconds = 0.0
        self._stopped = False
        if len(source) > limits.source_length:
            self._source = ""
            self.refused(
                f"the script has {len(source)} characters, "
                f"at most {limits.source_length} are allowed"
            )

    @property
    def exhausted(self) -> bool:
        return self._stopped

    def ask(self, connections: Sequence[Connection]) -> None:
        if self._rows is not None:
            raise RuntimeError("the last answers were not fetched")
        self._answers = []
        if self._stopped:
            self._rows = deque()
            self._skip(len(connections))
            return
        user_id, tags, client_version, os_name, os_version = self._used
        self._rows = deque(
            (
                one.user_id,
                (
                    one.user_id if user_id else None,
                    one.tags if tags else None,
                    one.client_version if client_version else None,
                    one.os_name if os_name else None,
                    one.os_version if os_version else None,
                ),
            )
            for one in connections
        )
        if self._rows:
            self._host.want(self)

    def answers(self, wait_seconds: float | None = 0.0) -> list[bool] | None:
        if self._rows is None:
            raise RuntimeError("nothing was asked")
        until = math.inf if wait_seconds is None else time.monotonic() + wait_seconds
        while self._rows:
            if not self._host.advance(until) and self._rows:
                return None
        self._rows = None
        return self._answers

    def close(self) -> None:
        self._stop()

    # --------------------------------------------------------------- the host

    def program(self) -> Program:
        source, limits = self._source, self._limits
        return (
            text.check_literal(source),
            text.expression_literal(source),
            text.script_literal(source),
            text.may_assign(source),
            limits.memory_bytes,
            limits.stack_bytes,
            limits.call_seconds,
            limits.compile_seconds,
        )

    def next_batch(self) -> Batch | None:
        limits = self._limits
        budget = limits.total_seconds - self.cpu_seconds
        if budget <= 0 and self._rows:
            self.refused(f"the script used up {limits.total_seconds:g} s of CPU time")
        if not self._rows:
            return None
        rows: list[Row] = []
        characters = 0
        for _, row in self._rows:
            rows.append(row)
            characters += sum(map(len, filter(None, row)))
            if len(rows) >= worker.BATCH or characters > _BATCH_CHARACTERS:
                break
        failures = limits.failures - self._limit_failures
        return Batch(budget, failures, self.first_error is None, rows)

    def reported(self, report: Report) -> None:
        assert self._rows is not None
        self.cpu_seconds += report.cpu_seconds
        if report.error_at == worker.NOT_COMPILED:
            self.refused(text.with_position(report.error))
            return
        if 0 <= report.error_at < len(report.states):
            problem = report.error
            if not problem.startswith(_INTERRUPTED):
                problem = text.without_data(problem, self._source)
            self._note(self._rows[report.error_at][0], problem)
        self._take(report.states)

    def lost(self, ended: Ended) -> None:
        assert self._rows is not None
        self.cpu_seconds += ended.cpu_seconds
        problem = f"the script engine ended: {ended.how}"
        if ended.phase == worker.BOOTING:
            self.refused(f"the script engine does not start: {ended.how}")
        elif ended.phase == worker.COMPILING:
            if ended.out_of_time:
                milliseconds = self._limits.compile_seconds * 1000
                problem = f"not compiled in {milliseconds:g} ms of CPU time"
            self.refused(problem)
        else:
            running = ended.states.find(worker.RUNNING)
            if running >= 0:
                self._note(
                    self._rows[running][0],
                    _INTERRUPTED if ended.out_of_time else problem,
                )
            else:
                # Between two calls: nobody's fault, but not for ever.
                self._limit_failures += 1
            self._take(ended.states)
            if self._stopped:
                self.first_error = self.first_error or problem

    def refused(self, problem: str) -> None:
        if self.first_error is None:
            self.first_error = printable(problem)
        self._stop()

    # ------------------------------------------------------------ the answers

    def _take(self, states: bytes) -> None:
        """
        Take the answers of a batch, as far as it came.
        """
        assert self._rows is not None
        for state in states:
            if state == worker.NOT_YET:
                break
            self._rows.popleft()
            self.evaluated += 1
            self._answers.append(state == worker.TRUE)
            if state not in (worker.TRUE, worker.FALSE):
                self.failed += 1
                if state != worker.FAILED:
                    self._limit_failures += 1
        if self._limit_failures >= self._limits.failures:
            self._stop()

    def _note(self, user_id: str | None, problem: str) -> None:
        if self.first_error is not None:
            return
        if problem.startswith(_INTERRUPTED):
            milliseconds = self._limits.call_seconds * 1000
            problem = f"stopped after {milliseconds:g} ms of CPU time"
        who = "a device without user" if user_id is None else f"user {user_id}"
        self.first_error = printable(f"{who[:_LONGEST_USER_ID]}: {problem}")

    def _stop(self) -> None:
        self._stopped = True
        self._host.forget(self)
        if self._own_host is not None:
            self._own_host.close()
        if self._rows:
            self._skip(len(self._rows))
            self._rows.clear()

    def _skip(self, count: int) -> None:
        self.skipped += count
        self._answers.extend([False] * count)
