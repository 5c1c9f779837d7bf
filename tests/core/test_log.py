"""
Tests for L{mpush_tw.core.log} (operations 8, STYLE 12).
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.log import LEVELS, Category, NodeLog, printable


class CategoryTests(SynchronousTestCase):
    """
    One category.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.events: list[dict[str, Any]] = []

    def category(self, level: str) -> Category:
        """
        Make a category of a level.
        """
        return Category("mpush.test", level, self.clock, self.events.append)  # type: ignore[arg-type]

    def formats(self) -> list[str]:
        """
        What was logged.
        """
        return [str(event["log_format"]) for event in self.events]

    def test_levels(self) -> None:
        """
        A level lets itself and everything graver through.
        """
        names = ("debug", "info", "warn", "error")
        for level, count in (
            ("all", 4),
            ("trace", 4),
            ("debug", 4),
            ("info", 3),
            ("warn", 2),
            ("error", 1),
            ("off", 0),
        ):
            self.events.clear()
            category = self.category(level)
            for name in names:
                getattr(category, name)(name)
            self.assertEqual(self.formats(), list(names[4 - count :]), level)

    def test_every_level_is_known(self) -> None:
        """
        All words of the configuration are levels.
        """
        for level in LEVELS:
            self.category(level)

    def test_switches(self) -> None:
        """
        Code on the packet path can ask before it builds anything.
        """
        category = self.category("warn")
        self.assertEqual(
            (category.debug_on, category.info_on, category.warn_on, category.error_on),
            (False, False, True, True),
        )
        category.set_level("debug")
        self.assertTrue(category.debug_on)

    def test_fields(self) -> None:
        """
        Fields are passed on by name, under the category's namespace.
        """
        self.category("info").info("bound {user_id}", user_id="u")
        [event] = self.events
        self.assertEqual(event["user_id"], "u")
        self.assertEqual(event["log_namespace"], "mpush.test")
        self.assertEqual(event["log_level"], LogLevel.info)

    def test_always(self) -> None:
        """
        Notices and bugs are logged whatever the level.
        """
        category = self.category("off")
        category.notice("started")
        category.failure("bug", Failure(ZeroDivisionError()))
        self.assertEqual(self.formats(), ["started", "bug"])

    def test_bounded(self) -> None:
        """
        What strangers can provoke does not fill a disk: beyond 500 lines a second the
        rest is counted, and the count is logged.
        """
        category = self.category("warn")
        self.clock.advance(10)
        for number in range(1000):
            (category.warn if number % 2 else category.error)("complaint")
        self.assertEqual(len(self.events), 500)
        self.clock.advance(1)
        category.warn("complaint")
        self.assertEqual(
            self.formats()[500:], ["{count} more lines suppressed", "complaint"]
        )
        self.assertEqual(self.events[500]["count"], 500)

    def test_info_is_bounded(self) -> None:
        """
        That holds for what every connection and packet says in good order, too.
        """
        category = self.category("info")
        self.clock.advance(10)
        for _ in range(1000):
            category.info("client connected")
        self.assertEqual(len(self.events), 500)

    def test_notices_are_not_bounded(self) -> None:
        """
        What an operator must see is not among the lines that are left out.
        """
        category = self.category("info")
        self.clock.advance(10)
        for _ in range(1000):
            category.info("client connected")
        category.notice("stopped")
        self.assertEqual(self.formats()[-1], "stopped")

    def test_escaped(self) -> None:
        """
        A text from outside cannot forge a line or clear a terminal, nor fill a page.
        """
        category = self.category("info")
        category.info("user {user_id}", user_id="a\n\x1b[2Jb" + "c" * 1000)
        shown = self.events[0]["user_id"]
        self.assertTrue(shown.startswith("a\\n\\x1b[2Jbc"))
        self.assertLess(len(shown), 600)

    def test_escaped_at_every_level(self) -> None:
        """
        So it is at whatever level it is logged.
        """
        category = self.category("debug")
        for name in ("debug", "info", "warn", "error"):
            getattr(category, name)("user {user_id}", user_id="\x1b\n\ud800")
        self.assertEqual(
            [event["user_id"] for event in self.events], ["\\x1b\\n\\ud800"] * 4
        )

    def test_printable(self) -> None:
        """
        What does print is shown as it is, in any script.
        """
        self.assertEqual(printable("Jürgen 用户"), "Jürgen 用户")
        self.assertEqual(printable("x" * 512), "x" * 512)
        self.assertEqual(printable("x" * 513), "x" * 512 + "...")


class NodeLogTests(SynchronousTestCase):
    """
    All categories of a node.
    """

    def test_namespaces(self) -> None:
        """
        The original's logs have the names that its operators know.
        """
        events: list[dict[str, Any]] = []
        log = NodeLog("debug", Clock(), events.append)  # type: ignore[arg-type]
        for category in (
            log.conn,
            log.push,
            log.heartbeat,
            log.http,
            log.console,
            log.general,
        ):
            category.error("x")
        self.assertEqual(
            [event["log_namespace"] for event in events],
            [
                "mpush.conn.log",
                "mpush.push.log",
                "mpush.heartbeat.log",
                "mpush.http.log",
                "console",
                "mpush",
            ],
        )

    def test_level(self) -> None:
        """
        The level can be changed for all of them at run time.
        """
        log = NodeLog("off", Clock())
        log.set_level("info")
        self.assertTrue(log.conn.info_on and log.push.info_on and log.general.info_on)
