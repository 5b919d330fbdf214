"""Several shards on one machine: a front and one process for each shard (docs/cli.md, `ultra dev`).

layout.py       what a data directory holds, and whether it is what was asked for
environment.py  the settings of a shard's process
restarts.py     how long to wait before a process that ended is started again
child/          one process, started again whenever it ends
projecting/     the projection worker beside an engine
driver.py       processes of shards, and the front before them
"""
