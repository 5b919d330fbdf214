"""Bounded contexts that are shipped with the engine."""
