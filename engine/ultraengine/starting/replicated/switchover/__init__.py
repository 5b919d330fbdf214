"""A planned change of the leader, by request and before a stop."""
