"""
The way to the gateways over UDP: one socket for all of them (cluster 4.8, 4.10).

There is nothing to connect. A gateway can be asked as soon as its address is known, and
what is lost on the way is a time-out of the push: nothing is sent twice, because a
gateway would deliver it twice.

An answer counts if it has the session id of an open question and comes from the gateway
that was asked. Its source shows that only nearly: the original answers from whichever
address of its machine the kernel prefers. So the port has to be the gateway's, and the
address must not be another gateway's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mpush_tw.datagrams import (
    LARGEST_DATAGRAM,
    ORIGINAL_DATAGRAM,
    DatagramSocket,
    HostAddresses,
)
from mpush_tw.errors import ProtocolError, Unavailable
from mpush_tw.protocol.commands import Command
from mpush_tw.protocol.packet import HEADER_SIZE, decode_datagram
from mpush_tw.sender._pool import (
    Answer,
    AnswerReceived,
    GroupAnswerReceived,
    IGatewayLink,
    IGatewayPool,
    Verdict,
    read_answer,
)
from mpush_tw.sender._queries import QueryAnswer, read_query_answer
from mpush_tw.sender._waiters import Waiters
from mpush_tw.sender.directory import Address

MAX_GROUP_ANSWERS = 1000
"""
Gateways that may answer one question to the group.
"""

_LOOK_UP_AGAIN = 5.0
_REFRESH = 60.0
_COMPLAIN_EVERY = 1.0
_ASK_AGAIN = 1.0
_ANSWERS = (int(Command.OK), int(Command.ERROR))


@implementer(IGatewayLink)
class DatagramLink:
    """
    One gateway.

    @ivar address: As the directory names it.
    @ivar target: Its numeric address; C{None} while that is not known.
    @ivar failed: Whether the last look-up of its host name failed.
    """

    def __init__(self, pool: DatagramPool, address: Address) -> None:
        self.address = address
        self.target: Address | None = None
        self.failed = False
        self._pool = pool
        self._closed = False
        self._again: IDelayedCall | None = None
        self._looked_up = 0.0
        self._waiters: Waiters[IGatewayLink | None] = Waiters()

    def open(self) -> None:
        """
        Find the address out.
        """
        self._look_up()

    def ask(self, session_id: int, packet: bytes, answered: AnswerReceived) -> bool:
        if self.target is None or self._closed:
            return False
        if self._pool.now() - self._looked_up >= _REFRESH:
            # Names move. The old address serves until the new one is known.
            self._look_up()
        return self._pool.ask(
            _Question(self, self.target, answered), session_id, packet
        )

    def forget(self, session_id: int) -> None:
        self._pool.forget(session_id)

    def found(self) -> Deferred[IGatewayLink | None]:
        """
        Wait until the gateway can be asked.

        @return: A Deferred firing with C{None} when its address is not found.
        """
        if self.target is not None:
            return succeed(self)
        return succeed(None) if self.failed else self._waiters.wait()

    def close(self) -> None:
        """
        Look nothing up any more. Open questions may still be answered.
        """
        self._closed = True
        self._cancel_retry()
        self._waiters.tell(None)

    def _cancel_retry(self) -> None:
        if self._again is not None and self._again.active():
            self._again.cancel()
        self._again = None

    def _look_up(self) -> None:
        self._cancel_retry()
        self._looked_up = self._pool.now()
        finding = self._pool.hosts.find(self.address[0])
        finding.addCallbacks(self._address_found, self._not_found)

    def _address_found(self, host: str) -> None:
        if self._closed:
            return
        self.failed = False
        self.target = host, self.address[1]
        self._waiters.tell(self)
        self._pool.link_opened()

    def _not_found(self, failure: Failure) -> None:
        if self._closed:
            return
        if not self.failed:
            self._pool.complain(
                "gateway {host}:{port} cannot be asked: {error}",
                host=self.address[0],
                port=self.address[1],
                error=failure.getErrorMessage(),
            )
        # An address that was known before is still as good as it was.
        self.failed = self.target is None
        self._again = self._pool.later(_LOOK_UP_AGAIN, self._look_up)
        self._waiters.tell(self if self.target else None)


class _Question(NamedTuple):
    """
    @ivar target: Where the answer has to come from.
    """

    link: DatagramLink
    target: Address
    answered: AnswerReceived


class _Query(NamedTuple):
    """
    @ivar target: Where the answer has to come from.
    """

    address: Address
    target: Address
    answered: Deferred[QueryAnswer]


class _GroupQuestion(NamedTuple):
    """
    @ivar sources: Who has answered.
    """

    answered: GroupAnswerReceived
    sources: set[Address]


@implementer(IGatewayPool)
class DatagramPool:
    """
    All gateways, by way of one socket.

    @ivar hosts: Where host names are looked up.
    """

    _log = Logger()
    # It has to fit into the receive buffer of the gateway: no push is sent twice.
    window_bytes = 128 << 10

    def __init__(
        self,
        reactor: Any,
        max_body: int,
        *,
        port: int = 0,
        server_group: Address | None = None,
        client_group: str = "",
        interface: str = "",
        large_datagrams: bool = False,
        send_buffer: int = 0,
        receive_buffer: int = 0,
    ) -> None:
        """
        @param reactor: Provides C{IReactorFDSet}, C{IReactorTime} and C{IReactorCore}.
        @param max_body: Largest GATEWAY_PUSH body that is sent, in bytes.
        @param port: C{mp.net.gateway-client-port}, where it is asked for: several
            senders on one machine may share it, but an answer reaches one of them only
            (C-44). 0 for a port of its own.
        @param server_group: C{mp.net.gateway-server-multicast} and
            C{mp.net.gateway-server-port}: where L{ask_group} sends.
        @param client_group: C{mp.net.gateway-client-multicast}, to be a member of it as
            senders are; nothing is ever sent there.
        @param interface: Own address of the interface for both groups; empty for the
            kernel's choice.
        @param large_datagrams: Whether all gateways are known to take datagrams of any
            size. Java nodes stop to serve, for good, at one of more than 2048 bytes
            (C-25); without this none is sent.
        @param send_buffer: C{mp.net.snd_buf.gateway-client}, 0 to leave it alone.
        @param receive_buffer: C{mp.net.rcv_buf.gateway-client}; 0 is the system's
            choice but at least 1 MiB, see L{DatagramSocket.open}.
        """
        self._reactor = reactor
        self._limit = min(
            HEADER_SIZE + max_body,
            LARGEST_DATAGRAM if large_datagrams else ORIGINAL_DATAGRAM,
        )
        self._port = port
        self._server_group = server_group
        self._client_group = client_group
        self._interface = interface
        self._buffers = send_buffer, receive_buffer
        self._socket = DatagramSocket(reactor, self._received, self._log)
        self.hosts = HostAddresses(reactor)
        self._links: dict[Address, DatagramLink] = {}
        self._open: dict[int, _Question] = {}
        self._group: dict[int, _GroupQuestion] = {}
        self._queries: dict[int, _Query] = {}
        self._waiters: Waiters[None] = Waiters()
        self._stopped = False
        self._complained = float("-inf")
        self._silent = 0

    @property
    def pending(self) -> int:
        return len(self._open) + len(self._group)

    @property
    def addresses(self) -> tuple[Address, ...]:
        return tuple(self._links)

    # ------------------------------------------------------------ start, stop

    def start(self) -> None:
        send_buffer, receive_buffer = self._buffers
        try:
            self._socket.open(
                self._port,
                shared=self._port > 0,
                send_buffer=send_buffer,
                receive_buffer=receive_buffer,
            )
        except OSError as error:
            raise Unavailable(
                f"UDP port {self._port} (mp.net.gateway-client-port) cannot be opened: "
                f"{error.strerror or error}"
            ) from None
        try:
            if self._interface:
                self._socket.send_groups_by(self._interface)
            if self._client_group:
                self._socket.join(self._client_group, self._interface or "0.0.0.0")
        except OSError as error:
            self._log.warn(
                "no multicast on interface {interface}: {error}; pushes to users do "
                "without",
                interface=self._interface or "of the default route",
                error=error.strerror or error,
            )

    def stop(self) -> Deferred[None]:
        self._stopped = True
        self.set_gateways(())
        closed = self._socket.close()
        self._group.clear()
        while self._open:
            _, question = self._open.popitem()
            question.answered(Answer(Verdict.FAILED))
        return closed

    # --------------------------------------------------------------- gateways

    def set_gateways(self, addresses: Iterable[Address]) -> None:
        wanted = dict.fromkeys(() if self._stopped else addresses)
        for address in [one for one in self._links if one not in wanted]:
            self._links.pop(address).close()
            self._say("gateway {host}:{port} vanished", address)
        for address in wanted:
            if address not in self._links:
                self._say("gateway {host}:{port} appeared", address)
                link = self._links[address] = DatagramLink(self, address)
                link.open()

    def knows(self, address: Address) -> bool:
        return address in self._links

    def choose(self, address: Address) -> DatagramLink | None:
        link = self._links.get(address)
        return None if link is None or link.target is None else link

    def link(self, address: Address) -> Deferred[IGatewayLink | None]:
        link = self._links.get(address)
        return succeed(None) if link is None else link.found()

    def opened(self) -> Deferred[None]:
        if any(link.target for link in self._links.values()):
            return succeed(None)
        return self._waiters.wait()

    def settled(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._settle(tuple(self._links.values())))

    async def _settle(self, links: tuple[DatagramLink, ...]) -> None:
        for link in links:
            await link.found()

    # ---------------------------------------------------------------- asking

    def ask(self, question: _Question, session_id: int, packet: bytes) -> bool:
        """
        Put a question to one gateway; for L{DatagramLink}.
        """
        if not self._fits(packet):
            return False
        self._open[session_id] = question
        if self._socket.send(packet, question.target):
            return True
        del self._open[session_id]
        return False

    def ask_group(
        self, session_id: int, packet: bytes, answered: GroupAnswerReceived
    ) -> bool:
        if self._server_group is None or not self._fits(packet):
            return False
        self._group[session_id] = _GroupQuestion(answered, set())
        if self._socket.send(packet, self._server_group):
            return True
        del self._group[session_id]
        return False

    def query(
        self, address: Address, session_id: int, packet: bytes
    ) -> Deferred[QueryAnswer]:
        return Deferred.fromCoroutine(self._query(address, session_id, packet))

    async def _query(
        self, address: Address, session_id: int, packet: bytes
    ) -> QueryAnswer:
        link = self.choose(address)
        if link is None or link.target is None:
            return QueryAnswer(address, None, "its address is not known")
        if not self._fits(packet):
            return QueryAnswer(address, None, "the question is too large")
        query = _Query(address, link.target, Deferred())
        self._queries[session_id] = query
        # Datagrams are lost; unlike a push, a question may be put twice.
        asking = LoopingCall(self._socket.send, packet, link.target)
        asking.clock = self._reactor
        asking.start(_ASK_AGAIN)
        try:
            return await query.answered
        finally:
            del self._queries[session_id]
            asking.stop()

    def forget(self, session_id: int) -> None:
        """
        Drop whatever answer still comes for a question.
        """
        self._open.pop(session_id, None)
        self._group.pop(session_id, None)

    def _fits(self, packet: bytes) -> bool:
        if len(packet) <= self._limit:
            return True
        self.complain(
            "a push of {size} bytes is not sent: {limit} are the most for a datagram "
            "to these gateways",
            size=len(packet),
            limit=self._limit,
        )
        return False

    # --------------------------------------------------------------- answers

    def _received(self, data: bytes, peer: Address, own: bytes) -> None:
        try:
            cmd, _, session_id, body = decode_datagram(data, LARGEST_DATAGRAM)
        except ProtocolError as error:
            self._drop(peer, error)
            return
        question = self._open.get(session_id)
        query = self._queries.get(session_id)
        if query is not None:
            self._query_answered(query, peer, cmd, body)
        elif question is None:
            self._group_answer_received(session_id, peer, cmd, body)
        elif self._is_from(peer, question.target):
            answer = self._read(question.link.address, cmd, body)
            if answer is not None:
                del self._open[session_id]
                question.answered(answer)

    def _query_answered(
        self, query: _Query, peer: Address, cmd: int, body: bytes
    ) -> None:
        if query.answered.called or not self._is_from(peer, query.target):
            return
        try:
            answer = read_query_answer(query.address, cmd, body)
        except ProtocolError as error:
            self._drop(peer, error)
            return
        if answer is not None:
            query.answered.callback(answer)

    def _is_from(self, peer: Address, target: Address) -> bool:
        """
        Whether who answers may be who was asked.
        """
        if peer == target or self._may_be(peer, target):
            return True
        self._drop(peer, f"an answer, and {target[0]}:{target[1]} was asked")
        return False

    def _may_be(self, peer: Address, target: Address) -> bool:
        """
        Whether a gateway may have answered from another address than it was asked at.
        """
        return peer[1] == target[1] and all(
            link.target != peer for link in self._links.values()
        )

    def _group_answer_received(
        self, session_id: int, peer: Address, cmd: int, body: bytes
    ) -> None:
        question = self._group.get(session_id)
        if question is None:
            self._log.debug(
                "answer without a question, sessionId={session_id}",
                session_id=session_id,
            )
            return
        sources = question.sources
        if peer in sources or len(sources) >= MAX_GROUP_ANSWERS:
            return
        address = next(
            (link.address for link in self._links.values() if link.target == peer),
            peer,
        )
        answer = self._read(address, cmd, body)
        if answer is not None:
            sources.add(peer)
            question.answered(address, answer)

    def _read(self, address: Address, cmd: int, body: bytes) -> Answer | None:
        """
        Read an answer of a gateway that was asked; one that cannot be read is a
        failure, and what is no answer is dropped.
        """
        try:
            return read_answer(address, cmd, body)
        except ProtocolError as error:
            self._drop(address, error)
            return Answer(Verdict.FAILED) if cmd in _ANSWERS else None

    def _drop(self, peer: Address, reason: object) -> None:
        self.complain(
            "datagram from {host}:{port} dropped: {reason}",
            host=peer[0],
            port=peer[1],
            reason=reason,
        )

    # ------------------------------------------------------ what links need

    def now(self) -> float:
        """
        Tell the time, in seconds.
        """
        return float(self._reactor.seconds())

    def later(self, seconds: float, call: Callable[[], None]) -> IDelayedCall:
        """
        Call something later.
        """
        delayed: IDelayedCall = self._reactor.callLater(seconds, call)
        return delayed

    def link_opened(self) -> None:
        """
        Note that a gateway can be asked.
        """
        self._waiters.tell(None)

    def complain(self, text: str, **fields: object) -> None:
        """
        Log what is wrong outside, once a second at most.
        """
        now = self.now()
        if now - self._complained < _COMPLAIN_EVERY:
            self._silent += 1
            return
        if self._silent:
            text += " ({more} more lines suppressed)"
        self._log.warn(text, more=self._silent, **fields)
        self._complained, self._silent = now, 0

    def _say(self, text: str, address: Address) -> None:
        self._log.info(text, host=address[0], port=address[1])
