"""
Tests of the messages between devices and server: L{mpush_tw.protocol.messages}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.errors import ProtocolError
from mpush_tw.protocol.commands import (
    ACK_FLAGS,
    Command,
    ErrorCode,
    Flag,
    command_name,
)
from mpush_tw.protocol.gateway import GatewayKick, GatewayPush
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
    json_text,
)
from tests.protocol.strategies import MESSAGES, WireMessage, messages, spoiled_bodies

SECRET = "s3cr3t-s3cr3t-s3"


class CommandTests(SynchronousTestCase):
    """
    The numbers of the wire.
    """

    def test_name(self) -> None:
        """
        A known command is logged by its name.
        """
        self.assertEqual(command_name(16), "GATEWAY_PUSH")

    def test_unknown_name(self) -> None:
        """
        Every other byte is logged as UNKNOWN.
        """
        for cmd in (-128, -1, 0, 25, 99, 127):
            self.assertEqual(command_name(cmd), "UNKNOWN")

    def test_every_code_has_its_text(self) -> None:
        """
        No error code is without the text that the wire carries with it.
        """
        silent = [code for code in ErrorCode if not code.reason]
        self.assertEqual(silent, [ErrorCode.NONE])

    def test_ack_flags(self) -> None:
        """
        The bits handed on to a device are those of business and automatic ack.
        """
        self.assertEqual(ACK_FLAGS, Flag.BIZ_ACK | Flag.AUTO_ACK)
        self.assertEqual(ACK_FLAGS, 12)


class EveryMessageTests(SynchronousTestCase):
    """
    What holds for each message class.
    """

    @given(messages)
    def test_round_trip(self, message: WireMessage) -> None:
        """
        What was encoded is decoded to the same value.
        """
        self.assertEqual(type(message).decode(message.encode()), message)

    @given(messages, st.binary(min_size=1, max_size=20))
    def test_trailing_data(self, message: WireMessage, rest: bytes) -> None:
        """
        Bytes behind the last field are ignored: a later version may add some.
        """
        self.assertEqual(type(message).decode(message.encode() + rest), message)

    def test_empty_body(self) -> None:
        """
        An empty body is a message whose fields are all absent (protocol 4.1).
        """
        for kind in MESSAGES:
            fields = tuple(kind.decode(b""))
            self.assertFalse(any(fields), f"{kind.__name__}: {fields}")

    @given(messages, st.data())
    def test_cut_short(self, message: WireMessage, data: st.DataObject) -> None:
        """
        A body that lost its end is refused; ERROR alone may lack its last field.
        """
        body = message.encode()
        body = body[: data.draw(st.integers(1, len(body) - 1))]
        if isinstance(message, Error):
            try:
                shorter = Error.decode(body)
            except ProtocolError:
                return
            self.assertEqual(shorter, message._replace(data=None))
        else:
            self.assertRaises(ProtocolError, type(message).decode, body)


class AnyBytesTests(SynchronousTestCase):
    """
    Each message class against bytes that are no such message.
    """


def _bytes_or_refusal(kind: type[WireMessage]) -> None:
    @given(spoiled_bodies(kind))
    def test(self: AnyBytesTests, body: bytes) -> None:
        try:
            message = kind.decode(body)
        except ProtocolError:
            return
        self.assertIsInstance(message, kind)
        self.assertLessEqual(_size(message), 3 * len(body))

    name = f"test_{kind.__name__}"
    test.__name__ = name
    test.__doc__ = f"""
        Any bytes give a {kind.__name__} no larger than themselves, or
        L{{ProtocolError}}. (A malformed byte becomes a character of three.)
        """
    setattr(AnyBytesTests, name, test)


def _size(value: object) -> int:
    """
    Count the bytes of all texts and byte strings in a message.
    """
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(_size(item) for pair in value.items() for item in pair)
    if isinstance(value, tuple):
        return sum(map(_size, value))
    return 0


for _kind in MESSAGES:
    _bytes_or_refusal(_kind)


class ErrorTests(SynchronousTestCase):
    """
    The failure answer.
    """

    def test_of_code(self) -> None:
        """
        A code brings its text along.
        """
        self.assertEqual(
            Error.of(7, ErrorCode.SESSION_EXPIRED),
            Error(7, 103, "session expired", None),
        )

    def test_without_data(self) -> None:
        """
        An ERROR of an old server, without the data field, is read as well.
        """
        body = bytes.fromhex("07640003616263")
        self.assertEqual(Error.decode(body), Error(7, 100, "abc", None))

    def test_command_is_one_byte(self) -> None:
        """
        The command that failed may be any byte, 200 arrives as -56.
        """
        self.assertEqual(Error.decode(Error(200, 101).encode()), Error(-56, 101))


class JsonFormTests(SynchronousTestCase):
    """
    The JSON forms of the WebSocket (protocol 14.3).
    """

    def test_handshake(self) -> None:
        """
        Of a handshake the four texts are read and nothing else.
        """
        body = {
            "deviceId": "web-1",
            "osName": "web",
            "osVersion": "55",
            "clientVersion": "1.0",
            "clientKey": "ignored",
            "maxHeartbeat": 5,
        }
        self.assertEqual(
            Handshake.from_json(body), Handshake("web-1", "web", "55", "1.0")
        )

    def test_absent_members(self) -> None:
        """
        Missing, null and empty members are all absent.
        """
        self.assertEqual(
            Handshake.from_json({"osName": None, "osVersion": ""}), Handshake()
        )

    def test_bind(self) -> None:
        """
        A bind has user, tags and data.
        """
        self.assertEqual(
            BindUser.from_json({"userId": "u", "tags": "a,b", "data": "d"}),
            BindUser("u", "d", "a,b"),
        )

    def test_numeric_user(self) -> None:
        """
        A numeric user id is taken as its decimal text.
        """
        self.assertEqual(BindUser.from_json({"userId": 12}).user_id, "12")

    def test_numeric_tags(self) -> None:
        """
        Other members have to be texts.
        """
        self.assertRaises(ProtocolError, BindUser.from_json, {"tags": 12})

    def test_boolean_user(self) -> None:
        """
        A boolean is no number.
        """
        self.assertRaises(ProtocolError, BindUser.from_json, {"userId": True})

    def test_wrong_types(self) -> None:
        """
        Objects, arrays and fractions are refused, and the text does not repeat them.
        """
        wrong: list[object] = [[SECRET], {"a": SECRET}, 1.5]
        for value in wrong:
            error = self.assertRaises(
                ProtocolError, json_text, {"userId": value}, "userId"
            )
            self.assertEqual(str(error), "JSON member 'userId' is not a text")

    def test_ok(self) -> None:
        """
        OK leaves out a zero code and absent data.
        """
        self.assertEqual(
            Ok(5, 0, "bind success").to_json(), {"cmd": 5, "data": "bind success"}
        )
        self.assertEqual(Ok(16).to_json(), {"cmd": 16})
        self.assertEqual(Ok(1, 1).to_json(), {"cmd": 1, "code": 1})
        self.assertEqual(Ok(0).to_json(), {})

    def test_error(self) -> None:
        """
        ERROR leaves out what is not positive: the original tests for greater than 0.
        """
        self.assertEqual(
            Error(-1, 101, "unsupported command").to_json(),
            {"code": 101, "reason": "unsupported command"},
        )
        self.assertEqual(
            Error(2, 0, "Param invalid").to_json(),
            {"cmd": 2, "reason": "Param invalid"},
        )
        self.assertEqual(
            Error(1, 1, "user offline", "{}").to_json(),
            {"cmd": 1, "code": 1, "reason": "user offline", "data": "{}"},
        )
        self.assertEqual(Error(0).to_json(), {})

    def test_kick(self) -> None:
        """
        KICK names device and user.
        """
        self.assertEqual(
            Kick("web-1", "user-1").to_json(),
            {"deviceId": "web-1", "userId": "user-1"},
        )
        self.assertEqual(Kick("web-1", None).to_json(), {"deviceId": "web-1"})


class ReprTests(SynchronousTestCase):
    """
    Messages end up in logs; what must stay secret does not (D7, S-39).
    """

    def assert_silent(self, value: object) -> None:
        for rendered in (repr(value), str(value), f"{value}"):
            self.assertNotIn(SECRET, rendered)

    def test_handshake(self) -> None:
        """
        Key and iv of a handshake are not rendered; the device is.
        """
        secret = SECRET.encode()
        message = Handshake("dev-1", "android", "10", "1.0", secret, secret)
        self.assert_silent(message)
        self.assertEqual(
            repr(message),
            "HandshakeMessage{deviceId='dev-1', osName='android', osVersion='10', "
            "clientVersion='1.0'}",
        )

    def test_handshake_ok(self) -> None:
        """
        Neither the server's key nor the session id is rendered.
        """
        message = HandshakeOk(SECRET.encode(), 1, SECRET, 2)
        self.assert_silent(message)
        self.assertEqual(repr(message), "HandshakeOkMessage{heartbeat=1, expireTime=2}")

    def test_fast_connect(self) -> None:
        """
        The session id is a ticket and not rendered; the device is.
        """
        message = FastConnect(SECRET, "dev-1", 1, 2)
        self.assert_silent(message)
        self.assertEqual(
            repr(message),
            "FastConnectMessage{deviceId='dev-1', minHeartbeat=1, maxHeartbeat=2}",
        )

    def test_bind(self) -> None:
        """
        What a validator gets as proof is not rendered; user and tags are.
        """
        message = BindUser("user-1", SECRET, "a,b")
        self.assert_silent(message)
        self.assertEqual(repr(message), "BindUserMessage{userId='user-1', tags='a,b'}")

    def test_http_request(self) -> None:
        """
        Credentials in headers and the body are not rendered; the rest is.
        """
        message = HttpRequest(
            1,
            "http://example/x",
            {"Authorization": SECRET, "COOKIE": SECRET, "X-A": "1"},
            SECRET.encode(),
        )
        self.assert_silent(message)
        self.assertEqual(
            repr(message),
            "HttpRequestMessage{method=1, uri='http://example/x', "
            "headers={'Authorization': '***', 'COOKIE': '***', 'X-A': '1'}, body=16}",
        )

    def test_http_response(self) -> None:
        """
        The same holds for answers, whose cookies are set.
        """
        message = HttpResponse(200, "OK", {"set-cookie": SECRET}, SECRET.encode())
        self.assert_silent(message)
        self.assertEqual(
            repr(message),
            "HttpResponseMessage{statusCode=200, reasonPhrase='OK', "
            "headers={'set-cookie': '***'}, body=16}",
        )
        self.assertIn("headers=None, body=0", repr(HttpResponse(504, "x")))

    def test_gateway_push(self) -> None:
        """
        Content is rendered as its size.
        """
        message = GatewayPush("user-1", 1, 2500, SECRET.encode())
        self.assert_silent(message)
        self.assertEqual(
            repr(message),
            "GatewayPushMessage{userId='user-1', clientType='1', timeout='2500', "
            "content='16'}",
        )
        self.assertIn("content='0'", repr(GatewayPush("user-1")))


class LayoutTests(SynchronousTestCase):
    """
    Layouts that the recorded vectors do not reach.
    """

    def test_every_class_is_drawn(self) -> None:
        """
        The property tests leave out no message class.
        """
        self.assertEqual(
            {kind.__name__ for kind in MESSAGES},
            {
                "Handshake",
                "HandshakeOk",
                "FastConnect",
                "FastConnectOk",
                "BindUser",
                "Ok",
                "Error",
                "Kick",
                "HttpRequest",
                "HttpResponse",
                "GatewayPush",
                "GatewayKick",
            },
        )

    def test_heartbeat_range(self) -> None:
        """
        A heartbeat that does not fit into an int is refused when it is written.
        """
        self.assertRaises(ProtocolError, FastConnectOk(1 << 31).encode)

    def test_unknown_method(self) -> None:
        """
        An HTTP method beyond those known is handed on as it came.
        """
        self.assertEqual(HttpRequest.decode(b"\x09" + bytes(6)).method, 9)

    def test_kick_target(self) -> None:
        """
        A gateway kick ends with host and port of the node that is meant.
        """
        kick = GatewayKick("u", "d", "c", 1, "10.0.0.2", 3001)
        self.assertEqual(kick.encode()[-14:], b"\0\x0810.0.0.2\0\0\x0b\xb9")

    def test_kick_command(self) -> None:
        """
        The kick between nodes has a command of its own.
        """
        self.assertEqual((Command.KICK, Command.GATEWAY_KICK), (13, 14))
