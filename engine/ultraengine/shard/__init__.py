"""One shard: the single writer that orders, logs and executes commands.

`machine.py` decides (values in, effects out); `driver.py` waits, writes and answers.
"""
