"""
The exception families. The family says what to do, the class what happened.
"""

from __future__ import annotations

from enum import Enum


class MPushError(Exception):
    """
    Root of everything that this package raises on purpose.
    """


class ProtocolError(MPushError):
    """
    The peer sent something that the wire specification does not allow.

    Raised by L{mpush_tw.protocol}; caught by the doors, which answer with the
    packet that the wire has for the case (ERROR 100, or nothing for broken
    framing) and close that one connection.
    """


class ConfigError(MPushError):
    """
    The configuration cannot be used; the process refuses to start.

    Raised while settings are read and while the service is composed, before any
    port opens. C{twistd} and C{mpush} print it as one sentence and exit with
    status 1.

    @ivar key: The dotted key at fault, or an empty string when no single key is.
    @ivar problem: What was found and what was expected.
    @ivar source: The file, option or variable that held the value, or an empty
        string.
    """

    def __init__(self, key: str, problem: str, source: str = "") -> None:
        super().__init__(key, problem, source)
        self.key = key
        self.problem = problem
        self.source = source

    def __str__(self) -> str:
        where = f" (in {self.source})" if self.source else ""
        return (
            f"{self.key}: {self.problem}{where}"
            if self.key
            else (f"{self.problem}{where}")
        )


class Unavailable(MPushError):
    """
    Something this node depends on is down for now; the call may be repeated.

    Raised by storage, registry and gateway clients; caught where a peer can be
    told (BIND answers C{bind failed}, a push ends as failure).

    @ivar retry_after: Seconds after which a repetition makes sense.
    """

    def __init__(self, what: str, retry_after: float = 1.0) -> None:
        super().__init__(what)
        self.retry_after = retry_after


class PushError(MPushError):
    """
    This one message cannot be pushed; the node is well.

    Raised by the sending side for empty content, oversize content and wrong
    arguments, before anything is sent.
    """


class NotConnected(MPushError):
    """
    The device client has no usable connection for what was asked of it.

    Fails the Deferreds of L{mpush_tw.client}; the client goes on reconnecting.
    """


class FetchProblem(Enum):
    """
    Why an HTTP request of the proxy has no answer that a device could be given.
    """

    NOT_CONNECTED = "no connection"
    NOT_SENT = "the request was not sent"
    BROKEN = "the connection ended before the response did"
    UNREADABLE = "the response is not HTTP"
    MALFORMED = "the response breaks the rules of HTTP"
    TOO_LARGE = "the response is too large"
    OVERLOADED = "too much is being received"


class FetchError(MPushError):
    """
    A web server could not be asked, or its answer not be used.

    Raised by L{IHttpFetcher<mpush_tw.interfaces.IHttpFetcher>}; the HTTP proxy answers
    the device with a status that goes by C{problem} (server 15.3).

    @ivar problem: What happened.
    """

    def __init__(self, problem: FetchProblem, details: str = "") -> None:
        super().__init__(f"{problem.value}: {details}" if details else problem.value)
        self.problem = problem
