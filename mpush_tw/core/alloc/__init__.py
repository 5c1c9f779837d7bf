"""
What the alloc service knows: which servers there are, how many users each has, and in
which order a client should try them (services A4, A8, DESIGN 5.14).

Reading order: L{servers}, L{strategies}, L{registered}, L{counts}, L{allocation}. The
door to it is L{mpush_tw.transports.alloc}.
"""

from mpush_tw.core.alloc.allocation import Allocation, Listed
from mpush_tw.core.alloc.servers import (
    CONNECT_SERVERS,
    ONLINE_KEY,
    ONLINE_LISTS,
    WEBSOCKET_SERVERS,
    Server,
)
from mpush_tw.core.alloc.strategies import Strategy, make_strategy

__all__ = [
    "CONNECT_SERVERS",
    "ONLINE_KEY",
    "ONLINE_LISTS",
    "WEBSOCKET_SERVERS",
    "Allocation",
    "Listed",
    "Server",
    "Strategy",
    "make_strategy",
]
