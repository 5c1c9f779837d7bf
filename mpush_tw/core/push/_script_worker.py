"""
The program that evaluates script conditions, in a process of its own.

It is started by L{mpush_tw.core.push._script_process}, by its path and in a bare
interpreter: it imports nothing of this package and is ready in some ten milliseconds.
Why a process: QuickJS looks at its time limit once in ten thousand calls and jumps, and
not at all while it searches, compares or joins strings or describes an exception. One
C{indexOf} of two long strings takes minutes, and no thread can be stopped from outside.
A process can; it also gives back all its memory, and a fault of the engine ends
nothing else.

Its file descriptors: 0 is a socket, on which frames come in and reports go out; 1 is a
block of memory shared with the node, see L{PHASE}. A frame is its length in four bytes
and a marshalled tuple: with one element, the number of a script that is not needed any
more; otherwise a batch, see L{Script.evaluate}, in front of it the number of a script
and its program, or C{None} if it is here already. A report is L{REPORT}, a state for
each connection, and a text. End of file ends the process.

The limits, from the inside out: the engine's own (time, memory, stack), which cost the
one call; a timer of the kernel over CPU time, which ends the process when the engine
does not see its limit; resource limits, which leave a script that has broken out of the
engine nothing to open, to write or to start.
"""

from __future__ import annotations

import gc
import marshal
import mmap
import os
import resource
import signal
import struct
import sys
import time
from typing import Any

HEADER = struct.Struct(">I")
"""
Length of a frame.
"""

REPORT = struct.Struct(">IdiI")
"""
How many of the batch were evaluated, CPU seconds that it took, which of them the text
is about (or L{NO_ERROR}, L{NOT_COMPILED}), bytes of the text.
"""

NO_ERROR = -1
NOT_COMPILED = -2

BATCH = 1024
"""
Most connections of a batch.
"""

BATCH_SECONDS = 0.02
"""
CPU time after which the rest of a batch is left for later: others are waiting.
"""

LONGEST_TEXT = 2000
"""
Bound on the bytes of an error's text.
"""

PHASE = 0
"""
First byte of the shared block: what the process is about. The others are the states of
the batch's connections. So it is known of a process that ended what it was doing.
"""

BOOTING, COMPILING, WAITING, EVALUATING = range(4)

NOT_YET, RUNNING, TRUE, FALSE, FAILED, OVER_LIMIT = range(6)

VARIABLES = "userId,tags,clientVersion,osName,osVersion"

_cpu_time = time.thread_time
"""
This process has one thread. With a timer over CPU time Linux counts the time of the
process in clock ticks, that of a thread still exactly.
"""

_GRACE = 0.008
"""
Seconds of CPU between the engine's limit and the kernel's, which counts in clock ticks
and is the dearer one: a process has to start again.
"""

_CHECK_EVERY = 0.001
"""
Seconds between looks at the budget; until then a call may have that much less grace.
"""

_RESERVE = 128 << 20
"""
Bytes of address space beyond what the interpreter has and one script may take: for the
others, which are small unless they are running, and for a batch.
"""

_BOOTSTRAP = r"""
(function (mayAssign) {
  "use strict";
  const { defineProperty, freeze, getOwnPropertyDescriptor, getPrototypeOf,
          isExtensible } = Object;
  const { deleteProperty, ownKeys } = Reflect;
  const directEval = eval, indirectEval = eval;

  // Nothing that waits, that tells when memory is collected, that starts a job, or that
  // declares a variable which outlives the call.
  for (const name of ["Atomics", "SharedArrayBuffer", "WeakRef", "queueMicrotask",
                      "FinalizationRegistry", "eval"]) {
    delete globalThis[name];
  }

  // Everything that a script can reach without making it is frozen. What has no name
  // in the global object is reached from a piece of syntax.
  const seen = new Set();
  const visit = (thing) => {
    if ((typeof thing !== "object" && typeof thing !== "function") || thing === null
        || seen.has(thing)) {
      return;
    }
    seen.add(thing);
    visit(getPrototypeOf(thing));
    for (const key of ownKeys(thing)) {
      const { value, get, set } = getOwnPropertyDescriptor(thing, key);
      visit(value);
      visit(get);
      visit(set);
    }
  };
  [
    globalThis, () => {}, function* () {}, async () => {}, async function* () {},
    (function* () {})(), (async function* () {})(), [].values(), ""[Symbol.iterator](),
    new Map().entries(), new Set().entries(), "a".matchAll(/a/g),
    Iterator.from({ next() {} }), [].values().map((item) => item),
  ].forEach(visit);
  if (mayAssign) {
    seen.delete(globalThis);
    for (const key of ownKeys(globalThis)) {
      const property = getOwnPropertyDescriptor(globalThis, key);
      property.configurable = false;
      if ("value" in property) property.writable = false;
      defineProperty(globalThis, key, property);
    }
  }
  for (const thing of seen) freeze(thing);

  // A variable that was never declared becomes a property of the global object.
  const known = new Set(ownKeys(globalThis)), parent = getPrototypeOf(globalThis);
  const forgetVariables = () => {
    let clean = isExtensible(globalThis) && getPrototypeOf(globalThis) === parent;
    if (ownKeys(globalThis).length !== known.size) {
      for (const key of ownKeys(globalThis)) {
        clean &&= known.has(key) || deleteProperty(globalThis, key);
      }
    }
    if (!clean) {
      throw new InternalError("the global object was changed for good");
    }
  };

  let thrown;
  const DEEP = "Maximum call stack size exceeded";
  const isLimit = (error) => error instanceof InternalError
    || error instanceof RangeError && error.message === DEEP;
  const failure = (error) => {
    thrown = error;
    try { return isLimit(error) ? 1 : null; } catch { return null; }
  };
  const text = (value) => (typeof value === "string" ? value : `${value}`)
    .slice(0, 400).replace(/[\r\n]+/g, " ");

  return (order, given) => {
    switch (order) {
      case "check":  // that a script is one, behind a statement that throws 0
        try { given(null, null, null, null, null, directEval); } catch (error) {
          return error === 0 ? null
            : `${text(error.name)}: ${text(error.message)}\n${error.stack}`;
        }
        return null;
      case "compile":  // what gives the text of a function
        return freeze(indirectEval(given()));
      case "guard":  // that function: it gives true, false, null or 1 for a failure
        return freeze((a, b, c, d, e) => {
          try {
            return given(a, b, c, d, e, directEval) === true;
          } catch (error) { return failure(error); }
        });
      case "guard and forget":
        return freeze((a, b, c, d, e) => {
          let result;
          try {
            result = given(a, b, c, d, e, directEval) === true;
          } catch (error) { result = failure(error); }
          try { forgetVariables(); } catch (error) { return failure(error); }
          return result;
        });
      case "describe":  // the failure of the last call
        try {
          if (thrown instanceof Error) {
            return `${text(thrown.name)}: ${text(thrown.message)}`;
          }
          const quote = typeof thrown === "string" ? "'" : "";
          return `it threw the ${typeof thrown} ${quote}${text(thrown)}${quote}`;
        } catch { return `it threw the ${typeof thrown} that has no text`; }
        finally { thrown = undefined; }
    }
  };
})
"""


class Script:
    """
    One program in an engine.

    @ivar problem: Why it cannot be compiled; C{None} when it can.
    """

    def __init__(self, program: tuple[Any, ...], block: mmap.mmap) -> None:
        """
        @param program: Three JavaScript string literals - the script behind a
            statement that throws 0, as an arrow function of one expression or C{None},
            and as it is -, whether it may assign to variables that it does not declare,
            bytes of memory, bytes of stack, seconds for a call and for compiling.
        """
        (
            self._check,
            self._expression,
            self._script,
            self._may_assign,
            self._memory,
            self._stack,
            self._call_seconds,
            self._compile_seconds,
        ) = program
        self._block = block
        self.problem: str | None = None
        self.renew()

    def renew(self) -> None:
        """
        Compile in a new engine: nothing is left of the old one's memory.
        """
        import _quickjs

        self.allow(self._compile_seconds)
        self._context = context = _quickjs.Context()
        context.set_memory_limit(self._memory)
        context.set_max_stack_size(self._stack)
        context.set_time_limit(self._compile_seconds)
        self._tools = tools = context.eval(_BOOTSTRAP)(self._may_assign)
        guard = "guard and forget" if self._may_assign else "guard"
        try:
            check = context.eval(f"({VARIABLES}, eval) => eval({self._check})")
            self.problem = tools("check", check)
            if self.problem is None:
                self.call = tools(guard, self._compiled())
        except Exception as error:
            self.problem = str(error)
        context.set_time_limit(self._call_seconds)

    def _compiled(self) -> Any:
        # The value of an expression is that of a function. The value of a list of
        # statements only eval knows, and that compiles it for each call.
        context = self._context
        if self._expression is not None:
            try:
                return self._tools("compile", context.eval(f"() => {self._expression}"))
            except Exception:
                pass
        return context.eval(f"({VARIABLES}, eval) => eval({self._script})")

    def allow(self, seconds: float) -> None:
        """
        Have the kernel end the process when it takes more CPU time than that.
        """
        signal.setitimer(signal.ITIMER_PROF, seconds + _GRACE)

    def describe(self) -> str:
        """
        Say what the last call failed with; runs the script's code if that threw
        something with a text of its own making.
        """
        try:
            return str(self._tools("describe"))
        except Exception:
            return "it threw something whose text takes too long"

    def evaluate(
        self,
        budget: float,
        failures: int,
        want_error: bool,
        rows: list[tuple[str | None, ...]],
    ) -> tuple[int, int, str]:
        """
        Evaluate a batch.

        @param budget: CPU seconds that the script may still use.
        @param failures: After so many calls that break a limit the rest is left.
        @param want_error: Whether the text of an error is wanted.
        @param rows: The five variables of each connection.
        @return: How many were evaluated, which of them failed first, and how.
        """
        if self.problem is not None:
            return 0, NOT_COMPILED, self.problem
        error_at, error = NO_ERROR, ""
        block, call, allow = self._block, self.call, self.allow
        call_seconds = self._call_seconds
        clock, cpu_time = time.monotonic, _cpu_time
        ends = cpu_time() + min(budget, BATCH_SECONDS)
        checked = clock()
        allow(call_seconds)
        for at, row in enumerate(rows):
            if clock() - checked > _CHECK_EVERY:
                if cpu_time() >= ends:
                    return at, error_at, error
                checked = clock()
                allow(call_seconds)
            block[at + 1] = RUNNING
            problem = ""
            try:
                answer = call(*row)
            except SystemError:
                # A text with half a surrogate pair, which the engine cannot be given.
                answer, problem = self._call_without_surrogates(row)
            except Exception as raised:
                answer, problem = 1, str(raised)
            if answer is True:
                block[at + 1] = TRUE
            elif answer is False:
                block[at + 1] = FALSE
            else:
                if want_error:
                    want_error = False
                    error_at, error = at, problem or self.describe()
                block[at + 1] = FAILED if answer is None else OVER_LIMIT
                if answer is not None:
                    failures -= 1
                    if failures <= 0:
                        return at + 1, error_at, error
                    self.renew()
                    call = self.call
                checked = 0.0
        return len(rows), error_at, error

    def _call_without_surrogates(
        self, row: tuple[str | None, ...]
    ) -> tuple[object, str]:
        # Codecs other than UTF-8 are modules, and no file can be opened any more.
        readable = [
            text and "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
            for text in row
        ]
        try:
            return self.call(*readable), ""
        except Exception as raised:
            return 1, str(raised)

    def tidy(self) -> None:
        """
        Start anew if what the calls left behind has grown: jobs that nobody will run.
        """
        if self.problem is not None:
            return
        if self._context.memory()["malloc_size"] > self._memory // 4:
            self.renew()


def _read(count: int) -> bytes:
    parts = []
    while count:
        part = os.read(0, min(count, 1 << 20))
        if not part:
            os._exit(0)
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(0, data) :]


def _read_frame() -> tuple[Any, ...]:
    (length,) = HEADER.unpack(_read(HEADER.size))
    frame: tuple[Any, ...] = marshal.loads(_read(length))
    return frame


def _confine(memory: int) -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            try:
                os.close(int(name))
            except OSError:
                pass  # the one that the list was read from
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    for which, limit in (
        (resource.RLIMIT_AS, size + 4 * memory + _RESERVE),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 0),
    ):
        resource.setrlimit(which, (limit, limit))


def main(directory: str, memory: int) -> None:
    """
    Serve one node until it closes the socket.

    @param directory: Where the engine's module is.
    @param memory: Bytes that each script may hold.
    """
    sys.path.insert(0, directory)
    import _quickjs  # noqa: F401 - while files can still be opened

    del sys.path[0]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What ends this process may have been ignored or held back in the node.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    time.localtime()  # the time zone is read from a file, once
    gc.disable()
    block = mmap.mmap(1, BATCH + 1)
    _confine(memory)
    scripts: dict[int, Script] = {}
    while True:
        block[PHASE] = WAITING
        frame = _read_frame()
        if len(frame) == 1:
            scripts.pop(frame[0], None)
            continue
        number, program, *batch = frame
        began = _cpu_time()
        if program is not None:
            block[PHASE] = COMPILING
            scripts[number] = Script(program, block)
        script = scripts[number]
        block[PHASE] = EVALUATING
        count, error_at, error = script.evaluate(*batch)
        script.tidy()
        signal.setitimer(signal.ITIMER_PROF, 0)
        text = error.encode("utf-8", "replace")[:LONGEST_TEXT]
        took = _cpu_time() - began
        report = REPORT.pack(count, took, error_at, len(text))
        _write(report + block[1 : count + 1] + text)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
