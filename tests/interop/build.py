"""
Builds the drivers in C{java/}, with what they need of Maven Central.

Once for a checkout: the result stays in C{java/*/target} until a source changes. The
first build on a machine downloads about 40 MB into Maven's own cache.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from tests.servers import missing, require

PROJECT = Path(__file__).parent / "java"

_TIMEOUT = 240.0
"""
Seconds for one attempt; 20 are usual with an empty cache, 3 with a full one.
"""

_ATTEMPTS = 2

_NETWORK = (
    "-Dmaven.wagon.http.connectionTimeout=20000",
    "-Dmaven.wagon.http.readTimeout=60000",
    "-Daether.connector.connectTimeout=20000",
    "-Daether.connector.requestTimeout=60000",
)
"""
Ends of waits for Maven Central, in ms, for either transport of Maven 3.
"""


@attrs.frozen
class Drivers:
    """
    Where the built drivers are.

    @ivar java: The program.
    @ivar server: Class path of C{NodeDriver} and C{SenderDriver}.
    @ivar device: Class path of C{DeviceDriver}; apart, because its library brings other
        classes under the same names.
    """

    java: str
    server: str
    device: str


_failed: str | None = None
"""
Why this process could not build them; it does not try again, which takes minutes.
"""


def build_drivers() -> Drivers:
    """
    Build them if need be.

    @raise SkipTest: Where Java or Maven or Maven Central is missing; under CI it is an
        C{AssertionError}, with what Maven said.
    """
    java, maven = require("java"), require("mvn")
    require("javac")
    if _failed is not None:
        missing(_failed)
    stamp = PROJECT / "target" / "built"
    stamp.parent.mkdir(exist_ok=True)
    with _locked(stamp.with_name("lock")):
        sources = _digest()
        if not (stamp.exists() and stamp.read_text() == sources):
            stamp.unlink(missing_ok=True)
            _build(maven)
            stamp.write_text(sources)
    return Drivers(java, _classpath("server"), _classpath("device"))


def _classpath(module: str) -> str:
    target = PROJECT / module / "target"
    return f"{target / 'classes'}:{target / 'lib'}/*"


def _digest() -> str:
    digest = hashlib.sha256()
    for path in sorted([*PROJECT.glob("**/pom.xml"), *PROJECT.glob("*/src/*.java")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(maven: str) -> None:
    for module in ("server", "device"):
        shutil.rmtree(PROJECT / module / "target", ignore_errors=True)
    command = [maven, "-B", "-q", *_NETWORK, "-f", str(PROJECT), "process-classes"]
    said = ""
    for _ in range(_ATTEMPTS):
        try:
            built = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=_TIMEOUT,
                env={**os.environ, "MAVEN_OPTS": "-Xmx256m"},
            )
        except subprocess.TimeoutExpired:
            said = f"it was not done after {_TIMEOUT:g} seconds"
            continue
        if built.returncode == 0:
            return
        said = built.stdout[-2000:]
    global _failed
    _failed = (
        f"Maven could not build {PROJECT} (it needs Maven Central the first time), "
        f"tried {_ATTEMPTS} times: {said}"
    )
    missing(_failed)
