"""
The WebSocket conversations recorded from the original, and the worked ones, replayed
against a running node. Where this node answers otherwise on purpose, it says why.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from mpush_tw.protocol.commands import ACK_FLAGS, Command
from mpush_tw.protocol.gateway import GatewayPush
from mpush_tw.protocol.messages import Ok
from mpush_tw.protocol.packet import encode_packet
from tests.support import VECTORS, RawPeer
from tests.websocket.frames import BINARY, client_frame
from tests.websocket.peer import WebPeer
from tests.websocket.support import WebNodeTestCase

Frames = list[dict[str, Any]]

RECORDED: dict[str, dict[str, Any]] = {
    case["name"]: case
    for case in json.loads((VECTORS / "transcripts.json").read_text())["cases"]
    if case["name"].startswith("ws-") and case["name"] != "ws-plain-http"
}
PLAIN_HTTP: list[dict[str, Any]] = next(
    case["frames"]
    for case in json.loads((VECTORS / "transcripts.json").read_text())["cases"]
    if case["name"] == "ws-plain-http"
)
EXCHANGES: dict[str, dict[str, Any]] = {
    vector["name"]: vector
    for vector in json.loads((VECTORS / "protocol.json").read_text())["vectors"]
    if vector["kind"] == "ws_exchange"
}


def packet(cmd: int, session_id: int, /, **body: object) -> str:
    """
    Write what the server says.
    """
    members = {"cmd": cmd, "flags": 16, "sessionId": session_id}
    return json.dumps(
        members | {"bodyLength": len(body)} | ({"body": body} if body else {})
    )


def refusal(cmd: int, session_id: int) -> str:
    """
    Write the answer to what comes before the handshake.
    """
    return packet(10, session_id, cmd=cmd, reason="not handshake")


def end(code: int) -> dict[str, Any]:
    """
    Note that the server closes.
    """
    return {"direction": "s2c", "text": None, "code": code}


def says(text: str) -> dict[str, Any]:
    """
    Note what the server says.
    """
    return {"direction": "s2c", "text": text}


# ---------------------------------------------------------------- conversations


def _acknowledged(frames: Frames) -> Frames:
    return [*frames[:-2], says(packet(23, 9))]


def _bound_once(frames: Frames) -> Frames:
    return [one for one in frames if "unbind success" not in (one["text"] or "")]


def _no_proxy(frames: Frames) -> Frames:
    answer = packet(12, 3, statusCode=503, reasonPhrase="Service Unavailable")
    return [*frames[:3], says(answer)]


def _answered(frames: Frames) -> Frames:
    return [*frames[:3], says(packet(1, 3))]


def _shaken(frames: Frames) -> Frames:
    return [frames[0], says(packet(2, 1))]


REPAIRED: dict[str, tuple[str, Callable[[Frames], Frames]]] = {
    "ws-session": ("S-23: a page's push is acknowledged", _acknowledged),
    "ws-session-deflate": ("S-23: a page's push is acknowledged", _acknowledged),
    "ws-rebind": ("S-4: one OK for one BIND", _bound_once),
    "ws-unsupported": ("HTTP_PROXY has a JSON form; it is switched off", _no_proxy),
    "ws-heartbeat": ("HEARTBEAT has a JSON form", _answered),
    "ws-flags-zero": ("protocol 14.2: the missing bit is tolerated", _shaken),
    "ws-bad-json": ("server 10.3: the code tells why", lambda f: [f[0], end(1007)]),
    "ws-binary": ("server 10.3: the code tells why", lambda f: [f[0], end(1003)]),
}
"""
Conversation, defect, and a function from the recorded frames to those that this node
is to show.
"""

EXCHANGES_REPAIRED: dict[str, tuple[str, list[str], bool]] = {
    "ws-exchange-bind-wrong-type": (
        "DESIGN 5a: a number is taken as its decimal text",
        [packet(2, 1), packet(11, 2, cmd=5, data="bind success")],
        False,
    ),
    "ws-exchange-bind-flags-zero": (
        "protocol 14.2: the missing bit is tolerated",
        [packet(2, 1), packet(11, 2, cmd=5, data="bind success")],
        False,
    ),
    "ws-exchange-heartbeat": ("HEARTBEAT has a JSON form", [packet(1, 0)], False),
    "ws-exchange-fast-connect": (
        "FAST_CONNECT has a JSON form; there is no such session",
        [packet(10, 5, cmd=7, code=103, reason="session expired")],
        False,
    ),
    "ws-exchange-http-proxy": (
        "HTTP_PROXY has a JSON form; it is not served before the handshake (S-12)",
        [refusal(12, 5)],
        True,
    ),
}
"""
By the name of an example: why this node answers otherwise, how, and whether it closes.
"""


class Conversation:
    """
    The pages of one recorded conversation, and the sender that is not in the record.
    """

    def __init__(self, case: dict[str, Any], web_port: int, gateway_port: int) -> None:
        frames = case["frames"]
        name = case["name"]
        if name in REPAIRED:
            frames = REPAIRED[name][1](frames)
        self._frames = frames
        self._port = web_port
        self._offer = "permessage-deflate" if "deflate" in name else None
        self._pages: dict[str, WebPeer] = {}
        self._sender = RawPeer(gateway_port)
        self._ids: dict[int, int] = {}
        self._binary = name == "ws-binary"
        self._pushed = 0

    def play(self) -> None:
        """
        Say what was said, and compare what is answered.
        """
        try:
            for frame in self._frames:
                page = self._page(frame.get("connection", ""))
                if frame["direction"] == "c2s":
                    self._say(page, frame["text"])
                elif frame["text"] is None:
                    code = frame.get("code", 1000)
                    found = page.farewell()
                    assert found == code, f"closed with {found}, not {code}"
                    break
                else:
                    self._hear(page, json.loads(frame["text"]))
            for page in self._pages.values():
                assert page.ended or page.hear(0.05) is None, "something more came"
        finally:
            for page in self._pages.values():
                page.close()
            self._sender.close()

    def _page(self, name: str) -> WebPeer:
        if name not in self._pages:
            self._pages[name] = WebPeer(
                self._port, sec_websocket_extensions=self._offer
            )
        return self._pages[name]

    def _say(self, page: WebPeer, text: str) -> None:
        if self._binary:
            page.send(client_frame(BINARY, bytes.fromhex(text)))
            return
        try:
            form = json.loads(text)
        except ValueError:
            page.say(text)
            return
        if form.get("cmd") == 23:
            form["sessionId"] = self._ids[form["sessionId"]]
            page.say(form)
            self._hear_from_gateway("before-send", "waiting-ack")
        else:
            page.say(text)

    def _hear(self, page: WebPeer, wanted: dict[str, Any]) -> None:
        if wanted["cmd"] == Command.PUSH:
            self._push(wanted)
        found = page.hear()
        if wanted["cmd"] == Command.PUSH:
            assert found is not None and found["sessionId"] >= 1 << 30, found
            self._ids[wanted["sessionId"]] = found["sessionId"]
            found["sessionId"] = wanted["sessionId"]
        assert found == wanted, f"{found} instead of {wanted}"

    def _push(self, wanted: dict[str, Any]) -> None:
        content = wanted["body"]["content"].encode()
        everybody = b"ws all" in content
        body = GatewayPush(None if everybody else "user-w", 0, 3000, content).encode()
        flags = wanted["flags"] & ACK_FLAGS
        self._pushed += 1
        self._sender.send(encode_packet(16, self._pushed, flags, body))
        if not flags:
            self._hear_from_gateway()

    def _hear_from_gateway(self, *points: str) -> None:
        answer = self._sender.packet()
        assert answer is not None and answer[0] == Command.OK, answer
        data = Ok.decode(answer[3]).data or ""
        for point in points:
            assert point in data, data


def exchange(port: int, frames: list[str], replies: list[str], closes: bool) -> None:
    """
    Play an example.
    """
    page = WebPeer(port)
    try:
        for frame in frames:
            page.say(frame)
        for reply in replies:
            found = page.hear()
            assert found == json.loads(reply), f"{found} instead of {reply}"
        if closes:
            assert page.farewell() is not None
        else:
            # Whatever else the server had to say comes in front of this.
            page.say({"cmd": 1, "sessionId": 77})
            assert page.hear() == json.loads(packet(1, 77))
    finally:
        page.close()


class TranscriptTests(WebNodeTestCase):
    """
    One test for each recorded conversation; see the end of this module.
    """

    async def replay(self, name: str) -> None:
        """
        Play one conversation against this test's node.
        """
        conversation = Conversation(
            RECORDED[name], self.web_port, self.node.gateway_listener.port
        )
        await self.in_thread(conversation.play)

    def test_all(self) -> None:
        """
        Each conversation is replayed, and deviates only where it is said.
        """
        made = [name for name in vars(TranscriptTests) if name.startswith("test_ws")]
        self.assertEqual((len(RECORDED), len(made)), (14, 14))
        self.assertTrue(set(REPAIRED) <= set(RECORDED))
        for name, (reason, change) in REPAIRED.items():
            self.assertTrue(reason)
            self.assertNotEqual(
                change(RECORDED[name]["frames"]), RECORDED[name]["frames"]
            )


class PlainHttpTests(WebNodeTestCase):
    """
    The recorded requests without an upgrade. The first one is for the WebSocket's own
    path, which was C{/}; there, ours shows the page (DESIGN 5c).
    """

    settings = ("mp.net.ws-path=/ws",)

    async def test_replayed(self) -> None:
        """
        The WebSocket's path refuses them, any other one has nothing.
        """
        for recorded in PLAIN_HTTP:
            request = recorded["request"].replace("GET / ", "GET /ws ")
            peer = await self.in_thread(RawPeer, self.web_port)
            self.addCleanup(peer.close)
            peer.send(request.encode())
            answer = await self.in_thread(peer.receive_all)
            head, _, body = answer.partition(b"\r\n\r\n")
            for line in recorded["responseHead"].lower().split("\r\n"):
                self.assertIn(line, head.decode().lower())
            self.assertEqual(len(body), recorded["bodyLength"])
            self.assertTrue(peer.ended)


class ExchangeTests(WebNodeTestCase):
    """
    One test for each worked example; see the end of this module.
    """

    async def replay(self, name: str) -> None:
        """
        Play one example against this test's node.
        """
        vector = EXCHANGES[name]
        expected = vector["expected"]
        _, replies, closes = EXCHANGES_REPAIRED.get(
            name, ("", expected["reply_frames"], expected["server_closes"])
        )
        await self.in_thread(
            exchange, self.web_port, vector["inputs"]["text_frames"], replies, closes
        )

    def test_all(self) -> None:
        """
        Each example is played.
        """
        made = [name for name in vars(ExchangeTests) if name.startswith("test_ws")]
        self.assertEqual((len(EXCHANGES), len(made)), (17, 17))
        self.assertTrue(set(EXCHANGES_REPAIRED) <= set(EXCHANGES))


def _test_of(case: dict[str, Any], reason: str) -> Callable[[Any], Awaitable[None]]:
    async def test(self: TranscriptTests | ExchangeTests) -> None:
        await self.replay(case["name"])

    test.__doc__ = f"{case['description']}." + (f" ({reason})" if reason else "")
    return test


for _name, _case in RECORDED.items():
    _reason = REPAIRED.get(_name, ("", None))[0]
    setattr(
        TranscriptTests, f"test_{_name.replace('-', '_')}", _test_of(_case, _reason)
    )
for _name, _case in EXCHANGES.items():
    _reason = EXCHANGES_REPAIRED.get(_name, ("", None, None))[0]
    setattr(ExchangeTests, f"test_{_name.replace('-', '_')}", _test_of(_case, _reason))
