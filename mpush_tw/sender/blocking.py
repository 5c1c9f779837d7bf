"""
The sender for scripts that have no reactor::

    with BlockingPushSender([("127.0.0.1", 3001)]) as sender:
        result = sender.send(PushContext(b"hello", user_id="alice"))

It runs a reactor of its own, apart from Twisted's global one, in a thread that ends
with C{stop}. A program that runs the global reactor uses
L{PushSender<mpush_tw.sender.PushSender>} instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Lock, Thread, current_thread
from types import TracebackType
from typing import TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from mpush_tw.errors import PushError
from mpush_tw.protocol.packet import DEFAULT_MAX_BODY
from mpush_tw.sender.context import PushContext
from mpush_tw.sender.directory import Address
from mpush_tw.sender.push_sender import PushSender
from mpush_tw.sender.result import AggregateResult, PushResult

_T = TypeVar("_T")


class BlockingPushSender:
    """
    A L{PushSender} whose methods wait for the answer.

    C{send} and C{send_all} may be called from several threads at a time. Every method
    raises what the Deferred would fail with, and L{PushError} when it is called from a
    callback of a context: callbacks run in the thread of the reactor, which would wait
    for itself.
    """

    def __init__(
        self,
        gateways: Sequence[Address],
        *,
        max_packet_size: int = DEFAULT_MAX_BODY,
        connections_per_gateway: int = 1,
    ) -> None:
        """
        @raise PushError: As L{PushSender} does.
        """
        self._reactor = EPollReactor()
        self._sender = PushSender(
            gateways,
            reactor=self._reactor,
            max_packet_size=max_packet_size,
            connections_per_gateway=connections_per_gateway,
        )
        self._thread: Thread | None = None
        self._ended = False
        # Nothing is handed to the reactor once it has been told to stop: it would
        # never be done, and never be answered.
        self._lock = Lock()

    def start(self) -> None:
        """
        Connect; return when the first gateway is connected.

        @raise Unavailable: If none is after 4 seconds.
        @raise PushError: If it was started before: a reactor runs only once.
        """
        with self._lock:
            if self._thread is not None or self._ended:
                raise PushError("a blocking sender is started once")
            self._thread = Thread(
                target=self._reactor.run,
                kwargs={"installSignalHandlers": False},
                name="mpush-sender",
                daemon=True,
            )
            self._thread.start()
        try:
            self._wait_for(self._sender.start)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """
        Close the connections and end the thread; pushes under way end as failures.
        """
        self._refuse_in_callback()
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is None:
                return
            self._ended = True
            stopped = self._hand_over(self._sender.stop)
        try:
            stopped.result()
        finally:
            self._reactor.callFromThread(self._reactor.stop)
            thread.join()
            # A reactor keeps what wakes it up; only a process has it once.
            waker = self._reactor.waker
            self._reactor.removeReader(waker)
            waker.connectionLost(Failure(ConnectionDone()))

    def send(self, context: PushContext) -> PushResult:
        """
        Push to one user, see L{PushSender.send}.
        """
        return self._wait_for(lambda: self._sender.send(context))

    def send_all(self, context: PushContext) -> AggregateResult:
        """
        Push to several users, see L{PushSender.send_all}.
        """
        return self._wait_for(lambda: self._sender.send_all(context))

    def __enter__(self) -> BlockingPushSender:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _wait_for(self, call: Callable[[], Deferred[_T]]) -> _T:
        self._refuse_in_callback()
        with self._lock:
            if self._thread is None:
                raise PushError("the sender is not started")
            answer = self._hand_over(call)
        return answer.result()

    def _refuse_in_callback(self) -> None:
        if current_thread() is self._thread:
            raise PushError("a callback can not wait for the sender that calls it")

    def _hand_over(self, call: Callable[[], Deferred[_T]]) -> Future[_T]:
        """
        Have the reactor's thread call something, after all it was given before.
        """
        answer: Future[_T] = Future()

        def failed(failure: Failure) -> None:
            answer.set_exception(failure.value)

        def run() -> None:
            maybeDeferred(call).addCallbacks(answer.set_result, failed)

        self._reactor.callFromThread(run)
        return answer
