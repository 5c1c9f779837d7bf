"""
Writes what devices push into a Redis stream.
"""

from mpush_stream_upstream.handler import StreamUpstream

__all__ = ["StreamUpstream"]
