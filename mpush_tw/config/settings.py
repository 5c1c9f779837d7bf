"""
The settings of a node: one frozen class per section of the configuration.

An attribute is named after its key, with underscores for hyphens. Durations are
seconds, sizes are bytes. An attribute whose name ends in a unit (C{_millis}) is a plain
number of that unit, because its key is one.

C{Settings()} is a whole node with every default; tests and embedding programs change
parts of it with C{attrs.evolve}. The classes hold values and do not judge them: ranges
and combinations are checked where text becomes settings
(L{mpush_tw.config.load_settings}).

Keys, types and defaults follow operations 2.2 to 2.12, DESIGN 4 and 5b.
"""

# ruff: noqa: RUF009  (the calls beside the attributes declare attrs fields)

from __future__ import annotations

import os
import re
from typing import Any, Final

import attrs

from mpush_tw.config import _fields as key
from mpush_tw.config._nodes import RedisNode, redis_node, zookeeper_addresses
from mpush_tw.config.units import INT32_MAX, INT64_MAX

__all__ = [
    "LOG_LEVELS",
    "AllocSettings",
    "BufferSettings",
    "CoreSettings",
    "FlowControlSettings",
    "FlowSettings",
    "HttpSettings",
    "LimitsSettings",
    "MonitorSettings",
    "NetSettings",
    "PoolSettings",
    "PushSettings",
    "RedisPoolSettings",
    "RedisSettings",
    "RedisTlsSettings",
    "SecuritySettings",
    "Settings",
    "ShapingSettings",
    "ThreadSettings",
    "TrafficShapingSettings",
    "ZkSettings",
]

LOG_LEVELS: Final = ("trace", "debug", "info", "warn", "error", "off", "all")
"""
What C{mp.log-level} may say, in any case.
"""

PRIVATE_NETWORKS: Final = (
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "::1/128",
    "fc00::/7",
)
"""
Loopback and private ranges: who may speak to the gateway unless told otherwise.
"""

_MIN_INFLATED = 1024 * 1024


@attrs.frozen(kw_only=True)
class CoreSettings:
    """
    C{mp.core}: connections and sessions.

    @ivar max_packet_size: C{max-packet-size}. Longest packet body, in bytes, judged
        by its header.
    @ivar compress_threshold: C{compress-threshold}. Bodies longer than this, in bytes,
        are compressed.
    @ivar min_heartbeat: C{min-heartbeat}. Lower bound of the negotiated heartbeat, in
        seconds. It wins over the upper bound.
    @ivar max_heartbeat: C{max-heartbeat}. Upper bound, in seconds, 1 or more.
    @ivar max_hb_timeout_times: C{max-hb-timeout-times}. Missed heartbeats in a row
        that are tolerated; the next one closes the connection.
    @ivar session_expired_time: C{session-expired-time}. How long a session may be
        taken up again by FAST_CONNECT, in whole seconds.
    @ivar epoll_provider: C{epoll-provider}. No effect: Twisted chooses the reactor.
    @ivar shutdown_grace: C{shutdown-grace}. How long a stop waits for pushes and acks
        on their way, in seconds.
    @ivar drain_rate: C{drain-rate}. Client connections closed per second while
        stopping; 0 closes all at once.
    """

    max_packet_size: int = key.size("10k", least=1)
    compress_threshold: int = key.size("10k", most=INT64_MAX)
    min_heartbeat: float = key.duration("3m")
    max_heartbeat: float = key.duration("3m", least=1)
    max_hb_timeout_times: int = key.integer(2, least=0)
    session_expired_time: float = key.duration("1d", least=1, whole_seconds=True)
    epoll_provider: str = key.text("netty", effect=False)
    shutdown_grace: float = key.duration("5s")
    drain_rate: int = key.integer(5000, least=0)


@attrs.frozen(kw_only=True)
class SecuritySettings:
    """
    C{mp.security}: keys and what an unsecured connection may do.

    @ivar private_key: C{private-key}. PKCS#8 DER in Base64, on one line. Empty: a
        standalone node makes its own pair below C{mp.home}, a cluster refuses to start
        (DESIGN 5.4).
    @ivar public_key: C{public-key}. The X.509 key that clients embed, in Base64.
    @ivar aes_key_length: C{aes-key-length}. Always 16 bytes: the session key mix and
        every client assume it (DESIGN 5a).
    @ivar allow_sample_key: C{allow-sample-key}. Consent to the key pair that the
        original publishes in its sample configuration.
    @ivar allow_before_handshake: C{allow-before-handshake}. Also serve HTTP_PROXY,
        PUSH and ACK on a connection without a handshake, as the original does.
    @ivar require_crypto: C{require-crypto}. Refuse a BIND that came unencrypted after
        the handshake; ObjC 1.x clients send it so.
    """

    private_key: str = key.text(secret=True)
    public_key: str = key.text()
    aes_key_length: int = key.integer(16, least=16, most=16)
    allow_sample_key: bool = key.boolean(False)
    allow_before_handshake: bool = key.boolean(False)
    require_crypto: bool = key.boolean(False)


@attrs.frozen(kw_only=True)
class BufferSettings:
    """
    C{mp.net.snd_buf} and C{mp.net.rcv_buf}: kernel buffers in bytes, 0 for the
    system's own choice. Note the underscore in both keys.

    @ivar connect_server: C{connect-server}. Of accepted client connections.
    @ivar gateway_server: C{gateway-server}. Of accepted gateway connections, or of the
        gateway's UDP socket.
    @ivar gateway_client: C{gateway-client}. Of a push sender's connections.
    """

    connect_server: int = key.size("32k")
    gateway_server: int = key.size("0")
    gateway_client: int = key.size("0")


@attrs.frozen(kw_only=True)
class WaterMarkSettings:
    """
    C{mp.net.write-buffer-water-mark}: bytes waiting to be sent on one connection.

    @ivar connect_server_low: C{connect-server-low}. Below it a client connection takes
        pushes again.
    @ivar connect_server_high: C{connect-server-high}. Above it a client connection is
        busy: a push to it fails, a broadcast passes it by.
    @ivar gateway_server_low: C{gateway-server-low}. The same for gateway connections.
    @ivar gateway_server_high: C{gateway-server-high}. The same. The pair counts only
        when both are above 0.
    """

    connect_server_low: int = key.size("32k")
    connect_server_high: int = key.size("64k")
    gateway_server_low: int = key.size("10m")
    gateway_server_high: int = key.size("20m")


@attrs.frozen(kw_only=True)
class ShapingSettings:
    """
    One group of C{mp.net.traffic-shaping}. Limits are bytes per second, 0 for none.

    @ivar enabled: C{enabled}.
    @ivar check_interval: C{check-interval}. Accounting window, in seconds.
    @ivar write_global_limit: C{write-global-limit}. All connections together, out.
    @ivar read_global_limit: C{read-global-limit}. All connections together, in.
    @ivar write_channel_limit: C{write-channel-limit}. Each connection, out.
    @ivar read_channel_limit: C{read-channel-limit}. Each connection, in.
    """

    enabled: bool = key.boolean(False)
    check_interval: float = key.duration("100ms", least=0.001)
    write_global_limit: int = key.size("0", most=INT64_MAX)
    read_global_limit: int = key.size("0", most=INT64_MAX)
    write_channel_limit: int = key.size("0", most=INT64_MAX)
    read_channel_limit: int = key.size("0", most=INT64_MAX)


@attrs.frozen(kw_only=True)
class GatewayClientShapingSettings(ShapingSettings):
    """
    C{mp.net.traffic-shaping.gateway-client}: a push sender's connections.
    """

    write_global_limit: int = key.size("30k", most=INT64_MAX)
    write_channel_limit: int = key.size("3k", most=INT64_MAX)


@attrs.frozen(kw_only=True)
class GatewayServerShapingSettings(ShapingSettings):
    """
    C{mp.net.traffic-shaping.gateway-server}: what senders open to the gateway.
    """

    read_global_limit: int = key.size("30k", most=INT64_MAX)
    read_channel_limit: int = key.size("3k", most=INT64_MAX)


@attrs.frozen(kw_only=True)
class ConnectServerShapingSettings(ShapingSettings):
    """
    C{mp.net.traffic-shaping.connect-server}: client connections.
    """

    read_global_limit: int = key.size("100k", most=INT64_MAX)
    write_channel_limit: int = key.size("3k", most=INT64_MAX)
    read_channel_limit: int = key.size("3k", most=INT64_MAX)


@attrs.frozen(kw_only=True)
class TrafficShapingSettings:
    """
    C{mp.net.traffic-shaping}: rate limits of TCP traffic, three groups that differ in
    their defaults only.

    @ivar gateway_client: C{gateway-client}.
    @ivar gateway_server: C{gateway-server}.
    @ivar connect_server: C{connect-server}.
    """

    gateway_client: GatewayClientShapingSettings = key.section(
        GatewayClientShapingSettings
    )
    gateway_server: GatewayServerShapingSettings = key.section(
        GatewayServerShapingSettings
    )
    connect_server: ConnectServerShapingSettings = key.section(
        ConnectServerShapingSettings
    )


def _gateway_net(written: str) -> str:
    if written in ("sctp", "udt"):
        raise ValueError(
            "expected tcp or udp; the original announces sctp and udt "
            "but starts no gateway for them"
        )
    if written not in ("tcp", "udp"):
        raise ValueError("expected tcp or udp")
    return written


@attrs.frozen(kw_only=True)
class NetSettings:
    """
    C{mp.net}: addresses, ports, buffers.

    Port 0 is any free port for the connect server, the gateway and the console, and
    I{off} where that is said. Addresses left empty are found out
    (L{mpush_tw.config.addresses}).

    @ivar local_ip: C{local-ip}. Own address in the local network.
    @ivar public_ip: C{public-ip}. Own address as clients see it.
    @ivar connect_server_bind_ip: C{connect-server-bind-ip}. Where the connect server
        listens; empty is everywhere.
    @ivar connect_server_register_ip: C{connect-server-register-ip}. Published for the
        connect and the WebSocket server; empty is the public address.
    @ivar connect_server_port: C{connect-server-port}.
    @ivar connect_server_register_attr: C{connect-server-register-attr}. Published with
        the connect server, for alloc.
    @ivar gateway_server_bind_ip: C{gateway-server-bind-ip}. Where the gateway listens;
        empty is 127.0.0.1 on a standalone node, the local address in a cluster.
    @ivar gateway_server_register_ip: C{gateway-server-register-ip}. Published for the
        gateway and stored in user routes; empty is the local address.
    @ivar gateway_server_port: C{gateway-server-port}. TCP or UDP.
    @ivar gateway_server_net: C{gateway-server-net}. C{"tcp"} or C{"udp"}; the same on
        all nodes and senders.
    @ivar gateway_client_port: C{gateway-client-port}. A push sender's UDP port.
    @ivar gateway_server_multicast: C{gateway-server-multicast}. Group that UDP
        gateways join.
    @ivar gateway_client_multicast: C{gateway-client-multicast}. Group that UDP
        senders join.
    @ivar gateway_client_num: C{gateway-client-num}. TCP connections from a sender to
        each gateway.
    @ivar gateway_allowed_peers: C{gateway-allowed-peers}. Networks that may speak to
        the gateway.
    @ivar admin_server_port: C{admin-server-port}. The console.
    @ivar admin_server_bind_ip: C{admin-server-bind-ip}.
    @ivar admin_server_password: C{admin-server-password}. Empty: no password asked.
    @ivar metrics_server_port: C{metrics-server-port}. Prometheus endpoint; 0 is off.
    @ivar metrics_server_bind_ip: C{metrics-server-bind-ip}.
    @ivar ws_server_port: C{ws-server-port}. WebSocket server; 0 or less is off.
    @ivar ws_server_bind_ip: C{ws-server-bind-ip}. Where it listens; empty is
        everywhere.
    @ivar ws_path: C{ws-path}. The whole target of opening requests.
    @ivar ws_allowed_origins: C{ws-allowed-origins}. Sites whose pages may connect,
        C{scheme://host} or C{scheme://host:port}, C{*} standing for any characters;
        empty for all. Who names no origin is no page, and may connect.
    @ivar ws_ping_interval: C{ws-ping-interval}. How often a WebSocket is pinged, in
        seconds; 0 is never. C{mp.core.max-hb-timeout-times} unanswered pings in a row
        are tolerated.
    @ivar public_host_mapping: C{public-host-mapping}. Local address to public
        address; asked when C{public-ip} is empty.
    @ivar alloc_server_port: C{alloc-server-port}. Port of the alloc service.
    @ivar alloc_server_bind_ip: C{alloc-server-bind-ip}. Where it listens; empty is
        everywhere.
    @ivar alloc_server_protocol: C{alloc-server-protocol}. C{"http"} or C{"https"}.
    @ivar alloc_server_endpoint: C{alloc-server-endpoint}. Where it listens, as a
        Twisted endpoint (C{ssl:9999:privateKey=…:certKey=…}) in place of port, address
        and protocol; empty is none.
    @ivar snd_buf: C{snd_buf}. Kernel send buffers.
    @ivar rcv_buf: C{rcv_buf}. Kernel receive buffers.
    @ivar write_buffer_water_mark: C{write-buffer-water-mark}.
    @ivar traffic_shaping: C{traffic-shaping}.
    """

    local_ip: str = key.text(check=key.host)
    public_ip: str = key.text(check=key.host)
    connect_server_bind_ip: str = key.text(check=key.host)
    connect_server_register_ip: str = key.text(
        "${mp.net.public-ip}", derived=lambda net: net.public_ip, check=key.host
    )
    connect_server_port: int = key.port(3000)
    connect_server_register_attr: dict[str, Any] = key.mapping({"weight": 1})
    gateway_server_bind_ip: str = key.text(check=key.host)
    gateway_server_register_ip: str = key.text(
        "${mp.net.local-ip}", derived=lambda net: net.local_ip, check=key.host
    )
    gateway_server_port: int = key.port(3001)
    gateway_server_net: str = key.text("tcp", check=_gateway_net)
    gateway_client_port: int = key.port(4000)
    gateway_server_multicast: str = key.text(
        "239.239.239.88", check=key.multicast_group
    )
    gateway_client_multicast: str = key.text(
        "239.239.239.99", check=key.multicast_group
    )
    gateway_client_num: int = key.integer(1, least=1, most=1000)
    gateway_allowed_peers: tuple[str, ...] = key.texts(
        PRIVATE_NETWORKS, check=key.network, wanted='networks such as ["10.0.0.0/8"]'
    )
    admin_server_port: int = key.port(3002)
    admin_server_bind_ip: str = key.text("127.0.0.1", check=key.host)
    admin_server_password: str = key.text(secret=True)
    metrics_server_port: int = key.port(0)
    metrics_server_bind_ip: str = key.text("127.0.0.1", check=key.host)
    ws_server_port: int = key.port(0, negative_is_off=True)
    ws_server_bind_ip: str = key.text(check=key.host)
    ws_path: str = key.text("/", check=key.absolute_path)
    ws_allowed_origins: tuple[str, ...] = key.texts(
        check=key.origin, wanted='origins such as ["https://example.com"]'
    )
    ws_ping_interval: float = key.duration("50s")
    public_host_mapping: dict[str, str] = key.mapping(
        check=key.mapped_host, wanted='an object such as { "10.0.0.1": "1.2.3.4" }'
    )
    alloc_server_port: int = key.port(9999)
    alloc_server_bind_ip: str = key.text(check=key.host)
    alloc_server_protocol: str = key.choice("http", "http", "https")
    alloc_server_endpoint: str = key.text()
    snd_buf: BufferSettings = key.section(BufferSettings, name="snd_buf")
    rcv_buf: BufferSettings = key.section(BufferSettings, name="rcv_buf")
    write_buffer_water_mark: WaterMarkSettings = key.section(WaterMarkSettings)
    traffic_shaping: TrafficShapingSettings = key.section(TrafficShapingSettings)


@attrs.frozen(kw_only=True)
class ZkRetrySettings:
    """
    C{mp.zk.retry}: how ZooKeeper calls are repeated. The keys end in C{Ms}; the
    attributes are seconds like every duration and do not.

    @ivar base_sleep_time: C{baseSleepTimeMs}. Repetition n waits this many seconds
        times a random number below 2^(n+1), at least once.
    @ivar max_retries: C{maxRetries}.
    @ivar max_sleep: C{maxSleepMs}. Longest single wait, in seconds.
    """

    base_sleep_time: float = key.duration("3s", name="baseSleepTimeMs")
    max_retries: int = key.integer(3, least=0, name="maxRetries")
    max_sleep: float = key.duration("5s", name="maxSleepMs")


@attrs.frozen(kw_only=True)
class ZkSettings:
    """
    C{mp.zk}: the registry of a cluster.

    @ivar server_address: C{server-address}. C{host:port,host:port}; empty on a
        standalone node.
    @ivar namespace: C{namespace}. Prefix of every path.
    @ivar digest: C{digest}. Raw text of the C{digest} authentication; a secret.
    @ivar watch_path: C{watch-path}. Root of what a node watches, inside the namespace.
    @ivar retry: C{retry}.
    @ivar connection_timeout: C{connectionTimeoutMs}, in seconds; 0 leaves it to the
        library.
    @ivar session_timeout: C{sessionTimeoutMs}, in seconds; 0 leaves it to the library.
    """

    server_address: str = key.text(check=zookeeper_addresses)
    namespace: str = key.text("mpush")
    digest: str = key.text("mpush", secret=True)
    watch_path: str = key.text("/", check=key.absolute_path)
    retry: ZkRetrySettings = key.section(ZkRetrySettings)
    connection_timeout: float = key.duration("5s", name="connectionTimeoutMs")
    session_timeout: float = key.duration("5s", name="sessionTimeoutMs")


@attrs.frozen(kw_only=True)
class RedisPoolSettings:
    """
    C{mp.redis.config}: the connection pool, with the names of the original's library.
    Keys may also be written with hyphens (C{max-total}).

    @ivar max_total: C{maxTotal}. Connections at most.
    @ivar max_idle: C{maxIdle}. No effect.
    @ivar min_idle: C{minIdle}. Connections that are kept open, at least one.
    @ivar lifo: C{lifo}. No effect.
    @ivar fairness: C{fairness}. No effect.
    @ivar max_wait_millis: C{maxWaitMillis}. Longest wait for a connection while one is
        being made, in milliseconds; never more than two seconds, which -1 stands for.
    @ivar min_evictable_idle_time_millis: C{minEvictableIdleTimeMillis}. No effect.
    @ivar soft_min_evictable_idle_time_millis: C{softMinEvictableIdleTimeMillis}. No
        effect.
    @ivar num_tests_per_eviction_run: C{numTestsPerEvictionRun}. No effect.
    @ivar test_on_create: C{testOnCreate}. No effect.
    @ivar test_on_borrow: C{testOnBorrow}. No effect: connections are shared, not
        borrowed.
    @ivar test_on_return: C{testOnReturn}. No effect.
    @ivar test_while_idle: C{testWhileIdle}. No effect: idle connections are tested in
        any case.
    @ivar time_between_eviction_runs_millis: C{timeBetweenEvictionRunsMillis}. No
        effect.
    @ivar block_when_exhausted: C{blockWhenExhausted}. Wait for a connection that is
        being made; otherwise fail at once.
    @ivar jmx_enabled: C{jmxEnabled}. No effect.
    @ivar jmx_name_prefix: C{jmxNamePrefix}. No effect.
    @ivar jmx_name_base: C{jmxNameBase}. No effect.
    """

    max_total: int = key.integer(8, least=1, name="maxTotal")
    max_idle: int = key.integer(4, name="maxIdle", effect=False)
    min_idle: int = key.integer(1, least=0, name="minIdle")
    lifo: bool = key.boolean(True, effect=False)
    fairness: bool = key.boolean(False, effect=False)
    max_wait_millis: int = key.integer(5000, least=-1, name="maxWaitMillis")
    min_evictable_idle_time_millis: int = key.integer(
        300000, name="minEvictableIdleTimeMillis", effect=False
    )
    soft_min_evictable_idle_time_millis: int = key.integer(
        1800000, name="softMinEvictableIdleTimeMillis", effect=False
    )
    num_tests_per_eviction_run: int = key.integer(
        3, name="numTestsPerEvictionRun", effect=False
    )
    test_on_create: bool = key.boolean(False, name="testOnCreate", effect=False)
    test_on_borrow: bool = key.boolean(False, name="testOnBorrow", effect=False)
    test_on_return: bool = key.boolean(False, name="testOnReturn", effect=False)
    test_while_idle: bool = key.boolean(False, name="testWhileIdle", effect=False)
    time_between_eviction_runs_millis: int = key.integer(
        60000, name="timeBetweenEvictionRunsMillis", effect=False
    )
    block_when_exhausted: bool = key.boolean(True, name="blockWhenExhausted")
    jmx_enabled: bool = key.boolean(False, name="jmxEnabled", effect=False)
    jmx_name_prefix: str = key.text("pool", name="jmxNamePrefix", effect=False)
    jmx_name_base: str = key.text("pool", name="jmxNameBase", effect=False)


@attrs.frozen(kw_only=True)
class RedisTlsSettings:
    """
    C{mp.redis.tls}: encryption of the connections to Redis, sentinels included. The
    original has none. Files are PEM.

    @ivar enabled: C{enabled}.
    @ivar ca_file: C{ca-file}. Certificates of the authorities to trust; empty: those
        that the system trusts.
    @ivar cert_file: C{cert-file}. Certificate to show, with its chain; empty: none.
    @ivar key_file: C{key-file}. Private key of that certificate, without a passphrase.
    @ivar verify_hostname: C{verify-hostname}. Whether the certificate of a server must
        be for its address as configured, or as announced by sentinels and clusters. The
        authority is checked in any case.
    """

    enabled: bool = key.boolean(False)
    ca_file: str = key.text()
    cert_file: str = key.text()
    key_file: str = key.text()
    verify_hostname: bool = key.boolean(True)


@attrs.frozen(kw_only=True)
class RedisSettings:
    """
    C{mp.redis}: the shared store of a cluster.

    @ivar cluster_model: C{cluster-model}. C{"single"}, C{"cluster"} or C{"sentinel"}.
    @ivar sentinel_master: C{sentinel-master}. Name of the master, in sentinel mode.
    @ivar nodes: C{nodes}. C{host:port} or C{host:port:password} each, as written;
        empty on a standalone node. Single mode uses the first, the other modes all.
    @ivar password: C{password}. Empty: none, unless a node has its own.
    @ivar tls: C{tls}. Encryption.
    @ivar config: C{config}. The connection pool.
    """

    cluster_model: str = key.choice("single", "single", "cluster", "sentinel")
    sentinel_master: str = key.text()
    nodes: tuple[str, ...] = key.texts(
        check=lambda written: redis_node(written).written,
        wanted='nodes such as ["127.0.0.1:6379"]',
        secret=True,
    )
    password: str = key.text(secret=True)
    tls: RedisTlsSettings = key.section(RedisTlsSettings)
    config: RedisPoolSettings = key.section(RedisPoolSettings)

    def endpoints(self) -> tuple[RedisNode, ...]:
        """
        Give C{nodes} in parts, each with the password to use for it.

        A password behind the port counts only when C{password} is empty (operations
        2.9, O-23).
        """
        nodes = map(redis_node, self.nodes)
        return tuple(
            attrs.evolve(node, password=self.password) if self.password else node
            for node in nodes
        )

    def sentinels(self) -> tuple[RedisNode, ...]:
        """
        Give C{nodes} in parts, as sentinels: C{password} is the master's, so each has
        only what stands behind its own port (cluster 2.1).
        """
        return tuple(map(redis_node, self.nodes))


@attrs.frozen(kw_only=True)
class HttpSettings:
    """
    C{mp.http}: the HTTP proxy for clients.

    @ivar proxy_enabled: C{proxy-enabled}.
    @ivar max_conn_per_host: C{max-conn-per-host}. Idle connections kept per backend.
    @ivar default_read_timeout: C{default-read-timeout}. Time for a whole request, in
        seconds, when the client names none.
    @ivar max_content_length: C{max-content-length}. Longest answer of a backend, in
        bytes.
    @ivar dns_mapping: C{dns-mapping}. Host name to its backends, C{ip} or C{ip:port}.
    @ivar allowed_hosts: C{allowed-hosts}. Further host names that clients may reach.
    @ivar dns_mapping_choice: C{dns-mapping-choice}. How one of several backends is
        chosen.
    @ivar follow_outside: C{follow-outside}. Follow redirects to hosts that clients may
        not name themselves; private addresses never.
    @ivar host_header: C{host-header}. What an http backend of C{dns-mapping} is told:
        C{"mapped"}, its own address, or C{"original"}, the host of the client's URL.
    @ivar request_target: C{request-target}. C{"origin"}, the path, or C{"absolute"},
        the whole URL as the original sends it.
    @ivar connect_timeout: C{connect-timeout}, in seconds.
    @ivar max_read_timeout: C{max-read-timeout}. Longest time that a client may name, in
        seconds.
    @ivar max_requests: C{max-requests}. Requests at a time; above it the answer is 503.
    @ivar max_requests_per_device: C{max-requests-per-device}. The same for each client.
    @ivar max_buffered: C{max-buffered}. Bytes of answers that may be held at a time, on
        their way in and on their way out.
    @ivar ca_file: C{ca-file}. PEM file of authorities to trust for https instead of the
        system's.
    @ivar limit_ios_answers: C{limit-ios-answers}. Send iOS clients no answer that they
        cannot read (clients 9.14).
    """

    proxy_enabled: bool = key.boolean(False)
    max_conn_per_host: int = key.integer(5, least=0)
    default_read_timeout: float = key.duration("10s", least=0.001)
    max_content_length: int = key.size("5m")
    dns_mapping: dict[str, tuple[str, ...]] = key.mapping(
        check=key.backends,
        wanted='an object such as { "example.com": ["10.0.0.1:8080"] }',
    )
    allowed_hosts: tuple[str, ...] = key.texts(
        check=key.web_host, wanted='host names such as ["example.com"]'
    )
    dns_mapping_choice: str = key.choice("random", "random", "round-robin")
    follow_outside: bool = key.boolean(False)
    host_header: str = key.choice("mapped", "mapped", "original")
    request_target: str = key.choice("origin", "origin", "absolute")
    connect_timeout: float = key.duration("4s", least=0.001)
    max_read_timeout: float = key.duration("5m", least=0.001)
    max_requests: int = key.integer(1000, least=1)
    max_requests_per_device: int = key.integer(50, least=1)
    max_buffered: int = key.size("128m", least=1)
    ca_file: str = key.text()
    limit_ios_answers: bool = key.boolean(True)


def _origin(written: str) -> str:
    if not re.fullmatch(r"|\*|https?://[\w.:\[\]-]+", written, re.ASCII):
        raise ValueError(
            "expected an origin such as https://www.example.com, * for all, or nothing"
        )
    return written


@attrs.frozen(kw_only=True)
class AllocSettings:
    """
    C{mp.alloc}: the service that tells clients which servers to connect to (services
    A5). Its port and addresses are in L{NetSettings}.

    @ivar enabled: C{enabled}. Whether a node serves it; C{twistd mpush-alloc} does so
        in any case.
    @ivar strategy: C{strategy}. The order of the list: C{"online"}, C{"weight"},
        C{"random"} or C{"round-robin"}.
    @ivar push_enabled: C{push-enabled}. Whether there is a page that pushes.
    @ivar push_token: C{push-token}. What a push must bring along, C{Authorization:
        Bearer …}. Empty: nothing, but pushes are taken from this machine only (DESIGN
        5c). A secret.
    @ivar refresh_interval: C{refresh-interval}. Between two looks at the whole
        registry, in seconds; its changes are seen at once.
    @ivar count_interval: C{count-interval}. Between two counts of the users online, in
        seconds.
    @ivar max_servers: C{max-servers}. Servers in one answer; 0 is all.
    @ivar allow_origin: C{allow-origin}. C{Access-Control-Allow-Origin} of the lists;
        empty: none, as in the original.
    """

    enabled: bool = key.boolean(False)
    strategy: str = key.choice("online", "online", "weight", "random", "round-robin")
    push_enabled: bool = key.boolean(False)
    push_token: str = key.text(secret=True)
    refresh_interval: float = key.duration("5m", least=1)
    count_interval: float = key.duration("15s", least=0.1)
    max_servers: int = key.integer(0, least=0)
    allow_origin: str = key.text(check=_origin)


@attrs.frozen(kw_only=True)
class PoolSettings:
    """
    C{mp.thread.pool.event-bus}: threads for plug-ins that block.

    @ivar min: C{min}.
    @ivar max: C{max}.
    @ivar queue_size: C{queue-size}. Negative is unbounded.
    """

    min: int = key.integer(1, least=0)
    max: int = key.integer(16, least=0)
    queue_size: int = key.integer(10000)


@attrs.frozen(kw_only=True)
class MqPoolSettings(PoolSettings):
    """
    C{mp.thread.pool.mq}: threads for message queue plug-ins that block.
    """

    max: int = key.integer(4, least=0)


@attrs.frozen(kw_only=True)
class ThreadPoolSettings:
    """
    C{mp.thread.pool}: the original's thread pools. One reactor does their work.

    @ivar conn_work: C{conn-work}. No effect.
    @ivar gateway_server_work: C{gateway-server-work}. No effect.
    @ivar http_work: C{http-work}. No effect.
    @ivar ack_timer: C{ack-timer}. No effect.
    @ivar push_task: C{push-task}. No effect.
    @ivar gateway_client_work: C{gateway-client-work}. No effect.
    @ivar push_client: C{push-client}. No effect.
    @ivar event_bus: C{event-bus}.
    @ivar mq: C{mq}.
    """

    conn_work: int = key.integer(0, effect=False)
    gateway_server_work: int = key.integer(0, effect=False)
    http_work: int = key.integer(0, effect=False)
    ack_timer: int = key.integer(1, effect=False)
    push_task: int = key.integer(0, effect=False)
    gateway_client_work: int = key.integer(0, effect=False)
    push_client: int = key.integer(2, effect=False)
    event_bus: PoolSettings = key.section(PoolSettings)
    mq: MqPoolSettings = key.section(MqPoolSettings)


@attrs.frozen(kw_only=True)
class ThreadSettings:
    """
    C{mp.thread}.

    @ivar pool: C{pool}.
    """

    pool: ThreadPoolSettings = key.section(ThreadPoolSettings)


@attrs.frozen(kw_only=True)
class FlowSettings:
    """
    C{mp.push.flow-control.global}: pushes to single users, the whole node.

    @ivar limit: C{limit}. Pushes per window.
    @ivar max: C{max}. Pushes ever; 0 or less is no limit.
    @ivar duration: C{duration}. The window, in seconds.
    """

    limit: int = key.integer(5000, least=1)
    max: int = key.integer(0)
    duration: float = key.duration("1s", least=0.001)


@attrs.frozen(kw_only=True)
class BroadcastFlowSettings(FlowSettings):
    """
    C{mp.push.flow-control.broadcast}: each broadcast on its own; C{max} is the messages
    of one broadcast.
    """

    limit: int = key.integer(3000, least=1)
    max: int = key.integer(100000)


@attrs.frozen(kw_only=True)
class FlowControlSettings:
    """
    C{mp.push.flow-control}.

    @ivar global_: C{global}. The underscore keeps clear of Python's keyword.
    @ivar broadcast: C{broadcast}.
    """

    global_: FlowSettings = key.section(FlowSettings, name="global")
    broadcast: BroadcastFlowSettings = key.section(BroadcastFlowSettings)


@attrs.frozen(kw_only=True)
class TraceSettings:
    """
    C{mp.push.trace}: what is remembered of pushes that carry an id.

    @ivar keep: C{keep}. How long, in seconds; 0 remembers nothing.
    @ivar max: C{max}. Ids remembered at most.
    """

    keep: float = key.duration("10m")
    max: int = key.integer(10000, least=1)


@attrs.frozen(kw_only=True)
class PushSettings:
    """
    C{mp.push}.

    @ivar flow_control: C{flow-control}.
    @ivar tags_match: C{tags-match}. C{"substring"} as in the original, or C{"exact"}.
    @ivar trace: C{trace}.
    """

    flow_control: FlowControlSettings = key.section(FlowControlSettings)
    tags_match: str = key.choice("substring", "substring", "exact")
    trace: TraceSettings = key.section(TraceSettings)


@attrs.frozen(kw_only=True)
class MonitorSettings:
    """
    C{mp.monitor}.

    @ivar dump_dir: C{dump-dir}. Directory of stack dumps.
    @ivar dump_stack: C{dump-stack}. Dump when the load is high.
    @ivar dump_period: C{dump-period}. Whole seconds between two monitor lines, 1 or
        more.
    @ivar print_log: C{print-log}. Write the monitor line.
    @ivar profile_enabled: C{profile-enabled}. Time every packet from the start on.
    @ivar profile_slowly_duration: C{profile-slowly-duration}. A packet that takes
        longer, in seconds, is logged.
    """

    dump_dir: str = key.text(
        "${mp.home}/tmp", derived=lambda monitor: f"{os.getcwd()}/tmp"
    )
    dump_stack: bool = key.boolean(False)
    dump_period: float = key.duration("1m", least=1, whole_seconds=True)
    print_log: bool = key.boolean(True)
    profile_enabled: bool = key.boolean(False)
    profile_slowly_duration: float = key.duration("10ms")


@attrs.frozen(kw_only=True)
class LimitsSettings:
    """
    C{mp.limits}: what a node bears (DESIGN 5b).

    @ivar handshake_timeout: C{handshake-timeout}. A connection without HANDSHAKE or
        FAST_CONNECT is closed after this many seconds.
    @ivar max_connections: C{max-connections}. More are closed at once; 0 is the
        process's file limit less a reserve.
    @ivar max_unsecured: C{max-unsecured}. Connections before their handshake; above
        it the oldest is closed.
    @ivar max_per_address: C{max-per-address}. Connections from one address.
    @ivar max_per_user: C{max-per-user}. Connections of one user on this node.
    @ivar accept_rate: C{accept-rate}. Connections accepted per second; above it
        accepting pauses.
    @ivar max_inflated_size: C{max-inflated-size}. Longest body after decompression, in
        bytes. 0 is replaced, in L{Settings}, by the greater of 1 MiB and 16 times
        C{mp.core.max-packet-size}.
    @ivar max_outbound: C{max-outbound}. Bytes queued for one client above the high
        water mark before it is closed.
    """

    handshake_timeout: float = key.duration("10s", least=0.1)
    max_connections: int = key.integer(0, least=0)
    max_unsecured: int = key.integer(10000, least=1)
    max_per_address: int = key.integer(20000, least=1)
    max_per_user: int = key.integer(20, least=1)
    accept_rate: int = key.integer(5000, least=1)
    max_inflated_size: int = key.size("0")
    max_outbound: int = key.size("1m")


def _log_level(written: str) -> str:
    """
    Read a level. An unknown word is I{debug}, as for logback (operations 2.2).
    """
    level = written.lower()
    return level if level in LOG_LEVELS else "debug"


@attrs.frozen(kw_only=True)
class Settings:
    """
    C{mp}: everything that an operator can set, with defaults for all of it.

    @ivar home: C{home}. Installation directory, base of the paths below.
    @ivar log_level: C{log-level}. One of L{LOG_LEVELS}, in lower case.
    @ivar log_dir: C{log-dir}. Directory of the log files.
    @ivar log_conf_path: C{log-conf-path}. No effect: logback is not used.
    @ivar core: C{core}.
    @ivar security: C{security}.
    @ivar net: C{net}.
    @ivar zk: C{zk}.
    @ivar redis: C{redis}.
    @ivar http: C{http}.
    @ivar alloc: C{alloc}.
    @ivar thread: C{thread}.
    @ivar push: C{push}.
    @ivar monitor: C{monitor}.
    @ivar spi: C{spi}. Which plug-in serves as what: a name of
        L{POINTS<mpush_tw.extensions.POINTS>}, or another for it, and the plug-in's
        name. Class names of the original (C{com.mpush.…}) never get here.
    @ivar spi_settings: C{spi-settings}. What plug-ins need to know, values as written;
        each reads what stands below its own name.
    @ivar limits: C{limits}.
    """

    home: str = key.text("${user.dir}", derived=lambda settings: os.getcwd())
    log_level: str = key.text("warn", check=_log_level)
    log_dir: str = key.text(
        "${mp.home}/logs", derived=lambda settings: f"{settings.home}/logs"
    )
    log_conf_path: str = key.text(
        "${mp.home}/conf/logback.xml",
        effect=False,
        derived=lambda settings: f"{settings.home}/conf/logback.xml",
    )
    core: CoreSettings = key.section(CoreSettings)
    security: SecuritySettings = key.section(SecuritySettings)
    net: NetSettings = key.section(NetSettings)
    zk: ZkSettings = key.section(ZkSettings)
    redis: RedisSettings = key.section(RedisSettings)
    http: HttpSettings = key.section(HttpSettings)
    alloc: AllocSettings = key.section(AllocSettings)
    thread: ThreadSettings = key.section(ThreadSettings)
    push: PushSettings = key.section(PushSettings)
    monitor: MonitorSettings = key.section(
        MonitorSettings,
        derived=lambda settings: MonitorSettings(dump_dir=f"{settings.home}/tmp"),
    )
    spi: dict[str, str] = key.providers()
    spi_settings: dict[str, Any] = key.mapping(
        wanted='an object such as { my-plug-in: { url: "http://127.0.0.1" } }',
        secret=True,
    )
    limits: LimitsSettings = key.section(LimitsSettings)

    def __attrs_post_init__(self) -> None:
        if self.limits.max_inflated_size == 0:
            bound = max(_MIN_INFLATED, 16 * self.core.max_packet_size)
            limits = attrs.evolve(self.limits, max_inflated_size=min(bound, INT32_MAX))
            object.__setattr__(self, "limits", limits)

    @property
    def cluster(self) -> bool:
        """
        Whether this node is part of a cluster (DESIGN 4).

        It is when a store and a registry are configured: Redis and ZooKeeper, or one
        of them and a plug-in that C{mp.spi} names for the other. A node with neither
        address is standalone whatever plug-ins it has.
        """
        redis, zk = bool(self.redis.nodes), bool(self.zk.server_address)
        return (redis or zk) and self.has_store and self.has_registry

    @property
    def has_store(self) -> bool:
        """
        Whether something keeps routes and sessions for several nodes.
        """
        return bool(self.redis.nodes) or any(map(self.spi.get, STORE_PROVIDERS))

    @property
    def has_registry(self) -> bool:
        """
        Whether something tells nodes of each other.
        """
        return bool(self.zk.server_address) or any(
            map(self.spi.get, REGISTRY_PROVIDERS)
        )


STORE_PROVIDERS: Final = ("cache", "cache-manager")
"""
Names in C{mp.spi} whose plug-in takes the place of Redis.
"""

REGISTRY_PROVIDERS: Final = ("registry", "service-registry")
"""
Names in C{mp.spi} whose plug-in takes the place of ZooKeeper.
"""
