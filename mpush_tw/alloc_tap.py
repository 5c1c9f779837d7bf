"""
C{twistd mpush-alloc}: options, and the service made from them.
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import IService

from mpush_tw import tap
from mpush_tw.alloc import AllocService
from mpush_tw.config import load_settings
from mpush_tw.errors import ConfigError
from mpush_tw.process import EndsProcess, give_up, raise_file_limit

_CONSENT = "mp.security.allow-sample-key=true"
"""
Alloc handshakes with nobody: it is content with any key, and with none.
"""


class Options(tap.Options):
    """
    The little that an operator changes for one run.
    """

    longdesc = (
        "Run alloc, the HTTP service that tells clients which servers of a cluster to "
        "connect to. Without --config the file named by MP_CONF is read. The file of a "
        "node will do, or one that says where its Redis and ZooKeeper are."
    )
    optParameters = [
        ["config", "c", None, "The configuration, a HOCON file such as alloc.conf."]
    ]


class MpushAlloc(EndsProcess, AllocService):
    """
    Alloc as a process.
    """


def makeService(options: Options, reactor: Any = None) -> IService:
    """
    Make the service; called by C{twistd}.
    """
    if reactor is None:
        from twisted.internet import reactor
    try:
        raise_file_limit()
        loaded = load_settings(options["config"], [*options["set"], _CONSENT])
        service: IService = MpushAlloc(loaded, reactor)
    except ConfigError as error:
        give_up(error)
    return service
