"""
Configuration values as written, turned into numbers and truth values.

The tables are those of operations 1.4: case-sensitive unit names, a bare number is
bytes or milliseconds, fractions are allowed. Every function takes the text of a value
(quoted or not makes no difference in HOCON) and raises C{ValueError} whose message
says what was expected; the caller adds the key, what was found, and where.

The arithmetic is exact (decimal), so C{1.001s} is 1001 ms and not one less. The
library's own readers are not used: they take weeks, return floats, and know no
limits.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

__all__ = [
    "INT32_MAX",
    "INT64_MAX",
    "boolean",
    "duration",
    "integer",
    "size",
]

INT32_MAX: Final = 2**31 - 1
INT32_MIN: Final = -(2**31)
INT64_MAX: Final = 2**63 - 1

_AMOUNT = re.compile(
    r"\s*(?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))"
    r"(?:[eE](?P<exponent>[+-]?[0-9]+))?\s*(?P<unit>[A-Za-z]*)\s*",
    re.ASCII,
)

_MAX_EXPONENT = 40
"""
No unit times ten to this power is in any range of ours. Checked before the number is
built, because C{1e999999999} would be a very long integer.
"""


def _size_units() -> dict[str, int]:
    units = {"": 1, "B": 1, "b": 1, "byte": 1, "bytes": 1}
    prefixes = ("kilo", "mega", "giga", "tera", "peta", "exa", "zetta", "yotta")
    binary = ("kibi", "mebi", "gibi", "tebi", "pebi", "exbi", "zebi", "yobi")
    for power, (decimal_name, binary_name) in enumerate(
        zip(prefixes, binary, strict=True), start=1
    ):
        letter = binary_name[0].upper()
        for name in (
            letter,
            letter.lower(),
            f"{letter}i",
            f"{letter}iB",
            f"{binary_name}byte",
            f"{binary_name}bytes",
        ):
            units[name] = 1024**power
        thousand = "kB" if power == 1 else f"{letter}B"
        for name in (thousand, f"{decimal_name}byte", f"{decimal_name}bytes"):
            units[name] = 1000**power
    return units


_SIZE_UNITS: Final = _size_units()

_SECOND: Final = 10**9
_DURATION_UNITS: Final = {
    name: nanoseconds
    for nanoseconds, names in (
        (1, ("ns", "nano", "nanos", "nanosecond", "nanoseconds")),
        (10**3, ("us", "micro", "micros", "microsecond", "microseconds")),
        (10**6, ("", "ms", "milli", "millis", "millisecond", "milliseconds")),
        (_SECOND, ("s", "second", "seconds")),
        (60 * _SECOND, ("m", "minute", "minutes")),
        (3600 * _SECOND, ("h", "hour", "hours")),
        (86400 * _SECOND, ("d", "day", "days")),
    )
    for name in names
}


def _amount(text: str, expected: str) -> tuple[Decimal, str]:
    """
    Split C{text} into its number and the name of its unit, which may be empty.
    """
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise ValueError(expected)
    number = Decimal(match["number"])
    if match["exponent"] is not None:
        exponent = match["exponent"].lstrip("+-0") or "0"
        if len(exponent) > 2 or int(exponent) > _MAX_EXPONENT:
            raise ValueError(expected)
        number = Decimal(f"{match['number']}e{match['exponent']}")
    return number, match["unit"]


def _bounds(least: object, most: object) -> str:
    return f"from {least} to {most}"


def size(text: str, least: int = 0, most: int = INT64_MAX) -> int:
    """
    Read a number of bytes: C{10k} is 10240, C{10kB} is 10000, C{1.5k} is 1536.

    @param least: Smallest size allowed, in bytes.
    @param most: Largest size allowed, in bytes; 2 GiB - 1 for the keys that the
        original kept in 32 bits (I{size32} in operations 2).
    @return: Whole bytes; a fraction of a byte is dropped.
    @raise ValueError: If C{text} is not a size or not within the limits.
    """
    expected = f"expected a size such as 512, 10k or 4m, {_bounds(least, most)} bytes"
    number, unit = _amount(text, expected)
    factor = _SIZE_UNITS.get(unit)
    if factor is None:
        raise ValueError(expected)
    size_bytes = int(number * factor)
    if number < 0 or not least <= size_bytes <= most:
        raise ValueError(expected)
    return size_bytes


def duration(
    text: str,
    least: float = 0.0,
    most: float = float(INT32_MAX),
    whole_seconds: bool = False,
) -> float:
    """
    Read a duration: C{3m}, C{1.5s}, C{100ms}; a bare number is milliseconds.

    @param least: Shortest duration allowed, in seconds.
    @param most: Longest duration allowed, in seconds.
    @param whole_seconds: True for the keys that the original reads in seconds:
        fractions of a second are dropped. Otherwise fractions of a millisecond are.
    @return: Seconds.
    @raise ValueError: If C{text} is not a duration or not within the limits.
    """
    expected = (
        "expected a duration such as 500ms, 10s, 3m or 1d, "
        + _bounds(f"{least:g}", f"{most:.0f}")
        + " seconds"
    )
    number, unit = _amount(text, expected)
    nanoseconds = _DURATION_UNITS.get(unit)
    if nanoseconds is None or number < 0:
        raise ValueError(expected)
    step = _SECOND if whole_seconds else 10**6
    seconds = int(number * nanoseconds) // step * step / _SECOND
    if not least <= seconds <= most:
        raise ValueError(expected)
    return seconds


def integer(text: str, least: int = INT32_MIN, most: int = INT32_MAX) -> int:
    """
    Read a whole number: C{3000}, also C{3000.7} (3000), C{1e3} (1000) and C{010} (10).

    @raise ValueError: If C{text} is no number, has a unit, or is not within the limits.
    """
    expected = f"expected a whole number {_bounds(least, most)}"
    number, unit = _amount(text, expected)
    if unit or not least <= int(number) <= most:
        raise ValueError(expected)
    return int(number)


def boolean(text: str) -> bool:
    """
    Read a truth value: C{true}, C{yes}, C{on}, C{false}, C{no}, C{off}, in lower case.

    @raise ValueError: For any other word, C{1} and C{True} included.
    """
    if text in ("true", "yes", "on"):
        return True
    if text in ("false", "no", "off"):
        return False
    raise ValueError("expected true or false")
