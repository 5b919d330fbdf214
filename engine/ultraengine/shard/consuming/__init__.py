"""The consumer slots of a running shard: confirmations become commands of its log."""
