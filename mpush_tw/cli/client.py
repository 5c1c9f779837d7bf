"""
C{mpush client}: a device in a terminal.
"""

from __future__ import annotations

import os
import sys
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from mpush_tw.client import Client, ClientListener, ClientSettings
from mpush_tw.config import Settings, load_settings
from mpush_tw.errors import ConfigError
from mpush_tw.keys import SAMPLE_PUBLIC_KEY, public_key_path

_DEFAULT_CONFIG = "etc/mpush.conf"


@click.command()
@click.argument("user")
@click.option("--host", help="The server. Default: the configuration's node.")
@click.option("--port", type=int, help="Its connect port. Default: likewise.")
@click.option(
    "--alloc",
    metavar="URL",
    multiple=True,
    help="Ask there for servers, and take --host only if that is of no help. May be "
    "repeated.",
)
@click.option(
    "--public-key",
    metavar="FILE|TEXT",
    help="The server's public key: a PEM file or the Base64 text. Default: the key "
    "of this configuration, or the one that its standalone node has made.",
)
@click.option("--device", help="Device id. Default: a new one.")
@click.option("--os-name", default="linux", show_default=True, help="Kind of device.")
@click.option("--tags", help="Tags to bind with.")
@click.option(
    "--config",
    help="Configuration of the node: it tells address, port and key. "
    f"Default: {_DEFAULT_CONFIG} if there.",
)
@click.option("--count", type=int, help="Leave after that many messages.")
def client(
    user: str,
    host: str | None,
    port: int | None,
    alloc: tuple[str, ...],
    public_key: str | None,
    device: str | None,
    os_name: str,
    tags: str | None,
    config: str | None,
    count: int | None,
) -> None:
    """
    Be a device of USER: connect, bind, and print what arrives, acknowledging it.

    \b
    Examples:
      mpush client alice
      mpush client alice --config etc/node-b.conf
      mpush client alice --host push.example.com --public-key keys/public.pem
      mpush client alice --alloc http://127.0.0.1:9999/
    """
    from twisted.internet import reactor
    from twisted.internet.task import LoopingCall

    try:
        node = _node_settings(config)
        if not alloc:
            host = host or _address(node)
        port = node.net.connect_server_port if port is None else port
        settings = ClientSettings(
            device_id=device or f"terminal-{uuid.uuid4().hex[:12]}",
            server_host=host,
            server_port=port,
            alloc_server=alloc,
            public_key=_find_key(public_key, node),
            os_name=os_name,
            user_id=user,
            tags=tags,
        )
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    screen = _Screen(count, reactor)
    device_client = Client(settings, screen, reactor=reactor)
    screen.client = device_client
    some_reactor: Any = reactor
    some_reactor.addSystemEventTrigger("before", "shutdown", device_client.stop)
    some_reactor.callWhenRunning(device_client.start)
    # A server that is not there has nothing to tell the listener.
    LoopingCall(screen.look).start(1.0, now=False)
    some_reactor.run()
    sys.exit(screen.status)


def _node_settings(config: str | None) -> Settings:
    if (
        config is None
        and "MP_CONF" not in os.environ
        and Path(_DEFAULT_CONFIG).exists()
    ):
        config = _DEFAULT_CONFIG
    return load_settings(config).settings


def _address(node: Settings) -> str:
    """
    Where a node on this machine takes devices.
    """
    bound = node.net.connect_server_bind_ip
    return "127.0.0.1" if bound in ("", "0.0.0.0", "::") else bound


def _find_key(given: str | None, settings: Settings) -> str:
    if given is not None:
        return _read_key(given)
    if settings.security.public_key:
        return settings.security.public_key
    if settings.security.allow_sample_key:
        return SAMPLE_PUBLIC_KEY
    path = public_key_path(settings.home)
    try:
        return path.read_text()
    except OSError:
        raise click.ClickException(
            f"no public key: {path} is not there. Start the node first (make run), run "
            "this in the same directory, or give --public-key."
        ) from None


def _read_key(given: str) -> str:
    """
    Take a key from the command line.

    @param given: The name of a file with it, or the key itself.
    """
    try:
        is_file = Path(given).is_file()
    except OSError:  # the text of a long key is too long for a name
        is_file = False
    if not is_file:
        return given
    try:
        return Path(given).read_text()
    except OSError as error:
        raise click.ClickException(
            f"{given} cannot be read: {error.strerror}"
        ) from None
    except UnicodeDecodeError:
        raise click.ClickException(f"{given} is no PEM file") from None


class _Screen(ClientListener):
    """
    Prints what the client tells.
    """

    def __init__(self, count: int | None, reactor: Any) -> None:
        self._left = count
        self._reactor = reactor
        self.client: Any = None
        self.status = 0
        self._told: Exception | None = None

    def look(self) -> None:
        """
        Say why there is no connection, once for each reason.
        """
        failure = self.client.last_failure
        if self.client.is_running or failure is None:
            return
        if self._told is None or str(failure) != str(self._told):
            self._line(f"no connection: {failure} Trying again.")
        self._told = failure

    def _line(self, text: str) -> None:
        click.echo(f"{datetime.now():%H:%M:%S.%f}"[:-3] + f"  {text}")

    def on_connected(self) -> None:
        self._line(f"connected to {self.client.server}")

    def on_disconnected(self, reason: Exception) -> None:
        self._line(f"disconnected: {reason}")

    def on_handshake_ok(self, heartbeat_ms: int) -> None:
        self._line(f"handshake done, heartbeat {heartbeat_ms / 1000:g} s")

    def on_receive_push(self, content: bytes, message_id: int) -> None:
        number = f" #{message_id}" if message_id else ""
        self._line(f"push{number}: {content.decode('utf-8', 'replace')}")
        if message_id:
            self.client.ack(message_id)
        if self._left is not None:
            self._left -= 1
            if self._left <= 0:
                self._reactor.callLater(0.2, self._reactor.stop)

    def on_kick_user(self, device_id: str, user_id: str) -> None:
        self._line(f"kicked: {user_id} is now bound on another device of this kind")

    def on_bind(self, success: bool, user_id: str) -> None:
        if success:
            self._line(f"bound as {user_id}; waiting for pushes, Ctrl-C to leave")
        else:
            self._line(f"the server refused to bind {user_id}")

    def on_unbind(self, success: bool, user_id: str) -> None:
        self._line(f"unbound {user_id}")

    def on_error(self, command: int, code: int, reason: str) -> None:
        self._line(f"the server answered command {command} with error {code}: {reason}")
