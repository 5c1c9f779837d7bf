"""
The addresses of host names, as this machine resolves them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from zope.interface import implementer

KEPT_SECONDS = 10.0
"""
How long an answer is good for: a busy host is not looked up for each request.
"""

_MOST_NAMES = 1000


@implementer(IResolutionReceiver)
class _Receiver:
    """
    Collects what the resolver finds.
    """

    def __init__(self, done: Deferred[tuple[str, ...]]) -> None:
        self._done = done
        self._found: list[str] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """
        Nothing to do; the question cannot be taken back.
        """

    def addressResolved(self, address: IAddress) -> None:
        if isinstance(address, (IPv4Address, IPv6Address)) and "%" not in address.host:
            self._found.append(address.host)

    def resolutionComplete(self) -> None:
        self._done.callback(tuple(self._found))


class HostAddresses:
    """
    Looks names up, each once at a time, and remembers the answers for a while.

    Names are those that operators have listed, or redirects have led to, so there are
    few; the number that is remembered is bounded nevertheless.
    """

    def __init__(self, reactor: Any) -> None:
        """
        @param reactor: Provides C{IReactorPluggableNameResolver}.
        """
        self._reactor = reactor
        self._asked: dict[str, list[Deferred[Sequence[str]]]] = {}
        self._known: OrderedDict[str, tuple[float, tuple[str, ...]]] = OrderedDict()

    def __call__(self, name: str) -> Deferred[Sequence[str]]:
        """
        Look a name up.

        @return: Fires with its IP addresses, none if it has none; does not fail. May be
            cancelled: then nobody waits for the answer.
        """
        until, addresses = self._known.get(name, (0.0, ()))
        if until > self._reactor.seconds():
            return succeed(addresses)
        waiting: Deferred[Sequence[str]] = Deferred()
        if name in self._asked:
            self._asked[name].append(waiting)
            return waiting
        self._asked[name] = [waiting]
        done: Deferred[tuple[str, ...]] = Deferred()
        done.addCallback(self._answered, name)
        self._reactor.nameResolver.resolveHostName(
            _Receiver(done), name, 0, [IPv4Address, IPv6Address], "TCP"
        )
        return waiting

    def _answered(self, addresses: tuple[str, ...], name: str) -> None:
        if addresses:
            self._known[name] = (self._reactor.seconds() + KEPT_SECONDS, addresses)
            self._known.move_to_end(name)
            if len(self._known) > _MOST_NAMES:
                self._known.popitem(last=False)
        for waiting in self._asked.pop(name):
            waiting.callback(addresses)
