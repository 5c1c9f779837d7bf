"""
Tests for what a hostile script costs: its limits, and nobody else anything.

Every script here would hold up, fill or end a server that ran it inside. None of these
tests measures how fast anything is; bounds on time are there because without the limits
the scripts would go on for minutes or for ever.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

from mpush_tw.core.push import _script_process
from mpush_tw.core.push.conditions import ScriptCondition, ScriptLimits
from tests.core.push.test_conditions import ScriptTestCase, device

_ROOT = Path(__file__).parents[3]

_LOOPS = (
    "for (;;);",
    "while (true) { try { for (;;); } catch (e) {} finally { continue } }",
    "do {} while (1)",
    "for (;;) {" + "x=1;x==2;" * 5000 + "}",
    "(function f() { for (;;) f.n = 1 })()",
    "[1, 2].sort(function () { for (;;); }).length",
    "'a'.replace(/a/, function () { for (;;); })",
    "({get a() { for (;;); }}).a",
    "`${{toString() { for (;;); }}}`",
    "[...{*[Symbol.iterator]() { for (;;) yield 1 }}].length",
    "for (var x of function* () { for (;;) yield 1 }());",
    "(async function () { for (;;); })()",
    "new Proxy({}, {get: function () { for (;;); }}).a",
    "JSON.stringify({toJSON: function () { for (;;); }})",
    "Array.prototype.indexOf.call({length: 9007199254740991}, 1)",
    "new Array(4294967295).indexOf(1)",
    "new Array(4294967295).join('')",
    "new Array(4294967295).fill(0)",
    "Array.from({length: 9007199254740991})",
)

_NOT_SEEN_BY_THE_ENGINE = (
    'var s = "a".repeat(7e6), t = "a".repeat(3e6) + "b"; s.indexOf(t)',
    'var s = "a".repeat(4e6) + "c"; for (;;) s.indexOf("b")',
    'var s = "a".repeat(4e6) + "c"; for (;;) s.lastIndexOf("b", 1)',
    'var a = "a".repeat(4e6) + "b", b = "a".repeat(4e6) + "c"; for (;;) a < b',
    'var s = "x".repeat(1e5); for (;;) s.split("").reverse().join("")',
    'var s = "x".repeat(1e6); for (;;) s.toUpperCase()',
    "var n = 3n ** 100000n; for (;;) n * n",
    "for (;;) new Array(1e5).fill(1).sort()",
)
"""
QuickJS looks at its limit between calls; each of these calls takes long.
"""

_PATTERNS = (
    '/^(a+)+$/.test("a".repeat(40) + "b")',
    '/^(a|a)*$/.test("a".repeat(40) + "b")',
    '/(.*)*x/.test("a".repeat(1000))',
    '/^(([a-z])+.)+[A-Z]([a-z])+$/.test("a".repeat(60))',
    '/(?=(a+))a*b\\1/.test("a".repeat(100000))',
    'new RegExp("(a?){30}a{30}").test("a".repeat(29))',
)

_HOARDS = (
    '"a".repeat(1e9)',
    "'x'.padEnd(1e9)",
    'var s = "a"; for (;;) s += s',
    "var a = []; for (;;) a.push('x'.repeat(1e5) + a.length)",
    "var a = []; for (;;) a = [a, a]",
    "new ArrayBuffer(1e9)",
    "new Uint8Array(1e8).fill(7)",
    "new Array(1e8).fill(7)",
    "var m = new Map(); for (var i = 0;; i++) m.set(i, {i})",
    "JSON.stringify(new Array(4294967295))",
    "for (;;) Promise.resolve().then(function () {})",
    "for (var i = 0;; i++) Symbol.for('s' + i)",
    "for (var i = 0;; i++) this['g' + i] = i",
    "for (var i = 0;; i++) new Function('return ' + i)",
    "throw 'x'.repeat(1e7)",
    "throw new Error('x'.repeat(1e7))",
    "throw {toString: function () { return 'x'.repeat(1e7) }}",
)

_DEPTHS = (
    "(function f() { return f() })()",
    "(function f() { try { f() } finally { f() } })()",
    "function f(n) { return `${{toString: f}}` } f()",
    "var a = []; for (var i = 0; i < 2e4; i++) a = [a]; JSON.stringify(a)",
    "JSON.parse('['.repeat(2e5))",
    "new RegExp('('.repeat(2e4) + ')'.repeat(2e4))",
    "var p = {}; for (var i = 0; i < 2e4; i++) p = new Proxy(p, {}); p.a",
    "var f = function () {}; for (var i = 0; i < 2e4; i++) f = f.bind(); f()",
    "(" * 30000,
    "[" * 30000 + "]" * 30000,
    "-" * 1 + "- " * 20000 + "1",
    "!" * 60000 + "1",
    "x = " * 15000 + "1",
    "a?" * 15000 + "1" + ":1" * 15000,
    "{" * 30000 + "}" * 30000,
    "`${" * 15000,
    "function f(){" * 4000,
    "/" + "(" * 30000 + "/",
    "/(?:" + "a{0,1000}" * 5000 + "){0,1000}/.test('a') && 1",
)

_TRICKS = (
    "String.prototype.indexOf = function () { return true }; true == false",
    "Object.prototype.valueOf = function () { return true }; ({})",
    "({toString: function () { return true }, valueOf: function () { return true }})",
    "({get valueOf() { throw this }}) == 1",
    "Object.defineProperty(Object.prototype, 'then', {get: function () { throw 1 }})",
    "Object.prototype.__proto__ = {}",
    "__proto__ = null",
    "Function.prototype.call = function () { return true }; tags.x.y",
    "Error.prepareStackTrace = function () { for (;;); }; null.x",
    "Error.stackTraceLimit = 1e9; null.x",
    "Symbol.hasInstance in Error; Error[Symbol.hasInstance] = 1; throw 1",
    "throw new Proxy(new Error('x'), {get: function () { throw 1 }})",
    "throw Object.create(InternalError.prototype, {message: {get() { for (;;); }}})",
    "throw Object.create(RangeError.prototype, {message: {get() { for (;;); }}})",
    "arguments.callee.caller",
    "new.target",
    "import.meta",
    "super.x",
    "this.constructor.constructor('for (;;);')()",
    "with (this) { undefined = true; undefined }",
    "label: for (;;) break label",
    "debugger; 1",
    "function* f() { yield* f() } [...f()]",
    "class A extends null { constructor() { for (;;); } } new A",
    "let userId = 1; let userId = 2; true",
    "'\\u2028\\u2029' == `\u2028\u2029` && 1",
)


_SLOW = "var end = Date.now() + 4; while (Date.now() < end); true"
"""
What takes its time, within the limit of a call.
"""


class LimitTestCase(ScriptTestCase):
    """
    A host with a few connections, and a look at what a script did to others.
    """

    def assertCostsItsLimit(self, source: str) -> ScriptCondition:
        """
        A script accepts nobody, uses little time, and the next one on the same host
        works.
        """
        limits = self.limits
        condition = self.condition(source)
        source = source[:70]
        began = time.monotonic()
        self.assertEqual(condition.matches_many([device()] * 2), [False] * 2, source)
        # Much is allowed for a machine that does other things; the scripts would take
        # minutes.
        self.assertLess(time.monotonic() - began, 10.0, source)
        most = limits.compile_seconds + 2 * (limits.call_seconds + 0.1)
        self.assertLess(condition.cpu_seconds, most, source)
        self.assertEqual(condition.evaluated + condition.skipped, 2)
        condition.close()
        self.assertTrue(self.accepts("userId == 107"), source)
        return condition


class HostileTests(LimitTestCase):
    """
    Scripts that are after more than an answer.
    """

    def test_loops(self) -> None:
        """
        A script that never ends is stopped, whatever it loops in, and counts as failed.
        """
        for source in _LOOPS:
            condition = self.assertCostsItsLimit(source)
            self.assertEqual(condition.failed, 2, source)
            self.assertIsNotNone(condition.first_error, source)

    def test_loops_that_the_engine_does_not_see(self) -> None:
        """
        So is one that the engine's own limit would let go on for minutes.
        """
        for source in _NOT_SEEN_BY_THE_ENGINE:
            condition = self.assertCostsItsLimit(source)
            self.assertEqual(condition.failed, 2, source)
            self.assertEqual(
                condition.first_error,
                "user 107: stopped after 10 ms of CPU time",
                source,
            )

    def test_patterns(self) -> None:
        """
        So is a regular expression that tries all ways to match.
        """
        for source in _PATTERNS:
            self.assertCostsItsLimit(source)

    def test_hoards(self) -> None:
        """
        A script that piles up memory gets no more than its share.
        """
        for source in _HOARDS:
            self.assertCostsItsLimit(source)

    def test_depths(self) -> None:
        """
        Recursion, in a script or in its text, ends before the stack does.
        """
        for source in _DEPTHS:
            self.assertCostsItsLimit(source)

    def test_tricks(self) -> None:
        """
        Changing what the language brings does not turn a no into a yes.
        """
        for source in _TRICKS:
            self.assertCostsItsLimit(source)

    def test_long_text(self) -> None:
        """
        A text of ten megabytes is refused with a sentence and not even looked at.
        """
        condition = self.condition("1;" * 5_000_000)
        self.assertEqual(condition.matches_many([device()]), [False])
        self.assertEqual(
            condition.first_error,
            "the script has 10000000 characters, at most 65536 are allowed",
        )
        self.assertIsNone(self.host.pid)

    def test_longest_text(self) -> None:
        """
        A text as long as is allowed can be compiled in the time that there is.
        """
        source = "userId == 107" + " || userId == 1" * 4368
        source += " " * (self.limits.source_length - len(source))
        condition = self.condition(source)
        self.assertEqual(condition.matches_many([device()]), [True])


class ConsequenceTests(LimitTestCase):
    """
    What becomes of a condition whose script breaks its limits.
    """

    limits = ScriptLimits(failures=5)

    def test_exhausted(self) -> None:
        """
        After some calls that broke a limit no further one is made.
        """
        condition = self.condition("for (;;);")
        self.assertEqual(condition.matches_many([device()] * 100), [False] * 100)
        self.assertEqual((condition.failed, condition.skipped), (5, 95))
        self.assertTrue(condition.exhausted)
        self.assertEqual(condition.matches_many([device()]), [False])
        self.assertEqual(condition.skipped, 96)

    def test_exhausted_by_ending_the_engine(self) -> None:
        """
        So it is when the kernel had to stop them.
        """
        condition = self.condition(_NOT_SEEN_BY_THE_ENGINE[0])
        condition.matches_many([device()] * 100)
        self.assertEqual((condition.failed, condition.skipped), (5, 95))
        self.assertTrue(condition.exhausted)

    def test_exhausted_by_memory(self) -> None:
        """
        So it is when they took too much memory, or too much stack.
        """
        for source in (_HOARDS[0], _DEPTHS[0]):
            condition = self.condition(source)
            condition.matches_many([device()] * 100)
            self.assertEqual((condition.failed, condition.skipped), (5, 95), source)

    def test_ordinary_errors(self) -> None:
        """
        Errors that broke no limit do not exhaust a condition.
        """
        condition = self.condition("tags.length > 0")
        devices = [device(tags=None)] * 100 + [device()]
        self.assertEqual(condition.matches_many(devices), [False] * 100 + [True])
        self.assertFalse(condition.exhausted)

    def test_only_the_slow_one(self) -> None:
        """
        A connection for which the script is too slow does not match; the others are
        judged as ever, also those after it.
        """
        for slow in ("for (;;);", _NOT_SEEN_BY_THE_ENGINE[0]):
            condition = self.condition(f"if (userId == 3) {{ {slow} }} userId % 2 == 1")
            answers = condition.matches_many([device(str(n)) for n in range(10)])
            self.assertEqual(answers, [n % 2 == 1 and n != 3 for n in range(10)], slow)
            self.assertEqual((condition.evaluated, condition.failed), (10, 1))
            self.assertEqual(
                condition.first_error, "user 3: stopped after 10 ms of CPU time"
            )

    def test_others_on_the_host(self) -> None:
        """
        A script that ends the engine again and again does not touch the answers of
        another one that is evaluated at the same time.
        """
        hostile = self.condition(_NOT_SEEN_BY_THE_ENGINE[0])
        honest = self.condition("userId % 2 == 1")
        devices = [device(str(number)) for number in range(5000)]
        hostile.ask(devices)
        honest.ask(devices)
        self.assertEqual(honest.answers(None), [n % 2 == 1 for n in range(5000)])
        self.assertEqual(hostile.answers(None), [False] * 5000)
        self.assertEqual((honest.failed, honest.first_error), (0, None))

    def test_compiling_takes_too_long(self) -> None:
        """
        A script that cannot be compiled in time is refused.
        """
        self.host.limits = ScriptLimits(compile_seconds=0.0)
        condition = self.condition("(" * 5 + "userId + " * 7000 + "1" + ")" * 5)
        self.assertEqual(condition.matches_many([device()]), [False])
        self.assertTrue(condition.exhausted)
        self.assertIsNotNone(condition.first_error)


class BudgetTests(LimitTestCase):
    """
    The time of a whole broadcast.
    """

    limits = ScriptLimits(total_seconds=0.1)

    def test_used_up(self) -> None:
        """
        A script that is slow for everybody, within its limit, ends when the time of the
        broadcast is used up; until then its answers count.
        """
        condition = self.condition(_SLOW)
        answers = condition.matches_many([device()] * 1000)
        accepted = sum(answers)
        self.assertEqual(answers, [True] * accepted + [False] * (1000 - accepted))
        self.assertEqual(
            (condition.evaluated, condition.skipped), (accepted, 1000 - accepted)
        )
        self.assertGreater(accepted, 1)
        self.assertLess(condition.cpu_seconds, 1.0)
        self.assertEqual(condition.first_error, "the script used up 0.1 s of CPU time")

    def test_its_own(self) -> None:
        """
        Each condition has its own budget, and a quick one waits for a slow one no
        longer than for its turn.
        """
        slow = self.condition(
            "var end = Date.now() + 4; while (Date.now() < end); true"
        )
        quick = self.condition("userId == 107")
        slow.ask([device()] * 1000)
        quick.ask([device()] * 2000)
        self.assertEqual(quick.answers(None), [True] * 2000)
        self.assertIsNone(slow.answers())


class ProcessTests(LimitTestCase):
    """
    The process in which scripts run.
    """

    limits = ScriptLimits(patience_seconds=1.0)

    def started(self) -> int:
        """
        Have a script evaluated.

        @return: The process that did it.
        """
        self.assertTrue(self.accepts("true"))
        pid = self.host.pid
        assert pid is not None
        return pid

    def test_memory_comes_back(self) -> None:
        """
        What scripts have taken is not taken from the node, and is gone with them.
        """
        self.started()
        before = _resident()
        for source in _HOARDS[:6]:
            self.condition(source).matches_many([device()] * 20)
        pid = self.host.pid
        assert pid is not None
        self.host.close()
        self.assertLess(_resident() - before, 32 << 20)
        self.assertFalse(Path(f"/proc/{pid}").exists())

    def test_leftovers_of_calls(self) -> None:
        """
        What each call leaves behind, jobs for example, does not add up until nothing
        works any more.
        """
        condition = self.condition(
            "var kept = 'x'.repeat(20000) + userId; (async () => { await 0; kept })();"
            "kept.length > 20000"
        )
        self.assertEqual(condition.matches_many([device()] * 5000), [True] * 5000)
        self.assertIsNone(condition.first_error)

    def test_nothing_to_open(self) -> None:
        """
        The process has three descriptors and may not open, start or write anything.
        """
        pid = self.started()
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
        found = {line[:26].strip(): line[26:].split()[:2] for line in limits[1:]}
        for what in ("open files", "processes", "file size", "core file size"):
            self.assertEqual(found[f"Max {what}"], ["0", "0"], what)
        self.assertLess(int(found["Max address space"][1]), 1 << 30)
        self.assertEqual(sorted(os.listdir(f"/proc/{pid}/fd")), ["0", "1", "2"])

    def test_environment(self) -> None:
        """
        It does not get the node's environment, where secrets are.
        """
        self.patch(os, "environ", {**os.environ, "TOKEN": "s3cret", "TZ": "UTC"})
        pid = self.started()
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        self.assertNotIn(b"s3cret", environment)
        self.assertIn(b"TZ=UTC", environment)

    def test_interrupt(self) -> None:
        """
        Ctrl-C in the node's terminal is the node's business.
        """
        pid = self.started()
        self.assertNotEqual(os.getpgid(pid), os.getpgrp())
        os.kill(pid, signal.SIGINT)
        self.assertEqual(self.started(), pid)

    def test_signal_that_the_node_ignores(self) -> None:
        """
        The kernel's limit holds even where the node ignores or blocks its signal.
        """
        before = signal.signal(signal.SIGPROF, signal.SIG_IGN)
        self.addCleanup(signal.signal, signal.SIGPROF, before)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPROF})
        self.addCleanup(signal.pthread_sigmask, signal.SIG_SETMASK, mask)
        condition = self.condition(_NOT_SEEN_BY_THE_ENGINE[0])
        self.assertFalse(condition.matches(device()))
        self.assertEqual(
            condition.first_error, "user 107: stopped after 10 ms of CPU time"
        )

    def test_kept(self) -> None:
        """
        One process serves one script after another.
        """
        self.assertEqual(self.started(), self.started())

    def test_many_scripts(self) -> None:
        """
        It serves more scripts at the same time than it keeps compiled.
        """
        conditions = [self.condition(f"userId == {number}") for number in range(80)]
        for _ in range(2):
            for number, condition in enumerate(conditions):
                answers = condition.matches_many([device(str(number)), device("x")])
                self.assertEqual(answers, [True, False])

    def test_ended_from_outside(self) -> None:
        """
        When it is ended by somebody else, the next question starts another.
        """
        condition = self.condition("userId == 107")
        self.assertTrue(condition.matches(device()))
        pid = self.started()
        os.kill(pid, signal.SIGKILL)
        self.assertTrue(condition.matches(device()))
        self.assertNotEqual(self.host.pid, pid)
        self.assertIsNone(condition.first_error)

    def test_ended_meanwhile(self) -> None:
        """
        When it is ended while it has a question, the question is asked again.
        """
        self.started()
        condition = self.condition("userId % 2 == 1")
        condition.ask([device(str(number)) for number in range(3000)])
        pid = self.host.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        answers = condition.answers(None)
        assert answers is not None
        wrong = [n for n in range(3000) if answers[n] is not (n % 2 == 1)]
        # It may have been in the middle of one, which is then a failure.
        self.assertEqual(len(wrong), condition.failed)
        self.assertLessEqual(condition.failed, 1)

    def test_stopped(self) -> None:
        """
        When it does not answer any more it is given up, and another one answers.
        """
        pid = self.started()
        os.kill(pid, signal.SIGSTOP)
        self.assertTrue(self.accepts("userId == 107"))
        self.assertNotEqual(self.host.pid, pid)
        self.assertFalse(Path(f"/proc/{pid}").exists())

    def test_not_looked_at(self) -> None:
        """
        A node that does not look at the process for longer than it has patience does
        not hold that against it, even if half of the question was not sent.
        """
        self.host.limits = ScriptLimits(patience_seconds=0.2)
        self.started()
        pid = self.host.pid
        condition = self.condition("tags.length === 16384")
        condition.ask([device(tags="x" * 16384)] * 200)
        time.sleep(1.0)
        self.assertEqual(condition.answers(None), [True] * 200)
        self.assertEqual((condition.failed, self.host.pid), (0, pid))

    def test_cannot_be_started(self) -> None:
        """
        Without an interpreter nobody matches, and the sender is told.
        """
        self.patch(sys, "executable", "/nonexistent/python")
        condition = self.condition("true")
        self.assertEqual(condition.matches_many([device()]), [False])
        error = condition.first_error or ""
        self.assertTrue(
            error.startswith("the script engine cannot be started: "), error
        )

    def test_does_not_start(self) -> None:
        """
        Nor does anybody when the program ends before it is ready.
        """
        self.patch(sys, "executable", "/bin/false")
        condition = self.condition("true")
        self.assertEqual(condition.matches_many([device()]), [False])
        self.assertEqual(
            condition.first_error, "the script engine does not start: exit"
        )

    def test_no_engine(self) -> None:
        """
        Without quickjs-ng the sentence names it.
        """
        self.patch(_script_process, "ENGINE", "_no_such_engine")
        condition = self.condition("true")
        self.assertFalse(condition.matches(device()))
        self.assertIn("quickjs-ng", condition.first_error or "")

    def test_host_closed(self) -> None:
        """
        When the node stops, what is still asked is answered no.
        """
        condition = self.condition("true")
        condition.ask([device()] * 3)
        self.host.close()
        self.assertEqual(condition.answers(None), [False] * 3)
        self.assertEqual(condition.first_error, "the node stops")
        self.assertFalse(self.accepts("true"))
        self.assertIsNone(self.host.pid)

    def test_node_ended(self) -> None:
        """
        A node that is killed leaves no process behind.
        """
        program = (
            "import os\n"
            "from tests.core.push.test_conditions import *\n"
            "host = ScriptHost()\n"
            "assert condition_for('true', None, scripts=host).matches(device())\n"
            "print(host.pid, flush=True)\n"
            "os.kill(os.getpid(), 9)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=_ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual(done.returncode, -signal.SIGKILL, done.stderr)
        process = Path("/proc", done.stdout.strip())
        until = time.monotonic() + 10
        while _alive(process) and time.monotonic() < until:
            time.sleep(0.01)
        self.assertFalse(_alive(process))

    def test_no_descriptors_left(self) -> None:
        """
        A host that is closed leaves no descriptor open, however often its process was
        lost.
        """
        self.started()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            host = type(self.host)(self.limits)
            condition = ScriptCondition(_NOT_SEEN_BY_THE_ENGINE[0], host)
            condition.matches_many([device()] * 3)
            host.close()
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _alive(process: Path) -> bool:
    try:
        return "\nState:\tZ" not in process.joinpath("status").read_text()
    except OSError:
        return False
