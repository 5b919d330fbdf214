"""Reading ahead of a target: groups of one shard, as far as there is room.

driver.py   the task that reads
"""
