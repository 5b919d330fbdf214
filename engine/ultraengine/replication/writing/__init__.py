"""The log and the promise of a replica on its disk."""
