"""
Tests of the command handlers of the core.
"""
