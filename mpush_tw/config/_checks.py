"""
What single values cannot show: keys that do not go together.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Final

import attrs

from mpush_tw.config.settings import Settings
from mpush_tw.extensions import POINTS, canonical_name
from mpush_tw.protocol.crypto import KeyTextError, RsaPrivateKey, RsaPublicKey

__all__ = ["conflicts"]

Path = tuple[str, ...]
Conflict = tuple[tuple[Path, ...], str]

_ANYWHERE: Final = ("", "0.0.0.0", "::")


def _net(name: str) -> Path:
    return ("mp", "net", *name.split("."))


def conflicts(settings: Settings) -> Iterator[Conflict]:
    """
    Find combinations of values that cannot be used.

    @return: For each, the paths of the keys involved, the one to report first, and a
        sentence.
    """
    yield from _water_marks(settings)
    yield from _redis(settings)
    yield from _mode(settings)
    yield from _extensions(settings)
    yield from key_conflicts(settings)
    yield from _ports(settings)


def _water_marks(settings: Settings) -> Iterator[Conflict]:
    marks = settings.net.write_buffer_water_mark
    for name, low, high in (
        ("connect-server", marks.connect_server_low, marks.connect_server_high),
        ("gateway-server", marks.gateway_server_low, marks.gateway_server_high),
    ):
        if low > high:
            low_key = _net(f"write-buffer-water-mark.{name}-low")
            high_key = _net(f"write-buffer-water-mark.{name}-high")
            yield (
                (low_key, high_key),
                f"found {low} bytes, expected no more than {'.'.join(high_key)}, "
                f"which is {high} bytes",
            )


def _redis(settings: Settings) -> Iterator[Conflict]:
    redis = settings.redis
    if redis.cluster_model == "sentinel" and not redis.sentinel_master:
        master = ("mp", "redis", "sentinel-master")
        model = ("mp", "redis", "cluster-model")
        yield (
            (master, model),
            "found nothing, expected the master's name, "
            "because mp.redis.cluster-model is sentinel",
        )
    certificate, private = (
        ("mp", "redis", "tls", name) for name in ("cert-file", "key-file")
    )
    if bool(redis.tls.cert_file) != bool(redis.tls.key_file):
        first, second = certificate, private
        if redis.tls.cert_file:
            first, second = private, certificate
        yield (
            (first, second),
            f"found nothing, expected a file, because {'.'.join(second)} is set: a "
            "certificate and its key go together",
        )


def _mode(settings: Settings) -> Iterator[Conflict]:
    """
    A node is standalone or in a cluster, not half of each (DESIGN 4).
    """
    nodes = ("mp", "redis", "nodes")
    address = ("mp", "zk", "server-address")
    if settings.zk.server_address and not settings.has_store:
        yield (
            (nodes, address),
            'found nothing, expected nodes such as ["127.0.0.1:6379"], because '
            "mp.zk.server-address is set: a cluster needs both, a standalone node "
            "neither",
        )
    if settings.redis.nodes and not settings.has_registry:
        yield (
            (address, nodes),
            "found nothing, expected servers such as 127.0.0.1:2181, because "
            "mp.redis.nodes is set: a cluster needs both, a standalone node neither",
        )


def _extensions(settings: Settings) -> Iterator[Conflict]:
    """
    A misspelt extension point is no mere notice: what was to check who may be bound
    would not be asked, and nobody would know.
    """
    written: dict[str, str] = {}
    for name, wanted in settings.spi.items():
        path = ("mp", "spi", name)
        point = canonical_name(name)
        if point is None:
            names = [one.name for one in POINTS]
            nearest = difflib.get_close_matches(name, names, 1)
            expected = (
                f"did you mean {nearest[0]}? There are" if nearest else "expected"
            )
            yield (
                (path,),
                f"nothing is called {name} that a plug-in could be, {expected} "
                + ", ".join(names),
            )
        elif written.setdefault(point, name) != name:
            other = ("mp", "spi", written[point])
            yield (
                (path, other),
                f"found {wanted}, expected one choice: {'.'.join(other)} means the "
                "same",
            )
    if settings.cluster and not settings.redis.nodes and not settings.spi.get(_QUEUE):
        yield (
            (("mp", "spi", _QUEUE),),
            "found nothing, expected a plug-in's name, because mp.redis.nodes is "
            "empty: nodes of a cluster must hear of each other",
        )


_QUEUE: Final = "mq-client"

_PRIVATE_KEY: Final = ("mp", "security", "private-key")
_PUBLIC_KEY: Final = ("mp", "security", "public-key")
_CONSENT: Final = "mp.security.allow-sample-key=true"


def key_conflicts(settings: Settings) -> Iterator[Conflict]:
    """
    Read the key pair, so that a damaged one is found before a client finds it, and ask
    for consent to the published one (DESIGN 5.4). What was found is never said.
    """
    security = settings.security
    public = None
    if security.public_key:
        try:
            public = RsaPublicKey.load(security.public_key)
        except KeyTextError as error:
            yield (
                (_PUBLIC_KEY,),
                f"found {error}, expected an X.509 key in Base64, on one line",
            )
            return
    if security.private_key:
        try:
            private = RsaPrivateKey.load(security.private_key, public)
        except KeyTextError as error:
            yield (
                (_PRIVATE_KEY, _PUBLIC_KEY),
                f"found {error}, expected a PKCS#8 key in Base64, on one line, that "
                "belongs to mp.security.public-key",
            )
            return
        if private.is_sample and not security.allow_sample_key:
            yield (
                (_PRIVATE_KEY,),
                "found the sample key that the original publishes and everybody can "
                f"have, expected a key of your own, or {_CONSENT} to go on with the "
                "sample",
            )
    elif not security.allow_sample_key:
        yield from _missing_key(settings)


def _missing_key(settings: Settings) -> Iterator[Conflict]:
    if settings.spi.get("rsa-cipher", "rsa") != "rsa":
        # The plug-in has the key, wherever it keeps it.
        return
    if settings.cluster:
        yield (
            (_PRIVATE_KEY,),
            "found nothing, expected a key: all nodes of a cluster share one. Set "
            "mp.security.private-key and mp.security.public-key to a pair of your own "
            f"(`mpush keygen` makes one), or {_CONSENT} to use the one that the "
            "original publishes",
        )
    elif settings.security.public_key:
        yield (
            (_PRIVATE_KEY, _PUBLIC_KEY),
            "found nothing, expected the key that belongs to mp.security.public-key",
        )


@attrs.frozen
class _Door:
    """
    A listening port: its key, where it listens, and whether it is UDP.
    """

    key: Path
    port: int
    address: str
    udp: bool = False

    def meets(self, other: _Door) -> bool:
        return (
            self.port == other.port != 0
            and self.udp == other.udp
            and (
                self.address == other.address
                or self.address in _ANYWHERE
                or other.address in _ANYWHERE
            )
        )


def _doors(settings: Settings) -> list[_Door]:
    net = settings.net
    udp = net.gateway_server_net == "udp"
    gateway_address = net.gateway_server_bind_ip
    if not gateway_address:
        gateway_address = "local" if settings.cluster else "127.0.0.1"
    return [
        _Door(
            _net("connect-server-port"),
            net.connect_server_port,
            net.connect_server_bind_ip,
        ),
        _Door(
            _net("gateway-server-port"),
            net.gateway_server_port,
            "" if udp else gateway_address,
            udp,
        ),
        _Door(
            _net("admin-server-port"), net.admin_server_port, net.admin_server_bind_ip
        ),
        _Door(
            _net("metrics-server-port"),
            net.metrics_server_port,
            net.metrics_server_bind_ip,
        ),
        _Door(_net("ws-server-port"), net.ws_server_port, net.ws_server_bind_ip),
        *_alloc_doors(settings),
    ]


def _alloc_doors(settings: Settings) -> Iterator[_Door]:
    net = settings.net
    if settings.alloc.enabled and not net.alloc_server_endpoint:
        yield _Door(
            _net("alloc-server-port"), net.alloc_server_port, net.alloc_server_bind_ip
        )


def _ports(settings: Settings) -> Iterator[Conflict]:
    doors = _doors(settings)
    for position, door in enumerate(doors):
        for earlier in doors[:position]:
            if door.meets(earlier):
                yield (
                    (door.key, earlier.key),
                    f"found port {door.port}, which is also "
                    f"{'.'.join(earlier.key)}, expected a port of its own",
                )
                break
