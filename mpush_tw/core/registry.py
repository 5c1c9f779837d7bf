"""
The connections of one door: who is admitted, and who has gone silent.

Where the rules are: server 5, DESIGN 5b.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator

from twisted.internet.interfaces import IReactorTime

from mpush_tw.core.connection import Connection
from mpush_tw.core.log import NodeLog
from mpush_tw.core.metrics import DoorMetrics, NodeMetrics
from mpush_tw.core.wheel import TimingWheel

_FIRST_CHECK = 10.0
_GRACE = 1.0
"""
Seconds that a heartbeat may be late (server 3.1).
"""


class Admission:
    """
    Decides whether one more connection is accepted.

    @ivar max_connections: Above it a new connection is refused.
    @ivar max_per_address: The same for each remote address.
    """

    def __init__(self, max_connections: int, max_per_address: int) -> None:
        self.max_connections = max_connections
        self.max_per_address = max_per_address
        self._by_address: Counter[str] = Counter()
        self.total = 0

    def admit(self, host: str) -> str | None:
        """
        Count a connection in.

        @return: C{None}, or the name of the limit that refuses it.
        """
        if self.total >= self.max_connections:
            return "max-connections"
        if self._by_address[host] >= self.max_per_address:
            return "max-per-address"
        self.total += 1
        self._by_address[host] += 1
        return None

    def release(self, host: str) -> None:
        """
        Count an admitted connection out.
        """
        self.total -= 1
        self._by_address[host] -= 1
        if self._by_address[host] <= 0:
            del self._by_address[host]


class Connections:
    """
    The registry of a door with heartbeats (server 5.1).

    Until its handshake a connection is also in a queue by age: the deadline of the
    handshake ends it, and so does a crowd of newer ones.
    """

    def __init__(
        self,
        wheel: TimingWheel,
        clock: IReactorTime,
        log: NodeLog,
        metrics: NodeMetrics,
        door_metrics: DoorMetrics,
        handshake_timeout: float,
        max_unsecured: int,
        max_missed: int,
    ) -> None:
        """
        @param handshake_timeout: Seconds that a handshake may take, whatever
            trickles in or pings meanwhile.
        @param max_unsecured: Connections before their handshake; above it the oldest
            is closed.
        @param max_missed: Failed heartbeat checks that are tolerated in a row.
        """
        self._wheel = wheel
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._door_metrics = door_metrics
        self._handshake_timeout = handshake_timeout
        self._max_unsecured = max_unsecured
        self._max_missed = max_missed
        self._all: set[Connection] = set()
        self._unsecured: OrderedDict[Connection, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._all))

    @property
    def unsecured(self) -> int:
        """
        How many have not finished a handshake.
        """
        return len(self._unsecured)

    def add(self, connection: Connection) -> None:
        """
        Take in a connection that was just accepted.
        """
        self._all.add(connection)
        self._unsecured[connection] = None
        self._wheel.add(connection, self._handshake_timeout)
        if len(self._unsecured) > self._max_unsecured:
            oldest, _ = self._unsecured.popitem(last=False)
            self._door_metrics.refused["max-unsecured"] += 1
            oldest.abort("max-unsecured")

    def secured(self, connection: Connection) -> None:
        """
        The handshake is done: from now on the heartbeat counts.
        """
        if self._unsecured.pop(connection, connection) is None:
            # The first check never comes before 10 s (server 5.2).
            self._wheel.add(
                connection, max(connection.heartbeat, _FIRST_CHECK), coarse=True
            )

    def remove(self, connection: Connection) -> None:
        """
        Forget a connection that has ended.
        """
        self._all.discard(connection)
        self._unsecured.pop(connection, None)
        self._wheel.remove(connection)

    def check(self, connection: Connection, now: float) -> None:
        """
        Do the check that a connection's time on the wheel has come for (server 5.2).
        """
        if connection in self._unsecured:
            self._log.conn.info(
                "no handshake within {seconds}s, conn={conn}",
                seconds=self._handshake_timeout,
                conn=connection,
            )
            connection.abort("handshake-timeout")
            return
        heartbeat = connection.heartbeat
        if now - connection.last_read > heartbeat + _GRACE:
            connection.missed_heartbeats += 1
            missed = connection.missed_heartbeats
            if missed > self._max_missed:
                self._metrics.heartbeat_timeouts["close"] += 1
                connection.abort("heartbeat")
                self._log.heartbeat.warn(
                    "client heartbeat timeout times={times}, do close conn={conn}",
                    times=missed,
                    conn=connection,
                )
                return
            self._metrics.heartbeat_timeouts["wait"] += 1
            self._log.heartbeat.info(
                "client heartbeat timeout times={times}, connection={conn}",
                times=missed,
                conn=connection,
            )
        else:
            connection.missed_heartbeats = 0
        self._wheel.add(connection, heartbeat, coarse=True)
