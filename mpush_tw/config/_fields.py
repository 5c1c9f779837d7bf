"""
How a configuration key is declared: one call beside the attribute that holds it.

A settings class reads like a list of keys::

    max_packet_size: int = size("10k", least=1, most=INT32_MAX)

The call makes an attrs field whose default is the converted value, and keeps the
default as written, the reader and the limits beside it as a L{Key}. The loader, the
rendering and the test of C{etc/reference.conf} walk these declarations with L{walk};
nothing else lists the keys a second time.

The functions claim to return the type of the attribute, as C{attrs.field} does, so
that mypy checks the annotation against the kind of key.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, cast

import attrs

from mpush_tw.config import units
from mpush_tw.config._nodes import host_and_port

__all__ = [
    "Key",
    "boolean",
    "choice",
    "duration",
    "integer",
    "key_of",
    "mapping",
    "port",
    "providers",
    "scalar_text",
    "section",
    "size",
    "subsection",
    "text",
    "texts",
    "walk",
]

_T = TypeVar("_T")

_KEY = "mpush_tw.config.key"
_SECTION = "mpush_tw.config.section"
_NAME = "mpush_tw.config.name"


@attrs.frozen
class Key:
    """
    What is known about one configuration key apart from its value.

    @ivar default: The default as written in a configuration file, as plain data. A
        text may hold substitutions.
    @ivar read: Turns the value as written (text, number, truth value, list, dict or
        None) into the attribute's value, or raises C{ValueError} with what was
        expected.
    @ivar effect: False for a key that only made sense on the JVM: it is accepted, and
        named once at start when it differs from the default.
    @ivar open: True for an object whose keys are the operator's own.
    """

    default: object
    read: Callable[[object], object]
    effect: bool = True
    open: bool = False


def scalar_text(value: object) -> str:
    """
    Give the text of a scalar as HOCON sees it, whatever type the parser gave it.

    @raise ValueError: For null, a list or an object.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise ValueError("expected a single value")


def _scalar(read: Callable[[str], _T], wanted: str) -> Callable[[object], _T]:
    def read_scalar(value: object) -> _T:
        try:
            written = scalar_text(value)
        except ValueError:
            raise ValueError(f"expected {wanted}") from None
        return read(written)

    return read_scalar


def _field(
    key: Key,
    name: str,
    derived: Callable[[Any], Any] | None = None,
    secret: bool = False,
) -> Any:  # Any: stands for the attribute's own type, as in attrs.field
    metadata = {_KEY: key, _NAME: name}
    if derived is not None:
        default: Any = attrs.Factory(derived, takes_self=True)
    elif isinstance(key.default, (list, dict)):
        default = attrs.Factory(lambda: key.read(key.default))
    else:
        default = key.read(key.default)
    return attrs.field(default=default, metadata=metadata, repr=not secret)


def size(
    default: str, least: int = 0, most: int = units.INT32_MAX, name: str = ""
) -> int:
    """
    Declare a number of bytes. The limit is the original's 32 bits unless given.
    """
    read = _scalar(lambda t: units.size(t, least, most), "a size")
    written = int(default) if default.isdecimal() else default
    return cast(int, _field(Key(written, read), name))


def duration(
    default: str, least: float = 0.0, name: str = "", whole_seconds: bool = False
) -> float:
    """
    Declare a duration, kept in seconds.
    """
    read = _scalar(
        lambda t: units.duration(t, least, whole_seconds=whole_seconds), "a duration"
    )
    return cast(float, _field(Key(default, read), name))


def integer(
    default: int,
    least: int = units.INT32_MIN,
    most: int = units.INT32_MAX,
    name: str = "",
    effect: bool = True,
) -> int:
    """
    Declare a whole number.
    """
    read = _scalar(lambda t: units.integer(t, least, most), "a whole number")
    return cast(int, _field(Key(default, read, effect), name))


def port(default: int, negative_is_off: bool = False, name: str = "") -> int:
    """
    Declare a port, 0 to 65535.

    @param negative_is_off: True where the original takes every number up to 0 as
        I{off}: a negative number is then read as 0.
    """

    def read(written: str) -> int:
        number = (
            units.integer(written, most=65535)
            if negative_is_off
            else (units.integer(written, 0, 65535))
        )
        return max(number, 0)

    return cast(int, _field(Key(default, _scalar(read, "a port")), name))


def boolean(default: bool, name: str = "", effect: bool = True) -> bool:
    """
    Declare a truth value.
    """
    read = _scalar(units.boolean, "true or false")
    return cast(bool, _field(Key(default, read, effect), name))


def text(
    default: str = "",
    name: str = "",
    effect: bool = True,
    derived: Callable[[Any], str] | None = None,
    check: Callable[[str], str] = str,
    secret: bool = False,
) -> str:
    """
    Declare a text.

    @param derived: For a default with substitutions: the same default computed from
        the half-made settings object, for whoever builds settings without a loader.
    @param check: Gives the text to keep, or raises C{ValueError} with what was
        expected.
    @param secret: Keep the value out of C{repr}.
    """
    read = _scalar(check, "a text")
    return cast(str, _field(Key(default, read, effect), name, derived, secret))


def choice(default: str, *words: str, name: str = "") -> str:
    """
    Declare a text that is one of C{words}, in lower case.
    """
    expected = f"expected {', '.join(words[:-1])} or {words[-1]}"

    def read(written: str) -> str:
        if written not in words:
            raise ValueError(expected)
        return written

    return text(default, name, check=read)


def texts(
    default: tuple[str, ...] = (),
    check: Callable[[str], str] = str,
    wanted: str = "texts",
    name: str = "",
    secret: bool = False,
) -> tuple[str, ...]:
    """
    Declare a list of texts; an object with numeric keys (C{nodes.0=...}) is one too.

    @param check: As in L{text}, for each element.
    @param wanted: What the elements are, for the message, with an example.
    @param secret: Keep the value out of C{repr}.
    """

    def read(value: object) -> tuple[str, ...]:
        expected = f"expected a list of {wanted}"
        try:
            items = [scalar_text(item) for item in list_items(value)]
        except ValueError:
            raise ValueError(expected) from None
        return tuple(check(item) for item in items)

    key = Key(list(default), read)
    return cast("tuple[str, ...]", _field(key, name, secret=secret))


def list_items(value: object) -> list[object]:
    """
    Give the elements of a list, or of an object whose keys are numbers, in their order.

    @raise ValueError: If C{value} is neither.
    """
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and value:
        numbers = [key for key in value if re.fullmatch("[0-9]{1,9}", key)]
        if len(numbers) == len(value):
            return [value[key] for key in sorted(numbers, key=int)]
    raise ValueError("expected a list")


def mapping(
    default: Mapping[str, object] | None = None,
    check: Callable[[str, object], object] = lambda key, value: value,
    wanted: str = "an object",
    name: str = "",
    secret: bool = False,
) -> dict[str, Any]:
    """
    Declare an object whose keys are the operator's own.

    @param check: Gives the value to keep for a key, or raises C{ValueError} with what
        was expected.
    @param secret: Keep the value out of C{repr}.
    """

    def read(value: object) -> dict[str, object]:
        if not isinstance(value, dict):
            raise ValueError(f"expected {wanted}")
        return {key: check(key, item) for key, item in value.items()}

    key = Key(dict(default or {}), read, open=True)
    return cast("dict[str, Any]", _field(key, name, secret=secret))


def providers(name: str = "") -> dict[str, str]:
    """
    Declare an object that names plug-ins. Class names of the original are left out: no
    plug-in of ours answers to them, and operators' files hold them (server 19.1).
    """

    def read(value: object) -> dict[str, str]:
        expected = "expected an object such as { bind-validator: my-validator }"
        if not isinstance(value, dict):
            raise ValueError(expected)
        try:
            named = {key: scalar_text(item) for key, item in value.items()}
        except ValueError:
            raise ValueError(expected) from None
        return {key: item for key, item in named.items() if not is_java_name(item)}

    return cast("dict[str, str]", _field(Key({}, read, open=True), name))


def section(
    cls: type[_T], name: str = "", derived: Callable[[Any], _T] | None = None
) -> _T:
    """
    Declare a section: an object of keys held by its own class.

    @param derived: Builds the default section from the half-made settings object, where
        one of its defaults depends on a key outside of it.
    """
    default: Any = (
        attrs.Factory(cls)
        if derived is None
        else attrs.Factory(derived, takes_self=True)
    )
    return cast(_T, attrs.field(default=default, metadata={_SECTION: cls, _NAME: name}))


def key_of(attribute: attrs.Attribute[Any]) -> Key | None:
    """
    Give the declaration behind an attribute, or None for a section.
    """
    return cast("Key | None", attribute.metadata.get(_KEY))


def subsection(attribute: attrs.Attribute[Any]) -> type[Any]:
    """
    Give the class of the section that an attribute holds.
    """
    return cast("type[Any]", attribute.metadata[_SECTION])


def name_of(attribute: attrs.Attribute[Any]) -> str:
    """
    Give the last element of the key: the attribute's name with hyphens, unless the
    declaration names another.
    """
    return cast(str, attribute.metadata[_NAME]) or attribute.name.replace("_", "-")


def walk(
    cls: type[Any], path: tuple[str, ...] = ("mp",)
) -> Iterator[tuple[tuple[str, ...], Key]]:
    """
    Go through the keys of a settings class and of its sections, in declared order.

    @return: The elements of each key's path, C{"mp"} first, and its declaration.
    """
    for attribute in attrs.fields(cls):
        here = (*path, name_of(attribute))
        key = key_of(attribute)
        if key is None:
            yield from walk(subsection(attribute), here)
        else:
            yield here, key


# Checks of single values that several keys share.


def absolute_path(written: str) -> str:
    """
    Accept a path that starts with a slash, as ZooKeeper and HTTP paths do.
    """
    if not written.startswith("/"):
        raise ValueError("expected a path that starts with /")
    return written


def multicast_group(written: str) -> str:
    """
    Accept an IPv4 multicast address.
    """
    try:
        group = ipaddress.IPv4Address(written)
    except ValueError:
        group = None
    if group is None or not group.is_multicast:
        raise ValueError("expected a multicast address, 224.0.0.0 to 239.255.255.255")
    return written


def network(written: str) -> str:
    """
    Accept an address or a network in prefix form.
    """
    try:
        ipaddress.ip_network(written)
    except ValueError:
        raise ValueError(
            "expected addresses or networks such as 10.0.0.0/8, "
            "without host bits beyond the prefix"
        ) from None
    return written


def origin(written: str) -> str:
    """
    Accept what browsers say of the site that a page is from, with C{*} for any
    characters. There is no path in it, not even a slash at the end.
    """
    if written not in ("*", "null") and not re.fullmatch(
        r"[A-Za-z*][A-Za-z0-9+.*-]*://[^/?#\s@,\"]+", written
    ):
        raise ValueError(
            "expected origins such as https://example.com or https://*.example.com:8443"
        )
    return written


def host(written: str) -> str:
    """
    Accept an address or a host name, or nothing. Host names are taken on trust, as
    the original does; what no host can be (a port, a blank, a path) is refused.
    """
    if re.search(r"[\s/,\"]", written) or re.fullmatch(r"[^:]*:[0-9]*", written):
        raise ValueError("expected an address or a host name, without a port")
    return written


def web_host(written: str) -> str:
    """
    Accept a host name or an address, without a port or a pattern.
    """
    bare = written[1:-1] if re.fullmatch(r"\[.*\]", written) else written
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?", written):
            raise ValueError(
                "expected host names or addresses, each without a port or a pattern"
            ) from None
    return written


def mapped_host(name: str, value: object) -> str:
    """
    Accept an address or a host name as the value of an object.
    """
    expected = f"expected an address for {name!r}"
    try:
        written = host(scalar_text(value))
    except ValueError:
        raise ValueError(expected) from None
    if not written:
        raise ValueError(expected)
    return written


def backends(name: str, value: object) -> tuple[str, ...]:
    """
    Accept the backends of a mapped host name: a list of C{ip} or C{ip:port}.
    """
    try:
        written = tuple(scalar_text(item) for item in list_items(value))
        for item in written:
            host_and_port(item)
    except ValueError:
        raise ValueError(
            f'expected a list such as ["10.0.0.1:8080"] for {name!r}'
        ) from None
    return written


def is_java_name(value: object) -> bool:
    """
    Tell whether a plug-in's name is a class of the original.
    """
    return isinstance(value, str) and value.startswith("com.mpush.")
