"""Reads of a shard: its state, its outcomes, and first attempts of retries."""
