"""A process that another one has started and keeps running.

driver.py   starts it, starts it again when it ends, and stops it
"""
