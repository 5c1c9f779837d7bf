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
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ReactorNotRunning
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from mpush_tw import __version__
from mpush_tw.client_types import DefaultClassifier
from mpush_tw.config import LoadedSettings
from mpush_tw.config import addresses as node_addresses
from mpush_tw.core.connection import Connection
from mpush_tw.core.defaults import AcceptEveryBind, DropUpstream
from mpush_tw.core.events import Events
from mpush_tw.core.flow import GlobalFlow
from mpush_tw.core.handlers import Dispatcher
from mpush_tw.core.handlers.bind import BindHandler
from mpush_tw.core.handlers.handshake import HandshakeHandler
from mpush_tw.core.handlers.heartbeat import HeartbeatHandler
from mpush_tw.core.handlers.http_proxy import proxy_is_off
from mpush_tw.core.handlers.push import PushHandler
from mpush_tw.core.log import NodeLog
from mpush_tw.core.metrics import NodeMetrics
from mpush_tw.core.push.centre import PushCentre
from mpush_tw.core.registry import Admission, Connections
from mpush_tw.core.routing.local import LocalRoutes
from mpush_tw.core.routing.online import OnlineUsers
from mpush_tw.core.routing.remote import NodeIdentity, RemoteRoutes
from mpush_tw.core.routing.router import Router
from mpush_tw.core.sessions import ReusableSessions
from mpush_tw.core.wheel import TimingWheel
from mpush_tw.errors import ConfigError
from mpush_tw.integrations.memory import MemoryCache, MemoryQueue, MemoryRegistry
from mpush_tw.interfaces import (
    ConnectionClosed,
    IBindValidator,
    IClientClassifier,
    IUpstreamHandler,
    ServerStarted,
    ServerStopping,
    ServiceNode,
)
from mpush_tw.keys import node_key
from mpush_tw.protocol.commands import Command
from mpush_tw.transports.admin import AdminFactory
from mpush_tw.transports.connect import ConnectDoor, ConnectFactory
from mpush_tw.transports.gateway import GatewayDoor, GatewayFactory
from mpush_tw.transports.metrics import metrics_site
from mpush_tw.transports.write_through import ListeningService, OutboundLimits

_UNLIMITED_FILES = 1_000_000
_RESERVED_FILES = 256
_DRAIN_STEP = 0.1


class Node(MultiService):
    """
    One push server.

    @ivar started: Fires when the node serves, fails when it cannot.
    """

    def __init__(
        self,
        loaded: LoadedSettings,
        reactor: Any,
        *,
        log: NodeLog | None = None,
        validator: IBindValidator | None = None,
        classifier: IClientClassifier | None = None,
        upstream: IUpstreamHandler | None = None,
    ) -> None:
        """
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
        self._stopping: Deferred[None] | None = None
        self._node_id = str(uuid.uuid4())
        if settings.cluster:
            raise ConfigError(
                "mp.redis.nodes",
                "this version runs standalone only; leave mp.redis.nodes and "
                "mp.zk.server-address empty",
            )
        if settings.net.gateway_server_net != "tcp":
            raise ConfigError(
                "mp.net.gateway-server-net", "this version has only the tcp gateway"
            )
        self.key, self._key_is_new = node_key(settings)

        self.metrics = NodeMetrics()
        self.metrics.sample_key = self.key.is_sample
        self.events = Events(reactor)
        self.wheel = TimingWheel(reactor)
        self.cache = MemoryCache(reactor)
        self.queue = MemoryQueue(reactor)
        self.registry = MemoryRegistry()
        self._build_routing(classifier or DefaultClassifier())
        self._build_push()
        self._build_connect(validator or AcceptEveryBind(), upstream or DropUpstream())
        self._build_gateway()
        self._build_operations()

    # ------------------------------------------------------------- assembly

    def _build_routing(self, classifier: IClientClassifier) -> None:
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
            classifier,
            self.events,
            self.log,
            self.metrics,
            settings.limits.max_per_user,
        )
        self.online = OnlineUsers(
            self.cache,
            self.queue,
            self.remote_routes,
            node_addresses.public_ip(settings),
            self.log,
        )
        self.events.subscribe(self.online.event_occurred)
        self.sessions = ReusableSessions(
            self.cache, int(settings.core.session_expired_time)
        )

    def _build_push(self) -> None:
        limit = self.settings.push.flow_control.global_
        self.flow = GlobalFlow(self.reactor, limit.limit, limit.max, limit.duration)
        self.centre = PushCentre(
            self.identity,
            self.local_routes,
            self.remote_routes,
            self.flow,
            self.wheel,
            self.reactor,
            self.log,
            self.metrics,
        )

    def _build_connect(
        self, validator: IBindValidator, upstream: IUpstreamHandler
    ) -> None:
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
        bind = BindHandler(self.router, validator, self.reactor, log, metrics)
        push = PushHandler(upstream, self.centre, self.reactor, log, metrics)
        heartbeat = HeartbeatHandler(log, metrics)
        late = not settings.security.allow_before_handshake
        table = Dispatcher(log, metrics.conn)
        table.register(Command.HEARTBEAT, heartbeat.heartbeat_received)
        table.register(Command.HANDSHAKE, handshake.handshake_received)
        table.register(Command.FAST_CONNECT, handshake.fast_connect_received)
        table.register(Command.BIND, bind.bind_received)
        table.register(Command.UNBIND, bind.unbind_received)
        table.register(Command.PUSH, push.push_received, after_handshake=late)
        table.register(Command.ACK, push.ack_received, after_handshake=late)
        table.register(Command.HTTP_PROXY, proxy_is_off, after_handshake=late)
        self.dispatcher = table
        self.connect_door = ConnectDoor(
            self.key,
            self.connections,
            Admission(limits.max_connections or _file_limit(), limits.max_per_address),
            table,
            self._connection_closed,
            self.reactor,
            log,
            metrics,
            core.max_packet_size,
            core.compress_threshold,
            limits.max_inflated_size,
            settings.security.require_crypto,
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
        )
        marks = net.write_buffer_water_mark
        high = marks.gateway_server_high or 20 << 20
        self.gateway_listener = ListeningService(
            self.reactor,
            net.gateway_server_port,
            node_addresses.gateway_bind_ip(settings),
            GatewayFactory(self.gateway_door),
            OutboundLimits(marks.gateway_server_low or high // 2, high, 0),
            "mp.net.gateway-server-port",
            net.snd_buf.gateway_server,
            net.rcv_buf.gateway_server,
            keep_alive=True,
        )
        self.gateway_listener.setName("gateway")  # type: ignore[no-untyped-call]
        self.gateway_listener.setServiceParent(self)  # type: ignore[no-untyped-call]

    def _build_operations(self) -> None:
        self._ports: list[Any] = []
        self._sites: list[tuple[str, int, str, Any]] = []
        net = self.settings.net
        self._sites.append(
            (
                "mp.net.admin-server-port",
                net.admin_server_port,
                net.admin_server_bind_ip,
                AdminFactory(self, net.admin_server_password, net.admin_server_bind_ip),
            )
        )
        if net.metrics_server_port > 0:
            self._sites.append(
                (
                    "mp.net.metrics-server-port",
                    net.metrics_server_port,
                    net.metrics_server_bind_ip,
                    metrics_site(self),
                )
            )

    @property
    def gateway_connections(self) -> int:
        """
        How many senders are connected.
        """
        return len(self.gateway_door.connections)

    # ---------------------------------------------------------------- start

    def privilegedStartService(self) -> None:
        """
        Open the ports; called by C{twistd} before it gives up its privileges.

        @raise ConfigError: If one cannot be opened; those that were are closed again.
        """
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        try:
            self._open_ports()
        except ConfigError:
            for port in self._ports:
                port.stopListening()
            self._ports.clear()
            self.connect_listener.close()
            self.gateway_listener.close()
            raise

    def _open_ports(self) -> None:
        for key, number, interface, factory in self._sites:
            try:
                self._ports.append(
                    self.reactor.listenTCP(number, factory, 50, interface)
                )
            except CannotListenError as error:
                raise ConfigError(
                    key,
                    f"port {number} on {interface or 'every address'} cannot be "
                    f"opened: {error.socketError}",
                ) from None
        self.gateway_listener.open()
        self.identity.port = self.gateway_listener.port
        self.connect_listener.open()

    def startService(self) -> None:
        """
        Begin to serve.
        """
        if not self.gateway_listener.port:
            self.privilegedStartService()
        super().startService()  # type: ignore[no-untyped-call]
        starting = Deferred.fromCoroutine(self._start())
        starting.addErrback(self._start_failed)

    def _start_failed(self, failure: Failure) -> None:
        self.log.console.failure("start failed", failure)
        self.started.errback(failure)

    async def _start(self) -> None:
        await self.online.clear()
        for node in self._service_nodes():
            await self.registry.register(node)
        self._announce()
        self.events.post(ServerStarted())
        self.started.callback(None)

    def _service_nodes(self) -> list[ServiceNode]:
        net = self.settings.net
        return [
            ServiceNode(
                "/cluster/cs",
                node_addresses.connect_register_ip(self.settings),
                self.connect_listener.port,
                dict(net.connect_server_register_attr),
                self._node_id,
            ),
            ServiceNode(
                "/cluster/gs",
                self.identity.host,
                self.identity.port,
                None,
                self._node_id,
            ),
        ]

    def _announce(self) -> None:
        console = self.log.console
        open_doors = {
            site[0]: _shown(port.getHost())
            for site, port in zip(self._sites, self._ports, strict=True)
        }
        metrics = open_doors.get("mp.net.metrics-server-port")
        for notice in self.loaded.notices:
            console.notice("configuration: {notice}", notice=notice.text)
        console.notice(
            "mpush_tw {version} runs standalone: routes and sessions live in this "
            "process. A cluster is asked for by mp.redis.nodes and "
            "mp.zk.server-address; this version does not have it yet.",
            version=__version__,
        )
        console.notice(
            "devices: port {connect}, senders: {host}:{gateway}, console: {admin}, "
            "metrics: {metrics}",
            connect=self.connect_listener.port,
            host=self.identity.host,
            gateway=self.identity.port,
            admin=open_doors["mp.net.admin-server-port"],
            metrics=f"http://{metrics}/metrics" if metrics else "off",
        )
        if not self.settings.security.private_key and not self.key.is_sample:
            console.notice(
                "{made} RSA key of {bits} bits below {home}/keys; clients need this "
                "public key: {key}",
                made="Made an" if self._key_is_new else "Using the",
                bits=self.key.bits,
                home=self.settings.home,
                key=self.key.public.text(),
            )
        if self.key.is_sample:
            console.notice(
                "WARNING: the published sample key is in use; everybody can read what "
                "devices send. Make your own with `mpush keygen`."
            )
        for key, effect in self._without_effect():
            console.notice(
                "{key} has no effect in this version: {effect}", key=key, effect=effect
            )
        console.notice("=" * 20 + "MPUSH SERVER START SUCCESS" + "=" * 21)

    def _without_effect(self) -> Iterator[tuple[str, str]]:
        """
        Name what the settings ask for and this version does not have.
        """
        net = self.settings.net
        if self.settings.http.proxy_enabled:
            yield "mp.http.proxy-enabled", "devices get the HTTP answer 503"
        if net.ws_server_port > 0:
            yield "mp.net.ws-server-port", "there is no WebSocket door"
        for door in ("connect_server", "gateway_server"):
            if getattr(net.traffic_shaping, door).enabled:
                key = f"mp.net.traffic-shaping.{door.replace('_', '-')}"
                yield key, "traffic is not shaped"

    # ----------------------------------------------------------------- stop

    def stopService(self) -> Deferred[None]:
        """
        Stop in order; idempotent.
        """
        if self._stopping is None:
            self._stopping = Deferred.fromCoroutine(self._stop())
        return self._stopping

    async def _stop(self) -> None:
        core = self.settings.core
        self.events.post(ServerStopping())
        for node in self._service_nodes():
            await self.registry.deregister(node)
        await self.connect_listener.close()
        deadline = self.clock.seconds() + core.shutdown_grace
        while self.centre.acks.waiting or self.centre.delayed:
            if self.clock.seconds() >= deadline:
                break
            await deferLater(self.reactor, _DRAIN_STEP)
        self.centre.stop()
        step = max(1, int(core.drain_rate * _DRAIN_STEP)) if core.drain_rate else 0
        waiting = list(self.connections)
        while waiting:
            now, waiting = (waiting[:step], waiting[step:]) if step else (waiting, [])
            for connection in now:
                connection.close("stop")
            if waiting:
                await deferLater(self.reactor, _DRAIN_STEP)
        for _ in range(20):
            if not len(self.connections):
                break
            await deferLater(self.reactor, 0.05)
        for connection in self.connections:
            connection.abort("stop")
        self.events.flush()
        for sender in list(self.gateway_door.connections):
            sender.close()
        await self.gateway_listener.close()
        for port in self._ports:
            await port.stopListening()
        self._ports.clear()
        self.wheel.stop()
        await self.online.clear()
        await super().stopService()  # type: ignore[no-untyped-call]
        await self.registry.stop()
        await self.queue.stop()
        await self.cache.stop()
        self.log.console.notice("=" * 20 + "MPUSH SERVER STOPPED SUCCESS" + "=" * 19)

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

    def _connection_closed(self, connection: Connection) -> Deferred[None]:
        user_id = connection.user_id
        self.centre.connection_lost(connection)

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
        return done.addErrback(failed).addCallback(ended)


def _shown(address: Any) -> str:
    """
    Write the address of an open port as it can be typed or pasted.
    """
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port}"


def _file_limit() -> int:
    """
    How many connections the process's file limit leaves room for.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _UNLIMITED_FILES
    return max(64, soft - _RESERVED_FILES)
