"""
Tests for L{mpush_tw.core.defaults} (server 19.2).
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mpush_tw.core.defaults import AcceptEveryBind, DropUpstream
from mpush_tw.interfaces import IBindValidator, IUpstreamHandler, UpstreamMessage


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
