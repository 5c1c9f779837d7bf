"""
Tests for L{mpush_tw.core.sessions} (server 9).
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.sessions import ReusableSessions
from mpush_tw.errors import Unavailable
from mpush_tw.protocol.crypto import AesCipher
from mpush_tw.protocol.sessions import SessionRecord
from tests.core.fakes import UnsteadyCache, start

_RECORD = SessionRecord(
    "android", "13", "2.1", "d1", AesCipher(bytes(range(16)), bytes(range(240, 256)))
)


class ReusableSessionsTests(SynchronousTestCase):
    """
    Keeping and finding sessions.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.cache = UnsteadyCache(self.clock)
        self.sessions = ReusableSessions(self.cache, 100)

    def find(self, ticket: str) -> SessionRecord | None:
        """
        Look a session up.
        """
        found = start(self.sessions.find(ticket))
        return self.successResultOf(found)  # type: ignore[no-any-return]

    def test_found(self) -> None:
        """
        A session is found as it was kept, any number of times.
        """
        storing = self.sessions.store("abc", _RECORD)
        assert storing is not None
        self.successResultOf(storing)
        for _ in range(2):
            found = self.find("abc")
            assert found is not None
            self.assertEqual(found[:4], _RECORD[:4])
            self.assertEqual(found.cipher.key, _RECORD.cipher.key)
            self.assertEqual(found.cipher.iv, _RECORD.cipher.iv)

    def test_key(self) -> None:
        """
        It is kept where the original's nodes look for it.
        """
        self.sessions.store("abc", _RECORD)
        text = self.successResultOf(self.cache.get("mp:rs:abc"))
        assert text is not None
        self.assertTrue(text.startswith("android,13,2.1,d1,0|1|2|"))
        self.assertTrue(text.endswith("|-2|-1"))

    def test_not_refreshed(self) -> None:
        """
        Looking a session up does not prolong it.
        """
        self.sessions.store("abc", _RECORD)
        self.clock.advance(99)
        self.assertIsNotNone(self.find("abc"))
        self.clock.advance(2)
        self.assertIsNone(self.find("abc"))

    def test_for_ever(self) -> None:
        """
        A time to live of 0 keeps sessions for ever.
        """
        sessions = ReusableSessions(self.cache, 0)
        sessions.store("abc", _RECORD)
        self.clock.advance(10**9)
        self.assertIsNotNone(self.find("abc"))

    def test_comma(self) -> None:
        """
        A device id with a comma cannot be kept (D11).
        """
        self.assertIsNone(self.sessions.store("abc", _RECORD._replace(device_id="d,1")))
        self.assertIsNone(self.find("abc"))

    def test_unknown(self) -> None:
        """
        An unknown session is none, and so is one that cannot be read.
        """
        self.assertIsNone(self.find("abc"))
        for text in ("", " ", "a,b", "a,b,c,d,e,f", "x" * 10000):
            self.cache.set("mp:rs:abc", text)
            self.assertIsNone(self.find("abc"), text[:20])

    def test_store_is_down(self) -> None:
        """
        When the store is down both sides learn it.
        """
        self.cache.down = True
        storing = self.sessions.store("abc", _RECORD)
        assert storing is not None
        self.failureResultOf(storing, Unavailable)
        self.failureResultOf(start(self.sessions.find("abc")), Unavailable)
