"""
What the HTTP proxy needs of the network: names looked up and mapped, and web servers
asked (server 15).
"""
