"""
One device connection: what the server knows of it, and how packets go out.

Where the rules are: server 3. Doors subclass L{Connection} and supply the way to the
wire; handlers, routes and the push centre only know this class. Tens of thousands
exist at a time, so every field is a slot and absent things are C{None} or a class
constant, never an empty container (DESIGN 6).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

from zope.interface import implementer

from mpush_tw.core.log import printable
from mpush_tw.interfaces import IPeerConnection
from mpush_tw.protocol.body import Cipher
from mpush_tw.protocol.messages import (
    Error,
    FastConnectOk,
    HandshakeOk,
    HttpResponse,
    Ok,
)
from mpush_tw.protocol.prepared import PreparedPush

if TYPE_CHECKING:
    from mpush_tw.core.push.acks import PendingAck

Answer = Ok | Error | HandshakeOk | FastConnectOk | HttpResponse
"""
What requests of devices are answered with.
"""


class Readable(Protocol):
    """
    A message class that has a binary form; some have a JSON form as well.
    """

    @classmethod
    def decode(cls, body: bytes) -> Self: ...


M = TypeVar("M", bound=Readable)


def new_connection_id() -> str:
    """
    Draw a connection id: eight lower-case hex digits (server 3.1).
    """
    return os.urandom(4).hex()


@implementer(IPeerConnection)
class Connection:
    """
    A connection and its session context (server 3.1, 3.2).

    @ivar id: Eight hex digits; stored in routes as C{connId}.
    @ivar device_id: C{None} until HANDSHAKE or FAST_CONNECT succeeded.
    @ivar user_id: C{None} unless bound.
    @ivar tags: As the last BIND gave them.
    @ivar heartbeat: The agreed interval in seconds.
    @ivar client_type: 0 until it is asked for; see L{mpush_tw.client_types}.
    @ivar cipher: RSA before the handshake, AES after it; C{None} where nothing is ever
        encrypted (gateway, WebSocket).
    @ivar last_read: Clock time of the last complete packet, in seconds.
    @ivar missed_heartbeats: Consecutive failed checks (server 5.2).
    @ivar handshake_digest: Hash of number and body of the handshake in force, to
        recognise an exact repetition (DESIGN 5a); 0 before it.
    @ivar acks: Pushes that wait for this connection's acknowledgement, by message id;
        C{None} while there are none.
    @ivar wheel_slot: See L{mpush_tw.core.wheel.Expirable}.
    """

    __slots__ = (
        "acks",
        "cipher",
        "client_type",
        "client_version",
        "device_id",
        "handshake_digest",
        "heartbeat",
        "id",
        "last_read",
        "missed_heartbeats",
        "os_name",
        "os_version",
        "tags",
        "user_id",
        "wheel_slot",
    )

    door = "conn"
    """
    Which door it came through, as metrics and events name it.
    """

    def __init__(self, cipher: Cipher | None, now: float) -> None:
        """
        @param cipher: What the door starts with.
        @param now: The clock's time in seconds.
        """
        self.id = new_connection_id()
        self.os_name: str | None = None
        self.os_version: str | None = None
        self.client_version: str | None = None
        self.device_id: str | None = None
        self.user_id: str | None = None
        self.tags: str | None = None
        self.heartbeat = 10.0
        self.client_type = 0
        self.cipher = cipher
        self.last_read = now
        self.missed_heartbeats = 0
        self.handshake_digest = 0
        self.acks: dict[int, PendingAck] | None = None
        self.wheel_slot = 0

    @property
    def handshaken(self) -> bool:
        """
        Whether HANDSHAKE or FAST_CONNECT has succeeded (server 3.2).
        """
        return self.device_id is not None

    # ----------------------------------------------- supplied by the door

    @property
    def peer(self) -> str:
        """
        Remote address as C{ip:port}.
        """
        raise NotImplementedError

    @property
    def connected(self) -> bool:
        """
        Whether packets can still be written.
        """
        raise NotImplementedError

    @property
    def busy(self) -> bool:
        """
        Whether more is queued than the high water mark (server 14.9).
        """
        raise NotImplementedError

    def decode(self, kind: type[M], flags: int, body: object) -> M:
        """
        Read the message of a packet that came over this connection.

        @param kind: Its class.
        @param flags: Flags of the packet.
        @param body: As the door received it: bytes, or a JSON object.
        @raise ProtocolError: If it cannot be read, or is in clear where the node
            demands encryption (S-12).
        """
        raise NotImplementedError

    def decode_content(self, flags: int, body: object) -> bytes:
        """
        Read the content of a PUSH that came over this connection; may be empty.

        @raise ProtocolError: As L{decode}.
        """
        raise NotImplementedError

    def answer(self, session_id: int, message: Answer) -> bool:
        """
        Answer a request, in the form and with the protection its class has on this door
        (protocol 8).

        @param session_id: Number of the request.
        @return: C{False} when the connection is gone.
        """
        raise NotImplementedError

    def send_push(self, message_id: int, flags: int, content: bytes) -> bool:
        """
        Write a PUSH (protocol 10.8).

        @param flags: 0 or ack bits.
        @param content: Never empty (D15).
        @return: C{False} when the connection is gone.
        """
        raise NotImplementedError

    def send_prepared(self, message: PreparedPush) -> bool:
        """
        Write the PUSH of a broadcast (server 14.7).

        @return: C{False} when the connection is gone.
        """
        raise NotImplementedError

    def send_kick(self, user_id: str) -> bool:
        """
        Write a KICK naming this connection's device (protocol 10.10).

        @return: C{False} when the connection is gone.
        """
        raise NotImplementedError

    def send_ack(self, session_id: int) -> bool:
        """
        Acknowledge an upstream PUSH (protocol 10.9).
        """
        raise NotImplementedError

    def send_heartbeat(self) -> bool:
        """
        Answer a heartbeat (protocol 2.2).
        """
        raise NotImplementedError

    def close(self, reason: str) -> None:
        """
        Stop reading, and close when everything written has gone out. What is
        still in the receive buffer is dropped (D23).

        @param reason: A word for the metrics.
        """
        raise NotImplementedError

    def abort(self, reason: str) -> None:
        """
        Close at once.
        """
        raise NotImplementedError

    def expired(self, now: float) -> None:
        """
        The deadline of the handshake, or the time of a heartbeat check, has come.
        """
        raise NotImplementedError

    # ------------------------------------------------------------ for logs

    def context(self) -> str:
        """
        Render the session context as the original does (operations 8.2).
        """
        if self.device_id is None and self.user_id is None:
            return ""

        def quoted(text: str | None) -> str:
            return "null" if text is None else f"'{printable(text)}'"

        return (
            f"{{osName={quoted(self.os_name)}, osVersion={quoted(self.os_version)}, "
            f"deviceId={quoted(self.device_id)}, userId={quoted(self.user_id)}, "
            f"tags={quoted(self.tags)}, heartbeat={int(self.heartbeat * 1000)}}}"
        )

    def channel(self) -> str:
        """
        Render the channel as the original does (operations 8.2).
        """
        mark = "-" if self.connected else "!"
        return f"[id: 0x{self.id}, {mark} R:/{self.peer}]"

    def __repr__(self) -> str:
        status = 1 if self.connected else 2
        return (
            f"[channel={self.channel()}, context={self.context()}, status={status}, "
            f"lastReadTime={int(self.last_read * 1000)}]"
        )
