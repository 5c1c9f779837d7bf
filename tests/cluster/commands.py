"""
What goes to Redis and ZooKeeper, in a form in which two runs can be compared.

Names take the place of what differs from run to run: connection ids, session ids, key
material, ports, and the ids of registrations.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from kazoo.client import KazooClient

from tests.servers.redis import RedisServer

_SESSION = re.compile(r"(?<=mp:rs:)[0-9a-f]{32}")
_NUMBERS = r"-?\d{1,3}(?:\|-?\d{1,3}){15}"
_MATERIAL = re.compile(rf"(?<=,){_NUMBERS},{_NUMBERS}(?=\"|$)")
_CONNECTION = re.compile(r'(?<=connId\\":\\")[0-9a-f]{8}|(?<=connId":")[0-9a-f]{8}')
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Names:
    """
    Gives names to what differs, in order of appearance.
    """

    def __init__(self, ports: Mapping[int, str]) -> None:
        """
        @param ports: The port numbers of a run and what to call them.
        """
        self._ports = [
            (re.compile(rf"(?<![0-9]){number}(?![0-9])"), f"<{name}>")
            for number, name in ports.items()
        ]
        self._known: dict[str, str] = {}
        self._counts: dict[str, int] = {}

    def in_place(self, text: str) -> str:
        """
        Put names into a command, a key or a value.
        """
        text = _MATERIAL.sub("<key>,<iv>", text)
        text = _SESSION.sub(lambda match: self._name("session", match[0]), text)
        text = _CONNECTION.sub(lambda match: self._name("conn", match[0]), text)
        for pattern, name in self._ports:
            text = pattern.sub(name, text)
        return text

    def _name(self, kind: str, value: str) -> str:
        if value not in self._known:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            self._known[value] = f"<{kind} {self._counts[kind]}>"
        return self._known[value]


@attrs.frozen
class Difference:
    """
    Where our commands differ from the original's at one step, and why.

    @ivar theirs: Consecutive commands of the original, as in the recording but with
        names in place; none for an addition.
    @ivar ours: What our node sends in their place.
    @ivar before: With an addition, the command of the original before which it goes;
        without one it goes to the end.
    """

    step: str
    theirs: Sequence[str]
    ours: Sequence[str]
    why: str
    before: str = ""

    def apply(self, commands: Sequence[str]) -> list[str]:
        """
        Put ours into the original's commands.

        @raise LookupError: If theirs is not there: the entry is out of date.
        """
        if not self.theirs and not self.before:
            return [*commands, *self.ours]
        theirs = list(self.theirs) or [self.before]
        for start in range(len(commands)):
            end = start + len(theirs)
            if list(commands[start:end]) == theirs:
                rest = commands[start:] if self.before else commands[end:]
                return [*commands[:start], *self.ours, *rest]
        raise LookupError(f"{self.step}: {theirs} is not in {list(commands)}")


def store_of(server: RedisServer) -> dict[str, dict[str, Any]]:
    """
    Read the whole store, in the form of the recording.
    """
    return {
        key: {
            "type": (kind := server.cli("TYPE", key)),
            "ttl": int(server.cli("TTL", key)),
            "value": _VALUES[kind](server, key),
        }
        for key in sorted(server.cli("KEYS", "*").splitlines())
    }


def _hash(server: RedisServer, key: str) -> dict[str, str]:
    lines = server.cli("HGETALL", key).splitlines()
    return dict(zip(lines[::2], lines[1::2], strict=True))


def _sorted_set(server: RedisServer, key: str) -> list[list[Any]]:
    lines = server.cli("ZRANGE", key, "0", "-1", "WITHSCORES").splitlines()
    return [
        [member, float(score)]
        for member, score in zip(lines[::2], lines[1::2], strict=True)
    ]


_VALUES = {
    "string": lambda server, key: server.cli("GET", key),
    "hash": _hash,
    "zset": _sorted_set,
    "list": lambda server, key: server.cli("LRANGE", key, "0", "-1").splitlines(),
}


def tree_of(address: str, digest: str | None) -> dict[str, dict[str, Any]]:
    """
    Read the whole tree of a ZooKeeper but what is its own, in the form of the
    recording. Blocks.

    @param digest: Text of the digest authentication; C{None} for none.
    """
    auth = None if digest is None else [("digest", digest)]
    client = KazooClient(hosts=address, auth_data=auth, timeout=10.0)
    client.start(timeout=10.0)
    try:
        tree: dict[str, dict[str, Any]] = {}
        _read(client, "/", tree)
        return tree
    finally:
        client.stop()
        client.close()


def _read(client: KazooClient, path: str, tree: dict[str, dict[str, Any]]) -> None:
    data, status = client.get(path)
    acls, _ = client.get_acls(path)
    tree[path] = {
        "data": data.decode(),
        "ephemeral": status.ephemeralOwner != 0,
        "version": status.version,
        "acl": [
            {"scheme": acl.id.scheme, "id": acl.id.id, "perms": acl.perms}
            for acl in acls
        ],
    }
    for child in sorted(client.get_children(path)):
        if path != "/" or child != "zookeeper":
            _read(client, f"{path.rstrip('/')}/{child}", tree)


def with_names(tree: Mapping[str, Any], names: Names) -> list[tuple[str, Any]]:
    """
    Put names into a tree; siblings that have the same name then are told apart by what
    they hold.
    """
    named = [
        (
            _UUID.sub("<id>", path),
            {**entry, "data": names.in_place(entry["data"])},
        )
        for path, entry in tree.items()
    ]
    return sorted(named, key=lambda item: (item[0], item[1]["data"]))
