"""
The door of pages as an echo server, which is what conformance suites test::

    python -m tests.websocket.echo PORT

It says when it listens. All but what becomes of a message is the node's own: HTTP, the
opening handshake, frames, limits, compression, closing. Text must be UTF-8; binary
messages are echoed too, and messages may be long, because suites send such ones.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import succeed
from twisted.internet.interfaces import IAddress

from mpush_tw.core.defaults import MsgspecJson
from mpush_tw.core.handlers import Dispatcher
from mpush_tw.core.log import NodeLog
from mpush_tw.core.metrics import NodeMetrics
from mpush_tw.core.registry import Admission, Connections
from mpush_tw.core.wheel import TimingWheel
from mpush_tw.transports.web_pages import load_pages
from mpush_tw.transports.websocket import (
    Front,
    WebSocketConnection,
    WebSocketDoor,
    WebSocketFactory,
)
from mpush_tw.transports.write_through import ListeningService, OutboundLimits

LONGEST = 32 << 20


class EchoConnection(WebSocketConnection):
    """
    Sends back what it gets.
    """

    def message_received(self, payload: bytes, is_binary: bool) -> None:
        """
        Take a message.
        """
        engine = self._engine
        if engine is None or not self.connected:
            return
        if is_binary:
            engine.sendMessage(payload, isBinary=True)
            return
        try:
            payload.decode()
        except UnicodeDecodeError:
            self.close("framing")
        else:
            self._write(15, self._frame(payload))


class EchoFactory(WebSocketFactory):
    """
    Accepts whoever comes.
    """

    def buildProtocol(self, addr: IAddress | None) -> Any:
        assert self.door.admission.admit(addr.host) is None  # type: ignore[union-attr]
        return EchoConnection(self.door)


def listen(port: int) -> ListeningService:
    """
    Open the port, on loopback.
    """
    clock: Any = reactor
    log = NodeLog("off", clock)
    metrics = NodeMetrics()
    wheel = TimingWheel(clock)
    door = WebSocketDoor(
        front=Front(b"/", load_pages()),
        connections=Connections(
            wheel, clock, log, metrics, metrics.ws, 600.0, 10_000, 2
        ),
        admission=Admission(10_000, 10_000),
        dispatcher=Dispatcher(log, metrics.ws),
        closed=lambda connection: succeed(None),
        wheel=wheel,
        clock=clock,
        log=log,
        metrics=metrics,
        max_message=LONGEST,
        compress_threshold=0,
        max_missed=2,
        json=MsgspecJson(),
    )
    listener = ListeningService(
        clock,
        port,
        "127.0.0.1",
        EchoFactory(door),
        OutboundLimits(32768, 65536, 2 * LONGEST),
        "port",
    )
    listener.open()
    return listener


if __name__ == "__main__":
    listen(int(sys.argv[1]))
    print("listening", flush=True)
    reactor.run()  # type: ignore[attr-defined]
