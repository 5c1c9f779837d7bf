"""
The HTTP proxy of a node, put together (server 15).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred

from mpush_tw.config import Settings
from mpush_tw.config.settings import HttpSettings
from mpush_tw.core.handlers.http_proxy import HttpProxyHandler, ProxyLimits
from mpush_tw.core.http.exchange import WebRequests
from mpush_tw.core.http.reach import Reach
from mpush_tw.core.http.urls import BadUrl, normal_host
from mpush_tw.core.log import NodeLog
from mpush_tw.core.metrics import NodeMetrics
from mpush_tw.core.wheel import TimingWheel
from mpush_tw.errors import ConfigError
from mpush_tw.integrations.http.addresses import HostAddresses
from mpush_tw.integrations.http.dns_mapping import DnsMapping, round_robin
from mpush_tw.interfaces import IDnsMapping, IServiceDiscovery


def configured_mapping(
    http: HttpSettings, discovery: IServiceDiscovery, reactor: Any
) -> DnsMapping:
    """
    Make the mapping that the settings ask for.

    @raise ConfigError: If it maps what is no host.
    """
    _check("mp.http.dns-mapping", http.dns_mapping)
    choose: Callable[[Any], Any] = random.choice
    if http.dns_mapping_choice == "round-robin":
        choose = round_robin()
    return DnsMapping(http.dns_mapping, discovery, reactor, choose)


def _check(key: str, hosts: Iterable[str]) -> None:
    for host in hosts:
        try:
            normal_host(host)
        except BadUrl as error:
            raise ConfigError(key, f"found {host!r}, {error}") from None


class WebProxy:
    """
    What a node whose proxy is switched on has for it.

    @ivar handler: Takes the requests of devices.
    @ivar fetcher: Asks web servers.
    """

    def __init__(
        self,
        settings: Settings,
        mapping: IDnsMapping,
        wheel: TimingWheel,
        reactor: Any,
        log: NodeLog,
        metrics: NodeMetrics,
    ) -> None:
        """
        @raise ConfigError: If the settings cannot be served.
        """
        # A node without the proxy does without treq.
        from mpush_tw.integrations.http.fetcher import TreqFetcher

        http = settings.http
        _check("mp.http.allowed-hosts", http.allowed_hosts)
        self._mapping = mapping
        self._log = log
        self.fetcher = TreqFetcher(
            reactor,
            max_idle_per_target=http.max_conn_per_host,
            connect_timeout=http.connect_timeout,
            max_content_length=http.max_content_length,
            max_buffered=http.max_buffered,
            ca_file=http.ca_file,
        )
        reach = Reach(
            mapping,
            http.dns_mapping,
            http.allowed_hosts,
            HostAddresses(reactor),
            http.follow_outside,
        )
        self.handler = HttpProxyHandler(
            WebRequests(
                reach,
                self.fetcher,
                log.http,
                original_host=http.host_header == "original",
                absolute=http.request_target == "absolute",
            ),
            wheel,
            reactor,
            log,
            metrics,
            ProxyLimits(
                http.default_read_timeout,
                http.max_read_timeout,
                http.max_requests,
                http.max_requests_per_device,
                http.max_buffered,
                http.limit_ios_answers,
            ),
        )

    async def start(self) -> None:
        """
        Begin; the registry has been started.

        @raise Unavailable: If the registry cannot be asked for mappings.
        """
        if isinstance(self._mapping, DnsMapping):
            await self._mapping.start(self._log.general)

    def stop(self) -> Deferred[None]:
        """
        Give up what is under way, and close all connections to web servers. Idempotent.
        """
        self.handler.stop()
        if isinstance(self._mapping, DnsMapping):
            self._mapping.stop()
        return self.fetcher.stop()
