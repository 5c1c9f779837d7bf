"""
Listeners around those that plug-ins provide: what these raise harms no push.
"""

from __future__ import annotations

from twisted.python.failure import Failure
from zope.interface import implementer

from mpush_tw.core.log import NodeLog
from mpush_tw.core.push.request import Outcome, PushRequest
from mpush_tw.interfaces import IPushListener
from mpush_tw.protocol.gateway import TimePoints


@implementer(IPushListener)
class SafeListener:
    """
    Tells another listener, and logs what it raises.
    """

    def __init__(self, listener: IPushListener, log: NodeLog) -> None:
        self._listener = listener
        self._log = log.push

    def push_finished(
        self, request: PushRequest, outcome: Outcome, points: TimePoints
    ) -> None:
        """
        Pass an outcome on.
        """
        try:
            self._listener.push_finished(request, outcome, points)
        except Exception:
            self._log.failure(
                "push listener failed on {message}", Failure(), message=request
            )


@implementer(IPushListener)
class BothListeners:
    """
    Tells two listeners, the second whatever the first has done with the push.
    """

    def __init__(self, first: IPushListener, second: IPushListener) -> None:
        self._first = first
        self._second = second

    def push_finished(
        self, request: PushRequest, outcome: Outcome, points: TimePoints
    ) -> None:
        """
        Pass an outcome on to both.
        """
        self._first.push_finished(request, outcome, points)
        self._second.push_finished(request, outcome, points)
