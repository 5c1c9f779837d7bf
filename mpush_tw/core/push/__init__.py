"""
The push centre: takes requests, finds the connection, reports how it ended (server 14).
"""
