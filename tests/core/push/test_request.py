"""
Tests for L{mpush_tw.core.push.request} (server 14.1, 14.4).
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.push.request import Outcome, PushRequest
from tests.core.fakes import FakeListener


class OutcomeTests(SynchronousTestCase):
    """
    The ways a push can end.
    """

    def test_milestones(self) -> None:
        """
        Each outcome of a single push ends its time line with the original's name.
        """
        self.assertEqual(
            {
                outcome.name: outcome.milestone
                for outcome in Outcome
                if outcome is not Outcome.BROADCAST_COMPLETE
            },
            {
                "SUCCESS": "success-end",
                "ACK_SUCCESS": "success-end",
                "FAILURE": "failure-end",
                "OFFLINE": "offline-end",
                "REDIRECT": "redirect-end",
                "TIMEOUT": "timeout-end",
            },
        )


class PushRequestTests(SynchronousTestCase):
    """
    A request in a log line.
    """

    def test_content_is_not_shown(self) -> None:
        """
        Logs show how long a content is, not what it says.
        """
        request = PushRequest(
            "u", 1, 5000, b"private", None, None, None, 0, FakeListener()
        )
        self.assertNotIn("private", repr(request))
        self.assertIn("content='7'", repr(request))
        request.content = None
        self.assertIn("content='0'", repr(request))

    def test_user_is_fit_for_a_line(self) -> None:
        """
        A user id forges no lines and fills no pages.
        """
        request = PushRequest(
            "u\n" * 5000, 1, 5000, b"x", None, None, None, 0, FakeListener()
        )
        self.assertNotIn("\n", repr(request))
        self.assertLess(len(repr(request)), 2000)
