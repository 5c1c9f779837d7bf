"""
Real servers for tests: started on free loopback ports, each with a directory of its
own, and ended with the test process whatever becomes of it.

The calls block, a few milliseconds for most, so that they can be made anywhere in a
test; what is tested talks to the servers through its reactor.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import signal
import socket
from typing import NoReturn
from unittest import SkipTest

LOOPBACK = "127.0.0.1"

_PORTS = range(15000, 32000)
_SET_PARENT_DEATH_SIGNAL = 1
_libc = ctypes.CDLL(None)


def require(program: str) -> str:
    """
    Find a program; without it the test is skipped, but under CI it fails.

    @param program: Its name, as typed.
    @return: Its path.
    """
    path = shutil.which(program)
    if path is None:
        missing(f"{program} is not installed")
    return path


def missing(reason: str) -> NoReturn:
    """
    Skip the test for want of something; under CI, fail it.

    @param reason: What is missing, as a sentence.
    @raise SkipTest: Unless this is CI.
    @raise AssertionError: Under CI.
    """
    if os.environ.get("CI") == "true":
        raise AssertionError(reason)
    raise SkipTest(reason)


def free_port() -> int:
    """
    Find a loopback port that nobody listens on.

    It lies below the range from which the kernel takes the ports of outgoing
    connections: nobody gets it by chance while its server is down, and a client that
    knocks there all the time cannot be connected to itself.
    """
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port


def end_with_parent() -> None:
    """
    Have the kernel end this process when the one that started it ends: for
    C{preexec_fn} of L{subprocess.Popen}.
    """
    _libc.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
