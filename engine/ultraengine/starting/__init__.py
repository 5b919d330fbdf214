"""What a process finds when it starts: its keys, the published map, its listening sockets."""
