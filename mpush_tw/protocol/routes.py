"""
The route of a user in the shared store: what nodes write there and senders read.

Where the rules are: cluster 2.3. The form is shared with the original's nodes.
"""

from __future__ import annotations

import attrs
import msgspec

ROUTES_PREFIX = "mp:ur:"
"""
Begins the key of a user's routes: a hash with a field for each client type.
"""

_encode = msgspec.json.Encoder().encode


@attrs.frozen
class RemoteRoute:
    """
    Where one client type of a user is.

    @ivar connection_id: Present while online, C{None} when offline.
    @ivar written: The text that was decoded; empty for a route that was made here.
    """

    host: str
    port: int
    device_id: str | None
    os_name: str
    client_version: str | None
    connection_id: str | None
    written: str = attrs.field(default="", eq=False, repr=False)

    @property
    def online(self) -> bool:
        """
        Whether the route says that the user is connected.
        """
        return self.connection_id is not None

    @property
    def text(self) -> str:
        """
        What the store holds of it: other writers order and escape as they like.
        """
        return self.written or self.encode()

    def ended(self) -> RemoteRoute:
        """
        Give the same route without its connection.
        """
        return attrs.evolve(self, connection_id=None, written="")

    def encode(self) -> str:
        """
        Write the JSON of cluster 2.3: members in the original's order, escaped (S-26).
        """
        members = {
            "port": self.port,
            "host": self.host,
            "deviceId": self.device_id,
            "osName": self.os_name,
            "clientVersion": self.client_version,
            "connId": self.connection_id,
        }
        present = {name: value for name, value in members.items() if value is not None}
        return _encode(present).decode()

    @classmethod
    def decode(cls, text: str) -> RemoteRoute | None:
        """
        @return: C{None} for anything that is no route.
        """
        try:
            form = msgspec.json.decode(text, type=_RouteForm, strict=False)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return None
        return cls(
            form.host,
            form.port,
            form.deviceId,
            form.osName or "unknown",
            form.clientVersion,
            form.connId,
            text,
        )


class _RouteForm(msgspec.Struct):
    port: int
    host: str = ""
    deviceId: str | None = None
    osName: str | None = None
    clientVersion: str | None = None
    connId: str | None = None
