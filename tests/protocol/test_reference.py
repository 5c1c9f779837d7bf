"""
The reference conversation of the client specification, byte by byte (clients 14).

One device from its handshake to its fast connect, with fixed keys: what a device SDK
sends and what it has to understand, so each packet is built and read here.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.protocol.body import open_body, seal_body
from mpush_tw.protocol.commands import Command, ErrorCode, Flag
from mpush_tw.protocol.crypto import AesCipher, RsaPrivateKey, mix_session_key
from mpush_tw.protocol.messages import (
    BindUser,
    Error,
    FastConnect,
    FastConnectOk,
    Handshake,
    HandshakeOk,
    HttpRequest,
    HttpResponse,
    Kick,
    Ok,
)
from mpush_tw.protocol.packet import HEARTBEAT, Packet, PacketDecoder, encode_packet
from mpush_tw.protocol.sessions import decode_key, encode_key
from tests.protocol.test_crypto import SAMPLE_PRIVATE

CLIENT_KEY = bytes(range(0x00, 0x10))
SERVER_KEY = bytes(range(0x10, 0x20))
IV = bytes(range(0x20, 0x30))
SESSION_KEY = bytes([0x10]) * 16

HANDSHAKE_BODY = bytes.fromhex(
    "00 05 64 65 76 2d 31  00 07 61 6e 64 72 6f 69 64  00 03 36 2e 30  00 03 32 2e 30"
    "00 10 20 21 22 23 24 25 26 27 28 29 2a 2b 2c 2d 2e 2f"
    "00 10 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f"
    "00 03 a9 80  00 03 a9 80  00 00 00 00 00 00 00 00"
)
HANDSHAKE = Handshake(
    "dev-1", "android", "6.0", "2.0", IV, CLIENT_KEY, 240_000, 240_000, 0
)
HANDSHAKE_OK_BODY = bytes.fromhex(
    "00 10 10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f  00 02 bf 20"
    "00 02 73 31  00 00 01 74 87 6e 80 00"
)
HANDSHAKE_OK_PACKET = bytes.fromhex(
    "00 00 00 30 02 00 00 01 00 00 00 01 00"
    "3a ca 38 b4 45 08 90 54 98 da 29 75 69 d3 b7 d7"
    "15 48 0a b0 73 dc f6 66 58 ed 2b 3c 3a d5 ac 47"
    "00 aa d7 9c 5f 69 4c 02 83 04 9b b8 fb b7 27 e0"
)
BIND_PACKET = bytes.fromhex(
    "00 00 00 10 05 00 00 01 00 00 00 02 00"
    "8c 2f 5f 5a 63 4c f7 c9 10 6f 27 52 e5 1b 81 eb"
)
OK_PACKET = bytes.fromhex(
    "00 00 00 10 0b 00 00 00 00 00 00 02 00"
    "05 00 00 0c 62 69 6e 64 20 73 75 63 63 65 73 73"
)
PUSH_PACKET = bytes.fromhex(
    "00 00 00 10 0f 00 00 09 00 10 00 01 00"
    "95 9a 8c 9b 4e a1 26 e2 8b d2 72 b9 f0 35 7b c9"
)
ACK_PACKET = bytes.fromhex("00 00 00 00 17 00 00 00 00 10 00 01 00")
KICK_PACKET = bytes.fromhex(
    "00 00 00 10 0d 00 00 01 00 00 00 00 00"
    "50 82 f1 d3 f9 1a 04 86 43 b5 ab 6f 56 e7 f3 ea"
)
FAST_CONNECT_PACKET = bytes.fromhex(
    "00 00 00 13 07 00 00 00 00 00 00 01 00"
    "00 02 73 31 00 05 64 65 76 2d 31 00 03 a9 80 00 03 a9 80"
)
FAST_CONNECT_OK_PACKET = bytes.fromhex(
    "00 00 00 04 07 00 00 00 00 00 00 01 00 00 02 bf 20"
)
REFUSAL_PACKET = bytes.fromhex(
    "00 00 00 15 0a 00 00 00 00 00 00 01 00"
    "07 67 00 0f 73 65 73 73 69 6f 6e 20 65 78 70 69 72 65 64 00 00"
)
STOCK_FAST_CONNECT_PACKET = bytes.fromhex(
    "00 00 00 16 07 00 00 00 00 00 00 03 00"
    "00 05 73 65 73 73 31 00 05 64 65 76 2d 31 00 03 a9 80 00 03 a9 80"
)
HTTP_REQUEST_BODY = bytes.fromhex(
    "00  00 10 68 74 74 70 3a 2f 2f 65 78 61 6d 70 6c 65 2f 78"
    "00 11 72 65 61 64 54 69 6d 65 6f 75 74 3a 32 30 30 30 0a  00 00"
)
HTTP_RESPONSE_BODY = bytes.fromhex("00 00 00 c8  00 02 4f 4b  00 00  00 02 68 69")
STORED_SESSION = (
    "s1,1600000000000,16|16|16|16|16|16|16|16|16|16|16|16|16|16|16|16,"
    "32|33|34|35|36|37|38|39|40|41|42|43|44|45|46|47"
)


class ReferenceTests(SynchronousTestCase):
    """
    Each packet both ways.
    """

    def setUp(self) -> None:
        self.opening = AesCipher(CLIENT_KEY, IV)
        self.session = AesCipher(mix_session_key(CLIENT_KEY, SERVER_KEY), IV)

    def assert_raw(
        self, packet: bytes, cmd: Command, session_id: int, body: bytes
    ) -> None:
        """
        Build a packet that is sent raw, and read it.
        """
        self.assertEqual(encode_packet(cmd, session_id, 0, body), packet)
        self.assertEqual(self.read(packet), (cmd, 0, session_id, body))

    def assert_sealed(
        self,
        packet: bytes,
        cmd: Command,
        session_id: int,
        body: bytes,
        cipher: AesCipher,
        flags: int = 0,
    ) -> None:
        """
        Build a packet that is encrypted, and read it.
        """
        added, sealed = seal_body(body, cipher)
        self.assertEqual(encode_packet(cmd, session_id, flags | added, sealed), packet)
        read = self.read(packet)
        self.assertEqual(read[:3], (cmd, flags | Flag.CRYPTO, session_id))
        self.assertEqual(open_body(read[1], read[3], cipher), body)

    def read(self, packet: bytes) -> Packet:
        (read,) = PacketDecoder().receive(packet)
        return read

    def test_session_key(self) -> None:
        """
        Both halves make sixteen bytes 10.
        """
        self.assertEqual(mix_session_key(CLIENT_KEY, SERVER_KEY), SESSION_KEY)

    def test_handshake(self) -> None:
        """
        The handshake has 78 bytes and fits into one RSA block.
        """
        self.assertEqual(HANDSHAKE.encode(), HANDSHAKE_BODY)
        self.assertEqual(Handshake.decode(HANDSHAKE_BODY), HANDSHAKE)
        key = RsaPrivateKey.load(SAMPLE_PRIVATE)
        sealed = key.public.encrypt(HANDSHAKE_BODY)
        packet = encode_packet(Command.HANDSHAKE, 1, Flag.CRYPTO, sealed)
        self.assertEqual(packet[:13].hex(" "), "00 00 00 80 02 00 00 01 00 00 00 01 00")
        _, flags, _, body = self.read(packet)
        self.assertEqual(open_body(flags, body, key), HANDSHAKE_BODY)

    def test_handshake_ok(self) -> None:
        """
        The answer is encrypted with the client's key, not yet with the session's.
        """
        message = HandshakeOk(SERVER_KEY, 180_000, "s1", 1_600_000_000_000)
        self.assertEqual(message.encode(), HANDSHAKE_OK_BODY)
        self.assertEqual(HandshakeOk.decode(HANDSHAKE_OK_BODY), message)
        self.assert_sealed(
            HANDSHAKE_OK_PACKET, Command.HANDSHAKE, 1, HANDSHAKE_OK_BODY, self.opening
        )

    def test_bind(self) -> None:
        """
        A bind without alias and tags, under the session key.
        """
        body = bytes.fromhex("00 02 75 31 00 00 00 00")
        self.assertEqual(BindUser("u1").encode(), body)
        self.assertEqual(BindUser.decode(body), BindUser("u1"))
        self.assert_sealed(BIND_PACKET, Command.BIND, 2, body, self.session)

    def test_bind_with_tags(self) -> None:
        """
        Tags are the third field.
        """
        body = bytes.fromhex("00 02 75 31 00 00 00 02 74 31")
        self.assertEqual(BindUser("u1", None, "t1").encode(), body)
        self.assertEqual(BindUser.decode(body), BindUser("u1", None, "t1"))

    def test_ok(self) -> None:
        """
        The OK to a bind is sent raw.
        """
        message = Ok(Command.BIND, 0, "bind success")
        self.assert_raw(OK_PACKET, Command.OK, 2, message.encode())
        self.assertEqual(Ok.decode(self.read(OK_PACKET)[3]), message)

    def test_push(self) -> None:
        """
        A push that is to be acknowledged; its body is the content.
        """
        self.assert_sealed(
            PUSH_PACKET, Command.PUSH, 1048577, b"hello", self.session, Flag.AUTO_ACK
        )

    def test_ack(self) -> None:
        """
        The acknowledgement repeats the number of the push and has no body.
        """
        self.assert_raw(ACK_PACKET, Command.ACK, 1048577, b"")

    def test_kick(self) -> None:
        """
        A kick has number 0.
        """
        body = bytes.fromhex("00 05 64 65 76 2d 31 00 02 75 31")
        self.assertEqual(Kick("dev-1", "u1").encode(), body)
        self.assertEqual(Kick.decode(body), Kick("dev-1", "u1"))
        self.assert_sealed(KICK_PACKET, Command.KICK, 0, body, self.session)

    def test_fast_connect(self) -> None:
        """
        A fast connect is sent raw.
        """
        message = FastConnect("s1", "dev-1", 240_000, 240_000)
        self.assert_raw(FAST_CONNECT_PACKET, Command.FAST_CONNECT, 1, message.encode())
        self.assertEqual(FastConnect.decode(FAST_CONNECT_PACKET[13:]), message)

    def test_fast_connect_of_a_stock_client(self) -> None:
        """
        The packet that a stock Java client really sent.
        """
        message = FastConnect("sess1", "dev-1", 240_000, 240_000)
        self.assert_raw(
            STOCK_FAST_CONNECT_PACKET, Command.FAST_CONNECT, 3, message.encode()
        )
        self.assertEqual(FastConnect.decode(STOCK_FAST_CONNECT_PACKET[13:]), message)

    def test_fast_connect_ok(self) -> None:
        """
        Its answer is the heartbeat alone.
        """
        message = FastConnectOk(180_000)
        self.assert_raw(
            FAST_CONNECT_OK_PACKET, Command.FAST_CONNECT, 1, message.encode()
        )
        self.assertEqual(FastConnectOk.decode(FAST_CONNECT_OK_PACKET[13:]), message)

    def test_fast_connect_refused(self) -> None:
        """
        Its refusal says that the session has expired.
        """
        message = Error.of(Command.FAST_CONNECT, ErrorCode.SESSION_EXPIRED)
        self.assert_raw(REFUSAL_PACKET, Command.ERROR, 1, message.encode())
        self.assertEqual(Error.decode(REFUSAL_PACKET[13:]), message)

    def test_http_request(self) -> None:
        """
        A request through the proxy with its read time-out.
        """
        message = HttpRequest(0, "http://example/x", {"readTimeout": "2000"})
        self.assertEqual(message.encode(), HTTP_REQUEST_BODY)
        self.assertEqual(HttpRequest.decode(HTTP_REQUEST_BODY), message)

    def test_http_response(self) -> None:
        """
        Its answer, without headers.
        """
        message = HttpResponse(200, "OK", None, b"hi")
        self.assertEqual(message.encode(), HTTP_RESPONSE_BODY)
        self.assertEqual(HttpResponse.decode(HTTP_RESPONSE_BODY), message)

    def test_heartbeat(self) -> None:
        """
        A heartbeat is DF, both ways.
        """
        self.assertEqual(encode_packet(Command.HEARTBEAT, 0, 0, b""), b"\xdf")
        self.assertEqual(self.read(b"\xdf"), HEARTBEAT)

    def test_stored_session(self) -> None:
        """
        The session that a client stores: id, expiry, session key and iv.
        """
        session_id, expiry, key, iv = STORED_SESSION.split(",")
        self.assertEqual((session_id, expiry), ("s1", "1600000000000"))
        self.assertEqual((decode_key(key), decode_key(iv)), (SESSION_KEY, IV))
        self.assertEqual((encode_key(SESSION_KEY), encode_key(IV)), (key, iv))
