"""
Tests of framing: L{mpush_tw.protocol.packet}.
"""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.errors import ProtocolError
from mpush_tw.protocol.packet import (
    DEFAULT_MAX_BODY,
    HEADER_SIZE,
    HEARTBEAT,
    Packet,
    PacketDecoder,
    check_code,
    decode_datagram,
    encode_packet,
    header_lrc,
)
from tests.protocol.strategies import (
    chunk_sizes,
    cut,
    encode_all,
    packets,
    receive_all,
    spoiled,
)

ABC = bytes.fromhex("000000030f0000090102030400616263")
ABC_PACKET: Packet = (15, 9, 0x01020304, b"abc")
ACK = bytes.fromhex("00000000170000000000000100")
ACK_PACKET: Packet = (23, 0, 1, b"")
NEGATIVE = bytes.fromhex("fffffffb630000000000000500")


def header(length: int, cmd: int = 99) -> bytes:
    """
    Write a header that promises C{length} body bytes, read as unsigned.
    """
    return length.to_bytes(4) + bytes([cmd]) + bytes(8)


class EncodingTests(SynchronousTestCase):
    """
    Packets on their way out.
    """

    def test_header_and_body(self) -> None:
        """
        A packet is 13 header bytes and the body, check fields zero.
        """
        self.assertEqual(encode_packet(15, 0x01020304, 9, b"abc"), ABC)

    def test_no_body(self) -> None:
        """
        An acknowledgement is a bare header.
        """
        self.assertEqual(encode_packet(23, 1, 0, b""), ACK)

    def test_heartbeat_is_one_byte(self) -> None:
        """
        Command 1 goes out as DF, whatever else the caller says.
        """
        self.assertEqual(encode_packet(1, 77, 9, b"ignored"), b"\xdf")

    def test_long_body_is_not_limited(self) -> None:
        """
        The size limit is the receiver's: a larger packet can be written.
        """
        packet = encode_packet(15, 1, 0, bytes(20_000))
        self.assertEqual((len(packet), packet[:4]), (20_013, bytes.fromhex("00004e20")))


class DecodingTests(SynchronousTestCase):
    """
    Byte streams that are as they should be.
    """

    def setUp(self) -> None:
        self.decoder = PacketDecoder()

    def receive(self, *chunks: bytes) -> list[Packet]:
        return receive_all(self.decoder, chunks)

    def test_one_packet(self) -> None:
        """
        A packet that comes in one piece is delivered at once and nothing is kept.
        """
        self.assertEqual(self.receive(ABC), [ABC_PACKET])
        self.assertEqual(self.decoder.held, 0)

    def test_byte_by_byte(self) -> None:
        """
        A packet that trickles in is delivered with its last byte, not before.
        """
        for end in range(len(ABC) - 1):
            self.assertEqual(self.receive(ABC[end : end + 1]), [])
            self.assertEqual(self.decoder.held, end + 1)
        self.assertEqual(self.receive(ABC[-1:]), [ABC_PACKET])
        self.assertEqual(self.decoder.held, 0)

    def test_many_in_one_chunk(self) -> None:
        """
        Ten packets in one read are ten packets, in order.
        """
        self.assertEqual(self.receive((ABC + ACK) * 5), [ABC_PACKET, ACK_PACKET] * 5)

    def test_rest_is_kept(self) -> None:
        """
        The beginning of the next packet waits for its end.
        """
        self.assertEqual(self.receive(ABC + ABC[:5]), [ABC_PACKET])
        self.assertEqual(self.decoder.held, 5)
        self.assertEqual(self.receive(ABC[5:] + ACK), [ABC_PACKET, ACK_PACKET])

    def test_empty_chunk(self) -> None:
        """
        No bytes are no news, in the middle of a packet too.
        """
        self.assertEqual(self.receive(b"", ABC[:5], b"", ABC[5:]), [ABC_PACKET])

    def test_check_fields_are_ignored(self) -> None:
        """
        Check code and LRC may hold anything: no client computes them.
        """
        spoiled_checks = ABC[:5] + b"\x12\x34" + ABC[7:12] + b"\x99" + ABC[13:]
        self.assertEqual(self.receive(spoiled_checks), [ABC_PACKET])

    def test_fields_are_signed(self) -> None:
        """
        Command and session id are signed, flags are not.
        """
        data = bytes.fromhex("00000000ff0000fffffffffe00")
        self.assertEqual(self.receive(data), [(-1, 255, -2, b"")])

    def test_body_of_the_limit(self) -> None:
        """
        A body of exactly 10240 bytes is accepted.
        """
        (packet,) = self.receive(header(DEFAULT_MAX_BODY) + bytes(DEFAULT_MAX_BODY))
        self.assertEqual(len(packet[3]), 10240)

    def test_body_of_the_limit_in_pieces(self) -> None:
        """
        Such a body may trickle in: its length is not refused before it is whole.
        """
        data = header(DEFAULT_MAX_BODY) + bytes(DEFAULT_MAX_BODY)
        for cut_at in (4, 12, 13, 14, len(data) - 1):
            self.decoder = PacketDecoder()
            self.assertEqual(self.receive(data[:cut_at]), [])
            (packet,) = self.receive(data[cut_at:])
            self.assertEqual(len(packet[3]), 10240)

    def test_own_limit(self) -> None:
        """
        The limit is the operator's to choose.
        """
        self.decoder = PacketDecoder(3)
        self.assertEqual(self.receive(ABC), [ABC_PACKET])
        self.assertRaises(ProtocolError, self.receive, header(4))


class HeartbeatTests(SynchronousTestCase):
    """
    DF bytes, where they are heartbeats and where they are not.
    """

    def setUp(self) -> None:
        self.decoder = PacketDecoder()

    def receive(self, *chunks: bytes) -> list[Packet]:
        return receive_all(self.decoder, chunks)

    def test_each_byte_is_one(self) -> None:
        """
        Three bytes are three heartbeats.
        """
        self.assertEqual(self.receive(b"\xdf\xdf\xdf"), [HEARTBEAT] * 3)

    def test_around_packets(self) -> None:
        """
        Heartbeats may stand before, between and behind packets.
        """
        self.assertEqual(
            self.receive(b"\xdf" + ABC + b"\xdf\xdf" + ACK + b"\xdf"),
            [HEARTBEAT, ABC_PACKET, HEARTBEAT, HEARTBEAT, ACK_PACKET, HEARTBEAT],
        )

    def test_inside_a_body(self) -> None:
        """
        DF in a body is content.
        """
        data = encode_packet(15, 1, 0, b"\xdf\xdf")
        self.assertEqual(self.receive(data), [(15, 0, 1, b"\xdf\xdf")])

    def test_inside_a_body_at_a_cut(self) -> None:
        """
        DF that begins a read but lies within a packet is content as well.
        """
        data = encode_packet(15, 1, 0, b"a\xdf\xdf")
        self.assertEqual(
            self.receive(data[:14], data[14:15], data[15:]), [(15, 0, 1, b"a\xdf\xdf")]
        )

    def test_inside_a_header_at_a_cut(self) -> None:
        """
        DF in any place of a header but the first is part of the header.
        """
        data = encode_packet(-33, 0x00DF00DF, 0xDF, b"")
        chunks = [data[at : at + 1] for at in range(len(data))]
        self.assertEqual(self.receive(*chunks), [(-33, 0xDF, 0x00DF00DF, b"")])

    def test_header_that_starts_with_df(self) -> None:
        """
        A header whose first byte is DF is a heartbeat and twelve bytes of the next.
        """
        self.assertEqual(self.receive(b"\xdf" + bytes(3) + b"\x05" * 8), [HEARTBEAT])
        self.assertEqual(self.decoder.held, 11)

    def test_long_form(self) -> None:
        """
        Command 1 with a header is a packet like any other; the receiver answers it.
        """
        data = header(3, cmd=1) + b"abc"
        self.assertEqual(self.receive(data), [(1, 0, 0, b"abc")])


class BrokenFramingTests(SynchronousTestCase):
    """
    Lengths that no honest peer sends: the connection ends (protocol 3.3).
    """

    def setUp(self) -> None:
        self.decoder = PacketDecoder()
        self.seen: list[Packet] = []

    def receive(self, *chunks: bytes) -> None:
        for chunk in chunks:
            self.seen.extend(self.decoder.receive(chunk))

    def test_one_byte_too_long(self) -> None:
        """
        10241 is refused, and the text names the length and the limit.
        """
        error = self.assertRaises(ProtocolError, self.receive, header(10241))
        self.assertEqual(str(error), "packet length 10241 is over the limit of 10240")

    def test_refused_on_the_length_alone(self) -> None:
        """
        Four bytes are enough to know: nothing is buffered for a body too long (D1).
        """
        self.receive(header(10241)[:3])
        self.assertRaises(ProtocolError, self.receive, header(10241)[3:4])

    def test_negative(self) -> None:
        """
        A negative length is refused, not read as an empty body (D2).
        """
        error = self.assertRaises(ProtocolError, self.receive, NEGATIVE)
        self.assertEqual(str(error), "negative packet length -5")

    def test_negative_on_the_length_alone(self) -> None:
        """
        A negative length is refused with its fourth byte.
        """
        error = self.assertRaises(ProtocolError, self.receive, NEGATIVE[:4])
        self.assertEqual(str(error), "negative packet length -5")

    def test_three_bytes_decide_nothing(self) -> None:
        """
        A length that has not come whole is not judged, bad as it looks.
        """
        self.receive(b"\xff\xff\xff")
        self.assertEqual((self.seen, self.decoder.held), ([], 3))

    def test_three_bytes_behind_a_packet(self) -> None:
        """
        Nor is it where a packet stands in front.
        """
        self.receive(ABC + b"\xff\xff\xff")
        self.assertEqual((self.seen, self.decoder.held), ([ABC_PACKET], 3))

    def test_extremes(self) -> None:
        """
        The numbers at which 32-bit arithmetic goes wrong are refused like others.
        """
        for length in (0x7FFFFFFF, 0x7FFFFFF2, 0x80000000, 0xFFFFFFFF):
            self.assertRaises(
                ProtocolError, list, PacketDecoder().receive(header(length))
            )
            self.assertRaises(
                ProtocolError, list, PacketDecoder().receive(header(length)[:4])
            )

    def test_most_negative(self) -> None:
        """
        The most negative length is told as what it is.
        """
        error = self.assertRaises(ProtocolError, self.receive, header(0x80000000))
        self.assertEqual(str(error), "negative packet length -2147483648")

    def test_complete_packets_in_front(self) -> None:
        """
        Packets in front of the bad one in the same read have been delivered.
        """
        self.assertRaises(ProtocolError, self.receive, b"\xdf" + ABC + NEGATIVE)
        self.assertEqual(self.seen, [HEARTBEAT, ABC_PACKET])

    def test_complete_packets_behind(self) -> None:
        """
        Packets behind the bad one are lost: nothing of the read is kept (D23).
        """
        self.assertRaises(ProtocolError, self.receive, NEGATIVE + ABC)
        self.assertEqual((self.seen, self.decoder.held), ([], 0))

    def test_bad_second_half(self) -> None:
        """
        What was held before the bad length is dropped with it.
        """
        self.receive(ABC[:7])
        self.assertRaises(ProtocolError, self.receive, ABC[7:] + NEGATIVE)
        self.assertEqual((self.seen, self.decoder.held), ([ABC_PACKET], 0))

    def test_promise_costs_nothing(self) -> None:
        """
        A promise of a large body allocates no room for it.
        """
        data = header(10240) + b"x"
        decoders = [PacketDecoder() for _ in range(100)]
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for decoder in decoders:
            list(decoder.receive(data))
        size, _ = tracemalloc.get_traced_memory()
        self.assertLess(size / len(decoders), 200)


class StoppingTests(SynchronousTestCase):
    """
    A caller that closes in the middle of a read (D23).
    """

    def test_nothing_more_is_decoded(self) -> None:
        """
        After the caller stopped iterating, what was behind is gone.
        """
        decoder = PacketDecoder()
        for packet in decoder.receive(ABC + ACK + ABC[:6]):
            self.assertEqual(packet, ABC_PACKET)
            break
        self.assertEqual(decoder.held, 0)

    def test_bad_length_behind_is_never_looked_at(self) -> None:
        """
        A caller that stops does not hear of broken framing behind the packet.
        """
        stream = PacketDecoder().receive(ABC + NEGATIVE)
        self.assertEqual(next(stream), ABC_PACKET)

    def test_waiting_in_the_middle(self) -> None:
        """
        A caller may keep the iterator and go on later where it was.
        """
        stream = PacketDecoder().receive(ABC + ACK)
        self.assertEqual(next(stream), ABC_PACKET)
        self.assertEqual(list(stream), [ACK_PACKET])


class StreamPropertyTests(SynchronousTestCase):
    """
    What holds for every stream.
    """

    @given(st.lists(packets, max_size=12), chunk_sizes)
    def test_cuts_do_not_matter(self, sent: list[Packet], sizes: list[int]) -> None:
        """
        Any packets cut at any places arrive as they were sent.
        """
        decoder = PacketDecoder(60)
        self.assertEqual(receive_all(decoder, cut(encode_all(sent), sizes)), sent)
        self.assertEqual(decoder.held, 0)

    @given(spoiled(st.lists(packets, max_size=6).map(encode_all)), chunk_sizes)
    def test_bytes_or_refusal(self, data: bytes, sizes: list[int]) -> None:
        """
        Any bytes give packets or L{ProtocolError}, and never keep more than a packet.
        """
        limit = 40
        decoder = PacketDecoder(limit)
        try:
            for chunk in cut(data, sizes):
                for packet in decoder.receive(chunk):
                    self.assertLessEqual(len(packet[3]), limit)
                self.assertLess(decoder.held, limit + HEADER_SIZE)
        except ProtocolError:
            self.assertEqual(decoder.held, 0)

    @given(spoiled(st.lists(packets, max_size=6).map(encode_all)), chunk_sizes)
    def test_cuts_do_not_matter_for_bad_streams(
        self, data: bytes, sizes: list[int]
    ) -> None:
        """
        A bad stream is refused behind the same packet however it is cut.
        """

        def outcome(*chunks: bytes) -> tuple[list[Packet], bool]:
            decoder, seen = PacketDecoder(40), []
            try:
                for chunk in chunks:
                    for packet in decoder.receive(chunk):
                        seen.append(packet)
            except ProtocolError:
                return seen, True
            return seen, False

        self.assertEqual(outcome(*cut(data, sizes)), outcome(data))


class DatagramTests(SynchronousTestCase):
    """
    The gateway over UDP: one packet, one datagram (protocol 13).
    """

    def test_one_packet(self) -> None:
        """
        A datagram is read like the same bytes on a stream.
        """
        self.assertEqual(decode_datagram(ABC), ABC_PACKET)

    def test_no_body(self) -> None:
        """
        A bare header is a packet.
        """
        self.assertEqual(decode_datagram(ACK), ACK_PACKET)

    def test_trailing_bytes(self) -> None:
        """
        Bytes behind the body are ignored.
        """
        self.assertEqual(decode_datagram(ABC + b"rest"), ABC_PACKET)

    def test_no_heartbeat(self) -> None:
        """
        A heartbeat byte is no gateway packet, alone or in front of one.
        """
        self.assertRaises(ProtocolError, decode_datagram, b"\xdf")
        self.assertRaises(ProtocolError, decode_datagram, b"\xdf" + ABC)

    def test_cut_short(self) -> None:
        """
        Every datagram that lost its end is refused.
        """
        for size in range(len(ABC)):
            self.assertRaises(ProtocolError, decode_datagram, ABC[:size])

    def test_limit(self) -> None:
        """
        The packet limit holds here too: 10240 passes, 10241 does not.
        """
        self.assertEqual(
            len(decode_datagram(header(10240) + bytes(10240))[3]), DEFAULT_MAX_BODY
        )
        error = self.assertRaises(
            ProtocolError, decode_datagram, header(10241) + bytes(10241)
        )
        self.assertEqual(str(error), "datagram says length 10241, limit is 10240")

    def test_negative_length(self) -> None:
        """
        A negative length is refused, be it small or large.
        """
        for length in (0xFFFFFFFF, 0xFFFFFFFB, 0x80000000):
            self.assertRaises(ProtocolError, decode_datagram, header(length) + b"abc")

    @given(st.binary(max_size=40) | spoiled(packets.map(lambda p: encode_all([p]))))
    def test_bytes_or_refusal(self, data: bytes) -> None:
        """
        Any datagram gives one packet or L{ProtocolError}.
        """
        try:
            packet = decode_datagram(data, 40)
        except ProtocolError:
            return
        self.assertLessEqual(len(packet[3]), 40)


class CheckFieldTests(SynchronousTestCase):
    """
    The two check values that tools may want (protocol 2.3, 2.4).
    """

    def test_check_code_wraps(self) -> None:
        """
        The sum of the bytes is cut to a signed 16-bit number.
        """
        self.assertEqual(check_code(b"\xff" * 200), -14536)
        self.assertEqual(check_code(b"\xff" * 300), 10964)

    def test_check_code_changes_sign(self) -> None:
        """
        32767 is the greatest code, the next is the least.
        """
        full = b"\xff" * 128 + b"\x7f"
        self.assertEqual(check_code(full), 32767)
        self.assertEqual(check_code(full + b"\x01"), -32768)

    def test_lrc_covers_twelve_bytes(self) -> None:
        """
        The LRC does not cover itself nor the body.
        """
        self.assertEqual(header_lrc(ACK), 0x16)
        self.assertEqual(header_lrc(ACK[:12] + b"\xff" + b"body"), 0x16)
