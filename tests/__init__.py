"""
The tests of mpush_tw; they mirror the package, one directory a room.
"""
