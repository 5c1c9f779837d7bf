"""
Providers of the storage, messaging and registry interfaces.

They know L{mpush_tw.interfaces} and nothing of the core or the doors.
"""
