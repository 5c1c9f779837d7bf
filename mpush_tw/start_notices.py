"""
What a node says when it has started: the first lines that an operator reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mpush_tw import __version__
from mpush_tw.alloc import push_rule

if TYPE_CHECKING:
    from mpush_tw.service import Node


def announce(node: Node) -> None:
    """
    Write the lines of the start to the node's console log.
    """
    console = node.log.console
    open_doors = {
        site[0]: _shown(port.getHost())
        for site, port in zip(node.sites, node.ports, strict=True)
    }
    metrics = open_doors.get("mp.net.metrics-server-port")
    for notice in node.loaded.notices:
        console.notice("configuration: {notice}", notice=notice.text)
    _announce_mode(node)
    console.notice(
        "devices: port {connect}, senders: {host}:{gateway}, console: {admin}, "
        "metrics: {metrics}",
        connect=node.connect_listener.port,
        host=node.identity.host,
        gateway=node.identity.port,
        admin=open_doors["mp.net.admin-server-port"],
        metrics=f"http://{metrics}/metrics" if metrics else "off",
    )
    if node.websocket_listener is not None:
        console.notice(
            "pages: port {port}, WebSocket at {path}",
            port=node.websocket_listener.port,
            path=node.settings.net.ws_path,
        )
    if node.alloc.door is not None:
        console.notice(
            "alloc: {address}, test pushes {pushes}",
            address=node.alloc.door.shown,
            pushes=push_rule(node.settings),
        )
    _announce_key(node)
    _announce_proxy(node)
    for key, effect in _without_effect(node):
        console.notice(
            "{key} has no effect in this version: {effect}", key=key, effect=effect
        )
    console.notice("=" * 20 + "MPUSH SERVER START SUCCESS" + "=" * 21)


def _announce_mode(node: Node) -> None:
    settings = node.settings
    if not settings.cluster:
        node.log.console.notice(
            "mpush_tw {version} runs standalone: routes and sessions live in this "
            "process. For a cluster set mp.redis.nodes and mp.zk.server-address.",
            version=__version__,
        )
        return
    node.log.console.notice(
        "mpush_tw {version} runs in a cluster: Redis ({model}) at {redis}, ZooKeeper "
        "at {zk} below /{namespace}",
        version=__version__,
        model=settings.redis.cluster_model,
        redis=", ".join(f"{one.host}:{one.port}" for one in settings.redis.endpoints()),
        zk=settings.zk.server_address,
        namespace=settings.zk.namespace,
    )


def _announce_key(node: Node) -> None:
    console = node.log.console
    if node.key is None:
        # A plug-in opens the handshakes, and knows what clients need for it.
        return
    if node.key.is_sample:
        console.notice(
            "WARNING: the published sample key is in use; everybody can read what "
            "devices send. Make your own with `mpush keygen`."
        )
    elif not node.settings.security.private_key:
        console.notice(
            "{made} RSA key of {bits} bits below {home}/keys; clients need this "
            "public key: {key}",
            made="Made an" if node.parts.key_is_new else "Using the",
            bits=node.key.bits,
            home=node.settings.home,
            key=node.key.public.text(),
        )


def _announce_proxy(node: Node) -> None:
    http = node.settings.http
    if not http.proxy_enabled:
        return
    node.log.console.notice(
        "HTTP proxy: devices reach the hosts of mp.http.dns-mapping ({mapped}) and "
        "mp.http.allowed-hosts ({allowed}){more}, and no others",
        mapped=len(http.dns_mapping),
        allowed=len(http.allowed_hosts),
        more=", those registered below /dns/mapping" if node.settings.cluster else "",
    )


def _without_effect(node: Node) -> Iterator[tuple[str, str]]:
    """
    Name what the settings ask for and this version does not have.
    """
    net = node.settings.net
    for door in ("connect_server", "gateway_server"):
        if getattr(net.traffic_shaping, door).enabled:
            key = f"mp.net.traffic-shaping.{door.replace('_', '-')}"
            yield key, "traffic is not shaped"


def _shown(address: Any) -> str:
    """
    Write the address of an open port as it can be typed or pasted.
    """
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port}"
