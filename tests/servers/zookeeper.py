"""
A real ZooKeeper for tests: one process on a loopback port, its files in a
temporary directory.

Everything here blocks, a start for about a second. That does no harm in C{setUp};
where the reactor has to go on meanwhile, call it through
C{deferToThread(server.restart)}.

Needs C{java} and either Debian's package C{zookeeper} or a downloaded distribution
named by C{ZOOKEEPER_HOME}.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from unittest import SkipTest

_DEBIAN_JAVA = Path("/usr/share/java")

_MAIN = "org.apache.zookeeper.server.ZooKeeperServerMain"

_START_S = 30.0
"""
How long a start may take before it has failed: a second is usual.
"""

_STOP_S = 5.0
"""
How long the process may take to end before it is killed.
"""

TICK_MS = 500
"""
The server's tick: session time-outs are rounded up to whole ticks, and C{2 *
TICK_MS} is the shortest a client gets.
"""

_CONFIGURATION = """\
tickTime={tick_ms}
dataDir={home}/data
clientPort={port}
clientPortAddress=127.0.0.1
maxClientCnxns=0
maxSessionTimeout=60000
admin.enableServer=false
4lw.commands.whitelist=*
"""


def _classpath() -> str | None:
    """
    @return: What C{java -cp} needs to run a server; L{None} when there is no
        ZooKeeper here.
    """
    distribution = os.environ.get("ZOOKEEPER_HOME")
    if distribution:
        return f"{distribution}/lib/*"
    jar = _DEBIAN_JAVA / "zookeeper.jar"
    if not jar.exists():
        return None
    jars = [jar]
    # The package leaves the choice of a logger to its users; without one the
    # server is silent, which is no reason not to run.
    logger = _DEBIAN_JAVA / "slf4j-simple.jar"
    if logger.exists():
        jars.append(logger)
    return ":".join(map(str, jars))


def require_zookeeper() -> tuple[str, str]:
    """
    Skip the calling test where no ZooKeeper can run; under C{CI=true}, where
    nothing may be skipped, fail instead.

    @return: The path of C{java} and the class path of the server.
    """
    java = shutil.which("java")
    classpath = _classpath()
    if java is not None and classpath is not None:
        return java, classpath
    missing = "java" if java is None else "zookeeper (Debian: apt install zookeeper)"
    reason = f"needs {missing}"
    if os.environ.get("CI") == "true":
        raise RuntimeError(reason)
    raise SkipTest(reason)


def free_port() -> int:
    """
    @return: A TCP port of 127.0.0.1 that nobody had a moment ago.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class ZooKeeperServer:
    """
    One standalone server. A test starts it and registers L{stop} as its clean-up;
    the port stays the same over every L{restart}.

    @ivar port: The client port on 127.0.0.1.
    """

    def __init__(self, port: int | None = None) -> None:
        """
        @param port: The client port; L{None} takes a free one.
        """
        self._java, self._classpath = require_zookeeper()
        self.port = free_port() if port is None else port
        self._home: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False

    @property
    def address(self) -> str:
        """
        C{127.0.0.1:port}, as C{mp.zk.server-address} and kazoo take it.
        """
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """
        The process, L{None} while there is none.
        """
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """
        Start the server and wait until it serves. Nothing happens if it runs.

        @raise RuntimeError: If it ends or does not serve within 30 seconds; with
            what it had to say.
        """
        if self._process is not None:
            return
        if self._home is None:
            self._home = Path(tempfile.mkdtemp(prefix="zookeeper-"))
        configuration = self._home / "zoo.cfg"
        configuration.write_text(
            _CONFIGURATION.format(tick_ms=TICK_MS, home=self._home, port=self.port)
        )
        with open(self._home / "log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    self._java,
                    # A small and quickly started JVM: a test is over long before
                    # an optimising compiler would pay.
                    *("-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
                    "-Xshare:auto",
                    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
                    # Nobody pulls the plug between two lines of a test: no fsync,
                    # and no log files of 64 MB each. In kilobytes.
                    "-Dzookeeper.forceSync=no",
                    "-Dzookeeper.preAllocSize=64",
                    *("-cp", self._classpath, _MAIN, str(configuration)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._home,
                # A Ctrl+C meant for the test run is not meant for the server, which
                # the test stops.
                start_new_session=True,
            )
        try:
            self._wait_until_serving()
        except BaseException:
            self.stop()
            raise

    def _wait_until_serving(self) -> None:
        deadline = time.monotonic() + _START_S
        assert self._process is not None
        while True:
            if self._process.poll() is not None:
                raise RuntimeError(f"zookeeper ended at once: {self.log()}")
            try:
                if self.command("srvr", timeout_s=1.0).startswith("Zookeeper version"):
                    return
            except OSError:
                pass
            if time.monotonic() > deadline:
                raise RuntimeError(f"zookeeper does not serve: {self.log()}")
            time.sleep(0.02)

    def log(self) -> str:
        """
        @return: The warnings and errors of the server so far.
        """
        path = None if self._home is None else self._home / "log"
        if path is None or not path.exists():
            return ""
        return path.read_text(errors="replace")

    def command(self, word: str, timeout_s: float = 5.0) -> str:
        """
        Ask one of ZooKeeper's four-letter questions (C{srvr}, C{cons}, C{dump},
        C{wchp} ...).

        @raise OSError: If the server cannot be reached or does not answer in time.
        """
        answer = b""
        where = ("127.0.0.1", self.port)
        with socket.create_connection(where, timeout_s) as connection:
            connection.settimeout(timeout_s)
            connection.sendall(word.encode("ascii"))
            while data := connection.recv(65536):
                answer += data
        return answer.decode("utf-8", "replace")

    def pause(self) -> None:
        """
        SIGSTOP: connections stay open and nobody answers any more, as if the
        network were cut.
        """
        if self._process is not None and not self._paused:
            self._process.send_signal(signal.SIGSTOP)
            self._paused = True

    def resume(self) -> None:
        """
        SIGCONT, after L{pause}. What has expired meanwhile the server finds out
        within a tick.
        """
        if self._process is not None and self._paused:
            self._process.send_signal(signal.SIGCONT)
            self._paused = False

    def kill(self) -> None:
        """
        SIGKILL; the data stay, L{start} finds them again.
        """
        self._end(signal.SIGKILL)

    def restart(self, lose_data: bool = False) -> None:
        """
        End the process and start a new one on the same port.

        @param lose_data: Whether the new one starts with an empty tree and without
            the sessions, too.
        """
        self._end(signal.SIGTERM)
        if lose_data and self._home is not None:
            shutil.rmtree(self._home / "data", ignore_errors=True)
        self.start()

    def stop(self) -> None:
        """
        End the process and remove its files. May be called again.
        """
        self._end(signal.SIGTERM)
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None

    def _end(self, how: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        process.send_signal(how)
        # A stopped process takes a SIGTERM only once it goes on.
        self.resume()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._process = None
        self._paused = False
