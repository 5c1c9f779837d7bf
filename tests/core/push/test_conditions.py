"""
Tests for L{mpush_tw.core.push.conditions}: who is meant by a broadcast.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.connection import Connection
from mpush_tw.core.push.conditions import (
    AlwaysCondition,
    Condition,
    ScriptCondition,
    ScriptHost,
    ScriptLimits,
    TagCondition,
    condition_for,
)
from tests.core.fakes import FakeConnection
from tests.core.push import expressions

_TOKENS = r"""
    userId tags ( ) [ ] { } , ; : ? ! = == + - ++ % . ... => ` ' " / \ 1 0x true null
    this new var let for while if else return throw try function async await yield class
    catch typeof delete x // /* */ indexOf replace constructor __proto__ arguments eval
"""
"""
What scripts are made of.
"""

_NOT_THERE = """
    std os print console require process module Java java Packages load importPackage
    quit exit setTimeout setInterval fetch XMLHttpRequest WebAssembly Atomics gc bjson
    SharedArrayBuffer WeakRef FinalizationRegistry queueMicrotask scriptArgs
"""


def device(
    user_id: str | None = "107",
    tags: str | None = "a,test,b",
    client_version: str | None = "android-2.1",
    os_name: str | None = "android",
    os_version: str | None = "13",
) -> Connection:
    """
    Make a connection with a session context.
    """
    connection = FakeConnection(os_name=os_name)
    connection.user_id = user_id
    connection.tags = tags
    connection.client_version = client_version
    connection.os_version = os_version
    return connection


class ScriptTestCase(SynchronousTestCase):
    """
    A host for scripts, which ends with the test.
    """

    limits = ScriptLimits()

    def setUp(self) -> None:
        self.host = ScriptHost(self.limits)
        self.addCleanup(self.host.close)

    def condition(self, source: str) -> ScriptCondition:
        """
        Make a condition of a script.
        """
        condition = condition_for(source, None, scripts=self.host)
        assert isinstance(condition, ScriptCondition)
        self.addCleanup(condition.close)
        return condition

    def accepts(self, source: str, connection: Connection | None = None) -> bool:
        """
        Evaluate a script for one connection.
        """
        return self.condition(source).matches(connection or device())


class ChoiceTests(SynchronousTestCase):
    """
    What a request asks for (server 14.1).
    """

    def test_everybody(self) -> None:
        """
        Without a script and without tags everybody is meant, tags or not.
        """
        condition = condition_for(None, None)
        self.assertIsInstance(condition, AlwaysCondition)
        self.assertEqual(
            condition.matches_many([device(), device(tags=None)]), [True] * 2
        )

    def test_tags(self) -> None:
        """
        With tags those are meant who have one of them.
        """
        condition = condition_for(None, ("x", "test"))
        self.assertIsInstance(condition, TagCondition)
        self.assertTrue(condition.matches(device()))

    def test_script_wins(self) -> None:
        """
        With both only the script counts.
        """
        condition = condition_for("false", ("test",))
        self.addCleanup(condition.close)
        self.assertFalse(condition.matches(device()))

    def test_empty_script_wins(self) -> None:
        """
        An empty script is a script, whose value is not true.
        """
        condition = condition_for("", ("test",))
        self.addCleanup(condition.close)
        self.assertFalse(condition.matches(device()))

    def test_unknown_way_of_matching(self) -> None:
        """
        Tags match by substring or exactly; another word is a mistake of ours.
        """
        self.assertRaises(ValueError, condition_for, None, None, "regex")

    def test_counts(self) -> None:
        """
        A condition that cannot fail counts whom it has decided about.
        """
        condition = condition_for(None, ("test",))
        condition.matches_many([device(), device(tags=None)])
        condition.matches(device())
        self.assertEqual(
            (condition.evaluated, condition.failed, condition.first_error), (3, 0, None)
        )

    def test_closed(self) -> None:
        """
        A closed condition matches nobody and says how many it passed over.
        """
        for condition in (condition_for(None, None), condition_for("true", None)):
            condition.close()
            condition.close()
            self.assertTrue(condition.exhausted)
            self.assertEqual(condition.matches_many([device()] * 2), [False] * 2)
            self.assertEqual((condition.evaluated, condition.skipped), (0, 2))


class TagTests(SynchronousTestCase):
    """
    Conditions of tags (cluster 7.10).
    """

    def assertMatches(
        self, wanted: tuple[str, ...], tags: str | None, expected: bool, how: str
    ) -> None:
        condition = condition_for(None, wanted, how)
        self.assertIs(condition.matches(device(tags=tags)), expected, (wanted, tags))

    def test_substring(self) -> None:
        """
        As in the original a tag is found anywhere in the device's text (D-18).
        """
        self.assertMatches(("a",), "abc", True, "substring")
        self.assertMatches(("x", "c"), "abc", True, "substring")
        self.assertMatches(("ac",), "abc", False, "substring")

    def test_no_tags(self) -> None:
        """
        A device without tags is not meant, whatever is wanted.
        """
        for how in ("substring", "exact"):
            self.assertMatches(("a", ""), None, False, how)

    def test_nothing_wanted(self) -> None:
        """
        An empty list of tags means nobody.
        """
        for how in ("substring", "exact"):
            self.assertMatches((), "abc", False, how)

    def test_empty_tag(self) -> None:
        """
        As in the original an empty tag is contained in every text; exactly it is in
        none.
        """
        self.assertMatches(("",), "abc", True, "substring")
        self.assertMatches(("",), "a,,b", False, "exact")

    def test_exact_parts(self) -> None:
        """
        Exactly, a tag is a part between commas or blanks.
        """
        for text in ("vip", "a,vip", "a, vip ,b", "a vip\tb", ",vip,"):
            self.assertMatches(("vip",), text, True, "exact")
        for text in ("vips", "a,vip2", "v ip", "", "VIP"):
            self.assertMatches(("vip",), text, False, "exact")

    def test_exact_array(self) -> None:
        """
        A text that is a JSON array is a list of tags, with blanks and escapes in them.
        """
        self.assertMatches(("new york",), '["a","new york"]', True, "exact")
        self.assertMatches(("größe",), ' ["gr\\u00f6\\u00dfe"]', True, "exact")
        self.assertMatches(("7",), "[6,7]", True, "exact")
        self.assertMatches(("york",), '["a","new york"]', False, "exact")

    def test_exact_almost_an_array(self) -> None:
        """
        A text that only looks like an array is taken apart like any other.
        """
        long = "[" * 5000 + " vip"
        for text in ("[ vip", '["b", vip', "[[1]] vip", long, "[\ud800 vip"):
            self.assertMatches(("vip",), text, True, "exact")

    def test_other_scripts(self) -> None:
        """
        Tags may be in any language.
        """
        self.assertMatches(("北京",), "上海,北京", True, "exact")
        self.assertMatches(("北",), "上海,北京", True, "substring")
        self.assertMatches(("北",), "上海,北京", False, "exact")


class ValueTests(ScriptTestCase):
    """
    Whom a script accepts (server 14.5).
    """

    def test_share_of_the_users(self) -> None:
        """
        The manual's first expression takes a share of the users with numbers.
        """
        share = "userId % 100 < 20"
        self.assertTrue(self.accepts(share, device("107")))
        self.assertFalse(self.accepts(share, device("user-7")))
        self.assertFalse(self.accepts(share, device("50")))

    def test_tag(self) -> None:
        """
        The manual's second expression looks for a tag.
        """
        tag = 'tags!=null && tags.indexOf("test")!=-1'
        self.assertFalse(self.accepts(tag, device(tags=None)))
        self.assertTrue(self.accepts(tag, device(tags="a,test,b")))

    def test_version(self) -> None:
        """
        The manual's third expression compares versions.
        """
        version = (
            'clientVersion.indexOf("android")!=-1 '
            '&& clientVersion.replace(/[^\\d]/g,"") > 20'
        )
        self.assertTrue(self.accepts(version, device(client_version="android-2.1")))
        self.assertFalse(self.accepts(version, device(client_version="android 1.9")))
        self.assertFalse(self.accepts(version, device(client_version="ios 3.0")))

    def test_only_true(self) -> None:
        """
        A text, a number or an object is no yes, however true it is.
        """
        for source in ("tags", "1", "'true'", "[true]", "new Boolean(true)", "({})"):
            self.assertFalse(self.accepts(source), source)

    def test_error_is_no(self) -> None:
        """
        Where a script fails the device is not meant.
        """
        self.assertFalse(self.accepts("tags.length > 0", device(tags=None)))

    def test_as_node_does(self) -> None:
        """
        More than a hundred scripts accept the devices that they accept in Node.js, in
        one that is here or in the one that was recorded.
        """
        recorded = expressions.recorded()
        expected = expressions.ask_node() or recorded
        self.assertEqual(expected, recorded, "record the values again")
        devices = [device(*variables) for variables in expressions.DEVICES]
        answers = {}
        for source in expressions.EXPRESSIONS:
            condition = self.condition(source)
            answers[source] = condition.matches_many(devices)
            condition.close()
        self.assertEqual(answers, expected)

    def test_all_five_variables(self) -> None:
        """
        Each variable holds what the device said, or null.
        """
        names = ("userId", "tags", "clientVersion", "osName", "osVersion")
        values = ("u", "t", "c", "o", "v")
        for position, name in enumerate(names):
            self.assertTrue(
                self.accepts(f"{name} === {values[position]!r}", device(*values)), name
            )
            nothing = device(None, None, None, None, None)
            self.assertTrue(self.accepts(f"{name} === null", nothing), name)

    def test_variable_with_an_escape_in_its_name(self) -> None:
        """
        JavaScript lets a name be spelled with escapes; it is the same variable.
        """
        self.assertTrue(self.accepts("\\u0074ags === 'a,test,b'"))

    def test_half_a_surrogate_pair(self) -> None:
        """
        A device's text that is no valid Unicode does not disturb anybody.
        """
        condition = self.condition("tags.length === 3")
        answers = condition.matches_many([device(tags="a\ud800b"), device(tags="abc")])
        self.assertEqual(answers, [True, True])

    def test_many(self) -> None:
        """
        More connections than fit into one batch get their answers in order.
        """
        devices = [device(str(number)) for number in range(2500)]
        condition = self.condition("userId % 3 == 1")
        self.assertEqual(
            condition.matches_many(devices), [n % 3 == 1 for n in range(2500)]
        )
        self.assertEqual((condition.evaluated, condition.failed), (2500, 0))

    def test_long_tags(self) -> None:
        """
        More text than fits into one batch arrives whole.
        """
        devices = [device(tags="x" * 16384) for _ in range(200)]
        condition = self.condition("tags.length === 16384")
        self.assertEqual(condition.matches_many(devices), [True] * 200)

    def test_nobody_to_decide_about(self) -> None:
        """
        Without connections there is nothing to do, not even a process to start.
        """
        self.assertEqual(self.condition("true").matches_many([]), [])
        self.assertIsNone(self.host.pid)

    def test_without_a_host(self) -> None:
        """
        A condition that is given no host has a process of its own, until it is closed.
        """
        condition = condition_for("userId == 107", None)
        self.assertTrue(condition.matches(device()))
        condition.close()
        self.assertFalse(condition.matches(device()))

    @settings(max_examples=150, deadline=None)
    @given(
        st.text(max_size=40)
        | st.lists(
            st.sampled_from([*_TOKENS.split(), "\n", "\ud800", "\x00"]),
            max_size=14,
        ).map(" ".join)
    )
    def test_any_text(self, source: str) -> None:
        """
        Whatever text is given as a script, there is an answer, which is yes or no, and
        it costs no more than compiling and a call may.
        """
        condition = condition_for(source, None, scripts=self.host)
        answers = condition.matches_many([device(), device(tags=None)])
        self.assertLessEqual(set(answers), {True, False})
        self.assertEqual(condition.evaluated + condition.skipped, 2)
        self.assertFalse(any(answers) and condition.failed == 2)
        assert isinstance(condition, ScriptCondition)
        limits = self.limits
        self.assertLess(
            condition.cpu_seconds,
            limits.compile_seconds + 4 * limits.call_seconds + 0.1,
        )
        condition.close()


class FreshScopeTests(ScriptTestCase):
    """
    No call knows of another.
    """

    def assertForgets(self, source: str, expected: bool = True) -> None:
        """
        A script has the same value for each of three connections.
        """
        answers = self.condition(source).matches_many([device()] * 3)
        self.assertEqual(answers, [expected] * 3, source)

    def test_undeclared_variable(self) -> None:
        """
        A variable that was never declared lives for one call.
        """
        self.assertForgets(
            "seen = typeof seen == 'undefined' ? 1 : seen + 1; seen === 1"
        )
        self.assertForgets("typeof n == 'undefined' && (n = 1, n === 1)")

    def test_declared_variable(self) -> None:
        """
        So do variables and functions with a declaration.
        """
        self.assertForgets("var n = (n || 0) + 1; n === 1")
        self.assertForgets("let n = 1; n += 1; n === 2")
        self.assertForgets("function f() {} f.n = (f.n || 0) + 1; f.n === 1")

    def test_property_of_the_global_object(self) -> None:
        """
        So do properties that are set on the global object by name.
        """
        self.assertForgets("this.n = (this.n || 0) + 1; n === 1")
        self.assertForgets("globalThis['n'] = (globalThis['n'] || 0) + 1; n === 1")
        self.assertForgets("globalThis[7] = (globalThis[7] || 0) + 1; this[7] === 1")
        self.assertForgets(
            "var s = Symbol.for('s'); this[s] = (this[s] || 0) + 1; this[s] === 1"
        )

    def test_function_made_of_a_text(self) -> None:
        """
        So do variables of a function that the script has made of a text.
        """
        self.assertForgets("Function('return n = this.n ? 2 : 1')() === 1")
        self.assertForgets("[].at.constructor('return n = this.n ? 2 : 1')() === 1")

    def test_what_the_language_brings(self) -> None:
        """
        Built-in objects stay as they are.
        """
        self.assertForgets("String.prototype.n = 1; ''.n === undefined")
        self.assertForgets("Object.prototype.n = 1; ({}).n === undefined")
        self.assertForgets(
            "String.prototype.indexOf = () => 0; tags.indexOf('z') === -1"
        )
        self.assertForgets("Math.n = 1; Math.n === undefined")
        self.assertForgets("String = 5; typeof String === 'function'")
        self.assertForgets("JSON.parse = 1; typeof JSON.parse === 'function'")

    def test_what_syntax_reaches(self) -> None:
        """
        Nor can anything be kept in built-in objects that have no name.
        """
        proto = "Object.getPrototypeOf"
        for reached in (
            f"{proto}(function* () {{}})",
            f"{proto}(async function () {{}})",
            f"{proto}(async function* () {{}}).prototype",
            f"{proto}([].values())",
            f"{proto}({proto}([].values()))",
            f"{proto}(''[Symbol.iterator]())",
            f"{proto}(new Map().entries())",
            f"{proto}('a'.matchAll(/a/g))",
            f"{proto}(Uint8Array)",
            f"{proto}([].values().map(x => x))",
            "(function () {}).constructor",
            "(async () => {}).constructor",
            "Object.getOwnPropertyDescriptor(Map.prototype, 'size').get",
        ):
            self.assertForgets(f"var it = {reached}; it.n = 1; it.n === undefined")

    def test_in_strict_mode(self) -> None:
        """
        In strict mode the attempt is an error, which says so.
        """
        condition = self.condition("'use strict'; String.prototype.n = 1; true")
        self.assertFalse(condition.matches(device()))
        self.assertIn("TypeError", condition.first_error or "")

    def test_change_that_cannot_be_undone(self) -> None:
        """
        A script that changes the global object for good does not match, and the next
        call finds a new one.
        """
        for change in (
            "Object.defineProperty(this, 'n', {value: 1})",
            "Object.preventExtensions(this)",
            "Object.setPrototypeOf(this, {n: 1})",
        ):
            only_first = self.condition(
                f"userId == 1 && {change}; typeof n == 'undefined'"
            )
            answers = only_first.matches_many([device("1"), device("2")])
            self.assertEqual(answers, [False, True], change)
            self.assertEqual(only_first.failed, 1)
            self.assertIn("changed for good", only_first.first_error or "")

    def test_no_eval(self) -> None:
        """
        C{eval} could declare variables that stay, so there is none, in an expression or
        in statements.
        """
        for source in (
            "eval('true')",
            "(0, eval)('true')",
            "var x = eval; x('true')",
            "var x; \\u0065val('true')",
            "Function('return eval(\"true\")')()",
        ):
            self.assertForgets(source, False)

    def test_jobs(self) -> None:
        """
        Nothing runs after the call.
        """
        self.assertForgets(
            "Promise.resolve().then(() => { n = 1 });"
            "(async () => { await 0; n = 1 })();"
            "typeof n == 'undefined'"
        )

    def test_another_script(self) -> None:
        """
        Two scripts on one host do not see each other.
        """
        self.assertTrue(self.accepts("n = 1; true"))
        self.assertTrue(self.accepts("typeof n == 'undefined'"))


class NothingToReachTests(ScriptTestCase):
    """
    What a script does not find.
    """

    def test_no_host_objects(self) -> None:
        """
        There is nothing of the machine, of Java or of Python in its scope.
        """
        for name in _NOT_THERE.split():
            self.assertTrue(self.accepts(f"typeof {name} === 'undefined'"), name)

    def test_no_modules(self) -> None:
        """
        Nothing can be imported, now or later.
        """
        self.assertFalse(self.accepts("import('os') === 1"))
        self.assertFalse(self.accepts("import os from 'os'; true"))

    def test_time_and_chance(self) -> None:
        """
        The time of day and chance are there, for opening hours and samples.
        """
        self.assertTrue(self.accepts("new Date().getFullYear() > 2020"))
        self.assertTrue(self.accepts("var r = Math.random(); r >= 0 && r < 1"))


class ErrorTests(ScriptTestCase):
    """
    What the sender is told.
    """

    def first_error(self, source: str, *devices: Connection) -> str | None:
        """
        Evaluate a script for some connections.
        """
        condition = self.condition(source)
        condition.matches_many(devices or (device(),))
        return condition.first_error

    def test_none(self) -> None:
        """
        A script that works has no error, whatever it answers.
        """
        self.assertIsNone(self.first_error("userId == 107", device(), device("1")))

    def test_syntax(self) -> None:
        """
        A script that is none is refused with line and column, and nobody matches.
        """
        condition = self.condition("userId == 1 &&\n  userId ==== 2")
        self.assertEqual(condition.matches_many([device("1")] * 3), [False] * 3)
        self.assertTrue(condition.exhausted)
        self.assertEqual((condition.evaluated, condition.skipped), (0, 3))
        error = condition.first_error or ""
        self.assertTrue(error.startswith("line 2, column 13: SyntaxError: "), error)

    def test_syntax_of_statements(self) -> None:
        """
        Statements are counted in the same lines.
        """
        error = self.first_error("var a = 1;\nvar b = 2;\nvar c = ;") or ""
        self.assertTrue(error.startswith("line 3, column 9: SyntaxError: "), error)

    def test_failure(self) -> None:
        """
        A failure is told with the first user whom it struck; the others are counted.
        """
        condition = self.condition("tags.length > 0")
        answers = condition.matches_many(
            [device("5"), device("6", tags=None), device("7", tags=None)]
        )
        self.assertEqual(answers, [True, False, False])
        self.assertEqual((condition.evaluated, condition.failed), (3, 2))
        self.assertEqual(
            condition.first_error,
            "user 6: TypeError: cannot read property 'length' of null",
        )

    def test_unknown_name(self) -> None:
        """
        A misspelled variable is an error, not a variable that is empty.
        """
        condition = self.condition("tag != 'x'")
        self.assertFalse(condition.matches(device()))
        self.assertEqual(
            condition.first_error, "user 107: ReferenceError: tag is not defined"
        )

    def test_thrown_text(self) -> None:
        """
        What a script throws on purpose is told.
        """
        self.assertEqual(
            self.first_error("throw 'no such thing'"),
            "user 107: it threw the string 'no such thing'",
        )
        self.assertEqual(
            self.first_error("throw new RangeError('too far')"),
            "user 107: RangeError: too far",
        )
        self.assertEqual(
            self.first_error("throw null"), "user 107: it threw the object null"
        )

    def test_nothing_of_the_users(self) -> None:
        """
        Data of devices does not come out in an error, whatever the script does.
        """
        secret = device("7", "secret-9", "geheim", "秘密", "4711")
        for source in (
            "throw tags",
            "throw new Error(tags + clientVersion + osName + osVersion)",
            "throw {toString: function () { return tags }}",
            "null[tags]",
            "throw tags.split('').join('-')",
            "var e = new Error('x'); e.name = tags; throw e",
            "throw osName",
        ):
            error = self.first_error(source, secret) or ""
            self.assertTrue(error.startswith("user 7: "), source)
            for data in ("secret", "9", "geheim", "秘", "4711", "s-e-c"):
                self.assertNotIn(data, error, source)

    def test_without_user(self) -> None:
        """
        A connection that is not bound is named as such.
        """
        self.assertEqual(
            self.first_error("throw 1", device(None)),
            "a device without user: it threw the number 1",
        )

    def test_bounded_and_printable(self) -> None:
        """
        An error fits into a line of a log, whatever was thrown and by whom.
        """
        for source in (
            "throw 'throw '.repeat(1000000)",
            "throw new Error('throw '.repeat(1000000))",
            "throw 'throw\\n\\r\\u2028\\x1b[2J'",
            "var \x1b = 1",
        ):
            error = self.first_error(source, device("u\x1b" * 500)) or ""
            self.assertTrue(error.isprintable(), source)
            self.assertLess(len(error), 1000, source)

    def test_error_that_cannot_be_told(self) -> None:
        """
        An exception without any text is a failure like others.
        """
        for source in (
            "throw {toString: function () { throw 1 }}",
            "throw Object.create(null)",
            "throw Symbol()",
            "throw new Proxy({}, {getPrototypeOf: function () { throw 1 }})",
            "var e = new Error(); Object.defineProperty(e, 'message', "
            "{get: function () { throw 1 }}); throw e",
        ):
            condition = self.condition(source)
            self.assertFalse(condition.matches(device()))
            self.assertEqual(condition.failed, 1, source)
            self.assertIn("it threw the ", condition.first_error or "", source)


class AskTests(ScriptTestCase):
    """
    Asking without waiting, as the reactor does.
    """

    def test_directly_decided(self) -> None:
        """
        Conditions without a script have their answers at once.
        """
        condition: Condition = condition_for(None, ("test",))
        condition.ask([device(), device(tags=None)])
        self.assertEqual(condition.answers(), [True, False])

    def test_not_yet(self) -> None:
        """
        A script has none before its process has started; they come without anything
        else being done.
        """
        condition = self.condition("userId == 107")
        condition.ask([device(), device("1")])
        self.assertIsNone(condition.answers())
        self.assertEqual(condition.answers(10.0), [True, False])

    def test_asked_twice(self) -> None:
        """
        One question at a time.
        """
        for condition in (condition_for(None, None), self.condition("true")):
            condition.ask([device()])
            self.assertRaises(RuntimeError, condition.ask, [device()])
            self.assertEqual(condition.answers(None), [True])

    def test_not_asked(self) -> None:
        """
        No answers without a question.
        """
        for condition in (condition_for(None, None), self.condition("true")):
            self.assertRaises(RuntimeError, condition.answers)

    def test_context_is_read_when_asked(self) -> None:
        """
        A device that changes meanwhile is judged by what it was.
        """
        condition = self.condition("userId == 107")
        connection = device()
        condition.ask([connection])
        connection.user_id = None
        self.assertEqual(condition.answers(None), [True])

    def test_closed_meanwhile(self) -> None:
        """
        A condition that is closed before its answers came answers no.
        """
        condition = self.condition("true")
        condition.ask([device()] * 2)
        condition.close()
        self.assertEqual(condition.answers(None), [False, False])
        self.assertEqual(condition.skipped, 2)

    def test_two_at_a_time(self) -> None:
        """
        Two conditions on one host get their own answers, whoever is asked first.
        """
        devices = [device(str(number)) for number in range(3000)]
        even, odd = self.condition("userId % 2 == 0"), self.condition("userId % 2 == 1")
        even.ask(devices)
        odd.ask(devices)
        self.assertEqual(odd.answers(None), [n % 2 == 1 for n in range(3000)])
        self.assertEqual(even.answers(None), [n % 2 == 0 for n in range(3000)])
