"""A planned change of the leader: who takes over, when its swap may be sent, how it ended."""
