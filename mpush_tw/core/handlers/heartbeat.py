"""
HEARTBEAT: answered in any state, at once (server 8.1).
"""

from __future__ import annotations

from mpush_tw.core.connection import Connection
from mpush_tw.core.log import NodeLog
from mpush_tw.core.metrics import NodeMetrics


class HeartbeatHandler:
    """
    Sends the heartbeat byte back.
    """

    def __init__(self, log: NodeLog, metrics: NodeMetrics) -> None:
        self._log = log.heartbeat
        self._metrics = metrics

    def heartbeat_received(
        self, connection: Connection, session_id: int, flags: int, body: object
    ) -> None:
        """
        Handle one HEARTBEAT; number, flags and body mean nothing.
        """
        self._metrics.heartbeats += 1
        connection.send_heartbeat()
        if self._log.debug_on:
            self._log.debug("ping -> pong, {conn}", conn=connection)
