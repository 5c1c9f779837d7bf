"""
The registry of a cluster: where nodes register and are found (cluster 3).
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mpush_tw.config.settings import ZkSettings
from mpush_tw.errors import ConfigError, Unavailable
from mpush_tw.integrations.zookeeper._client import ZooKeeperClient
from mpush_tw.integrations.zookeeper._errors import NoChroot, Refusal
from mpush_tw.integrations.zookeeper._nodes import Tree
from mpush_tw.integrations.zookeeper._registrations import Registrations, make_path
from mpush_tw.integrations.zookeeper._waiting import Waiters
from mpush_tw.integrations.zookeeper._watches import Watches
from mpush_tw.interfaces import (
    IServiceDiscovery,
    IServiceListener,
    IServiceRegistry,
    ServiceNode,
)

_START_S = 10.0
"""
How long a start waits for a connection at least: an ensemble that elects a leader needs
some seconds. The original waits for 60.
"""

_PAUSE_S = 0.1


@implementer(IServiceRegistry, IServiceDiscovery)
class ZooKeeperRegistry:
    """
    Nodes in ZooKeeper, side by side with those of the original.

    What is registered stays registered over restarts of the servers and the end of
    sessions, under the same path; who listens is told of the differences. While no
    server can be reached, nothing changes for listeners, and lookups fail.

    Existing nodes are told to a new listener as added.
    """

    _log = Logger()

    def __init__(self, settings: ZkSettings, reactor: Any) -> None:
        """
        @param settings: C{mp.zk}.
        @param reactor: Provides C{IReactorTime} and C{IReactorFromThreads}.
        @raise ConfigError: If the settings name a path that ZooKeeper cannot have.
        """
        servers, _, chroot = settings.server_address.partition("/")
        self._tree = _checked_tree(chroot, settings)
        self._address = settings.server_address
        self._reactor = reactor
        self._start_bound = max(settings.connection_timeout, _START_S)
        self._client = ZooKeeperClient(
            servers, settings, reactor, self._connected, self._disconnected
        )
        self._own = Registrations(self._client, self._tree, settings.retry, reactor)
        self._watches = Watches(self._client, self._tree, settings.watch_path, reactor)
        self._started = False
        self._starting: Deferred[None] | None = None
        self._start_waiters = Waiters()
        self._connection_waiters = Waiters()
        self._session: int | None = None

    # --------------------------------------------------------- start and stop

    def start(self) -> Deferred[None]:
        """
        Connect and make the namespace if it is missing.

        @return: Fails with L{Unavailable} after 10 seconds, or C{connectionTimeoutMs}
            when that is longer. Who starts while a start is under way waits for it.
        """
        if self._started:
            return succeed(None)
        waiter = self._start_waiters.wait()
        if self._starting is None:
            starting = Deferred.fromCoroutine(self._start())
            self._starting = starting.addTimeout(self._start_bound, self._reactor)
            self._starting.addBoth(self._start_ended)
        return waiter

    async def _start(self) -> None:
        self._client.open()
        while True:
            if self._client.session_id is None:
                await self._connection_waiters.wait()
            try:
                return await self._make_namespace()
            except Refusal as refusal:
                raise refusal.explained() from None
            except Unavailable:
                # The connection was lost again; the time-out ends this.
                await deferLater(self._reactor, _PAUSE_S)

    async def _make_namespace(self) -> None:
        chroot, namespace = self._tree.chroot, self._tree.namespace
        if chroot and await self._client.exists(chroot) is None:
            # Not made here: our ACL would lock out others who share it.
            raise NoChroot(chroot, "does not exist")
        for path in self._tree.ancestors(namespace):
            await make_path(self._client, path)
        # Whether a node exists everybody is told; only its owner may list it.
        await self._client.children(namespace or "/")

    def _start_ended(self, result: Failure | None) -> None:
        self._starting = None
        if result is None:
            self._started = True
            self._log.info("connected to ZooKeeper at {at}", at=self._address)
            self._start_waiters.tell()
            return
        failure = result
        if failure.check(TimeoutError):
            failure = Failure(self._unreachable())
        elif failure.check(CancelledError):
            failure = Failure(Unavailable("the registry was stopped while it started"))
        self._client.close().addCallback(lambda _: self._start_waiters.tell(failure))

    def _unreachable(self) -> Unavailable:
        why = self._client.complaint
        return Unavailable(
            f"ZooKeeper at {self._address} (mp.zk.server-address) cannot be reached "
            f"within {self._start_bound:g} seconds" + (f": {why}" if why else "")
        )

    def stop(self) -> Deferred[None]:
        """
        End the session: what is registered vanishes at once, or with the session's
        time-out when no server can be reached. Idempotent; takes at most 5 seconds.
        """
        self._started = False
        if self._starting is not None:
            self._starting.cancel()
        self._own.clear()
        self._watches.rest()
        self._session = None
        return self._client.close()

    def _connected(self, session: int) -> None:
        if self._session is not None:
            self._log.info(
                "ZooKeeper at {at} is back, {session}",
                at=self._address,
                session="with the same session"
                if session == self._session
                else "with a new session",
            )
        self._session = session
        self._connection_waiters.tell()
        self._own.connected(session)
        self._watches.connected()

    def _disconnected(self) -> None:
        self._log.warn(
            "ZooKeeper at {at} is lost ({why}); what was known of other nodes is kept",
            at=self._address,
            why=self._client.complaint or "no reason known",
        )

    # -------------------------------------------------------------- registry

    def register(self, node: ServiceNode) -> Deferred[None]:
        """
        Publish a node until L{deregister} or L{stop}.

        @return: Fails with L{Unavailable} after C{mp.zk.retry} when the server cannot
            be reached, at once when it refuses; the node is not registered then.
        """
        return Deferred.fromCoroutine(self._own.register(node))

    def deregister(self, node: ServiceNode) -> Deferred[None]:
        """
        Withdraw a node. Never fails: what cannot be deleted now is deleted when there
        is a connection again, or vanishes with the session.
        """
        return self._own.deregister(node)

    # ------------------------------------------------------------- discovery

    def lookup(self, service: str) -> Deferred[list[ServiceNode]]:
        """
        Ask the server for the nodes of a service path, in descending order of their
        ids; fails with L{Unavailable} at once when there is no connection.
        """
        return Deferred.fromCoroutine(self._watches.lookup(service))

    def subscribe(self, service: str, listener: IServiceListener) -> None:
        """
        Tell a listener of the nodes of a service path, and of every change. May be
        called before L{start}.
        """
        self._watches.subscribe(service, listener)

    def unsubscribe(self, service: str, listener: IServiceListener) -> None:
        """
        Tell a listener no more.
        """
        self._watches.unsubscribe(service, listener)


def _checked_tree(chroot: str, settings: ZkSettings) -> Tree:
    for key, path in (
        ("mp.zk.server-address", chroot),
        ("mp.zk.namespace", settings.namespace),
        ("mp.zk.watch-path", settings.watch_path),
    ):
        try:
            Tree.parse("", path)
        except ValueError as error:
            raise ConfigError(key, str(error)) from None
    return Tree.parse(chroot, settings.namespace)
