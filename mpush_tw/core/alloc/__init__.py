"""
What the alloc service knows: which servers there are, how many users each has, and in
which order a client should try them (services A4, A8, DESIGN 5.14).

Reading order: L{servers}, L{strategies}, L{registered}, L{counts}, L{allocation};
L{orders} for test pushes. The door to it is L{mpush_tw.transports.alloc}.
"""

from mpush_tw.core.alloc.allocation import Allocation, Listed
from mpush_tw.core.alloc.orders import (
    PUSH_TIMEOUT,
    BadOrder,
    Pusher,
    PushOrder,
    PushOrders,
)
from mpush_tw.core.alloc.servers import (
    CONNECT_SERVERS,
    ONLINE_KEY,
    ONLINE_LISTS,
    WEBSOCKET_SERVERS,
    Server,
    registered_attributes,
)
from mpush_tw.core.alloc.strategies import Strategy, make_strategy

__all__ = [
    "CONNECT_SERVERS",
    "ONLINE_KEY",
    "ONLINE_LISTS",
    "PUSH_TIMEOUT",
    "WEBSOCKET_SERVERS",
    "Allocation",
    "BadOrder",
    "Listed",
    "PushOrder",
    "PushOrders",
    "Pusher",
    "Server",
    "Strategy",
    "make_strategy",
    "registered_attributes",
]
