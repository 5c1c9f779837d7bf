"""
In-process providers: a whole node runs on them, with nothing installed beside it.
"""

from mpush_tw.integrations.memory.cache import MemoryCache
from mpush_tw.integrations.memory.queue import MemoryQueue
from mpush_tw.integrations.memory.registry import MemoryRegistry

__all__ = ["MemoryCache", "MemoryQueue", "MemoryRegistry"]
