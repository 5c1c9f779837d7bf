"""
The device side: a client that keeps one connection to an MPush server.

L{Client} is made from L{ClientSettings} and told to C{start}; from then on it connects,
shakes hands, binds its user, answers for its messages and comes back after every
interruption, until told to C{stop}. What happens is told to an L{IClientListener}.

The room stands beside the doors: it uses L{mpush_tw.protocol} and nothing of the
server. Reading order: L{settings}, L{listener}, L{errors}, L{storage}, L{servers},
L{backoff}, L{http}, C{_requests}, C{_connection}, L{client}, L{blocking}.
"""

from __future__ import annotations

from mpush_tw.client.client import Client, ClientState
from mpush_tw.client.errors import (
    BadPacket,
    BadRequest,
    ClientError,
    Disconnected,
    Refused,
    Superseded,
    TimedOut,
    TooManyPending,
)
from mpush_tw.client.http import HttpAnswer
from mpush_tw.client.listener import (
    ClientListener,
    IClientListener,
    JavaStyleListener,
)
from mpush_tw.client.servers import ServerAddress
from mpush_tw.client.settings import (
    AckModel,
    ClientSettings,
    KickPolicy,
    OnHandshakeRefused,
    Reconnect,
)
from mpush_tw.client.storage import (
    FileSessionStorage,
    ISessionStorage,
    MemorySessionStorage,
)

__all__ = [
    "AckModel",
    "BadPacket",
    "BadRequest",
    "Client",
    "ClientError",
    "ClientListener",
    "ClientSettings",
    "ClientState",
    "Disconnected",
    "FileSessionStorage",
    "HttpAnswer",
    "IClientListener",
    "ISessionStorage",
    "JavaStyleListener",
    "KickPolicy",
    "MemorySessionStorage",
    "OnHandshakeRefused",
    "Reconnect",
    "Refused",
    "ServerAddress",
    "Superseded",
    "TimedOut",
    "TooManyPending",
]
