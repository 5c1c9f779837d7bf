"""
Figures of extensions, for the metrics page of their node.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import attrs

from twisted.logger import Logger
from zope.interface import implementer

from mpush_tw.interfaces import IExtensionMetrics

MAX_SERIES = 100
"""
Sets of label texts that one counter keeps apart.
"""

_MAX_FAMILIES = 200
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_OTHER = "other"


@attrs.define(eq=False)
class CounterFamily:
    """
    One declared counter.

    @ivar counts: What was counted, by the texts of its labels.
    """

    name: str
    text: str
    labels: tuple[str, ...]
    counts: Counter[tuple[str, ...]] = attrs.Factory(Counter)

    def add(self, *texts: str) -> None:
        """
        Count one.

        @param texts: One for each label.
        """
        if len(texts) != len(self.labels):
            raise ValueError(
                f"{self.name} has the labels {self.labels!r}, found {len(texts)} texts"
            )
        if texts not in self.counts and len(self.counts) >= MAX_SERIES:
            texts = (_OTHER,) * len(self.labels)
        self.counts[texts] += 1


@attrs.frozen(eq=False)
class Gauge:
    """
    One declared figure.
    """

    name: str
    text: str
    value: Callable[[], float]


@implementer(IExtensionMetrics)
class ExtensionMetrics:
    """
    What the extensions of one node have declared.
    """

    _log = Logger(namespace="mpush.extension")

    def __init__(self) -> None:
        self.counters: list[CounterFamily] = []
        self._gauges: list[Gauge] = []
        self._names: set[str] = set()

    def counter(
        self, name: str, text: str, labels: Sequence[str] = ()
    ) -> Callable[..., None]:
        """
        Declare a counter.
        """
        if not all(map(_NAME.fullmatch, labels)):
            raise ValueError(f"{labels!r} cannot be labels of a metric")
        self._take(name)
        family = CounterFamily(name, text, tuple(labels))
        if not labels:
            family.counts[()] = 0
        self.counters.append(family)
        return family.add

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """
        Declare a figure.
        """
        self._take(name)
        self._gauges.append(Gauge(name, text, value))

    def _take(self, name: str) -> None:
        # Prometheus itself puts _total behind the name of a counter.
        if not _NAME.fullmatch(name) or name.endswith("_total"):
            raise ValueError(f"{name!r} cannot be the name of a metric")
        if name in self._names:
            raise ValueError(f"there is a metric {name} already")
        if len(self._names) >= _MAX_FAMILIES:
            raise ValueError(f"there are {_MAX_FAMILIES} metrics of plug-ins already")
        self._names.add(name)

    def gauges(self) -> Iterator[tuple[Gauge, float]]:
        """
        Ask for all figures; one that cannot be had is logged and left out.
        """
        for gauge in self._gauges:
            try:
                value = float(gauge.value())
            except Exception:
                self._log.failure("the metric {name} cannot be read", name=gauge.name)
            else:
                yield gauge, value
