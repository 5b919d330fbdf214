"""What a process finds when it starts: the published map, and its listening sockets."""
