"""
Asking another node to kick: over the message queue (cluster 5.2).

Nodes whose gateway is UDP ask by datagram instead, see
L{mpush_tw.transports.gateway_udp}; what the asked node does is the same, and is
L{mpush_tw.core.routing.router.Router.kick_requested}.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mpush_tw.core.log import NodeLog
from mpush_tw.core.routing.remote import NodeIdentity
from mpush_tw.errors import ProtocolError
from mpush_tw.interfaces import IMessageQueue
from mpush_tw.protocol.gateway import GatewayKick

_TOPIC = "/mpush/kick/"


def kick_topic(host: str, port: int) -> str:
    """
    Name the topic on which a node with this gateway address is asked.
    """
    return f"{_TOPIC}{host}:{port}"


class KickMessages:
    """
    The kick topic of this node, and those of others.
    """

    def __init__(
        self,
        queue: IMessageQueue,
        identity: NodeIdentity,
        received: Callable[[GatewayKick], object],
        log: NodeLog,
    ) -> None:
        """
        @param received: Called with what this node is asked.
        """
        self._queue = queue
        self._identity = identity
        self._received = received
        self._log = log.conn

    def listen(self) -> Deferred[None]:
        """
        Subscribe to this node's topic; the gateway port is known by then.
        """
        return self._queue.subscribe(
            kick_topic(self._identity.host, self._identity.port), self._text_received
        )

    def send(self, kick: GatewayKick) -> None:
        """
        Ask the node that the message names. When the queue is away that node keeps the
        connection, and learns of the new route when it next reads it.
        """
        assert kick.target_server is not None
        sending = self._queue.publish(
            kick_topic(kick.target_server, kick.target_port), kick.to_json_text()
        )

        def failed(failure: Failure) -> None:
            self._log.error(
                "kick request not sent, msg={kick}: {error}",
                kick=str(kick),
                error=failure.value,
            )

        sending.addErrback(failed)

    def _text_received(self, topic: str, text: str) -> None:
        try:
            kick = GatewayKick.from_json_text(text)
        except ProtocolError as error:
            self._log.warn(
                "receive an error kick message on {topic}: {error}",
                topic=topic,
                error=error,
            )
            return
        self._log.info("receive kick msg={kick}", kick=str(kick))
        self._received(kick)
