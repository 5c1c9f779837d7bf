"""
Makes the handler known to every mpush_tw node of this installation.
"""

from mpush_tw.extensions import Extension
from mpush_tw.interfaces import IUpstreamHandler

stream_upstream = Extension(
    IUpstreamHandler,
    "redis-stream-upstream",
    "mpush_stream_upstream.handler.StreamUpstream",
)
