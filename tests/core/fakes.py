"""
What tests of the core share: a device without a wire, a store that can be made to fail
or to dawdle, and the components of a node put together on one clock.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from zope.interface import implementer

from mpush_tw.client_types import DefaultClassifier
from mpush_tw.core.connection import Answer, Connection, M
from mpush_tw.core.events import Events
from mpush_tw.core.flow import GlobalFlow
from mpush_tw.core.log import NodeLog
from mpush_tw.core.metrics import NodeMetrics
from mpush_tw.core.push._condition import DirectCondition
from mpush_tw.core.push.broadcast_centre import BroadcastCentre, BroadcastLimits
from mpush_tw.core.push.centre import PushCentre
from mpush_tw.core.push.message_ids import MessageIds
from mpush_tw.core.push.request import Outcome, PushRequest
from mpush_tw.core.push.traces import Traces
from mpush_tw.core.registry import Connections
from mpush_tw.core.routing.local import LocalRoutes
from mpush_tw.core.routing.online import OnlineUsers
from mpush_tw.core.routing.remote import NodeIdentity, RemoteRoutes
from mpush_tw.core.routing.router import Router
from mpush_tw.core.sessions import ReusableSessions
from mpush_tw.core.wheel import TimingWheel
from mpush_tw.errors import Unavailable
from mpush_tw.integrations.memory import MemoryCache, MemoryQueue
from mpush_tw.interfaces import Event, IPushListener
from mpush_tw.protocol.body import Cipher
from mpush_tw.protocol.gateway import GatewayKick, TimePoints
from mpush_tw.protocol.prepared import PreparedPush
from mpush_tw.protocol.routes import RemoteRoute

T = TypeVar("T")


class FakeConnection(Connection):
    """
    A device whose packets are kept instead of written.

    @ivar sent: What was written, in order: C{("answer", session_id, message)},
        C{("push", message_id, flags, content)}, C{("kick", user_id)}, C{("ack",
        session_id)} and C{("heartbeat",)}.
    @ivar ciphers: The cipher that was in force at each of them.
    @ivar ended: The reason that it was closed or aborted with; C{None} while open.
    @ivar aborted: Whether it was the abrupt way.
    @ivar full: Whether its buffer is above the high mark.
    @ivar broken: Whether writing fails, although nobody has noticed yet.
    @ivar on_push: Called with the message id while a PUSH is being written.
    @ivar registry: Who is asked when its time on the wheel has come.
    """

    def __init__(
        self,
        device_id: str | None = "d1",
        os_name: str | None = "android",
        now: float = 0.0,
        cipher: Cipher | None = None,
    ) -> None:
        super().__init__(cipher, now)
        self.device_id = device_id
        self.os_name = os_name
        self.client_version = "1.0"
        self.sent: list[tuple[Any, ...]] = []
        self.ciphers: list[Cipher | None] = []
        self.ended: str | None = None
        self.aborted = False
        self.full = False
        self.broken = False
        self.on_push: Callable[[int], None] | None = None
        self.registry: Connections | None = None

    @property
    def peer(self) -> str:
        return "192.0.2.1:40000"

    @property
    def connected(self) -> bool:
        return self.ended is None

    @property
    def busy(self) -> bool:
        return self.full

    @property
    def answers(self) -> list[object]:
        """
        The messages of all answers so far.
        """
        return [item[2] for item in self.sent if item[0] == "answer"]

    @property
    def contents(self) -> list[bytes]:
        """
        The contents of all pushes so far.
        """
        return [item[3] for item in self.sent if item[0] == "push"]

    def decode(self, kind: type[M], flags: int, body: object) -> M:
        """
        Take a message for itself, bytes for its encoding, and raise an exception.
        """
        if isinstance(body, Exception):
            raise body
        if isinstance(body, bytes):
            return kind.decode(body)
        assert isinstance(body, kind)
        return body

    def decode_content(self, flags: int, body: object) -> bytes:
        if isinstance(body, Exception):
            raise body
        assert isinstance(body, bytes)
        return body

    def answer(self, session_id: int, message: Answer) -> bool:
        return self._write("answer", session_id, message)

    def send_push(self, message_id: int, flags: int, content: bytes) -> bool:
        written = self._write("push", message_id, flags, content)
        if self.on_push is not None:
            self.on_push(message_id)
        return written

    def send_prepared(self, message: PreparedPush) -> bool:
        return self._write("push", message.message_id, 0, message.content)

    def send_kick(self, user_id: str) -> bool:
        return self._write("kick", user_id)

    def send_ack(self, session_id: int) -> bool:
        return self._write("ack", session_id)

    def send_heartbeat(self) -> bool:
        return self._write("heartbeat")

    def _write(self, *item: object) -> bool:
        if self.ended is not None or self.broken:
            return False
        self.sent.append(item)
        self.ciphers.append(self.cipher)
        return True

    def close(self, reason: str) -> None:
        if self.ended is None:
            self.ended = reason

    def abort(self, reason: str) -> None:
        self.aborted = True
        self.close(reason)

    def expired(self, now: float) -> None:
        assert self.registry is not None
        self.registry.check(self, now)


class UnsteadyCache(MemoryCache):
    """
    A store that works, fails or takes its time, as the test says.

    @ivar down: Whether every command fails with L{Unavailable}.
    @ivar fails: Names of the commands that fail although the rest work.
    @ivar slow: Whether answers wait for L{release}; what they say is settled when the
        command is given.
    @ivar held: What makes each answer arrive that waits, oldest first.
    @ivar commands: Names and keys of what was asked, in order.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.down = False
        self.fails: set[str] = set()
        self.slow = False
        self.commands: list[tuple[str, str]] = []
        self.held: list[Callable[[], None]] = []

    def release(self) -> None:
        """
        Let all answers so far arrive, and those that they cause.
        """
        self.slow = False
        while self.held:
            self.held.pop(0)()

    def _through(self, name: str, key: str, answer: Deferred[T]) -> Deferred[T]:
        self.commands.append((name, key))
        if not self.slow:
            return answer
        later: Deferred[T] = Deferred()

        def arrive() -> None:
            answer.chainDeferred(later)

        self.held.append(arrive)
        return later

    def _refused(self, name: str) -> bool:
        return self.down or name in self.fails

    def get(self, key: str) -> Deferred[str | None]:
        if self._refused("get"):
            return self._through("get", key, fail(Unavailable("store")))
        return self._through("get", key, super().get(key))

    def set(self, key: str, value: str, ttl_seconds: int = 0) -> Deferred[None]:
        if self._refused("set"):
            return self._through("set", key, fail(Unavailable("store")))
        return self._through("set", key, super().set(key, value, ttl_seconds))

    def hget(self, key: str, field: str) -> Deferred[str | None]:
        if self._refused("hget"):
            return self._through("hget", key, fail(Unavailable("store")))
        return self._through("hget", key, super().hget(key, field))

    def hset(self, key: str, field: str, value: str) -> Deferred[None]:
        if self._refused("hset"):
            return self._through("hset", key, fail(Unavailable("store")))
        return self._through("hset", key, super().hset(key, field, value))

    def hgetall(self, key: str) -> Deferred[dict[str, str]]:
        if self._refused("hgetall"):
            return self._through("hgetall", key, fail(Unavailable("store")))
        return self._through("hgetall", key, super().hgetall(key))

    def hswap(self, key: str, field: str, value: str) -> Deferred[str | None]:
        if self._refused("hswap"):
            return self._through("hswap", key, fail(Unavailable("store")))
        return self._through("hswap", key, super().hswap(key, field, value))

    def hset_if(
        self, key: str, field: str, expected: str | None, value: str
    ) -> Deferred[bool]:
        if self._refused("hset_if"):
            return self._through("hset_if", key, fail(Unavailable("store")))
        return self._through(
            "hset_if", key, super().hset_if(key, field, expected, value)
        )

    def hincrby(self, key: str, field: str, amount: int) -> Deferred[int]:
        if self._refused("hincrby"):
            return self._through("hincrby", key, fail(Unavailable("store")))
        return self._through("hincrby", key, super().hincrby(key, field, amount))

    def zadd(self, key: str, member: str) -> Deferred[None]:
        if self._refused("zadd"):
            return self._through("zadd", key, fail(Unavailable("store")))
        return self._through("zadd", key, super().zadd(key, member))

    def zrem(self, key: str, member: str) -> Deferred[None]:
        if self._refused("zrem"):
            return self._through("zrem", key, fail(Unavailable("store")))
        return self._through("zrem", key, super().zrem(key, member))


class FakeCondition(DirectCondition):
    """
    A condition that a function decides.

    @ivar closed: How often it was closed.
    """

    def __init__(self, decide: Callable[[Connection], bool] = lambda _: True) -> None:
        super().__init__()
        self.decide = decide
        self.closed = 0

    def _decide(self, connection: Connection) -> bool:
        return self.decide(connection)

    def close(self) -> None:
        self.closed += 1


@implementer(IPushListener)
class FakeListener:
    """
    A push source that notes how its pushes ended.

    @ivar finished: Request, outcome and time points, in order.
    """

    def __init__(self) -> None:
        self.finished: list[tuple[PushRequest, Outcome, TimePoints]] = []

    def push_finished(
        self, request: PushRequest, outcome: Outcome, points: TimePoints
    ) -> None:
        self.finished.append((request, outcome, list(points)))

    @property
    def outcomes(self) -> list[Outcome]:
        """
        How the pushes ended, in order.
        """
        return [outcome for _, outcome, _ in self.finished]


class Core:
    """
    The core of a node on a clock of its own, without doors.

    @ivar here: This node.
    @ivar elsewhere: Another one.
    @ivar posted: Events that listeners have heard, in order.
    @ivar logged: Log events of all categories, in order.
    """

    def __init__(
        self,
        max_per_user: int = 20,
        limit: int = 5000,
        maximum: int = 0,
        duration: float = 1.0,
    ) -> None:
        self.clock = Clock()
        self.here = NodeIdentity("10.0.0.1", 3001)
        self.elsewhere = NodeIdentity("10.0.0.2", 3001)
        self.logged: list[dict[str, Any]] = []
        self.log = NodeLog("debug", self.clock, self.logged.append)  # type: ignore[arg-type]
        self.metrics = NodeMetrics()
        self.wheel = TimingWheel(self.clock)
        self.events = Events(self.clock)
        self.posted: list[Event] = []
        self.events.subscribe(self.posted.append)
        self.cache = UnsteadyCache(self.clock)
        self.queue = MemoryQueue(self.clock)
        self.local = LocalRoutes()
        self.remote = RemoteRoutes(self.cache)
        self.kicks_sent: list[GatewayKick] = []
        self.router = Router(
            self.here,
            self.local,
            self.remote,
            DefaultClassifier(),
            self.events,
            self.log,
            self.metrics,
            max_per_user,
            self.kicks_sent.append,
        )
        self.online = OnlineUsers(
            self.cache, self.queue, self.remote, "203.0.113.1", self.log
        )
        self.sessions = ReusableSessions(self.cache, 86400)
        self.ids = MessageIds()
        self.traces = Traces(self.clock, 600, 1000)
        self.broadcasts = BroadcastCentre(
            self.local,
            self.cache,
            BroadcastLimits(1000, 100000, 1.0),
            self.condition_for,
            self.ids,
            self.traces,
            10240,
            self.clock,
            self.log,
            self.metrics,
        )
        self.centre = PushCentre(
            self.here,
            self.local,
            self.remote,
            GlobalFlow(self.clock, limit, maximum, duration),
            self.wheel,
            self.clock,
            self.log,
            self.metrics,
            self.ids,
            self.broadcasts,
            self.traces,
        )

    def condition_for(
        self, script: str | None, tags: tuple[str, ...] | None
    ) -> FakeCondition:
        """
        Make a condition: a script is the id of the one user that it means.
        """
        if script is None:
            return FakeCondition()
        return FakeCondition(lambda connection: connection.user_id == script)

    def texts(self) -> str:
        """
        All log formats so far, one a line.
        """
        return "\n".join(str(event.get("log_format")) for event in self.logged)

    def route(
        self,
        node: NodeIdentity,
        connection_id: str | None = "0badcafe",
        device_id: str = "other",
    ) -> RemoteRoute:
        """
        Make the route of an Android device on a node.
        """
        return RemoteRoute(
            node.host, node.port, device_id, "android", "1.0", connection_id
        )


def start(steps: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
    """
    Run a coroutine of the core as far as it goes.
    """
    return Deferred.fromCoroutine(steps)
