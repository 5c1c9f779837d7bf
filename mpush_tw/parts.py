"""
The parts of a node that plug-ins may take the place of, chosen (server 19.2, 19.3).

What is built in is named here, with the order 1 that all built-in ones have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from mpush_tw.client_types import DefaultClassifier
from mpush_tw.config import Settings
from mpush_tw.core.defaults import (
    AcceptEveryBind,
    DropUpstream,
    IgnoreEvents,
    MsgspecJson,
)
from mpush_tw.core.executor import PoolSize, ThreadExecutor
from mpush_tw.extensions import (
    BIND_VALIDATOR,
    CIPHER,
    CLIENT_CLASSIFIER,
    DNS_MAPPING,
    EVENT_LISTENER,
    EXECUTOR,
    JSON,
    PUSH_HANDLER,
    Extensions,
    built_in,
)
from mpush_tw.integrations.http.dns_mapping import DnsMapping
from mpush_tw.interfaces import (
    IBindValidator,
    IClientClassifier,
    IDnsMapping,
    IExecutor,
    IHandshakeCipher,
    IJsonCodec,
    IServerEventListener,
    IUpstreamHandler,
)
from mpush_tw.keys import node_key
from mpush_tw.protocol.crypto import RsaPrivateKey
from mpush_tw.stores import Stores, shared_stores
from mpush_tw.web_proxy import configured_mapping


@attrs.frozen
class Parts:
    """
    What serves at each point but C{push-listener}, which needs the gateway.

    @ivar key: The node's key pair; C{None} if a plug-in opens the handshakes.
    @ivar key_is_new: Whether it was made just now.
    """

    listeners: Sequence[IServerEventListener]
    validator: IBindValidator
    classifier: IClientClassifier
    upstream: IUpstreamHandler
    executor: IExecutor
    stores: Stores
    cipher: IHandshakeCipher
    json: IJsonCodec
    dns_mapping: IDnsMapping
    key: RsaPrivateKey | None
    key_is_new: bool


def choose_parts(extensions: Extensions, settings: Settings, reactor: Any) -> Parts:
    """
    Choose what serves at each point, and make it.

    @raise ConfigError: If what the settings name is not there, or cannot be used.
    """
    keys: list[tuple[RsaPrivateKey, bool]] = []

    def rsa() -> RsaPrivateKey:
        keys.append(node_key(settings))
        return keys[0][0]

    def threads() -> ThreadExecutor:
        pools = settings.thread.pool
        return ThreadExecutor(
            reactor,
            PoolSize(
                pools.event_bus.min, pools.event_bus.max, pools.event_bus.queue_size
            ),
            PoolSize(pools.mq.min, pools.mq.max, pools.mq.queue_size),
        )

    def dns() -> DnsMapping:
        return configured_mapping(settings.http, stores.discovery, reactor)

    choose = extensions.choose
    executor = choose(EXECUTOR, built_in(IExecutor, "threads", threads))
    stores = shared_stores(settings, reactor, extensions)
    parts = Parts(
        executor=executor,
        stores=stores,
        classifier=choose(
            CLIENT_CLASSIFIER,
            built_in(IClientClassifier, "os-name", DefaultClassifier),
        ),
        cipher=choose(CIPHER, built_in(IHandshakeCipher, "rsa", rsa)),
        validator=choose(
            BIND_VALIDATOR, built_in(IBindValidator, "accept-all", AcceptEveryBind)
        ),
        upstream=choose(PUSH_HANDLER, built_in(IUpstreamHandler, "drop", DropUpstream)),
        json=choose(JSON, built_in(IJsonCodec, "msgspec", MsgspecJson)),
        dns_mapping=choose(DNS_MAPPING, built_in(IDnsMapping, "configured", dns)),
        listeners=extensions.choose_all(
            EVENT_LISTENER, built_in(IServerEventListener, "none", IgnoreEvents)
        ),
        key=keys[0][0] if keys else None,
        key_is_new=bool(keys) and keys[0][1],
    )
    if not settings.http.proxy_enabled and any(
        one.point is DNS_MAPPING and not one.built_in for one in extensions.chosen
    ):
        extensions.notices.append(
            f"the plug-in for {DNS_MAPPING.name} is not used: mp.http.proxy-enabled is "
            "off"
        )
    return parts
