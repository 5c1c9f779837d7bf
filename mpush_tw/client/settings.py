"""
What a client is told when it is made (clients 2.1, 10.1).

Names are C{snake_case}; L{ClientSettings.from_mapping} takes the Java SDK's names too.
Durations are numbers of seconds or texts such as C{"500ms"}, C{"3s"}, C{"4m"}, C{"1h"};
only the two heartbeats, which go over the wire in milliseconds, are numbers of
milliseconds (or texts), and so are the Java names that end in C{Mills}.
"""

from __future__ import annotations

import difflib
import platform
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import attrs

from twisted.internet.defer import Deferred

from mpush_tw import __version__
from mpush_tw.client import _convert
from mpush_tw.client.servers import ServerAddress
from mpush_tw.client.storage import (
    ISessionStorage,
    MemorySessionStorage,
)
from mpush_tw.errors import ConfigError
from mpush_tw.protocol.crypto import AES_KEY_LENGTH, RsaPublicKey

BindData = str | Callable[[], "str | Deferred[str | None] | None"]
"""
The data slot of BIND: a text, or a function that gives one (or a Deferred of one) for
every bind, for tokens that are good for one use.
"""


_Choice = TypeVar("_Choice", bound=Enum)


class AckModel(Enum):
    """
    Who confirms a message sent with L{mpush_tw.client.Client.push} (clients 2.13).

    The value is the flag on the wire. The original server answers C{AUTO} only.
    """

    NONE = 0
    BIZ = 4
    AUTO = 8


class Reconnect(Enum):
    """
    How reconnects are spaced, see L{mpush_tw.client.backoff}.
    """

    STANDARD = "standard"
    COMPAT = "compat"


class KickPolicy(Enum):
    """
    What happens on KICK: C{FORGET} the user, tell the server so (UNBIND) and stay
    connected; C{STOP} the client; or, as the Java client, do nothing, so that the next
    reconnect binds the user again and C{REBIND} kicks the other device (defect 12.16).
    """

    FORGET = "forget"
    STOP = "stop"
    REBIND = "rebind"


class OnHandshakeRefused(Enum):
    """
    What happens when the server answers HANDSHAKE with ERROR: try again later, or stop.
    "Param invalid" always stops, because the same handshake would be refused for ever.
    """

    BACKOFF = "backoff"
    STOP = "stop"


def _reconnect(value: Reconnect | str) -> Reconnect:
    return _choice(Reconnect, value)


def _kick_policy(value: KickPolicy | str) -> KickPolicy:
    return _choice(KickPolicy, value)


def _on_handshake_refused(value: OnHandshakeRefused | str) -> OnHandshakeRefused:
    return _choice(OnHandshakeRefused, value)


def _choice(kind: type[_Choice], value: object) -> _Choice:
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(str(member.value) for member in kind)
        raise ValueError(f"expected one of {known}, not {value!r}") from None


@attrs.frozen(kw_only=True, field_transformer=_convert.name_errors)
class ClientSettings:
    """
    The settings of one client, checked. Values may also be given as texts, as they come
    from a configuration file. Those of many devices are best made from one another with
    C{attrs.evolve(settings, device_id=...)}.

    @raise ConfigError: If a value is of no use; C{key} is the name of the setting.
    """

    device_id: str = attrs.field(converter=_convert.device_id)
    """
    Identifies the device; not empty, no commas or control characters.
    """

    server_host: str | None = attrs.field(default=None, converter=_convert.text)
    """
    Host name or IP address of the first server.
    """

    server_port: int = attrs.field(default=0, converter=_convert.whole)
    """
    Its port, 1 to 65535.
    """

    servers: tuple[ServerAddress, ...] = attrs.field(
        default=(), converter=_convert.addresses
    )
    """
    More servers of the same rank: C{host:port} or C{[v6]:port} texts, pairs, or one
    text with commas.
    """

    alloc_server: tuple[str, ...] = attrs.field(default=(), converter=_convert.urls)
    """
    URLs of alloc services, which tell servers; of several the first that answers
    counts. The servers named here are a last resort then.
    """

    verify_tls: bool | Path = attrs.field(default=True, converter=_convert.verification)
    """
    Whose certificates are believed: C{True} for the system's authorities, the path of
    a PEM file with others, C{False} for everybody's.
    """

    tls: bool = attrs.field(default=False, converter=_convert.flag)
    """
    Whether the servers expect TLS around the protocol (clients 12.18).
    """

    public_key: RsaPublicKey | None = attrs.field(
        default=None, converter=_convert.public_key, repr=False
    )
    """
    The server's RSA key: Base64, PEM or DER, at least 512 bits. Required unless
    C{encrypt_required} is off.
    """

    os_name: str | None = attrs.field(default="linux", converter=_convert.described)
    """
    Decides the kind of device: mobile for C{android} or C{ios}, PC for C{windows},
    C{mac} or C{linux}, web for C{web} or C{h5}. Of a user one device of each kind is
    bound.
    """

    os_version: str | None = attrs.field(
        factory=lambda: platform.release().replace(",", " "),
        converter=_convert.described,
    )
    client_version: str | None = attrs.field(
        default=__version__, converter=_convert.described
    )

    user_id: str | None = attrs.field(default=None, converter=_convert.text)
    """
    Bound after every handshake, until C{bind_user} or C{unbind_user} is called.
    """

    tags: str | None = attrs.field(default=None, converter=_convert.text)
    """
    Go with C{user_id}; their form is up to the application.
    """

    bind_data: BindData | None = attrs.field(default=None, repr=False)
    """
    For the server's bind validator; used by every bind that brings none of its own.
    """

    min_heartbeat: int = attrs.field(default=240_000, converter=_convert.milliseconds)
    """
    Milliseconds proposed; servers ignore it.
    """

    max_heartbeat: int = attrs.field(default=240_000, converter=_convert.milliseconds)
    """
    Milliseconds proposed; the server answers with this or what its own limits make of
    it.
    """

    aes_key_length: int = attrs.field(default=AES_KEY_LENGTH, converter=_convert.whole)
    """
    16; nothing else works (protocol 7.1).
    """

    compress_limit: int = attrs.field(default=1024, converter=_convert.whole)
    """
    Bodies of more bytes are compressed; 0 or less for never.
    """

    session_storage: ISessionStorage | None = attrs.field(
        default=None, converter=_convert.storage, repr=False
    )
    """
    C{None} or C{"memory"}: each client its own L{MemorySessionStorage}; a path, or
    C{"file(PATH)"}: a L{FileSessionStorage}; or any L{ISessionStorage}. Two clients
    must not share one.
    """

    handshake_timeout: float = attrs.field(default=3.0, converter=_convert.timeout)
    handshake_retries: int = attrs.field(default=0, converter=_convert.whole)
    """
    How often the identical packet is sent again, a C{handshake_timeout} apart.
    """

    bind_timeout: float = attrs.field(default=3.0, converter=_convert.timeout)
    bind_retries: int = attrs.field(default=1, converter=_convert.whole)
    connect_timeout: float = attrs.field(default=5.0, converter=_convert.timeout)
    """
    For the TCP connect to each server.
    """

    alloc_timeout: float = attrs.field(default=3.0, converter=_convert.timeout)
    """
    To connect to an alloc service, and for its answer.
    """

    enable_http_proxy: bool = attrs.field(default=True, converter=_convert.flag)
    http_timeout: float = attrs.field(default=10.0, converter=_convert.timeout)
    push_timeout: float = attrs.field(default=1.0, converter=_convert.timeout)
    """
    How long C{push} waits for the ack when not told otherwise.
    """

    max_packet_size: int = attrs.field(
        default=10 * 1024 * 1024, converter=_convert.whole
    )
    """
    Bytes of one body, inbound (before and after inflating) and outbound.
    """

    max_pending: int = attrs.field(default=1000, converter=_convert.whole)
    """
    Requests that may wait for answers, packets that may wait for the network, and
    pushes that the application may have in hand.
    """

    reconnect: Reconnect = attrs.field(default=Reconnect.STANDARD, converter=_reconnect)
    kick_policy: KickPolicy = attrs.field(
        default=KickPolicy.FORGET, converter=_kick_policy
    )
    on_handshake_refused: OnHandshakeRefused = attrs.field(
        default=OnHandshakeRefused.BACKOFF, converter=_on_handshake_refused
    )

    encrypt_required: bool = attrs.field(default=True, converter=_convert.flag)
    """
    Off lets a client without C{public_key} shake hands in clear, which hands the
    session key to every listener on the line: for laboratories. A client that has the
    key never falls back to clear text.
    """

    auto_heartbeat: bool = attrs.field(default=True, converter=_convert.flag)
    """
    Off leaves it to the application to call C{health_check} about every heartbeat.
    """

    listener: object | None = attrs.field(default=None, repr=False, eq=False)
    """
    Used when the client is made without one.
    """

    logger: object | None = attrs.field(default=None, repr=False, eq=False)
    """
    An object with the Java logger's methods C{d}, C{i}, C{w} and C{e}, each taking a
    text, to log to instead of C{twisted.logger}.
    """

    log_enabled: bool = attrs.field(default=False, converter=_convert.flag)
    """
    Whether life events are logged too, and not only what went wrong.
    """

    def __attrs_post_init__(self) -> None:
        if self.aes_key_length != AES_KEY_LENGTH:
            raise ConfigError("aes_key_length", f"only {AES_KEY_LENGTH} works")
        if self.server_host is not None:
            try:
                _ = self.addresses
            except ValueError as error:
                raise ConfigError("server_host", str(error)) from None
        for name, least in (
            ("handshake_retries", 0),
            ("bind_retries", 0),
            ("max_pending", 1),
            ("max_packet_size", 1024),
        ):
            if getattr(self, name) < least:
                raise ConfigError(name, f"must be at least {least}")
        data = self.bind_data
        if not (data is None or isinstance(data, str) or callable(data)):
            raise ConfigError("bind_data", "expected a text or a function")

    @property
    def addresses(self) -> tuple[ServerAddress, ...]:
        """
        C{server_host} and C{servers} together, in this order.
        """
        if self.server_host is None:
            return self.servers
        first = ServerAddress(self.server_host.strip("[]"), self.server_port)
        return (ServerAddress.parse(str(first)), *self.servers)

    @property
    def compress_threshold(self) -> int:
        """
        C{compress_limit} in the form that the body pipeline takes.
        """
        return self.compress_limit if self.compress_limit > 0 else sys.maxsize

    def new_storage(self) -> ISessionStorage:
        """
        The storage that was configured, or a new one in memory.
        """
        return self.session_storage or MemorySessionStorage()

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> ClientSettings:
        """
        Make settings of a mapping with C{snake_case} or C{camelCase} names.

        @param values: The Java SDK's C{ClientConfig} names are understood, its setters'
            names (C{setEnabledHttpProxy}) as well.
        @raise ConfigError: For an unknown name, with the nearest known one; for a
            setting given twice; for a bad value.
        """
        known = {field.name for field in attrs.fields(cls)}
        arguments: dict[str, Any] = {}
        for given, value in values.items():
            name = _snake(given)
            if name in _OTHER_NAMES:
                name, convert = _OTHER_NAMES[name]
                try:
                    value = convert(value)
                except ValueError as error:
                    raise ConfigError(given, str(error)) from None
            if name not in known:
                raise ConfigError(given, f"no such setting{_nearest(name, known)}")
            if name in arguments:
                raise ConfigError(given, f"{name} is given twice")
            arguments[name] = value
        if "device_id" not in arguments:
            raise ConfigError("device_id", "is required")
        return cls(**arguments)


def _as_it_is(value: Any) -> Any:
    return value


_OTHER_NAMES: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "allot_server": ("alloc_server", _as_it_is),
    "enabled_http_proxy": ("enable_http_proxy", _as_it_is),
    "handshake_timeout_mills": ("handshake_timeout", _convert.mills),
    "handshake_retry_count": ("handshake_retries", _as_it_is),
    "bind_user_timeout_mills": ("bind_timeout", _convert.mills),
    "bind_user_retry_count": ("bind_retries", _as_it_is),
    "session_storage_dir": ("session_storage", _convert.storage_directory),
    "client_listener": ("listener", _as_it_is),
}


def _snake(name: str) -> str:
    snake = re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()
    return snake.removeprefix("set_")


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, [*known, *_OTHER_NAMES], n=1)
    return f"; did you mean {near[0]}?" if near else ""
