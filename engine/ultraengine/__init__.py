"""UltraEngine: a durable, deterministic, in-memory OLTP engine.

A command walks down the packages of this directory: gateway, router, shard,
log, execution, snapshot, reply, feed.  `docs/architecture.md` follows one.
"""

__version__ = "0.1.0"
