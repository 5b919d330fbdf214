"""A front as a process: what it is told, how its parts are joined, how it ends.

settings.py   ULTRA_* of `ultra gateway`, and the addresses of shards
driver.py     the process
"""
