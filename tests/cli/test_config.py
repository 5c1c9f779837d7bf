"""
Tests for L{mpush_tw.cli.config}.
"""

from __future__ import annotations

from click.testing import CliRunner, Result

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.cli.config import config_group
from mpush_tw.config import load_settings


class ConfigTestCase(SynchronousTestCase):
    """
    The commands, run as a shell would.
    """

    def run_command(self, *arguments: str, **environ: str) -> Result:
        variables: dict[str, str | None] = {"MP_CONF": None, **environ}
        return CliRunner().invoke(config_group, arguments, env=variables)

    def write(self, text: str) -> str:
        path = self.mktemp()
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path


class CheckTests(ConfigTestCase):
    """
    C{mpush config check}.
    """

    def test_good(self) -> None:
        """A good file gets a summary of the mode and of all doors."""
        path = self.write("mp.net { metrics-server-port=3003, ws-server-port=3004 }")
        result = self.run_command("check", path)
        self.assertEqual(
            result.stdout.splitlines(),
            [
                f"{path}: good",
                "mode       standalone",
                "connect    every address, port 3000",
                "websocket  every address, port 3004",
                "gateway    tcp 127.0.0.1, port 3001",
                "console    127.0.0.1, port 3002",
                "metrics    127.0.0.1, port 3003",
                "alloc      off",
            ],
        )
        self.assertEqual(result.exit_code, 0)

    def test_alloc(self) -> None:
        """A node that serves alloc says where."""
        for written, shown in (
            ("", "every address, port 9999"),
            ("mp.net.alloc-server-bind-ip=10.0.0.9", "10.0.0.9, port 9999"),
            ('mp.net.alloc-server-endpoint="tcp:81"', "tcp:81"),
        ):
            path = self.write(f"mp.alloc.enabled=true\n{written}")
            lines = self.run_command("check", path).stdout.splitlines()
            self.assertEqual(lines[-1], f"alloc      {shown}")

    def test_cluster(self) -> None:
        """A cluster is named as such, with its gateway in the local network."""
        path = self.write(
            'mp { redis.nodes=["h:1"], zk.server-address="h:2", '
            "security.allow-sample-key=true }"
        )
        lines = self.run_command("check", path).stdout.splitlines()
        self.assertIn("mode       cluster", lines)
        self.assertIn("gateway    tcp the local ip, port 3001", lines)
        self.assertIn("websocket  off", lines)

    def test_notices(self) -> None:
        """Notices are part of the summary and no failure."""
        result = self.run_command("check", self.write("mp.hom=/x"))
        self.assertIn("notice: mp.hom is not known", result.stdout)
        self.assertEqual(result.exit_code, 0)

    def test_bad(self) -> None:
        """Each problem has a line of its own, and the status is 1."""
        path = self.write("mp.net.ws-path=x\nmp.core.max-packet-size=y")
        result = self.run_command("check", path)
        self.assertEqual(result.exit_code, 1)
        self.assertEqual(result.stdout, "")
        keys = [line.partition(":")[0] for line in result.stderr.splitlines()]
        self.assertEqual(keys, ["mp.core.max-packet-size", "mp.net.ws-path"])

    def test_plug_in(self) -> None:
        """A plug-in that is not installed is told, with what there is."""
        path = self.write("mp.spi { bind-validator=ldap, json=msgspec }")
        result = self.run_command("check", path)
        self.assertEqual(
            result.stderr,
            "mp.spi.bind-validator: found ldap, which no plug-in is called, expected "
            "one of those that there are: accept-all\n",
        )
        self.assertEqual(result.exit_code, 1)

    def test_missing(self) -> None:
        """A file that does not exist is named, without a traceback."""
        result = self.run_command("check", "/no/such")
        self.assertEqual(result.stderr, "there is no such file (in /no/such)\n")
        self.assertEqual(result.exit_code, 1)


class ShowTests(ConfigTestCase):
    """
    C{mpush config show}.
    """

    def test_only_differences(self) -> None:
        """What differs from the defaults is shown, ready to be pasted."""
        path = self.write("mp.core.max-packet-size=20k\nmp.log-level=warn")
        self.assertEqual(
            self.run_command("show", "--config", path).stdout,
            "mp {\n    core {\n        max-packet-size = 20k\n    }\n}\n",
        )

    def test_nothing_differs(self) -> None:
        """Where nothing differs, that is said in a comment."""
        self.assertTrue(self.run_command("show").stdout.startswith("# nothing"))
        self.assertTrue(self.run_command("show", "mp.net").stdout.startswith("# "))

    def test_all(self) -> None:
        """Everything can be shown, and reads back as the same settings."""
        result = self.run_command("show", "--all", "--set", "mp.home=/x")
        path = self.write(result.stdout)
        loaded = load_settings(path, (), {})
        self.assertEqual(
            loaded.settings, load_settings(None, ["mp.home=/x"], {}).settings
        )

    def test_path(self) -> None:
        """A part can be shown, with or without mp before it."""
        for path in ("mp.net.snd_buf.connect-server", "net.snd_buf.connect-server"):
            self.assertEqual(
                self.run_command("show", "--all", path).stdout,
                "mp {\n    net {\n        snd_buf {\n"
                "            connect-server = 32k\n        }\n    }\n}\n",
            )

    def test_path_with_dots(self) -> None:
        """A key that holds dots itself is found."""
        override = 'mp.net.public-host-mapping={"10.0.0.1": "1.2.3.4"}'
        result = self.run_command(
            "show", "--set", override, "mp.net.public-host-mapping.10.0.0.1"
        )
        self.assertIn('"10.0.0.1" = 1.2.3.4', result.stdout)

    def test_unknown_path(self) -> None:
        """A part that does not exist is refused, with the nearest one."""
        result = self.run_command("show", "mp.net.ws-prot")
        self.assertEqual(result.exit_code, 1)
        self.assertIn("did you mean mp.net.ws-p", result.stderr)

    def test_secrets(self) -> None:
        """Secrets are hidden."""
        result = self.run_command(
            "show", "--set", "mp.net.admin-server-password=hunter2"
        )
        self.assertIn('# admin-server-password = "******"', result.stdout)
        self.assertNotIn("hunter2", result.output)

    def test_variable(self) -> None:
        """Without a file the one that MP_CONF names is shown."""
        path = self.write("mp.home=/srv")
        self.assertIn("home = /srv", self.run_command("show", MP_CONF=path).stdout)

    def test_bad(self) -> None:
        """A configuration that cannot be used is not shown."""
        result = self.run_command("show", "--set", "mp.core=1")
        self.assertEqual((result.exit_code, result.stdout), (1, ""))
        self.assertIn("mp.core", result.stderr)
