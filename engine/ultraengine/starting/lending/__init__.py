"""What a shard lends to a candidate: the files that its log can be decided again from."""
