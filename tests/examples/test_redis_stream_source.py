"""
Tests for C{examples/plugins/redis-stream-source}, with a real Redis, real nodes and
real devices.
"""

from __future__ import annotations

import json
import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.embedding import ServerLauncher
from mpush_tw.errors import ConfigError, Unavailable
from mpush_tw.extensions import Extension
from mpush_tw.integrations.memory import MemoryCache
from mpush_tw.interfaces import ICache, IPushListener
from mpush_tw.protocol.commands import Command, Flag
from mpush_tw.protocol.packet import encode_packet
from mpush_tw.service import Node
from tests.examples.support import PluginTestCase
from tests.integration.devices import Device
from tests.servers import free_port
from tests.servers.redis import RedisServer

# Behind the import that makes the examples known.
from mpush_stream_source import link  # isort: skip
from mpush_stream_source.entries import Invalid, Order  # isort: skip

EXTENSION = Extension(
    IPushListener, "redis-stream-source", "mpush_stream_source.source.StreamSource"
)
STREAM = "mpush:push"
RESULTS = "mpush:push:results"
_DUMP = """
local all = {}
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+')) do
    local one = {}
    for i = 1, #entry[2], 2 do one[entry[2][i]] = entry[2][i + 1] end
    table.insert(all, one)
end
if #all == 0 then return '[]' end
return cjson.encode(all)
"""


class SourceTestCase(PluginTestCase):
    """
    Nodes that take pushes from a stream.
    """

    password: str | None = None
    away = False

    def setUp(self) -> None:
        self.redis = RedisServer(password=self.password)
        self.redis.start()
        self.addCleanup(self.redis.stop)

    def make(
        self, gateway: int = 0, *more: Extension, **settings: object
    ) -> ServerLauncher:
        """
        Make a launcher of a node that reads the stream.

        @param gateway: Its gateway's port, by which the group knows it.
        """
        settings.setdefault("redis", self.redis.address)
        launcher = self.launcher(EXTENSION, **settings)
        assert isinstance(launcher.config, dict)
        launcher.config["mp.net.gateway-server-port"] = gateway
        launcher.extensions = [*launcher.extensions, *more]
        return launcher

    async def begin(
        self, gateway: int = 0, *more: Extension, **settings: object
    ) -> Node:
        """
        Start one.
        """
        self.node = await self.make(gateway, *more, **settings).start()
        if not self.away:
            await self.until(lambda: "mpush" in self.groups())
        return self.node

    def groups(self) -> str:
        """
        What Redis knows of the stream's readers.
        """
        if self.redis.cli("TYPE", STREAM) != "stream":
            return ""
        return self.redis.cli("XINFO", "GROUPS", STREAM)

    def order(self, content: str = "hello", **fields: object) -> str:
        """
        Write an entry.

        @return: Its id.
        """
        pairs = [str(part) for pair in fields.items() for part in pair]
        return self.redis.cli("XADD", STREAM, "*", "content", content, *pairs)

    def results(self) -> list[dict[str, str]]:
        """
        What the nodes have written about it.
        """
        found: list[dict[str, str]] = json.loads(
            self.redis.cli("EVAL", _DUMP, "1", RESULTS)
        )
        return found

    async def outcomes(self, count: int, seconds: float = 15) -> list[dict[str, str]]:
        """
        Wait for so many results.
        """
        await self.until(lambda: int(self.redis.cli("XLEN", RESULTS)) >= count, seconds)
        return self.results()

    def pending(self, stream: str = STREAM) -> int:
        """
        How many entries have been taken and not acknowledged.
        """
        return int(self.redis.cli("XPENDING", stream, "mpush").split("\n")[0])

    async def received(self, device: Device, seconds: float = 10) -> bytes | None:
        """
        Wait for a push to a device.
        """
        packet = await deferToThread(device.packet, seconds)
        if packet is None:
            return None
        assert packet[0] == Command.PUSH and device.cipher is not None
        self.last_push = packet
        return device.cipher.decrypt(packet[3])


class PushTests(SourceTestCase):
    """
    Entries that become pushes.
    """

    async def test_delivered(self) -> None:
        """
        An entry reaches the device; its result is written and it is acknowledged.
        """
        await self.begin()
        device = await self.online(self.node, "alice")
        entry = self.order("h\u00e9llo", user_id="alice")
        self.assertEqual(await self.received(device), "h\u00e9llo".encode())
        (result,) = await self.outcomes(1)
        self.assertEqual(
            {name: result.get(name) for name in ("id", "outcome", "user_id")},
            {"id": entry, "outcome": "success", "user_id": "alice"},
        )
        self.assertEqual(result["client_type"], "1")
        self.assertEqual(result["node"], f"127.0.0.1:{self.node.gateway_listener.port}")
        self.assertLess(abs(int(result["time"]) / 1000 - time.time()), 60)
        self.assertEqual(self.pending(), 0)

    async def test_before_the_start(self) -> None:
        """
        What was written before the first node started is pushed as well.
        """
        self.order(user_id="alice")
        await self.begin()
        (result,) = await self.outcomes(1)
        self.assertEqual(result["outcome"], "offline")

    async def test_own_id(self) -> None:
        """
        A result bears the name that the writer gave.
        """
        await self.begin()
        self.order(user_id="alice", id="order-17")
        (result,) = await self.outcomes(1)
        self.assertEqual(result["id"], "order-17")

    async def test_acknowledged(self) -> None:
        """
        The result waits for the device if that is asked for.
        """
        await self.begin()
        device = await self.online(self.node, "alice")
        self.order(user_id="alice", ack="auto", timeout_ms=8000)
        await self.received(device)
        self.assertEqual(self.results(), [])
        self.assertEqual(self.last_push[1] & Flag.AUTO_ACK, Flag.AUTO_ACK)
        device.send(encode_packet(Command.ACK, self.last_push[2], 0, b""))
        (result,) = await self.outcomes(1)
        self.assertEqual(result["outcome"], "ack_success")

    async def test_not_acknowledged(self) -> None:
        """
        A device that is silent is told as such.
        """
        await self.begin()
        await self.online(self.node, "alice")
        self.order(user_id="alice", ack="biz", timeout_ms=300)
        (result,) = await self.outcomes(1)
        self.assertEqual(result["outcome"], "timeout")

    async def test_broadcast(self) -> None:
        """
        A broadcast reaches all users of the node; the result has the counts.
        """
        await self.begin()
        devices = [await self.online(self.node, user, user) for user in ("a", "b")]
        self.order(broadcast=1)
        for device in devices:
            self.assertEqual(await self.received(device), b"hello")
        (result,) = await self.outcomes(1)
        self.assertEqual(result["outcome"], "broadcast_complete")
        self.assertIn("2", result["detail"])

    async def test_condition(self) -> None:
        """
        A broadcast may have a condition.
        """
        await self.begin()
        for user in ("a", "b"):
            await self.online(self.node, user, user)
        self.order(broadcast=1, condition="userId == 'b'")
        (result,) = await self.outcomes(1)
        self.assertEqual(json.loads(result["detail"])["sent"], 1)

    async def test_client_type(self) -> None:
        """
        One kind of device may be meant.
        """
        await self.begin()
        await self.online(self.node, "alice")
        self.order(user_id="alice", client_type=2)
        (result,) = await self.outcomes(1)
        self.assertEqual((result["outcome"], result["client_type"]), ("offline", "2"))

    async def test_invalid(self) -> None:
        """
        An entry that cannot be pushed is told why, and does not come again.
        """
        await self.begin()
        self.redis.cli("XADD", STREAM, "*", "nothing", "useful")
        self.order(user_id="alice", broadcast=1)
        self.order("x" * 20_000, user_id="alice")
        details = [one["detail"] for one in await self.outcomes(3)]
        self.assertIn("expected either user_id or broadcast", details)
        self.assertTrue(any("max-packet-size" in text for text in details), details)
        self.assertEqual({one["outcome"] for one in self.results()}, {"invalid"})
        self.assertEqual(self.pending(), 0)

    async def test_many(self) -> None:
        """
        Many entries are pushed once each, in their order.
        """
        await self.begin(in_flight=50)
        device = await self.online(self.node, "alice")
        script = (
            "for i = 1, 2000 do redis.call('XADD', KEYS[1], '*', "
            "'user_id', 'alice', 'content', tostring(i)) end"
        )
        self.redis.cli("EVAL", script, "1", STREAM)

        def read() -> list[int]:
            assert device.cipher is not None
            packets = [device.packet(20) for _ in range(2000)]
            return [int(device.cipher.decrypt(p[3])) for p in packets if p is not None]

        self.assertEqual(await deferToThread(read), list(range(1, 2001)))
        results = await self.outcomes(2000)
        self.assertEqual(len(results), 2000)
        self.assertEqual({one["outcome"] for one in results}, {"success"})
        self.assertEqual(self.pending(), 0)

    async def test_back_pressure(self) -> None:
        """
        No more entries are taken than are worked on.
        """
        await self.begin(in_flight=10)
        await self.online(self.node, "alice")
        for _ in range(30):
            self.order(user_id="alice", ack="auto", timeout_ms=1500)
        await self.until(lambda: self.pending() >= 10)
        await deferLater(reactor, 0.3)
        self.assertEqual(self.pending(), 10)
        results = await self.outcomes(30)
        self.assertEqual({one["outcome"] for one in results}, {"timeout"})

    async def test_counts(self) -> None:
        """
        What became of them is on the metrics page.
        """
        await self.begin()
        self.order(user_id="alice")
        self.redis.cli("XADD", STREAM, "*", "a", "b")
        await self.outcomes(2)
        self.assertEqual(
            self.counts(self.node, "stream_source"), {"offline": 1, "invalid": 1}
        )


class SharedCache(MemoryCache):
    """
    A store that outlives the nodes that use it.
    """

    away = False

    def stop(self) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def hgetall(self, key: str) -> Deferred[dict[str, str]]:
        if self.away:
            raise Unavailable("the store is away")
        return super().hgetall(key)


class ClusterTests(SourceTestCase):
    """
    Two nodes with one stream and one store.
    """

    async def two(self, **settings: object) -> tuple[Node, Node]:
        """
        Start two nodes.
        """
        self.cache = SharedCache(reactor)
        shared = Extension(ICache, "shared", lambda: self.cache)
        first = await self.begin(0, shared, **settings)
        return first, await self.begin(0, shared, **settings)

    async def test_each_once(self) -> None:
        """
        Whoever takes the entry, the device gets it once.
        """
        first, second = await self.two()
        there = await self.online(second, "alice")
        here = await self.online(first, "bob")
        for number in range(20):
            self.order(f"{number}", user_id="alice", id=f"a{number}")
            self.order(f"{number}", user_id="bob", id=f"b{number}")
        for device in (here, there):
            got = [await self.received(device) for _ in range(20)]
            self.assertEqual(sorted(map(int, filter(None, got))), list(range(20)))
        results = await self.outcomes(40)
        self.assertEqual(len(results), 40)
        self.assertEqual({one["outcome"] for one in results}, {"success"})
        self.assertEqual(len({one["id"] for one in results}), 40)
        self.assertIsNone(await self.received(here, 0.3))

    async def test_all_devices(self) -> None:
        """
        A user's devices on several nodes all get it, each with a result.
        """
        first, second = await self.two()
        phone = await self.online(first, "alice", "phone")
        route = await self.cache.hget("mp:ur:alice", "1")
        assert route is not None
        tablet = await self.online(second, "alice", "tablet")
        # As if the second were a PC: our devices say that they are all phones.
        other = await self.cache.hget("mp:ur:alice", "1")
        assert other is not None
        await self.cache.hset("mp:ur:alice", "2", other)
        await self.cache.hset("mp:ur:alice", "1", route)
        self.order(user_id="alice", id="both")
        self.assertEqual(await self.received(phone), b"hello")
        results = await self.outcomes(2)
        self.assertEqual({one["id"] for one in results}, {"both"})
        self.assertEqual({one["client_type"] for one in results}, {"1", "2"})
        self.assertEqual(len({one["node"] for one in results}), 2)
        del tablet

    async def test_moved_on_and_on(self) -> None:
        """
        Routes that send an entry in circles do not do so for ever.
        """
        first, second = await self.two()
        routes = {
            node: f'{{"host":"127.0.0.1","port":{node.gateway_listener.port},'
            '"deviceId":"d","osName":"android","connId":"0"}'
            for node in (first, second)
        }
        # A route to nobody: whoever is asked does not have the user.
        await self.cache.hset("mp:ur:alice", "1", routes[first])
        self.order(user_id="alice", client_type=1)
        (result,) = await self.outcomes(1)
        self.assertEqual(result["outcome"], "offline")

    async def test_store_is_away(self) -> None:
        """
        While nobody knows where users are, entries wait.
        """
        first, _ = await self.two(claim_idle="500ms")
        device = await self.online(first, "alice")
        self.cache.away = True
        self.order(user_id="alice")
        await deferLater(reactor, 0.7)
        self.assertEqual(self.results(), [])
        self.cache.away = False
        self.assertEqual(await self.received(device), b"hello")
        (result,) = await self.outcomes(1)
        self.assertEqual(result["outcome"], "success")

    async def test_taken_over(self) -> None:
        """
        What a node has taken and never finished another takes over.
        """
        first, _ = await self.two(claim_idle="300ms")
        device = await self.online(first, "alice")
        self.redis.cli("XGROUP", "CREATECONSUMER", STREAM, "mpush", "dead")
        # In one step: the nodes are quicker than a second command.
        self.redis.cli(
            "EVAL",
            "redis.call('XADD', KEYS[1], '*', 'user_id', 'alice', 'content', 'x') "
            "return redis.call('XREADGROUP', 'GROUP', 'mpush', 'dead', 'STREAMS', "
            "KEYS[1], '>')",
            "1",
            STREAM,
        )
        self.assertEqual(await self.received(device), b"x")
        await self.outcomes(1)
        self.assertEqual(self.pending(), 0)

    async def test_not_taken_over(self) -> None:
        """
        What a node still works on is left to it, however long that takes.
        """
        first, _ = await self.two(claim_idle="300ms")
        device = await self.online(first, "alice")
        self.order(user_id="alice", ack="auto", timeout_ms=2000)
        await self.received(device)
        self.assertIsNone(await self.received(device, 1.5))
        (result,) = await self.outcomes(1)
        self.assertEqual(result["outcome"], "timeout")


class RestartTests(SourceTestCase):
    """
    Nodes and servers that come and go.
    """

    async def test_node(self) -> None:
        """
        A node that comes back finishes what it had taken, and nothing twice.
        """
        port = free_port()
        first = self.make(port)
        node = await first.start()
        await self.online(node, "alice")
        self.order("one", user_id="alice")
        await self.outcomes(1)
        # As if it had been killed between taking and pushing.
        name = f"127.0.0.1:{port}"
        await first.stop()
        self.order("two", user_id="alice", id="two")
        self.redis.cli("XREADGROUP", "GROUP", "mpush", name, "STREAMS", STREAM, ">")
        self.assertEqual(self.pending(), 1)
        await self.begin(port)
        results = await self.outcomes(2)
        self.assertEqual([one["outcome"] for one in results], ["success", "offline"])
        self.assertEqual(results[1]["id"], "two")
        self.assertEqual(self.pending(), 0)

    async def test_stop_lets_pushes_end(self) -> None:
        """
        A node that is stopped writes the results of pushes that end meanwhile.
        """
        node = await self.begin()
        device = await self.online(node, "alice")
        self.order(user_id="alice", ack="auto", timeout_ms=20_000)
        await self.received(device)
        stopping = node.stopService()
        device.send(encode_packet(Command.ACK, self.last_push[2], 0, b""))
        await stopping
        (result,) = self.results()
        self.assertEqual(result["outcome"], "ack_success")
        self.assertEqual(self.pending(), 0)

    async def test_stopped_takes_nothing(self) -> None:
        """
        After the stop nothing is taken any more.
        """
        node = await self.begin()
        self.order(user_id="alice")
        await self.outcomes(1)
        await node.stopService()
        self.order(user_id="alice")
        await deferLater(reactor, 0.3)
        self.assertEqual(len(self.results()), 1)
        self.assertEqual(self.pending(), 0)

    async def test_redis_is_not_there(self) -> None:
        """
        A node starts without Redis and takes what comes later.
        """
        self.redis.kill()
        self.away = True
        await self.begin()
        self.redis.start()
        self.order(user_id="alice")
        (result,) = await self.outcomes(1)
        self.assertEqual(result["outcome"], "offline")

    async def test_redis_restarts(self) -> None:
        """
        After a restart of Redis pushes go on, and results that had to wait are there.
        """
        await self.begin()
        device = await self.online(self.node, "alice")
        self.order(user_id="alice", ack="auto", timeout_ms=10_000, id="slow")
        await self.received(device)
        await deferToThread(self.redis.restart)
        device.send(encode_packet(Command.ACK, self.last_push[2], 0, b""))
        (result,) = await self.outcomes(1)
        self.assertEqual((result["id"], result["outcome"]), ("slow", "ack_success"))
        self.order("after", user_id="alice")
        self.assertEqual(await self.received(device), b"after")
        await self.outcomes(2)
        self.assertEqual(self.pending(), 0)

    async def test_redis_forgets(self) -> None:
        """
        A Redis that has lost everything is set up anew.
        """
        await self.begin()
        self.order(user_id="alice")
        await self.outcomes(1)
        self.redis.cli("FLUSHALL")
        await deferLater(reactor, 0.1)
        self.order(user_id="alice")
        (result,) = await self.outcomes(1)
        self.assertEqual(result["outcome"], "offline")

    async def test_redis_stands_still(self) -> None:
        """
        A Redis that does not answer is given up, and used again when it does.
        """
        self.patch(link, "REPLY_SECONDS", 2.0)
        await self.begin()
        self.redis.pause()
        self.addCleanup(self.redis.resume)
        await deferLater(reactor, 3.0)
        self.redis.resume()
        self.order(user_id="alice")
        (result,) = await self.outcomes(1)
        self.assertEqual(result["outcome"], "offline")

    async def test_results_cannot_be_written(self) -> None:
        """
        A key that is no stream costs the results, which is told, not the pushes.
        """
        self.redis.cli("SET", RESULTS, "a text")
        await self.begin()
        self.node.log.set_level("error")
        device = await self.online(self.node, "alice")
        with capturedLogs() as lines:
            self.order(user_id="alice")
            self.assertEqual(await self.received(device), b"hello")
            await self.until(lambda: "a result is lost" in repr(lines))
        self.assertEqual(self.pending(), 0)


class PasswordTests(SourceTestCase):
    """
    A Redis that wants a password.
    """

    password = "open sesame"

    async def test_right(self) -> None:
        """
        With the password the stream is read.
        """
        await self.begin(password=self.password)
        self.order(user_id="alice")
        await self.outcomes(1)


class SettingsTests(PluginTestCase):
    """
    What the operator may write.
    """

    async def test_refused(self) -> None:
        """
        What cannot be used keeps the node from starting.
        """
        wrong: list[tuple[str, Any]] = [
            ("redis", "localhost"),
            ("in_flight", 0),
            ("claim_idle", "0s"),
            ("results_max_length", "many"),
        ]
        for name, value in wrong:
            launcher = self.launcher(EXTENSION, **{name: value})
            error = await self.assertFailure(launcher.start(), ConfigError)
            key = f"mp.spi-settings.redis-stream-source.{name.replace('_', '-')}"
            self.assertEqual(error.key, key)


class OrderTests(SynchronousTestCase):
    """
    What an entry may say.
    """

    def read(self, **fields: str) -> Order:
        defaults = {"user_id": "u", "content": "c"}
        merged = {k: v for k, v in {**defaults, **fields}.items() if v}
        return Order.read({k.encode(): v.encode() for k, v in merged.items()})

    def test_defaults(self) -> None:
        """
        A user and a content are enough.
        """
        self.assertEqual(self.read(), Order("u", None, b"c", 0, 3000, None, None, None))

    def test_all(self) -> None:
        """
        All of it.
        """
        order = self.read(
            user_id="",
            broadcast="1",
            client_type="2",
            ack="biz",
            timeout_ms="7",
            tags='["a", "b"]',
            condition="true",
            task_id="t",
        )
        self.assertEqual(order, Order(None, 2, b"c", 4, 7, ("a", "b"), "true", "t"))

    def test_invalid(self) -> None:
        """
        What cannot be used is refused in words.
        """
        wrong = {
            "user_id": "",
            "broadcast": "1",
            "content": "",
            "client_type": "x",
            "ack": "always",
            "timeout_ms": "0",
            "tags": "[1]",
        }
        for name, value in wrong.items():
            self.assertRaises(Invalid, self.read, **{name: value})
        self.assertRaises(Invalid, self.read, tags="[" * 100_000)
        self.assertRaises(Invalid, Order.read, {b"user_id": b"\xff", b"content": b"c"})
