"""
Tests for L{mpush_tw.integrations.zookeeper._nodes}.
"""

from __future__ import annotations

import json
from types import MappingProxyType

from hypothesis import given
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.integrations.zookeeper._nodes import Tree, decode_node, encode_node
from mpush_tw.interfaces import ServiceNode

_CS = "/cluster/cs"

_PLAIN = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


class EncodeTests(SynchronousTestCase):
    """
    The JSON of a node, byte for byte (cluster 3.5).
    """

    def test_connect_server(self) -> None:
        """
        A connect server has attributes, in front.
        """
        self.assertEqual(
            encode_node(ServiceNode(_CS, "10.0.0.5", 3000, {"weight": 1}, "id")),
            b'{"attrs":{"weight":1},"host":"10.0.0.5","port":3000}',
        )

    def test_gateway(self) -> None:
        """
        A gateway has none: they are left out.
        """
        self.assertEqual(
            encode_node(ServiceNode("/cluster/gs", "10.0.0.5", 3001, None, "id")),
            b'{"host":"10.0.0.5","port":3001}',
        )

    def test_no_attributes(self) -> None:
        """
        Attributes that are empty are written.
        """
        self.assertEqual(
            encode_node(ServiceNode(_CS, "h", 1, {}, "id")),
            b'{"attrs":{},"host":"h","port":1}',
        )

    def test_sorted_without_nulls(self) -> None:
        """
        Members are in alphabetical order at every depth, and what is null is left out,
        whatever kind of mapping it is in.
        """
        attributes = MappingProxyType(
            {
                "z": [1, {"b": 2, "a": None}],
                "none": None,
                "a": {"é": "ü/\u4e2d", "B": 1},
            }
        )
        self.assertEqual(
            encode_node(ServiceNode(_CS, "h", 1, attributes, "id")).decode(),
            '{"attrs":{"a":{"B":1,"é":"ü/\u4e2d"},"z":[1,{"b":2}]},"host":"h","port":1}',
        )


class DecodeTests(SynchronousTestCase):
    """
    Reading the JSON of a node.
    """

    @given(
        st.text(min_size=1, max_size=255),
        st.integers(1, 65535),
        st.none() | st.dictionaries(st.text(), _PLAIN),
    )
    def test_as_written(
        self, host: str, port: int, attributes: dict[str, object] | None
    ) -> None:
        """
        A node is read as it was written.
        """
        node = ServiceNode(_CS, host, port, attributes, "id")
        self.assertEqual(decode_node(_CS, "id", encode_node(node)), node)

    @given(st.binary() | st.text().map(str.encode))
    def test_anything(self, data: bytes) -> None:
        """
        Whatever stands there, nothing is raised.
        """
        decode_node(_CS, "id", data)

    @given(
        st.fixed_dictionaries(
            {}, optional={name: _PLAIN for name in ("host", "port", "attrs", "x")}
        )
    )
    def test_any_form(self, form: dict[str, object]) -> None:
        """
        Whatever the members are, nothing is raised, and what is read has a host and a
        port that can be used.
        """
        node = decode_node(_CS, "id", json.dumps(form).encode())
        if node is not None:
            self.assertTrue(node.host)
            self.assertIn(node.port, range(1, 65536))


class TreeTests(SynchronousTestCase):
    """
    Where things are.
    """

    def test_node(self) -> None:
        """
        A node is below its service, which is below the namespace.
        """
        tree = Tree.parse("", "mpush")
        node = ServiceNode(_CS, "h", 1, None, "id")
        self.assertEqual(tree.node(node), "/mpush/cluster/cs/id")

    def test_slashes(self) -> None:
        """
        Slashes at the ends, or twice, do not matter.
        """
        tree = Tree.parse("a/b/", "/mpush/")
        self.assertEqual(tree.service("cluster//cs/"), "/a/b/mpush/cluster/cs")

    def test_ancestors(self) -> None:
        """
        What leads to a path does not include the chroot, which is not ours.
        """
        tree = Tree.parse("/a/b", "mpush")
        self.assertEqual(
            tree.ancestors(tree.service("/cluster")),
            ["/a/b/mpush", "/a/b/mpush/cluster"],
        )
        self.assertEqual(Tree.parse("", "mpush").ancestors("/mpush"), ["/mpush"])

    def test_empty(self) -> None:
        """
        Without a namespace services are below the root.
        """
        tree = Tree.parse("", "")
        self.assertEqual(tree.service(_CS), _CS)
        self.assertEqual(tree.service("/"), "")
        self.assertEqual(tree.ancestors(tree.namespace), [])

    def test_impossible(self) -> None:
        """
        Elements that ZooKeeper cannot have are refused.
        """
        for path in ("a/./b", "..", "a\x00b", "a\nb"):
            with self.assertRaises(ValueError):
                Tree.parse("", path)
