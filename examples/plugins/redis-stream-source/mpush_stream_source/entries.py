"""
Entries of the stream, and what becomes of them.

An entry asks for one push::

    XADD mpush:push * user_id alice content hello
    XADD mpush:push * broadcast 1 content hello tags '["news"]'

C{content} and one of C{user_id} and C{broadcast} must be there. The rest may: C{id},
which comes back in the results; C{client_type} (all of the user's devices by default);
C{ack} (C{none}, C{auto} or C{biz}); C{timeout_ms}; C{tags}, a JSON list, and
C{condition}, of a broadcast; C{task_id}, under which the push is traced and controlled.
C{hops} is the nodes' own: how often they have passed the entry on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from mpush_tw.protocol.commands import Flag

MAX_HOPS = 3
"""
How often an entry is passed on to the node that has the user: users move.
"""

_ACKS = {
    "none": 0,
    "auto": int(Flag.AUTO_ACK),
    "biz": int(Flag.BIZ_ACK),
}
_MAX_TIMEOUT_MS = 600_000


class Invalid(ValueError):
    """
    An entry does not ask for a push that can be made.
    """


@attrs.frozen
class Order:
    """
    What an entry asks for.

    @ivar user_id: C{None} for a broadcast.
    @ivar client_type: C{None} for all of the user's devices.
    """

    user_id: str | None
    client_type: int | None
    content: bytes
    flags: int
    timeout_ms: int
    tags: tuple[str, ...] | None
    condition: str | None
    task_id: str | None

    @classmethod
    def read(cls, fields: Mapping[bytes, bytes]) -> Order:
        """
        @raise Invalid: If a field is missing or cannot be used.
        """

        def text(name: str) -> str | None:
            value = fields.get(name.encode())
            if not value:
                return None
            try:
                return value.decode()
            except UnicodeDecodeError:
                raise Invalid(f"{name} is not UTF-8") from None

        def number(name: str, least: int, most: int) -> int | None:
            written = text(name)
            if written is None:
                return None
            try:
                value = int(written)
            except ValueError:
                raise Invalid(f"{name} is not a number") from None
            if not least <= value <= most:
                raise Invalid(f"{name} is not between {least} and {most}")
            return value

        user_id = text("user_id")
        if (user_id is None) == (text("broadcast") is None):
            raise Invalid("expected either user_id or broadcast")
        content = fields.get(b"content")
        if not content:
            raise Invalid("content is missing")
        ack = text("ack") or "none"
        if ack not in _ACKS:
            raise Invalid("ack is none of none, auto, biz")
        return cls(
            user_id,
            number("client_type", -128, 127) or None,
            content,
            _ACKS[ack],
            number("timeout_ms", 1, _MAX_TIMEOUT_MS) or 3000,
            _tags(text("tags")),
            text("condition"),
            text("task_id"),
        )


def _tags(written: str | None) -> tuple[str, ...] | None:
    if written is None:
        return None
    try:
        tags = json.loads(written)
    except (ValueError, RecursionError):
        tags = None
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise Invalid("tags is not a JSON list of texts")
    return tuple(tags)


@attrs.define(eq=False)
class Entry:
    """
    An entry that this node works on.

    @ivar open: Pushes that have not ended.
    @ivar results: What ended so far: fields for the stream of results.
    @ivar passed_on: Other nodes' streams, with what is written there.
    """

    stream: bytes
    entry_id: bytes
    fields: dict[bytes, bytes]
    open: int = 0
    results: list[dict[str, object]] = attrs.Factory(list)
    passed_on: list[tuple[str, dict[bytes, bytes]]] = attrs.Factory(list)

    @property
    def name(self) -> bytes:
        """
        How the results name it: as whoever wrote it did, or as Redis.
        """
        return self.fields.get(b"id") or self.entry_id

    @property
    def hops(self) -> int:
        """
        How often it has been passed on. Whoever wrote it may have written nonsense.
        """
        written = self.fields.get(b"hops", b"0")
        return int(written) if written.isdigit() else 0

    def pass_on(self, stream: str, client_type: int) -> None:
        """
        Have another node push to one of the user's devices.
        """
        self.passed_on.append(
            (
                stream,
                {
                    **self.fields,
                    b"id": self.name,
                    b"client_type": str(client_type).encode(),
                    b"hops": str(self.hops + 1).encode(),
                },
            )
        )

    def commands(
        self, results: str, max_length: int, group: str
    ) -> list[Sequence[object]]:
        """
        Give the commands that end this entry. They belong together: the entry is done
        if and only if its results are written.
        """
        commands: list[Sequence[object]] = [
            ("XADD", stream, "*", *_flat(fields)) for stream, fields in self.passed_on
        ]
        keep = ("MAXLEN", "~", max_length)
        for result in self.results:
            said = {name: value for name, value in result.items() if value is not None}
            commands.append(
                ("XADD", results, *keep, "*", "id", self.name, *_flat(said))
            )
        commands.append(("XACK", self.stream, group, self.entry_id))
        return commands


def _flat(fields: Mapping[Any, object]) -> list[object]:
    return [part for pair in fields.items() for part in pair]
