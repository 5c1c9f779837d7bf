"""
Devices that come back: many real device clients in this process.

L{mpush_tw.bench.fleet} measures with the cheapest connections there are; these here are
L{mpush_tw.client.Client}, with its reconnects and its automatic acknowledgements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from mpush_tw.client import Client, ClientError, ClientListener, ClientSettings
from mpush_tw.protocol.crypto import RsaPublicKey

__all__ = ["Crowd"]

_AT_ONCE = 64
"""
Devices that shake hands at the same time.
"""

_LOOK_EVERY = 0.02


class _Member(ClientListener):
    """
    One device and what has happened to it.
    """

    client: Client

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.bound = False

    def on_disconnected(self, reason: ClientError) -> None:
        self.crowd.drops += self.bound
        self.bound = False

    def on_bind(self, success: bool, user_id: str) -> None:
        self.bound = success
        self.crowd.refused += not success

    def on_unbind(self, success: bool, user_id: str) -> None:
        self.bound = False

    def on_kick_user(self, device_id: str, user_id: str) -> None:
        self.crowd.kicks += 1

    def on_receive_push(self, content: bytes, message_id: int) -> None:
        self.crowd.on_push(content)


class Crowd:
    """
    A device for each user, spread evenly over the servers; one that loses its server
    goes to the next.

    @ivar drops: How often a bound device has lost its connection.
    @ivar kicks: How often a device was told to leave.
    @ivar refused: How often a BIND was refused.
    """

    def __init__(
        self,
        reactor: Any,
        public_key: str,
        servers: Sequence[tuple[str, int]],
        users: Iterable[str],
        on_push: Callable[[bytes], None],
        device: str = "crowd",
    ) -> None:
        """
        @param servers: Connect addresses. User n begins with the server n modulo their
            number.
        @param on_push: Called with the content of each push that a device gets.
        @param device: Begins the device ids; the user id follows.
        """
        self._reactor = reactor
        self.on_push = on_push
        self.drops = self.kicks = self.refused = 0
        self._members: dict[str, _Member] = {}
        key = RsaPublicKey.load(public_key)
        for number, user_id in enumerate(users):
            first = number % len(servers)
            settings = ClientSettings(
                device_id=f"{device}-{user_id}",
                servers=tuple(
                    f"{host}:{port}"
                    for host, port in (*servers[first:], *servers[:first])
                ),
                public_key=key,
                os_name="android",
                client_version="1.0",
                user_id=user_id,
            )
            member = self._members[user_id] = _Member(self)
            member.client = Client(settings, member, reactor=reactor)

    @property
    def users(self) -> list[str]:
        """
        The users of the devices that have not left.
        """
        return list(self._members)

    @property
    def bound(self) -> int:
        """
        How many devices are bound now.
        """
        return sum(member.bound for member in self._members.values())

    async def come(self, seconds: float = 60.0) -> None:
        """
        Connect and bind all devices, some at a time.

        @raise RuntimeError: If they are not all bound in that time.
        """
        deadline = self._reactor.seconds() + seconds
        waiting = list(self._members.values())
        waiting.reverse()
        begun: list[_Member] = []
        while waiting:
            begun = [member for member in begun if not member.bound]
            while waiting and len(begun) < _AT_ONCE:
                member = waiting.pop()
                begun.append(member)
                member.client.start()
            if self._reactor.seconds() > deadline:
                break
            await deferLater(self._reactor, _LOOK_EVERY)
        await self.all_bound(deadline - self._reactor.seconds())

    async def all_bound(self, seconds: float) -> float:
        """
        Wait until every device that has not left is bound.

        @return: Seconds that took.
        @raise RuntimeError: If it takes longer than C{seconds}.
        """
        start = self._reactor.seconds()
        while self.bound < len(self._members):
            if self._reactor.seconds() - start > seconds:
                raise RuntimeError(
                    f"{self.bound} of {len(self._members)} devices bound after "
                    f"{seconds:g} s"
                )
            await deferLater(self._reactor, _LOOK_EVERY)
        taken: float = self._reactor.seconds() - start
        return taken

    def client(self, user_id: str) -> Client:
        """
        The device of a user.
        """
        return self._members[user_id].client

    async def reconnect(self) -> None:
        """
        Have all devices close their connections and connect again at once.
        """
        for member in self._members.values():
            # What they hear now is of their own making.
            member.bound = False
            await member.client.stop()
        for member in self._members.values():
            member.client.start()

    def leave(self, users: Iterable[str]) -> Deferred[None]:
        """
        Close the connections of some devices for good, without a word to the server.
        """
        gone = [self._members.pop(user_id) for user_id in users]
        for member in gone:
            # As above.
            member.bound = False
        stopped = gatherResults([member.client.stop() for member in gone])
        return stopped.addCallback(lambda _: None)

    def close(self) -> Deferred[None]:
        """
        Let all devices leave.
        """
        return self.leave(self.users)
