"""
Everybody's nodes, and how they change (cluster 3.7).

For each service path that somebody listens to: a watch on its children, one on the data
of each, and what they were last time. A watch says only that something is different;
then it is read again, and the listeners are told the differences. While there is no
connection nothing changes; after it everything is read again, for watches do not
outlive a connection.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from mpush_tw.errors import Unavailable
from mpush_tw.integrations.zookeeper._client import ZooKeeperClient
from mpush_tw.integrations.zookeeper._errors import NoNode, Refusal
from mpush_tw.integrations.zookeeper._nodes import Tree, decode_node
from mpush_tw.integrations.zookeeper._waiting import Backoff
from mpush_tw.interfaces import IServiceListener, ServiceNode

_AGAIN_S = 1.0
_LONGEST_AGAIN_S = 30.0
"""
Pauses before a path that could not be read is read again.
"""

_SAID = 1000


class Reader:
    """
    Reads what is below a service path and leaves out what is no node.
    """

    _log = Logger()

    def __init__(self, client: ZooKeeperClient) -> None:
        self._client = client
        self._said: dict[str, int] = {}

    async def node(
        self, service: str, parent: str, name: str, watch: Any = None
    ) -> ServiceNode | None:
        """
        Read one node.

        @param watch: Called, from the reactor, when its data change or it goes; not
            set when a L{Refusal} is raised.
        @return: L{None} when it is no service node, which is logged once.
        @raise Refusal: If it is not there, or cannot be read, which is logged once.
        @raise Unavailable: If the server cannot be asked.
        """
        path = f"{parent}/{name}"
        try:
            data = await self._client.get(path, watch)
        except NoNode:
            raise
        except Refusal as refusal:
            self._say_once(path, b"", f"cannot be read ({refusal})")
            raise
        node = decode_node(service, name, data)
        if node is None:
            self._say_once(path, data, "is no service node")
        return node

    async def node_or_none(
        self, service: str, parent: str, name: str
    ) -> ServiceNode | None:
        """
        Read one node, without a watch.

        @raise Unavailable: If the server cannot be asked.
        """
        try:
            return await self.node(service, parent, name)
        except Refusal:
            return None

    def _say_once(self, path: str, data: bytes, what: str) -> None:
        seen = hash(data)
        if self._said.get(path) == seen:
            return
        if len(self._said) >= _SAID:
            self._said.clear()
        self._said[path] = seen
        self._log.warn(
            "{path} in ZooKeeper {what} and is left out", path=repr(path), what=what
        )


class _Service:
    """
    One service path: what is known below it, and who listens.
    """

    _log = Logger()

    def __init__(
        self,
        service: str,
        path: str,
        client: ZooKeeperClient,
        reader: Reader,
        clock: Any,
    ) -> None:
        """
        @param service: As listeners know it, below the namespace.
        @param path: As the server knows it.
        """
        self.listeners: list[IServiceListener] = []
        self._new: list[IServiceListener] = []
        self._service = service
        self._path = path
        self._client = client
        self._reader = reader
        self._clock = clock
        # None: it is there and cannot be read; it is not tried again until it changes.
        self._known: dict[str, ServiceNode | None] = {}
        # What is to be read again of it; all of it after an interruption.
        self._stale: set[str] = set()
        self._all_stale = False
        self._wanted = False
        self._running = False
        self._again: IDelayedCall | None = None
        self._backoff = Backoff(_AGAIN_S, _LONGEST_AGAIN_S)
        self._complained = False
        self._data_watches: dict[str, Any] = {}

    def add(self, listener: IServiceListener) -> None:
        """
        Let one more listen. It is told of all nodes, as added.
        """
        self.listeners.append(listener)
        self._new.append(listener)
        self.refresh()

    def remove(self, listener: IServiceListener) -> None:
        """
        Let one listen no more.
        """
        for listeners in (self.listeners, self._new):
            if listener in listeners:
                listeners.remove(listener)

    def read_all(self) -> None:
        """
        Read everything again: there is a new connection.
        """
        # Not what is known now: a reading that is under way may still add to it, with
        # watches of the connection that was lost.
        self._all_stale = True
        self.refresh()

    def refresh(self) -> None:
        """
        Read what has changed, once the reading that is under way is done.
        """
        self._wanted = True
        if self._running or not self._alive():
            return
        self.rest()
        self._running = True
        Deferred.fromCoroutine(self._read()).addErrback(
            lambda failure: self._log.failure("reading service nodes", failure)
        )

    def rest(self) -> None:
        """
        Forget what was to be tried later.
        """
        if self._again is not None and self._again.active():
            self._again.cancel()
        self._again = None

    def _alive(self) -> bool:
        return self._client.session_id is not None and bool(self.listeners)

    async def _read(self) -> None:
        try:
            while self._wanted and self._alive():
                self._wanted = False
                stale, self._stale = self._stale, set()
                all_stale, self._all_stale = self._all_stale, False
                try:
                    found = await self._found(None if all_stale else stale)
                except (Unavailable, Refusal) as error:
                    self._stale |= stale
                    self._all_stale |= all_stale
                    self._wanted = True
                    self._try_later(error)
                    return
                self._backoff.reset()
                self._complained = False
                self._compare(found)
        finally:
            self._running = False

    def _try_later(self, error: Exception) -> None:
        # Without a connection there will be one again, and read_all with it.
        if not self._alive():
            return
        if not self._complained:
            self._complained = True
            self._log.warn(
                "cannot watch {path}, trying on: {error}",
                path=self._path,
                error=str(error),
            )
        self._again = self._clock.callLater(self._backoff.pause(), self.refresh)

    async def _found(self, stale: set[str] | None) -> dict[str, ServiceNode | None]:
        """
        @param stale: Whose data to read again; L{None} for all.
        """
        try:
            names = await self._client.children(self._path, self.refresh)
        except NoNode:
            if await self._client.exists(self._path, self.refresh) is not None:
                # It has come in between; the watch for that will not fire any more.
                self._wanted = True
            return {}
        unread = [
            name
            for name in names
            if stale is None or name in stale or name not in self._known
        ]
        read = await gatherResults(
            [Deferred.fromCoroutine(self._one(name)) for name in unread],
            consumeErrors=True,
        ).addErrback(_first)
        return {name: self._known.get(name) for name in names} | dict(
            zip(unread, read, strict=True)
        )

    async def _one(self, name: str) -> ServiceNode | None:
        # The same watch each time: set again before it fires, it fires once.
        watch = self._data_watches.get(name)
        if watch is None:
            watch = self._data_watches[name] = lambda: self._touched(name)
        try:
            return await self._reader.node(self._service, self._path, name, watch)
        except Refusal:
            # Without a watch on its data: the next reading does not leave it out.
            self._stale.add(name)
            return None

    def _touched(self, name: str) -> None:
        self._stale.add(name)
        self.refresh()

    def _compare(self, found: dict[str, ServiceNode | None]) -> None:
        before, self._known = self._known, found
        for name in self._data_watches.keys() - found.keys():
            del self._data_watches[name]
        new, self._new = self._new, []
        old = [listener for listener in self.listeners if listener not in new]
        for name in before.keys() | found.keys():
            was, now = before.get(name), found.get(name)
            if was is not None and now is None:
                self._tell(old, "service_removed", was)
            elif was is None and now is not None:
                self._tell(old, "service_added", now)
            elif now is not None and now != was:
                self._tell(old, "service_updated", now)
        for node in found.values():
            if node is not None:
                self._tell(new, "service_added", node)

    def _tell(
        self, listeners: list[IServiceListener], event: str, node: ServiceNode
    ) -> None:
        for listener in listeners:
            if listener not in self.listeners:
                # An earlier event made it listen no more.
                continue
            try:
                getattr(listener, event)(node)
            except Exception:
                self._log.failure("a listener for service nodes failed")


def _first(failure: Any) -> Any:
    # gatherResults wraps what its Deferreds fail with.
    return failure.value.subFailure


class Watches:
    """
    All service paths that somebody listens to.
    """

    _log = Logger()

    def __init__(
        self, client: ZooKeeperClient, tree: Tree, watch_path: str, clock: Any
    ) -> None:
        """
        @param watch_path: C{mp.zk.watch-path}: only what is below it is watched.
        @param clock: Provides C{IReactorTime}.
        """
        self._client = client
        self._tree = tree
        self._watch_path = tree.service(watch_path)
        self._clock = clock
        self._reader = Reader(client)
        self._services: dict[str, _Service] = {}
        self._outside: set[str] = set()

    async def lookup(self, service: str) -> list[ServiceNode]:
        """
        Ask the server for the nodes of a service path, in descending order of their
        ids.

        @raise Unavailable: If it cannot be asked.
        """
        path = self._tree.service(service)
        try:
            names = await self._client.children(path)
        except NoNode:
            return []
        except Refusal as refusal:
            raise refusal.explained() from None
        names.sort(reverse=True)
        nodes = await gatherResults(
            [
                Deferred.fromCoroutine(self._reader.node_or_none(service, path, name))
                for name in names
            ],
            consumeErrors=True,
        ).addErrback(_first)
        return [node for node in nodes if node is not None]

    def subscribe(self, service: str, listener: IServiceListener) -> None:
        """
        Tell a listener of the nodes of a service path, and of every change.
        """
        path = self._tree.service(service)
        if not f"{path}/".startswith(f"{self._watch_path}/"):
            if path not in self._outside:
                self._outside.add(path)
                self._log.info(
                    "{path} is outside of mp.zk.watch-path: its changes are not seen",
                    path=path,
                )
            return
        if path not in self._services:
            self._services[path] = _Service(
                service, path, self._client, self._reader, self._clock
            )
        self._services[path].add(listener)

    def unsubscribe(self, service: str, listener: IServiceListener) -> None:
        """
        Tell a listener no more.
        """
        path = self._tree.service(service)
        watched = self._services.get(path)
        if watched is not None:
            watched.remove(listener)
            if not watched.listeners:
                watched.rest()
                del self._services[path]

    def connected(self) -> None:
        """
        There is a connection, for the first time or again: read everything.
        """
        for watched in list(self._services.values()):
            watched.read_all()

    def rest(self) -> None:
        """
        Forget what was to be tried later: there will be no connection.
        """
        for watched in self._services.values():
            watched.rest()
