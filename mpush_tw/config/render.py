"""
Configuration as text that people see, and that can be pasted into a file again.

L{mask} hides secrets; C{mpush config show} and the console's C{conf} show nothing that
has not been through it (operations 12, O-3).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from mpush_tw.config.hocon import join

__all__ = ["MASKED", "mask", "render", "render_value"]

MASKED: Final = "******"
"""
What stands in the place of a secret.
"""

_SECRET_KEY = re.compile("private-?key|password|digest|secret|token", re.IGNORECASE)
_NODE_PASSWORD = re.compile(r"(?P<node>(?:\[[^\]]*\]|[^:\[\]]*):[0-9]+:).+", re.DOTALL)
_PLAIN = re.compile(r"[A-Za-z_/.][A-Za-z0-9_/.-]*|[0-9]+[A-Za-z]*|[0-9.]+")
_SPECIAL = {"true", "false", "null", "include"}


def mask(tree: Mapping[str, Any]) -> dict[str, Any]:
    """
    Copy a tree of configuration with its secrets replaced by L{MASKED}.

    Secret is every value below a key whose name holds C{private-key}, C{password},
    C{digest}, C{secret} or C{token}, and the password behind a Redis node's port. An
    empty text stays empty, so that one sees that nothing is set.

    @param tree: Plain data, the whole tree or a part that starts with a key.
    """
    return {key: _masked(item, key) for key, item in tree.items()}


def _masked(value: Any, key: str) -> Any:
    if _SECRET_KEY.search(key):
        return _hidden(value)
    if key == "nodes":
        return _masked_nodes(value)
    if isinstance(value, Mapping):
        return mask(value)
    if isinstance(value, (list, tuple)):
        return [_masked(item, "") for item in value]
    return value


def _hidden(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _hidden(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_hidden(item) for item in value]
    return value if value is None or value == "" else MASKED


def _masked_nodes(value: Any) -> Any:
    if isinstance(value, str):
        return _NODE_PASSWORD.sub(rf"\g<node>{MASKED}", value)
    if isinstance(value, Mapping):
        return {key: _masked_nodes(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_masked_nodes(item) for item in value]
    return value


def render_value(value: Any) -> str:
    """
    Write plain data as HOCON on one line. Texts are quoted unless they are plain words
    or sizes, and read back as the same data.
    """
    if isinstance(value, Mapping):
        inner = ", ".join(
            f"{join([key])}: {render_value(item)}" for key, item in value.items()
        )
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(render_value, value))}]"
    if isinstance(value, str):
        plain = _PLAIN.fullmatch(value) and "//" not in value
        if plain and value not in _SPECIAL:
            return value
    return json.dumps(value, ensure_ascii=False)


def render(tree: Mapping[str, Any], indent: str = "") -> str:
    """
    Write a tree as HOCON: one key on a line, objects in braces, ending in a newline.

    A value with a masked secret becomes a comment, so that text pasted into a file
    never makes L{MASKED} a password.
    """
    lines = []
    for key, item in tree.items():
        if isinstance(item, Mapping) and item:
            lines.append(f"{indent}{join([key])} {{\n")
            lines.append(render(item, f"{indent}    "))
            lines.append(f"{indent}}}\n")
        else:
            value = render_value(item)
            comment = "# " if MASKED in value else ""
            lines.append(f"{indent}{comment}{join([key])} = {value}\n")
    return "".join(lines)
