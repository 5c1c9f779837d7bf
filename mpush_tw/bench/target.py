"""
The node that is measured: one that runs already, or one of the benchmark's own.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import attrs

from mpush_tw.keys import private_key_path, public_key_path
from mpush_tw.protocol.crypto import RsaPrivateKey

_START_SECONDS = 15.0


@attrs.define
class Target:
    """
    Where the load goes.

    @ivar pid: Process of the node, for its memory and CPU time; 0 when not known.
    @ivar conditions: What is known of how the node runs.
    """

    host: str
    port: int
    gateway_port: int
    public_key: str
    pid: int = 0
    conditions: dict[str, object] = attrs.Factory(dict)
    _process: subprocess.Popen[bytes] | None = None
    _home: tempfile.TemporaryDirectory[str] | None = None

    def rss_bytes(self) -> int:
        """
        Resident memory of the node; 0 when it cannot be read.
        """
        try:
            with open(f"/proc/{self.pid}/statm") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            return 0

    def cpu_seconds(self) -> float:
        """
        CPU time that the node has used; 0 when it cannot be read.
        """
        try:
            with open(f"/proc/{self.pid}/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """
        Stop the node if it is the benchmark's own.
        """
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(5)
        if self._home is not None:
            self._home.cleanup()


def own_node(key_bits: int) -> Target:
    """
    Start a node with raised flow control on free loopback ports.

    @raise RuntimeError: If it does not come up.
    """
    home = tempfile.TemporaryDirectory(prefix="mpush-bench-")
    key = RsaPrivateKey.generate(key_bits)
    private = private_key_path(home.name)
    private.parent.mkdir(mode=0o700)
    private.touch(mode=0o600)
    private.write_bytes(key.pem())
    public_key_path(home.name).write_bytes(key.public.pem())
    port, gateway_port = _free_port(), _free_port()
    settings = {
        "mp.home": home.name,
        "mp.log-level": "warn",
        "mp.net.connect-server-bind-ip": "127.0.0.1",
        "mp.net.connect-server-port": port,
        "mp.net.gateway-server-port": gateway_port,
        "mp.net.admin-server-port": 0,
        "mp.push.flow-control.global.limit": 1_000_000,
        "mp.push.flow-control.broadcast.limit": 1_000_000,
        "mp.push.flow-control.broadcast.max": 1_000_000_000,
    }
    command = [
        sys.executable,
        "-c",
        "from twisted.scripts.twistd import run; run()",
        "--nodaemon",
        "--pidfile=",
        "mpush",
    ]
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    root = str(Path(__file__).resolve().parents[2])
    log = open(Path(home.name) / "node.log", "wb")  # noqa: SIM115
    process = subprocess.Popen(
        command,
        cwd=home.name,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PYTHONPATH": root},
    )
    log.close()
    target = Target(
        "127.0.0.1",
        port,
        gateway_port,
        key.public.text(),
        process.pid,
        {
            "node": "started by the benchmark, memory providers, log level warn",
            "flow control": "1,000,000 per second",
            "RSA key": f"{key_bits} bits",
        },
        process,
        home,
    )
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return target
        except OSError:
            time.sleep(0.1)
    output = (Path(home.name) / "node.log").read_text(errors="replace")
    target.close()
    raise RuntimeError(f"the node did not start:\n{output[-2000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listener_pid(port: int) -> int:
    """
    Find the process on this machine that listens on a TCP port; 0 when there is none,
    or it is somebody else's.
    """
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table) as file:
                rows = [line.split() for line in file.readlines()[1:]]
        except OSError:
            continue
        for row in rows:
            if row[3] == "0A" and int(row[1].rsplit(":", 1)[1], 16) == port:
                inodes.add(f"socket:[{row[9]}]")
    for directory in Path("/proc").iterdir():
        if directory.name.isdecimal():
            try:
                for link in (directory / "fd").iterdir():
                    if os.readlink(link) in inodes:
                        return int(directory.name)
            except OSError:
                continue
    return 0
