"""
Tests for C{examples/plugins/redis-stream-upstream}, with a real Redis and real devices.
"""

from __future__ import annotations

import json
import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.errors import ConfigError
from mpush_tw.extensions import Extension
from mpush_tw.interfaces import IUpstreamHandler
from mpush_tw.protocol.commands import Command, Flag
from mpush_tw.protocol.packet import encode_packet
from mpush_tw.service import Node
from tests.examples.support import PluginTestCase
from tests.integration.devices import Device
from tests.servers.redis import RedisServer

# Behind the import that makes the examples known.
from mpush_stream_upstream import link  # isort: skip
from mpush_stream_upstream.options import host_and_port  # isort: skip

EXTENSION = Extension(
    IUpstreamHandler,
    "redis-stream-upstream",
    "mpush_stream_upstream.handler.StreamUpstream",
)
STREAM = "mpush:upstream"
_DUMP = """
local entries = redis.call('XRANGE', KEYS[1], '-', '+')
local all = {}
for _, entry in ipairs(entries) do
    local one = {}
    for i = 1, #entry[2], 2 do one[entry[2][i]] = entry[2][i + 1] end
    table.insert(all, one)
end
if #all == 0 then return '[]' end
return cjson.encode(all)
"""


class UpstreamTestCase(PluginTestCase):
    """
    A node whose devices' messages go into a stream.
    """

    password: str | None = None

    def setUp(self) -> None:
        self.redis = RedisServer(password=self.password)
        self.redis.start()
        self.addCleanup(self.redis.stop)

    async def begin(self, **settings: object) -> Node:
        """
        Start a node that writes into the stream.
        """
        settings.setdefault("redis", self.redis.address)
        self.node = await self.start(EXTENSION, **settings)
        return self.node

    def push(self, device: Device, number: int, content: bytes, flags: int = 8) -> None:
        """
        Have a device push.

        @param flags: 8 asks for an acknowledgement.
        """
        assert device.cipher is not None
        body = device.cipher.encrypt(content)
        sealed = int(Flag.CRYPTO)
        device.send(encode_packet(Command.PUSH, number, flags | sealed, body))

    def acknowledged(self, device: Device, seconds: float = 12) -> int | None:
        """
        Take the next acknowledgement; blocking.
        """
        packet = device.packet(seconds)
        if packet is None:
            return None
        self.assertEqual(packet[0], Command.ACK)
        return packet[2]

    def entries(self) -> list[dict[str, str]]:
        """
        What is in the stream.
        """
        found: list[dict[str, str]] = json.loads(
            self.redis.cli("EVAL", _DUMP, "1", STREAM)
        )
        return found

    def ends(self) -> dict[str, int]:
        return self.counts(self.node, "stream_upstream")


class WriteTests(UpstreamTestCase):
    """
    Messages and entries.
    """

    async def test_entry(self) -> None:
        """
        A message becomes an entry that says who sent it.
        """
        await self.begin()
        device = await self.online(self.node, "alice", "phone")
        before = int(time.time() * 1000)
        self.push(device, 7, "h\u00e9llo".encode())
        self.assertEqual(await deferToThread(self.acknowledged, device), 7)
        (entry,) = self.entries()
        self.assertEqual(
            {
                name: entry[name]
                for name in ("content", "user_id", "device_id", "session_id", "os_name")
            },
            {
                "content": "h\u00e9llo",
                "user_id": "alice",
                "device_id": "phone",
                "session_id": "7",
                "os_name": "android",
            },
        )
        self.assertRegex(entry["id"], "^[0-9a-f]{32}$")
        self.assertRegex(entry["connection_id"], "^[0-9a-f]{8}$")
        self.assertNotIn("tags", entry)
        self.assertLess(abs(int(entry["time"]) - before), 60_000)

    async def test_bytes(self) -> None:
        """
        Whatever the bytes are, they arrive.
        """
        await self.begin()
        device = await self.online(self.node, "alice")
        content = bytes(range(256))
        self.push(device, 1, content)
        await deferToThread(self.acknowledged, device)
        self.assertEqual(
            self.redis.cli(
                "EVAL",
                "local e = redis.call('XRANGE', KEYS[1], '-', '+')[1][2] "
                "for i = 1, #e, 2 do if e[i] == 'content' then "
                "return redis.sha1hex(e[i + 1]) end end",
                "1",
                STREAM,
            ),
            self.redis.cli(
                "EVAL",
                "local s = '' for i = 0, 255 do s = s .. string.char(i) end "
                "return redis.sha1hex(s)",
                "0",
            ),
        )

    async def test_before_bind(self) -> None:
        """
        A device that is nobody's yet may push as well.
        """
        await self.begin()
        device = await self.device(self.node)
        self.push(device, 1, b"x")
        await deferToThread(self.acknowledged, device)
        self.assertNotIn("user_id", self.entries()[0])

    async def test_not_waited_for(self) -> None:
        """
        A message that asks for no acknowledgement gets none, and is written.
        """
        await self.begin()
        device = await self.online(self.node, "alice")
        self.push(device, 1, b"one", flags=0)
        self.push(device, 2, b"two")
        self.assertEqual(await deferToThread(self.acknowledged, device), 2)
        self.assertEqual([e["content"] for e in self.entries()], ["one", "two"])
        self.assertEqual(self.ends(), {"stored": 2})

    async def test_many(self) -> None:
        """
        Many messages keep each device's order, and none is lost or doubled.
        """
        await self.begin()
        devices = [
            await self.online(self.node, f"user-{number}", f"d{number}")
            for number in range(5)
        ]

        def work(device: Device) -> None:
            for number in range(1, 401):
                self.push(device, number, str(number).encode(), flags=0)
            self.push(device, 401, b"401")
            self.assertEqual(self.acknowledged(device), 401)

        await gatherResults([deferToThread(work, device) for device in devices])
        by_user: dict[str, list[int]] = {}
        entries = self.entries()
        for entry in entries:
            by_user.setdefault(entry["user_id"], []).append(int(entry["content"]))
        self.assertEqual(len(by_user), 5)
        for numbers in by_user.values():
            self.assertEqual(numbers, list(range(1, 402)))
        self.assertEqual(len({entry["id"] for entry in entries}), len(entries))

    async def test_bounded(self) -> None:
        """
        The stream does not grow for ever.
        """
        await self.begin(max_length=100)
        device = await self.online(self.node, "alice")

        def work() -> None:
            for number in range(1, 1001):
                self.push(device, number, b"x", flags=0)
            self.push(device, 1001, b"x")
            self.acknowledged(device)

        await deferToThread(work)
        # Redis cuts whole nodes of its own off, of 100 entries by default.
        self.assertLessEqual(int(self.redis.cli("XLEN", STREAM)), 300)

    async def test_stop(self) -> None:
        """
        What waits when the node stops is written.
        """
        await self.begin()
        device = await self.online(self.node, "alice")

        def work() -> None:
            for number in range(1, 501):
                self.push(device, number, b"x", flags=0)

        await deferToThread(work)
        await self.until(lambda: self.node.metrics.upstream["accepted"] == 500)
        await self.node.stopService()
        self.assertEqual(int(self.redis.cli("XLEN", STREAM)), 500)


class OutageTests(UpstreamTestCase):
    """
    Redis comes and goes.
    """

    async def test_not_there_at_the_start(self) -> None:
        """
        The node starts without Redis; what is pushed meanwhile is written later.
        """
        self.redis.kill()
        await self.begin()
        device = await self.online(self.node, "alice")
        self.push(device, 1, b"early", flags=0)
        await self.until(lambda: self.node.metrics.upstream["accepted"])
        self.redis.start()
        await self.until(self.entries)
        self.assertEqual(self.entries()[0]["content"], "early")

    async def test_restart(self) -> None:
        """
        An acknowledgement waits until Redis is back.
        """
        await self.begin()
        device = await self.online(self.node, "alice")
        self.push(device, 1, b"before")
        await deferToThread(self.acknowledged, device)
        self.redis.kill()
        self.push(device, 2, b"during")
        waiting = deferToThread(self.acknowledged, device)
        await deferLater(reactor, 0.5)
        self.assertNoResult(waiting)
        self.redis.start()
        self.assertEqual(await waiting, 2)
        self.assertEqual([e["content"] for e in self.entries()], ["during"])

    async def test_gone_for_long(self) -> None:
        """
        When Redis stays away the device gets no acknowledgement, the message is given
        up, and the device goes on.
        """
        self.patch_handler_seconds(0.3)
        await self.begin()
        device = await self.online(self.node, "alice")
        self.redis.kill()
        self.push(device, 1, b"lost")
        await self.until(lambda: self.ends().get("given-up"))
        self.patch_handler_seconds(10)
        self.redis.start()
        self.push(device, 2, b"sent again")
        self.assertEqual(await deferToThread(self.acknowledged, device), 2)
        self.assertEqual([e["content"] for e in self.entries()], ["sent again"])

    def patch_handler_seconds(self, seconds: float) -> None:
        """
        Have the node wait for handlers for another time.
        """
        from mpush_tw.core.handlers import push

        self.patch(push, "_HANDLER_SECONDS", seconds)

    async def test_stands_still(self) -> None:
        """
        A Redis that does not answer is given up; nothing is lost.
        """
        self.patch(link, "REPLY_SECONDS", 0.3)
        await self.begin()
        device = await self.online(self.node, "alice")
        self.push(device, 1, b"one")
        await deferToThread(self.acknowledged, device)
        self.redis.pause()
        self.addCleanup(self.redis.resume)
        self.push(device, 2, b"two")
        await deferLater(reactor, 1.0)
        self.redis.resume()
        self.assertEqual(await deferToThread(self.acknowledged, device), 2)
        contents = [entry["content"] for entry in self.entries()]
        self.assertEqual(contents[0], "one")
        self.assertEqual(set(contents[1:]), {"two"})
        self.assertEqual(len({entry["id"] for entry in self.entries()}), 2)

    async def test_too_many(self) -> None:
        """
        Only so many messages wait; what is dropped is counted and told.
        """
        self.redis.kill()
        await self.begin(waiting=10)
        device = await self.online(self.node, "alice")

        def work() -> None:
            for number in range(1, 31):
                self.push(device, number, str(number).encode(), flags=0)

        self.node.log.set_level("error")
        with capturedLogs() as lines:
            await deferToThread(work)
            await self.until(lambda: self.ends().get("dropped") == 20)
            self.redis.start()
            await self.until(lambda: self.ends().get("stored") == 10)
        told = sum(
            line["count"]
            for line in lines
            if "were lost" in str(line.get("log_format"))
        )
        self.assertEqual(told, 20)
        self.assertEqual(
            [int(entry["content"]) for entry in self.entries()], list(range(1, 11))
        )

    async def test_too_heavy(self) -> None:
        """
        What they weigh is bounded as well; who asked for an acknowledgement is refused.
        """
        self.redis.kill()
        await self.begin(waiting_bytes="2k")
        device = await self.online(self.node, "alice")
        for number in range(1, 4):
            self.push(device, number, b"x" * 1000, flags=8 if number == 3 else 0)
        await self.until(lambda: self.node.metrics.upstream["failed"] == 1)
        self.assertEqual(self.ends().get("dropped"), 2)

    async def test_no_stream(self) -> None:
        """
        What Redis refuses is lost, which is told; the next message is written.
        """
        self.redis.cli("SET", STREAM, "a text")
        await self.begin()
        device = await self.online(self.node, "alice")
        self.push(device, 1, b"one")
        await self.until(lambda: self.ends().get("refused") == 1)
        self.redis.cli("DEL", STREAM)
        self.push(device, 2, b"two")
        self.assertEqual(await deferToThread(self.acknowledged, device), 2)

    async def test_no_room(self) -> None:
        """
        A Redis that has no room now is asked again.
        """
        self.redis.cli("CONFIG", "SET", "maxmemory", "1")
        await self.begin()
        device = await self.online(self.node, "alice")
        self.push(device, 1, b"one")
        waiting = deferToThread(self.acknowledged, device)
        await deferLater(reactor, 0.5)
        self.redis.cli("CONFIG", "SET", "maxmemory", "0")
        self.assertEqual(await waiting, 1)

    async def test_stop_without_redis(self) -> None:
        """
        A node stops without Redis, in time, and says what it takes with it.
        """
        self.redis.kill()
        node = await self.begin()
        device = await self.online(node, "alice")
        self.push(device, 1, b"x", flags=0)
        await self.until(lambda: node.metrics.upstream["accepted"])
        before = time.monotonic()
        await node.stopService()
        self.assertLess(time.monotonic() - before, 10)
        self.assertEqual(self.ends(), {"dropped": 1})


class PasswordTests(UpstreamTestCase):
    """
    A Redis that wants a password.
    """

    password = "open sesame"

    async def test_right(self) -> None:
        """
        With the password it writes.
        """
        await self.begin(password=self.password)
        device = await self.online(self.node, "alice")
        self.push(device, 1, b"x")
        self.assertEqual(await deferToThread(self.acknowledged, device), 1)

    async def test_not_shown(self) -> None:
        """
        The password is nowhere to be read.
        """
        with capturedLogs() as lines:
            await self.begin(password="wrong horse")
            self.node.log.set_level("debug")
            device = await self.online(self.node, "alice")
            self.push(device, 1, b"x", flags=0)
            await deferLater(reactor, 0.5)
            await self.node.stopService()
        self.assertIn("Redis does not serve", repr(lines))
        self.assertNotIn("wrong horse", repr(lines))


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
            ("waiting", 0),
            ("max_length", "many"),
            ("waiting_bytes", "-1"),
        ]
        for name, value in wrong:
            launcher = self.launcher(EXTENSION, **{name: value})
            error = await self.assertFailure(launcher.start(), ConfigError)
            key = f"mp.spi-settings.redis-stream-upstream.{name.replace('_', '-')}"
            self.assertEqual(error.key, key)


class AddressTests(SynchronousTestCase):
    """
    Where Redis is.
    """

    def test_read(self) -> None:
        """
        A host and a port.
        """
        self.assertEqual(host_and_port("redis.local:1"), ("redis.local", 1))
        self.assertEqual(host_and_port("[::1]:6379"), ("::1", 6379))

    def test_refused(self) -> None:
        """
        Nothing else.
        """
        for text in ("", "host", ":1", "host:", "host:0", "host:65536", "host:x"):
            self.assertRaises(ValueError, host_and_port, text)
