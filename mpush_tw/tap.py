"""
C{twistd mpush}: options, and the service made from them.
"""

from __future__ import annotations

import gc
from typing import Any

from twisted.application.service import IService
from twisted.python import usage

from mpush_tw.config import load_settings
from mpush_tw.embedding import ServerLauncher
from mpush_tw.errors import ConfigError
from mpush_tw.process import EndsProcess, give_up, raise_file_limit
from mpush_tw.service import Node


class Options(usage.Options):
    """
    The little that an operator changes for one run.
    """

    synopsis = "[--config FILE] [--set mp.key=value]..."
    longdesc = (
        "Run an MPush server. Without --config the file named by MP_CONF is read, or "
        "none: then everything has its default and the node is standalone. "
        "`mpush config check FILE` looks at a file without starting anything."
    )
    optParameters = [
        ["config", "c", None, "The configuration, a HOCON file such as mpush.conf."]
    ]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self["set"] = []

    def opt_set(self, setting: str) -> None:
        """
        Override one key for this run: mp.key=value. May be repeated.
        """
        if "=" not in setting:
            raise usage.UsageError(f"--set {setting}: expected mp.key=value")
        self["set"].append(setting)


class MpushNode(EndsProcess, Node):
    """
    A node as a process.
    """


def makeService(options: Options, reactor: Any = None) -> IService:
    """
    Make the service; called by C{twistd}.
    """
    if reactor is None:
        from twisted.internet import reactor
    try:
        # First, because the node asks how many connections that leaves room for.
        raise_file_limit()
        loaded = load_settings(options["config"], options["set"])
        node = ServerLauncher(loaded, reactor, make_node=MpushNode).init()
    except ConfigError as error:
        give_up(error)
    _tune_garbage_collection()
    return node


def _tune_garbage_collection() -> None:
    """
    Collect less eagerly: tens of thousands of long-lived connections make each full
    collection long, and there is next to no cyclic garbage.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
