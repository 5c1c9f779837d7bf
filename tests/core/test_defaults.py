"""
Tests for L{mpush_tw.core.defaults} (server 19.2).
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mpush_tw.core.defaults import (
    AcceptEveryBind,
    DropUpstream,
    IgnoreEvents,
    MsgspecJson,
)
from mpush_tw.interfaces import (
    IBindValidator,
    IJsonCodec,
    IServerEventListener,
    IUpstreamHandler,
    ServerStarted,
    UpstreamMessage,
)


class DefaultsTests(SynchronousTestCase):
    """
    The providers of a node that nobody has extended.
    """

    def test_bind(self) -> None:
        """
        Everybody may be bound, with or without a text.
        """
        validator = AcceptEveryBind()
        verifyObject(IBindValidator, validator)
        self.assertIs(validator.validate("u", None), True)
        self.assertIs(validator.validate("u", "token"), True)

    def test_upstream(self) -> None:
        """
        Messages are taken without complaint, so that they are acknowledged.
        """
        handler = DropUpstream()
        verifyObject(IUpstreamHandler, handler)
        message = UpstreamMessage("c", "d", None, None, None, None, 1, b"x", 8)
        handler.message_received(message)

    def test_events(self) -> None:
        """
        Whoever is named to hear nothing hears without complaint.
        """
        listener = IgnoreEvents()
        verifyObject(IServerEventListener, listener)
        listener.event_occurred(ServerStarted())


class JsonTests(SynchronousTestCase):
    """
    The JSON of WebSocket frames.
    """

    def setUp(self) -> None:
        self.codec = MsgspecJson()

    def test_interface(self) -> None:
        """
        It is a codec.
        """
        verifyObject(IJsonCodec, self.codec)

    def test_written(self) -> None:
        """
        Members keep their order, without blanks, in UTF-8.
        """
        value = {"b": [1, True, None, 1.5], "a": "\u4f60"}
        self.assertEqual(
            self.codec.encode(value),
            '{"b":[1,true,null,1.5],"a":"\u4f60"}'.encode(),
        )

    def test_read_back(self) -> None:
        """
        What was written is read back.
        """
        value = {"b": [1, True, None, 1.5], "a": {"c": "\u4f60"}}
        self.assertEqual(self.codec.decode(self.codec.encode(value)), value)

    def test_no_json(self) -> None:
        """
        Whatever is no JSON is refused in the same way.
        """
        for text in (b"", b"{", b"\xff", b"[" * 100_000):
            self.assertRaises(ValueError, self.codec.decode, text)
