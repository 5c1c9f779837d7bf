"""
Composition: settings become a node.

L{Node} is the C{MultiService} that C{twistd mpush} runs and that tests and embedding
programs start. Start: stores, routing and push centre are ready, then the ports open,
then the node is registered. Stop: deregister, stop accepting, let pending pushes end,
close the clients at a chosen pace, and only then take the rest down (DESIGN 5.13).
"""

from __future__ import annotations

import resource
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    gatherResults,
    maybeDeferred,
)
from twisted.internet.error import CannotListenError, ReactorNotRunning
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from mpush_tw.alloc import NodeAlloc
from mpush_tw.config import LoadedSettings
from mpush_tw.config import addresses as node_addresses
from mpush_tw.core.alloc import registered_attributes
from mpush_tw.core.connection import Connection
from mpush_tw.core.events import Events
from mpush_tw.core.extension_metrics import ExtensionMetrics
from mpush_tw.core.flow import GlobalFlow
from mpush_tw.core.handlers import Dispatcher
from mpush_tw.core.handlers.bind import BindHandler
from mpush_tw.core.handlers.handshake import HandshakeHandler
from mpush_tw.core.handlers.heartbeat import HeartbeatHandler
from mpush_tw.core.handlers.http_proxy import proxy_is_off
from mpush_tw.core.handlers.push import PushHandler
from mpush_tw.core.handlers.web_handshake import WebHandshakeHandler
from mpush_tw.core.log import NodeLog
from mpush_tw.core.metrics import DoorMetrics, NodeMetrics
from mpush_tw.core.push.broadcast_centre import BroadcastCentre, BroadcastLimits
from mpush_tw.core.push.centre import PushCentre
from mpush_tw.core.push.conditions import ScriptHost, condition_for
from mpush_tw.core.push.listeners import BothListeners, SafeListener
from mpush_tw.core.push.message_ids import MessageIds
from mpush_tw.core.push.traces import Traces
from mpush_tw.core.registry import Admission, Connections
from mpush_tw.core.routing.kicks import KickMessages
from mpush_tw.core.routing.local import LocalRoutes
from mpush_tw.core.routing.online import OnlineUsers
from mpush_tw.core.routing.remote import NodeIdentity, RemoteRoutes
from mpush_tw.core.routing.repair import StoreRepair
from mpush_tw.core.routing.router import Router
from mpush_tw.core.sessions import ReusableSessions
from mpush_tw.core.wheel import TimingWheel
from mpush_tw.errors import ConfigError, MPushError, Unavailable
from mpush_tw.extension_context import NodeContext, PushDoor, plug_in_logger
from mpush_tw.extensions import (
    PUSH_LISTENER,
    Chosen,
    Extension,
    Extensions,
    built_in,
)
from mpush_tw.interfaces import (
    ConnectionClosed,
    ConnectionOpened,
    IExecutor,
    IPushListener,
    ServerStarted,
    ServerStopping,
    ServiceNode,
)
from mpush_tw.parts import choose_parts
from mpush_tw.protocol.commands import Command
from mpush_tw.protocol.gateway import GatewayKick
from mpush_tw.start_notices import announce
from mpush_tw.transports.admin import AdminFactory
from mpush_tw.transports.connect import ConnectDoor, ConnectFactory
from mpush_tw.transports.gateway import GatewayDoor, GatewayFactory
from mpush_tw.transports.gateway_udp import DatagramGateway
from mpush_tw.transports.metrics import metrics_site
from mpush_tw.transports.web_pages import load_pages
from mpush_tw.transports.write_through import ListeningService, OutboundLimits
from mpush_tw.web_proxy import WebProxy

_UNLIMITED_FILES = 1_000_000
_RESERVED_FILES = 256
_DRAIN_STEP = 0.1
_SETTLE_SECONDS = 5.0
_EXECUTOR_SECONDS = 6.0


class Node(MultiService):
    """
    One push server.

    @ivar started: Fires when the node serves, fails when it cannot.
    @ivar parts: What serves at each extension point.
    """

    def __init__(
        self,
        loaded: LoadedSettings,
        reactor: Any,
        *,
        log: NodeLog | None = None,
        extensions: Sequence[Extension] = (),
    ) -> None:
        """
        @param extensions: Plug-ins that a program brings along, beside those that are
            installed.
        @raise ConfigError: If the settings cannot be served.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        settings = loaded.settings
        self.loaded = loaded
        self.settings = settings
        self.reactor = self.clock = reactor
        self.config_tree = loaded.tree
        self.local_ip = node_addresses.local_ip(settings)
        self.log = log or NodeLog(settings.log_level, reactor)
        self.started: Deferred[None] = Deferred()
        self._starting: Deferred[None] | None = None
        self._stopping: Deferred[None] | None = None
        self._ending: set[Deferred[None]] = set()
        self._shared_list = False
        self._node_id = str(uuid.uuid4())
        self.extensions = Extensions.find(settings, reactor, extensions)
        self.parts = choose_parts(self.extensions, settings, reactor)
        self.key = self.parts.key

        self.metrics = NodeMetrics()
        self.metrics.sample_key = self.key is not None and self.key.is_sample
        self.extension_metrics = ExtensionMetrics()
        self.events = Events(reactor)
        self.wheel = TimingWheel(reactor)
        self.stores = self.parts.stores
        self.cache = self.stores.cache
        self.queue = self.stores.queue
        self.registry = self.stores.registry
        self.discovery = self.stores.discovery
        self._build_routing()
        self._build_push()
        self._build_http()
        self._build_connect()
        self._build_websocket()
        self._build_gateway()
        self._build_alloc()
        self._build_operations()
        for listener in self.parts.listeners:
            self.events.subscribe(listener.event_occurred)

    # ------------------------------------------------------------- assembly

    def _build_routing(self) -> None:
        settings = self.settings
        self.identity = NodeIdentity(
            node_addresses.gateway_register_ip(settings),
            settings.net.gateway_server_port,
        )
        self.local_routes = LocalRoutes()
        self.remote_routes = RemoteRoutes(self.cache)
        self.router = Router(
            self.identity,
            self.local_routes,
            self.remote_routes,
            self.parts.classifier,
            self.events,
            self.log,
            self.metrics,
            settings.limits.max_per_user,
            self._send_kick,
        )
        self.kicks = KickMessages(
            self.queue, self.identity, self.router.kick_requested, self.log
        )
        self.online = OnlineUsers(
            self.cache,
            self.queue,
            self.remote_routes,
            node_addresses.public_ip(settings),
            self.log,
        )
        self.events.subscribe(self.online.event_occurred)
        self.repair = StoreRepair(
            self.router,
            self.online,
            self._other_gateways,
            lambda: not self._shared_list,
            self.log,
            self.metrics,
        )
        self.cache.on_restored(self.repair.store_restored)
        self.sessions = ReusableSessions(
            self.cache, int(settings.core.session_expired_time)
        )

    def _send_kick(self, kick: GatewayKick) -> None:
        if isinstance(self.gateway_listener, DatagramGateway):
            self.gateway_listener.send_kick(kick)
        else:
            self.kicks.send(kick)

    async def _other_gateways(self) -> list[tuple[str, int]]:
        own = self.identity.host, self.identity.port
        nodes = await self.discovery.lookup("/cluster/gs")
        return [
            (node.host, node.port) for node in nodes if (node.host, node.port) != own
        ]

    def _build_push(self) -> None:
        push = self.settings.push
        limit = push.flow_control.global_
        self.flow = GlobalFlow(self.reactor, limit.limit, limit.max, limit.duration)
        ids = MessageIds()
        self.traces = Traces(self.reactor, push.trace.keep, push.trace.max)
        limits = push.flow_control.broadcast
        self.scripts = ScriptHost()
        self.broadcasts = BroadcastCentre(
            self.local_routes,
            self.cache,
            BroadcastLimits(limits.limit, limits.max, limits.duration),
            partial(condition_for, tags_match=push.tags_match, scripts=self.scripts),
            ids,
            self.traces,
            self.settings.core.compress_threshold,
            self.reactor,
            self.log,
            self.metrics,
        )
        self.centre = PushCentre(
            self.identity,
            self.local_routes,
            self.remote_routes,
            self.flow,
            self.wheel,
            self.reactor,
            self.log,
            self.metrics,
            ids,
            self.broadcasts,
            self.traces,
        )

    def _build_http(self) -> None:
        self.web_proxy: WebProxy | None = None
        if self.settings.http.proxy_enabled:
            self.web_proxy = WebProxy(
                self.settings,
                self.parts.dns_mapping,
                self.wheel,
                self.reactor,
                self.log,
                self.metrics,
            )

    def _build_connect(self) -> None:
        settings, log, metrics = self.settings, self.log, self.metrics
        core, limits, net = settings.core, settings.limits, settings.net
        self.connections = Connections(
            self.wheel,
            self.reactor,
            log,
            metrics,
            metrics.conn,
            limits.handshake_timeout,
            limits.max_unsecured,
            core.max_hb_timeout_times,
        )
        handshake = HandshakeHandler(
            self.sessions,
            self.router,
            self.reactor,
            log,
            metrics,
            core.min_heartbeat,
            core.max_heartbeat,
            self.connections.secured,
        )
        self.dispatcher = self._commands(metrics.conn, handshake)
        self.admission = Admission(
            limits.max_connections or self._room_for_clients(), limits.max_per_address
        )
        self.connect_door = ConnectDoor(
            self.parts.cipher,
            self.connections,
            self.admission,
            self.dispatcher,
            self._connection_closed,
            self.reactor,
            log,
            metrics,
            core.max_packet_size,
            core.compress_threshold,
            limits.max_inflated_size,
            settings.security.require_crypto,
            self._connection_opened,
        )
        marks = net.write_buffer_water_mark
        self.connect_listener = ListeningService(
            self.reactor,
            net.connect_server_port,
            net.connect_server_bind_ip,
            ConnectFactory(self.connect_door),
            OutboundLimits(
                marks.connect_server_low,
                marks.connect_server_high,
                limits.max_outbound,
            ),
            "mp.net.connect-server-port",
            net.snd_buf.connect_server,
            net.rcv_buf.connect_server,
            limits.accept_rate,
        )
        self.connect_listener.setName("connect")  # type: ignore[no-untyped-call]
        self.connect_listener.setServiceParent(self)  # type: ignore[no-untyped-call]

    def _room_for_clients(self) -> int:
        """
        Give the number of clients that the process's file limit allows, apart from
        what the HTTP proxy needs.
        """
        limit = _file_limit()
        http = self.settings.http
        return limit - (min(http.max_requests, limit // 4) if self.web_proxy else 0)

    def _commands(
        self, door_metrics: DoorMetrics, handshake: HandshakeHandler
    ) -> Dispatcher:
        """
        Make the table of a door for devices.
        """
        log, metrics, parts = self.log, self.metrics, self.parts
        bind = BindHandler(self.router, parts.validator, self.reactor, log, metrics)
        push = PushHandler(parts.upstream, self.centre, self.reactor, log, metrics)
        heartbeat = HeartbeatHandler(log, metrics)
        late = not self.settings.security.allow_before_handshake
        table = Dispatcher(log, door_metrics)
        table.register(Command.HEARTBEAT, heartbeat.heartbeat_received)
        table.register(Command.HANDSHAKE, handshake.handshake_received)
        table.register(Command.FAST_CONNECT, handshake.fast_connect_received)
        table.register(Command.BIND, bind.bind_received)
        table.register(Command.UNBIND, bind.unbind_received)
        table.register(Command.PUSH, push.push_received, after_handshake=late)
        table.register(Command.ACK, push.ack_received, after_handshake=late)
        proxy = self.web_proxy
        http = proxy.handler.request_received if proxy else proxy_is_off
        table.register(Command.HTTP_PROXY, http, after_handshake=late)
        return table

    def _build_websocket(self) -> None:
        settings, log, metrics = self.settings, self.log, self.metrics
        core, limits, net = settings.core, settings.limits, settings.net
        self.websocket_listener: ListeningService | None = None
        self.web_connections = Connections(
            self.wheel,
            self.reactor,
            log,
            metrics,
            metrics.ws,
            limits.handshake_timeout,
            limits.max_unsecured,
            core.max_hb_timeout_times,
        )
        if net.ws_server_port <= 0:
            return
        # Not at the top: a node without this door saves autobahn's 20 MB.
        from mpush_tw.transports.websocket import (
            MAX_MESSAGE,
            Front,
            WebSocketDoor,
            WebSocketFactory,
        )

        handshake = WebHandshakeHandler(
            self.sessions,
            self.router,
            self.reactor,
            log,
            metrics,
            core.min_heartbeat,
            core.max_heartbeat,
            self.web_connections.secured,
            net.ws_ping_interval,
        )
        door = WebSocketDoor(
            front=Front(net.ws_path.encode(), load_pages(), net.ws_allowed_origins),
            connections=self.web_connections,
            admission=self.admission,
            dispatcher=self._commands(metrics.ws, handshake),
            closed=self._connection_closed,
            opened=self._connection_opened,
            wheel=self.wheel,
            clock=self.reactor,
            log=log,
            metrics=metrics,
            max_message=max(MAX_MESSAGE, core.max_packet_size),
            compress_threshold=core.compress_threshold,
            max_missed=core.max_hb_timeout_times,
            json=self.parts.json,
        )
        marks = net.write_buffer_water_mark
        self.websocket_listener = ListeningService(
            self.reactor,
            net.ws_server_port,
            net.ws_server_bind_ip,
            WebSocketFactory(door),
            OutboundLimits(
                marks.connect_server_low,
                marks.connect_server_high,
                limits.max_outbound,
            ),
            "mp.net.ws-server-port",
            net.snd_buf.connect_server,
            net.rcv_buf.connect_server,
            limits.accept_rate,
        )
        self.websocket_listener.setName("websocket")  # type: ignore[no-untyped-call]
        self.websocket_listener.setServiceParent(self)  # type: ignore[no-untyped-call]

    @property
    def device_listeners(self) -> list[ListeningService]:
        """
        The ports that clients come to.
        """
        if self.websocket_listener is None:
            return [self.connect_listener]
        return [self.connect_listener, self.websocket_listener]

    def _build_gateway(self) -> None:
        settings = self.settings
        net, core = settings.net, settings.core
        self.gateway_door = GatewayDoor(
            self.centre,
            self.reactor,
            self.log,
            self.metrics.gateway,
            core.max_packet_size,
            settings.limits.max_inflated_size,
            net.gateway_allowed_peers,
            self.events.post,
        )
        self._build_push_listener()
        self.gateway_listener: ListeningService | DatagramGateway
        if net.gateway_server_net == "udp":
            self.gateway_listener = self._datagram_gateway()
        else:
            self.gateway_listener = self._stream_gateway()
        self.gateway_listener.setName("gateway")  # type: ignore[no-untyped-call]
        self.gateway_listener.setServiceParent(self)  # type: ignore[no-untyped-call]

    def _build_push_listener(self) -> None:
        """
        Let a plug-in push, and hear how pushes of senders end once these have been
        answered.
        """
        door = self.gateway_door
        answers = door.listener
        self.push_door = PushDoor(
            self.centre, self.log, self.settings.core.max_packet_size
        )
        listener = self.extensions.choose(
            PUSH_LISTENER, built_in(IPushListener, "gateway", lambda: answers)
        )
        if listener is not answers:
            door.listener = BothListeners(answers, SafeListener(listener, self.log))

    def _context(self, chosen: Chosen) -> NodeContext:
        name, stores = chosen.extension.name, self.stores
        return NodeContext(
            name,
            self.settings,
            self.reactor,
            plug_in_logger(name, self.log),
            stores.cache,
            stores.queue,
            stores.registry,
            stores.discovery,
            self.events,
            self.extension_metrics,
            self.identity,
            self.loaded.whole,
            self.executor,
            self.push_door,
        )

    def _stream_gateway(self) -> ListeningService:
        net = self.settings.net
        marks = net.write_buffer_water_mark
        high = marks.gateway_server_high or 20 << 20
        return ListeningService(
            self.reactor,
            net.gateway_server_port,
            node_addresses.gateway_bind_ip(self.settings),
            GatewayFactory(self.gateway_door),
            OutboundLimits(marks.gateway_server_low or high // 2, high, 0),
            "mp.net.gateway-server-port",
            net.snd_buf.gateway_server,
            net.rcv_buf.gateway_server,
            keep_alive=True,
        )

    def _datagram_gateway(self) -> DatagramGateway:
        net = self.settings.net
        return DatagramGateway(
            self.gateway_door,
            self.reactor,
            net.gateway_server_port,
            net.gateway_server_multicast,
            node_addresses.multicast_ip(self.settings),
            self.router.kick_requested,
            net.snd_buf.gateway_server,
            net.rcv_buf.gateway_server,
        )

    def _build_alloc(self) -> None:
        """
        Tell clients where to connect, if that is asked of this node.
        """
        self.alloc = NodeAlloc(
            self.loaded, self.stores, self.push_door, self.reactor, self.log
        )

    def _build_operations(self) -> None:
        self.ports: list[Any] = []
        self.sites: list[tuple[str, int, str, Any]] = []
        net = self.settings.net
        self.sites.append(
            (
                "mp.net.admin-server-port",
                net.admin_server_port,
                net.admin_server_bind_ip,
                AdminFactory(self, net.admin_server_password, net.admin_server_bind_ip),
            )
        )
        if net.metrics_server_port > 0:
            self.sites.append(
                (
                    "mp.net.metrics-server-port",
                    net.metrics_server_port,
                    net.metrics_server_bind_ip,
                    metrics_site(self),
                )
            )

    @property
    def executor(self) -> IExecutor:
        """
        What runs calls that block.
        """
        return self.parts.executor

    @property
    def gateway_connections(self) -> int:
        """
        How many senders are connected.
        """
        return len(self.gateway_door.connections)

    # ---------------------------------------------------------------- start

    def privilegedStartService(self) -> None:
        """
        Open the ports; called by C{twistd} before it gives up its privileges. Who
        connects waits in the kernel until the node is ready (DESIGN 5.13).

        @raise ConfigError: If one cannot be opened; those that were are closed again.
        """
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        try:
            self._open_ports()
        except ConfigError:
            self._close_ports()
            raise

    def _open_ports(self) -> None:
        for key, number, interface, factory in self.sites:
            try:
                self.ports.append(
                    self.reactor.listenTCP(number, factory, 50, interface)
                )
            except CannotListenError as error:
                raise ConfigError(
                    key,
                    f"port {number} on {interface or 'every address'} cannot be "
                    f"opened: {error.socketError}",
                ) from None
        self.gateway_listener.open()
        self.gateway_listener.pause()
        self.identity.port = self.gateway_listener.port
        for listener in self.device_listeners:
            listener.open()
            listener.pause()
        self.alloc.open()

    def _close_ports(self) -> Deferred[Any]:
        ports, self.ports = self.ports, []
        return gatherResults(
            [
                *(listener.close() for listener in self.device_listeners),
                self.gateway_listener.close(),
                self.alloc.close(),
                *(maybeDeferred(port.stopListening) for port in ports),
            ]
        )

    def startService(self) -> None:
        """
        Begin to serve.
        """
        if not self.gateway_listener.port:
            self.privilegedStartService()
        super().startService()  # type: ignore[no-untyped-call]
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addCallbacks(
            lambda _: self.started.callback(None), self._start_failed
        )

    def _start_failed(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            failure = Failure(MPushError("the node was stopped while it started"))
        elif not failure.check(MPushError):
            self.log.console.failure("start failed", failure)
        self.started.errback(failure)

    async def _start(self) -> None:
        try:
            await self._start_extensions()
            await self._connect_stores()
            if self.web_proxy is not None:
                await self.web_proxy.start()
            for listener in self.device_listeners:
                listener.resume()
            self.gateway_listener.resume()
            for node in self._service_nodes():
                await self.registry.register(node)
            await self.alloc.start()
            if isinstance(self.gateway_listener, DatagramGateway):
                await self._test_multicast(self.gateway_listener)
        except Exception:
            await self._close_ports()
            await self.alloc.stop()
            await self._stop_http()
            await self._stop_stores()
            await self._stop_extensions()
            raise
        announce(self)
        self.push_door.open = True
        self.events.post(ServerStarted())

    async def _start_extensions(self) -> None:
        for notice in self.extensions.notices:
            self.log.console.notice("plug-ins: {notice}", notice=notice)
        await self.extensions.start(self._context)

    async def _connect_stores(self) -> None:
        await self.cache.start()
        await self.queue.start()
        await self.registry.start()
        await self.stores.discovery.start()
        if not isinstance(self.gateway_listener, DatagramGateway):
            await self.kicks.listen()
        self._shared_list = not await self._alone_at_its_address()
        if not self._shared_list:
            await self.online.clear()

    async def _alone_at_its_address(self) -> bool:
        """
        Whether the online list of this machine's public address is this node's alone;
        other nodes' users are not taken off it (C-11).
        """
        public_ip = node_addresses.public_ip(self.settings)
        own_port = self.connect_listener.port
        for node in await self.discovery.lookup("/cluster/cs"):
            shown = (node.attributes or {}).get("public_ip", node.host)
            # The same port is this node itself, before it was killed.
            if shown == public_ip and node.port != own_port:
                self.log.console.notice(
                    "WARNING: {other} has the same public address as this node, "
                    "{address}; they share one list of online users. Give each node an "
                    "address of its own (mp.net.public-ip)",
                    other=f"{node.host}:{node.port}",
                    address=public_ip,
                )
                return False
        return True

    async def _test_multicast(self, gateway: DatagramGateway) -> None:
        if not await gateway.self_test():
            self.log.console.notice(
                "WARNING: multicast to {group} does not work on this machine: "
                "broadcasts of senders will not arrive. Pushes to users do. Use "
                "mp.net.gateway-server-net=tcp, or see that the network carries it",
                group=self.settings.net.gateway_server_multicast,
            )

    def _service_nodes(self) -> list[ServiceNode]:
        net = self.settings.net
        device_ip = node_addresses.connect_register_ip(self.settings)
        pages = self.websocket_listener
        return [
            ServiceNode(
                "/cluster/cs",
                device_ip,
                self.connect_listener.port,
                registered_attributes(
                    net.connect_server_register_attr,
                    device_ip,
                    node_addresses.public_ip(self.settings),
                ),
                self._node_id,
            ),
            ServiceNode(
                "/cluster/gs",
                self.identity.host,
                self.identity.port,
                None,
                self._node_id,
            ),
            *(
                [ServiceNode("/cluster/ws", device_ip, pages.port, None, self._node_id)]
                if pages is not None
                else []
            ),
        ]

    async def _for_devices(self, step: Callable[[ServiceNode], Deferred[None]]) -> None:
        for node in self._service_nodes():
            if node.service != "/cluster/gs":
                await step(node)

    def withdraw(self) -> Deferred[None]:
        """
        Take this node off the list that new devices get; those that are connected stay,
        and senders reach them as before.
        """
        return Deferred.fromCoroutine(self._for_devices(self.registry.deregister))

    def return_to_list(self) -> Deferred[None]:
        """
        Undo L{withdraw}.
        """
        return Deferred.fromCoroutine(self._for_devices(self.registry.register))

    # ----------------------------------------------------------------- stop

    def stopService(self) -> Deferred[None]:
        """
        Stop in order; idempotent.
        """
        if self._stopping is None:
            self._stopping = Deferred.fromCoroutine(self._stop())
        return self._stopping

    async def _stop(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
        self.push_door.open = False
        self.events.post(ServerStopping())
        # Now: listeners hear of it before anything is withdrawn.
        self.events.flush()
        await self.alloc.stop()
        for node in self._service_nodes():
            await self._attempt("withdrawing a node", self.registry.deregister(node))
        for listener in self.device_listeners:
            await listener.close()
        await self._end_pushes()
        await self._close_clients()
        await self._stop_http()
        for sender in list(self.gateway_door.connections):
            sender.close()
        self.wheel.stop()
        self.scripts.close()
        await self._settle_routes()
        await self._close_ports()
        await super().stopService()  # type: ignore[no-untyped-call]
        await self._stop_stores()
        await self._stop_extensions()
        self.log.console.notice("=" * 20 + "MPUSH SERVER STOPPED SUCCESS" + "=" * 19)

    async def _end_pushes(self) -> None:
        """
        Let pushes end that wait for an acknowledgement, for as long as it is granted.
        """
        deadline = self.clock.seconds() + self.settings.core.shutdown_grace
        while self.centre.acks.waiting or self.centre.delayed:
            if self.clock.seconds() >= deadline:
                break
            await deferLater(self.reactor, _DRAIN_STEP)
        self.centre.stop()

    async def _close_clients(self) -> None:
        """
        Close the clients' connections, so many a second.
        """
        rate = self.settings.core.drain_rate
        step = max(1, int(rate * _DRAIN_STEP)) if rate else 0
        doors = (self.connections, self.web_connections)
        waiting = [connection for door in doors for connection in door]
        while waiting:
            now, waiting = (waiting[:step], waiting[step:]) if step else (waiting, [])
            for connection in now:
                connection.close("stop")
            if waiting:
                await deferLater(self.reactor, _DRAIN_STEP)
        for _ in range(20):
            if not any(len(door) for door in doors):
                break
            await deferLater(self.reactor, 0.05)
        for door in doors:
            for connection in door:
                connection.abort("stop")

    async def _stop_http(self) -> None:
        if self.web_proxy is not None:
            await self.web_proxy.stop()

    async def _settle_routes(self) -> None:
        """
        Wait until the store knows that this node's users have left (cluster 8.2).
        """
        self.repair.stop()
        deadline = self.clock.seconds() + _SETTLE_SECONDS
        while self.clock.seconds() < deadline:
            self.events.flush()
            if not self._ending and not self.online.busy:
                break
            await deferLater(self.reactor, 0.01)
        self.events.flush()
        if self.started.called and not self._shared_list:
            await self._attempt("deleting the online list", self.online.clear())

    async def _stop_stores(self) -> None:
        stores = self.stores
        for name, stop in (
            ("the registry", stores.registry.stop),
            ("the discovery", stores.discovery.stop),
            ("the queue", stores.queue.stop),
            ("the store", stores.cache.stop),
        ):
            await self._attempt(f"disconnecting {name}", stop())

    async def _stop_extensions(self) -> None:
        """
        End the plug-ins, and the threads in which they may be waiting.
        """
        await self.extensions.stop()
        stopped = maybeDeferred(self.executor.stop)
        try:
            await stopped.addTimeout(_EXECUTOR_SECONDS, self.reactor)
        except Exception:
            self.log.console.failure("the executor did not stop", Failure())

    async def _attempt(self, what: str, step: Deferred[None]) -> None:
        """
        Take one step of a stop; what it depends on may be away.
        """
        try:
            await step
        except Unavailable as error:
            self.log.console.error("{what} failed: {error}", what=what, error=error)

    def shut_down(self) -> None:
        """
        End the process, by the same way as a signal; the console's C{shutdown}.
        """

        def stop() -> None:
            with suppress(ReactorNotRunning):
                # Asked twice, it stops once.
                self.reactor.stop()

        self.reactor.callLater(0, stop)

    # ---------------------------------------------------------------- events

    def _connection_opened(self, connection: Connection) -> None:
        self.events.post(ConnectionOpened(connection.door, connection.id))

    def _connection_closed(self, connection: Connection) -> Deferred[None]:
        user_id = connection.user_id
        self.centre.connection_lost(connection)
        if self.web_proxy is not None:
            self.web_proxy.handler.connection_lost(connection)

        def failed(failure: Failure) -> None:
            self.log.general.error(
                "routes of {conn} not cleaned up: {error}",
                conn=connection,
                error=failure.value,
            )

        def ended(result: None) -> None:
            self.events.post(
                ConnectionClosed(
                    connection.door, connection.id, connection.device_id, user_id
                )
            )

        done = Deferred.fromCoroutine(self.router.unbind(connection))
        done.addErrback(failed).addCallback(ended)
        if not done.called:
            self._ending.add(done)

            def settled(result: None) -> None:
                self._ending.discard(done)

            done.addCallback(settled)
        return done


def _file_limit() -> int:
    """
    How many connections the process's file limit leaves room for.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _UNLIMITED_FILES
    return max(64, soft - _RESERVED_FILES)
