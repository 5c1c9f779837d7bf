"""
Devices and senders that do right, for tests with a real node.
"""

from __future__ import annotations

import select

from mpush_tw.protocol.commands import Command, Flag
from mpush_tw.protocol.crypto import (
    AesCipher,
    RsaPublicKey,
    mix_session_key,
    random_key,
)
from mpush_tw.protocol.messages import BindUser, Handshake, HandshakeOk, Ok
from mpush_tw.protocol.packet import encode_packet
from tests.support import SAMPLE, RawPeer

_CRYPTO = int(Flag.CRYPTO)


class Peer(RawPeer):
    """
    A raw peer whose socket may have any number: C{select} ends at 1023.
    """

    def _fill(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        if not poll.poll(max(0, round(seconds * 1000))):
            return False
        try:
            data = self.socket.recv(65536)
        except OSError:
            data = b""
        self.ended = not data
        self.buffer += data
        return True


class Device(Peer):
    """
    A well-behaved device.

    @ivar cipher: The session's cipher, C{None} before the handshake.
    """

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.cipher: AesCipher | None = None

    def shake_hands(self, device_id: str) -> Device:
        """
        Do the handshake.
        """
        key, iv = random_key(), random_key()
        hello = Handshake(device_id, "android", "13", "1.0", iv, key, 0, 180000)
        public = RsaPublicKey.load(SAMPLE["rsaPublicKeyBase64"])
        sealed = public.encrypt(hello.encode())
        self.send(encode_packet(Command.HANDSHAKE, 1, _CRYPTO, sealed))
        packet = self.packet()
        assert packet is not None and packet[0] == Command.HANDSHAKE, packet
        answer = HandshakeOk.decode(AesCipher(key, iv).decrypt(packet[3]))
        self.cipher = AesCipher(mix_session_key(key, answer.server_key), iv)
        return self

    def bind(self, user_id: str) -> Device:
        """
        Become a user's device.
        """
        assert self.cipher is not None
        body = self.cipher.encrypt(BindUser(user_id).encode())
        self.send(encode_packet(Command.BIND, 2, _CRYPTO, body))
        packet = self.packet()
        assert packet is not None and packet[0] == Command.OK, packet
        assert Ok.decode(packet[3]).data == "bind success"
        return self
