"""
Values of settings as they are written, turned into what the client works with.

Each function takes a value, perhaps as text from a configuration file, and raises
C{ValueError} with what was expected; L{name_errors} puts the setting's name to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import attrs

from mpush_tw.client.servers import ServerAddress
from mpush_tw.client.storage import FileSessionStorage, ISessionStorage
from mpush_tw.errors import ConfigError
from mpush_tw.protocol.crypto import KeyTextError, RsaPublicKey

_INT32_MAX = 2**31 - 1
_MIN_KEY_BITS = 512
_LONGEST = 7 * 86400
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h)", re.ASCII)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_REFUSED = frozenset((",", *map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0))))
_TRUE = frozenset(("true", "yes", "on", "1"))
_FALSE = frozenset(("false", "no", "off", "0"))


def flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _TRUE | _FALSE:
        return value.strip().lower() in _TRUE
    raise ValueError(f"expected true or false, not {value!r}")


def whole(value: object) -> int:
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            pass
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"expected a whole number, not {value!r}")
    if not -_INT32_MAX <= value <= _INT32_MAX:
        raise ValueError(f"{value} is out of range")
    return value


def _seconds(value: object, unit: float) -> float:
    """
    @param unit: Seconds that a bare number counts.
    """
    seconds = -1.0
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = value * unit
    elif isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match:
            seconds = float(match[1]) * _UNITS[match[2]]
        else:
            try:
                seconds = float(value) * unit
            except ValueError:
                pass
    # No timer is set for years; a NaN fails the comparison, too.
    if not 0 <= seconds <= _LONGEST:
        raise ValueError(f"expected a duration as '3s' or '500ms', not {value!r}")
    return seconds


def timeout(value: object) -> float:
    """
    @param value: A number of seconds or a text.
    @return: Seconds, more than 0.
    """
    seconds = _seconds(value, 1.0)
    if seconds == 0:
        raise ValueError("must be more than 0")
    return seconds


def milliseconds(value: object) -> int:
    """
    @param value: A number of milliseconds or a text.
    """
    return round(_seconds(value, 0.001) * 1000)


def mills(value: object) -> float:
    """
    Read one of the Java names that end in C{Mills}.

    @param value: A number of milliseconds or a text.
    @return: Seconds.
    """
    return _seconds(value, 0.001)


def text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value or None
    raise ValueError(f"expected a text, not {type(value).__name__}")


def described(value: object) -> str | None:
    """
    A text of the handshake. The session record of the servers is split at commas.
    """
    plain = text(value)
    if plain is not None and any(c in _REFUSED for c in plain):
        raise ValueError("commas and control characters are not allowed")
    return plain


def device_id(value: object) -> str:
    plain = described(value)
    if plain is None:
        raise ValueError("must not be empty")
    return plain


def _items(value: object) -> tuple[Any, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    if isinstance(value, Iterable):
        return tuple(value)
    raise ValueError(f"expected a list, not {value!r}")


def urls(value: object) -> tuple[str, ...]:
    found = _items(value)
    for url in found:
        if not isinstance(url, str) or not re.match(r"https?://[^/\s]+", url):
            raise ValueError(f"expected http or https URLs, not {url!r}")
    return found


def addresses(value: object) -> tuple[ServerAddress, ...]:
    """
    @param value: C{host:port} texts or pairs, or one text with commas.
    """
    found = []
    for item in _items(value):
        if not isinstance(item, str):
            try:
                host, port = item
            except (TypeError, ValueError):
                raise ValueError(f"expected host:port, not {item!r}") from None
            item = str(ServerAddress(host, port))
        found.append(ServerAddress.parse(item))
    return tuple(found)


def public_key(value: object) -> RsaPublicKey | None:
    """
    @param value: Base64, PEM or DER of an RSA key.
    """
    if value is None or isinstance(value, RsaPublicKey):
        return value
    if not isinstance(value, (str, bytes)):
        raise ValueError("expected Base64, PEM or DER of an RSA public key")
    key = _load_key(value)
    if key.bits < _MIN_KEY_BITS:
        raise ValueError(f"{key.bits} bits are fewer than {_MIN_KEY_BITS}")
    return key


@lru_cache(maxsize=16)
def _load_key(value: str | bytes) -> RsaPublicKey:
    # Cached because a process may hold thousands of clients of one server.
    try:
        return RsaPublicKey.load(value)
    except KeyTextError as error:
        raise ValueError(str(error)) from None


def verification(value: object) -> bool | Path:
    """
    @param value: Yes, no, or the path of a PEM file.
    """
    if isinstance(value, Path):
        return value
    try:
        return flag(value)
    except ValueError:
        if isinstance(value, str) and value:
            return Path(value)
        raise ValueError(f"expected true, false or a PEM file, not {value!r}") from None


def storage(value: object) -> ISessionStorage | None:
    """
    @param value: C{"memory"}, a path, C{"file(PATH)"}, or a storage.
    """
    if value is None or value == "memory":
        return None
    if isinstance(value, (str, Path)):
        path = str(value)
        inside = re.fullmatch(r"file\((.+)\)", path)
        return FileSessionStorage(inside[1] if inside else path)
    if all(callable(getattr(value, name, None)) for name in ("save", "get", "clear")):
        given: Any = value
        found: ISessionStorage = given
        return found
    raise ValueError("expected 'memory', a path, or save, get and clear")


def storage_directory(value: object) -> ISessionStorage | None:
    """
    @param value: A directory that will hold the Java client's C{token.dat}.
    """
    if value is None:
        return None
    if not isinstance(value, (str, Path)):
        raise ValueError(f"expected a directory, not {value!r}")
    return FileSessionStorage(Path(value) / "token.dat")


def name_errors(
    _: type, fields: list[attrs.Attribute[Any]]
) -> list[attrs.Attribute[Any]]:
    """
    Let converters raise L{ConfigError} with the name of their field: a
    C{field_transformer} for attrs.
    """
    return [
        field.evolve(converter=_named(field.converter)) if field.converter else field
        for field in fields
    ]


def _named(convert: Any) -> Any:
    def named(value: object, field: attrs.Attribute[Any]) -> Any:
        try:
            return convert(value)
        except ValueError as error:
            raise ConfigError(field.name, str(error)) from None

    return attrs.Converter(named, takes_field=True)
