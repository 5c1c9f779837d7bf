"""
Tests for the providers over Redis, on real servers.
"""
