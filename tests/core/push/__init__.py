"""
Tests of the push centre of the core.
"""
