"""
Publish and subscribe between the nodes of a cluster, over Redis (cluster 2.8, 6).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import (
    Deferred,
    DeferredList,
    FirstError,
    gatherResults,
    succeed,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mpush_tw.config.settings import RedisSettings
from mpush_tw.errors import Unavailable
from mpush_tw.integrations.redis._commands import Command
from mpush_tw.integrations.redis._connection import (
    Address,
    Connection,
    Lost,
    Refused,
    Reply,
)
from mpush_tw.integrations.redis._pool import Pool, PoolLimits
from mpush_tw.integrations.redis._sources import source_of
from mpush_tw.integrations.redis._store import Restored
from mpush_tw.interfaces import IMessageQueue

Receiver = Callable[[str, str], None]


@implementer(IMessageQueue)
class RedisQueue:
    """
    Two connections: one that has subscribed, one to publish. In a Redis Cluster each
    goes to any node, and to another when that one is lost.

    Subscriptions are renewed with each new connection, and only then is the queue
    I{restored} (C-5).
    """

    _log = Logger()

    def __init__(self, settings: RedisSettings, reactor: Any) -> None:
        """
        @param settings: With at least one node.
        @param reactor: Provides C{IReactorTCP} and C{IReactorTime}.
        @raise ConfigError: If a file of C{mp.redis.tls} cannot be used.
        """
        self._restored = Restored()
        self._receivers: dict[str, Receiver] = {}
        self._source = source_of(settings, reactor)
        limits = PoolLimits(wait=PoolLimits.of(settings.config).wait)
        self._publisher = Pool(
            self._source.name,
            "way to publish messages",
            self._source.dial,
            limits,
            reactor,
            follows=self._source.follows,
        )
        self._subscriber = Pool(
            self._source.name,
            "subscriptions to messages",
            self._dial,
            limits,
            reactor,
            back=self._restored.tell,
            follows=self._source.follows,
        )

    def start(self) -> Deferred[None]:
        """
        Connect and see that Redis answers, within five seconds; see
        L{IMessageQueue.start}. After a failure it may be tried again.
        """
        return Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        both = [self._subscriber.start(), self._publisher.start()]
        try:
            await gatherResults(both, consumeErrors=True)
        except FirstError as error:
            await self.stop()
            error.subFailure.raiseException()
        except BaseException:
            await self.stop()
            raise
        self._source.start(self._moved)

    def stop(self) -> Deferred[None]:
        """
        Disconnect and forget the receivers. L{start} may be called again when the
        Deferred has fired.
        """
        self._receivers.clear()
        closed: Deferred[None] = Deferred()
        DeferredList(
            [self._source.stop(), self._subscriber.stop(), self._publisher.stop()]
        ).addCallback(lambda _: closed.callback(None))
        return closed

    def on_restored(self, listener: Callable[[], None]) -> None:
        self._restored.add(listener)

    def publish(self, topic: str, text: str) -> Deferred[None]:
        command = Command(("PUBLISH", topic, text), repeatable=False)
        return self._publisher.execute(command).addCallbacks(
            _nothing, _refused, errbackArgs=(topic,)
        )

    def subscribe(self, topic: str, receiver: Receiver) -> Deferred[None]:
        """
        Receive what is published; see L{IMessageQueue.subscribe}. When the connection
        is lost before Redis confirms, the next one confirms; without one in two seconds
        this fails with L{Unavailable}, and there is no subscription.
        """
        known = topic in self._receivers
        self._receivers[topic] = receiver
        done = self._subscriber.execute(Command(("SUBSCRIBE", topic)))

        def give_up(failure: Failure) -> Failure:
            if not known and self._receivers.get(topic) is receiver:
                del self._receivers[topic]
            return failure

        done.addErrback(give_up)
        return done.addCallbacks(_nothing, _refused, errbackArgs=(topic,))

    def unsubscribe(self, topic: str) -> Deferred[None]:
        """
        Receive no more, from now on; Redis is told if it can be.
        """
        if self._receivers.pop(topic, None) is None or not self._subscriber.up:
            # The next connection does not subscribe to it.
            return succeed(None)
        done = self._subscriber.execute(Command(("UNSUBSCRIBE", topic)))
        return done.addCallbacks(_nothing, _forgiven)

    # ------------------------------------------------------------ subscriber

    async def _dial(self) -> Connection:
        """
        Make a connection that has subscribed to everything.
        """
        connection = await self._source.dial()
        connection.message_received = self._message_received
        try:
            for topic in list(self._receivers):
                await connection.send(("SUBSCRIBE", topic))
        except (Lost, Refused) as error:
            connection.abort("is not wanted")
            raise Unavailable(
                f"Redis at {connection.address} takes no subscription: {error}"
            ) from None
        except BaseException:
            connection.abort("is not wanted")
            raise
        return connection

    def _message_received(self, topic: str | bytes, text: str | bytes) -> None:
        if not isinstance(topic, str) or not isinstance(text, str):
            self._log.warn("message on {topic!r} is no UTF-8 text", topic=topic)
            return
        receiver = self._receivers.get(topic)
        if receiver is None:
            self._log.info("message on {topic!r}, which nobody receives", topic=topic)
            return
        try:
            receiver(topic, text)
        except Exception:
            self._log.failure("receiver of {topic} failed", Failure(), topic=topic)

    def _moved(self, keep: Callable[[Address], bool]) -> None:
        self._publisher.leave(keep)
        self._subscriber.leave(keep)


def _nothing(reply: Reply) -> None:
    """
    Whatever the answer is.
    """


def _forgiven(failure: Failure) -> None:
    failure.trap(Unavailable, Refused)


def _refused(failure: Failure, topic: str) -> None:
    failure.trap(Refused)
    refused: Any = failure.value
    raise Unavailable(f"Redis at {refused.address} refuses {topic!r}: {refused.text}")
