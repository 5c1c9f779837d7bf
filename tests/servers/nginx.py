"""
An nginx for tests.

    nginx = Nginx('location / { proxy_pass http://127.0.0.1:8080; }')
    nginx.start()
    self.addCleanup(nginx.stop)
"""

from __future__ import annotations

import atexit
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from tests.servers import LOOPBACK, end_with_parent, free_port, require
from tests.servers.redis import wait_until

_CONFIGURATION = """
daemon off;
master_process off;
worker_rlimit_nofile 4096;
error_log stderr notice;
pid {directory}/nginx.pid;
events {{ worker_connections 2048; }}
http {{
  access_log {directory}/access.log;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  {http}
  server {{
    listen {host}:{port} backlog=1024;
    {server}
  }}
}}
"""


class Nginx:
    """
    An nginx process of its own, with one server on a loopback port.

    @ivar port: Where it listens.
    @ivar root: A directory whose files it can serve.
    """

    def __init__(self, server: str, http: str = "") -> None:
        """
        @param server: What stands in the C{server} block; C{{root}} is its directory.
        @param http: What stands beside it, in the C{http} block.
        """
        self.port = free_port()
        self._server = server
        self._http = http
        self._process: subprocess.Popen[bytes] | None = None
        self.root = Path()

    def start(self) -> None:
        """
        Start it, and wait until it answers.
        """
        program = _nginx()
        directory = Path(tempfile.mkdtemp(prefix="mpush-nginx-"))
        self._directory = directory
        self.root = directory / "root"
        self.root.mkdir()
        for path in (directory, self.root):
            path.chmod(0o755)
        configuration = directory / "nginx.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                directory=directory,
                host=LOOPBACK,
                port=self.port,
                server=self._server.replace("{root}", str(self.root)),
                http=self._http,
            )
        )
        atexit.register(self.stop)
        with open(directory / "output", "ab") as output:
            self._process = subprocess.Popen(
                [program, "-c", str(configuration), "-p", str(directory)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=end_with_parent,
            )
        wait_until(self._answers, f"nginx on port {self.port}")

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            said = (self._directory / "output").read_text()
            raise AssertionError(f"nginx ended:\n{said}")
        try:
            socket.create_connection((LOOPBACK, self.port), 1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """
        End it, and forget what it had. Idempotent.
        """
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)


def _nginx() -> str:
    """
    Find nginx, which Debian puts where only root looks.
    """
    if Path("/usr/sbin/nginx").exists():
        return "/usr/sbin/nginx"
    return require("nginx")
