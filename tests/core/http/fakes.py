"""
Web servers and names without a network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from mpush_tw.interfaces import (
    DnsTarget,
    HttpFetch,
    HttpFetched,
    IDnsMapping,
    IHttpFetcher,
)

OK = HttpFetched(200, b"OK", ((b"Server", b"fake"),), b"hello")


def redirect(location: str, status: int = 302) -> HttpFetched:
    """
    Make a redirect.
    """
    return HttpFetched(status, b"Found", ((b"Location", location.encode()),), b"")


@implementer(IHttpFetcher)
class FakeFetcher:
    """
    Notes what is asked, and answers as the test wants.

    @ivar asked: The requests so far.
    @ivar answers: What comes for each request, in order; when there are no more, C{OK}.
        An exception fails the request, and C{None} has it wait.
    @ivar waiting: Those that wait, oldest first; gone when cancelled.
    @ivar cancelled: How many were given up.
    """

    def __init__(self) -> None:
        self.asked: list[HttpFetch] = []
        self.answers: list[HttpFetched | Exception | None] = []
        self.waiting: list[Deferred[HttpFetched]] = []
        self.cancelled = 0

    def fetch(self, request: HttpFetch) -> Deferred[HttpFetched]:
        self.asked.append(request)
        answer = self.answers.pop(0) if self.answers else OK
        if isinstance(answer, Exception):
            return fail(answer)
        if answer is not None:
            return succeed(answer)
        waiting: Deferred[HttpFetched] = Deferred(self._cancel)
        self.waiting.append(waiting)
        return waiting

    def _cancel(self, waiting: Deferred[HttpFetched]) -> None:
        self.cancelled += 1
        self.waiting.remove(waiting)

    def idle_connections(self) -> Mapping[str, int]:
        return {}

    def stop(self) -> Deferred[None]:
        return succeed(None)


@implementer(IDnsMapping)
class FakeMapping:
    """
    Maps as a dictionary says.
    """

    def __init__(self, targets: Mapping[str, DnsTarget]) -> None:
        self.targets = dict(targets)

    def lookup(self, host: str) -> DnsTarget | None:
        return self.targets.get(host)


class FakeNames:
    """
    Looks names up in a dictionary.

    @ivar asked: The names so far.
    @ivar answer: Called instead, if set: for names whose addresses change.
    """

    def __init__(self, addresses: Mapping[str, Sequence[str]]) -> None:
        self.addresses = dict(addresses)
        self.asked: list[str] = []
        self.answer: Callable[[str], Sequence[str]] | None = None

    def __call__(self, name: str) -> Deferred[Sequence[str]]:
        self.asked.append(name)
        if self.answer is not None:
            return succeed(self.answer(name))
        return succeed(self.addresses.get(name, ()))
