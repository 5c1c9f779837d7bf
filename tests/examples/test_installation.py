"""
Tests that the example plug-ins can be installed as an operator does it: a wheel, C{pip
install}, and the next node that starts has them (server 19.1).
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.extensions import canonical_name
from tests.examples.support import PLUGINS, end_in_time
from tests.servers import end_with_parent, missing
from tests.support import RawPeer
from tests.test_embedding import CONFIG

ROOT = Path(__file__).parents[2]
SECONDS = 60.0
_RUN = "from twisted.scripts.twistd import run; run()"
_PROJECTS = {
    "http-bind-validator": ("bind-validator", "http-bind"),
    "redis-stream-upstream": ("push-handler", "redis-stream-upstream"),
    "redis-stream-source": ("push-listener", "redis-stream-source"),
}


def run(*command: str, cwd: Path | None = None) -> str:
    """
    Run a program of this Python.
    """
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"{command}: {done.stdout}\n{done.stderr}")
    return done.stdout


def require_wheels() -> None:
    """
    Skip the test if no wheels can be built here; under CI, fail it.
    """
    for package, least in (("pip", (20, 0)), ("setuptools", (70, 1))):
        try:
            installed = version(package)
        except PackageNotFoundError:
            missing(f"{package} is not installed")
        if tuple(map(int, installed.split(".")[:2])) < least:
            missing(f"{package} is {installed}, building a wheel takes {least}")


@cache
def wheels() -> dict[str, Path]:
    """
    Build a wheel of each project, once for all tests.
    """
    directory = Path(tempfile.mkdtemp(prefix="mpush-wheels-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    built = {}
    for name in _PROJECTS:
        # In a copy: building leaves its own things behind.
        project = directory / name
        shutil.copytree(PLUGINS / name, project)
        target = directory / f"{name}-wheel"
        run(
            *("pip", "wheel", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--no-build-isolation", "--no-index"),
            *("--wheel-dir", str(target), str(project)),
        )
        (built[name],) = target.glob("*.whl")
    return built


class InstallationTests(SynchronousTestCase):
    """
    Wheels, and nodes that find what was in them.
    """

    def setUp(self) -> None:
        require_wheels()
        self.wheels = wheels()
        self.directory = Path(self.mktemp()).absolute()
        self.site = self.directory / "site"
        self.site.mkdir(parents=True)

    def install(self, *names: str) -> None:
        """
        Install projects into a directory of the test's own.
        """
        run(
            *("pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--no-index", "--target", str(self.site)),
            *(str(self.wheels[name]) for name in names),
        )

    def start(self, *overrides: str) -> subprocess.Popen[str]:
        """
        Start C{twistd -n mpush} with that directory on its path.
        """
        config = {**CONFIG, "mp.home": str(self.directory), "mp.log-level": "warn"}
        settings = [
            f"{key}={str(value).lower() if value is True else value}"
            for key, value in config.items()
        ]
        arguments = [
            part for text in (*settings, *overrides) for part in ("--set", text)
        ]
        environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{self.site}"}
        environment.pop("MP_CONF", None)
        process = subprocess.Popen(
            [sys.executable, "-c", _RUN, "-n", "--pidfile=", "mpush", *arguments],
            cwd=self.directory,
            env=environment,
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
            process.kill()
        process.communicate()

    def said(self, process: subprocess.Popen[str]) -> str:
        """
        Read until the node serves.
        """
        assert process.stdout is not None
        lines = []
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            line = process.stdout.readline()
            lines.append(line)
            if "START SUCCESS" in line or not line:
                break
        text = "".join(lines)
        self.assertIn("START SUCCESS", text)
        return text

    def wait_for_reactor(self, text: str) -> None:
        """
        Wait until the node answers a heartbeat: then its reactor runs, and takes the
        order to stop.

        @param text: What it has said.
        """
        (port,) = re.findall(r"devices: port (\d+)", text)
        peer = RawPeer(int(port))
        self.addCleanup(peer.close)
        peer.send(b"\xdf")
        self.assertEqual(peer.packet(SECONDS), (1, 0, 0, b""))

    def test_contents(self) -> None:
        """
        A wheel has the module for Twisted, and nothing that would hide Twisted's own.
        """
        for name, wheel in self.wheels.items():
            files = zipfile.ZipFile(wheel).namelist()
            plugins = [file for file in files if file.startswith("twisted/")]
            self.assertEqual(len(plugins), 1, name)
            self.assertNotIn("twisted/plugins/__init__.py", plugins)

    def test_all_at_once(self) -> None:
        """
        A node uses all that are installed, without further ado.
        """
        self.install(*_PROJECTS)
        process = self.start("mp.spi-settings.http-bind.url=http://127.0.0.1:1/bind")
        text = self.said(process)
        for point, name in _PROJECTS.values():
            self.assertIn(f"{point}: the plug-in {name} serves", text)
        self.wait_for_reactor(text)
        process.terminate()
        output, _ = process.communicate(timeout=SECONDS)
        self.assertEqual(process.returncode, 0, output)
        self.assertIn("STOPPED SUCCESS", output)

    def test_removed(self) -> None:
        """
        Without them there is what is built in.
        """
        process = self.start()
        self.assertNotIn("plug-in", self.said(process))

    def test_chosen_by_name(self) -> None:
        """
        One that is installed can be told not to serve.
        """
        self.install("http-bind-validator")
        process = self.start("mp.spi.bind-validator=accept-all")
        self.assertNotIn("http-bind", self.said(process))

    def test_not_installed(self) -> None:
        """
        A name that is not installed ends the process with status 1 and one sentence
        that lists what is.
        """
        self.install("http-bind-validator")
        process = self.start("mp.spi.bind-validator=ldap")
        output, _ = process.communicate(timeout=SECONDS)
        self.assertEqual(process.returncode, 1, output)
        (line,) = [text for text in output.splitlines() if text.startswith("mpush: ")]
        self.assertIn("mp.spi.bind-validator: found ldap", line)
        self.assertIn("http-bind (mpush_http_bind.validator.HttpBindValidator)", line)
        self.assertNotIn("Traceback", output)

    def test_setting_missing(self) -> None:
        """
        So does a plug-in that lacks a setting.
        """
        self.install("http-bind-validator")
        process = self.start()
        output, _ = process.communicate(timeout=SECONDS)
        self.assertEqual(process.returncode, 1, output)
        self.assertIn("mpush: mp.spi-settings.http-bind.url: found", output)

    def test_broken(self) -> None:
        """
        A module that cannot be imported is told by name, and keeps no node from
        starting that does not want it.
        """
        self.install("http-bind-validator")
        shutil.rmtree(self.site / "mpush_http_bind")
        module = self.site / "twisted" / "plugins" / "mpush_http_bind_plugin.py"
        module.write_text("import mpush_http_bind\n" + module.read_text())
        text = self.said(self.start())
        self.assertIn(
            "the plug-in module twisted.plugins.mpush_http_bind_plugin cannot be "
            "imported and is left out (ModuleNotFoundError: No module named "
            "'mpush_http_bind')",
            text,
        )
        process = self.start("mp.spi.bind-validator=http-bind")
        output, _ = process.communicate(timeout=SECONDS)
        self.assertEqual(process.returncode, 1, output)
        self.assertIn("No module named 'mpush_http_bind'", output.splitlines()[-1])

    def test_help_is_quick(self) -> None:
        """
        What the plug-ins need to work is not loaded before it is needed.
        """
        self.install(*_PROJECTS)
        environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{self.site}"}
        loaded = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys; from mpush_tw.extensions import find_extensions\n"
                "print(len(find_extensions()[0]), *sys.modules)",
            ],
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
        ).stdout.split()
        self.assertEqual(loaded[0], "3")
        for name in ("treq", "txredisapi", "mpush_tw.service", "mpush_http_bind"):
            self.assertNotIn(name, loaded)

    def test_points(self) -> None:
        """
        The examples are for points that there are.
        """
        for point, _ in _PROJECTS.values():
            self.assertEqual(canonical_name(point), point)
