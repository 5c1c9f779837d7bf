"""
Tests for the section C{mp.http} of the settings.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.config import load_settings
from mpush_tw.config.settings import HttpSettings
from mpush_tw.errors import ConfigError


def load(*lines: str) -> HttpSettings:
    """
    Load settings of the section.
    """
    return load_settings(None, [f"mp.http.{line}" for line in lines], {}).settings.http


class AllowedHostsTests(SynchronousTestCase):
    """
    C{mp.http.allowed-hosts}.
    """

    def test_taken(self) -> None:
        """
        Names and addresses are taken as written.
        """
        hosts = ("a.example.com", "192.0.2.1", "2001:db8::1", "[2001:db8::2]", "x_y.z.")
        written = ", ".join(f'"{host}"' for host in hosts)
        self.assertEqual(load(f"allowed-hosts=[{written}]").allowed_hosts, hosts)

    def test_refused(self) -> None:
        """
        What would never match, or seem to allow more than it does, stops the start.
        """
        for host in ("*.example.com", "a.example:80", "http://a.example", "a b", ""):
            error = self.assertRaises(ConfigError, load, f'allowed-hosts=["{host}"]')
            self.assertEqual(error.key, "mp.http.allowed-hosts")


class DefaultTests(SynchronousTestCase):
    """
    What a proxy does that was only switched on.
    """

    def test_defaults(self) -> None:
        """
        It reaches nothing, and its limits are those of the original where that had any.
        """
        http = load("proxy-enabled=true")
        self.assertEqual((http.dns_mapping, http.allowed_hosts), ({}, ()))
        self.assertFalse(http.follow_outside)
        self.assertEqual(http.max_conn_per_host, 5)
        self.assertEqual(http.default_read_timeout, 10.0)
        self.assertEqual(http.max_content_length, 5 << 20)
        self.assertEqual(http.connect_timeout, 4.0)
