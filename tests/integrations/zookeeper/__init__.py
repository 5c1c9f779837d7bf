"""
Tests for L{mpush_tw.integrations.zookeeper}, most of them on a real server.
"""
