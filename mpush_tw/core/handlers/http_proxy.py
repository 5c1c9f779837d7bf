"""
HTTP_PROXY while the proxy is switched off: an HTTP answer, and the connection stays
(DESIGN 5.9, 5a).
"""

from __future__ import annotations

from mpush_tw.core.connection import Connection
from mpush_tw.protocol.messages import HttpResponse


def proxy_is_off(
    connection: Connection, session_id: int, flags: int, body: object
) -> None:
    """
    Answer one HTTP_PROXY request with 503, whatever it asks for.
    """
    connection.answer(session_id, HttpResponse(503, "Service Unavailable"))
