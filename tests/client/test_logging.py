"""
What a client logs, where, and what never.
"""

from __future__ import annotations

from typing import Any

from twisted.logger import globalLogPublisher

from mpush_tw.protocol.commands import Command
from tests.client.support import ClientTestCase


class JavaLogger:
    """
    Has the methods of the Java SDK's logger.
    """

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def d(self, text: str) -> None:
        self.lines.append(("d", text))

    def i(self, text: str) -> None:
        self.lines.append(("i", text))

    def w(self, text: str) -> None:
        self.lines.append(("w", text))

    def e(self, text: str) -> None:
        self.lines.append(("e", text))


class LoggingTests(ClientTestCase):
    """
    The log of a client.
    """

    def setUp(self) -> None:
        super().setUp()
        self.events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def logged(self) -> list[str]:
        """
        The names of the levels of the client's events so far.
        """
        return [
            event["log_level"].name
            for event in self.events
            if str(event.get("log_namespace", "")).startswith("mpush_tw.client")
        ]

    def test_quiet(self) -> None:
        """
        A client without trouble logs nothing: there may be thousands.
        """
        client = self.start_client(user_id="u")
        client.stop()
        self.network.settle()
        self.assertEqual(self.logged(), [])

    def test_trouble(self) -> None:
        """
        That no server can be reached is said once for each attempt.
        """
        self.network.down.add(("10.0.0.1", 3000))
        self.start_client()
        self.network.pass_time(0.6)
        self.assertEqual(self.logged(), ["warn", "warn"])

    def test_life_events(self) -> None:
        """
        With C{log_enabled} connects and disconnects are told.
        """
        client = self.start_client(log_enabled=True)
        client.stop()
        self.assertEqual(self.logged(), ["info", "info", "info"])

    def test_java_logger(self) -> None:
        """
        A logger of the application gets the lines instead, by level.
        """
        logger = JavaLogger()
        self.server.refuse(Command.BIND, 0, "bind failed")
        self.start_client(user_id="u", log_enabled=True, logger=logger)
        self.assertEqual(
            logger.lines,
            [
                ("i", "connected to 10.0.0.1:3000"),
                ("i", "session opened, heartbeat 180000 ms"),
                ("w", "u was not bound: BIND refused: bind failed (code 0)"),
            ],
        )
        self.assertEqual(self.logged(), [])

    def test_java_logger_gets_tracebacks(self) -> None:
        """
        It gets the traceback of what an application's listener raised.
        """
        logger = JavaLogger()

        def fail() -> None:
            raise KeyError("application")

        self.listener.on_connected = fail  # type: ignore[method-assign]
        self.start_client(logger=logger)
        ((level, text),) = logger.lines
        self.assertEqual(level, "e")
        self.assertIn("KeyError", text)

    def test_no_secrets(self) -> None:
        """
        Whatever goes wrong, neither keys nor tokens nor contents are in the log.
        """
        logger = JavaLogger()
        self.server.refuse(Command.BIND)
        self.server.refuse(Command.PUSH)
        client = self.start_client(
            user_id="u", bind_data="secret-token", log_enabled=True, logger=logger
        )
        client.push("secret-content").addErrback(lambda _: None)
        self.network.settle()
        cipher = self.server.peer.cipher
        assert cipher is not None
        self.server.peer.send(Command.PUSH, 5, b"secret-push" + bytes(6), flags=1)
        self.network.pass_time(1)
        text = repr(logger.lines)
        self.assertGreater(len(logger.lines), 5)
        for secret in ("secret", cipher.key.hex(), repr(cipher.key), cipher.iv.hex()):
            self.assertNotIn(secret, text)
