"""
The sender in a cluster on a real Redis and a real ZooKeeper, which go away and come
back. The gateways are real ports with somebody behind them who says what the test
wants; routes and registrations are put where nodes put them.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import (
    Deferred,
    ensureDeferred,
    gatherResults,
    maybeDeferred,
)
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python import threadable
from twisted.trial.unittest import TestCase

from mpush_tw.cluster import blocking_cluster_sender, cluster_sender
from mpush_tw.config import Settings, load_settings
from mpush_tw.errors import PushError, Unavailable
from mpush_tw.integrations.zookeeper import ZooKeeperRegistry
from mpush_tw.interfaces import ServiceNode
from mpush_tw.protocol.commands import ErrorCode
from mpush_tw.protocol.routes import RemoteRoute
from mpush_tw.sender import PushContext, PushResult, PushSender, ResultCode
from tests.sender.gateway import Asked, FakeGateway, FakeGatewayFactory
from tests.sender.test_datagrams import PlayedGateway
from tests.servers import free_port
from tests.servers.redis import RedisServer
from tests.servers.zookeeper import ZooKeeperServer

ROOT = str(Path(__file__).parents[2])
SESSION_MS = 2000
_clock: Any = reactor


class _Servers:
    """
    One Redis and one ZooKeeper for all tests of this module.
    """

    redis: RedisServer | None = None
    zookeeper: ZooKeeperServer | None = None
    killed = False

    @classmethod
    def start(cls) -> tuple[RedisServer, ZooKeeperServer]:
        """
        See that they run, whatever the last test did to them.
        """
        if cls.redis is None or cls.zookeeper is None:
            redis, zookeeper = RedisServer(), ZooKeeperServer()
            redis.start()
            atexit.register(zookeeper.stop)
            zookeeper.start()
            cls.redis, cls.zookeeper = redis, zookeeper
        cls.restore_redis()
        cls.redis.resume()
        cls.zookeeper.resume()
        return cls.redis, cls.zookeeper

    @classmethod
    def kill_redis(cls) -> None:
        """
        End Redis, with all that it held.
        """
        assert cls.redis is not None
        cls.redis.kill()
        cls.killed = True

    @classmethod
    def restore_redis(cls) -> None:
        """
        Start it again, if it is not there.
        """
        if cls.killed and cls.redis is not None:
            cls.redis.start()
            cls.killed = False


def pause(seconds: float) -> Deferred[None]:
    """
    Let the reactor run.
    """
    return deferLater(_clock, seconds)


async def until(
    true: Callable[[], Awaitable[bool]], what: str, limit: float = 20.0
) -> None:
    """
    Ask again and again until the answer is yes.
    """
    end = _clock.seconds() + limit
    while not await true():
        if _clock.seconds() > end:
            raise AssertionError(f"waited {limit:g} s in vain for {what}")
        await pause(0.05)


class Gateway:
    """
    A gateway on a port of its own.

    @ivar says: The error code for a user; others get their messages.
    @ivar delivered: User and content of what was delivered.
    """

    def __init__(self, number: int) -> None:
        self.host = "127.0.0.1"
        self.port = free_port()
        self.says: dict[str, ErrorCode] = {}
        self.delivered: list[tuple[str | None, bytes | None]] = []
        self.connected: list[FakeGateway] = []
        self.node = ServiceNode(
            "/cluster/gs", self.host, self.port, None, f"gateway-{number}"
        )
        self._listening: Any = None

    def open(self) -> None:
        """
        Listen.
        """
        factory = FakeGatewayFactory(self._asked)
        build = factory.buildProtocol

        def remember(addr: Any) -> FakeGateway:
            gateway = build(addr)
            self.connected.append(gateway)
            return gateway

        factory.buildProtocol = remember  # type: ignore[method-assign]
        self._listening = _clock.listenTCP(self.port, factory, 50, self.host)

    async def die(self) -> None:
        """
        Be gone, without a word; return when that can be known.
        """
        listening, self._listening = self._listening, None
        if listening is not None:
            await maybeDeferred(listening.stopListening)
        connected, self.connected = self.connected, []
        for gateway in connected:
            transport: Any = gateway.transport
            transport.abortConnection()
        await pause(0.1)

    def _asked(self, gateway: FakeGateway, asked: Asked) -> None:
        user_id = asked.push.user_id
        code = self.says.get(user_id or "")
        if code is not None:
            gateway.error(asked, code)
            return
        self.delivered.append((user_id, asked.push.content))
        gateway.ok(asked)


class ServersTestCase(TestCase):
    """
    Servers, and nobody registered.
    """

    timeout = 90
    _numbers = itertools.count()

    async def setUp(self) -> None:
        self.redis, self.zookeeper = _Servers.start()
        self.addCleanup(_Servers.start)
        self.settings: Settings = load_settings(None, self.configuration(), {}).settings
        self.registry = ZooKeeperRegistry(self.settings.zk, reactor)
        await self.registry.start()
        self.addCleanup(self.registry.stop)
        self.user = f"user-{next(self._numbers)}"

    def configuration(self) -> list[str]:
        return [
            f"mp.redis.nodes={json.dumps([self.redis.address])}",
            f"mp.zk.server-address={json.dumps(self.zookeeper.address)}",
            f"mp.zk.sessionTimeoutMs={SESSION_MS}",
            "mp.security.allow-sample-key=true",
        ]

    def configuration_file(self) -> str:
        """
        Write a node's file.
        """
        file = Path(tempfile.mkdtemp()) / "node.conf"
        file.write_text("\n".join(self.configuration()))
        return str(file)

    async def gateway(self, registered: bool = True) -> Gateway:
        """
        Open a gateway, and register it.
        """
        gateway = Gateway(next(self._numbers))
        gateway.open()
        self.addCleanup(gateway.die)
        if registered:
            await self.registry.register(gateway.node)
        return gateway

    async def sender(self) -> PushSender:
        """
        Start a sender.
        """
        sender = cluster_sender(self.settings, reactor=reactor)
        await sender.start()
        self.addCleanup(sender.stop)
        return sender

    def store(
        self, user_id: str, gateway: Gateway, connection: str | None = "c1"
    ) -> None:
        """
        Store a route, as a node does.
        """
        route = RemoteRoute(
            gateway.host, gateway.port, "device", "android", "1.0", connection
        )
        self.redis.cli("HSET", f"mp:ur:{user_id}", "1", route.encode())

    async def push(
        self, sender: PushSender, user_id: str, timeout: float = 3.0
    ) -> ResultCode:
        return (await self.result(sender, user_id, timeout)).code

    async def result(
        self, sender: PushSender, user_id: str, timeout: float = 3.0
    ) -> PushResult:
        return await sender.send(
            PushContext(b"hello", user_id=user_id, timeout=timeout)
        )

    async def until_push(
        self, sender: PushSender, user_id: str, code: ResultCode
    ) -> None:
        """
        Push until it ends in a certain way.
        """

        async def ends_so() -> bool:
            return await self.push(sender, user_id, 1.0) is code

        await until(ends_so, f"a push to {user_id} that is {code.name}")


class DeliveryTests(ServersTestCase):
    async def test_push(self) -> None:
        """
        A message goes to the gateway that the route names, and to no other.
        """
        first, second = await self.gateway(), await self.gateway()
        sender = await self.sender()
        self.store(self.user, second)
        result = await self.result(sender, self.user)
        self.assertIs(result.code, ResultCode.SUCCESS)
        self.assertEqual(second.delivered, [(self.user, b"hello")])
        self.assertEqual(first.delivered, [])
        assert result.location is not None
        self.assertEqual(result.location.address, (second.host, second.port))
        self.assertEqual(result.location.connection_id, "c1")

    async def test_offline(self) -> None:
        """
        A user without a route, and one who has left, are offline.
        """
        gateway = await self.gateway()
        sender = await self.sender()
        self.assertIs(await self.push(sender, self.user), ResultCode.OFFLINE)
        self.store(self.user, gateway, None)
        self.assertIs(await self.push(sender, self.user), ResultCode.OFFLINE)

    async def test_moved(self) -> None:
        """
        One who moved is followed with the whole message.
        """
        old, new = await self.gateway(), await self.gateway()
        sender = await self.sender()
        self.store(self.user, old)
        self.assertIs(await self.push(sender, self.user), ResultCode.SUCCESS)
        self.store(self.user, new, "c2")
        old.says[self.user] = ErrorCode.ROUTER_CHANGE
        result = await self.result(sender, self.user)
        self.assertIs(result.code, ResultCode.SUCCESS)
        self.assertEqual(new.delivered, [(self.user, b"hello")])
        assert result.location is not None
        self.assertEqual(result.location.connection_id, "c2")

    async def test_word_of_a_move(self) -> None:
        """
        When a node says where the user is now, the old gateway is not even asked.
        """
        old, new = await self.gateway(), await self.gateway()
        sender = await self.sender()
        self.store(self.user, old)
        await self.push(sender, self.user)
        self.store(self.user, new, "c2")
        self.redis.cli("PUBLISH", "/mpush/online/", self.user)
        await pause(0.2)
        self.assertIs(await self.push(sender, self.user), ResultCode.SUCCESS)
        self.assertEqual(len(old.delivered), 1)
        self.assertEqual(len(new.delivered), 1)

    async def test_garbage(self) -> None:
        """
        Garbage among the routes, or in place of them, disturbs nobody.
        """
        gateway = await self.gateway()
        sender = await self.sender()
        key = f"mp:ur:{self.user}"
        for field, text in (("x", "{"), ("2", '{"port":[]}'), ("3", "\udcff\udcfe")):
            self.redis.cli("HSET", key, field, text)
        self.assertIs(await self.push(sender, self.user), ResultCode.OFFLINE)
        self.store(self.user, gateway)
        self.assertIs(await self.push(sender, self.user), ResultCode.SUCCESS)
        other = f"{self.user}-other"
        self.redis.cli("SET", f"mp:ur:{other}", "no hash")
        self.assertIs(await self.push(sender, other), ResultCode.OFFLINE)

    async def test_many_users(self) -> None:
        """
        A list of users, some of whom are offline: everybody has a result.
        """
        gateway = await self.gateway()
        sender = await self.sender()
        users = [f"{self.user}-{number}" for number in range(500)]
        for user in users[:20]:
            self.store(user, gateway)
        done = await sender.send_all(PushContext(b"hello", user_ids=users))
        self.assertEqual(done.count(ResultCode.SUCCESS), 20)
        self.assertEqual(done.count(ResultCode.OFFLINE), 480)

    async def test_stopped_while_starting(self) -> None:
        """
        A sender that is stopped before it has started leaves nothing behind, however
        far it was.
        """
        for delay in (0.0, 0.003, 0.01, 0.03, 0.1):
            sender = cluster_sender(self.settings, reactor=reactor)
            started = sender.start()
            await pause(delay)
            await sender.stop()
            with contextlib.suppress(PushError):
                await started

    async def test_restarted_sender(self) -> None:
        """
        A sender that was stopped may be started again.
        """
        gateway = await self.gateway()
        self.store(self.user, gateway)
        sender = await self.sender()
        self.assertIs(await self.push(sender, self.user), ResultCode.SUCCESS)
        await sender.stop()
        await sender.start()
        self.assertIs(await self.push(sender, self.user), ResultCode.SUCCESS)
        self.redis.cli("PUBLISH", "/mpush/offline/", self.user)
        await pause(0.2)
        self.store(self.user, gateway, None)
        self.assertIs(await self.push(sender, self.user), ResultCode.OFFLINE)


class GatewayTests(ServersTestCase):
    async def test_before_the_first_node(self) -> None:
        """
        A sender starts before the first node, and serves when that comes.
        """
        sender = await self.sender()
        gateway = await self.gateway()
        self.store(self.user, gateway)
        self.assertIs(await self.push(sender, self.user), ResultCode.SUCCESS)

    async def test_killed(self) -> None:
        """
        Pushes to users of a node that died fail, and when its registration has vanished
        they are offline.
        """
        gateway = await self.gateway()
        sender = await self.sender()
        self.store(self.user, gateway)
        self.assertIs(await self.push(sender, self.user), ResultCode.SUCCESS)
        await gateway.die()
        self.assertIs(await self.push(sender, self.user), ResultCode.FAILURE)
        await self.registry.deregister(gateway.node)
        await self.until_push(sender, self.user, ResultCode.OFFLINE)

    async def test_restarted(self) -> None:
        """
        A node that is restarted at its address, under another id, is used again; that
        the old registration vanishes later changes nothing (C-40).
        """
        gateway = await self.gateway()
        sender = await self.sender()
        self.store(self.user, gateway)
        self.assertIs(await self.push(sender, self.user), ResultCode.SUCCESS)
        await gateway.die()
        gateway.open()
        await self.registry.register(
            ServiceNode("/cluster/gs", gateway.host, gateway.port, None, "another-id")
        )
        self.assertIs(await self.push(sender, self.user), ResultCode.SUCCESS)
        connected = len(gateway.connected)
        await self.registry.deregister(gateway.node)
        await pause(0.5)
        self.assertIs(await self.push(sender, self.user), ResultCode.SUCCESS)
        self.assertEqual(len(gateway.connected), connected)

    async def test_garbage(self) -> None:
        """
        Garbage among the registrations disturbs nobody.
        """
        gateway = await self.gateway()
        for node_id, host, port in (("empty", "", 1), ("high", "127.0.0.1", 70000)):
            await self.registry.register(
                ServiceNode("/cluster/gs", host, port, None, node_id)
            )
        sender = await self.sender()
        self.store(self.user, gateway)
        self.assertIs(await self.push(sender, self.user), ResultCode.SUCCESS)


class RedisTests(ServersTestCase):
    """
    Redis goes away and comes back.
    """

    async def test_restart(self) -> None:
        """
        Without Redis, users whose routes are remembered get their messages, and others
        fail at once. When it is back all is well by itself, and what changed meanwhile
        is known.
        """
        old, new = await self.gateway(), await self.gateway()
        sender = await self.sender()
        other = f"{self.user}-other"
        self.store(self.user, old)
        self.assertIs(await self.push(sender, self.user), ResultCode.SUCCESS)
        _Servers.kill_redis()
        await pause(0.3)
        self.assertIs(await self.push(sender, self.user), ResultCode.SUCCESS)
        begun = _clock.seconds()
        self.assertIs(await self.push(sender, other), ResultCode.FAILURE)
        self.assertLess(_clock.seconds() - begun, 2.5)
        _Servers.restore_redis()
        self.store(self.user, new, "c2")
        self.store(other, new)
        await self.until_push(sender, other, ResultCode.SUCCESS)
        del new.delivered[:]

        async def goes_to_the_new_one() -> bool:
            await self.push(sender, self.user)
            return bool(new.delivered)

        await until(goes_to_the_new_one, "a push to the new gateway")

    async def test_silent(self) -> None:
        """
        A Redis that answers nothing costs no push more than its time-out.
        """
        gateway = await self.gateway()
        sender = await self.sender()
        self.store(self.user, gateway)
        self.redis.pause()
        begun = _clock.seconds()
        code = await self.push(sender, self.user, 1.0)
        self.assertIs(code, ResultCode.TIMEOUT)
        self.assertLess(_clock.seconds() - begun, 1.5)
        self.redis.resume()
        await self.until_push(sender, self.user, ResultCode.SUCCESS)

    async def test_start_without(self) -> None:
        """
        A sender does not start without Redis, and says which; afterwards it does.
        """
        _Servers.kill_redis()
        sender = cluster_sender(self.settings, reactor=reactor)
        self.addCleanup(sender.stop)
        failure = await self.assertFailure(sender.start(), Unavailable)
        self.assertIn(self.redis.address, str(failure))
        _Servers.restore_redis()
        await sender.start()
        gateway = await self.gateway()
        self.store(self.user, gateway)
        self.assertIs(await self.push(sender, self.user), ResultCode.SUCCESS)


class ZooKeeperTests(ServersTestCase):
    """
    ZooKeeper goes away and comes back.
    """

    async def test_silent_past_the_session(self) -> None:
        """
        While ZooKeeper is away nothing changes for gateways that were known: they serve
        and are connected again. When it is back new ones are found.
        """
        gateway = await self.gateway()
        unknown = await self.gateway(registered=False)
        sender = await self.sender()
        other = f"{self.user}-other"
        self.store(self.user, gateway)
        self.store(other, unknown)
        self.zookeeper.pause()
        end = _clock.seconds() + 2 * SESSION_MS / 1000
        while _clock.seconds() < end:
            self.assertIs(await self.push(sender, self.user), ResultCode.SUCCESS)
            await pause(0.1)
        await gateway.die()
        gateway.open()
        self.assertIs(await self.push(sender, self.user), ResultCode.SUCCESS)
        self.assertIs(await self.push(sender, other), ResultCode.FAILURE)
        self.zookeeper.resume()
        await self.registry.register(unknown.node)
        await self.until_push(sender, other, ResultCode.SUCCESS)
        await self.until_push(sender, self.user, ResultCode.SUCCESS)

    async def test_restart(self) -> None:
        """
        A ZooKeeper that is restarted with nothing in it is filled again by the nodes;
        users stay reachable.
        """
        gateway = await self.gateway()
        sender = await self.sender()
        self.store(self.user, gateway)
        self.assertIs(await self.push(sender, self.user), ResultCode.SUCCESS)
        self.zookeeper.restart(lose_data=True)
        await self.until_push(sender, self.user, ResultCode.SUCCESS)

        async def registered() -> bool:
            try:
                nodes = await self.registry.lookup("/cluster/gs")
            except Unavailable:
                return False
            return gateway.node.node_id in [node.node_id for node in nodes]

        await until(registered, "the gateway's registration")
        await self.until_push(sender, self.user, ResultCode.SUCCESS)


class DatagramTests(ServersTestCase):
    """
    A cluster whose gateways are asked over UDP.
    """

    def configuration(self) -> list[str]:
        return [*super().configuration(), "mp.net.gateway-server-net=udp"]

    async def setUp(self) -> None:
        await super().setUp()
        self.played = PlayedGateway.on()
        self.addCleanup(self.played.close)
        host, port = self.played.address
        self.node = ServiceNode("/cluster/gs", host, port, None, f"udp-{port}")
        await self.registry.register(self.node)
        route = RemoteRoute(host, port, "device", "android", "1.0", "c1")
        self.redis.cli("HSET", f"mp:ur:{self.user}", "1", route.encode())

    async def test_push(self) -> None:
        """
        A message goes to the gateway of the route in one datagram, and its answer is
        the result.
        """
        sender = await self.sender()
        pushed = self.result(sender, self.user)
        result, asked = await gatherResults(
            [Deferred.fromCoroutine(pushed), ensureDeferred(self.played.answer())]
        )
        self.assertEqual(asked.push.content, b"hello")
        self.assertIs(result.code, ResultCode.SUCCESS)

    async def test_vanished(self) -> None:
        """
        Users of a gateway whose registration has vanished are offline.
        """
        sender = await self.sender()
        await self.registry.deregister(self.node)
        await self.until_push(sender, self.user, ResultCode.OFFLINE)

    async def test_too_large(self) -> None:
        """
        What would end a Java node's gateway for good is refused, unless there is none
        in this cluster (C-25).
        """
        sender = await self.sender()
        order = PushContext(bytes(2100), user_id=self.user)
        with self.assertRaises(PushError):
            await sender.send(order)
        ours = cluster_sender(self.settings, reactor=reactor, large_datagrams=True)
        await ours.start()
        self.addCleanup(ours.stop)
        result, asked = await gatherResults(
            [ours.send(order), ensureDeferred(self.played.answer())]
        )
        self.assertEqual(len(asked.push.content), 2100)
        self.assertIs(result.code, ResultCode.SUCCESS)


class FileTests(ServersTestCase):
    """
    Senders made from a node's configuration file.
    """

    async def setUp(self) -> None:
        await super().setUp()
        # A reactor of its own declares its thread the reactor thread.
        self.patch(threadable, "ioThread", threadable.ioThread)

    async def test_twisted(self) -> None:
        """
        A Twisted program names the file.
        """
        gateway = await self.gateway()
        self.store(self.user, gateway)
        sender = cluster_sender(Path(self.configuration_file()), reactor=reactor)
        await sender.start()
        self.addCleanup(sender.stop)
        self.assertIs(await self.push(sender, self.user), ResultCode.SUCCESS)

    async def test_script(self) -> None:
        """
        So does a script that has no reactor.
        """
        gateway = await self.gateway()
        self.store(self.user, gateway)

        def script() -> PushResult:
            with blocking_cluster_sender(self.configuration_file()) as sender:
                return sender.send(PushContext(b"hello", user_id=self.user))

        result = await deferToThread(script)
        self.assertIs(result.code, ResultCode.SUCCESS)

    async def test_command(self) -> None:
        """
        And C{mpush push}.
        """
        gateway = await self.gateway()
        self.store(self.user, gateway)
        done = await self.run_python(
            "from mpush_tw.cli import main; main()",
            *("push", self.user, "hello", "--config", self.configuration_file()),
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn(f"success  to {self.user}", done.stdout)
        self.assertEqual(gateway.delivered, [(self.user, b"hello")])

    def run_python(
        self, program: str, *arguments: str
    ) -> Deferred[subprocess.CompletedProcess[str]]:
        """
        Run a program in a process of its own.
        """
        return deferToThread(
            subprocess.run,
            [sys.executable, "-c", program, *arguments],
            env=os.environ | {"PYTHONPATH": ROOT},
            capture_output=True,
            text=True,
            timeout=60,
        )

    async def run_example(self, number: int) -> list[str]:
        """
        Run a program of the manual as it stands, but for the file that it names.

        @return: What it printed, by lines.
        """
        manual = (Path(ROOT) / "docs" / "sending.md").read_text()
        program = re.findall(r"```python\n(.*?)```", manual, re.DOTALL)[number]
        self.assertEqual(program.count("/etc/mpush/mpush.conf"), 1)
        program = program.replace("/etc/mpush/mpush.conf", self.configuration_file())
        done = await self.run_python(program)
        self.assertEqual(done.stderr, "")
        return done.stdout.splitlines()

    async def test_manual(self) -> None:
        """
        The programs of C{docs/sending.md} do what the page says.
        """
        gateway = await self.gateway()
        self.store("alice", gateway)
        self.assertEqual(
            await self.run_example(2),
            ["SUCCESS", "device device on 127.0.0.1", "1 of 2"],
        )
        self.assertEqual(await self.run_example(3), ["SUCCESS"])
        self.assertEqual(gateway.delivered, [("alice", b"hello")] * 3)
