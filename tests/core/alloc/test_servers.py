"""
Tests for L{mpush_tw.core.alloc.servers}.
"""

from __future__ import annotations

import attrs

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.alloc.servers import (
    Server,
    is_client_host,
    read_server,
    read_weight,
    registered_attributes,
)
from mpush_tw.interfaces import ServiceNode

NODE = ServiceNode("/cluster/cs", "10.0.0.5", 3000, {"weight": 1}, "id-1")


class ReadServerTests(SynchronousTestCase):
    """
    What a registered node is to a client.
    """

    def test_node_of_today(self) -> None:
        """
        A node registers the address that clients use, and its users are on the list of
        that address.
        """
        expected = Server("10.0.0.5", 3000, 1.0, "mp:oul:10.0.0.5", "id-1")
        self.assertEqual(read_server(NODE), expected)
        self.assertEqual(expected.address, "10.0.0.5:3000")

    def test_node_of_0_7(self) -> None:
        """
        A node of 0.7 is found by its attribute public_ip, and so are its users.
        """
        node = attrs.evolve(NODE, attributes={"public_ip": "203.0.113.7"})
        found = read_server(node)
        assert found is not None
        self.assertEqual(found.address, "203.0.113.7:3000")
        self.assertEqual(found.online_list, "mp:oul:203.0.113.7")

    def test_useless_public_ip(self) -> None:
        """
        A public_ip that is empty or no text does not hide the host.
        """
        for value in ("", None, 7, ["203.0.113.7"]):
            found = read_server(attrs.evolve(NODE, attributes={"public_ip": value}))
            assert found is not None
            self.assertEqual(found.host, "10.0.0.5")

    def test_list_of_another_address(self) -> None:
        """
        A node that is registered under another address than its public one says which
        list is its own (A-4).
        """
        node = attrs.evolve(NODE, attributes={"online_key": "mp:oul:203.0.113.7"})
        found = read_server(node)
        assert found is not None
        self.assertEqual(found.address, "10.0.0.5:3000")
        self.assertEqual(found.online_list, "mp:oul:203.0.113.7")

    def test_list_that_is_none(self) -> None:
        """
        Nobody can have another key counted than that of a list.
        """
        for value in ("mp:ur:alice", "", 7, None, "mp:oul:" + "x" * 300):
            found = read_server(attrs.evolve(NODE, attributes={"online_key": value}))
            assert found is not None
            self.assertEqual(found.online_list, "mp:oul:10.0.0.5")

    def test_no_attributes(self) -> None:
        """
        A node without attributes has weight 1.
        """
        found = read_server(attrs.evolve(NODE, attributes=None))
        assert found is not None
        self.assertEqual(found.weight, 1.0)

    def test_ports(self) -> None:
        """
        A port that nobody can connect to is no server's.
        """
        for port in (0, -1, 65536, 3_000_000):
            self.assertIsNone(read_server(attrs.evolve(NODE, port=port)))
        for port in (1, 65535):
            self.assertIsNotNone(read_server(attrs.evolve(NODE, port=port)))

    def test_hosts(self) -> None:
        """
        A host that would break the list is no server's.
        """
        for host in ("", "::1", "10.0.0.5,10.0.0.6", "a b"):
            self.assertIsNone(read_server(attrs.evolve(NODE, host=host)))


class RegisteredAttributesTests(SynchronousTestCase):
    """
    What a node of ours registers.
    """

    def test_as_the_original(self) -> None:
        """
        A node that registers its public address registers what is configured, byte for
        byte as the original.
        """
        attributes = registered_attributes({"weight": 1}, "10.0.0.5", "10.0.0.5")
        self.assertEqual(attributes, {"weight": 1})

    def test_other_address(self) -> None:
        """
        One that registers another address says where its users are counted (A-4).
        """
        attributes = registered_attributes({"weight": 1}, "10.0.0.5", "203.0.113.7")
        found = read_server(attrs.evolve(NODE, attributes=attributes))
        assert found is not None
        self.assertEqual(found.address, "10.0.0.5:3000")
        self.assertEqual(found.online_list, "mp:oul:203.0.113.7")


class ClientHostTests(SynchronousTestCase):
    """
    What all clients can split and connect to (A2).
    """

    def test_good(self) -> None:
        """
        IPv4 addresses and host names are listed.
        """
        for host in (
            "10.0.0.5",
            "255.255.255.255",
            "localhost",
            "push.example.com",
            "push-1.example.com",
            "node_1",
            "1.example.com",
            "xn--fsq.example",
        ):
            self.assertTrue(is_client_host(host), host)

    def test_bad(self) -> None:
        """
        IPv6, ports, blanks, commas, broken addresses and broken names are not.
        """
        for host in (
            "",
            ".",
            "a..b",
            "example.com.",
            "-a.example.com",
            "a-.example.com",
            "2001:db8::1",
            "[::1]",
            "10.0.0.5:3000",
            "10.0.0.256",
            "10.0.0",
            "10.0.0.05",
            "1234",
            " 10.0.0.5",
            "10.0.0.5\n",
            "a,b",
            "a/b",
            "http://a",
            "bücher.example",
            "a" * 64,
            ".".join(["a" * 60] * 5),
            None,
            7,
        ):
            self.assertFalse(is_client_host(host), host)


class WeightTests(SynchronousTestCase):
    """
    The attribute weight.
    """

    def test_numbers(self) -> None:
        """
        A number is taken, in quotes as well.
        """
        for written, weight in ((1, 1.0), (2.5, 2.5), ("3", 3.0), (0, 0.0), ("0", 0.0)):
            self.assertEqual(read_weight(written), weight)

    def test_below_zero(self) -> None:
        """
        A negative weight is none: the server is left out.
        """
        self.assertEqual(read_weight(-1), 0.0)

    def test_not_a_number(self) -> None:
        """
        What is not a number counts as 1.
        """
        for written in (None, "", "heavy", True, False, [2], {}, "nan", "inf", 10**400):
            self.assertEqual(read_weight(written), 1.0, written)
