"""A connection to a shard."""
