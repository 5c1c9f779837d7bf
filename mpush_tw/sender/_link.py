"""
TCP connections to gateways: one protocol per connection, a pool over all of them.

Where the rules are: cluster 4.2, 4.4, 4.9. There is no handshake and no heartbeat on a
gateway connection, and a heartbeat byte would make a Java node close it: only
GATEWAY_PUSH is ever written here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.application.internet import ClientService, backoffPolicy
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    gatherResults,
    maybeDeferred,
    succeed,
)
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
)
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mpush_tw.errors import ProtocolError
from mpush_tw.protocol.packet import PacketDecoder
from mpush_tw.sender._pool import (
    CONNECT_TIMEOUT,
    Answer,
    AnswerReceived,
    GroupAnswerReceived,
    IGatewayLink,
    IGatewayPool,
    Verdict,
    read_answer,
)
from mpush_tw.sender._queries import QueryAnswer, ask_over_tcp
from mpush_tw.sender._waiters import Waiters
from mpush_tw.sender.directory import Address

MAX_UNSENT = 4 << 20
"""
Bytes that may wait behind a paused transport, per connection.
"""

DRAIN_TIMEOUT = 30.0
"""
Seconds that the questions on a gateway have to be answered once it is not registered
any more: a node that stops withdraws first, and then lets its pushes end.
"""

_FIRST_DELAY = 0.2
_MAX_DELAY = 10.0

_ANSWER_ROOM = 1024
"""
Bytes of an answer besides the user id, which comes back as JSON: at six bytes for one
in the worst case.
"""


@implementer(IGatewayLink, IPushProducer)
class GatewayLink(Protocol):
    """
    One connection to one gateway.

    It finds the question that an answer belongs to by the session id, and fails all
    open questions in the turn in which the connection goes (C-39).

    @ivar open: Whether questions can be asked.
    """

    _log = Logger()

    def __init__(self, gateway: KeptGateway, max_body: int) -> None:
        self._gateway = gateway
        self._decoder = PacketDecoder(max_body)
        self._pending: dict[int, AnswerReceived] = {}
        self._paused = False
        self._unsent = 0
        self.open = False

    @property
    def pending(self) -> int:
        """
        How many questions are open.
        """
        return len(self._pending)

    def connectionMade(self) -> None:
        transport: Any = self.transport
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
            # Heartbeats are not allowed here; this finds out about a dead machine.
            transport.setTcpKeepAlive(True)
        transport.registerProducer(self, True)
        self.open = True
        self._gateway.link_opened(self)

    def ask(self, session_id: int, packet: bytes, answered: AnswerReceived) -> bool:
        if not self.open:
            return False
        if self._paused:
            if self._unsent + len(packet) > MAX_UNSENT:
                return False
            self._unsent += len(packet)
        self._pending[session_id] = answered
        transport: Any = self.transport
        transport.write(packet)
        return True

    def forget(self, session_id: int) -> None:
        self._pending.pop(session_id, None)
        if self._gateway.retired:
            self._gateway.question_answered()

    def dataReceived(self, data: bytes) -> None:
        if not self.open:
            return
        address = self._gateway.address
        try:
            for cmd, _, session_id, body in self._decoder.receive(data):
                answer = read_answer(address, cmd, body)
                if answer is not None:
                    self._settle(session_id, answer)
                if not self.open:
                    return
        except ProtocolError as error:
            self._log.error(
                "gateway {host}:{port} broke the protocol: {error}",
                host=address[0],
                port=address[1],
                error=error,
            )
            self._close(abort=True)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._close()

    def _settle(self, session_id: int, answer: Answer) -> None:
        answered = self._pending.pop(session_id, None)
        if answered is None:
            self._log.debug(
                "answer without a question, sessionId={session_id}",
                session_id=session_id,
            )
            return
        answered(answer)
        if self._gateway.retired:
            self._gateway.question_answered()

    def _close(self, abort: bool = False) -> None:
        """
        Ask no more, hang up, and let what is open fail.

        @param abort: Drop what is unsent. A peer that breaks the protocol may not read
            either, and no new connection is made before this one is gone.
        """
        if not self.open:
            return
        self.open = False
        self._gateway.link_closed(self)
        transport: Any = self.transport
        transport.unregisterProducer()
        transport.abortConnection() if abort else transport.loseConnection()
        while self._pending:
            _, answered = self._pending.popitem()
            answered(Answer(Verdict.FAILED))

    def close(self) -> None:
        """
        Close in order; the sender stops, or the gateway is gone.
        """
        self._close()

    def abort(self) -> None:
        """
        Close at once, whatever is still unsent.
        """
        transport: Any = self.transport
        transport.abortConnection()

    # --------------------------------------------------------- backpressure

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._unsent = 0

    def stopProducing(self) -> None:
        """
        The connection is on its way out; C{connectionLost} follows.
        """


class _LinkFactory(Factory):
    noisy = False

    def __init__(self, gateway: KeptGateway, max_body: int) -> None:
        self._arguments = gateway, max_body

    def buildProtocol(self, addr: IAddress | None) -> GatewayLink:
        return GatewayLink(*self._arguments)


@implementer(IStreamClientEndpoint)
class _Attempts:
    """
    An endpoint that tells its gateway of attempts that failed.
    """

    def __init__(self, gateway: KeptGateway, endpoint: IStreamClientEndpoint) -> None:
        self._gateway = gateway
        self._endpoint = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        attempt = self._endpoint.connect(protocolFactory)
        return attempt.addErrback(self._failed)

    def _failed(self, failure: Failure) -> Failure:
        if not failure.check(CancelledError):
            self._gateway.attempt_failed(failure)
        return failure


class KeptGateway:
    """
    Exactly N connections to one gateway, made again with back-off when they go.

    @ivar links: Those that are open.
    @ivar retired: Whether the gateway is not registered any more: nothing new is asked,
        and the connections close with the last answer.
    """

    _log = Logger()

    def __init__(
        self,
        address: Address,
        reactor: Any,
        max_body: int,
        connections: int,
        opened: Callable[[], None],
    ) -> None:
        """
        @param max_body: Largest answer, in bytes.
        @param opened: Called some time after a connection was opened.
        """
        self.address = address
        self.links: list[GatewayLink] = []
        self.retired = False
        self._clock = reactor
        self._opened = opened
        self._telling: Any = None
        self._failed = False
        self._waiters: Waiters[IGatewayLink | None] = Waiters()
        self._drained: Deferred[None] | None = None
        endpoint = _Attempts(self, _endpoint(reactor, address))
        retries = backoffPolicy(
            _FIRST_DELAY, _MAX_DELAY, jitter=lambda: random.uniform(0, _FIRST_DELAY)
        )
        self._services = [
            ClientService(
                endpoint, _LinkFactory(self, max_body), retries, clock=reactor
            )
            for _ in range(connections)
        ]

    @property
    def pending(self) -> int:
        """
        How many questions are open.
        """
        return sum(link.pending for link in self.links)

    def start(self) -> None:
        """
        Begin to connect.
        """
        for service in self._services:
            service.startService()

    def choose(self) -> GatewayLink | None:
        """
        Pick any open connection.
        """
        return random.choice(self.links) if self.links else None

    def link(self) -> Deferred[IGatewayLink | None]:
        """
        Wait for a connection: until one is open, or an attempt fails.

        @return: A Deferred firing with C{None} then, and at once if the last one did.
        """
        if self.links or self._failed or self.retired:
            return succeed(self.choose())
        return self._waiters.wait()

    # --------------------------------------------------------------- closing

    def retire(self) -> Deferred[None]:
        """
        Ask nothing more, and close when everything has been answered, after
        L{DRAIN_TIMEOUT} seconds at the latest.

        @return: A Deferred firing when the connections are closed.
        """
        self.retired = True
        self._tell()
        drained = self._drained = Deferred()
        deadline = self._clock.callLater(DRAIN_TIMEOUT, self.close_now)

        def close(_: object) -> Deferred[None]:
            if deadline.active():
                deadline.cancel()
            return self.close()

        drained.addCallback(close)
        self.question_answered()
        return drained

    def question_answered(self) -> None:
        """
        Close a retired gateway if nothing is open any more.
        """
        if self._drained is not None and not self.pending:
            self.close_now()

    def close_now(self) -> None:
        """
        Let a retired gateway wait for no more answers.
        """
        drained, self._drained = self._drained, None
        if drained is not None:
            drained.callback(None)

    def close(self) -> Deferred[None]:
        """
        Close the connections: what is unsent has L{CONNECT_TIMEOUT} seconds to go.

        @return: A Deferred firing when they are closed.
        """
        self.retired = True
        self._tell()
        open_links = list(self.links)
        stopped = gatherResults(
            [
                maybeDeferred(service.stopService)
                for service in self._services
                if service.running
            ]
        )
        for link in open_links:
            link.close()

        def abort() -> None:
            for link in open_links:
                link.abort()

        deadline = self._clock.callLater(CONNECT_TIMEOUT, abort)

        def done(result: object) -> None:
            if deadline.active():
                deadline.cancel()

        return stopped.addCallback(done)

    # ------------------------------------------------- what connections tell

    def link_opened(self, link: GatewayLink) -> None:
        """
        Use a connection.
        """
        if self._failed:
            self._say("gateway {host}:{port} is connected again")
        self._failed = False
        self.links.append(link)
        # In a turn of its own: this one is still inside the connecting, and who hears
        # of it may stop at once what is not quite connected.
        if self._telling is None:
            self._telling = self._clock.callLater(0, self._tell)

    def link_closed(self, link: GatewayLink) -> None:
        """
        Use a connection no more.
        """
        self.links.remove(link)
        if self.retired:
            self.question_answered()
        elif not self.links:
            self._say("gateway {host}:{port} is not connected any more")

    def attempt_failed(self, failure: Failure) -> None:
        """
        Note that an attempt to connect failed; there will be others.
        """
        if self.links or self.retired:
            return
        if not self._failed:
            self._failed = True
            reason = failure.getErrorMessage()
            self._say("gateway {host}:{port} cannot be connected: {reason}", reason)
        self._tell()

    def _tell(self) -> None:
        """
        Tell those who wait what has become of the connecting.
        """
        if self._telling is not None:
            if self._telling.active():
                self._telling.cancel()
            self._telling = None
        if self.links and not self.retired:
            self._opened()
        self._waiters.tell(None if self.retired else self.choose())

    def _say(self, text: str, reason: str = "") -> None:
        host, port = self.address
        self._log.warn(text, host=host, port=port, reason=reason)


@implementer(IGatewayPool)
class GatewayPool:
    """
    Exactly N connections to each gateway (C-39), whatever number of registrations it
    has (C-40).
    """

    _log = Logger()
    # Half of what may wait for a connection: other pushes find room there.
    window_bytes = MAX_UNSENT // 2

    def __init__(
        self, reactor: Any, max_body: int, connections_per_gateway: int = 1
    ) -> None:
        """
        @param reactor: Provides C{IReactorTCP} and C{IReactorTime}.
        @param max_body: Largest GATEWAY_PUSH body that is sent, in bytes.
        """
        self._reactor = reactor
        self._max_answer = max_body * 6 + _ANSWER_ROOM
        self._connections = connections_per_gateway
        self._gateways: dict[Address, KeptGateway] = {}
        self._retired: dict[KeptGateway, Deferred[None]] = {}
        self._waiters: Waiters[None] = Waiters()
        self._stopped = False

    @property
    def pending(self) -> int:
        return sum(
            gateway.pending
            for gateways in (self._gateways.values(), self._retired)
            for gateway in gateways
        )

    @property
    def addresses(self) -> tuple[Address, ...]:
        return tuple(self._gateways)

    def start(self) -> None:
        """
        Nothing to do before a gateway is known.
        """

    def stop(self) -> Deferred[None]:
        self._stopped = True
        gateways, self._gateways = self._gateways, {}
        closing = [gateway.close() for gateway in gateways.values()]
        for gateway, closed in list(self._retired.items()):
            closing.append(closed)
            gateway.close_now()
        return gatherResults(closing).addCallback(_nothing)

    def set_gateways(self, addresses: Iterable[Address]) -> None:
        if self._stopped:
            return
        wanted = dict.fromkeys(addresses)
        for address in [one for one in self._gateways if one not in wanted]:
            self._retire(self._gateways.pop(address))
        for address in wanted:
            if address not in self._gateways:
                self._add(address)

    def _add(self, address: Address) -> None:
        host, port = address
        self._log.info("gateway {host}:{port} appeared", host=host, port=port)
        gateway = self._gateways[address] = KeptGateway(
            address,
            self._reactor,
            self._max_answer,
            self._connections,
            lambda: self._waiters.tell(None),
        )
        gateway.start()

    def _retire(self, gateway: KeptGateway) -> None:
        host, port = gateway.address
        self._log.info("gateway {host}:{port} vanished", host=host, port=port)
        closed = gateway.retire()
        self._retired[gateway] = closed

        def done(_: object) -> None:
            del self._retired[gateway]

        closed.addCallback(done)

    def knows(self, address: Address) -> bool:
        return address in self._gateways

    def choose(self, address: Address) -> GatewayLink | None:
        gateway = self._gateways.get(address)
        return None if gateway is None else gateway.choose()

    def link(self, address: Address) -> Deferred[IGatewayLink | None]:
        gateway = self._gateways.get(address)
        return succeed(None) if gateway is None else gateway.link()

    def ask_group(
        self, session_id: int, packet: bytes, answered: GroupAnswerReceived
    ) -> bool:
        """
        There is no way to all of them at once.
        """
        return False

    def forget(self, session_id: int) -> None:
        """
        Nobody has asked the group.
        """

    def query(
        self, address: Address, session_id: int, packet: bytes
    ) -> Deferred[QueryAnswer]:
        endpoint = _endpoint(self._reactor, address)
        return ask_over_tcp(endpoint, address, session_id, packet, self._max_answer)

    def opened(self) -> Deferred[None]:
        if any(gateway.links for gateway in self._gateways.values()):
            return succeed(None)
        return self._waiters.wait()

    def settled(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._settle(tuple(self._gateways.values())))

    async def _settle(self, gateways: Sequence[KeptGateway]) -> None:
        for gateway in gateways:
            await gateway.link()


def _nothing(_: object) -> None:
    """
    Forget a result.
    """


def _endpoint(reactor: Any, address: Address) -> IStreamClientEndpoint:
    host, port = address
    endpoint: IStreamClientEndpoint
    if isIPAddress(host):
        endpoint = TCP4ClientEndpoint(reactor, host, port, int(CONNECT_TIMEOUT))
    elif isIPv6Address(host):
        endpoint = TCP6ClientEndpoint(reactor, host, port, int(CONNECT_TIMEOUT))
    else:
        endpoint = HostnameEndpoint(reactor, host, port, CONNECT_TIMEOUT)
    return endpoint
