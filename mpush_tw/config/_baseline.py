"""
What every key would be if the operator had said nothing about it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mpush_tw.config import _fields
from mpush_tw.config.settings import Settings

__all__ = ["Baseline"]

Path = tuple[str, ...]


class Baseline:
    """
    The defaults, seen from one loaded tree.

    A default with references (C{${mp.home}/logs}) follows what they stand for in this
    tree: moving C{mp.home} does not make C{mp.log-dir} a changed key.
    """

    def __init__(self, tree: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        self._tree = tree
        self._environ = environ
        self.keys = dict(_fields.walk(Settings))

    def written(self, path: Path) -> Any:
        """
        Give the value at a path as written, or None where there is nothing.
        """
        value: Any = self._tree
        for part in path[1:]:
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def differs(self, path: Path) -> bool:
        """
        Tell whether a known key has another value than its default.
        """
        key = self.keys[path]
        return key.read(self.written(path)) != key.read(self._default(key))

    def changed(self) -> dict[str, Any]:
        """
        Give the part of the tree that differs, without unknown keys.
        """
        part: dict[str, Any] = {}
        for path in filter(self.differs, self.keys):
            section = part
            for name in path[1:-1]:
                section = section.setdefault(name, {})
            section[path[-1]] = self.written(path)
        return part

    def _default(self, key: _fields.Key) -> object:
        if not isinstance(key.default, str):
            return key.default
        return re.sub(r"\$\{([^}]*)\}", self._reference, key.default)

    def _reference(self, match: re.Match[str]) -> str:
        path = tuple(match[1].split("."))
        written = self.written(path) if path[0] == "mp" else None
        return self._environ[match[1]] if written is None else str(written)
