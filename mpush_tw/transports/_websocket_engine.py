"""
WebSocket as such, by autobahn: the opening handshake, frames that come in, control
frames and closing (RFC 6455, RFC 7692).

Nothing here waits: deadlines and pings are on the node's timing wheel (DESIGN 6), so
that autobahn's own timers are all switched off.
"""

from __future__ import annotations

from typing import Any, Protocol

import txaio
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.util import wildcards2patterns
from autobahn.websocket.compress import (
    PerMessageDeflateOffer,
    PerMessageDeflateOfferAccept,
)
from autobahn.websocket.protocol import TrafficStats

from twisted.internet.interfaces import IReactorTime

_MIN_FRAGMENT = 64
"""
A message may have as many fragments as its longest form has of this length: empty ones,
which no limit of bytes stops, would pile up.
"""

_MAX_WINDOW_BITS = 15

_ONLY_AT_FIRST = (
    "_transport_details",
    "_valid_events",
    "_wskey",
    "http_headers",
    "http_request_data",
    "http_request_host",
    "http_request_params",
    "http_request_path",
    "http_request_uri",
    "http_response_data",
    "http_status_line",
    "is_closed",
    "is_open",
    "utf8validator",
    "websocket_extensions",
    "websocket_extensions_in_use",
    "websocket_origin",
    "websocket_protocols",
)
"""
What an engine holds and does not need once it is open: requests, the Deferreds that
autobahn fires when it opens and closes, and so on.
"""


class FrameUser(Protocol):
    """
    Who is told what came over a WebSocket.
    """

    @property
    def waiting(self) -> bool:
        """
        Whether the next message must wait; L{WebSocketEngine.go_on} when it no longer
        must.
        """

    def message_received(self, payload: bytes, is_binary: bool) -> None:
        """
        A whole message has come.

        @param payload: Of a text message, these are its bytes, not yet checked.
        """

    def close_sent(self, code: int | None, reason: str, is_reply: bool) -> None:
        """
        A close frame was written: nothing more is written, nor reported.

        @param is_reply: Whether the peer began.
        """


class EngineFactory(WebSocketServerFactory):
    """
    What all engines of a door share.

    @ivar max_fragments: Most frames of a message.
    @ivar traffic: What autobahn counts; nobody reads it.
    """

    def __init__(self, clock: IReactorTime, max_message: int) -> None:
        """
        @param max_message: Longest message, in bytes after inflating; also the longest
            frame.
        """
        super().__init__(  # type: ignore[no-untyped-call]
            reactor=clock, server="mpush_tw"
        )
        self.max_fragments = max_message // _MIN_FRAGMENT + 1
        self.traffic = TrafficStats()  # type: ignore[no-untyped-call]
        self.setProtocolOptions(  # type: ignore[no-untyped-call]
            maxFramePayloadSize=max_message, maxMessagePayloadSize=max_message
        )


class WebSocketEngine(WebSocketServerProtocol):
    """
    One WebSocket, from its opening request on.

    @ivar window_bits: Of the compression that was agreed on, 9 to 15; 0 for none.
    """

    log = txaio.make_logger(level="none")  # type: ignore[attr-defined]

    # What autobahn copies from the factory into each engine, and writes into a log line
    # that nobody sees; that line would take half the time of an opening.
    CONFIG_ATTRS = ["maxFramePayloadSize", "maxMessagePayloadSize"]

    # All its other settings: they are the same for all engines.
    versions = [13]
    webStatus = False
    logOctets = False
    logFrames = False
    trackTimings = False
    # Whole messages are checked when they are decoded, which is faster.
    utf8validateIncoming = False
    requireMaskedClientFrames = True
    maskServerFrames = False
    applyMask = True
    autoFragmentSize = 0
    failByDrop = False
    echoCloseCodeReason = True
    openHandshakeTimeout = 0
    closeHandshakeTimeout = 0
    autoPingInterval = 0
    autoPingTimeout = 0
    autoPingSize = 12
    autoPingRestartOnAnyTraffic = False
    tcpNoDelay = True
    serveFlashSocketPolicy = False
    flashSocketPolicy = ""
    allowedOrigins = ["*"]
    allowedOriginsPatterns = wildcards2patterns(  # type: ignore[no-untyped-call]
        allowedOrigins
    )
    allowNullOrigin = True
    maxConnections = 0
    trustXForwardedFor = 0

    def __init__(self, factory: EngineFactory, user: FrameUser) -> None:
        super().__init__()
        self.factory = factory
        self._max_fragments = factory.max_fragments
        self._traffic = factory.traffic
        self.window_bits = 0
        self._user = user
        self._fragments = 0

    def open(self, transport: Any, key: str, offers: str) -> bool:
        """
        Answer the opening request. What it is about has been decided: autobahn gets a
        request without everything that is no longer of interest.

        @param key: Value of C{Sec-WebSocket-Key}.
        @param offers: Value of C{Sec-WebSocket-Extensions}; empty for none.
        @return: Whether the WebSocket is open. If not, autobahn has answered.
        """
        self.makeConnection(transport)  # type: ignore[no-untyped-call]
        lines = [
            "GET / HTTP/1.1",
            "Host: localhost",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
        ]
        if offers:
            lines.append(f"Sec-WebSocket-Extensions: {offers}")
        self.dataReceived("\r\n".join([*lines, "", ""]).encode("latin-1"))
        self._forget_opening()
        return bool(self.state == self.STATE_OPEN)

    def _forget_opening(self) -> None:
        """
        Drop what only the opening needed, and have the rest in as little space as it
        takes: there are tens of thousands of engines.
        """
        kept = vars(self)
        for name in _ONLY_AT_FIRST:
            kept.pop(name, None)
        kept["send_queue"] = ()
        kept["trafficStats"] = self._traffic
        self.__dict__ = dict(kept)

    def go_on(self) -> None:
        """
        Report the messages that had to wait.
        """
        self.consumeData()

    def dataReceived(self, data: bytes) -> None:
        """
        Take what has come; autobahn's own method describes it for its log first.
        """
        self._dataReceived(data)

    # ------------------------------------------------------ called by autobahn

    def perMessageCompressionAccept(
        self, offers: list[Any]
    ) -> PerMessageDeflateOfferAccept | None:
        """
        Choose the compression. Neither side keeps a window from message to message: it
        would cost some 300 KiB for each connection (RFC 7692 7.1.1).
        """
        for offer in offers:
            if isinstance(offer, PerMessageDeflateOffer):
                self.window_bits = offer.request_max_window_bits or _MAX_WINDOW_BITS
                return PerMessageDeflateOfferAccept(  # type: ignore[no-untyped-call]
                    offer, request_no_context_takeover=True, no_context_takeover=True
                )
        return None

    def processData(self) -> bool:
        """
        Called again and again for what has arrived, until it says that this is enough.
        """
        if self.state != self.STATE_OPEN:
            # Once a close frame was sent, whatever the peer says is not listened to.
            self.data = b""
            return False
        if self._user.waiting:
            return False
        return super().processData()

    def onMessageBegin(self, isBinary: bool) -> None:
        self._fragments = 0
        super().onMessageBegin(isBinary)

    def onMessageFrameBegin(self, length: int) -> None:
        self._fragments += 1
        super().onMessageFrameBegin(length)
        if self._fragments > self._max_fragments and not self.failedByMe:
            self.failedByMe = True
            self.sendCloseFrame(
                self.CLOSE_STATUS_CODE_MESSAGE_TOO_BIG, b"too many fragments"
            )

    def onMessageEnd(self) -> None:
        payload, self.message_data = b"".join(self.message_data), []
        if self._perMessageCompress is not None:
            # Made anew for each message; an idle connection shall not hold one.
            self._perMessageCompress._decompressor = None
        if not self.failedByMe:
            self._user.message_received(payload, self.message_is_binary)

    def sendCloseFrame(
        self,
        code: int | None = None,
        reasonUtf8: bytes | None = None,
        isReply: bool = False,
    ) -> None:
        """
        Called when the peer closes or has broken a rule, and by whoever wants to close.
        """
        was_open = self.state == self.STATE_OPEN
        super().sendCloseFrame(code, reasonUtf8, isReply)
        if was_open:
            self._user.close_sent(code, (reasonUtf8 or b"").decode(), isReply)

    def dropConnection(self, abort: bool = False) -> None:
        """
        Called when nothing more is to be written. How the connection ends is the user's
        affair: autobahn would abort it, and a peer that still sends would never read
        what was written last.
        """
