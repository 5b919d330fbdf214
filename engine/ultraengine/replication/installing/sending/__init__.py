"""The side of the leader."""
