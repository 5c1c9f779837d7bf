"""
What a service node is in ZooKeeper: its path and its JSON (cluster 3.2, 3.4, 3.5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import attrs
import msgspec

from mpush_tw.interfaces import ServiceNode

_encode = msgspec.json.Encoder(order="sorted").encode


@attrs.frozen
class Tree:
    """
    Where things are: paths of services and nodes on the server.

    @ivar chroot: Path behind the addresses of the servers; somebody else's. Empty when
        there is none.
    @ivar namespace: Path of the namespace, the chroot included; empty when neither is
        set.
    """

    chroot: str
    namespace: str

    @classmethod
    def parse(cls, chroot: str, namespace: str) -> Tree:
        """
        @param chroot: As it stands behind the addresses, with or without slashes.
        @param namespace: C{mp.zk.namespace}: one or more elements of a path, or none.
        @raise ValueError: If ZooKeeper cannot have such a path.
        """
        root = _joined("", chroot)
        return cls(root, _joined(root, namespace))

    def service(self, service: str) -> str:
        """
        @param service: Path below the namespace, such as C{/cluster/cs}.
        @return: The whole path.
        @raise ValueError: If ZooKeeper cannot have such a path.
        """
        return _joined(self.namespace, service)

    def node(self, node: ServiceNode) -> str:
        """
        @return: The whole path of a node.
        @raise ValueError: If its id is not one element of a path.
        """
        if not node.node_id or "/" in node.node_id:
            raise ValueError(f"{node.node_id!r} cannot name a service node")
        return _joined(self.service(node.service), node.node_id)

    def ancestors(self, path: str) -> list[str]:
        """
        @param path: A path below the chroot.
        @return: The nodes that lead to it and itself, from the top down, without those
            of the chroot, which are not for us to make.
        """
        elements = path.removeprefix(self.chroot).split("/")[1:]
        return [
            "/".join((self.chroot, *elements[:count]))
            for count in range(1, len(elements) + 1)
        ]


def _joined(base: str, path: str) -> str:
    elements = [element for element in path.split("/") if element]
    for element in elements:
        if element in (".", "..") or not element.isprintable():
            raise ValueError(f"{element!r} cannot be an element of a path")
    return base + "".join("/" + element for element in elements)


def encode_node(node: ServiceNode) -> bytes:
    """
    Write the JSON of cluster 3.5 as the original does: sorted, compact, what is null
    left out.
    """
    members: dict[str, Any] = {"host": node.host, "port": node.port}
    if node.attributes is not None:
        members["attrs"] = _without_nulls(node.attributes)
    return _encode(members)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            str(name): _without_nulls(part)
            for name, part in value.items()
            if part is not None
        }
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_without_nulls(part) for part in value]
    return value


class _NodeForm(msgspec.Struct):
    """
    What has to be in the JSON of a node; other members are ignored.

    A host is at least something: a node without one cannot be reached and crashes the
    original's senders.
    """

    host: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    attrs: dict[str, Any] | None = None


def decode_node(service: str, node_id: str, data: bytes) -> ServiceNode | None:
    """
    Read the JSON of a node, whoever wrote it; a port may be a text.

    @return: L{None} for anything that is no node.
    """
    try:
        form = msgspec.json.decode(data, type=_NodeForm, strict=False)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return ServiceNode(service, form.host, form.port, form.attrs, node_id)
