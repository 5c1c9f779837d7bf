"""
What is sent to Redis, byte for byte, against what the original was seen to send
(C{tests/vectors/redis-zk.json}).
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from twisted.internet.defer import gatherResults
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mpush_tw.config.settings import RedisPoolSettings
from mpush_tw.errors import Unavailable
from mpush_tw.integrations.redis._commands import key_slot
from mpush_tw.integrations.redis._connection import packed
from tests.integrations.contracts import steps
from tests.integrations.redis.support import (
    shared_cluster,
    shared_server,
    single,
    started_cache,
    started_queue,
    until,
)
from tests.servers.redis import Monitor

VECTORS = Path(__file__).parents[2] / "vectors" / "redis-zk.json"


def recorded(step: str) -> list[str]:
    """
    Give the commands of one step of the recording.
    """
    steps = json.loads(VECTORS.read_text("utf-8"))["steps"]
    commands: list[str] = next(s["commands"] for s in steps if s["name"] == step)
    return commands


def arguments(command: str) -> list[str]:
    """
    Take a recorded command apart.
    """
    return [json.loads(word) for word in re.findall(r'"(?:[^"\\]|\\.)*"', command)]


class RecordedTests(TestCase):
    """
    Each kind of command that the original was seen to send.
    """

    @steps
    async def setUp(self) -> None:  # type: ignore[override]
        self.server = shared_server()
        self.server.cli("FLUSHALL")
        self.cache = await started_cache(self, single(self.server))

    @steps
    async def test_session(self) -> None:
        """
        A session is one SET with its time to live, where the original sends SET and
        EXPIRE: a crash between the two leaves it for ever (C-7).
        """
        original, expiry = map(arguments, recorded("handshake"))
        with self.server.monitor() as monitor:
            await self.cache.set(original[1], original[2], int(expiry[2]))
            words = [*original, "EX", expiry[2]]
            self.assertEqual(monitor.commands(), [_quoted(words)])

    @steps
    async def test_bind(self) -> None:
        """
        A bind sends what the original sends: the atomic swap runs its two commands, in
        their order, and the rest is the same.
        """
        original = recorded("bind")
        _, hset, zadd, publish = map(arguments, original)
        queue = await started_queue(self, single(self.server))
        with self.server.monitor() as monitor:
            await self.cache.hswap(*hset[1:])
            await self.cache.zadd(zadd[1], zadd[3])
            await queue.publish(publish[1], publish[2])
            self.assertEqual(monitor.commands(), original)

    @steps
    async def test_lookup(self) -> None:
        """
        A sender reads all routes of a user at once.
        """
        original = recorded("push-one")
        with self.server.monitor() as monitor:
            await self.cache.hgetall(arguments(original[0])[1])
            self.assertEqual(monitor.commands(), original)

    @steps
    async def test_task(self) -> None:
        """
        A broadcast with a task id reads its speed and reports.
        """
        original = recorded("broadcast-task")
        hget, hincrby, lpush = map(arguments, original)
        with self.server.monitor() as monitor:
            await self.cache.hget(*hget[1:])
            await self.cache.hincrby(hincrby[1], hincrby[2], int(hincrby[3]))
            await self.cache.lpush(lpush[1], lpush[2:])
            self.assertEqual(monitor.commands(), original)

    @steps
    async def test_subscription(self) -> None:
        """
        A node empties its online list and subscribes to its kicks.
        """
        subscribe, delete = recorded("server-start")
        queue = await started_queue(self, single(self.server))
        with self.server.monitor() as monitor:
            await queue.subscribe(arguments(subscribe)[1], lambda topic, text: None)
            await self.cache.delete(arguments(delete)[1])
            self.assertEqual(monitor.commands(), [subscribe, delete])

    @steps
    async def test_others(self) -> None:
        """
        Everything else is one plain command as well.
        """
        with self.server.monitor() as monitor:
            await self.cache.get("k")
            await self.cache.set("k", "v")
            await self.cache.expire("k", 60)
            await self.cache.hset("h", "f", "v")
            await self.cache.hdel("h", "f")
            await self.cache.zrem("z", "m")
            await self.cache.zcard("z")
            await self.cache.zrange("z", 0, -1)
            await self.cache.lpush("l", ["a", "b"])
            await self.cache.lrange("l", 0, -1)
            self.assertEqual(
                monitor.commands(scripts=True),
                [
                    '"GET" "k"',
                    '"SET" "k" "v"',
                    '"EXPIRE" "k" "60"',
                    '"HSET" "h" "f" "v"',
                    '"HDEL" "h" "f"',
                    '"ZREM" "z" "m"',
                    '"ZCARD" "z"',
                    '"ZRANGE" "z" "0" "-1"',
                    '"LPUSH" "l" "a" "b"',
                    '"LRANGE" "l" "0" "-1"',
                ],
            )


def _quoted(words: list[str]) -> str:
    return " ".join(f'"{word}"' for word in words)


class ScriptTests(TestCase):
    """
    Steps that must not be interrupted are one script.
    """

    @steps
    async def setUp(self) -> None:  # type: ignore[override]
        self.server = shared_server()
        self.server.cli("FLUSHALL")
        self.cache = await started_cache(self, single(self.server))

    def names(self, monitor: Monitor) -> list[str]:
        """
        Name the commands that were run.
        """
        commands = monitor.commands(scripts=True)
        return [command.split()[0].strip('"') for command in commands]

    @steps
    async def test_sent_once(self) -> None:
        """
        The text of the script goes out once; from then on its digest does.
        """
        self.server.cli("SCRIPT", "FLUSH")
        with self.server.monitor() as monitor:
            await self.cache.hswap("h", "f", "1")
            await self.cache.hswap("h", "f", "2")
            await self.cache.hset_if("h", "f", "2", "3")
            self.assertEqual(
                self.names(monitor),
                ["EVALSHA", "EVAL", "HGET", "HSET", *["EVALSHA", "HGET", "HSET"] * 2],
            )

    @steps
    async def test_forgotten(self) -> None:
        """
        When Redis has forgotten the script, nobody notices.
        """
        await self.cache.hswap("h", "f", "1")
        self.server.cli("SCRIPT", "FLUSH")
        self.assertEqual(await self.cache.hswap("h", "f", "2"), "1")
        self.server.cli("SCRIPT", "FLUSH")
        self.assertTrue(await self.cache.hset_if("h", "f", "2", "3"))

    @steps
    async def test_condition_not_met(self) -> None:
        """
        When the field holds something else, nothing is written.
        """
        await self.cache.hset("h", "f", "theirs")
        with self.server.monitor() as monitor:
            self.assertFalse(await self.cache.hset_if("h", "f", "ours", "new"))
            self.assertEqual(monitor.commands(), ['"HGET" "h" "f"'])


class ConnectionsTests(TestCase):
    """
    How commands share connections.
    """

    def setUp(self) -> None:
        self.server = shared_server()
        self.server.cli("FLUSHALL")
        self.newest = max(self.clients())

    def clients(self) -> list[int]:
        """
        List the clients of the server: ids, which grow.
        """
        told = self.server.cli("CLIENT", "LIST", "TYPE", "normal")
        return [int(number) for number in re.findall(r"^id=(\d+)", told, re.MULTILINE)]

    def connections(self) -> int:
        """
        Count the clients that have come since the test began and are there, but for the
        redis-cli that asks.
        """
        return sum(number > self.newest for number in self.clients()) - 1

    @steps
    async def test_one_is_enough(self) -> None:
        """
        Commands one after the other take one connection.
        """
        cache = await started_cache(self, single(self.server))
        for number in range(200):
            await cache.set(f"k{number}", "v")
        self.assertEqual(self.connections(), 1)

    @steps
    async def test_set_up(self) -> None:
        """
        The first thing that a connection says is PING; no database is chosen.
        """
        with self.server.monitor() as monitor:
            cache = await started_cache(self, single(self.server))
            await cache.get("k")
            said = monitor.commands(set_up=True)
        self.assertEqual(said[:2], ['"PING"', '"GET" "k"'])

    @steps
    async def test_kept(self) -> None:
        """
        As many are kept open as the settings say.
        """
        pool = RedisPoolSettings(min_idle=3)
        await started_cache(self, single(self.server, config=pool))
        await until(lambda: self.connections() == 3)

    @steps
    async def test_more_under_load(self) -> None:
        """
        Many outstanding answers open more, but never more than the settings say.
        """
        pool = RedisPoolSettings(max_total=3)
        cache = await started_cache(self, single(self.server, config=pool))
        for _ in range(5):
            await gatherResults([cache.hincrby("h", "n", 1) for _ in range(4000)])
        self.assertEqual(await cache.hget("h", "n"), "20000")
        self.assertEqual(self.connections(), 3)

    @steps
    async def test_in_order(self) -> None:
        """
        What is sent together arrives in its order.
        """
        cache = await started_cache(self, single(self.server))
        await gatherResults([cache.lpush("l", [str(n)]) for n in range(90)])
        self.assertEqual(
            await cache.lrange("l", 0, -1), [str(n) for n in reversed(range(90))]
        )

    @steps
    async def test_too_many(self) -> None:
        """
        More than 50,000 unanswered commands are not collected: the next fails at once.
        """
        cache = await started_cache(self, single(self.server))
        # On a busy machine not all of them are answered in time.
        sent = [
            cache.get("k").addErrback(
                lambda failure: failure.trap(Unavailable) and None
            )
            for _ in range(50_000)
        ]
        error = self.failureResultOf(cache.get("k"), Unavailable).value
        self.assertIn("50000 commands", str(error))
        self.assertEqual(set(await gatherResults(sent)), {None})

    @steps
    async def test_not_started(self) -> None:
        """
        Before the start, and after the stop, commands fail with a sentence.
        """
        cache = await started_cache(self, single(self.server))
        await cache.stop()
        error = self.failureResultOf(cache.get("k"), Unavailable).value
        self.assertIn(f"Redis at {self.server.address} is not connected", str(error))

    @steps
    async def test_started_again(self) -> None:
        """
        What was stopped can be started again.
        """
        cache = await started_cache(self, single(self.server))
        await cache.set("k", "v")
        await cache.stop()
        await cache.start()
        self.assertEqual(await cache.get("k"), "v")

    @steps
    async def test_stop_waits(self) -> None:
        """
        What was sent before the stop is answered.
        """
        cache = await started_cache(self, single(self.server))
        sent = [cache.hincrby("h", "n", 1) for _ in range(50)]
        await cache.stop()
        self.assertEqual(await gatherResults(sent), list(range(1, 51)))

    @steps
    async def test_password(self) -> None:
        """
        Passwords are taken from their own key or from behind the port.
        """
        self.server.cli("ACL", "SETUSER", "default", ">secret")
        self.addCleanup(
            self.server._ask,
            "--user",
            "default",
            "--pass",
            "secret",
            "ACL",
            "SETUSER",
            "default",
            "nopass",
        )
        for settings in (
            single(self.server, password="secret"),
            single(self.server, nodes=(f"{self.server.address}:secret",)),
        ):
            cache = await started_cache(self, settings)
            self.assertIsNone(await cache.get("k"))


class PackedTests(SynchronousTestCase):
    """
    The form in which commands go out.
    """

    def test_bytes(self) -> None:
        """
        A command is an array of texts.
        """
        self.assertEqual(
            packed(("SET", "ü", "", 12)),
            b"*4\r\n$3\r\nSET\r\n$2\r\n\xc3\xbc\r\n$0\r\n\r\n$2\r\n12\r\n",
        )

    def test_half_a_character(self) -> None:
        """
        Half of a surrogate pair goes out as a question mark, as from a Java node.
        """
        self.assertEqual(
            packed(("GET", "a\ud800b")), b"*2\r\n$3\r\nGET\r\n$3\r\na?b\r\n"
        )


class SlotTests(SynchronousTestCase):
    """
    Which slot of a Redis Cluster a key is in.
    """

    def test_known(self) -> None:
        """
        The checksum is the one of the specification of Redis Cluster.
        """
        self.assertEqual(key_slot("123456789"), 0x31C3)

    def test_tags(self) -> None:
        """
        What is in the first braces decides, unless it is nothing.
        """
        self.assertEqual(key_slot("{user1000}.following"), key_slot("user1000"))
        self.assertEqual(key_slot("foo{{bar}}zap"), key_slot("{bar"))
        self.assertEqual(key_slot("foo{bar}{zap}"), key_slot("bar"))

    def test_like_redis(self) -> None:
        """
        Redis itself says the same.
        """
        cluster = shared_cluster()
        for key in (
            *("", "a", "mp:ur:user-1", "mp:ur:推送", "foo{}{bar}", "{}x", "}{a}"),
            *("{", "a{b", "{a}", "mp:rs:0f6e204ae3183dd3211eccb18a60ff8f"),
        ):
            self.assertEqual(key_slot(key), cluster.slot(key), key)

    @given(st.text())
    def test_any_key(self, key: str) -> None:
        """
        Every key has a slot, even one that is no text.
        """
        self.assertIn(key_slot(key), range(16384))
