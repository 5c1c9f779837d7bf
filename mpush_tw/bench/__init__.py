"""
The load that C{mpush bench} puts on a node.

Reading order: L{devices} (connections in one process), L{fleet} (many such processes),
L{gateway} (the sender's side), L{target} (the node that is measured), L{runs} (the
measurements), L{report} (what is printed and written).

L{drill} asks another question: whether a cluster loses anything when it loses a node.
Its parts are L{node}, L{crowd} and L{ledger}, L{losses} puts them together; it runs on
the reactor, with real clients.

The measuring ones use plain sockets and C{epoll}, no reactor: a generator must cost
less than what it measures.
"""
