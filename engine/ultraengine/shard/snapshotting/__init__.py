"""When and how a running shard is snapshotted, and its log cut behind it."""
