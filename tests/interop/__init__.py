"""
Our nodes, senders and devices together with the published Java original, in one Redis
and one ZooKeeper: the checks of cluster 12.2.

C{java/} holds the drivers that let Python steer the original, L{build} builds them,
L{processes} runs them, L{ours} gives our programs the same surface, L{support} puts all
into a cluster. A small part is run with every test run (L{test_smoke}), all of
it by C{make interop}.
"""
