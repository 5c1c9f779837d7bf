"""
Redis servers for tests: one, a Redis Cluster, or a set of sentinels.

    server = RedisServer()
    server.start()
    self.addCleanup(server.stop)
    server.cli("HGET", "mp:ur:user-1", "1")
    with server.monitor() as monitor:
        ...
        self.assertEqual(monitor.commands(), ['"HGET" "mp:ur:user-1" "1"'])
"""

from __future__ import annotations

import atexit
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import attrs

from tests.servers import LOOPBACK, end_with_parent, free_port, require

_PATIENCE = 20.0
"""
Seconds that a server may take to start, or a set of servers to agree.
"""

_SET_UP = frozenset(
    ("AUTH", "CLIENT", "COMMAND", "CONFIG", "ECHO", "HELLO", "INFO", "MONITOR", "PING")
)
_SCRIPTS = frozenset(("EVAL", "EVALSHA", "SCRIPT"))
_MONITORED = re.compile(r"\+\d+\.\d+ \[\d+ [^]]*\] (\"(\w+)\".*)")


def wait_until(true: Callable[[], bool], what: str, seconds: float = _PATIENCE) -> None:
    """
    Ask again and again until the answer is yes.

    @param what: What is waited for, for the failure.
    @raise AssertionError: When it takes longer than C{seconds}.
    """
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} seconds in vain for {what}")
        time.sleep(0.02)


@attrs.frozen
class TlsFiles:
    """
    What a server with TLS is given.

    @ivar authority: Certificate that clients trust, PEM.
    @ivar certificate: The server's, PEM.
    @ivar key: Its private key, PEM.
    @ivar clients: Whether clients must have a certificate of the same authority.
    """

    authority: Path
    certificate: Path
    key: Path
    clients: bool = False


class RedisServer:
    """
    A redis-server process of its own.

    @ivar port: Where it listens, on the loopback interface; with TLS, by TLS only.
    @ivar address: C{host:port}, as in C{mp.redis.nodes}.
    @ivar password: What clients have to show, if anything.
    @ivar directory: Where it keeps its data, while it has any.
    """

    program = "redis-server"

    def __init__(
        self,
        port: int | None = None,
        password: str | None = None,
        tls: TlsFiles | None = None,
        extra: Sequence[str] = (),
    ) -> None:
        """
        @param port: A free one when C{None}; the same over all restarts.
        @param extra: Further lines of its configuration file.
        """
        self.port = free_port() if port is None else port
        self.address = f"{LOOPBACK}:{self.port}"
        self.password = password
        self._tls = tls
        self._extra = tuple(extra)
        self._process: subprocess.Popen[bytes] | None = None
        self.directory: Path | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address}>"

    # ------------------------------------------------------------- its life

    def start(self) -> None:
        """
        Start it, and wait until it answers.
        """
        assert self._process is None, "it runs"
        program = require(self.program)
        require("redis-cli")
        if self.directory is None:
            self.directory = Path(tempfile.mkdtemp(prefix="mpush-redis-"))
            self._configure(self.directory)
        atexit.register(self.stop)
        with open(self.directory / "output", "ab") as output:
            self._process = subprocess.Popen(
                [program, str(self.directory / "redis.conf"), *self._arguments()],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=end_with_parent,
            )
        wait_until(self._answers, f"{self!r} to start")

    def _arguments(self) -> Sequence[str]:
        return ()

    def _configure(self, directory: Path) -> None:
        lines = [
            f"bind {LOOPBACK}",
            f"dir {directory}",
            'save ""',
            "appendonly no",
            "enable-debug-command local",
            *self._extra,
        ]
        if self._tls is None:
            lines.append(f"port {self.port}")
        else:
            lines += [
                "port 0",
                f"tls-port {self.port}",
                f"tls-ca-cert-file {self._tls.authority}",
                f"tls-cert-file {self._tls.certificate}",
                f"tls-key-file {self._tls.key}",
                f"tls-auth-clients {'yes' if self._tls.clients else 'no'}",
            ]
        if self.password:
            lines += [
                f'requirepass "{self.password}"',
                f'masterauth "{self.password}"',
            ]
        (directory / "redis.conf").write_text("\n".join(lines) + "\n")

    def _answers(self) -> bool:
        assert self._process is not None and self.directory is not None
        if self._process.poll() is not None:
            said = (self.directory / "output").read_text()
            self._process = None
            raise AssertionError(f"{self!r} ended at once: {said[-1000:]}")
        asked = self._ask("PING")
        return asked.returncode == 0 and asked.stdout.strip() == "PONG"

    def stop(self) -> None:
        """
        End it orderly and forget its data. Idempotent.
        """
        self._end(signal.SIGTERM)
        if self.directory is not None:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory = None
        atexit.unregister(self.stop)

    def kill(self) -> None:
        """
        End it at once (SIGKILL), nothing saved; L{start} starts it again, empty.
        """
        self._end(signal.SIGKILL)

    def restart(self, keep_data: bool = True) -> None:
        """
        End it orderly and start it on the same port, with what it held or empty.
        """
        if keep_data:
            self.cli("SAVE")
        self._end(signal.SIGTERM)
        if not keep_data and self.directory is not None:
            (self.directory / "dump.rdb").unlink(missing_ok=True)
        self.start()

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

    def _signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        if number != signal.SIGKILL:
            # One that is stopped ends when it goes on.
            process.send_signal(signal.SIGCONT)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    # ------------------------------------------------------------- asking it

    def cli(self, *args: str) -> str:
        """
        Have redis-cli run a command.

        @return: What it printed, without the last line break: an element a line; an
            absent value is an empty line.
        @raise AssertionError: When the server answers with an error.
        """
        asked = self._ask(*args)
        if asked.returncode:
            raise AssertionError(
                f"{args[0]} on {self!r}: {asked.stderr or asked.stdout}"
            )
        return asked.stdout.removesuffix("\n")

    def _ask(self, *args: str) -> subprocess.CompletedProcess[str]:
        options = ["-h", LOOPBACK, "-p", str(self.port), "--no-auth-warning", "-e"]
        if self.password:
            options += ["-a", self.password]
        if self._tls is not None:
            options += [
                *("--tls", "--cacert", str(self._tls.authority)),
                *("--cert", str(self._tls.certificate)),
                *("--key", str(self._tls.key)),
            ]
        return subprocess.run(
            ["redis-cli", *options, *args],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=_PATIENCE,
        )

    @contextmanager
    def monitor(self) -> Iterator[Monitor]:
        """
        Record what clients send, in a C{with} block. Not for a server with TLS.
        """
        assert self._tls is None, "it speaks TLS only"
        with socket.create_connection((LOOPBACK, self.port), 5) as connection:
            monitor = Monitor(connection, self)
            monitor.begin(self.password)
            yield monitor


class Monitor:
    """
    What MONITOR tells of a server.
    """

    def __init__(self, connection: socket.socket, server: RedisServer) -> None:
        self._connection = connection
        self._lines = connection.makefile(encoding="latin-1", newline="\r\n")
        self._server = server
        self._seen: list[tuple[str, str]] = []

    def begin(self, password: str | None) -> None:
        """
        Start recording.
        """
        if password:
            self._connection.sendall(f'AUTH "{password}"\r\n'.encode())
            assert self._lines.readline() == "+OK\r\n"
        self._connection.sendall(b"MONITOR\r\n")
        assert self._lines.readline() == "+OK\r\n"

    def commands(self, scripts: bool = False, set_up: bool = False) -> list[str]:
        """
        List the commands that the server has run so far, in its order.

        Each is as MONITOR prints it: its arguments in double quotes, one space between
        them. What belongs to the set-up and care of connections (AUTH, PING, CLIENT,
        ...) is left out.

        @param scripts: Give calls of scripts (EVAL, EVALSHA, SCRIPT) too. The commands
            that a script runs are listed in any case, behind the call.
        @param set_up: Give the set-up of connections too, that of redis-cli included.
        """
        mark = uuid4().hex
        self._server.cli("ECHO", mark)
        while mark not in (line := self._lines.readline()):
            assert line, "the server has closed the connection"
            match = _MONITORED.fullmatch(line.removesuffix("\r\n"))
            assert match is not None, line
            self._seen.append((match[2].upper(), match[1]))
        hidden = (frozenset() if set_up else _SET_UP) | (
            frozenset() if scripts else _SCRIPTS
        )
        return [text for name, text in self._seen if name not in hidden]

    def clear(self) -> None:
        """
        Forget what was recorded so far.
        """
        self.commands()
        self._seen.clear()


# ------------------------------------------------------------- Redis Cluster


class RedisCluster:
    """
    Masters that share the slots evenly.

    @ivar servers: The masters.
    """

    slots = 16384

    def __init__(
        self,
        masters: int = 3,
        password: str | None = None,
        extra: Sequence[str] = (),
    ) -> None:
        """
        @param extra: Further lines of each one's configuration file.
        """
        self.servers = [
            RedisServer(
                password=password,
                extra=[
                    "cluster-enabled yes",
                    f"cluster-port {free_port()}",
                    "cluster-node-timeout 1000",
                    "repl-diskless-sync-delay 0",
                    *extra,
                ],
            )
            for _ in range(masters)
        ]

    @property
    def addresses(self) -> list[str]:
        """
        Their addresses, as in C{mp.redis.nodes}.
        """
        return [server.address for server in self.servers]

    def start(self) -> None:
        """
        Start them, and wait until they serve all slots.
        """
        for server in self.servers:
            server.start()
        first, *others = self.servers
        count = len(self.servers)
        for index, server in enumerate(self.servers):
            begin = self.slots * index // count
            end = self.slots * (index + 1) // count - 1
            server.cli("CLUSTER", "SET-CONFIG-EPOCH", str(index + 1))
            server.cli("CLUSTER", "ADDSLOTSRANGE", str(begin), str(end))
        for server in others:
            self._meet(first, server)
        self.wait()

    def join(self, server: RedisServer) -> None:
        """
        Make another node a member, without slots, and wait until all know it.
        """
        self._meet(self.servers[0], server)
        everybody = [*self.servers, server]

        def known() -> bool:
            return all(
                each.cli("CLUSTER", "NODES").count(" connected") == len(everybody)
                for each in everybody
            )

        wait_until(known, f"{server!r} to join")

    def _meet(self, member: RedisServer, server: RedisServer) -> None:
        bus = next(
            line.split()[1] for line in server._extra if line.startswith("cluster-port")
        )
        member.cli("CLUSTER", "MEET", LOOPBACK, str(server.port), bus)

    def wait(self) -> None:
        """
        Wait until all agree that the cluster is well.
        """

        def well() -> bool:
            return all(
                "cluster_state:ok" in server.cli("CLUSTER", "INFO")
                and len(server.cli("CLUSTER", "SLOTS").split("\n\n")) > 0
                and server.cli("CLUSTER", "NODES").count(" connected")
                == len(self.servers)
                for server in self.servers
            )

        wait_until(well, "the cluster to form")

    def stop(self) -> None:
        """
        End them and forget their data. Idempotent.
        """
        for server in self.servers:
            server.stop()

    def slot(self, key: str) -> int:
        """
        Ask which slot a key falls in.
        """
        return int(self.servers[0].cli("CLUSTER", "KEYSLOT", key))

    def owner(self, key: str) -> RedisServer:
        """
        Find the master that serves a key now.
        """
        slot = self.slot(key)
        for line in self.servers[0].cli("CLUSTER", "NODES").splitlines():
            fields = line.split()
            for part in fields[8:]:
                begin, _, end = part.partition("-")
                if begin.isdigit() and int(begin) <= slot <= int(end or begin):
                    address = fields[1].partition("@")[0]
                    return next(s for s in self.servers if s.address == address)
        raise AssertionError(f"nobody serves {key}")

    def node_id(self, server: RedisServer) -> str:
        """
        Ask a server for its name in the cluster.
        """
        return server.cli("CLUSTER", "MYID")


def redis_cluster(
    masters: int = 3, password: str | None = None, extra: Sequence[str] = ()
) -> RedisCluster:
    """
    Start a Redis Cluster; the caller stops it.
    """
    cluster = RedisCluster(masters, password, extra)
    try:
        cluster.start()
    except BaseException:
        cluster.stop()
        raise
    return cluster


# ----------------------------------------------------------------- sentinels


class SentinelServer(RedisServer):
    """
    A sentinel; asked and ended like any server. It is in more of a hurry than others.
    """

    periods = {"info": 500, "ping": 200, "ask": 200, "publish": 200}
    """
    Milliseconds between two questions of a kind.
    """

    def _arguments(self) -> Sequence[str]:
        return ("--sentinel",)

    def start(self) -> None:
        super().start()
        periods = [f"{name}-period={ms}" for name, ms in self.periods.items()]
        self.cli("SENTINEL", "DEBUG", *"=".join(periods).split("="))


class SentinelSet:
    """
    A master, a replica and three sentinels that watch over them.

    @ivar name: What the sentinels call the master.
    @ivar servers: The master and the replica; who is which may change.
    @ivar sentinels: The sentinels.
    """

    def __init__(
        self,
        name: str = "mymaster",
        password: str | None = None,
        sentinel_password: str | None = None,
    ) -> None:
        """
        @param password: Of master and replica.
        @param sentinel_password: Of the sentinels.
        """
        self.name = name
        extra = ["repl-diskless-sync-delay 0"]
        self.servers = [RedisServer(password=password, extra=extra) for _ in range(2)]
        master = self.servers[0]
        watch = [
            f"sentinel monitor {name} {LOOPBACK} {master.port} 2",
            f"sentinel down-after-milliseconds {name} 500",
            f"sentinel failover-timeout {name} 3000",
            f"sentinel parallel-syncs {name} 1",
        ]
        if password:
            watch.append(f'sentinel auth-pass {name} "{password}"')
        if sentinel_password:
            watch.append(f'sentinel sentinel-pass "{sentinel_password}"')
        self.sentinels = [
            SentinelServer(password=sentinel_password, extra=watch) for _ in range(3)
        ]

    @property
    def addresses(self) -> list[str]:
        """
        The sentinels' addresses, as in C{mp.redis.nodes}.
        """
        return [sentinel.address for sentinel in self.sentinels]

    @property
    def master(self) -> RedisServer:
        """
        Who is the master now, for the sentinels that answer.
        """
        asked = self.sentinels[0].cli("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)
        port = int(asked.splitlines()[1])
        return next(server for server in self.servers if server.port == port)

    @property
    def replica(self) -> RedisServer:
        """
        Who is not the master.
        """
        master = self.master
        return next(server for server in self.servers if server is not master)

    def start(self) -> None:
        """
        Start them, and wait until the sentinels know each other and the replica.
        """
        master, replica = self.servers
        master.start()
        replica.start()
        replica.cli("REPLICAOF", LOOPBACK, str(master.port))
        wait_until(
            lambda: "master_link_status:up" in replica.cli("INFO", "replication"),
            "the replica",
        )
        for sentinel in self.sentinels:
            sentinel.start()
        self.wait()

    def wait(self) -> None:
        """
        Wait until all is well and a fail-over could begin.
        """
        wait_until(
            lambda: all(map(self._well, self.sentinels)), "the sentinels", 3 * _PATIENCE
        )

    def _well(self, sentinel: RedisServer) -> bool:
        fields = sentinel.cli("SENTINEL", "MASTER", self.name).splitlines()
        told = dict(zip(fields[::2], fields[1::2], strict=True))
        return (
            told["flags"] == "master"
            and told["num-other-sentinels"] == str(len(self.sentinels) - 1)
            and told["num-slaves"] == str(len(self.servers) - 1)
        )

    def stop(self) -> None:
        """
        End them and forget their data. Idempotent.
        """
        for server in (*self.sentinels, *self.servers):
            server.stop()


def sentinel_set(
    name: str = "mymaster",
    password: str | None = None,
    sentinel_password: str | None = None,
) -> SentinelSet:
    """
    Start a master, a replica and three sentinels; the caller stops them.
    """
    servers = SentinelSet(name, password, sentinel_password)
    try:
        servers.start()
    except BaseException:
        servers.stop()
        raise
    return servers
