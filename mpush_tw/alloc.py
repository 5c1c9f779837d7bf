"""
Composition of alloc: settings become the door that tells clients where to connect.

L{AllocDoor} is that door with everything behind it. L{NodeAlloc} is the one of a node
(C{mp.alloc.enabled}). L{AllocService} is a door with stores of its own, which C{twistd
mpush-alloc} runs beside a cluster (services A). Any number may run: none of them writes
anything.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    fail,
    maybeDeferred,
    succeed,
)
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.python.failure import Failure
from zope.interface import implementer

from mpush_tw import __version__
from mpush_tw.cluster import Stores, cluster_sender, shared_stores
from mpush_tw.config import LoadedSettings, Settings
from mpush_tw.core.alloc import (
    PUSH_TIMEOUT,
    Allocation,
    Pusher,
    PushOrder,
    PushOrders,
    make_strategy,
)
from mpush_tw.core.log import NodeLog
from mpush_tw.core.push.request import Outcome, PushRequest
from mpush_tw.errors import ConfigError, MPushError, Unavailable
from mpush_tw.extensions import Chosen, Extensions
from mpush_tw.interfaces import ICache, IPushListener, IServiceDiscovery
from mpush_tw.protocol.gateway import TimePoints
from mpush_tw.transports.alloc import (
    AllocRoot,
    alloc_site,
    browser_files,
    sender_page,
)

if TYPE_CHECKING:
    from mpush_tw.extension_context import PushDoor
    from mpush_tw.sender import BroadcastResult, PushResult, PushSender
    from mpush_tw.sender_extensions import SenderContext

__all__ = [
    "AllocDoor",
    "AllocService",
    "LocalPushes",
    "NodeAlloc",
    "SenderPushes",
    "push_rule",
]

_BACKLOG = 1024
"""
Connections that wait to be accepted: in a rush all devices of a node come at once.
"""

_PAGE = "/index.html"


class AllocDoor:
    """
    One port of alloc, and what it answers from.

    @ivar allocation: The lists.
    @ivar root: What answers.
    """

    def __init__(
        self,
        settings: Settings,
        discovery: IServiceDiscovery,
        cache: ICache,
        push: Pusher | None,
        reactor: Any,
        log: NodeLog,
    ) -> None:
        """
        @param discovery: Started by the owner before L{start}, as is C{cache}.
        @param push: Carries out test pushes, if C{mp.alloc.push-enabled}.
        @param reactor: Provides C{IReactorTCP} and C{IReactorTime}.
        @raise ConfigError: If the settings cannot be served.
        """
        alloc = settings.alloc
        self._net = settings.net
        self._reactor = reactor
        self._log = log
        self._port: Any = None
        random = Random()
        self.allocation = Allocation(
            discovery,
            cache,
            lambda: make_strategy(alloc.strategy, random),
            reactor,
            log,
            refresh_interval=alloc.refresh_interval,
            count_interval=alloc.count_interval,
            max_servers=alloc.max_servers,
        )
        pushes = alloc.push_enabled and push is not None
        self.root = AllocRoot(
            self.allocation,
            log,
            orders=PushOrders(push, log) if pushes and push is not None else None,
            push_token=alloc.push_token,
            allow_origin=alloc.allow_origin,
            pages={_PAGE: sender_page()} if pushes else None,
            files=browser_files(),
        )
        self._site = alloc_site(self.root, reactor)
        _check_protocol(settings)

    @property
    def port(self) -> int:
        """
        The number of the port; 0 while it is closed.
        """
        return 0 if self._port is None else int(self._port.getHost().port)

    @property
    def shown(self) -> str:
        """
        Where it listens, as it can be typed.
        """
        if self._port is None:
            return "closed"
        address = self._port.getHost()
        host = f"[{address.host}]" if ":" in address.host else address.host
        return f"{host}:{address.port}"

    def open(self) -> None:
        """
        Open the port. Clients that ask before L{start} are told to come again.

        @raise ConfigError: If it cannot be opened.
        """
        endpoint = self._net.alloc_server_endpoint
        try:
            if endpoint:
                self._port = self._listen_at(endpoint)
            else:
                self._port = self._reactor.listenTCP(
                    self._net.alloc_server_port,
                    self._site,
                    _BACKLOG,
                    self._net.alloc_server_bind_ip,
                )
        except CannotListenError as error:
            address = f"{error.interface or 'every address'}"
            raise ConfigError(
                f"mp.net.alloc-server-{'endpoint' if endpoint else 'port'}",
                f"port {error.port} on {address} cannot be opened: {error.socketError}",
            ) from None

    def _listen_at(self, endpoint: str) -> Any:
        key = "mp.net.alloc-server-endpoint"
        expected = "expected a Twisted server endpoint such as tcp:9999"
        try:
            listening = serverFromString(self._reactor, endpoint).listen(self._site)
        except CannotListenError:
            raise
        except Exception as error:
            # Each kind of endpoint has its own ways to refuse its arguments.
            raise ConfigError(key, f"found {endpoint}, {expected}: {error}") from None
        opened: list[Any] = []
        listening.addBoth(opened.append)
        if not opened:
            listening.cancel()
            raise ConfigError(
                key, f"found {endpoint}, expected one that opens a port at once"
            )
        (port,) = opened
        if isinstance(port, Failure):
            port.trap(CannotListenError)
            port.raiseException()
        return port

    def close(self) -> Deferred[None]:
        """
        Close the port and its connections. Idempotent.
        """
        port, self._port = self._port, None
        if port is None:
            return succeed(None)
        closed: Deferred[None] = maybeDeferred(port.stopListening)
        return closed.addCallback(lambda _: None)

    def start(self) -> Deferred[None]:
        """
        Find the servers, and go on answering until L{stop}.

        @return: A Deferred that fails with L{Unavailable} if the registry cannot be
            asked.
        """
        return Deferred.fromCoroutine(self.allocation.start())

    def stop(self) -> None:
        """
        Look for servers no more. Idempotent.
        """
        self.allocation.stop()


def _check_protocol(settings: Settings) -> None:
    net = settings.net
    if net.alloc_server_protocol == "https" and not net.alloc_server_endpoint:
        raise ConfigError(
            "mp.net.alloc-server-endpoint",
            "found nothing, expected where the certificate is, because "
            "mp.net.alloc-server-protocol is https, such as "
            f"ssl:{net.alloc_server_port}:privateKey=alloc.key:certKey=alloc.pem",
        )


# ------------------------------------------------------------------ test pushes


@implementer(IPushListener)
class LocalPushes:
    """
    Test pushes by the node that serves alloc, to the users it has itself.
    """

    def __init__(self, door: PushDoor) -> None:
        self._door = door

    def push(self, order: PushOrder) -> Deferred[str]:
        """
        Carry out an order; see L{Pusher}.
        """
        ended: Deferred[str] = Deferred()
        request = PushRequest(
            order.user_id,
            0,
            int(PUSH_TIMEOUT * 1000),
            order.content,
            None,
            None,
            order.condition,
            0,
            self,
            ended,
        )
        try:
            self._door.push(request)
        except MPushError as error:
            return fail(error)
        return ended

    def push_finished(
        self, request: PushRequest, outcome: Outcome, points: TimePoints
    ) -> None:
        ended = request.origin
        assert isinstance(ended, Deferred)
        told = outcome.value
        if request.report is not None:
            told = f"{told} {request.report}"
        ended.callback(told)


class SenderPushes:
    """
    Test pushes by a sender, to the users of all nodes.

    That the sender cannot be started does not keep alloc from answering: it is tried
    again with the next push.
    """

    def __init__(self, sender: PushSender, log: NodeLog) -> None:
        self._sender = sender
        self._log = log
        self._started = False
        self._starting: Deferred[None] | None = None
        self._waiting: list[Deferred[None]] = []
        self._stopped = False

    def begin(self) -> None:
        """
        Start the sender, and do not wait for it. That it cannot be started now is
        logged.
        """
        self.start().addErrback(self._not_yet)

    def _not_yet(self, failure: Failure) -> None:
        if not self._stopped:
            self._log.console.error(
                "test pushes are not possible yet: {error}",
                error=failure.getErrorMessage(),
            )

    def start(self) -> Deferred[None]:
        """
        Start the sender, unless it is.

        @return: A Deferred that fails with L{Unavailable} if that cannot be done now.
        """
        if self._stopped:
            return fail(Unavailable("alloc is stopping"))
        if self._started:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        if self._starting is None:
            self._starting = self._sender.start()
            self._starting.addBoth(self._start_ended)
        return waiting

    def _start_ended(self, result: Failure | None) -> None:
        self._starting = None
        self._started = result is None
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if result is None:
                one.callback(None)
            else:
                one.errback(result)

    def push(self, order: PushOrder) -> Deferred[str]:
        """
        Carry out an order; see L{Pusher}.
        """
        if self._started:
            return self._push(order)
        return self.start().addCallback(lambda _: self._push(order))

    def _push(self, order: PushOrder) -> Deferred[str]:
        from mpush_tw.sender import PushContext

        context = partial(PushContext, content=order.content)
        if order.user_id is None:
            everybody = context(condition=order.condition)
            return self._sender.broadcast(everybody).addCallback(_of_broadcast)
        one = context(user_id=order.user_id, timeout=PUSH_TIMEOUT)
        return self._sender.send(one).addCallback(_of_push)

    def stop(self) -> Deferred[None]:
        """
        Stop the sender. Idempotent.
        """
        self._stopped, self._started = True, False
        return self._sender.stop()


def _of_push(result: PushResult) -> str:
    return f"{result.code.name.lower()} {result.render()}"


def _of_broadcast(result: BroadcastResult) -> str:
    counts = f", sent to {result.counts.sent}" if result.counted else ""
    return f"{result.code.name.lower()} at {len(result.nodes)} gateways{counts}"


# ------------------------------------------------------------------ in a node


class NodeAlloc:
    """
    Alloc in a node, if that is switched on; otherwise all of this does nothing.

    The lists come from the node's own stores. Test pushes go to its own users and, in a
    cluster, through a sender to those of all nodes.
    """

    def __init__(
        self,
        loaded: LoadedSettings,
        stores: Stores,
        push_door: PushDoor,
        reactor: Any,
        log: NodeLog,
    ) -> None:
        """
        @param stores: Started by the node before L{start}, and stopped after L{stop}.
        @raise ConfigError: If the settings cannot be served.
        """
        settings = loaded.settings
        self.door: AllocDoor | None = None
        self._sender: SenderPushes | None = None
        if not settings.alloc.enabled:
            return
        push: Pusher = LocalPushes(push_door).push
        if settings.cluster and settings.alloc.push_enabled:
            self._sender = SenderPushes(cluster_sender(loaded, reactor=reactor), log)
            push = self._sender.push
        self.door = AllocDoor(
            settings, stores.discovery, stores.cache, push, reactor, log
        )

    def open(self) -> None:
        """
        Open the port; see L{AllocDoor.open}.
        """
        if self.door is not None:
            self.door.open()

    def close(self) -> Deferred[None]:
        """
        Close the port. Idempotent.
        """
        return succeed(None) if self.door is None else self.door.close()

    async def start(self) -> None:
        """
        Begin to answer. Called when the node is registered.

        @raise Unavailable: If the registry cannot be asked.
        """
        if self.door is None:
            return
        await self.door.start()
        if self._sender is not None:
            self._sender.begin()

    async def stop(self) -> None:
        """
        Close the port and look for servers no more: the node must not be handed out
        while it stops. Idempotent.
        """
        if self.door is None:
            return
        await self.door.close()
        self.door.stop()
        if self._sender is not None:
            await self._sender.stop()


# ------------------------------------------------------------ a process of its own


class AllocService(Service):
    """
    Alloc beside a cluster.

    @ivar started: Fires when it serves, fails when it cannot.
    @ivar door: Its port.
    """

    def __init__(
        self, loaded: LoadedSettings, reactor: Any, *, log: NodeLog | None = None
    ) -> None:
        """
        @raise ConfigError: If the settings cannot be served, or are those of a
            standalone node.
        """
        settings = self.settings = loaded.settings
        if not settings.cluster:
            raise ConfigError(
                "mp.zk.server-address",
                "found nothing, expected the servers of a cluster, and its Redis in "
                "mp.redis.nodes; a standalone node serves alloc itself, with "
                "mp.alloc.enabled=true",
            )
        self._loaded = loaded
        self.reactor = reactor
        self.log = log or NodeLog(settings.log_level, reactor)
        self.started: Deferred[None] = Deferred()
        self._starting: Deferred[None] | None = None
        self._stopping: Deferred[None] | None = None
        self._served = False
        self._extensions = Extensions.find(settings, reactor)
        self._stores = shared_stores(settings, reactor, self._extensions)
        # The sender has stores of its own: it starts and stops them.
        self._pushes = (
            SenderPushes(cluster_sender(loaded, reactor=reactor), self.log)
            if settings.alloc.push_enabled
            else None
        )
        self.door = AllocDoor(
            settings,
            self._stores.discovery,
            self._stores.cache,
            None if self._pushes is None else self._pushes.push,
            reactor,
            self.log,
        )

    def privilegedStartService(self) -> None:
        """
        Open the port; called by C{twistd} before it gives up its privileges.

        @raise ConfigError: If it cannot be opened.
        """
        self.door.open()

    def startService(self) -> None:
        """
        Begin to serve.
        """
        if not self.door.port:
            self.privilegedStartService()
        super().startService()  # type: ignore[no-untyped-call]
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addCallbacks(
            lambda _: self.started.callback(None), self._start_failed
        )

    def _start_failed(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            failure = Failure(MPushError("alloc was stopped while it started"))
        elif not failure.check(MPushError):
            self.log.console.failure("start failed", failure)
        self.started.errback(failure)

    async def _start(self) -> None:
        try:
            await self._extensions.start(self._context)
            await self._stores.cache.start()
            await self._stores.discovery.start()
            await self.door.start()
        except BaseException:
            await self._stop_all()
            raise
        if self._pushes is not None:
            self._pushes.begin()
        self._served = True
        self._announce()

    def _context(self, chosen: Chosen) -> SenderContext:
        """
        Give a plug-in, which provides a store, what it gets from a sender.
        """
        from mpush_tw.sender_extensions import SenderContext

        return SenderContext(
            chosen.extension.name,
            self.settings,
            self._loaded.whole,
            self._stores,
            self.reactor,
        )

    def _announce(self) -> None:
        console, settings = self.log.console, self.settings
        for notice in self._loaded.notices:
            console.notice("configuration: {notice}", notice=notice.text)
        for told in self._extensions.notices:
            console.notice("plug-ins: {notice}", notice=told)
        console.notice(
            "mpush_tw {version} alloc at {address}: {count} servers, strategy "
            "{strategy}, test pushes {pushes}; ZooKeeper at {zk} below /{namespace}",
            version=__version__,
            address=self.door.shown,
            count=len(self.door.allocation.connect.servers),
            strategy=settings.alloc.strategy,
            pushes=push_rule(settings),
            zk=settings.zk.server_address,
            namespace=settings.zk.namespace,
        )
        console.notice("=" * 20 + "ALLOC SERVER START SUCCESS" + "=" * 21)

    def stopService(self) -> Deferred[None]:
        """
        Stop answering, then disconnect; idempotent.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        if self._stopping is None:
            self._stopping = Deferred.fromCoroutine(self._stop())
        return self._stopping

    async def _stop(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
        await self._stop_all()
        if self._served:
            self.log.console.notice(
                "=" * 20 + "ALLOC SERVER STOPPED SUCCESS" + "=" * 21
            )

    async def _stop_all(self) -> None:
        await self.door.close()
        self.door.stop()
        steps: list[Callable[[], Deferred[None]]] = [
            self._stores.discovery.stop,
            self._stores.cache.stop,
            lambda: Deferred.fromCoroutine(self._extensions.stop()),
        ]
        if self._pushes is not None:
            steps.insert(0, self._pushes.stop)
        for step in steps:
            try:
                await step()
            except Exception:
                self.log.console.failure("disconnecting failed", Failure())


def push_rule(settings: Settings) -> str:
    """
    Say in words who may push test messages.
    """
    if not settings.alloc.push_enabled:
        return "off"
    return "with the token" if settings.alloc.push_token else "from this machine only"
