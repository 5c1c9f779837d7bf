"""
The node's end of the process that evaluates script conditions.

Where the other end is: L{mpush_tw.core.push._script_worker}, which also says why there
is a process at all. This end never waits unless it is asked to, believes the process
nothing but numbers in range and a bounded text, and learns from the shared block how
far it came when it had to be ended.
"""

from __future__ import annotations

import importlib.util
import marshal
import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

import attrs

from mpush_tw.core.push import _script_worker as worker

Row = tuple[str | None, ...]
"""
The five variables of a connection, in the order of L{worker.VARIABLES}.
"""

Program = tuple[str, str | None, str, bool, int, int, float, float]
"""
See L{worker.Script}.
"""

ENGINE = "_quickjs"
"""
The extension module of quickjs-ng. The package around it starts threads.
"""

_ENVIRONMENT = ("LD_LIBRARY_PATH", "TZ")
"""
What the process may see of the node's environment, where secrets may be.
"""

_LONGEST_REPORT = worker.REPORT.size + worker.BATCH + worker.LONGEST_TEXT
_LONGEST_CPU = 1e6

_REAPING_SECONDS = 1.0
"""
How long a killed process may take to be gone; usually it is a fraction of a
millisecond.
"""


@attrs.frozen
class Batch:
    """
    Connections to decide about.

    @ivar budget: CPU seconds that the script may still use.
    @ivar failures: Calls that break a limit after which the rest is left.
    @ivar want_error: Whether the text of an error is wanted.
    @ivar rows: At most L{worker.BATCH}.
    """

    budget: float
    failures: int
    want_error: bool
    rows: list[Row]


@attrs.frozen
class Report:
    """
    A batch was evaluated, or as much of it as there was time for.

    @ivar states: One of the worker's states for each connection that was evaluated.
    @ivar cpu_seconds: What the batch took.
    @ivar error_at: Which of them C{error} is about, or one of the worker's marks.
    """

    states: bytes
    cpu_seconds: float
    error_at: int
    error: str


@attrs.frozen
class Ended:
    """
    The process ended before it reported.

    @ivar states: How far it was with each connection of the batch.
    @ivar phase: What it was about.
    @ivar cpu_seconds: What it has used since its last report.
    @ivar how: The signal in words, for instance C{Segmentation fault}.
    @ivar out_of_time: Whether it was the kernel's timer that ended it.
    """

    states: bytes
    phase: int
    cpu_seconds: float
    how: str
    out_of_time: bool


class ScriptProcess:
    """
    One process: any number of scripts, one batch at a time.
    """

    def __init__(self, memory_bytes: int) -> None:
        """
        Start it; the caller goes on meanwhile.

        @param memory_bytes: What a script may hold.
        @raise OSError: If there is no engine, or no process to be had.
        """
        if not sys.platform.startswith("linux"):
            raise OSError("scripts need Linux")
        engine = importlib.util.find_spec(ENGINE)
        if engine is None or engine.origin is None:
            raise OSError("the package quickjs-ng is not installed")
        if not sys.executable:
            raise OSError("the path of the Python interpreter is not known")
        directory = os.path.dirname(engine.origin)
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        self._block = os.memfd_create("mpush-condition")
        try:
            os.ftruncate(self._block, worker.BATCH + 1)
            # Descriptors of Python are closed by exec; the worker closes others. To
            # close some ten thousand of a busy node here would hold up the node.
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                (
                    sys.executable,
                    "-I",
                    "-S",
                    worker.__file__,
                    directory,
                    str(memory_bytes),
                ),
                stdin=theirs.fileno(),
                stdout=self._block,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={k: v for k in _ENVIRONMENT if (v := os.environ.get(k))},
                close_fds=False,
                process_group=0,
            )
        except BaseException:
            self._socket.close()
            os.close(self._block)
            raise
        finally:
            theirs.close()
        self._unsent = bytearray()
        self._received = bytearray()
        self._asked = 0
        self._reported_cpu = 0.0

    @property
    def pid(self) -> int:
        """
        Of the process, for tests.
        """
        return self._process.pid

    @property
    def unsent(self) -> int:
        """
        How many bytes it has not taken yet.
        """
        return len(self._unsent)

    def ask(self, number: int, program: Program | None, batch: Batch) -> None:
        """
        Have a batch evaluated. The batch before it has been reported.

        @param number: Of the script.
        @param program: C{None} if it has been given before.
        """
        rows = batch.rows
        self._asked = len(rows)
        os.pwrite(self._block, bytes(len(rows)), 1)
        self._queue(
            (number, program, batch.budget, batch.failures, batch.want_error, rows)
        )

    def forget(self, number: int) -> None:
        """
        Drop a script.
        """
        self._queue((number,))

    def report(self, wait_seconds: float) -> Report | Ended | None:
        """
        Fetch what came of the batch.

        @param wait_seconds: How long this may take; 0 only looks.
        @return: C{None} when there is nothing yet. After L{Ended}, and whenever else
            this object is not needed any more, L{kill} must be called.
        """
        until = time.monotonic() + wait_seconds
        while True:
            try:
                if not self._exchange():
                    return self._ended()
            except OSError:
                return self._ended()
            if (report := self._parsed()) is not None:
                return report
            left = until - time.monotonic()
            if left <= 0:
                return None
            poll = select.poll()
            poll.register(
                self._socket,
                select.POLLIN | (select.POLLOUT if self._unsent else 0),
            )
            poll.poll(left * 1000)

    def kill(self) -> Ended:
        """
        End the process whatever it is doing. Idempotent.
        """
        if self._process.returncode is None and self._socket.fileno() >= 0:
            ended = self._ended()
        else:
            ended = Ended(b"", worker.WAITING, 0.0, "exit", False)
        if self._socket.fileno() >= 0:
            self._socket.close()
            os.close(self._block)
        return ended

    # ------------------------------------------------------------- the wire

    def _queue(self, frame: tuple[Any, ...]) -> None:
        # Version 2: looking for repeated objects takes longer than it saves.
        body = marshal.dumps(frame, 2)
        self._unsent += worker.HEADER.pack(len(body)) + body

    def _exchange(self) -> bool:
        """
        Write and read what can be without waiting.

        @return: C{False} when the process has closed its end or talks nonsense.
        """
        try:
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            pass
        try:
            while data := self._socket.recv(65536):
                self._received += data
                if len(self._received) > _LONGEST_REPORT:
                    return False
        except BlockingIOError:
            return True
        return False

    def _parsed(self) -> Report | None:
        received, size = self._received, worker.REPORT.size
        if len(received) < size:
            return None
        count, cpu, error_at, length = worker.REPORT.unpack_from(received)
        text = size + count
        if len(received) < text + length:
            return None
        states = bytes(received[size : size + min(count, self._asked)])
        error = received[text : text + length].decode("utf-8", "replace")
        received.clear()
        if not 0 <= cpu < _LONGEST_CPU:
            cpu = 0.0
        self._reported_cpu += cpu
        return Report(states, cpu, error_at, error)

    def _ended(self) -> Ended:
        # Not Popen.kill, which might fetch the status and say nothing of the CPU time.
        # If the process is dead already its status stays what it is.
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGKILL)
        cpu, status = self._reap()
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        block = os.pread(self._block, self._asked + 1, 0)
        return Ended(
            block[1:],
            block[0],
            max(0.0, cpu - self._reported_cpu),
            signal.strsignal(number) or f"signal {number}" if number else "exit",
            number == signal.SIGPROF,
        )

    def _reap(self) -> tuple[float, int]:
        """
        Take leave of a process that was killed.

        @return: CPU seconds that it has used, and its status.
        """
        until = time.monotonic() + _REAPING_SECONDS
        while time.monotonic() < until:
            try:
                pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
            except ChildProcessError:
                self._process.returncode = -signal.SIGKILL
                break
            if pid:
                self._process.returncode = os.waitstatus_to_exitcode(status)
                return usage.ru_utime + usage.ru_stime, status
            time.sleep(0.0001)
        # Then subprocess fetches it when it starts the next one.
        return 0.0, signal.SIGKILL
