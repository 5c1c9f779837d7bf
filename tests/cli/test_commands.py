"""
The C{mpush} command as people type it: help, keys, a device and a push.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw import __version__
from mpush_tw.bench.target import Target, own_node
from mpush_tw.cli import main
from mpush_tw.protocol.crypto import RsaPrivateKey, RsaPublicKey
from tests.servers import free_port

ROOT = str(Path(__file__).parents[2])
COMMAND = [sys.executable, "-c", "from mpush_tw.cli import main; main()"]


def invoke(*arguments: str) -> Any:
    """
    Run a command in this process.
    """
    return CliRunner().invoke(main, arguments)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """
    Run a command in a process of its own.
    """
    return subprocess.run(
        [*COMMAND, *arguments],
        env=os.environ | {"PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        timeout=60,
    )


class AllocHandler(BaseHTTPRequestHandler):
    """
    Names one server, that of its HTTP server.
    """

    def do_GET(self) -> None:
        server: Any = self.server
        body = server.server.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """
        Say nothing.
        """


class HelpTests(SynchronousTestCase):
    """
    What is printed without a server.
    """

    def test_help_names_every_command(self) -> None:
        """The help lists all commands and the three lines to try."""
        output = invoke("--help").output
        for word in (
            *("client", "push", "broadcast", "trace"),
            *("bench", "keygen", "config", "version"),
        ):
            self.assertIn(f"\n  {word} ", output)
        self.assertIn('mpush push alice "hello"', output)

    def test_each_command_has_examples(self) -> None:
        """Each command's own help shows how it is used."""
        for command in ("client", "push", "broadcast", "trace", "bench", "keygen"):
            result = invoke(command, "--help")
            self.assertEqual(result.exit_code, 0)
            self.assertIn("Example", result.output, command)

    def test_help_is_quick(self) -> None:
        """The help loads neither Twisted nor a sub-command."""
        program = (
            "import sys; from click.testing import CliRunner; "
            "from mpush_tw.cli import main; CliRunner().invoke(main, ['--help']); "
            "print([m for m in sys.modules if m.startswith(('twisted.', "
            "'mpush_tw.cli.'))])"
        )
        output = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONPATH": ROOT},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
        self.assertEqual(output.strip(), "[]")

    def test_version(self) -> None:
        """The version is printed."""
        self.assertEqual(invoke("version").output, f"mpush_tw {__version__}\n")

    def test_unknown_command(self) -> None:
        """A wrong word is wrong usage."""
        self.assertEqual(invoke("pull").exit_code, 2)


class KeygenTests(SynchronousTestCase):
    """
    C{mpush keygen}.
    """

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp())

    def test_lines(self) -> None:
        """The lines hold one pair, ready to paste."""
        lines = invoke("keygen", "--bits", "1024").output.splitlines()
        private = lines[1].removeprefix('mp.security.private-key="').rstrip('"')
        public = RsaPublicKey.load(lines[2].split('"')[1])
        key = RsaPrivateKey.load(private, public)
        self.assertEqual(key.bits, 1024)
        self.assertEqual(RsaPublicKey.load(lines[-1]).modulus, public.modulus)

    def test_files(self) -> None:
        """PEM files are written, the private one for its owner only."""
        directory = self.directory / "keys"
        result = invoke("keygen", "--bits", "1024", "--out", str(directory))
        self.assertEqual(result.exit_code, 0, result.output)
        private = directory / "private.pem"
        self.assertEqual(private.stat().st_mode & 0o777, 0o600)
        RsaPrivateKey.load(
            private.read_bytes(),
            RsaPublicKey.load((directory / "public.pem").read_bytes()),
        )

    def test_never_overwrites(self) -> None:
        """An existing key stays, and the sentence names it."""
        (self.directory / "private.pem").write_text("precious")
        result = invoke("keygen", "--bits", "1024", "--out", str(self.directory))
        self.assertEqual(result.exit_code, 1)
        self.assertIn("private.pem exists", result.output)
        self.assertEqual((self.directory / "private.pem").read_text(), "precious")

    def test_too_small(self) -> None:
        """Less than 1024 bits are refused."""
        self.assertEqual(invoke("keygen", "--bits", "512").exit_code, 2)


class NodeCommandTestCase(SynchronousTestCase):
    """
    A real node, and commands as processes.
    """

    def setUp(self) -> None:
        self.target: Target = own_node(1024)
        self.addCleanup(self.target.close)
        self.gateway = f"127.0.0.1:{self.target.gateway_port}"

    def run_push(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run("push", *arguments, "--gateway", self.gateway)

    def device(
        self, user: str, count: int, *where: str, tags: str = ""
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [
                *COMMAND,
                "client",
                user,
                *(where or ("--port", str(self.target.port))),
                "--public-key",
                self.target.public_key,
                "--count",
                str(count),
                *(("--tags", tags) if tags else ()),
            ],
            env=os.environ | {"PYTHONPATH": ROOT, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(process.wait, 10)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        for line in process.stdout:
            if f"bound as {user}" in line:
                return process
        self.fail("the device was not bound")


class NodeCommandTests(NodeCommandTestCase):
    """
    C{mpush client} and C{mpush push} against a real node.
    """

    def test_message_arrives(self) -> None:
        """A text arrives, with each kind of acknowledgement, and the device leaves."""
        device = self.device("alice", 3)
        for ack in ("none", "auto", "biz"):
            result = self.run_push("alice", f"hello {ack} 推送", "--ack", ack)
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
            self.assertIn("success  to alice", result.stdout)
            self.assertEqual("waiting-ack" in result.stdout, ack != "none")
        output, _ = device.communicate(timeout=20)
        for ack in ("none", "auto", "biz"):
            self.assertIn(f"hello {ack} 推送", output)
        self.assertEqual(device.returncode, 0)

    def test_alloc(self) -> None:
        """A device can be told of alloc instead of a server."""
        alloc = ThreadingHTTPServer(("127.0.0.1", 0), AllocHandler)
        self.addCleanup(alloc.server_close)
        alloc.server = f"127.0.0.1:{self.target.port}"  # type: ignore[attr-defined]
        serving = threading.Thread(target=alloc.serve_forever, args=(0.05,))
        serving.start()
        self.addCleanup(serving.join)
        self.addCleanup(alloc.shutdown)
        url = f"http://127.0.0.1:{alloc.server_port}/"
        device = self.device("alice", 1, "--alloc", url)
        self.assertEqual(self.run_push("alice", "hello").returncode, 0)
        output, _ = device.communicate(timeout=20)
        self.assertIn("push: hello", output)

    def test_nobody_there(self) -> None:
        """A push to a user who is not online ends with status 3."""
        result = self.run_push("bob", "hello")
        self.assertEqual(result.returncode, 3)
        self.assertIn("offline  to bob", result.stdout)

    def test_no_gateway(self) -> None:
        """Without a node behind the address there is a sentence, not a traceback."""
        self.target.close()
        result = self.run_push("alice", "hello")
        self.assertEqual(result.returncode, 1)
        self.assertIn("Error:", result.stderr)
        self.assertNotIn("Traceback", result.stdout + result.stderr)

    def test_configuration(self) -> None:
        """The file of a standalone node is as good as its gateway's address."""
        config = Path(tempfile.mkdtemp()) / "node.conf"
        config.write_text(f"mp.net.gateway-server-port = {self.target.gateway_port}\n")
        result = run("push", "bob", "hello", "--config", str(config))
        self.assertEqual(result.returncode, 3, result.stderr)
        self.assertIn("offline  to bob", result.stdout)

    def test_no_server(self) -> None:
        """A device whose server is not there says so instead of saying nothing."""
        self.target.close()
        process = subprocess.Popen(
            [
                *COMMAND,
                "client",
                "alice",
                "--port",
                str(self.target.port),
                "--public-key",
                self.target.public_key,
            ],
            env=os.environ | {"PYTHONPATH": ROOT, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(process.wait, 10)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        self.assertIn("no connection: 127.0.0.1", process.stdout.readline())

    def test_empty_text(self) -> None:
        """Nothing is no message."""
        result = self.run_push("alice", "")
        self.assertEqual(result.returncode, 1)
        self.assertIn("empty", result.stderr)


class WrongUsageTests(SynchronousTestCase):
    """
    What is refused before anything is connected.
    """

    def test_bad_gateway(self) -> None:
        """A gateway without a port is wrong usage, and named."""
        result = invoke("push", "alice", "x", "--gateway", "localhost")
        self.assertEqual(result.exit_code, 2)
        self.assertIn("HOST:PORT", result.output)

    def test_gateway_and_configuration(self) -> None:
        """Two ways to say where to are one too many."""
        result = invoke("push", "alice", "x", "--gateway", "a:1", "--config", "x.conf")
        self.assertEqual(result.exit_code, 2)
        self.assertIn("exclude each other", result.output)

    def test_push_without_its_file(self) -> None:
        """A configuration that is not there is said in one sentence."""
        result = run("push", "alice", "x", "--config", "/nowhere/mpush.conf")
        self.assertEqual(result.returncode, 1)
        self.assertIn("/nowhere/mpush.conf", result.stderr)
        self.assertNotIn("Traceback", result.stderr)

    def test_push_without_its_cluster(self) -> None:
        """So is a cluster that is not there: which address refused."""
        config = Path(tempfile.mkdtemp()) / "node.conf"
        address = f"127.0.0.1:{free_port()}"
        config.write_text(
            f'mp.redis.nodes = ["{address}"]\nmp.zk.server-address = "{address}"\n'
        )
        result = run("push", "alice", "x", "--config", str(config))
        self.assertEqual(result.returncode, 1)
        self.assertIn(address, result.stderr)
        self.assertNotIn("Traceback", result.stderr)

    def test_bad_alloc(self) -> None:
        """An alloc that is no URL is refused with a sentence."""
        key = RsaPrivateKey.generate(1024).public.text()
        result = invoke(
            "client", "alice", "--alloc", "localhost:9999", "--public-key", key
        )
        self.assertEqual(result.exit_code, 1)
        self.assertIn("alloc_server", result.output)

    def test_no_key(self) -> None:
        """A device without a key says where it looked and what to do."""
        directory = Path(tempfile.mkdtemp())
        config = directory / "m.conf"
        config.write_text(f'mp.home = "{directory}"\n')
        result = invoke("client", "alice", "--config", str(config))
        self.assertEqual(result.exit_code, 1)
        self.assertIn("make run", result.output)
        self.assertIn("--public-key", result.output)

    def test_bad_key(self) -> None:
        """A key that is none is refused with a sentence, however long it is."""
        for key in ("nonsense", "A" * 400, "A" * 100_000):
            result = invoke("client", "alice", "--public-key", key)
            self.assertEqual(result.exit_code, 1, result.exception)
            self.assertIn("public_key", result.output)
            self.assertNotIn("Traceback", result.output)

    def test_binary_key(self) -> None:
        """A file that holds something else is named."""
        path = Path(tempfile.mkdtemp()) / "public.der"
        path.write_bytes(b"\x30\x81\x9f\xff")
        result = invoke("client", "alice", "--public-key", str(path))
        self.assertEqual(result.exit_code, 1, result.exception)
        self.assertIn("public.der is no PEM file", result.output)

    def test_bench_of_nothing(self) -> None:
        """No devices, no time and no numbers are wrong usage, and named."""
        for command, option, values in (
            ("conn", "--processes", ("0", "-1")),
            ("conn", "--concurrency", ("0", "-1")),
            ("conn", "--sources", ("0", "255")),
            ("conn", "--seconds", ("0", "-1", "nan", "inf")),
            ("conn", "--warm", ("-1", "nan", "inf")),
            ("conn", "--runs", ("0", "-1")),
            ("conn", "--idle", ("-1", "1")),
            ("conn", "--port", ("0", "65536")),
            ("conn", "--gateway-port", ("0", "65536")),
            ("push", "--users", ("0", "-1")),
            ("push", "--window", ("0", "-1")),
            ("push", "--rate", ("-1", "nan", "inf")),
        ):
            for value in values:
                result = invoke("bench", command, option, value)
                self.assertEqual(result.exit_code, 2, (option, value, result.output))
                self.assertIn(option, result.output)
