"""
Follows C{docs/plugins.md} step by step: what stands there is written, typed and read.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from functools import cached_property
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.examples.support import end_in_time
from tests.examples.test_installation import require_wheels
from tests.servers import end_with_parent, free_port, require

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "plugins.md"
SECONDS = 60.0
_FILE = re.compile(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PORTS = ("connect", "gateway", "admin", "metrics")


class Step:
    """
    A command of the page, and the lines that it shows below it.
    """

    def __init__(self, text: str) -> None:
        command, *self.shown = text.splitlines()
        self.command = command.removeprefix("$ ")


class TutorialTests(SynchronousTestCase):
    """
    The tutorial.
    """

    def setUp(self) -> None:
        self.page = PAGE.read_text()
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        for name, text in _FILE.findall(self.page):
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        # The page's ports may be taken on this machine, and this Python has no home
        # of its own for what is installed.
        self.ports = {name: free_port() for name in _PORTS}
        conf = self.directory / "guest-list.conf"
        text = conf.read_text().replace("3003", str(self.ports["metrics"]))
        ports = "".join(
            f"mp.net.{name}-server-port={port}\n" for name, port in self.ports.items()
        )
        conf.write_text(f"{text}{ports}")
        self.site = self.directory / "site"
        self.site.mkdir()
        bin_directory = self.directory / "bin"
        bin_directory.mkdir()
        for name, code in (
            ("twistd", "from twisted.scripts.twistd import run; run()"),
            ("mpush", "from mpush_tw.cli import main; main()"),
        ):
            program = bin_directory / name
            program.write_text(f"#!{sys.executable}\n{code}\n")
            program.chmod(0o755)
        self.environment = os.environ | {
            "PATH": f"{bin_directory}{os.pathsep}{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
            "PIP_TARGET": str(self.site),
            "PIP_NO_INDEX": "1",
            "PIP_NO_DEPS": "1",
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        self.environment.pop("MP_CONF", None)
        self.environment["PYTHONPATH"] = str(ROOT)

    @cached_property
    def steps(self) -> list[Step]:
        """
        What the page has typed.
        """
        return [
            Step(text)
            for block in _CONSOLE.findall(self.page)
            for text in re.split(r"^(?=\$ )", block, flags=re.MULTILINE)
            if text
        ]

    def type(self, step: Step) -> subprocess.Popen[str]:
        """
        Type a command; it is ended after the test.
        """
        command = step.command.replace("3003", str(self.ports["metrics"]))
        # What the page puts on the path is there beside the package itself.
        command = command.replace(
            "PYTHONPATH=guest-list", f"PYTHONPATH={ROOT}{os.pathsep}guest-list"
        )
        command = re.sub(r"^pip ", f"{sys.executable} -m pip ", command)
        process = subprocess.Popen(
            ["/bin/sh", "-c", command if "|" in command else f"exec env {command}"],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=end_with_parent,
        )
        end_in_time(self, process)
        self.addCleanup(self.end, process)
        return process

    def end(self, process: subprocess.Popen[str]) -> None:
        """
        Leave nothing running.
        """
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()

    def reads(self, process: subprocess.Popen[str], step: Step) -> None:
        """
        Read until all has come that the page shows, in its order.
        """
        assert process.stdout is not None
        wanted = [line.removeprefix("... ") for line in step.shown]
        seen: list[str] = []
        end = time.monotonic() + SECONDS
        while wanted and time.monotonic() < end:
            line = process.stdout.readline()
            if not line:
                break
            seen.append(line)
            if wanted[0] in line:
                del wanted[0]
        self.assertEqual(wanted, [], f"{step.command}\n{''.join(seen)}")

    def follow(self, *starts: str) -> Any:
        """
        Find the steps whose commands begin so.
        """
        found = []
        for start in starts:
            (step,) = [one for one in self.steps if one.command == start]
            found.append(step)
        return found

    def test_write_and_see(self) -> None:
        """
        Steps 1 and 2: the files are written, the node uses them, devices are let in or
        not, and that is counted.
        """
        require("curl")
        node, alice, mallory, look = self.follow(
            "PYTHONPATH=guest-list twistd -n mpush --config guest-list.conf",
            "mpush client alice --config guest-list.conf",
            "mpush client mallory --config guest-list.conf",
            "curl -s http://127.0.0.1:3003/metrics | grep guest_list",
        )
        self.reads(self.type(node), node)
        self.reads(self.type(alice), alice)
        self.reads(self.type(mallory), mallory)
        self.reads(self.type(look), look)

    def test_package_install_and_choose(self) -> None:
        """
        Steps 3 to 5: the project is installed, found and chosen; what is wrong is told.
        """
        require_wheels()
        install, node, other, unknown, unset = self.follow(
            "pip install ./guest-list",
            "twistd -n mpush --config guest-list.conf",
            "twistd -n mpush --config guest-list.conf "
            "--set mp.spi.bind-validator=accept-all",
            "twistd -n mpush --config guest-list.conf "
            "--set mp.spi.bind-validator=guestlist",
            "twistd -n mpush --config guest-list.conf "
            "--set mp.spi-settings.guest-list.users=all",
        )
        pip = self.type(install)
        output, _ = pip.communicate(timeout=SECONDS)
        self.assertEqual(pip.returncode, 0, output)
        # Installed elsewhere than into the environment: tests leave that alone.
        self.environment["PYTHONPATH"] += f"{os.pathsep}{self.site}"
        for step in (node, other):
            process = self.type(step)
            self.reads(process, step)
            self.end(process)
        for step in (unknown, unset):
            process = self.type(step)
            self.reads(process, step)
            self.assertEqual(process.wait(SECONDS), 1)

    def test_all_followed(self) -> None:
        """
        No command of the page is left out above.
        """
        followed = 9
        others = [s for s in self.steps if s.command.startswith("export ")]
        self.assertEqual(len(self.steps) - len(others), followed)

    def test_points(self) -> None:
        """
        The table names every point, its interface and what is built in.
        """
        from mpush_tw.extensions import POINTS

        rows = re.findall(
            r"^\| (`[^|]*) \| `(I\w+)` \| ([^|]*) \|", self.page, re.MULTILINE
        )
        table = {
            re.findall(r"`([\w-]+)`", names)[0]: interface
            for names, interface, _ in rows
        }
        self.assertEqual(
            table, {point.name: point.interface.__name__ for point in POINTS}
        )
        for names, _, defaults in rows:
            name, *aliases = re.findall(r"`([\w-]+)`", names)
            (point,) = [one for one in POINTS if one.name == name]
            self.assertLessEqual(set(aliases), set(point.aliases))
            if "`" in defaults:
                shown = re.findall(r"`([\w-]+)`", defaults)
                self.assertEqual(set(shown), set(point.built_in))

    def test_greeter(self) -> None:
        """
        The program about pushing can be loaded, and is a push listener.
        """
        from zope.interface.verify import verifyObject

        from mpush_tw.interfaces import IPushListener

        (text,) = re.findall(
            r"^```python\n(from mpush_tw.core.push.*?)^```$",
            self.page,
            re.DOTALL | re.MULTILINE,
        )
        space: dict[str, Any] = {}
        exec(text, space)
        verifyObject(IPushListener, space["Greeter"]())
