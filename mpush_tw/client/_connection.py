"""
One connection of a client: keys, requests and their answers, the handshake.

A connection is made for one attempt and never used again, so nothing of it can leak
into the next one (defects 12.1, 12.5): parser, keys, requests and timers go with it.
What it hears it tells its L{ConnectionOwner}, which is the client.
"""

from __future__ import annotations

from typing import Protocol, cast

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mpush_tw.client._heartbeat import Heartbeat
from mpush_tw.client._requests import Requests
from mpush_tw.client._wire import Wire
from mpush_tw.client.errors import (
    BadPacket,
    BadRequest,
    ClientError,
    Disconnected,
    Refused,
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
    HttpResponse,
    Kick,
    Ok,
)
from mpush_tw.protocol.packet import encode_packet

_REPEAT_HANDSHAKE = ErrorCode.REPEAT_HANDSHAKE.reason
_GREETINGS = frozenset((Command.HANDSHAKE, Command.FAST_CONNECT))
_CRYPTO = int(Flag.CRYPTO)


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

    def next_random(self) -> float:
        """
        Give a number from 0 to 1 for the jitter of the heartbeat.
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


class Connection:
    """
    What a client does on one connection.

    @ivar server: Whom it leads to.
    @ivar wire: Its protocol.
    @ivar heartbeat: Its heartbeats.
    @ivar ready: Whether there is a session now: requests may be sent.
    @ivar opened_at: When the first handshake on it succeeded; C{None} until then.
    """

    _log = Logger()

    __slots__ = (
        "_answer_cipher",
        "_cipher",
        "_clock",
        "_greeting",
        "_had_session",
        "_owner",
        "_requests",
        "_settings",
        "heartbeat",
        "opened_at",
        "ready",
        "server",
        "wire",
    )

    def __init__(
        self,
        owner: ConnectionOwner,
        settings: ClientSettings,
        server: ServerAddress,
        clock: IReactorTime,
    ) -> None:
        self.server = server
        self.ready = False
        self.opened_at: float | None = None
        self.wire = Wire(self, clock, settings.max_packet_size, settings.max_pending)
        self.heartbeat = Heartbeat(self.wire, clock, self.end)
        self._owner = owner
        self._settings = settings
        self._clock = clock
        self._requests = Requests(clock, self._resend)
        # Key of the session, and of the answer to the HANDSHAKE under way. Two, because
        # until that answer has arrived everything else is still under the old key.
        self._cipher: Cipher | None = None
        self._answer_cipher: Cipher | None = None
        self._greeting: Deferred[bytes] | None = None
        self._had_session = False

    @property
    def ended(self) -> bool:
        """
        Whether it is over, though the transport may still be closing.
        """
        return self.wire.closed

    @property
    def greeting(self) -> bool:
        """
        Whether a HANDSHAKE or FAST_CONNECT waits for its answer.
        """
        return self._greeting is not None

    # -- what the wire tells (PacketReceiver) --

    def wire_opened(self) -> None:
        self._owner.connection_made(self)

    def packet_received(
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
        elif command == Command.HTTP_PROXY:
            # One that comes too late is not looked at.
            if self._requests.expects(session_id, command):
                answer = self._open(flags, body, self._cipher)
                # Here, so that one that cannot be read ends the connection.
                HttpResponse.decode(answer)
                self._requests.settle(session_id, command, answer)
        elif command in _GREETINGS and self._requests.expects(session_id, command):
            # One that nobody waits for, an answer to a packet that was sent twice, is
            # not looked at. All other commands are ignored, too.
            self._greeting_received(command, flags, session_id, body)

    def wire_failed(self, reason: ClientError) -> None:
        self.end(reason)

    def wire_closed(self) -> None:
        self._owner.connection_closed(self)

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
                self._stop_greeting()
                self.ready = True
            return
        if error.cmd != Command.FAST_CONNECT:
            self._owner.error_received(self, reason)
        self._requests.refuse(session_id, error.cmd, reason)

    # -- sending --

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
        self.wire.write(encode_packet(command, session_id, flags | sealed, body))
        return session_id

    def request(
        self, command: int, plain: bytes, timeout: float, retries: int, flags: int = 0
    ) -> Deferred[bytes]:
        """
        Send what is answered: BIND, UNBIND, HTTP_PROXY, PUSH with an ack model.

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
        if not self.ready:
            return False
        try:
            self.wire.write(encode_packet(Command.ACK, session_id, 0, b""))
        except ClientError:
            return False
        return True

    def _check_ready(self) -> None:
        if not self.ready:
            raise Disconnected("not connected")
        if len(self._requests) >= self._settings.max_pending:
            raise TooManyPending(f"{len(self._requests)} requests wait for answers")

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

    def _ask(
        self, command: int, flags: int, body: bytes, timeout: float, retries: int
    ) -> Deferred[bytes]:
        """
        Enter the request, then write it: its answer cannot come too early (12.4).
        """
        session_id = self._owner.next_session_id()
        packet = encode_packet(command, session_id, flags, body)
        answer = self._requests.add(session_id, command, packet, timeout, retries)
        try:
            self.wire.write(packet)
        except ClientError as error:
            self._requests.refuse(session_id, command, error)
        return answer

    def _resend(self, packet: bytes) -> None:
        try:
            self.wire.write(packet)
        except ClientError:
            # The first copy has not left yet; another is not needed.
            pass

    # -- handshake and fast connect --

    def handshake(self) -> bool:
        """
        Send HANDSHAKE (clients 2.8), unless it or FAST_CONNECT is under way.

        @return: Whether it was sent.
        """
        if self._greeting is not None or self.ended:
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
        if self._greeting is not None or self.ended:
            return False
        settings = self._settings
        body = FastConnect(
            session.session_id,
            settings.device_id,
            settings.min_heartbeat,
            settings.max_heartbeat,
        ).encode()
        previous, self._cipher = self._cipher, session.cipher
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
        self._greeting = self._ask(
            command, flags, body, settings.handshake_timeout, settings.handshake_retries
        )
        return self._greeting

    def _stop_greeting(self) -> None:
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
        self.heartbeat.start(
            heartbeat_ms / 1000,
            self._settings.auto_heartbeat,
            0.1 * self._owner.next_random(),
        )
        self._owner.session_opened(self, heartbeat_ms, session)

    def _greeting_failed(
        self, failure: Failure, previous: Cipher | None = None
    ) -> None:
        error = failure.value
        if isinstance(error, CancelledError) or (
            self.ended and isinstance(error, ClientError)
        ):
            # Cancelled by _stop_greeting; or ended, and the reason is told elsewhere.
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

    # -- the end --

    def end(self, reason: ClientError) -> None:
        """
        Close the connection and fail what waits on it. Harmless when repeated.
        """
        if self.ended:
            return
        self.ready = False
        self.heartbeat.stop()
        self.wire.close()
        self._requests.fail_all(reason)
        self._owner.connection_ended(self, reason)

    def abandon(self) -> None:
        """
        Give up an attempt to connect. Should it succeed all the same, the connection is
        closed and the owner hears nothing but C{connection_closed}.
        """
        self.wire.close()
