"""
What plug-ins have made, as the core wants it: methods that wait return Deferreds, no
wait is for ever, and a failure is one that the core knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from inspect import iscoroutine, iscoroutinefunction
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import directlyProvides, providedBy
from zope.interface.interface import Method

from mpush_tw.errors import MPushError, Unavailable
from mpush_tw.interfaces import ICache, IMessageQueue, IServiceDiscovery

INIT_SECONDS = 30.0
DESTROY_SECONDS = 5.0
START_SECONDS = 60.0
CALL_SECONDS = 10.0
"""
How long plug-ins may take: for C{init}, for C{destroy}, for the C{start} of a store
(the original waits a minute for ZooKeeper), for any other call to one.
"""

_AT_ONCE = {
    (ICache, "on_restored"),
    (IMessageQueue, "on_restored"),
    (IServiceDiscovery, "subscribe"),
    (IServiceDiscovery, "unsubscribe"),
}
"""
Methods of stores that answer no Deferred.
"""

_log = Logger(namespace="mpush.extension")


def said(error: BaseException) -> str:
    """
    Give an exception in one line.
    """
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class Standing:
    """
    Stands for a product, with some of its methods replaced; it provides what the
    product provides.
    """

    def __init__(self, product: Any, methods: Mapping[str, Callable[..., Any]]) -> None:
        self._product = product
        self.__dict__.update(methods)
        directlyProvides(self, providedBy(product))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._product, name)

    def __repr__(self) -> str:
        return repr(self._product)


def original(product: Any) -> Any:
    """
    Give what a plug-in has made, without what stands for it.
    """
    while isinstance(product, Standing):
        product = product.__dict__["_product"]
    return product


def _methods(interface: Any) -> Iterator[str]:
    for name, attribute in interface.namesAndDescriptions(all=True):
        if isinstance(attribute, Method):
            yield name


def with_deferreds(interface: Any, product: Any) -> Any:
    """
    Have methods that are written as C{async def} return Deferreds, as interfaces say.

    @return: The product itself if it has none.
    """

    def deferring(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **keywords: Any) -> Deferred[Any]:
            return Deferred.fromCoroutine(method(*args, **keywords))

        return call

    methods = {
        name: deferring(method)
        for name in _methods(interface)
        if iscoroutinefunction(method := getattr(product, name))
    }
    return Standing(product, methods) if methods else product


def bounded(interface: Any, product: Any, name: str, clock: IReactorTime) -> Any:
    """
    Have every Deferred of a store fire in time, and every failure of it be one that is
    expected of stores: L{Unavailable}. Others are logged.

    @param name: Of the plug-in, for the sentences.
    """

    def bounding(method: Callable[..., Any], what: str) -> Callable[..., Any]:
        seconds = START_SECONDS if what == "start" else CALL_SECONDS

        def failed(failure: Failure) -> Failure:
            error = failure.value
            if error is None or isinstance(error, (MPushError, CancelledError)):
                return failure
            if isinstance(error, TimeoutError):
                text = f"the plug-in {name} has not done {what} in {seconds:g} seconds"
            else:
                _log.failure(
                    "{what} of the plug-in {name}", failure, what=what, name=name
                )
                text = f"{what} of the plug-in {name} failed: {said(error)}"
            return Failure(Unavailable(text))

        def call(*args: Any, **keywords: Any) -> Any:
            try:
                result = method(*args, **keywords)
            except Exception:
                result = Deferred()
                result.errback(Failure())
            if isinstance(result, Deferred):
                result.addTimeout(seconds, clock).addErrback(failed)
            return result

        return call

    return Standing(
        product,
        {
            method: bounding(getattr(product, method), method)
            for method in _methods(interface)
            if (interface, method) not in _AT_ONCE
        },
    )


async def begin(
    init: Callable[[Any], Any], context: object, clock: IReactorTime
) -> None:
    """
    Call C{init(context)} and wait for what it returns.

    @raise TimeoutError: If it takes longer than L{INIT_SECONDS}.
    """
    await _settled(init(context), INIT_SECONDS, clock)


async def end(destroy: Callable[[], Any], clock: IReactorTime) -> None:
    """
    Call C{destroy()} and wait for what it returns, up to L{DESTROY_SECONDS}. A failure
    is logged.
    """
    try:
        await _settled(destroy(), DESTROY_SECONDS, clock)
    except Exception:
        _log.failure("{destroy!r} failed", destroy=destroy)


async def _settled(result: Any, seconds: float, clock: IReactorTime) -> None:
    if iscoroutine(result):
        result = Deferred.fromCoroutine(result)
    if isinstance(result, Deferred):
        await result.addTimeout(seconds, clock)
