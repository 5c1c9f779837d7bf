"""
Many devices at a time, which count every answer they get.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from mpush_tw.protocol.body import open_body, seal_body
from mpush_tw.protocol.commands import Command, Flag
from mpush_tw.protocol.crypto import (
    AesCipher,
    RsaPublicKey,
    mix_session_key,
    random_key,
)
from mpush_tw.protocol.messages import (
    Handshake,
    HandshakeOk,
    HttpRequest,
    HttpResponse,
)
from mpush_tw.protocol.packet import PacketDecoder, encode_packet
from tests.servers import LOOPBACK
from tests.support import SAMPLE

_LARGEST = 16 << 20


class WebDevice(Protocol):
    """
    A device that asks for HTTP.

    @ivar answers: How many answers each request got, by its number.
    @ivar strange: Packets that are no answers.
    @ivar ended: Whether the node has closed the connection.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.answers: Counter[int] = Counter()
        self.strange: list[tuple[int, bytes]] = []
        self.ended = False
        self._decoder = PacketDecoder(_LARGEST)
        self._cipher: AesCipher | None = None
        self._number = 1
        self._waiting: dict[int, Deferred[HttpResponse]] = {}
        self._hello: Deferred[HandshakeOk] = Deferred()
        self._answer_cipher: AesCipher | None = None

    async def shake_hands(self) -> None:
        """
        Do the handshake.
        """
        key, iv = random_key(), random_key()
        self._answer_cipher = AesCipher(key, iv)
        hello = Handshake(self.name, "android", "13", "1.0", iv, key, 0, 180000)
        public = RsaPublicKey.load(SAMPLE["rsaPublicKeyBase64"])
        self._write(Command.HANDSHAKE, 1, Flag.CRYPTO, public.encrypt(hello.encode()))
        answer = await self._hello
        self._cipher = AesCipher(mix_session_key(key, answer.server_key), iv)

    def ask(self, request: HttpRequest) -> Deferred[HttpResponse]:
        """
        Send a request.

        @return: Fires with the first answer; fails if the connection ends before.
        """
        if self.ended:
            return fail(ConnectionDone())
        self._number += 1
        number = self._number
        flags, body = seal_body(request.encode(), self._cipher, 10240)
        waiting: Deferred[HttpResponse] = Deferred(
            lambda _: self._waiting.pop(number, None)
        )
        self._waiting[number] = waiting
        self._write(Command.HTTP_PROXY, number, flags, body)
        return waiting

    def leave(self) -> None:
        """
        Go without waiting for anything.
        """
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]

    @property
    def twice(self) -> int:
        """
        Answers beyond the first, to whatever request.
        """
        return sum(count - 1 for count in self.answers.values() if count > 1)

    def _write(self, command: int, number: int, flags: int, body: bytes) -> None:
        assert self.transport is not None
        self.transport.write(encode_packet(command, number, flags, body))

    def dataReceived(self, data: bytes) -> None:
        for command, flags, number, body in self._decoder.receive(data):
            if command == Command.HANDSHAKE and not self._hello.called:
                plain = open_body(flags, body, self._answer_cipher)
                self._hello.callback(HandshakeOk.decode(plain))
            elif command == Command.HTTP_PROXY and 1 < number <= self._number:
                self.answers[number] += 1
                plain = open_body(flags, body, self._cipher, _LARGEST)
                waiting = self._waiting.pop(number, None)
                if waiting is not None:
                    waiting.callback(HttpResponse.decode(plain))
            else:
                self.strange.append((command, body))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended = True
        waiting, self._waiting = self._waiting, {}
        for one in waiting.values():
            one.errback(reason)
        if not self._hello.called:
            self._hello.errback(reason)


async def web_device(reactor: Any, port: int, name: str) -> WebDevice:
    """
    Connect a device, and shake hands.
    """
    device = WebDevice(name)
    await connectProtocol(TCP4ClientEndpoint(reactor, LOOPBACK, port), device)
    await device.shake_hands()
    return device
