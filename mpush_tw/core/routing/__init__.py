"""
Who is where: the connections of this node, the routes of the cluster, and the order in
which both change (server 11, 12).
"""
