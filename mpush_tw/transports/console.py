"""
The commands of the admin console (operations 6.3, 6.4), without a connection.

Answers are byte for byte the original's where a command works there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from typing import Protocol as Structure

from twisted.internet.defer import Deferred
from zope.interface import implementer

from mpush_tw.config import mask
from mpush_tw.core.flow import GlobalFlow
from mpush_tw.core.log import NodeLog
from mpush_tw.core.push.centre import PushCentre
from mpush_tw.core.push.request import Outcome, PushRequest
from mpush_tw.core.registry import Connections
from mpush_tw.core.routing.local import LocalRoutes
from mpush_tw.core.routing.online import OnlineUsers
from mpush_tw.core.routing.router import Router
from mpush_tw.interfaces import IPushListener, IServiceDiscovery, ServiceNode
from mpush_tw.protocol.commands import Flag
from mpush_tw.protocol.fields import encode_json
from mpush_tw.protocol.gateway import TimePoints
from mpush_tw.protocol.routes import RemoteRoute

_MP = "mp"
_PATH_PART = re.compile(r'"(?P<quoted>[^"]*)"|(?P<plain>[^".]+)')

_HELP = "".join(
    f"{option:<37}{description}\r\n"
    for option, description in (
        ("Option", "Description"),
        ("------", "-----------"),
        ("help", "show help"),
        ("quit", "exit console mode"),
        ("shutdown", "stop mpush server"),
        ("restart", "restart mpush server"),
        ("zk:<redis, cs ,gs>", "query zk node"),
        ("count:<conn, online>", "count conn num or online user count"),
        ("route:<uid>", "show user route info"),
        ("push:<uid>, <msg>", "push test msg to client"),
        ("conf:[key]", "show config info"),
        ("monitor:[mxBean]", "show system monitor"),
        ("profile:<1,0>", "enable/disable profile"),
    )
)


_MORE_HELP = "".join(
    f"{option:<37}{description}\r\n"
    for option, description in (
        ("rcs:[on]", "take this node off the device list, or back on"),
        ("flow:[global, broadcast] <limit>", "show or set push limits"),
        ("broadcast:[cancel] <task id>", "show or cancel broadcasts"),
    )
)
"""
Ours; C{help all} shows them behind those of the original.
"""


class AdminNode(Structure):
    """
    What the console needs of a node; L{mpush_tw.service.Node} has it.

    @ivar config_tree: The C{mp} tree as plain data; holds secrets.
    """

    connections: Connections
    web_connections: Connections
    local_routes: LocalRoutes
    online: OnlineUsers
    router: Router
    centre: PushCentre
    flow: GlobalFlow
    discovery: IServiceDiscovery
    config_tree: dict[str, Any]
    local_ip: str
    clock: Any
    log: NodeLog

    @property
    def gateway_connections(self) -> int:
        """
        How many senders are connected.
        """

    def withdraw(self) -> Deferred[None]:
        """
        Take this node off the list that new devices get.
        """

    def return_to_list(self) -> Deferred[None]:
        """
        Undo L{withdraw}.
        """

    def shut_down(self) -> None:
        """
        End the process in order, in a later turn of the reactor.
        """


class CommandError(Exception):
    """
    A command cannot be done as it was typed. The peer sees C{error:} and the text; the
    session goes on.
    """


class Console:
    """
    The commands, without a connection.

    @ivar profiling: What C{profile} was last told. This version times no packets; the
        command is here because scripts send it.
    """

    def __init__(self, node: AdminNode) -> None:
        self._node = node
        self.profiling = False
        self._commands: dict[str, Callable[[Sequence[str]], Awaitable[str]]] = {
            "help": self._help,
            "quit": self._quit,
            "shutdown": self._shutdown,
            "count": self._count,
            "route": self._route,
            "conf": self._conf,
            "profile": self._profile,
            "zk": self._zk,
            "rcs": self._rcs,
            "push": self._push,
            "flow": self._flow,
            "broadcast": self._broadcast,
        }

    async def answer(self, command: str, arguments: Sequence[str]) -> str:
        """
        Do one command.

        @param command: In lower case.
        @return: The answer without the line ends that follow each.
        @raise CommandError: If the arguments make no sense.
        @raise Unavailable: If the shared store is down.
        """
        function = self._commands.get(command)
        if function is None:
            return "unsupported option"
        return await function(arguments)

    async def _help(self, arguments: Sequence[str]) -> str:
        return _HELP + _MORE_HELP if list(arguments) == ["all"] else _HELP

    async def _quit(self, arguments: Sequence[str]) -> str:
        return "have a good day!"

    async def _shutdown(self, arguments: Sequence[str]) -> str:
        self._node.shut_down()
        return "try close connect server..."

    async def _count(self, arguments: Sequence[str]) -> str:
        if not arguments:
            raise CommandError("say what to count: conn, ws, gateway, online or routes")
        node, what = self._node, arguments[0]
        if what == "conn":
            return str(len(node.connections))
        if what == "ws":
            return str(len(node.web_connections))
        if what == "gateway":
            return str(node.gateway_connections)
        if what == "routes":
            return str(node.local_routes.connections)
        if what == "online":
            return str(await node.online.count())
        return f"[{what}] unsupported, try help."

    async def _route(self, arguments: Sequence[str]) -> str:
        if not arguments:
            return "please input userId"
        user_id = arguments[0]
        routes = await self._node.router.remote.find_all(user_id)
        if not routes:
            return f"user [{user_id}] offline now."
        return json.dumps(
            [_route_form(route) for route in routes],
            ensure_ascii=False,
            separators=(",", ":"),
        )

    async def _conf(self, arguments: Sequence[str]) -> str:
        tree = mask({_MP: self._node.config_tree})
        if not arguments:
            return json.dumps(tree, ensure_ascii=False, indent=4)
        value = _value_at(tree, arguments[0])
        if value is None:
            return f"key [{arguments[0]}] not find in config"
        return _as_java(value)

    async def _profile(self, arguments: Sequence[str]) -> str:
        self.profiling = bool(arguments) and arguments[0] != "0"
        return "Profiler enabled" if self.profiling else "Profiler disabled"

    async def _zk(self, arguments: Sequence[str]) -> str:
        if not arguments:
            raise CommandError(f"say which nodes: {', '.join(_SERVICES)}")
        if arguments[0] not in _SERVICES:
            return "unsupported option"
        nodes = await self._node.discovery.lookup(_SERVICES[arguments[0]])
        return "\n".join(_node_form(node) for node in nodes)

    async def _rcs(self, arguments: Sequence[str]) -> str:
        if arguments and arguments[0] == "on":
            await self._node.return_to_list()
            return "register success."
        await self._node.withdraw()
        return "removeAndClose success."

    async def _push(self, arguments: Sequence[str]) -> str:
        if len(arguments) < 2:
            raise CommandError("say whom and what: push <uid> <text>")
        content = " ".join(arguments[1:]).encode()
        test = _TestPush()
        flags = int(Flag.AUTO_ACK)
        self._node.centre.push(
            PushRequest(
                arguments[0], 0, _TEST_MS, content, None, None, None, flags, test
            )
        )
        return await test.finished

    async def _flow(self, arguments: Sequence[str]) -> str:
        flow, broadcasts = self._node.flow, self._node.centre.broadcasts
        if arguments:
            limit = _number(arguments[1] if len(arguments) > 1 else "")
            if arguments[0] == "global":
                flow.limit = limit
            elif arguments[0] == "broadcast":
                broadcasts.limits = broadcasts.limits._replace(limit=limit)
            else:
                raise CommandError("say which limit: global or broadcast")
        limits = broadcasts.limits
        return (
            f"global {flow.limit} per {flow.duration:g} s\n"
            f"broadcast {limits.limit} per {limits.duration:g} s, at most "
            f"{limits.maximum}"
        )

    async def _broadcast(self, arguments: Sequence[str]) -> str:
        broadcasts = self._node.centre.broadcasts
        if arguments and arguments[0] == "cancel":
            if len(arguments) < 2:
                raise CommandError("say which: broadcast cancel <task id>")
            wanted = [
                one for one in broadcasts.running if one.request.task_id == arguments[1]
            ]
            for one in wanted:
                broadcasts.cancel(one)
            return f"{len(wanted)} cancelled"
        return "\n".join(
            f"{one.request.task_id or '-'} {json.dumps(one.counts.as_dict())}"
            for one in broadcasts.running
        )


_SERVICES = {
    "cs": "/cluster/cs",
    "ws": "/cluster/ws",
    "gs": "/cluster/gs",
    "dns": "/dns/mapping",
}

_TEST_MS = 3000
"""
Time-out of a push that the console sends.
"""


@implementer(IPushListener)
class _TestPush:
    """
    Waits for the outcome of a push of the console.
    """

    def __init__(self) -> None:
        self.finished: Deferred[str] = Deferred()

    def push_finished(
        self, request: PushRequest, outcome: Outcome, points: TimePoints
    ) -> None:
        line = " ".join(f"{name}={at}" for name, at in points)
        word = outcome.value.removeprefix("ack_")
        if not self.finished.called:
            self.finished.callback(f"{word} {line}")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:12]) > 0):
        raise CommandError("expected a limit of 1 or more")
    return int(text[:12])


def _node_form(node: ServiceNode) -> str:
    """
    A registered node as it stands in the registry (cluster 3.5).
    """
    members: dict[str, object] = {"host": node.host, "port": node.port}
    if node.attributes is not None:
        members = {"attrs": dict(node.attributes), **members}
    return encode_json(members).decode()


def _route_form(route: RemoteRoute) -> dict[str, object]:
    """
    A route as the original shows it: members in alphabetical order, absent when null.
    """
    state: dict[str, object] = {"offline": not route.online, "online": route.online}
    value = {
        "clientVersion": route.client_version,
        "connId": route.connection_id,
        "deviceId": route.device_id,
        "host": route.host,
        "hostAndPort": f"{route.host}:{route.port}",
        **state,
        "osName": route.os_name,
        "port": route.port,
    }
    present = {name: item for name, item in value.items() if item is not None}
    return {**state, "routeType": "REMOTE", "routeValue": present}


def _value_at(tree: Mapping[str, Any], path: str) -> Any:
    """
    Look a dotted path up; parts may be quoted.

    @return: C{None} if nothing is there.
    """
    value: Any = tree
    for part in _PATH_PART.finditer(path):
        name = part["plain"] if part["quoted"] is None else part["quoted"]
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value


def _as_java(value: Any) -> str:
    """
    Write plain data as Java's collections write themselves (operations 6.3).
    """
    if isinstance(value, Mapping):
        inner = ", ".join(f"{name}={_as_java(item)}" for name, item in value.items())
        return f"{{{inner}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_as_java, value))}]"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return str(value)
