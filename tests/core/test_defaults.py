"""
Tests for L{mpush_tw.core.defaults} (server 19.2).
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mpush_tw.core.defaults import (
    AcceptEveryBind,
    ConfiguredDnsMapping,
    DropUpstream,
    IgnoreEvents,
    MsgspecJson,
)
from mpush_tw.interfaces import (
    DnsTarget,
    IBindValidator,
    IDnsMapping,
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


class DnsMappingTests(SynchronousTestCase):
    """
    The mapping of the configuration.
    """

    def setUp(self) -> None:
        self.mapping = ConfiguredDnsMapping(
            {
                "one": ["10.0.0.1:8080"],
                "two": ["10.0.0.1", "10.0.0.2:81"],
                "six": ["[::1]:8080"],
                "bare": ["[::1]"],
                "none": [],
            }
        )

    def test_interface(self) -> None:
        """
        It is a mapping.
        """
        verifyObject(IDnsMapping, self.mapping)

    def test_one(self) -> None:
        """
        A single target is the one.
        """
        self.assertEqual(self.mapping.lookup("one"), DnsTarget("10.0.0.1", 8080))

    def test_several(self) -> None:
        """
        Of several each is chosen now and then; the port is 80 if none is given.
        """
        seen = {self.mapping.lookup("two") for _ in range(200)}
        self.assertEqual(seen, {DnsTarget("10.0.0.1", 80), DnsTarget("10.0.0.2", 81)})

    def test_ipv6(self) -> None:
        """
        An address in brackets is one.
        """
        self.assertEqual(self.mapping.lookup("six"), DnsTarget("::1", 8080))
        self.assertEqual(self.mapping.lookup("bare"), DnsTarget("::1", 80))

    def test_unknown(self) -> None:
        """
        What is not mapped, or to nothing, is left alone.
        """
        self.assertIsNone(self.mapping.lookup("other"))
        self.assertIsNone(self.mapping.lookup("none"))
