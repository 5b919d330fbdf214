"""Proving a target: the same tables, built from the log beside those that serve.

driver.py   builds, waits for a common position, compares, and drops what it built
"""
