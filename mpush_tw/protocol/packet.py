"""
Packets: the 13-byte header, the heartbeat byte, and the incremental decoder.

Layout (protocol 2.1), big-endian::

    offset 0        4     5       7      8           12    13
           +--------+-----+-------+------+-----------+-----+--------- ...
           | length | cmd |  cc   | flags| sessionId | lrc | body
           +--------+-----+-------+------+-----------+-----+--------- ...
    bytes     4        1     2       1        4         1    length

C{cc} and C{lrc} are 0 when sent and ignored when received (protocol 2.3, 2.4): no
shipped client computes them. A heartbeat is the single byte C{DF} where a header
would begin; it cannot be mistaken, because a length that starts with C{DF} would be
negative (protocol 2.2).

A packet is a plain tuple C{(cmd, flags, session_id, body)}, not an object: this is the
hottest code of the server, and unpacking a tuple names its parts just as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

from mpush_tw.errors import ProtocolError
from mpush_tw.protocol.commands import Command

Packet = tuple[int, int, int, bytes]
"""
C{(cmd, flags, session_id, body)}: cmd and session_id are signed (8 and 32 bits), flags
is unsigned, body is as received, still encrypted and compressed.
"""

HEADER = Struct(">ibhBib")
HEADER_SIZE = HEADER.size
HEARTBEAT_BYTE = b"\xdf"
HEARTBEAT: Packet = (int(Command.HEARTBEAT), 0, 0, b"")
DEFAULT_MAX_BODY = 10240
"""
C{mp.core.max-packet-size} of the original: what its nodes and senders accept.
"""

_HEARTBEAT_VALUE = HEARTBEAT_BYTE[0]
_COMMAND_HEARTBEAT = int(Command.HEARTBEAT)
_pack = HEADER.pack
_unpack_from = HEADER.unpack_from


def encode_packet(cmd: int, session_id: int, flags: int, body: bytes) -> bytes:
    """
    Build one packet, ready for the transport.

    @param cmd: Command byte, -128 to 127. 1 gives the heartbeat byte whatever the
        other arguments are (protocol 2.2).
    @param session_id: Signed 32 bits.
    @param flags: 0 to 255.
    @param body: The body as it goes out, compressed and encrypted if need be.
    """
    if cmd == _COMMAND_HEARTBEAT:
        return HEARTBEAT_BYTE
    return _pack(len(body), cmd, 0, flags, session_id, 0) + body


def check_code(body: bytes) -> int:
    """
    Compute the check code that the original defines and never uses (protocol 2.3).

    @param body: The body as on the wire.
    @return: The sum of the bytes, as a signed 16-bit number.
    """
    total = sum(body) & 0xFFFF
    return total - 0x10000 if total >= 0x8000 else total


def header_lrc(header: bytes) -> int:
    """
    Compute the longitudinal check of a header (protocol 2.4), for tools only.

    @param header: At least the first 12 header bytes.
    @return: Their exclusive or, 0 to 255.
    """
    value = 0
    for byte in header[:12]:
        value ^= byte
    return value


class PacketDecoder:
    """
    Cuts a byte stream into packets (protocol 3).

    The length is checked as soon as its four bytes are known, so a decoder never
    holds more than C{max_body + 13} bytes beyond the chunk it was last given
    (protocol 3.3, defects D1 and D2).

    One instance serves one direction of one connection. After it raised, or after
    the caller stopped iterating, it is of no further use: everything that was still
    buffered is gone (D23).
    """

    __slots__ = ("_held", "max_body")

    def __init__(self, max_body: int = DEFAULT_MAX_BODY) -> None:
        """
        @param max_body: Largest body length accepted, in bytes.
        """
        self.max_body = max_body
        self._held = b""

    @property
    def held(self) -> int:
        """
        How many bytes of an unfinished packet are kept.
        """
        return len(self._held)

    def receive(self, data: bytes) -> Iterator[Packet]:
        """
        Take in bytes and yield the packets that are complete with them, in order.

        The iterator must be run to its end, or abandoned for good. A caller that
        has to wait in the middle keeps the iterator and feeds nothing meanwhile.

        @param data: Bytes as they came, of any length.
        @raise ProtocolError: If a length is negative or above the limit. Packets in
            front of it have been yielded by then.
        """
        if self._held:
            data = self._held + data
            self._held = b""
        position, end = 0, len(data)
        max_body = self.max_body
        while position < end:
            if data[position] == _HEARTBEAT_VALUE:
                position += 1
                yield HEARTBEAT
                continue
            body_start = position + HEADER_SIZE
            if body_start > end:
                if end - position >= 4:
                    self._check(int.from_bytes(data[position : position + 4]))
                break
            length, cmd, _, flags, session_id, _ = _unpack_from(data, position)
            if not 0 <= length <= max_body:
                self._check(length & 0xFFFFFFFF)
            body_end = body_start + length
            if body_end > end:
                break
            position = body_end
            yield cmd, flags, session_id, data[body_start:body_end]
        if position < end:
            self._held = data[position:] if position else data

    def _check(self, length: int) -> None:
        """
        @param length: The length field, read as unsigned.
        """
        if length > self.max_body:
            if length >= 1 << 31:
                raise ProtocolError(f"negative packet length {length - (1 << 32)}")
            raise ProtocolError(
                f"packet length {length} is over the limit of {self.max_body}"
            )


def decode_datagram(data: bytes, max_body: int = DEFAULT_MAX_BODY) -> Packet:
    """
    Read the one packet of a gateway datagram (protocol 13).

    @param data: The datagram; bytes behind the body are ignored.
    @param max_body: Largest body length accepted, in bytes.
    @raise ProtocolError: If it is not one whole packet. A lone heartbeat byte is
        none either: the gateway has no heartbeat.
    """
    if len(data) < HEADER_SIZE:
        raise ProtocolError(f"datagram of {len(data)} bytes is shorter than a header")
    length, cmd, _, flags, session_id, _ = _unpack_from(data)
    if not 0 <= length <= max_body:
        raise ProtocolError(f"datagram says length {length}, limit is {max_body}")
    if HEADER_SIZE + length > len(data):
        raise ProtocolError(
            f"datagram says length {length}, has {len(data) - HEADER_SIZE} body bytes"
        )
    return cmd, flags, session_id, data[HEADER_SIZE : HEADER_SIZE + length]
