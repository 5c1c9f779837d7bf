"""
The shared store and the message queue of a cluster, in Redis: a single server, a master
watched over by sentinels, or a Redis Cluster (cluster 2).
"""

from mpush_tw.integrations.redis.cache import RedisCache
from mpush_tw.integrations.redis.queue import RedisQueue

__all__ = ["RedisCache", "RedisQueue"]
