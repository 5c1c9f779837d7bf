"""
The registry of a cluster on ZooKeeper (cluster 3).

L{_kazoo} is the only module that knows the library; L{_client} makes Deferreds of it,
L{_registrations} keeps this process's nodes where they are, L{_watches} sees
everybody's, and L{registry} puts them together.
"""

from mpush_tw.integrations.zookeeper.registry import ZooKeeperRegistry

__all__ = ["ZooKeeperRegistry"]
