"""
What nodes of both kinds write to ZooKeeper (checks 1 and 2).
"""

from __future__ import annotations

import re

from kazoo.exceptions import NoAuthError  # type: ignore[import-untyped]

from tests.interop.processes import SUCCESS
from tests.interop.support import (
    NAMESPACE,
    Cluster,
    InteropTestCase,
    full_set,
)

test_suite = full_set(__name__)

IDENTITY = "mpush:IoF5XrL443rOdy6w434vrj+58TQ="
ALL_PERMISSIONS = 31


class Check01SideBySideTests(InteropTestCase):
    """
    A node of ours and one of theirs in ZooKeeper.
    """

    def setUp(self) -> None:
        super().setUp()
        self.nodes = [self.cluster.java_node, self.cluster.our_node]
        self.tree = self.cluster.tree

    def paths(self) -> list[str]:
        """
        List what the two nodes have made, parents first.
        """
        parents = [
            NAMESPACE,
            f"{NAMESPACE}/cluster",
            f"{NAMESPACE}/cluster/cs",
            f"{NAMESPACE}/cluster/gs",
        ]
        children = [
            f"{parent}/{name}"
            for parent in parents[2:]
            for name in self.tree.get_children(parent)
        ]
        return parents + children

    def test_found(self) -> None:
        """
        Both are listed with their connection servers and their gateways.
        """
        for node in self.nodes:
            host, port = node.doors.address
            self.assertIn(f"{host}:{port}", self.cluster.addresses("cs"))
            self.assertIn(node.doors.gateway, self.cluster.addresses("gs"))

    def test_access(self) -> None:
        """
        Every node of the tree belongs to the same identity with all permissions.
        """
        for path in self.paths():
            acls, _ = self.tree.get_acls(path)
            told = [(acl.perms, acl.id.scheme, acl.id.id) for acl in acls]
            self.assertEqual(told, [(ALL_PERMISSIONS, "digest", IDENTITY)], path)

    def test_no_access(self) -> None:
        """
        Without the digest nothing can be read.
        """
        stranger = self.cluster.connect_tree()
        self.addCleanup(stranger.close)
        self.addCleanup(stranger.stop)
        for path in self.paths():
            self.assertRaises(NoAuthError, stranger.get, path)
            self.assertRaises(NoAuthError, stranger.get_children, path)

    def test_same_form(self) -> None:
        """
        What the two write differs in the addresses only, and is gone with its session.
        """
        for service in ("cs", "gs"):
            forms = set()
            for path in self.cluster.registered(service):
                data, stat = self.tree.get(path)
                self.assertNotEqual(stat.ephemeralOwner, 0, path)
                text = re.sub(r'"host":"[0-9.]+"', '"host":H', data.decode())
                forms.add(re.sub(r'"port":\d+', '"port":P', text))
            self.assertEqual(len(forms), 1, forms)

    def test_same_names(self) -> None:
        """
        Both are registered under names of the same form.
        """
        for service in ("cs", "gs"):
            for path in self.cluster.registered(service):
                name = path.rpartition("/")[2]
                self.assertRegex(name, r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")


class Check02EmptyEnsembleTests(InteropTestCase):
    """
    Who comes first into an empty ZooKeeper makes the parents.
    """

    def setUp(self) -> None:
        self.cluster = Cluster()
        self.addCleanup(self.cluster.stop)

    async def test_ours_first(self) -> None:
        """
        A node of theirs registers and is used below parents made by ours.
        """
        ours = self.cluster.our_node
        self.assertEqual(self.cluster.addresses("gs"), [ours.doors.gateway])
        theirs = self.cluster.java_node
        self.assertCountEqual(
            self.cluster.addresses("gs"), [ours.doors.gateway, theirs.doors.gateway]
        )
        await self.used()

    async def test_theirs_first(self) -> None:
        """
        A node of ours registers and is used below parents made by theirs.
        """
        theirs = self.cluster.java_node
        self.assertEqual(self.cluster.addresses("gs"), [theirs.doors.gateway])
        ours = self.cluster.our_node
        self.assertCountEqual(
            self.cluster.addresses("gs"), [ours.doors.gateway, theirs.doors.gateway]
        )
        await self.used()

    async def used(self) -> None:
        """
        Push with their sender to a user on each node.
        """
        for node in (self.cluster.our_node, self.cluster.java_node):
            user = f"{self.user}-{node.name}"
            await self.our_device(f"{user}-1", node.doors, user)
            outcome = await self.push(
                await self.a_sender("java"), user, "hello", "AUTO_ACK"
            )
            self.assertEqual(outcome.location, node.doors.gateway)
            self.assertEqual(outcome.code, SUCCESS)
