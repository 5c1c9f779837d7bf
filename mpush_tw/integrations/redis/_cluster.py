"""
A Redis Cluster as one store: each command goes to the node that serves its key.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    fail,
    succeed,
)
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from mpush_tw.errors import Unavailable
from mpush_tw.integrations.redis._cluster_nodes import ClusterNodes, SlotRange
from mpush_tw.integrations.redis._commands import SLOTS, Command, key_slot
from mpush_tw.integrations.redis._connection import Address, Refused, Reply
from mpush_tw.integrations.redis._pool import (
    ATTEMPT_TIMEOUT,
    Away,
    Pool,
    PoolLimits,
)
from mpush_tw.integrations.redis._store import Restored

MAX_REDIRECTIONS = 5
"""
How often a command may be sent elsewhere (cluster 2.1).
"""

PATIENCE = 2.0
"""
Seconds that a command waits for a cluster that asks it to try again.
"""

_ELSEWHERE = frozenset(("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"))
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0
_LONGEST_RETRY = 0.4


class ClusterStore:
    """
    Keeps a pool for each master, and a table of who serves which slot.

    The table is asked for at the start, after MOVED, and again and again from the loss
    of a master until its slots are served again, by itself or by another: then the
    store is I{restored}.
    """

    _log = Logger()

    def __init__(
        self, nodes: ClusterNodes, limits: PoolLimits, clock: Any, restored: Restored
    ) -> None:
        self._nodes = nodes
        self._limits = limits
        self._clock = clock
        self._restored = restored
        self._running = False
        self._pools: dict[Address, Pool] = {}
        self._leaving: set[Deferred[None]] = set()
        self._table: list[Pool | None] = [None] * SLOTS
        self._lost: dict[Address, frozenset[int]] = {}
        self._starting: Deferred[None] | None = None
        self._repair: Deferred[Any] | None = None
        self._again = False

    # ----------------------------------------------------------- start, stop

    def start(self) -> Deferred[None]:
        """
        Find out who serves what, and connect to all of them.

        @return: Fires when one of them can be used, and the others have been tried;
            fails with L{Unavailable} if there is none.
        """
        if self._running:
            return succeed(None)
        self._running = True
        self._starting = Deferred.fromCoroutine(self._start())
        return self._starting.addErrback(self._not_started)

    def _not_started(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            raise Unavailable(f"{self._nodes.name} was stopped")
        failure.raiseException()

    async def _start(self) -> None:
        until = self._clock.seconds() + ATTEMPT_TIMEOUT
        asked = Deferred.fromCoroutine(self._nodes.slots())
        asked.addTimeout(ATTEMPT_TIMEOUT, self._clock)
        try:
            tried = DeferredList(self._install(await asked), consumeErrors=True)
            tried.addTimeout(max(until - self._clock.seconds(), 0), self._clock)
            # What was not told in time was cancelled.
            problems = [problem for told, problem in await tried if told and problem]
            if not any(pool.up for pool in self._pools.values()):
                if not problems:
                    raise DeferredTimeout
                raise Unavailable("; ".join(map(str, problems)))
            self._starting = None
        except BaseException as error:
            self._starting = None
            await self.stop()
            if not isinstance(error, DeferredTimeout):
                raise
            raise Unavailable(
                f"{self._nodes.name} did not answer within {ATTEMPT_TIMEOUT:g} s"
            ) from None

    def stop(self) -> Deferred[None]:
        """
        Close everything, as L{Pool.stop} does.
        """
        self._running = False
        starting, self._starting = self._starting, None
        repair, self._repair = self._repair, None
        for task in (starting, repair):
            if task is not None:
                task.cancel()
        self._table = [None] * SLOTS
        self._lost.clear()
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            self._leave(pool)
        closed: Deferred[None] = Deferred()
        DeferredList(list(self._leaving)).addCallback(lambda _: closed.callback(None))
        return closed

    # -------------------------------------------------------------- commands

    def execute(self, command: Command) -> Deferred[Reply]:
        """
        Run a command where its key is.

        @return: As L{Pool.execute}.
        """
        slot = key_slot(command.key)
        pool = self._table[slot]
        if pool is None:
            return fail(self._unserved(slot))
        answered = pool.execute(command)
        answered.addErrback(self._astray, command, slot, pool)
        return answered

    def _unserved(self, slot: int) -> Away:
        if not self._running:
            return Away(f"{self._nodes.name} is not connected")
        self._refresh()
        return Away(f"no node of {self._nodes.name} serves slot {slot}")

    def _astray(
        self, failure: Failure, command: Command, slot: int, pool: Pool
    ) -> Deferred[Reply] | Failure:
        error = failure.value
        if not self._running:
            return failure
        if isinstance(error, Away):
            if self._table[slot] in (pool, None):
                return failure
        elif not isinstance(error, Refused) or error.code not in _ELSEWHERE:
            return failure
        return Deferred.fromCoroutine(self._follow(error, command, slot, pool))

    async def _follow(
        self, error: Refused | Away, command: Command, slot: int, pool: Pool
    ) -> Reply:
        """
        Run a command where a node says that it belongs, which has not been run yet.
        """
        until = self._clock.seconds() + PATIENCE
        pause = _FIRST_PAUSE / 2
        redirections = 0
        while self._running:
            asking = False
            if isinstance(error, Refused) and error.code in ("TRYAGAIN", "CLUSTERDOWN"):
                self._refresh()
                if self._clock.seconds() + pause > until:
                    raise Unavailable(f"{self._nodes.name}: {error.text}")
                await deferLater(self._clock, pause)
                pause = min(pause * 2, _LONGEST_RETRY)
            else:
                redirections += 1
                if redirections > MAX_REDIRECTIONS:
                    raise Unavailable(
                        f"{self._nodes.name} sent {command} on more than "
                        f"{MAX_REDIRECTIONS} times"
                    )
            if isinstance(error, Refused) and error.code in ("MOVED", "ASK"):
                target = _target(error, pool)
                if target is None:
                    raise error
                pool = self._pool(target)
                asking = error.code == "ASK"
                if not asking:
                    self._table[slot] = pool
                    self._refresh()
            else:
                owner = self._table[slot]
                if owner is None:
                    raise self._unserved(slot)
                pool = owner
            try:
                return await pool.execute(command, asking)
            except Refused as refused:
                if refused.code not in _ELSEWHERE:
                    raise
                error = refused
            except Away as away:
                if self._table[slot] in (pool, None):
                    raise
                error = away
        raise Away(f"{self._nodes.name} is not connected")

    # ------------------------------------------------------------- the table

    def _pool(self, address: Address) -> Pool:
        pool = self._pools.get(address)
        if pool is None:

            async def dial() -> Any:
                return await self._nodes.connect(address)

            pool = self._pools[address] = Pool(
                f"Redis at {address}",
                "cluster node",
                dial,
                self._limits,
                self._clock,
                lost=lambda: self._node_lost(address),
                back=self._refresh,
            )
            pool.open()
        return pool

    def _install(self, ranges: list[SlotRange]) -> list[Deferred[str | None]]:
        """
        Take over a new table, and leave nodes that serve nothing any more.

        @return: For each master, what L{Pool.open} gives.
        """
        table: list[Pool | None] = [None] * SLOTS
        serving: dict[Address, Pool] = {}
        for first, last, master in ranges:
            pool = serving[master] = self._pool(master)
            table[first : last + 1] = [pool] * (last + 1 - first)
        self._table = table
        for address in self._pools.keys() - serving.keys():
            self._leave(self._pools.pop(address))
        return [pool.open() for pool in serving.values()]

    def _leave(self, pool: Pool) -> None:
        leaving = pool.stop()
        if not leaving.called:
            self._leaving.add(leaving)
            leaving.addCallback(lambda _: self._leaving.discard(leaving))

    def _node_lost(self, address: Address) -> None:
        pool = self._pools.get(address)
        slots = frozenset(
            slot for slot, server in enumerate(self._table) if server is pool
        )
        if slots:
            self._lost[address] = self._lost.get(address, frozenset()) | slots
        self._refresh()

    def _refresh(self) -> None:
        """
        Have the table asked for, soon.
        """
        if not self._running:
            return
        self._again = True
        if self._repair is None:
            self._repair = Deferred.fromCoroutine(self._repair_table())
            self._repair.addErrback(self._not_repaired)

    async def _repair_table(self) -> None:
        pause = _FIRST_PAUSE
        while self._again or self._lost:
            self._again = False
            try:
                self._install(await self._nodes.slots())
            except Unavailable as error:
                self._log.debug("no table of slots: {error}", error=error)
            await self._look_for_lost()
            # Also when there is nothing left to do: many at once may ask for a table.
            await deferLater(self._clock, pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        self._repair = None

    def _not_repaired(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._repair = None
            self._log.failure("asking for the table of slots", failure)

    async def _look_for_lost(self) -> None:
        """
        See whether the slots of nodes that were lost are served again.
        """
        found = False
        for address, slots in list(self._lost.items()):
            servers = {self._table[slot] for slot in slots}
            if all([server is not None and await _well(server) for server in servers]):
                del self._lost[address]
                found = True
                self._log.warn(
                    "the slots of Redis at {address} are served again",
                    address=str(address),
                )
        if found:
            self._restored.tell()


async def _well(pool: Pool) -> bool:
    """
    Whether a node takes commands: after a restart it takes a while.
    """
    if not pool.up:
        return False
    try:
        told = await pool.execute(Command(("CLUSTER", "INFO")))
    except (Unavailable, Refused):
        return False
    return "cluster_state:ok" in told


def _target(refused: Refused, asked: Pool) -> Address | None:
    """
    Read C{MOVED slot host:port} or C{ASK slot host:port}; without a host it is the one
    that was asked.
    """
    host, colon, port = refused.text.rpartition(" ")[2].rpartition(":")
    if not colon or not port.isdecimal():
        return None
    if not host:
        host = next((address.host for address in asked.addresses), "")
    return Address(host, int(port)) if host else None
