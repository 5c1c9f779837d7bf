"""
A push to a list of users, up to 100,000 of them.

Two things go on at the same time. Routes are looked up, many at a time, which the route
store makes a pipeline of. And each gateway has its stream of users to push to, of which
as many are under way as its window allows: a gateway that does not answer holds up its
own users only. Both go on in slices, one a turn of the reactor, so that whatever else
the program does goes on too.

What a list holds in memory is bounded by the number of its users.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mpush_tw.errors import Unavailable
from mpush_tw.sender._kept import KeptResults
from mpush_tw.sender._request import Sending, UserPush
from mpush_tw.sender.context import PushContext
from mpush_tw.sender.directory import Address, Route
from mpush_tw.sender.result import AggregateResult, PushResult, ResultCode

Progress = Callable[[int, int, Mapping[ResultCode, int]], object]
"""
Told how many pushes have ended, of how many, and how.
"""

LOOK_UPS = 128
"""
Users that are looked up at a time.
"""

WINDOW = 256
ACK_WINDOW = 1000
"""
Pushes that are under way at a time at one gateway, without and with an acknowledgement,
which takes a device's time and not the node's; fewer if they are large.
"""

FRESH = 2.0
"""
Seconds for which routes may wait for their turn. Older ones are asked for again, which
the directory mostly remembers, unless the user has moved.
"""

PROGRESS_EVERY = 0.25
"""
Seconds between two reports of progress.
"""

TIME_LINES = 1000
"""
Longest list whose results keep their time lines.
"""

_OVERHEAD = 512
_SLICE_SECONDS = 0.004
_SLICE_STEPS = 500


class _Stream:
    """
    The users of one gateway.

    @ivar waiting: Those that are looked up, with their routes, and since when.
    """

    __slots__ = ("under_way", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[tuple[str, Sequence[Route], float]] = deque()
        self.under_way = 0


class Batch:
    """
    One list under way; made by L{PushSender.batch}.

    @ivar finished: Fires with the results when every push has ended, or the list was
        cancelled. Cancelling it does the same as L{cancel}, so that it fires with what
        there is rather than failing.
    """

    _log = Logger()

    def __init__(
        self,
        context: PushContext,
        users: Sequence[str],
        payload: bytes,
        sending: Sending,
        progress: Progress | None,
    ) -> None:
        """
        @param users: Each once.
        @param progress: What it raises is logged.
        """
        self._context = context
        self._users = users
        self._payload = payload
        self._sending = sending
        self._progress = progress
        self._clock = sending.clock
        room = sending.pool.window_bytes // (len(payload) + _OVERHEAD)
        self._window = max(1, min(ACK_WINDOW if context.ack else WINDOW, room))
        self._next: Iterator[str] = iter(users)
        self._exhausted = False
        # With the time when each began, which is also their order.
        self._looking: dict[Deferred[Any], float] = {}
        self._look_up_call: Any = None
        self._streams: dict[Address, _Stream] = {}
        # Streams with users waiting and room for them, in the order of their turns.
        self._ready: dict[_Stream, None] = {}
        self._pushes: dict[UserPush, str] = {}
        self._counts = dict.fromkeys(ResultCode, 0)
        self._reported = sending.clock.seconds()
        self._call: Any = None
        self._working = False
        self._over = False
        self._told = False
        self._results = KeptResults(len(users) <= TIME_LINES, context.trace_id)
        self.finished: Deferred[AggregateResult] = Deferred(lambda _: self.cancel())

    @property
    def results(self) -> Mapping[str, PushResult]:
        """
        What has ended so far, by user.
        """
        return self._results

    @property
    def total(self) -> int:
        """
        How many users there are.
        """
        return len(self._users)

    @property
    def done(self) -> int:
        """
        How many pushes have ended.
        """
        return len(self._results)

    @property
    def counts(self) -> dict[ResultCode, int]:
        """
        How many have ended with each code; all four are present.
        """
        return dict(self._counts)

    def start(self) -> None:
        """
        Begin.
        """
        self._sending.batches.add(self)
        self._work()

    def cancel(self) -> None:
        """
        End it now: pushes under way end as failures, although their devices may get
        them; what was not begun is not sent. Does nothing when it has ended.
        """
        if self._over:
            return
        self._over = True
        if self._call is not None:
            self._call.cancel()
            self._call = None
        for looking in list(self._looking):
            looking.cancel()
        for push in list(self._pushes):
            push.fail()
        self._end()

    fail = cancel

    # ---------------------------------------------------------------- working

    def _go_on(self) -> None:
        """
        Work in a turn of its own: what has ended together is replaced together.
        """
        if self._call is None and not self._working and not self._over:
            self._call = self._clock.callLater(0, self._work)

    def _work(self) -> None:
        self._call = None
        self._working = True
        seconds = self._clock.seconds
        until = seconds() + _SLICE_SECONDS
        cut = True
        for _ in range(_SLICE_STEPS):
            if not self._step():
                cut = False
                break
            if seconds() >= until:
                break
        self._working = False
        if self._over:
            return
        if len(self._results) == len(self._users):
            self._over = True
            self._end()
            return
        self._report()
        # Whoever was told of progress may have cancelled it.
        if cut and not self._over:
            self._go_on()

    def _step(self) -> bool:
        """
        Do one thing that can be done.

        @return: Whether there was any.
        """
        if self._over:
            return False
        for stream in self._ready:
            self._push_next(stream)
            return True
        if self._exhausted or len(self._looking) >= LOOK_UPS:
            return False
        user_id = next(self._next, None)
        if user_id is None:
            self._exhausted = True
            return False
        self._look_up(user_id)
        return True

    # ---------------------------------------------------------------- routes

    def _look_up(self, user_id: str) -> None:
        looking: Deferred[Sequence[Route]] = maybeDeferred(
            self._sending.directory.routes, user_id
        )
        if not looking.called:
            self._looking[looking] = self._clock.seconds()
            if self._look_up_call is None:
                self._limit_look_ups()

        def found(routes: Sequence[Route]) -> None:
            self._looking.pop(looking, None)
            if not self._over:
                self._routes_found(user_id, routes)

        def failed(failure: Failure) -> None:
            self._looking.pop(looking, None)
            if failure.check(CancelledError):
                if self._over:
                    return
                self._sending.unavailable(Unavailable("a look-up took too long"))
            elif isinstance(failure.value, Unavailable):
                self._sending.unavailable(failure.value)
            else:
                self._log.failure("push to a user broke off", failure)
            if not self._over:
                self._begin(user_id).fail()
                self._go_on()

        looking.addCallback(found).addErrback(failed)

    def _limit_look_ups(self) -> None:
        """
        Give up what has been looked up for too long: one timer for all of them.
        """
        self._look_up_call = None
        now, limit = self._clock.seconds(), self._context.seconds()
        late = [one for one, since in self._looking.items() if now - since >= limit]
        for looking in late:
            looking.cancel()
        for since in self._looking.values():
            self._look_up_call = self._clock.callLater(
                max(0, since + limit - now), self._limit_look_ups
            )
            return

    def _routes_found(self, user_id: str, routes: Sequence[Route]) -> None:
        if routes:
            stream = self._streams.setdefault(routes[0].address, _Stream())
            stream.waiting.append((user_id, routes, self._clock.seconds()))
            self._look_whether_ready(stream)
        else:
            self._begin(user_id).start(routes)
        self._go_on()

    # ---------------------------------------------------------------- pushes

    def _look_whether_ready(self, stream: _Stream) -> None:
        if stream.waiting and stream.under_way < self._window:
            self._ready[stream] = None
        else:
            self._ready.pop(stream, None)

    def _push_next(self, stream: _Stream) -> None:
        # To the end of the line, so that streams take turns.
        del self._ready[stream]
        user_id, routes, since = stream.waiting.popleft()
        stream.under_way += 1

        def ended(result: object) -> None:
            stream.under_way -= 1
            if not self._over:
                self._look_whether_ready(stream)

        push = self._begin(user_id)
        push.finished.addCallback(ended)
        fresh = self._clock.seconds() - since <= FRESH
        push.start(routes if fresh else None)
        self._look_whether_ready(stream)

    def _begin(self, user_id: str) -> UserPush:
        push = UserPush(self._context, user_id, self._payload, self._sending)
        self._pushes[push] = user_id

        def ended(result: PushResult) -> None:
            del self._pushes[push]
            if self._told:
                return
            self._results.put(result)
            self._counts[result.code] += 1
            self._go_on()

        push.finished.addCallback(ended)
        return push

    # -------------------------------------------------------------- the end

    def _report(self) -> None:
        now = self._clock.seconds()
        if now - self._reported >= PROGRESS_EVERY:
            self._reported = now
            self._tell_progress()

    def _tell_progress(self) -> None:
        if self._progress is None:
            return
        try:
            self._progress(self.done, self.total, self.counts)
        except Exception:
            self._log.failure("the progress of a list could not be told")

    def _end(self) -> None:
        self._sending.batches.discard(self)
        self._streams.clear()
        self._ready.clear()
        results = self._results
        for user_id in self._pushes.values():
            # Its callback has cancelled the list: nobody waits for its end.
            results.put(PushResult(ResultCode.FAILURE, user_id))
            self._counts[ResultCode.FAILURE] += 1
        self._told = True
        if self._look_up_call is not None:
            self._look_up_call.cancel()
        self._tell_progress()
        unsent = tuple(user_id for user_id in self._users if user_id not in results)
        self.finished.callback(AggregateResult(results.of(self._users), unsent))
