"""
Tests for L{mpush_tw.tap} and the plug-in: C{twistd mpush} as an operator runs it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.keys import private_key_path
from mpush_tw.protocol.crypto import RsaPrivateKey
from mpush_tw.tap import Options, makeService

_ROOT = Path(__file__).parent.parent
_RUN = "from twisted.scripts.twistd import run; run()"
_KEY = RsaPrivateKey.generate(1024)
_SECONDS = 30.0
_MAKE = """
import resource, sys
from mpush_tw.tap import Options, makeService
options = Options()
options.parseOptions(sys.argv[1:])
node = makeService(options)
files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
print(files, node.connect_door.admission.max_connections)
"""


class OptionsTests(SynchronousTestCase):
    """
    The options of one run.
    """

    def parse(self, *arguments: str) -> Options:
        """
        Parse a command line.
        """
        options = Options()
        options.parseOptions(list(arguments))
        return options

    def test_nothing(self) -> None:
        """
        Nothing has to be given.
        """
        options = self.parse()
        self.assertIsNone(options["config"])
        self.assertEqual(options["set"], [])

    def test_config(self) -> None:
        """
        The configuration can be named in either way.
        """
        self.assertEqual(self.parse("--config", "a.conf")["config"], "a.conf")
        self.assertEqual(self.parse("-c", "a.conf")["config"], "a.conf")

    def test_set(self) -> None:
        """
        Keys can be set one after the other, with any text behind the first sign.
        """
        options = self.parse("--set", "mp.a=1", "--set=mp.b=x=y")
        self.assertEqual(options["set"], ["mp.a=1", "mp.b=x=y"])

    def test_runs_do_not_share(self) -> None:
        """
        One run's settings are not the next one's.
        """
        self.parse("--set", "mp.a=1")
        self.assertEqual(self.parse()["set"], [])

    def test_no_value(self) -> None:
        """
        A key without a value is refused with a sentence.
        """
        error = self.assertRaises(usage.UsageError, self.parse, "--set", "mp.a")
        self.assertIn("expected mp.key=value", str(error))


class PluginTests(SynchronousTestCase):
    """
    How C{twistd} finds us.
    """

    def test_found(self) -> None:
        """
        There is one service maker of our name, and it leads to this module.
        """
        makers: list[Any] = list(getPlugins(IServiceMaker))
        [maker] = [maker for maker in makers if maker.tapname == "mpush"]
        self.assertEqual(maker.module, "mpush_tw.tap")
        self.assertIs(maker.options, Options)


class BadConfigurationTests(SynchronousTestCase):
    """
    Configurations that cannot be used.
    """

    def refusal(self, *arguments: str) -> str:
        """
        What is printed before the process ends with status 1.
        """
        options = Options()
        options.parseOptions(list(arguments))
        printed = io.StringIO()
        with contextlib.redirect_stderr(printed):
            stop = self.assertRaises(SystemExit, makeService, options, object())
        assert isinstance(stop, SystemExit)
        self.assertEqual(stop.code, 1)
        return printed.getvalue()

    def test_bad_value(self) -> None:
        """
        A value that makes no sense is named with its key.
        """
        text = self.refusal("--set", "mp.core.max-packet-size=lots")
        self.assertTrue(text.startswith("mpush: "), text)
        self.assertIn("mp.core.max-packet-size", text)

    def test_no_file(self) -> None:
        """
        So is a file that is not there.
        """
        self.assertIn("/no/such.conf", self.refusal("--config", "/no/such.conf"))


class FileLimitTests(SynchronousTestCase):
    """
    A process that was started with few files, as most are.
    """

    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        self.home.mkdir(parents=True)

    def most(self, *overrides: str) -> tuple[int, int]:
        """
        Make a node in a process whose soft limit is 1024 files.

        @return: How many files that may open then, and most connections of the node.
        """
        settings = [
            f'mp.home="{self.home}"',
            f'mp.security.private-key="{_KEY.text()}"',
            *overrides,
        ]
        arguments = [part for text in settings for part in ("--set", text)]
        environment = os.environ | {"PYTHONPATH": str(_ROOT)}
        environment.pop("MP_CONF", None)
        shell = ["/bin/sh", "-c", 'ulimit -Sn 1024 && exec "$@"', "sh"]
        run = subprocess.run(
            [*shell, sys.executable, "-c", _MAKE, *arguments],
            cwd=self.home,
            env=environment,
            capture_output=True,
            check=False,
            text=True,
            timeout=_SECONDS,
        )
        self.assertEqual(run.returncode, 0, run.stderr)
        files, connections = run.stdout.split()[-2:]
        return int(files), int(connections)

    def test_raised(self) -> None:
        """
        It takes the files that the system allows it, and as many connections as that
        leaves room for.
        """
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard <= 2048:
            raise SkipTest("no more files than that are allowed here")
        files, connections = self.most()
        self.assertEqual(files, hard)
        self.assertGreater(connections, 1024)

    def test_configured(self) -> None:
        """
        What is configured counts, whatever the files.
        """
        self.assertEqual(self.most("mp.limits.max-connections=7")[1], 7)


class ProcessTests(SynchronousTestCase):
    """
    The real process, in the foreground.
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(parents=True)

    def start(self, *overrides: str, own_key: bool = False) -> subprocess.Popen[bytes]:
        """
        Start C{twistd -n mpush} on free ports.

        @param own_key: Whether it has to find or make a key by itself.
        """
        settings = [
            f'mp.home="{self.directory}"',
            "mp.net.connect-server-bind-ip=127.0.0.1",
            "mp.net.connect-server-port=0",
            "mp.net.gateway-server-port=0",
            "mp.net.admin-server-port=0",
            *overrides,
        ]
        if not own_key:
            settings.append(f'mp.security.private-key="{_KEY.text()}"')
        arguments = [part for text in settings for part in ("--set", text)]
        environment = os.environ | {"PYTHONPATH": str(_ROOT)}
        environment.pop("MP_CONF", None)
        process = subprocess.Popen(
            [sys.executable, "-c", _RUN, "-n", "--pidfile=", "mpush", *arguments],
            cwd=self.directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.addCleanup(self.end, process)
        return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """
        Leave nothing running and nothing open.
        """
        if process.poll() is None:
            process.kill()
        process.communicate()

    def refusal(self, *overrides: str, own_key: bool = False) -> str:
        """
        Start a process that cannot, and see it end with status 1.

        @return: Its one sentence.
        """
        process = self.start(*overrides, own_key=own_key)
        output, errors = process.communicate(timeout=_SECONDS)
        text = (output + errors).decode()
        self.assertEqual(process.returncode, 1, text)
        lines = [line for line in text.splitlines() if "mpush: mp." in line]
        self.assertEqual(len(lines), 1, text)
        self.assertNotIn("Traceback", text)
        return lines[0]

    def busy_port(self) -> int:
        """
        A port that somebody else has.
        """
        other = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(other.close)
        port: int = other.getsockname()[1]
        return port

    def test_device_port_in_use(self) -> None:
        """
        A busy device port ends the process with status 1 and one sentence that names
        key and port.
        """
        port = self.busy_port()
        sentence = self.refusal(f"mp.net.connect-server-port={port}")
        self.assertIn("mp.net.connect-server-port", sentence)
        self.assertIn(f"port {port} ", sentence)

    def test_gateway_port_in_use(self) -> None:
        """
        So does a busy gateway port.
        """
        port = self.busy_port()
        sentence = self.refusal(f"mp.net.gateway-server-port={port}")
        self.assertIn("mp.net.gateway-server-port", sentence)
        self.assertIn(f"port {port} ", sentence)

    def test_damaged_key_file(self) -> None:
        """
        So does a key file that cannot be read, named by its path.
        """
        path = private_key_path(str(self.directory))
        path.parent.mkdir()
        path.write_text("nothing of use")
        sentence = self.refusal(own_key=True)
        self.assertIn("mp.security.private-key", sentence)
        self.assertIn(str(path), sentence)

    def test_runs_until_told(self) -> None:
        """
        With nothing configured it makes a key, says where it serves, does so, and ends
        with status 0 when it is terminated.
        """
        process = self.start(own_key=True)
        assert process.stdout is not None
        output = b""
        deadline = time.monotonic() + _SECONDS
        number = process.stdout.fileno()
        while b"START SUCCESS" not in output and time.monotonic() < deadline:
            if select.select([number], [], [], 1.0)[0]:
                data = os.read(number, 65536)
                if not data:
                    break
                output += data
        self.assertIn(b"START SUCCESS", output)
        self.assertTrue(private_key_path(str(self.directory)).exists())
        port = re.search(rb"devices: port (\d+)", output)
        assert port is not None, output
        with socket.create_connection(("127.0.0.1", int(port[1])), _SECONDS) as device:
            device.sendall(b"\xdf")
            self.assertEqual(device.recv(1), b"\xdf")
        process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate(timeout=_SECONDS)
        self.assertEqual(process.returncode, 0, errors)
        self.assertIn(b"STOPPED SUCCESS", rest)
