"""
Bytes to messages and back, without any I/O.

A client author could lift this room into another framework: nothing in it sees a
transport, a clock, a log or a settings object. Reading order: L{commands}, L{packet},
L{fields}, L{messages}, L{gateway}, L{body}, L{crypto}, L{sessions}, L{json_packet}. The
rules are those of the wire specification, cited as "protocol n.m".
"""
