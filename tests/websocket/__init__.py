"""
WebSocket as such: the rules of RFC 6455 and RFC 7692 against a running node.
"""
