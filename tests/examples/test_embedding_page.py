"""
Runs the programs of C{docs/embedding.md} as they stand, but for the ports.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

from twisted.trial.unittest import SynchronousTestCase

from tests.examples.support import end_in_time
from tests.servers import end_with_parent, free_port

ROOT = Path(__file__).parents[2]
SECONDS = 60.0
_PORTS = ("3000", "3001", "3002", "8080")


class EmbeddingPageTests(SynchronousTestCase):
    """
    The two programs.
    """

    def setUp(self) -> None:
        page = (ROOT / "docs" / "embedding.md").read_text()
        self.programs = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        self.assertEqual(len(self.programs), 2)
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }
        self.environment.pop("MP_CONF", None)

    def start(self, *command: str) -> subprocess.Popen[str]:
        """
        Start a program of this Python; ended after the test.
        """
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=end_with_parent,
        )

        end_in_time(self, process)

        def end() -> None:
            process.kill()
            process.communicate()

        self.addCleanup(end)
        return process

    def reads(self, process: subprocess.Popen[str], wanted: str) -> None:
        """
        Read until a line holds a text.
        """
        assert process.stdout is not None
        seen = ""
        while wanted not in seen:
            line = process.stdout.readline()
            if not line:
                self.fail(f"{wanted!r} does not come:\n{seen}")
            seen += line

    def test_complete_program(self) -> None:
        """
        A look at the shop is pushed to who watches, and the program ends when it is
        interrupted.
        """
        text = self.programs[0]
        ports = {port: str(free_port()) for port in _PORTS}
        for port, free in ports.items():
            self.assertEqual(text.count(port), 1)
            text = text.replace(port, free)
        shop = self.start("-c", text)
        self.reads(shop, "open\n")
        watcher = self.start(
            *("-c", "from mpush_tw.cli import main; main()", "client", "alice"),
            *("--port", ports["3000"], "--public-key", "keys/public.pem"),
            *("--host", "127.0.0.1"),
        )
        self.reads(watcher, "bound as alice")
        self.reads(shop, "alice watches")
        with urlopen(f"http://127.0.0.1:{ports['8080']}/shoes", timeout=20) as answer:
            self.assertEqual(answer.read(), b"welcome\n")
        self.reads(watcher, "somebody looks at /shoes")
        self.reads(shop, "told the watchers: broadcast_complete")
        shop.send_signal(signal.SIGINT)
        self.assertEqual(shop.wait(SECONDS), 0)

    def test_test(self) -> None:
        """
        The test passes.
        """
        (self.directory / "test_only_alice.py").write_text(self.programs[1])
        trial = self.start("-m", "twisted.trial", "test_only_alice")
        output, _ = trial.communicate(timeout=SECONDS)
        self.assertEqual(trial.returncode, 0, output)
        self.assertIn("Ran 1 tests", output)
