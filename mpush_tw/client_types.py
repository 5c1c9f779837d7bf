"""
The client type of a device, from the name of its operating system (server 11.1).

Nodes and senders share it: all of a cluster must judge alike (cluster 2.4).
"""

from __future__ import annotations

from zope.interface import implementer

from mpush_tw.interfaces import IClientClassifier

MOBILE = 1
PC = 2
WEB = 3
UNKNOWN = -1

_TOKENS = (
    (MOBILE, ("android", "ios")),
    (PC, ("windows", "mac", "linux")),
    (WEB, ("web", "h5")),
)


@implementer(IClientClassifier)
class DefaultClassifier:
    """
    Classifies by substring, first class in the original's order.

    Names that I{start} with C{web} or C{h5} are web first: old pages send C{web} and
    the browser's user agent, which names an operating system (DESIGN 5a, clients 9.22).
    The original's nodes judge those differently. A missing name counts as empty, thus
    unknown (S-7, D19).
    """

    def client_type(self, os_name: str | None) -> int:
        name = (os_name or "").lower()
        if name.startswith(("web", "h5")):
            return WEB
        for client_type, tokens in _TOKENS:
            if any(token in name for token in tokens):
                return client_type
        return UNKNOWN
