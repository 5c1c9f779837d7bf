"""
A network of one's own for the tests with UDP.

The original wants a private address for UDP, multicast has to work, and nobody outside
should hear of it. So the tests run where there is only a loopback interface, with
private addresses on it: in a network namespace, which Linux gives to ordinary users
too.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Sequence

_PREPARE = """\
ip link set lo up multicast on
for number in 2 3 4 5 6 7 8 9; do ip address add 10.77.0.$number/24 dev lo; done
ip route add 224.0.0.0/4 dev lo
"""


def problem() -> str | None:
    """
    Say why there is no such network on this machine; C{None} if there is.
    """
    for program in ("unshare", "ip"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    tried = subprocess.run(inside(["true"]), capture_output=True, text=True, timeout=20)
    return tried.stderr.strip() or "unshare failed" if tried.returncode else None


def inside(command: Sequence[str]) -> list[str]:
    """
    Make the command that runs another in a network of its own.
    """
    script = f"set -e\n{_PREPARE}exec {shlex.join(command)}"
    return ["unshare", "--map-root-user", "--net", "sh", "-c", script]
