"""
The original's node, sender and device as processes that a test steers.

Calls that wait come in two kinds: those of the set-up block (C{start}, C{stop}), those
of a test are awaited, because our own devices and senders run in its reactor.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode

import attrs

from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.interop.build import Drivers
from tests.servers import end_with_parent, free_port
from tests.support import SAMPLE

START_S = 60.0
"""
How long a process may take until it serves; a node of the original takes 2 to 4.
"""

ACK_DELAY = 0.05
"""
Seconds that devices take to acknowledge: the original's node does not hear an ack that
comes while it is not yet waiting for it (C-30), nor its sender an answer (C-38).
"""

_CIPHER_RACE = "RsaCipher.decrypt"
"""
What the log of the original's client shows when an answer came too early for it.
"""

_STOP_S = 30.0
_POLL_S = 0.02
_CHECKOUT = Path(__file__).parents[2]

_SMALL_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
_OPENED = tuple(
    f"--add-opens=java.base/{package}=ALL-UNNAMED"
    for package in ("java.lang", "java.nio", "java.util", "sun.nio.ch")
)
"""
What the libraries of 2017 reach into, closed since Java 17.
"""

_LOGBACK = """\
<configuration>
  <appender name="err" class="ch.qos.logback.core.ConsoleAppender">
    <target>System.err</target>
    <encoder><pattern>%d{HH:mm:ss.SSS} %-5level %logger{20} %msg%n</pattern></encoder>
  </appender>
  <root level="info"><appender-ref ref="err"/></root>
  <logger name="org.apache" level="warn"/>
  <logger name="io.netty" level="warn"/>
</configuration>
"""

Event = dict[str, str]

_Answer = TypeVar("_Answer")


class Process:
    """
    A process with a directory of its own, that ends with the test run.

    @ivar name: For failures.
    @ivar home: Its working directory, until L{stop}.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.home = Path(tempfile.mkdtemp(prefix=f"mpush-interop-{name}-"))
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    @property
    def running(self) -> bool:
        """
        Whether there is a process that has not ended.
        """
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """
        The number of the process, which there has to be.
        """
        assert self._process is not None, f"{self!r} does not run"
        return self._process.pid

    def _spawn(self, command: Sequence[str], steered: bool) -> None:
        assert not self.running, f"{self!r} runs"
        with open(self.home / "output", "ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=self.home,
                stdin=subprocess.PIPE if steered else subprocess.DEVNULL,
                stdout=subprocess.PIPE if steered else output,
                stderr=output,
                env={**os.environ, "PYTHONPATH": str(_CHECKOUT)},
                preexec_fn=end_with_parent,
                # A Ctrl+C is for the test run, which then stops this one.
                start_new_session=True,
            )

    def connections(self, port: int) -> int:
        """
        Count its established TCP connections to a port.
        """
        process = Path(f"/proc/{self.pid}")
        sockets = set()
        for link in (process / "fd").iterdir():
            try:
                target = str(link.readlink())
            except OSError:
                # Closed since it was listed.
                continue
            if target.startswith("socket:["):
                sockets.add(target[len("socket:[") : -1])
        count = 0
        for table in ("tcp", "tcp6"):
            lines = (process / "net" / table).read_text().splitlines()
            for fields in map(str.split, lines[1:]):
                remote_port = int(fields[2].rpartition(":")[2], 16)
                established = fields[3] == "01"
                count += remote_port == port and established and fields[9] in sockets
        return count

    def output(self) -> str:
        """
        What it has printed and logged, its end.
        """
        path = self.home / "output"
        return path.read_text(errors="replace")[-8000:] if path.exists() else ""

    def pause(self) -> None:
        """
        Have it do nothing more (SIGSTOP), its connections open.
        """
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """
        Let it go on (SIGCONT).
        """
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """
        End it at once (SIGKILL); C{start} starts it again.
        """
        self._signal(signal.SIGKILL)
        self._reap()

    def _signal(self, number: int) -> None:
        if self._process is not None and self.running:
            self._process.send_signal(number)

    def end(self) -> None:
        """
        End it orderly; C{start} starts it again. A node of the original takes 14
        seconds.
        """
        self._ask_to_end()
        self._reap()

    def stop(self) -> None:
        """
        End it at once and remove its files. May be called again.
        """
        self.kill()
        shutil.rmtree(self.home, ignore_errors=True)

    def _ask_to_end(self) -> None:
        self._signal(signal.SIGTERM)

    def _reap(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


class Driver(Process):
    """
    A Java process of C{java/} (its C{Steering} tells the form of orders and events).

    @ivar events: What it has told and nobody has taken, in order.
    """

    main: str
    memory_mb: int

    def __init__(self, name: str, drivers: Drivers) -> None:
        super().__init__(name)
        self.events: list[Event] = []
        self._drivers = drivers
        self._partial = b""

    def _classpath(self) -> str:
        return self._drivers.server

    def _properties(self) -> Mapping[str, str]:
        return {}

    def spawn(self) -> None:
        """
        Start the process and do not wait for it.
        """
        self.events.clear()
        self._partial = b""
        properties = [f"-D{key}={value}" for key, value in self._properties().items()]
        self._spawn(
            [
                self._drivers.java,
                f"-Xmx{self.memory_mb}m",
                *_SMALL_JVM,
                *_OPENED,
                *properties,
                *("-cp", self._classpath(), self.main),
            ],
            steered=True,
        )
        assert self._process is not None and self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)

    def _ask_to_end(self) -> None:
        if self.running:
            self.order("exit")

    def order(self, order: str, **fields: object) -> None:
        """
        Give an order; fields that are C{None} are left out.
        """
        given = {name: value for name, value in fields.items() if value is not None}
        line = urlencode({"order": order, **given}) + "\n"
        assert self._process is not None and self._process.stdin is not None
        # Unbuffered: a pipe takes a line of this length whole.
        os.write(self._process.stdin.fileno(), line.encode("ascii"))

    def take(self, event: str, **fields: object) -> Event | None:
        """
        Take the first event of a kind off the list, if there is one.

        @param fields: Values it must have.
        """
        self._read()
        wanted = {name: str(value) for name, value in fields.items()}
        for index, told in enumerate(self.events):
            if told["event"] == event and wanted.items() <= told.items():
                return self.events.pop(index)
        return None

    async def next(self, event: str, seconds: float = 10.0, **fields: object) -> Event:
        """
        Wait for an event and take it.

        @raise AssertionError: If it does not come, with the end of the log.
        """
        deadline = time.monotonic() + seconds
        while (told := self.take(event, **fields)) is None:
            self._check(deadline, event, fields)
            await pause(_POLL_S)
        return told

    def wait(self, event: str, seconds: float = START_S) -> Event:
        """
        Block until an event comes, and take it: for the start.
        """
        deadline = time.monotonic() + seconds
        while (told := self.take(event)) is None:
            self._check(deadline, event, {})
            time.sleep(_POLL_S)
        return told

    def _check(self, deadline: float, event: str, fields: Mapping[str, Any]) -> None:
        if (problem := self.take("error")) is not None:
            raise AssertionError(f"{self!r} could not carry out {problem}")
        if not self.running or time.monotonic() > deadline:
            state = "waited in vain" if self.running else "the process has ended"
            raise AssertionError(
                f"{self!r} told of no {event} {fields}: {state}; "
                f"events {self.events}; output:\n{self.output()}"
            )

    def _read(self) -> None:
        if self._process is None:
            return
        assert self._process.stdout is not None
        while True:
            try:
                data = os.read(self._process.stdout.fileno(), 65536)
            except BlockingIOError:
                return
            if not data:
                return
            *lines, self._partial = (self._partial + data).split(b"\n")
            self.events += [dict(parse_qsl(line.decode("ascii"))) for line in lines]


async def pause(seconds: float) -> None:
    """
    Let the reactor run for a while.
    """
    await deferLater(reactor, seconds)


async def until(
    answer: Callable[[], _Answer], what: str, seconds: float = 10.0
) -> _Answer:
    """
    Ask again and again until the answer counts as true, the reactor running meanwhile.

    @param what: What is waited for, for the failure.
    @return: That answer.
    @raise AssertionError: When it takes too long.
    """
    deadline = time.monotonic() + seconds
    while not (found := answer()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} seconds in vain for {what}")
        await pause(0.05)
    return found


@attrs.frozen
class Doors:
    """
    Where a node of either kind is reached.

    @ivar host: For clients and for other servers: of 127/8, so that every node has its
        own (cluster 12.1, 12).
    @ivar port: Its connection server.
    @ivar gateway_port: Its gateway.
    """

    host: str
    port: int = attrs.field(factory=free_port)
    gateway_port: int = attrs.field(factory=free_port)

    @property
    def address(self) -> tuple[str, int]:
        """
        What a device connects to.
        """
        return self.host, self.port

    @property
    def gateway(self) -> str:
        """
        The node's name in the cluster (cluster 1).
        """
        return f"{self.host}:{self.gateway_port}"

    def settings(self) -> Sequence[str]:
        """
        The node's own lines of configuration.
        """
        return (
            f'mp.net.local-ip="{self.host}"',
            f'mp.net.public-ip="{self.host}"',
            f"mp.net.connect-server-port={self.port}",
            f"mp.net.gateway-server-port={self.gateway_port}",
            f"mp.net.admin-server-port={free_port()}",
        )


class OurNode(Process):
    """
    A node of ours, run as operators run it.

    @ivar doors: Where it is reached.
    """

    def __init__(self, name: str, host: str, shared: Sequence[str]) -> None:
        """
        @param shared: Lines of configuration that all members of the cluster have.
        """
        super().__init__(name)
        self.doors = Doors(host)
        _write_conf(
            self.home,
            *shared,
            *self.doors.settings(),
            # The key that the original uses when none is configured.
            "mp.security.allow-sample-key=true",
        )

    def spawn(self) -> None:
        """
        Start the process and do not wait for it.
        """
        twistd = Path(sys.executable).with_name("twistd")
        conf = self.home / "mpush.conf"
        self._spawn(
            [str(twistd), "-n", "--pidfile=", "mpush", "--config", str(conf)],
            steered=False,
        )


class JavaNode(Driver):
    """
    A node of the original.

    @ivar doors: Where it is reached.
    """

    main = "NodeDriver"
    memory_mb = 128

    def __init__(
        self, name: str, drivers: Drivers, host: str, shared: Sequence[str]
    ) -> None:
        """
        @param shared: Lines of configuration that all members of the cluster have.
        """
        super().__init__(name, drivers)
        self.doors = Doors(host)
        _write_conf(self.home, *shared, *self.doors.settings())

    def _properties(self) -> Mapping[str, str]:
        return _home_properties(self.home)

    def start(self) -> None:
        """
        Start it, and wait until it has registered.
        """
        self.spawn()
        self.wait("started")


@attrs.frozen
class Outcome:
    """
    What a sender of either kind says of a push.

    @ivar code: 1 success, 2 failure, 3 offline, 4 timeout (cluster 7.7).
    @ivar location: The gateway of the route that was used, C{host:port}.
    @ivar client_type: The type of that route.
    @ivar points: The names on the time line, in order.
    """

    code: int
    location: str | None
    client_type: int | None
    points: Sequence[str]


SUCCESS, FAILURE, OFFLINE, TIMEOUT = 1, 2, 3, 4


class JavaSender(Driver):
    """
    A program with the original's sending SDK.

    @ivar used: Ports of the gateways that it is known to be ready for; the tests' own.
    """

    main = "SenderDriver"
    memory_mb = 96

    def __init__(self, name: str, drivers: Drivers, shared: Sequence[str]) -> None:
        """
        @param shared: Lines of configuration that all members of the cluster have.
        """
        super().__init__(name, drivers)
        self.used: set[int] = set()
        self._count = 0
        _write_conf(self.home, *shared)

    def _properties(self) -> Mapping[str, str]:
        return _home_properties(self.home)

    def start(self) -> None:
        """
        Start it, and wait until it has connected to the stores. The gateways it may
        find later.
        """
        self.used.clear()
        self.spawn()
        assert self.wait("started")["ok"] == "true"

    def begin_push(
        self, user: str, text: str, ack: str = "NO_ACK", timeout_ms: int = 3000
    ) -> int:
        """
        Have it push to a user.

        @param ack: The name of an ack model.
        @return: The number that results of this order have.
        """
        self._count += 1
        self.order(
            "push", id=self._count, text=text, user=user, ack=ack, timeout=timeout_ms
        )
        return self._count

    async def broadcast(
        self,
        text: str,
        tags: str | None = None,
        condition: str | None = None,
        task: str | None = None,
    ) -> int:
        """
        Have it broadcast.

        @param tags: Separated by commas.
        @param task: The id under which the nodes count.
        @return: The code of the first result.
        """
        self._count += 1
        number = self._count
        self.order(
            "broadcast",
            id=number,
            text=text,
            tags=tags,
            condition=condition,
            task=task,
        )
        return (await self.result(number)).code

    async def task(self, task: str) -> Event:
        """
        Ask it how far a broadcast is: C{sent} and C{users}, separated by commas.
        """
        self.order("task", task=task)
        return await self.next("task")

    def has_result(self, number: int) -> bool:
        """
        Whether an order has a result that nobody has taken.
        """
        self._read()
        return any(
            told["event"] == "result" and told["id"] == str(number)
            for told in self.events
        )

    async def result(self, number: int) -> Outcome:
        """
        Wait for the next result of an order. The original tells one for each route of
        the user, and now and then one twice (C-36).
        """
        told = await self.next("result", id=number)
        client_type = told.get("type")
        return Outcome(
            int(told["code"]),
            told.get("location"),
            None if client_type is None else int(client_type),
            told.get("timeline", "").split(",")[::2],
        )

    async def push(
        self, user: str, text: str, ack: str = "NO_ACK", timeout_ms: int = 3000
    ) -> Outcome:
        """
        Have it push to a user, and wait for the first result.

        @param ack: The name of an ack model.
        """
        return await self.result(self.begin_push(user, text, ack, timeout_ms))


class JavaDevice(Driver):
    """
    A device with the original's Java client.
    """

    main = "DeviceDriver"
    memory_mb = 48

    def __init__(
        self,
        name: str,
        drivers: Drivers,
        server: tuple[str, int],
        user: str | None = None,
        os_name: str = "android",
        storage: Path | None = None,
        heartbeat_ms: int = 240_000,
        alloc: str | None = None,
    ) -> None:
        """
        @param server: Host and port of the connection server.
        @param user: Bound after each handshake.
        @param storage: Directory of the reusable session; none without it.
        @param heartbeat_ms: The heartbeat it asks for.
        @param alloc: The URL where it asks for a server; it does not use C{server}
            then.
        """
        super().__init__(name, drivers)
        self._settings = {
            "host": server[0],
            "port": str(server[1]),
            "key": SAMPLE["rsaPublicKeyBase64"],
            "id": name,
            "os": os_name,
            "version": "1.0.5",
            "heartbeat": str(heartbeat_ms),
            "delay": str(round(ACK_DELAY * 1000)),
        }
        if user is not None:
            self._settings["user"] = user
        if storage is not None:
            self._settings["storage"] = str(storage)
        if alloc is not None:
            self._settings["alloc"] = alloc

    def _classpath(self) -> str:
        return self._drivers.device

    def _properties(self) -> Mapping[str, str]:
        return {f"device.{key}": value for key, value in self._settings.items()}

    async def connect(self) -> Event:
        """
        Start it, and wait until it has shaken hands or come back by its session.

        A client that gets the answer to its handshake before it has put the cipher for
        it in place drops the connection, and now and then stays so (clients 2.8): such
        a one is started anew.
        """
        for attempts_left in (2, 1, 0):
            self.spawn()
            await self.next("ready", START_S)
            self.order("start")
            try:
                return await self.next("handshake", 5.0)
            except AssertionError:
                if not attempts_left or _CIPHER_RACE not in self.output():
                    raise
                self.kill()
        raise AssertionError("unreachable")

    async def pushed(self, text: str, seconds: float = 5.0) -> int:
        """
        Wait for a push.

        @return: Its id, 0 if the application need not confirm.
        """
        return int((await self.next("push", seconds, text=text))["id"])

    async def kicked(self) -> None:
        """
        Wait until it is kicked.
        """
        await self.next("kick")

    def ack(self, message_id: int) -> None:
        """
        Confirm a push as the application does.
        """
        self.order("ack", id=message_id)


def _write_conf(home: Path, *lines: str) -> None:
    (home / "mpush.conf").write_text("\n".join(lines) + "\n")
    (home / "logback.xml").write_text(_LOGBACK)


def _home_properties(home: Path) -> Mapping[str, str]:
    return {
        "mp.home": str(home),
        "mp.conf": str(home / "mpush.conf"),
        "mp.log-conf-path": str(home / "logback.xml"),
        "java.net.preferIPv4Stack": "true",
    }
