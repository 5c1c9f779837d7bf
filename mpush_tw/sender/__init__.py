"""
The sending side: business systems push to users through the gateways of the nodes.

L{PushSender} is the whole of it: a pool of gateway connections, and C{send},
C{send_all} and C{broadcast}, which answer with what became of the message (cluster 7).
For programs without a reactor there is L{mpush_tw.sender.blocking}. Reading order:
L{context}, L{result}, L{audience}, L{trace}, L{directory}, L{_pool}, L{_link},
L{_request}, L{_batch}, L{_broadcast}, L{_queries}, L{_questions}, L{push_sender}, and
L{mpush_tw.sender.cluster}, which knows the gateways and routes of a cluster.
"""

from mpush_tw.broadcast_task import IBroadcastTask
from mpush_tw.protocol.broadcasts import BroadcastCounts
from mpush_tw.sender._batch import Batch
from mpush_tw.sender.audience import (
    AudienceCount,
    BroadcastResult,
    NodeAudience,
    NodeBroadcast,
    Wait,
)
from mpush_tw.sender.context import AckModel, PushContext, PushMsg
from mpush_tw.sender.directory import IGatewayDirectory, Route, StaticGateways
from mpush_tw.sender.push_sender import PushSender
from mpush_tw.sender.result import AggregateResult, PushResult, ResultCode
from mpush_tw.sender.trace import Milestone, Trace, TracedPush

__all__ = [
    "AckModel",
    "AggregateResult",
    "AudienceCount",
    "Batch",
    "BroadcastCounts",
    "BroadcastResult",
    "IBroadcastTask",
    "IGatewayDirectory",
    "Milestone",
    "NodeAudience",
    "NodeBroadcast",
    "PushContext",
    "PushMsg",
    "PushResult",
    "PushSender",
    "ResultCode",
    "Route",
    "StaticGateways",
    "Trace",
    "TracedPush",
    "Wait",
]
