"""
The source: entries become pushes, and their outcomes results.

All nodes read one stream as one consumer group, so each entry is taken by one of them.
That one looks where the user's devices are: it pushes to those that it has, and passes
the entry on to the own streams of the nodes that have the others. When all has ended it
writes the results and acknowledges the entry, both or neither.

Whatever happens, an entry that was not acknowledged is still in the group: a node that
comes back begins with what it had not finished, and others take over what stays
unfinished for too long. So every entry is pushed at least once, and twice if a node was
killed in between.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from txredisapi import RedisError, ResponseError

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from mpush_stream_source.entries import MAX_HOPS, Entry, Invalid, Order
from mpush_stream_source.link import RedisLink
from mpush_stream_source.options import Options
from mpush_tw.core.push.request import Outcome, PushRequest
from mpush_tw.errors import PushError, Unavailable
from mpush_tw.interfaces import (
    Event,
    IExtensionContext,
    IPushListener,
    ServerStarted,
    ServerStopping,
)
from mpush_tw.protocol.gateway import TimePoints
from mpush_tw.protocol.routes import ROUTES_PREFIX, RemoteRoute

_AT_A_TIME = 100
_BLOCK = 1.0
"""
Seconds that Redis waits for entries at most: less than it may take to answer.
"""

_PAUSE = 0.2
_LAST_WORDS = 4.0
"""
Seconds that pushes have to end when the node stops; the node itself grants five.
"""


@implementer(IPushListener)
class StreamSource:
    """
    Reads the stream, pushes, and writes the results.
    """

    # ------------------------------------------------------ called by the node

    def init(self, context: IExtensionContext) -> None:
        """
        Called before the node starts. Redis need not be there.

        @raise ConfigError: If the operator's settings cannot be used.
        """
        self._context = context
        self._options = options = Options.read(context)
        self._reactor = context.reactor
        self._log = context.log
        self._entries: dict[tuple[bytes, bytes], Entry] = {}
        self._ended: list[Entry] = []
        self._room: Deferred[None] | None = None
        self._work: Deferred[None] | None = None
        self._loops: list[Deferred[None]] = []
        self._streams: tuple[str, str] = ("", "")
        self._consumer = ""
        self._claimed = 0.0
        # What is worked on must be shown to be in time, while nothing new comes.
        self._block = min(_BLOCK, options.claim_idle / 4)
        # Reading blocks its connection.
        self._reader = RedisLink(self._reactor, options.redis, options.password)
        self._writer = RedisLink(self._reactor, options.redis, options.password)
        self._count = context.metrics.counter(
            "stream_source", "Pushes asked for by the stream, by outcome.", ("outcome",)
        )
        context.metrics.gauge(
            "stream_source_in_flight",
            "Entries of the stream that are being worked on.",
            lambda: len(self._entries),
        )
        context.events.subscribe(self._event_occurred)

    async def destroy(self) -> None:
        """
        Called when everything has stopped: what has ended is still written.
        """
        deadline = self._reactor.seconds() + _LAST_WORDS
        while self._entries and self._loops and self._reactor.seconds() < deadline:
            await deferLater(self._reactor, 0.02)
        for loop in self._loops:
            loop.cancel()
        await self._reader.stop()
        await self._writer.stop()
        if self._entries:
            self._log.warn(
                "{count} entries are left for the next start", count=len(self._entries)
            )

    def push_finished(
        self, request: PushRequest, outcome: Outcome, points: TimePoints
    ) -> None:
        """
        Called at the end of each push of the node; others than ours do not matter here.
        """
        entry = request.origin
        if not isinstance(entry, Entry):
            return
        self._count(outcome.value)
        entry.open -= 1
        if outcome is Outcome.REDIRECT and entry.hops < MAX_HOPS:
            # The user has just moved: any node may look again.
            entry.pass_on(self._options.stream, request.client_type)
        else:
            self._note(entry, request, outcome)
        if entry.open == 0:
            self._end(entry)

    def _note(self, entry: Entry, request: PushRequest, outcome: Outcome) -> None:
        report = None if request.report is None else json.dumps(request.report)
        entry.results.append(
            self._result(entry, outcome.value, request.client_type, report)
        )

    # ---------------------------------------------------------------- life

    def _event_occurred(self, event: Event) -> None:
        if isinstance(event, ServerStarted):
            host, port = self._context.address
            options = self._options
            self._consumer = f"{host}:{port}"
            self._streams = (options.stream, _own(options.stream, host, port))
            self._reader.start()
            self._writer.start()
            self._loops = [
                self._loop(self._reader, self._take),
                self._loop(self._writer, self._finish),
            ]
        elif isinstance(event, ServerStopping) and self._loops:
            self._loops[0].cancel()

    def _loop(
        self, link: RedisLink, work: Callable[[Any], Awaitable[None]]
    ) -> Deferred[None]:
        """
        Do something with a connection over and over again, on a new one when it is
        lost.
        """

        async def run() -> None:
            while True:
                try:
                    await work(await link.connected())
                except RedisError as error:
                    self._log.warn("Redis does not serve: {error}", error=error)
                    await deferLater(self._reactor, _PAUSE)

        def ended(failure: Failure) -> None:
            if not failure.check(CancelledError):
                self._log.failure("the stream is not served any more", failure)

        return Deferred.fromCoroutine(run()).addErrback(ended)

    # -------------------------------------------------------------- reading

    async def _take(self, redis: Any) -> None:
        """
        Take entries for as long as the connection lasts: first what this node had taken
        already, then what is new, and now and then what others have left behind.
        """
        for stream in self._streams:
            await self._make_group(redis, stream)
            await self._take_up_again(redis, stream)
        while True:
            room = max(0, self._options.in_flight - len(self._entries))
            now = self._reactor.seconds()
            if now - self._claimed >= self._options.claim_idle / 2:
                self._claimed = now
                await self._keep(redis)
                await self._claim(redis, min(room, _AT_A_TIME))
            elif room:
                # The number holds for each of the streams.
                count = max(1, min(room // len(self._streams), _AT_A_TIME))
                self._take_in(await self._read(redis, count, ">", *self._streams))
            else:
                await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        room: Deferred[None] = Deferred()
        self._room = room
        try:
            await room.addTimeout(self._block, self._reactor)
        except TimeoutError:
            # There is more to do than to wait.
            self._room = None

    async def _read(self, redis: Any, count: int, after: str, *streams: str) -> Any:
        return await redis.execute_command(
            *("XREADGROUP", "GROUP", self._options.group, self._consumer),
            *("COUNT", count, "BLOCK", max(1, int(self._block * 1000))),
            *("STREAMS", *streams, *[after] * len(streams)),
        )

    async def _make_group(self, redis: Any, stream: str) -> None:
        try:
            await redis.execute_command(
                "XGROUP", "CREATE", stream, self._options.group, "0", "MKSTREAM"
            )
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def _take_up_again(self, redis: Any, stream: str) -> None:
        after = "0"
        while True:
            read = await self._read(redis, _AT_A_TIME, after, stream)
            found = read[0][1] if read else []
            if not found:
                return
            self._take_in(read)
            after = found[-1][0].decode()

    async def _keep(self, redis: Any) -> None:
        """
        Show that what is being worked on is: nobody shall take it over.
        """
        for stream in self._streams:
            name = stream.encode()
            kept = [one for where, one in self._entries if where == name]
            for start in range(0, len(kept), _AT_A_TIME):
                await redis.execute_command(
                    *("XCLAIM", stream, self._options.group, self._consumer, "0"),
                    *kept[start : start + _AT_A_TIME],
                    "JUSTID",
                )

    async def _claim(self, redis: Any, count: int) -> None:
        """
        Take over what nobody has worked on for a while.
        """
        if not count:
            return
        idle_ms = int(self._options.claim_idle * 1000)
        for stream in self._streams:
            answer = await redis.execute_command(
                *("XAUTOCLAIM", stream, self._options.group, self._consumer),
                *(idle_ms, "0", "COUNT", count),
            )
            self._take_in([[stream.encode(), filter(None, answer[1])]])

    def _take_in(self, read: Iterable[Any] | None) -> None:
        for stream, entries in read or ():
            for entry_id, fields in entries:
                if (stream, entry_id) in self._entries:
                    continue
                # An entry that was deleted meanwhile has no fields.
                pairs = iter(fields or ())
                entry = Entry(stream, entry_id, dict(zip(pairs, pairs, strict=True)))
                self._entries[stream, entry_id] = entry
                pushing = Deferred.fromCoroutine(self._push(entry))
                pushing.addErrback(self._not_pushed, entry)

    # -------------------------------------------------------------- pushing

    async def _push(self, entry: Entry) -> None:
        try:
            order = Order.read(entry.fields)
        except Invalid as error:
            self._refuse(entry, str(error))
            return
        here = await self._split(entry, order)
        # Before the first of them ends the others must be known.
        entry.open = len(here)
        if not here:
            self._end(entry)
            return
        for client_type in here:
            self._context.push(
                PushRequest(
                    order.user_id,
                    client_type,
                    order.timeout_ms,
                    order.content,
                    order.task_id,
                    order.tags,
                    order.condition,
                    order.flags,
                    self,
                    entry,
                )
            )

    async def _split(self, entry: Entry, order: Order) -> list[int]:
        """
        Pass an entry on to the nodes that have the user's devices.

        @return: The client types that are to be pushed to here.
        """
        wanted = order.client_type
        if order.user_id is None or entry.hops >= MAX_HOPS:
            return [wanted or 0]
        routes = await self._context.cache.hgetall(ROUTES_PREFIX + order.user_id)
        here = []
        for written, text in routes.items():
            route = RemoteRoute.decode(text)
            if route is None or not route.online or not _is_number(written):
                continue
            client_type = int(written)
            if wanted is not None and wanted != client_type:
                continue
            if (route.host, route.port) == self._context.address:
                here.append(client_type)
            else:
                stream = _own(self._options.stream, route.host, route.port)
                entry.pass_on(stream, client_type)
        if not here and not entry.passed_on:
            # Nobody knows of the user; perhaps the push centre does.
            here.append(wanted or 0)
        return here

    def _not_pushed(self, failure: Failure, entry: Entry) -> None:
        if failure.check(Unavailable):
            # The node stops, or its store is away: the entry is taken again later.
            self._log.warn(
                "entry {name} waits: {error}", name=entry.name, error=failure.value
            )
            self._forget(entry)
        elif failure.check(PushError):
            self._refuse(entry, failure.getErrorMessage())
        else:
            self._log.failure("entry {name}", failure, name=entry.name)
            self._refuse(entry, failure.getErrorMessage())

    def _refuse(self, entry: Entry, why: str) -> None:
        self._count("invalid")
        self._log.warn("entry {name} refused: {why}", name=entry.name, why=why)
        entry.passed_on.clear()
        entry.results[:] = [self._result(entry, "invalid", None, why)]
        self._end(entry)

    def _result(
        self, entry: Entry, outcome: str, client_type: int | None, detail: str | None
    ) -> dict[str, object]:
        return {
            "outcome": outcome,
            "user_id": entry.fields.get(b"user_id"),
            "client_type": client_type or None,
            "detail": detail,
            "node": self._consumer,
            "time": int(self._reactor.seconds() * 1000),
        }

    # -------------------------------------------------------------- writing

    def _end(self, entry: Entry) -> None:
        self._ended.append(entry)
        work, self._work = self._work, None
        if work is not None:
            work.callback(None)

    async def _finish(self, redis: Any) -> None:
        """
        Write results and acknowledge entries for as long as the connection lasts.
        """
        options = self._options
        while True:
            if not self._ended:
                self._work = Deferred()
                await self._work
            batch = self._ended[:_AT_A_TIME]
            asked = [redis.execute_command("MULTI")]
            for entry in batch:
                asked += [
                    redis.execute_command(*command)
                    for command in entry.commands(
                        options.results, options.results_max_length, options.group
                    )
                ]
            asked.append(redis.execute_command("EXEC"))
            for one in asked[:-1]:
                one.addErrback(lambda _: None)
            answers = await asked[-1]
            for answer in answers:
                if isinstance(answer, Exception):
                    self._log.error("a result is lost: {error}", error=answer)
            # Others may have been added behind them meanwhile.
            del self._ended[: len(batch)]
            for entry in batch:
                self._forget(entry)

    def _forget(self, entry: Entry) -> None:
        self._entries.pop((entry.stream, entry.entry_id), None)
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)


def _own(stream: str, host: str, port: int) -> str:
    """
    Name the stream of one node.
    """
    return f"{stream}@{host}:{port}"


def _is_number(written: str) -> bool:
    return written.removeprefix("-").isascii() and written.removeprefix("-").isdigit()
