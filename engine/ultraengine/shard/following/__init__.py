"""A shard that follows: it executes what is committed, and compares it with its leader."""
