"""
The connect door: devices over TCP, in binary packets (server 2, 6.1, 7.1).

The protocol decides nothing: it cuts the stream into packets, has them dispatched one
after the other, and writes what the core wants written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocol, IReactorTime
from twisted.internet.protocol import ServerFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from mpush_tw.core.connection import Answer, Connection, M
from mpush_tw.core.handlers import Dispatcher
from mpush_tw.core.log import NodeLog
from mpush_tw.core.metrics import DoorMetrics, NodeMetrics
from mpush_tw.core.registry import Admission, Connections
from mpush_tw.errors import ProtocolError
from mpush_tw.protocol.body import Cipher, open_body, seal_body
from mpush_tw.protocol.commands import Command, Flag
from mpush_tw.protocol.messages import (
    BindUser,
    Handshake,
    HttpRequest,
    HttpResponse,
    Kick,
)
from mpush_tw.protocol.packet import (
    HEADER,
    HEARTBEAT_BYTE,
    Packet,
    PacketDecoder,
    encode_packet,
)
from mpush_tw.protocol.prepared import PreparedPush
from mpush_tw.transports._device import (
    ANSWER_COMMANDS,
    LONG_PACKET,
    DeviceConnection,
)

_PUSH = int(Command.PUSH)
_ACK = int(Command.ACK)
_KICK = int(Command.KICK)
_HANDSHAKE = int(Command.HANDSHAKE)
_HEARTBEAT = int(Command.HEARTBEAT)
_CRYPTO = int(Flag.CRYPTO)
_pack_header = HEADER.pack


class ConnectDoor:
    """
    What all connections of the door share.
    """

    __slots__ = (
        "admission",
        "clock",
        "closed",
        "compress_threshold",
        "connections",
        "dispatcher",
        "key",
        "log",
        "max_inflated",
        "max_packet_size",
        "metrics",
        "node_metrics",
        "opened",
        "require_crypto",
    )

    def __init__(
        self,
        key: Cipher,
        connections: Connections,
        admission: Admission,
        dispatcher: Dispatcher,
        closed: Callable[[Connection], Deferred[None]],
        clock: IReactorTime,
        log: NodeLog,
        metrics: NodeMetrics,
        max_packet_size: int,
        compress_threshold: int,
        max_inflated: int,
        require_crypto: bool,
        opened: Callable[[Connection], None] = lambda connection: None,
    ) -> None:
        """
        @param key: Opens what comes before the handshake, and HANDSHAKE itself.
        @param closed: Told of each connection that has ended, once.
        @param require_crypto: Refuse BIND, UNBIND, PUSH and HTTP_PROXY in clear (S-12).
        @param opened: Told of each connection that was accepted.
        """
        self.key = key
        self.connections = connections
        self.admission = admission
        self.dispatcher = dispatcher
        self.closed = closed
        self.clock = clock
        self.log = log
        self.metrics: DoorMetrics = metrics.conn
        self.node_metrics = metrics
        self.max_packet_size = max_packet_size
        self.compress_threshold = compress_threshold
        self.max_inflated = max_inflated
        self.require_crypto = require_crypto
        self.opened = opened


@implementer(IProtocol)
class ConnectProtocol(DeviceConnection):
    """
    One device.
    """

    __slots__ = (
        "_batch",
        "_decoder",
        "_door",
        "_packets",
    )

    def __init__(self, door: ConnectDoor) -> None:
        super().__init__(door.key, door.clock.seconds())
        self._door = door
        self._decoder = PacketDecoder(door.max_packet_size)
        self._batch: list[bytes] | None = None
        self._packets: Iterator[Packet] | None = None

    # ------------------------------------------------------ called by Twisted

    def connectionMade(self) -> None:
        door = self._door
        # A device that does not read is not read from either.
        self.transport.registerProducer(self, True)
        self._arrived(door.connections, door.opened, door.metrics, door.log)

    def dataReceived(self, data: bytes) -> None:
        if self._closing:
            return
        self._door.metrics.bytes_in += len(data)
        packets = self._decoder.receive(data)
        if self._packets is not None:
            # A read that was under way when the connection was told to wait.
            packets = _chain(self._packets, packets)
            self._packets = packets
            return
        self._handle(packets)

    def connectionLost(self, reason: Failure) -> None:
        door = self._door
        self._closing = True
        self._packets = None
        self._left(
            door.connections, door.admission, door.closed, door.metrics, door.log
        )

    # ------------------------------------------------------------ packets in

    def _handle(self, packets: Iterator[Packet]) -> None:
        door = self._door
        counts = door.metrics.packets_in
        dispatch = door.dispatcher.dispatch
        # What the packets of one read are answered with goes out in one write.
        self._batch = []
        try:
            for cmd, flags, session_id, body in packets:
                self.last_read = door.clock.seconds()
                counts[cmd] += 1
                waiting = dispatch(self, cmd, session_id, flags, body)
                if self._closing:
                    return
                if waiting is not None:
                    self._packets = packets
                    self._wait_for(waiting)
                    return
        except ProtocolError as error:
            door.metrics.decode_errors["framing"] += 1
            door.log.conn.error(
                "client caught ex, conn={conn}: {error}", conn=self, error=error
            )
            self.close("framing")
        finally:
            self._flush()

    def _flush(self) -> None:
        batch, self._batch = self._batch, None
        if batch:
            self.transport.write(batch[0] if len(batch) == 1 else b"".join(batch))

    def _go_on(self, result: None) -> None:
        packets, self._packets = self._packets, None
        self._under_way = None
        if packets is None or self._closing:
            return
        if not self._congested:
            self.transport.resumeProducing()
        self._handle(packets)

    def expired(self, now: float) -> None:
        """
        Called by the wheel: the deadline of the handshake, or a heartbeat check.
        """
        self._door.connections.check(self, now)

    def decode(self, kind: type[M], flags: int, body: object) -> M:
        assert isinstance(body, bytes)
        door = self._door
        if body and not flags & _CRYPTO and kind in (BindUser, HttpRequest):
            self._in_clear(kind.__name__)
        cipher = door.key if kind is Handshake else self.cipher
        return kind.decode(open_body(flags, body, cipher, door.max_inflated))

    def decode_content(self, flags: int, body: object) -> bytes:
        assert isinstance(body, bytes)
        if body and not flags & _CRYPTO:
            self._in_clear("PUSH")
        return open_body(flags, body, self.cipher, self._door.max_inflated)

    def _in_clear(self, what: str) -> None:
        if not self.handshaken:
            return
        self._door.node_metrics.clear_bodies += 1
        if self._door.require_crypto:
            raise ProtocolError(f"{what} in clear, mp.security.require-crypto is on")

    # ----------------------------------------------------------- packets out

    def answer(self, session_id: int, message: Answer) -> bool:
        cmd = ANSWER_COMMANDS[type(message)]
        flags, body = 0, message.encode()
        # All go raw but a handshake and what a web server answered (protocol 8). What
        # the proxy answers by itself has no headers, not even an empty map.
        fetched = isinstance(message, HttpResponse) and message.headers is not None
        if fetched or cmd == _HANDSHAKE:
            flags, body = seal_body(body, self.cipher, self._door.compress_threshold)
        return self._write(cmd, encode_packet(cmd, session_id, flags, body), fetched)

    def send_push(self, message_id: int, flags: int, content: bytes) -> bool:
        if self._closing:
            return False
        sealed, body = seal_body(content, self.cipher, self._door.compress_threshold)
        return self._write(
            _PUSH,
            _pack_header(len(body), _PUSH, 0, flags | sealed, message_id, 0) + body,
        )

    def send_prepared(self, message: PreparedPush) -> bool:
        return self._write(_PUSH, message.packet(self.cipher))

    def send_kick(self, user_id: str) -> bool:
        flags, body = seal_body(
            Kick(self.device_id, user_id).encode(),
            self.cipher,
            self._door.compress_threshold,
        )
        return self._write(_KICK, encode_packet(_KICK, 0, flags, body))

    def send_ack(self, session_id: int) -> bool:
        return self._write(_ACK, encode_packet(_ACK, session_id, 0, b""))

    def send_heartbeat(self) -> bool:
        return self._write(_HEARTBEAT, HEARTBEAT_BYTE)

    def _write(self, cmd: int, data: bytes, asked_for: bool = False) -> bool:
        if self._closing:
            return False
        metrics = self._door.metrics
        metrics.packets_out[cmd] += 1
        metrics.bytes_out += len(data)
        if asked_for and len(data) > LONG_PACKET:
            # Longer than what may wait for a device, perhaps; the proxy bounds it.
            self._flush()
            self.transport.write_granted(data)
        elif self._batch is None:
            self.transport.write(data)
        else:
            self._batch.append(data)
        return not self._closing

    def close(self, reason: str) -> None:
        if not self._closing:
            self._closing = True
            self._reason = reason
            self._flush()
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def abort(self, reason: str) -> None:
        if not self._closing:
            self._closing = True
            self._reason = reason
        self._batch = None
        self.transport.abortConnection()


def _chain(first: Iterator[Packet], second: Iterator[Packet]) -> Iterator[Packet]:
    yield from first
    yield from second


class ConnectFactory(ServerFactory):
    """
    Accepts devices.
    """

    noisy = False

    def __init__(self, door: ConnectDoor) -> None:
        self.door = door

    def buildProtocol(self, addr: IAddress | None) -> Any:
        door = self.door
        refusal = door.admission.admit(addr.host)  # type: ignore[union-attr]
        if refusal is not None:
            door.metrics.refused[refusal] += 1
            door.log.conn.warn(
                "connection from {peer} refused: mp.limits.{limit}",
                peer=addr,
                limit=refusal,
            )
            return None
        return ConnectProtocol(door)
