"""
What the server knows and does, whichever door a packet came through.

Reading order: L{connection}, L{wheel}, L{registry}, L{handlers}, L{routing}, L{push}.
The core uses Deferreds, takes its clock as an argument, and never sees a transport, a
reactor or a settings object.
"""
