"""
The doors of a node, one module each: what opens a port, and the protocol behind it.
"""
