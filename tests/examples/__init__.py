"""
Tests for the programs and plug-ins in C{examples/}.
"""
