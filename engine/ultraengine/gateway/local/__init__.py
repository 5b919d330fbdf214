"""What an administrator may ask of the shard in this process."""
