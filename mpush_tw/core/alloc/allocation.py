"""
The lists that clients get, kept up to date (services A4, A7, A8).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any

import attrs

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from mpush_tw.core.alloc.counts import OnlineCounts
from mpush_tw.core.alloc.registered import RegisteredServers
from mpush_tw.core.alloc.servers import (
    CONNECT_SERVERS,
    WEBSOCKET_SERVERS,
    Server,
    read_server,
)
from mpush_tw.core.alloc.strategies import Candidate, Strategy
from mpush_tw.core.log import NodeLog
from mpush_tw.errors import Unavailable
from mpush_tw.interfaces import ICache, IServiceDiscovery, ServiceNode


@attrs.frozen
class Listed:
    """
    A server as programs are told of it.

    @ivar online: Its users at the last count; C{None} before the first.
    """

    host: str
    port: int
    online: int | None
    weight: float
    id: str


class ServerList:
    """
    The servers of one kind, best first.
    """

    def __init__(
        self, strategy: Strategy, counts: OnlineCounts, max_servers: int
    ) -> None:
        """
        @param max_servers: Entries of one answer; 0 is all.
        """
        self._strategy = strategy
        self._counts = counts
        self._max = max_servers
        self._servers: tuple[Server, ...] = ()
        self._handed_out: Counter[str] = Counter()

    @property
    def servers(self) -> Sequence[Server]:
        """
        Those that are handed out, sorted by address, each address once.
        """
        return self._servers

    def replace(self, servers: Sequence[Server]) -> None:
        """
        Take these from now on, but those of weight 0. One that was restarted is
        registered twice for a while; the lower weight counts, so that one that was
        restarted in order to be drained is off the list at once.
        """
        by_address: dict[str, Server] = {}
        for server in servers:
            known = by_address.get(server.address)
            if known is None or server.weight < known.weight:
                by_address[server.address] = server
        self._servers = tuple(
            by_address[address]
            for address in sorted(by_address)
            if by_address[address].weight > 0
        )
        for gone in self._handed_out.keys() - by_address.keys():
            del self._handed_out[gone]

    def counted(self) -> None:
        """
        Hear that the users have been counted again.
        """
        self._handed_out.clear()

    def hand_out(self) -> str:
        """
        Give the answer for a client that asks where to connect: C{host:port} entries
        with commas between them, or nothing (A3.1). It will go to the first.
        """
        best = self._best()
        if best:
            self._handed_out[best[0].server.address] += 1
        return ",".join(one.server.address for one in best)

    def listed(self) -> list[Listed]:
        """
        Give the same for programs; nobody is expected to go anywhere.
        """
        return [
            Listed(
                one.server.host,
                one.server.port,
                one.online,
                one.server.weight,
                one.server.node_id,
            )
            for one in self._best()
        ]

    def _best(self) -> list[Candidate]:
        ordered = self._strategy(
            [
                Candidate(
                    server,
                    self._counts.of(server.online_list),
                    self._handed_out[server.address],
                )
                for server in self._servers
            ]
        )
        return ordered[: self._max] if self._max else ordered


class Allocation:
    """
    Knows the servers and their users, and hands out lists.

    Requests are answered from memory. Changes in the registry count at once; beside
    that, all of it is read again now and then, and users are counted. Nothing that
    fails there ends it (A-1).

    @ivar connect: Servers for devices.
    @ivar websocket: Servers for web pages. They are registered without attributes; the
        weight of such a server is that of the connection server of the same node.
    @ivar running: Whether the lists are kept up to date.
    @ivar refreshes: How often was looked, by how it ended: C{ok}, C{no-registry},
        C{no-counts}, C{failed}.
    """

    def __init__(
        self,
        discovery: IServiceDiscovery,
        cache: ICache,
        new_strategy: Callable[[], Strategy],
        clock: IReactorTime,
        log: NodeLog,
        *,
        refresh_interval: float,
        count_interval: float,
        max_servers: int = 0,
    ) -> None:
        """
        @param discovery: Started by the caller before L{start}, as is C{cache}.
        @param new_strategy: Makes a strategy for one list.
        @param refresh_interval: Seconds.
        @param count_interval: Seconds.
        """
        self._clock = clock
        self._log = log
        self._counts = OnlineCounts(cache, log)
        self.connect = ServerList(new_strategy(), self._counts, max_servers)
        self.websocket = ServerList(new_strategy(), self._counts, max_servers)
        self.refreshes: Counter[str] = Counter()
        self._connect_nodes, self._websocket_nodes = (
            RegisteredServers(service, discovery, clock, log, self._nodes_changed)
            for service in (CONNECT_SERVERS, WEBSOCKET_SERVERS)
        )
        self._intervals = (
            (refresh_interval, self._refresh),
            (count_interval, self._count),
        )
        self._loops: list[LoopingCall] = []
        self._wanted = self.running = False

    async def start(self) -> None:
        """
        Find the servers, count their users, and stay up to date until L{stop}.

        @raise Unavailable: If the registry cannot be asked.
        """
        self._wanted = True
        await self._connect_nodes.start()
        try:
            await self._websocket_nodes.start()
        except BaseException:
            self._connect_nodes.stop()
            raise
        await self._count()
        if not self._wanted:
            # Stopped meanwhile; what was started behind that ends now.
            self.stop()
            return
        self.running = True
        self._start_loops()

    def _start_loops(self) -> None:
        for interval, step in self._intervals:
            loop = LoopingCall(self._whatever_happens, step)
            loop.clock = self._clock
            self._loops.append(loop)
            loop.start(interval, now=False).addErrback(self._bug)

    def stop(self) -> None:
        """
        Look no more. The lists stay as they are. Idempotent.
        """
        self._wanted = self.running = False
        for loop in self._loops:
            loop.stop()
        self._loops.clear()
        self._connect_nodes.stop()
        self._websocket_nodes.stop()

    def online(self) -> Iterator[tuple[Server, int]]:
        """
        Give the connection servers whose users have been counted.
        """
        for server in self.connect.servers:
            count = self._counts.of(server.online_list)
            if count is not None:
                yield server, count

    # ------------------------------------------------------------ up to date

    def _whatever_happens(
        self, step: Callable[[], Coroutine[Any, Any, None]]
    ) -> Deferred[None]:
        return Deferred.fromCoroutine(step()).addErrback(self._bug)

    def _bug(self, failure: Failure) -> None:
        self.refreshes["failed"] += 1
        self._log.general.failure("looking for servers", failure)

    async def _refresh(self) -> None:
        try:
            await self._connect_nodes.refresh()
            await self._websocket_nodes.refresh()
        except Unavailable as error:
            self.refreshes["no-registry"] += 1
            self._log.general.warn(
                "the servers cannot be looked up, the last list stays in use: {error}",
                error=error,
            )
        else:
            await self._count()

    async def _count(self) -> None:
        online_lists = self._online_lists()
        self._counts.keep_only(online_lists)
        if await self._counts.refresh(online_lists):
            self.refreshes["ok"] += 1
            self.connect.counted()
            self.websocket.counted()
        else:
            self.refreshes["no-counts"] += 1

    def _online_lists(self) -> set[str]:
        return {
            server.online_list
            for servers in (self.connect.servers, self.websocket.servers)
            for server in servers
        }

    def _nodes_changed(self) -> None:
        connect = self._connect_nodes.nodes
        self.connect.replace(_servers(connect))
        self.websocket.replace(
            _servers(_with_attributes_of(connect, self._websocket_nodes.nodes))
        )
        if self.running:
            # Not before that: the start counts all.
            new = [one for one in self._online_lists() if self._counts.of(one) is None]
            if new:
                counting = Deferred.fromCoroutine(self._counts.refresh(new))
                counting.addErrback(self._bug)


def _servers(nodes: Iterable[ServiceNode]) -> list[Server]:
    return [server for node in nodes if (server := read_server(node)) is not None]


def _with_attributes_of(
    connect: Sequence[ServiceNode], websocket: Sequence[ServiceNode]
) -> Iterator[ServiceNode]:
    """
    Give WebSocket nodes the attributes of the connection server that they belong to:
    the one with the same id or, as nodes of the original have an id for each of their
    servers, on the same host. Of several there the heaviest counts.
    """
    by_id = {node.node_id: node.attributes for node in connect}
    by_host: dict[str, Server] = {}
    for node in connect:
        server = read_server(node)
        if server is not None:
            known = by_host.get(node.host)
            if known is None or server.weight > known.weight:
                by_host[node.host] = server
    for node in websocket:
        attributes = node.attributes or by_id.get(node.node_id)
        if not attributes and node.host in by_host:
            attributes = by_id[by_host[node.host].node_id]
        yield attrs.evolve(node, attributes=attributes)
