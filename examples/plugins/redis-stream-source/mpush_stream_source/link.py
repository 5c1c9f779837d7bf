"""
A connection to Redis that is made again whenever it is lost.
"""

from __future__ import annotations

from typing import Any, cast

from txredisapi import RedisProtocol

from twisted.application.internet import ClientService, backoffPolicy
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

CONNECT_SECONDS = 5.0
REPLY_SECONDS = 5.0
"""
How long Redis may take to accept a connection, and for an answer. A server that takes
longer is given up, and its connection closed.
"""


class Redis(RedisProtocol):  # type: ignore[misc]
    """
    A connection; texts come as bytes.

    @ivar greeted: Whether somebody has answered who took the password.
    """

    greeted = False

    def __init__(self) -> None:
        super().__init__(charset=None, convertNumbers=False, replyTimeout=REPLY_SECONDS)

    async def greet(self, password: str) -> None:
        """
        Show the password, if any, and see that Redis is ready.
        """
        if password:
            await self.execute_command("AUTH", password)
        await self.execute_command("PING")
        self.greeted = True


class _Connections(Factory):
    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return Redis()


class RedisLink:
    """
    One connection, kept.
    """

    def __init__(self, reactor: Any, address: tuple[str, int], password: str) -> None:
        """
        @param password: Empty for none.
        """
        self._password = password
        self._service = ClientService(
            HostnameEndpoint(reactor, *address, timeout=CONNECT_SECONDS),
            _Connections(),
            retryPolicy=backoffPolicy(initialDelay=0.1, maxDelay=5.0),
            clock=reactor,
        )

    def start(self) -> None:
        """
        Begin to connect, and do so again after each loss.
        """
        self._service.startService()

    def stop(self) -> Deferred[None]:
        """
        Disconnect.
        """
        stopping: Deferred[None] = self._service.stopService()
        return stopping

    async def connected(self) -> Redis:
        """
        Wait for the connection.

        @raise txredisapi.RedisError: If who is there does not answer as Redis should;
            try again after a pause.
        """
        redis = cast(Redis, await self._service.whenConnected())
        if not redis.greeted:
            try:
                await redis.greet(self._password)
            except Exception:
                redis.transport.abortConnection()
                raise
        return redis
