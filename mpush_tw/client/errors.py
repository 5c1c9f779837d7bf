"""
What can go wrong with a request of the device client.

All of them fail Deferreds; none of them is raised by a call (clients 10.2). Catch
L{ClientError} for "the request did not succeed", or one of the others to tell why.
"""

from __future__ import annotations

from mpush_tw.errors import MPushError, NotConnected
from mpush_tw.protocol.commands import command_name


class ClientError(MPushError):
    """
    A request to the server did not succeed, or a connection ended.

    Fails the Deferreds of L{mpush_tw.client.Client} and is the reason given to
    C{on_disconnected}. Its text is a sentence for a log line.
    """


class Disconnected(ClientError, NotConnected):
    """
    There is no connection that has shaken hands, or it ended before the answer came.

    A request that failed with it may have reached the server or not.
    """


class BadPacket(Disconnected):
    """
    The connection was closed because the server sent what cannot be understood:
    broken framing, a body that cannot be decrypted or decoded, a useless handshake
    answer.
    """


class TimedOut(ClientError):
    """
    The server did not answer in time.

    @ivar command: The number of the command that was not answered; 1 stands for a
        connection on which nothing at all arrived any more.
    @ivar seconds: How long was waited for the last attempt.
    """

    def __init__(self, command: int, seconds: float) -> None:
        super().__init__(command, seconds)
        self.command = command
        self.seconds = seconds

    def __str__(self) -> str:
        return f"no answer to {command_name(self.command)} within {self.seconds:g} s"


class Refused(ClientError):
    """
    The server answered ERROR (protocol 10.7).

    @ivar command: The number of the command that was refused.
    @ivar code: The error code, 0 for a refusal with a free text (protocol 12.1).
    @ivar reason: The server's text, possibly empty.
    """

    def __init__(self, command: int, code: int, reason: str) -> None:
        super().__init__(command, code, reason)
        self.command = command
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        text = self.reason or "no reason given"
        return f"{command_name(self.command)} refused: {text} (code {self.code})"


class TooManyPending(ClientError):
    """
    C{max_pending} requests wait for answers already, or as many packets for the
    network.

    Nothing was sent; the call may be repeated later.
    """


class Superseded(ClientError):
    """
    A later C{bind_user} or C{unbind_user} took the place of this bind before it was
    sent.
    """


class BadRequest(ClientError, ValueError):
    """
    The arguments of the call are of no use, for instance a blank user id.
    """
