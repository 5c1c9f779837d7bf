"""
The nodes of a Redis Cluster: how they are found, and what each says of the slots.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import ne
from typing import NamedTuple

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

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


class _NoMember(Unavailable):
    """
    The node belongs to no cluster that serves anything.
    """


class ClusterNodes:
    """
    Leads to any node: PUBLISH and SUBSCRIBE can be sent to each (cluster 2.1).

    Knows the nodes that are configured and those that were met since. An address is
    used as the nodes announce it.

    @ivar check_every: Seconds between two looks at the nodes that this has led to.
    """

    _log = Logger()
    follows = True
    check_every = 30.0

    def __init__(self, settings: RedisSettings, dialler: Dialler) -> None:
        self._dialler = dialler
        seeds = settings.endpoints()
        self._passwords = {
            Address(node.host, node.port): node.password for node in seeds
        }
        self._password = next((node.password for node in seeds if node.password), "")
        self._seeds = tuple(self._passwords)
        self._known = self._seeds
        self._led_to: set[Address] = set()
        self._moved: Callable[[Callable[[Address], bool]], None] | None = None
        self._check: IDelayedCall | None = None
        self._checking: Deferred[None] | None = None
        self.name = f"the Redis cluster of {', '.join(map(str, self._seeds))}"

    async def dial(self) -> Connection:
        connection, _ = await reach_any(self._known, self._ask)
        self._led_to.add(connection.address)
        return connection

    def start(self, moved: Callable[[Callable[[Address], bool]], None]) -> None:
        self._moved = moved
        self._check_later()

    def stop(self) -> Deferred[None]:
        self._moved = None
        self._led_to.clear()
        if self._check is not None:
            self._check.cancel()
            self._check = None
        if self._checking is not None:
            self._checking.cancel()
        return succeed(None)

    # ------------------------------------------------------- former members

    def _check_later(self) -> None:
        if self._moved is not None:
            self._check = self._dialler.reactor.callLater(
                self.check_every, self._check_now
            )

    def _check_now(self) -> None:
        self._check = None
        self._checking = Deferred.fromCoroutine(self._leave_former_members())
        self._checking.addErrback(self._not_checked)

    async def _leave_former_members(self) -> None:
        """
        See that the nodes that this has led to are members still: one that was taken
        out keeps its connections, and nobody's messages reach it.
        """
        for address in list(self._led_to):
            try:
                connection, _ = await self._ask(address)
            except _NoMember as error:
                self._led_to.discard(address)
                self._log.warn(
                    "left a former node of the cluster: {error}", error=error
                )
                if self._moved is not None:
                    self._moved(partial(ne, address))
            except Unavailable:
                # Who is connected to it notices without help.
                continue
            else:
                connection.close()
        self._checking = None
        self._check_later()

    def _not_checked(self, failure: Failure) -> None:
        self._checking = None
        if not failure.check(CancelledError):
            self._log.failure("looking at the nodes of a cluster", failure)
            self._check_later()

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
            raise _NoMember(f"Redis at {node} knows of no slots that are served")
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
