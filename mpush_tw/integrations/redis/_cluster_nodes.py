"""
The nodes of a Redis Cluster: how they are found, and what each says of the slots.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from twisted.internet.defer import Deferred, succeed

from mpush_tw.config.settings import RedisSettings
from mpush_tw.errors import Unavailable
from mpush_tw.integrations.redis._commands import SLOTS
from mpush_tw.integrations.redis._connection import (
    Address,
    Connection,
    Lost,
    Refused,
    Reply,
)
from mpush_tw.integrations.redis._dial import Dialler, reach_any


class SlotRange(NamedTuple):
    """
    Slots from C{first} to C{last}, both included, and the master that serves them.
    """

    first: int
    last: int
    master: Address


class ClusterNodes:
    """
    Leads to any node: PUBLISH and SUBSCRIBE can be sent to each (cluster 2.1).

    Knows the nodes that are configured and those that were met since. An address is
    used as the nodes announce it.
    """

    follows = True

    def __init__(self, settings: RedisSettings, dialler: Dialler) -> None:
        self._dialler = dialler
        seeds = settings.endpoints()
        self._passwords = {
            Address(node.host, node.port): node.password for node in seeds
        }
        self._password = next((node.password for node in seeds if node.password), "")
        self._seeds = tuple(self._passwords)
        self._known = self._seeds
        self.name = f"the Redis cluster of {', '.join(map(str, self._seeds))}"

    async def dial(self) -> Connection:
        connection, _ = await reach_any(self._known, self._ask)
        return connection

    def start(self, moved: Callable[[Callable[[Address], bool]], None]) -> None:
        pass

    def stop(self) -> Deferred[None]:
        return succeed(None)

    async def connect(self, address: Address) -> Connection:
        """
        Connect to one node, with the password it has: its own if it is configured, or
        else that of the first that has one.

        @raise Unavailable: If that does not succeed.
        """
        password = self._passwords.get(address, self._password)
        return await self._dialler.connect(address, password)

    async def slots(self) -> list[SlotRange]:
        """
        Ask any node who serves what.

        @raise Unavailable: If no node can tell.
        """
        connection, ranges = await reach_any(self._known, self._ask)
        connection.close()
        return ranges

    async def _ask(self, node: Address) -> tuple[Connection, list[SlotRange]]:
        connection = await self.connect(node)
        try:
            told = await connection.send(("CLUSTER", "SLOTS"))
        except Lost as error:
            raise Unavailable(f"Redis at {node}: {error}") from None
        except Refused as error:
            connection.abort("is not wanted")
            raise Unavailable(
                f"Redis at {node} is no node of a cluster: {error}"
            ) from None
        except BaseException:
            connection.abort("is not wanted")
            raise
        ranges, met = _read(told, node)
        if not ranges:
            connection.abort("is not wanted")
            raise Unavailable(f"Redis at {node} knows of no slots that are served")
        self._known = tuple(dict.fromkeys((*met, *self._seeds)))
        return connection, ranges


def _read(told: Reply, asked: Address) -> tuple[list[SlotRange], list[Address]]:
    """
    Read the answer to CLUSTER SLOTS.

    @param asked: The node that gave it; a node without a host is at the same one.
    @return: The ranges, and all nodes, replicas included.
    """
    ranges: list[SlotRange] = []
    met: list[Address] = []
    for first, last, *nodes in told:
        addresses = [
            Address(host or asked.host, port) for host, port, *_ in nodes if host != "?"
        ]
        if addresses and 0 <= first <= last < SLOTS:
            ranges.append(SlotRange(first, last, addresses[0]))
            met += addresses
    return ranges, met
