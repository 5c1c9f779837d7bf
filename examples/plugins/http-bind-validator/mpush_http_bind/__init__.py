"""
Asks an HTTP backend whether a device may become a user's.
"""

from mpush_http_bind.validator import HttpBindValidator

__all__ = ["HttpBindValidator"]
