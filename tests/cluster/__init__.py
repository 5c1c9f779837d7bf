"""
A cluster on real Redis and ZooKeeper servers: what it writes, what it survives, and
what it loses when it loses a node.

Reading order: C{support} (the cluster of a test), C{commands} and
C{test_command_stream} (the recording of the original against ours), the failures one
by one, C{test_drill} (a node is killed under load), C{campaign} (all of it, larger).
"""
