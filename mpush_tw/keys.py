"""
The node's RSA key: configured, published, or made once (DESIGN 5.4).
"""

from __future__ import annotations

import os
from pathlib import Path

from mpush_tw.config import Settings
from mpush_tw.errors import ConfigError
from mpush_tw.protocol.crypto import KeyTextError, RsaPrivateKey, RsaPublicKey

_PRIVATE = "mp.security.private-key"
_PUBLIC = "mp.security.public-key"
GENERATED_BITS = 2048


def private_key_path(home: str) -> Path:
    """
    Where a standalone node without a configured key keeps the one it made.
    """
    return Path(home) / "keys" / "private.pem"


def public_key_path(home: str) -> Path:
    """
    Where the public half of that key lies, for clients on the same machine.
    """
    return Path(home) / "keys" / "public.pem"


def node_key(settings: Settings) -> tuple[RsaPrivateKey, bool]:
    """
    Find the key of a node.

    @return: The key, and whether it was made just now.
    @raise ConfigError: If there is none for a cluster, or it cannot be used.
    """
    security = settings.security
    if security.private_key:
        return _configured(settings), False
    if settings.cluster:
        raise ConfigError(
            _PRIVATE,
            "a cluster needs one key pair on all nodes: set mp.security.private-key "
            "and mp.security.public-key (`mpush keygen` makes a pair), or set "
            "mp.security.allow-sample-key=true to use the published sample pair",
        )
    path = private_key_path(settings.home)
    if path.exists():
        try:
            return RsaPrivateKey.load(path.read_bytes()), False
        except (OSError, KeyTextError) as error:
            raise ConfigError(_PRIVATE, f"the key file {path}: {error}") from None
    return _generate(settings.home), True


def _configured(settings: Settings) -> RsaPrivateKey:
    security = settings.security
    public = None
    if security.public_key:
        try:
            public = RsaPublicKey.load(security.public_key)
        except KeyTextError as error:
            raise ConfigError(_PUBLIC, str(error)) from None
    try:
        key = RsaPrivateKey.load(security.private_key, public)
    except KeyTextError as error:
        raise ConfigError(_PRIVATE, str(error)) from None
    if key.is_sample and not security.allow_sample_key:
        raise ConfigError(
            _PRIVATE,
            "this is the published sample key, which everybody has; to use it all the "
            "same set mp.security.allow-sample-key=true, or run `mpush keygen`",
        )
    return key


def _generate(home: str) -> RsaPrivateKey:
    key = RsaPrivateKey.generate(GENERATED_BITS)
    path = private_key_path(home)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key.pem())
        public_key_path(home).write_bytes(key.public.pem())
    except OSError as error:
        raise ConfigError(
            "mp.home", f"the node's key cannot be written below {home}: {error}"
        ) from None
    return key
