"""
Tests of the in-process providers.
"""
