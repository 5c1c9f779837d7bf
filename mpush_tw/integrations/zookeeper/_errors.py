"""
The errors that a server answers with. They do not leave this room.
"""

from __future__ import annotations

from mpush_tw.errors import MPushError, Unavailable


class Refusal(MPushError):
    """
    The server has answered, with an error.

    @ivar path: What the request was about.
    """

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path

    def explained(self) -> Unavailable:
        """
        Tell it to the callers of the registry.
        """
        return Unavailable(f"ZooKeeper refuses a request: {self}")


class NoNode(Refusal):
    """
    The node, or for a creation its parent, does not exist.
    """


class NodeExists(Refusal):
    """
    The node exists already.
    """


class NotEmpty(Refusal):
    """
    The node has children.
    """


class NoAuth(Refusal):
    """
    The node belongs to another identity.
    """

    def explained(self) -> Unavailable:
        return Unavailable(
            f"ZooKeeper refuses access to {self.path}: it was made with another "
            "mp.zk.digest than this one; all of a cluster need the same"
        )


class NoChroot(Refusal):
    """
    The path behind the addresses of the servers does not exist.
    """

    def explained(self) -> Unavailable:
        return Unavailable(
            f"the path {self.path} of mp.zk.server-address does not exist in "
            "ZooKeeper: make it there, or take it off the address"
        )
