"""
Tests for the files in C{etc/}: the reference is complete, the example works.
"""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.config import Settings, _fields, hocon, load_settings

ETC = Path(__file__).parent.parent.parent / "etc"
REFERENCE = str(ETC / "reference.conf")
EXAMPLE = str(ETC / "mpush.conf")


class ReferenceTests(SynchronousTestCase):
    """
    C{etc/reference.conf} and the settings classes say the same.
    """

    def setUp(self) -> None:
        text = hocon.read_file(REFERENCE)
        self.outline = hocon.outline(text)
        self.lines = text.split("\n")

    def test_every_value_is_the_default(self) -> None:
        """Loading the reference changes nothing and says nothing."""
        loaded = load_settings(REFERENCE, (), {})
        self.assertEqual(loaded.settings, Settings())
        self.assertEqual((loaded.notices, loaded.changed), ([], {}))

    def test_every_key_is_there(self) -> None:
        """Every key of the settings classes has a line of its own."""
        missing = [
            hocon.join(path)
            for path, _key in _fields.walk(Settings)
            if hocon.join(path) not in self.outline.lines
        ]
        self.assertEqual(missing, [])

    def test_every_default_is_written_alike(self) -> None:
        """A default is written the same in both places: 10k, not 10240."""
        tree = load_settings(REFERENCE, (), {}).tree
        self.assertEqual(tree, load_settings(environ={}).tree)

    def test_keys_without_effect_say_so(self) -> None:
        """A key of the JVM has "no effect" above it, and no other key has."""
        for path, key in _fields.walk(Settings):
            above = self.lines[self.outline.lines[hocon.join(path)] - 2]
            said = re.search("no effect", above, re.IGNORECASE) is not None
            said = said and "have no effect" not in above
            self.assertEqual(said, not key.effect, hocon.join(path))


class ExampleTests(SynchronousTestCase):
    """
    C{etc/mpush.conf}, which C{make run} starts.
    """

    def test_loads(self) -> None:
        """The example is a standalone node with alloc and local metrics."""
        loaded = load_settings(EXAMPLE, (), {})
        self.assertEqual(loaded.notices, [])
        self.assertEqual(
            loaded.changed,
            {
                "log-level": "info",
                "net": {"metrics-server-port": 3003},
                "alloc": {"enabled": True, "push-enabled": True},
            },
        )
        self.assertFalse(loaded.settings.cluster)
        self.assertEqual(loaded.settings.net.metrics_server_bind_ip, "127.0.0.1")

    def test_comments_can_be_used(self) -> None:
        """Each key in a comment can be switched on by taking the mark away."""
        text = hocon.read_file(EXAMPLE)
        opened = re.sub(r"(?m)^( +)# (?=[a-z.-]+ = )", r"\1", text)
        self.assertNotEqual(opened, text)
        path = self.mktemp()
        Path(path).write_text(opened, encoding="utf-8")
        loaded = load_settings(path, (), {"MP_REDIS_PASSWORD": "secret"})
        self.assertEqual(loaded.settings.alloc.push_token, "")
        self.assertTrue(loaded.settings.cluster)
        self.assertEqual(loaded.settings.redis.password, "secret")
        self.assertEqual(loaded.settings.net.ws_server_port, 3004)
        self.assertEqual(loaded.notices, [])


class AllocTests(SynchronousTestCase):
    """
    C{etc/alloc.conf}, for C{twistd mpush-alloc}.
    """

    CONSENT = "mp.security.allow-sample-key=true"

    def test_loads(self) -> None:
        """It goes with a cluster on this machine, and pushes nothing."""
        loaded = load_settings(str(ETC / "alloc.conf"), (self.CONSENT,), {})
        self.assertEqual(loaded.notices, [])
        self.assertTrue(loaded.settings.cluster)
        self.assertFalse(loaded.settings.alloc.push_enabled)

    def test_comments_can_be_used(self) -> None:
        """Each key in a comment can be switched on by taking the mark away."""
        text = hocon.read_file(str(ETC / "alloc.conf"))
        opened = re.sub(r"(?m)^( +)# (?=[a-z.-]+ = )", r"\1", text)
        path = self.mktemp()
        Path(path).write_text(opened, encoding="utf-8")
        loaded = load_settings(path, (self.CONSENT,), {"MP_PUSH_TOKEN": "t"})
        self.assertEqual(loaded.notices, [])
        self.assertTrue(loaded.settings.alloc.push_enabled)
        self.assertEqual(loaded.settings.alloc.push_token, "t")
        self.assertIn("certKey=", loaded.settings.net.alloc_server_endpoint)
