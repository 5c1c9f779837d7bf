"""
A node in a program of one's own (operations 5)::

    launcher = ServerLauncher("/etc/mpush/mpush.conf")
    await launcher.start()
    ...
    await launcher.stop()

C{twistd mpush} starts its node by a launcher, too. Several launchers in one process
have nothing in common.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from mpush_tw.config import LoadedSettings, load_settings
from mpush_tw.errors import MPushError
from mpush_tw.extensions import Extension
from mpush_tw.interfaces import IServerEventListener
from mpush_tw.service import Node

Config = str | os.PathLike[str] | Mapping[str, Any] | LoadedSettings | None
"""
What a launcher takes for its configuration.
"""


class ServerLauncher:
    """
    Makes a node, starts it and stops it.

    @ivar server: The node, C{None} before L{init}. It has what plug-ins are given as
        well: C{cache}, C{queue}, C{registry}, C{discovery}, C{events}, C{metrics}.
    @ivar config: What was given; after L{init} a L{LoadedSettings}.
    @ivar listener: Hears the node's events, beside the listeners that are installed;
        may be set until L{init}.
    @ivar extensions: Plug-ins of this program for this node; may be set until L{init}.
    """

    def __init__(
        self,
        config: Config = None,
        reactor: Any = None,
        listener: IServerEventListener | None = None,
        extensions: Sequence[Extension] = (),
        *,
        make_node: Callable[..., Node] = Node,
    ) -> None:
        """
        @param config: A file; or a mapping, of dotted keys (C{mp.net.…}), of C{mp}, or
            of what stands in C{mp}; or what L{load_settings} gave. Nothing: the file of
            C{MP_CONF}, or the defaults.
        @param reactor: The one that the program runs; the process's by default.
        @param listener: See C{listener}.
        @param make_node: Called as L{Node} is.
        """
        self.config = config
        self.listener = listener
        self.extensions = extensions
        self.server: Node | None = None
        self._reactor = reactor
        self._make_node = make_node
        self._waiting: list[Deferred[Node]] = []
        self._started: Node | Failure | None = None
        self._starting = False
        self._stopping = False

    def init(self) -> Node:
        """
        Read the configuration and make the node; nothing is opened. Idempotent.

        @raise ConfigError: If the configuration cannot be read or used.
        """
        if self.server is None:
            if self._reactor is None:
                from twisted.internet import reactor

                self._reactor = reactor
            loaded = _load(self.config)
            extensions = list(self.extensions)
            listener = self.listener
            if listener is not None:
                extensions.append(
                    Extension(IServerEventListener, "launcher", lambda: listener)
                )
            self.server = self._make_node(loaded, self._reactor, extensions=extensions)
            self.config = loaded
        return self.server

    def start(self) -> Deferred[Node]:
        """
        Start the node, made by L{init} if need be. Idempotent.

        @return: A L{Deferred} firing with the node when it serves. It fails with what
            kept it from starting, when what had been opened is closed again.
        """
        if self._stopping:
            return fail(MPushError("this launcher was stopped; make another"))
        if not self._starting:
            self._starting = True
            self._start()
        if self._started is not None:
            return _fired(self._started)
        waiter: Deferred[Node] = Deferred()
        self._waiting.append(waiter)
        return waiter

    def _start(self) -> None:
        try:
            node = self.init()
            node.privilegedStartService()
            node.startService()
        except Exception:
            self._settle(Failure())
        else:
            node.started.addCallbacks(lambda _: node).addBoth(self._settle)

    def _settle(self, outcome: Node | Failure) -> None:
        if isinstance(outcome, Failure):
            outcome.cleanFailure()
        self._started = outcome
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(outcome)

    def stop(self) -> Deferred[None]:
        """
        Stop the node, whether it serves, is being started, could not be started, or was
        never to be. Idempotent.

        @return: A L{Deferred} firing when all is closed.
        """
        self._stopping = True
        if self.server is None or not self._starting:
            return succeed(None)
        waiter: Deferred[None] = Deferred()

        def stopped(result: object) -> object:
            waiter.callback(None)
            return result

        self.server.stopService().addBoth(stopped)
        return waiter


def _fired(outcome: Node | Failure) -> Deferred[Node]:
    return fail(outcome) if isinstance(outcome, Failure) else succeed(outcome)


def _load(config: Config) -> LoadedSettings:
    if isinstance(config, LoadedSettings):
        return config
    if isinstance(config, Mapping):
        return load_settings(tree=_whole(config))
    return load_settings(None if config is None else os.fspath(config))


def _whole(config: Mapping[str, Any]) -> dict[str, Any]:
    """
    Give a mapping of any of the three forms as a tree with C{mp} at its root.
    """
    if not any(key == "mp" or key.startswith("mp.") for key in config):
        return {"mp": dict(config)}
    whole: dict[str, Any] = {}
    for key, value in config.items():
        path = key.split(".") if key.startswith("mp.") else [key]
        tree = whole
        for name in path[:-1]:
            tree = cast("dict[str, Any]", tree.setdefault(name, {}))
        tree[path[-1]] = _merged(tree.get(path[-1]), value)
    return whole


def _merged(old: Any, new: Any) -> Any:
    """
    Lay an object over another, so that dotted keys may stand beside their section.
    """
    if not isinstance(new, Mapping):
        return new
    old = dict(old) if isinstance(old, Mapping) else {}
    return old | {key: _merged(old.get(key), value) for key, value in new.items()}
