"""
Alloc for tests, as operators run it: C{twistd mpush-alloc}.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from tests.servers import LOOPBACK, end_with_parent, free_port

_START_S = 30.0
_STOP_S = 30.0
_ROOT = Path(__file__).parents[2]
_RUN = "from twisted.scripts.twistd import run; run()"


class AllocServer:
    """
    A process of alloc.

    @ivar port: Where it listens, on the loopback interface.
    @ivar url: What clients have in their settings.
    """

    def __init__(self, settings: Mapping[str, object]) -> None:
        """
        @param settings: Dotted keys and their values; where Redis and ZooKeeper are.
        """
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}/"
        self._home = tempfile.TemporaryDirectory(prefix="mpush-alloc-")
        own: dict[str, object] = {
            "mp.home": self._home.name,
            "mp.net.alloc-server-port": self.port,
            "mp.net.alloc-server-bind-ip": LOOPBACK,
        }
        self.config = Path(self._home.name) / "alloc.conf"
        self.config.write_text(
            "".join(
                f"{key} = {json.dumps(value)}\n"
                for key, value in {**own, **settings}.items()
            )
        )
        self._process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        """
        Start it, and do not wait.
        """
        with open(Path(self._home.name) / "alloc.log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-c", _RUN, "--nodaemon", "--pidfile="),
                    *("mpush-alloc", "--config", str(self.config)),
                ],
                cwd=self._home.name,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONPATH": str(_ROOT)},
                preexec_fn=end_with_parent,
            )
        atexit.register(self.kill)

    def start(self) -> None:
        """
        Start it, and wait until it serves.
        """
        self.launch()
        deadline = time.monotonic() + _START_S
        while "ALLOC SERVER START SUCCESS" not in self.log():
            if time.monotonic() > deadline or self.status() is not None:
                self.kill()
                raise AssertionError(f"alloc did not start:\n{self.log()}")
            time.sleep(0.02)

    def status(self) -> int | None:
        """
        With which status it has ended; C{None} while it runs.
        """
        assert self._process is not None
        return self._process.poll()

    def wait(self) -> int:
        """
        Wait until it ends by itself.
        """
        assert self._process is not None
        return self._process.wait(_START_S)

    def get(self, path: str = "/") -> bytes:
        """
        Ask it, and give the body of the answer.
        """
        with urllib.request.urlopen(self.url + path[1:], timeout=5) as answer:
            body: bytes = answer.read()
        return body

    def servers(self) -> list[str]:
        """
        Ask for the list.
        """
        return self.get().decode().split(",")

    def log(self) -> str:
        """
        What it has written so far.
        """
        path = Path(self._home.name) / "alloc.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def stop(self) -> int:
        """
        Have it end in good order.

        @return: Its status.
        """
        assert self._process is not None
        self._process.terminate()
        try:
            return self._process.wait(_STOP_S)
        finally:
            self.kill()

    def kill(self) -> None:
        """
        End it at once. Idempotent.
        """
        atexit.unregister(self.kill)
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
