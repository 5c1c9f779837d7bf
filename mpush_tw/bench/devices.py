"""
Device connections of one generator process.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from array import array
from collections.abc import Callable
from struct import Struct

import attrs

from mpush_tw.protocol.commands import ACK_FLAGS, Command, Flag
from mpush_tw.protocol.crypto import (
    AesCipher,
    RsaPublicKey,
    mix_session_key,
    random_key,
)
from mpush_tw.protocol.messages import BindUser, Handshake, HandshakeOk
from mpush_tw.protocol.packet import PacketDecoder, encode_packet

STAMP = Struct(">q")
"""
What the content of a measured push begins with: the monotonic clock in ns, which all
processes of a machine share.
"""

_PUSH = int(Command.PUSH)
_ACK = int(Command.ACK)
_OK = int(Command.OK)
_ERROR = int(Command.ERROR)
_HANDSHAKE = int(Command.HANDSHAKE)
_BIND = int(Command.BIND)
_CRYPTO = int(Flag.CRYPTO)
_MAX_BODY = 1 << 20
_GIVE_UP_SECONDS = 30.0
_MOST_FAILURES = 1000
"""
Connections in a row that cannot even be begun, after which it is no use to go on.
"""


@attrs.frozen
class DeviceLoad:
    """
    The part of a load that one process carries.

    @ivar first: Number of its first device; user and device ids are made of it.
    @ivar concurrency: Handshakes under way at a time.
    @ivar sources: How many addresses 127.0.1.x connections come from.
    @ivar tag_groups: Into how many groups the devices put themselves by their tags,
        C{group-0} and so on; 0 for devices without tags.
    """

    host: str
    port: int
    public_key: str
    first: int
    count: int
    concurrency: int
    sources: int
    tag_groups: int = 0


class _Device:
    __slots__ = ("cipher", "client_key", "decoder", "index", "iv", "socket", "started")

    def __init__(self, index: int) -> None:
        self.index = index
        self.decoder = PacketDecoder(_MAX_BODY)
        self.cipher: AesCipher | None = None
        self.client_key = self.iv = b""
        self.started = 0
        self.socket: socket.socket | None = None


class Devices:
    """
    Opens devices, holds them, and counts what arrives.

    @ivar opening_ns: Connect to bind answer, for each device that got there.
    @ivar latency_ns: Stamp to arrival, for each push that carries one.
    """

    def __init__(self, load: DeviceLoad) -> None:
        self._load = load
        self._key = RsaPublicKey.load(load.public_key)
        self._epoll = select.epoll()
        self._devices: dict[int, _Device] = {}
        self._bound = 0
        self._on_bound: Callable[[_Device], None] = lambda device: None
        self.opening_ns = array("q")
        self.latency_ns = array("q")
        self.pushes = 0
        self.failed = 0
        self.lost = 0
        self._failed_in_a_row = 0

    def open_all(self) -> None:
        """
        Connect and bind all devices.

        @raise RuntimeError: If they are not all bound while nothing moves for 30 s, or
            if 1000 connections in a row fail at once.
        """
        waiting = iter(range(self._load.first, self._load.first + self._load.count))
        under_way = 0
        last = (0, time.monotonic())
        exhausted = False
        while self._bound + self.failed < self._load.count:
            under_way = len(self._devices) - self._bound
            while not exhausted and under_way < self._load.concurrency:
                index = next(waiting, None)
                if index is None:
                    exhausted = True
                    break
                self._connect(index)
                under_way += 1
            self.poll(0.05)
            moved = self._bound + self.failed
            if moved != last[0]:
                last = (moved, time.monotonic())
            elif time.monotonic() - last[1] > _GIVE_UP_SECONDS:
                raise RuntimeError(f"{moved} of {self._load.count} bound, no progress")

    def churn(self, seconds: float, warm: float) -> int:
        """
        Connect, bind and close again and again.

        @param warm: Seconds before counting starts.
        @return: How many were bound in C{seconds} after that.
        @raise RuntimeError: If 1000 connections in a row fail at once.
        """
        count = 0
        index = self._load.first
        start = time.monotonic() + warm
        end = start + seconds
        counting = False

        def bound(device: _Device) -> None:
            nonlocal count
            count += 1
            self._drop(device)
            self._bound -= 1

        self._on_bound = bound
        while time.monotonic() < end:
            if not counting and time.monotonic() >= start:
                counting = True
                count = 0
                del self.opening_ns[:]
            while (
                len(self._devices) < self._load.concurrency and time.monotonic() < end
            ):
                self._connect(index)
                index += 1
            self.poll(0.02)
        return count

    def hold(self, stop: Callable[[], bool]) -> None:
        """
        Receive, and acknowledge what asks for it, until told to stop.
        """
        while not stop():
            self.poll(0.05)

    def poll(self, seconds: float) -> None:
        """
        Handle what has arrived.
        """
        for number, event in self._epoll.poll(seconds):
            device = self._devices.get(number)
            if device is None or device.socket is None:
                continue
            try:
                if event & select.EPOLLOUT:
                    self._connected(device)
                else:
                    self._readable(device)
            except OSError:
                self._lost_one(device)

    def close(self) -> None:
        """
        Close everything.
        """
        for device in list(self._devices.values()):
            self._drop(device)
        self._epoll.close()

    # ------------------------------------------------------------ one device

    def _connect(self, index: int) -> None:
        device = _Device(index)
        device.started = time.monotonic_ns()
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._load.sources > 1:
            sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
            sock.bind((f"127.0.1.{1 + index % self._load.sources}", 0))
        error = sock.connect_ex((self._load.host, self._load.port))
        if error not in (0, errno.EINPROGRESS):
            sock.close()
            self._failed_at_once(error)
            return
        self._failed_in_a_row = 0
        device.socket = sock
        self._devices[sock.fileno()] = device
        self._epoll.register(sock.fileno(), select.EPOLLOUT)

    def _failed_at_once(self, error: int) -> None:
        self.failed += 1
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= _MOST_FAILURES:
            raise RuntimeError(
                f"{self._failed_in_a_row} connections in a row to {self._load.host}:"
                f"{self._load.port} failed at once: {os.strerror(error)}"
            )

    def _connected(self, device: _Device) -> None:
        sock = device.socket
        assert sock is not None
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, "connect")
        self._epoll.modify(sock.fileno(), select.EPOLLIN)
        device.client_key, device.iv = random_key(), random_key()
        message = Handshake(
            f"bench-{device.index}",
            "android",
            "10",
            "1.0",
            device.iv,
            device.client_key,
            240_000,
            240_000,
        )
        body = self._key.encrypt(message.encode())
        sock.send(encode_packet(_HANDSHAKE, 1, _CRYPTO, body))

    def _readable(self, device: _Device) -> None:
        assert device.socket is not None
        data = device.socket.recv(65536)
        if not data:
            raise OSError("closed")
        for cmd, flags, session_id, body in device.decoder.receive(data):
            if cmd == _PUSH:
                self._push_received(device, flags, session_id, body)
            elif cmd == _HANDSHAKE:
                self._handshaken(device, body)
            elif cmd == _OK:
                self._bound += 1
                self.opening_ns.append(time.monotonic_ns() - device.started)
                self._on_bound(device)
                return
            elif cmd == _ERROR:
                raise OSError("refused")

    def _handshaken(self, device: _Device, body: bytes) -> None:
        assert device.socket is not None
        answer = HandshakeOk.decode(
            AesCipher(device.client_key, device.iv).decrypt(body)
        )
        device.cipher = AesCipher(
            mix_session_key(device.client_key, answer.server_key), device.iv
        )
        groups = self._load.tag_groups
        tags = f"group-{device.index % groups}" if groups else None
        bind = BindUser(user_of(device.index), None, tags)
        sealed = device.cipher.encrypt(bind.encode())
        device.socket.send(encode_packet(_BIND, 2, _CRYPTO, sealed))

    def _push_received(
        self, device: _Device, flags: int, session_id: int, body: bytes
    ) -> None:
        assert device.socket is not None and device.cipher is not None
        self.pushes += 1
        if flags & ACK_FLAGS:
            device.socket.send(encode_packet(_ACK, session_id, 0, b""))
        content = device.cipher.decrypt(body)
        now = time.monotonic_ns()
        self.latency_ns.append(now - STAMP.unpack_from(content)[0])

    def _lost_one(self, device: _Device) -> None:
        if device.cipher is None:
            self.failed += 1
        else:
            self.lost += 1
        self._drop(device)

    def _drop(self, device: _Device) -> None:
        sock, device.socket = device.socket, None
        if sock is not None:
            self._devices.pop(sock.fileno(), None)
            sock.close()


def user_of(index: int) -> str:
    """
    The user that a numbered device binds.
    """
    return f"bench-{index}"
