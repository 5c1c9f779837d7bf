"""
One TCP connection of a client: framing, keys, answers to requests, heartbeats.

A connection is made for one attempt and never used again, so nothing of it can leak
into the next one (defects 12.1, 12.5): parser, keys, requests and timers go with it.
What it hears it tells its L{ConnectionOwner}, which is the client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, cast

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
    ITransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mpush_tw.client._requests import Requests
from mpush_tw.client.errors import (
    BadPacket,
    BadRequest,
    ClientError,
    Disconnected,
    Refused,
    TimedOut,
    TooManyPending,
)
from mpush_tw.client.servers import ServerAddress
from mpush_tw.client.settings import ClientSettings
from mpush_tw.client.storage import StoredSession
from mpush_tw.errors import ProtocolError
from mpush_tw.protocol.body import Cipher, open_body, seal_body
from mpush_tw.protocol.commands import Command, ErrorCode, Flag
from mpush_tw.protocol.crypto import (
    AES_KEY_LENGTH,
    AesCipher,
    RsaPublicKey,
    mix_session_key,
    random_key,
)
from mpush_tw.protocol.messages import (
    Error,
    FastConnect,
    FastConnectOk,
    Handshake,
    HandshakeOk,
    Kick,
    Ok,
)
from mpush_tw.protocol.packet import (
    HEARTBEAT_BYTE,
    Packet,
    PacketDecoder,
    encode_packet,
)

CLOSE_TIMEOUT = 2.0
"""
Seconds that a closing connection may take to write what it holds; then it is aborted.
"""

_REPEAT_HANDSHAKE = ErrorCode.REPEAT_HANDSHAKE.reason
_GREETINGS = frozenset((Command.HANDSHAKE, Command.FAST_CONNECT))
_CRYPTO = int(Flag.CRYPTO)

_BY_NETWORK = 1
_BY_APPLICATION = 2


class ConnectionOwner(Protocol):
    """
    What a connection tells its client. All in the reactor thread; nothing is called
    after C{connection_ended} but C{connection_closed}.
    """

    def next_session_id(self) -> int:
        """
        Give the next number for a request, 1 to 2^31-1.
        """
        ...

    def connection_made(self, connection: Connection) -> None: ...

    def session_opened(
        self, connection: Connection, heartbeat_ms: int, session: StoredSession | None
    ) -> None:
        """
        @param session: What to store; C{None} after a fast connect.
        """
        ...

    def fast_connect_refused(self, connection: Connection) -> None: ...

    def handshake_refused(self, connection: Connection, reason: Refused) -> None: ...

    def push_received(
        self, connection: Connection, content: bytes, flags: int, session_id: int
    ) -> None: ...

    def kick_received(self, connection: Connection, kick: Kick) -> None: ...

    def error_received(self, connection: Connection, reason: Refused) -> None:
        """
        An ERROR came that the connection does not swallow itself. If it answers a
        request, that one fails right after this call.
        """
        ...

    def connection_ended(self, connection: Connection, reason: ClientError) -> None:
        """
        The connection is of no use any more, closed by whichever side. Exactly once,
        after everything that waited on it has failed.
        """
        ...

    def connection_closed(self, connection: Connection) -> None:
        """
        Its transport is gone, too.
        """
        ...


@implementer(IProtocol, IPushProducer)
class Connection:
    """
    The protocol of one connection.

    It provides C{IProtocol} without inheriting from C{twisted.internet.protocol.
    Protocol}, whose instances have a dictionary each; a process may run thousands of
    clients. It is the producer of its transport so as to learn when the network does
    not take any more.

    @ivar server: Whom it leads to.
    @ivar ready: Whether there is a session now: requests may be sent.
    @ivar opened_at: When the first handshake on it succeeded; C{None} until then.
    @ivar ended: Whether it is over, though the transport may still be closing.
    @ivar heard: Set whenever bytes arrive; who wants to see whether some do clears it.
    """

    _log = Logger()

    __slots__ = (
        "_answer_cipher",
        "_auto",
        "_backlog",
        "_beat",
        "_choked",
        "_cipher",
        "_clock",
        "_closing",
        "_decoder",
        "_greeting",
        "_had_session",
        "_heartbeat",
        "_held",
        "_idle",
        "_last_read",
        "_last_write",
        "_misses",
        "_owner",
        "_packets",
        "_queued",
        "_random",
        "_requests",
        "_settings",
        "ended",
        "heard",
        "opened_at",
        "ready",
        "server",
        "transport",
    )

    def __init__(
        self,
        owner: ConnectionOwner,
        settings: ClientSettings,
        server: ServerAddress,
        clock: IReactorTime,
        random: Callable[[], float],
    ) -> None:
        self.server = server
        self.ready = False
        self.ended = False
        self.heard = False
        self.opened_at: float | None = None
        self.transport: ITCPTransport | None = None
        self._owner = owner
        self._settings = settings
        self._clock = clock
        self._random = random
        self._decoder = PacketDecoder(settings.max_packet_size)
        self._requests = Requests(clock, self._resend)
        # Key of the session, and of the answer to the HANDSHAKE under way. Two, because
        # until that answer has arrived everything else is still under the old key.
        self._cipher: Cipher | None = None
        self._answer_cipher: Cipher | None = None
        self._greeting: Deferred[bytes] | None = None
        self._had_session = False
        # Reading: why it is paused, and what waits meanwhile.
        self._held = 0
        self._packets: Iterator[Packet] | None = None
        self._backlog = b""
        # Writing: whether the transport asked us to stop, and how much came since.
        self._choked = False
        self._queued = 0
        # Heartbeat: the agreed interval in seconds, and when to ping.
        self._heartbeat = 0.0
        self._idle = 0.0
        self._auto = settings.auto_heartbeat
        self._misses = 0
        self._last_read = self._last_write = 0.0
        self._beat: IDelayedCall | None = None
        self._closing: IDelayedCall | None = None

    # -- IProtocol ---------------------------------------------------------------------

    def makeConnection(self, transport: ITransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        if IConsumer.providedBy(transport):
            transport.registerProducer(self, True)
        self._last_read = self._last_write = self._clock.seconds()
        if self.ended:
            # Given up while the connect was under way.
            self._close()
        else:
            self.connectionMade()

    def connectionMade(self) -> None:
        self._owner.connection_made(self)

    def logPrefix(self) -> str:
        return "mpush client"

    def dataReceived(self, data: bytes) -> None:
        if self.ended:
            return
        self.heard = True
        self._last_read = self._clock.seconds()
        if self._packets is not None:
            # Paused in the middle of a read. TCP brings nothing more by then; TLS may
            # bring what it has decrypted already.
            self._backlog += data
            return
        self._handle(self._decoder.receive(data))

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        self._closing = None
        self.transport = None
        if reason.check(ConnectionDone):
            self._end(Disconnected("the server closed the connection"))
        else:
            self._end(Disconnected(reason.getErrorMessage()))
        self._owner.connection_closed(self)

    # -- reading -----------------------------------------------------------------------

    def _handle(self, packets: Iterator[Packet]) -> None:
        """
        Handle packets in order, until they run out, the connection ends, or reading is
        held up.
        """
        try:
            for packet in packets:
                self._packet_received(*packet)
                if self.ended:
                    return
                if self._held:
                    self._packets = packets
                    return
        except ProtocolError as error:
            self.end(BadPacket(str(error)))
        except Exception:
            self._log.failure("a packet could not be handled")
            self.end(BadPacket("a packet could not be handled"))

    def _packet_received(
        self, command: int, flags: int, session_id: int, body: bytes
    ) -> None:
        if command == Command.PUSH:
            content = self._open(flags, body, self._cipher)
            if self.ready:
                self._owner.push_received(self, content, flags, session_id)
        elif command == Command.ACK:
            self._requests.settle(session_id, Command.PUSH, b"")
        elif command == Command.OK:
            ok = Ok.decode(self._open(flags, body, self._cipher))
            self._requests.settle(session_id, ok.cmd, b"")
        elif command == Command.ERROR:
            error = Error.decode(self._open(flags, body, self._cipher))
            self._error_received(session_id, error)
        elif command == Command.KICK:
            kick = Kick.decode(self._open(flags, body, self._cipher))
            if self.ready:
                self._owner.kick_received(self, kick)
        elif command in _GREETINGS and self._requests.expects(session_id, command):
            # One that nobody waits for, an answer to a packet that was sent twice, is
            # not looked at. All other commands are ignored, too.
            self._greeting_received(command, flags, session_id, body)

    def _greeting_received(
        self, command: int, flags: int, session_id: int, body: bytes
    ) -> None:
        if command == Command.FAST_CONNECT:
            plain = self._open(flags, body, self._cipher)
        elif self._settings.encrypt_required and not flags & _CRYPTO:
            raise ProtocolError("the answer to HANDSHAKE is not encrypted")
        else:
            plain = self._open(flags, body, self._answer_cipher)
        self._requests.settle(session_id, command, plain)

    def _open(self, flags: int, body: bytes, cipher: Cipher | None) -> bytes:
        if flags & _CRYPTO and body and cipher is None:
            raise ProtocolError("an encrypted packet before there is a key")
        return open_body(flags, body, cipher, self._settings.max_packet_size)

    def _error_received(self, session_id: int, error: Error) -> None:
        reason = Refused(error.cmd, error.code, error.reason or "")
        if error.cmd == Command.HANDSHAKE and (
            error.code == ErrorCode.REPEAT_HANDSHAKE
            or error.reason == _REPEAT_HANDSHAKE
        ):
            # The server keeps the session there is (clients 2.4). If there is none yet,
            # the time-out decides.
            if self._had_session and self._requests.expects(session_id, error.cmd):
                self._greeting_over()
                self.ready = True
            return
        if error.cmd != Command.FAST_CONNECT:
            self._owner.error_received(self, reason)
        self._requests.refuse(session_id, error.cmd, reason)

    def hold(self) -> None:
        """
        Stop reading: the application has too much in hand.
        """
        self._pause(_BY_APPLICATION)

    def release(self) -> None:
        """
        Go on reading after L{hold}.
        """
        self._unpause(_BY_APPLICATION)

    def _pause(self, cause: int) -> None:
        if not self._held and self.transport is not None:
            self._reader().pauseProducing()
        self._held |= cause

    def _unpause(self, cause: int) -> None:
        if not self._held & cause:
            return
        self._held &= ~cause
        if self._held or self.ended or self.transport is None:
            return
        # Silence while we did not listen proves nothing about the server.
        self._last_read = self._clock.seconds()
        packets, self._packets = self._packets, None
        if packets is not None:
            self._handle(packets)
        if self._backlog and not self._held and not self.ended:
            data, self._backlog = self._backlog, b""
            self._handle(self._decoder.receive(data))
        if not self._held and not self.ended:
            self._reader().resumeProducing()

    def _reader(self) -> IPushProducer:
        return self.transport  # type: ignore[return-value]

    # -- IPushProducer: the transport about the network
    # ----------------------------------

    def pauseProducing(self) -> None:
        """
        The network does not take more for now. We stop reading, too, so that a server
        which does not read our answers cannot make us pile them up.
        """
        self._choked = True
        self._queued = 0
        self._pause(_BY_NETWORK)

    def resumeProducing(self) -> None:
        self._choked = False
        self._unpause(_BY_NETWORK)

    def stopProducing(self) -> None:
        """
        The transport is going away; C{connectionLost} follows.
        """

    # -- writing -----------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        """
        @raise TooManyPending: If the network has not taken C{max_pending} packets yet.
        """
        if self._choked:
            if self._queued >= self._settings.max_pending:
                raise TooManyPending("the network is too slow")
            self._queued += 1
        assert self.transport is not None
        self.transport.write(data)
        self._last_write = self._clock.seconds()

    def _resend(self, packet: bytes) -> None:
        try:
            self._write(packet)
        except TooManyPending:
            # The first copy has not even left; another is not needed.
            pass

    def _seal(
        self, plain: bytes, cipher: Cipher | RsaPublicKey | None
    ) -> tuple[int, bytes]:
        """
        @param cipher: Used to encrypt only, so a public key will do.
        @raise BadRequest: If the body is too large.
        @raise Disconnected: If it cannot be encrypted; the connection is over then, and
            nothing goes out in clear (defect 12.11).
        """
        if cipher is None and self._settings.encrypt_required:
            raise Disconnected("there is no key to encrypt with")
        try:
            flags, body = seal_body(
                plain, cast("Cipher | None", cipher), self._settings.compress_threshold
            )
        except Exception:
            self._log.failure("encryption failed")
            reason = Disconnected("encryption failed")
            self.end(reason)
            raise reason from None
        if len(body) > self._settings.max_packet_size:
            raise BadRequest(f"{len(body)} bytes are more than max_packet_size")
        return flags, body

    def send(self, command: int, plain: bytes, flags: int = 0) -> int:
        """
        Send what nobody answers.

        @param plain: The body, encrypted on the way.
        @return: The session id it went out with.
        @raise ClientError: If it cannot be sent.
        """
        self._check_ready()
        sealed, body = self._seal(plain, self._cipher)
        session_id = self._owner.next_session_id()
        self._write(encode_packet(command, session_id, flags | sealed, body))
        return session_id

    def request(
        self, command: int, plain: bytes, timeout: float, retries: int, flags: int = 0
    ) -> Deferred[bytes]:
        """
        Send what is answered: BIND, UNBIND, PUSH with an ack model.

        @return: As L{Requests.add}, or failed already if it cannot be sent.
        """
        try:
            self._check_ready()
            sealed, body = self._seal(plain, self._cipher)
            return self._ask(command, flags | sealed, body, timeout, retries)
        except ClientError:
            return fail()

    def acknowledge(self, session_id: int) -> bool:
        """
        Send an ACK (protocol 10.9).

        @return: Whether it was sent.
        """
        if not self.ready or self.ended:
            return False
        try:
            self._write(encode_packet(Command.ACK, session_id, 0, b""))
        except TooManyPending:
            return False
        return True

    def _check_ready(self) -> None:
        if self.ended or not self.ready:
            raise Disconnected("not connected")
        if len(self._requests) >= self._settings.max_pending:
            raise TooManyPending(f"{len(self._requests)} requests wait for answers")

    def _ask(
        self, command: int, flags: int, body: bytes, timeout: float, retries: int
    ) -> Deferred[bytes]:
        session_id = self._owner.next_session_id()
        packet = encode_packet(command, session_id, flags, body)
        answer = self._requests.add(session_id, command, packet, timeout, retries)
        try:
            self._write(packet)
        except TooManyPending as error:
            self._requests.refuse(session_id, command, error)
        return answer

    @property
    def greeting(self) -> bool:
        """
        Whether a HANDSHAKE or FAST_CONNECT waits for its answer.
        """
        return self._greeting is not None

    # -- handshake and fast connect
    # ------------------------------------------------------

    def handshake(self) -> bool:
        """
        Send HANDSHAKE (clients 2.8), unless it or FAST_CONNECT is under way.

        @return: Whether it was sent.
        """
        if self._greeting is not None or self.ended or self.transport is None:
            return False
        settings = self._settings
        key, iv = random_key(), random_key()
        plain = Handshake(
            settings.device_id,
            settings.os_name,
            settings.os_version,
            settings.client_version,
            iv,
            key,
            settings.min_heartbeat,
            settings.max_heartbeat,
        ).encode()
        try:
            flags, body = self._seal(plain, settings.public_key)
        except ClientError as error:
            self.end(error)
            return False
        self._answer_cipher = AesCipher(key, iv)
        greeting = self._greet(Command.HANDSHAKE, flags, body)
        greeting.addCallback(self._handshake_answered, key, iv)
        greeting.addErrback(self._greeting_failed)
        return True

    def fast_connect(self, session: StoredSession) -> bool:
        """
        Send FAST_CONNECT, unless it or HANDSHAKE is under way.

        @return: Whether it was sent.
        """
        if self._greeting is not None or self.ended or self.transport is None:
            return False
        settings = self._settings
        body = FastConnect(
            session.session_id,
            settings.device_id,
            settings.min_heartbeat,
            settings.max_heartbeat,
        ).encode()
        previous = self._cipher
        self._cipher = session.cipher
        greeting = self._greet(Command.FAST_CONNECT, 0, body)
        greeting.addCallback(self._fast_connect_answered)
        greeting.addErrback(self._greeting_failed, previous)
        return True

    def _greet(self, command: int, flags: int, body: bytes) -> Deferred[bytes]:
        if self.ready:
            self._had_session = True
            self.ready = False
            self._requests.fail_all(Disconnected("a new handshake began"))
        settings = self._settings
        greeting = self._ask(
            command,
            flags,
            body,
            settings.handshake_timeout,
            settings.handshake_retries,
        )
        self._greeting = greeting
        return greeting

    def _greeting_over(self) -> None:
        """
        Give up waiting for the answer, if it is not there.
        """
        greeting, self._greeting = self._greeting, None
        self._answer_cipher = None
        if greeting is not None:
            greeting.cancel()

    def _handshake_answered(self, body: bytes, key: bytes, iv: bytes) -> None:
        answer = HandshakeOk.decode(body)
        if len(answer.server_key) != AES_KEY_LENGTH:
            raise ProtocolError(f"server key of {len(answer.server_key)} bytes")
        cipher = AesCipher(mix_session_key(key, answer.server_key), iv)
        session = None
        if answer.session_id and "," not in answer.session_id:
            session = StoredSession(answer.session_id, answer.expire_time, cipher)
        self._open_session(cipher, answer.heartbeat, session)

    def _fast_connect_answered(self, body: bytes) -> None:
        answer = FastConnectOk.decode(body)
        assert self._cipher is not None
        self._open_session(self._cipher, answer.heartbeat, None)

    def _open_session(
        self, cipher: Cipher, heartbeat_ms: int, session: StoredSession | None
    ) -> None:
        if heartbeat_ms <= 0:
            raise ProtocolError(f"heartbeat of {heartbeat_ms} ms")
        self._greeting = None
        self._answer_cipher = None
        self._cipher = cipher
        self.ready = True
        if self.opened_at is None:
            self.opened_at = self._clock.seconds()
        self._start_heartbeat(heartbeat_ms / 1000)
        self._owner.session_opened(self, heartbeat_ms, session)

    def _greeting_failed(
        self, failure: Failure, previous: Cipher | None = None
    ) -> None:
        error = failure.value
        if isinstance(error, CancelledError) or (
            self.ended and isinstance(error, ClientError)
        ):
            # Cancelled by _greeting_over; or ended, and the reason is told elsewhere.
            return
        self._greeting = None
        self._answer_cipher = None
        if isinstance(error, Refused) and error.command == Command.FAST_CONNECT:
            self._cipher = previous
            self._owner.fast_connect_refused(self)
        elif isinstance(error, Refused):
            self._owner.handshake_refused(self, error)
        elif isinstance(error, ClientError):
            self.end(error)
        elif isinstance(error, ProtocolError):
            self.end(BadPacket(f"useless answer to the handshake: {error}"))
        else:
            self._log.failure("the handshake failed", failure=failure)
            self.end(BadPacket("the handshake failed"))

    # -- heartbeat ---------------------------------------------------------------------

    def _start_heartbeat(self, interval: float) -> None:
        """
        @param interval: The agreed heartbeat in seconds.
        """
        self._heartbeat = interval
        self._misses = 0
        # The first ping comes up to 10 % early: clients that connected together would
        # otherwise ping together for ever (clients 10.3, 9).
        self._idle = self._longest_idle() * (1 - 0.1 * self._random())
        if self._auto:
            self._arm_beat()

    def _longest_idle(self) -> float:
        return max(self._heartbeat - 1.0, self._heartbeat / 2)

    def _longest_silence(self) -> float:
        return 2 * self._heartbeat + 1.0

    def _arm_beat(self) -> None:
        if self._beat is not None and self._beat.active():
            self._beat.cancel()
        due = min(
            self._last_write + self._idle, self._last_read + self._longest_silence()
        )
        wait = max(0.0, due - self._clock.seconds())
        self._beat = self._clock.callLater(wait, self._beat_due)

    def _beat_due(self) -> None:
        """
        One timer per connection: it looks whether a ping or a verdict is due and sleeps
        until the next one could be. Traffic does not touch it.
        """
        # Half a millisecond of slack, because sums of floats may come out just short.
        now = self._clock.seconds() + 0.0005
        if self._held & _BY_APPLICATION:
            self._last_read = now
        if now >= self._last_read + self._longest_silence():
            self.end(TimedOut(Command.HEARTBEAT, self._longest_silence()))
            return
        if now >= self._last_write + self._idle:
            self.ping()
        self._arm_beat()

    def ping(self) -> None:
        """
        Send the heartbeat byte. Not into a network that is stuck: what is queued there
        will show the server that we live, if it ever gets it.
        """
        self._idle = self._longest_idle()
        if self._choked:
            self._last_write = self._clock.seconds()
        elif self.transport is not None and not self.ended:
            self._write(HEARTBEAT_BYTE)

    def check_health(self) -> bool:
        """
        The Java client's health check (clients 2.10), for applications with a timer of
        their own. Before the handshake there is nothing to check.

        @return: Whether the connection goes on.
        """
        if self.ended:
            return False
        if not self._heartbeat:
            return True
        now = self._clock.seconds()
        silent = now - self._last_read > self._heartbeat + 1.0
        self._misses = self._misses + 1 if silent else 0
        if self._misses >= 2:
            self.end(TimedOut(Command.HEARTBEAT, now - self._last_read))
            return False
        if now - self._last_write > self._longest_idle():
            self.ping()
        return True

    # -- the end -----------------------------------------------------------------------

    def end(self, reason: ClientError) -> None:
        """
        Close the connection from our side. What is in the transport's buffer still goes
        out, for L{CLOSE_TIMEOUT} at most.
        """
        if not self.ended:
            self._end(reason)
            self._close()

    def abandon(self) -> None:
        """
        Give up an attempt to connect. Should it succeed all the same, the connection is
        closed and the owner hears nothing.
        """
        self.ended = True

    def _close(self) -> None:
        """
        Let go of the transport, which stays known until it is gone.
        """
        transport = self.transport
        if transport is None:
            return
        if IConsumer.providedBy(transport):
            # A registered producer would keep the transport open.
            transport.unregisterProducer()
        transport.loseConnection()
        if self.transport is not None:
            self._closing = self._clock.callLater(
                CLOSE_TIMEOUT, transport.abortConnection
            )

    def _end(self, reason: ClientError) -> None:
        if self.ended:
            return
        self.ended = True
        self.ready = False
        self._packets = None
        self._backlog = b""
        if self._beat is not None and self._beat.active():
            self._beat.cancel()
        self._beat = None
        self._requests.fail_all(reason)
        self._owner.connection_ended(self, reason)


@implementer(IProtocolFactory)
class ConnectionFactory:
    """
    Hands one connection to one endpoint.
    """

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def buildProtocol(self, addr: IAddress) -> IProtocol:
        return self._connection

    def doStart(self) -> None:
        """
        Nothing to prepare.
        """

    def doStop(self) -> None:
        """
        Nothing to clean up.
        """
