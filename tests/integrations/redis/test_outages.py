"""
What happens while a Redis server is away, and when it is back.
"""

from __future__ import annotations

import time
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import LogLevel, formatEvent
from twisted.trial.unittest import TestCase

from mpush_tw.config.settings import RedisPoolSettings, RedisSettings
from mpush_tw.errors import Unavailable
from mpush_tw.integrations.redis import RedisCache, RedisQueue
from tests.integrations.contracts import steps
from tests.integrations.redis.support import (
    failing,
    log_of,
    single,
    sleep,
    started_cache,
    started_queue,
    until,
)
from tests.servers import free_port
from tests.servers.redis import RedisServer

reactor: Any = global_reactor


class OutageTestCase(TestCase):
    """
    A server of its own for each test.
    """

    timeout = 30

    def serve(self, **options: Any) -> RedisServer:
        """
        Start a server that is stopped behind the test.
        """
        server = RedisServer(**options)
        server.start()
        self.addCleanup(server.stop)
        return server


class RestartTests(OutageTestCase):
    """
    A server that is restarted.
    """

    @steps
    async def setUp(self) -> None:  # type: ignore[override]
        self.server = self.serve()
        self.restored = 0

    async def started(self, **pool: Any) -> RedisCache:
        """
        Start a store that counts how often it is restored.
        """
        settings = single(self.server, config=RedisPoolSettings(**pool))
        cache = await started_cache(self, settings)
        cache.on_restored(self.count)
        return cache

    def count(self) -> None:
        """
        Count.
        """
        self.restored += 1

    @steps
    async def test_with_data(self) -> None:
        """
        What was written is there after the restart, and the store is restored once.
        """
        cache = await self.started()
        await cache.set("k", "v")
        self.server.restart()
        await until(lambda: self.restored)
        self.assertEqual(await cache.get("k"), "v")
        await sleep(0.3)
        self.assertEqual(self.restored, 1)

    @steps
    async def test_without_data(self) -> None:
        """
        After a restart that lost everything the store is restored too, and empty.
        """
        cache = await self.started()
        await cache.set("k", "v")
        self.server.restart(keep_data=False)
        await until(lambda: self.restored)
        self.assertIsNone(await cache.get("k"))

    @steps
    async def test_several_connections(self) -> None:
        """
        The store is restored once, however many connections there were.
        """
        await self.started(min_idle=4)
        await sleep(0.1)
        self.server.restart()
        await until(lambda: self.restored)
        await sleep(0.3)
        self.assertEqual(self.restored, 1)

    @steps
    async def test_again(self) -> None:
        """
        It is restored after each of several outages.
        """
        cache = await self.started()
        for outages in (1, 2):
            # One that was short-lived has to wait for the next attempt.
            await sleep(1.05)
            self.outages = outages
            self.server.kill()
            await failing(cache.get("k"))
            self.server.start()
            await until(lambda: self.restored == self.outages)
            await cache.set("k", "v")

    @steps
    async def test_lost_commands(self) -> None:
        """
        Commands that were lost with their connection are sent again on the next, and
        answered in their order, as if nothing had happened.
        """
        cache = await self.started()
        self.server.pause()
        sent: list[Deferred[Any]] = [
            cache.set("k", "v"),
            cache.get("k"),
            cache.hset("h", "f", "1"),
            cache.hget("h", "f"),
            cache.zadd("z", "m"),
            cache.zcard("z"),
            cache.hset_if("h", "g", None, "2"),
        ]
        await sleep(0.05)
        self.server.kill()
        self.server.start()
        self.assertEqual(
            await gatherResults(sent), [None, "v", None, "1", None, 1, True]
        )

    @steps
    async def test_not_sent_twice(self) -> None:
        """
        Those that would do harm if they were run twice fail instead.
        """
        cache = await self.started()
        self.server.pause()
        sent: list[Deferred[Any]] = [
            cache.hincrby("h", "n", 1),
            cache.lpush("l", ["a"]),
            cache.hswap("h", "f", "v"),
        ]
        await sleep(0.05)
        self.server.kill()
        self.server.start()
        for call in sent:
            error = await failing(call)
            self.assertIn(f"Redis at {self.server.address} gave no answer", str(error))
        await until(lambda: self.restored)
        self.assertEqual(self.server.cli("DBSIZE"), "0")

    @steps
    async def test_written_before_it_was_lost(self) -> None:
        """
        A conditional write that was run before its answer was lost counts as written.
        """
        cache = await self.started()
        await cache.hset("h", "f", "old")
        sent = cache.hset_if("h", "f", "old", "new")
        # The reactor does not run: redis-cli plays the first run, and cuts the answer.
        self.server.cli("HSET", "h", "f", "new")
        self.server.cli("CLIENT", "KILL", "TYPE", "normal")
        self.assertTrue(await sent)

    @steps
    async def test_one_of_many(self) -> None:
        """
        When one connection is lost and others are not, Redis was not away.
        """
        cache = await self.started(min_idle=2)
        await sleep(0.1)
        clients = self.server.cli("CLIENT", "LIST", "TYPE", "normal").split("\n")
        oldest = min(int(line.split()[0].removeprefix("id=")) for line in clients)
        self.server.cli("CLIENT", "KILL", "ID", str(oldest))
        await sleep(0.3)
        self.assertIsNone(await cache.get("k"))
        self.assertEqual(self.restored, 0)

    @steps
    async def test_all_connections(self) -> None:
        """
        When all connections are lost the store may have been away: it is restored.
        """
        cache = await self.started(min_idle=2)
        await sleep(0.1)
        self.server.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await until(lambda: self.restored == 1)
        self.assertIsNone(await cache.get("k"))

    @steps
    async def test_listener_raises(self) -> None:
        """
        A listener that raises is logged, and the next is called.
        """
        cache = await started_cache(self, single(self.server))

        def fail() -> None:
            raise ZeroDivisionError

        cache.on_restored(fail)
        cache.on_restored(self.count)
        self.server.restart()
        await until(lambda: self.restored)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    @steps
    async def test_log(self) -> None:
        """
        The log has one line when the store is lost and one when it is back, both with
        the address, however many commands failed meanwhile.
        """
        events = log_of(self)
        cache = await self.started()
        self.server.kill()
        for _ in range(20):
            await failing(cache.get("k"))
            await sleep(0.02)
        self.server.start()
        await until(lambda: self.restored)
        lines = [
            str(formatEvent(event))
            for event in events
            if event["log_level"] >= LogLevel.warn
        ]
        self.assertEqual(
            lines[0],
            "lost the shared store: "
            f"Redis at {self.server.address} closed the connection",
        )
        self.assertIn(
            f"the shared store is there again: Redis at {self.server.address}", lines[1]
        )
        self.assertEqual(len(lines), 2)


class AwayTests(OutageTestCase):
    """
    Calls while the server is away.
    """

    @steps
    async def setUp(self) -> None:  # type: ignore[override]
        self.server = self.serve()
        self.cache = await started_cache(self, single(self.server))

    @steps
    async def test_at_once(self) -> None:
        """
        Once it is known that the server is away, calls fail at once, with its address
        and with the time after which it makes sense to call again.
        """
        self.server.kill()
        await failing(self.cache.get("k"))
        error = self.failureResultOf(self.cache.get("k"), Unavailable).value
        self.assertEqual(
            str(error),
            f"Redis at {self.server.address} cannot be reached: connection refused",
        )
        self.assertLess(0, error.retry_after)
        self.assertLess(error.retry_after, 1)

    @steps
    async def test_waits_for_the_attempt(self) -> None:
        """
        A call right after the loss waits for the attempt that is under way.
        """
        await self.cache.set("k", "v")
        self.server.restart()
        self.assertEqual(await self.cache.get("k"), "v")

    @steps
    async def test_does_not_wait_if_told_so(self) -> None:
        """
        With C{blockWhenExhausted=false} it fails at once.
        """
        pool = RedisPoolSettings(block_when_exhausted=False)
        cache = await started_cache(self, single(self.server, config=pool))
        lost: list[Unavailable] = []

        async def ask() -> None:
            lost.append(await failing(cache.get("k")))

        self.server.pause()
        asked = Deferred.fromCoroutine(ask())
        await sleep(0.05)
        self.server.kill()
        await asked
        self.assertIn("is being connected", str(lost[0]))

    @steps
    async def test_comes_back_soon(self) -> None:
        """
        After a short outage the store is there again within a second.
        """
        self.server.kill()
        await failing(self.cache.get("k"))
        await sleep(0.4)
        self.server.start()
        began = time.monotonic()
        restored: Deferred[None] = Deferred()
        self.cache.on_restored(lambda: restored.callback(None))
        await restored
        self.assertLess(time.monotonic() - began, 1)

    @steps
    async def test_stopped_meanwhile(self) -> None:
        """
        A store can be stopped while the server is away; nothing is left behind.
        """
        self.server.kill()
        await failing(self.cache.get("k"))
        await self.cache.stop()

    @steps
    async def test_silent(self) -> None:
        """
        A server that says nothing for two seconds is given up, and taken back when it
        speaks again.
        """
        restored: list[float] = []
        self.cache.on_restored(lambda: restored.append(time.monotonic()))
        self.server.pause()
        began = time.monotonic()
        calls: list[Deferred[Any]] = [
            self.cache.get("k"),
            self.cache.hincrby("h", "n", 1),
        ]
        for call in calls:
            error = await failing(call)
            self.assertIn(f"Redis at {self.server.address} gave no answer", str(error))
            self.assertIn("did not answer within 2 s", str(error))
        took = time.monotonic() - began
        self.assertTrue(1.9 < took < 3, took)
        self.server.resume()
        await until(lambda: restored)
        self.assertIsNone(await self.cache.get("k"))

    @steps
    async def test_stopped_while_silent(self) -> None:
        """
        A stop waits two seconds for a server that says nothing, not longer.
        """
        self.server.pause()
        call = self.cache.get("k")
        began = time.monotonic()
        await self.cache.stop()
        self.assertLess(time.monotonic() - began, 3)
        await failing(call)
        self.server.resume()


class StartTests(OutageTestCase):
    """
    Servers with which a start fails.
    """

    async def refused(self, settings: RedisSettings) -> str:
        """
        Start store and queue, which must fail alike, in time and with nothing left.

        @return: The sentence.
        """
        began = time.monotonic()
        starts = [
            RedisCache(settings, reactor).start(),
            RedisQueue(settings, reactor).start(),
        ]
        sentence, other = [str(await failing(start)) for start in starts]
        self.assertEqual(sentence, other)
        self.assertLess(time.monotonic() - began, 5)
        return sentence

    def nodes(self, port: int) -> RedisSettings:
        """
        Make the settings for one port.
        """
        return RedisSettings(nodes=(f"127.0.0.1:{port}",))

    @steps
    async def test_nobody(self) -> None:
        """
        Nobody listens there.
        """
        port = free_port()
        self.assertEqual(
            await self.refused(self.nodes(port)),
            f"Redis at 127.0.0.1:{port} cannot be reached: connection refused",
        )

    @steps
    async def test_no_such_host(self) -> None:
        """
        The name cannot be resolved.
        """
        settings = RedisSettings(nodes=("nowhere.invalid:6379",))
        self.assertIn(
            "Redis at nowhere.invalid:6379 cannot be reached: ",
            await self.refused(settings),
        )

    @steps
    async def test_silent(self) -> None:
        """
        A server that accepts and says nothing.
        """
        server = self.serve()
        server.pause()
        self.assertEqual(
            await self.refused(single(server)),
            f"Redis at {server.address} did not answer within 2 s",
        )
        server.resume()

    @steps
    async def test_wrong_password(self) -> None:
        """
        The password is wrong; the sentence says where it is set, and not what it is.
        """
        server = self.serve(password="right")
        self.assertEqual(
            await self.refused(single(server, password="wrong")),
            f"Redis at {server.address} refuses the password of mp.redis.password",
        )

    @steps
    async def test_missing_password(self) -> None:
        """
        There is no password, but one is wanted.
        """
        server = self.serve(password="right")
        self.assertEqual(
            await self.refused(single(server)),
            f"Redis at {server.address} wants a password: set mp.redis.password",
        )

    @steps
    async def test_needless_password(self) -> None:
        """
        There is a password, but none is wanted.
        """
        server = self.serve()
        self.assertEqual(
            await self.refused(single(server, password="needless")),
            f"Redis at {server.address} has no password, but mp.redis.password is set",
        )

    @steps
    async def test_too_many_clients(self) -> None:
        """
        The server has too many clients already.
        """
        server = self.serve()
        server.cli("CONFIG", "SET", "maxclients", "1")
        cache = await started_cache(self, single(server))
        self.assertIn(
            "ERR max number of clients reached", await self.refused(single(server))
        )
        await cache.stop()

    @steps
    async def test_loading(self) -> None:
        """
        The server is reading its data; that may take it a while.
        """
        port = await self.listen(b"-LOADING Redis is loading the dataset\r\n")
        self.assertEqual(
            await self.refused(self.nodes(port)),
            f"Redis at 127.0.0.1:{port} answers PING with LOADING Redis is loading "
            "the dataset",
        )

    @steps
    async def test_full_disk(self) -> None:
        """
        A server that cannot save takes no writes, not even PING, but can be read.
        """
        server = self.serve(extra=["save 3600 1"])
        server.cli("SET", "k", "v")
        assert server.directory is not None
        (server.directory / "dump.rdb").mkdir()
        # Without its data saved it would not end in good order.
        self.addCleanup(server.kill)
        server.cli("BGSAVE")
        await until(lambda: "bgsave_status:err" in server.cli("INFO", "persistence"))
        cache = await started_cache(self, single(server))
        self.assertEqual(await cache.get("k"), "v")
        error = await failing(cache.set("k", "w"))
        self.assertIn(f"Redis at {server.address} refuses SET: MISCONF", str(error))

    @steps
    async def test_no_redis(self) -> None:
        """
        Something else listens there.
        """
        port = await self.listen(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.assertEqual(
            await self.refused(self.nodes(port)),
            f"Redis at 127.0.0.1:{port} does not speak Redis's protocol",
        )

    @steps
    async def test_closes(self) -> None:
        """
        Something there hangs up.
        """
        port = await self.listen(b"")
        self.assertEqual(
            await self.refused(self.nodes(port)),
            f"Redis at 127.0.0.1:{port} closed the connection",
        )

    async def listen(self, answer: bytes) -> int:
        """
        Open a port where everything is answered with C{answer} and hung up.
        """

        class Answer(Protocol):
            def dataReceived(self, data: bytes) -> None:
                transport: Any = self.transport
                transport.write(answer)
                transport.loseConnection()

        port = reactor.listenTCP(0, Factory.forProtocol(Answer), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    @steps
    async def test_tried_again(self) -> None:
        """
        A start that failed can be tried again.
        """
        server = self.serve()
        server.kill()
        cache = RedisCache(single(server), reactor)
        await failing(cache.start())
        server.start()
        await cache.start()
        self.addCleanup(cache.stop)
        self.assertIsNone(await cache.get("k"))

    def test_no_secrets(self) -> None:
        """
        No repr shows a password.
        """
        settings = RedisSettings(nodes=("127.0.0.1:1:own",), password="common")
        for provider in (RedisCache(settings, reactor), RedisQueue(settings, reactor)):
            for text in (repr(provider), repr(settings), repr(vars(provider))):
                self.assertNotIn("own'", text)
                self.assertNotIn("common", text)


class QueueOutageTests(OutageTestCase):
    """
    Subscriptions of a server that is away for a while.
    """

    @steps
    async def setUp(self) -> None:  # type: ignore[override]
        self.server = self.serve()
        self.queue = await started_queue(self, single(self.server))
        self.received: list[tuple[str, str]] = []
        for topic in ("/a", "/b"):
            await self.queue.subscribe(topic, self.receive)

    def receive(self, topic: str, text: str) -> None:
        """
        Note a message.
        """
        self.received.append((topic, text))

    @steps
    async def test_renewed(self) -> None:
        """
        Subscriptions are renewed before the queue is called restored (C-5).
        """
        subscribed: list[str] = []
        self.queue.on_restored(
            lambda: subscribed.append(self.server.cli("PUBSUB", "CHANNELS"))
        )
        self.server.restart(keep_data=False)
        await until(lambda: subscribed)
        self.assertEqual(sorted(subscribed[0].split()), ["/a", "/b"])
        self.server.cli("PUBLISH", "/b", "x")
        await until(lambda: self.received)
        self.assertEqual(self.received, [("/b", "x")])
        self.assertEqual(len(subscribed), 1)

    @steps
    async def test_unsubscribed_meanwhile(self) -> None:
        """
        A subscription that was ended meanwhile is not renewed.
        """
        restored: list[None] = []
        self.queue.on_restored(lambda: restored.append(None))
        self.server.kill()
        await failing(self.queue.publish("/a", "x"))
        await self.queue.unsubscribe("/a")
        self.server.start()
        await until(lambda: restored)
        self.assertEqual(self.server.cli("PUBSUB", "CHANNELS"), "/b")

    @steps
    async def test_subscribed_meanwhile(self) -> None:
        """
        Subscribing while the server is away fails, and leaves nothing to renew.
        """
        restored: list[None] = []
        self.queue.on_restored(lambda: restored.append(None))
        self.server.kill()
        await failing(self.queue.publish("/a", "x"))
        await until(lambda: not self.queue._subscriber.up)
        await failing(self.queue.subscribe("/c", self.receive))
        self.server.start()
        await until(lambda: restored)
        self.assertEqual(
            sorted(self.server.cli("PUBSUB", "CHANNELS").split()), ["/a", "/b"]
        )

    @steps
    async def test_subscribed_in_the_gap(self) -> None:
        """
        Subscribing right after the loss waits for the next connection.
        """
        self.server.restart()
        await self.queue.subscribe("/c", self.receive)
        self.server.cli("PUBLISH", "/c", "x")
        await until(lambda: self.received)
        self.assertEqual(self.received, [("/c", "x")])

    @steps
    async def test_published_meanwhile(self) -> None:
        """
        Publishing fails while the server is away, and works when it is back.
        """
        self.server.kill()
        await failing(self.queue.publish("/a", "1"))
        restored: list[None] = []
        self.queue.on_restored(lambda: restored.append(None))
        self.server.start()
        await until(lambda: restored)
        await until(lambda: self.queue._publisher.up)
        await self.queue.publish("/a", "2")
        await until(lambda: self.received)
        self.assertEqual(self.received, [("/a", "2")])

    @steps
    async def test_subscriber_killed(self) -> None:
        """
        When only the subscribed connection is lost, it is made again.
        """
        restored: list[None] = []
        self.queue.on_restored(lambda: restored.append(None))
        self.server.cli("CLIENT", "KILL", "TYPE", "pubsub")
        await until(lambda: restored)
        await self.queue.publish("/a", "x")
        await until(lambda: self.received)
        self.assertEqual(self.received, [("/a", "x")])
