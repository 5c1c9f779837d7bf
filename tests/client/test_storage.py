"""
Tests for L{mpush_tw.client.storage}.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mpush_tw.client import (
    FileSessionStorage,
    ISessionStorage,
    MemorySessionStorage,
)
from mpush_tw.client.storage import StoredSession
from mpush_tw.protocol.crypto import AesCipher

VECTOR = (
    "s1,1600000000000,16|16|16|16|16|16|16|16|16|16|16|16|16|16|16|16,"
    "32|33|34|35|36|37|38|39|40|41|42|43|44|45|46|47"
)
"""
The stored session of clients 14.
"""
JAVA = (
    "sess2,1795488628839,55|-75|-118|97|-42|76|-120|63|40|-19|-27|12|80|29|21|25,"
    "-29|20|109|115|-121|33|110|53|-69|-48|75|-10|-36|71|45|42"
)
"""
What a stock Java client wrote (clients 2.7).
"""


class StoredSessionTests(SynchronousTestCase):
    """
    The text form.
    """

    def test_vector_is_read(self) -> None:
        """
        The session of the reference vectors has its id, expiry, key and iv.
        """
        session = StoredSession.decode(VECTOR)
        assert session is not None
        self.assertEqual(session[:2], ("s1", 1600000000000))
        self.assertEqual(session.cipher.key, bytes([16] * 16))
        self.assertEqual(session.cipher.iv, bytes(range(32, 48)))

    def test_vector_is_written(self) -> None:
        """
        The same session is written in the same text.
        """
        cipher = AesCipher(bytes([16] * 16), bytes(range(32, 48)))
        text = StoredSession("s1", 1600000000000, cipher).encode()
        self.assertEqual(text, VECTOR)

    def test_java_text_survives(self) -> None:
        """
        A text of the Java client, with negative bytes, is read and written unchanged.
        """
        session = StoredSession.decode(JAVA)
        assert session is not None
        self.assertEqual(session.encode(), JAVA)

    def test_swift_bytes_are_read(self) -> None:
        """
        The Swift client writes bytes as 0 to 255; the Java form is written back.
        """
        unsigned = ",".join(
            "|".join(str(int(n) & 0xFF) for n in part.split("|"))
            if "|" in part
            else part
            for part in JAVA.split(",")
        )
        self.assertNotEqual(unsigned, JAVA)
        session = StoredSession.decode(unsigned)
        assert session is not None
        self.assertEqual(session.encode(), JAVA)

    def test_trailing_newline_is_forgiven(self) -> None:
        """
        A file that went through an editor is still good.
        """
        self.assertIsNotNone(StoredSession.decode(VECTOR + "\n"))

    def test_damaged_texts_are_no_session(self) -> None:
        """
        Whatever is wrong with the text, it counts as no session and raises nothing
        (defect 12.6).
        """
        damaged = [
            "",
            "s1",
            ",".join(VECTOR.split(",")[:3]),
            VECTOR + ",more",
            VECTOR.replace("s1,", ","),
            VECTOR.replace("1600000000000", "soon"),
            VECTOR.replace("32|", "x|"),
            VECTOR.replace("32|", "256|"),
            VECTOR.replace("32|", "-129|"),
            VECTOR.replace("32|", ""),
            VECTOR.replace("32|", "1|32|"),
            "\x00\xff" * 40,
        ]
        read = [StoredSession.decode(text) for text in damaged]
        self.assertEqual(read, [None] * len(damaged))

    def test_key_is_not_shown(self) -> None:
        """
        The text for people and logs holds neither key nor session id.
        """
        shown = repr(StoredSession.decode(VECTOR))
        self.assertNotIn("s1", shown)
        self.assertNotIn("16", shown.replace("1600000000000", ""))


class StorageMixin:
    """
    What every storage does.
    """

    storage: Any

    def test_provides_the_interface(self: Any) -> None:
        """
        It is an L{ISessionStorage}.
        """
        self.assertTrue(verifyObject(ISessionStorage, self.storage))

    def test_starts_empty(self: Any) -> None:
        """
        A new storage has nothing.
        """
        self.assertIsNone(self.storage.get())

    def test_keeps_the_last_text(self: Any) -> None:
        """
        What was saved last is what is got, as often as one likes.
        """
        self.storage.save("one")
        self.storage.save("two")
        self.assertEqual([self.storage.get(), self.storage.get()], ["two", "two"])

    def test_clears(self: Any) -> None:
        """
        After clearing there is nothing, and clearing again is no error.
        """
        self.storage.save("one")
        self.storage.clear()
        self.storage.clear()
        self.assertIsNone(self.storage.get())


class MemorySessionStorageTests(StorageMixin, SynchronousTestCase):
    """
    The storage that lives as long as the process.
    """

    def setUp(self) -> None:
        self.storage = MemorySessionStorage()


class FileSessionStorageTests(StorageMixin, SynchronousTestCase):
    """
    The storage in a file.
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.path = self.directory / "session"
        self.storage = FileSessionStorage(self.path)

    def test_survives_the_process(self) -> None:
        """
        A second storage for the same file finds what the first one saved.
        """
        self.storage.save(JAVA)
        self.assertEqual(FileSessionStorage(self.path).get(), JAVA)

    def test_only_the_owner_can_read(self) -> None:
        """
        The file, which holds the session key, has mode 0600 whatever the umask is.
        """
        self.addCleanup(os.umask, os.umask(0))
        self.storage.save(JAVA)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_leaves_no_other_file(self) -> None:
        """
        Temporary files are gone after saving.
        """
        self.storage.save("one")
        self.storage.save("two")
        self.assertEqual(os.listdir(self.directory), ["session"])

    def test_failed_save_keeps_the_old_text(self) -> None:
        """
        When the text cannot be put in place, the error is raised, and nothing is left
        behind.
        """
        self.path.mkdir()
        (self.path / "occupied").touch()
        self.assertRaises(OSError, self.storage.save, "two")
        self.assertEqual(os.listdir(self.directory), ["session"])

    def test_directory_holds_the_java_file(self) -> None:
        """
        Given a directory, it uses C{token.dat} there, as the Java client does.
        """
        FileSessionStorage(self.directory).save(JAVA)
        self.assertEqual((self.directory / "token.dat").read_text(), JAVA)

    def test_foreign_bytes_are_no_error(self) -> None:
        """
        A file of arbitrary bytes is read as some text, of a bounded size.
        """
        self.path.write_bytes(os.urandom(100_000))
        text = self.storage.get()
        assert text is not None
        self.assertLessEqual(len(text), 4096)
