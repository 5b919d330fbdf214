"""Linearizable reads: a leader asks whether it still leads before it answers."""
