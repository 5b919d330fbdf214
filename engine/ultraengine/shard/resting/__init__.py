"""Waiting until a shard is at rest."""
