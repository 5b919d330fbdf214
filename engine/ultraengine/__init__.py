"""UltraEngine: a durable, deterministic, in-memory OLTP engine.

A command walks down the packages of this directory: gateway, router, shard,
log, execution, snapshot, reply, feed.  `docs/architecture.md` follows one.
"""

# First: it decides whether modules that are imported later find their compiled parts.
from ultraengine import compiled as compiled

__version__ = "0.1.0"
