"""
Tests of the routes of the core.
"""
