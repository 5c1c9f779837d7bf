"""
Headers on their way through the proxy (server 15.1 to 15.3, clients 9.20).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from mpush_tw.errors import MPushError

READ_TIMEOUT: Final = "readtimeout"
"""
The header, in lower case, by which a device says how long it waits, in milliseconds.
"""

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_DROPPED: Final = frozenset(
    (
        # What concerns a connection, or says where a message ends: ours to say (S-34).
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        # What only a proxy may say, and we are the first one.
        "forwarded",
        "x-real-ip",
        READ_TIMEOUT,
    )
)
_DROPPED_BEGINNINGS: Final = ("proxy-", "x-forwarded-")

Pairs = tuple[tuple[bytes, bytes], ...]


class BadHeader(MPushError):
    """
    A header that could be taken for something else by the next program.
    """


def read_timeout_ms(headers: Mapping[str, str] | None) -> int | None:
    """
    Tell how long a device wants to wait; C{None} if it does not say, or nothing that
    counts.
    """
    for name, value in (headers or {}).items():
        if name.strip().lower() == READ_TIMEOUT:
            digits = value.strip().removeprefix("+")
            if re.fullmatch("[0-9]{1,10}", digits) and 0 < int(digits) < 1 << 31:
                return int(digits)
    return None


def request_headers(
    headers: Mapping[str, str] | None, device_host: str, device_port: int
) -> Pairs:
    """
    Choose what a server gets of a device's headers, and say for whom we ask.

    @return: Without C{Host}.
    @raise BadHeader: If a name or value is none that HTTP has.
    """
    given = list(_clean(headers or {}))
    dropped = set(_DROPPED)
    for name, value in given:
        if name.lower() == "connection":
            dropped.update(word.strip().lower() for word in value.split(","))
    kept = [
        (name.encode("ascii"), _bytes(value))
        for name, value in given
        if name.lower() not in dropped
        and not name.lower().startswith(_DROPPED_BEGINNINGS)
    ]
    kept.append((b"x-forwarded-for", device_host.encode("ascii", "replace")))
    kept.append((b"x-forwarded-port", b"%d" % device_port))
    return tuple(kept)


def _clean(headers: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    for written, text in headers.items():
        # Lines may end in CR LF (clients 9.20); then each value ends in CR.
        name, value = written.strip(" \t"), text.removesuffix("\r").strip(" \t")
        if name in ("", "\r") and not value:
            continue
        if not _TOKEN.fullmatch(name):
            raise BadHeader(f"a header name that is none: {written[:80]!r}")
        if _CONTROL.search(value):
            raise BadHeader(f"a control character in the header {name}")
        yield name, value


def _bytes(value: str) -> bytes:
    """
    Write a value as the original does where that can be read: ISO 8859-1. It puts
    question marks for the rest of the world's letters; we write all of such a value in
    UTF-8.
    """
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode("utf-8", "replace")


def without_credentials(headers: Pairs) -> Pairs:
    """
    Choose what another server gets that a redirect leads to: not what the first one was
    trusted with.
    """
    return tuple(
        (name, value)
        for name, value in headers
        if name.lower() not in (b"authorization", b"cookie")
    )


def without_content(headers: Pairs) -> Pairs:
    """
    Drop what describes a body that is not sent any more.
    """
    return tuple(
        (name, value)
        for name, value in headers
        if not name.lower().startswith(b"content-")
    )


def response_headers(
    headers: Iterable[tuple[bytes, bytes]], size: int
) -> dict[str, str]:
    """
    Make the map of headers that a device gets: one value for each name, in the server's
    own writing. Values of a name that comes more than once are joined (S-35), but of
    C{Set-Cookie}, which cannot be, the last one counts.

    @param size: Of the body, in bytes.
    """
    made: dict[str, str] = {}
    if size:
        made["content-length"] = str(size)
    for raw_name, raw_value in headers:
        name = raw_name.decode("ascii", "replace")
        value = _CONTROL.sub(" ", raw_value.decode("latin-1"))
        if name in made and name.lower() != "set-cookie":
            value = f"{made[name]}, {value}"
        made[name] = value
    return made


def reason_text(reason: bytes) -> str:
    """
    Make a reason phrase fit for a device.
    """
    return _CONTROL.sub(" ", reason.decode("latin-1"))
