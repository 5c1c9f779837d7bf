"""
Tests for L{mpush_tw.core.extension_metrics}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mpush_tw.core.extension_metrics import MAX_SERIES, ExtensionMetrics
from mpush_tw.interfaces import IExtensionMetrics


class ExtensionMetricsTests(SynchronousTestCase):
    """
    What a plug-in may count and show.
    """

    def setUp(self) -> None:
        self.metrics = ExtensionMetrics()

    def test_interface(self) -> None:
        """
        It is what the context promises.
        """
        verifyObject(IExtensionMetrics, self.metrics)

    def test_counter(self) -> None:
        """
        Each call counts one under its label.
        """
        asked = self.metrics.counter("asked", "Questions.", ("answer",))
        for answer in ("yes", "no", "yes"):
            asked(answer)
        (family,) = self.metrics.counters
        self.assertEqual((family.name, family.labels), ("asked", ("answer",)))
        self.assertEqual(family.counts, {("yes",): 2, ("no",): 1})

    def test_without_labels(self) -> None:
        """
        One without labels is shown before anything was counted.
        """
        asked = self.metrics.counter("asked", "Questions.")
        (family,) = self.metrics.counters
        self.assertEqual(family.counts, {(): 0})
        asked()
        self.assertEqual(family.counts, {(): 1})

    def test_labels_are_bounded(self) -> None:
        """
        A plug-in that labels with what strangers send does not fill the memory.
        """
        asked = self.metrics.counter("asked", "Questions.", ("user",))
        for number in range(MAX_SERIES + 50):
            asked(str(number))
        asked("0")
        (family,) = self.metrics.counters
        self.assertEqual(len(family.counts), MAX_SERIES + 1)
        self.assertEqual(family.counts["other",], 50)
        self.assertEqual(family.counts["0",], 2)

    def test_wrong_labels(self) -> None:
        """
        A text too many or too few is a mistake of the plug-in.
        """
        asked = self.metrics.counter("asked", "Questions.", ("answer",))
        self.assertRaises(ValueError, asked)
        self.assertRaises(ValueError, asked, "a", "b")

    def test_names(self) -> None:
        """
        Only what Prometheus understands is a name.
        """
        for name in ("", "A", "a-b", "1a", "a" * 65, "a b", "a\n"):
            self.assertRaises(ValueError, self.metrics.counter, name, "")
            self.assertRaises(ValueError, self.metrics.gauge, name, "", lambda: 0)
            self.assertRaises(ValueError, self.metrics.counter, "x", "", (name,))
        self.assertEqual(self.metrics.counters, [])

    def test_total(self) -> None:
        """
        What Prometheus puts behind the name of a counter is not part of it.
        """
        self.assertRaises(ValueError, self.metrics.counter, "asked_total", "")
        self.assertRaises(ValueError, self.metrics.gauge, "asked_total", "", int)

    def test_taken(self) -> None:
        """
        A name is one metric's only.
        """
        self.metrics.counter("asked", "Questions.")
        self.assertRaises(ValueError, self.metrics.counter, "asked", "Others.")
        self.assertRaises(ValueError, self.metrics.gauge, "asked", "", lambda: 0)

    def test_number_is_bounded(self) -> None:
        """
        There is an end to declaring.
        """

        def declare() -> None:
            for number in range(1000):
                self.metrics.counter(f"m{number}", "")

        self.assertRaises(ValueError, declare)

    def test_gauge(self) -> None:
        """
        A figure is asked for at each look.
        """
        values = [1.0, 2.0]
        self.metrics.gauge("waiting", "Messages.", values.pop)
        self.assertEqual([value for _, value in self.metrics.gauges()], [2.0])
        self.assertEqual([value for _, value in self.metrics.gauges()], [1.0])

    def test_broken_gauge(self) -> None:
        """
        One that cannot be had is logged; the page shows the others.
        """
        self.metrics.gauge("broken", "", lambda: 1 / 0)
        self.metrics.gauge("whole", "", lambda: 3)
        shown = [(gauge.name, value) for gauge, value in self.metrics.gauges()]
        self.assertEqual(shown, [("whole", 3.0)])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
