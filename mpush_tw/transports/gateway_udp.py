"""
The gateway door over UDP, with multicast (protocol 13, cluster 4.8).

One packet a datagram, no connections. GATEWAY_PUSH is served as over TCP, and its
answer goes to the address that it came from. GATEWAY_KICK comes from other nodes, and
goes to them, from this same port (cluster 4.6). Whatever is wrong with a datagram costs
that datagram only: it is counted, logged and dropped, and never answered (D5).

Nothing is queued and nothing is sent again: what is lost on the way is a time-out at
the sender, and a lost kick leaves a device connected that should have gone.
"""

from __future__ import annotations

from collections.abc import Callable
from secrets import randbits
from typing import Any

from twisted.application.service import Service
from twisted.internet.abstract import isIPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from mpush_tw.datagrams import (
    ORIGINAL_DATAGRAM,
    Address,
    DatagramSocket,
    HostAddresses,
)
from mpush_tw.errors import ConfigError, ProtocolError, Unavailable
from mpush_tw.protocol.body import open_body
from mpush_tw.protocol.commands import Command
from mpush_tw.protocol.gateway import GatewayKick
from mpush_tw.protocol.packet import decode_datagram, encode_packet
from mpush_tw.transports.gateway import GatewayDoor

_GATEWAY_PUSH = int(Command.GATEWAY_PUSH)
_GATEWAY_KICK = int(Command.GATEWAY_KICK)
_GATEWAY_QUERY = int(Command.GATEWAY_QUERY)
_TEST_SECONDS = 1.0
_KEY = "mp.net.gateway-server-port"


class DatagramOrigin:
    """
    Where one GATEWAY_PUSH came from; provides
    L{PushOrigin<mpush_tw.transports.gateway.PushOrigin>}.

    The peer may be a Java sender, whose socket dies of more than 2048 bytes.
    """

    __slots__ = ("_address", "_gateway", "_own")

    answer_limit = ORIGINAL_DATAGRAM

    def __init__(self, gateway: DatagramGateway, address: Address, own: bytes) -> None:
        """
        @param own: The address of ours that was asked; the answer leaves from it.
        """
        self._gateway = gateway
        self._address = address
        self._own = own

    @property
    def peer(self) -> str:
        """
        Remote address as C{ip:port}.
        """
        return f"{self._address[0]}:{self._address[1]}"

    def answer(self, cmd: int, data: bytes) -> bool:
        """
        Send an answer in one datagram, at once.

        @return: C{False} if it has not left.
        """
        return self._gateway.send(cmd, data, self._address, self._own)


class DatagramGateway(Service):
    """
    The gateway of a node whose C{mp.net.gateway-server-net} is C{udp}.

    @ivar joined: Whether it is a member of its multicast group.
    """

    def __init__(
        self,
        door: GatewayDoor,
        reactor: Any,
        port: int,
        group: str,
        interface: str,
        kick_received: Callable[[GatewayKick], object],
        send_buffer: int = 0,
        receive_buffer: int = 0,
    ) -> None:
        """
        @param reactor: Provides C{IReactorFDSet}, C{IReactorTime} and C{IReactorCore}.
        @param port: C{mp.net.gateway-server-port}; 0 for any free one.
        @param group: C{mp.net.gateway-server-multicast}.
        @param interface: The address of the interface on which to join it.
        @param kick_received: Called with what other nodes ask for. It checks whether
            this node is meant (cluster 5.3).
        @param send_buffer: C{SO_SNDBUF}, 0 to leave it alone.
        @param receive_buffer: C{SO_RCVBUF}; 0 is the system's choice but at least
            1 MiB, see L{DatagramSocket.open}.
        """
        self._door = door
        self._reactor = reactor
        self._port_number = port
        self._group = group
        self._interface = interface
        self._kick_received = kick_received
        self._buffers = send_buffer, receive_buffer
        self._socket = DatagramSocket(reactor, self._received, door.log.conn)
        self._hosts = HostAddresses(reactor)
        self._tests: dict[bytes, tuple[Deferred[bool], IDelayedCall]] = {}
        self.joined = False

    # ------------------------------------------------------ for the service

    @property
    def port(self) -> int:
        """
        The port that is open, 0 before and after.
        """
        return self._socket.port

    def open(self) -> None:
        """
        Open the port on every address, and join the group; that this fails is logged,
        and L{self_test} tells it.

        @raise ConfigError: If the port cannot be opened; the sentence names the key.
        """
        log = self._door.log.general
        send_buffer, receive_buffer = self._buffers
        try:
            self._socket.open(
                self._port_number,
                send_buffer=send_buffer,
                receive_buffer=receive_buffer,
            )
        except OSError as error:
            raise ConfigError(
                _KEY,
                f"UDP port {self._port_number} on every address cannot be opened: "
                f"{error.strerror or error}",
            ) from None
        log.info("udp server start success on:{port}", port=self.port)
        try:
            self._socket.join(self._group, self._interface)
            self._socket.send_groups_by(self._interface)
        except OSError as error:
            log.error(
                "join multicast group failure, group={group}, interface={interface}: "
                "{error}",
                group=self._group,
                interface=self._interface,
                error=error.strerror or error,
            )
        else:
            self.joined = True
            log.info(
                "join multicast group success, group={group}, interface={interface}",
                group=self._group,
                interface=self._interface,
            )

    def pause(self) -> None:
        """
        Take nothing for now; the kernel keeps what comes, as much as fits its buffer.
        """
        self._socket.pause()

    def resume(self) -> None:
        """
        Go on after L{pause}. Does nothing when the port is not open.
        """
        self._socket.resume()

    def close(self) -> Deferred[None]:
        """
        Receive and answer no more. Idempotent.
        """
        if self.joined:
            self.joined = False
            self._door.log.general.info(
                "leave multicast group success, group={group}", group=self._group
            )
        for probe in list(self._tests):
            self._test_ended(probe, False)
        return self._socket.close()

    def self_test(self) -> Deferred[bool]:
        """
        Find out whether multicast reaches this door, by a datagram that it sends to
        its group. Not while it is paused: nothing arrives then.

        The datagram is an empty packet of a command that nobody serves, and no network
        carries it. Others on this machine drop it, as they drop every other command.

        @return: A Deferred firing with the answer after a second at most.
        """
        if not self.joined:
            return succeed(False)
        # The number is random: nobody else's datagram is taken for this one.
        probe = encode_packet(Command.UNKNOWN, randbits(31), 0, b"")
        if not self._socket.send_within_machine(probe, (self._group, self.port)):
            return succeed(False)
        arrived: Deferred[bool] = Deferred()
        deadline = self._reactor.callLater(
            _TEST_SECONDS, self._test_ended, probe, False
        )
        self._tests[probe] = arrived, deadline
        return arrived

    def _test_ended(self, probe: bytes, result: bool) -> None:
        arrived, deadline = self._tests.pop(probe)
        if deadline.active():
            deadline.cancel()
        arrived.callback(result)

    # ---------------------------------------------------------------- sending

    def send(self, cmd: int, data: bytes, to: Address, own: bytes = b"") -> bool:
        """
        Send one packet, and count it.

        @param own: The own address to send from; absent for the kernel's choice.
        @return: C{False} if it has not left.
        """
        if not self._socket.send(data, to, own):
            return False
        metrics = self._door.metrics
        metrics.packets_out[cmd] += 1
        metrics.bytes_out += len(data)
        return True

    def send_kick(self, kick: GatewayKick) -> None:
        """
        Ask the node that a kick names to act on it (cluster 4.6). There is no answer;
        what cannot be sent is logged.
        """
        host, port = kick.target_server, kick.target_port
        number = self._door.centre.next_message_id()
        try:
            packet = encode_packet(_GATEWAY_KICK, number, 0, kick.encode())
        except ProtocolError as error:
            self._kick_failed(kick, error)
            return
        if not host or isIPv6Address(host):
            self._kick_failed(kick, "its target has no IPv4 address")
        elif len(packet) > ORIGINAL_DATAGRAM:
            self._kick_failed(kick, f"{len(packet)} bytes are too much for a datagram")
        else:
            finding = self._hosts.find(host)
            finding.addCallback(
                lambda address: self.send(_GATEWAY_KICK, packet, (address, port))
            )
            finding.addErrback(self._no_address, kick)

    def _no_address(self, failure: Failure, kick: GatewayKick) -> None:
        if failure.check(Unavailable):
            self._kick_failed(kick, failure.value)
        else:
            self._door.log.conn.failure("a kick broke off", failure)

    def _kick_failed(self, kick: GatewayKick, reason: object) -> None:
        self._door.log.conn.error(
            "kick request not sent, msg={kick}: {reason}",
            kick=str(kick),
            reason=str(reason),
        )

    # -------------------------------------------------------------- receiving

    def _received(self, data: bytes, peer: Address, own: bytes) -> None:
        if data in self._tests:
            self._test_ended(data, True)
            return
        door = self._door
        metrics = door.metrics
        if not door.allows(peer[0]):
            metrics.refused["gateway-allowed-peers"] += 1
            door.log.conn.warn(
                "datagram from {peer} dropped: not in mp.net.gateway-allowed-peers",
                peer=peer[0],
            )
            return
        metrics.bytes_in += len(data)
        try:
            cmd, flags, session_id, body = decode_datagram(data, door.max_packet_size)
        except ProtocolError as error:
            metrics.decode_errors["datagram"] += 1
            door.log.conn.error(
                "datagram from {host}:{port} dropped: {error}",
                host=peer[0],
                port=peer[1],
                error=error,
            )
            return
        metrics.packets_in[cmd] += 1
        if cmd == _GATEWAY_PUSH:
            origin = DatagramOrigin(self, peer, own)
            door.push_received(origin, session_id, flags, body)
        elif cmd == _GATEWAY_QUERY:
            origin = DatagramOrigin(self, peer, own)
            door.query_received(origin, session_id, flags, body)
        elif cmd == _GATEWAY_KICK:
            self._kick_packet_received(peer, flags, body)
        else:
            door.unsupported(f"{peer[0]}:{peer[1]}", cmd)

    def _kick_packet_received(self, peer: Address, flags: int, body: bytes) -> None:
        door = self._door
        sender = f"{peer[0]}:{peer[1]}"
        try:
            kick = GatewayKick.decode(open_body(flags, body, None, door.max_inflated))
        except ProtocolError as error:
            door.undecodable(sender, _GATEWAY_KICK, error)
            return
        door.log.conn.info(
            "receive kick msg={kick}, conn={peer}", kick=str(kick), peer=sender
        )
        self._kick_received(kick)
