"""
Takes pushes from a Redis stream.
"""

from mpush_stream_source.source import StreamSource

__all__ = ["StreamSource"]
