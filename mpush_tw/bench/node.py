"""
A node in a process of its own, which may be killed.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

__all__ = ["NodeProcess", "cluster_settings", "free_port"]

_PORTS = range(15000, 32000)
"""
Below those that the kernel gives to outgoing connections: while a killed node is down,
nobody gets its port by chance, and who knocks there all the time does not end up
connected to itself.
"""

_SET_PARENT_DEATH_SIGNAL = 1
_libc = ctypes.CDLL(None)
_START_SECONDS = 30.0
_STOP_SECONDS = 30.0
_TAIL = 2000
_STARTED = "MPUSH SERVER START SUCCESS"
"""
What a node says, at every log level, when its doors are open and it is registered.
"""


class NodeProcess:
    """
    C{twistd mpush} with a configuration file in a temporary directory, which is also
    the node's C{mp.home}. Everything here blocks; a start takes about a second.

    @ivar host: Where devices and senders find it.
    @ivar port: Its connect port; the same after every restart, as is C{gateway_port}.
    """

    def __init__(self, settings: Mapping[str, object], host: str = "127.0.0.1") -> None:
        """
        @param settings: Dotted keys and their values. Addresses, ports and C{mp.home}
            need not be among them; two nodes on one machine get different hosts
            (DESIGN 5c).
        """
        self.host = host
        self.port = free_port(host)
        self.gateway_port = free_port(host)
        self.admin_port = free_port()
        self._home = tempfile.TemporaryDirectory(prefix="mpush-node-")
        self._process: subprocess.Popen[bytes] | None = None
        self._seen = 0
        self._paused = False
        own: dict[str, object] = {
            "mp.home": self._home.name,
            "mp.net.local-ip": host,
            "mp.net.public-ip": host,
            "mp.net.connect-server-bind-ip": host,
            "mp.net.connect-server-port": self.port,
            "mp.net.gateway-server-port": self.gateway_port,
            "mp.net.admin-server-port": self.admin_port,
        }
        lines = [
            f"{key} = {json.dumps(value)}\n"
            for key, value in {**own, **settings}.items()
        ]
        self.config = Path(self._home.name) / "mpush.conf"
        self.config.touch(mode=0o600)
        self.config.write_text("".join(lines))

    @property
    def gateway(self) -> str:
        """
        What the cluster knows the node by: C{host:port} of its gateway (cluster 1).
        """
        return f"{self.host}:{self.gateway_port}"

    @property
    def pid(self) -> int:
        """
        The process; 0 while there is none.
        """
        return 0 if self._process is None else self._process.pid

    def launch(self) -> None:
        """
        Start the process without waiting until it serves.
        """
        root = str(Path(__file__).resolve().parents[2])
        with open(Path(self._home.name) / "node.log", "ab") as log:
            self._seen = log.tell()
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    *("-c", "from twisted.scripts.twistd import run; run()"),
                    *("--nodaemon", "--pidfile=", "mpush"),
                    *("--config", str(self.config)),
                ],
                cwd=self._home.name,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONPATH": root},
                # A Ctrl+C meant for who started it is not meant for the node, but it
                # does not outlive that thread.
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        self._paused = False

    def wait_started(self) -> None:
        """
        Wait until the node serves and, in a cluster, is registered.

        @raise RuntimeError: If it ends instead, or takes more than 30 seconds; with
            what it had to say.
        """
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if _STARTED in self._log_since_launch():
                return
            if self._process is None or self._process.poll() is not None:
                break
            time.sleep(0.02)
        text = self._log_since_launch()
        self.kill()
        raise RuntimeError(f"the node did not start:\n{text[-_TAIL:]}")

    def start(self) -> None:
        """
        L{launch} and L{wait_started}.
        """
        self.launch()
        self.wait_started()

    def kill(self) -> None:
        """
        SIGKILL: the node has no time for anything.
        """
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """
        SIGSTOP: its connections stay open and nobody answers, as behind a cut cable.
        """
        if self._process is not None and not self._paused:
            self._process.send_signal(signal.SIGSTOP)
            self._paused = True

    def resume(self) -> None:
        """
        SIGCONT, after L{pause}.
        """
        if self._process is not None and self._paused:
            self._process.send_signal(signal.SIGCONT)
            self._paused = False

    def terminate(self) -> int:
        """
        SIGTERM, and wait for the end of an orderly stop; after 30 seconds kill.

        @return: The exit status, 0 after an orderly stop.
        """
        process, self._process = self._process, None
        if process is None:
            return 0
        process.terminate()
        if self._paused:
            process.send_signal(signal.SIGCONT)
        try:
            return process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def log(self) -> str:
        """
        What the node has written so far, over all its lives.
        """
        path = Path(self._home.name) / "node.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _log_since_launch(self) -> str:
        with open(Path(self._home.name) / "node.log", "rb") as log:
            log.seek(self._seen)
            return log.read().decode(errors="replace")

    def close(self) -> None:
        """
        End the process, whatever it is doing, and remove its files.
        """
        self.kill()
        self._home.cleanup()


def cluster_settings(
    redis: str, zookeeper: str, session_timeout_ms: int = 3000
) -> dict[str, object]:
    """
    The settings of a test cluster: stores, the published sample key, quiet logs, and
    no limit that a load on one machine would meet.

    @param redis: C{host:port} of the Redis server.
    @param zookeeper: The connect string of ZooKeeper.
    @param session_timeout_ms: After so many milliseconds a dead node's registration
        vanishes.
    """
    return {
        "mp.log-level": "warn",
        "mp.redis.nodes": [redis],
        "mp.zk.server-address": zookeeper,
        "mp.zk.sessionTimeoutMs": session_timeout_ms,
        "mp.security.allow-sample-key": True,
        "mp.push.flow-control.global.limit": 1_000_000,
    }


def free_port(host: str = "127.0.0.1") -> int:
    """
    A TCP port that nobody listens on.
    """
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port


def _end_with_parent() -> None:
    _libc.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
