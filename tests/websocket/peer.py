"""
A blocking WebSocket client whose every byte is the test's.
"""

from __future__ import annotations

import json
import time
from typing import Any

from tests.integration.devices import Peer
from tests.websocket.frames import (
    CLOSE,
    TEXT,
    Frame,
    accept_of,
    cut,
    inflated,
    opening,
    text,
)

_KEY = "dGhlIHNhbXBsZSBub25jZQ=="


class WebPeer(Peer):
    """
    A connection to the WebSocket port.

    @ivar head: What the server answered to the opening request.
    """

    def __init__(
        self, port: int, path: str = "/", *, open: bool = True, **headers: str | None
    ) -> None:
        """
        @param open: Whether to become a WebSocket.
        @param headers: Of the opening request.
        """
        super().__init__(port)
        self._frames: list[Frame] = []
        self.head = ""
        if open:
            self.send(opening(path, _KEY, **headers))
            self.head = self.read_head()
            assert self.head.startswith("HTTP/1.1 101 "), self.head
            assert accept_of(_KEY) in self.head

    def read_head(self) -> str:
        """
        Read the head of an answer.
        """
        deadline = time.monotonic() + 5
        while b"\r\n\r\n" not in self.buffer and not self.ended:
            if not self._fill(deadline - time.monotonic()):
                break
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        return head.decode()

    def read_answer(self) -> tuple[int, bytes]:
        """
        Read an answer with a length: status and body.
        """
        head = self.read_head()
        status = int(head.split()[1])
        length = 0
        for line in head.split("\r\n"):
            if line.lower().startswith("content-length:"):
                length = int(line.partition(":")[2])
        deadline = time.monotonic() + 5
        while len(self.buffer) < length and not self.ended:
            if not self._fill(deadline - time.monotonic()):
                break
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return status, body

    def frame(self, seconds: float = 5.0) -> Frame | None:
        """
        Take the next frame; C{None} when none comes in time, or at the end.
        """
        deadline = time.monotonic() + seconds
        while not self._frames:
            self._frames, self.buffer = cut(self.buffer)
            left = deadline - time.monotonic()
            if self._frames:
                break
            if self.ended or left <= 0:
                return None
            self._fill(left)
        return self._frames.pop(0)

    def say(self, packet: object) -> WebPeer:
        """
        Send a packet.
        """
        self.send(text(packet if isinstance(packet, str) else json.dumps(packet)))
        return self

    def hear(self, seconds: float = 5.0) -> Any:
        """
        Take the next packet; C{None} when the server closes, or says nothing.
        """
        frame = self.frame(seconds)
        if frame is None or frame.opcode == CLOSE:
            return None
        assert frame.opcode == TEXT and frame.fin, frame
        payload = inflated(frame.payload) if frame.rsv == 4 else frame.payload
        return json.loads(payload)

    def farewell(self, seconds: float = 5.0) -> int | None:
        """
        Take the close frame and the end that must follow it: its code, C{None} without
        one.
        """
        frame = self.frame(seconds)
        code = None
        if frame is not None:
            assert frame.opcode == CLOSE, frame
            code = frame.close_code
        assert self.wait_end(seconds), "not closed"
        return code

    def shake_hands(self, device_id: str, **members: object) -> Any:
        """
        Do the handshake as the original's page does; more members may be added.

        @return: The answer.
        """
        body = {"deviceId": device_id, "osName": "web", "osVersion": "5"} | members
        self.say({"cmd": 2, "flags": 16, "sessionId": 1, "body": body})
        answer = self.hear()
        assert answer is not None and answer["cmd"] == 2, answer
        return answer

    def bind(self, user_id: str, tags: str | None = None) -> WebPeer:
        """
        Become a user's page.
        """
        body = {"userId": user_id, "tags": tags}
        self.say({"cmd": 5, "flags": 16, "sessionId": 2, "body": body})
        answer = self.hear()
        assert answer is not None and answer["body"]["data"] == "bind success", answer
        return self
