"""
Makes the source known to every mpush_tw node of this installation.
"""

from mpush_tw.extensions import Extension
from mpush_tw.interfaces import IPushListener

stream_source = Extension(
    IPushListener, "redis-stream-source", "mpush_stream_source.source.StreamSource"
)
