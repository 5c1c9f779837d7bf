"""
What the benchmark's sender counts, by a gateway that answers as it is told.
"""

from __future__ import annotations

import socket
import threading
import time

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.bench.gateway import GatewayLoad
from mpush_tw.protocol.commands import Command
from mpush_tw.protocol.packet import PacketDecoder, encode_packet

OK, ERROR = int(Command.OK), int(Command.ERROR)

_SECONDS = 10.0


class Gateway:
    """
    Takes one connection in a thread, and answers some pushes soon, others late.
    """

    def __init__(self, soon: list[int], late: list[int], pause: float) -> None:
        """
        @param soon: Commands to answer the first pushes with, each as it comes.
        @param late: Commands for those after them.
        @param pause: Seconds between the last of these pushes and its answer.
        """
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_SECONDS)
        self.port: int = self._listener.getsockname()[1]
        self._soon, self._late, self._pause = soon, late, pause
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        decoder = PacketDecoder(1 << 20)
        numbers: list[int] = []
        connection, _ = self._listener.accept()
        with connection:
            connection.settimeout(_SECONDS)
            answered = 0
            while len(numbers) < len(self._soon) + len(self._late):
                data = connection.recv(65536)
                if not data:
                    return
                numbers += [number for _, _, number, _ in decoder.receive(data)]
                for cmd in self._soon[answered : len(numbers)]:
                    connection.sendall(encode_packet(cmd, numbers[answered], 0, b""))
                    answered += 1
            time.sleep(self._pause)
            for cmd, number in zip(self._late, numbers[answered:], strict=False):
                connection.sendall(encode_packet(cmd, number, 0, b""))
            while connection.recv(65536):
                pass

    def close(self) -> None:
        """
        Wait for the end of the thread: the load has closed its connection.
        """
        self._thread.join(_SECONDS)
        self._listener.close()


class CountTests(SynchronousTestCase):
    """
    Pushes by their answers.
    """

    def load(self, gateway: Gateway, timeout_ms: int = 5000) -> GatewayLoad:
        """
        Connect the sender.
        """
        self.addCleanup(gateway.close)
        load = GatewayLoad("127.0.0.1", gateway.port, 1, 8, False, timeout_ms)
        self.addCleanup(load.close)
        return load

    def test_late_answers(self) -> None:
        """
        Late answers are neither in the rate nor taken off it, whatever they say.
        """
        gateway = Gateway([OK, OK, ERROR], [ERROR, ERROR, OK], 1.0)
        counts = self.load(gateway).run(0.5, 3, 0)
        self.assertEqual(
            (counts.ok, counts.late, counts.errors, counts.unanswered), (2, 1, 3, 0)
        )
        self.assertEqual(len(counts.reply_ns), 6)

    def test_unanswered(self) -> None:
        """
        What is never answered is waited for, but not for ever.
        """
        counts = self.load(Gateway([OK], [], 0), timeout_ms=0).run(0.1, 2, 0)
        self.assertEqual((counts.ok, counts.late, counts.unanswered), (1, 0, 2))
