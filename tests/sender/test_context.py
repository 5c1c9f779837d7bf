"""
What may be sent, and what it looks like.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.errors import PushError
from mpush_tw.sender import AckModel, PushContext, PushMsg
from mpush_tw.sender.context import check_order, several_users, single_user


class PushMsgTests(SynchronousTestCase):
    def test_original_bytes(self) -> None:
        """
        A message is written as the original writes it (cluster 4.12).
        """
        self.assertEqual(
            PushMsg("hello\u4e2d", "msgId_0", 2).encode(),
            bytes.fromhex(
                "7b22636f6e74656e74223a2268656c6c6fe4b8ad222c226d73674964223a22"
                "6d736749645f30222c226d736754797065223a327d"
            ),
        )

    def test_absent_members_are_left_out(self) -> None:
        """
        A message without content or id has only its type.
        """
        self.assertEqual(PushMsg(None, msg_type=3).encode(), b'{"msgType":3}')


class PushContextTests(SynchronousTestCase):
    def check(self, limit: int = 10240, **settings: Any) -> None:
        context = PushContext(**{"content": b"hi", "user_id": "bob", **settings})
        check_order(context, context.payload(), [single_user(context)], limit)

    def test_message_replaces_content(self) -> None:
        """
        With both given, the message is what the device receives.
        """
        context = PushContext(b"raw", PushMsg("text"))
        self.assertEqual(context.payload(), b'{"content":"text","msgType":1}')

    def test_no_content(self) -> None:
        """
        A push without content is refused.
        """
        self.assertRaises(PushError, PushContext(user_id="bob").payload)

    def test_empty_content(self) -> None:
        """
        A push with empty content is refused.
        """
        self.assertRaises(PushError, PushContext(b"", user_id="bob").payload)

    def test_text_content(self) -> None:
        """
        A text given as content is refused: the caller decides how it is encoded.
        """
        context = PushContext("hi", user_id="bob")  # type: ignore[arg-type]
        self.assertRaises(PushError, context.payload)

    def test_largest_content(self) -> None:
        """
        Content that just fits into a packet is accepted: 10240 less 5 for the user, 8
        for the numbers and 8 for the other lengths.
        """
        self.check(content=bytes(10240 - 5 - 8 - 8))

    def test_content_one_too_large(self) -> None:
        """
        One byte more is refused.
        """
        self.assertRaises(PushError, self.check, content=bytes(10240 - 5 - 8 - 8 + 1))

    def test_long_user_counts(self) -> None:
        """
        The bytes of the user id count, not its characters.
        """
        self.check(limit=100, user_id="x" * 70)
        self.assertRaises(PushError, self.check, limit=100, user_id="\u4e2d" * 70)

    def test_no_user(self) -> None:
        """
        A push without a user is refused: it would be a broadcast.
        """
        self.assertRaises(PushError, self.check, user_id=None)

    def test_empty_user(self) -> None:
        """
        So is one with an empty user id: the wire cannot tell them apart.
        """
        self.assertRaises(PushError, self.check, user_id="")

    def test_user_that_is_no_text(self) -> None:
        """
        A user id that cannot be written as UTF-8 is refused: with a question mark in
        it, it would be somebody else's.
        """
        self.assertRaises(PushError, self.check, user_id="bob\udc80")
        self.assertRaises(PushError, self.check, user_id=b"bob")

    def test_timeouts_out_of_range(self) -> None:
        """
        A time-out that never ends, or ended before it began, is refused.
        """
        for timeout in (0, -1.0, float("inf"), float("nan"), 2**31, "3"):
            with self.subTest(timeout=timeout):
                self.assertRaises(PushError, self.check, timeout=timeout)

    def test_unknown_ack(self) -> None:
        """
        An ack model that is none cannot set other flags of the frame.
        """
        self.assertRaises(PushError, self.check, ack=2)

    def test_ack_flags(self) -> None:
        """
        The ack models are the flags of the frame.
        """
        self.assertEqual([int(ack) for ack in AckModel], [0, 8, 4])


class SeveralUsersTests(SynchronousTestCase):
    def users(self, user_ids: Any) -> list[str]:
        return several_users(PushContext(b"hi", user_ids=user_ids))

    def test_each_once(self) -> None:
        """
        A user named twice gets the message once.
        """
        self.assertEqual(self.users(["b", "a", "b"]), ["b", "a"])

    def test_none(self) -> None:
        """
        A list of nobody is refused.
        """
        self.assertRaises(PushError, self.users, [])
        self.assertRaises(PushError, self.users, None)

    def test_empty_one(self) -> None:
        """
        An empty user id among others is refused.
        """
        self.assertRaises(PushError, self.users, ["a", ""])

    def test_wrong_one(self) -> None:
        """
        So is anything that is no text.
        """
        self.assertRaises(PushError, self.users, ["a", ["b"]])

    def test_one_text(self) -> None:
        """
        A text is not taken for a list of its characters.
        """
        self.assertRaises(PushError, self.users, "bob")

    def test_wrong_method(self) -> None:
        """
        A context for one user is not sent to a list, nor the other way round.
        """
        self.assertRaises(PushError, several_users, PushContext(b"hi", user_id="a"))
        self.assertRaises(
            PushError, single_user, PushContext(b"hi", user_id="a", user_ids=["b"])
        )
