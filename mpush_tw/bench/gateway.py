"""
The sender's side: pushes through one gateway connection, with a window or at a rate.
"""

from __future__ import annotations

import select
import socket
import time
from array import array

import attrs

from mpush_tw.bench.devices import STAMP, user_of
from mpush_tw.protocol.commands import Command, Flag
from mpush_tw.protocol.gateway import GatewayPush
from mpush_tw.protocol.packet import PacketDecoder, encode_packet

_OK = int(Command.OK)
_GATEWAY_PUSH = int(Command.GATEWAY_PUSH)
_MOBILE = 1


@attrs.define
class PushCounts:
    """
    What the answers say.

    @ivar ok: Pushes done while the time ran.
    @ivar late: Pushes done as well, with an answer after the time was up: they do not
        count towards the rate.
    @ivar errors: Pushes answered otherwise, then or later.
    @ivar reply_ns: Request to answer, for each answered push.
    @ivar unanswered: Pushes that the gateway never answered: acknowledgements that
        were lost, or came too late.
    @ivar cpu: Share of a core that this side used.
    """

    ok: int = 0
    late: int = 0
    errors: int = 0
    unanswered: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    reply_ns: array[int] = attrs.Factory(lambda: array("q"))


class GatewayLoad:
    """
    Pushes to C{users} numbered users in turn.
    """

    def __init__(
        self,
        host: str,
        port: int,
        users: int,
        size: int,
        auto_ack: bool,
        timeout_ms: int = 5000,
    ) -> None:
        """
        @param size: Bytes of content, at least 8.
        """
        self._socket = socket.create_connection((host, port), 5)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._decoder = PacketDecoder(1 << 20)
        self._users = [user_of(index) for index in range(users)]
        self._filler = b"x" * (size - STAMP.size)
        self._flags = int(Flag.AUTO_ACK) if auto_ack else 0
        self._timeout_ms = timeout_ms
        self._next = 0
        self._sent: dict[int, int] = {}
        self._out = b""

    def run(self, seconds: float, window: int, rate: float) -> PushCounts:
        """
        Push for a while, then wait for the answers that are still due.

        @param window: Most pushes without an answer.
        @param rate: Pushes per second; 0 for as many as the window allows.
        """
        counts = PushCounts()
        self._sent.clear()
        start = time.monotonic()
        cpu = time.process_time()
        issued = 0
        while (now := time.monotonic()) < start + seconds:
            allowed = window - len(self._sent)
            if rate:
                allowed = min(allowed, int((now - start) * rate) - issued)
            if allowed > 0:
                issued += allowed
                self._issue(allowed)
            self._exchange(counts, 0.0005 if rate else 0.05)
        counts.seconds = time.monotonic() - start
        counts.cpu = (time.process_time() - cpu) / counts.seconds
        in_time = counts.ok
        deadline = time.monotonic() + self._timeout_ms / 1000 + 1
        while self._sent and time.monotonic() < deadline:
            self._exchange(counts, 0.05)
        counts.unanswered = len(self._sent)
        counts.ok, counts.late = in_time, counts.ok - in_time
        return counts

    def close(self) -> None:
        """
        Close the connection.
        """
        self._socket.close()

    def _issue(self, count: int) -> None:
        packets = []
        users = self._users
        for _ in range(count):
            self._next += 1
            number = self._next & 0x7FFFFFFF
            now = time.monotonic_ns()
            message = GatewayPush(
                users[self._next % len(users)],
                _MOBILE,
                self._timeout_ms,
                STAMP.pack(now) + self._filler,
            )
            packets.append(
                encode_packet(_GATEWAY_PUSH, number, self._flags, message.encode())
            )
            self._sent[number] = now
        self._out += b"".join(packets)

    def _exchange(self, counts: PushCounts, seconds: float) -> None:
        writing = [self._socket] if self._out else []
        readable, writable, _ = select.select([self._socket], writing, [], seconds)
        if writable:
            try:
                self._out = self._out[self._socket.send(self._out) :]
            except BlockingIOError:
                pass
        if not readable:
            return
        data = self._socket.recv(1 << 18)
        if not data:
            raise RuntimeError("the node closed the gateway connection")
        now = time.monotonic_ns()
        for cmd, _, number, _ in self._decoder.receive(data):
            sent = self._sent.pop(number, None)
            if sent is None:
                continue
            counts.reply_ns.append(now - sent)
            if cmd == _OK:
                counts.ok += 1
            else:
                counts.errors += 1
