"""
The load that C{mpush bench} puts on a node.

Reading order: L{devices} (connections in one process), L{fleet} (many such processes),
L{gateway} (the sender's side), L{target} (the node that is measured), L{runs} (the
measurements), L{report} (what is printed and written).

Plain sockets and C{epoll}, no reactor: a generator must cost less than what it
measures.
"""
