"""
Which backends stand behind a host name: those of the settings, looked after, and those
that the registry knows (server 15.4, cluster 3.10).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IDelayedCall, IProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mpush_tw.interfaces import (
    DnsTarget,
    IDnsMapping,
    IServiceDiscovery,
    IServiceListener,
    ServiceNode,
)

SERVICE: Final = "/dns/mapping"
_FIRST_CHECK: Final = 1.0
_CHECK_EVERY: Final = 20.0
_CONNECT_SECONDS: Final = 1.0
_CHECKS_AT_A_TIME: Final = 20
_HTTP_PORT: Final = 80


def target_of(text: str) -> DnsTarget:
    """
    Read C{host} or C{host:port}; the port is 80 by default. An IPv6 address is in
    brackets.
    """
    match = re.fullmatch(r"(\[.*\]|[^:]*)(?::([0-9]+))?", text)
    if match is None:
        return DnsTarget(text, _HTTP_PORT)
    return DnsTarget(match[1].strip("[]"), int(match[2] or _HTTP_PORT))


def _plain(host: str) -> str:
    return host.lower().removesuffix(".")


def round_robin() -> Callable[[Sequence[DnsTarget]], DnsTarget]:
    """
    Make a chooser that takes one target after the other.
    """
    turns: dict[tuple[DnsTarget, ...], int] = {}

    def choose(targets: Sequence[DnsTarget]) -> DnsTarget:
        key = tuple(targets)
        turn = turns.get(key, 0)
        if len(turns) > 1000:
            # Lists come and go with the backends; where it begins does not matter.
            turns.clear()
        turns[key] = turn + 1
        return key[turn % len(key)]

    return choose


@implementer(IDnsMapping, IServiceListener)
class DnsMapping:
    """
    The mapping that comes with mpush_tw.

    Backends of the registry go first; they are taken at their word. Those of the
    settings are connected to every 20 seconds, and left out while that fails. If there
    is nobody, the name is not mapped.

    Host names mean the same in capitals, unlike with the original.
    """

    _log: Any = Logger(namespace="mpush")

    def __init__(
        self,
        configured: Mapping[str, Sequence[str]],
        discovery: IServiceDiscovery,
        reactor: Any,
        choose: Callable[[Sequence[DnsTarget]], DnsTarget] = random.choice,
    ) -> None:
        """
        @param configured: C{mp.http.dns-mapping}.
        @param discovery: Where nodes below L{SERVICE} are found; started by others.
        @param choose: Takes one of several targets.
        """
        self._configured: dict[str, list[DnsTarget]] = {}
        for host, targets in configured.items():
            self._configured.setdefault(_plain(host), []).extend(
                map(target_of, targets)
            )
        self._discovery = discovery
        self._reactor = reactor
        self._choose = choose
        self._down: set[DnsTarget] = set()
        self._nodes: dict[str, ServiceNode] = {}
        self._found: dict[str, list[DnsTarget]] = {}
        self._timer: IDelayedCall | None = None
        self._checking: Deferred[Any] | None = None
        self._running = False

    def lookup(self, host: str) -> DnsTarget | None:
        host = _plain(host)
        targets: Sequence[DnsTarget] = self._found.get(host, ())
        if not targets:
            targets = [
                one for one in self._configured.get(host, ()) if one not in self._down
            ]
        if not targets:
            return None
        return targets[0] if len(targets) == 1 else self._choose(targets)

    # ------------------------------------------------------------- its life

    async def start(self, log: Any = None) -> None:
        """
        Read what the registry knows, and begin to look after the backends of the
        settings.

        @param log: Where to tell of backends that come and go; has the methods of a
            L{Logger}.
        @raise Unavailable: If the registry cannot be asked.
        """
        self._running = True
        if log is not None:
            self._log = log
        # First listen, then look: nothing can slip through in between.
        self._discovery.subscribe(SERVICE, self)
        for node in await self._discovery.lookup(SERVICE):
            self.service_added(node)
        if self._running and any(self._configured.values()):
            self._timer = self._reactor.callLater(_FIRST_CHECK, self._turn)

    def stop(self) -> None:
        """
        Listen and look no more. Idempotent.
        """
        if not self._running:
            return
        self._running = False
        self._discovery.unsubscribe(SERVICE, self)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._checking is not None:
            self._checking.cancel()

    # ---------------------------------------------------------- the registry

    def service_added(self, node: ServiceNode) -> None:
        origin = (node.attributes or {}).get("origin")
        if not isinstance(origin, str) or not origin:
            # The original does not start then (C-19).
            self._log.warn(
                "{service}/{node} names no origin and is left out",
                service=SERVICE,
                node=node.node_id,
            )
            self._nodes.pop(node.node_id, None)
        else:
            self._nodes[node.node_id] = node
        self._sort()

    def service_updated(self, node: ServiceNode) -> None:
        self.service_added(node)

    def service_removed(self, node: ServiceNode) -> None:
        self._nodes.pop(node.node_id, None)
        self._sort()

    def _sort(self) -> None:
        self._found = {}
        for node_id in sorted(self._nodes):
            node = self._nodes[node_id]
            origin = _plain(str((node.attributes or {})["origin"]))
            target = DnsTarget(node.host, node.port)
            self._found.setdefault(origin, []).append(target)

    # ------------------------------------------------------ the backends' health

    def _turn(self) -> None:
        self._timer = self._reactor.callLater(_CHECK_EVERY, self._turn)
        if self._checking is None:
            # Else they are very many, and very slow: that round goes on.
            self.check()

    def check(self) -> Deferred[None]:
        """
        Try to connect to each backend of the settings.

        @return: Fires when all have answered or not; does not fail.
        """
        turn = DeferredSemaphore(_CHECKS_AT_A_TIME)
        targets = {one for targets in self._configured.values() for one in targets}
        checking = gatherResults(
            [turn.run(self._check_one, target) for target in targets],
            consumeErrors=True,
        )
        done = checking.addErrback(self._given_up).addCallback(self._checked)
        if not done.called:
            self._checking = done
        return done

    def _given_up(self, failure: Failure) -> None:
        if self._running:
            self._log.failure("the check of the backends failed", failure)

    def _checked(self, result: object) -> None:
        self._checking = None

    def _check_one(self, target: DnsTarget) -> Deferred[None]:
        endpoint = HostnameEndpoint(
            self._reactor, target.host, target.port, _CONNECT_SECONDS
        )
        factory = Factory.forProtocol(Protocol)
        factory.noisy = False
        connecting = endpoint.connect(factory)
        connecting.addTimeout(_CONNECT_SECONDS, self._reactor)
        return connecting.addCallbacks(
            self._reached, self._not_reached, (target,), {}, (target,)
        )

    def _reached(self, connection: IProtocol | None, target: DnsTarget) -> None:
        transport: Any = getattr(connection, "transport", None)
        if transport is not None:
            transport.abortConnection()
        if target in self._down:
            self._down.discard(target)
            self._log.info(
                "the backend {host}:{port} can be reached again",
                host=target.host,
                port=target.port,
            )

    def _not_reached(self, failure: Failure, target: DnsTarget) -> None:
        if self._running and target not in self._down:
            self._down.add(target)
            self._log.warn(
                "the backend {host}:{port} cannot be reached: {error}",
                host=target.host,
                port=target.port,
                error=str(failure.value) or repr(failure.value),
            )
