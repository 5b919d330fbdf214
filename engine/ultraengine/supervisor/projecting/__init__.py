"""SQL beside an engine of `ultra dev`: a projection worker on a SQLite file of the data directory.

driver.py   the worker's process, from the moment the engine serves until it stops
"""
