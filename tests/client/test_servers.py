"""
Tests for L{mpush_tw.client.servers}.
"""

from __future__ import annotations

from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
)
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.client.servers import ServerAddress, Servers, endpoint_for


class ServerAddressTests(SynchronousTestCase):
    """
    C{host:port} texts.
    """

    def test_good_ones(self) -> None:
        """
        Names, IPv4 and bracketed IPv6 addresses are read; white space is trimmed.
        """
        texts = ["push.example:3000", " 10.0.0.1:1\n", "[::1]:65535"]
        self.assertEqual(
            [ServerAddress.parse(text) for text in texts],
            [("push.example", 3000), ("10.0.0.1", 1), ("::1", 65535)],
        )

    def test_bad_ones(self) -> None:
        """
        Anything else is refused.
        """
        for text in (
            "",
            "host",
            ":3000",
            "host:",
            "host:0",
            "host:65536",
            "host:12345678901234567890",
            "host:+30",
            "host:3o",
            "::1:3000",
            "[host]:3000",
            "[::1:3000",
            "two words:3000",
        ):
            self.assertRaises(ValueError, ServerAddress.parse, text)

    def test_text(self) -> None:
        """
        The text of an address can be read back.
        """
        for text in ("host:1", "[::1]:2"):
            self.assertEqual(str(ServerAddress.parse(text)), text)


class ServersTests(SynchronousTestCase):
    """
    The order of the list.
    """

    def setUp(self) -> None:
        self.a, self.b, self.c = (ServerAddress(name, 1) for name in "abc")
        self.servers = Servers([self.a, self.b, self.a, self.c])

    def test_each_once(self) -> None:
        """
        A server that is named twice is tried once.
        """
        self.assertEqual(list(self.servers), [self.a, self.b, self.c])
        self.assertEqual(len(self.servers), 3)

    def test_failed_one_goes_to_the_end(self) -> None:
        """
        After a failure the others come first.
        """
        self.servers.move_to_end(self.a)
        self.assertEqual(list(self.servers), [self.b, self.c, self.a])

    def test_all_failed_is_the_old_order(self) -> None:
        """
        When every one has failed in turn, the configured order is back.
        """
        for server in list(self.servers):
            self.servers.move_to_end(server)
        self.assertEqual(list(self.servers), [self.a, self.b, self.c])

    def test_walk_is_not_disturbed(self) -> None:
        """
        Moving a server while the list is walked makes nobody come twice.
        """
        walked = []
        for server in self.servers:
            walked.append(server)
            self.servers.move_to_end(server)
        self.assertEqual(walked, [self.a, self.b, self.c])

    def test_unknown_is_ignored(self) -> None:
        """
        A server that is not in the list stays out of it.
        """
        self.servers.move_to_end(ServerAddress("x", 1))
        self.assertEqual(len(self.servers), 3)

    def test_worn_out(self) -> None:
        """
        The list is worn out when each server has failed since one worked last.
        """
        self.assertFalse(self.servers.worn_out)
        for server in (self.a, self.b, self.a, self.b):
            self.servers.move_to_end(server)
        self.assertFalse(self.servers.worn_out)
        self.servers.worked()
        self.servers.move_to_end(self.c)
        self.assertFalse(self.servers.worn_out)
        for server in (self.a, self.b):
            self.servers.move_to_end(server)
        self.assertTrue(self.servers.worn_out)

    def test_no_list(self) -> None:
        """
        A list without servers is of no use from the beginning.
        """
        self.assertTrue(Servers().worn_out)

    def test_replaced(self) -> None:
        """
        A new list is in its own order, and nothing is known against its servers.
        """
        for server in (self.a, self.b, self.c):
            self.servers.move_to_end(server)
        self.servers.replace([self.c, self.a, self.c])
        self.assertEqual(list(self.servers), [self.c, self.a])
        self.assertFalse(self.servers.worn_out)

    def test_extended(self) -> None:
        """
        Servers that are added come last, those that are there stay where they are.
        """
        other = ServerAddress("x", 1)
        self.servers.move_to_end(self.a)
        self.servers.extend([self.a, other])
        self.assertEqual(list(self.servers), [self.b, self.c, self.a, other])


class EndpointTests(SynchronousTestCase):
    """
    The way to a server.
    """

    def test_kinds(self) -> None:
        """
        IP addresses are connected to as they are, names are resolved.
        """
        reactor = MemoryReactorClock()
        kinds = [
            type(endpoint_for(reactor, ServerAddress(host, 1), 5.0))
            for host in ("10.0.0.1", "::1", "push.example")
        ]
        self.assertEqual(
            kinds, [TCP4ClientEndpoint, TCP6ClientEndpoint, HostnameEndpoint]
        )

    def test_missing_authorities(self) -> None:
        """
        A PEM file that is not there is an error and not trust in anybody.
        """
        from pathlib import Path

        self.assertRaises(
            OSError,
            endpoint_for,
            MemoryReactorClock(),
            ServerAddress("10.0.0.1", 1),
            5.0,
            True,
            Path(self.mktemp()),
        )
