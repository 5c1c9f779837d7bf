"""
The handler: each message becomes one entry of the stream.

A device that asks for an acknowledgement gets it when its message is in the stream; one
that does not ask is not waited for. While Redis is away messages wait, so many and no
more; what is lost then is counted and told in the log.

After an interruption a message may be in the stream twice: its C{id} is the same then.
"""

from __future__ import annotations

import time
import uuid
from itertools import islice
from typing import Any

from txredisapi import RedisError, ResponseError

from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    maybeDeferred,
)
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from mpush_stream_upstream.link import RedisLink
from mpush_stream_upstream.options import Options
from mpush_tw.errors import Unavailable
from mpush_tw.interfaces import (
    IExtensionContext,
    IUpstreamHandler,
    UpstreamMessage,
)

WANTS_ACK = 8
"""
The flag of a message whose device waits for an acknowledgement.
"""

_BATCH = 500
_BATCH_BYTES = 1 << 20
_PAUSE = 0.2
_LATER = ("LOADING", "READONLY", "MASTERDOWN", "BUSY", "OOM", "MISCONF")
"""
How the errors begin that pass: Redis starts, changes its master, has no room.
"""

_LAST_WORDS = 4.0
"""
Seconds that what waits has when the node stops; the node itself grants five.
"""


class _Entry:
    """
    A message on its way into the stream.

    @ivar stored: Fires when it is there; C{None} if nobody waits for that.
    """

    __slots__ = ("fields", "size", "stored")

    def __init__(self, message: UpstreamMessage) -> None:
        self.fields = _fields(message)
        self.size = sum(map(len, self.fields))
        self.stored: Deferred[None] | None = None


def _fields(message: UpstreamMessage) -> list[bytes]:
    """
    Give names and values for XADD; what the device did not say is left out.
    """
    fields = [b"id", uuid.uuid4().hex.encode(), b"content", message.content]
    for name, value in (
        ("time", int(time.time() * 1000)),
        ("user_id", message.user_id),
        ("device_id", message.device_id),
        ("connection_id", message.connection_id),
        ("session_id", message.session_id),
        ("tags", message.tags),
        ("os_name", message.os_name),
        ("client_version", message.client_version),
    ):
        if value is not None:
            fields += [name.encode(), str(value).encode("utf-8", "replace")]
    return fields


@implementer(IUpstreamHandler)
class StreamUpstream:
    """
    Writes messages into a stream.
    """

    def init(self, context: IExtensionContext) -> None:
        """
        Called by the node before it starts. Redis need not be there.

        @raise ConfigError: If the operator's settings cannot be used.
        """
        self._options = options = Options.read(context)
        self._reactor = context.reactor
        self._log = context.log
        # In the order of their coming; taken out when they are in the stream.
        self._waiting: dict[_Entry, None] = {}
        self._bytes = 0
        self._wake: Deferred[None] | None = None
        self._lost = 0
        self._why = ""
        self._lost_told = 0.0
        self._stopping = False
        self._count = context.metrics.counter(
            "stream_upstream", "Messages of devices, by what became of them.", ("end",)
        )
        context.metrics.gauge(
            "stream_upstream_waiting",
            "Messages of devices that wait for Redis.",
            lambda: len(self._waiting),
        )
        self._link = RedisLink(context.reactor, options.redis, options.password)
        self._link.start()
        self._writing = Deferred.fromCoroutine(self._write())
        self._writing.addErrback(self._write_ended)

    async def destroy(self) -> None:
        """
        Called by the node when everything has stopped: what waits gets a last chance.
        """
        self._stopping = True
        self._wake_up()
        deadline = self._reactor.seconds() + _LAST_WORDS
        while self._waiting and self._reactor.seconds() < deadline:
            await deferLater(self._reactor, 0.02)
        self._writing.cancel()
        await self._link.stop()
        for entry in list(self._waiting):
            self._lose(entry, "dropped", "the node was stopped")
        self._tell_losses()

    def message_received(self, message: UpstreamMessage) -> Deferred[None] | None:
        """
        Called by the node for each message.

        @return: For one that wants an acknowledgement a Deferred that fires when it is
            in the stream.
        @raise Unavailable: If it wants one, and too many wait already.
        """
        wants_ack = bool(message.flags & WANTS_ACK)
        entry = _Entry(message)
        options = self._options
        if (
            len(self._waiting) >= options.waiting
            or self._bytes + entry.size > options.waiting_bytes
        ):
            self._count("dropped")
            self._note_loss()
            if wants_ack:
                raise Unavailable("too many messages wait for Redis")
            return None
        self._waiting[entry] = None
        self._bytes += entry.size
        self._wake_up()
        if not wants_ack:
            return None
        entry.stored = Deferred(lambda _: self._give_up(entry))
        return entry.stored

    # -------------------------------------------------------------- writing

    async def _write(self) -> None:
        """
        Write what waits, for as long as the node lives.
        """
        while True:
            if not self._waiting:
                self._wake = Deferred()
                await self._wake
            try:
                redis = await self._link.connected()
                written = await self._write_some(redis)
            except RedisError as error:
                self._log.warn("Redis does not serve: {error}", error=error)
                written = False
            if not written:
                # Whoever does not answer now is not asked at once again.
                await deferLater(self._reactor, _PAUSE)

    def _write_ended(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.failure("messages are not written any more", failure)

    async def _write_some(self, redis: Any) -> bool:
        """
        Write the oldest messages.

        @return: Whether Redis has answered for all of them.
        """
        batch, size = [], 0
        for entry in islice(self._waiting, _BATCH):
            batch.append(entry)
            size += entry.size
            if size > _BATCH_BYTES:
                break
        whole = True
        asked = [maybeDeferred(self._add, redis, entry) for entry in batch]
        outcomes = await DeferredList(asked, consumeErrors=True)
        for entry, (succeeded, result) in zip(batch, outcomes, strict=True):
            if succeeded:
                self._done(entry)
                continue
            reason = result.getErrorMessage()
            if result.check(ResponseError) and not reason.startswith(_LATER):
                self._lose(entry, "refused", f"Redis says {reason}")
            else:
                whole = False
        self._tell_losses()
        return whole

    def _add(self, redis: Any, entry: _Entry) -> Deferred[Any]:
        options = self._options
        command = ("XADD", options.stream, "MAXLEN", "~", options.max_length, "*")
        adding: Deferred[Any] = redis.execute_command(*command, *entry.fields)
        return adding

    def _wake_up(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:
            wake.callback(None)

    # -------------------------------------------------------------- endings

    def _take_out(self, entry: _Entry) -> bool:
        """
        @return: Whether it was still there.
        """
        if entry not in self._waiting:
            return False
        del self._waiting[entry]
        self._bytes -= entry.size
        return True

    def _done(self, entry: _Entry) -> None:
        self._count("stored")
        # One that was given up meanwhile is in the stream all the same.
        if self._take_out(entry) and entry.stored is not None:
            entry.stored.callback(None)

    def _lose(self, entry: _Entry, end: str, why: str) -> None:
        if not self._take_out(entry):
            return
        self._count(end)
        self._note_loss(why)
        if entry.stored is not None:
            entry.stored.errback(Unavailable(why))

    def _give_up(self, entry: _Entry) -> None:
        """
        The node waits no more: the device gets no acknowledgement and will send its
        message again if it matters.
        """
        if self._take_out(entry):
            self._count("given-up")

    def _note_loss(self, why: str = "too many wait for Redis") -> None:
        self._lost += 1
        self._why = why
        if self._reactor.seconds() - self._lost_told >= 1:
            self._tell_losses()

    def _tell_losses(self) -> None:
        """
        Say what was lost since the last time; one line a second is enough.
        """
        if self._lost:
            self._log.error(
                "{count} messages of devices were lost: {why}",
                count=self._lost,
                why=self._why,
            )
            self._lost, self._lost_told = 0, self._reactor.seconds()
