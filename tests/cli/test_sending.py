"""
C{mpush push} to many, C{mpush broadcast} and C{mpush trace}, as people type them.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.cli.test_commands import COMMAND, ROOT, NodeCommandTestCase, invoke, run


class SendingTestCase(NodeCommandTestCase):
    """
    A node, and commands for its gateway.
    """

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run(*arguments, "--gateway", self.gateway)

    def in_background(self, *arguments: str) -> subprocess.Popen[str]:
        """
        Start a command, and end it with the test.
        """
        process = subprocess.Popen(
            [*COMMAND, *arguments, "--gateway", self.gateway],
            env=os.environ | {"PYTHONPATH": ROOT},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(process.wait, 10)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        return process

    def until_output(self, pattern: str, *arguments: str) -> None:
        """
        Run a command again and again until its output has something in it.
        """
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            output = self.command(*arguments).stdout
            if re.search(pattern, output):
                return
        self.fail(f"waited in vain for {pattern!r}, got {output!r}")

    def row(self, output: str, first: str) -> list[str]:
        """
        Take the line of a table that begins with a word, in parts.
        """
        for line in output.splitlines():
            parts = line.split()
            if parts and parts[0] == first:
                return parts
        self.fail(f"no line begins with {first!r}: {output}")


class ListTests(SendingTestCase):
    """
    One text to several users.
    """

    def test_not_all_there(self) -> None:
        """
        How many got it is told, and who did not; the status says that not all did.
        """
        device = self.device("alice", 1)
        result = self.command("push", "alice", "bob", "carol", "hello")
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertEqual(self.row(result.stdout, "success"), ["success", "1"])
        self.assertEqual(
            self.row(result.stdout, "offline"), ["offline", "2", "bob,", "carol"]
        )
        output, _ = device.communicate(timeout=20)
        self.assertIn("hello", output)

    def test_file(self) -> None:
        """
        The users may stand in a file, one a line, and beside it in the command.
        """
        path = Path(tempfile.mkdtemp()) / "users"
        path.write_text("алиса\r\n\n  bob  \n", encoding="utf-8")
        devices = [self.device(user, 1) for user in ("алиса", "bob", "carol")]
        result = self.command("push", "carol", "hello", "--users-file", str(path))
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertEqual(self.row(result.stdout, "success"), ["success", "3"])
        for device in devices:
            self.assertIn("hello", device.communicate(timeout=20)[0])

    def test_many(self) -> None:
        """
        Of many who are not there some are named, from a file as well as from a pipe.
        """
        users = "".join(f"user-{number}\n" for number in range(2000))
        process = subprocess.run(
            [
                *COMMAND,
                *("push", "--users-file", "-", "hello", "--gateway", self.gateway),
            ],
            env=os.environ | {"PYTHONPATH": ROOT},
            input=users,
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual(process.returncode, 1, process.stderr)
        row = self.row(process.stdout, "offline")
        self.assertEqual(row[:3], ["offline", "2000", "user-0,"])
        self.assertEqual(row[-3:], ["and", "1980", "more"])

    def test_interrupted(self) -> None:
        """
        Ctrl+C ends a list and tells how far it came.
        """
        with socket.create_server(("127.0.0.1", 0)) as silent:
            gateway = f"127.0.0.1:{silent.getsockname()[1]}"
            process = subprocess.Popen(
                [
                    *COMMAND,
                    *("push", "alice", "bob", "hello", "--timeout", "60"),
                    *("--gateway", gateway),
                ],
                env=os.environ | {"PYTHONPATH": ROOT},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            self.addCleanup(process.kill)
            connection, _ = silent.accept()
            with connection:
                connection.settimeout(20)
                connection.recv(1)
                process.send_signal(signal.SIGINT)
                output, errors = process.communicate(timeout=20)
        self.assertEqual(process.returncode, 1, errors)
        self.assertEqual(self.row(output, "failure"), ["failure", "2", "alice,", "bob"])

    def test_too_many(self) -> None:
        """
        A list that is too long is refused in a sentence.
        """
        path = Path(tempfile.mkdtemp()) / "users"
        path.write_text("".join(f"{number}\n" for number in range(100_001)))
        result = self.command("push", "--users-file", str(path), "hello")
        self.assertEqual(result.returncode, 1)
        self.assertIn("100001 user_ids are too many", result.stderr)


class BroadcastTests(SendingTestCase):
    """
    One text to everybody.
    """

    def test_everybody(self) -> None:
        """
        Every device prints it, and the node's counts are shown.
        """
        devices = [self.device(user, 1) for user in ("alice", "bob")]
        result = self.command("broadcast", "hello all")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        for first in (self.gateway, "all"):
            self.assertEqual(
                self.row(result.stdout, first), [first, "success", "2", "2", "2"]
            )
        for device in devices:
            self.assertIn("hello all", device.communicate(timeout=20)[0])

    def test_part(self) -> None:
        """
        Tags and conditions pick, for a dry run as for the broadcast; a dry run sends
        nothing.
        """
        device = self.device("alice", 1, tags="vip")
        self.device("bob", 1)
        result = self.command("broadcast", "--dry-run", "--tags", "vip,gold")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(self.row(result.stdout, "all"), ["all", "2", "1"])
        result = self.command("broadcast", "to bob", "--condition", "userId == 'bob'")
        self.assertEqual(
            self.row(result.stdout, "all"), ["all", "success", "2", "1", "1", "1"]
        )
        result = self.command("broadcast", "to vips", "--tags", "vip,gold")
        self.assertEqual(result.returncode, 0, result.stderr)
        output, _ = device.communicate(timeout=20)
        self.assertIn("to vips", output)
        self.assertNotIn("to bob", output)

    def test_condition_that_fails(self) -> None:
        """
        The first error of a condition is shown.
        """
        self.device("alice", 1)
        result = self.command("broadcast", "--dry-run", "--condition", "nonsense()")
        self.assertIn("condition: ", result.stdout)
        self.assertIn("nonsense", result.stdout)

    def test_control(self) -> None:
        """
        A broadcast with a name can be watched, cancelled and traced.
        """
        for user in ("alice", "bob", "carol"):
            self.device(user, 1)
        broadcast = self.in_background(
            "broadcast", "slow", "--task", "t1", "--rate", "1"
        )
        self.until_output(r"[12] messages have been sent", "broadcast", "--task", "t1")
        result = self.command("broadcast", "--cancel", "t1")
        self.assertRegex(result.stdout, r"cancelled; [12] messages had been sent")
        output, _ = broadcast.communicate(timeout=20)
        self.assertEqual(broadcast.returncode, 0, output)
        self.assertIn("cancelled", output)
        self.assertRegex(self.command("trace", "t1").stdout, r"everybody +broadcast_c")

    def test_faster(self) -> None:
        """
        Its rate can be changed while it goes on.
        """
        for user in ("alice", "bob", "carol", "dave"):
            self.device(user, 1)
        broadcast = self.in_background(
            "broadcast", "slow", "--task", "t1", "--rate", "1"
        )
        self.until_output(r"[12] messages have been sent", "broadcast", "--task", "t1")
        result = self.command("broadcast", "--task", "t1", "--rate", "1000")
        self.assertIn("1000 messages a second", result.stdout)
        output, _ = broadcast.communicate(timeout=20)
        self.assertEqual(self.row(output, "all")[:5], ["all", "success", "4", "4", "4"])

    def test_rate_without_a_name(self) -> None:
        """
        A rate without a name gives it one, which is printed first.
        """
        result = self.command("broadcast", "hello", "--rate", "100")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stdout.splitlines()[0], r"^task [0-9a-f-]{36}$")

    def test_no_node(self) -> None:
        """
        Without a node there is a sentence.
        """
        self.target.close()
        for arguments in (["hello"], ["--dry-run"], ["--cancel", "t1"]):
            result = self.command("broadcast", *arguments)
            self.assertEqual(result.returncode, 1)
            self.assertIn("Error:", result.stderr)
            self.assertNotIn("Traceback", result.stderr)


class TraceTests(SendingTestCase):
    """
    What became of a push.
    """

    def test_time_line(self) -> None:
        """
        The sender's milestones and the node's are shown in one line of time.
        """
        self.device("alice", 1)
        result = self.command("push", "alice", "hello", "--trace", "t1")
        self.assertEqual(result.returncode, 0, result.stderr)
        result = self.command("trace", "t1")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stdout, rf"{self.gateway} +alice +ack_success")
        lines = [line.split() for line in result.stdout.splitlines()]
        points = [(line[2], line[4]) for line in lines if len(line) == 5]
        self.assertEqual(points[0], ("sender", "begin"))
        self.assertEqual(points[-1], (self.gateway, "success-end"))

    def test_nothing(self) -> None:
        """
        That nothing is known is told, and a status of its own.
        """
        result = self.command("trace", "t1")
        self.assertEqual(result.returncode, 3)
        self.assertIn("nothing is known of t1", result.stdout)


class WrongUsageTests(SynchronousTestCase):
    """
    What is refused before anything is connected.
    """

    def assertWrong(self, said: str, *arguments: str) -> None:
        result = invoke(*arguments)
        self.assertEqual(result.exit_code, 2, result.output)
        self.assertIn(said, result.output)

    def test_nobody(self) -> None:
        """
        A push needs somebody.
        """
        self.assertWrong("--users-file", "push", "hello")
        self.assertWrong("TEXT", "push")

    def test_no_file(self) -> None:
        """
        A file that is not there is named.
        """
        self.assertWrong("/nowhere", "push", "--users-file", "/nowhere", "hello")

    def test_no_text_file(self) -> None:
        """
        So is one that is not written in UTF-8.
        """
        path = Path(tempfile.mkdtemp()) / "users"
        path.write_bytes(b"\xff\xfe\x00")
        result = invoke("push", "--users-file", str(path), "hello")
        self.assertEqual(result.exit_code, 1)
        self.assertIn("not written in UTF-8", result.output)

    def test_nothing_to_broadcast(self) -> None:
        """
        A broadcast needs a text, or something else to do.
        """
        self.assertWrong("TEXT is missing", "broadcast")
        self.assertWrong("TEXT is missing", "broadcast", "--rate", "5")
        self.assertWrong("TEXT is missing", "broadcast", "--task", "t", "--tags", "a")

    def test_too_much_at_once(self) -> None:
        """
        Options that do not go together are named.
        """
        self.assertWrong("--cancel goes with", "broadcast", "x", "--cancel", "t")
        self.assertWrong(
            "--cancel goes with", "broadcast", "--cancel", "t", "--dry-run"
        )
        self.assertWrong("--dry-run", "broadcast", "--dry-run", "--task", "t")
        self.assertWrong("--rate", "broadcast", "x", "--rate", "0")

    def test_gateway_and_configuration(self) -> None:
        """
        Two ways to say where to are one too many.
        """
        both = ("--gateway", "a:1", "--config", "x.conf")
        self.assertWrong("exclude each other", "broadcast", "x", *both)
        self.assertWrong("exclude each other", "trace", "t", *both)
        self.assertWrong("HOST:PORT", "trace", "t", "--gateway", "localhost")
