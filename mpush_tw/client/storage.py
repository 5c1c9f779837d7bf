"""
Where a device keeps its session, so that it can come back by FAST_CONNECT.

The text form is that of the Java client (clients 2.7), so a C{token.dat} of a Java
device can be taken over as it is::

    <session id>,<expiry, Unix ms>,<key: 16 decimal bytes joined by |>,<iv: the same>
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from twisted.internet.defer import Deferred
from zope.interface import Interface, implementer

from mpush_tw.protocol.crypto import AesCipher
from mpush_tw.protocol.sessions import decode_key, encode_key

_MAX_TEXT = 4096
_JAVA_FILE_NAME = "token.dat"


class ISessionStorage(Interface):
    """
    A place for the one session text of one client.

    Called by L{mpush_tw.client.Client} in the reactor thread: C{get} on every TCP
    connect, C{save} after every full handshake, C{clear} when the server or the clock
    has made the session useless. Each may return a Deferred. Failures are logged and
    cost no more than a full handshake. The text holds the session key: keep it as
    private as a password.
    """

    def save(text: str) -> Deferred[None] | None:
        """
        Keep C{text} in place of whatever was kept before.
        """

    def get() -> Deferred[str | None] | str | None:
        """
        @return: The text last saved, C{None} if there is none. The client waits for
            it no longer than the handshake time-out.
        """

    def clear() -> Deferred[None] | None:
        """
        Forget the text.
        """


@implementer(ISessionStorage)
class MemorySessionStorage:
    """
    Keeps the session as long as the process lives; the default.
    """

    __slots__ = ("_text",)

    def __init__(self) -> None:
        self._text: str | None = None

    def save(self, text: str) -> None:
        self._text = text

    def get(self) -> str | None:
        return self._text

    def clear(self) -> None:
        self._text = None


@implementer(ISessionStorage)
class FileSessionStorage:
    """
    Keeps the session in a file that only its owner can read.

    The file is written under a temporary name and renamed, so a crash leaves the old
    text or the new one. It is a few hundred bytes, which is why it is read and written
    in the reactor thread. The directory must exist.
    """

    __slots__ = ("_path",)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """
        @param path: The file, or a directory that holds it under the Java client's
            name C{token.dat}.
        """
        self._path = Path(path)
        if self._path.is_dir():
            self._path /= _JAVA_FILE_NAME

    def save(self, text: str) -> None:
        """
        @raise OSError: If the file cannot be written.
        """
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}.tmp")
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(temporary, self._path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def get(self) -> str | None:
        """
        @raise OSError: If the file exists and cannot be read.
        """
        try:
            with open(self._path, encoding="utf-8", errors="replace") as file:
                return file.read(_MAX_TEXT)
        except FileNotFoundError:
            return None

    def clear(self) -> None:
        """
        @raise OSError: If the file exists and cannot be removed.
        """
        self._path.unlink(missing_ok=True)


class StoredSession(NamedTuple):
    """
    A session as it is stored.

    @ivar session_id: The server's ticket for FAST_CONNECT, opaque, without comma.
    @ivar expire_ms: Unix time in milliseconds after which the server may forget it.
    @ivar cipher: AES under the session key (already mixed) and the client's iv.
    """

    session_id: str
    expire_ms: int
    cipher: AesCipher

    def encode(self) -> str:
        """
        Write the Java form: signed bytes.
        """
        key, iv = encode_key(self.cipher.key), encode_key(self.cipher.iv)
        return f"{self.session_id},{self.expire_ms},{key},{iv}"

    @classmethod
    def decode(cls, text: str) -> StoredSession | None:
        """
        Read the Java (signed) or the Swift (unsigned) form.

        @return: C{None} for anything that is not a whole session (defect 12.6).
        """
        parts = text.strip().split(",")
        if len(parts) != 4 or not parts[0]:
            return None
        key, iv = decode_key(parts[2]), decode_key(parts[3])
        try:
            expire_ms = int(parts[1])
        except ValueError:
            return None
        if key is None or iv is None:
            return None
        return cls(parts[0], expire_ms, AesCipher(key, iv))

    def __repr__(self) -> str:
        return f"<StoredSession until {self.expire_ms}>"
