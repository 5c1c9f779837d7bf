"""
Our device and our sender with the surface of the original's, so that a test can be
written for either.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from typing import Any
from unittest import mock

import attrs

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from mpush_tw import cluster
from mpush_tw.client import (
    Client,
    ClientListener,
    ClientSettings,
    ISessionStorage,
    KickPolicy,
)
from mpush_tw.config import Settings, load_settings
from mpush_tw.integrations.memory import MemoryQueue
from mpush_tw.sender import AckModel, PushContext, PushResult
from tests.interop.processes import ACK_DELAY, Outcome, until
from tests.support import SAMPLE


class OurDevice(ClientListener):
    """
    A device with our client, that does nothing by itself when it is kicked.

    @ivar pushes: The texts received, with the ids to confirm or 0, in order.
    @ivar kicks: The users it was kicked for.
    @ivar connects: How often it has had a connection.
    @ivar ack_delay: Seconds until a push is acknowledged automatically: see
        L{ACK_DELAY}.
    """

    ack_delay = ACK_DELAY

    def __init__(
        self,
        name: str,
        server: tuple[str, int],
        user: str | None = None,
        os_name: str = "android",
        storage: ISessionStorage | None = None,
        tags: str | None = None,
        alloc: str | None = None,
    ) -> None:
        """
        @param alloc: The URL where it asks for a server, instead of C{server}.
        """
        self.name = name
        self.user = user
        self.tags = tags
        self.pushes: list[tuple[str, int]] = []
        self.kicks: list[str] = []
        self.connects = 0
        self._acks: set[Deferred[None]] = set()
        self._client = Client(
            ClientSettings(
                device_id=name,
                server_host=None if alloc else server[0],
                server_port=server[1],
                alloc_server=alloc,
                public_key=SAMPLE["rsaPublicKeyBase64"],
                os_name=os_name,
                session_storage=storage,
                kick_policy=KickPolicy.REBIND,
            ),
            self,
            reactor=reactor,
        )

    @property
    def server(self) -> tuple[str, int] | None:
        """
        Where it is connected.
        """
        return self._client.server

    async def connect(self) -> None:
        """
        Connect, shake hands or come back by the stored session, and bind the user.
        """
        self._client.start()
        await self._client.when_online().addTimeout(10, reactor)
        if self.user is not None:
            await self._client.bind_user(self.user, self.tags)

    def leave(self) -> Deferred[None]:
        """
        Close the connection and stay away.
        """
        for waiting in [*self._acks]:
            waiting.cancel()
        return self._client.stop()

    def ack(self, message_id: int) -> None:
        """
        Confirm a push as the application does.
        """
        assert self._client.ack(message_id)

    def on_connected(self) -> None:
        self.connects += 1

    def on_receive_push(self, content: bytes, message_id: int) -> Deferred[None]:
        self.pushes.append((content.decode(), message_id))
        waiting: Deferred[None] = deferLater(reactor, self.ack_delay)
        self._acks.add(waiting)
        return waiting.addBoth(lambda _: self._acks.discard(waiting))

    def on_kick_user(self, device_id: str, user_id: str) -> None:
        self.kicks.append(user_id)

    async def pushed(self, text: str, seconds: float = 5.0) -> int:
        """
        Wait for a push.

        @return: Its id, 0 if the application need not confirm.
        """

        def found() -> list[int]:
            return [number for said, number in self.pushes if said == text]

        return (await until(found, f"the push {text!r} to {self.name}", seconds))[0]

    async def kicked(self) -> None:
        """
        Wait until it is kicked.
        """
        await until(lambda: self.kicks, f"{self.name} to be kicked")


_shared_stores = cluster.shared_stores


def _deaf_stores(settings: Settings, clock: Any, extensions: Any = None) -> Any:
    """
    The cluster's stores, but a message queue in which nobody says anything.
    """
    return attrs.evolve(
        _shared_stores(settings, clock, extensions), queue=MemoryQueue(clock)
    )


class OurSender:
    """
    Our sender in the cluster, with the surface of L{JavaSender}.
    """

    def __init__(self, settings: Sequence[str], deaf: bool = False) -> None:
        """
        @param settings: Lines of configuration.
        @param deaf: Whether it shall not hear when users come and go, and so believe
            what it has looked up until somebody tells it better.
        """
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as conf:
            conf.write("\n".join([*settings, "mp.security.allow-sample-key=true"]))
            conf.flush()
            loaded = load_settings(conf.name).settings
        stores = _deaf_stores if deaf else _shared_stores
        with mock.patch.object(cluster, "shared_stores", stores):
            self._sender = cluster.cluster_sender(loaded, reactor=reactor)
        self._results: list[PushResult | Failure | None] = []

    def start(self) -> Deferred[None]:
        """
        Connect to the stores and to the gateways found.
        """
        return self._sender.start()

    def stop(self) -> Deferred[None]:
        """
        Close all connections.
        """
        return self._sender.stop()

    def begin_push(
        self, user: str, text: str, ack: str = "NO_ACK", timeout_ms: int = 3000
    ) -> int:
        """
        See L{JavaSender.begin_push}.
        """
        context = PushContext(
            content=text.encode(),
            user_id=user,
            ack=AckModel[ack],
            timeout=timeout_ms / 1000,
        )
        number = len(self._results)
        self._results.append(None)
        self._sender.send(context).addBoth(partial(self._results.__setitem__, number))
        return number

    async def broadcast(
        self,
        text: str,
        tags: str | None = None,
        condition: str | None = None,
        task: str | None = None,
    ) -> int:
        """
        See L{JavaSender.broadcast}.
        """
        context = PushContext(
            content=text.encode(),
            tags=None if tags is None else tags.split(","),
            condition=condition,
            task_id=task,
        )
        return int((await self._sender.broadcast(context)).code)

    def has_result(self, number: int) -> bool:
        """
        Whether a push has a result.
        """
        return self._results[number] is not None

    async def result(self, number: int) -> Outcome:
        """
        Wait for the result of a push.
        """
        await until(lambda: self.has_result(number), "the result of a push")
        result = self._results[number]
        if isinstance(result, Failure):
            result.raiseException()
        assert isinstance(result, PushResult)
        route = result.location
        return Outcome(
            int(result.code),
            None if route is None else f"{route.host}:{route.port}",
            None if route is None else route.client_type,
            [name for name, _ in result.time_line],
        )

    async def push(
        self, user: str, text: str, ack: str = "NO_ACK", timeout_ms: int = 3000
    ) -> Outcome:
        """
        See L{JavaSender.push}.
        """
        return await self.result(self.begin_push(user, text, ack, timeout_ms))
