"""
Which room of the package may see which: imports flow one way (STYLE 2, DESIGN 6).

Each room is imported whole in a fresh interpreter, and what came with it is looked at.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mpush_tw"
COMPOSITION = (
    "service",
    "tap",
    "cluster",
    "start_notices",
    "embedding",
    "parts",
    "stores",
    "extension_context",
    "sender_extensions",
    "alloc",
    "alloc_tap",
    "process",
)
"""
The modules where everything is put together; beside them only C{cli} knows everybody.
"""

MAY_NOT_SEE = {
    "protocol": ("core", "transports", "integrations", "client", "sender", "config"),
    "config": ("core", "transports", "integrations", "client", "sender"),
    "core": ("transports", "integrations", "client", "sender"),
    "integrations": ("core", "transports", "client", "sender"),
    "transports": ("integrations", "client", "sender"),
    "client": ("core", "transports", "integrations", "sender"),
    "sender": ("core", "transports", "integrations", "client"),
}

IMPORT = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(*sys.modules)
"""


def modules_of(room: str) -> list[str]:
    """
    List the modules of a room that are on disk; none when there is no such room yet.
    """
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((PACKAGE / room).rglob("*.py"))
    ]


@cache
def seen_from() -> dict[str, set[str]]:
    """
    Import each room in an interpreter of its own, all at the same time.

    @return: For each room on disk the names of all modules that are loaded then.
    """
    running = {
        room: subprocess.Popen(
            [sys.executable, "-c", IMPORT, *modules],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for room in MAY_NOT_SEE
        if (modules := modules_of(room))
    }
    said = {room: process.communicate(timeout=60) for room, process in running.items()}
    for room, process in running.items():
        if process.returncode:
            raise AssertionError(f"{room} cannot be imported alone:\n{said[room][1]}")
    return {room: set(output.split()) for room, (output, _) in said.items()}


def names_the_reactor(path: Path) -> bool:
    """
    Whether a module imports the global reactor, anywhere in it and in any spelling.
    """
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
        else:
            continue
        if "twisted.internet.reactor" in names:
            return True
    return False


class RoomTests(SynchronousTestCase):
    """
    The order of the rooms.
    """

    def test_every_room_has_its_rule(self) -> None:
        """
        A new room gets a line above; the programs that people type need none.
        """
        rooms = {path.parent.name for path in PACKAGE.glob("*/*.py")}
        self.assertEqual(rooms - set(MAY_NOT_SEE) - {"cli", "bench"}, set())
        self.assertLessEqual({"protocol", "core"}, set(seen_from()))

    def test_imports_flow_one_way(self) -> None:
        """
        No room sees a room that it may not see.
        """
        for room, modules in seen_from().items():
            rooms = {name.split(".")[1] for name in modules if "mpush_tw." in name}
            self.assertEqual(rooms & set(MAY_NOT_SEE[room]), set(), room)

    def test_only_programs_know_the_composition(self) -> None:
        """
        No room sees the modules where everything is put together, nor the programs.
        """
        for room, modules in seen_from().items():
            for name in (*COMPOSITION, "cli", "bench"):
                self.assertNotIn(f"mpush_tw.{name}", modules, room)

    def test_protocol_sees_no_network(self) -> None:
        """
        The protocol room could be lifted into another framework: it brings none.
        """
        seen = {name for name in seen_from()["protocol"] if name.startswith("twisted")}
        self.assertEqual(seen, set())

    def test_nobody_chooses_the_reactor(self) -> None:
        """
        No room imports the global reactor; C{twistd} chooses it and C{tap} names it.
        """
        for room, modules in seen_from().items():
            self.assertNotIn("twisted.internet.reactor", modules, room)

    def test_nobody_names_the_reactor(self) -> None:
        """
        Nor does any module do so later, inside a function; everybody gets a clock. The
        commands that people type are programs and may; so may what runs the reactor for
        programs that have none, and what starts nodes for programs that have one.
        """
        naming = {
            path.relative_to(PACKAGE).as_posix()
            for path in PACKAGE.rglob("*.py")
            if names_the_reactor(path)
        }
        self.assertIn("tap.py", naming)
        naming -= {"tap.py", "alloc_tap.py", "reactor_thread.py", "embedding.py"}
        self.assertEqual(
            {name for name in naming if not name.startswith("cli/")}, set()
        )
