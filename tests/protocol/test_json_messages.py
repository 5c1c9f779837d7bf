"""
Tests for L{mpush_tw.protocol.json_messages}.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.errors import ProtocolError
from mpush_tw.protocol.json_messages import message_from_json, message_to_json
from mpush_tw.protocol.messages import (
    BindUser,
    Error,
    FastConnect,
    FastConnectOk,
    Handshake,
    HandshakeOk,
    HttpRequest,
    HttpResponse,
    Ok,
)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner)
    ),
    max_leaves=6,
)
bodies = st.dictionaries(
    st.sampled_from(
        [
            "deviceId",
            "osName",
            "sessionId",
            "userId",
            "tags",
            "data",
            "minHeartbeat",
            "maxHeartbeat",
            "method",
            "uri",
            "headers",
            "body",
            "bodyBase64",
        ]
    ),
    values,
)


class ReadingTests(SynchronousTestCase):
    """
    Messages of pages.
    """

    def refused(self, kind: type, body: dict[str, object], word: str) -> None:
        """
        Check that a body is refused, and that the error names the member.
        """
        error = self.assertRaises(ProtocolError, message_from_json, kind, body)
        self.assertIn(word, str(error))

    def test_handshake_of_the_original(self) -> None:
        """
        A page of the original says who it is and asks for nothing more.
        """
        message = message_from_json(
            Handshake,
            {"deviceId": "d", "osName": "web", "osVersion": "5", "clientVersion": "1"},
        )
        self.assertEqual(message, Handshake("d", "web", "5", "1"))

    def test_handshake_for_a_session(self) -> None:
        """
        A heartbeat may be asked for, as a number or its text.
        """
        message = message_from_json(
            Handshake, {"deviceId": "d", "minHeartbeat": 1, "maxHeartbeat": "60000"}
        )
        self.assertEqual((message.min_heartbeat, message.max_heartbeat), (1, 60000))

    def test_fast_connect(self) -> None:
        """
        A session is taken up by its number and the device's.
        """
        self.assertEqual(
            message_from_json(
                FastConnect, {"sessionId": "s", "deviceId": "d", "maxHeartbeat": 9}
            ),
            FastConnect("s", "d", 0, 9),
        )

    def test_bind(self) -> None:
        """
        BIND reads as it always did.
        """
        self.assertEqual(
            message_from_json(BindUser, {"userId": 7, "tags": "a,b"}),
            BindUser("7", None, "a,b"),
        )

    def test_http_request(self) -> None:
        """
        A request has a method by name or number, headers, and a text as its body.
        """
        self.assertEqual(
            message_from_json(
                HttpRequest,
                {
                    "method": "post",
                    "uri": "http://a/b",
                    "headers": {"Accept": "text/plain", "X-None": None},
                    "body": "täxt",
                },
            ),
            HttpRequest(
                1,
                "http://a/b",
                {"Accept": "text/plain", "X-None": ""},
                "täxt".encode(),
            ),
        )
        for number, name in enumerate(("GET", "POST", "PUT", "DELETE")):
            for method in (number, name):
                message = message_from_json(HttpRequest, {"method": method})
                self.assertEqual(message.method, number)

    def test_http_request_of_bytes(self) -> None:
        """
        Bytes that are no text come as Base64.
        """
        message = message_from_json(HttpRequest, {"bodyBase64": "/wA="})
        self.assertEqual(message, HttpRequest(body=b"\xff\x00"))

    def test_empty(self) -> None:
        """
        Without a body all fields are absent.
        """
        for kind in (Handshake, FastConnect, BindUser, HttpRequest):
            self.assertEqual(message_from_json(kind, {}), kind())

    def test_wrong_types(self) -> None:
        """
        A member of another type is refused by its name.
        """
        for key in ("minHeartbeat", "maxHeartbeat"):
            for value in ("x", True, 1.5, [], 2**31, "1" * 5000):
                self.refused(Handshake, {"deviceId": "d", key: value}, key)
        self.refused(FastConnect, {"sessionId": 5}, "sessionId")
        self.refused(HttpRequest, {"headers": ["a"]}, "headers")
        self.refused(HttpRequest, {"headers": {"a": 5}}, "'a'")
        self.refused(HttpRequest, {"method": "BREW"}, "method")
        self.refused(HttpRequest, {"bodyBase64": "?"}, "bodyBase64")
        self.refused(HttpRequest, {"bodyBase64": "ü"}, "bodyBase64")
        self.refused(HttpRequest, {"body": 5}, "body")

    @given(st.sampled_from([Handshake, FastConnect, BindUser, HttpRequest]), bodies)
    def test_any_body(self, kind: Any, body: dict[str, object]) -> None:
        """
        Any body gives a message that has a binary form, or L{ProtocolError}.
        """
        try:
            message = message_from_json(kind, body)
        except ProtocolError:
            return
        self.assertIsInstance(message, kind)
        self.assertIsInstance(message.encode(), bytes)


class WritingTests(SynchronousTestCase):
    """
    Answers to pages.
    """

    def test_handshake_of_the_original(self) -> None:
        """
        Who asked for no session gets no body (protocol 14.3).
        """
        self.assertEqual(message_to_json(HandshakeOk(b"", 0, "", 0)), {})

    def test_handshake_with_a_session(self) -> None:
        """
        Who asked for one is told it; there is no key.
        """
        self.assertEqual(
            message_to_json(HandshakeOk(b"", 60000, "s", 2**40)),
            {"heartbeat": 60000, "sessionId": "s", "expireTime": 2**40},
        )

    def test_ok_and_error(self) -> None:
        """
        OK and ERROR are written as they always were.
        """
        self.assertEqual(
            message_to_json(Ok(5, 0, "bind success")),
            {"cmd": 5, "data": "bind success"},
        )
        self.assertEqual(
            message_to_json(Error(2, 102, "repeat handshake")),
            {"cmd": 2, "code": 102, "reason": "repeat handshake"},
        )

    def test_fast_connect(self) -> None:
        """
        FAST_CONNECT is answered with the heartbeat.
        """
        self.assertEqual(message_to_json(FastConnectOk(5000)), {"heartbeat": 5000})

    def test_http_response(self) -> None:
        """
        A body that is UTF-8 is a text, any other one is Base64.
        """
        self.assertEqual(
            message_to_json(HttpResponse(200, "OK", {"A": "b"}, "täxt".encode())),
            {
                "statusCode": 200,
                "reasonPhrase": "OK",
                "headers": {"A": "b"},
                "body": "täxt",
            },
        )
        self.assertEqual(
            message_to_json(HttpResponse(200, None, None, b"\xff\x00")),
            {"statusCode": 200, "bodyBase64": "/wA="},
        )
        self.assertEqual(
            message_to_json(HttpResponse(503, "Service Unavailable")),
            {"statusCode": 503, "reasonPhrase": "Service Unavailable"},
        )
