"""
What can be told from the text of a script without running it, and what may be told of
its errors.

Nothing here parses JavaScript. The engine does, and where these look too closely or not
closely enough the result is a slower evaluation, never another one.
"""

from __future__ import annotations

import json
import re

from mpush_tw.core.push import _script_worker as worker
from mpush_tw.core.push._script_process import Row

_PREFIX = "throw 0;\n"
_HEAD = f"({worker.VARIABLES}) => (\n"
"""
Both put the script on the second line.
"""

_WITHOUT_EVAL = "let eval; "
"""
Statements are evaluated by C{eval}, which is therefore in their scope.
"""

_COMMENTS = re.compile(r"(?:\s|//[^\n\r\u2028\u2029]*|/\*.*?\*/)*", re.DOTALL)
_STATEMENT = re.compile(r"\{|(?:function|class|async\s+function|let)\b")
"""
What a list of statements may begin with and an expression statement may not.
"""

_ASSIGNMENT = re.compile(
    r"(?<![=!<>])=(?![=>])|\\|\b(?:for|this|globalThis|Function|constructor|Reflect"
    r"|Object)\b"
)
"""
What a script needs in order to make a variable that it does not declare. To look for
such variables costs more than an average call; where this misses a way to make one, the
global object is frozen and there is none.
"""

_NAMES = worker.VARIABLES.split(",")


def check_literal(source: str) -> str:
    """
    The script behind a statement that throws 0, as a JavaScript string literal: it
    compiles if the script does, and does not run.
    """
    return json.dumps(_PREFIX + _statements(source))


def script_literal(source: str) -> str:
    """
    The script as it is, as a literal.
    """
    return json.dumps(_statements(source))


def expression_literal(source: str) -> str | None:
    """
    The script as a function of the five variables with one expression in it, as a
    literal; C{None} if it certainly is none.

    A text that is a script and that compiles inside these parentheses as well has the
    same value in both forms, except for those that L{_STATEMENT} excludes: C{{a: 1}} is
    a block and an object.
    """
    text = source.rstrip().removesuffix(";")
    start = _COMMENTS.match(text)
    if start is None or _STATEMENT.match(text, start.end()):
        return None
    return json.dumps(f"{_HEAD}{text}\n)")


def may_assign(source: str) -> bool:
    """
    Whether the script may assign to variables that it does not declare.
    """
    return _ASSIGNMENT.search(source) is not None


def used_variables(source: str) -> Row:
    """
    The variables that the script may look at, C{None} in place of the others.
    """
    # With an escape in it, a name is not spelled as itself.
    hidden = "\\" in source
    return tuple(name if hidden or name in source else None for name in _NAMES)


def _statements(source: str) -> str:
    if "eval" in source or "\\" in source:
        return _WITHOUT_EVAL + source
    return source


# ----------------------------------------------------------------- errors

_POSITION = re.compile(r":(\d+):(\d+)")
_WORD = re.compile(r"\w+")
_NOT_SHOWN = re.compile(r"[^\w .,:;'\"()\[\]{}$%+*/=<>!?&|-]+")

_MESSAGES = """
    Error InternalError RangeError ReferenceError SyntaxError TypeError URIError
    AggregateError Array BigInt Could Expected Function Invalid JSON Maximum Number
    Object RegExp String Symbol a already an and are argument array at bad be before
    bigint boolean by call called cannot captures changed class code column constructor
    convert could deep define defined delete detached division empty end escape exceeded
    expected expecting expression extensible fields flag flags for forbidden found
    function getter global good group has have immutable in its inconsistent index
    initialized integer invalid is it item iterable iterator large length line long many
    memory method missing must name no non not null number object of on only or out
    overflow pattern position property prototype proxy radix range read readonly
    recursion redeclaration regexp regular required requires return revoked sequence set
    setter size something stack string supported symbol takes text that the this threw
    throw time to token too undefined unexpected unicode unsupported unterminated value
    variable was whose with write zero
"""
_KNOWN_WORDS = frozenset(_MESSAGES.split())
"""
Words of the engine's messages.
"""


def without_data(problem: str, source: str) -> str:
    """
    Leave of an error's first line the words that the engine or the script has: the rest
    may be what devices told of their users.
    """
    words = _KNOWN_WORDS | set(_WORD.findall(source))

    def shown(found: re.Match[str]) -> str:
        return found[0] if found[0] in words else "..."

    line = problem.partition("\n")[0]
    return _NOT_SHOWN.sub("", _WORD.sub(shown, line))


def with_position(problem: str) -> str:
    """
    Put the position of a syntax error in front of it, as the sender counts lines.

    @param problem: The error's first line and the engine's stack, in which the script
        begins on the second line.
    """
    line, _, stack = problem.partition("\n")
    found = _POSITION.search(stack)
    if found is None or int(found[1]) < 2:
        return line
    return f"line {int(found[1]) - 1}, column {found[2]}: {line}"
