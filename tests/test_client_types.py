"""
Tests for L{mpush_tw.client_types} (server 11.1, DESIGN 5a).
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mpush_tw.client_types import (
    MOBILE,
    PC,
    UNKNOWN,
    WEB,
    DefaultClassifier,
)
from mpush_tw.interfaces import IClientClassifier


class DefaultClassifierTests(SynchronousTestCase):
    """
    The built-in classes.
    """

    def assertType(self, client_type: int, *names: str | None) -> None:
        """
        All these names are of one type.
        """
        classifier = DefaultClassifier()
        self.assertEqual(
            {name: classifier.client_type(name) for name in names},
            {name: client_type for name in names},
        )

    def test_interface(self) -> None:
        """
        It is a classifier.
        """
        verifyObject(IClientClassifier, DefaultClassifier())

    def test_numbers(self) -> None:
        """
        The types are the numbers that senders use.
        """
        self.assertEqual((MOBILE, PC, WEB, UNKNOWN), (1, 2, 3, -1))

    def test_phones(self) -> None:
        """
        Android and iOS are mobile.
        """
        self.assertType(MOBILE, "android", "iOS", "ANDROID 13", "my ios thing")

    def test_computers(self) -> None:
        """
        Windows, macOS and Linux are PCs.
        """
        self.assertType(PC, "windows", "Windows 11", "macOS", "linux")

    def test_pages(self) -> None:
        """
        Web and H5 are web.
        """
        self.assertType(WEB, "web", "H5", "webOS", "my h5 page")

    def test_phone_first(self) -> None:
        """
        A name of several classes is of the first: a phone's Linux is a phone.
        """
        self.assertType(MOBILE, "Linux;Android")

    def test_page_that_names_its_system(self) -> None:
        """
        A name that starts as a web one is web, whatever user agent follows.
        """
        self.assertType(WEB, "web Mozilla/5.0 (Linux; Android 13)", "h5 iOS")

    def test_unknown(self) -> None:
        """
        Everything else is unknown, the missing name included (S-7).
        """
        self.assertType(UNKNOWN, "toaster", "", None)
