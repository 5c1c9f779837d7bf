"""
The master that sentinels name, and its fail-over (cluster 2.1).
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.logger import Logger

from mpush_tw.config.settings import RedisSettings
from mpush_tw.errors import Unavailable
from mpush_tw.integrations.redis._connection import (
    Address,
    Connection,
    Lost,
    Refused,
    Reply,
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

    What was heard counts more than what is asked: for a while after a fail-over other
    sentinels go on to name the old master, and that one to believe them. What it is
    told then is lost.
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
        self._question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._master)
        self._password = settings.password
        self._sentinels = {
            Address(node.host, node.port): node.password
            for node in settings.sentinels()
        }
        self._moved: Callable[[Callable[[Address], bool]], None] | None = None
        self._announced: Address | None = None
        self._named: Address | None = None
        listed = ", ".join(map(str, self._sentinels))
        self.name = f"the Redis master {self._master} of the sentinels {listed}"
        self._watch = Pool(
            f"a sentinel of {listed}",
            "sentinels' news",
            self._listen,
            PoolLimits(),
            dialler.reactor,
            back=self._listening_again,
        )

    async def dial(self) -> Connection:
        if self._announced is not None:
            try:
                return await self._connect_master(self._announced)
            except BaseException as error:
                # It may have been lost in its turn.
                self._announced = None
                if not isinstance(error, Unavailable):
                    raise
        return await self._connect_master(await reach_any(self._sentinels, self._ask))

    async def _connect_master(self, address: Address) -> Connection:
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
        return self._watch.stop()

    async def _connect(self, sentinel: Address) -> Connection:
        return await self._dialler.connect(
            sentinel, self._sentinels[sentinel], "the sentinel", OWN_PASSWORD
        )

    async def _ask(self, sentinel: Address) -> Address:
        connection = await self._connect(sentinel)
        try:
            named = await connection.send(self._question)
        except (Lost, Refused) as error:
            raise Unavailable(f"the sentinel at {sentinel}: {error}") from None
        finally:
            connection.close()
        address = _address(named)
        if address is None:
            raise Unavailable(
                f"the sentinel at {sentinel} knows no master {self._master}: "
                "see mp.redis.sentinel-master"
            )
        return address

    # ------------------------------------------------------------- fail-over

    async def _listen(self) -> Connection:
        """
        Make a connection to any sentinel that tells of fail-overs.
        """
        connection, self._named = await reach_any(self._sentinels, self._listen_to)
        return connection

    async def _listen_to(self, sentinel: Address) -> tuple[Connection, Address | None]:
        connection = await self._connect(sentinel)
        connection.message_received = self._heard
        # Sent together, so that nothing is missed in between.
        asked = connection.send(self._question)
        subscribed = connection.send(("SUBSCRIBE", _SWITCHED))
        try:
            named, _ = await gatherResults([asked, subscribed], consumeErrors=True)
        except FirstError as error:
            connection.abort("is not wanted")
            reason = error.subFailure
            reason.trap(Lost, Refused)
            raise Unavailable(
                f"the sentinel at {sentinel}: {reason.getErrorMessage()}"
            ) from None
        except BaseException:
            connection.abort("is not wanted")
            raise
        return connection, _address(named)

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
            self._announced = Address(addresses[2], int(addresses[3]))
            self._use(self._announced)

    def _listening_again(self) -> None:
        """
        Nothing was heard for a while: follow what this sentinel said first.
        """
        if self._named is not None:
            self._use(self._named)

    def _use(self, master: Address) -> None:
        if self._moved is not None:
            self._moved(lambda address: address == master)


def _address(named: Reply) -> Address | None:
    """
    Read what a sentinel calls the master: host and port, or nothing.
    """
    if named is None:
        return None
    host, port = named
    return Address(host, int(port))
