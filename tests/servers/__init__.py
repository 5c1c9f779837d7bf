"""
Real servers for tests: started by the test that needs them, on free ports of
127.0.0.1 and in temporary directories, and stopped by it.
"""
