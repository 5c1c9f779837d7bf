"""
The node's RSA key: configured, published, or made once (DESIGN 5.4).
"""

from __future__ import annotations

import os
from pathlib import Path

from mpush_tw.config import Settings, key_conflicts
from mpush_tw.errors import ConfigError
from mpush_tw.protocol.crypto import KeyTextError, RsaPrivateKey

_PRIVATE = "mp.security.private-key"
GENERATED_BITS = 2048

# The pair in the original's reference.conf, which every default installation of it
# runs on and everybody can read (O-2). An mpush.conf that names no key means this one.
_SAMPLE_PRIVATE_KEY = (
    "MIIBNgIBADANBgkqhkiG9w0BAQEFAASCASAwggEcAgEAAoGBAKCE8JYKhsbydMPbiO7BJVq1"
    "pbuJWJHFxOR7L8Hv3ZVkSG4eNC8DdwAmDHYu/wadfw0ihKFm2gKDcLHp5yz5UQ8PZ8FyDYvg"
    "krvGV0ak4nc40QDJWws621dm01e/INlGKOIStAAsxOityCLv0zm5Vf3+My/YaBvZcB5mGUsP"
    "bx8fAgEAAoGAAy0+WanRqwRHXUzt89OsupPXuNNqBlCEqgTqGAt4Nimq6Ur9u2R1KXKXUotx"
    "jp71Ubw6JbuUWvJg+5Rmd9RjT0HOUEQF3rvzEepKtaraPhV5ejEIrB+nJWNfGye4yzLdfEXJ"
    "BGUQzrG+wNe13izfRNXI4dN/6Q5npzqaqv0E1CkCAQACAQACAQACAQACAQA="
)
SAMPLE_PUBLIC_KEY = (
    "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCghPCWCobG8nTD24juwSVataW7iViRxcTk"
    "ey/B792VZEhuHjQvA3cAJgx2Lv8GnX8NIoShZtoCg3Cx6ecs+VEPD2fBcg2L4JK7xldGpOJ3"
    "ONEAyVsLOttXZtNXvyDZRijiErQALMTorcgi79M5uVX9/jMv2Ggb2XAeZhlLD28fHwIDAQAB"
)


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
    Find the key of a node: the configured one; with consent the published one; or the
    one that a standalone node keeps below its home, made when it is not there.

    @return: The key, and whether it was made just now.
    @raise ConfigError: If there is none for a cluster, or it cannot be used.
    """
    for keys, problem in key_conflicts(settings):
        raise ConfigError(".".join(keys[0]), problem)
    security = settings.security
    if security.private_key:
        return RsaPrivateKey.load(security.private_key), False
    if security.allow_sample_key:
        return RsaPrivateKey.load(_SAMPLE_PRIVATE_KEY), False
    path = private_key_path(settings.home)
    if path.exists():
        try:
            return RsaPrivateKey.load(path.read_bytes()), False
        except (OSError, KeyTextError) as error:
            raise ConfigError(_PRIVATE, f"the key file {path}: {error}") from None
    return _generate(settings.home), True


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
