"""
The HTTP proxy as a whole: devices, a node, an nginx, and web servers that misbehave.

    python -m tests.web [--requests 10000] [--devices 200]
"""
