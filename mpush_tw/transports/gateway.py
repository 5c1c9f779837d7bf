"""
The gateway door: senders push through it (cluster 4), here over TCP.

What does not depend on the transport, L{GatewayDoor} and L{GatewayListener}, serves
UDP as well (L{mpush_tw.transports.gateway_udp}).

A sender's requests arrive many to a read; their answers go out joined, one write for
all that were settled in the same turn of the reactor (DESIGN 6).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import ip_address, ip_network
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocol,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import ServerFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from mpush_tw.core.connection import new_connection_id
from mpush_tw.core.log import NodeLog
from mpush_tw.core.metrics import DoorMetrics
from mpush_tw.core.push.centre import PushCentre
from mpush_tw.core.push.request import Outcome, PushRequest
from mpush_tw.errors import ProtocolError, Unavailable
from mpush_tw.interfaces import (
    ConnectionClosed,
    ConnectionOpened,
    Event,
    IPushListener,
)
from mpush_tw.protocol.body import open_body
from mpush_tw.protocol.commands import ACK_FLAGS, Command, ErrorCode, command_name
from mpush_tw.protocol.fields import encode_bytes, encode_json
from mpush_tw.protocol.gateway import (
    GatewayPush,
    GatewayQuery,
    TimePoints,
    encode_broadcast_result,
    encode_push_result,
)
from mpush_tw.protocol.messages import Error, Ok
from mpush_tw.protocol.packet import (
    HEADER,
    HEADER_SIZE,
    PacketDecoder,
    encode_packet,
)
from mpush_tw.transports.gateway_queries import GatewayQueries

_GATEWAY_PUSH = int(Command.GATEWAY_PUSH)
_GATEWAY_QUERY = int(Command.GATEWAY_QUERY)
_OK = int(Command.OK)
_ERROR = int(Command.ERROR)
_pack_header = HEADER.pack
_OK_HEAD = bytes((_GATEWAY_PUSH, 0))
_LINGER = 10.0
_MAX_CONNECTIONS = 1000
"""
Most senders at a time; their number is that of machines, not of users.
"""


def _error_head(code: ErrorCode) -> bytes:
    """
    Everything of an ERROR body for a GATEWAY_PUSH but the data.
    """
    return Error.of(_GATEWAY_PUSH, code).encode()[:-2]


_ANSWERS: dict[Outcome, tuple[int, bytes] | None] = {
    Outcome.SUCCESS: (_OK, _OK_HEAD),
    Outcome.ACK_SUCCESS: (_OK, _OK_HEAD),
    Outcome.BROADCAST_COMPLETE: (_OK, _OK_HEAD),
    Outcome.FAILURE: (_ERROR, _error_head(ErrorCode.PUSH_CLIENT_FAILURE)),
    Outcome.OFFLINE: (_ERROR, _error_head(ErrorCode.OFFLINE)),
    Outcome.REDIRECT: (_ERROR, _error_head(ErrorCode.ROUTER_CHANGE)),
    Outcome.TIMEOUT: None,
}
"""
What goes back for each outcome: command and first part of the body (server 14.4). A
time-out is not answered: Java senders would hang on its code (C-31).
"""


class PushOrigin(Protocol):
    """
    Where a GATEWAY_PUSH came from, and where its answer goes.
    """

    @property
    def peer(self) -> str:
        """
        Remote address as C{ip:port}.
        """

    @property
    def answer_limit(self) -> int:
        """
        The longest answer that the peer is sure to take, in bytes, header included.
        """

    def answer(self, cmd: int, data: bytes) -> bool:
        """
        Send an answer.

        @param data: The whole packet.
        @return: C{False} when nobody can be answered any more.
        """


class GatewayDoor:
    """
    What all senders of a node share, whatever they come over.

    @ivar connections: Those that are open; there are none over UDP.
    """

    def __init__(
        self,
        centre: PushCentre,
        clock: IReactorTime,
        log: NodeLog,
        metrics: DoorMetrics,
        max_packet_size: int,
        max_inflated: int,
        allowed_peers: Sequence[str],
        post: Callable[[Event], None] = lambda event: None,
    ) -> None:
        """
        @param allowed_peers: Networks that may connect
            (C{mp.net.gateway-allowed-peers}).
        @param post: Posts an event: connections that open and end are some.
        """
        self.centre = centre
        self.clock = clock
        self.log = log
        self.metrics = metrics
        self.max_packet_size = max_packet_size
        self.max_inflated = max_inflated
        self.post = post
        self._networks = [ip_network(text, strict=False) for text in allowed_peers]
        self.connections: set[GatewayProtocol] = set()
        self.listener: IPushListener = GatewayListener(log)
        self.queries = GatewayQueries(centre)

    def allows(self, host: str) -> bool:
        """
        Whether a peer may talk to this door.
        """
        address = ip_address(host.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        address = mapped or address
        return any(
            address.version == network.version and address in network
            for network in self._networks
        )

    def push_received(
        self, origin: PushOrigin, session_id: int, flags: int, body: bytes
    ) -> bool:
        """
        Hand a GATEWAY_PUSH on to the push centre; only its ack flags count (C-27).

        @param body: As received.
        @return: C{False} if it cannot be read: that has been counted and logged, and
            is not answered from here.
        """
        try:
            message = GatewayPush.decode(
                open_body(flags, body, None, self.max_inflated)
            )
        except ProtocolError as error:
            self.undecodable(origin.peer, _GATEWAY_PUSH, error)
            return False
        self.centre.push(
            PushRequest(
                *message, flags & ACK_FLAGS, self.listener, (origin, session_id)
            )
        )
        return True

    def query_received(
        self, origin: PushOrigin, session_id: int, flags: int, body: bytes
    ) -> bool:
        """
        Answer a GATEWAY_QUERY, now or later.

        @return: C{False} if it cannot be read, as L{push_received}.
        """
        try:
            query = GatewayQuery.decode(open_body(flags, body, None, self.max_inflated))
        except ProtocolError as error:
            self.undecodable(origin.peer, _GATEWAY_QUERY, error)
            return False
        asking = Deferred.fromCoroutine(self._answer_query(origin, session_id, query))
        asking.addErrback(
            lambda failure: self.log.general.failure("gateway query", failure)
        )
        return True

    async def _answer_query(
        self, origin: PushOrigin, session_id: int, query: GatewayQuery
    ) -> None:
        message: Ok | Error
        try:
            answer = await self.queries.answer(query.query, query.arguments)
        except (ProtocolError, Unavailable) as error:
            message = Error(_GATEWAY_QUERY, 0, str(error))
        else:
            message = Ok(_GATEWAY_QUERY, 0, encode_json(answer).decode())
        packet = _packet_of(message, session_id)
        if len(packet) > origin.answer_limit:
            message = Error(_GATEWAY_QUERY, 0, "the answer is too long")
            packet = _packet_of(message, session_id)
        origin.answer(_OK if isinstance(message, Ok) else _ERROR, packet)

    def undecodable(self, peer: str, cmd: int, error: ProtocolError) -> None:
        """
        Count and log a packet whose body cannot be read.
        """
        self.metrics.decode_errors["body"] += 1
        self.log.conn.error(
            "undecodable {command}, conn={peer}: {error}",
            command=command_name(cmd),
            peer=peer,
            error=error,
        )

    def unsupported(self, peer: str, cmd: int) -> None:
        """
        Log a command that no gateway serves.
        """
        self.log.conn.error(
            "dispatch message failure, cmd={command} ({number}) unsupported, "
            "connect={peer} (gateway)",
            command=command_name(cmd),
            number=cmd,
            peer=peer,
        )


@implementer(IPushListener)
class GatewayListener:
    """
    Answers each push the way it came (server 14.4).
    """

    def __init__(self, log: NodeLog) -> None:
        self._log = log.push

    def push_finished(
        self, request: PushRequest, outcome: Outcome, points: TimePoints
    ) -> None:
        """
        Answer one GATEWAY_PUSH.
        """
        origin = request.origin
        assert isinstance(origin, tuple)
        sender: PushOrigin
        sender, session_id = origin
        answer = _ANSWERS[outcome]
        if answer is None:
            self._log.warn(
                "push message to client timeout, timePoints={points}, "
                "message={message}",
                points=points,
                message=request,
            )
            return
        cmd, head = answer
        body = head + encode_bytes(_data(request, outcome, points))
        if len(body) + HEADER_SIZE > sender.answer_limit:
            body = _shortened(head, request, sender.answer_limit)
        if not sender.answer(
            cmd, _pack_header(len(body), cmd, 0, 0, session_id, 0) + body
        ):
            self._log.warn(
                "push message to client {outcome}, but gateway connection is closed, "
                "timePoints={points}, message={message}",
                outcome=outcome.value,
                points=points,
                message=request,
            )


def _packet_of(message: Ok | Error, session_id: int) -> bytes:
    cmd = _OK if isinstance(message, Ok) else _ERROR
    return encode_packet(cmd, session_id, 0, message.encode())


def _data(request: PushRequest, outcome: Outcome, points: TimePoints) -> bytes | None:
    """
    Give the data of an answer (server 14.4).

    A broadcast that is complete carries none to senders of the original. They ask with
    a time-out of 0; ours ask with another and are told the counts.
    """
    if outcome is not Outcome.BROADCAST_COMPLETE:
        return encode_push_result(request.user_id, request.client_type, points)
    if request.timeout_ms <= 0 or request.report is None:
        return None
    return encode_broadcast_result(request.report, points)


def _shortened(head: bytes, request: PushRequest, limit: int) -> bytes:
    """
    Build the body of an answer that is too long with its time points: without them, or
    without any data, which every sender understands (cluster 4.4).

    @param limit: For the whole packet, in bytes.
    """
    data = encode_push_result(request.user_id, request.client_type, ())
    body = head + encode_bytes(data)
    return body if len(body) + HEADER_SIZE <= limit else head + encode_bytes(None)


@implementer(IProtocol, IPushProducer)
class GatewayProtocol:
    """
    One sender.

    While its answers pile up above the high water mark it is not read from.

    @ivar answer_limit: See L{PushOrigin}: a Java sender hangs up on a body above the
        packet size that the whole cluster has.
    """

    def __init__(self, door: GatewayDoor) -> None:
        self._door = door
        self._id = new_connection_id()
        self.answer_limit = HEADER_SIZE + door.max_packet_size
        self._decoder = PacketDecoder(door.max_packet_size)
        self._answers: list[bytes] = []
        self._flush_call: IDelayedCall | None = None
        self._linger_call: IDelayedCall | None = None
        self._reading = False
        self._closing = False
        self._reason = "peer"
        self.transport: Any = None

    @property
    def peer(self) -> str:
        """
        Remote address as C{ip:port}.
        """
        host, port = self.transport.client[:2]
        return f"{host}:{port}"

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport
        self.connectionMade()

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)
        door = self._door
        door.metrics.opened += 1
        door.connections.add(self)
        door.post(ConnectionOpened("gateway", self._id))
        door.log.conn.info("client connected conn={peer} (gateway)", peer=self.peer)

    def dataReceived(self, data: bytes) -> None:
        if self._closing:
            return
        door = self._door
        door.metrics.bytes_in += len(data)
        counts = door.metrics.packets_in
        self._reading = True
        try:
            for cmd, flags, session_id, body in self._decoder.receive(data):
                counts[cmd] += 1
                if cmd == _GATEWAY_PUSH:
                    if not door.push_received(self, session_id, flags, body):
                        self._error_and_close(cmd, session_id, ErrorCode.DISPATCH_ERROR)
                elif cmd == _GATEWAY_QUERY:
                    if not door.query_received(self, session_id, flags, body):
                        self._error_and_close(cmd, session_id, ErrorCode.DISPATCH_ERROR)
                else:
                    door.unsupported(self.peer, cmd)
                    self._error_and_close(cmd, session_id, ErrorCode.UNSUPPORTED_CMD)
                if self._closing:
                    break
        except ProtocolError as error:
            door.metrics.decode_errors["framing"] += 1
            door.log.conn.error(
                "client caught ex, conn={peer} (gateway): {error}",
                peer=self.peer,
                error=error,
            )
            self._close("framing")
        finally:
            self._reading = False
        self._flush()

    def connectionLost(self, reason: Failure) -> None:
        door = self._door
        self._closing = True
        if self._flush_call is not None:
            self._flush_call.cancel()
            self._flush_call = None
        if self._linger_call is not None:
            self._linger_call.cancel()
            self._linger_call = None
        door.metrics.closed[self._reason] += 1
        door.connections.discard(self)
        door.post(ConnectionClosed("gateway", self._id, None, None))
        door.log.conn.info("client disconnected conn={peer} (gateway)", peer=self.peer)

    def _error_and_close(self, cmd: int, session_id: int, code: ErrorCode) -> None:
        body = Error.of(cmd, code).encode()
        self.answer(_ERROR, encode_packet(_ERROR, session_id, 0, body))
        self._close(code.reason.replace(" ", "-"))

    def answer(self, cmd: int, data: bytes) -> bool:
        """
        Have an answer go out with the next batch.

        @return: C{False} when the connection is gone.
        """
        if self._closing:
            return False
        metrics = self._door.metrics
        metrics.packets_out[cmd] += 1
        metrics.bytes_out += len(data)
        self._answers.append(data)
        if not self._reading and self._flush_call is None:
            self._flush_call = self._door.clock.callLater(0, self._flush_later)
        return True

    def _flush_later(self) -> None:
        self._flush_call = None
        self._flush()

    def _flush(self) -> None:
        if self._answers:
            data = b"".join(self._answers)
            self._answers.clear()
            self.transport.write(data)

    def _close(self, reason: str) -> None:
        self._closing = True
        self._reason = reason
        self._flush()
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        # A sender that does not read does not keep its answers here for ever.
        self._linger_call = self._door.clock.callLater(_LINGER, self._linger_ended)

    def _linger_ended(self) -> None:
        self._linger_call = None
        self.transport.abortConnection()

    def close(self) -> None:
        """
        Close when everything answered so far has gone out: the node stops.
        """
        if not self._closing:
            self._close("stop")

    # --------------------------------------------------------- backpressure

    def pauseProducing(self) -> None:
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.transport.resumeProducing()

    def stopProducing(self) -> None:
        pass


class GatewayFactory(ServerFactory):
    """
    Accepts senders from the networks that are allowed (C-26).
    """

    noisy = False

    def __init__(self, door: GatewayDoor) -> None:
        self.door = door

    def buildProtocol(self, addr: IAddress | None) -> Any:
        door = self.door
        host = addr.host  # type: ignore[union-attr]
        if not door.allows(host):
            door.metrics.refused["gateway-allowed-peers"] += 1
            door.log.conn.warn(
                "gateway connection from {peer} refused: not in "
                "mp.net.gateway-allowed-peers",
                peer=host,
            )
            return None
        if len(door.connections) >= _MAX_CONNECTIONS:
            door.metrics.refused["gateway-connections"] += 1
            door.log.conn.warn(
                "gateway connection from {peer} refused: {count} are open",
                peer=host,
                count=len(door.connections),
            )
            return None
        return GatewayProtocol(door)
