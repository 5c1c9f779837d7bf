"""
This process's own nodes, and how they stay where they are (cluster 3.6, 3.8).

The original deletes and makes its nodes again after every interruption, and forgets
those for which that fails; here a node is left alone as long as it is there and ours
(C-20), and otherwise made again until that succeeds (C-21), unless it was withdrawn
(C-22). Somebody else who deletes it is answered likewise.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredLock, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from mpush_tw.config.settings import ZkRetrySettings
from mpush_tw.errors import Unavailable
from mpush_tw.integrations.zookeeper._client import ZooKeeperClient
from mpush_tw.integrations.zookeeper._errors import (
    NodeExists,
    NoNode,
    NotEmpty,
    Refusal,
)
from mpush_tw.integrations.zookeeper._nodes import Tree, encode_node
from mpush_tw.integrations.zookeeper._waiting import Backoff, pauses
from mpush_tw.interfaces import ServiceNode

_LARGEST = 1_000_000
"""
Bytes of the JSON of a node. A server closes the connection at a request above its
C{jute.maxbuffer}, 1 MiB by default, and would do so again and again.
"""

_AGAIN_S = 1.0
"""
Pause before a node that somebody has deleted is made again: should two parties disagree
they do so at a human pace.
"""

_ROUNDS = 5


async def make_path(client: ZooKeeperClient, path: str) -> None:
    """
    Make a persistent node without data, unless it exists. Asked for first, because who
    may not make it may still use it.

    @raise NoNode: If its parent is missing.
    """
    if await client.exists(path) is None:
        try:
            await client.create(path)
        except NodeExists:
            # Another node of the cluster was faster.
            pass


class _Own:
    """
    One node of this process: makes the server hold what is wanted.

    @ivar data: What it holds, or is to hold.
    @ivar wanted: Whether it is to be there at all.
    """

    _log = Logger()

    def __init__(
        self, client: ZooKeeperClient, tree: Tree, path: str, longest: float, clock: Any
    ) -> None:
        """
        @param longest: Longest pause between two attempts to make it again, in seconds.
        @param clock: Provides C{IReactorTime}.
        """
        self.path = path
        self.data = b""
        self.wanted = True
        self._client = client
        self._tree = tree
        self._clock = clock
        self._backoff = Backoff(_AGAIN_S, longest)
        self._written: bytes | None = None
        self._made = False
        self._again: IDelayedCall | None = None
        self._complained = False
        self._turn = DeferredLock()

    def settle(self) -> Deferred[None]:
        """
        Make the server hold what is wanted, if it does not.

        @return: Fires when it does; fails with L{Unavailable} or a L{Refusal}.
        """
        # One after the other: a withdrawal waits for the creation that is under way.
        return self._turn.run(lambda: Deferred.fromCoroutine(self._settle()))

    async def _settle(self) -> None:
        for _ in range(_ROUNDS):
            session = self._client.session_id
            watch = self._changed if self.wanted else None
            owner = await self._client.exists(self.path, watch)
            ours = owner is not None and owner == session
            if not self.wanted:
                if ours:
                    await self._delete(self.path)
                return
            if ours and self._written == self.data:
                return
            if ours:
                await self._client.set(self.path, self.data)
                self._written = self.data
                return
            if owner is not None:
                # Of an older session, ours or a stranger's (cluster 3.8).
                await self._delete(self.path)
            await self._create()
            if self._made:
                self._log.info("registered {path} again", path=self.path)
            # The next round finds it and sets the watch.
            self._written, self._made = self.data, True
        raise Unavailable(f"{self.path} does not stay in ZooKeeper")

    async def _create(self) -> None:
        try:
            try:
                await self._client.create(self.path, self.data, ephemeral=True)
            except NoNode:
                for parent in self._tree.ancestors(self.path)[:-1]:
                    await make_path(self._client, parent)
                await self._client.create(self.path, self.data, ephemeral=True)
        except NodeExists:
            # Made in between; the next round sees by whom.
            pass

    async def _delete(self, path: str) -> None:
        try:
            await self._client.delete(path)
        except NoNode:
            pass
        except NotEmpty:
            for child in await self._client.children(path):
                await self._delete(f"{path}/{child}")
            await self._client.delete(path)

    def _changed(self) -> None:
        """
        Somebody has touched the node: look whether it is still there.
        """
        if self.wanted and self._again is None:
            self._again = self._clock.callLater(_AGAIN_S, self.restore)

    def restore(self) -> None:
        """
        Make it again in the background, until that succeeds. Without a connection
        nothing is tried; who has one again calls this.
        """
        self.rest()
        if self.wanted:
            self.settle().addCallbacks(self._restored, self._failed).addErrback(
                lambda failure: self._log.failure("restoring a node", failure)
            )

    def _restored(self, _: None) -> None:
        self._backoff.reset()
        self._complained = False

    def _failed(self, failure: Failure) -> None:
        failure.trap(Unavailable, Refusal)
        if self._client.session_id is None or not self.wanted or self._again:
            return
        if not self._complained:
            self._complained = True
            self._log.error(
                "{path} cannot be registered again, trying on: {error}",
                path=self.path,
                error=failure.getErrorMessage(),
            )
        self._again = self._clock.callLater(self._backoff.pause(), self.restore)

    def rest(self) -> None:
        """
        Forget what was to be tried later.
        """
        if self._again is not None:
            if self._again.active():
                self._again.cancel()
            self._again = None


class Registrations:
    """
    All nodes of this process.
    """

    _log = Logger()

    def __init__(
        self, client: ZooKeeperClient, tree: Tree, retry: ZkRetrySettings, clock: Any
    ) -> None:
        """
        @param retry: How often L{register} tries, and how long it waits in between.
        @param clock: Provides C{IReactorTime}.
        """
        self._client = client
        self._tree = tree
        self._retry = retry
        self._clock = clock
        # Those that are withdrawn stay in it until they are deleted.
        self._own: dict[str, _Own] = {}
        self._session: int | None = None
        self._pauses: list[Deferred[None]] = []

    async def register(self, node: ServiceNode) -> None:
        """
        Publish a node, and again whenever the server has lost it. The first
        registration of a node that fails is not kept.

        @raise Unavailable: If the server cannot be reached, or does not want to.
        @raise ValueError: If the node has no usable id.
        """
        path, data = self._tree.node(node), encode_node(node)
        if len(data) > _LARGEST:
            raise Unavailable(
                f"{path} has {len(data)} bytes of attributes, ZooKeeper takes "
                f"{_LARGEST} at most"
            )
        own = self._own.get(path)
        if own is None:
            longest = self._retry.max_sleep
            own = _Own(self._client, self._tree, path, longest, self._clock)
            self._own[path] = own
            own.wanted = False
        again, own.wanted = own.wanted, True
        own.data = data
        try:
            await self._insist(own)
        except BaseException:
            if not again and own.wanted:
                self._withdraw(own).addErrback(self._bug)
            raise

    async def _insist(self, own: _Own) -> None:
        waits = pauses(self._retry)
        while True:
            try:
                await own.settle()
            except Refusal as refusal:
                raise refusal.explained() from None
            except Unavailable:
                wait = next(waits, None)
                if wait is None or not own.wanted:
                    raise
            else:
                if own.wanted:
                    return
                raise Unavailable(f"{own.path} has been withdrawn")
            await self._pause(wait, own)

    async def _pause(self, seconds: float, own: _Own) -> None:
        pause: Deferred[None] = deferLater(self._clock, seconds)
        self._pauses.append(pause)
        try:
            await pause
        except CancelledError:
            if own.wanted:
                # The caller does not want it any more.
                raise
            raise Unavailable(f"{own.path} has been withdrawn") from None
        finally:
            self._pauses.remove(pause)

    def deregister(self, node: ServiceNode) -> Deferred[None]:
        """
        Withdraw a node: it is not wanted from now on, and deleted when the server can
        be reached. An unknown one is no error.

        @return: Fires when it is deleted or cannot be for now; never fails.
        """
        try:
            own = self._own.get(self._tree.node(node))
        except ValueError:
            own = None
        return succeed(None) if own is None else self._withdraw(own)

    def _withdraw(self, own: _Own) -> Deferred[None]:
        own.wanted = False
        own.rest()
        return own.settle().addCallbacks(
            lambda _: self._forget(own), lambda failure: self._not_deleted(own, failure)
        )

    def _not_deleted(self, own: _Own, failure: Failure) -> None:
        # If it could not be reached: next time, when the session is still the same.
        if failure.check(Unavailable):
            return
        failure.trap(Refusal)
        self._log.warn(
            "cannot delete {path}: {error}",
            path=own.path,
            error=failure.getErrorMessage(),
        )
        self._forget(own)

    def _forget(self, own: _Own) -> None:
        # Unless it has been registered again meanwhile.
        if not own.wanted and self._own.get(own.path) is own:
            del self._own[own.path]

    def connected(self, session: int) -> None:
        """
        There is a connection, for the first time or again: look after all nodes.
        """
        same, self._session = session == self._session, session
        for own in list(self._own.values()):
            if own.wanted:
                own.restore()
            elif same:
                self._withdraw(own).addErrback(self._bug)
            else:
                # It has ended with its session.
                self._forget(own)

    def clear(self) -> None:
        """
        Forget all nodes; they end with the session.
        """
        for own in self._own.values():
            own.wanted = False
            own.rest()
        self._own.clear()
        for pause in list(self._pauses):
            pause.cancel()

    def _bug(self, failure: Failure) -> None:
        self._log.failure("withdrawing a node", failure)
