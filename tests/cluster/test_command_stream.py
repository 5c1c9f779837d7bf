"""
Our nodes do what the original was recorded doing, and the stores see the same: command
by command and byte by byte, but for the differences in the table (DESIGN 5c).

The recording is C{tests/vectors/redis-zk.json}. Its steps that concern a node or a
sender are all here; those of broadcasts and of the address service are not.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar

import attrs

from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mpush_tw.client import Client, ClientSettings, KickPolicy
from mpush_tw.cluster import cluster_sender
from mpush_tw.config import load_settings
from mpush_tw.core.log import NodeLog
from mpush_tw.keys import SAMPLE_PUBLIC_KEY
from mpush_tw.sender import PushContext, PushSender, ResultCode
from mpush_tw.service import Node
from tests.cluster.commands import Difference, Names, store_of, tree_of, with_names
from tests.cluster.support import pause, until
from tests.servers.redis import Monitor, RedisServer
from tests.servers.zookeeper import ZooKeeperServer
from tests.support import VECTORS

RECORDED: Mapping[str, Any] = {
    step["name"]: step
    for step in json.loads((VECTORS / "redis-zk.json").read_text())["steps"]
}
THEIR_PORTS = {
    3000: "connect 1",
    3001: "gateway 1",
    8008: "websocket 1",
    3100: "connect 2",
    3101: "gateway 2",
    8108: "websocket 2",
}
OUR_STEPS = (
    "server-start",
    "handshake",
    "bind",
    "rebind",
    "bind-other-class",
    "bind-second-user",
    "kick-local",
    "push-client-start",
    "push-one",
    "push-one-again",
    "push-offline",
    "fast-connect",
    "unbind",
    "disconnect",
    "bind-again",
    "server2-start",
    "kick-remote",
    "push-moved",
    "server2-stop",
    "server-stop",
)
TREES = ("server-start", "server2-start", "server2-stop", "server-stop")
SESSION_SECONDS = 86400
"""
Life of a session record, as recorded.
"""

_QUIET = 0.25
"""
Seconds without a command after which a step is over.
"""


def _saved(step: str, session: int, system: str, device: str) -> Difference:
    key = f'"mp:rs:<session {session}>"'
    record = f'"{system},10,1.0,{device},<key>,<iv>"'
    return Difference(
        step,
        (f'"SET" {key} {record}', f'"EXPIRE" {key} "{SESSION_SECONDS}"'),
        (f'"SET" {key} {record} "EX" "{SESSION_SECONDS}"',),
        "one step: a crash in between left a key for ever (C-7)",
    )


def _looks_elsewhere(step: str, user: str) -> Difference:
    return Difference(
        step,
        (),
        (f'"HGETALL" "mp:ur:{user}"',),
        "a user who is online at another node is not announced as offline (C-12)",
        before=f'"PUBLISH" "/mpush/offline/" "{user}"',
    )


_OWN_LIST = "each node on a machine has a public address of its own (DESIGN 5c, C-11)"
_STAYS = "the user's other device is still here (S-5, C-12)"
_LAST = "the list goes when the last device has gone (DESIGN 5.13)"
_NOT_OURS = "not written: the route is another connection's by now, so it is read again"

DIFFERENCES: Sequence[Difference] = (
    _saved("handshake", 1, "android", "device-a"),
    _saved("bind-other-class", 2, "mac", "device-m"),
    _saved("bind-second-user", 3, "android", "device-b"),
    _saved("kick-local", 4, "android", "device-a2"),
    _saved("bind-again", 5, "android", "device-b"),
    _saved("kick-remote", 6, "android", "device-c"),
    Difference(
        "push-client-start",
        (),
        ('"SUBSCRIBE" "/mpush/online/"', '"SUBSCRIBE" "/mpush/offline/"'),
        "the sender drops cached routes of users that come or go (C-46)",
    ),
    _looks_elsewhere("fast-connect", "user-b"),
    Difference(
        "unbind",
        ('"HGET" "mp:ur:user-a" "1"', '"HGET" "mp:ur:user-a" "1"'),
        ('"HGET" "mp:ur:user-a" "1"',),
        "read and written in one step, if the route is still the same (C-2, C-14)",
    ),
    Difference(
        "unbind",
        (
            '"ZREM" "mp:oul:127.0.0.1" "user-a"',
            '"PUBLISH" "/mpush/offline/" "user-a"',
        ),
        (),
        _STAYS,
    ),
    _looks_elsewhere("disconnect", "user-b"),
    Difference(
        "server2-start",
        ('"DEL" "mp:oul:127.0.0.1"',),
        ('"DEL" "mp:oul:127.0.0.2"',),
        _OWN_LIST,
    ),
    Difference(
        "kick-remote",
        ('"ZADD" "mp:oul:127.0.0.1" "0.0" "user-b"',),
        ('"ZADD" "mp:oul:127.0.0.2" "0.0" "user-b"',),
        _OWN_LIST,
    ),
    Difference(
        "push-moved",
        (),
        ('"HGETALL" "mp:ur:user-b"',),
        "the sender has heard that the user came online anew (C-46)",
    ),
    Difference("server2-stop", ('"DEL" "mp:oul:127.0.0.1"',), (), _LAST),
    Difference(
        "server2-stop",
        ('"ZREM" "mp:oul:127.0.0.1" "user-b"',),
        ('"ZREM" "mp:oul:127.0.0.2" "user-b"',),
        _OWN_LIST,
    ),
    _looks_elsewhere("server2-stop", "user-b"),
    Difference("server2-stop", (), ('"DEL" "mp:oul:127.0.0.2"',), _LAST),
    Difference(
        "server-stop",
        ('"HGET" "mp:ur:user-a" "1"',),
        ('"HGET" "mp:ur:user-a" "1"', '"HGET" "mp:ur:user-a" "1"'),
        _NOT_OURS,
    ),
    Difference(
        "server-stop",
        ('"HGET" "mp:ur:user-b" "1"',),
        ('"HGET" "mp:ur:user-b" "1"', '"HGET" "mp:ur:user-b" "1"'),
        _NOT_OURS,
    ),
    _looks_elsewhere("server-stop", "user-a"),
    _looks_elsewhere("server-stop", "user-b"),
    Difference(
        "server-stop",
        ('"PUBLISH" "/mpush/offline/" "user-a"',),
        (
            '"PUBLISH" "/mpush/offline/" "user-a"',
            '"ZREM" "mp:oul:127.0.0.1" "user-a"',
            '"HGETALL" "mp:ur:user-a"',
            '"PUBLISH" "/mpush/offline/" "user-a"',
        ),
        "a kicked phone that stayed ends as well: said again, which harms nobody",
    ),
)
"""
All differences in commands; an entry that does not apply fails the step's test.
"""

ONLINE: Mapping[str, Mapping[str, Sequence[str]]] = {
    "unbind": {"127.0.0.1": ["user-a", "user-b"]},
    "disconnect": {"127.0.0.1": ["user-a"]},
    "bind-again": {"127.0.0.1": ["user-a", "user-b"]},
    "server2-start": {"127.0.0.1": ["user-a", "user-b"]},
    "kick-remote": {"127.0.0.1": ["user-a", "user-b"], "127.0.0.2": ["user-b"]},
    "push-moved": {"127.0.0.1": ["user-a", "user-b"], "127.0.0.2": ["user-b"]},
    "server2-stop": {"127.0.0.1": ["user-a", "user-b"]},
}
"""
Our online lists where the recorded one differs. There the unbinding phone took the
user's other device along (S-5), and the second server, which had the same public
address, emptied the first one's list when it started and when it stopped (C-11). A
device that was kicked and stays is still listed at its node.
"""

NOT_A_NODE = ("ZCARD", "QUIT")
"""
Recorded commands of the address service, and of closing a connection.
"""


@attrs.define
class Step:
    """
    What was seen at one step.

    @ivar calls: The commands with the calls of scripts.
    """

    commands: list[str]
    calls: list[str]
    keys: dict[str, dict[str, Any]]
    channels: list[str]
    zookeeper: dict[str, dict[str, Any]] | None = None


class Scenario:
    """
    The recorded steps, done by two of our nodes in this process.
    """

    def __init__(self, redis: RedisServer, zookeeper: ZooKeeperServer) -> None:
        self.redis = redis
        self.zookeeper = zookeeper
        self.steps: dict[str, Step] = {}
        self.ports: dict[int, str] = {}
        self._homes: list[str] = []
        self._nodes: list[Node] = []
        self._clients: dict[str, Client] = {}
        self._sender: PushSender | None = None
        self.results: dict[str, ResultCode] = {}

    async def run(self) -> None:
        """
        Do all steps.
        """
        try:
            with self.redis.monitor() as monitor:
                for name in OUR_STEPS:
                    await self._step(name, monitor)
        finally:
            for client in self._clients.values():
                await client.stop()
            if self._sender is not None:
                await self._sender.stop()
            for node in self._nodes:
                await node.stopService()
            for home in self._homes:
                shutil.rmtree(home)

    async def _step(self, name: str, monitor: Monitor) -> None:
        actions: dict[str, Callable[[], Awaitable[object]]] = {
            "server-start": lambda: self._start_node("127.0.0.1"),
            "handshake": lambda: self._come("a"),
            "bind": lambda: self._bind("a", "user-a", "tag1,tag2"),
            "rebind": lambda: self._bind("a", "user-a", "tag3"),
            "bind-other-class": lambda: self._come("m", "user-a", system="mac"),
            "bind-second-user": lambda: self._come("b", "user-b"),
            "kick-local": lambda: self._come("a2", "user-a"),
            "push-client-start": self._start_sender,
            "push-one": lambda: self._push(name, "user-b"),
            "push-one-again": lambda: self._push(name, "user-b"),
            "push-offline": lambda: self._push(name, "user-none"),
            "fast-connect": lambda: self._come_back("b"),
            "unbind": lambda: self._clients["a2"].unbind_user(),
            "disconnect": lambda: self._clients["b"].stop(),
            "bind-again": lambda: self._come("b", "user-b"),
            "server2-start": lambda: self._start_node("127.0.0.2"),
            "kick-remote": lambda: self._come("c", "user-b", server=1),
            "push-moved": lambda: self._push(name, "user-b"),
            "server2-stop": lambda: self._nodes[1].stopService(),
            "server-stop": lambda: self._nodes[0].stopService(),
        }
        monitor.clear()
        await actions[name]()
        await self._quiet(monitor)
        tree = None
        if name in TREES:
            tree = await deferToThread(tree_of, self.zookeeper.address, "mpush")
        commands = monitor.commands()
        calls = monitor.commands(scripts=True)
        self.steps[name] = Step(
            commands,
            calls,
            store_of(self.redis),
            sorted(self.redis.cli("PUBSUB", "CHANNELS").splitlines()),
            tree,
        )

    async def _quiet(self, monitor: Monitor) -> None:
        seen = -1
        while seen != (seen := len(monitor.commands(scripts=True))):
            await pause(_QUIET)

    # --------------------------------------------------------------- actions

    def _overrides(self, public_ip: str) -> list[str]:
        home = tempfile.mkdtemp()
        self._homes.append(home)
        return [
            f"mp.home={home}",
            "mp.log-level=warn",
            "mp.security.allow-sample-key=true",
            "mp.net.local-ip=127.0.0.1",
            f"mp.net.public-ip={public_ip}",
            "mp.net.connect-server-port=0",
            "mp.net.gateway-server-port=0",
            "mp.net.admin-server-port=0",
            f'mp.redis.nodes=["{self.redis.address}"]',
            f'mp.zk.server-address="{self.zookeeper.address}"',
        ]

    async def _start_node(self, public_ip: str) -> None:
        loaded = load_settings(None, self._overrides(public_ip), {})
        clock: Any = reactor
        log = NodeLog("warn", clock, lambda event: None)
        node = Node(loaded, reactor, log=log)
        self._nodes.append(node)
        node.startService()
        await node.started
        number = len(self._nodes)
        self.ports[node.connect_listener.port] = f"connect {number}"
        self.ports[node.gateway_listener.port] = f"gateway {number}"

    async def _come(
        self,
        name: str,
        user_id: str | None = None,
        system: str = "android",
        server: int = 0,
    ) -> None:
        settings = ClientSettings(
            device_id=f"device-{name}",
            server_host="127.0.0.1",
            server_port=self._nodes[server].connect_listener.port,
            public_key=SAMPLE_PUBLIC_KEY,
            os_name=system,
            os_version="10",
            client_version="1.0",
            # As the original's client: one that is kicked stays.
            kick_policy=KickPolicy.REBIND,
        )
        clock: Any = reactor
        client = self._clients[name] = Client(settings, reactor=clock)
        client.start()
        await client.when_online()
        if user_id is not None:
            # The recording has the handshake's commands first; they go out when its
            # answer has been written.
            await self._bind(name, user_id, None)

    async def _bind(self, name: str, user_id: str, tags: str | None) -> None:
        await self._clients[name].bind_user(user_id, tags)

    async def _come_back(self, name: str) -> None:
        client = self._clients[name]
        await client.stop()
        node = self._nodes[0]
        await until(lambda: len(node.connections) == 3, "the node to notice")
        client.start()
        await client.when_online()

    async def _start_sender(self) -> None:
        loaded = load_settings(None, self._overrides("127.0.0.1"), {})
        self._sender = cluster_sender(loaded.settings, reactor=reactor)
        await self._sender.start()

    async def _push(self, step: str, user_id: str) -> None:
        assert self._sender is not None
        result = await self._sender.send(PushContext(content=b"hello", user_id=user_id))
        self.results[step] = result.code


class CommandStreamTests(TestCase):
    """
    Each step of the recording.
    """

    timeout = 120
    scenario: ClassVar[Scenario | None] = None
    maxDiff = None

    async def setUp(self) -> None:
        """
        Do all steps, once for the class.
        """
        if CommandStreamTests.scenario is None:
            redis, zookeeper = RedisServer(), ZooKeeperServer()
            try:
                redis.start()
                zookeeper.start()
                scenario = Scenario(redis, zookeeper)
                await scenario.run()
            finally:
                zookeeper.stop()
                redis.stop()
            CommandStreamTests.scenario = scenario

    # ------------------------------------------------------------- commands

    def compare(self, step: str) -> None:
        """
        Compare the commands of a step with the recorded ones and the differences.
        """
        assert self.scenario is not None
        theirs = _in_order(step, self.named(RECORDED, THEIR_PORTS)[step])
        for difference in DIFFERENCES:
            if difference.step == step:
                theirs = difference.apply(theirs)
        recorded = {name: {"commands": s.commands} for name, s in self.ours.items()}
        ours = self.named(recorded, self.scenario.ports)[step]
        self.assertEqual(_in_order(step, ours), theirs)

    @property
    def ours(self) -> Mapping[str, Step]:
        """
        What was seen of our nodes.
        """
        assert self.scenario is not None
        return self.scenario.steps

    def named(
        self, steps: Mapping[str, Any], ports: Mapping[int, str]
    ) -> dict[str, list[str]]:
        """
        The commands of all steps with names in place, counted from the first step on.
        """
        names = Names(ports)
        return {
            step: [
                names.in_place(command)
                for command in steps[step]["commands"]
                if command.split('"')[1] not in NOT_A_NODE
            ]
            for step in OUR_STEPS
        }

    def test_server_start(self) -> None:
        """
        A node starts: it subscribes to its kicks and clears its online list.
        """
        self.compare("server-start")

    def test_handshake(self) -> None:
        """
        A device shakes hands: its session is stored.
        """
        self.compare("handshake")

    def test_bind(self) -> None:
        """
        It binds a user: the route, the online list, the announcement.
        """
        self.compare("bind")

    def test_rebind(self) -> None:
        """
        It binds the same user with other tags: nothing.
        """
        self.compare("rebind")

    def test_bind_other_class(self) -> None:
        """
        A device of another class binds the same user.
        """
        self.compare("bind-other-class")

    def test_bind_second_user(self) -> None:
        """
        Another user comes.
        """
        self.compare("bind-second-user")

    def test_kick_local(self) -> None:
        """
        A second phone takes the first one's place on the same node.
        """
        self.compare("kick-local")

    def test_push_client_start(self) -> None:
        """
        A sender starts.
        """
        self.compare("push-client-start")

    def test_push_one(self) -> None:
        """
        A push: the routes are read.
        """
        self.compare("push-one")

    def test_push_one_again(self) -> None:
        """
        Another push to the same user: they are cached.
        """
        self.compare("push-one-again")

    def test_push_offline(self) -> None:
        """
        A push to a user nobody knows.
        """
        self.compare("push-offline")

    def test_fast_connect(self) -> None:
        """
        A device drops and comes back with its session.
        """
        self.compare("fast-connect")

    def test_unbind(self) -> None:
        """
        A device unbinds.
        """
        self.compare("unbind")

    def test_disconnect(self) -> None:
        """
        A device closes its connection.
        """
        self.compare("disconnect")

    def test_bind_again(self) -> None:
        """
        It comes back with a new handshake.
        """
        self.compare("bind-again")

    def test_server2_start(self) -> None:
        """
        A second node starts.
        """
        self.compare("server2-start")

    def test_kick_remote(self) -> None:
        """
        A device at the second node takes the place of one at the first.
        """
        self.compare("kick-remote")

    def test_push_moved(self) -> None:
        """
        A push to the user that moved.
        """
        self.compare("push-moved")

    def test_server2_stop(self) -> None:
        """
        The second node stops while a device is connected.
        """
        self.compare("server2-stop")

    def test_server_stop(self) -> None:
        """
        The first node stops, with devices that were kicked and stayed.
        """
        self.compare("server-stop")

    def test_all_differences_apply(self) -> None:
        """
        Each entry of the table belongs to one of the steps above.
        """
        self.assertLessEqual({entry.step for entry in DIFFERENCES}, set(OUR_STEPS))

    def test_scripts(self) -> None:
        """
        The one script that is called, once by its text, runs HGET and perhaps HSET on
        the key that it is given: what MONITOR shows beside the commands above.
        """
        texts = 0
        for step in self.ours.values():
            for number, call in enumerate(step.calls):
                command = _words(call)
                if command[0] == "EVALSHA" and not step.calls[number + 1].startswith(
                    '"EVAL" '
                ):
                    key, field = command[3:5]
                    self.assertTrue(key.startswith("mp:ur:"), call)
                    self.assertEqual(
                        _words(step.calls[number + 1]), ["HGET", key, field]
                    )
                texts += command[0] == "EVAL"
                self.assertNotEqual(command[0], "SCRIPT")
        self.assertEqual(texts, 1)

    # ----------------------------------------------------- what is there then

    def test_store(self) -> None:
        """
        After each step the store holds the same keys with the same values: routes and
        lists for good, sessions for a day.
        """
        assert self.scenario is not None
        theirs, ours = Names(THEIR_PORTS), Names(self.scenario.ports)
        for step in OUR_STEPS:
            expected = _named_store(theirs, _as_ours(step, RECORDED[step]["keys"]))
            found = _named_store(ours, self.ours[step].keys)
            self.assertEqual(found, expected, step)

    def test_lives(self) -> None:
        """
        Sessions live for a day, everything else for ever.
        """
        for name, step in self.ours.items():
            for key, entry in step.keys.items():
                if key.startswith("mp:rs:"):
                    self.assertGreater(entry["ttl"], SESSION_SECONDS - 120, name)
                    self.assertLessEqual(entry["ttl"], SESSION_SECONDS, name)
                else:
                    self.assertEqual(entry["ttl"], -1, (name, key))

    def test_channels(self) -> None:
        """
        After each step the same kick channels are subscribed; the channels beside them
        are the sender's (C-46).
        """
        assert self.scenario is not None
        theirs, ours = Names(THEIR_PORTS), Names(self.scenario.ports)
        for step in OUR_STEPS:
            expected = [theirs.in_place(one) for one in RECORDED[step]["channels"]]
            found = [ours.in_place(one) for one in self.ours[step].channels]
            of_sender = {"/mpush/online/", "/mpush/offline/"}
            self.assertEqual(sorted(set(found) - of_sender), sorted(expected), step)

    def test_trees(self) -> None:
        """
        When a node has started or stopped, the tree is the same: paths, data, rights,
        what is ephemeral, and that nothing was written twice. There is no WebSocket
        door, so it is not registered; and the second node has its own public address.
        """
        assert self.scenario is not None
        for step in TREES:
            tree = {
                path: entry
                for path, entry in RECORDED[step]["zookeeper"].items()
                if "/cluster/ws" not in path
            }
            expected = with_names(tree, Names(THEIR_PORTS))
            found = self.ours[step].zookeeper
            assert found is not None
            named = [
                (path, {**entry, "data": entry["data"].replace("0.0.2", "0.0.1")})
                for path, entry in with_names(found, Names(self.scenario.ports))
            ]
            self.assertEqual(named, expected, step)

    def test_pushes(self) -> None:
        """
        The sender was told what the original's was told.
        """
        assert self.scenario is not None
        self.assertEqual(
            self.scenario.results,
            {
                "push-one": ResultCode.SUCCESS,
                "push-one-again": ResultCode.SUCCESS,
                "push-offline": ResultCode.OFFLINE,
                "push-moved": ResultCode.SUCCESS,
            },
        )


def _words(command: str) -> list[str]:
    """
    Take a command of MONITOR apart.
    """
    return [json.loads(word) for word in re.findall(r'"(?:[^"\\]|\\.)*"', command)]


def _in_order(step: str, commands: Sequence[str]) -> list[str]:
    """
    Give those commands a fixed order that go out at the same time.

    In a remote kick: the kick and what belongs to the online list (cluster 2.10). In a
    stop: what belongs to different routes and different users; each keeps its order.
    """
    if step == "kick-remote":
        return sorted(commands, key=lambda command: "/mpush/kick/" in command)
    if step != "server-stop":
        return list(commands)

    def place(command: str) -> tuple[str, ...]:
        name, key, *rest = _words(command)
        if name in ("HGET", "HSET"):
            return (key, rest[0])
        user = key.removeprefix("mp:ur:") if name == "HGETALL" else rest[-1:]
        return ("list", *user) if isinstance(user, list) else ("list", user)

    return sorted(commands, key=place)


def _as_ours(step: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    """
    Take from a recorded store what broadcasts have left, and put in our online lists
    where they differ.
    """
    lists = ONLINE.get(step, {})
    expected = {
        key: entry
        for key, entry in keys.items()
        if not key.startswith(("mp:pt", "task-"))
        and not (lists and key.startswith("mp:oul:"))
    }
    for address, users in lists.items():
        value = [[user, 0.0] for user in users]
        expected[f"mp:oul:{address}"] = {"type": "zset", "value": value}
    return expected


def _named_store(names: Names, keys: Mapping[str, Any]) -> dict[str, Any]:
    """
    Put names into a store, without the lives of its keys.
    """
    named = {}
    for key, entry in sorted(keys.items(), key=lambda item: str(item)):
        text = json.dumps(entry["value"], ensure_ascii=False, sort_keys=True)
        named[names.in_place(key)] = (entry["type"], names.in_place(text))
    return named
