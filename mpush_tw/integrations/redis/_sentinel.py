"""
The master that sentinels name, and its fail-over (cluster 2.1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mpush_tw.config.settings import RedisSettings
from mpush_tw.errors import Unavailable
from mpush_tw.integrations.redis._connection import (
    Address,
    Connection,
    Lost,
    Refused,
)
from mpush_tw.integrations.redis._dial import OWN_PASSWORD, Dialler, reach_any
from mpush_tw.integrations.redis._pool import Pool, PoolLimits

_SWITCHED = "+switch-master"


class Sentinels:
    """
    Leads to the master.

    Sentinels are asked anew for each connection, and what they name must call itself a
    master. That the master changed is heard from one of them (C{+switch-master}); who
    does not hear it loses the connection to the old master, or is told by it that it is
    read-only.
    """

    _log = Logger()
    follows = True

    def __init__(self, settings: RedisSettings, dialler: Dialler) -> None:
        """
        @param settings: C{nodes} are the sentinels, each with its own password or none;
            C{password} is the master's.
        """
        self._dialler = dialler
        self._master = settings.sentinel_master
        self._password = settings.password
        self._sentinels = {
            Address(node.host, node.port): node.password
            for node in settings.sentinels()
        }
        self._moved: Callable[[Callable[[Address], bool]], None] | None = None
        self._asking: Deferred[Any] | None = None
        listed = ", ".join(map(str, self._sentinels))
        self.name = f"the Redis master {self._master} of the sentinels {listed}"
        self._watch = Pool(
            f"a sentinel of {listed}",
            "sentinels' news",
            self._listen,
            PoolLimits(),
            dialler.reactor,
            back=self._ask_again,
        )

    async def dial(self) -> Connection:
        address = await reach_any(self._sentinels, self._ask)
        connection = await self._dialler.connect(address, self._password)
        try:
            role = await connection.send(("ROLE",))
        except (Lost, Refused) as error:
            connection.abort("is not wanted")
            raise Unavailable(
                f"Redis at {address} does not tell its role: {error}"
            ) from None
        except BaseException:
            connection.abort("is not wanted")
            raise
        if role[0] != "master":
            connection.abort("is not wanted")
            raise Unavailable(
                f"Redis at {address}, which a sentinel calls the master "
                f"{self._master}, is none"
            )
        return connection

    def start(self, moved: Callable[[Callable[[Address], bool]], None]) -> None:
        self._moved = moved
        self._watch.open()

    def stop(self) -> Deferred[None]:
        self._moved = None
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()
        return self._watch.stop()

    async def _connect(self, sentinel: Address) -> Connection:
        return await self._dialler.connect(
            sentinel, self._sentinels[sentinel], "the sentinel", OWN_PASSWORD
        )

    async def _ask(self, sentinel: Address) -> Address:
        connection = await self._connect(sentinel)
        try:
            named = await connection.send(
                ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._master)
            )
        except (Lost, Refused) as error:
            raise Unavailable(f"the sentinel at {sentinel}: {error}") from None
        finally:
            connection.close()
        if named is None:
            raise Unavailable(
                f"the sentinel at {sentinel} knows no master {self._master}: "
                "see mp.redis.sentinel-master"
            )
        host, port = named
        return Address(host, int(port))

    # ------------------------------------------------------------- fail-over

    async def _listen(self) -> Connection:
        """
        Make a connection to any sentinel that tells of fail-overs.
        """
        return await reach_any(self._sentinels, self._listen_to)

    async def _listen_to(self, sentinel: Address) -> Connection:
        connection = await self._connect(sentinel)
        connection.message_received = self._heard
        try:
            await connection.send(("SUBSCRIBE", _SWITCHED))
        except (Lost, Refused) as error:
            connection.abort("is not wanted")
            raise Unavailable(f"the sentinel at {sentinel}: {error}") from None
        except BaseException:
            connection.abort("is not wanted")
            raise
        return connection

    def _heard(self, channel: str | bytes, payload: str | bytes) -> None:
        if not isinstance(payload, str):
            return
        name, *addresses = payload.split(" ")
        if name == self._master and len(addresses) == 4 and addresses[3].isdecimal():
            self._log.warn(
                "Redis master {name} is now at {address}",
                name=name,
                address=":".join(addresses[2:]),
            )
            self._use(Address(addresses[2], int(addresses[3])))

    def _use(self, master: Address) -> None:
        if self._moved is not None:
            self._moved(lambda address: address == master)

    def _ask_again(self) -> None:
        """
        Nothing was heard for a while: look who is the master now.
        """
        if self._asking is None:
            self._asking = Deferred.fromCoroutine(reach_any(self._sentinels, self._ask))
            self._asking.addCallbacks(self._use, self._not_answered)
            self._asking.addBoth(self._answered)

    def _not_answered(self, failure: Failure) -> None:
        failure.trap(Unavailable, CancelledError)

    def _answered(self, result: object) -> None:
        self._asking = None
        if isinstance(result, Failure):
            self._log.failure("asking sentinels", result)
