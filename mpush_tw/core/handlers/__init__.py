"""
What the server does with each command of a device (server 8), one module a command, and
the table that leads to them.
"""

from mpush_tw.core.handlers.dispatcher import Dispatcher, Handler

__all__ = ["Dispatcher", "Handler"]
