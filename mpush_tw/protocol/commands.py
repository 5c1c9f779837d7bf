"""
Numbers of the wire: commands, flags, error codes and the texts sent with them.

Where the rules are: protocol 2.5 (flags), 9 (commands), 12.1 (error codes).
"""

from __future__ import annotations

from enum import IntEnum, IntFlag


class Command(IntEnum):
    """
    The command byte of a packet, signed (protocol 9).

    Numbers that nobody handles are listed because logs name them; every other
    byte is valid on the wire too and is called C{UNKNOWN}. C{GATEWAY_QUERY} is ours.
    """

    UNKNOWN = -1
    HEARTBEAT = 1
    HANDSHAKE = 2
    LOGIN = 3
    LOGOUT = 4
    BIND = 5
    UNBIND = 6
    FAST_CONNECT = 7
    PAUSE = 8
    RESUME = 9
    ERROR = 10
    OK = 11
    HTTP_PROXY = 12
    KICK = 13
    GATEWAY_KICK = 14
    PUSH = 15
    GATEWAY_PUSH = 16
    NOTIFICATION = 17
    GATEWAY_NOTIFICATION = 18
    CHAT = 19
    GATEWAY_CHAT = 20
    GROUP = 21
    GATEWAY_GROUP = 22
    ACK = 23
    NACK = 24
    GATEWAY_QUERY = 64


def command_name(cmd: int) -> str:
    """
    Name a command byte for a log line or a metric label.

    @param cmd: The byte as received, -128 to 127.
    @return: The name of L{Command}, C{"UNKNOWN"} for every other number.
    """
    try:
        return Command(cmd).name
    except ValueError:
        return Command.UNKNOWN.name


class Flag(IntFlag):
    """
    Bits of the flags byte (protocol 2.5). 32, 64 and 128 mean nothing.
    """

    CRYPTO = 1
    COMPRESS = 2
    BIZ_ACK = 4
    AUTO_ACK = 8
    JSON_BODY = 16


ACK_FLAGS = int(Flag.BIZ_ACK | Flag.AUTO_ACK)
"""
The two bits of a GATEWAY_PUSH that are handed on to the device (D9, S-15).
"""


class ErrorCode(IntEnum):
    """
    The code byte of an ERROR body (protocol 12.1); 0 goes with a free text.
    """

    NONE = 0
    OFFLINE = 1
    PUSH_CLIENT_FAILURE = 2
    ROUTER_CHANGE = 3
    ACK_TIMEOUT = 4
    DISPATCH_ERROR = 100
    UNSUPPORTED_CMD = 101
    REPEAT_HANDSHAKE = 102
    SESSION_EXPIRED = 103
    INVALID_DEVICE = 104

    @property
    def reason(self) -> str:
        """
        The reason text that the wire carries with this code.
        """
        return _REASONS[self]


_REASONS = {
    ErrorCode.NONE: "",
    ErrorCode.OFFLINE: "user offline",
    ErrorCode.PUSH_CLIENT_FAILURE: "push to client failure",
    ErrorCode.ROUTER_CHANGE: "router change",
    ErrorCode.ACK_TIMEOUT: "ack timeout",
    ErrorCode.DISPATCH_ERROR: "handle message error",
    ErrorCode.UNSUPPORTED_CMD: "unsupported command",
    ErrorCode.REPEAT_HANDSHAKE: "repeat handshake",
    ErrorCode.SESSION_EXPIRED: "session expired",
    ErrorCode.INVALID_DEVICE: "invalid device",
}
