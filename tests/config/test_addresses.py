"""
Tests for L{mpush_tw.config.addresses}: the rules of operations 3.
"""

from __future__ import annotations

from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.config import Settings, load_settings
from mpush_tw.config.addresses import (
    InterfaceAddress,
    connect_register_ip,
    gateway_bind_ip,
    gateway_register_ip,
    interface_addresses,
    local_ip,
    multicast_ip,
    public_ip,
)
from mpush_tw.errors import ConfigError

LO = InterfaceAddress("lo", "127.0.0.1")
LAN = InterfaceAddress("eth0", "10.0.0.5")
LAN_2 = InterfaceAddress("eth1", "192.168.1.5")
DEFAULT = InterfaceAddress("eth2", "172.16.0.5", default_route=True)
OUTER = InterfaceAddress("eth3", "203.0.113.7")
LINK = InterfaceAddress("eth4", "169.254.1.1")
NEAR = InterfaceAddress("eth5", "172.32.0.1")

CLUSTER = (
    'mp.redis.nodes=["h:1"]',
    "mp.zk.server-address=h:2",
    "mp.security.allow-sample-key=true",
)

ROUTES = """\
Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
eth0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0
eth1\t00000000\t0100000A\t0003\t0\t0\t200\t00000000\t0\t0\t0
eth2\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0
broken line
"""


def settings(*overrides: str) -> Settings:
    return load_settings(None, overrides, {}).settings


class LocalTests(SynchronousTestCase):
    """
    The address in the local network.
    """

    def test_configured(self) -> None:
        """What is configured is it, name or address."""
        self.assertEqual(local_ip(settings("mp.net.local-ip=me.lan"), [LAN]), "me.lan")

    def test_first_site_local(self) -> None:
        """Otherwise the first site-local address is it."""
        self.assertEqual(local_ip(Settings(), [LO, OUTER, LAN, LAN_2]), "10.0.0.5")

    def test_default_route(self) -> None:
        """Of several the one behind the default route is preferred."""
        self.assertEqual(local_ip(Settings(), [LAN, LAN_2, DEFAULT]), "172.16.0.5")

    def test_none(self) -> None:
        """A machine without any has 127.0.0.1."""
        for interfaces in ([], [LO], [LO, OUTER, LINK, NEAR]):
            self.assertEqual(local_ip(Settings(), interfaces), "127.0.0.1")


    def test_choice_is_logged(self) -> None:
        """A choice among several addresses is logged, once and not without need."""
        lines: list[LogEvent] = []
        globalLogPublisher.addObserver(lines.append)
        self.addCleanup(globalLogPublisher.removeObserver, lines.append)
        local_ip(Settings(), [LAN])
        local_ip(settings("mp.net.local-ip=10.0.0.9"), [LAN, LAN_2])
        public_ip(Settings(), [LAN, LAN_2])
        self.assertEqual(lines, [])
        local_ip(Settings(), [LAN, LAN_2])
        self.assertEqual([line["address"] for line in lines], ["10.0.0.5"])


class PublicTests(SynchronousTestCase):
    """
    The address that clients see.
    """

    def test_configured(self) -> None:
        """What is configured is it."""
        own = settings("mp.net.public-ip=1.2.3.4")
        self.assertEqual(public_ip(own, [OUTER]), "1.2.3.4")

    def test_mapped(self) -> None:
        """The mapping of the local address comes next."""
        own = settings('mp.net.public-host-mapping={"10.0.0.5": "1.2.3.4"}')
        self.assertEqual(public_ip(own, [LAN, OUTER]), "1.2.3.4")
        self.assertEqual(public_ip(own, [LAN_2, OUTER]), "203.0.113.7")

    def test_outer_address(self) -> None:
        """Then the first address that is neither loopback nor site-local."""
        for other in (OUTER, LINK, NEAR):
            self.assertEqual(public_ip(Settings(), [LO, LAN, other]), other.address)

    def test_local(self) -> None:
        """Then the local address."""
        self.assertEqual(public_ip(Settings(), [LO, LAN]), "10.0.0.5")
        self.assertEqual(public_ip(Settings(), []), "127.0.0.1")


class RegisterTests(SynchronousTestCase):
    """
    The address that clients are told.
    """

    def test_configured(self) -> None:
        """What is configured is published."""
        own = settings("mp.net.connect-server-register-ip=push.example.com")
        self.assertEqual(connect_register_ip(own, [OUTER]), "push.example.com")

    def test_public(self) -> None:
        """Otherwise the public address is."""
        self.assertEqual(connect_register_ip(Settings(), [LAN, OUTER]), OUTER.address)


class GatewayTests(SynchronousTestCase):
    """
    Where senders reach the gateway.
    """

    def both(self, *overrides: str) -> tuple[str, str]:
        own = settings(*overrides)
        return gateway_bind_ip(own, [LO, LAN]), gateway_register_ip(own, [LO, LAN])

    def test_standalone(self) -> None:
        """A standalone gateway is there for this machine only."""
        self.assertEqual(self.both(), ("127.0.0.1", "127.0.0.1"))

    def test_standalone_with_local_address(self) -> None:
        """Setting the own address alone does not open the gateway."""
        self.assertEqual(
            self.both("mp.net.local-ip=10.0.0.9"), ("127.0.0.1", "127.0.0.1")
        )

    def test_standalone_opened(self) -> None:
        """A standalone gateway that is opened is published with the local address."""
        self.assertEqual(
            self.both("mp.net.gateway-server-bind-ip=0.0.0.0"), ("0.0.0.0", "10.0.0.5")
        )

    def test_standalone_published_otherwise(self) -> None:
        """A published address that is configured is used."""
        self.assertEqual(
            self.both("mp.net.gateway-server-register-ip=10.9.9.9"),
            ("127.0.0.1", "10.9.9.9"),
        )

    def test_cluster(self) -> None:
        """In a cluster the gateway has the local address."""
        self.assertEqual(self.both(*CLUSTER), ("10.0.0.5", "10.0.0.5"))

    def test_cluster_configured(self) -> None:
        """In a cluster both addresses may be configured."""
        self.assertEqual(
            self.both(
                *CLUSTER,
                "mp.net.gateway-server-bind-ip=10.1.1.1",
                "mp.net.gateway-server-register-ip=10.2.2.2",
            ),
            ("10.1.1.1", "10.2.2.2"),
        )


class MulticastTests(SynchronousTestCase):
    """
    Where UDP gateways join their group.
    """

    def test_site_local(self) -> None:
        """The interface with a site-local address is used."""
        self.assertEqual(multicast_ip(Settings(), [LO, OUTER, LAN]), "10.0.0.5")

    def test_configured(self) -> None:
        """The configured local address is used, whatever it is."""
        settings = load_settings(None, ["mp.net.local-ip=127.0.0.1"], {}).settings
        self.assertEqual(multicast_ip(settings, [LO, OUTER, LAN]), "127.0.0.1")

    def test_none(self) -> None:
        """Without one the node does not start."""
        error = self.assertRaises(ConfigError, multicast_ip, Settings(), [LO, OUTER])
        self.assertEqual(error.key, "mp.net.gateway-server-net")


class InterfaceTests(SynchronousTestCase):
    """
    Looking at this machine.
    """

    def test_loopback_is_found(self) -> None:
        """The loopback address of the machine that runs this test is found."""
        self.assertIn("127.0.0.1", [entry.address for entry in interface_addresses()])

    def test_default_route(self) -> None:
        """The default route with the lowest metric marks its interface, aliases too."""
        found = interface_addresses(
            lambda: [("eth1", "10.0.0.1"), ("eth2:1", "10.0.0.2")], lambda: ROUTES
        )
        self.assertEqual(
            [(entry.address, entry.default_route) for entry in found],
            [("10.0.0.1", False), ("10.0.0.2", True)],
        )

    def test_no_routes(self) -> None:
        """A machine that hides its routes has addresses all the same."""

        def refuse() -> str:
            raise PermissionError

        found = interface_addresses(lambda: [("eth1", "10.0.0.1")], refuse)
        self.assertEqual(found, [InterfaceAddress("eth1", "10.0.0.1")])

    def test_no_interfaces(self) -> None:
        """A machine that hides its interfaces counts as one without; it is logged."""

        def refuse() -> list[tuple[str, str]]:
            raise PermissionError

        self.assertEqual(interface_addresses(refuse), [])
        self.assertEqual(len(self.flushLoggedErrors(PermissionError)), 1)
