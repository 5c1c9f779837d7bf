"""
Connections to gateways: one protocol per connection, a pool over all of them.

Where the rules are: cluster 4.2, 4.4, 4.9. There is no handshake and no heartbeat on a
gateway connection, and a heartbeat byte would make a Java node close it: only
GATEWAY_PUSH is ever written here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, NamedTuple

from twisted.application.internet import ClientService, backoffPolicy
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
)
from twisted.internet.interfaces import (
    IAddress,
    IPushProducer,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mpush_tw.errors import ProtocolError
from mpush_tw.protocol.commands import Command, ErrorCode, command_name
from mpush_tw.protocol.gateway import TimePoints, decode_push_result
from mpush_tw.protocol.messages import Error, Ok
from mpush_tw.protocol.packet import PacketDecoder
from mpush_tw.sender.directory import Address

CONNECT_TIMEOUT = 4.0
MAX_UNSENT = 4 << 20
"""
Bytes that may wait behind a paused transport, per connection.
"""


_ANSWER_ROOM = 1024
"""
Bytes of an answer besides the user id, which comes back as JSON: at six bytes for one
in the worst case.
"""


class Verdict(Enum):
    """
    What one gateway said of one push.
    """

    DELIVERED = "delivered"
    OFFLINE = "offline"
    ELSEWHERE = "elsewhere"
    FAILED = "failed"


class Answer(NamedTuple):
    """
    A verdict, with the gateway's time points where it sent any.
    """

    verdict: Verdict
    points: TimePoints = ()


_VERDICTS = {
    int(ErrorCode.OFFLINE): Verdict.OFFLINE,
    int(ErrorCode.ROUTER_CHANGE): Verdict.ELSEWHERE,
}
"""
Every other ERROR is a failure; the original hangs on those (defect C-37).
"""

AnswerReceived = Callable[[Answer], None]


@implementer(IPushProducer)
class GatewayLink(Protocol):
    """
    One connection to one gateway.

    It finds the question that an answer belongs to by the session id, and fails all
    open questions in the turn in which the connection goes (C-39).

    @ivar open: Whether questions can be asked.
    """

    _log = Logger()

    def __init__(self, address: Address, pool: GatewayPool, max_body: int) -> None:
        self._address = address
        self._pool = pool
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
        self._pool.link_opened(self._address, self)

    def ask(self, session_id: int, packet: bytes, answered: AnswerReceived) -> bool:
        """
        Send a GATEWAY_PUSH; the entry for its answer is made first (C-38).

        @param answered: Called once with the answer, or with a failure if the
            connection is lost, unless L{forget} is called before.
        @return: C{False} if it was not sent: the connection is closing, or too much
            waits in front of it already.
        """
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
        """
        Drop whatever answer still comes for a question.
        """
        self._pending.pop(session_id, None)

    def dataReceived(self, data: bytes) -> None:
        if not self.open:
            return
        try:
            for cmd, _, session_id, body in self._decoder.receive(data):
                if cmd == Command.OK:
                    self._ok_received(session_id, Ok.decode(body))
                elif cmd == Command.ERROR:
                    self._error_received(session_id, Error.decode(body))
                elif cmd != Command.HEARTBEAT:
                    raise ProtocolError(f"unexpected command {command_name(cmd)}")
                if not self.open:
                    return
        except ProtocolError as error:
            self._log.error(
                "gateway {host}:{port} broke the protocol: {error}",
                host=self._address[0],
                port=self._address[1],
                error=error,
            )
            self._close(abort=True)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._close()

    def _ok_received(self, session_id: int, ok: Ok) -> None:
        if ok.cmd == Command.GATEWAY_PUSH:
            self._settle(
                session_id, Answer(Verdict.DELIVERED, decode_push_result(ok.data))
            )

    def _error_received(self, session_id: int, error: Error) -> None:
        # Whatever its cmd byte says: ERROR 101 does not name GATEWAY_PUSH.
        verdict = _VERDICTS.get(error.code, Verdict.FAILED)
        if verdict is Verdict.FAILED and error.code != ErrorCode.PUSH_CLIENT_FAILURE:
            self._log.warn(
                "gateway {host}:{port} failed a push: {code} {reason}",
                host=self._address[0],
                port=self._address[1],
                code=error.code,
                reason=error.reason,
            )
        self._settle(session_id, Answer(verdict, decode_push_result(error.data)))

    def _settle(self, session_id: int, answer: Answer) -> None:
        answered = self._pending.pop(session_id, None)
        if answered is None:
            self._log.debug(
                "answer without a question, sessionId={session_id}",
                session_id=session_id,
            )
        else:
            answered(answer)

    def _close(self, abort: bool = False) -> None:
        """
        Ask no more, hang up, and let what is open fail.

        @param abort: Drop what is unsent. A peer that breaks the protocol may not read
            either, and no new connection is made before this one is gone.
        """
        if not self.open:
            return
        self.open = False
        self._pool.link_closed(self._address, self)
        transport: Any = self.transport
        transport.unregisterProducer()
        transport.abortConnection() if abort else transport.loseConnection()
        while self._pending:
            _, answered = self._pending.popitem()
            answered(Answer(Verdict.FAILED))

    def close(self) -> None:
        """
        Close in order; the sender stops.
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

    def __init__(self, address: Address, pool: GatewayPool, max_body: int) -> None:
        self._arguments = address, pool, max_body

    def buildProtocol(self, addr: IAddress | None) -> GatewayLink:
        return GatewayLink(*self._arguments)


class GatewayPool:
    """
    Exactly N connections to each gateway, made again with back-off when they go.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        reactor: Any,
        max_body: int,
        connections_per_gateway: int,
    ) -> None:
        """
        @param max_body: Largest GATEWAY_PUSH body that is sent, in bytes.
        """
        self._reactor = reactor
        self._links: dict[Address, list[GatewayLink]] = {
            address: [] for address in addresses
        }
        self._stopped = False
        self._services = [
            ClientService(
                _endpoint(reactor, address),
                _LinkFactory(address, self, max_body * 6 + _ANSWER_ROOM),
                backoffPolicy(),
                clock=reactor,
            )
            for address in addresses
            for _ in range(connections_per_gateway)
        ]
        self.first_opened: Deferred[None] = Deferred()

    @property
    def pending(self) -> int:
        """
        How many questions are open on all connections.
        """
        return sum(link.pending for links in self._links.values() for link in links)

    def choose(self, address: Address) -> GatewayLink | None:
        """
        Pick any open connection to a gateway.
        """
        links = None if self._stopped else self._links.get(address)
        return random.choice(links) if links else None

    def start(self) -> None:
        """
        Begin to connect; L{first_opened} fires with the first connection.
        """
        for service in self._services:
            service.startService()

    def stop(self) -> Deferred[None]:
        """
        Close every connection: what is unsent has L{CONNECT_TIMEOUT} seconds to go.

        @return: A Deferred firing when all are closed.
        """
        self._stopped = True
        open_links = [link for links in self._links.values() for link in links]
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

        deadline = self._reactor.callLater(CONNECT_TIMEOUT, abort)

        def done(result: object) -> None:
            if deadline.active():
                deadline.cancel()

        return stopped.addCallback(done)

    def link_opened(self, address: Address, link: GatewayLink) -> None:
        self._links[address].append(link)
        if not self.first_opened.called:
            self.first_opened.callback(None)

    def link_closed(self, address: Address, link: GatewayLink) -> None:
        self._links[address].remove(link)


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
