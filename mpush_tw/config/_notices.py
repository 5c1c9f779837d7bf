"""
What an operator is told once at start: nothing here stops it (operations 1.2).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from mpush_tw.config import _fields
from mpush_tw.config._aliases import ALIASES, RETIRED, Alias
from mpush_tw.config._baseline import Baseline
from mpush_tw.config.hocon import Text, join
from mpush_tw.config.settings import LOG_LEVELS

__all__ = ["Notice", "collect"]

Path = tuple[str, ...]


@attrs.frozen
class Notice:
    """
    One sentence for the operator.

    @ivar key: The dotted key it is about, or an empty text.
    @ivar text: The sentence. It names the key and holds no value of a secret.
    """

    key: str
    text: str


def collect(
    whole: Mapping[str, Any],
    baseline: Baseline,
    layers: Sequence[Text],
    renamed: Sequence[Alias],
) -> list[Notice]:
    """
    Find everything worth a notice, grouped by kind, in the order of the files.

    @param whole: The merged tree, C{mp} and what stands beside it, values as written.
    @param baseline: The defaults behind it.
    @param layers: The operator's layers, strongest first.
    @param renamed: The old names whose values count.
    """
    found = _Notices(whole["mp"], baseline, renamed)
    return [
        *_dropped(layers),
        *found.renamed(),
        *found.without_effect(),
        *found.unknown(),
        *found.outside(whole),
        *found.log_level(),
    ]


def _dropped(layers: Sequence[Text]) -> Iterator[Notice]:
    for layer in layers:
        for name, seen in layer.outlines.items():
            for line in seen.dropped:
                where = f"{name}:{line}" if layer.numbered else name
                yield Notice(
                    "", f"text behind a list or an object is left out (in {where})"
                )


_JAVA_DEFAULTS: Final = {
    "thread-pool-factory": "com.mpush.tools.thread.pool.DefaultThreadPoolFactory",
    "dns-mapping-manager": "com.mpush.common.net.HttpProxyDnsMappingManager",
}
"""
The two class names that the original's reference file holds and that nothing reads.
"""


def _leaves(tree: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, Any]]:
    for key, item in tree.items():
        if isinstance(item, Mapping) and item:
            yield from _leaves(item, (*path, key))
        else:
            yield (*path, key), item


class _Notices:
    def __init__(
        self,
        tree: Mapping[str, Any],
        baseline: Baseline,
        renamed: Sequence[Alias],
    ) -> None:
        self._tree = tree
        self._renamed = {alias.new: alias.old for alias in renamed}
        self._baseline = baseline
        self._keys = baseline.keys

    def renamed(self) -> Iterator[Notice]:
        for alias in ALIASES:
            if not alias.retired or alias.old in RETIRED:
                continue
            if self._baseline.written(alias.old) is None:
                continue
            old, new = join(alias.old), join(alias.new)
            if self._renamed.get(alias.new) == alias.old:
                yield Notice(old, f"{old} is called {new} today; its value is used")
            else:
                yield Notice(old, f"{old} is not used, because {new} is set")

    def without_effect(self) -> Iterator[Notice]:
        for path, key in self._keys.items():
            if key.effect or path in self._renamed:
                continue
            if self._baseline.differs(path):
                name = join(path)
                yield Notice(name, f"{name} has no effect here")
        for path, old_default in RETIRED.items():
            written = self._baseline.written(path)
            if written is not None and not _same(written, old_default):
                name = join(path)
                yield Notice(name, f"{name} is of an older release; no effect here")
        for name, value in self._tree["spi"].items():
            if _fields.is_java_name(value) and value != _JAVA_DEFAULTS.get(name):
                dotted = join(("mp", "spi", name))
                yield Notice(dotted, f"{dotted} names a Java class; no effect here")

    def unknown(self) -> Iterator[Notice]:
        known = [join(path) for path in self._keys]
        understood = {alias.old for alias in ALIASES} | set(RETIRED)
        for path, _value in _leaves(self._tree, ("mp",)):
            if path in understood or self._is_known(path):
                continue
            name = join(path)
            nearest = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            yield Notice(name, f"{name} is not known and has no effect{hint}")

    def outside(self, whole: Mapping[str, Any]) -> Iterator[Notice]:
        """
        Find sections that were written without C{mp} around them. Other keys beside it
        are the operator's own, for substitutions.
        """
        for name in {path[1]: None for path in self._keys}:
            if name in whole:
                yield Notice(
                    name,
                    f"{name} stands outside of mp and has no effect; "
                    f"did you mean mp.{name}?",
                )

    def log_level(self) -> Iterator[Notice]:
        written = str(self._tree["log-level"])
        if written.lower() not in LOG_LEVELS:
            name = join(self._renamed.get(("mp", "log-level"), ("mp", "log-level")))
            yield Notice(
                name,
                f"{name} is not one of {', '.join(LOG_LEVELS)}; debug is used, "
                "as in the original",
            )

    def _is_known(self, path: Path) -> bool:
        if path in self._keys:
            return True
        key = next(
            (
                key
                for length in range(2, len(path))
                if (key := self._keys.get(path[:length])) is not None
            ),
            None,
        )
        return key is not None and (key.open or isinstance(key.default, list))


def _same(written: Any, old_default: str) -> bool:
    try:
        return _fields.scalar_text(written) == old_default
    except ValueError:
        return False
