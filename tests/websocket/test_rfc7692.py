"""
The rules of RFC 7692, compression of messages, against a running node.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

from tests.websocket.frames import (
    CLOSE,
    CONTINUATION,
    PING,
    TEXT,
    Frame,
    client_frame,
    deflated,
    inflated,
    text,
)
from tests.websocket.peer import WebPeer
from tests.websocket.support import WebNodeTestCase
from tests.websocket.test_rfc6455 import beat, padded

_TAIL = b"\x00\x00\xff\xff"


class CompressedTestCase(WebNodeTestCase):
    """
    A WebSocket with compression.
    """

    settings = ("mp.core.compress-threshold=100",)

    async def compressed(
        self, offer: str = "permessage-deflate; client_max_window_bits"
    ) -> WebPeer:
        """
        Open one.
        """
        peer = await self.connect(sec_websocket_extensions=offer)
        self.assertIn("sec-websocket-extensions: permessage-deflate", peer.head.lower())
        return peer

    async def comes_back(self, peer: WebPeer, *frames: bytes) -> None:
        """
        Check that frames are taken as packet 7.
        """
        for frame in frames:
            peer.send(frame)
        answer = await self.in_thread(peer.hear)
        self.assertIsNot(answer, None)
        self.assertEqual(answer["sessionId"], 7)

    async def fails(self, data: bytes, code: int) -> None:
        """
        Check that something ends the connection.
        """
        peer = await self.compressed()
        peer.send(data)
        self.assertEqual(await self.in_thread(peer.farewell), code)


class ReceivingTests(CompressedTestCase):
    """
    What clients send.
    """

    async def test_agreement(self) -> None:
        """
        The client is told not to keep its window; then each message stands alone.
        """
        peer = await self.compressed()
        self.assertIn("client_no_context_takeover", peer.head)
        for _ in range(3):
            await self.comes_back(peer, client_frame(TEXT, deflated(beat(7)), rsv=4))

    async def test_uncompressed(self) -> None:
        """
        Messages need not be compressed.
        """
        peer = await self.compressed()
        await self.comes_back(peer, text(beat(7).decode()))
        await self.comes_back(peer, client_frame(TEXT, deflated(beat(7)), rsv=4))

    async def test_fragments(self) -> None:
        """
        The first fragment is marked, and only that; pings come between, unmarked.
        """
        peer = await self.compressed()
        data = deflated(padded(7, 5000), 0)
        await self.comes_back(
            peer,
            client_frame(TEXT, data[:1000], rsv=4, fin=False),
            client_frame(CONTINUATION, data[1000:4000], fin=False),
            client_frame(CONTINUATION, data[4000:]),
        )
        await self.fails(
            client_frame(TEXT, data[:1000], rsv=4, fin=False)
            + client_frame(CONTINUATION, data[1000:], rsv=4),
            1002,
        )
        await self.fails(client_frame(PING, b"x", rsv=4), 1002)

    async def test_any_stream(self) -> None:
        """
        Any form of a stream is read: stored, with fixed codes, of several blocks, with
        a last block (7.2.3).
        """
        peer = await self.compressed()
        message = padded(7, 3000)
        for level in (0, 1, 9):
            data = deflated(message, level)
            await self.comes_back(peer, client_frame(TEXT, data, rsv=4))
        fixed = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_FIXED)
        data = fixed.compress(message) + fixed.flush(zlib.Z_SYNC_FLUSH)
        await self.comes_back(peer, client_frame(TEXT, data[:-4], rsv=4))
        several = zlib.compressobj(wbits=-15)
        data = b"".join(
            several.compress(message[start : start + 500])
            + several.flush(zlib.Z_SYNC_FLUSH)
            for start in range(0, 3000, 500)
        )
        await self.comes_back(peer, client_frame(TEXT, data[:-4], rsv=4))

    async def test_small_window(self) -> None:
        """
        A client may use a smaller window than it could.
        """
        peer = await self.compressed()
        small = zlib.compressobj(wbits=-9)
        data = small.compress(padded(7, 3000)) + small.flush(zlib.Z_SYNC_FLUSH)
        await self.comes_back(peer, client_frame(TEXT, data[:-4], rsv=4))

    async def test_bombs(self) -> None:
        """
        The limit of messages is one of what they inflate to, fragment by fragment.
        """
        whole = deflated(padded(7, 65536), 9)
        peer = await self.compressed()
        await self.comes_back(peer, client_frame(TEXT, whole, rsv=4))
        large = deflated(padded(7, 65537), 9)
        await self.fails(client_frame(TEXT, large, rsv=4), 1009)
        bomb = deflated(b" " * (60 << 20), 9)
        self.assertLess(len(bomb), 65536)
        await self.fails(client_frame(TEXT, bomb, rsv=4), 1009)
        half = len(bomb) // 2
        await self.fails(
            client_frame(TEXT, bomb[:half], rsv=4, fin=False)
            + client_frame(CONTINUATION, bomb[half:]),
            1009,
        )

    async def test_garbage(self) -> None:
        """
        What is no stream ends the connection.
        """
        await self.fails(client_frame(TEXT, b"\xff" * 20, rsv=4), 1007)

    async def test_window_that_was_given_up(self) -> None:
        """
        So does a message that refers to one before it.
        """
        keeps = zlib.compressobj(wbits=-15)
        first = keeps.compress(padded(7, 1000)) + keeps.flush(zlib.Z_SYNC_FLUSH)
        second = keeps.compress(padded(7, 1000)) + keeps.flush(zlib.Z_SYNC_FLUSH)
        peer = await self.compressed()
        await self.comes_back(peer, client_frame(TEXT, first[:-4], rsv=4))
        peer.send(client_frame(TEXT, second[:-4], rsv=4))
        self.assertEqual(await self.in_thread(peer.farewell), 1007)


class SendingTests(CompressedTestCase):
    """
    What the server sends.
    """

    async def push(self, peer: WebPeer, content: str) -> Frame:
        """
        Send a push, and take its frame.
        """
        await self.in_thread(peer.shake_hands, "web-1")
        [connection] = self.node.web_connections
        self.assertTrue(connection.send_push(1, 0, content.encode()))
        frame: Frame = await self.in_thread(peer.frame)
        return frame

    async def test_large(self) -> None:
        """
        Messages above the threshold are compressed.
        """
        frame = await self.push(await self.compressed(), "x" * 5000)
        self.assertEqual((frame.opcode, frame.rsv), (TEXT, 4))
        self.assertLess(len(frame.payload), 200)
        packet: Any = json.loads(inflated(frame.payload))
        self.assertEqual(packet["body"], {"content": "x" * 5000})

    async def test_window(self) -> None:
        """
        A client that has only a small window can read them.
        """
        peer = await self.compressed("permessage-deflate; server_max_window_bits=9")
        self.assertIn("server_max_window_bits=9", peer.head)
        content = "".join(f"{n:x}" for n in range(3000)) * 2
        frame = await self.push(peer, content)
        reader = zlib.decompressobj(wbits=-9)
        packet = json.loads(reader.decompress(frame.payload + _TAIL))
        self.assertEqual(packet["body"], {"content": content})

    async def test_control_frames(self) -> None:
        """
        Control frames are never compressed.
        """
        peer = await self.compressed()
        peer.send(client_frame(CLOSE, b"\x03\xe8" + b"x" * 120))
        frame = await self.in_thread(peer.frame)
        self.assertEqual((frame.opcode, frame.rsv), (CLOSE, 0))
