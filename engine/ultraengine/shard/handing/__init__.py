"""How a running shard hands slots over and takes them: the waiting around `shard.slot_moves`."""
