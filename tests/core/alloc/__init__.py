"""
Tests for L{mpush_tw.core.alloc}.
"""
