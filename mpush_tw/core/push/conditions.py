"""
Who is meant by a broadcast: everybody, who has a tag, or whom a script accepts.

Where the rules are: server 14.1 and 14.5, cluster 7.10, DESIGN 5.11 and 5c. A condition
serves one broadcast on one node: L{condition_for} makes it, it is asked once about each
connection, tells at the end what it came to, and is closed.

The original ran scripts inside the server, with all its powers and no limit (D-17,
C-26). Here QuickJS runs them in a process of their own: they reach nothing, and
whatever they do costs them their L{ScriptLimits} and nobody else anything. Why a
process is needed: L{mpush_tw.core.push._script_worker}.

What a script may rely on:

  - It is JavaScript in sloppy mode: an expression, which is compiled once, or
    statements of which the value counts as C{eval} sees it, which are compiled for each
    call.
  - The five variables are texts or null. Only the value C{true} accepts; an error is
    counted and does not.
  - Each call finds the global scope as the first did. Undeclared variables are
    forgotten after it. What the language brings, C{String.prototype} for instance, is
    frozen: a change to it is ignored, or an error in strict mode.
  - C{Date} and C{Math.random} are there, for opening hours in the node's time zone and
    for samples. So is C{Function}, as the limits hold for what it makes; C{eval} is
    not, as it can declare variables that outlive the call. Jobs of C{Promise} and
    C{async} never run.

A reading order: L{_condition}, this, L{_script_condition}, L{_script_text},
L{_script_host}, L{_script_process}, L{_script_worker}.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from mpush_tw.core.connection import Connection
from mpush_tw.core.push._condition import Condition, DirectCondition
from mpush_tw.core.push._script_condition import ScriptCondition
from mpush_tw.core.push._script_host import ScriptHost, ScriptLimits

__all__ = [
    "AlwaysCondition",
    "Condition",
    "ScriptCondition",
    "ScriptHost",
    "ScriptLimits",
    "TagCondition",
    "condition_for",
]


class AlwaysCondition(DirectCondition):
    """
    Everybody.
    """

    def _decide(self, connection: Connection) -> bool:
        return True


class TagCondition(DirectCondition):
    """
    Who has one of the wanted tags (cluster 7.10).

    The text of a device's tags is free. As in the original a wanted tag matches
    anywhere in it, so that C{a} finds C{abc} (D-18). If C{exact}, it has to be one of
    the device's tags: an element of the text if that is a JSON array, otherwise one of
    its parts between commas and blanks. No wanted tags match nobody, and a device
    without tags is never matched.
    """

    def __init__(self, tags: Sequence[str], exact: bool = False) -> None:
        super().__init__()
        self._tags = frozenset(tags)
        self._exact = exact

    def _decide(self, connection: Connection) -> bool:
        text = connection.tags
        if text is None:
            return False
        if self._exact:
            return not self._tags.isdisjoint(_tags_of(text))
        return any(tag in text for tag in self._tags)


_SEPARATORS = re.compile(r"[,\s]+")


def _tags_of(text: str) -> list[str]:
    if text.lstrip().startswith("["):
        try:
            elements = msgspec.json.decode(text, type=list[str | int])
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            pass
        else:
            return [str(element) for element in elements]
    return [part for part in _SEPARATORS.split(text) if part]


def condition_for(
    condition: str | None,
    tags: Sequence[str] | None,
    tags_match: str = "substring",
    scripts: ScriptHost | None = None,
) -> Condition:
    """
    Find out who is meant: a script wins over tags, tags over everybody (server 14.1).

    @param condition: Text of the script; C{None} for none.
    @param tags: The wanted tags; C{None} for none.
    @param tags_match: C{mp.push.tags-match}: C{"substring"} or C{"exact"}.
    @param scripts: Where the scripts of the node are evaluated. Without it a script
        gets a process of its own, which takes longer.
    @raise ValueError: If C{tags_match} is neither.
    """
    if tags_match not in ("substring", "exact"):
        raise ValueError(f"tags_match must be substring or exact, not {tags_match!r}")
    if condition is not None:
        return ScriptCondition(condition, scripts)
    if tags is not None:
        return TagCondition(tags, tags_match == "exact")
    return AlwaysCondition()
