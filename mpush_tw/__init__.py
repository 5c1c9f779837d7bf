"""
mpush_tw: a self-hosted push server on Twisted that speaks the MPush protocol.

The rooms, in reading order: L{mpush_tw.protocol} (bytes and messages, no I/O),
L{mpush_tw.core} (what the server knows and does), L{mpush_tw.transports} (the
doors), L{mpush_tw.integrations} (providers of the storage interfaces),
L{mpush_tw.sender} and L{mpush_tw.client} (the two SDKs), L{mpush_tw.cli} (the
C{mpush} command) and L{mpush_tw.service} (where all is put together).
"""

__version__ = "0.9.0"
