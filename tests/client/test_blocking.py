"""
Tests for L{mpush_tw.client.blocking}.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue

from mpush_tw.client import ClientSettings, Disconnected, Refused
from mpush_tw.client.blocking import BlockingClient
from mpush_tw.errors import ConfigError
from mpush_tw.protocol.commands import Command
from tests.client.support import PUBLIC_KEY_TEXT, RecordingListener
from tests.client.test_loopback import LoopbackTestCase, clock

ROOT = Path(__file__).parents[2]
SETTINGS = f"""
import sys
from mpush_tw.client import ClientSettings, Disconnected
from mpush_tw.client.blocking import BlockingClient

settings = ClientSettings(
    device_id="dev-1",
    server_host="127.0.0.1",
    server_port=int(sys.argv[1]),
    public_key="{PUBLIC_KEY_TEXT}",
)
"""
NO_REACTOR = """
for user in ("u1", "u2"):
    with BlockingClient(settings) as client:
        client.bind_user(user)
        client.push("hello from " + user)
print("done")
"""
OWN_REACTOR = """
import threading, time
from twisted.internet import reactor

def work():
    with BlockingClient(settings, reactor=reactor) as client:
        client.push("hello")
    print("done")
    reactor.callFromThread(reactor.stop)

thread = threading.Thread(target=work)
thread.start()
time.sleep(0.2)
reactor.run()
thread.join()
"""
STOPPED_REACTOR = """
from twisted.internet import reactor

with BlockingClient(settings) as client:
    reactor.callFromThread(reactor.stop)
    try:
        while True:
            client.push("hello")
    except Disconnected:
        pass
    try:
        client.push("hello")
    except Disconnected as error:
        print(error)
"""


class BlockingClientTests(LoopbackTestCase):
    """
    Calls from another thread, with the test's own reactor.
    """

    def settings(self, port: int, **more: Any) -> ClientSettings:
        return ClientSettings(
            device_id="dev-1",
            server_host="127.0.0.1",
            server_port=port,
            public_key=PUBLIC_KEY_TEXT,
            **more,
        )

    async def in_thread(self, work: Callable[[], Any]) -> Any:
        # Trial begins a test before it runs the reactor.
        await deferLater(clock, 0)
        return await deferToThread(work)

    async def program(self, text: str) -> str:
        """
        Run a program of its own with the port as argument; it must succeed.

        @return: What it printed.
        """
        port = await self.listen()
        out, errors, status = await getProcessOutputAndValue(
            sys.executable,
            ["-c", SETTINGS + text, str(port)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.assertEqual((errors, status), (b"", 0))
        return str(out, "utf-8")

    def pushed(self) -> list[bytes]:
        """
        The first push of each connection.
        """
        return [peer.packets(Command.PUSH)[0].plain for peer in self.server.peers]

    async def test_calls(self) -> None:
        """
        Every call returns when it is done, with its result.
        """
        settings = self.settings(await self.listen())
        listener = RecordingListener()

        def work() -> tuple[Any, ...]:
            with BlockingClient(settings, listener) as client:
                running = client.is_running
                client.bind_user("u", "t")
                number = client.push(b"x")
                acked = client.ack(5)
                client.unbind_user()
            return running, number, acked, client.is_running

        self.assertEqual(await self.in_thread(work), (True, 3, True, False))
        self.assertEqual(
            self.server.peer.commands,
            [
                Command.HANDSHAKE,
                Command.BIND,
                Command.PUSH,
                Command.ACK,
                Command.UNBIND,
            ],
        )
        self.assertEqual(listener.events[-1][0], "disconnected")

    async def test_failures_are_raised(self) -> None:
        """
        What a Deferred would fail with is raised.
        """
        settings = self.settings(await self.listen())
        self.server.refuse(Command.BIND)

        def work() -> None:
            with BlockingClient(settings) as client:
                self.assertRaises(Refused, client.bind_user, "u")
            self.assertRaises(Disconnected, client.push, b"x")

        await self.in_thread(work)

    async def test_nobody_there(self) -> None:
        """
        C{start} gives up in time and says why; the client goes on trying until it is
        stopped.
        """
        settings = self.settings(1)

        def work() -> None:
            client = BlockingClient(settings)
            try:
                with self.assertRaises(Disconnected) as caught:
                    client.start(timeout=0.2)
                self.assertIn("no handshake within 0.2 s: ", str(caught.exception))
                self.assertIn("127.0.0.1:1: Connection", str(caught.exception))
            finally:
                client.stop()

        await self.in_thread(work)

    async def test_useless_settings(self) -> None:
        """
        Settings that no client can be made of are refused at once.
        """

        def work() -> None:
            settings = ClientSettings(device_id="d")
            self.assertRaises(ConfigError, BlockingClient, settings)

        await self.in_thread(work)

    async def test_in_the_reactor_thread(self) -> None:
        """
        In the reactor's thread a call would block for ever; it raises instead.
        """
        settings = self.settings(await self.listen())
        await deferLater(clock, 0)
        self.assertRaises(RuntimeError, BlockingClient, settings)

    async def test_program_without_reactor(self) -> None:
        """
        A plain program needs nothing else: the reactor runs in a thread of its own, one
        for all clients, and does not keep the program from ending.
        """
        self.assertEqual(await self.program(NO_REACTOR), "done\n")
        self.assertEqual(self.pushed(), [b"hello from u1", b"hello from u2"])

    async def test_program_with_a_reactor(self) -> None:
        """
        A program that runs the reactor in its main thread may make a client in another
        thread before: the client waits for that reactor and does not run it itself.
        """
        self.assertEqual(await self.program(OWN_REACTOR), "done\n")
        self.assertEqual(self.pushed(), [b"hello"])

    async def test_reactor_stopped(self) -> None:
        """
        When the reactor is stopped, the call under way ends, and later ones say why
        they cannot succeed; none waits for ever.
        """
        out = await self.program(STOPPED_REACTOR)
        self.assertEqual(out, "the reactor was stopped\n")
