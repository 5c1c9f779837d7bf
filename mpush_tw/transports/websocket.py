"""
The WebSocket door: pages, in JSON packets (server 10, protocol 14).

A connection begins as HTTP (L{mpush_tw.transports._websocket_http}) and may become a
WebSocket (L{mpush_tw.transports._websocket_engine}). What comes over that goes to the
same handlers, routes and push centre as the packets of devices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IReactorTime,
    ISSLTransport,
)
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mpush_tw.core.connection import Answer, Connection, M
from mpush_tw.core.handlers import Dispatcher
from mpush_tw.core.log import NodeLog
from mpush_tw.core.metrics import NodeMetrics
from mpush_tw.core.registry import Admission, Connections
from mpush_tw.core.wheel import TimingWheel
from mpush_tw.errors import ProtocolError
from mpush_tw.interfaces import IJsonCodec
from mpush_tw.protocol.commands import Command
from mpush_tw.protocol.json_messages import message_from_json, message_to_json
from mpush_tw.protocol.json_packet import decode_json_packet, json_payload
from mpush_tw.protocol.messages import (
    HttpResponse,
    JsonBody,
    Kick,
    json_text,
)
from mpush_tw.protocol.prepared import PreparedPush, push_payload
from mpush_tw.protocol.web_frames import message_frame
from mpush_tw.transports._device import (
    ANSWER_COMMANDS,
    LONG_PACKET,
    DeviceConnection,
)
from mpush_tw.transports._websocket_engine import EngineFactory, WebSocketEngine
from mpush_tw.transports._websocket_http import Front, WebChannel, refusal

__all__ = ["Front", "WebSocketConnection", "WebSocketDoor", "WebSocketFactory"]

MAX_MESSAGE = 65536
"""
Longest message of a page, in bytes, unless packets may be longer (protocol 14.1).
"""

_LINGER_SECONDS = 5.0
"""
How long a peer has to close after the server did. One that still takes what was
written gets it up to L{_MAX_LINGERS} times more.
"""

_MAX_LINGERS = 12
_MAX_REFUSALS = 64
"""
Refusals under way at a time; above it a connection is closed without one.
"""

_PUSH = int(Command.PUSH)

_FAREWELLS: dict[str, tuple[int, bytes]] = {
    "stop": (1001, b"going away"),
    "binary": (1003, b"text only"),
    "framing": (1007, b"not a packet"),
}
"""
Close code and text, by the reason of the close; for all others it is the original's
C{1000 Bye} (server 10.3).
"""


@attrs.define(kw_only=True, eq=False)
class WebSocketDoor:
    """
    What all connections of the door share.

    @ivar closed: Told of each connection that has ended, once.
    @ivar opened: Told of each connection that was accepted, pages included.
    @ivar max_message: Longest message of a page, in bytes.
    @ivar compress_threshold: Messages above it, in bytes, are deflated for those who
        take that (C{mp.core.compress-threshold}).
    @ivar max_missed: Pings without any sign of life that are tolerated in a row.
    @ivar json: Reads and writes JSON.
    @ivar engines: What autobahn's side of the connections shares.
    """

    front: Front
    connections: Connections
    admission: Admission
    dispatcher: Dispatcher
    closed: Callable[[Connection], Deferred[None]]
    opened: Callable[[Connection], None] = lambda connection: None
    wheel: TimingWheel
    clock: IReactorTime
    log: NodeLog
    metrics: NodeMetrics
    max_message: int = MAX_MESSAGE
    compress_threshold: int
    max_missed: int
    json: IJsonCodec
    engines: EngineFactory = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.engines = EngineFactory(self.clock, self.max_message)


@implementer(IProtocol)
class WebSocketConnection(DeviceConnection):
    """
    One page, or something else that speaks HTTP.

    @ivar waiting: Whether a handler is under way that the next message waits for.
    """

    __slots__ = (
        "_channel",
        "_door",
        "_ended",
        "_engine",
        "_lingers",
        "_number",
        "_sent",
        "_written",
    )

    door = "ws"

    def __init__(self, door: WebSocketDoor) -> None:
        super().__init__(None, door.clock.seconds())
        self._door = door
        self._channel: WebChannel | None = None
        self._engine: WebSocketEngine | None = None
        self._ended = False
        self._lingers = 0
        self._number = 0
        # Bytes written, and how many of them the kernel had taken when last looked at.
        self._written = self._sent = 0

    @property
    def front(self) -> Front:
        """
        What the HTTP side offers.
        """
        return self._door.front

    @property
    def now(self) -> float:
        """
        The clock's time in seconds.
        """
        return self._door.clock.seconds()

    # ------------------------------------------------------ called by Twisted

    def connectionMade(self) -> None:
        door = self._door
        self._arrived(door.connections, door.opened, door.metrics.ws, door.log)
        self._channel = WebChannel(self)
        self._channel.makeConnection(self.transport)  # type: ignore[no-untyped-call]

    def dataReceived(self, data: bytes) -> None:
        self._door.metrics.ws.bytes_in += len(data)
        if self._closing:
            return
        # Whatever comes is a sign of life (clients 9.7).
        self.missed_heartbeats = 0
        if self._engine is not None:
            self._engine.dataReceived(data)
        elif self._channel is not None:
            self._channel.dataReceived(data)  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        door = self._door
        self._closing = True
        channel, self._channel = self._channel, None
        self._engine = None
        if channel is not None:
            channel.connectionLost(reason)  # type: ignore[no-untyped-call]
        self._left(
            door.connections, door.admission, door.closed, door.metrics.ws, door.log
        )

    # ------------------------------------------- called by the HTTP side

    def upgrade(self, key: str, offers: str, rest: bytes) -> None:
        """
        Become a WebSocket.

        @param key: Key of the opening request.
        @param offers: Its offer of compression, or nothing.
        @param rest: What came behind it.
        """
        self._channel = None
        self.transport.unregisterProducer()
        # A page that does not read is not read from either.
        self.transport.registerProducer(self, True)
        engine = WebSocketEngine(self._door.engines, self)
        self._engine = engine
        if not engine.open(self.transport, key, offers):
            self._reason = "framing"
            self.finish()
            return
        self.transport.resumeProducing()
        if rest:
            engine.dataReceived(rest)

    def opening_refused(self, status: int, why: str) -> None:
        """
        Note that an opening request is answered with a refusal.
        """
        self._door.metrics.ws.refused[f"http-{status}"] += 1
        self._door.log.conn.warn(
            "WebSocket refused, {status} {why}, conn={channel}",
            status=status,
            why=why,
            channel=self.channel(),
        )

    def refuse(self, answer: bytes) -> None:
        """
        Answer a request that is not read to its end.
        """
        if not self._closing:
            self._reason = "framing"
            self._door.metrics.ws.decode_errors["framing"] += 1
            self.transport.write(answer)
            self.finish()

    def finish(self) -> None:
        """
        The last thing has been written: send it, and have the peer read it. Closing at
        once, with something of the peer unread, would take it away from him.
        """
        if self._ended:
            return
        self._closing = self._ended = True
        self._sent = 0
        transport = self.transport
        transport.unregisterProducer()
        if ISSLTransport.providedBy(transport):
            transport.loseConnection()
        else:
            transport.loseWriteConnection()
            transport.resumeProducing()
        self._door.wheel.add(self, _LINGER_SECONDS)

    # ------------------------------------------------- called by the engine

    @property
    def waiting(self) -> bool:
        return self._under_way is not None

    def message_received(self, payload: bytes, is_binary: bool) -> None:
        if self._closing:
            return
        door = self._door
        metrics = door.metrics.ws
        if is_binary:
            metrics.decode_errors["framing"] += 1
            door.log.conn.error("client caught ex, conn={conn}: binary", conn=self)
            self.close("binary")
            return
        try:
            cmd, flags, session_id, body = decode_json_packet(payload, door.json.decode)
        except ProtocolError as error:
            metrics.decode_errors["framing"] += 1
            door.log.conn.error(
                "client caught ex, conn={conn}: {error}", conn=self, error=error
            )
            self.close("framing")
            return
        self.last_read = door.clock.seconds()
        metrics.packets_in[cmd] += 1
        self._number = session_id
        under_way = door.dispatcher.dispatch(self, cmd, session_id, flags, body)
        if under_way is not None and not self._closing:
            self._wait_for(under_way)

    def _go_on(self, result: None) -> None:
        self._under_way = None
        if self._closing or self._engine is None:
            return
        if not self._congested:
            self.transport.resumeProducing()
        try:
            self._engine.go_on()
        except Exception:
            # Twisted does this for what dataReceived raises.
            self._door.log.conn.failure("conn={conn}", Failure(), conn=self)
            self.abort("failed")

    def close_sent(self, code: int | None, reason: str, is_reply: bool) -> None:
        if not is_reply and self._reason == "peer":
            # Neither side wanted to close: the peer broke a rule.
            self._reason = "framing"
            self._door.metrics.ws.decode_errors["framing"] += 1
            self._door.log.conn.error(
                "client caught ex, conn={conn}: {code} {reason}",
                conn=self,
                code=code,
                reason=reason,
            )
        self.finish()

    # ------------------------------------------------------------------ time

    def expired(self, now: float) -> None:
        """
        Called by the wheel: the deadline of the handshake, of closing, or a ping.
        """
        door = self._door
        if self._closing or self._channel is not None:
            if self._lingers < _MAX_LINGERS and self._takes():
                self._lingers += 1
                door.wheel.add(self, _LINGER_SECONDS)
            elif self._closing:
                self.transport.abortConnection()
            elif self._channel is not None and self._channel.answered:
                # A browser that has its page and keeps the connection, just in case.
                self.close("idle")
            else:
                door.connections.check(self, now)
        elif not self.handshaken:
            door.connections.check(self, now)
        else:
            self._check()

    def _takes(self) -> bool:
        """
        Whether the peer has taken something of what waits for him, since last asked.
        """
        queued = self.transport.queued
        before, self._sent = self._sent, queued
        return bool(queued and (not before or queued < before))

    def _check(self) -> None:
        """
        Look for signs of life, and ask for the next one (S-25).
        """
        door = self._door
        sent = self._written - self.transport.queued
        if self._congested and sent > self._sent:
            # Not read from, but it takes what it gets.
            self.missed_heartbeats = 0
        self._sent = sent
        if self.missed_heartbeats > door.max_missed:
            door.metrics.heartbeat_timeouts["close"] += 1
            self.abort("heartbeat")
            door.log.heartbeat.warn(
                "client heartbeat timeout times={times}, do close conn={conn}",
                times=self.missed_heartbeats,
                conn=self,
            )
            return
        if self.missed_heartbeats:
            door.metrics.heartbeat_timeouts["wait"] += 1
            door.log.heartbeat.info(
                "client heartbeat timeout times={times}, connection={conn}",
                times=self.missed_heartbeats,
                conn=self,
            )
        self.missed_heartbeats += 1
        if self._engine is not None:
            self._engine.sendPing()
        door.wheel.add(self, self.heartbeat, coarse=True)

    # -------------------------------------------------------------- packets in

    def decode(self, kind: type[M], flags: int, body: object) -> M:
        message: M = message_from_json(kind, _members(body))
        return message

    def decode_content(self, flags: int, body: object) -> bytes:
        content = json_text(_members(body), "content")
        return (content or "").encode("utf-8", "replace")

    # ------------------------------------------------------------- packets out

    def answer(self, session_id: int, message: Answer) -> bool:
        fetched = isinstance(message, HttpResponse) and message.headers is not None
        body = message_to_json(message)
        return self._send(ANSWER_COMMANDS[type(message)], session_id, body, fetched)

    def send_push(self, message_id: int, flags: int, content: bytes) -> bool:
        if self._closing:
            return False
        return self._write(
            _PUSH,
            self._frame(
                push_payload(message_id, flags, content, self._door.json.encode)
            ),
        )

    def send_prepared(self, message: PreparedPush) -> bool:
        if self._engine is None:
            return False
        return self._write(
            _PUSH, message.frame(self._engine.window_bits, self._door.json.encode)
        )

    def send_kick(self, user_id: str) -> bool:
        return self._send(int(Command.KICK), 0, Kick(self.device_id, user_id).to_json())

    def send_ack(self, session_id: int) -> bool:
        return self._send(int(Command.ACK), session_id)

    def send_heartbeat(self) -> bool:
        """
        Answer the heartbeat that is being handled, under its number: pages that send
        one know their own by it.
        """
        return self._send(int(Command.HEARTBEAT), self._number)

    def _send(
        self,
        cmd: int,
        session_id: int,
        body: JsonBody | None = None,
        asked_for: bool = False,
    ) -> bool:
        if self._closing:
            return False
        payload = json_payload(cmd, session_id, 0, body, self._door.json.encode)
        return self._write(cmd, self._frame(payload), asked_for)

    def _frame(self, payload: bytes) -> bytes:
        bits = 0 if self._engine is None else self._engine.window_bits
        return message_frame(payload, bits, self._door.compress_threshold)

    def _write(self, cmd: int, frame: bytes, asked_for: bool = False) -> bool:
        if self._closing:
            return False
        metrics = self._door.metrics.ws
        metrics.packets_out[cmd] += 1
        metrics.bytes_out += len(frame)
        self._written += len(frame)
        if asked_for and len(frame) > LONG_PACKET:
            # Longer than what may wait for a page, perhaps; the proxy bounds it.
            self.transport.write_granted(frame)
        else:
            self.transport.write(frame)
        return not self._closing

    def close(self, reason: str) -> None:
        if self._closing:
            return
        self._reason = reason
        if self._engine is not None:
            code, text = _FAREWELLS.get(reason, (1000, b"Bye"))
            self._engine.sendCloseFrame(code, text)
        else:
            self.finish()

    def abort(self, reason: str) -> None:
        if not self._closing:
            self._closing = True
            self._reason = reason
        self._ended = True
        self.transport.abortConnection()


def _members(body: object) -> JsonBody:
    assert isinstance(body, dict)
    return body


_REFUSAL = refusal(
    503, "Service Unavailable", "too many connections", "retry-after: 30\r\n"
)


class _Refusal(Protocol):
    """
    A connection that a limit keeps out: it is told so in HTTP.
    """

    wheel_slot = 0

    def __init__(self, factory: WebSocketFactory, wheel: TimingWheel) -> None:
        self._factory = factory
        self._wheel = wheel

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(_REFUSAL)
        if ISSLTransport.providedBy(transport):
            transport.loseConnection()
        else:
            transport.loseWriteConnection()
        self._wheel.add(self, _LINGER_SECONDS)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._wheel.remove(self)
        self._factory.refusals -= 1

    def expired(self, now: float) -> None:
        """
        Called by the wheel: the peer has had time to read.
        """
        transport: Any = self.transport
        transport.abortConnection()


class WebSocketFactory(ServerFactory):
    """
    Accepts pages.

    @ivar refusals: Connections that are being told that there are too many.
    """

    noisy = False

    def __init__(self, door: WebSocketDoor) -> None:
        self.door = door
        self.refusals = 0

    def buildProtocol(self, addr: IAddress | None) -> Any:
        door = self.door
        limit = door.admission.admit(addr.host)  # type: ignore[union-attr]
        if limit is None:
            return WebSocketConnection(door)
        door.metrics.ws.refused[limit] += 1
        door.log.conn.warn(
            "connection from {peer} refused: mp.limits.{limit}",
            peer=addr,
            limit=limit,
        )
        if self.refusals >= _MAX_REFUSALS:
            return None
        self.refusals += 1
        return _Refusal(self, door.wheel)
