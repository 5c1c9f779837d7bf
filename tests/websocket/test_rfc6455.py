"""
The rules of RFC 6455 that a server has to keep, against a running node, byte by byte.

The classes follow the Autobahn test-suite, sections 1 to 7 and 10. Where that has an
echo server, HEARTBEAT packets are used here: they come back under their number. What it
takes to run that suite itself is told in L{tests.websocket.autobahn}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.websocket.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    client_frame,
    close,
    text,
)
from tests.websocket.peer import WebPeer
from tests.websocket.support import WebNodeTestCase

LIMIT = 65536


def beat(number: int, padding: int = 0) -> bytes:
    """
    Write a packet that comes back under its number.

    @param padding: Length of a member that nobody reads.
    """
    more = f',"x":"{"x" * padding}"' if padding else ""
    return f'{{"cmd":1,"sessionId":{number}{more}}}'.encode()


def padded(number: int, size: int) -> bytes:
    """
    Write such a packet of so many bytes.
    """
    return beat(number, size - len(beat(number, 1)) + 1)


class RuleTestCase(WebNodeTestCase):
    """
    Something that a client does, and how the server must take it.
    """

    async def play(self, script: Callable[[WebPeer], Any]) -> Any:
        """
        Run a script with a WebSocket of its own.
        """
        peer = await self.connect()
        return await self.in_thread(script, peer)

    async def comes_back(self, *data: bytes, number: int = 7) -> None:
        """
        Check that bytes are taken as the packet with a number.
        """

        def script(peer: WebPeer) -> Any:
            for piece in data:
                peer.send(piece)
            return peer.hear()

        answer = await self.play(script)
        self.assertIsNot(answer, None)
        self.assertEqual((answer["cmd"], answer["sessionId"]), (1, number))

    async def fails(self, data: bytes, code: int) -> None:
        """
        Check that the server ends the connection over something, with a close frame
        that says what it is, and takes nothing that comes behind it.
        """

        def script(peer: WebPeer) -> int | None:
            peer.send(data)
            peer.send(text(beat(9).decode()))
            return peer.farewell()

        self.assertEqual(await self.play(script), code)


class FramingTests(RuleTestCase):
    """
    Lengths and masks (5.2, 5.3).
    """

    async def test_lengths(self) -> None:
        """
        A message of any length up to the limit is taken, around each change of the
        length's form.
        """
        for size in (30, 124, 125, 126, 127, 128, 65535, LIMIT):
            await self.comes_back(client_frame(TEXT, padded(7, size)))

    async def test_any_pieces(self) -> None:
        """
        The network may cut it anywhere.
        """
        frame = client_frame(TEXT, padded(7, 200))
        await self.comes_back(*(bytes([byte]) for byte in frame))
        frame = client_frame(TEXT, padded(7, LIMIT))
        await self.comes_back(
            *(frame[start : start + 997] for start in range(0, len(frame), 997))
        )

    async def test_any_mask(self) -> None:
        """
        Any mask will do, that of zeros too.
        """
        for mask in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x01\x02\x03\x04"):
            await self.comes_back(client_frame(TEXT, padded(7, 99), mask=mask))

    async def test_unmasked(self) -> None:
        """
        A frame that is not masked ends the connection (5.1).
        """
        await self.fails(client_frame(TEXT, beat(7), mask=None), 1002)

    async def test_long_form(self) -> None:
        """
        A length has the shortest form.
        """
        await self.fails(client_frame(TEXT, beat(7), width=16), 1002)
        await self.fails(client_frame(TEXT, beat(7), width=64), 1002)

    async def test_sign_bit(self) -> None:
        """
        The highest bit of a 64-bit length is not set.
        """
        await self.fails(client_frame(TEXT, b"x", length=2**63, width=64), 1002)

    async def test_many(self) -> None:
        """
        Many messages of one packet of the network are answered in order.
        """

        def script(peer: WebPeer) -> list[int]:
            peer.send(b"".join(client_frame(TEXT, beat(n)) for n in range(500)))
            return [peer.hear()["sessionId"] for _ in range(500)]

        self.assertEqual(await self.play(script), list(range(500)))


class PingTests(RuleTestCase):
    """
    Pings and pongs (5.5.2, 5.5.3).
    """

    async def pong(self, payload: bytes, chop: int = 1 << 20) -> None:
        """
        Check that a ping is answered with its own payload.
        """

        def script(peer: WebPeer) -> Frame | None:
            frame = client_frame(PING, payload)
            for start in range(0, len(frame), chop):
                peer.send(frame[start : start + chop])
            return peer.frame()

        self.assertEqual(await self.play(script), Frame(PONG, payload))

    async def test_payloads(self) -> None:
        """
        Any payload of up to 125 bytes comes back, text or not.
        """
        for payload in (b"", b"Hello", b"\0\xff\xfe\xfd\xfc\xfb\0\xff", b"\xfe" * 125):
            await self.pong(payload)

    async def test_pieces(self) -> None:
        """
        In whatever pieces it comes.
        """
        await self.pong(b"\xfe" * 125, chop=1)

    async def test_too_long(self) -> None:
        """
        A longer one ends the connection.
        """
        await self.fails(client_frame(PING, b"\xfe" * 126), 1002)

    async def test_many(self) -> None:
        """
        Ten pings get ten pongs, in order.
        """

        def script(peer: WebPeer) -> list[Frame | None]:
            peer.send(b"".join(client_frame(PING, b"%d" % n) for n in range(10)))
            return [peer.frame() for _ in range(10)]

        self.assertEqual(
            await self.play(script), [Frame(PONG, b"%d" % n) for n in range(10)]
        )

    async def test_unasked_pong(self) -> None:
        """
        A pong that nobody asked for is nothing.
        """
        await self.comes_back(
            client_frame(PONG), client_frame(PONG, b"x"), client_frame(TEXT, beat(7))
        )


class ReservedTests(RuleTestCase):
    """
    Bits and opcodes that mean nothing yet (5.2).
    """

    async def test_bits(self) -> None:
        """
        A reserved bit ends the connection, in every kind of frame.
        """
        for rsv in range(1, 8):
            await self.fails(client_frame(TEXT, beat(7), rsv=rsv), 1002)
        for opcode in (PING, CLOSE, BINARY):
            await self.fails(client_frame(opcode, b"", rsv=5), 1002)

    async def test_opcodes(self) -> None:
        """
        So does an opcode that is none, with and without payload.
        """
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
            for payload in (b"", b"x"):
                await self.fails(client_frame(opcode, payload), 1002)

    async def test_in_front(self) -> None:
        """
        What came in front of such a frame is answered.
        """

        def script(peer: WebPeer) -> tuple[Any, int | None]:
            peer.send(client_frame(TEXT, beat(7)) + client_frame(5, b"x"))
            return peer.hear(), peer.farewell()

        answer, code = await self.play(script)
        self.assertEqual((answer["sessionId"], code), (7, 1002))


class FragmentTests(RuleTestCase):
    """
    Messages in fragments (5.4).
    """

    async def test_control_frames(self) -> None:
        """
        Control frames have none.
        """
        for opcode in (PING, PONG, CLOSE):
            await self.fails(client_frame(opcode, b"", fin=False), 1002)

    async def test_fragments(self) -> None:
        """
        A message may come in any fragments, empty ones included.
        """
        whole = beat(7)
        await self.comes_back(
            client_frame(TEXT, b"", fin=False),
            *(client_frame(CONTINUATION, bytes([b]), fin=False) for b in whole),
            client_frame(CONTINUATION, b""),
        )

    async def test_pings_between(self) -> None:
        """
        Pings between fragments are answered at once.
        """

        def script(peer: WebPeer) -> tuple[Frame | None, Any]:
            whole = beat(7)
            peer.send(client_frame(TEXT, whole[:9], fin=False))
            peer.send(client_frame(PING, b"between"))
            pong = peer.frame()
            peer.send(client_frame(CONTINUATION, whole[9:]))
            return pong, peer.hear()

        pong, answer = await self.play(script)
        self.assertEqual(pong, Frame(PONG, b"between"))
        self.assertEqual(answer["sessionId"], 7)

    async def test_nothing_to_continue(self) -> None:
        """
        A continuation of nothing ends the connection.
        """
        await self.fails(client_frame(CONTINUATION, beat(7)), 1002)
        await self.fails(client_frame(CONTINUATION, beat(7), fin=False), 1002)

    async def test_continued_after_its_end(self) -> None:
        """
        So does one of a message that has ended, which is answered.
        """

        def script(peer: WebPeer) -> tuple[Any, int | None]:
            peer.send(client_frame(TEXT, beat(7)[:5], fin=False))
            peer.send(client_frame(CONTINUATION, beat(7)[5:]))
            peer.send(client_frame(CONTINUATION, b"x"))
            return peer.hear(), peer.farewell()

        answer, code = await self.play(script)
        self.assertEqual((answer["sessionId"], code), (7, 1002))

    async def test_message_in_a_message(self) -> None:
        """
        So does a new message before the last one has ended.
        """
        for opcode in (TEXT, BINARY):
            await self.fails(
                client_frame(TEXT, beat(7)[:5], fin=False) + client_frame(opcode, b"x"),
                1002,
            )

    async def test_limit(self) -> None:
        """
        The limit is one of messages, however they are cut.
        """
        whole = padded(7, LIMIT)
        await self.comes_back(
            client_frame(TEXT, whole[:30_000], fin=False),
            client_frame(CONTINUATION, whole[30_000:]),
        )
        await self.fails(
            client_frame(TEXT, whole, fin=False) + client_frame(CONTINUATION, b"x"),
            1009,
        )

    async def test_no_end(self) -> None:
        """
        A message of a great many fragments is not waited for.
        """
        await self.fails(
            client_frame(TEXT, b"{", fin=False)
            + client_frame(CONTINUATION, b"", fin=False) * 5000,
            1009,
        )


class TextTests(RuleTestCase):
    """
    Text is UTF-8 (5.6, 8.1).
    """

    async def test_valid(self) -> None:
        """
        Characters of all lengths are taken, cut in the middle or not, the outermost
        ones included.
        """
        odd = (
            "κόσμε\u0080\u07ff\u0800\ud7ff\ue000\ufffd\ufffe\uffff\U00010000\U0010ffff"
        )
        whole = f'{{"cmd":1,"sessionId":7,"x":"{odd}"}}'.encode()
        await self.comes_back(client_frame(TEXT, whole))
        await self.comes_back(
            client_frame(TEXT, b"", fin=False),
            *(client_frame(CONTINUATION, bytes([b]), fin=False) for b in whole),
            client_frame(CONTINUATION, b""),
        )

    async def test_invalid(self) -> None:
        """
        What is no UTF-8 ends the connection: strays, overlong forms, surrogates, what
        is above the last character, and characters that are not whole.
        """
        for wrong in (
            b"\x80",
            b"\xbf\x80",
            b"\xc0\xaf",
            b"\xe0\x80\xaf",
            b"\xf0\x80\x80\xaf",
            b"\xc1\xbf",
            b"\xed\xa0\x80",
            b"\xed\xbf\xbf",
            b"\xf4\x90\x80\x80",
            b"\xf8\x88\x80\x80\x80",
            b"\xfe",
            b"\xff",
            b"\xce\xba\xe1\xbd",
        ):
            await self.fails(
                client_frame(TEXT, b'{"cmd":1,"sessionId":7,"x":"' + wrong + b'"}'),
                1007,
            )

    async def test_cut_off(self) -> None:
        """
        A message does not end within a character.
        """
        await self.fails(client_frame(TEXT, b"\xce\xba\xe1"), 1007)

    async def test_binary(self) -> None:
        """
        This server takes text only.
        """
        await self.fails(client_frame(BINARY, beat(7)), 1003)
        await self.fails(
            client_frame(BINARY, b"x", fin=False) + client_frame(CONTINUATION, b""),
            1003,
        )


class ClosingTests(RuleTestCase):
    """
    Closing (5.5.1, 7).
    """

    async def answered(self, data: bytes) -> Frame:
        """
        Send a close frame; take the answer, and the end that must follow.
        """

        def script(peer: WebPeer) -> Frame | None:
            peer.send(data)
            answer = peer.frame()
            assert peer.wait_end()
            return answer

        answer = await self.play(script)
        assert answer is not None
        self.assertEqual(answer.opcode, CLOSE)
        return answer

    async def test_empty(self) -> None:
        """
        A close frame without a code is answered.
        """
        await self.answered(close())

    async def test_codes(self) -> None:
        """
        One with a code that may be sent is answered with the same.
        """
        for code in (
            *(1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013),
            *(3000, 3999, 4000, 4999),
        ):
            self.assertEqual((await self.answered(close(code))).close_code, code)

    async def test_wrong_codes(self) -> None:
        """
        A code that may not be sent, or is none, is an error of its own.
        """
        for code in (
            0,
            999,
            1004,
            1005,
            1006,
            1015,
            1016,
            1100,
            2000,
            2999,
            5000,
            65535,
        ):
            self.assertEqual((await self.answered(close(code))).close_code, 1002, code)

    async def test_half_a_code(self) -> None:
        """
        So is one byte in place of two.
        """
        self.assertEqual(
            (await self.answered(client_frame(CLOSE, b"\x03"))).close_code, 1002
        )

    async def test_reason(self) -> None:
        """
        A reason may have up to 123 bytes of UTF-8.
        """
        for reason in (b"", b"Hello", b"*" * 123, "κόσμε".encode()):
            answer = await self.answered(close(1000, reason))
            self.assertEqual(answer.payload, b"\x03\xe8" + reason)
        self.assertEqual(
            (await self.answered(close(1000, b"*" * 124))).close_code, 1002
        )
        self.assertEqual(
            (await self.answered(close(1000, b"\xce\xba\xe1"))).close_code, 1007
        )

    async def test_nothing_after_it(self) -> None:
        """
        What follows a close frame is not answered.
        """
        for after in (
            client_frame(TEXT, beat(7)),
            client_frame(PING, b"x"),
            close(1000),
            b"\xff" * 5000,
        ):
            answer = await self.answered(close(1000) + after)
            self.assertEqual(answer.close_code, 1000)

    async def test_within_a_message(self) -> None:
        """
        A client may close in the middle of a message.
        """
        answer = await self.answered(
            client_frame(TEXT, beat(7)[:5], fin=False) + close(1001)
        )
        self.assertEqual(answer.close_code, 1001)

    async def test_just_gone(self) -> None:
        """
        A client that just goes is forgotten.
        """
        await self.play(lambda peer: peer.leave())
        self.assertEqual(len(self.node.web_connections), 0)

    async def test_does_not_answer(self) -> None:
        """
        A client that is told goodbye and goes on and on is still told so, and is cut
        off in the end.
        """

        def script(peer: WebPeer) -> int | None:
            peer.send(text("no packet"))
            for _ in range(200):
                peer.send(client_frame(BINARY, b"x" * 60_000))
            return peer.farewell()

        self.assertEqual(await self.play(script), 1007)


class LimitTests(RuleTestCase):
    """
    Long messages (10.4).
    """

    async def test_above(self) -> None:
        """
        A message above the limit is refused by its announced length, without waiting
        for it.
        """
        for size in (LIMIT + 1, 1 << 20, 2**62):
            await self.fails(client_frame(TEXT, length=size), 1009)


class ServerFrameTests(RuleTestCase):
    """
    What the server writes.
    """

    async def test_shortest(self) -> None:
        """
        Its frames are not masked, not fragmented, and have no reserved bit; L{cut}
        sees to it that their lengths have the shortest form.
        """

        def script(peer: WebPeer) -> Frame | None:
            peer.send(client_frame(TEXT, beat(7)))
            return peer.frame()

        frame = await self.play(script)
        assert frame is not None
        self.assertEqual((frame.opcode, frame.fin, frame.rsv), (TEXT, True, 0))
