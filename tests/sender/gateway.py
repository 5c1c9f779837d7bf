"""
A gateway for the tests of the sender: it keeps what it is asked and says what it is
told to say.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import (
    MemoryReactorClock,
    StringTransportWithDisconnection,
)

from mpush_tw.protocol.commands import Command, ErrorCode
from mpush_tw.protocol.gateway import (
    GatewayPush,
    GatewayQuery,
    TimePoints,
    encode_broadcast_result,
    encode_push_result,
)
from mpush_tw.protocol.messages import Error, Ok
from mpush_tw.protocol.packet import PacketDecoder, encode_packet


class Asked(NamedTuple):
    """
    One GATEWAY_PUSH as a gateway got it.
    """

    session_id: int
    flags: int
    push: GatewayPush


class FakeGateway(Protocol):
    """
    The gateway's end of one connection.

    @ivar asked: What was asked, in order.
    @ivar queries: Session ids and questions of another kind, in order.
    @ivar on_asked: Called for each question, if set.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.queries: list[tuple[int, GatewayQuery]] = []
        self.on_asked: Callable[[FakeGateway, Asked], None] | None = None
        self._decoder = PacketDecoder()

    def dataReceived(self, data: bytes) -> None:
        for cmd, flags, session_id, body in self._decoder.receive(data):
            if cmd == Command.GATEWAY_QUERY:
                self.queries.append((session_id, GatewayQuery.decode(body)))
                continue
            assert cmd == Command.GATEWAY_PUSH, cmd
            asked = Asked(session_id, flags, GatewayPush.decode(body))
            self.asked.append(asked)
            if self.on_asked is not None:
                self.on_asked(self, asked)

    def ok(self, asked: Asked, points: TimePoints = ()) -> None:
        """
        Say that a push was delivered.
        """
        data = encode_push_result(asked.push.user_id, 1, points).decode()
        self.say(Command.OK, asked, Ok(Command.GATEWAY_PUSH, 0, data).encode())

    def finished(
        self,
        asked: Asked,
        counts: Mapping[str, object] | None = None,
        points: TimePoints = (),
    ) -> None:
        """
        Say that a broadcast has ended: as a node of the original, without counts.
        """
        data = None
        if counts is not None:
            data = encode_broadcast_result(counts, points).decode()
        self.say(Command.OK, asked, Ok(Command.GATEWAY_PUSH, 0, data).encode())

    def error(self, asked: Asked, code: ErrorCode, cmd: int = 16) -> None:
        """
        Say that it was not.
        """
        self.say(Command.ERROR, asked, Error.of(cmd, code).encode())

    def tell(self, answer: object) -> None:
        """
        Answer the last question of another kind.
        """
        body = Ok(Command.GATEWAY_QUERY, 0, json.dumps(answer)).encode()
        self.write(encode_packet(Command.OK, self.queries[-1][0], 0, body))

    def refuse(self, code: int, reason: str) -> None:
        """
        Do not answer it.
        """
        body = Error(Command.GATEWAY_QUERY, code, reason).encode()
        self.write(encode_packet(Command.ERROR, self.queries[-1][0], 0, body))

    def say(self, cmd: int, asked: Asked, body: bytes) -> None:
        """
        Answer with any packet.
        """
        self.write(encode_packet(cmd, asked.session_id, 0, body))

    def write(self, data: bytes) -> None:
        """
        Send any bytes.
        """
        transport: Any = self.transport
        transport.write(data)


class FakeGatewayFactory(Factory):
    """
    A gateway on a real port: answers each question as C{on_asked} has it.
    """

    noisy = False

    def __init__(self, on_asked: Callable[[FakeGateway, Asked], None]) -> None:
        self._on_asked = on_asked

    def buildProtocol(self, addr: Any) -> FakeGateway:
        gateway = FakeGateway()
        gateway.on_asked = self._on_asked
        return gateway


class _GatewayTransport(StringTransportWithDisconnection):
    """
    The sender's end of a connection in memory: writes reach the gateway at once.

    @ivar held: While true, writes stay unsent, as behind a slow network.
    """

    gateway: FakeGateway
    held = False

    def write(self, data: bytes) -> None:
        super().write(data)
        if not self.held:
            self.gateway.dataReceived(data)

    def abortConnection(self) -> None:
        self.loseConnection()


class _GatewaySideTransport:
    def __init__(self, peer: Any) -> None:
        self._peer = peer

    def write(self, data: bytes) -> None:
        self._peer.dataReceived(data)


class Network(MemoryReactorClock):
    """
    A reactor in memory whose connection attempts tests accept or refuse one by one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._next = 0

    @property
    def attempts(self) -> list[tuple[str, int]]:
        """
        Addresses that were tried and neither accepted nor refused yet.
        """
        return [attempt[:2] for attempt in self.tcpClients[self._next :]]

    def accept(self) -> tuple[FakeGateway, _GatewayTransport]:
        """
        Accept the oldest attempt.
        """
        factory = self.tcpClients[self._next][2]
        self._next += 1
        protocol: Any = factory.buildProtocol(IPv4Address("TCP", "10.0.0.1", 3001))
        transport = _GatewayTransport()
        transport.protocol = protocol
        gateway_side: Any = _GatewaySideTransport(protocol)
        transport.gateway = FakeGateway()
        transport.gateway.makeConnection(gateway_side)
        protocol.makeConnection(transport)
        return transport.gateway, transport

    def refuse(self, reason: Any) -> None:
        """
        Refuse the oldest attempt.
        """
        factory = self.tcpClients[self._next][2]
        connector = self.connectors[self._next]
        self._next += 1
        factory.clientConnectionFailed(connector, reason)
